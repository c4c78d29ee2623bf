"""CREATE, file ids, and the vocabulary of opening a file ([MS-SMB2] 2.2.13, 2.2.14)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, from_utf16, pad8, slice_checked, unpack_at, utf16
from smb3fs.wire.header import HEADER_SIZE, RELATED_ID64, Command, unpack_body


class FileId(NamedTuple):
    """An open on the server ([MS-SMB2] 2.2.14.1)."""

    persistent: int
    volatile: int


class HeldFileId:
    """The id of an open that may be given another one: requests refer to it, and carry what it is when they are sent.

    A server that gives back an open after a loss gives it a new volatile half ([MS-SMB2] 3.2.5.12).
    """

    __slots__ = ("persistent", "volatile")

    def __init__(self, persistent: int, volatile: int) -> None:
        self.persistent = persistent
        self.volatile = volatile

    def __iter__(self) -> Iterator[int]:
        """Unpack as a `FileId` does."""
        return iter((self.persistent, self.volatile))

    def __repr__(self) -> str:
        """Write it down as it is now."""
        return f"HeldFileId({self.persistent:#x}, {self.volatile:#x})"


# What a request may name an open by.
FileReference = FileId | HeldFileId


# "The file of the element before", in a compound ([MS-SMB2] 3.2.4.1.4).
RELATED_FILE_ID: Final = FileId(RELATED_ID64, RELATED_ID64)


class AccessMask(IntFlag):
    """What an open may do; for directories some bits have a second name ([MS-SMB2] 2.2.13.1)."""

    READ_DATA = 0x00000001
    LIST_DIRECTORY = 0x00000001
    WRITE_DATA = 0x00000002
    ADD_FILE = 0x00000002
    APPEND_DATA = 0x00000004
    ADD_SUBDIRECTORY = 0x00000004
    READ_EA = 0x00000008
    WRITE_EA = 0x00000010
    EXECUTE = 0x00000020
    TRAVERSE = 0x00000020
    DELETE_CHILD = 0x00000040
    READ_ATTRIBUTES = 0x00000080
    WRITE_ATTRIBUTES = 0x00000100
    DELETE = 0x00010000
    READ_CONTROL = 0x00020000
    WRITE_DAC = 0x00040000
    WRITE_OWNER = 0x00080000
    SYNCHRONIZE = 0x00100000
    ACCESS_SYSTEM_SECURITY = 0x01000000
    MAXIMUM_ALLOWED = 0x02000000
    GENERIC_ALL = 0x10000000
    GENERIC_EXECUTE = 0x20000000
    GENERIC_WRITE = 0x40000000
    GENERIC_READ = 0x80000000


class Disposition(IntEnum):
    """What to do when the file exists, and when it does not ([MS-SMB2] 2.2.13)."""

    SUPERSEDE = 0
    OPEN = 1
    CREATE = 2
    OPEN_IF = 3
    OVERWRITE = 4
    OVERWRITE_IF = 5


class CreateOptions(IntFlag):
    """CreateOptions ([MS-SMB2] 2.2.13)."""

    DIRECTORY_FILE = 0x00000001
    WRITE_THROUGH = 0x00000002
    SEQUENTIAL_ONLY = 0x00000004
    NO_INTERMEDIATE_BUFFERING = 0x00000008
    SYNCHRONOUS_IO_ALERT = 0x00000010
    SYNCHRONOUS_IO_NONALERT = 0x00000020
    NON_DIRECTORY_FILE = 0x00000040
    COMPLETE_IF_OPLOCKED = 0x00000100
    NO_EA_KNOWLEDGE = 0x00000200
    RANDOM_ACCESS = 0x00000800
    DELETE_ON_CLOSE = 0x00001000
    OPEN_BY_FILE_ID = 0x00002000
    OPEN_FOR_BACKUP_INTENT = 0x00004000
    NO_COMPRESSION = 0x00008000
    OPEN_REQUIRING_OPLOCK = 0x00010000
    DISALLOW_EXCLUSIVE = 0x00020000
    RESERVE_OPFILTER = 0x00100000
    OPEN_REPARSE_POINT = 0x00200000
    OPEN_NO_RECALL = 0x00400000
    OPEN_FOR_FREE_SPACE_QUERY = 0x00800000


class FileAttribute(IntFlag):
    """File attributes ([MS-FSCC] 2.6)."""

    READONLY = 0x00000001
    HIDDEN = 0x00000002
    SYSTEM = 0x00000004
    DIRECTORY = 0x00000010
    ARCHIVE = 0x00000020
    NORMAL = 0x00000080
    TEMPORARY = 0x00000100
    SPARSE_FILE = 0x00000200
    REPARSE_POINT = 0x00000400
    COMPRESSED = 0x00000800
    OFFLINE = 0x00001000
    NOT_CONTENT_INDEXED = 0x00002000
    ENCRYPTED = 0x00004000
    INTEGRITY_STREAM = 0x00008000
    NO_SCRUB_DATA = 0x00020000
    RECALL_ON_OPEN = 0x00040000
    PINNED = 0x00080000
    UNPINNED = 0x00100000
    RECALL_ON_DATA_ACCESS = 0x00400000


class ShareAccess(IntFlag):
    """What other opens may do at the same time ([MS-SMB2] 2.2.13)."""

    READ = 1
    WRITE = 2
    DELETE = 4


class OplockLevel(IntEnum):
    """The oplock that is asked for or granted ([MS-SMB2] 2.2.13)."""

    NONE = 0x00
    II = 0x01
    EXCLUSIVE = 0x08
    BATCH = 0x09
    LEASE = 0xFF


class CreateAction(IntEnum):
    """What the server did ([MS-SMB2] 2.2.14)."""

    SUPERSEDED = 0
    OPENED = 1
    CREATED = 2
    OVERWRITTEN = 3


# [MS-SMB2] 2.2.13.2: Next, NameOffset, NameLength, Reserved, DataOffset, DataLength
_CONTEXT: Final = Struct("<IHHHHI")


class CreateContext(NamedTuple):
    """One create context: `name` is four ASCII letters or a GUID's 16 bytes, `data` what the name stands for."""

    name: bytes
    data: bytes = b""


def encode_contexts(contexts: Sequence[CreateContext]) -> bytes:
    """Return the chain of contexts, as it stands at an offset divisible by 8."""
    chain = bytearray()
    for number, (name, data) in enumerate(contexts, 1):
        data_offset = pad8(_CONTEXT.size + len(name)) if data else 0
        size = data_offset + len(data) if data else _CONTEXT.size + len(name)
        step = pad8(size) if number < len(contexts) else 0
        element = _CONTEXT.pack(step, _CONTEXT.size, len(name), 0, data_offset, len(data)) + name
        if data:
            element = element.ljust(data_offset, b"\0") + data
        chain += element.ljust(step, b"\0")
    return bytes(chain)


def parse_contexts(chain: memoryview) -> list[CreateContext]:
    """Read a chain of contexts; their order is kept."""
    contexts: list[CreateContext] = []
    start = 0
    while start < len(chain):
        step, name_offset, name_length, _reserved, data_offset, data_length = unpack_at(_CONTEXT, chain, start)
        element = chain[start:]
        contexts.append(
            CreateContext(
                bytes(slice_checked(element, name_offset, name_length, _CONTEXT.size)),
                bytes(slice_checked(element, data_offset, data_length, _CONTEXT.size)),
            )
        )
        if not step:
            break
        if step < _CONTEXT.size or step > len(element):
            raise WireError(f"Next {step} of a create context with {len(element)} bytes left")
        start += step
    return contexts


# [MS-SMB2] 2.2.13: StructureSize, SecurityFlags, RequestedOplockLevel, ImpersonationLevel, SmbCreateFlags, Reserved,
# DesiredAccess, FileAttributes, ShareAccess, CreateDisposition, CreateOptions, NameOffset, NameLength,
# CreateContextsOffset, CreateContextsLength
_REQUEST: Final = Struct("<HBBIQQIIIIIHHII")
_REQUEST_BUFFER: Final = HEADER_SIZE + _REQUEST.size


@dataclass(slots=True)
class CreateRequest:
    """Opens or creates the file `name`, given relative to the share without a leading backslash."""

    command: ClassVar[Command] = Command.CREATE
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    name: str
    desired_access: int
    disposition: int
    create_options: int = 0
    file_attributes: int = 0
    share_access: int = 7
    oplock_level: int = 0
    impersonation: int = 2
    contexts: Sequence[CreateContext] = ()

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        name = utf16(self.name)
        chain = encode_contexts(self.contexts) if self.contexts else b""
        buffer = name.ljust(pad8(len(name)), b"\0") + chain if chain else name
        return _REQUEST.pack(
            57,
            0,
            self.oplock_level,
            self.impersonation,
            0,
            0,
            self.desired_access,
            self.file_attributes,
            self.share_access,
            self.disposition,
            self.create_options,
            _REQUEST_BUFFER,
            len(name),
            _REQUEST_BUFFER + pad8(len(name)) if chain else 0,
            len(chain),
        ) + (buffer or b"\0")  # the buffer has at least one byte, even for the root of the share

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        (
            _,
            _security_flags,
            oplock_level,
            impersonation,
            _create_flags,
            _reserved,
            desired_access,
            file_attributes,
            share_access,
            disposition,
            create_options,
            name_offset,
            name_length,
            contexts_offset,
            contexts_length,
        ) = unpack_body(_REQUEST, pdu, 57)
        return cls(
            from_utf16(slice_checked(pdu, name_offset, name_length, _REQUEST_BUFFER)),
            desired_access,
            disposition,
            create_options,
            file_attributes,
            share_access,
            oplock_level,
            impersonation,
            parse_contexts(slice_checked(pdu, contexts_offset, contexts_length, _REQUEST_BUFFER)),
        )


# [MS-SMB2] 2.2.14: StructureSize, OplockLevel, Flags, CreateAction, CreationTime, LastAccessTime, LastWriteTime,
# ChangeTime, AllocationSize, EndofFile, FileAttributes, Reserved2, FileId (two halves), CreateContextsOffset,
# CreateContextsLength
_RESPONSE: Final = Struct("<HBBIQQQQQQIIQQII")
_RESPONSE_BUFFER: Final = HEADER_SIZE + _RESPONSE.size


@dataclass(slots=True)
class CreateResponse:
    """The open that was made, and the file's attributes at that moment."""

    oplock_level: int
    flags: int
    create_action: int
    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    allocation_size: int
    end_of_file: int
    file_attributes: int
    file_id: FileId
    contexts: list[CreateContext] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        chain = encode_contexts(self.contexts)
        return (
            _RESPONSE.pack(
                89,
                self.oplock_level,
                self.flags,
                self.create_action,
                self.creation_time,
                self.last_access_time,
                self.last_write_time,
                self.change_time,
                self.allocation_size,
                self.end_of_file,
                self.file_attributes,
                0,
                *self.file_id,
                _RESPONSE_BUFFER if chain else 0,
                len(chain),
            )
            + chain
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        (
            _,
            oplock_level,
            flags,
            create_action,
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            allocation_size,
            end_of_file,
            file_attributes,
            _reserved,
            persistent,
            volatile,
            contexts_offset,
            contexts_length,
        ) = unpack_body(_RESPONSE, pdu, 89)
        return cls(
            oplock_level,
            flags,
            create_action,
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            allocation_size,
            end_of_file,
            file_attributes,
            FileId(persistent, volatile),
            parse_contexts(slice_checked(pdu, contexts_offset, contexts_length, _RESPONSE_BUFFER)),
        )
