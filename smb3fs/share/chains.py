"""What all file verbs are made of: chains of requests on the mounted tree, in as few round trips as possible.

A chain that only looks may be sent again after a loss; one that changes something is not, and its caller learns of the
loss as EIO, since nobody knows whether it was done.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.pool import Held, Pool, Repeat
from smb3fs.channels.session import Session
from smb3fs.connection import Answer
from smb3fs.errors import Status, StatusError
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.lease import RH, RWH, Lease
from smb3fs.handles.opens import Open, OpenTable, kept_for, promised
from smb3fs.handles.renamed import SecondNames
from smb3fs.trace import Trace
from smb3fs.wire.codec import ns_to_filetime, utf16
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateAction,
    CreateContext,
    CreateRequest,
    CreateResponse,
    Disposition,
    HeldFileId,
    OplockLevel,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID, TIMEWARP_TOKEN, DiskId, TimewarpToken
from smb3fs.wire.header import Command, Request
from smb3fs.wire.infoclass import (
    LEAVE_TIME,
    FileAllInformation,
    FileAllocationInformation,
    FileBasicInformation,
    FileDispositionInformation,
    FileEndOfFileInformation,
    FileInternalInformation,
    FileLinkInformation,
    FileRenameInformation,
)
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseState
from smb3fs.wire.negotiate import Capability
from smb3fs.wire.posix import POSIX_GUID, FilePosixInformation, PosixCreate, PosixCreated
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest
from smb3fs.wire.tree import ShareCapability

# Room for the fixed part of FileAllInformation and the longest path that a server on Linux has (4,095 characters): smbd
# answers STATUS_ILLEGAL_CHARACTER where a long path does not fit.
ALL_INFORMATION_ROOM: Final = 16 * 1024
# Room for a file system's attributes and the longest name that it may have for itself.
FS_ATTRIBUTE_ROOM: Final = 12 + 2 * 255
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
SYNCHRONIZE: Final = int(AccessMask.SYNCHRONIZE)
WRITE_DATA: Final = int(AccessMask.WRITE_DATA)
PERSISTENT_HANDLES: Final = int(Capability.PERSISTENT_HANDLES)
DIRECTORY_LEASING: Final = int(Capability.DIRECTORY_LEASING)
CONTINUOUS_AVAILABILITY: Final = int(ShareCapability.CONTINUOUS_AVAILABILITY)
WRITE: Final = int(LeaseState.WRITE)
# Who asks for no more than this neither breaks a lease nor is granted one ([MS-SMB2] 3.3.5.9, Samba's stat opens).
NEITHER_BREAKS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.WRITE_ATTRIBUTES | AccessMask.SYNCHRONIZE)
SET_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.WRITE_ATTRIBUTES | AccessMask.SYNCHRONIZE)
LIST_ACCESS: Final = int(AccessMask.LIST_DIRECTORY | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
DELETE_ACCESS: Final = int(AccessMask.DELETE | AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)

QUERY_ALL: Final = QueryInfoRequest(
    RELATED_FILE_ID, InfoType.FILE, FileAllInformation.information_class, ALL_INFORMATION_ROOM
)
# Of fixed size but for two SIDs, which have 68 bytes at most.
QUERY_POSIX: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FilePosixInformation.information_class, 512)
QUERY_INTERNAL: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileInternalInformation.information_class, 8)
CLOSE_RELATED: Final = CloseRequest(RELATED_FILE_ID)

# What no name has but those that are opened by the POSIX extensions, whose separator is the slash.
POSIX_ALONE: Final = re.compile(r'["*:<>?|\\\x00-\x1f]|[ .](/|\Z)')


@dataclass(slots=True)
class AttributesQuery(QueryInfoRequest):
    """Asks an open for the attributes of its file, by the class that it understands when the request is sent.

    An open that is claimed, or trades places with another one, may be one of the POSIX extensions before and none after
    it, or the other way around. `information_class` is that which was sent last, by which the answer has to be read.
    """

    handle: Open = field(kw_only=True)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        of = QUERY_POSIX if self.handle.posix else QUERY_ALL
        self.information_class = of.information_class
        return QueryInfoRequest.encode(self)


class Chains:
    """The tree of a mount, and the chains that verbs send to it; each group of verbs is a class on top of this one.

    Paths are relative to the root of the mount, components joined by a backslash, "" for the root itself; names are
    the server's. Where the POSIX extensions are in use they are joined by a slash, and each CREATE says so.
    """

    def __init__(
        self,
        pool: Pool,
        opens: OpenTable,
        trace: Trace,
        *,
        prefix: str = "",
        rsize: int = 4 << 20,
        wsize: int = 4 << 20,
        snapshot: int | None = None,
        mfsymlinks: bool = False,
        persistent: bool = True,
        handle_timeout: int = 0,
    ) -> None:
        """`prefix` is the directory of the share that is the mount's root; `rsize` and `wsize` bound one request.

        With `snapshot`, a FILETIME, all files are those of that previous version of the share.
        With `mfsymlinks` files in Minshall and French's notation are taken for the links that they describe.
        `handle_timeout` is for how many milliseconds the server is asked to keep opens after a loss, 0 leaves that to
        it; unless `persistent` it is not asked to keep them for good.
        """
        self._pool = pool
        self._opens = opens
        self._leases = opens.leases
        self._trace = trace
        self._prefix = prefix
        self._rsize = rsize
        self._wsize = wsize
        self._timewarp: tuple[CreateContext, ...] = ()
        if snapshot is not None:
            self._timewarp = (CreateContext(TIMEWARP_TOKEN, TimewarpToken(snapshot).encode()),)
        # Whether both queries that tell a file's number tell the same one; there are servers that make one up.
        self.agreeing_ids = True
        # Whether a CREATE is answered with the number of what it opens.
        self._numbers_at_open = True
        self._mfsymlinks = mfsymlinks
        self._persistent = persistent
        self._handle_timeout = handle_timeout
        # What takes names away when it can.
        self.second_names: SecondNames | None = None
        # What is being opened anew under another name.
        self._following: set[Open] = set()
        # Whose turn it is to open a file, by its path.
        self._turns: dict[str, trio.Lock] = {}
        # Whether the server has shown that it makes no reparse points.
        self._no_points = False
        # Whether files on the volume may have blocks in common, None until it is known: see `smb3fs.share.cloning`.
        self._refcounting: bool | None = None
        # Whether the POSIX extensions are in use, see `smb3fs.share.posix`.
        self._posix = False
        self._separator = "\\"

    def persists(self, session: Session) -> bool:
        """Whether opens of a session are kept for good: the server and the share must promise it."""
        return bool(
            self._persistent
            and session.agreed.capabilities & PERSISTENT_HANDLES
            and session.tree.capabilities & CONTINUOUS_AVAILABILITY
        )

    def is_forgetful(self, session: Session) -> bool:
        """Whether the server may be a Samba of before 4.22, by what it does not announce: leases of directories."""
        return not (session.agreed.capabilities & DIRECTORY_LEASING or self.persists(session))

    def _check_id(self, expected: int | None, answer: Answer) -> None:
        """Raise ESTALE if FileInternalInformation shows another file than the expected one."""
        if self.agreeing_ids:
            check_expected(expected, internal_id(answer))

    def _full(self, path: str) -> str:
        """Return the name on the share of a path in the mount."""
        full = self._separator.join(part for part in (self._prefix, path) if part)
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
        mode: int = 0,
        lease: Lease | None = None,
    ) -> CreateRequest:
        """Build the CREATE that begins a chain; `mode` has the permission bits of a file that it makes.

        `lease` is the one that it asks for. Without one it names that which the file is open with, if it is, and asks
        for no more than there is of it: without its key we would break our own lease.
        """
        if lease is not None:
            contexts = (*contexts, self._leases.context(lease, RWH if access & WRITE_DATA else RH))
        elif disposition == Disposition.OPEN and access & ~NEITHER_BREAKS:
            lease = self._leases.find(path)
            contexts = contexts if lease is None else (*contexts, self._leases.context(lease, lease.state))
        named = None
        if lease is None and path and (access & ~STAT_ACCESS or disposition != Disposition.OPEN):
            # What it changes is to break the leases of others on the directory, and not ours.
            named = self._leases.naming_parent(path.rpartition(self._separator)[0])
            contexts = contexts if named is None else (*contexts, named)
        if self._timewarp:
            contexts = (*contexts, *self._timewarp)
        if self._posix:
            contexts = (*contexts, CreateContext(POSIX_GUID, PosixCreate(mode).encode()))
            # A server that goes by modes may find that somebody without any right to a file has not this one either,
            # and then refuses what POSIX leaves to its owner, or to the owner of its directory. Nothing needs it.
            access &= ~SYNCHRONIZE
        oplock_level = OplockLevel.NONE if lease is None and named is None else OplockLevel.LEASE
        return CreateRequest(
            self._full(path), access, disposition, options, oplock_level=oplock_level, contexts=contexts
        )

    async def _send(self, chain: Sequence[Request], *, repeat: Repeat = Repeat.NEVER) -> tuple[Session, list[Answer]]:
        """Send a chain that begins with a CREATE, once more without the key of a lease if it is that which is refused.

        The key is another file's if somebody has moved that away, and put this one in its place.
        """
        session, answers = await self._pool.call(chain, repeat=repeat)
        request = chain[0]
        if answers[0].status == Status.INVALID_PARAMETER and isinstance(request, CreateRequest) and is_leased(request):
            session, answers = await self._pool.call([without_lease(request), *chain[1:]], repeat=repeat)
        return session, answers

    def _moved(self, old: str, new: str) -> None:
        """Have the opens of what was renamed known by its new name."""
        self._leases.renamed(old, new)
        self._opens.moved((old, self._full(old)), (new, self._full(new)), self._separator)
        if self.second_names is not None:
            parent_key = self._leases.directory_key(new.rpartition(self._separator)[0])
            self.second_names.moved(self._full(old), self._full(new), parent_key)

    def _query(self, handle: Open | None = None) -> QueryInfoRequest:
        """Build the query for the attributes of a handle, or of what the chain has opened.

        Where the handle is known it is named, for not every server finds by itself which one is meant.
        """
        if handle is None:
            return QUERY_POSIX if self._posix else QUERY_ALL
        return AttributesQuery(handle.file_id, QUERY_ALL.info_type, 0, ALL_INFORMATION_ROOM, handle=handle)

    def _told(self, answer: Answer, query: QueryInfoRequest | None = None) -> FileAttributes:
        """Read the answer to a `_query`; without it, to one of what a chain has opened."""
        data = memoryview(QueryInfoResponse.parse(answer.pdu).data)
        if self._posix if query is None else query.information_class == QUERY_POSIX.information_class:
            return FileAttributes.from_posix(FilePosixInformation.parse(data))
        return FileAttributes.from_all_information(FileAllInformation.parse(data))

    def _opened(
        self, request: CreateRequest, answer: Answer, path: str, session: Session, *, writable: bool = False
    ) -> Open:
        """Enter what `request` has been granted in a session into the open table, or raise its refusal."""
        if answer.status != Status.SUCCESS:
            raise StatusError(answer.status, Command.CREATE.name)
        told = CreateResponse.parse(answer.pdu)
        contexts = {context.name: context.data for context in told.contexts}
        file_id = DiskId.parse(contexts[QUERY_ON_DISK_ID]).file_id if QUERY_ON_DISK_ID in contexts else 0
        attributes = FileAttributes.from_create(told, file_id, links=1)
        if POSIX_GUID in contexts:
            attributes = attributes.with_owned(PosixCreated.parse(contexts[POSIX_GUID]))
        handle = Open(
            path,
            HeldFileId(*told.file_id),
            session.generation,
            attributes,
            request,
            writable,
            created=told.create_action == CreateAction.CREATED,
            posix=POSIX_GUID in contexts,
        )
        handle.create_guid, handle.durability = promised(request, contexts)
        handle.timers.kept_for = kept_for(contexts)
        acknowledgement = self._leases.granted(handle, request.contexts, contexts, file_id)
        if acknowledgement is not None:
            session.post([acknowledgement])
        self._opens.add(handle)
        return handle

    def usable(self, handle: Open) -> bool:
        """Whether a handle stands for something on the server, as far as is known: a recovery may find it lost."""
        return not handle.closed and not handle.lost

    def close(self, handle: Open, *, hurry: bool = True) -> None:
        """Queue the CLOSE of a handle; nobody waits for its answer. It takes a moment where there is no `hurry`."""
        # An open that comes before that moment has another key, and would have to wait until we have given this W back.
        hurry = hurry or (handle.lease is not None and bool(handle.lease.state & WRITE))
        if self._opens.remove(handle):
            self._pool.post([CloseRequest(handle.file_id)], handle, lambda: self._opens.forget(handle), hurry=hurry)

    async def _chain(self, chain: Sequence[Request], *, repeat: Repeat = Repeat.NEVER) -> tuple[Session, list[Answer]]:
        """Send a chain that opens what is closed at its end, or by us; raise the first error in it."""
        session, answers = await self._send(chain, repeat=repeat)
        try:
            raise_first(chain, answers)
        except StatusError:
            self._close_leftover(answers, session)
            raise
        if chain[-1].command != Command.CLOSE:
            self._close_opened(answers[0], session)
        return session, answers

    def _close_leftover(self, answers: Sequence[Answer], session: Held) -> None:
        """Close what a chain opened if its own CLOSE failed, which no server should let happen."""
        if answers[0].status == Status.SUCCESS and answers[-1].status != Status.SUCCESS:
            self._close_opened(answers[0], session)

    def _close_opened(self, answer: Answer, session: Held) -> None:
        """Queue the CLOSE of what has not become an `Open`."""
        self._pool.post([CloseRequest(CreateResponse.parse(answer.pdu).file_id)], session)

    async def _on(
        self,
        handle: Open,
        chain: Sequence[Request],
        repeat: Repeat,
        check: Callable[[], None] | None = None,
        channel: Channel | None = None,
    ) -> list[Answer]:
        """Send a chain on an open handle; raise the first error in it, or what `check` raises: see `Pool.call`."""
        _, answers = await self._pool.call(chain, handle=handle, repeat=repeat, check=check, channel=channel)
        raise_first(chain, answers)
        return answers

    async def _set(self, handle: Open, info: FileBasicInformation | FileEndOfFileInformation) -> FileAttributes:
        """Set one kind of information and return the attributes that result; one round trip."""
        query = self._query(handle)
        answers = await self._on(handle, [set_info(info, handle), query], Repeat.REPLAY)
        handle.seen = self._told(answers[1], query)
        return handle.seen

    async def _set_and_close(
        self, handle: Open, info: FileBasicInformation | FileEndOfFileInformation
    ) -> FileAttributes:
        """Do as `_set` does and close the handle in the same round trip."""
        query = self._query(handle)
        answers = await self._and_close(handle, [set_info(info, handle), query])
        return self._told(answers[1], query)

    async def _and_close(self, handle: Open, chain: Sequence[Request]) -> list[Answer]:
        """Send a chain on an open handle and close it, in one round trip; raise the first error in the chain."""
        try:
            _, answers = await self._pool.call([*chain, CloseRequest(handle.file_id)], handle=handle)
        except BaseException:
            self.close(handle)
            raise
        if answers[-1].status == Status.SUCCESS:
            self._opens.forget(handle)
        else:
            self.close(handle)
        raise_first(chain, answers[:-1])
        return answers[:-1]


def is_posix(request: CreateRequest) -> bool:
    """Whether a CREATE asks for an open by the rules of the POSIX extensions."""
    return any(context.name == POSIX_GUID for context in request.contexts)


def without_posix(request: CreateRequest) -> CreateRequest:
    """Return a CREATE that has nothing to do with the POSIX extensions; see POSIX_ALONE for what it cannot name."""
    contexts = [context for context in request.contexts if context.name != POSIX_GUID]
    return replace(request, name=request.name.replace("/", "\\"), contexts=contexts)


def is_leased(request: CreateRequest) -> bool:
    """Whether a CREATE asks for a lease or names one."""
    return request.oplock_level == OplockLevel.LEASE


def without_lease(request: CreateRequest) -> CreateRequest:
    """Return a CREATE that has nothing to do with any lease."""
    contexts = [context for context in request.contexts if context.name != LEASE_CONTEXT]
    return replace(request, oplock_level=OplockLevel.NONE, contexts=contexts)


def raise_first(chain: Sequence[Request], answers: Sequence[Answer]) -> None:
    """Raise the first error status of a chain; a cut-off name in an answer is not one."""
    for request, answer in zip(chain, answers, strict=True):
        if answer.status == Status.BUFFER_OVERFLOW and request.command == Command.QUERY_INFO:
            continue
        if answer.status != Status.SUCCESS:
            raise StatusError(answer.status, request.command.name)


def internal_id(answer: Answer) -> int:
    """Read the answer to a query for FileInternalInformation."""
    data = QueryInfoResponse.parse(answer.pdu).data
    return FileInternalInformation.parse(memoryview(data)).index_number


def check_expected(expected: int | None, found: int) -> None:
    """Raise ESTALE if another file stands where the expected one was."""
    if expected is not None and expected != found:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def basic_information(wish: Basics) -> FileBasicInformation:
    """Build the information that sets times and attributes."""
    created, accessed, modified = (LEAVE_TIME if ns is None else ns_to_filetime(ns) for ns in wish.times)
    return FileBasicInformation(created, accessed, modified, LEAVE_TIME, wish.attributes)


def set_info(
    info: FileBasicInformation
    | FileEndOfFileInformation
    | FileAllocationInformation
    | FileDispositionInformation
    | FileRenameInformation
    | FileLinkInformation,
    handle: Open | None = None,
) -> SetInfoRequest:
    """Build a SET_INFO on a handle, or on what the chain has opened."""
    file_id = handle.file_id if handle is not None else RELATED_FILE_ID
    return SetInfoRequest(file_id, InfoType.FILE, info.information_class, info.encode())
