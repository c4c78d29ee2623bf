"""The inode table: which number the kernel knows a file by, and by which paths the server does.

An inode lives while the kernel knows it (lookups not yet forgotten), has it open, or knows something below it. It
holds no attributes, so that a hundred thousand of them cost some 40 MB.

Its number is the server's file id. Where that cannot be (0, all ones, the root's number 1, or the number of another
file that is alive), it gets one with the highest bit set, counting upward, so that none comes twice.

Two sightings under one name are one file if id and type agree. Under different names the creation time must agree too:
file systems reuse ids, and then it is what tells a new file from the old one that the kernel still knows. Under one
name it must not be asked for, since Samba makes it up from the oldest of the other times for what was not created
through it, so that it moves; but where two files of one id are known, and what is seen has the creation time of the
one, it is not the other, though that had the name before. What has no id is known by name, type and creation time.

A file seen under several names has several links, the one seen last first; a directory has one, and the path of what is
below it follows from there, so renaming a directory changes one link.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

log = logging.getLogger(__name__)

# As an int, for comparisons by the thousand.
DIRECTORY: Final = stat.S_IFDIR
# FUSE_ROOT_ID in the kernel's linux/fuse.h.
ROOT: Final = 1
# What servers send that keep no file ids ([MS-FSCC] 2.1.9 and 2.4.26).
NO_IDS: Final = frozenset({0, 2**64 - 1})
FALLBACK: Final = 1 << 63
# A file with more names than this is found by those seen last; the others cost a lookup.
MAX_LINKS: Final = 16
# A name on the wire has 65,535 bytes at most ([MS-SMB2] 2.2.13), and the mount may stand below some directories.
MAX_PATH: Final = 32_000
# Deeper than any path of MAX_PATH: only a circle, which others can make of what we know by moving directories about.
MAX_DEPTH: Final = MAX_PATH // 2

Link = tuple["Inode", str]


class Inode:
    """A file or directory that the kernel knows, or knows something below of."""

    __slots__ = (
        "changes",
        "created",
        "file_id",
        "kind",
        "links",
        "lookups",
        "names",
        "nlink",
        "number",
        "opens",
        "shown",
        "told",
        "untouched",
    )

    def __init__(self, number: int, file_id: int, created: int, kind: int) -> None:
        self.number = number
        self.file_id = file_id
        self.created = created
        # The type bits of its mode; 0 is "no directory" where a listing does not tell more.
        self.kind = kind
        # What the server last said, which listings do not.
        self.nlink = 1
        self.lookups = 0
        # Whether the kernel was told of it under a name since it was last made to ask anew.
        self.shown = False
        self.opens = 0
        # How often the kernel was told its attributes: pages that were asked for before are perhaps older than these,
        # and the kernel, which goes by them, would not notice.
        self.told = 0
        # Counts up when its contents begin to be changed here and when they have; of a directory, when the names in it
        # have been changed here, or what else is told of it.
        self.changes = 0
        # Whether it has never been open here, so that the kernel has no pages of it.
        self.untouched = True
        # The names by which it is known; of a directory also those known in it.
        self.links: tuple[Link, ...] = ()
        self.names: dict[str, Inode] | None = None

    def tell(self, *, believed: bool = True) -> None:
        """Note that the kernel is told of it under a name, and so holds one lookup more; it may believe that name."""
        self.lookups += 1
        self.told += 1
        self.shown |= believed

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.kind == DIRECTORY

    @property
    def expect(self) -> int | None:
        """The file id that the server must find at a path before anything is done there; None where it has none."""
        return None if self.file_id in NO_IDS or self.number == ROOT else self.file_id

    @property
    def parent(self) -> Inode:
        """The directory that it was last seen in; of the root the root itself."""
        return self.links[0][0] if self.links else self

    def child(self, name: str) -> Inode | None:
        """Return what is known under a name in this directory."""
        return self.names.get(name) if self.names is not None else None


class InodeTable:
    """All inodes by number, and the bookkeeping of names, lookups and opens."""

    def __init__(self, *, server_numbers: bool = True, separator: str = "\\") -> None:
        self.root = Inode(ROOT, 0, 0, DIRECTORY)
        self.root.lookups = 1  # the kernel never forgets it
        self._server_numbers = server_numbers
        # What stands between the names in a path; in no name, see `vfs.names`.
        self.separator = separator
        self._by_number: dict[int, Inode] = {ROOT: self.root}
        # Those that could not have their id for their number, by id, whether it is a directory, and creation time.
        self._displaced: dict[tuple[int, bool, int], Inode] = {}
        self._next_fallback = FALLBACK
        # Called with the number of each inode that is dropped.
        self.on_drop: Callable[[int], None] = lambda number: None

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Inode]:
        return iter(tuple(self._by_number.values()))

    def get(self, number: int) -> Inode:
        """Return the inode with a number that the kernel got from here."""
        inode = self._by_number.get(number)
        if inode is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return inode

    # -- identity

    def is_same(self, inode: Inode, file_id: int, created: int, kind: int) -> bool:
        """Whether what a server found at a path of `inode` is that file and no other."""
        if inode.number == ROOT:
            return True
        if _differ(inode.kind, kind):
            return False
        if file_id in NO_IDS or inode.file_id in NO_IDS:
            return _agree(inode.created, created)
        if inode.file_id != file_id:
            return False
        return _agree(inode.created, created) or self._exactly(file_id, created, kind) in (None, inode)

    def _exactly(self, file_id: int, created: int, kind: int) -> Inode | None:
        """Return the known inode with that id and creation time."""
        inode = self._by_number.get(file_id) if file_id != ROOT else None
        if inode is None or (inode.file_id, inode.created) != (file_id, created) or _differ(inode.kind, kind):
            inode = self._displaced.get((file_id, kind == DIRECTORY, created))
        return inode if inode is not None and not _differ(inode.kind, kind) else None

    def find(self, parent: Inode, name: str, file_id: int, created: int, kind: int) -> Inode | None:
        """Return the known inode of what was just seen under a name; None for a newcomer."""
        named = parent.child(name)
        if named is not None and not self.is_same(named, file_id, created, kind):
            named = None
        if file_id in NO_IDS or (named is not None and named.file_id == file_id):
            return named
        inode = self._by_number.get(file_id) if file_id != ROOT else None
        if (
            inode is not None
            and inode.file_id == file_id
            and not _differ(inode.kind, kind)
            and _agree(inode.created, created)
        ):
            return inode
        exactly = self._exactly(file_id, created, kind)
        return exactly if exactly is not None else named

    def choose_number(self, file_id: int) -> int:
        """Return the number for a newcomer with that file id: the id itself if it is free."""
        if self._server_numbers and file_id not in NO_IDS and file_id not in self._by_number:
            return file_id
        while True:
            number = self._next_fallback
            self._next_fallback += 1
            if number not in self._by_number:
                return number

    def enter(self, parent: Inode, name: str, file_id: int, created: int, kind: int) -> Inode:
        """Note that a file was seen under a name, and return its inode, new or known."""
        known = self.find(parent, name, file_id, created, kind)
        number = known.number if known is not None else self.choose_number(file_id)
        return self.enter_as(known, number, parent, name, file_id, created, kind)

    def enter_as(
        self,
        known: Inode | None,
        number: int,
        parent: Inode,
        name: str,
        file_id: int,
        created: int,
        kind: int,
    ) -> Inode:
        """Note the same of a file that `find` has just found to be `known`, or a newcomer that gets `number`."""
        inode = known
        if inode is None:
            # One int object for both, and likewise for all that is equal: it is what the table's size is made of.
            inode = Inode(number, number if file_id == number else file_id, created, kind)
            self._by_number[number] = inode
            self._index(inode)
        else:
            self.adopt(inode, file_id, created)
            inode.kind = kind or inode.kind
        self._link(inode, parent, name)
        return inode

    def adopt(self, inode: Inode, file_id: int, created: int) -> None:
        """Take over what the server now says of a file that is known to be `inode`, through a handle for example."""
        if (inode.file_id in NO_IDS and file_id not in NO_IDS) or (created and created != inode.created):
            self._unindex(inode)
            if file_id not in NO_IDS:
                inode.file_id = file_id
            inode.created = created or inode.created
            self._index(inode)

    def _index(self, inode: Inode) -> None:
        """Make an inode findable by its file id where its number does not do that."""
        if inode.number != inode.file_id and inode.file_id not in NO_IDS and inode.number != ROOT:
            self._displaced.setdefault((inode.file_id, inode.is_directory, inode.created), inode)

    def _unindex(self, inode: Inode) -> None:
        """Undo `_index`."""
        if self._displaced.get((inode.file_id, inode.is_directory, inode.created)) is inode:
            del self._displaced[inode.file_id, inode.is_directory, inode.created]

    # -- names

    def _link(self, inode: Inode, parent: Inode, name: str) -> None:
        """Make a name the first link of an inode, and nothing else's."""
        if inode.links and inode.links[0][0] is parent and inode.links[0][1] == name:
            return
        known = parent.child(name)
        if known is not None and known is not inode:
            self.unlink(parent, name)
        if parent.names is None:
            parent.names = {}
        parent.names[name] = inode
        if not inode.links:
            inode.links = ((parent, name),)
            return
        kept = [link for link in inode.links if link != (parent, name)]
        for other, old in kept[0 if inode.is_directory else MAX_LINKS - 1 :]:
            self._forget_name(other, old)
        del kept[0 if inode.is_directory else MAX_LINKS - 1 :]
        inode.links = ((parent, name), *kept)

    def unlink(self, parent: Inode, name: str) -> Inode | None:
        """Note that a name is gone; return what it stood for."""
        inode = parent.child(name)
        if inode is None:
            return None
        inode.links = tuple(link for link in inode.links if link != (parent, name))
        self._forget_name(parent, name)
        self.drop_unused(inode)
        return inode

    def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str) -> None:
        """Note that a name has become another one, which replaced what was there."""
        inode = parent.child(name)
        if inode is None:
            self.unlink(new_parent, new_name)
        elif (parent, name) != (new_parent, new_name):
            self._link(inode, new_parent, new_name)
            if parent.child(name) is inode:  # a directory's old link went when the new one came
                inode.links = tuple(link for link in inode.links if link != (parent, name))
                self._forget_name(parent, name)

    def _forget_name(self, parent: Inode, name: str) -> None:
        """Take a name out of a directory, which may have lived for its sake alone."""
        _take_out(parent, name)
        self.drop_unused(parent)

    def paths(self, inode: Inode) -> Iterator[str]:
        """Yield the paths by which an inode is known, the most trustworthy first; raises ENAMETOOLONG."""
        if inode.number == ROOT:
            yield ""
        for parent, name in inode.links:
            path = self._join(parent, name)
            if path is not None:
                yield path

    def path_below(self, parent: Inode, name: str) -> str:
        """Return the path of a name in a directory; raises ESTALE when nobody knows where that directory is."""
        path = self._join(parent, name)
        if path is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return path

    def _join(self, parent: Inode, name: str) -> str | None:
        """Return the path of a name in a directory; None when the way up does not end at the root."""
        parts = [name]
        depth = 0
        while parent.links and depth < MAX_DEPTH:
            parent, part = parent.links[0]
            parts.append(part)
            depth += 1
        if parent.number != ROOT:
            return None
        parts.reverse()
        path = self.separator.join(parts)
        if len(path) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return path

    # -- life

    def forget(self, number: int, count: int) -> None:
        """Take back lookups that the kernel has forgotten."""
        inode = self._by_number.get(number)
        if inode is None or inode.lookups < count:
            log.warning("the kernel forgets inode %d %d times, which is more than it was told of it", number, count)
        if inode is not None and inode.number != ROOT:
            inode.lookups = max(0, inode.lookups - count)
            self.drop_unused(inode)

    def drop_if_unused(self, number: int) -> None:
        """Do the same for the inode with a number, if there is one."""
        inode = self._by_number.get(number)
        if inode is not None:
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> None:
        """Remove an inode that nobody needs any more, and the directories that only it kept alive."""
        doubtful = [inode]
        while doubtful:
            inode = doubtful.pop()
            if inode.lookups or inode.opens or inode.names or self._by_number.get(inode.number) is not inode:
                continue
            del self._by_number[inode.number]
            self.on_drop(inode.number)
            self._unindex(inode)
            for parent, name in inode.links:
                _take_out(parent, name)
                doubtful.append(parent)
            inode.links = ()


def _differ(one: int, other: int) -> bool:
    """Whether two types cannot be the same; 0 may be any but a directory's."""
    return one != other and (bool(one and other) or DIRECTORY in (one, other))


def _agree(one: int, other: int) -> bool:
    """Whether two creation times may be the same; 0 is an unknown one."""
    return one == other or not one or not other


def _take_out(parent: Inode, name: str) -> None:
    """Take a name out of what a directory knows."""
    if parent.names is not None:
        parent.names.pop(name, None)
        if not parent.names:
            parent.names = None
