"""Directories that we change: their attributes are asked for behind each change, since the kernel is about to.

Theory of operation. After each name that is made, removed or renamed in a directory the kernel takes what it knows of
that directory for outdated. Where it judges permissions itself (all mounts without `noperm`), it asks for them again
before the next path that leads through it, which was a round trip for every file that is created or removed. So the
question is sent as soon as the server has answered the change, and is answered while the program goes on, as a rule:
who creates a file writes to it then.

It is sent behind the change's answer and never together with it: servers may take what they have been sent at the same
time in any order, and would tell the time of before. An answer is good for one question, for as long as attributes of
directories are believed (`acdirmax`), and if since it was asked for neither we have changed the directory nor the
kernel was told anything else of it. Under a lease it holds for longer, as any other answer does (`smb3fs.vfs.cached`).

A directory of which the kernel has not asked since the change before is left alone: nobody walks through it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import trio

from smb3fs.handles.attributes import FileAttributes
from smb3fs.vfs.attributes import Entry
from smb3fs.vfs.cached import CachedNames
from smb3fs.vfs.contents import Asked
from smb3fs.vfs.inodes import Inode, Link
from smb3fs.vfs.state import State

# Of how many directories something is remembered; programs change few at a time.
MOST_NOTED: Final = 64


class _Question(NamedTuple):
    """How things were when attributes were asked for: the counts of changes and of answers, the name, and when."""

    changes: int
    told: int
    name: Link
    asked: Asked
    at: float


class _Noted:
    """What is known of one directory: whether the kernel has asked since the last change, and what was fetched."""

    __slots__ = ("fetched", "over", "wanted")

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.over: trio.Event | None = None
        self.fetched: tuple[FileAttributes, _Question] | None = None


class ChangedDirectories:
    """The directories of one mount that were changed by it lately."""

    def __init__(self, state: State, cached: CachedNames) -> None:
        self._state = state
        self._cached = cached
        self._noted: OrderedDict[int, _Noted] = OrderedDict()

    def changed(self, directory: Inode, hurry: bool) -> None:
        """Take note that we have changed what names there are in a directory, as the server has just said.

        Without `hurry` the question goes along with what the program does next.
        """
        presentation = self._state.presentation
        if self._state.uncached or not presentation.directory_timeout:
            return
        noted = self._noted.pop(directory.number, None)
        if noted is None:
            noted = _Noted(wanted=not presentation.noperm)
        self._noted[directory.number] = noted
        if len(self._noted) > MOST_NOTED:
            self._noted.popitem(last=False)
        wanted, noted.wanted, noted.fetched, noted.over = noted.wanted, False, None, None
        if wanted:
            self._fetch(directory, noted, hurry)

    def _fetch(self, directory: Inode, noted: _Noted, hurry: bool) -> None:
        """Ask for a directory's attributes, unless nobody knows where it is."""
        state = self._state
        path = next(state.inodes.paths(directory), None)
        if path is None:
            return
        name = name_of(directory)
        question = _Question(
            directory.changes, directory.told, name, self._cached.asked(name[0], directory), trio.current_time()
        )
        over = trio.Event()

        def told(attributes: FileAttributes | None) -> None:
            over.set()
            if attributes is not None and noted.over is over and state.is_it(directory, attributes):
                noted.fetched = attributes, question

        noted.over = over
        if not state.share.attributes_ahead(path, told, self._cached.handle_of(directory), hurry=hurry):
            noted.over = None

    def asked(self, directory: Inode) -> trio.Event | None:
        """Take note that the kernel asks for attributes; return what it has to wait for, if the answer is under way."""
        noted = self._noted.get(directory.number)
        if noted is None:
            return None
        noted.wanted = True
        return noted.over if noted.over is not None and not noted.over.is_set() else None

    def take(self, directory: Inode) -> Entry | None:
        """Return what was fetched, if it may be told; the server has to be asked for the next answer."""
        noted = self._noted.get(directory.number)
        if noted is None or noted.fetched is None:
            return None
        (attributes, question), noted.fetched = noted.fetched, None
        state, age = self._state, trio.current_time() - question.at
        if (directory.changes, directory.told) != (question.changes, question.told):
            return None
        if age >= state.presentation.directory_timeout or name_of(directory) != question.name:
            return None
        entry = state.told(directory, attributes)
        entry.attr_timeout = max(0.0, entry.attr_timeout - age)
        self._cached.learn(question.name, directory, attributes, entry, question.asked, age)
        return entry


def name_of(inode: Inode) -> Link:
    """Return the name by which an inode is known first; the root is in itself."""
    return inode.links[0] if inode.links else (inode, "")
