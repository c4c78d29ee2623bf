"""The policy in a simulation of links: how far from the best possible it stays. Times are the simulation's."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest

from smb3fs.channels.scheduling import REMEMBERED, Lane, choose

MIB = 1 << 20


@dataclass(eq=False)
class Wire:
    """A link of a rate (bytes a second) and a delay (seconds there and back), that carries one thing at a time."""

    rate: float
    delay: float
    lane: Lane = field(default_factory=Lane)
    free_at: float = 0.0
    carried: int = 0

    def send(self, size: int, now: float) -> float:
        """Return when the answer to what is sent now is in."""
        self.lane.begin(size, now)
        self.free_at = max(now, self.free_at) + size / self.rate
        self.carried += size
        return self.free_at + self.delay


def transfer(wires: list[Wire], total: int, size: int, window: int) -> float:
    """Move `total` bytes in requests of `size`, `window` of them under way; return the seconds that it takes."""
    now, left, number = 0.0, total, 0
    under_way: list[tuple[float, int, Wire, float]] = []
    while left or under_way:
        while left and len(under_way) < window:
            lane = choose((wire.lane for wire in wires), size, now)
            wire = next(wire for wire in wires if wire.lane is lane)
            heapq.heappush(under_way, (wire.send(size, now), number, wire, now))
            number += 1
            left -= size
        now, _, wire, began = heapq.heappop(under_way)
        wire.lane.end(size, began, now)
    return now


@pytest.mark.parametrize(
    ("rates", "delays", "share"),
    [
        ((12.5e6, 12.5e6), (0.001, 0.001), 0.97),
        ((125e6, 125e6), (0.0002, 0.0002), 0.97),
        ((125e6, 125e6, 125e6, 125e6), (0.0005,) * 4, 0.95),
        ((12.5e6, 37.5e6), (0.001, 0.001), 0.95),
        ((1.25e6, 125e6), (0.05, 0.001), 0.9),
        ((125e6, 125e6), (0.0005, 0.02), 0.9),
    ],
    ids=["slow", "fast", "four", "one to three", "one to hundred", "one is far away"],
)
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


def test_equal_links_carry_equal_shares() -> None:
    wires = [Wire(12.5e6, 0.001), Wire(12.5e6, 0.001)]
    transfer(wires, 128 * MIB, MIB, 16)
    assert abs(wires[0].carried - wires[1].carried) <= 8 * MIB


def test_a_small_request_does_not_wait_behind_data() -> None:
    busy, idle = Lane(rate=12.5e6, delay=0.001), Lane(rate=12.5e6, delay=0.001)
    busy.begin(8 * MIB, 0.0)
    assert choose([busy, idle], 0, 0.0) is idle


def test_a_small_request_takes_the_nearer_one() -> None:
    near, far = Lane(rate=12.5e6, delay=0.001), Lane(rate=125e6, delay=0.01)
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
    silent, other = Lane(rate=125e6, delay=0.0001), Lane(rate=12.5e6, delay=0.002)
    silent.begin(0, 0.0)
    other.begin(MIB, 0.0)
    chosen = []
    for step in range(20):
        silent.silence = step / 10
        chosen.append(choose([silent, other], 0, step / 10))
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


def test_a_long_transfer_is_no_silence() -> None:
    long, other = Lane(rate=1.25e6, delay=0.001), Lane(rate=1.25e6, delay=0.001)
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
    assert choose([lame, other], MIB, 1.5 + REMEMBERED) is lame


def test_what_stands_by_is_used_only_where_there_is_nothing_else() -> None:
    standby, used = Lane(standby=True), Lane()
    used.begin(64 * MIB, 0.0)
    assert choose([standby, used], MIB, 0.0) is used
    assert choose([standby], MIB, 0.0) is standby


def test_the_books_are_even_whatever_becomes_of_requests() -> None:
    lane = Lane()
    lane.begin(MIB, 0.0)
    lane.begin(0, 0.0)
    lane.end(MIB, 0.0, 1.0, answered=False)
    lane.end(0, 0.0, 1.0)
    assert (lane.in_flight, lane.requests, lane.moved) == (0, 0, 0)
