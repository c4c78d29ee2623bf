"""NEGOTIATE and its contexts ([MS-SMB2] 2.2.3, 2.2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, from_utf16, pad8, slice_checked, unpack_at, utf16
from smb3fs.wire.header import HEADER_SIZE, Command, unpack_body


class Dialect(IntEnum):
    """The dialects, oldest first ([MS-SMB2] 2.2.3)."""

    SMB_2_0_2 = 0x0202
    SMB_2_1 = 0x0210
    WILDCARD = 0x02FF
    SMB_3_0 = 0x0300
    SMB_3_0_2 = 0x0302
    SMB_3_1_1 = 0x0311


class Capability(IntFlag):
    """What one side can do ([MS-SMB2] 2.2.3)."""

    DFS = 0x01
    LEASING = 0x02
    LARGE_MTU = 0x04
    MULTI_CHANNEL = 0x08
    PERSISTENT_HANDLES = 0x10
    DIRECTORY_LEASING = 0x20
    ENCRYPTION = 0x40
    NOTIFICATIONS = 0x80


# [MS-SMB2] 2.2.3, SecurityMode
SIGNING_ENABLED: Final = 0x0001
SIGNING_REQUIRED: Final = 0x0002


class HashAlgorithm(IntEnum):
    """Hashes for preauthentication integrity ([MS-SMB2] 2.2.3.1.1)."""

    SHA_512 = 1


class Cipher(IntEnum):
    """Ciphers; 0 in an answer says that no common one was found ([MS-SMB2] 2.2.3.1.2, 2.2.4.1.2)."""

    AES_128_CCM = 1
    AES_128_GCM = 2
    AES_256_CCM = 3
    AES_256_GCM = 4


class SigningAlgorithm(IntEnum):
    """Signing algorithms ([MS-SMB2] 2.2.3.1.7)."""

    HMAC_SHA256 = 0
    AES_CMAC = 1
    AES_GMAC = 2


# [MS-SMB2] 2.2.3.1: ContextType, DataLength, Reserved
_CONTEXT: Final = Struct("<HHI")
_COUNT: Final = Struct("<H")


def _shorts(values: Sequence[int]) -> bytes:
    """Encode 16-bit numbers."""
    return Struct(f"<{len(values)}H").pack(*values)


def _parse_shorts(buffer: Buffer, offset: int, count: int) -> list[int]:
    """Read `count` 16-bit numbers at `offset`."""
    return list(unpack_at(Struct(f"<{count}H"), buffer, offset))


# [MS-SMB2] 2.2.3.1.1: HashAlgorithmCount, SaltLength
_PREAUTH: Final = Struct("<HH")


@dataclass(slots=True)
class PreauthIntegrity:
    """SMB2_PREAUTH_INTEGRITY_CAPABILITIES ([MS-SMB2] 2.2.3.1.1)."""

    type: ClassVar[int] = 0x0001

    hash_algorithms: list[int]
    salt: bytes

    def encode(self) -> bytes:
        """Return the context's data."""
        return _PREAUTH.pack(len(self.hash_algorithms), len(self.salt)) + _shorts(self.hash_algorithms) + self.salt

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Read the context's data."""
        count, salt_length = unpack_at(_PREAUTH, data, 0)
        algorithms = _parse_shorts(data, _PREAUTH.size, count)
        return cls(algorithms, bytes(slice_checked(data, _PREAUTH.size + 2 * count, salt_length)))


@dataclass(slots=True)
class Encryption:
    """SMB2_ENCRYPTION_CAPABILITIES: ciphers, the preferred one first ([MS-SMB2] 2.2.3.1.2)."""

    type: ClassVar[int] = 0x0002

    ciphers: list[int]

    def encode(self) -> bytes:
        """Return the context's data."""
        return _COUNT.pack(len(self.ciphers)) + _shorts(self.ciphers)

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Read the context's data."""
        (count,) = unpack_at(_COUNT, data, 0)
        return cls(_parse_shorts(data, _COUNT.size, count))


@dataclass(slots=True)
class NetName:
    """SMB2_NETNAME_NEGOTIATE_CONTEXT_ID: the server, as the user named it ([MS-SMB2] 2.2.3.1.4)."""

    type: ClassVar[int] = 0x0005

    name: str

    def encode(self) -> bytes:
        """Return the context's data."""
        return utf16(self.name)

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Read the context's data."""
        return cls(from_utf16(data))


@dataclass(slots=True)
class Signing:
    """SMB2_SIGNING_CAPABILITIES: algorithms, the preferred one first ([MS-SMB2] 2.2.3.1.7)."""

    type: ClassVar[int] = 0x0008

    algorithms: list[int]

    def encode(self) -> bytes:
        """Return the context's data."""
        return _COUNT.pack(len(self.algorithms)) + _shorts(self.algorithms)

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Read the context's data."""
        (count,) = unpack_at(_COUNT, data, 0)
        return cls(_parse_shorts(data, _COUNT.size, count))


@dataclass(slots=True)
class PosixExtensions:
    """SMB2_POSIX_EXTENSIONS_AVAILABLE, the offer of the SMB3 POSIX extensions; `guid` is `wire.posix.POSIX_GUID`."""

    type: ClassVar[int] = 0x0100

    guid: bytes

    def encode(self) -> bytes:
        """Return the context's data."""
        return self.guid

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Read the context's data."""
        return cls(bytes(data))


@dataclass(slots=True)
class UnknownContext:
    """A context of any other type, as it came."""

    type: int
    data: bytes

    def encode(self) -> bytes:
        """Return the context's data."""
        return self.data


NegotiateContext = PreauthIntegrity | Encryption | NetName | Signing | PosixExtensions | UnknownContext


def _encode_contexts(contexts: Sequence[NegotiateContext]) -> bytes:
    """Return the contexts, as they stand at an offset divisible by 8; the last one is not padded."""
    area = bytearray()
    for context in contexts:
        data = context.encode()
        area += bytes(pad8(len(area)) - len(area)) + _CONTEXT.pack(context.type, len(data), 0) + data
    return bytes(area)


def _parse_contexts(pdu: memoryview, offset: int, count: int, floor: int) -> list[NegotiateContext]:
    """Read `count` contexts, the first one at `offset`."""
    contexts: list[NegotiateContext] = []
    position = offset
    for _ in range(count):
        type_, length, _reserved = unpack_at(_CONTEXT, pdu, position)
        data = slice_checked(pdu, position + _CONTEXT.size, length, floor)
        match type_:
            case PreauthIntegrity.type:
                contexts.append(PreauthIntegrity.parse(data))
            case Encryption.type:
                contexts.append(Encryption.parse(data))
            case NetName.type:
                contexts.append(NetName.parse(data))
            case Signing.type:
                contexts.append(Signing.parse(data))
            case PosixExtensions.type:
                contexts.append(PosixExtensions.parse(data))
            case _:
                contexts.append(UnknownContext(type_, bytes(data)))
        position += pad8(_CONTEXT.size + length)
    return contexts


# [MS-SMB2] 2.2.3: StructureSize, DialectCount, SecurityMode, Reserved, Capabilities, ClientGuid,
# NegotiateContextOffset, NegotiateContextCount, Reserved2
_REQUEST: Final = Struct("<HHHHI16sIHH")
_REQUEST_BUFFER: Final = HEADER_SIZE + _REQUEST.size


@dataclass(slots=True)
class NegotiateRequest:
    """What we speak; the contexts are sent when 3.1.1 is among the dialects."""

    command: ClassVar[Command] = Command.NEGOTIATE
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    dialects: list[int]
    security_mode: int
    capabilities: int
    client_guid: bytes
    contexts: list[NegotiateContext] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        dialects = _shorts(self.dialects)
        offset = count = 0
        area = b""
        if Dialect.SMB_3_1_1 in self.dialects:
            offset = pad8(_REQUEST_BUFFER + len(dialects))
            dialects = dialects.ljust(offset - _REQUEST_BUFFER, b"\0")
            count = len(self.contexts)
            area = _encode_contexts(self.contexts)
        fixed = _REQUEST.pack(
            36, len(self.dialects), self.security_mode, 0, self.capabilities, self.client_guid, offset, count, 0
        )
        return fixed + dialects + area

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, dialect_count, security_mode, _reserved, capabilities, client_guid, offset, count, _reserved2 = unpack_body(
            _REQUEST, pdu, 36
        )
        dialects = _parse_shorts(pdu, _REQUEST_BUFFER, dialect_count)
        contexts: list[NegotiateContext] = []
        if Dialect.SMB_3_1_1 in dialects:
            contexts = _parse_contexts(pdu, offset, count, _REQUEST_BUFFER)
        return cls(dialects, security_mode, capabilities, client_guid, contexts)


# [MS-SMB2] 2.2.4: StructureSize, SecurityMode, DialectRevision, NegotiateContextCount, ServerGuid, Capabilities,
# MaxTransactSize, MaxReadSize, MaxWriteSize, SystemTime, ServerStartTime, SecurityBufferOffset, SecurityBufferLength,
# NegotiateContextOffset
_RESPONSE: Final = Struct("<HHHH16sIIIIQQHHI")
_RESPONSE_BUFFER: Final = HEADER_SIZE + _RESPONSE.size


@dataclass(slots=True)
class NegotiateResponse:
    """What the server chose; `contexts` belong to 3.1.1 alone."""

    security_mode: int
    dialect: int
    server_guid: bytes
    capabilities: int
    max_transact: int
    max_read: int
    max_write: int
    system_time: int
    security_buffer: bytes
    contexts: list[NegotiateContext] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        buffer = self.security_buffer
        offset = count = 0
        area = b""
        if self.dialect == Dialect.SMB_3_1_1:
            offset = pad8(_RESPONSE_BUFFER + len(buffer))
            buffer = buffer.ljust(offset - _RESPONSE_BUFFER, b"\0")
            count = len(self.contexts)
            area = _encode_contexts(self.contexts)
        fixed = _RESPONSE.pack(
            65,
            self.security_mode,
            self.dialect,
            count,
            self.server_guid,
            self.capabilities,
            self.max_transact,
            self.max_read,
            self.max_write,
            self.system_time,
            0,
            _RESPONSE_BUFFER,
            len(self.security_buffer),
            offset,
        )
        return fixed + buffer + area

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        (
            _,
            security_mode,
            dialect,
            count,
            server_guid,
            capabilities,
            max_transact,
            max_read,
            max_write,
            system_time,
            _server_start_time,  # no longer filled in by servers, and nothing can be concluded from it
            buffer_offset,
            buffer_length,
            contexts_offset,
        ) = unpack_body(_RESPONSE, pdu, 65)
        contexts: list[NegotiateContext] = []
        if dialect == Dialect.SMB_3_1_1:
            contexts = _parse_contexts(pdu, contexts_offset, count, _RESPONSE_BUFFER)
        return cls(
            security_mode,
            dialect,
            server_guid,
            capabilities,
            max_transact,
            max_read,
            max_write,
            system_time,
            bytes(slice_checked(pdu, buffer_offset, buffer_length, _RESPONSE_BUFFER)),
            contexts,
        )
