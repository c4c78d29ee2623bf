"""The policy in a simulation of links: how far from the best possible it stays. Times are the simulation's."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.channels.scheduling import (
    BLOCK,
    HORIZON,
    LATE,
    LEAST_DIVIDED,
    LEAST_PART,
    LEAST_PIECE,
    PIECE_TIME,
    REMEMBERED,
    Lane,
    choose,
    divide,
    patience,
    spread,
    stand_in,
)
from smb3fs.channels.watching import INTERVAL

KIB = 1 << 10
MIB = 1 << 20
# The window of what is fetched ahead, as the cache has it, and the largest request in it.
WINDOW = 16 * MIB
FIRST_WINDOW = 256 * KIB


@dataclass(eq=False)
class Wire:
    """A link of a rate (bytes a second) and a delay (seconds there and back), that carries one thing at a time.

    `later` has the moments from which on the rate is another one.
    """

    rate: float
    delay: float
    later: Sequence[tuple[float, float]] = ()
    lane: Lane = field(default_factory=Lane)
    free_at: float = 0.0
    carried: int = 0

    def send(self, size: int, now: float) -> float:
        """Return when the answer to what is sent now is in."""
        self.lane.begin(size, now)
        self.free_at = self.passed(max(now, self.free_at), size)
        self.carried += size
        return self.free_at + self.delay

    def passed(self, start: float, size: float) -> float:
        """Return when so many bytes have passed that begin to at `start`."""
        rate = self.rate
        for moment, other in (*self.later, (math.inf, 0.0)):
            if moment > start:
                if rate and start + size / rate <= moment:
                    return start + size / rate
                size -= rate * (moment - start)
                start = moment
            rate = other
        raise AssertionError("it never passes")

    def could_carry(self, seconds: float) -> float:
        """Return how many bytes it can carry at most in so many seconds."""
        marks = [(0.0, self.rate), *self.later, (math.inf, 0.0)]
        spans = itertools.pairwise(marks)
        return sum(rate * max(0.0, min(end, seconds) - start) for (start, rate), (end, _) in spans)


def least_time(wires: Sequence[Wire], total: int) -> float:
    """Return the seconds in which all wires together can carry so much."""
    low, high = 0.0, total / min(wire.rate for wire in wires)
    for _ in range(60):
        middle = (low + high) / 2
        enough = sum(wire.could_carry(middle) for wire in wires) >= total
        low, high = (low, middle) if enough else (middle, high)
    return high


def known(rate: float, delay: float) -> Lane:
    """A lane of which so much was seen a moment ago."""
    lane = Lane()
    lane.begin(MIB, -delay - MIB / rate)
    lane.end(MIB, -delay - MIB / rate, -delay)
    lane.begin(0, -delay)
    lane.end(0, -delay, 0.0)
    return lane


@dataclass
class Processor:
    """What all that comes goes through, in its order: it has a rate, and by chance takes up to `noise` times longer."""

    rate: float = math.inf
    noise: float = 0.0
    free_at: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def passed(self, now: float, size: int) -> float:
        """Return when something is through that comes now."""
        self.free_at = max(now, self.free_at) + size / self.rate * (1 + self.noise * self.chance.random())
        return self.free_at


def transfer(wires: list[Wire], total: int, size: int, window: int, processor: Processor | None = None) -> float:
    """Move `total` bytes in requests of `size`, `window` of them under way; return the seconds that it takes."""
    now, left, number = 0.0, total, 0
    processor = processor or Processor()
    under_way: list[tuple[float, int, Wire, float]] = []
    through: set[int] = set()
    while left or under_way:
        while left and len(under_way) < window:
            lane = choose((wire.lane for wire in wires), size, now)
            wire = next(wire for wire in wires if wire.lane is lane)
            heapq.heappush(under_way, (wire.send(size, now), number, wire, now))
            number += 1
            left -= size
        now, which, wire, began = heapq.heappop(under_way)
        if which in through:
            wire.lane.end(size, began, now)
        else:
            through.add(which)
            heapq.heappush(under_way, (processor.passed(now, size), which, wire, began))
    return now


@dataclass
class Reading:
    """What reading a file in its order was like: how long it took, and the longest wait for the next piece."""

    seconds: float
    stall: float
    largest_flight: float
    again: int
    """How many bytes were asked for twice."""


def read(wires: list[Wire], total: int, processor: Processor | None = None) -> Reading:
    """Read `total` bytes in their order, with a window ahead of the reader, who takes no time himself."""
    processor = processor or Processor()
    now, position, asked, window = 0.0, 0, 0, FIRST_WINDOW
    there: dict[int, int] = {}
    events: list[tuple[float, int, int, Wire, float, bool]] = []
    stall, waits_since, flight = 0.0, 0.0, 0.0
    # What is under way once: where, how many bytes, and when it is late.
    pending: dict[int, tuple[Wire, int, float]] = {}
    looks, again = 0, 0
    while position < total:
        while asked < min(total, position + window):
            most = min(MIB, max(window // 2, 64 * KIB), total - asked)
            lanes = [wire.lane for wire in wires]
            found = spread(lanes, most, now)
            if found is None:
                if asked > position:
                    break
                found = choose(lanes, most, now), most
            wire = next(wire for wire in wires if wire.lane is found[0])
            pending[asked] = wire, found[1], now + patience(lanes, wire.lane, found[1], now)
            heapq.heappush(events, (wire.send(found[1], now), asked, found[1], wire, now, False))
            asked += found[1]
            flight = max(flight, wire.lane.in_flight / wire.rate)
        while (looks + 1) * INTERVAL < events[0][0]:
            looks += 1
            now = looks * INTERVAL
            for offset, (slow, size, late) in tuple(pending.items()):
                lane = stand_in((wire.lane for wire in wires if wire is not slow), size, now) if late < now else None
                if lane is not None:
                    wire = next(wire for wire in wires if wire.lane is lane)
                    heapq.heappush(events, (wire.send(size, now), offset, size, wire, now, False))
                    del pending[offset]
                    again += size
        now, offset, size, wire, began, processed = heapq.heappop(events)
        if not processed:
            heapq.heappush(events, (processor.passed(now, size), offset, size, wire, began, True))
            continue
        wire.lane.end(size, began, now)
        pending.pop(offset, None)
        if offset >= position:
            there[offset] = size
        if position in there:
            stall = max(stall, now - waits_since)
            waits_since = now
            while position in there:
                position += there.pop(position)
            window = min(2 * window, WINDOW)
    return Reading(now, stall, flight, again)


LAYOUTS = [
    ((12.5e6, 12.5e6), (0.001, 0.001), 0.97),
    ((125e6, 125e6), (0.0002, 0.0002), 0.97),
    ((125e6, 125e6, 125e6, 125e6), (0.0005,) * 4, 0.95),
    ((12.5e6, 37.5e6), (0.001, 0.001), 0.95),
    ((1.25e6, 125e6), (0.05, 0.001), 0.9),
    ((125e6, 125e6), (0.0005, 0.02), 0.9),
]
NAMES = ["slow", "fast", "four", "one to three", "one to hundred", "one is far away"]


@pytest.mark.parametrize(("rates", "delays", "share"), LAYOUTS, ids=NAMES)
def test_what_all_links_together_could_carry_is_nearly_reached(
    rates: tuple[float, ...], delays: tuple[float, ...], share: float
) -> None:
    wires = [Wire(rate, delay) for rate, delay in zip(rates, delays, strict=True)]
    transfer(wires, 32 * MIB, MIB, 16)  # of the first requests nobody knows where they are best off
    for wire in wires:
        wire.free_at = 0.0
    total = 512 * MIB
    best = total / sum(rates)
    assert best / transfer(wires, total, MIB, 16) >= share


@pytest.mark.parametrize(("rates", "delays", "share"), LAYOUTS, ids=NAMES)
def test_so_it_is_with_a_file_that_is_read_in_its_order(
    rates: tuple[float, ...], delays: tuple[float, ...], share: float
) -> None:
    wires = [Wire(rate, delay) for rate, delay in zip(rates, delays, strict=True)]
    seen = read(wires, 512 * MIB)
    assert least_time(wires, 512 * MIB) / seen.seconds >= share
    # However large the window is, there is little on each of them.
    assert seen.stall < 0.3
    assert seen.largest_flight < 0.15
    assert seen.again == 0


def test_equal_links_carry_equal_shares() -> None:
    wires = [Wire(12.5e6, 0.001), Wire(12.5e6, 0.001)]
    transfer(wires, 128 * MIB, MIB, 16)
    assert abs(wires[0].carried - wires[1].carried) <= 8 * MIB


def test_a_small_request_does_not_wait_behind_data() -> None:
    busy, idle = known(12.5e6, 0.001), known(12.5e6, 0.001)
    busy.begin(8 * MIB, 0.0)
    assert choose([busy, idle], 0, 0.0) is idle


def test_a_small_request_takes_the_nearer_one() -> None:
    near, far = known(12.5e6, 0.001), known(125e6, 0.01)
    assert choose([far, near], 0, 0.0) is near
    assert choose([far, near], MIB, 0.0) is far


def test_a_lane_that_stalls_attracts_nothing_more() -> None:
    stalled, other = Lane(), Lane()
    for lane in (stalled, other):
        lane.begin(MIB, 0.0)
    chosen = []
    for step in range(50):
        lane = choose([stalled, other], MIB, step / 100)
        chosen.append(lane)
        lane.begin(MIB, step / 100)
        if lane is other:
            other.end(MIB, step / 100, step / 100 + 0.01)
    assert chosen.count(stalled) <= 1


def test_a_small_request_goes_where_answers_come_however_near_the_silent_lane_was() -> None:
    silent, other = known(125e6, 0.0001), known(12.5e6, 0.002)
    silent.begin(0, 0.0)
    other.begin(MIB, 0.0)
    chosen = []
    for step in range(20):
        now = step / 10
        silent.silence = now
        chosen.append(choose([silent, other], 0, now))
        other.end(MIB, now, now + 0.09)
        other.begin(MIB, now + 0.09)
    # At first that may be this machine's own slowness.
    assert chosen == [silent] * 6 + [other] * 14


def test_a_lane_that_becomes_slow_gets_little_within_a_second() -> None:
    wires = [Wire(125e6, 0.001), Wire(125e6, 0.001)]
    transfer(wires, 256 * MIB, MIB, 16)
    slow, fast = wires
    slow.rate = 1.25e6
    before = slow.carried, fast.carried
    seconds = transfer(wires, 1024 * MIB, MIB, 16)
    # It carries what it can, and less than a second's worth of what it could before.
    assert slow.carried - before[0] < 1.25e6 * seconds + 125e6
    assert fast.carried - before[1] > 0.85 * 1024 * MIB


@pytest.mark.parametrize(
    ("rate", "factor"), [(12.5e6, 20), (125e6, 20), (1e9, 20), (125e6, 200)], ids=["100M", "1G", "8G", "to a 200th"]
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_lane_that_becomes_slow_while_a_file_is_read_costs_what_was_on_it(
    rate: float, factor: float, which: int
) -> None:
    seconds = 4.0
    wires = [Wire(rate, 0.001), Wire(rate, 0.001)]
    slow = wires[which]
    slow.later = [(seconds / 3, rate / factor)]
    total = int(rate * seconds / MIB) * MIB
    seen = read(wires, total)
    # What it had to carry when that happened: a tenth of a second's worth by its former rate, or as much as there is.
    # However slowly that would come, it is late in half a second, and comes by the other one.
    lost = min(min(HORIZON + PIECE_TIME, WINDOW / 2 / rate) * factor, LATE + 2 * INTERVAL)
    assert seen.stall <= lost + 0.3
    assert seen.seconds <= least_time(wires, total) / 0.9 + lost
    assert seen.again <= rate * (HORIZON + PIECE_TIME) + MIB


def test_a_lane_that_is_slow_from_the_beginning_costs_a_small_piece_now_and_then() -> None:
    # As fast as a network within one machine, and so slow that the file would take two minutes by it.
    wires = [Wire(0.5e6, 0.001), Wire(1.5e9, 0.0001)]
    seen = read(wires, 64 * MIB)
    assert wires[0].carried <= 256 * KIB
    assert seen.stall < 0.3


def test_a_lane_that_stalls_for_a_while_gets_nothing_meanwhile_and_is_used_again() -> None:
    wires = [Wire(125e6, 0.001, later=[(1.0, 0.0), (2.0, 125e6)]), Wire(125e6, 0.001)]
    total = 640 * MIB
    seen = read(wires, total)
    assert seen.stall < 1.2
    assert wires[0].carried > 0.25 * total
    assert seen.seconds < least_time(wires, total) + 1.0


def test_nothing_is_asked_for_twice_where_all_lanes_wait_alike() -> None:
    # As for a disk that has to wake up: nothing comes from anywhere for three seconds.
    wires = [Wire(125e6, 0.001, later=[(1.0, 0.0), (4.0, 125e6)]) for _ in range(2)]
    assert read(wires, 512 * MIB).again == 0


def test_who_is_idle_or_brings_something_stands_in_for_who_is_late() -> None:
    idle, busy, stuck = known(12.5e6, 0.001), known(12.5e6, 0.001), known(12.5e6, 0.001)
    assert stand_in([idle], LEAST_PIECE, 0.1) is idle
    assert stand_in([], LEAST_PIECE, 0.1) is None
    for lane in (busy, stuck):
        lane.begin(LEAST_PIECE, 0.0)
    busy.begin(LEAST_PIECE, 0.0)
    busy.end(LEAST_PIECE, 0.0, 0.9)
    assert stand_in([stuck], LEAST_PIECE, 1.0) is None
    assert stand_in([stuck, busy], LEAST_PIECE, 1.0) is busy
    busy.begin(8 * MIB, 1.0)
    busy.begin(MIB, 1.0)
    assert stand_in([stuck, busy], LEAST_PIECE, 1.0) is None


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("count", [2, 4])
def test_lanes_that_nothing_but_our_processor_bounds_get_alike_shares(count: int, noise: float) -> None:
    wires = [Wire(3e9, 0.0001) for _ in range(count)]
    seen = read(wires, 512 * MIB, Processor(1e9, noise))
    assert least_time([Wire(1e9, 0.0)], 512 * MIB) * (1 + noise / 2) / seen.seconds >= 0.9
    assert min(wire.carried for wire in wires) > 512 * MIB / count / 3
    wires = [Wire(3e9, 0.0001) for _ in range(count)]
    transfer(wires, 512 * MIB, MIB, 4, Processor(1e9, noise))
    assert min(wire.carried for wire in wires) > 512 * MIB / count / 3


def test_a_long_transfer_is_no_silence() -> None:
    long, other = known(1.25e6, 0.001), known(1.25e6, 0.001)
    long.begin(MIB, 0.0)
    other.begin(2 * MIB, 0.0)
    long.silence = other.silence = 0.8
    assert choose([long, other], MIB, 0.8) is long


def test_what_was_seen_of_an_idle_lane_does_not_keep_it_idle_for_ever() -> None:
    lame, other = Lane(), Lane()
    for lane, seconds in ((lame, 0.5), (other, 0.001)):
        for size in (MIB, 0):
            lane.begin(size, 0.0)
            lane.end(size, 0.0, seconds)
    assert choose([lame, other], MIB, 1.0) is other
    other.begin(0, 1.4)
    assert choose([lame, other], 0, 1.5 + REMEMBERED) is lame
    assert choose([lame, other], MIB, 1.5 + REMEMBERED) is other
    assert choose([lame, other], MIB, 1.5 + 20) is lame


def test_what_stands_by_is_used_only_where_there_is_nothing_else() -> None:
    standby, used = Lane(standby=True), Lane()
    used.begin(64 * MIB, 0.0)
    assert choose([standby, used], MIB, 0.0) is used
    assert choose([standby], MIB, 0.0) is standby


def test_who_does_one_thing_after_the_other_by_one_link_keeps_to_one_connection() -> None:
    lanes = [known(125e6, 0.001), known(125e6, 0.001), known(125e6, 0.001)]
    for lane in lanes[:2]:
        lane.link = "one"
    lanes[2].link = "another"
    for size in (MIB, 0):
        for last in lanes[:2]:
            now = lanes[0].last_used + lanes[1].last_used + 2
            last.begin(size, now)
            # What is under way at a time goes by all of them.
            assert choose(lanes[:2], size, now) is not last
            last.end(size, now, now + 0.01)
            assert {id(choose(lanes[:2], size, now + 0.01 + step / 1000)) for step in range(5)} == {id(last)}
    # It is no reason to keep to one link.
    lanes[2].moved -= 1
    assert choose(lanes, 0, 3.0) is lanes[2]


def test_the_books_are_even_whatever_becomes_of_requests() -> None:
    lane = Lane()
    lane.begin(MIB, 0.0)
    lane.begin(0, 0.0)
    lane.end(MIB, 0.0, 1.0, answered=False)
    lane.end(0, 0.0, 1.0)
    assert (lane.in_flight, lane.requests, lane.moved) == (0, 0, 0)


def write(wires: list[Wire], total: int, size: int = MIB) -> float:
    """Write `total` bytes, so many at a time: what is next is there when all parts have arrived; return the seconds."""
    now = 0.0
    for _ in range(total // size):
        parts = [
            (next(wire for wire in wires if wire.lane is lane), part) for lane, part in divide(lanes(wires), size, now)
        ]
        assert sum(part for _, part in parts) == size
        assert all(part % BLOCK == 0 for _, part in parts)
        began = now
        done = sorted(((wire.send(part, now), wire, part) for wire, part in parts), key=lambda one: one[0])
        for now, wire, part in done:
            wire.lane.end(part, began, now)
    return now


def lanes(wires: Sequence[Wire]) -> list[Lane]:
    """What is known of some links."""
    return [wire.lane for wire in wires]


@pytest.mark.parametrize(
    "rates",
    [(12.5e6,) * 2, (12.5e6,) * 4, (12.5e6, 37.5e6), (37.5e6, 12.5e6), (12.5e6, 25e6, 50e6), (1.25e6, 125e6)],
    ids=["two", "four", "one to three", "three to one", "three kinds", "one to hundred"],
)
def test_one_write_at_a_time_takes_as_long_as_all_links_together_need(rates: tuple[float, ...]) -> None:
    wires = [Wire(rate, 0.0002) for rate in rates]
    write(wires, MIB)  # of the first one nobody knows where it is best off
    for wire in wires:
        wire.free_at = 0.0
    total = 256 * MIB
    assert least_time(wires, total) / write(wires, total) >= 0.9


def test_a_link_that_becomes_slow_has_less_of_each_write_at_once() -> None:
    wires = [Wire(12.5e6, 0.001), Wire(12.5e6, 0.001, later=[(1.0, 12.5e6 / 20)])]
    total = 64 * MIB
    # One part of half a megabyte is on it by then, and it is tried again later.
    lost = MIB / 2 + 2 * LEAST_PIECE
    assert write(wires, total) <= least_time(wires, total) / 0.9 + lost / (12.5e6 / 20)


def test_a_link_that_seemed_slow_for_once_is_used_as_before_soon() -> None:
    wires = [Wire(12.5e6, 0.0002) for _ in range(4)]
    # As when the processor was elsewhere.
    wires[0].lane.begin(LEAST_PIECE, -0.1)
    wires[0].lane.end(LEAST_PIECE, -0.1, -0.05)
    total = 16 * MIB
    assert least_time(wires, total) / write(wires, total) >= 0.85
    assert wires[0].carried > total / 4 * 0.7


def test_what_is_under_way_counts_where_a_write_is_divided() -> None:
    busy, idle = known(12.5e6, 0.001), known(12.5e6, 0.001)
    busy.begin(MIB // 2, 0.0)
    parts = dict(divide([busy, idle], MIB, 0.0))
    assert parts[idle] - parts[busy] == pytest.approx(MIB // 2, abs=2 * BLOCK)
    busy.begin(MIB, 0.0)
    assert divide([busy, idle], MIB, 0.0) == [(idle, MIB)]


@pytest.mark.parametrize(("size", "parts"), [(LEAST_DIVIDED - 1, 1), (LEAST_DIVIDED, 2), (5, 1)])
def test_no_part_is_smaller_than_is_worth_a_request(size: int, parts: int) -> None:
    both = [known(12.5e6, 0.001), known(12.5e6, 0.001)]
    assert [part > 0 for _, part in divide(both, size, 0.0)] == [True] * parts
    slow = known(1e6, 0.001)
    assert all(part >= LEAST_PART for _, part in divide([*both, slow], MIB, 0.0))
    assert slow not in dict(divide([*both, slow], MIB // 2, 0.0))
    # What is there in a millisecond is not divided either.
    quick = [known(1e9, 0.0001), known(1e9, 0.0001)]
    assert len(divide(quick, MIB, 0.0)) == 1


def test_what_was_slow_when_it_was_seen_has_to_tell_with_little() -> None:
    slow, other = known(0.1e6, 0.001), known(12.5e6, 0.001)
    assert divide([slow, other], MIB, 0.1) == [(other, MIB)]
    assert dict(divide([slow, other], MIB, 5.0)) == {slow: LEAST_PIECE, other: MIB - LEAST_PIECE}
    slow.begin(LEAST_PIECE, 5.0)
    assert divide([slow, other], MIB, 5.0) == [(other, MIB)]
    # What was not seen yet is as good as the best.
    assert [part for _, part in divide([Lane(), other], MIB, 0.0)] == pytest.approx([MIB // 2] * 2, abs=20 * KIB)
    # Of two of which nothing is known each takes its half.
    assert sorted(part for _, part in divide([Lane(), Lane()], MIB, 0.0)) == [MIB // 2, MIB // 2]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 64 * MIB),
    st.lists(st.tuples(st.floats(1e5, 1e10), st.floats(1e-5, 0.5), st.integers(0, 8 * MIB)), min_size=1, max_size=6),
)
def test_all_of_a_write_goes_somewhere(size: int, links: list[tuple[float, float, int]]) -> None:
    there = [known(rate, delay) for rate, delay, _ in links]
    for lane, (_, _, flight) in zip(there, links, strict=True):
        lane.begin(flight, 0.0)
    parts = divide(there, size, 0.1)
    assert sum(part for _, part in parts) == size
    assert all(part > 0 for _, part in parts)
    assert len({id(lane) for lane, _ in parts}) == len(parts)
