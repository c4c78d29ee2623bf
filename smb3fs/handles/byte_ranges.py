"""Who has locked which bytes of a file, as POSIX has it: fcntl(2)'s record locks, and flock(2)'s as one range of all.

Ranges are half-open here, [start, end), and those to the end of the file end at `END`. What an owner locks replaces
what it had there before, split and merged as need be; only different owners are in each other's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

# The end of a range that goes to the end of the file, wherever that is: the kernel's OFFSET_MAX is its last byte.
END: Final = 1 << 63


class Lock(NamedTuple):
    """A range that somebody holds; `pid` is whom the kernel named as the process."""

    owner: int
    start: int
    end: int
    exclusive: bool
    pid: int = 0


class RangeLocks:
    """The locks on one file."""

    def __init__(self) -> None:
        # Of each owner in order of their offsets, not overlapping, and merged where they touch and are alike.
        self._held: dict[int, list[Lock]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __iter__(self) -> Iterator[Lock]:
        for locks in self._held.values():
            yield from locks

    def of(self, owner: int) -> list[Lock]:
        """Return what an owner holds."""
        return list(self._held.get(owner, ()))

    def conflicts(self, owner: int, start: int, end: int, *, exclusive: bool) -> list[Lock]:
        """Return what others hold that is in the way of a lock, by its offset."""
        return sorted(
            (
                lock
                for other, locks in self._held.items()
                if other != owner
                for lock in locks
                if lock.start < end and lock.end > start and (exclusive or lock.exclusive)
            ),
            key=lambda lock: lock.start,
        )

    def set(self, lock: Lock) -> None:
        """Enter a lock that nothing is in the way of."""
        self.unset(lock.owner, lock.start, lock.end)
        merged = lock
        rest = []
        for other in self._held.get(lock.owner, ()):
            if other.exclusive == lock.exclusive and other.start <= merged.end and other.end >= merged.start:
                merged = merged._replace(start=min(merged.start, other.start), end=max(merged.end, other.end))
            else:
                rest.append(other)
        self._held[lock.owner] = sorted((*rest, merged), key=lambda one: one.start)

    def unset(self, owner: int, start: int, end: int) -> bool:
        """Take a range from what an owner holds; False if it held nothing of it."""
        changed = False
        kept: list[Lock] = []
        for lock in self._held.get(owner, ()):
            if lock.end <= start or lock.start >= end:
                kept.append(lock)
                continue
            changed = True
            if lock.start < start:
                kept.append(lock._replace(end=start))
            if lock.end > end:
                kept.append(lock._replace(start=end))
        if changed:
            if kept:
                self._held[owner] = kept
            else:
                del self._held[owner]
        return changed

    def drop(self, owner: int) -> bool:
        """Take everything from an owner; False if it held nothing."""
        return self._held.pop(owner, None) is not None

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
