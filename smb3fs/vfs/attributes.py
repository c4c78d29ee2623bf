"""What files look like to local programs, and what a chmod or chown amounts to on a server that keeps neither.

Owner, group and mode are the mount's, as with mount.cifs; the one thing that the server keeps of a mode is its
FILE_ATTRIBUTE_READONLY, which takes the write bits away from a file. (On a directory Windows uses that attribute for
something else, so it is not looked at.) A server with the POSIX extensions keeps all three, and they are shown.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from smb3fs.handles.attributes import FileAttributes, kind_of, plain_kind
from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.directory import DirectoryEntry
from smb3fs.wire.posix import PERMISSIONS, PosixCreated, PosixDirectoryEntry
from smb3fs.wire.reparse import SymbolicLink
from smb3fs.wire.sid import unix_group, unix_user

# One entry of a page, of either kind of page.
Listed = DirectoryEntry | PosixDirectoryEntry

# Plain numbers, since operations on an IntFlag cost twenty times as much and these are done for every entry listed.
DIRECTORY: Final = int(FileAttribute.DIRECTORY)
READONLY: Final = int(FileAttribute.READONLY)
REPARSE_POINT: Final = int(FileAttribute.REPARSE_POINT)
NORMAL: Final = int(FileAttribute.NORMAL)
# The attributes that SET_INFO can change ([MS-FSCC] 2.6); the others describe how the file is stored.
SETTABLE: Final = int(
    FileAttribute.READONLY
    | FileAttribute.HIDDEN
    | FileAttribute.SYSTEM
    | FileAttribute.ARCHIVE
    | FileAttribute.TEMPORARY
    | FileAttribute.OFFLINE
    | FileAttribute.NOT_CONTENT_INDEXED
)
WRITE_BITS: Final = 0o222
# The kernel refuses attributes with a larger size; a server may claim one.
MAX_SIZE: Final = 2**63 - 1
# What a listing does not tell enough about to be believed: links (their length), and what may be anything but a
# directory.
UNTOLD: Final = frozenset({0, stat.S_IFLNK})


class Settings(Protocol):
    """The mount options that the verbs obey, by the names that they have in `MountOptions`."""

    @property
    def uid(self) -> int:
        """Owner of every file."""

    @property
    def gid(self) -> int:
        """Group of every file."""

    @property
    def forces_uid(self) -> bool:
        """Whether `uid` owns every file, whatever the server says."""

    @property
    def forces_gid(self) -> bool:
        """Whether `gid` is the group of every file, whatever the server says."""

    @property
    def file_mode(self) -> int:
        """Permission bits of files."""

    @property
    def dir_mode(self) -> int:
        """Permission bits of directories."""

    @property
    def noperm(self) -> bool:
        """Whether the server alone judges permissions, and chmod and chown are quietly ignored."""

    @property
    def dynperm(self) -> bool:
        """Whether a chmod and chown that the server does not keep are remembered here."""

    @property
    def server_inodes(self) -> bool:
        """Whether inode numbers are the server's file ids."""

    @property
    def name_mapping(self) -> str:
        """What becomes of the characters that SMB cannot hold: `mapposix`, `mapchars`, `nomapchars`."""

    @property
    def nocase(self) -> bool:
        """Whether a name that is not there is looked for in another spelling."""

    @property
    def read_ahead(self) -> int:
        """How many bytes are fetched ahead of a program that reads a file in order, at most."""

    @property
    def user_xattr(self) -> bool:
        """Whether there are extended attributes with names that begin with `user.`."""

    @property
    def symlink(self) -> str:
        """How symbolic links are made: `native`, `mfsymlinks`, `none`."""

    @property
    def mfsymlinks(self) -> bool:
        """Whether files in Minshall and French's notation are links."""

    @property
    def special_files(self) -> str:
        """How pipes, sockets and devices are made: `nfs`, `none`."""

    @property
    def symlink_root(self) -> str:
        """The directory in which absolute links of Windows find their drives."""

    @property
    def cache(self) -> str:
        """What is kept: `strict` what leases permit, `loose` more, `none` nothing, in the kernel neither."""

    @property
    def wcache(self) -> int:
        """How many bytes may have been written by programs and not arrived at the server, where leases permit it."""

    @property
    def kernel_flags(self) -> Sequence[str]:
        """The flags of the mount, such as `sync`."""

    @property
    def closetimeo(self) -> float:
        """Seconds for which handles stay open after the last close, where their leases permit it."""

    @property
    def handle_cache(self) -> bool:
        """Whether any handle stays open so."""

    @property
    def max_cached_handles(self) -> int:
        """How many of them there may be."""

    @property
    def acregmax(self) -> float:
        """Seconds for which attributes of files may be believed."""

    @property
    def acdirmax(self) -> float:
        """Seconds for which names and attributes of directories may be believed."""

    @property
    def bsize(self) -> int:
        """The buffer size that programs are told to prefer."""

    @property
    def timeout(self) -> float:
        """Seconds that any verb may take."""

    @property
    def hard(self) -> bool:
        """Whether verbs wait for the server for as long as it takes instead."""

    @property
    def strictsync(self) -> bool:
        """Whether fsync waits for the server's disk."""

    @property
    def server_locks(self) -> bool:
        """Whether locks are to be seen by all clients of the server."""

    @property
    def nodelete(self) -> bool:
        """Whether nothing can be deleted."""


@dataclass(slots=True)
class Attr:
    """What stat(2) tells of one inode; times in ns since the epoch."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int
    rdev: int = 0


@dataclass(slots=True)
class Entry:
    """Attributes, and for how many seconds the kernel may believe them and the name that led to them."""

    attr: Attr
    entry_timeout: float
    attr_timeout: float
    generation: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class SetAttr:
    """What setattr is asked to change; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @property
    def sets_times(self) -> bool:
        """Whether a time is to be set."""
        return self.atime_ns is not None or self.mtime_ns is not None

    @property
    def only_times(self) -> bool:
        """Whether that is all there is to be done."""
        return self.sets_times and (self.mode, self.uid, self.gid, self.size) == (None, None, None, None)


def itself(told: Listed) -> FileAttributes:
    """Return what an entry of a page says of a directory."""
    return FileAttributes(
        told.file_id,
        told.file_attributes,
        told.end_of_file,
        told.allocation_size,
        1,
        filetime_to_ns(told.creation_time),
        filetime_to_ns(told.last_access_time),
        filetime_to_ns(told.last_write_time),
        filetime_to_ns(told.change_time),
    )


class Presentation:
    """Turns what the server says into what the kernel is told, by the options of one mount."""

    def __init__(self, settings: Settings) -> None:
        self.uid = settings.uid
        self.gid = settings.gid
        self.noperm = settings.noperm
        self.forces_uid = settings.forces_uid
        self.forces_gid = settings.forces_gid
        self.blksize = settings.bsize
        self.file_permissions = settings.file_mode & 0o7777
        self.directory_permissions = settings.dir_mode & 0o7777
        self.file_timeout = float(settings.acregmax)
        self._directory_timeout = float(settings.acdirmax)
        self.dynperm = settings.dynperm
        # By inode number what chmod and chown have asked for, under dynperm.
        self.remembered: dict[int, SetAttr] = {}
        # The inode numbers of files of which something has not arrived that a program wrote: what the server says of
        # them is true, but may not be kept, as whoever wrote it has to come here before he sees less than that.
        self.doubted: set[int] = set()
        # Whether the server speaks the POSIX extensions.
        self.posix = False
        # The size that a file in a listing has if it may be a link in disguise; none has a negative one.
        self.link_file_size = -1
        # How long the text of a link is for a program, which is the size of the link.
        self.target_length: Callable[[SymbolicLink | bytes], int] = lambda _: 0

    @property
    def directory_timeout(self) -> float:
        """Seconds for which names and attributes of directories may be believed."""
        return self._directory_timeout

    # -- from the server

    def entry(self, number: int, told: FileAttributes) -> Entry:
        """Return what the kernel is told of a file about which the server has just said `told`."""
        return self._entry(
            number,
            told.kind,
            told.attributes,
            told.size if told.target is None else self.target_length(told.target),
            told.allocation,
            told.links,
            told.created,
            told.accessed,
            told.modified,
            told.changed,
            0.0,
            told.owned,
            told.rdev,
        )

    def listed_kind(self, told: Listed) -> int:
        """Return the type bits of an entry of a page; 0 for what may be anything but a directory."""
        attributes = told.file_attributes
        if attributes & REPARSE_POINT:
            kind = kind_of(attributes, told.reparse_tag, told.owned)
            # The kernel takes the number of a device once and for all, and a listing does not tell it.
            return 0 if kind in (stat.S_IFCHR, stat.S_IFBLK) else kind
        if told.end_of_file == self.link_file_size and not attributes & DIRECTORY:
            return 0
        return plain_kind(attributes)

    def listed(self, number: int, told: Listed, age: float, kind: int, links: int = 1) -> Entry:
        """Return the same for an entry of a page that is `age` seconds old; the links it seldom holds."""
        owned = told.owned
        if kind in UNTOLD:
            age = math.inf
        return self._entry(
            number,
            kind,
            told.file_attributes,
            told.end_of_file,
            told.allocation_size,
            links if owned is None else owned.links,
            filetime_to_ns(told.creation_time),
            filetime_to_ns(told.last_access_time),
            filetime_to_ns(told.last_write_time),
            filetime_to_ns(told.change_time),
            age,
            owned,
        )

    def _entry(
        self,
        number: int,
        kind: int,
        attributes: int,
        size: int,
        allocation: int,
        links: int,
        created: int,
        accessed: int,
        modified: int,
        changed: int,
        age: float,
        owned: PosixCreated | None = None,
        rdev: int = 0,
    ) -> Entry:
        """Put an entry together."""
        timeout = self._directory_timeout - age
        if timeout < 0.0:
            timeout = 0.0
        uid, gid = self.uid, self.gid
        if kind == stat.S_IFDIR:
            permissions, attr_timeout = self.directory_permissions, timeout
            links = 2 if owned is None else links
        else:
            permissions = self.file_permissions & ~WRITE_BITS if attributes & READONLY else self.file_permissions
            attr_timeout = max(0.0, self.file_timeout - age)
        if owned is not None:
            permissions = owned.mode & PERMISSIONS
            uid, gid = self.owner(owned)
        if self.remembered and number in self.remembered:
            wish = self.remembered[number]
            permissions = permissions if wish.mode is None else wish.mode & PERMISSIONS
            uid, gid = uid if wish.uid is None else wish.uid, gid if wish.gid is None else wish.gid
        if kind == stat.S_IFLNK:
            permissions = 0o777
        if self.doubted and number in self.doubted:
            attr_timeout = 0.0
        return Entry(
            Attr(
                number,
                kind | permissions if kind else 0,
                links if owned is not None else links or 1,
                uid,
                gid,
                min(size, MAX_SIZE),
                min(allocation, MAX_SIZE) + 511 >> 9,
                self.blksize,
                accessed or modified,
                modified,
                changed or modified,
                created,
                rdev,
            ),
            timeout,
            attr_timeout,
        )

    def directory(self, number: int) -> Entry:
        """Return just enough of a directory to list it as `.` or `..`, of which the kernel takes number and type."""
        return self._entry(number, stat.S_IFDIR, DIRECTORY, 0, 0, 2, 0, 0, 0, 0, 0.0)

    def owner(self, owned: PosixCreated) -> tuple[int, int]:
        """Return user and group; whoever is no Unix account of the server's is the mount's own."""
        uid = None if self.forces_uid else unix_user(owned.owner)
        gid = None if self.forces_gid else unix_group(owned.group)
        return self.uid if uid is None else uid, self.gid if gid is None else gid

    # -- towards the server

    @property
    def keeps_none(self) -> bool:
        """Whether a chmod or chown that the server does not keep succeeds all the same."""
        return self.noperm or self.dynperm

    def remember(self, number: int, wish: SetAttr) -> None:
        """Under dynperm, keep what chmod and chown have asked for, for as long as the inode is known."""
        if self.dynperm and (wish.mode, wish.uid, wish.gid) != (None, None, None):
            before = self.remembered.get(number, SetAttr())
            self.remembered[number] = SetAttr(
                mode=before.mode if wish.mode is None else wish.mode,
                uid=before.uid if wish.uid is None else wish.uid,
                gid=before.gid if wish.gid is None else wish.gid,
            )

    def forget(self, number: int) -> None:
        """Drop what was kept of an inode that is no longer known."""
        self.remembered.pop(number, None)
        self.doubted.discard(number)

    def check_owner(self, uid: int | None, gid: int | None) -> None:
        """Raise EPERM for a chown to anybody but the owner that every file has, unless under noperm or dynperm."""
        if (uid not in (None, self.uid) or gid not in (None, self.gid)) and not self.keeps_none:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def readonly_wish(self, mode: int, *, is_directory: bool) -> bool | None:
        """Return what a chmod to `mode` makes of the read-only attribute; None for nothing; or raise EPERM.

        The two modes that a file can have are `file_mode` and `file_mode` without its write bits. Under noperm
        and dynperm any other one is taken by its write bits, as mount.cifs does.
        """
        mode &= 0o7777
        if is_directory:
            if mode != self.directory_permissions and not self.keeps_none:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return None
        if not self.file_permissions & WRITE_BITS:
            if mode != self.file_permissions and not self.keeps_none:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return None
        if mode not in (self.file_permissions, self.file_permissions & ~WRITE_BITS) and not self.keeps_none:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return not mode & WRITE_BITS

    def readonly_at_creation(self, mode: int) -> bool:
        """Whether a file that is created with `mode` is to be read-only on the server, if that keeps no mode."""
        return not self.posix and not mode & WRITE_BITS

    @staticmethod
    def with_readonly(attributes: int, readonly: bool) -> int:
        """Return the attributes to set so that a file becomes read-only, or no longer is; 0 when it is so already."""
        if bool(attributes & READONLY) == readonly:
            return 0
        kept = attributes & SETTABLE & ~READONLY
        return kept | READONLY if readonly else kept or NORMAL
