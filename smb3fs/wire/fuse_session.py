"""FUSE messages about the connection itself: INIT, interrupts, what is forgotten, and the notifications."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import unpack_at
from smb3fs.wire.fuse import IN_HEADER, OUT_HEADER, names_at

MAJOR: Final = 7
# What is spoken here at most, and what it takes at least: explicit sizes of requests (7.28), in every kernel since 5.4.
MINOR: Final = 45
MINOR_AT_LEAST: Final = 31

# fuse_init_in: major, minor, max_readahead, flags, flags2 (which came with 7.36; before, the message ends here)
_INIT_IN: Final = Struct("=IIIII44x")
_INIT_IN_SHORT: Final = Struct("=IIII")
# fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran,
# max_pages, map_alignment, flags2, max_stack_depth, request_timeout
_INIT_OUT: Final = Struct("=IIIIHHIIHHIIH22x")

# FUSE_*: what either side can do; the kernel offers, and the answer takes what it wants.
ASYNC_READ: Final = 1 << 0
POSIX_LOCKS: Final = 1 << 1
ATOMIC_O_TRUNC: Final = 1 << 3
EXPORT_SUPPORT: Final = 1 << 4
BIG_WRITES: Final = 1 << 5
DONT_MASK: Final = 1 << 6
FLOCK_LOCKS: Final = 1 << 10
AUTO_INVAL_DATA: Final = 1 << 12
DO_READDIRPLUS: Final = 1 << 13
READDIRPLUS_AUTO: Final = 1 << 14
ASYNC_DIO: Final = 1 << 15
WRITEBACK_CACHE: Final = 1 << 16
PARALLEL_DIROPS: Final = 1 << 18
POSIX_ACL: Final = 1 << 20
ABORT_ERROR: Final = 1 << 21
MAX_PAGES: Final = 1 << 22
CACHE_SYMLINKS: Final = 1 << 23
EXPLICIT_INVAL_DATA: Final = 1 << 25
HANDLE_KILLPRIV_V2: Final = 1 << 28
INIT_EXT: Final = 1 << 30
# From here on in `flags2` on the wire.
HAS_EXPIRE_ONLY: Final = 1 << 35
DIRECT_IO_ALLOW_MMAP: Final = 1 << 36


class InitIn(NamedTuple):
    """fuse_init_in: the kernel's greeting. `flags` are all 64."""

    major: int
    minor: int
    max_readahead: int
    flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _INIT_IN.pack(*self[:3], self.flags & 0xFFFFFFFF, self.flags >> 32)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header; without INIT_EXT there is no second half of the flags."""
        major, minor, max_readahead, flags = unpack_at(_INIT_IN_SHORT, message, IN_HEADER.size)
        if flags & INIT_EXT:
            flags |= unpack_at(_INIT_IN, message, IN_HEADER.size)[4] << 32
        return cls(major, minor, max_readahead, flags)


class InitOut(NamedTuple):
    """fuse_init_out: what has been chosen of what the kernel offers."""

    major: int
    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    time_granularity: int
    max_pages: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        major, minor, max_readahead, flags, *rest = self
        return _INIT_OUT.pack(major, minor, max_readahead, flags & 0xFFFFFFFF, *rest, 0, flags >> 32, 0, 0)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read an answer, beginning at its header."""
        major, minor, max_readahead, flags, *rest, _alignment, flags2, _depth, _timeout = unpack_at(
            _INIT_OUT, message, OUT_HEADER.size
        )
        return cls(major, minor, max_readahead, flags | flags2 << 32, *rest)


# fuse_interrupt_in: unique
_INTERRUPT: Final = Struct("=Q")


class InterruptIn(NamedTuple):
    """fuse_interrupt_in: who asked for `unique` has had a signal. Not answered."""

    unique: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _INTERRUPT.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_INTERRUPT, message, IN_HEADER.size))


# fuse_forget_in: nlookup
_FORGET: Final = Struct("=Q")
# fuse_batch_forget_in: count, dummy; each fuse_forget_one: nodeid, nlookup
_BATCH: Final = Struct("=I4x")
_ONE: Final = Struct("=QQ")


class ForgetIn(NamedTuple):
    """fuse_forget_in: so many lookups of the header's node are forgotten. Not answered."""

    lookups: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _FORGET.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_FORGET, message, IN_HEADER.size))


class BatchForgetIn(NamedTuple):
    """fuse_batch_forget_in: the same for many nodes, as (node, lookups). Not answered."""

    pairs: list[tuple[int, int]]

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _BATCH.pack(len(self.pairs)) + b"".join(_ONE.pack(*pair) for pair in self.pairs)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        (count,) = unpack_at(_BATCH, message, IN_HEADER.size)
        begin = IN_HEADER.size + _BATCH.size
        end = begin + count * _ONE.size
        if end > len(message):
            raise WireError(f"{count} nodes do not fit in {len(message)} bytes")
        return cls([*_ONE.iter_unpack(message[begin:end])])


class Notify(IntEnum):
    """enum fuse_notify_code: what stands where an answer has its error."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    DELETE = 6


# fuse_notify_inval_inode_out: ino, off, len
_INVAL_INODE: Final = Struct("=Qqq")
# fuse_notify_inval_entry_out: parent, namelen, flags
_INVAL_ENTRY: Final = Struct("=QII")
# fuse_notify_store_out: nodeid, offset, size, padding
_STORE: Final = Struct("=QQI4x")
# fuse_notify_delete_out: parent, child, namelen, padding
_DELETE: Final = Struct("=QQI4x")

EXPIRE_ONLY: Final = 1 << 0  # of INVAL_ENTRY: ask again before the name is used, but take nothing apart


class InvalInode(NamedTuple):
    """fuse_notify_inval_inode_out: forget attributes, and pages from `offset` on; none where that is negative."""

    ino: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _INVAL_INODE.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a notification, beginning at its header."""
        return cls._make(unpack_at(_INVAL_INODE, message, OUT_HEADER.size))


class InvalEntry(NamedTuple):
    """fuse_notify_inval_entry_out: forget what is under a name."""

    parent: int
    name: bytes
    flags: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _INVAL_ENTRY.pack(self.parent, len(self.name), self.flags) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a notification, beginning at its header."""
        parent, _length, flags = unpack_at(_INVAL_ENTRY, message, OUT_HEADER.size)
        return cls(parent, names_at(message, OUT_HEADER.size + _INVAL_ENTRY.size, 1)[0], flags)


class Store(NamedTuple):
    """fuse_notify_store_out: `size` bytes for the page cache, which follow, are what a file has at `offset`."""

    ino: int
    offset: int
    size: int

    def encode(self) -> bytes:
        """Return the body that follows the header, up to the data."""
        return _STORE.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a notification, beginning at its header."""
        return cls._make(unpack_at(_STORE, message, OUT_HEADER.size))


class Delete(NamedTuple):
    """fuse_notify_delete_out: a name is gone, and the file `child` with it, for whoever watches the directory too."""

    parent: int
    child: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _DELETE.pack(self.parent, self.child, len(self.name)) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a notification, beginning at its header."""
        parent, child, _length = unpack_at(_DELETE, message, OUT_HEADER.size)
        return cls(parent, child, names_at(message, OUT_HEADER.size + _DELETE.size, 1)[0])
