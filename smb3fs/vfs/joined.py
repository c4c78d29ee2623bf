"""What the kernel keeps of a directory's listing, and what it may be given for that (linux: fs/fuse/readdir.c).

The kernel may keep what it reads of a directory that is kept here, and shows it to whoever opens the directory later.
It puts that together from what all readers read who may, whenever they have opened it, as long as the positions join
on. So that what it keeps is one listing, and one that is true,

- the positions of each listing are counted from another base;
- who begins to read gets what is true then, though the directory may have been opened before we or others changed it;
- what it has kept is not to be gone on with when the listing here is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smb3fs.vfs.contents import Contents
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State

# The bases of positions, so many, and so far apart: all of them fit into 31 bits, as programs of 32 bits want them.
BASES: Final = 63
BASE: Final = 1 << 25


class JoinedListings:
    """The listings of one mount that the kernel keeps."""

    def __init__(self, state: State, contents_of: Callable[[Inode], Contents | None]) -> None:
        """`contents_of` tells what is known of a directory that is kept."""
        self._state = state
        self._contents_of = contents_of
        self._bases = 0

    def keeps(self, directory: OpenDirectory) -> tuple[bool, bool]:
        """Whether the kernel may keep what it reads of an open directory, and may go on with what it has read."""
        contents = self._contents_of(directory.inode)
        if contents is None or not self._state.expires or contents.listing.pages is not directory.pages:
            return False, False
        before, contents.kernel_reads = contents.kernel_reads, True
        directory.joined = True
        return True, before and not self._state.posix

    def next_base(self) -> int:
        """Return what the positions of a new listing are to be counted from: not what those of the last ones were."""
        self._bases = self._bases % BASES + 1
        return self._bases * BASE

    def place(self, directory: OpenDirectory, position: int) -> int:
        """Return where a position is in an open directory, which goes on with the listing that it is of.

        The kernel may have read up to it in what others have read, and have lost that since. Of a listing that is not
        known any more it is as far from the beginning in what is.
        """
        if not directory.base:
            return position
        contents = self._contents_of(directory.inode)
        if contents is not None and contents.listing.base == position - position % BASE != directory.base:
            directory.share(contents.listing)
        return position % BASE

    def may_join(self, directory: OpenDirectory) -> bool:
        """Whether what is read from the beginning of an open directory may become what the kernel keeps of it.

        If it may keep that at all, what we or others have changed since the directory was opened must be in it.
        """
        if not directory.joined:
            return True
        contents = self._contents_of(directory.inode)
        return contents is not None and contents.listing.pages is directory.pages and not contents.noted.count
