"""From the source of a mount to a session, through as many DFS links as there are on the way ([MS-DFSC] 3.1.4.1).

A place is opened where its name says. Only when the server says that this is not where it is, it is asked where, and
the targets are tried in their order, each of which may be a place in a namespace again. What was learned is remembered
for as long as the server allows, so a reconnect goes straight to the target that was in use. Where none of the known
targets answers, the namespace is asked anew; where that does not answer either, what is known is better than nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from smb3fs.channels.places import Place
from smb3fs.channels.referrals import Link, ReferralCache
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, DeadlineExceeded, LinkError, MountError, Smb3fsError

# How many links may lead to one place: namespaces refer to namespaces, and errors to themselves.
MAX_LINKS: Final = 8


class Referred(Smb3fsError):  # noqa: N818 (it says what happened)
    """The server that was asked for a place says that it is somewhere else."""

    def __init__(self, link: Link) -> None:
        super().__init__(f"{link.place} leads to {link}")
        self.link = link


class Follower:
    """Finds the server that a place is on; `reach` opens a place or raises `Referred`."""

    def __init__(self, reach: Callable[[Place], Awaitable[Session]], *, follow: bool) -> None:
        self._reach = reach
        self._follow = follow
        self._cache = ReferralCache()

    async def open(self, place: Place) -> Session:
        """Return a session in which a place is the root; raises why there is none."""
        return await self._open(place, [])

    async def _open(self, place: Place, way: list[Place]) -> Session:
        """Open a place to which `way` has led."""
        if place.key in {earlier.key for earlier in way}:
            raise MountError(f"DFS links lead in a circle, {_way([*way, place])}; their owner must correct them")
        if len(way) > MAX_LINKS:
            raise MountError(f"more than {MAX_LINKS} DFS links lead to each other: {_way([*way, place])}")
        known = self._cache.find(place)
        if known is not None and not known.expired:
            return await self._through(known, place, way)
        try:
            return await self._reach(place)
        except Referred as referred:
            link = referred.link
        except (ConnectionLost, DeadlineExceeded, OSError):
            if known is None:
                raise
            link = known
        if not self._follow:
            raise MountError(
                f"{link.place} is a DFS link to {link}, and nodfs forbids to follow it; mount that, or leave nodfs out"
            )
        if link is not known:
            self._cache.add(link)
        return await self._through(link, place, way)

    async def _through(self, link: Link, place: Place, way: list[Place]) -> Session:
        """Open a place at one of the targets of a link."""
        failures: list[tuple[str, Exception]] = []
        for target in link.resolve(place):
            try:
                session = await self._open(target, [*way, place])
            except (Smb3fsError, OSError) as error:
                failures.append((str(target), error))
                continue
            link.prefer(target, place)
            return session
        link.expires = 0.0
        raise LinkError(str(link.place), failures) from failures[0][1]


def _way(places: list[Place]) -> str:
    """Write down a way."""
    return " to ".join(str(place) for place in places)
