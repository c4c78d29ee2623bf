"""The payloads of the create contexts that we send and understand ([MS-SMB2] 2.2.13.2, 2.2.14.2)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

from smb3fs.wire.codec import Buffer, unpack_at

# [MS-SMB2] 2.2.13.2, the names; the requests of the first two carry no data.
QUERY_ON_DISK_ID: Final = b"QFid"
QUERY_MAXIMAL_ACCESS: Final = b"MxAc"
TIMEWARP_TOKEN: Final = b"TWrp"

# [MS-SMB2] 2.2.14.2.9: DiskFileId, VolumeId, Reserved
_DISK_ID: Final = Struct("<QQ16x")


@dataclass(slots=True)
class DiskId:
    """The answer to `QUERY_ON_DISK_ID`: the number of the file on its volume, and the volume's."""

    file_id: int
    volume_id: int

    def encode(self) -> bytes:
        """Return the context's data."""
        return _DISK_ID.pack(self.file_id, self.volume_id)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(*unpack_at(_DISK_ID, data, 0))


# [MS-SMB2] 2.2.14.2.5: QueryStatus, MaximalAccess
_MAXIMAL_ACCESS: Final = Struct("<II")


@dataclass(slots=True)
class MaximalAccess:
    """The answer to `QUERY_MAXIMAL_ACCESS`: what the user may do with the file, valid where `status` is 0."""

    status: int
    access: int

    def encode(self) -> bytes:
        """Return the context's data."""
        return _MAXIMAL_ACCESS.pack(self.status, self.access)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(*unpack_at(_MAXIMAL_ACCESS, data, 0))


_TIMEWARP: Final = Struct("<Q")  # [MS-SMB2] 2.2.13.2.7: Timestamp


@dataclass(slots=True)
class TimewarpToken:
    """The data of `TIMEWARP_TOKEN`: the file is to be opened as it was at this FILETIME."""

    timestamp: int

    def encode(self) -> bytes:
        """Return the context's data."""
        return _TIMEWARP.pack(self.timestamp)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(*unpack_at(_TIMEWARP, data, 0))
