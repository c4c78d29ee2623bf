"""The own attributes of directories that are kept, and what they are to be believed under.

A directory's times change by what happens in it, and its attributes by what is done to it in the directory that it is
in. So nobody can have changed them unnoticed only while both are kept, and we have changed nothing there since they
came; the root is in none. What is asked for takes note of that before (`Ticket`), so that what comes after a change or
a break is not taken for what it was before.
"""

from __future__ import annotations

from collections.abc import Callable

from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.vfs.attributes import itself
from smb3fs.vfs.contents import Asked, Contents, Ticket
from smb3fs.vfs.directories import DOTS, OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State


class OwnAttributes:
    """What the directories of one mount say of themselves."""

    def __init__(self, state: State, contents_of: Callable[[Inode], Contents | None]) -> None:
        """`contents_of` tells what is known of a directory that is kept."""
        self._state = state
        self._contents_of = contents_of
        self.root_held = False
        """Whether the lease on the root is also about the root's own attributes."""

    def of(self, inode: Inode) -> FileAttributes | None:
        """Return a directory's own attributes, if nobody can have changed them."""
        contents = self._contents_of(inode)
        if contents is None or contents.own is None or self._state.posix:
            return None
        told, here, above = contents.own
        if here.changes != inode.changes or not self._is_good(above, inode):
            contents.own = None
            return None
        return told

    def _is_good(self, above: Ticket | None, inode: Inode) -> bool:
        """Whether nothing has happened to a directory in the one that it is in; the root is in none."""
        if inode is self._state.inodes.root:
            return self.root_held
        if above is None:
            return False
        return above.contents is self._contents_of(inode.parent) and above.changes == above.contents.noted.count

    def asked(self, parent: Inode, child: Inode | None) -> Asked:
        """Take note of how things are before a name is asked for, or its inode if that is known."""
        return Asked(self.ticket(parent), self.own_ticket(child) if child is not None else None)

    def ticket(self, inode: Inode | None) -> Ticket | None:
        """Take note of how a directory is known."""
        contents = self._contents_of(inode) if inode is not None else None
        return Ticket(contents, contents.noted.count) if contents is not None else None

    def own_ticket(self, inode: Inode) -> Ticket | None:
        """Take note of how a directory is known and how often it was changed itself, by names, not by contents."""
        contents = self._contents_of(inode) if inode.is_directory else None
        return Ticket(contents, inode.changes) if contents is not None else None

    def listed(
        self, directory: OpenDirectory, contents: Contents
    ) -> tuple[FileAttributes, Ticket, Ticket | None] | None:
        """Return what a listing says of the directory itself, and what that holds under; it came under the lease."""
        inode, began = directory.inode, directory.began
        if self._state.posix or began is None or began.changes != inode.changes:
            return None
        for _, told, _ in directory.entries(0, DOTS):
            if told is None or told.name != ".":
                continue
            own = itself(told)
            if own.is_directory and self._state.inodes.is_same(inode, own.file_id, own.created, own.kind):
                return own, Ticket(contents, inode.changes), began.above if isinstance(began.above, Ticket) else None
        return None

    def ask(self, inode: Inode, contents: Contents, handle: Open | None) -> None:
        """Ask for the attributes of a directory that is read, if they are not known and could be kept: nobody waits.

        It may have been listed before the one that it is in was kept, or something was changed there since.
        """
        if self._state.posix or contents.asked_itself or self.of(inode) is not None:
            return
        asked = self.asked(inode.parent, inode)
        path = next(self._state.inodes.paths(inode), None)
        if path is None or not (asked.parent is not None if inode.links else self.root_held):
            return

        def told(attributes: FileAttributes | None) -> None:
            contents.asked_itself = False
            if attributes is None or not self._state.is_it(inode, attributes) or asked.own is None:
                return
            if self.asked(inode.parent, inode) == asked:
                contents.own = attributes, asked.own, asked.parent

        contents.asked_itself = self._state.share.attributes_ahead(path, told, handle)
