"""Verbs about the space that files take: holes, zeros, and space that is promised.

What the server is asked for and does not do is EOPNOTSUPP. A server may accept an allocation and do nothing about it
(smbd without `strict allocate`), so it is believed by what it reports afterwards, not by its status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Smb3fsError, Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import raise_first, set_info
from smb3fs.share.locks import Locks
from smb3fs.share.serverside import MAX_OFFSET, unsupported
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import FileAllocationInformation, FileEndOfFileInformation
from smb3fs.wire.ioctl import IoctlRequest
from smb3fs.wire.lock import EXCLUSIVE_LOCK, FAIL_IMMEDIATELY, UNLOCK, LockElement, LockRequest
from smb3fs.wire.serverside import FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA, SetSparse, ZeroData

# By these a server says that its file system has no holes, or cannot make any in this file.
CANNOT: Final = frozenset(
    {Status.INVALID_DEVICE_REQUEST, Status.NOT_SUPPORTED, Status.NOT_IMPLEMENTED, Status.INVALID_PARAMETER}
)
SPARSE_FILE: Final = int(FileAttribute.SPARSE_FILE)


class Space(Locks):
    """What can be done about the space of an open file; ranges from `offset` to before `end`, in bytes."""

    async def punch(self, handle: Open, offset: int, end: int) -> None:
        """Make a hole, as far as the file goes."""
        # Before anything is zeroed: where a file cannot have holes, nothing happens to it.
        await self._done(handle, [IoctlRequest(FSCTL_SET_SPARSE, handle.file_id, SetSparse(True).encode(), 0)])
        await self._zero(handle, offset, end)

    async def zero(self, handle: Open, offset: int, end: int, *, keep_size: bool) -> None:
        """Make zeros of a range, and unless `keep_size` make the file as long as that takes."""
        told = await self._zero(handle, offset, end)
        if keep_size or told.size >= end:
            return
        async with self._growing(handle, end) as told:
            if told.size < end:
                await self._done(handle, [set_info(FileEndOfFileInformation(end), handle)])

    async def allocate(self, handle: Open, offset: int, end: int, *, keep_size: bool) -> None:
        """See to it that there is space for a range, and unless `keep_size` make the file as long as that takes."""
        told = await self._like(handle)
        if told.attributes & SPARSE_FILE:
            raise unsupported()
        if end <= told.size:
            # All of a file that is not sparse has its space, if the server's account says so too.
            if told.allocation < told.size:
                raise unsupported()
            return
        async with self._growing(handle, end) as told:
            if end <= told.size:
                return
            given = await self._set_through(handle, FileAllocationInformation(end))
            if given.allocation < end:
                raise unsupported()
            if not keep_size:
                await self._set_through(handle, FileEndOfFileInformation(end))

    async def _zero(self, handle: Open, offset: int, end: int) -> FileAttributes:
        """Make zeros of a range, as far as the file goes; return what it is like."""
        zeros = ZeroData(offset, end).encode()
        query = self._query(handle)
        chain: list[Request] = [IoctlRequest(FSCTL_SET_ZERO_DATA, handle.file_id, zeros, 0), query]
        return self._told((await self._done(handle, chain))[1], query)

    @asynccontextmanager
    async def _growing(self, handle: Open, end: int) -> AsyncIterator[FileAttributes]:
        """Within the block nobody writes behind `end`, so that a size that is set there can only make the file longer.

        SMB has no order to make a file at least so long. Yields what the file is like; EOPNOTSUPP if somebody has
        locked what is behind there.
        """
        guard = LockElement(end, MAX_OFFSET - end, EXCLUSIVE_LOCK | FAIL_IMMEDIATELY)
        (locked,) = await self._take(handle, [LockRequest(handle.file_id, [guard])])
        if locked.status != Status.SUCCESS:
            raise unsupported()
        try:
            yield await self._like(handle)
        finally:
            unlock = LockRequest(handle.file_id, [guard._replace(flags=UNLOCK)])
            with trio.CancelScope(shield=True), suppress(Smb3fsError):
                await self._take(handle, [unlock])

    async def _set_through(
        self, handle: Open, info: FileAllocationInformation | FileEndOfFileInformation
    ) -> FileAttributes:
        """Set one kind of information and return the attributes that result."""
        query = self._query(handle)
        return self._told((await self._done(handle, [set_info(info, handle), query]))[1], query)

    async def _like(self, handle: Open) -> FileAttributes:
        """Return what a file is like."""
        query = self._query(handle)
        (answer,) = await self._on(handle, [query], Repeat.SAFE)
        return self._told(answer, query)

    async def _done(self, handle: Open, chain: Sequence[Request]) -> list[Answer]:
        """Send a chain and stay for its answers, so that nothing is changed after a call has returned."""
        answers = await self._pool.see_through(chain, handle)
        handle.note_change()
        try:
            raise_first(chain, answers)
        except StatusError as error:
            if error.status in CANNOT:
                raise unsupported() from error
            raise
        return answers
