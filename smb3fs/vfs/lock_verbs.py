"""The verbs about locks, which only a driver that is asked for locks calls."""

from __future__ import annotations

from smb3fs.handles.byte_ranges import Lock
from smb3fs.handles.ledger import Piece
from smb3fs.vfs import locking
from smb3fs.vfs.files import OpenFile, Owner
from smb3fs.vfs.locks import Wish
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import patient, waits


class LockVerbs(Verbs):
    """fcntl(2)'s and flock(2)'s locks; `vfs/locking.py` has what they do."""

    async def _settled(self, fh: int) -> OpenFile:
        """Return an open file when all that was written to it has arrived, and nothing is gathered any more.

        Whoever gets a lock may be somebody else next, and a lock binds the handle that writes as well.
        """
        file = self._files.get(fh)
        self.state.locks.of(file.inode)
        await self.state.settle(file.inode)
        return file

    @waits
    async def getlk(self, fh: int, owner: int, start: int, end: int, *, exclusive: bool) -> Lock | None:
        """Return a lock that is in the way of one that fcntl(2) asks about; bytes from `start` to before `end`."""
        wish = Wish(Owner(False, owner), Piece(start, end, exclusive), 0)
        file = await self._settled(fh)
        return await locking.test_lock(self.state, file, wish)

    @waits
    async def setlk(self, fh: int, owner: Owner, start: int, end: int, *, exclusive: bool | None, pid: int) -> None:
        """Lock a range, or unlock it (`exclusive` is None); EAGAIN where somebody is in the way."""
        file = await self._settled(fh)
        if exclusive is None:
            await locking.unlock(self.state, file, owner, start, end)
        else:
            await locking.set_lock(self.state, file, Wish(owner, Piece(start, end, exclusive), pid), wait=False)

    @patient
    async def setlkw(self, fh: int, owner: Owner, start: int, end: int, *, exclusive: bool | None, pid: int) -> None:
        """Do the same, and wait until nobody is in the way; EDEADLK where that would be for ever."""
        file = await self._settled(fh)
        if exclusive is None:
            await locking.unlock(self.state, file, owner, start, end)
        else:
            await locking.set_lock(self.state, file, Wish(owner, Piece(start, end, exclusive), pid), wait=True)
