"""Reading open files: what the open brought along, what was fetched ahead, or what the server has."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

from smb3fs.cache.read_ahead import Stream, Wanted
from smb3fs.vfs import locking
from smb3fs.vfs.files import OpenFile
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import Answer, may_wait, settle
from smb3fs.wire.codec import Buffer


class ReadingVerbs(Verbs):
    """read."""

    @may_wait
    def read(self, fh: int, offset: int, size: int) -> Answer[Buffer | tuple[Buffer, ...]]:
        """Return `size` bytes from `offset`, in one piece or several; fewer only at the end of the file."""
        file = self._files.get(fh)
        self._trace.data.asked += 1
        self.state.got_pages(file)
        if file.inode in self.state.writes:
            return self._read_settled(file, offset, size)
        self.state.check_arrived(file.inode, fh=fh)
        return self._read(file, offset, size)

    async def _read_settled(self, file: OpenFile, offset: int, size: int) -> Buffer | tuple[Buffer, ...]:
        """Read what the server has, once it has all that was written."""
        await self.state.settle_for(file)
        return await settle(self._read(file, offset, size))

    def _read(self, file: OpenFile, offset: int, size: int) -> Answer[Buffer | tuple[Buffer, ...]]:
        """Read what has been fetched, or what the server has."""
        stream = file.stream
        head = file.head(offset, size, self._files.changes, trio.current_time())
        if head is not None:
            if stream is not None:
                stream.passed(offset, size)
            return head
        if stream is not None and self._may_read_ahead(file):
            wanted = stream.look(offset, size)
            if wanted is not None:
                if not wanted.over:
                    return self._read_when_fetched(file, stream, wanted, offset, size)
                parts = stream.take(wanted, offset, size)
                if parts is not None:
                    return parts
        return self._ask(file, offset, size)

    def _may_read_ahead(self, file: OpenFile) -> bool:
        """Whether what is read through an open file may be fetched ahead.

        Not where we lock, or write through another open file, nor as long as the server has not all that was written.
        """
        inode = file.inode
        return (
            inode.number not in self.state.locks.by_inode
            and (inode.opens == 1 or not self._files.writer(inode))
            and inode not in self.state.writes
        )

    async def _read_when_fetched(
        self, file: OpenFile, stream: Stream, wanted: Wanted, offset: int, size: int
    ) -> Buffer | tuple[Buffer, ...]:
        """Read what is under way already."""
        await wanted.wait()
        parts = stream.take(wanted, offset, size) if self._may_read_ahead(file) else None
        return parts if parts is not None else await self._ask(file, offset, size)

    def _ask(self, file: OpenFile, offset: int, size: int) -> Coroutine[Any, Any, memoryview]:
        """Read by asking the server."""
        self._trace.data.missed += 1
        if file.inode.number in self.state.locks.by_inode:
            return locking.through(self.state, file, lambda handle: self._share.read(handle, offset, size), write=False)
        return self._share.read(file.handle, offset, size)
