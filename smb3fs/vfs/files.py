"""Open files: what each descriptor number of the kernel's stands for, and what open(2)'s flags mean here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from smb3fs.cache.read_ahead import Stream
from smb3fs.handles.opens import Open
from smb3fs.vfs.inodes import Inode

SYNCHRONOUS: Final = os.O_SYNC | os.O_DSYNC


# What an open for reading brings along: all of a small file. One credit pays for it.
HEAD_SIZE: Final = 65536


class Access(NamedTuple):
    """What a handle on the server must permit for an open with certain flags."""

    read: bool
    write: bool

    @classmethod
    def of(cls, flags: int) -> Access:
        """Read the access mode; truncating needs a handle that may write, whatever else the descriptor may do."""
        mode = flags & os.O_ACCMODE
        # Linux's fourth mode, 3, gives a descriptor for ioctl(2) alone and demands the permission to do both.
        return cls(mode != os.O_WRONLY, mode != os.O_RDONLY or bool(flags & os.O_TRUNC))


class Owner(NamedTuple):
    """Who locks: the kernel's number for a process or an open file, in the space of fcntl(2) or of flock(2)."""

    flock: bool
    number: int


class OpenFile:
    """One open(2) and the handle that serves it."""

    __slots__ = (
        "append",
        "direct",
        "failures",
        "fh",
        "gathers",
        "handle",
        "head_of",
        "head_until",
        "inode",
        "keeps_handle",
        "lock_owners",
        "readable",
        "stream",
        "synchronous",
        "writer",
        "writes",
    )

    def __init__(self, fh: int, inode: Inode, handle: Open, flags: int, *, direct: bool) -> None:
        self.fh = fh
        self.inode = inode
        self.handle = handle
        self.readable, self.writes = Access.of(flags)
        self.append = bool(flags & os.O_APPEND)
        # Whether it goes past the kernel's pages.
        self.direct = direct
        # Whether what is written may arrive later, as far as the program has asked for nothing else; and how many
        # failures of that its user was told of, or missed before this open.
        self.gathers = not flags & (SYNCHRONOUS | os.O_APPEND | os.O_DIRECT)
        self.failures = 0
        # The thread that has written last, 0 if it is not known.
        self.writer = 0
        # Through the page cache the kernel follows each write with an fsync by itself; past it, it does not.
        self.synchronous = direct and bool(flags & SYNCHRONOUS)
        # The counts of changes and of attributes told when the handle's head was asked for, and until when it may be
        # shown.
        self.head_of = (-1, -1)
        self.head_until = 0.0
        # Who has set locks through this descriptor, and whether its handle stays open for the locks that it has.
        self.lock_owners: set[Owner] | None = None
        self.keeps_handle = False
        # What reads ahead, if anything does.
        self.stream: Stream | None = None

    def head(self, offset: int, size: int, changes: int, now: float) -> memoryview | None:
        """Return a read's answer from what the open has brought along, if that is still good and has all of it."""
        head = self.handle.head
        if head is None:
            return None
        beyond = len(head) == HEAD_SIZE and offset + size > HEAD_SIZE
        if beyond or (changes, self.inode.told) != self.head_of or now > self.head_until:
            self.handle.head = None  # of no use any more, and thousands of files may be open
            return None
        return head[offset : offset + size]


class FileTable:
    """All open files of one mount."""

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}
        self._of_inode: dict[int, list[OpenFile]] = {}
        self._next = 1
        # Counts up when any file's contents begin to change and when they have: data asked for at an older count may
        # be older than a write that has returned since.
        self.changes = 0

    def __len__(self) -> int:
        return len(self._files)

    @contextmanager
    def changing(self, inode: Inode) -> Iterator[None]:
        """Enclose what changes the contents of a file."""
        self.changes += 1
        inode.changes += 1
        try:
            yield
        finally:
            self.changes += 1
            inode.changes += 1

    def changed(self, inode: Inode) -> None:
        """Take note that the contents of a file have been changed, in no time."""
        self.changes += 1
        inode.changes += 1

    def __iter__(self) -> Iterator[OpenFile]:
        return iter(tuple(self._files.values()))

    def add(self, inode: Inode, handle: Open, flags: int, *, direct: bool) -> OpenFile:
        """Enter a handle under a new number."""
        file = OpenFile(self._next, inode, handle, flags, direct=direct)
        self._next += 1
        self._files[file.fh] = file
        self._of_inode.setdefault(inode.number, []).append(file)
        inode.opens += 1
        inode.untouched = False
        return file

    def get(self, fh: int) -> OpenFile:
        """Return the open file with a number."""
        file = self._files.get(fh)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def remove(self, fh: int) -> OpenFile:
        """Take an open file out; its inode is the caller's to look after."""
        file = self.get(fh)
        del self._files[fh]
        others = self._of_inode[file.inode.number]
        others.remove(file)
        if not others:
            del self._of_inode[file.inode.number]
        file.inode.opens -= 1
        return file

    def of(self, inode: Inode) -> list[OpenFile]:
        """Return the open files of an inode, the newest first."""
        return self._of_inode.get(inode.number, [])[::-1]

    def writer(self, inode: Inode) -> OpenFile | None:
        """Return an open file of the inode whose handle may write.

        Through it the size is fresh, and times that are set stay: a server may take its own for them when a handle
        that has written is closed, but not if they were set through that handle.
        """
        return next((file for file in self.of(inode) if file.handle.writable), None)
