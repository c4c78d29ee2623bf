"""Directories that are kept open with a lease, and with it all that was read of them ([MS-SMB2] 3.3.4.7).

Theory of operation. A directory that is listed is opened with a lease (R and H) in the same message. If the server
grants it, and it still holds when the last entry has come, the handle stays open, and the listing stays true until the
server takes the lease back: another client has created, removed or renamed something in the directory, has changed
attributes of what is in it, or has closed a file in it that it had written to. Changes of our own do not break it,
since they name its key; whoever keeps the listing has to note them.

A break ends it at once. What follows (the kernel is told, then the handle is closed) has to be done before the break is
acknowledged, since somebody may wait to remove or rename the directory. So does a loss of the connection. A directory
whose lease is broken time and again is not kept for a while: to keep it would cost more than it saves.

How many directories are kept is bounded, and how many entries there are in all of them; those that were used last stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Generic, TypeVar

import trio

from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open

T = TypeVar("T")

# Directories, and entries in all of them; an entry takes some 300 bytes.
MOST_DIRECTORIES: Final = 1000
MOST_ENTRIES: Final = 100_000
# A directory with more is read by the page: to keep it would drive out all others.
MOST_ENTRIES_EACH: Final = 25_000
# A lease that was broken within so many seconds was not worth having; the pause after that, first and at most.
SHORT: Final = 2.0
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 16.0
# Of how many directories it is known that their leases are broken often.
MOST_PAUSES: Final = 1000


class CachedDirectory(Generic[T]):
    """A directory that is kept: its number as an inode, its handle, and what is known of it."""

    __slots__ = ("entries", "handle", "known", "lease", "number", "since")

    def __init__(self, number: int, handle: Open, lease: Lease, known: T, entries: int) -> None:
        self.number = number
        self.handle = handle
        self.lease = lease
        self.known = known
        self.entries = entries
        self.since = trio.current_time()


class DirectoryCache(Generic[T]):
    """The directories of one mount that are kept."""

    def __init__(self, leases: LeaseTable, close: Callable[[Open], None]) -> None:
        """`close` queues the CLOSE of a handle."""
        self._close = close
        self._leases = leases
        self._kept: OrderedDict[int, CachedDirectory[T]] = OrderedDict()
        self._by_lease: dict[Lease, CachedDirectory[T]] = {}
        # Broken, and still open until what was begun then has come to its end.
        self._leaving: dict[Lease, tuple[CachedDirectory[T], trio.Event | None]] = {}
        # By number until when a directory is left alone, and how long that was.
        self._pauses: OrderedDict[int, tuple[float, float]] = OrderedDict()
        self.entries = 0
        self.breaks = 0
        self.hits = 0
        # Told at once when a directory is not kept any more; the event comes when the kernel believes in it no longer.
        self.on_drop: Callable[[CachedDirectory[T]], trio.Event | None] = lambda cached: None
        leases.subscribe(self._changed)
        leases.before_acknowledging(self._before_acknowledging)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[CachedDirectory[T]]:
        return iter(tuple(self._kept.values()))

    def get(self, number: int) -> T | None:
        """Return what is known of a directory that is kept."""
        cached = self._kept.get(number)
        return cached.known if cached is not None else None

    def handle(self, number: int) -> Open | None:
        """Return the handle of a directory that is kept."""
        cached = self._kept.get(number)
        return cached.handle if cached is not None else None

    def used(self, number: int) -> None:
        """Note that what is kept of a directory has saved a request."""
        self.hits += 1
        if number in self._kept:
            self._kept.move_to_end(number)

    @property
    def offered(self) -> bool:
        """Whether the server has leases on directories."""
        return self._leases.asks and self._leases.guards_names

    def wants(self, number: int) -> bool:
        """Whether a directory that is about to be listed should be kept."""
        until, _ = self._pauses.get(number, (0.0, 0.0))
        return trio.current_time() >= until

    def keep(self, number: int, handle: Open, known: T, entries: int) -> None:
        """Keep a directory, whose handle has a lease, and which is not too large (`MOST_ENTRIES_EACH`)."""
        assert handle.lease is not None  # noqa: S101 (the caller's promise)
        self.drop(number)
        cached = CachedDirectory(number, handle, handle.lease, known, entries)
        self._kept[number] = self._by_lease[cached.lease] = cached
        self.entries += entries
        while len(self._kept) > MOST_DIRECTORIES or self.entries > MOST_ENTRIES:
            self.drop(next(iter(self._kept)))

    def drop(self, number: int) -> None:
        """Keep a directory no longer, if it was kept; the CLOSE is queued before this returns."""
        cached = self._kept.get(number)
        if cached is not None:
            self._forget(cached)
            self._close(cached.handle)

    def _forget(self, cached: CachedDirectory[T]) -> trio.Event | None:
        """Take a directory out of the tables, and have the kernel told."""
        del self._kept[cached.number]
        self._by_lease.pop(cached.lease, None)
        self.entries -= cached.entries
        return self.on_drop(cached)

    def _changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Use what was kept under a lease no more when any of that is lost."""
        cached = self._by_lease.get(lease)
        if cached is None or not old & ~new:
            return
        told = self._forget(cached)
        if reason is Reason.BROKEN:
            self.breaks += 1
            self._pause(cached)
            # Not here: the table is in the middle of a break, and a CLOSE would end the lease.
            self._leaving[lease] = (cached, told)
        else:
            self._close(cached.handle)

    def _before_acknowledging(self, lease: Lease, _old: int, _new: int) -> Awaitable[None] | None:
        """Have the kernel told, then the handle closed."""
        leaving = self._leaving.pop(lease, None)
        return self._leave(*leaving) if leaving is not None else None

    async def _leave(self, cached: CachedDirectory[T], told: trio.Event | None) -> None:
        """Close a directory when the kernel has been told; if that takes too long, all the same."""
        try:
            if told is not None:
                await told.wait()
        finally:
            self._close(cached.handle)

    def _pause(self, cached: CachedDirectory[T]) -> None:
        """Leave a directory alone for a while whose lease is broken again and again."""
        now = trio.current_time()
        if now - cached.since > SHORT:
            self._pauses.pop(cached.number, None)
            return
        _, before = self._pauses.pop(cached.number, (0.0, 0.0))
        pause = min(2 * before, LONGEST_PAUSE) if before else FIRST_PAUSE
        # The first short one may be chance.
        self._pauses[cached.number] = (now + pause if before else 0.0, pause)
        if len(self._pauses) > MOST_PAUSES:
            self._pauses.popitem(last=False)
