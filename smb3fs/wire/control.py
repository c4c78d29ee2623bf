"""ECHO, CANCEL and the error response ([MS-SMB2] 2.2.2, 2.2.28 to 2.2.30)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, slice_checked
from smb3fs.wire.header import HEADER_SIZE, Command, EmptyBody, unpack_body


@dataclass(slots=True)
class EchoRequest(EmptyBody):
    """Asks whether the server is there ([MS-SMB2] 2.2.28); it may be charged as if it moved `credit_size` bytes."""

    command: ClassVar[Command] = Command.ECHO
    payload: ClassVar[Buffer] = b""
    credit_size: int = 0


@dataclass(slots=True)
class EchoResponse(EmptyBody):
    """It is ([MS-SMB2] 2.2.29)."""


@dataclass(slots=True)
class CancelRequest(EmptyBody):
    """Takes back the request that the header names; it has no answer of its own ([MS-SMB2] 2.2.30)."""

    command: ClassVar[Command] = Command.CANCEL
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0


# [MS-SMB2] 2.2.2: StructureSize, ErrorContextCount, Reserved, ByteCount
_ERROR: Final = Struct("<HBBI")
_ERROR_DATA: Final = HEADER_SIZE + _ERROR.size


@dataclass(slots=True)
class ErrorResponse:
    """What comes with an error status; in 3.1.1 `data` are `context_count` error contexts, where that is not 0."""

    data: bytes = b""
    context_count: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _ERROR.pack(9, self.context_count, 0, len(self.data)) + (self.data or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, context_count, _reserved, byte_count = unpack_body(_ERROR, pdu, 9)
        return cls(bytes(slice_checked(pdu, _ERROR_DATA, byte_count)), context_count)
