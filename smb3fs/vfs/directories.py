"""Open directories: for each opendir one listing, whose entries keep their positions for as long as it is open.

A position (cookie) is an index: 0 is `.`, 1 is `..`, and 2 is the first entry that the server sent, whether it is shown
or not. Pages stay as the server sent them, and an entry is read from them when the kernel asks for it. Position 0
again, after others have been read, is rewinddir(3) and lists anew.

Where the kernel may keep what it reads, positions are counted from a base that tells listings apart: see `vfs.joined`.

A listing shows one moment, and what this mount itself has changed since then it must not take back: the kernel
believes the attributes of a listing. So every change of ours is noted in the listings of that directory that are
open, and what was noted is looked up again when its turn comes.
"""

from __future__ import annotations

import errno
import math
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from smb3fs.errors import WireError
from smb3fs.vfs.attributes import Entry, Listed
from smb3fs.vfs.backend import Pages
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.spelling import Changes
from smb3fs.wire.directory import DirectoryEntry, entry_offsets
from smb3fs.wire.posix import PosixDirectoryEntry, posix_entry_offsets

# `.` and `..`.
DOTS: Final = 2
# The entries of one answer at most: the largest buffer that the kernel offers (1 MiB) holds some 6,000.
BATCH: Final = 1000


class DirEntry(NamedTuple):
    """One entry for the kernel; `counted` ones make it hold a lookup, see `Vfs.remember`."""

    name: bytes
    entry: Entry
    next_cookie: int
    counted: bool
    # What `remember` needs to enter it into the inode table.
    parent: Inode
    server_name: str
    file_id: int
    created: int
    kind: int
    known: Inode | None = None


class Began(NamedTuple):
    """How often a directory had been changed itself when its listing was asked for, and how the one above was known.

    The latter is what whoever keeps directories makes of it.
    """

    changes: int
    above: object


class OpenDirectory:
    """One opendir(3): its listing, and what we have changed since it was asked for."""

    __slots__ = (
        "_arrivals",
        "_offer",
        "_offsets",
        "_starts",
        "base",
        "began",
        "changed",
        "dropped",
        "fh",
        "inode",
        "joined",
        "outdated",
        "pages",
        "read",
        "removed",
    )

    def __init__(self, fh: int, inode: Inode, offer: Callable[[OpenDirectory], bool]) -> None:
        """`offer` is asked whether the handle shall be kept when all entries have come."""
        self._offer = offer
        self.fh = fh
        self.inode = inode
        # What the positions of its listing are counted from, and whether the kernel may keep what it reads of it.
        self.base = 0
        self.joined = False
        self.pages: Pages | None = None
        self.changed = Changes()
        # How things were when the listing was asked for, for whoever keeps it.
        self.began: Began | None = None
        # Whether others may have changed it, since it was asked for, in ways that are to be seen now.
        self.outdated = False
        # Whether anything was read, so that position 0 means rewinddir.
        self.read = False
        # Whether we have removed it since it was opened.
        self.removed = False
        # The entries whose names are not fit for the kernel.
        self.dropped: set[int] = set()
        # For each page its entries' offsets, the index of its first entry, and when it came.
        self._offsets: list[array[int]] = []
        self._starts: list[int] = []
        self._arrivals: list[float] = []

    def begin(self, pages: Pages, now: float, base: int = 0) -> None:
        """Take over a fresh listing, whose positions count from a base."""
        self.close()
        self.pages, self.base = pages, base
        self.dropped.clear()
        self._offsets, self._starts, self._arrivals = [], [], []
        self._index(now)

    def _index(self, now: float) -> None:
        """Find the entries of the pages that have come."""
        assert self.pages is not None  # noqa: S101 (only called with a listing)
        for page in self.pages.pages[len(self._offsets) :]:
            offsets = posix_entry_offsets(page) if self.pages.posix else entry_offsets(page)
            self._starts.append(len(self))
            self._offsets.append(offsets)
            self._arrivals.append(-math.inf if self.outdated else now)
        self._look_whether_complete()

    def _look_whether_complete(self) -> None:
        """Offer what has come to be kept, once it is all there is; the end may come with a page or after the last."""
        if self.pages is not None and self.pages.complete and not self._offer(self):
            self.pages.close()

    def share(self, other: OpenDirectory) -> None:
        """Take over the entries of another listing of the directory that is complete."""
        self.close()
        self.pages, self.base = other.pages, other.base
        self.outdated = other.outdated
        self.dropped = set(other.dropped)
        self._offsets, self._starts, self._arrivals = other._offsets, other._starts, other._arrivals

    def take_over(self, other: OpenDirectory) -> None:
        """Go on with the listing of another open directory, which has none then."""
        self.share(other)
        other.pages = None
        self.changed, self.began = other.changed, other.began

    @property
    def came(self) -> float:
        """When the oldest of its entries came."""
        return min(self._arrivals, default=-math.inf)

    def outdate(self) -> None:
        """Let nobody take what has come for fresh."""
        self.outdated = True
        self._arrivals = [-math.inf] * len(self._arrivals)

    async def fetch(self, now: float) -> bool:
        """Get another page; False at the end of the listing."""
        if self.pages is None or not await self.pages.next_page():
            self._look_whether_complete()
            return False
        self._index(now)
        return True

    def __len__(self) -> int:
        """The number of entries that have come so far."""
        return self._starts[-1] + len(self._offsets[-1]) if self._offsets else 0

    def entry(self, index: int) -> tuple[Listed | None, float]:
        """Return an entry that has come, None for one that makes no sense, and when it came."""
        _, told, came = next(self.entries(index, 1))
        return told, came

    def entries(self, index: int, count: int) -> Iterator[tuple[int, Listed | None, float]]:
        """Yield up to `count` of the entries that have come: position, entry (None if senseless), time of arrival."""
        if self.pages is None or index >= len(self):
            return
        parse_at: Callable[[memoryview, int], Listed] = DirectoryEntry.parse_at
        if self.pages.posix:
            parse_at = PosixDirectoryEntry.parse_at
        last = index + count
        for number in range(bisect_right(self._starts, index) - 1, len(self._offsets)):
            told: Listed | None
            page, start, came = self.pages.pages[number], self._starts[number], self._arrivals[number]
            offsets = self._offsets[number]
            for position in range(index, min(start + len(offsets), last)):
                try:
                    told = parse_at(page, offsets[position - start])
                except WireError:
                    told = None
                yield position, told, came
            index = start + len(offsets)

    def positions(self) -> Iterator[tuple[bytes, int]]:
        """Yield the name, as UTF-16, and the position of each entry that has come."""
        if self.pages is None:
            return
        name_at = PosixDirectoryEntry.name_at if self.pages.posix else DirectoryEntry.name_at
        for page, start, offsets in zip(self.pages.pages, self._starts, self._offsets, strict=False):
            for position, offset in enumerate(offsets, start):
                try:
                    yield name_at(page, offset), position
                except WireError:
                    continue

    @property
    def complete(self) -> bool:
        """Whether all entries have come."""
        return self.pages is not None and self.pages.complete

    def close(self) -> None:
        """Close the listing, if one is under way."""
        if self.pages is not None:
            self.pages.close()


class DirectoryTable:
    """All open directories of one mount."""

    def __init__(self) -> None:
        self._directories: dict[int, OpenDirectory] = {}
        self._of_inode: dict[int, list[OpenDirectory]] = {}
        self._next = 1
        # Whether the handle of a directory whose entries have all come is kept, by whoever keeps it.
        self.offer: Callable[[OpenDirectory], bool] = lambda directory: False

    def __len__(self) -> int:
        return len(self._directories)

    def __iter__(self) -> Iterator[OpenDirectory]:
        return iter(tuple(self._directories.values()))

    def add(self, inode: Inode) -> OpenDirectory:
        """Enter a directory before its listing is asked for, so that no change after that goes unnoticed."""
        directory = OpenDirectory(self._next, inode, self.offer)
        self._next += 1
        self._directories[directory.fh] = directory
        self._of_inode.setdefault(inode.number, []).append(directory)
        inode.opens += 1
        return directory

    def get(self, fh: int) -> OpenDirectory:
        """Return the open directory with a number."""
        directory = self._directories.get(fh)
        if directory is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return directory

    def remove(self, fh: int) -> OpenDirectory:
        """Close a directory; its inode is the caller's to look after."""
        directory = self.get(fh)
        directory.close()
        del self._directories[fh]
        others = self._of_inode[directory.inode.number]
        others.remove(directory)
        if not others:
            del self._of_inode[directory.inode.number]
        directory.inode.opens -= 1
        return directory

    def note_removal(self, inode: Inode) -> None:
        """Note that we have removed a directory itself."""
        for directory in self._of_inode.get(inode.number, ()):
            directory.removed = True

    def removed(self, inode: Inode) -> Iterator[OpenDirectory]:
        """Yield what was open, or being opened, of a directory when we removed it."""
        return (one for one in self._of_inode.get(inode.number, ()) if one.removed)

    def note_change(self, parent: Inode, name: str) -> None:
        """Note that we have changed what is under a name, in whatever way."""
        for directory in self._of_inode.get(parent.number, ()):
            directory.changed.add(name)

    def outdate(self, parent: Inode) -> None:
        """Let nobody take the listings of a directory for fresh."""
        for directory in self._of_inode.get(parent.number, ()):
            directory.outdate()

    def note_change_of(self, inode: Inode) -> None:
        """Note that we have changed a file, under all of its names."""
        if self._directories:
            for parent, name in inode.links:
                self.note_change(parent, name)
