"""SESSION_SETUP and LOGOFF ([MS-SMB2] 2.2.5 to 2.2.8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, slice_checked
from smb3fs.wire.header import HEADER_SIZE, Command, EmptyBody, unpack_body

SESSION_SETUP_BINDING: Final = 0x01  # 2.2.5, Flags: this connection joins a session that exists


class SessionFlag(IntFlag):
    """What kind of session was made ([MS-SMB2] 2.2.6)."""

    IS_GUEST = 1
    IS_NULL = 2
    ENCRYPT_DATA = 4


# [MS-SMB2] 2.2.5: StructureSize, Flags, SecurityMode, Capabilities, Channel, SecurityBufferOffset,
# SecurityBufferLength, PreviousSessionId
_REQUEST: Final = Struct("<HBBIIHHQ")
_REQUEST_BUFFER: Final = HEADER_SIZE + _REQUEST.size


@dataclass(slots=True)
class SessionSetupRequest:
    """One leg of an authentication."""

    command: ClassVar[Command] = Command.SESSION_SETUP
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    security_buffer: bytes
    flags: int = 0
    security_mode: int = 1
    capabilities: int = 0
    previous_session_id: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _REQUEST.pack(
            25,
            self.flags,
            self.security_mode,
            self.capabilities,
            0,
            _REQUEST_BUFFER,
            len(self.security_buffer),
            self.previous_session_id,
        ) + (self.security_buffer or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, flags, security_mode, capabilities, _channel, offset, length, previous_session_id = unpack_body(
            _REQUEST, pdu, 25
        )
        security_buffer = bytes(slice_checked(pdu, offset, length, _REQUEST_BUFFER))
        return cls(security_buffer, flags, security_mode, capabilities, previous_session_id)


# [MS-SMB2] 2.2.6: StructureSize, SessionFlags, SecurityBufferOffset, SecurityBufferLength
_RESPONSE: Final = Struct("<HHHH")
_RESPONSE_BUFFER: Final = HEADER_SIZE + _RESPONSE.size


@dataclass(slots=True)
class SessionSetupResponse:
    """The server's part of one leg."""

    session_flags: int
    security_buffer: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _RESPONSE.pack(9, self.session_flags, _RESPONSE_BUFFER, len(self.security_buffer)) + self.security_buffer

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, session_flags, offset, length = unpack_body(_RESPONSE, pdu, 9)
        return cls(session_flags, bytes(slice_checked(pdu, offset, length, _RESPONSE_BUFFER)))


@dataclass(slots=True)
class LogoffRequest(EmptyBody):
    """Ends the session ([MS-SMB2] 2.2.7)."""

    command: ClassVar[Command] = Command.LOGOFF
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0


@dataclass(slots=True)
class LogoffResponse(EmptyBody):
    """The session has ended ([MS-SMB2] 2.2.8)."""
