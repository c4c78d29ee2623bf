"""Who holds which locks on the files of this mount, and the handle that has them on the server.

Who holds what is kept by POSIX's rules (`RangeLocks`), once for fcntl(2) and once for flock(2), which know nothing of
each other, as on a local file system. What all of them hold together, the server has as locks of one handle (`Ledger`),
the carrier. How the one follows the other stands in `locking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import trio

from smb3fs.errors import ConnectionLost
from smb3fs.handles.byte_ranges import Lock, RangeLocks
from smb3fs.handles.ledger import Ledger, Piece, union
from smb3fs.handles.opens import Open
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.files import OpenFile, Owner
from smb3fs.vfs.inodes import Inode

# Seconds that the kernel may take to forget what a lock has to have forgotten, and for which it is given no names to
# keep where it has taken longer.
LONG_WAIT: Final = 1.0
KEPT_OUT: Final = 60.0


class Wish(NamedTuple):
    """A lock that somebody asks for."""

    owner: Owner
    piece: Piece
    pid: int

    @property
    def lock(self) -> Lock:
        """The entry for the table."""
        start, end, exclusive = self.piece
        return Lock(self.owner.number, start, end, exclusive, self.pid)


class Wait:
    """A request that waits at the server."""

    __slots__ = ("over", "piece", "scope")

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.scope = trio.CancelScope()
        self.over = trio.Event()


class InodeLocks:
    """The locks of one file."""

    def __init__(self) -> None:
        self._fcntl = RangeLocks()
        self._flock = RangeLocks()
        self.ledger = Ledger()
        # The handle that has them, and whether it is nobody's but ours to close.
        self.carrier: Open | None = None
        self.readable = False
        self.ours = False
        self.turn = trio.Lock()
        self.waits: list[Wait] = []
        # What the server has granted to somebody who still waits for more.
        self.reserved: list[Piece] = []
        # What the server may have locked for somebody who has given up while there was no session to ask.
        self.doubtful: list[Piece] = []
        # Who was refused a lock, and when.
        self.refused: dict[Owner, float] = {}
        # Whether the server has granted something since the kernel last dropped the pages.
        self.stale = False
        # Whose locks were lost with the handle that had them, and who has not closed the file since.
        self.bereaved: set[Owner] = set()
        # ... and who of these was not told so by any call yet.
        self.untold: set[Owner] = set()
        self._changed = trio.Event()

    def space(self, owner: Owner) -> RangeLocks:
        """Return the table in which an owner counts."""
        return self._flock if owner.flock else self._fcntl

    def __iter__(self) -> Iterator[Lock]:
        yield from self._fcntl
        yield from self._flock

    @property
    def in_use(self) -> bool:
        """Whether anybody holds anything, or is about to."""
        return bool(self._fcntl or self._flock or self.waits or self.turn.locked())

    def wanted(self) -> list[Piece]:
        """Return what the server should have locked for us."""
        held = [(lock.start, lock.end, lock.exclusive) for lock in self]
        return union([*held, *self.reserved])

    def conflicts(self, wish: Wish) -> list[Lock]:
        """Return what others here hold that is in the way."""
        start, end, exclusive = wish.piece
        return self.space(wish.owner).conflicts(wish.owner.number, start, end, exclusive=exclusive)

    @property
    def changed(self) -> trio.Event:
        """What is set at the next change."""
        return self._changed

    def note_change(self) -> None:
        """Have those who wait look again."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        for wait in self.waits:
            wait.scope.cancel()

    def forget(self) -> None:
        """Forget everything: the server has, with the connection."""
        self._fcntl.clear()
        self._flock.clear()
        self.ledger = Ledger()
        self.reserved.clear()
        self.doubtful.clear()
        self.carrier = None
        self.ours = False
        self.note_change()

    def lose_carrier(self) -> None:
        """Forget everything, but not who had relied on it."""
        holders = {Owner(flock=False, number=lock.owner) for lock in self._fcntl}
        holders |= {Owner(flock=True, number=lock.owner) for lock in self._flock}
        self.bereaved |= holders
        self.untold |= holders
        self.forget()

    def check(self, file: OpenFile) -> None:
        """Raise ConnectionLost for a file through which locks were set that are lost; others may have had them."""
        if self.bereaved and file.lock_owners and not self.bereaved.isdisjoint(file.lock_owners):
            self.untold -= file.lock_owners
            raise locks_lost()

    def lose(self, piece: Piece) -> None:
        """Take what is not covered any more from whoever holds it."""
        for space in (self._fcntl, self._flock):
            for lock in list(space):
                start, end = max(lock.start, piece.start), min(lock.end, piece.end)
                if start < end and not self.ledger.covers(Piece(start, end, lock.exclusive)):
                    space.unset(lock.owner, start, end)
        self.note_change()


def locks_lost() -> ConnectionLost:
    """Return what befalls those whose locks others may have had."""
    return ConnectionLost("locks on the file were lost with a connection")


class Locks:
    """The locks of one mount."""

    def __init__(self, share: ShareVerbs) -> None:
        self._share = share
        self.by_inode: dict[int, InodeLocks] = {}
        # Counts up with each lock that the server grants, when that is told to whoever asked.
        self.granted = 0
        # Directories in which the kernel took long to forget names, and until when it is given none to keep.
        self._crowded: dict[int, float] = {}
        # Who waits for whom here, by fcntl(2).
        self._waiting: list[tuple[Owner, set[int]]] = []

    def __len__(self) -> int:
        return sum(1 for locks in self.by_inode.values() for _ in locks)

    def counts(self) -> dict[str, int]:
        """Return how many ranges are held here, of how many files, as how many on the server; and who waits there."""
        files = [(sum(1 for _ in locks), locks) for locks in self.by_inode.values()]
        return {
            "ranges": len(self),
            "files": sum(1 for ranges, _ in files if ranges),
            "on_server": sum(len(locks.ledger.pieces) for _, locks in files),
            "waiting_at_server": sum(len(locks.waits) for _, locks in files),
        }

    def of(self, inode: Inode) -> InodeLocks:
        """Return the locks of a file that is open."""
        locks = self.by_inode.get(inode.number)
        if locks is None:
            locks = self.by_inode[inode.number] = InodeLocks()
        return locks

    async def watch_crowd(self, directories: Iterable[Inode]) -> None:
        """Note that directories are crowded, unless the kernel has forgotten their names, and this is cancelled, soon.

        At once and not when it has: until then it would be given ever more of them.
        """
        await trio.sleep(LONG_WAIT)
        now = trio.current_time()
        self._crowded = {number: until for number, until in self._crowded.items() if until > now}
        self._crowded |= {directory.number: now + KEPT_OUT for directory in directories}

    def is_crowded(self, directory: Inode) -> bool:
        """Whether the kernel should be given no names of a directory to keep, since it takes long to forget them.

        It takes the directory's lock for each, behind all programs that make, remove or look up something there. With
        hundreds of them that was half a minute for what a lock has to have forgotten; a name that it does not keep need
        not be forgotten.
        """
        return bool(self._crowded) and self._crowded.get(directory.number, 0.0) > trio.current_time()

    def lose_carrier(self, locks: InodeLocks) -> None:
        """Give up the handle that has a file's locks; where no descriptor stands for it, nobody else would close it."""
        if locks.carrier is not None and locks.ours:
            self._share.close(locks.carrier)
        locks.lose_carrier()

    def handle_for(self, file: OpenFile, *, write: bool) -> Open:
        """Return the handle for a read or write: the carrier of the file's locks, if it has any and will do.

        Raises ConnectionLost if the file had locks that are lost.
        """
        locks = self.by_inode.get(file.inode.number)
        if locks is None:
            return file.handle
        if locks.carrier is not None and not self._share.usable(locks.carrier):
            self.lose_carrier(locks)
        locks.check(file)
        if locks.carrier is None:
            return file.handle
        # A file of an earlier connection stays what it is: lost, with whatever it had locked.
        if not self._share.usable(file.handle) or not (locks.carrier.writable if write else locks.readable):
            return file.handle
        return locks.carrier

    def are_lost(self, file: OpenFile, owner: int) -> bool:
        """Whether somebody who closes a file has lost locks on it, and no call has told so.

        `owner` is whose fcntl(2) locks end with that. Who has set those of flock(2) is not known, so all are told who
        close the descriptor by which that was done.
        """
        locks = self.by_inode.get(file.inode.number)
        if locks is None:
            return False
        if locks.carrier is not None and not self._share.usable(locks.carrier):
            self.lose_carrier(locks)
        through = file.lock_owners or ()
        return any(one in through if one.flock else one.number == owner for one in locks.untold)

    def would_deadlock(self, wish: Wish, holders: set[int]) -> bool:
        """Whether those who are in the way wait, in the end, for whoever asks; flock(2) is not to tell."""
        if wish.owner.flock:
            return False
        seen: set[int] = set()
        todo = set(holders)
        while todo:
            one = todo.pop()
            if one == wish.owner.number:
                return True
            seen.add(one)
            for owner, others in self._waiting:
                if owner.number == one:
                    todo |= others - seen
        return False

    async def wait_here(self, wish: Wish, holders: set[int], changed: trio.Event) -> None:
        """Wait for a change, known as somebody who waits."""
        entry = (wish.owner, holders)
        if not wish.owner.flock:
            self._waiting.append(entry)
        try:
            await changed.wait()
        finally:
            if not wish.owner.flock:
                self._waiting.remove(entry)
