"""READ, WRITE, FLUSH and CLOSE ([MS-SMB2] 2.2.15 to 2.2.22)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, slice_checked
from smb3fs.wire.create import FileId, FileReference
from smb3fs.wire.header import HEADER_SIZE, Command, EmptyBody, unpack_body

# [MS-SMB2] 2.2.19: StructureSize, Padding, Flags, Length, Offset, FileId (two halves), MinimumCount, Channel,
# RemainingBytes, ReadChannelInfoOffset, ReadChannelInfoLength, and one byte of Buffer
_READ_REQUEST: Final = Struct("<HBBIQQQIIIHHB")
# [MS-SMB2] 2.2.20: StructureSize, DataOffset, Reserved, DataLength, DataRemaining, Reserved2
_READ_RESPONSE: Final = Struct("<HBBIII")
_READ_DATA: Final = HEADER_SIZE + _READ_RESPONSE.size

READ_UNBUFFERED: Final = 0x01  # 2.2.19, Flags


@dataclass(slots=True)
class ReadRequest:
    """Asks for `length` bytes at `offset`, and for an error when fewer than `minimum_count` are left."""

    command: ClassVar[Command] = Command.READ
    payload: ClassVar[Buffer] = b""

    file_id: FileReference
    offset: int
    length: int
    minimum_count: int = 0
    flags: int = 0
    remaining_bytes: int = 0

    @property
    def credit_size(self) -> int:
        """The size of the answer."""
        return self.length

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        persistent, volatile = self.file_id
        return _READ_REQUEST.pack(
            49,
            _READ_DATA,  # where we would like the data in the answer: directly behind its fixed part
            self.flags,
            self.length,
            self.offset,
            persistent,
            volatile,
            self.minimum_count,
            0,
            self.remaining_bytes,
            0,
            0,
            0,
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        (
            _,
            _padding,
            flags,
            length,
            offset,
            persistent,
            volatile,
            minimum_count,
            _channel,
            remaining_bytes,
            _info_offset,
            _info_length,
            _buffer,
        ) = unpack_body(_READ_REQUEST, pdu, 49)
        return cls(FileId(persistent, volatile), offset, length, minimum_count, flags, remaining_bytes)


@dataclass(slots=True)
class ReadResponse:
    """The bytes that were read, as a view of the message that brought them."""

    data: memoryview
    remaining: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return b"".join((_READ_RESPONSE.pack(17, _READ_DATA, 0, len(self.data), self.remaining, 0), self.data))

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, data_offset, _reserved, data_length, remaining, _reserved2 = unpack_body(_READ_RESPONSE, pdu, 17)
        return cls(slice_checked(pdu, data_offset, data_length, _READ_DATA), remaining)


# [MS-SMB2] 2.2.21: StructureSize, DataOffset, Length, Offset, FileId (two halves), Channel, RemainingBytes,
# WriteChannelInfoOffset, WriteChannelInfoLength, Flags
_WRITE_REQUEST: Final = Struct("<HHIQQQIIHHI")
_WRITE_DATA: Final = HEADER_SIZE + _WRITE_REQUEST.size
# [MS-SMB2] 2.2.22: StructureSize, Reserved, Count, Remaining, WriteChannelInfoOffset, WriteChannelInfoLength
_WRITE_RESPONSE: Final = Struct("<HHIIHH")

WRITE_THROUGH: Final = 0x01  # 2.2.21, Flags
WRITE_UNBUFFERED: Final = 0x02


@dataclass(slots=True)
class WriteRequest:
    """Writes `data` at `offset`; the data are never copied into the body but sent behind it as `payload`."""

    command: ClassVar[Command] = Command.WRITE

    file_id: FileReference
    offset: int
    data: Buffer
    flags: int = 0

    @property
    def payload(self) -> Buffer:
        """The data, as they lie."""
        return self.data

    @property
    def credit_size(self) -> int:
        """The size of the data."""
        return len(self.data)

    def encode(self) -> bytes:
        """Return the 48 bytes between the header and the data."""
        persistent, volatile = self.file_id
        return _WRITE_REQUEST.pack(
            49, _WRITE_DATA, len(self.data), self.offset, persistent, volatile, 0, 0, 0, 0, self.flags
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request with its data, beginning at its header."""
        (
            _,
            data_offset,
            length,
            offset,
            persistent,
            volatile,
            _channel,
            _remaining,
            _info_offset,
            _info_length,
            flags,
        ) = unpack_body(_WRITE_REQUEST, pdu, 49)
        return cls(FileId(persistent, volatile), offset, slice_checked(pdu, data_offset, length, _WRITE_DATA), flags)


@dataclass(slots=True)
class WriteResponse:
    """How many bytes were written."""

    count: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _WRITE_RESPONSE.pack(17, 0, self.count, 0, 0, 0)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, _reserved, count, _remaining, _info_offset, _info_length = unpack_body(_WRITE_RESPONSE, pdu, 17)
        return cls(count)


# [MS-SMB2] 2.2.17: StructureSize, Reserved1, Reserved2, FileId (two halves)
_FLUSH_REQUEST: Final = Struct("<HHIQQ")


@dataclass(slots=True)
class FlushRequest:
    """Asks the server to put what was written on its disk."""

    command: ClassVar[Command] = Command.FLUSH
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    file_id: FileReference

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _FLUSH_REQUEST.pack(24, 0, 0, *self.file_id)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, _reserved1, _reserved2, persistent, volatile = unpack_body(_FLUSH_REQUEST, pdu, 24)
        return cls(FileId(persistent, volatile))


@dataclass(slots=True)
class FlushResponse(EmptyBody):
    """The data are on the disk ([MS-SMB2] 2.2.18)."""


# [MS-SMB2] 2.2.15: StructureSize, Flags, Reserved, FileId (two halves)
_CLOSE_REQUEST: Final = Struct("<HHIQQ")
# [MS-SMB2] 2.2.16: StructureSize, Flags, Reserved, CreationTime, LastAccessTime, LastWriteTime, ChangeTime,
# AllocationSize, EndofFile, FileAttributes
_CLOSE_RESPONSE: Final = Struct("<HHIQQQQQQI")

CLOSE_POSTQUERY_ATTRIBUTES: Final = 0x0001  # 2.2.15, Flags: fill in the attributes of the answer


@dataclass(slots=True)
class CloseRequest:
    """Gives an open back."""

    command: ClassVar[Command] = Command.CLOSE
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    file_id: FileReference
    flags: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _CLOSE_REQUEST.pack(24, self.flags, 0, *self.file_id)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, flags, _reserved, persistent, volatile = unpack_body(_CLOSE_REQUEST, pdu, 24)
        return cls(FileId(persistent, volatile), flags)


@dataclass(slots=True)
class CloseResponse:
    """The open is gone; the attributes mean something only when `flags` has `CLOSE_POSTQUERY_ATTRIBUTES`."""

    flags: int = 0
    creation_time: int = 0
    last_access_time: int = 0
    last_write_time: int = 0
    change_time: int = 0
    allocation_size: int = 0
    end_of_file: int = 0
    file_attributes: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _CLOSE_RESPONSE.pack(
            60,
            self.flags,
            0,
            self.creation_time,
            self.last_access_time,
            self.last_write_time,
            self.change_time,
            self.allocation_size,
            self.end_of_file,
            self.file_attributes,
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, flags, _reserved, *attributes = unpack_body(_CLOSE_RESPONSE, pdu, 60)
        return cls(flags, *attributes)
