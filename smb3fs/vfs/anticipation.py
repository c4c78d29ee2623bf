"""Lookups answered ahead: who has looked up many names of a directory is about to look up more of them.

A program that opens or stats file after file costs a round trip for each name. So after some lookups in one directory
within the time for which attributes may be shown (`actimeo`), the directory is listed, once, and lookups of names that
are in the listing are answered from it, until that time is over. The kernel gets no older attributes by this than it
would by keeping those of an `ls -l`. One that this mount has changed since is asked for as ever.

Names that are looked for in vain count as well: whoever unpacks an archive, copies a tree or compiles asks for one
after the other. What is not in the listing does not exist then, for the same time, if it is no other spelling of what
is, and the share lists all that can be opened. So what another client makes is seen as late as what it changes.

Questions for the attributes of files whose names the kernel knows count, and are answered, in the same way. They are
what comes in place of lookups where names are held by a lease and attributes are not (with the POSIX extensions).

Where the server has directory leases a directory is listed sooner, so that it is kept (`smb3fs.vfs.cached`). Then what
is not in it is known as well, and the programs that look for what is not there do so again and again: git for a merge
that is under way, a compiler for headers, whatever makes files for names that are free. So a directory in which a name
was looked for in vain, or found again, or a file opened, is listed behind the scenes, and one that was made here,
which can have little in it, in place of the first lookup.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from itertools import islice
from typing import Final, TypeVar

import trio

from smb3fs.errors import Smb3fsError, describe
from smb3fs.vfs.attributes import Listed
from smb3fs.vfs.contents import alike, is_plain
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.spelling import key
from smb3fs.vfs.state import State
from smb3fs.wire.codec import utf16

log = logging.getLogger(__name__)

Noted = TypeVar("Noted")

# Questions about names, none long after the one before, that make a listing of unknown size worth its price, ...
ENOUGH: Final = 16
# ... and how many of its entries each question must stand for when it is known, at least three in any case. A listed
# entry costs a server a few microseconds, a question some hundred.
ENTRIES_A_LOOKUP: Final = 50
AT_LEAST: Final = 3
# Directories that are watched at a time: git asks with twenty threads, each in directories of its own. And how many
# entries their listings may have together, of which each takes some 300 bytes.
WATCHED: Final = 64
MOST_ENTRIES: Final = 50_000
# How many pages of a listing are worth waiting for; they have been asked for ahead, so they come one upon the other.
MOST_PAGES: Final = 8
# A directory that has more, or may not be listed, is left alone for so long, in seconds.
LEFT_ALONE_FOR: Final = 60.0
# Of how many directories it is known that they were made here, wait to be listed, or could not be kept.
MOST_NOTED: Final = 1000
# Entries to index before other tasks get their turn: about a millisecond.
SLICE: Final = 1000


class _Watched:
    """What is known of one directory: how often it was asked, and a listing if there is one."""

    __slots__ = (
        "alike",
        "count",
        "entries",
        "index",
        "last",
        "left_alone_until",
        "listing",
        "missed",
        "name",
        "under_way",
        "until",
    )

    def __init__(self, now: float) -> None:
        self.last = now
        self.count = 0
        # How many of these questions went to the server since it was listed, as we have changed what they are about;
        # and whether it is being listed.
        self.missed = 0
        self.under_way = False
        self.name = ""
        self.entries = 0
        self.listing: OpenDirectory | None = None
        self.index: dict[bytes, int] = {}
        # What the spellings of its names have in common, once somebody looks for what is not among them.
        self.alike: set[str] | None = None
        self.until = -math.inf
        self.left_alone_until = 0.0


class Anticipation:
    """The directories of one mount in which names are being looked up."""

    def __init__(self, state: State, lifetime: float) -> None:
        """`lifetime` is how many seconds a listing may be used; 0 switches this off."""
        self._state = state
        self._lifetime = lifetime
        self._watched: OrderedDict[int, _Watched] = OrderedDict()
        # By number: those made here in which nothing was looked up yet; those that are to be listed; until when
        # those are not that could not be kept.
        self._new: OrderedDict[int, None] = OrderedDict()
        self._wanted: OrderedDict[int, Inode] = OrderedDict()
        self._unkept: OrderedDict[int, float] = OrderedDict()
        self._wake = trio.Event()

    def find(self, parent: Inode, name: str, now: float) -> tuple[Listed, float] | None:
        """Return a name's entry and its age in seconds, if there is a listing that may still be used and has it."""
        watched = self._listed(parent, now)
        index = watched.index.get(utf16(name)) if watched is not None else None
        if watched is None or index is None or self._is_uncertain(watched, name):
            return None
        watched.count += 1
        watched.last = now
        assert watched.listing is not None  # noqa: S101 (it was listed)
        entry, came = watched.listing.entry(index)
        return (entry, now - came) if entry is not None else None

    def lacks(self, parent: Inode, name: str, now: float) -> bool:
        """Whether there is a listing that may still be used and shows that there is no such name."""
        watched = self._listed(parent, now)
        if watched is None or not is_plain(name) or self._is_uncertain(watched, name):
            return False
        if not self._state.cached.tells_all():
            return False
        if watched.alike is None:
            watched.alike = alike(told.decode("utf-16-le", "replace") for told in watched.index)
        if key(name) in watched.alike:
            return False
        watched.count += 1
        watched.last = now
        return True

    def _listed(self, parent: Inode, now: float) -> _Watched | None:
        """Return what is known of a directory, if there is a listing that may still be used."""
        watched = self._watched.get(parent.number)
        if watched is None or watched.listing is None:
            return None
        if now > watched.until or watched.listing.outdated:
            self._drop(watched)
            return None
        return watched

    def _is_uncertain(self, watched: _Watched, name: str) -> bool:
        """Whether a listing does not tell what is under a name, since we have changed that, or it is one of ours."""
        return watched.listing is None or name in watched.listing.changed or self._state.is_hidden(name)

    def note_absent(self, parent: Inode, name: str, now: float) -> None:
        """Count a question that had to go to the server to find nothing."""
        if self._state.cached.tells_all():
            self.note(parent, name, now)

    def note(self, parent: Inode, name: str, now: float) -> None:
        """Count a question that had to go to the server; the same one again is no more than one."""
        if not self._lifetime:
            return
        watched = self._watch(parent, now)
        if now - watched.last > self._lifetime:
            watched.count, watched.missed, watched.name = 0, 0, ""
        watched.last = now
        watched.count += name != watched.name
        watched.missed += name != watched.name
        watched.name = name

    def _watch(self, parent: Inode, now: float) -> _Watched:
        """Return what is known of a directory."""
        watched = self._watched.get(parent.number)
        if watched is None:
            watched = self._watched[parent.number] = _Watched(now)
            if len(self._watched) > WATCHED:
                self._drop(self._watched.popitem(last=False)[1])
        self._watched.move_to_end(parent.number)
        return watched

    def made(self, directory: Inode) -> None:
        """Take note of a directory that was made here."""
        _note(self._new, directory.number, None)

    def want(self, parent: Inode) -> None:
        """Have a directory listed behind the scenes, if it can be kept then: what was asked for will be again."""
        if self._can_keep(parent):
            _note(self._wanted, parent.number, parent)
            self._wake.set()

    def will_lose(self, directory: Inode) -> None:
        """Give up a directory in which a link is about to be made: for links a server takes our lease back as well."""
        self._give_up(directory)

    def _give_up(self, directory: Inode) -> None:
        """Keep a directory no longer, and do not list it for that soon."""
        self._state.cached.distrust(directory)
        _note(self._unkept, directory.number, trio.current_time() + LEFT_ALONE_FOR)

    def _can_keep(self, directory: Inode) -> bool:
        """Whether a directory is not kept, and may be if it is listed."""
        return (
            self._state.cached.lacks(directory)
            and not self._state.locks.is_crowded(directory)
            and trio.current_time() >= self._unkept.get(directory.number, 0.0)
        )

    def is_new(self, directory: Inode) -> bool:
        """Whether this is the first lookup in a directory that was made here, and the directory can be kept."""
        if not self._new or directory.number not in self._new:
            return False
        del self._new[directory.number]
        if self._can_keep(directory):
            return True
        self._watch(directory, trio.current_time()).entries = 1  # there cannot be much in it
        return False

    async def run(self) -> None:
        """List what is to be kept, one directory after the other, as long as the mount lives."""
        self._state.trace.behind.set(True)
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._wanted:
                _, wanted = self._wanted.popitem(last=False)
                # What is known of a directory itself holds under the one that it is in, so that comes first.
                way = [wanted]
                while way[-1].links and way[-1].parent not in way:
                    way.append(way[-1].parent)
                for directory in reversed(way):
                    if not (directory.lookups or not directory.links) or not self._can_keep(directory):
                        continue
                    try:
                        await self.keep(directory)
                    except Exception:  # the mount goes on without the listing
                        log.exception("listing a directory behind the scenes failed")

    def worth_listing(self, parent: Inode, now: float) -> bool:
        """Whether the next lookup in a directory should list it instead; a listing waits for all that is written."""
        watched = self._watched.get(parent.number)
        if watched is None or now < watched.left_alone_until or watched.under_way:
            return False
        if self._state.is_written_in(parent):
            return False
        if now - watched.last > self._lifetime:
            return False
        entries = watched.entries or self._state.cached.size(parent)
        if now <= watched.until:  # there is one, of a directory in which we have changed much since
            return watched.listing is not None and watched.missed >= max(ENOUGH, entries // ENTRIES_A_LOOKUP)
        return watched.count >= (max(AT_LEAST, entries // ENTRIES_A_LOOKUP) if entries else ENOUGH)

    def leave_alone(self, parent: Inode) -> None:
        """Answer lookups in a directory one by one for a while: somebody else removes what is there.

        What has been removed, and is open somewhere, a server may still list.
        """
        self._give_up(parent)
        watched = self._watched.get(parent.number)
        if watched is not None:
            self._drop(watched)
            watched.left_alone_until = trio.current_time() + self._lifetime

    def forgotten(self, number: int) -> None:
        """Give up the listing of a directory that the kernel has forgotten: it would keep that here for ever."""
        watched = self._watched.get(number)
        if watched is not None and watched.listing is not None and not watched.listing.inode.lookups:
            del self._watched[number]
            self._drop(watched)

    async def list(self, parent: Inode) -> None:
        """List a directory for the lookups to come; a failure is left to the lookup to find out."""
        began = trio.current_time()
        watched = self._watch(parent, began)
        self._drop(watched)
        watched.until, watched.missed, watched.under_way = began + self._lifetime, 0, True
        listing = self._state.directories.add(parent)
        kept = False
        try:
            if not await self._read(listing):
                watched.left_alone_until = began + LEFT_ALONE_FOR
                return
            index = await self._index(listing)
            if self._watched.get(parent.number) is watched and watched.left_alone_until <= began:
                watched.listing, watched.index, watched.entries = listing, index, len(listing)
                watched.count = 0
                kept = True
                self._make_room(parent.number)
        except (OSError, Smb3fsError) as error:
            # One may look up names in a directory that one may not list.
            log.debug("a directory cannot be listed ahead: %s", describe(error))
            watched.left_alone_until = began + LEFT_ALONE_FOR
        finally:
            watched.under_way = False
            if not kept:
                self._close(listing)

    def _make_room(self, number: int) -> None:
        """Give up the listings that were looked at least recently, so that all of them stay within their bound."""
        entries = sum(watched.entries for watched in self._watched.values() if watched.listing is not None)
        for other, watched in self._watched.items():
            if entries <= MOST_ENTRIES:
                break
            if other != number and watched.listing is not None:
                entries -= watched.entries
                self._drop(watched)

    async def keep(self, directory: Inode) -> None:
        """List a directory for no other purpose than that it is kept; if it is not, it is left alone for a while."""
        listing = self._state.directories.add(directory)
        try:
            await self._read(listing)
        except (OSError, Smb3fsError) as error:
            log.debug("a directory cannot be listed: %s", describe(error))
        finally:
            self._close(listing)
            if self._state.cached.lacks(directory):
                _note(self._unkept, directory.number, trio.current_time() + LEFT_ALONE_FOR)

    async def _read(self, listing: OpenDirectory) -> bool:
        """Read a directory, unless it has too much in it; whether all of it has come."""
        began = trio.current_time()
        pages = await self._state.list_directory(listing)
        listing.begin(pages, began, self._state.cached.base())
        while not pages.complete and len(pages.pages) < MOST_PAGES:
            await listing.fetch(began)
        return pages.complete

    @staticmethod
    async def _index(listing: OpenDirectory) -> dict[bytes, int]:
        """Return where each name of a listing stands; a name is kept as it came, for few of them are asked for."""
        index: dict[bytes, int] = {}
        names = listing.positions()
        while slice_ := dict(islice(names, SLICE)):
            index |= slice_
            await trio.lowlevel.checkpoint()
        return index

    def _drop(self, watched: _Watched) -> None:
        """Give a listing up."""
        listing, watched.listing, watched.index, watched.alike = watched.listing, None, {}, None
        if listing is not None:
            self._close(listing)

    def _close(self, listing: OpenDirectory) -> None:
        """Take a listing out of the table of open directories."""
        self._state.directories.remove(listing.fh)
        self._state.inodes.drop_unused(listing.inode)


def _note(noted: OrderedDict[int, Noted], number: int, what: Noted) -> None:
    """Take note of something about a directory; the oldest notes are let go."""
    noted[number] = what
    if len(noted) > MOST_NOTED:
        noted.popitem(last=False)
