"""Pages kept across opens: of which files the kernel may keep what it has read when they are opened again.

Theory of operation. The kernel drops a file's pages at open(2) unless it is told to keep them. They may be kept if they
are what the server has, and that is so if

- R of the lease was held without a gap since the open at which they were dropped last, or before which there were none;
- nothing was changed through this mount since: its kernel has followed a write through the page cache, but not one
  past it (O_DIRECT, O_APPEND, a copy by the server), and not where the server's end of the file was another than its.

So each such open is noted with the lease and the count of changes, and the next one compares. When a break takes R, the
note is gone before anything else happens, and the kernel drops the pages of the file before the break is acknowledged;
a READ that was answered before the break holds pages that are dropped with the others, one that is answered after it
fills pages that no note permits to keep.

Without R nobody says that pages have become old, and neither does the time of the last write: Samba sets it late, and
once it was set by a client, not at all until the file is closed. So what the kernel gets of a file whose lease lacks R
is dropped again a moment later, however long the file stays open.

With `loose` none of this is asked for: pages are kept until the kernel is told another size or time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)
# Seconds for which pages are believed without R at least, since to drop them is work, and for which it is waited that
# the kernel has dropped those of one file before the next one's turn comes.
SHORTEST: Final = 0.05
PATIENCE: Final = 1.0


class Note(NamedTuple):
    """Under which lease a file's pages have come, and how often we had changed the file by then."""

    lease: Lease | None
    changes: int


class KeptPages:
    """The files of one mount whose pages may be kept, by the numbers of their inodes; `kept` counts the opens so."""

    def __init__(self, forget: Callable[[int], Awaitable[None]], *, lifetime: float = 1.0, loose: bool = False) -> None:
        """`forget` has the kernel drop the pages of a file, and waits until it has.

        `lifetime` is for how many seconds pages are believed without R.
        """
        self.kept = 0
        self._lifetime = max(lifetime, SHORTEST)
        # By number when pages are dropped that came without R, in that order.
        self._expiring: dict[int, float] = {}
        self._arrived = trio.Event()
        self._forget = forget
        self._loose = loose
        self._notes: dict[int, Note] = {}
        # The files that are open under leases with R: one file may have several, each under another of its names.
        self._numbers: dict[Lease, int] = {}

    def watch(self, leases: LeaseTable) -> None:
        """Give up what these leases do not permit any more."""
        leases.subscribe(self._changed)
        leases.before_acknowledging(self._broken)

    def may_keep(self, number: int, lease: Lease | None, changes: int) -> bool:
        """Whether a file that is being opened with this lease may keep its pages; if not, it begins anew with it."""
        held = lease if lease is not None and lease.state & READ else None
        if held is not None and self._numbers.get(held, number) != number:
            self.drop(self._numbers[held])
        if held is not None:
            self._numbers[held] = number
        note = self._notes.get(number)
        kept = note is not None and note.changes == changes and (self._loose or note.lease is held is not None)
        self.kept += kept
        if kept and note is not None and note.lease is held:
            return True
        if held is not None or self._loose:
            self._notes[number] = Note(held, changes)
        else:
            self.drop(number)
        return kept

    def watches(self, handle: Open) -> bool:
        """Whether the kernel forgets what it knows of a file before others write to it, as long as this handle is open.

        Not of one that writes itself.
        """
        lease = handle.lease
        return not handle.writable and lease is not None and bool(lease.state & READ) and lease in self._numbers

    def touched(self, number: int, lease: Lease | None, now: float) -> None:
        """Take note that the kernel gets pages of a file through an open with this lease."""
        if (lease is not None and lease.state & READ) or self._loose or number in self._expiring:
            return
        self._expiring[number] = now + self._lifetime
        self._arrived.set()

    async def run(self) -> None:
        """Have the kernel drop pages that came without R, as long as the mount lives."""
        while True:
            while self._expiring:
                number, due = next(iter(self._expiring.items()))
                await trio.sleep_until(due)
                del self._expiring[number]
                with trio.move_on_after(PATIENCE):
                    await self._forget(number)
            self._arrived = trio.Event()
            await self._arrived.wait()

    def has(self, number: int, changes: int) -> bool:
        """Whether the kernel may have pages of a file that could be kept, so that nobody need read ahead for it."""
        note = self._notes.get(number)
        return note is not None and note.changes == changes

    def drop(self, number: int) -> None:
        """Have a file begin anew when it is opened next."""
        self._notes.pop(number, None)

    def _changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Take note that a lease has changed: any gap of R, however short, ends what was kept."""
        number = self._numbers.get(lease)
        if number is None or (old & READ and new & READ):
            return
        note = self._notes.get(number)
        if reason is not Reason.RELEASED:
            self.drop(number)
        elif note is not None and note.lease is lease:
            self.drop(number)
            if self._loose:
                self._notes[number] = note._replace(lease=None)
        if reason is not Reason.BROKEN:
            del self._numbers[lease]

    def _broken(self, lease: Lease, old: int, new: int) -> Awaitable[None] | None:
        """Have the kernel drop pages before a break is acknowledged."""
        if not old & ~new & READ:
            return None
        number = self._numbers.pop(lease, None)
        return None if number is None else self._forget_in_time(number)

    async def _forget_in_time(self, number: int) -> None:
        """Have the kernel drop the pages of a file; raises TimeoutError if it has not begun to soon.

        It does not as long as a call of its own is under way that locks the file or a directory, such as an unlink; and
        that may be waiting for the acknowledgement.
        """
        with trio.move_on_after(PATIENCE):
            await self._forget(number)
            return
        raise TimeoutError("the kernel has not dropped the pages of a file")
