"""A pool with a recovery that makes sessions to one peer after the other, without the login in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import trio
from peer import TREE_ID, Peer, fetch_credits, make_keys

from smb3fs.channels.channel import Channel
from smb3fs.channels.negotiation import Negotiated
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session, Tree
from smb3fs.errors import ConnectionLost
from smb3fs.handles.claim_results import Tally
from smb3fs.handles.claims import Claims
from smb3fs.identity import ClientIdentity
from smb3fs.recovery import Recovery
from smb3fs.trace import Trace
from smb3fs.wire.negotiate import Dialect, SigningAlgorithm

MIB: Final = 1 << 20


def agreed(*, transact: int = MIB, read: int = MIB, write: int = MIB) -> Negotiated:
    """What a usual NEGOTIATE agrees."""
    return Negotiated(Dialect.SMB_3_1_1, 4, b"S" * 16, 1, SigningAlgorithm.AES_GMAC, None, transact, read, write, b"")


@dataclass(slots=True)
class OfGeneration:
    """What is valid in the session of that number."""

    generation: int
    doubts: int = 0


class Kept:
    """What outlives the sessions of a world: nothing, unless the test puts something here."""

    def __init__(self) -> None:
        self.claims: Claims | None = None
        self.suspensions = 0
        self.reclaims: list[int] = []
        """The numbers of the sessions into which it was to be brought."""

    def suspend(self) -> None:
        self.suspensions += 1

    async def reclaim(self, session: Session) -> Tally:
        self.reclaims.append(session.generation)
        return await self.claims.reclaim(session) if self.claims is not None else Tally()


class World:
    """The parts of a mount below the share, and a script for its attempts to connect."""

    def __init__(
        self, nursery: trio.Nursery, make_peer: Callable[[], Peer], sizes: Negotiated, credits: int, repeats: int | None
    ) -> None:
        self.pool = Pool(repeats)
        self.trace = Trace()
        self.kept = Kept()
        self.client = ClientIdentity(b"G" * 16)
        """For tests that have their connections count losses."""
        self.recovery = Recovery(self.pool, self._connect, self._renew, self._rotated, self.kept, self.trace)
        self.renewals: list[float] = []
        self.rotated = False
        """Whether the login has changed."""
        self.peers: list[Peer] = []
        self.attempts: list[float] = []
        self.previous: list[int] = []
        self.script: list[BaseException | None] = []
        """What comes of the next attempts: an error, or None for a session; at its end all succeed."""
        self.nursery = nursery
        self._make_peer = make_peer
        self._sizes = sizes
        self._credits = credits

    @property
    def peer(self) -> Peer:
        """The peer of the newest session."""
        return self.peers[-1]

    async def _connect(self, previous_session_id: int) -> Session:
        """Make a session, or fail as the script says."""
        self.attempts.append(trio.current_time())
        self.previous.append(previous_session_id)
        await trio.lowlevel.checkpoint()
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        peer = self._make_peer()
        assert peer.keys is not None
        self.peers.append(peer)
        channel = Channel(peer.transport, self.trace, timeout=30, echo_interval=60, on_lost=self.recovery.lost)
        channel.connection.session = peer.keys.client
        channel.connection.negotiated(large_mtu=True)
        fetch_credits(channel, peer, self._credits)
        self.nursery.start_soon(channel.run)
        return Session(channel, self._sizes, peer.keys.client, Tree(TREE_ID, 1, 0, 0, 0x1F01FF))

    async def _renew(self, session: Session) -> None:
        """Renew a session, or fail as the script says."""
        self.renewals.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        error = self.script.pop(0) if self.script else None
        if isinstance(error, ConnectionLost):
            session.channel.fail(error)
        if error is not None:
            raise error

    async def _rotated(self) -> bool:
        """Whether there is another login to try."""
        await trio.lowlevel.checkpoint()
        return self.rotated

    @property
    def intervals(self) -> list[float]:
        """The seconds between the beginnings of the attempts."""
        return [round(after - before, 3) for before, after in pairwise(self.attempts)]


def usual_peer() -> Peer:
    """A peer that answers everything with success."""
    peer = Peer(make_keys())
    peer.handler = peer.obey
    return peer


@asynccontextmanager
async def world(
    make_peer: Callable[[], Peer] = usual_peer,
    *,
    sizes: Negotiated | None = None,
    credits: int = 512,
    recover: bool = True,
    repeats: int | None = None,
) -> AsyncIterator[World]:
    """Bring a world up with its first session; with `recover`, keep it supplied with others."""
    async with trio.open_nursery() as nursery:
        made = World(nursery, make_peer, sizes or agreed(), credits, repeats)
        await made.recovery.start()
        if recover:
            nursery.start_soon(made.recovery.run)
        yield made
        nursery.cancel_scope.cancel()
    assert [violation for peer in made.peers for violation in peer.violations] == []
