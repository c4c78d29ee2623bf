"""The SMB2 packet header, compounds, and the transform header of encrypted messages ([MS-SMB2] 2.2.1, 2.2.41)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, ClassVar, Final, Protocol, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, unpack_at


class Command(IntEnum):
    """The commands, as the header numbers them ([MS-SMB2] 2.2.1.2)."""

    NEGOTIATE = 0
    SESSION_SETUP = 1
    LOGOFF = 2
    TREE_CONNECT = 3
    TREE_DISCONNECT = 4
    CREATE = 5
    CLOSE = 6
    FLUSH = 7
    READ = 8
    WRITE = 9
    LOCK = 10
    IOCTL = 11
    CANCEL = 12
    ECHO = 13
    QUERY_DIRECTORY = 14
    CHANGE_NOTIFY = 15
    QUERY_INFO = 16
    SET_INFO = 17
    OPLOCK_BREAK = 18


# [MS-SMB2] 2.2.1.2, Flags
FLAG_RESPONSE: Final = 0x00000001
FLAG_ASYNC: Final = 0x00000002
FLAG_RELATED: Final = 0x00000004
FLAG_SIGNED: Final = 0x00000008
FLAG_DFS: Final = 0x10000000
FLAG_REPLAY: Final = 0x20000000

HEADER_SIZE: Final = 64
# What an element of a compound puts in place of an id of the element before it ([MS-SMB2] 3.2.4.1.4).
RELATED_ID64: Final = 2**64 - 1
# The message id of what a server sends unasked, a lease or oplock break ([MS-SMB2] 3.3.4.6).
UNSOLICITED_MESSAGE_ID: Final = 2**64 - 1
# A bound of our own. The longest compound we send has five elements, and a server answers no more than it was asked.
MAX_COMPOUND: Final = 64


class Request(Protocol):
    """What a channel needs to know of a request in order to send it."""

    command: ClassVar[Command]

    @property
    def payload(self) -> Buffer:
        """The bytes that follow `encode()` and are sent from where they lie; only WRITE has any."""

    @property
    def credit_size(self) -> int:
        """The bytes that the credit charge is computed from ([MS-SMB2] 3.2.4.1.5); 0 where the charge is always 1."""

    def encode(self) -> bytes:
        """Return the body that follows the header."""


# [MS-SMB2] 2.2.1.1 and 2.2.1.2; the eight bytes at offset 32 are read as the two halves of the synchronous form
# ProtocolId, StructureSize, CreditCharge, Status, Command, CreditRequest, Flags, NextCommand, MessageId,
# Reserved, TreeId, SessionId, Signature
_HEADER: Final = Struct("<4sHHIHHIIQIIQ16s")
_PROTOCOL_ID: Final = b"\xfeSMB"
_NO_SIGNATURE: Final = bytes(16)


@dataclass(slots=True)
class Header:
    """The header of one message.

    `status` is the answer's NTSTATUS; in a request its low 16 bits are the channel sequence. `async_id` stands in the
    place of `tree_id` when `FLAG_ASYNC` is set.
    """

    command: int
    message_id: int
    status: int = 0
    credit_charge: int = 0
    credits: int = 0
    flags: int = 0
    tree_id: int = 0
    session_id: int = 0
    async_id: int = 0
    signature: bytes = _NO_SIGNATURE

    def encode(self, next_command: int = 0) -> bytes:
        """Return the 64 bytes; `next_command` is the offset of a compound's next element."""
        if self.flags & FLAG_ASYNC:
            low, high = self.async_id & 0xFFFFFFFF, self.async_id >> 32
        else:
            low, high = 0, self.tree_id
        return _HEADER.pack(
            _PROTOCOL_ID,
            HEADER_SIZE,
            self.credit_charge,
            self.status,
            self.command,
            self.credits,
            self.flags,
            next_command,
            self.message_id,
            low,
            high,
            self.session_id,
            self.signature,
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read the header at the beginning of one element of a compound."""
        (
            protocol_id,
            structure_size,
            credit_charge,
            status,
            command,
            credits_,
            flags,
            _next_command,
            message_id,
            low,
            high,
            session_id,
            signature,
        ) = unpack_at(_HEADER, pdu, 0)
        if protocol_id != _PROTOCOL_ID or structure_size != HEADER_SIZE:
            raise WireError(f"not an SMB2 header: ProtocolId {protocol_id.hex()}, StructureSize {structure_size}")
        if flags & FLAG_ASYNC:
            tree_id, async_id = 0, low | high << 32
        else:
            tree_id, async_id = high, 0
        return cls(
            command, message_id, status, credit_charge, credits_, flags, tree_id, session_id, async_id, signature
        )


_NEXT_COMMAND: Final = Struct("<I")
_NEXT_COMMAND_OFFSET: Final = 20


def split_compound(message: memoryview) -> list[memoryview]:
    """Return the elements of a message, each from its header to the next one, padding included."""
    elements: list[memoryview] = []
    start, end = 0, len(message)
    while True:
        if end - start < HEADER_SIZE:
            raise WireError(f"{end - start} bytes are too few for an SMB2 header")
        if len(elements) == MAX_COMPOUND:
            raise WireError(f"a compound of more than {MAX_COMPOUND} elements")
        (step,) = _NEXT_COMMAND.unpack_from(message, start + _NEXT_COMMAND_OFFSET)
        if not step:
            elements.append(message[start:])
            return elements
        if step < HEADER_SIZE or step % 8 or step > end - start:
            raise WireError(f"NextCommand {step} with {end - start} bytes left")
        elements.append(message[start : start + step])
        start += step


def unpack_body(layout: Struct, pdu: memoryview, structure_size: int) -> tuple[Any, ...]:
    """Return the fixed fields of the body behind the header, after checking its StructureSize, the first of them."""
    fields = unpack_at(layout, pdu, HEADER_SIZE)
    if fields[0] != structure_size:
        raise WireError(f"StructureSize is {fields[0]} in place of {structure_size}")
    return fields


# StructureSize, Reserved
_EMPTY: Final = Struct("<HH")


@dataclass(slots=True)
class EmptyBody:
    """The body of the messages that say no more than their header: LOGOFF, ECHO, CANCEL and some answers."""

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _EMPTY.pack(_EMPTY.size, 0)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a message, beginning at its header."""
        unpack_body(_EMPTY, pdu, _EMPTY.size)
        return cls()


# [MS-SMB2] 2.2.41: ProtocolId, Signature, Nonce, OriginalMessageSize, Reserved, Flags, SessionId
_TRANSFORM: Final = Struct("<4s16s16sIHHQ")
_TRANSFORM_ID: Final = b"\xfdSMB"
_NONCE_OFFSET: Final = 20


@dataclass(slots=True)
class TransformHeader:
    """The header of an encrypted message; `nonce` is the whole field, of which the cipher uses 11 or 12 bytes."""

    SIZE: ClassVar[int] = _TRANSFORM.size

    session_id: int
    original_size: int
    nonce: bytes
    signature: bytes = _NO_SIGNATURE
    flags: int = 1

    def encode(self) -> bytes:
        """Return the 52 bytes."""
        return _TRANSFORM.pack(
            _TRANSFORM_ID, self.signature, self.nonce, self.original_size, 0, self.flags, self.session_id
        )

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read the transform header at the beginning of a message."""
        protocol_id, signature, nonce, original_size, _reserved, flags, session_id = unpack_at(_TRANSFORM, message, 0)
        if protocol_id != _TRANSFORM_ID:
            raise WireError(f"not a transform header: ProtocolId {protocol_id.hex()}")
        return cls(session_id, original_size, nonce, signature, flags)

    @property
    def associated_data(self) -> bytes:
        """The bytes that the cipher authenticates without encrypting them: from Nonce on ([MS-SMB2] 3.1.4.3)."""
        return self.encode()[_NONCE_OFFSET:]


def is_transform(message: memoryview) -> bool:
    """Whether a message is encrypted."""
    return bytes(message[:4]) == _TRANSFORM_ID
