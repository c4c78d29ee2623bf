"""Reparse points: symbolic links and special files as servers keep them ([MS-FSCC] 2.1.2).

What a link points to is text that somebody wrote on the server; it is read here and believed nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, from_utf16, slice_checked, unpack_at, utf16

# [MS-FSCC] 2.3
FSCTL_SET_REPARSE_POINT: Final = 0x000900A4
FSCTL_GET_REPARSE_POINT: Final = 0x000900A8
# [MS-FSCC] 2.1.2.2: MAXIMUM_REPARSE_DATA_BUFFER_SIZE
MAXIMUM_SIZE: Final = 16 * 1024


class ReparseTag(IntEnum):
    """The kinds of reparse points that are something else than files and directories ([MS-FSCC] 2.1.2.1)."""

    SYMLINK = 0xA000000C
    NFS = 0x80000014
    # The Windows Subsystem for Linux; device numbers of the last two are in an extended attribute.
    AF_UNIX = 0x80000023
    LX_SYMLINK = 0xA000001D
    LX_FIFO = 0x80000024
    LX_CHR = 0x80000025
    LX_BLK = 0x80000026


# [MS-FSCC] 2.1.2.2: ReparseTag, ReparseDataLength, Reserved
_POINT: Final = Struct("<IHH")
# Tags without this bit are not Microsoft's, and carry a GUID ([MS-FSCC] 2.1.2.3).
_MICROSOFT: Final = 0x80000000
_GUID_SIZE: Final = 16


@dataclass(slots=True)
class ReparsePoint:
    """Any reparse point: its tag and the data that the tag explains; the GUID of a foreign tag is not kept."""

    tag: int
    data: bytes

    def encode(self) -> bytes:
        """Return the input of FSCTL_SET_REPARSE_POINT."""
        guid = b"" if self.tag & _MICROSOFT else bytes(_GUID_SIZE)
        return _POINT.pack(self.tag, len(self.data), 0) + guid + self.data

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the output of FSCTL_GET_REPARSE_POINT."""
        tag, length, _reserved = unpack_at(_POINT, data, 0)
        start = _POINT.size if tag & _MICROSOFT else _POINT.size + _GUID_SIZE
        return cls(tag, bytes(slice_checked(memoryview(data), start, length)))


# [MS-FSCC] 2.1.2.4: SubstituteNameOffset, SubstituteNameLength, PrintNameOffset, PrintNameLength, Flags
_SYMLINK: Final = Struct("<HHHHI")
_RELATIVE: Final = 0x00000001  # SYMLINK_FLAG_RELATIVE


@dataclass(slots=True)
class SymbolicLink:
    """The data of `ReparseTag.SYMLINK`: where it leads, what people are shown of that, and from where it is meant."""

    tag: ClassVar[int] = ReparseTag.SYMLINK

    substitute_name: str
    print_name: str
    relative: bool

    def encode(self) -> bytes:
        """Return the data of the reparse point."""
        substitute, shown = utf16(self.substitute_name), utf16(self.print_name)
        flags = _RELATIVE if self.relative else 0
        return _SYMLINK.pack(0, len(substitute), len(substitute), len(shown), flags) + substitute + shown

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the data of the reparse point."""
        view = memoryview(data)
        substitute_offset, substitute_length, print_offset, print_length, flags = unpack_at(_SYMLINK, data, 0)
        names = view[_SYMLINK.size :]
        return cls(
            from_utf16(slice_checked(names, substitute_offset, substitute_length)),
            from_utf16(slice_checked(names, print_offset, print_length)),
            bool(flags & _RELATIVE),
        )


class NfsType(IntEnum):
    """What a reparse point of Windows' NFS server is ([MS-FSCC] 2.1.2.6); the letters are in the numbers."""

    LNK = 0x014B4E4C
    CHR = 0x00524843
    BLK = 0x004B4C42
    FIFO = 0x4F464946
    SOCK = 0x4B434F53


_NFS_TYPE: Final = Struct("<Q")  # [MS-FSCC] 2.1.2.6: Type
_NFS_DEVICE: Final = Struct("<QII")  # [MS-FSCC] 2.1.2.6.2: Type, and the two halves of a device number


@dataclass(slots=True)
class NfsSpecialFile:
    """The data of `ReparseTag.NFS`: a link with its target, a device with its number, a pipe or a socket."""

    tag: ClassVar[int] = ReparseTag.NFS

    type: int
    target: str = ""
    major: int = 0
    minor: int = 0

    def encode(self) -> bytes:
        """Return the data of the reparse point."""
        if self.type in (NfsType.CHR, NfsType.BLK):
            return _NFS_DEVICE.pack(self.type, self.major, self.minor)
        return _NFS_TYPE.pack(self.type) + (utf16(self.target) if self.type == NfsType.LNK else b"")

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the data of the reparse point."""
        (type_,) = unpack_at(_NFS_TYPE, data, 0)
        if type_ in (NfsType.CHR, NfsType.BLK):
            return cls(type_, "", *unpack_at(_NFS_DEVICE, data, 0)[1:])
        return cls(type_, from_utf16(memoryview(data)[_NFS_TYPE.size :]) if type_ == NfsType.LNK else "")


_LX_SYMLINK: Final = Struct("<I")  # the version of the layout
_LX_VERSION: Final = 2


@dataclass(slots=True)
class LxSymlink:
    """The data of `ReparseTag.LX_SYMLINK`: the target as the bytes that symlink(2) was given."""

    tag: ClassVar[int] = ReparseTag.LX_SYMLINK

    target: bytes

    def encode(self) -> bytes:
        """Return the data of the reparse point."""
        return _LX_SYMLINK.pack(_LX_VERSION) + self.target

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the data of the reparse point."""
        (version,) = unpack_at(_LX_SYMLINK, data, 0)
        if version != _LX_VERSION:
            raise WireError(f"a link of WSL in version {version}")
        return cls(bytes(memoryview(data)[_LX_SYMLINK.size :]))
