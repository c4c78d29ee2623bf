"""Which of several channels a request takes: the one that is expected to answer first.

Theory of operation. A lane is what is known of a channel: the bytes under way on it, the rate at which it has moved
data while it had any to move, and the time that a small request takes when nothing is in its way. A request is expected
back after that time and after all bytes that are under way on the lane, with its own, have passed at that rate. So data
spread in proportion to what the lanes carry, and a small request never waits behind data if another lane has none.

The rate is bytes by time, of the time in which there was something to move, however short each spell of it; the last
fifth of a second of that counts. A long answer weighs what it took, so one is enough to know a lane as slow. While an
answer is overdue the lane is believed to be no faster than if all that is under way came just now.

What is asked for in earnest takes rates by their square root. For where the lanes share a bottleneck, this machine for
one, each shows just the part that it was given, and would be given more or less by that until one of them had it all;
with the root such a difference gets smaller by itself, and where it is real, the bytes under way tell as much.

What is known of a lane without data fades: what was seen counts half as much with each second, and it is believed to
be twice as fast, up to the best one. Of a lane that is better by belief than by what was seen, or of which nothing is
known yet, one request has to tell before there is a second one.

What is fetched ahead (`spread`) is given out by time: a piece takes up to 40 milliseconds where it goes, and no lane
gets more than passes in 50, or two pieces. More under way makes nothing faster. It only has others wait for it, and
what comes in its turn, as a file does for its reader, waits for all that is on the slowest lane: so little is there
when one becomes slow, or breaks. Servers do not answer in the order in which they were asked, either.

The time of a small request is the shortest one seen, which longer ones raise slowly: most of what makes them longer is
this machine's own. It is forgotten after a second without any.

Where nothing has come for half a second more than all that is under way should take, by what is known of the lane, the
time beyond that counts as well. So a lane that has stopped gets nothing more, long before it is found to be dead. Less
says nothing: on a busy machine what has come may wait for us that long.

What one program writes at a time is divided (`divide`) so that all parts are there at the same time, by the rates that
are believed in and what is under way already. There is no part that would not be worth a request.

Of several lanes by one link, none of which has anything under way, that one is taken which was used last: a second
connection carries no more then, while the kernels and processors at both ends have the first one's affairs at hand.

What was fetched ahead is late (`patience`) when it has taken half a second, and four times what was expected. Then one
that is well may stand in (`stand_in`): nothing is under way there, or something came a moment ago.

Lanes of a worse class (`standby`) are used only where there is no other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Final

# Seconds of moving data that the rate is taken from.
MEMORY: Final = 0.2
# Seconds for which something is known of the time that a small request takes.
REMEMBERED: Final = 1.0
# How many times better than what was seen a lane without data is believed to be after each second.
HOPE: Final = 2.0
# Seconds after which nothing is left of what was seen.
FADED: Final = 20.0
# Beyond so many times one has to see.
UNPROVEN: Final = 2.0
# Seconds without an answer that say nothing of a lane.
PATIENCE: Final = 0.5
# What was fetched ahead is late after so many seconds, and so many times what was expected; who stands in has answered
# within so many seconds.
LATE: Final = 0.5
LATE_FACTOR: Final = 4
WELL: Final = 0.25
# Requests that move no more than this tell the round trip, others the rate; in bytes.
SMALL: Final = 16 * 1024
# What is assumed where nothing is known: bytes a second, and seconds.
FIRST_RATE: Final = 100e6
FIRST_DELAY: Final = 0.0005
# What any request moves beside its data, in bytes.
OVERHEAD: Final = 256
# What is fetched ahead: seconds that a piece takes, and all that is under way on a lane.
PIECE_TIME: Final = 0.04
HORIZON: Final = 0.05
# The least that is fetched at a time, in bytes; so is what has to tell how good a lane is.
LEAST_PIECE: Final = 64 * 1024
# The least that is divided, in bytes, and of which each lane carries a part; the least of such a part, in bytes and in
# seconds. A lane that was taken for a slow one by mistake shows with that little what it can.
LEAST_DIVIDED: Final = 256 * 1024
LEAST_PART: Final = 32 * 1024
LEAST_PART_TIME: Final = 0.002
# Where parts of it end: what is written in whole blocks stays so.
BLOCK: Final = 4096
# How many pieces may be under way on a lane however long they take: the next one is there when one has come.
PIECES: Final = 2


@dataclass(slots=True, eq=False)
class Lane:
    """One channel as the policy sees it. Times are in seconds, whatever clock they are told by."""

    delay: float = 0.0
    standby: bool = False
    silence: float = 0.0
    """For how long nothing has come of what is under way, as its owner has seen last."""
    in_flight: int = 0
    requests: int = 0
    moved: int = 0
    link: object = None
    """By which way it goes; lanes that have this in common carry no more together than each of them."""
    data_requests: int = 0
    """How many of the requests move data."""
    # When data came last, or the first of what is under way were sent, and whether it was that.
    _since: float = 0.0
    _first: bool = False
    # What was moved lately, and in which time.
    _bytes: float = 0.0
    _seconds: float = 0.0
    _last_small: float = 0.0
    _last_used: float = -inf

    def begin(self, size: int, now: float) -> None:
        """Take notice of a request that is about `size` bytes."""
        if size > SMALL:
            if not self.data_requests:
                idle = now - self._since
                faded = HOPE**-idle if idle < FADED else 0.0
                self._bytes, self._seconds = self._bytes * faded, self._seconds * faded
                self._since, self._first = now, True
            self.data_requests += 1
        self.in_flight += size + OVERHEAD
        self.requests += 1
        self._last_used = now

    def end(self, size: int, began: float, now: float, *, answered: bool = True) -> None:
        """Take notice that it is over, and that its bytes have passed if it was `answered`."""
        # A small one, with nothing else under way when it is over, and no data since it began.
        alone = self.requests == 1 and self._since <= began
        self.in_flight -= size + OVERHEAD
        self.requests -= 1
        self.moved += size if answered else 0
        if size > SMALL:
            self.data_requests -= 1
            if answered:
                self._measure(size, now - self._since)
            self._since, self._first = now, False
        elif answered and alone:
            self.delay = min(now - began, self.delay + (now - began - self.delay) / 4 if self.delay else now - began)
            self._last_small = now

    def _measure(self, size: int, seconds: float) -> None:
        """Take notice that data have come, so long after those before, or after they were asked for."""
        if self._first:
            seconds = max(seconds - self.delay, seconds / 2)
        self._bytes += size
        self._seconds += seconds
        if self._seconds > MEMORY:
            self._bytes *= MEMORY / self._seconds
            self._seconds = MEMORY

    def rate(self, now: float) -> float:
        """Return how many bytes a second it carries, as far as was seen; 0 if nothing was."""
        if not self._seconds:
            return 0.0
        seen = self._bytes / self._seconds
        if not self.data_requests:
            return seen
        waited = max(0.0, now - self._since - (self.delay if self._first else 0.0))
        return min(seen, (self._bytes + self.in_flight) / (self._seconds + waited))

    @property
    def last_used(self) -> float:
        """When something was sent on it last."""
        return self._last_used

    def waited(self, now: float) -> float:
        """Return for how many seconds no data have come that were asked for."""
        return now - self._since if self.data_requests else 0.0

    def hoped(self, now: float) -> float:
        """Return how many times better than that it may be by now."""
        return 1.0 if self.data_requests else HOPE ** min(now - self._since, FADED)

    def known_delay(self, now: float) -> float:
        """Return the time that a small request takes, 0 if that is not known any more."""
        return self.delay if self.requests or now - self._last_small < REMEMBERED else 0.0


@dataclass(slots=True)
class View:
    """A lane beside the others at one moment: what to believe of it."""

    lane: Lane
    rate: float
    delay: float
    proven: bool

    def expected(self, size: int, rate: float = 0.0) -> float:
        """Return the seconds until a request of `size` bytes is answered, at another rate than the lane's if told."""
        lane = self.lane
        overdue = max(0.0, lane.silence - PATIENCE - self.delay - lane.in_flight / self.rate)
        return self.delay + overdue + (lane.in_flight + size) / (rate or self.rate)

    def piece(self, most: int) -> int:
        """Return how many bytes to fetch at a time, a power of two."""
        if not self.proven:
            return min(most, LEAST_PIECE)
        wanted = max(LEAST_PIECE, int(self.rate * PIECE_TIME))
        return min(most, 1 << (wanted.bit_length() - 1))

    def has_room(self, size: int) -> bool:
        """Whether a piece may be fetched ahead here."""
        lane = self.lane
        if lane.data_requests < (PIECES if self.proven else 1):
            return True
        return self.proven and (lane.in_flight + size) / self.rate <= HORIZON + 2 * self.delay


def _views(lanes: Iterable[Lane], now: float) -> list[View]:
    """Look at the lanes that may be used."""
    every = list(lanes)
    usable = [lane for lane in every if not lane.standby] or every
    rates = [lane.rate(now) for lane in usable]
    best = max(rates) or FIRST_RATE
    delays = [lane.known_delay(now) for lane in usable]
    best_delay = min(filter(None, delays), default=FIRST_DELAY)
    views = []
    for lane, rate, delay in zip(usable, rates, delays, strict=True):
        believed = min(rate * lane.hoped(now), best) if rate else best
        views.append(View(lane, believed, delay or best_delay, rate > 0 and believed <= UNPROVEN * rate))
    return views


def choose(lanes: Iterable[Lane], size: int, now: float) -> Lane:
    """Return the lane on which a request that is about `size` bytes is answered first; of equals that used least."""
    views = _views(lanes, now)
    if size > SMALL and any(view.proven for view in views):
        views = [view for view in views if view.proven or not view.lane.data_requests]
    best = max(view.rate for view in views)
    chosen = min(views, key=lambda view: (view.expected(size, sqrt(view.rate * best)), view.lane.moved)).lane
    if chosen.requests or chosen.link is None:
        return chosen
    alike = [view.lane for view in views if view.lane.link == chosen.link and not view.lane.requests]
    return max(alike, key=lambda lane: lane.last_used)


def spread(lanes: Iterable[Lane], most: int, now: float) -> tuple[Lane, int] | None:
    """Return where to fetch what nobody needs yet, and how many bytes of it, at most `most`; None: not now."""
    views = [(view, size) for view in _views(lanes, now) if view.has_room(size := view.piece(most))]
    if not views:
        return None
    best, size = min(views, key=lambda one: (one[0].expected(one[1]), one[0].lane.moved))
    return best.lane, size


def patience(lanes: Iterable[Lane], lane: Lane, size: int, now: float) -> float:
    """Return for how many seconds to wait for what is asked of a lane now, until it is late."""
    expected = next((view.expected(size) for view in _views(lanes, now) if view.lane is lane), 0.0)
    return max(LATE, LATE_FACTOR * expected)


def stand_in(lanes: Iterable[Lane], size: int, now: float) -> Lane | None:
    """Return which of some lanes may be asked for what is late on another one; None: none at present."""
    every = list(lanes)
    views = [view for view in _views(every, now) if view.has_room(size)] if every else []
    well = [view for view in views if not view.lane.data_requests or view.lane.waited(now) < WELL]
    return min(well, key=lambda view: view.expected(size)).lane if well else None


def divide(lanes: Iterable[Lane], size: int, now: float) -> list[tuple[Lane, int]]:
    """Return by which lanes to send `size` bytes, and how many by each, for all of it to be there soonest."""
    views = sorted(_views(lanes, now), key=lambda view: view.expected(0))
    if size < LEAST_DIVIDED:
        return [(views[0].lane, size)]
    while True:
        shares = _level(views, size)
        small = [view for view, share in shares if share < max(LEAST_PART, view.rate * LEAST_PART_TIME)]
        if len(views) == 1 or not small:
            break
        # The one that adds least; what the others get then may be enough.
        views.remove(min(small, key=lambda view: view.rate / (1 + view.expected(0))))
    # What was slow when it was seen has to tell with a little; what was not seen yet is as good as the best.
    known = [(view, share) for view, share in shares if view.proven or not view.lane.rate(now)]
    if known and len(known) < len(shares):
        unknown = [view for view, _ in shares if not view.proven and view.lane.rate(now)]
        probed = [(view, LEAST_PIECE) for view in unknown if not view.lane.data_requests]
        rest = _level([view for view, _ in known], size - LEAST_PIECE * len(probed))
        shares = [*rest, *probed]
    return _in_blocks(shares, size)


def _level(views: list[View], size: int) -> list[tuple[View, float]]:
    """Fill the lanes up, that which is free first before the others, until all have the same to do."""
    rates, ahead, level = 0.0, 0.0, 0.0
    for view in views:
        free = view.expected(0)
        if rates and free >= level:
            break
        rates, ahead = rates + view.rate, ahead + view.rate * free
        level = (size + ahead) / rates
    return [(view, view.rate * (level - view.expected(0))) for view in views if view.expected(0) < level]


def _in_blocks(shares: list[tuple[View, float]], size: int) -> list[tuple[Lane, int]]:
    """Return whole parts; the largest takes what is left over."""
    parts = [(view.lane, int(share) // BLOCK * BLOCK) for view, share in shares]
    largest = max(range(len(parts)), key=lambda index: parts[index][1])
    lane, share = parts[largest]
    parts[largest] = (lane, share + size - sum(part for _, part in parts))
    return [(lane, part) for lane, part in parts if part]
