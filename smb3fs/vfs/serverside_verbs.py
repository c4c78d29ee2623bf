"""The verbs by which the server does things to files by itself; only a driver that is asked for them calls them.

The kernel, too, has a part in them: before it asks for a copy or a hole it writes back what of the files is only in its
page cache, and afterwards drops the pages that have changed. Before it asks where holes are it does not, so what was
written through a mapping is fetched from it here.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import trio

from smb3fs.errors import Smb3fsError
from smb3fs.handles.opens import Open
from smb3fs.vfs import locking
from smb3fs.vfs.files import OpenFile
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import waits
from smb3fs.wire.fuse_ranges import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE

# The part of a call's time in which another piece of a copy is begun: what was begun needs time as well.
BEGINNING: Final = 0.25
ALLOCATING: Final = frozenset({0, FALLOC_FL_KEEP_SIZE})
PUNCHING: Final = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
ZEROING: Final = frozenset({FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE})


class ServerSideVerbs(Verbs):
    """copy_file_range(2), fallocate(2), and lseek(2) to data and holes."""

    @waits
    async def copy_file_range(
        self, fh_in: int, offset_in: int, fh_out: int, offset_out: int, length: int, flags: int = 0
    ) -> int:
        """Have the server copy up to `length` bytes between open files; return how many it has.

        Less than all is copied where all of it would take longer than a call may. EOPNOTSUPP and EXDEV say that the
        kernel must do it, and that nothing was done.
        """
        if flags:
            raise locking.error(errno.EINVAL)
        source, target = self._files.get(fh_in), self._files.get(fh_out)
        if target.append:
            raise locking.error(errno.EBADF)
        await self.state.settle_for(source)
        await self.state.settle(target.inode)
        until = trio.current_time() + BEGINNING * self._timeout
        done = 0
        try:
            with self._files.changing(target.inode):
                while done < length:
                    try:
                        count = await self._copy(source, offset_in + done, target, offset_out + done, length - done)
                    except (OSError, Smb3fsError):
                        # The next call will say what was the matter.
                        if not done:
                            raise
                        break
                    done += count
                    # An interruption shows in the deadline.
                    if not count or min(until, trio.current_effective_deadline()) <= trio.current_time():
                        break
            if target.synchronous and done:
                await self._share.flush(self.state.locks.handle_for(target, write=True))
        finally:
            self.state.directories.note_change_of(target.inode)
        return done

    async def _copy(self, source: OpenFile, offset: int, target: OpenFile, target_offset: int, size: int) -> int:
        """Copy a piece by the handles for it."""

        async def from_(taken: Open) -> int:
            async def to(given: Open) -> int:
                return await self._share.copy(taken, offset, given, target_offset, size)

            return await locking.through(self.state, target, to, write=True)

        return await locking.through(self.state, source, from_, write=False)

    @waits
    async def fallocate(self, fh: int, offset: int, length: int, mode: int) -> None:
        """Do what fallocate(2) asks for, or fail with EOPNOTSUPP."""
        file, end = self._files.get(fh), offset + length
        if length <= 0:
            raise locking.error(errno.EINVAL)
        keep_size = bool(mode & FALLOC_FL_KEEP_SIZE)

        async def change(handle: Open) -> None:
            if mode in ALLOCATING:
                await self._share.allocate(handle, offset, end, keep_size=keep_size)
            elif mode == PUNCHING:
                await self._share.punch(handle, offset, end)
            elif mode in ZEROING:
                await self._share.zero(handle, offset, end, keep_size=keep_size)
            else:
                raise locking.error(errno.EOPNOTSUPP)

        await self.state.settle(file.inode)
        try:
            with self._files.changing(file.inode):
                await locking.through(self.state, file, change, write=True)
        finally:
            self.state.directories.note_change_of(file.inode)

    @waits
    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        """Return where the next data begins, or the next hole; ENXIO where there is none before the end."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise locking.error(errno.EINVAL)
        file = self._files.get(fh)
        others = self._files.of(file.inode)
        if any(other.readable and other.handle.writable for other in others):
            # One of these may be mapped, and have pages with data where the server has none yet.
            await self.state.forget_pages(file.inode.number, ())
        await self.state.settle_for(file)
        if not file.readable:
            file = next((other for other in others if other.readable), file)
        return await self._share.seek(file.handle, offset, hole=whence == os.SEEK_HOLE)
