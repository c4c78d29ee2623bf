"""The bodies of FUSE requests about attributes, extended ones too (linux/fuse.h, fuse_*_in).

Named tuples, since one is made for each request: they cost a third of what a frozen dataclass does.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import unpack_at
from smb3fs.wire.fuse import IN_HEADER, names_at

BODY: Final = IN_HEADER.size

# fuse_getattr_in: getattr_flags, dummy, fh
_GETATTR: Final = Struct("=I4xQ")
# fuse_statx_in: getattr_flags, reserved, fh, sx_flags, sx_mask
_STATX: Final = Struct("=I4xQII")
GETATTR_FH: Final = 1 << 0


class GetattrIn(NamedTuple):
    """fuse_getattr_in: `fh` counts where `flags` have GETATTR_FH."""

    flags: int
    fh: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _GETATTR.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_GETATTR, message, BODY))


class StatxIn(NamedTuple):
    """fuse_statx_in: the same for statx(2), with its flags and mask."""

    flags: int
    fh: int
    statx_flags: int
    mask: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _STATX.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_STATX, message, BODY))


# fuse_setattr_in: valid, padding, fh, size, lock_owner, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode,
# unused4, uid, gid, unused5
_SETATTR: Final = Struct("=I4xQQQqqqIIII4xII4x")
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_CTIME: Final = 1 << 10


class SetattrIn(NamedTuple):
    """fuse_setattr_in: `valid` says which of the rest counts. The kernel fills in the time where it means "now"."""

    valid: int
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atime_nsec: int
    mtime_nsec: int
    ctime_nsec: int
    mode: int
    uid: int
    gid: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _SETATTR.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_SETATTR, message, BODY))


# fuse_access_in: mask, padding
_ACCESS: Final = Struct("=I4x")


class AccessIn(NamedTuple):
    """fuse_access_in: access(2)'s mask."""

    mask: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _ACCESS.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_ACCESS, message, BODY))


# -- extended attributes

# fuse_setxattr_in as it is without FUSE_SETXATTR_EXT: size, flags
_SETXATTR: Final = Struct("=II")
# fuse_getxattr_in: size, padding
_GETXATTR: Final = Struct("=I4x")


class SetxattrIn(NamedTuple):
    """fuse_setxattr_in; `flags` are setxattr(2)'s."""

    flags: int
    name: bytes
    value: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _SETXATTR.pack(len(self.value), self.flags) + self.name + b"\0" + self.value

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        size, flags = unpack_at(_SETXATTR, message, BODY)
        (name,) = names_at(message, BODY + _SETXATTR.size, 1)
        begin = BODY + _SETXATTR.size + len(name) + 1
        value = bytes(message[begin : begin + size])
        if len(value) != size:
            raise WireError(f"a value of {size} bytes does not fit in {len(message)}")
        return cls(flags, name, value)


class GetxattrIn(NamedTuple):
    """fuse_getxattr_in: how much there is room for; 0 asks for the size."""

    size: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _GETXATTR.pack(self.size) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_GETXATTR, message, BODY), *names_at(message, BODY + _GETXATTR.size, 1))


class ListxattrIn(NamedTuple):
    """fuse_getxattr_in without a name, of LISTXATTR."""

    size: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _GETXATTR.pack(self.size)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_GETXATTR, message, BODY))
