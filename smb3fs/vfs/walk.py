"""Where a program is going that takes the names of a directory one after the other.

Whoever has taken some names that follow each other, in the order in which they are listed or in that of the names
themselves, forwards or backwards, will probably take the next ones. So the next ones may be asked for before they are
needed: a few at first, and twice as many each time that half of them are used up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Heading(NamedTuple):
    """Which way a program goes: through `names`, each of which has its place in `places`, by `step` (1 or -1)."""

    names: list[str]
    places: dict[str, int]
    step: int


class Walk:
    """What is known of a program's way through the names of one directory."""

    __slots__ = ("_first", "_most", "asked_to", "enough", "heading", "last", "orders", "recent", "window")

    def __init__(self, enough: int, first: int, most: int) -> None:
        """`enough` names in a row show a way; the next ones are asked for `first` at a time, and `most` later."""
        self._first, self._most, self.enough = first, most, enough
        # The last names that were taken, and when the last one was.
        self.recent: deque[str] = deque(maxlen=enough)
        self.last = 0.0
        # All names as they are listed and in their own order, once somebody has taken some in a row.
        self.orders: tuple[tuple[list[str], dict[str, int]], ...] | None = None
        self.heading: Heading | None = None
        # How far along the heading names have been asked for, and how many are at a time.
        self.asked_to = 0
        self.window = first

    def rest(self, now: float, pause: float) -> None:
        """Forget the way if it was left off for longer than a pause; something is taken now."""
        if now - self.last > pause:
            self.recent.clear()
            self.heading = None
        self.last = now

    def look(self, listed: list[str]) -> None:
        """Take in which names there are."""
        self.orders = tuple(
            (names, {name: place for place, name in enumerate(names)}) for names in (listed, sorted(listed))
        )
        known = self.orders[0][1]
        self.recent = deque((one for one in self.recent if one in known), maxlen=self.enough)
        self.heading = None

    def knows(self, name: str) -> bool:
        """Whether a name is among those that have an order."""
        return self.orders is not None and name in self.orders[0][1]

    def follow(self, name: str) -> int | None:
        """Take in that a name, the last of `recent`, is taken; its place along the heading, None if there is none.

        The name is known; those before it need not be, which may have been made since the orders were.
        """
        heading = self.heading
        if heading is not None:
            place = heading.places[name]
            before = heading.places.get(self.recent[-2]) if len(self.recent) > 1 else None
            if before is not None and place - before == heading.step:
                return place
            self.heading = None
        if len(self.recent) < self.enough:
            return None
        if not all(self.knows(one) for one in self.recent):
            # One of them is newer than the orders.
            return None
        for names, places in self.orders or ():
            steps = {places[after] - places[before] for before, after in pairwise(self.recent)}
            if steps == {1} or steps == {-1}:
                self.heading = Heading(names, places, steps.pop())
                self.window = self._first
                self.asked_to = places[name]
                return self.asked_to
        return None

    def next_names(self, place: int) -> Iterator[str]:
        """Yield the names to ask for now that the one at a place along the heading is taken."""
        assert self.heading is not None  # noqa: S101 (the caller has followed it)
        names, _, step = self.heading
        waiting = (self.asked_to - place) * step
        if waiting > self.window // 2:
            return
        first = max(waiting, 0) + 1
        for ahead in range(first, self.window + 1):
            at = place + ahead * step
            if not 0 <= at < len(names):
                break
            self.asked_to = at
            yield names[at]
        self.window = min(2 * self.window, self._most)
