"""A namespace whose DFS links lead to other shares: each verb goes to the share that its path, or its handle, is of.

The verbs of the namespace's own share come first. Where one fails because its path goes through a link, the link is
found, a share is made for what is behind it (with a session of its own, which follows the link's targets and heals by
itself), and from then on every path that begins with the link goes there. A link is no more than a directory to those
above, much as a mount point is: it cannot be removed or renamed, and nothing is renamed across it.

File ids are numbers on one volume. Those of a branch pass through an exclusive or with a number of the branch's own, so
that no file on one server is ever taken for a file on another.
"""

from __future__ import annotations

import errno
import inspect
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from smb3fs.errors import MountError, Smb3fsError, Status, StatusError, errno_of
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.listing import Listing
from smb3fs.trace import Trace
from smb3fs.wire.directory import erase_identity, replace_file_ids
from smb3fs.wire.posix import replace_posix_file_ids

SEPARATOR: Final = "\\"
# What servers send that keep no file ids ([MS-FSCC] 2.1.9 and 2.4.26).
NO_IDS: Final = frozenset({0, 2**64 - 1})
# A link that could not be followed is not tried again for so many seconds: a listing with details asks for each.
PATIENCE: Final = 10.0
# Verbs whose second argument is a path as well.
TWO_PATHS: Final = frozenset({"rename", "rename_point", "link", "hold_aside"})
# Verbs that would remove or rename the root of a branch, where they mean the link.
OF_THE_NAME: Final = frozenset({"rename", "rename_point", "remove_file", "remove_directory"})
DFS_TAG: Final = 0x8000000A  # [MS-FSCC] 2.1.2.1, IO_REPARSE_TAG_DFS
# How many links may lie on the way to one path.
MAX_LINKS: Final = 8


@dataclass(slots=True, eq=False)
class Way:
    """Where the paths at and below one link go: to `branch.share`, which knows them relative to the link."""

    path: str
    branch: Any
    mask: int = field(default_factory=lambda: secrets.randbits(63))

    def changed(self, file_id: int) -> int:
        """Return the id by which a file is known above; the same again turns it back."""
        return file_id if file_id in NO_IDS else file_id ^ self.mask


class BranchPages:
    """A listing whose pages are changed as they come."""

    def __init__(self, listing: Listing, change: Callable[[bytearray], None]) -> None:
        self._listing = listing
        self._change = change
        self.pages: list[memoryview] = []
        self.posix: bool = listing.posix
        self._take()

    @property
    def complete(self) -> bool:
        """Whether the server had no more."""
        return self._listing.complete

    async def next_page(self) -> bool:
        """Fetch another page; False when there is none."""
        more = await self._listing.next_page()
        self._take()
        return more

    def _take(self) -> None:
        """Take over the pages that have come."""
        for page in self._listing.pages[len(self.pages) :]:
            changed = bytearray(page)
            self._change(changed)
            self.pages.append(memoryview(changed))

    def take(self) -> None:
        """Keep the directory's handle: what is behind links is not cached."""

    def close(self) -> None:
        """Close the directory's handle."""
        self._listing.close()


class Branches:
    """The verbs of a share with what is behind its links; `open_branch` makes a share for a path in it.

    A verb is one of three kinds, by its first argument: about a path, about a handle, or about the share as a whole.
    """

    def __init__(self, trunk: Any, open_branch: Callable[[str], Awaitable[Any]], trace: Trace) -> None:
        self._trunk = trunk
        self._open_branch = open_branch
        self._trace = trace
        self._ways: dict[str, Way] = {}
        self._owners: dict[Open, Way] = {}
        self._failures: dict[str, tuple[float, int]] = {}
        self._discovering = trio.Lock()

    @property
    def branches(self) -> list[Any]:
        """The branches that there are."""
        return [way.branch for way in self._ways.values()]

    @property
    def ways(self) -> list[Way]:
        """The links that have been followed."""
        return list(self._ways.values())

    def __getattr__(self, name: str) -> Any:
        """Return a verb that goes where its first argument says; made once."""
        verb = getattr(self._trunk, name)
        parameters = list(inspect.signature(verb).parameters)
        expects = parameters.index("expect") if "expect" in parameters else None

        def routed(*arguments: Any, **named: Any) -> Any:
            first = arguments[0] if arguments else None
            way = self._owners.get(first) if isinstance(first, Open) else None
            if any(isinstance(other, Open) and self._owners.get(other) is not way for other in arguments[1:]):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            if isinstance(first, str):
                return self._by_path(name, expects, arguments, named)
            if isinstance(first, Open) and first in self._owners:
                return self._by_handle(name, first, arguments, named)
            return verb(*arguments, **named)

        self.__dict__[name] = routed
        return routed

    def open_ahead(self, *_: object) -> bool:
        """Open nothing ahead: a path may go through a link that nobody has followed yet."""
        return False

    def attributes_ahead(self, *_: object, hurry: bool = True) -> bool:
        """Ask nothing ahead: which share a path is in may have to be found out first."""
        return False

    # -- by path

    async def _by_path(self, name: str, expects: int | None, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do what a verb does to a path, in the share that it is in."""
        links = 0
        while True:
            way = self._way_of(arguments[0])
            try:
                if way is None:
                    return self._shown(await self._in_trunk(name, arguments, named))
                return await self._in_branch(way, name, expects, arguments, named)
            except StatusError as error:
                if error.status != Status.PATH_NOT_COVERED or links == MAX_LINKS:
                    raise
                # Either of two paths may be the one.
                if not await self._discover(arguments[: 2 if name in TWO_PATHS else 1]):
                    raise
                links += 1

    async def _in_trunk(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do it in the namespace's own share."""
        if name in TWO_PATHS and self._way_of(arguments[1]) is not None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return await getattr(self._trunk, name)(*arguments, **named)

    async def _in_branch(
        self, way: Way, name: str, expects: int | None, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Do it behind a link."""
        places = 2 if name in TWO_PATHS else 1
        if name in OF_THE_NAME and way.path in arguments[:places]:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if any(self._way_of(path) is not way for path in arguments[:places]):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        inside = [path[len(way.path) + 1 :] for path in arguments[:places]]
        changed = [*inside, *arguments[places:]]
        if expects is not None and expects < len(changed):
            changed[expects] = _expected(way, changed[expects])
        elif named.get("expect") is not None:
            named = {**named, "expect": _expected(way, named["expect"])}
        return self._brought_back(way, await getattr(way.branch.share, name)(*changed, **named))

    def _way_of(self, path: str) -> Way | None:
        """Return the deepest link on the way to a path."""
        if not self._ways:
            return None
        while path:
            way = self._ways.get(path)
            if way is not None:
                return way
            path = path.rpartition(SEPARATOR)[0]
        return None

    def _shown(self, result: Any) -> Any:
        """Return what the namespace's own share has told, as it is shown."""
        if isinstance(result, Listing) and not result.posix:
            # What a link leads to has another id and birth than the link.
            return BranchPages(result, lambda page: erase_identity(page, DFS_TAG))
        return result

    def _brought_back(self, way: Way, result: Any) -> Any:
        """Return what a branch has told, with its file ids as they are known above."""
        if isinstance(result, FileAttributes):
            return result._replace(file_id=way.changed(result.file_id))
        if isinstance(result, Open):
            told = result.attributes_at_open
            result.attributes_at_open = told._replace(file_id=way.changed(told.file_id))
            self._owners[result] = way
            return result
        if isinstance(result, Listing):
            change = replace_posix_file_ids if result.posix else replace_file_ids
            return BranchPages(result, lambda page: change(page, way.changed))
        return result

    # -- by handle

    def _by_handle(self, name: str, handle: Open, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do what a verb does to a handle of a branch."""
        way = self._owners[handle]
        done = getattr(way.branch.share, name)(*arguments, **named)
        if name == "close":
            del self._owners[handle]
        if not inspect.isawaitable(done):
            return done
        return self._later(way, done)

    async def _later(self, way: Way, done: Awaitable[Any]) -> Any:
        """Wait for what a branch tells of a handle."""
        return self._brought_back(way, await done)

    # -- links

    async def _discover(self, paths: Sequence[str]) -> bool:
        """Make a branch of the next link on the way to one of the paths; False where no link is found."""
        known = len(self._ways)
        async with self._discovering:
            if len(self._ways) > known:  # somebody else was there first
                return True
            for path in paths:
                link = await self._next_link(path)
                if link is not None:
                    await self._follow(link)
                    return True
        return False

    async def _next_link(self, path: str) -> str | None:
        """Return the shortest part of a path that is a link which has not been followed."""
        way = self._way_of(path)
        share = self._trunk if way is None else way.branch.share
        start = len(way.path) + 1 if way is not None else 0
        parts = path[start:].split(SEPARATOR)
        for count in range(1, len(parts) + 1):
            inside = SEPARATOR.join(parts[:count])
            try:
                await share.lookup(inside)
            except StatusError as error:
                return path[:start] + inside if error.status == Status.PATH_NOT_COVERED else None
        return None

    async def _follow(self, link: str) -> None:
        """Make a branch of a link."""
        if link in self._ways:
            return
        until, number = self._failures.get(link, (0.0, 0))
        if trio.current_time() < until:
            raise OSError(number, os.strerror(number))
        try:
            branch = await self._open_branch(link)
        except (Smb3fsError, OSError) as error:
            number = errno.EREMOTE if isinstance(error, MountError) else errno_of(error)
            self._failures[link] = (trio.current_time() + PATIENCE, number)
            self._trace.error(time.time(), f"{link}: {error}")
            raise OSError(number, os.strerror(number)) from error
        self._failures.pop(link, None)
        self._ways[link] = Way(link, branch)


def _expected(way: Way, file_id: int | None) -> int | None:
    """Return the id that a file must have on its own server."""
    return None if file_id is None else way.changed(file_id)
