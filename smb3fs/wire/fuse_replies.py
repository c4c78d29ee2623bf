"""The bodies of answers to FUSE requests (linux/fuse.h, fuse_*_out).

The layouts of those that are answered thousands of times a second are public: who writes them packs header and body in
one go.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import pad8, unpack_at
from smb3fs.wire.fuse import OUT_HEADER

BODY: Final = OUT_HEADER.size

# fuse_attr: ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev,
# blksize, flags. The kernel takes the times as signed.
ATTR: Final = "QQQqqqIIIIIIIIII"
# fuse_entry_out: nodeid, generation, entry_valid, attr_valid, entry_valid_nsec, attr_valid_nsec, attr
ENTRY: Final = "QQQQII" + ATTR
# fuse_attr_out: attr_valid, attr_valid_nsec, dummy, attr
ATTR_OUT: Final = "QI4x" + ATTR
# fuse_open_out: fh, open_flags, padding
OPEN_OUT: Final = "QI4x"
# fuse_write_out: size, padding
WRITE_OUT: Final = "I4x"
# fuse_dirent, before its name: ino, off, namelen, type
DIRENT: Final = "QQII"

_ATTR: Final = Struct("=" + ATTR)
_ENTRY: Final = Struct("=" + ENTRY)
_ATTR_OUT: Final = Struct("=" + ATTR_OUT)
_OPEN: Final = Struct("=" + OPEN_OUT)
_WRITE: Final = Struct("=" + WRITE_OUT)

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6


class Attr(NamedTuple):
    """fuse_attr: what stat(2) tells."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atime_nsec: int
    mtime_nsec: int
    ctime_nsec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int = 0


class EntryOut(NamedTuple):
    """fuse_entry_out: what is under a name, and how long that may be believed. Node 0 says that nothing is."""

    nodeid: int
    generation: int
    entry_valid: int
    attr_valid: int
    entry_valid_nsec: int
    attr_valid_nsec: int
    attr: Attr

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _ENTRY.pack(*self[:6], *self.attr)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls.parse_at(message, BODY)

    @classmethod
    def parse_at(cls, buffer: memoryview, offset: int) -> Self:
        """Read an entry at an offset."""
        node, generation, valid, attr_valid, nsec, attr_nsec, *attr = unpack_at(_ENTRY, buffer, offset)
        return cls(node, generation, valid, attr_valid, nsec, attr_nsec, Attr(*attr))


class AttrOut(NamedTuple):
    """fuse_attr_out: attributes, and how long they may be believed."""

    attr_valid: int
    attr_valid_nsec: int
    attr: Attr

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _ATTR_OUT.pack(*self[:2], *self.attr)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        valid, nsec, *attr = unpack_at(_ATTR_OUT, message, BODY)
        return cls(valid, nsec, Attr(*attr))


class OpenOut(NamedTuple):
    """fuse_open_out: the number of an open file, and FOPEN_ flags."""

    fh: int
    flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _OPEN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_OPEN, message, BODY))


class CreateOut(NamedTuple):
    """The answer to CREATE: fuse_entry_out and fuse_open_out."""

    entry: EntryOut
    opened: OpenOut

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return self.entry.encode() + self.opened.encode()

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        opened = OpenOut._make(unpack_at(_OPEN, message, BODY + _ENTRY.size))
        return cls(EntryOut.parse(message), opened)


class WriteOut(NamedTuple):
    """fuse_write_out; fuse_getxattr_out, which tells a size, is laid out alike."""

    size: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _WRITE.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_WRITE, message, BODY))


# fuse_statfs_out: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, spare
_STATFS: Final = Struct("=QQQQQIII28x")


class StatfsOut(NamedTuple):
    """fuse_statfs_out."""

    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    block_size: int
    name_max: int
    fragment_size: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _STATFS.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_STATFS, message, BODY))


# fuse_statx_out: attr_valid, attr_valid_nsec, flags, spare, and a fuse_statx: mask, blksize, attributes, nlink, uid,
# gid, mode, spare, ino, size, blocks, attributes_mask, four fuse_sx_time (atime, btime, ctime, mtime) of seconds,
# nanoseconds and padding each, rdev_major, rdev_minor, dev_major, dev_minor, spare
_STATX: Final = Struct("=QI20x IIQIIIH2xQQQQ qI4xqI4xqI4xqI4x IIII112x")


class StatxOut(NamedTuple):
    """fuse_statx_out: what statx(2) tells; `mask` says which of it counts."""

    attr_valid: int
    attr_valid_nsec: int
    mask: int
    blksize: int
    attributes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    ino: int
    size: int
    blocks: int
    attributes_mask: int
    atime: int
    atime_nsec: int
    btime: int
    btime_nsec: int
    ctime: int
    ctime_nsec: int
    mtime: int
    mtime_nsec: int
    rdev_major: int
    rdev_minor: int
    dev_major: int = 0
    dev_minor: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _STATX.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        return cls._make(unpack_at(_STATX, message, BODY))


_DIRENT: Final = Struct("=" + DIRENT)


class Dirent(NamedTuple):
    """fuse_dirent: one name of a directory. `next_offset` is where the listing goes on behind it."""

    ino: int
    next_offset: int
    kind: int
    name: bytes

    def encode(self) -> bytes:
        """Return the entry, padded to 8 bytes."""
        size = _DIRENT.size + len(self.name)
        head = _DIRENT.pack(self.ino, self.next_offset, len(self.name), self.kind)
        return head + self.name + bytes(pad8(size) - size)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an entry at the beginning of a buffer."""
        return cls.parse_at(message, 0)

    @classmethod
    def parse_at(cls, buffer: memoryview, offset: int) -> Self:
        """Read an entry at an offset."""
        ino, next_offset, length, kind = unpack_at(_DIRENT, buffer, offset)
        begin = offset + _DIRENT.size
        name = bytes(buffer[begin : begin + length])
        if len(name) != length:
            raise WireError(f"a name of {length} bytes does not fit in {len(buffer)}")
        return cls(ino, next_offset, kind, name)


class DirentPlus(NamedTuple):
    """fuse_direntplus: the same with all that LOOKUP tells, which counts as one unless its node is 0."""

    entry: EntryOut
    dirent: Dirent

    def encode(self) -> bytes:
        """Return the entry, padded to 8 bytes."""
        return self.entry.encode() + self.dirent.encode()

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an entry at the beginning of a buffer."""
        return cls(EntryOut.parse_at(message, 0), Dirent.parse_at(message, _ENTRY.size))
