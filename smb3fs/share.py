"""File verbs on the mounted tree: each is a chain of requests in as few round trips as the protocol allows.

Paths are relative to the root of the mount, components joined by a backslash, "" for the root itself; names are the
server's. A chain that only looks may be sent again after a loss; one that changes something is not, and its caller
learns of the loss as EIO, since nobody knows whether it was done.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from smb3fs.channels.pool import Pool
from smb3fs.connection import Answer
from smb3fs.errors import Status, StatusError, WireError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open, OpenTable
from smb3fs.listing import PAGE_SIZE, Listing
from smb3fs.trace import Trace
from smb3fs.wire.codec import Buffer, ns_to_filetime, utf16
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateAction,
    CreateContext,
    CreateOptions,
    CreateRequest,
    CreateResponse,
    Disposition,
    FileAttribute,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID, DiskId
from smb3fs.wire.header import Command, Request
from smb3fs.wire.infoclass import (
    LEAVE_TIME,
    FileAllInformation,
    FileBasicInformation,
    FileDispositionInformation,
    FileEndOfFileInformation,
    FileFsFullSizeInformation,
    FileInternalInformation,
    FileRenameInformation,
)
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, ReadResponse, WriteRequest, WriteResponse
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest

# Room for the fixed part of FileAllInformation and the longest path that a server on Linux has (4,095 characters): smbd
# answers STATUS_ILLEGAL_CHARACTER where a long path does not fit.
ALL_INFORMATION_ROOM: Final = 16 * 1024
# The longest component that SMB servers accept, in UTF-16 units.
NAME_MAX: Final = 255
# The longest path whose length in bytes the 16-bit field of a CREATE can express, in UTF-16 units ([MS-SMB2] 2.2.13).
PATH_MAX: Final = 0x7FFF

# Plain ints: arithmetic with enum's flags costs microseconds.
READ_ACCESS: Final = int(AccessMask.READ_DATA | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
WRITE_ACCESS: Final = int(
    AccessMask.WRITE_DATA
    | AccessMask.APPEND_DATA
    | AccessMask.READ_ATTRIBUTES
    | AccessMask.WRITE_ATTRIBUTES
    | AccessMask.SYNCHRONIZE
)
STAT_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
SET_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.WRITE_ATTRIBUTES | AccessMask.SYNCHRONIZE)
LIST_ACCESS: Final = int(AccessMask.LIST_DIRECTORY | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
DELETE_ACCESS: Final = int(AccessMask.DELETE | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)

QUERY_ALL: Final = QueryInfoRequest(
    RELATED_FILE_ID, InfoType.FILE, FileAllInformation.information_class, ALL_INFORMATION_ROOM
)
QUERY_INTERNAL: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileInternalInformation.information_class, 8)
CLOSE_RELATED: Final = CloseRequest(RELATED_FILE_ID)


class VolumeSpace(NamedTuple):
    """The size of the share, in blocks of `block_size` bytes, and the longest name it takes."""

    block_size: int
    total_blocks: int
    free_blocks: int
    available_blocks: int
    name_max: int = NAME_MAX


class Share:
    """The verbs on one share."""

    def __init__(
        self,
        pool: Pool,
        opens: OpenTable,
        trace: Trace,
        *,
        prefix: str = "",
        rsize: int = 4 << 20,
        wsize: int = 4 << 20,
    ) -> None:
        """`prefix` is the directory of the share that is the mount's root; `rsize` and `wsize` bound one request."""
        self._pool = pool
        self._opens = opens
        self._trace = trace
        self._prefix = prefix
        self._rsize = rsize
        self._wsize = wsize

    # -- looking

    async def lookup(self, path: str) -> FileAttributes:
        """Return a file's attributes; one round trip."""
        chain: list[Request] = [self._create(path, STAT_ACCESS), QUERY_ALL, CLOSE_RELATED]
        _, answers = await self._chain(chain, repeatable=True)
        return _all_information(answers[1])

    async def attributes(self, handle: Open) -> FileAttributes:
        """Return the attributes of an open file."""
        query = QueryInfoRequest(handle.file_id, QUERY_ALL.info_type, QUERY_ALL.information_class, ALL_INFORMATION_ROOM)
        return _all_information((await self._on(handle, [query]))[0])

    async def space(self) -> VolumeSpace:
        """Return the size of the share and what is free of it."""
        query = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILESYSTEM, FileFsFullSizeInformation.information_class, 32)
        chain: list[Request] = [self._create("", STAT_ACCESS), query, CLOSE_RELATED]
        _, answers = await self._chain(chain, repeatable=True)
        told = FileFsFullSizeInformation.parse(memoryview(QueryInfoResponse.parse(answers[1].pdu).data))
        return VolumeSpace(
            told.sectors_per_unit * told.bytes_per_sector,
            told.total_units,
            told.actual_available_units,
            told.caller_available_units,
        )

    async def list_directory(self, path: str, expect: int | None) -> Listing:
        """Open a directory and return its listing with the first page in it; raises ESTALE if it is not `expect`."""
        open_it = self._create(path, LIST_ACCESS, options=CreateOptions.DIRECTORY_FILE)
        session = await self._pool.ready()
        listing = Listing(self._pool, session.payload_limit(min(PAGE_SIZE, session.agreed.max_transact)))
        chain: list[Request] = [open_it, QUERY_INTERNAL, *listing.first_requests()]
        session, answers = await self._pool.call(chain, repeatable=True)
        opened = self._opened(answers[0], path, session.generation)
        try:
            _raise_first(chain[1:2], answers[1:2])
            _expect(expect, _internal(answers[1]))
            listing.begin(opened.file_id, session.generation, answers[2:])
        finally:
            if listing.complete or not listing.begun:
                self.close(opened)
            else:
                listing.on_close = lambda: self.close(opened)
        return listing

    # -- opening

    async def open(self, path: str, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        """Open an existing file; if it is not the file with the id `expect`, raise ESTALE having changed nothing.

        With `head` the handle brings along up to as many of the file's first bytes, in the same round trip. The number
        of links in its attributes is not known.
        """
        chain: list[Request] = [
            self._create(
                path,
                _access(read, write),
                options=CreateOptions.NON_DIRECTORY_FILE,
                contexts=(CreateContext(QUERY_ON_DISK_ID),),
            )
        ]
        if head:
            chain.append(ReadRequest(RELATED_FILE_ID, 0, head))
        session, answers = await self._pool.call(chain, repeatable=True)
        handle = self._opened(answers[0], path, session.generation, writable=write)
        try:
            if not handle.attributes_at_open.file_id:  # some servers do not tell it with the answer
                handle.attributes_at_open = await self.attributes(handle)
            _expect(expect, handle.attributes_at_open.file_id)
            if head:
                handle.head = self._head(answers[1], head)
        except BaseException:
            self.close(handle)
            raise
        return handle

    def _head(self, answer: Answer, size: int) -> memoryview | None:
        """Return what a file begins with; None where it cannot be read just now, which the next read will explain."""
        if answer.status == Status.END_OF_FILE:
            return memoryview(b"")
        return self._data(answer, size) if answer.status == Status.SUCCESS else None

    async def create(
        self, path: str, *, read: bool, write: bool, exclusive: bool, readonly_attribute: bool = False
    ) -> Open:
        """Create a file and open it, or open the one that is there unless `exclusive`; its contents are not touched.

        With `readonly_attribute` a new file is made read-only, for later opens; the handle itself may write.
        """
        request = self._create(
            path,
            _access(read, write),
            disposition=Disposition.CREATE if exclusive else Disposition.OPEN_IF,
            options=CreateOptions.NON_DIRECTORY_FILE,
            contexts=(CreateContext(QUERY_ON_DISK_ID),),
        )
        request.file_attributes = FileAttribute.READONLY if readonly_attribute else FileAttribute.NORMAL
        session, answers = await self._pool.call([request])
        handle = self._opened(answers[0], path, session.generation, writable=write)
        if not handle.created or not handle.attributes_at_open.file_id:
            # An older file may have more links, and some servers do not tell the id with the answer.
            try:
                handle.attributes_at_open = await self.attributes(handle)
            except BaseException:
                self.close(handle)
                raise
        return handle

    def usable(self, handle: Open) -> bool:
        """Whether a handle still stands for something on the server; one that a lost connection carried does not."""
        return not handle.closed and handle.generation == self._pool.generation

    def close(self, handle: Open) -> None:
        """Queue the CLOSE of a handle; nobody waits for its answer."""
        if self._opens.remove(handle):
            self._pool.post([CloseRequest(handle.file_id)], handle.generation)

    # -- contents

    async def read(self, handle: Open, offset: int, size: int) -> memoryview:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        session = await self._pool.ready(handle.generation)
        limit = session.payload_limit(min(session.agreed.max_read, self._rsize))
        data = await self._read(handle, offset, min(size, limit))
        if size <= limit or len(data) < limit:
            return data
        parts = bytearray(data)
        while len(parts) < size:
            data = await self._read(handle, offset + len(parts), min(size - len(parts), limit))
            if not data:
                break
            parts += data
        return memoryview(parts)

    async def _read(self, handle: Open, offset: int, size: int) -> memoryview:
        """Read with one request."""
        chain = [ReadRequest(handle.file_id, offset, size)]
        _, (answer,) = await self._pool.call(chain, generation=handle.generation)
        if answer.status == Status.END_OF_FILE:
            return memoryview(b"")
        _raise_first(chain, [answer])
        return self._data(answer, size)

    def _data(self, answer: Answer, size: int) -> memoryview:
        """Return the data of an answer to a READ of `size` bytes."""
        data = ReadResponse.parse(answer.pdu).data
        if len(data) > size:
            raise WireError(f"the server sent {len(data)} bytes where {size} were asked for")
        self._trace.bytes_read += len(data)
        return data

    async def write(self, handle: Open, offset: int, data: Buffer) -> int:
        """Write all of `data` at `offset` and return its length."""
        session = await self._pool.ready(handle.generation)
        limit = session.payload_limit(min(session.agreed.max_write, self._wsize))
        view = memoryview(data)
        done = 0
        while done < len(view):
            part = view[done : done + limit]
            answers = await self._on(handle, [WriteRequest(handle.file_id, offset + done, part)])
            count = WriteResponse.parse(answers[0].pdu).count
            if not 0 < count <= len(part):
                raise WireError(f"the server claims to have written {count} bytes of {len(part)}")
            done += count
        self._trace.bytes_written += done
        return done

    async def flush(self, handle: Open) -> None:
        """Have the server put what was written onto its disk."""
        await self._on(handle, [FlushRequest(handle.file_id)])

    # -- attributes

    async def truncate(self, handle: Open, size: int) -> FileAttributes:
        """Set the size of an open file and return its attributes."""
        return await self._set(handle, FileEndOfFileInformation(size))

    async def truncate_path(self, path: str, size: int, expect: int | None) -> FileAttributes:
        """Set the size of the file with the id `expect` by its path."""
        handle = await self.open(path, read=False, write=True, expect=expect)
        return await self._set_and_close(handle, FileEndOfFileInformation(size))

    async def set_basic(
        self,
        path: str,
        *,
        expect: int | None,
        created: int | None = None,
        accessed: int | None = None,
        modified: int | None = None,
        attributes: int = 0,
    ) -> FileAttributes:
        """Set times (ns since the epoch, None = leave) and FILE_ATTRIBUTE bits (0 = leave) of the file `expect`."""
        chain: list[Request] = [self._create(path, SET_ACCESS), QUERY_INTERNAL]
        session, answers = await self._pool.call(chain, repeatable=True)
        handle = self._opened(answers[0], path, session.generation)
        try:
            _raise_first(chain[1:], answers[1:])
            _expect(expect, _internal(answers[1]))
        except BaseException:
            self.close(handle)
            raise
        return await self._set_and_close(handle, _basic(created, accessed, modified, attributes))

    async def set_basic_open(
        self,
        handle: Open,
        *,
        created: int | None = None,
        accessed: int | None = None,
        modified: int | None = None,
        attributes: int = 0,
    ) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits of an open file."""
        return await self._set(handle, _basic(created, accessed, modified, attributes))

    async def _set(self, handle: Open, info: FileBasicInformation | FileEndOfFileInformation) -> FileAttributes:
        """Set one kind of information and return the attributes that result; one round trip."""
        answers = await self._on(handle, [_set_info(info, handle), QUERY_ALL])
        return _all_information(answers[1])

    async def _set_and_close(
        self, handle: Open, info: FileBasicInformation | FileEndOfFileInformation
    ) -> FileAttributes:
        """Do as `_set` does and close the handle in the same round trip."""
        chain: list[Request] = [_set_info(info, handle), QUERY_ALL, CLOSE_RELATED]
        try:
            _, answers = await self._pool.call(chain, generation=handle.generation)
        except BaseException:
            self.close(handle)
            raise
        if answers[2].status == Status.SUCCESS:
            self._opens.remove(handle)
        else:
            self.close(handle)
        _raise_first(chain[:2], answers[:2])
        return _all_information(answers[1])

    # -- names

    async def make_directory(self, path: str) -> FileAttributes:
        """Create a directory and return its attributes; one round trip."""
        request = self._create(path, STAT_ACCESS, disposition=Disposition.CREATE, options=CreateOptions.DIRECTORY_FILE)
        request.file_attributes = FileAttribute.DIRECTORY
        _, answers = await self._chain([request, QUERY_ALL, CLOSE_RELATED])
        return _all_information(answers[1])

    async def remove_file(self, path: str) -> None:
        """Delete a file, read-only or not (as POSIX has it); the name goes, never what a link behind it points to."""
        options = CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = _set_info(FileDispositionInformation(delete=True))
        try:
            await self._chain([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])
        except StatusError as error:
            if error.status != Status.CANNOT_DELETE:
                raise
            writable = _set_info(_basic(None, None, None, FileAttribute.NORMAL))
            request = self._create(path, DELETE_ACCESS | AccessMask.WRITE_ATTRIBUTES, options=options)
            await self._chain([request, writable, delete, CLOSE_RELATED])

    async def remove_directory(self, path: str) -> None:
        """Delete an empty directory; one round trip."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = _set_info(FileDispositionInformation(delete=True))
        await self._chain([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])

    async def rename(self, old: str, new: str, *, replace: bool) -> None:
        """Rename a file or directory; without `replace` an existing `new` is EEXIST. One round trip."""
        rename = _set_info(FileRenameInformation(replace, self._full(new)))
        request = self._create(old, DELETE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        await self._chain([request, rename, CLOSE_RELATED])

    # -- helpers

    def _full(self, path: str) -> str:
        """Return the name on the share of a path in the mount."""
        full = "\\".join(part for part in (self._prefix, path) if part)
        if len(full) > PATH_MAX // 2 and len(utf16(full)) > 2 * PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return full

    def _create(
        self,
        path: str,
        access: int,
        *,
        disposition: int = Disposition.OPEN,
        options: int = 0,
        contexts: Sequence[CreateContext] = (),
    ) -> CreateRequest:
        """Build the CREATE that begins a chain."""
        return CreateRequest(self._full(path), access, disposition, options, contexts=contexts)

    def _opened(self, answer: Answer, path: str, generation: int, *, writable: bool = False) -> Open:
        """Enter what a CREATE has granted into the open table, or raise its refusal."""
        if answer.status != Status.SUCCESS:
            raise StatusError(answer.status, Command.CREATE.name)
        told = CreateResponse.parse(answer.pdu)
        file_id = next((DiskId.parse(context.data).file_id for context in told.contexts if _is_disk_id(context)), 0)
        handle = Open(
            path,
            told.file_id,
            generation,
            FileAttributes.from_create(told, file_id, links=1),
            writable,
            created=told.create_action == CreateAction.CREATED,
        )
        self._opens.add(handle)
        return handle

    async def _chain(self, chain: Sequence[Request], *, repeatable: bool = False) -> tuple[int, list[Answer]]:
        """Send a chain that opens and closes by itself; raise the first error in it."""
        session, answers = await self._pool.call(chain, repeatable=repeatable)
        try:
            _raise_first(chain, answers)
        except StatusError:
            self._close_leftover(answers, session.generation)
            raise
        return session.generation, answers

    def _close_leftover(self, answers: Sequence[Answer], generation: int) -> None:
        """Close what a chain opened if its own CLOSE failed, which no server should let happen."""
        if answers[0].status == Status.SUCCESS and answers[-1].status != Status.SUCCESS:
            told = CreateResponse.parse(answers[0].pdu)
            self._pool.post([CloseRequest(told.file_id)], generation)

    async def _on(self, handle: Open, chain: Sequence[Request]) -> list[Answer]:
        """Send a chain on an open handle; raise the first error in it."""
        _, answers = await self._pool.call(chain, generation=handle.generation)
        _raise_first(chain, answers)
        return answers


def _access(read: bool, write: bool) -> int:
    """Return the access mask of an open."""
    return (READ_ACCESS if read else 0) | (WRITE_ACCESS if write else 0) or STAT_ACCESS


def _is_disk_id(context: CreateContext) -> bool:
    """Whether a create context tells the file's number."""
    return context.name == QUERY_ON_DISK_ID


def _raise_first(chain: Sequence[Request], answers: Sequence[Answer]) -> None:
    """Raise the first error status of a chain; a cut-off name in an answer is not one."""
    for request, answer in zip(chain, answers, strict=True):
        if answer.status == Status.BUFFER_OVERFLOW and request.command == Command.QUERY_INFO:
            continue
        if answer.status != Status.SUCCESS:
            raise StatusError(answer.status, request.command.name)


def _all_information(answer: Answer) -> FileAttributes:
    """Read the answer to a query for FileAllInformation."""
    data = QueryInfoResponse.parse(answer.pdu).data
    return FileAttributes.from_all_information(FileAllInformation.parse(memoryview(data)))


def _internal(answer: Answer) -> int:
    """Read the answer to a query for FileInternalInformation."""
    data = QueryInfoResponse.parse(answer.pdu).data
    return FileInternalInformation.parse(memoryview(data)).index_number


def _expect(expected: int | None, found: int) -> None:
    """Raise ESTALE if another file stands where the expected one was."""
    if expected is not None and expected != found:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _basic(created: int | None, accessed: int | None, modified: int | None, attributes: int) -> FileBasicInformation:
    """Build the information that sets times and attributes."""
    creation, access, write = (LEAVE_TIME if ns is None else ns_to_filetime(ns) for ns in (created, accessed, modified))
    return FileBasicInformation(creation, access, write, LEAVE_TIME, attributes)


def _set_info(
    info: FileBasicInformation | FileEndOfFileInformation | FileDispositionInformation | FileRenameInformation,
    handle: Open | None = None,
) -> SetInfoRequest:
    """Build a SET_INFO on a handle, or on what the chain has opened."""
    file_id = handle.file_id if handle is not None else RELATED_FILE_ID
    return SetInfoRequest(file_id, InfoType.FILE, info.information_class, info.encode())
