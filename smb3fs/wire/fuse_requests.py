"""The bodies of FUSE requests about files and directories, as the kernel sends them (linux/fuse.h, fuse_*_in).

Named tuples, since one is made for each request: they cost a third of what a frozen dataclass does.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, unpack_at
from smb3fs.wire.fuse import IN_HEADER, names_at

BODY: Final = IN_HEADER.size

# -- open files

# fuse_open_in: flags, open_flags
_OPEN: Final = Struct("=II")
# fuse_create_in: flags, mode, umask, open_flags
_CREATE: Final = Struct("=IIII")
# fuse_release_in: fh, flags, release_flags, lock_owner
_RELEASE: Final = Struct("=QIIQ")
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
# fuse_flush_in: fh, unused, padding, lock_owner
_FLUSH: Final = Struct("=Q8xQ")
# fuse_fsync_in: fh, fsync_flags, padding
_FSYNC: Final = Struct("=QI4x")
FSYNC_FDATASYNC: Final = 1 << 0


class OpenIn(NamedTuple):
    """fuse_open_in, of OPEN and OPENDIR: open(2)'s flags."""

    flags: int
    open_flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _OPEN.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_OPEN, message, BODY))


class CreateIn(NamedTuple):
    """fuse_create_in: open(2) of a name that may have to be created; the umask is applied to `mode` already."""

    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _CREATE.pack(*self[:4]) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_CREATE, message, BODY), *names_at(message, BODY + _CREATE.size, 1))


class ReleaseIn(NamedTuple):
    """fuse_release_in, of RELEASE and RELEASEDIR: the last descriptor is gone."""

    fh: int
    flags: int
    release_flags: int
    lock_owner: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _RELEASE.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_RELEASE, message, BODY))


class FlushIn(NamedTuple):
    """fuse_flush_in: one close(2)."""

    fh: int
    lock_owner: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _FLUSH.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_FLUSH, message, BODY))


class FsyncIn(NamedTuple):
    """fuse_fsync_in, of FSYNC and FSYNCDIR."""

    fh: int
    flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _FSYNC.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_FSYNC, message, BODY))


# fuse_read_in: fh, offset, size, read_flags, lock_owner, flags, padding; fuse_write_in is laid out alike
_READ: Final = Struct("=QQIIQI4x")
WRITE_DATA: Final = BODY + _READ.size
WRITE_CACHE: Final = 1 << 0
WRITE_KILL_SUIDGID: Final = 1 << 2


class ReadIn(NamedTuple):
    """fuse_read_in, of READ, READDIR and READDIRPLUS; `flags` are the open file's."""

    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _READ.pack(*self)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls._make(unpack_at(_READ, message, BODY))


class WriteIn(NamedTuple):
    """fuse_write_in: `data` is a part of the message itself, not a copy."""

    fh: int
    offset: int
    write_flags: int
    lock_owner: int
    flags: int
    data: Buffer

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        fh, offset, write_flags, lock_owner, flags, data = self
        return _READ.pack(fh, offset, len(data), write_flags, lock_owner, flags) + bytes(data)

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        fh, offset, size, write_flags, lock_owner, flags = unpack_at(_READ, message, BODY)
        data = message[WRITE_DATA : WRITE_DATA + size]
        if len(data) != size:
            raise WireError(f"{size} bytes to write do not fit in {len(message)}")
        return cls(fh, offset, write_flags, lock_owner, flags, data)


# -- names

# fuse_mknod_in: mode, rdev, umask, padding
_MKNOD: Final = Struct("=III4x")
# fuse_mkdir_in: mode, umask
_MKDIR: Final = Struct("=II")
# fuse_rename_in: newdir
_RENAME: Final = Struct("=Q")
# fuse_rename2_in: newdir, flags, padding
_RENAME2: Final = Struct("=QI4x")
# fuse_link_in: oldnodeid
_LINK: Final = Struct("=Q")


class MknodIn(NamedTuple):
    """fuse_mknod_in; the umask is applied to `mode` already, `rdev` is the kernel's new_encode_dev()."""

    mode: int
    rdev: int
    umask: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _MKNOD.pack(*self[:3]) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_MKNOD, message, BODY), *names_at(message, BODY + _MKNOD.size, 1))


class MkdirIn(NamedTuple):
    """fuse_mkdir_in; the umask is applied to `mode` already."""

    mode: int
    umask: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _MKDIR.pack(*self[:2]) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_MKDIR, message, BODY), *names_at(message, BODY + _MKDIR.size, 1))


class SymlinkIn(NamedTuple):
    """The body of SYMLINK: two strings."""

    name: bytes
    target: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return self.name + b"\0" + self.target + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*names_at(message, BODY, 2))


class LinkIn(NamedTuple):
    """fuse_link_in: the header's node is the directory of the new name."""

    nodeid: int
    name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LINK.pack(self.nodeid) + self.name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_LINK, message, BODY), *names_at(message, BODY + _LINK.size, 1))


class RenameIn(NamedTuple):
    """fuse_rename_in: rename(2)."""

    new_directory: int
    name: bytes
    new_name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _RENAME.pack(self.new_directory) + self.name + b"\0" + self.new_name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_RENAME, message, BODY), *names_at(message, BODY + _RENAME.size, 2))


class Rename2In(NamedTuple):
    """fuse_rename2_in: renameat2(2) with flags."""

    new_directory: int
    flags: int
    name: bytes
    new_name: bytes

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _RENAME2.pack(*self[:2]) + self.name + b"\0" + self.new_name + b"\0"

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a request, beginning at its header."""
        return cls(*unpack_at(_RENAME2, message, BODY), *names_at(message, BODY + _RENAME2.size, 2))
