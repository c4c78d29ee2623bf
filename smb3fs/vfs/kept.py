"""What the verbs ask of whoever keeps directories, or lists them ahead; by themselves they do not.

See `smb3fs.vfs.cached` and `smb3fs.vfs.listing_ahead`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from smb3fs.vfs.attributes import Entry
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.inodes import Inode

# Gives an entry its timeouts: the entry, its inode if it is known, its name and its kind.
Hold: TypeAlias = Callable[[Entry, Inode | None, str, int], None]


class KeptDirectories:
    """No directories at all."""

    def wants(self, inode: Inode) -> bool:
        """Whether a directory that is about to be listed shall be kept, so that a lease is asked for."""
        return False

    def lacks(self, inode: Inode) -> bool:
        """Whether a directory is not kept, and would be if it were listed now."""
        return False

    def tells_all(self) -> bool:
        """Whether a listing has all names that can be opened, so that what is not in it does not exist."""
        return False

    def size(self, inode: Inode) -> int:
        """Return how many entries a directory has that is kept, 0 for others."""
        return 0

    def begins(self, directory: OpenDirectory) -> None:
        """Take note of how things are before the server is asked for a listing."""

    def lists(self, inode: Inode) -> bool:
        """Whether a directory would be listed from what is kept."""
        return False

    def list(self, directory: OpenDirectory) -> bool:
        """Read an open directory from what is kept; False if the server has to be asked."""
        return False

    def base(self) -> int:
        """Return what the positions of a new listing are to be counted from."""
        return 0

    def place(self, directory: OpenDirectory, position: int) -> int:
        """Return where a position is in an open directory, which goes on with the listing that it is of."""
        return position - directory.base

    def may_join(self, directory: OpenDirectory) -> bool:
        """Whether what is read from the beginning of an open directory may become what the kernel keeps of it."""
        return True

    def holding(self, directory: OpenDirectory) -> Hold | None:
        """Return what gives an entry of an open directory its timeouts, if that is kept."""
        return None

    def distrust(self, inode: Inode) -> None:
        """Keep a directory no longer in which something is not as it is known."""

    def leave(self, inode: Inode | None) -> None:
        """Close a directory and all below it, which are about to be moved or removed; None: all."""

    def moved(self, old_parent: Inode, parent: Inode, name: str) -> None:
        """Take note that something has got this name, which the kernel believes for as long as the one before."""

    def closed(self, inode: Inode) -> None:
        """Take note that a file which was open for writing is closed: its times may change once more by that."""


class AheadListings:
    """No listings that nobody has asked for yet."""

    def note(self, directory: Inode) -> None:
        """Take note that a program lists a directory."""

    def passed(self, directory: Inode) -> None:
        """Take note that a program lists a directory which is kept."""

    async def take(self, directory: OpenDirectory) -> bool:
        """Have an open directory show what was listed ahead; False if there is nothing of use."""
        return False

    async def leave(self, inode: Inode | None) -> None:
        """Give up what was listed of a directory, and below it, which are about to be moved or removed; None: all."""
