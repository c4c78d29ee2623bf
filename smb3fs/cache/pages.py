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

With `loose` the first of these is not asked for: pages are kept until the kernel is told another size or time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from smb3fs.handles.leases import Lease, LeaseTable, Reason
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)


class Note(NamedTuple):
    """Under which lease a file's pages have come, and how often we had changed the file by then."""

    lease: Lease | None
    changes: int


class KeptPages:
    """The files of one mount whose pages may be kept, by the numbers of their inodes; `kept` counts the opens so."""

    def __init__(self, forget: Callable[[int], Awaitable[None]], *, loose: bool = False) -> None:
        """`forget` has the kernel drop the pages of a file, and waits until it has."""
        self.kept = 0
        self._forget = forget
        self._loose = loose
        self._notes: dict[int, Note] = {}
        self._numbers: dict[Lease, int] = {}

    def watch(self, leases: LeaseTable) -> None:
        """Give up what these leases do not permit any more."""
        leases.subscribe(self._changed)
        leases.before_acknowledging(self._broken)

    def may_keep(self, number: int, lease: Lease | None, changes: int) -> bool:
        """Whether a file that is being opened with this lease may keep its pages; if not, it begins anew with it."""
        held = lease if lease is not None and lease.state & READ else None
        note = self._notes.get(number)
        kept = note is not None and note.changes == changes and (self._loose or note.lease is held is not None)
        self.kept += kept
        if kept and note is not None and note.lease is held:
            return True
        self.drop(number)
        if held is not None:
            self.drop(self._numbers.get(held, 0))
            self._numbers[held] = number
        if held is not None or self._loose:
            self._notes[number] = Note(held, changes)
        return kept

    def has(self, number: int, changes: int) -> bool:
        """Whether the kernel may have pages of a file that could be kept, so that nobody need read ahead for it."""
        note = self._notes.get(number)
        return note is not None and note.changes == changes

    def drop(self, number: int) -> None:
        """Have a file begin anew when it is opened next."""
        note = self._notes.pop(number, None)
        if note is not None and note.lease is not None:
            self._numbers.pop(note.lease, None)

    def _changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Take note that a lease has changed: any gap of R, however short, ends what was kept."""
        number = self._numbers.get(lease)
        if number is None or (old & READ and new & READ):
            return
        note = self._notes.pop(number, None)
        if reason is Reason.RELEASED and self._loose and note is not None:
            self._notes[number] = note._replace(lease=None)
        if reason is not Reason.BROKEN:
            del self._numbers[lease]

    def _broken(self, lease: Lease, old: int, new: int) -> Awaitable[None] | None:
        """Have the kernel drop pages before a break is acknowledged."""
        if not old & ~new & READ:
            return None
        number = self._numbers.pop(lease, None)
        return None if number is None else self._forget(number)
