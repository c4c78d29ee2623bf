"""QUERY_DIRECTORY, QUERY_INFO and SET_INFO ([MS-SMB2] 2.2.33, 2.2.34, 2.2.37 to 2.2.40)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, from_utf16, slice_checked, utf16
from smb3fs.wire.create import FileId, FileReference
from smb3fs.wire.header import HEADER_SIZE, Command, unpack_body


class InfoType(IntEnum):
    """What an information class speaks about ([MS-SMB2] 2.2.37)."""

    FILE = 1
    FILESYSTEM = 2
    SECURITY = 3
    QUOTA = 4


# [MS-SMB2] 2.2.33, Flags
RESTART_SCANS: Final = 0x01
RETURN_SINGLE_ENTRY: Final = 0x02
INDEX_SPECIFIED: Final = 0x04
REOPEN: Final = 0x10

# [MS-SMB2] 2.2.33: StructureSize, FileInformationClass, Flags, FileIndex, FileId (two halves), FileNameOffset,
# FileNameLength, OutputBufferLength
_DIRECTORY_REQUEST: Final = Struct("<HBBIQQHHI")
_DIRECTORY_REQUEST_BUFFER: Final = HEADER_SIZE + _DIRECTORY_REQUEST.size
# [MS-SMB2] 2.2.34 and 2.2.38: StructureSize, OutputBufferOffset, OutputBufferLength
_RESPONSE: Final = Struct("<HHI")
_RESPONSE_BUFFER: Final = HEADER_SIZE + _RESPONSE.size


def _encode_response(data: Buffer) -> bytes:
    """Return the body of an answer that is nothing but a buffer."""
    return b"".join((_RESPONSE.pack(9, _RESPONSE_BUFFER, len(data)), data))


def _parse_response(pdu: memoryview) -> memoryview:
    """Return the buffer of an answer that is nothing else."""
    _, offset, length = unpack_body(_RESPONSE, pdu, 9)
    return slice_checked(pdu, offset, length, _RESPONSE_BUFFER)


@dataclass(slots=True)
class QueryDirectoryRequest:
    """Asks for the next page of a directory, entries that match `pattern` only."""

    command: ClassVar[Command] = Command.QUERY_DIRECTORY
    payload: ClassVar[Buffer] = b""

    file_id: FileReference
    information_class: int
    output_length: int
    pattern: str = "*"
    flags: int = 0
    file_index: int = 0

    @property
    def credit_size(self) -> int:
        """The size of the answer, which is never smaller than a pattern is."""
        return max(self.output_length, 2 * len(self.pattern))

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        pattern = utf16(self.pattern)
        return _DIRECTORY_REQUEST.pack(
            33,
            self.information_class,
            self.flags,
            self.file_index,
            *self.file_id,
            _DIRECTORY_REQUEST_BUFFER,
            len(pattern),
            self.output_length,
        ) + (pattern or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, information_class, flags, file_index, persistent, volatile, offset, length, output_length = unpack_body(
            _DIRECTORY_REQUEST, pdu, 33
        )
        pattern = from_utf16(slice_checked(pdu, offset, length, _DIRECTORY_REQUEST_BUFFER))
        return cls(FileId(persistent, volatile), information_class, output_length, pattern, flags, file_index)


@dataclass(slots=True)
class QueryDirectoryResponse:
    """One page of a directory, as a view of the message that brought it."""

    data: memoryview

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _encode_response(self.data)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        return cls(_parse_response(pdu))


# [MS-SMB2] 2.2.37: StructureSize, InfoType, FileInfoClass, OutputBufferLength, InputBufferOffset, Reserved,
# InputBufferLength, AdditionalInformation, Flags, FileId (two halves)
_QUERY_REQUEST: Final = Struct("<HBBIHHIIIQQ")
_QUERY_REQUEST_BUFFER: Final = HEADER_SIZE + _QUERY_REQUEST.size


@dataclass(slots=True)
class QueryInfoRequest:
    """Asks for one information class of a file, its file system or its security descriptor."""

    command: ClassVar[Command] = Command.QUERY_INFO
    payload: ClassVar[Buffer] = b""

    file_id: FileReference
    info_type: int
    information_class: int
    output_length: int
    additional: int = 0
    flags: int = 0
    input: bytes = b""

    @property
    def credit_size(self) -> int:
        """The size of the answer or of the input, whichever is larger."""
        return max(self.output_length, len(self.input))

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _QUERY_REQUEST.pack(
            41,
            self.info_type,
            self.information_class,
            self.output_length,
            _QUERY_REQUEST_BUFFER if self.input else 0,
            0,
            len(self.input),
            self.additional,
            self.flags,
            *self.file_id,
        ) + (self.input or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        (
            _,
            info_type,
            information_class,
            output_length,
            offset,
            _reserved,
            length,
            additional,
            flags,
            persistent,
            volatile,
        ) = unpack_body(_QUERY_REQUEST, pdu, 41)
        input_ = bytes(slice_checked(pdu, offset, length, _QUERY_REQUEST_BUFFER))
        return cls(FileId(persistent, volatile), info_type, information_class, output_length, additional, flags, input_)


@dataclass(slots=True)
class QueryInfoResponse:
    """The information, as a view of the message that brought it."""

    data: memoryview

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _encode_response(self.data)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        return cls(_parse_response(pdu))


# [MS-SMB2] 2.2.39: StructureSize, InfoType, FileInfoClass, BufferLength, BufferOffset, Reserved,
# AdditionalInformation, FileId (two halves)
_SET_REQUEST: Final = Struct("<HBBIHHIQQ")
_SET_REQUEST_BUFFER: Final = HEADER_SIZE + _SET_REQUEST.size
# [MS-SMB2] 2.2.40: StructureSize
_SET_RESPONSE: Final = Struct("<H")


@dataclass(slots=True)
class SetInfoRequest:
    """Sets one information class."""

    command: ClassVar[Command] = Command.SET_INFO
    payload: ClassVar[Buffer] = b""

    file_id: FileReference
    info_type: int
    information_class: int
    data: bytes
    additional: int = 0

    @property
    def credit_size(self) -> int:
        """The size of the information."""
        return len(self.data)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _SET_REQUEST.pack(
            33,
            self.info_type,
            self.information_class,
            len(self.data),
            _SET_REQUEST_BUFFER,
            0,
            self.additional,
            *self.file_id,
        ) + (self.data or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, info_type, information_class, length, offset, _reserved, additional, persistent, volatile = unpack_body(
            _SET_REQUEST, pdu, 33
        )
        data = bytes(slice_checked(pdu, offset, length, _SET_REQUEST_BUFFER))
        return cls(FileId(persistent, volatile), info_type, information_class, data, additional)


@dataclass(slots=True)
class SetInfoResponse:
    """It is set."""

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _SET_RESPONSE.pack(2)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        unpack_body(_SET_RESPONSE, pdu, 2)
        return cls()
