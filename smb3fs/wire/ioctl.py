"""IOCTL, and the file system control that proves the negotiation ([MS-SMB2] 2.2.31, 2.2.32)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, slice_checked, unpack_at
from smb3fs.wire.create import FileId, FileReference
from smb3fs.wire.header import HEADER_SIZE, Command, unpack_body

FSCTL_VALIDATE_NEGOTIATE_INFO: Final = 0x00140204  # [MS-SMB2] 2.2.31, CtlCode
IOCTL_IS_FSCTL: Final = 0x00000001  # [MS-SMB2] 2.2.31, Flags

# [MS-SMB2] 2.2.31: StructureSize, Reserved, CtlCode, FileId (two halves), InputOffset, InputCount, MaxInputResponse,
# OutputOffset, OutputCount, MaxOutputResponse, Flags, Reserved2
_REQUEST: Final = Struct("<HHIQQIIIIIIII")
_REQUEST_BUFFER: Final = HEADER_SIZE + _REQUEST.size


@dataclass(slots=True)
class IoctlRequest:
    """Asks the file system, or the server, for what has no command of its own."""

    command: ClassVar[Command] = Command.IOCTL
    payload: ClassVar[Buffer] = b""

    ctl_code: int
    file_id: FileReference
    input: bytes
    max_output: int
    flags: int = IOCTL_IS_FSCTL

    @property
    def credit_size(self) -> int:
        """The size of the answer or of the input, whichever is larger."""
        return max(self.max_output, len(self.input))

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        persistent, volatile = self.file_id
        return _REQUEST.pack(
            57,
            0,
            self.ctl_code,
            persistent,
            volatile,
            _REQUEST_BUFFER if self.input else 0,
            len(self.input),
            0,
            0,
            0,
            self.max_output,
            self.flags,
            0,
        ) + (self.input or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        (
            _,
            _reserved,
            ctl_code,
            persistent,
            volatile,
            input_offset,
            input_count,
            _max_input,
            _output_offset,
            _output_count,
            max_output,
            flags,
            _reserved2,
        ) = unpack_body(_REQUEST, pdu, 57)
        input_ = bytes(slice_checked(pdu, input_offset, input_count, _REQUEST_BUFFER))
        return cls(ctl_code, FileId(persistent, volatile), input_, max_output, flags)


# [MS-SMB2] 2.2.32: StructureSize, Reserved, CtlCode, FileId (two halves), InputOffset, InputCount, OutputOffset,
# OutputCount, Flags, Reserved2
_RESPONSE: Final = Struct("<HHIQQIIIIII")
_RESPONSE_BUFFER: Final = HEADER_SIZE + _RESPONSE.size


@dataclass(slots=True)
class IoctlResponse:
    """What it answered. The input that some servers send back is not kept: no control we use returns any."""

    ctl_code: int
    file_id: FileReference
    output: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        persistent, volatile = self.file_id
        return (
            _RESPONSE.pack(
                49,
                0,
                self.ctl_code,
                persistent,
                volatile,
                _RESPONSE_BUFFER,
                0,
                _RESPONSE_BUFFER,
                len(self.output),
                0,
                0,
            )
            + self.output
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        (
            _,
            _reserved,
            ctl_code,
            persistent,
            volatile,
            _input_offset,
            _input_count,
            output_offset,
            output_count,
            _flags,
            _reserved2,
        ) = unpack_body(_RESPONSE, pdu, 49)
        output = bytes(slice_checked(pdu, output_offset, output_count, _RESPONSE_BUFFER))
        return cls(ctl_code, FileId(persistent, volatile), output)


# [MS-SMB2] 2.2.31.4: Capabilities, Guid, SecurityMode, DialectCount, and the dialects
_VALIDATE_REQUEST: Final = Struct("<I16sHH")


@dataclass(slots=True)
class ValidateNegotiateRequest:
    """The input of `FSCTL_VALIDATE_NEGOTIATE_INFO`: what our NEGOTIATE said."""

    capabilities: int
    client_guid: bytes
    security_mode: int
    dialects: list[int]

    def encode(self) -> bytes:
        """Return the control's input."""
        return _VALIDATE_REQUEST.pack(
            self.capabilities, self.client_guid, self.security_mode, len(self.dialects)
        ) + Struct(f"<{len(self.dialects)}H").pack(*self.dialects)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input."""
        capabilities, client_guid, security_mode, count = unpack_at(_VALIDATE_REQUEST, data, 0)
        dialects = list(unpack_at(Struct(f"<{count}H"), data, _VALIDATE_REQUEST.size))
        return cls(capabilities, client_guid, security_mode, dialects)


# [MS-SMB2] 2.2.32.6: Capabilities, Guid, SecurityMode, Dialect
_VALIDATE_RESPONSE: Final = Struct("<I16sHH")


@dataclass(slots=True)
class ValidateNegotiateResponse:
    """The output of `FSCTL_VALIDATE_NEGOTIATE_INFO`: what the server's NEGOTIATE said."""

    capabilities: int
    server_guid: bytes
    security_mode: int
    dialect: int

    def encode(self) -> bytes:
        """Return the control's output."""
        return _VALIDATE_RESPONSE.pack(self.capabilities, self.server_guid, self.security_mode, self.dialect)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's output."""
        return cls(*unpack_at(_VALIDATE_RESPONSE, data, 0))
