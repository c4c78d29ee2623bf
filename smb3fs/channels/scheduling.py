"""Which of several channels a request takes: the one that is expected to answer first.

Theory of operation. A lane is what is known of a channel: the bytes under way on it, the rate at which it has moved
bytes while it was busy, and the time that a small request takes when nothing is in its way. A request is expected back
after that time and after all bytes that are under way on the lane, with its own, have passed at that rate. So data
spread in proportion to what the lanes carry, and a small request never waits behind data if another lane has none.

The rate is measured over stretches of time, and is believed to be lower than it was only if the lane was never idle in
one: what it carried then is what it can. A lane of which nothing is known yet is taken to be as good as the best one,
or it would never be known. Rates count by their square root. For where the lanes share a bottleneck, this machine for
one, each shows just the part that it was given, and would be given more or less by that until one of them had it all;
with the root such a difference gets smaller by itself, and where it is real, the bytes under way tell as much.

The time of a small request is the shortest one seen, which longer ones raise slowly: most of what makes them longer is
this machine's own. What is known of an idle lane is forgotten after a second: it gets the next request, and shows.

Where nothing has come for half a second more than all that is under way should take, by what is known of the lane, the
time beyond that counts as well. So a lane that has stopped gets nothing more, long before it is found to be dead. Less
says nothing: on a busy machine what has come may wait for us that long.

Lanes of a worse class (`standby`) are used only where there is no other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Final

# Seconds after which a rate is taken over, and how much it counts then.
STRETCH: Final = 0.05
WEIGHT: Final = 0.25
# Seconds for which something is known of an idle lane.
REMEMBERED: Final = 1.0
# Seconds without an answer that say nothing of a lane.
PATIENCE: Final = 0.5
# Requests that move no more than this tell the round trip, others the rate; in bytes.
SMALL: Final = 16 * 1024
# What is assumed where nothing is known: bytes a second, and seconds.
FIRST_RATE: Final = 100e6
FIRST_DELAY: Final = 0.0005
# What any request moves beside its data, in bytes.
OVERHEAD: Final = 256


@dataclass(slots=True, eq=False)
class Lane:
    """One channel as the policy sees it. Times are in seconds, whatever clock they are told by."""

    rate: float = 0.0
    delay: float = 0.0
    standby: bool = False
    silence: float = 0.0
    """For how long nothing has come of what is under way, as its owner has seen last."""
    in_flight: int = 0
    requests: int = 0
    moved: int = 0
    _last: float = 0.0
    _since: float = 0.0
    _stretch: int = 0
    _idle: bool = False

    def begin(self, size: int, now: float) -> None:
        """Take notice of a request that is about `size` bytes."""
        if not self.requests:
            self._restart(now)
        self.in_flight += size + OVERHEAD
        self.requests += 1

    def end(self, size: int, began: float, now: float, *, answered: bool = True) -> None:
        """Take notice that it is over, and that its bytes have passed if it was `answered`."""
        alone = self.in_flight == size + OVERHEAD
        self.in_flight -= size + OVERHEAD
        self.requests -= 1
        self._last = now
        if not answered:
            self._restart(now)
            return
        self.moved += size
        if size <= SMALL and alone:
            self.delay = min(now - began, _towards(self.delay, now - began))
        self._stretch += size + OVERHEAD
        self._idle = self._idle or not self.requests
        busy = now - self._since
        if busy >= STRETCH:
            rate = self._stretch / busy
            self.rate = max(self.rate, rate) if self._idle and self.rate else _towards(self.rate, rate)
            self._restart(now)

    def known(self, now: float) -> bool:
        """Whether what was seen of it says something still."""
        return self.requests > 0 or now - self._last < REMEMBERED

    def _restart(self, now: float) -> None:
        """Begin another stretch."""
        self._since, self._stretch, self._idle = now, 0, False


def _towards(known: float, seen: float) -> float:
    """Return what is known after something was seen."""
    return known + (seen - known) * WEIGHT if known else seen


def choose(lanes: Iterable[Lane], size: int, now: float) -> Lane:
    """Return the lane on which a request that is about `size` bytes is answered first; of equals that used least."""
    every = list(lanes)
    usable = [lane for lane in every if not lane.standby] or every
    best_rate = max(lane.rate for lane in usable) or FIRST_RATE
    delays = [lane.delay for lane in usable if lane.delay]
    best_delay = min(delays, default=FIRST_DELAY)

    def expected(lane: Lane) -> tuple[float, int]:
        known = lane.known(now)
        rate, delay = (known and lane.rate) or best_rate, (known and lane.delay) or best_delay
        overdue = max(0.0, lane.silence - PATIENCE - delay - lane.in_flight / rate)
        return delay + overdue + (lane.in_flight + size) / sqrt(rate * best_rate), lane.moved

    return min(usable, key=expected)
