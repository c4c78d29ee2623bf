"""What the kernel and a FUSE server say to each other through /dev/fuse: the header of each message, and its kinds.

The layouts are those of the kernel's public header, linux/fuse.h (FUSE protocol 7.31 to 7.45), in the byte order of the
machine. A read of the device gives one request: its header, and a body that the opcode decides. A write to it is one
answer: a header with the number of the request and an errno, and a body if there was no error; or a notification,
which answers nothing. Bodies are in `fuse_session`, `fuse_requests` and `fuse_replies`; each reads from the beginning
of the message.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import unpack_at

# fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
IN_HEADER: Final = Struct("=IIQQIIIH2x")
# fuse_out_header: len, error (0 or a negative errno), unique
OUT_HEADER: Final = Struct("=IiQ")
# What every request begins with, for those who need no more: opcode, unique, nodeid, and the thread that asks.
IN_SHORT: Final = Struct("=4xIQQ8xI")
# Errors beyond this the kernel refuses, and whoever asked would wait for ever.
MAX_ERRNO: Final = 511


class Opcode(IntEnum):
    """enum fuse_opcode: what the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class InHeader(NamedTuple):
    """fuse_in_header: begins every request. `unique` is what the answer names, `pid` the thread that asks."""

    length: int
    opcode: int
    unique: int
    nodeid: int
    uid: int = 0
    gid: int = 0
    pid: int = 0
    extensions: int = 0

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return IN_HEADER.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read the beginning of a request."""
        return cls._make(unpack_at(IN_HEADER, message, 0))


class OutHeader(NamedTuple):
    """fuse_out_header: begins every answer; `unique` is 0 in a notification, and `error` then says which."""

    length: int
    error: int
    unique: int

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return OUT_HEADER.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read the beginning of an answer."""
        return cls._make(unpack_at(OUT_HEADER, message, 0))


def names_at(message: memoryview, offset: int, count: int) -> list[bytes]:
    """Return `count` names that follow each other, each ended by a NUL."""
    parts = bytes(message[offset:]).split(b"\0", count)
    if len(parts) <= count:
        raise WireError(f"{count} names are not all ended in {len(message)} bytes")
    return parts[:count]


class Name(NamedTuple):
    """The body of a request that is one name in a directory, or of an attribute."""

    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        # On the hottest path there is: the kernel ends the message with the name's NUL, and names have no other.
        name = bytes(message[IN_HEADER.size : -1])
        if 0 in name or len(message) <= IN_HEADER.size or message[-1]:
            return cls(names_at(message, IN_HEADER.size, 1)[0])
        return cls(name)


class Nothing(NamedTuple):
    """The body of a request that has none."""

    def encode(self) -> bytes:
        """Return nothing."""
        return b""

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read nothing."""
        return cls()
