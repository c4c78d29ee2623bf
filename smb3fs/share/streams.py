"""Verbs about alternate data streams: small ones, which are read and written as a whole."""

from __future__ import annotations

import errno
import os
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.errors import Status, StatusError
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DELETE_ACCESS,
    POSIX_ALONE,
    QUERY_INTERNAL,
    READ_ACCESS,
    STAT_ACCESS,
    WRITE_ACCESS,
    Chains,
    internal_id,
    raise_first,
    set_info,
)
from smb3fs.wire.create import RELATED_FILE_ID, CreateOptions, CreateRequest, CreateResponse, Disposition
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import FileDispositionInformation, FileEndOfFileInformation
from smb3fs.wire.io import ReadRequest, ReadResponse, WriteRequest, WriteResponse
from smb3fs.wire.streams import stream_path

# As much as Linux takes for the value of an extended attribute (XATTR_SIZE_MAX); one credit pays for it.
STREAM_MAX: Final = 64 * 1024
# By these a server says that it knows no such stream; the last two, that it keeps no streams at all.
NO_STREAM: Final = frozenset(
    {Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_NAME_INVALID, Status.NOT_SUPPORTED, Status.INVALID_PARAMETER}
)
NO_STREAMS: Final = frozenset({Status.OBJECT_NAME_INVALID, Status.NOT_SUPPORTED, Status.INVALID_PARAMETER})


def _refusal(number: int) -> OSError:
    """Return an OSError with its usual text."""
    return OSError(number, os.strerror(number))


class Streams(Chains):
    """What can be asked of and done to the alternate data streams of files."""

    async def read_stream(self, path: str, name: str, expect: int | None) -> bytes:
        """Return what is in a stream of the file `expect`; one round trip. ENODATA if absent, E2BIG if too large."""
        chain: list[Request] = [
            self._on_stream(path, name, READ_ACCESS),
            QUERY_INTERNAL,
            ReadRequest(RELATED_FILE_ID, 0, STREAM_MAX),
            CLOSE_RELATED,
        ]
        session, answers = await self._pool.call(chain, repeat=Repeat.SAFE)
        self._close_leftover(answers, session)
        if answers[0].status in NO_STREAM:
            await self._check_file(path, expect)
            raise _refusal(errno.ENODATA)
        raise_first(chain[:2], answers[:2])
        if expect is not None and internal_id(answers[1]) != expect:
            # Some servers number the streams of a file apart.
            await self._check_file(path, expect)
        if CreateResponse.parse(answers[0].pdu).end_of_file > STREAM_MAX:
            raise _refusal(errno.E2BIG)
        if answers[2].status == Status.END_OF_FILE:
            return b""
        raise_first(chain[2:3], answers[2:3])
        return bytes(ReadResponse.parse(answers[2].pdu).data)

    async def write_stream(
        self, path: str, name: str, value: bytes, *, expect: int | None, exists: bool | None = None
    ) -> None:
        """Put a value into a stream of the file `expect`; three round trips, and at no time is the stream empty.

        With `exists` False one that is there is EEXIST, with True one that is not is ENODATA.
        """
        disposition = {None: Disposition.OPEN_IF, True: Disposition.OPEN, False: Disposition.CREATE}[exists]
        request = self._on_stream(path, name, WRITE_ACCESS, disposition)
        await self._check_file(path, expect)
        chain: list[Request] = [request, *([WriteRequest(RELATED_FILE_ID, 0, value)] if value else [])]
        session, answers = await self._pool.call(chain)
        status = answers[0].status
        if status in NO_STREAMS:
            raise _refusal(errno.EOPNOTSUPP)
        if status == Status.OBJECT_NAME_NOT_FOUND and exists:
            raise _refusal(errno.ENODATA)
        handle = self._opened(request, answers[0], path, session, writable=True)
        try:
            raise_first(chain[1:], answers[1:])
            if value and WriteResponse.parse(answers[1].pdu).count != len(value):
                raise _refusal(errno.EIO)
        except BaseException:
            self.close(handle)
            raise
        await self._and_close(handle, [set_info(FileEndOfFileInformation(len(value)), handle)])

    async def remove_stream(self, path: str, name: str, expect: int | None) -> None:
        """Remove a stream of the file `expect`; ENODATA if it has none of that name. Two round trips."""
        request = self._on_stream(path, name, DELETE_ACCESS)
        await self._check_file(path, expect)
        try:
            await self._chain([request, set_info(FileDispositionInformation(delete=True)), CLOSE_RELATED])
        except StatusError as error:
            if error.status in NO_STREAM:
                raise _refusal(errno.ENODATA) from error
            raise

    def _on_stream(self, path: str, name: str, access: int, disposition: int = Disposition.OPEN) -> CreateRequest:
        """Build the CREATE of a stream; EINVAL for what cannot be a stream's name.

        In a POSIX open a colon is a letter like any other, so this is never one; EOPNOTSUPP for a path that only
        POSIX opens know.
        """
        try:
            full = stream_path(self._full(path).replace(self._separator, "\\"), name)
        except ValueError:
            raise _refusal(errno.EINVAL) from None
        if self._posix and POSIX_ALONE.search(self._full(path)):
            raise _refusal(errno.EOPNOTSUPP)
        options = CreateOptions.NON_DIRECTORY_FILE
        return CreateRequest(full, access, disposition, options, contexts=self._timewarp)

    async def _check_file(self, path: str, expect: int | None) -> None:
        """Raise ESTALE if the file at a path is not `expect`, and the server's refusal if there is none."""
        _, answers = await self._chain(
            [self._create(path, STAT_ACCESS), QUERY_INTERNAL, CLOSE_RELATED], repeat=Repeat.SAFE
        )
        self._check_id(expect, answers[1])
