"""Small files opened ahead: who opens one after the other of a directory is about to open the next ones.

Theory of operation. Opening, reading and closing a small file costs a round trip, and on a quick network the time of
four programs that wake each other. A program that has opened three files that follow each other will probably open the
fourth (`vfs.walk`). So the next ones are asked for (CREATE and READ in one message, with a lease) before it comes to
them. The handles wait like those of files that were closed (`cache.handles`), and what they have brought along waits
with them. An open for reading that finds one costs no request.

It is done only where a handle that nobody uses is in nobody's way, and its data are never old:

- under a lease with R and H. If somebody wants to write, rename or remove the file, the server asks for it back, and
  then the handle is closed, or what it has brought is forgotten;
- in directories that are kept, so with servers that have leases on directories. Others do not take H back when a file
  is removed or renamed;
- for plain files whose data are where the server is: not for what would have to be fetched from a tape or a cloud;
- not on shares that keep opens for good, where each would have to be written down;
- as long as what is in the directory is as it was listed; a name that was changed here is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import trio

from smb3fs.handles.opens import Durability, Open
from smb3fs.vfs.attributes import UNTOLD, Listed
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.files import HEAD_SIZE
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State
from smb3fs.vfs.walk import Walk
from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.create import FileAttribute

# Opens in a row that show where a program is going, ...
ENOUGH: Final = 3
# ... none longer than this after the one before, in seconds.
PAUSE: Final = 1.0
# Files asked for at a time, at first and at most: with their data, two mebibytes.
FIRST: Final = 4
MOST: Final = 32
# Directories that are watched at a time; programs walk one or two.
WATCHED: Final = 4
# Entries of a directory that is looked at: to go through 5,000 takes some 20 ms, once.
MOST_ENTRIES: Final = 5000
# What is not where the server is, or not what it seems.
ELSEWHERE: Final = int(
    FileAttribute.DIRECTORY
    | FileAttribute.REPARSE_POINT
    | FileAttribute.OFFLINE
    | FileAttribute.RECALL_ON_OPEN
    | FileAttribute.RECALL_ON_DATA_ACCESS
)


class _Walk(Walk):
    """What is known of the opens in one directory, as it is listed."""

    __slots__ = ("contents",)

    def __init__(self, contents: Contents) -> None:
        super().__init__(ENOUGH, FIRST, MOST)
        self.contents = contents

    def small_files(self) -> list[str]:
        """Return the small files as they are listed."""
        listing = self.contents.listing
        return [told.name for _, told, _ in listing.entries(0, len(listing)) if told is not None and _is_small(told)]


class _Asked(NamedTuple):
    """How a file was known when it was asked for, and its lease when it came.

    In which listing, how often the kernel had been told of it, and how often the lease had lost anything.
    """

    contents: Contents
    told: int
    lookups: int
    losses: int


class OpensAhead:
    """The opens of one mount that nobody has asked for yet; `asked` counts them, `used` those that were of use."""

    def __init__(self, state: State, contents_of: Callable[[Inode], Contents | None]) -> None:
        """`contents_of` tells what is known of a directory that is kept."""
        self._state = state
        self._contents_of = contents_of
        self._walks: OrderedDict[int, _Walk] = OrderedDict()
        # Of what waits, or has waited until a moment ago.
        self._asked: OrderedDict[Open, _Asked] = OrderedDict()
        self.asked = 0
        self.used = 0

    def note(self, inode: Inode, handle: Open) -> None:
        """Take note that a program has opened a file for reading; ask for the next ones if it seems to go on."""
        state = self._state
        if not state.deferred.wanted or not inode.links or handle.durability == Durability.PERSISTENT:
            return
        parent, name = inode.links[0]
        contents = self._contents_of(parent)
        if contents is None:
            self._walks.pop(parent.number, None)
            return
        walk = self._walks.get(parent.number)
        if walk is None or walk.contents is not contents:
            if len(contents.listing) > MOST_ENTRIES:
                return
            walk = self._walks[parent.number] = _Walk(contents)
            if len(self._walks) > WATCHED:
                self._walks.popitem(last=False)
        self._walks.move_to_end(parent.number)
        walk.rest(trio.current_time(), PAUSE)
        if walk.orders is None:
            walk.recent.append(name)
            if len(walk.recent) < ENOUGH:
                return
            walk.look(walk.small_files())
            if not walk.knows(name):
                return
        elif walk.knows(name):
            walk.recent.append(name)
        else:
            return  # large files, and what is new, stand in no order
        place = walk.follow(name)
        if place is not None:
            for one in walk.next_names(place):
                self._ask(parent, one, contents)

    def _ask(self, parent: Inode, name: str, contents: Contents) -> None:
        """Ask for a file, unless it is open or waits already, or was changed here."""
        state = self._state
        position = contents.position(name)
        if position is None or name in contents.noted or state.is_hidden(name):
            return
        told, _ = contents.listing.entry(position)
        if told is None:
            return
        kind = state.presentation.listed_kind(told)
        if kind in UNTOLD:
            return
        inode = state.inodes.enter(parent, name, told.file_id, filetime_to_ns(told.creation_time), kind)
        number = inode.number
        if number in state.deferred.coming or state.deferred.find(number) is not None:
            return
        if not self._wants(inode):
            state.inodes.drop_unused(inode)
            return
        try:
            path = state.inodes.path_below(parent, name)
        except OSError:  # nobody knows where the directory is by now
            return
        coming = state.deferred.expect(number)
        now, asked_after = trio.current_time(), (inode.changes, inode.told)
        lookups = inode.lookups

        def came(handle: Open | None) -> None:
            state.deferred.has_come(number, coming)
            if handle is not None:
                handle.asked_at, handle.asked_after = now, asked_after
                same = state.is_it(inode, handle.attributes_at_open) and inode.changes == asked_after[0]
                wanted = coming.wanted and same and number not in state.locks.by_inode
                if wanted and state.deferred.put(number, handle, trio.current_time()):
                    losses = handle.lease.losses if handle.lease is not None else 0
                    self._asked[handle] = _Asked(contents, asked_after[1], lookups, losses)
                    if len(self._asked) > 2 * MOST * WATCHED:
                        self._asked.popitem(last=False)
                    # Owner and mode no lease is about, so the listing is soon too old for them, and this is not.
                    if state.posix and self._contents_of(parent) is contents and name not in contents.noted:
                        contents.noted.learn(name, handle.attributes_at_open, now)
                    return  # the inode is dropped with it, if nobody has come to need it
                state.share.close(handle, hurry=False)
            state.inodes.drop_unused(inode)

        asked = False
        # The program has its own file open by now: it is not to hear what is wrong with another one.
        with suppress(OSError):
            asked = state.share.open_ahead(path, inode.expect, HEAD_SIZE, came)
        self.asked += asked
        if not asked:
            came(None)

    def _wants(self, inode: Inode) -> bool:
        """Whether a file is not open, and its data may be of use."""
        state, number = self._state, inode.number
        return not (
            inode.opens
            or len(inode.links) > 1
            or inode.nlink > 1
            or inode in state.writes
            or number in state.locks.by_inode
            or state.pages.has(number, inode.changes)
        )

    def brings(self, inode: Inode, handle: Open) -> bool:
        """Whether a handle that has waited was opened ahead, and what it has brought along is the file's still."""
        asked, lease = self._asked.pop(handle, None), handle.lease
        if asked is None or lease is None or lease.losses != asked.losses or handle.asked_after[0] != inode.changes:
            handle.head = None
            return False
        self.used += 1
        # What the kernel was told since then by names alone came from the listing, which is older than the open.
        by_names = inode.told - asked.told == inode.lookups - asked.lookups
        if by_names and inode.links and self._contents_of(inode.links[0][0]) is asked.contents:
            handle.asked_after = (inode.changes, inode.told)
        return True


def _is_small(told: Listed) -> bool:
    """Whether an entry is that of a plain file which an open brings along as a whole."""
    return not told.file_attributes & ELSEWHERE and 0 < told.end_of_file < HEAD_SIZE
