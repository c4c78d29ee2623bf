"""TREE_CONNECT and TREE_DISCONNECT ([MS-SMB2] 2.2.9 to 2.2.12)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, from_utf16, slice_checked, utf16
from smb3fs.wire.header import HEADER_SIZE, Command, EmptyBody, unpack_body


class ShareType(IntEnum):
    """What is behind a share ([MS-SMB2] 2.2.10)."""

    DISK = 1
    PIPE = 2
    PRINT = 3


class ShareFlag(IntFlag):
    """ShareFlags, without the two bits of offline caching, which are a number ([MS-SMB2] 2.2.10)."""

    DFS = 0x00000001
    DFS_ROOT = 0x00000002
    RESTRICT_EXCLUSIVE_OPENS = 0x00000100
    FORCE_SHARED_DELETE = 0x00000200
    ALLOW_NAMESPACE_CACHING = 0x00000400
    ACCESS_BASED_DIRECTORY_ENUM = 0x00000800
    FORCE_LEVELII_OPLOCK = 0x00001000
    ENABLE_HASH_V1 = 0x00002000
    ENABLE_HASH_V2 = 0x00004000
    ENCRYPT_DATA = 0x00008000
    IDENTITY_REMOTING = 0x00040000
    COMPRESS_DATA = 0x00100000
    ISOLATED_TRANSPORT = 0x00200000


class ShareCapability(IntFlag):
    """What a share can do ([MS-SMB2] 2.2.10)."""

    DFS = 0x00000008
    CONTINUOUS_AVAILABILITY = 0x00000010
    SCALEOUT = 0x00000020
    CLUSTER = 0x00000040
    ASYMMETRIC = 0x00000080
    REDIRECT_TO_OWNER = 0x00000100


# [MS-SMB2] 2.2.9: StructureSize, Flags, PathOffset, PathLength
_REQUEST: Final = Struct("<HHHH")
_REQUEST_BUFFER: Final = HEADER_SIZE + _REQUEST.size


@dataclass(slots=True)
class TreeConnectRequest:
    r"""Connects to the share `path`, written \\server\share."""

    command: ClassVar[Command] = Command.TREE_CONNECT
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    path: str
    flags: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        path = utf16(self.path)
        return _REQUEST.pack(9, self.flags, _REQUEST_BUFFER, len(path)) + (path or b"\0")

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, flags, offset, length = unpack_body(_REQUEST, pdu, 9)
        return cls(from_utf16(slice_checked(pdu, offset, length, _REQUEST_BUFFER)), flags)


# [MS-SMB2] 2.2.10: StructureSize, ShareType, Reserved, ShareFlags, Capabilities, MaximalAccess
_RESPONSE: Final = Struct("<HBBIII")


@dataclass(slots=True)
class TreeConnectResponse:
    """What the share is, and what the user may do in its root."""

    share_type: int
    share_flags: int
    capabilities: int
    maximal_access: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _RESPONSE.pack(16, self.share_type, 0, self.share_flags, self.capabilities, self.maximal_access)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a response, beginning at its header."""
        _, share_type, _reserved, share_flags, capabilities, maximal_access = unpack_body(_RESPONSE, pdu, 16)
        return cls(share_type, share_flags, capabilities, maximal_access)


@dataclass(slots=True)
class TreeDisconnectRequest(EmptyBody):
    """Leaves the share ([MS-SMB2] 2.2.11)."""

    command: ClassVar[Command] = Command.TREE_DISCONNECT
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0


@dataclass(slots=True)
class TreeDisconnectResponse(EmptyBody):
    """The tree is gone, and every open in it ([MS-SMB2] 2.2.12)."""
