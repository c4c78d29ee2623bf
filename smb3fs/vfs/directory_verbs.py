"""The verbs about directories and the names in them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator

from smb3fs.vfs import directory_entries, links, namespace
from smb3fs.vfs.attributes import Entry
from smb3fs.vfs.directories import DirEntry, OpenDirectory
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import Answer, answers, may_wait, waits


class DirectoryVerbs(Verbs):
    """Listing directories; making, removing and renaming what is in them."""

    @may_wait
    def opendir(self, number: int) -> Answer[int]:
        """Open a directory and begin its listing."""
        directory = self.state.directories.add(self._inodes.get(number))
        try:
            begun = directory_entries.begin(self.state, directory)
        except BaseException:
            self._close_directory(directory.fh)
            raise
        return directory.fh if begun is None else self._when_begun(directory, begun)

    async def _when_begun(self, directory: OpenDirectory, begun: Awaitable[None]) -> int:
        """Wait for the beginning of a listing."""
        try:
            await begun
        except BaseException:
            self._close_directory(directory.fh)
            raise
        return directory.fh

    @may_wait
    def readdir(self, fh: int, cookie: int) -> Answer[Iterator[DirEntry]]:
        """Return some entries from a position on, none at the end.

        The caller hands each to the kernel as it comes, calls `remember` for those that are `counted`, and stops at
        the first that the kernel's buffer has no room for.
        """
        return directory_entries.read(self.state, self.state.directories.get(fh), cookie)

    def remember(self, entry: DirEntry) -> None:
        """Count a lookup for an entry that the kernel has taken, right after it came out of `readdir`.

        It stands outside of the wall, being called for every entry of every listing: there is nothing in it to fail.
        """
        inode = self._inodes.enter_as(
            entry.known,
            entry.entry.attr.ino,
            entry.parent,
            entry.server_name,
            entry.file_id,
            entry.created,
            entry.kind,
        )
        inode.tell(believed=entry.entry.entry_timeout > 0)

    @answers
    def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._close_directory(fh)

    def _close_directory(self, fh: int) -> None:
        """Take an open directory out of its table."""
        self._inodes.drop_unused(self.state.directories.remove(fh).inode)

    @answers
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Succeed: what was done to names is done on the server, and this side holds nothing back."""
        self.state.directories.get(fh)

    @waits
    async def mkdir(self, parent: int, name: bytes, mode: int) -> Entry:
        """Make a directory."""
        inode, told = await namespace.make_directory(self.state, self._inodes.get(parent), name, mode)
        self._ahead.made(inode)
        return self.state.counted(inode, told)

    @waits
    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        await namespace.remove_directory(self.state, self._inodes.get(parent), name)

    @waits
    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file."""
        await namespace.remove_file(self.state, self._inodes.get(parent), name)

    @waits
    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Rename; `flags` are those of renameat2(2), of which NOREPLACE can be had."""
        get = self._inodes.get
        await namespace.rename(self.state, get(parent), name, get(new_parent), new_name, flags)

    @waits
    async def symlink(self, parent: int, name: bytes, target: bytes) -> Entry:
        """Make a symbolic link; EPERM, as symlink(2) has it, where the server has none."""
        return self.state.counted(*await links.make_link(self.state, self._inodes.get(parent), name, target))

    @waits
    async def readlink(self, number: int) -> bytes:
        """Return where a symbolic link leads."""
        return await links.read_link(self.state, self._inodes.get(number))

    @waits
    async def link(self, number: int, new_parent: int, new_name: bytes) -> Entry:
        """Give a file a second name; EPERM, as link(2) has it, where the server has none."""
        inode, directory = self._inodes.get(number), self._inodes.get(new_parent)
        await self.state.settle(inode)
        self._ahead.will_lose(directory)
        return self.state.counted(inode, await links.link(self.state, inode, directory, new_name))
