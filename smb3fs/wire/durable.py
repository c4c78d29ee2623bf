"""Create contexts of handles that outlive their connection: asked for, granted, and claimed on another one.

[MS-SMB2] 2.2.13.2.3, 2.2.13.2.4, 2.2.13.2.11, 2.2.13.2.12 and 2.2.14.2.3, 2.2.14.2.12. Version 1 is that of SMB 2.x,
version 2 that of 3.x; of all four contexts only DHnQ and DHnC may stand together in a CREATE.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

from smb3fs.wire.codec import Buffer, unpack_at
from smb3fs.wire.create import FileId

# [MS-SMB2] 2.2.13.2; an answer has the name of the request that it grants.
DURABLE_HANDLE: Final = b"DHnQ"
DURABLE_HANDLE_RECONNECT: Final = b"DHnC"
DURABLE_HANDLE_V2: Final = b"DH2Q"
DURABLE_HANDLE_RECONNECT_V2: Final = b"DH2C"

# 2.2.13.2.11, Flags, in the answer and in a claim as well: the handle outlives the server's own end too.
PERSISTENT: Final = 0x00000002

_REQUEST: Final = Struct("<16s")
_NOTHING: Final = bytes(16)


@dataclass(slots=True)
class DurableHandleRequest:
    """DHnQ: asks that the handle outlive its connection (2.2.13.2.3)."""

    def encode(self) -> bytes:
        """Return the context's data."""
        return _REQUEST.pack(_NOTHING)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data, of which all is reserved."""
        unpack_at(_REQUEST, data, 0)
        return cls()


_RESPONSE: Final = Struct("<8s")


@dataclass(slots=True)
class DurableHandleResponse:
    """The answer to DHnQ: it will (2.2.14.2.3)."""

    def encode(self) -> bytes:
        """Return the context's data."""
        return _RESPONSE.pack(_NOTHING[:8])

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data, of which all is reserved."""
        unpack_at(_RESPONSE, data, 0)
        return cls()


_RECONNECT: Final = Struct("<QQ")  # 2.2.13.2.4: Data, a FileId in two halves


@dataclass(slots=True)
class DurableHandleReconnect:
    """DHnC: claims the handle that was `file_id` (2.2.13.2.4)."""

    file_id: FileId

    def encode(self) -> bytes:
        """Return the context's data."""
        return _RECONNECT.pack(*self.file_id)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(FileId(*unpack_at(_RECONNECT, data, 0)))


_REQUEST_V2: Final = Struct("<IIQ16s")  # 2.2.13.2.11: Timeout, Flags, Reserved, CreateGuid


@dataclass(slots=True)
class DurableHandleRequestV2:
    """DH2Q: asks that the handle outlive its connection, and names the CREATE for a repetition of it.

    `timeout` is for how many milliseconds it is to be kept, 0 leaves that to the server.
    """

    timeout: int
    flags: int
    create_guid: bytes

    def encode(self) -> bytes:
        """Return the context's data."""
        return _REQUEST_V2.pack(self.timeout, self.flags, 0, self.create_guid)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        timeout, flags, _reserved, create_guid = unpack_at(_REQUEST_V2, data, 0)
        return cls(timeout, flags, create_guid)


_RESPONSE_V2: Final = Struct("<II")  # 2.2.14.2.12: Timeout, Flags


@dataclass(slots=True)
class DurableHandleResponseV2:
    """The answer to DH2Q: it will, for `timeout` milliseconds."""

    timeout: int
    flags: int

    def encode(self) -> bytes:
        """Return the context's data."""
        return _RESPONSE_V2.pack(self.timeout, self.flags)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(*unpack_at(_RESPONSE_V2, data, 0))


_RECONNECT_V2: Final = Struct("<QQ16sI")  # 2.2.13.2.12: FileId (two halves), CreateGuid, Flags


@dataclass(slots=True)
class DurableHandleReconnectV2:
    """DH2C: claims the handle that was `file_id`, opened by the CREATE with that guid; of 36 bytes, no more."""

    file_id: FileId
    create_guid: bytes
    flags: int = 0

    def encode(self) -> bytes:
        """Return the context's data."""
        return _RECONNECT_V2.pack(*self.file_id, self.create_guid, self.flags)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        persistent, volatile, create_guid, flags = unpack_at(_RECONNECT_V2, data, 0)
        return cls(FileId(persistent, volatile), create_guid, flags)
