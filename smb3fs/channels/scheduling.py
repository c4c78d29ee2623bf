"""Which of several channels a request takes: the one that is expected to answer first.

Theory of operation. A lane is what is known of a channel: the bytes under way on it, the rate at which it has moved
bytes while it was busy, and the time that a small request takes when nothing is in its way. A request is expected back
after that time and after all bytes that are under way on the lane, with its own, have passed at that rate. So data
spread in proportion to what the lanes carry, and a small request never waits behind data if another lane has none.

The rate is measured over stretches of time in which there was always something under way, so it is that of the link
under load, and a lower bound otherwise. A lane of which nothing is known yet is taken to be as good as the best one, or
it would never be known; and what a lane with one request at a time shows says more of the time than of the rate, so
that a rate is taken over at once where it is higher, and slowly where it is lower.

Lanes of a worse class (`standby`) are used only where there is no other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Seconds of being busy after which a rate is taken over, and how much a lower one counts then.
STRETCH: Final = 0.05
WEIGHT: Final = 0.25
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
    in_flight: int = 0
    requests: int = 0
    moved: int = 0
    _since: float = 0.0
    _stretch: int = 0

    def begin(self, size: int, now: float) -> None:
        """Take notice of a request that is about `size` bytes."""
        if not self.requests:
            self._since, self._stretch = now, 0
        self.in_flight += size + OVERHEAD
        self.requests += 1

    def end(self, size: int, began: float, now: float, *, answered: bool = True) -> None:
        """Take notice that it is over, and that its bytes have passed if it was `answered`."""
        alone = self.in_flight == size + OVERHEAD
        self.in_flight -= size + OVERHEAD
        self.requests -= 1
        if not answered:
            self._since, self._stretch = now, 0
            return
        self.moved += size
        if size <= SMALL and alone:
            self.delay = _towards(self.delay, now - began)
        self._stretch += size + OVERHEAD
        busy = now - self._since
        if busy >= STRETCH:
            rate = self._stretch / busy
            self.rate = max(rate, _towards(self.rate, rate))
            self._since, self._stretch = now, 0


def _towards(known: float, seen: float) -> float:
    """Return what is known after something was seen."""
    return known + (seen - known) * WEIGHT if known else seen


def choose(lanes: Iterable[Lane], size: int) -> Lane:
    """Return the lane on which a request that is about `size` bytes is answered first; of equals the first one."""
    known = list(lanes)
    usable = [lane for lane in known if not lane.standby] or known
    best_rate = max(lane.rate for lane in usable) or FIRST_RATE
    delays = [lane.delay for lane in usable if lane.delay]
    best_delay = min(delays, default=FIRST_DELAY)
    return min(
        usable,
        key=lambda lane: (lane.delay or best_delay) + (lane.in_flight + size) / (lane.rate or best_rate),
    )
