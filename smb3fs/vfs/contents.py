"""What is known of a directory that is kept: its listing, what we have changed in it since, what was learned then."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from smb3fs.handles.attributes import FileAttributes
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.spelling import Changes, is_short, key

# What some server may take for another name than it looks like: streams, wildcards, ends that Windows cuts off.
_ODD: Final = re.compile(r'[\x00-\x1f"*/:<>?\\|]|[ .]\Z')
_LONGEST_NAME: Final = 255


class Noted(Changes):
    """What this mount has changed in a directory since it was listed, and what was learned of it after that."""

    __slots__ = ("count", "learned")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        # By what all spellings have in common: the spelling, what is under it (None: nothing), and when that was told.
        self.learned: dict[str, tuple[str, FileAttributes | None, float]] = {}

    def take(self, changes: Changes) -> None:
        """Note all of these as well."""
        if changes:
            super().__ior__(changes)
            self.count += 1

    def add(self, name: str) -> None:
        """Note a change."""
        super().add(name)
        self.count += 1
        if is_short(name):
            self.learned.clear()
        else:
            self.learned.pop(key(name), None)

    def learn(self, name: str, told: FileAttributes | None, when: float) -> None:
        """Remember what the server has said of a name."""
        if not is_short(name):
            self.learned[key(name)] = (name, told, when)


class Contents:
    """What is known of a directory that is kept."""

    __slots__ = ("_alike", "_index", "asked_itself", "kernel_reads", "listing", "noted", "own")

    def __init__(self, listing: OpenDirectory) -> None:
        self.listing = listing
        self.noted = Noted()
        listing.changed = self.noted
        # Whether the kernel was told to keep the listing that it reads.
        self.kernel_reads = False
        # The directory's own attributes, and what they hold under: itself, and the directory that it is in.
        self.own: tuple[FileAttributes, Ticket, Ticket | None] | None = None
        # Whether these are being asked for, behind the scenes.
        self.asked_itself = False
        self._index: dict[str, int] | None = None
        self._alike: set[str] | None = None

    def position(self, name: str) -> int | None:
        """Return where a name stands in the listing."""
        if self._index is None:
            entries = self.listing.entries(0, len(self.listing))
            self._index = {told.name: position for position, told, _ in entries if told is not None}
        return self._index.get(name)

    def may_have(self, name: str) -> bool:
        """Whether a name that is not in the listing may still mean something that is."""
        if not is_plain(name):
            return True
        if self._alike is None:
            self.position(name)
            self._alike = alike(self._index or ())
        return key(name) in self._alike


def is_plain(name: str) -> bool:
    """Whether a name means what it looks like, to any server."""
    return name.isascii() and not is_short(name) and not _ODD.search(name) and len(name) <= _LONGEST_NAME


def alike(names: Iterable[str]) -> set[str]:
    """Return what the spellings of some names have in common, for plain names to be looked for in it."""
    # What folds to an ASCII letter by one table may not by another: a dotless i is an I in capitals.
    return {key(one) for name in names for one in ((name,) if name.isascii() else (name, name.upper()))}


class Ticket(NamedTuple):
    """A directory that was kept, and how much had been changed in it, or of itself, when something was asked for."""

    contents: Contents
    changes: int


class Asked(NamedTuple):
    """How the directory of a name was known when the name was asked for, and how the directory that it stands for."""

    parent: Ticket | None
    own: Ticket | None


Name = tuple[Inode, str]
