"""Directories listed ahead: who lists one after the other of a directory's directories is about to list the next ones.

Theory of operation. `find`, `du`, `rsync`, `git status` and whatever else goes through a tree list directory after
directory, each for a round trip. A program that has listed three that follow each other will probably list the fourth
(`vfs.walk`). So the next ones are listed before it comes to them, several at the same time. What comes waits: under a
lease it is kept (`vfs.cached`), as long as that holds; else, or where the listing is to tell what no lease is about,
for as long as names and attributes may be believed in any case (`actimeo`), and for one opendir(3). A listing in which
we have changed something meanwhile is of no use. So nothing that a program sees is older than without this.

A listing with more pages than came with it keeps its directory open on the server until it is used, or its time is
over: it is given up before the directory, or one above it, is renamed or removed.

A walk that rests for longer than that leaves nothing behind, and begins anew.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

import trio

from smb3fs.errors import Smb3fsError, describe
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.kept import AheadListings
from smb3fs.vfs.state import State
from smb3fs.vfs.walk import Walk

log = logging.getLogger(__name__)

# Listings in a row that show where a program is going.
ENOUGH: Final = 3
# Directories asked for at a time, at first and at most: with a page of each, a mebibyte.
FIRST: Final = 4
MOST: Final = 16
# Directories whose directories are being listed: a walk goes on in several at a time, one below the other.
WATCHED: Final = 16
# Directories in one directory that are looked at: to put 5,000 in order takes some milliseconds, once.
MOST_CHILDREN: Final = 5000


class _Asked:
    """A listing that nobody has asked for yet: when it was begun, and whether it has come, or failed to."""

    __slots__ = ("at", "listing", "over")

    def __init__(self, listing: OpenDirectory, now: float) -> None:
        self.listing = listing
        self.at = now
        self.over = trio.Event()


class ListingsAhead(AheadListings):
    """The listings of one mount that nobody has asked for yet; `asked` counts them, `used` those that were of use."""

    def __init__(self, state: State, lifetime: float) -> None:
        """`lifetime` is how many seconds a listing without a lease may be used; 0 switches this off."""
        self._state = state
        self._lifetime = lifetime
        self._walks: OrderedDict[int, Walk] = OrderedDict()
        self._asked: dict[int, _Asked] = {}
        self._nursery: trio.Nursery | None = None
        self.asked = 0
        self.used = 0

    async def run(self) -> None:
        """List what is asked for, as long as the mount lives."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def note(self, directory: Inode) -> None:
        """Take note that a program lists a directory; ask for the next ones if it seems to go on."""
        if self._nursery is None or not self._lifetime or not directory.links:
            return
        parent, name = directory.links[0]
        walk = self._walks.get(parent.number)
        if walk is None:
            walk = self._walks[parent.number] = Walk(ENOUGH, FIRST, MOST)
            if len(self._walks) > WATCHED:
                self._walks.popitem(last=False)
        self._walks.move_to_end(parent.number)
        walk.rest(trio.current_time(), self._lifetime)
        if walk.recent and walk.recent[-1] == name:
            return
        walk.recent.append(name)
        if len(walk.recent) < ENOUGH:
            return
        if not walk.knows(name):
            if len(parent.names or ()) > MOST_CHILDREN:
                return
            walk.look([one for one, child in (parent.names or {}).items() if child.is_directory])
            if not walk.knows(name):
                return
        place = walk.follow(name)
        if place is not None:
            for one in walk.next_names(place):
                self._ask(parent, one)

    def _ask(self, parent: Inode, name: str) -> None:
        """List a directory, unless it is known what is in it, or about to be."""
        state, inode = self._state, parent.child(name)
        if inode is None or not inode.is_directory or inode.number in self._asked or state.locks.is_crowded(inode):
            return
        if state.cached.lists(inode) or self._nursery is None:
            return
        asked = self._asked[inode.number] = _Asked(state.directories.add(inode), trio.current_time())
        self.asked += 1
        self._nursery.start_soon(self._list, asked)

    async def _list(self, asked: _Asked) -> None:
        """List a directory, and let it wait until its time is over."""
        self._state.trace.behind.set(True)
        try:
            try:
                pages = await self._state.list_directory(asked.listing, patient=False)
                asked.listing.begin(pages, asked.at, self._state.cached.base())
            finally:
                asked.over.set()
            await trio.sleep_until(asked.at + self._lifetime)
        except (OSError, Smb3fsError) as error:
            # Whoever lists it in earnest will find out.
            log.debug("a directory cannot be listed ahead: %s", describe(error))
        except Exception:  # the mount goes on without the listing
            log.exception("listing a directory ahead failed")
        finally:
            self._drop(asked)

    async def take(self, directory: OpenDirectory) -> bool:
        """Have an open directory show what was listed ahead, once that has come; False if there is nothing of use."""
        state, inode = self._state, directory.inode
        asked = self._asked.get(inode.number)
        if asked is None:
            return False
        await asked.over.wait()
        await state.settle_in(inode)
        listing = asked.listing
        old = trio.current_time() - asked.at >= self._lifetime
        if self._asked.get(inode.number) is not asked:
            return False
        if old or listing.pages is None or listing.outdated or listing.changed or state.locks.is_crowded(inode):
            self._drop(asked)
            return False
        directory.take_over(listing)
        self._drop(asked)
        self.used += 1
        return True

    def passed(self, directory: Inode) -> None:
        """Take note that a program lists a directory which is kept: what was listed ahead has been of use."""
        asked = self._asked.get(directory.number)
        if asked is not None and asked.over.is_set():
            self.used += 1
            self._drop(asked)

    async def leave(self, inode: Inode | None) -> None:
        """Give up what was listed of a directory and of all below it, which are about to be moved or removed."""
        for asked in tuple(self._asked.values()):
            above = asked.listing.inode
            while inode is not None and above is not inode and above.links:
                above = above.parent
            if inode is None or above is inode:
                await asked.over.wait()  # what is on its way there would be in the way
                self._drop(asked)

    def _drop(self, asked: _Asked) -> None:
        """Give up a listing."""
        number = asked.listing.inode.number
        if self._asked.get(number) is asked:
            del self._asked[number]
            self._state.inodes.drop_unused(self._state.directories.remove(asked.listing.fh).inode)
