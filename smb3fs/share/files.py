"""Verbs about files: attributes, opening, and the size of it all; their contents are `smb3fs.share.data`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any, NamedTuple

from smb3fs.channels.pool import Repeat
from smb3fs.channels.session import Session
from smb3fs.connection import Answer
from smb3fs.errors import Smb3fsError, Status, StatusError
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.lease import Lease
from smb3fs.handles.lock_requests import sure_of_locks
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DIRECTORY_LEASING,
    FS_ATTRIBUTE_ROOM,
    LIST_ACCESS,
    NAME_MAX,
    POSIX_ALONE,
    QUERY_INTERNAL,
    READ_ACCESS,
    SET_ACCESS,
    STAT_ACCESS,
    WRITE_ACCESS,
    WRITE_DATA,
    basic_information,
    check_expected,
    internal_id,
    is_posix,
    raise_first,
    without_posix,
)
from smb3fs.share.data import Data
from smb3fs.share.links import Links
from smb3fs.share.listing import PAGE_SIZE, Listing
from smb3fs.share.sharing import Sharing
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    CreateContext,
    CreateOptions,
    CreateRequest,
    Disposition,
    FileAttribute,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import (
    FILE_SUPPORTS_BLOCK_REFCOUNTING,
    FileEndOfFileInformation,
    FileFsAttributeInformation,
    FileFsFullSizeInformation,
)
from smb3fs.wire.io import ReadRequest
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse


class VolumeSpace(NamedTuple):
    """The size of the share, in blocks of `block_size` bytes, and the longest name it takes."""

    block_size: int
    total_blocks: int
    free_blocks: int
    available_blocks: int
    name_max: int = NAME_MAX
    # How many files there may be, where the server says it.
    files: int = 0
    files_free: int = 0


class Files(Links, Sharing, Data):
    """What can be asked of and done to files, by path or by handle."""

    # -- looking

    async def root(self) -> tuple[FileAttributes, FileFsAttributeInformation | None]:
        """Return the root's attributes, and what the file system says of itself (None: nothing); one round trip."""
        query = QueryInfoRequest(
            RELATED_FILE_ID, InfoType.FILESYSTEM, FileFsAttributeInformation.information_class, FS_ATTRIBUTE_ROOM
        )
        chain: list[Request] = [self._create("", STAT_ACCESS), self._query(), query, QUERY_INTERNAL, CLOSE_RELATED]
        session, answers = await self._pool.call(chain, repeat=Repeat.SAFE)
        try:
            raise_first(chain[:2], answers[:2])
        except StatusError:
            self._close_leftover(answers, session)
            raise
        volume = None
        if answers[2].status == Status.SUCCESS:
            volume = FileFsAttributeInformation.parse(memoryview(QueryInfoResponse.parse(answers[2].pdu).data))
            self._refcounting = bool(volume.attributes & FILE_SUPPORTS_BLOCK_REFCOUNTING)
        self._close_leftover(answers, session)
        told = self._told(answers[1])
        if answers[3].status == Status.SUCCESS:
            self.agreeing_ids = internal_id(answers[3]) == told.file_id
        return told, volume

    async def space(self) -> VolumeSpace:
        """Return the size of the share and what is free of it."""
        query = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILESYSTEM, FileFsFullSizeInformation.information_class, 32)
        chain: list[Request] = [self._create("", STAT_ACCESS), query, CLOSE_RELATED]
        _, answers = await self._chain(chain, repeat=Repeat.SAFE)
        told = FileFsFullSizeInformation.parse(memoryview(QueryInfoResponse.parse(answers[1].pdu).data))
        return VolumeSpace(
            told.sectors_per_unit * told.bytes_per_sector,
            told.total_units,
            told.actual_available_units,
            told.caller_available_units,
        )

    async def list_directory(self, path: str, expect: int | None, *, lease: bool = False) -> Listing:
        """Open a directory and return its listing with the first page in it; raises ESTALE if it is not `expect`.

        With `lease` a lease on the directory is asked for, where the server has such: see `Listing.take`.
        """
        session = await self._pool.ready()
        wanted = None
        if lease and self._leases.asks and not self._timewarp and session.agreed.capabilities & DIRECTORY_LEASING:
            wanted = self._leases.of_directory(path, path.rpartition(self._separator)[0])
        with self._leases.asking(wanted) if wanted is not None else nullcontext():
            return await self._list(path, expect, wanted, session)

    async def _list(self, path: str, expect: int | None, lease: Lease | None, session: Session) -> Listing:
        """Do it with that lease or none."""
        open_it = self._create(path, LIST_ACCESS, options=CreateOptions.DIRECTORY_FILE, lease=lease)
        page_size = session.payload_limit(min(PAGE_SIZE, session.agreed.max_transact))
        listing = Listing(self._pool, page_size, posix=self._posix)
        chain: list[Request] = [open_it, QUERY_INTERNAL, *listing.first_requests()]
        session, answers = await self._send(chain, repeat=Repeat.SAFE)
        opened = self._opened(open_it, answers[0], path, session)
        try:
            raise_first(chain[1:2], answers[1:2])
            self._check_id(expect, answers[1])
            listing.begin(opened, answers[2:])
        finally:
            if (listing.complete and not listing.leased) or not listing.begun:
                self.close(opened)
            else:
                listing.on_close = lambda: self.close(opened)
        return listing

    # -- opening

    async def open(self, path: str, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        """Open an existing file; if it is not the file with the id `expect`, raise ESTALE having changed nothing.

        What outlives its connection is one open for all who want no more than it can do: see `Sharing`. With `head` the
        handle brings along up to as many of the file's first bytes, in the same round trip, unless the share keeps
        opens for good. The number of links in its attributes is not known.
        """
        async with self.in_turn(path) if write else nullcontext():
            joined = await self.joined(path, _access(read, write), expect)
            if joined is not None:
                return joined
            return await self._open_apart(path, read=read, write=write, expect=expect, head=head)

    async def _open_apart(self, path: str, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        """Do as `open` does, with an open that nobody else has."""
        return await self.leased(
            path, expect, lambda lease: self._open(path, lease, read=read, write=write, expect=expect, head=head)
        )

    async def _open(
        self,
        path: str,
        lease: Lease | None,
        *,
        read: bool,
        write: bool,
        expect: int | None,
        head: int,
        plain: bool = False,
        lasting: bool = True,
    ) -> Open:
        """Open an existing file with that lease or none; `plain` without the POSIX extensions, `lasting` to be kept."""
        request = self._create(
            path,
            _access(read, write),
            options=CreateOptions.NON_DIRECTORY_FILE,
            contexts=(CreateContext(QUERY_ON_DISK_ID),),
            lease=lease,
        )
        if plain:
            request = without_posix(request)
        session = await self._pool.ready()
        if head and not session.redundant and not self.persists(session):
            # What is only read can be opened anew after a loss; a round trip is worth more. With links to spare it is
            # not: the loss of one would cost the session, and with it what others write.
            chain: list[Request] = [request, ReadRequest(RELATED_FILE_ID, 0, head)]
            session, answers = await self._pool.call(chain, repeat=Repeat.SAFE)
            handle = self._opened(request, answers[0], path, session, writable=write)
        elif lasting:
            answers = []
            handle = await self._open_alone(request, path, writable=write)
        else:
            session, (answer,) = await self._pool.call([request], repeat=Repeat.SAFE)
            answers, handle = [], self._opened(request, answer, path, session, writable=write)
        try:
            if not handle.attributes_at_open.file_id:  # some servers do not tell it with the answer
                handle.attributes_at_open = await self.attributes(handle)
            check_expected(expect, handle.attributes_at_open.file_id)
            if answers:
                handle.head = self._head(answers[1], head)
        except BaseException:
            self.close(handle)
            raise
        return handle

    def open_ahead(self, path: str, expect: int | None, head: int, came: Callable[[Open | None], None]) -> bool:
        """Ask for an open for reading that nobody waits for yet; False if this is not the time for it.

        `came` is called once, with a handle that has a lease and brings along as much as `open` says, or with None: who
        opens the file then finds out why. ENAMETOOLONG, and nothing is asked, for a path that no server takes.
        """
        session = self._pool.session
        if session is None or not self._leases.asks or self._timewarp or self.persists(session):
            return False
        parent = path.rpartition(self._separator)[0]
        self._full(path)
        lease = self._leases.find(path, expect) or self._leases.make(path, parent, expect)
        request = self._create(
            path,
            _access(read=True, write=False),
            options=CreateOptions.NON_DIRECTORY_FILE,
            contexts=(CreateContext(QUERY_ON_DISK_ID),),
            lease=lease,
        )
        asking = ExitStack()
        asking.enter_context(self._leases.asking(lease))

        def told(answers: Sequence[Answer | None] | None) -> None:
            handle = None
            with asking, suppress(OSError, Smb3fsError):
                if answers and answers[0] is not None:
                    handle = self._brought(request, answers, path, session, expect, head)
            came(handle)

        if self._pool.ask_ahead([request, ReadRequest(RELATED_FILE_ID, 0, head)], session, told):
            return True
        asking.close()
        return False

    def _brought(
        self,
        request: CreateRequest,
        answers: Sequence[Any],
        path: str,
        session: Session,
        expect: int | None,
        head: int,
    ) -> Open | None:
        """Return what was opened ahead, if it is the file that was meant and could be read; else it is closed."""
        handle = self._opened(request, answers[0], path, session)
        try:
            check_expected(expect, handle.attributes_at_open.file_id)
            handle.head = self._head(answers[1], head) if answers[1] is not None else None
        except BaseException:
            self.close(handle)
            raise
        if handle.head is None or not handle.attributes_at_open.file_id:
            self.close(handle)
            return None
        return handle

    def keeps_locks(self, handle: Open) -> bool:
        """Whether a handle that outlives its connection may carry locks.

        Samba gives back an open of the POSIX extensions as one without them: what it has locked can then be neither
        used nor unlocked. And some of its versions die of an open that was refused a lock: see decision 0045.
        """
        if not handle.durability:
            return True
        if is_posix(handle.request):
            return False
        return handle.durability == Durability.PERSISTENT or sure_of_locks(handle) or not self._miscounts_locks()

    def _miscounts_locks(self) -> bool:
        """Whether the server may be a Samba that counts what it refuses to lock: one that leases no directories."""
        session = self._pool.session
        return session is None or not session.agreed.capabilities & DIRECTORY_LEASING

    async def open_for_locks(self, path: str, *, expect: int | None) -> Open:
        """Open a file as `open` does, to read and write, so that what is locked through the handle outlives a loss.

        It ends with the connection where `keeps_locks` is not sure of it. EOPNOTSUPP for a path that only opens by the
        POSIX extensions know.
        """
        if self._posix and POSIX_ALONE.search(self._full(path)):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        lasting = self.persists(await self._pool.ready()) or not self._miscounts_locks()

        async def open_it(lease: Lease | None) -> Open:
            return await self._open(
                path, lease, read=True, write=True, expect=expect, head=0, plain=True, lasting=lasting
            )

        return await self.leased(path, expect, open_it)

    async def create(
        self,
        path: str,
        *,
        read: bool,
        write: bool,
        exclusive: bool,
        readonly_attribute: bool = False,
        mode: int = 0o666,
    ) -> Open:
        """Create a file and open it, or open the one that is there unless `exclusive`; its contents are not touched.

        With `readonly_attribute` a new file is made read-only, for later opens; the handle itself may write. `mode` is
        for servers that keep one.
        """
        attributes = FileAttribute.READONLY if readonly_attribute else FileAttribute.NORMAL
        disposition = Disposition.CREATE if exclusive else Disposition.OPEN_IF
        access = _access(read, write)
        return await self.leased(
            path, None, lambda lease: self._create_and_open(path, lease, access, disposition, attributes, mode)
        )

    async def _create_and_open(
        self, path: str, lease: Lease | None, access: int, disposition: int, file_attributes: int, mode: int
    ) -> Open:
        """Create a file and open it with that lease or none."""
        request = self._create(
            path,
            access,
            disposition=disposition,
            options=CreateOptions.NON_DIRECTORY_FILE,
            contexts=(CreateContext(QUERY_ON_DISK_ID),),
            mode=mode,
            lease=lease,
        )
        request.file_attributes = file_attributes
        handle = await self._open_alone(request, path, writable=bool(access & WRITE_DATA))
        if not handle.created or not handle.attributes_at_open.file_id:
            # An older file may have more links, and some servers do not tell the id with the answer.
            try:
                handle.attributes_at_open = await self.attributes(handle)
            except BaseException:
                self.close(handle)
                raise
        return handle

    # -- attributes

    async def truncate(self, handle: Open, size: int) -> FileAttributes:
        """Set the size of an open file and return its attributes."""
        return await self._set(handle, FileEndOfFileInformation(size))

    async def truncate_path(self, path: str, size: int, expect: int | None) -> FileAttributes:
        """Set the size of the file with the id `expect` by its path."""

        async def cut() -> FileAttributes:
            handle = await self._open_apart(path, read=False, write=True, expect=expect)
            return await self._set_and_close(handle, FileEndOfFileInformation(size))

        return await self._anew(cut)

    async def set_basic(self, path: str, wish: Basics, *, expect: int | None) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits of the file `expect`."""

        async def open_it(options: int) -> Open:
            return await self._expected(path, SET_ACCESS, options, expect)

        async def set_it() -> FileAttributes:
            handle = await self.at_point(open_it)
            return await self._set_and_close(handle, basic_information(wish))

        told = await self._anew(set_it)
        return await self.recognised(path, told)

    async def set_basic_open(self, handle: Open, wish: Basics) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits of an open file."""
        return await self._set(handle, basic_information(wish))


def _access(read: bool, write: bool) -> int:
    """Return the access mask of an open."""
    return (READ_ACCESS if read else 0) | (WRITE_ACCESS if write else 0) or STAT_ACCESS
