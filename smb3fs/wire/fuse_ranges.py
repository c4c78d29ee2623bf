"""The bodies of FUSE requests about parts of files: holes, space, copies (linux/fuse.h)."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.wire.codec import unpack_at
from smb3fs.wire.fuse import IN_HEADER, OUT_HEADER

# fuse_lseek_in: fh, offset, whence, padding
_LSEEK_IN: Final = Struct("=QQI4x")
# fuse_lseek_out: offset
_LSEEK_OUT: Final = Struct("=Q")
# fuse_fallocate_in: fh, offset, length, mode, padding
_FALLOCATE_IN: Final = Struct("=QQQI4x")
# fuse_copy_file_range_in: fh_in, off_in, nodeid_out, fh_out, off_out, len, flags
_COPY_FILE_RANGE_IN: Final = Struct("=QQQQQQQ")
# fuse_copy_file_range_out: bytes_copied
_COPY_FILE_RANGE_OUT: Final = Struct("=Q")

# asm-generic and linux/fs.h: the two of lseek(2) that come here
SEEK_DATA: Final = 3
SEEK_HOLE: Final = 4
# linux/falloc.h
FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
FALLOC_FL_ZERO_RANGE: Final = 0x10


class LseekIn(NamedTuple):
    """fuse_lseek_in: lseek(2) that the kernel cannot answer."""

    fh: int
    offset: int
    whence: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LSEEK_IN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_LSEEK_IN, message, IN_HEADER.size))


class LseekOut(NamedTuple):
    """fuse_lseek_out: where that is."""

    offset: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LSEEK_OUT.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_LSEEK_OUT, message, OUT_HEADER.size))


class FallocateIn(NamedTuple):
    """fuse_fallocate_in: fallocate(2)."""

    fh: int
    offset: int
    length: int
    mode: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _FALLOCATE_IN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_FALLOCATE_IN, message, IN_HEADER.size))


class CopyFileRangeIn(NamedTuple):
    """fuse_copy_file_range_in, of COPY_FILE_RANGE and COPY_FILE_RANGE_64; the header's node is the source."""

    fh_in: int
    offset_in: int
    nodeid_out: int
    fh_out: int
    offset_out: int
    length: int
    flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _COPY_FILE_RANGE_IN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_COPY_FILE_RANGE_IN, message, IN_HEADER.size))


class CopyFileRangeOut(NamedTuple):
    """fuse_copy_file_range_out, of COPY_FILE_RANGE_64; the other one is answered as a WRITE is, in 32 bits."""

    bytes_copied: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _COPY_FILE_RANGE_OUT.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_COPY_FILE_RANGE_OUT, message, OUT_HEADER.size))
