"""The bodies of FUSE requests about locks: fcntl(2)'s on ranges of bytes, and flock(2)'s (linux/fuse.h, fuse_lk_*)."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.wire.codec import unpack_at
from smb3fs.wire.fuse import IN_HEADER, OUT_HEADER

# struct fuse_file_lock: start, end (the last byte), type, pid
_LOCK: Final = "QQII"
# fuse_lk_in: fh, owner, lk, lk_flags, padding
_LK_IN: Final = Struct("=QQ" + _LOCK + "I4x")
LK_FLOCK: Final = 1 << 0
# fuse_lk_out: lk
_LK_OUT: Final = Struct("=" + _LOCK)

# asm-generic/fcntl.h
F_RDLCK: Final = 0
F_WRLCK: Final = 1
F_UNLCK: Final = 2


class LkIn(NamedTuple):
    """fuse_lk_in, of GETLK, SETLK and SETLKW; `end` is the last byte, `owner` the kernel's name for who locks."""

    fh: int
    owner: int
    start: int
    end: int
    type: int
    pid: int
    lk_flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LK_IN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_LK_IN, message, IN_HEADER.size))


class LkOut(NamedTuple):
    """fuse_lk_out, of GETLK: the lock that is in the way, or one of the type F_UNLCK."""

    start: int
    end: int
    type: int
    pid: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LK_OUT.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_LK_OUT, message, OUT_HEADER.size))
