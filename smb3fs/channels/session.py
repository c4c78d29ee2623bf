"""A session: a login that lives on channels, and the tree connected in it ([MS-SMB2] 3.2.1.3, 3.2.1.4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from smb3fs.channels.apart import call_apart
from smb3fs.channels.authentication import authenticate, bind, stands
from smb3fs.channels.binding_ids import lead_to, next_for, set_apart, used_up
from smb3fs.channels.channel import Channel
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import Negotiated, Policy, negotiate, validate
from smb3fs.channels.parting import LOOKING, is_tidying, parts
from smb3fs.channels.places import Place, Placement
from smb3fs.channels.scheduling import LEAST_PIECE, Lane, choose, divide, patience, spread, stand_in
from smb3fs.connection import CREDIT_UNIT, Answer, Exchange, SessionSecurity
from smb3fs.errors import ConnectionLost, SecurityError, Smb3fsError, Status, StatusError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import Request
from smb3fs.wire.negotiate import Capability, SigningAlgorithm
from smb3fs.wire.session import LogoffRequest
from smb3fs.wire.tree import ShareCapability, ShareFlag, TreeConnectRequest, TreeConnectResponse, TreeDisconnectRequest

# As an int: arithmetic with enum's flags costs microseconds.
SEAL: Final = int(ShareFlag.ENCRYPT_DATA)
NAMESPACE: Final = int(ShareFlag.DFS | ShareFlag.DFS_ROOT)
PERSISTENT_HANDLES: Final = int(Capability.PERSISTENT_HANDLES)
MULTI_CHANNEL: Final = int(Capability.MULTI_CHANNEL)
NAMESPACE_CAPABILITY: Final = int(ShareCapability.DFS)
# What is fetched ahead at a time where there are several channels, in bytes: small enough to be spread over them.
PIECE: Final = 1 << 20
# Up to which message id ids are set apart for further channels, each of which has to spend as many.
LATEST_APART: Final = 1 << 20
# Seconds between two looks at what callers have given up.
GIVEN_UP: Final = 0.005


@dataclass(slots=True)
class Tree:
    """A share that the session is connected to."""

    tree_id: int
    share_type: int
    share_flags: int
    capabilities: int
    maximal_access: int

    @property
    def seal(self) -> bool:
        """Whether the server wants what concerns this share encrypted."""
        return bool(self.share_flags & SEAL)

    @property
    def namespace(self) -> bool:
        """Whether the share is a DFS namespace, so that parts of it may be elsewhere."""
        return bool(self.share_flags & NAMESPACE or self.capabilities & NAMESPACE_CAPABILITY)


class Session:
    """A login with one tree, on one channel or several; `generation` tells it from the mount's earlier and later ones.

    What has to keep its order goes one way: as long as something is under way on a channel that nobody waits for, a
    CLOSE or what its caller has given up, all requests go behind it. Otherwise each takes the channel that is expected
    to answer it first (`scheduling.py`).
    """

    def __init__(self, channel: Channel, agreed: Negotiated, security: SessionSecurity, tree: Tree) -> None:
        self.channels = [channel]
        """Those that live, or the last one that did."""
        self.error: Smb3fsError | None = None
        """Why the session as a whole has ended."""
        self.lanes: dict[Channel, Lane] = {}
        """What is known of each channel, once there are several."""
        self.agreed = agreed
        self.security = security
        self.tree = tree
        self.generation = 0
        # Whether the server still had the session before this one when the login began, which ended that.
        self.before_stood = False
        # ... or may have had it, and so may tell its connection what is meant for this one.
        self.before_hears = False
        # Message ids under which further channels may be bound, where these are nonces; None: none are set apart yet.
        self.binding_ids: deque[range] | None = None
        self.place: Place | None = None
        self.placement: Placement | None = None

    @property
    def channel(self) -> Channel:
        """The channel for what concerns the session as a whole."""
        return self.channels[0]

    @property
    def first_security(self) -> SessionSecurity:
        """What protects the session on that channel."""
        return self.channel.connection.session or self.security

    @property
    def lives(self) -> bool:
        """Whether there is a channel to send on."""
        return self.error is None and any(channel.error is None for channel in self.channels)

    @property
    def short_of_credits(self) -> bool:
        """Whether requests wait to be sent on every channel."""
        return all(channel.short_of_credits for channel in self.channels)

    def affords(self, requests: Sequence[Request]) -> bool:
        """Whether every channel can send a chain some time; one that never can would hold up all behind it."""
        return all(channel.connection.affords(requests) for channel in self.channels)

    @property
    def links(self) -> int:
        """How many ways there are to the server on which data are sent: by different addresses, here or there."""
        if len(self.channels) == 1:
            return 1
        return len({channel.ends for channel in self.channels if not self.lanes[channel].standby})

    @property
    def redundant(self) -> bool:
        """Whether a link may break without all connections breaking."""
        return len(self.channels) > 1 and len({channel.ends for channel in self.channels}) > 1

    def has(self, channel: Channel) -> bool:
        """Whether a channel is one of the session's, or about to be."""
        bound = channel.connection.session
        return channel in self.channels or (bound is not None and bound.session_id == self.security.session_id)

    def add(self, channel: Channel) -> None:
        """Spread requests over one more channel, which has been bound to the session."""
        self.lanes.setdefault(self.channel, Lane(link=self.channel.ends))
        self.lanes[channel] = Lane(link=channel.ends)
        self.channels.append(channel)

    def takes_another(self) -> bool:
        """Whether a channel can be bound just now; where that takes message ids, they are set apart first."""
        if self.agreed.signing != SigningAlgorithm.AES_GMAC:
            return True
        first = self.channel
        if self.binding_ids is None and not first.congested and first.connection.credits.next_id < LATEST_APART:
            self.binding_ids = set_apart(first, self.security) or None
        return bool(self.binding_ids)

    def fail(self, error: Smb3fsError) -> None:
        """End the session with all its channels."""
        self.error = self.error or error
        for channel in tuple(self.channels):
            channel.fail(error)

    def outlives(self, channel: Channel) -> bool:
        """Part with a channel that has ended, if others carry on; False if the session ends with it (`parting.py`)."""
        if self.error is not None or len(self.channels) == 1:
            return False
        if not all(parts(exchange, awaited=awaited) for exchange, awaited in channel.left.items()):
            return False
        # What the kernel still holds of these must not arrive behind their repetitions.
        channel.transport.reset()
        self.channels.remove(channel)
        del self.lanes[channel]
        for exchange in channel.left:
            if is_tidying(exchange):
                heir = self._way(exchange.requests)
                again = self._exchange(heir, exchange.requests, urgent=True, replay=exchange.sent)
                again.done = exchange.done
                heir.post(again)
        return True

    def payload_limit(self, agreed: int) -> int:
        """Return the most bytes that one request may ask for or carry: what was agreed, and a quarter of the credits.

        A request that costs more than the server's whole window of credits could never be sent. With several channels
        it is no more than what spreads well.
        """
        window = min(channel.connection.credits.window for channel in self.channels)
        return min(agreed, max(window // 4, 1) * CREDIT_UNIT)

    def allot(self, agreed: int, least: int) -> tuple[Channel, int] | None:
        """Return where to ask for data ahead of the need, and for how many bytes at most; None: not now.

        `least` is how many it has to be all the same: what somebody waits for already has to be asked for.
        """
        limit = self.payload_limit(agreed)
        if not self.lanes:
            return self.channel, limit
        now = trio.current_time()
        channels = self._open_to((), now)
        lanes = [self.lanes[channel] for channel in channels]
        found = spread(lanes, min(limit, PIECE), now)
        if found is None and not least:
            return None
        lane, size = found or (choose(lanes, max(least, LEAST_PIECE), now), LEAST_PIECE)
        return next(channel for channel in channels if self.lanes[channel] is lane), min(max(size, least), limit)

    def divide(self, size: int) -> list[tuple[Channel | None, int]]:
        """Return by which channels to send parts of what goes side by side; those by one link count as one.

        None stands for any. What a part takes is told to `call`, which takes another one if that is not possible then.
        """
        if self.links == 1:
            return [(None, size)]
        now = trio.current_time()
        of_link: dict[object, Channel] = {}
        for channel in self._open_to((), now):
            other = of_link.get(channel.ends)
            if other is None or self.lanes[channel].in_flight < self.lanes[other].in_flight:
                of_link[channel.ends] = channel
        if len(of_link) == 1:
            return [(None, size)]
        parts = divide((self.lanes[channel] for channel in of_link.values()), size, now)
        by_lane = {id(self.lanes[channel]): channel for channel in of_link.values()}
        return [(by_lane[id(lane)], part) for lane, part in parts]

    def heir(self, size: int) -> Channel | None:
        """Return where to ask for so many bytes again that were under way on a channel which is lost; None: nowhere."""
        if not self.lives:
            return None
        now = trio.current_time()
        channels = [channel for channel in self._open_to((), now) if channel in self.lanes]
        lane = choose((self.lanes[channel] for channel in channels), size, now) if channels else None
        return next((channel for channel in channels if self.lanes[channel] is lane), None)

    def patience(self, channel: Channel, size: int, now: float) -> float:
        """Return after how many seconds it is late what is asked of a channel now."""
        lane = self.lanes.get(channel)
        return patience(self.lanes.values(), lane, size, now) if lane is not None else math.inf

    def sibling(self, channel: Channel, size: int, now: float) -> Channel | None:
        """Return which other channel may be asked for what is late on one; None: none at present."""
        channels = [one for one in self._open_to((), now) if one is not channel and one in self.lanes]
        lane = stand_in((self.lanes[one] for one in channels), size, now)
        return next((one for one in channels if self.lanes[one] is lane), None)

    async def call(
        self,
        requests: Sequence[Request],
        *,
        urgent: bool = False,
        replay: bool = False,
        preferred: Channel | None = None,
    ) -> list[Answer]:
        """Send a chain of related requests on the tree and return their answers, whatever their status.

        `replay` says of each that the server may have carried it out before. It goes by the `preferred` channel if
        that is possible.
        """
        channel = self.channels[0] if len(self.channels) == 1 else await self._way_behind(requests, preferred)
        if len(requests) == 1 or channel.connection.affords(requests):
            return await self._carry(channel, self._exchange(channel, requests, urgent, replay), channel.call)

        async def call(request: Request) -> Answer:
            return (await channel.call(self._exchange(channel, [request], urgent, replay)))[0]

        return await call_apart(call, lambda request: self.post([request]), requests)

    async def see_through(self, requests: Sequence[Request], *, replay: bool = False) -> list[Answer]:
        """Do as `call` does, and stay for the answers when cancelled (see `Channel.see_through`)."""
        channel = self.channels[0] if len(self.channels) == 1 else await self._way_behind(requests)
        if len(requests) == 1 or channel.connection.affords(requests):
            exchange = self._exchange(channel, requests, urgent=False, replay=replay)
            return await self._carry(channel, exchange, channel.see_through)
        # In one go all the same: between them nobody looks at a cancellation.
        answers: list[Answer] = []
        with trio.CancelScope(shield=True):
            for request in requests:
                answers += await self.see_through([request], replay=replay)
        return answers

    def post(self, requests: Sequence[Request], done: Callable[[], None] | None = None, *, hurry: bool = True) -> None:
        """Send a chain of requests whose answers nobody waits for; `done` is called when they are all in.

        For `hurry` see `Channel.post`.
        """
        channel = self._way(requests)
        exchange = self._exchange(channel, requests, urgent=True)
        exchange.done = done
        channel.post(exchange, hurry=hurry)

    def begin(
        self,
        requests: Sequence[Request],
        ahead: Callable[[Sequence[Answer | None] | None], None] | None = None,
        channel: Channel | None = None,
        *,
        hurry: bool = True,
    ) -> Exchange:
        """Send a chain of requests ahead of the need for its answers, on a channel that was allotted for it or on any.

        They are what `collect` returns, or what `ahead` is told when they are in; None if that will never be. For
        `hurry` see `Channel.post`.
        """
        channel = channel or self._way(requests)
        exchange = self._exchange(channel, requests, urgent=False)
        lane = self.lanes.get(channel)
        exchange.ahead = ahead if ahead is None or lane is None else self._noted(lane, requests, ahead)
        channel.post(exchange, hurry=hurry)
        return exchange

    async def collect(self, exchange: Exchange) -> list[Answer]:
        """Return the answers to what was begun; raises ConnectionLost if its channel is gone."""
        channel = next((channel for channel in self.channels if channel.holds(exchange)), self.channel)
        return await channel.collect(exchange)

    def _noted(
        self, lane: Lane, requests: Sequence[Request], ahead: Callable[[Sequence[Answer | None] | None], None]
    ) -> Callable[[Sequence[Answer | None] | None], None]:
        """Have a lane know of what is fetched ahead on it."""
        size, began = _size(requests), trio.current_time()
        lane.begin(size, began)

        def told(answers: Sequence[Answer | None] | None) -> None:
            lane.end(size, began, trio.current_time(), answered=answers is not None)
            ahead(answers)

        return told

    async def _carry(
        self, channel: Channel, exchange: Exchange, send: Callable[[Exchange], Awaitable[list[Answer]]]
    ) -> list[Answer]:
        """Send an exchange, and have the channel's lane know of it."""
        lane = self.lanes.get(channel)
        if lane is None:
            return await send(exchange)
        size, began, answered = _size(exchange.requests), trio.current_time(), False
        lane.begin(size, began)
        try:
            answers = await send(exchange)
            answered = True
        finally:
            lane.end(size, began, trio.current_time(), answered=answered)
        return answers

    def _way(self, requests: Sequence[Request], preferred: Channel | None = None) -> Channel:
        """Return the channel to send a chain on; the `preferred` one if it may be that."""
        if len(self.channels) == 1:
            return self.channels[0]
        now = trio.current_time()
        channels = self._open_to(requests, now)
        if preferred in channels:
            return preferred
        if len(channels) == 1:
            return channels[0]
        best = choose((self.lanes[channel] for channel in channels), _size(requests), now)
        return next(channel for channel in channels if self.lanes[channel] is best)

    def _open_to(self, requests: Sequence[Request], now: float) -> list[Channel]:
        """Return the channels that a chain may take, having noted how long each of several has been silent."""
        # One that ends just now tells those of it who had asked ahead, and they may ask again at once.
        live = [channel for channel in self.channels if channel.error is None] or self.channels
        for channel in live:
            if channel.tied:
                return [channel]
        # One that was bound just now may not have the credits yet.
        able = [channel for channel in live if channel.connection.affords(requests)] or live
        for channel in able:
            self.lanes[channel].silence = channel.silence(now)
        return able

    async def _way_behind(self, requests: Sequence[Request], preferred: Channel | None = None) -> Channel:
        """Do as `_way` does, when nothing on another channel has to be done before."""
        if not all(request.command in LOOKING for request in requests):
            # It takes callers of two channels who gave up at one time, and ends with what they had asked for.
            while sum(channel.tied for channel in self.channels) > 1:  # noqa: ASYNC110 (too rare for an event)
                await trio.sleep(GIVEN_UP)
        return self._way(requests, preferred)

    def _exchange(self, channel: Channel, requests: Sequence[Request], urgent: bool, replay: bool = False) -> Exchange:
        """Address requests to the tree, and to the place in it that the session is about."""
        exchange = Exchange(
            requests,
            tree_id=self.tree.tree_id,
            session=channel.connection.session,
            seal=self.tree.seal,
            urgent=urgent,
            replay=replay,
        )
        if self.placement is not None:
            exchange.requests = [self.placement.place(request) for request in requests]
            exchange.in_namespace = self.tree.namespace
        return exchange

    async def end(self) -> None:
        """Disconnect the tree and log off, so that the server keeps nothing of us."""
        await self.call([TreeDisconnectRequest()], urgent=True)
        channel = self.channel
        await channel.call(Exchange([LogoffRequest()], session=self.first_security, urgent=True))


def _size(requests: Sequence[Request]) -> int:
    """Return about how many bytes a chain moves in the direction in which it moves most."""
    return sum(request.credit_size for request in requests)


async def establish(
    channel: Channel,
    policy: Policy,
    login: Login,
    unc: str,
    previous_session_id: int = 0,
    *,
    elsewhere: Callable[[Negotiated, SessionSecurity, StatusError], Awaitable[None]] | None = None,
) -> Session:
    """Negotiate, log in and connect the tree `unc` on a running channel.

    Where there is no such tree, `elsewhere` is given the chance to say where it is, by an exception.
    """
    agreed = await negotiate(channel, policy)
    # Samba before 4.25 says of what it has as well that there is no such session.
    lasting = bool(previous_session_id and agreed.capabilities & PERSISTENT_HANDLES)
    before_stood = lasting and await stands(channel, previous_session_id)
    security = await authenticate(channel, policy, agreed, login, previous_session_id)
    # Before anything else, so that those are small to which every further connection has to be brought.
    binding_ids: deque[range] | None = None
    if policy.several and agreed.signing == SigningAlgorithm.AES_GMAC and agreed.capabilities & MULTI_CHANNEL:
        binding_ids = set_apart(channel, security) if security.signer is not None else deque()
    try:
        tree = await _connect_tree(channel, security, unc)
    except StatusError as error:
        if elsewhere is not None:
            await elsewhere(agreed, security, error)
        raise
    await validate(channel, policy, agreed, security, tree.tree_id, seal=tree.seal)
    session = Session(channel, agreed, security, tree)
    session.before_stood = before_stood
    session.before_hears = before_stood or bool(previous_session_id and not lasting)
    session.binding_ids = binding_ids
    return session


async def join(session: Session, channel: Channel, policy: Policy, login: Login) -> None:
    """Negotiate and log in on a running channel, and add it to a session ([MS-SMB2] 3.2.4.2.2.2, 3.2.4.2.3.2)."""
    policy = policy.of_session(session.agreed)
    agreed = await negotiate(channel, policy)
    if replace(agreed, security_buffer=b"") != replace(session.agreed, security_buffer=b""):
        raise SecurityError("the server at this address is another one, or speaks another way")
    # Whatever has become of the first channel, its key is that of the session.
    ids = None
    if agreed.signing == SigningAlgorithm.AES_GMAC:
        if not session.binding_ids:  # before a login that would be in vain
            raise used_up()
        own = await authenticate(channel, policy, agreed, login)
        ids = next_for(channel, session.binding_ids)
        await lead_to(channel, ids, own)
    security = await bind(channel, policy, agreed, login, session.security, ids)
    await validate(channel, policy, agreed, security, session.tree.tree_id, seal=session.tree.seal)
    # Its answer brings the credits by which requests of any size can be sent here.
    await channel.call(Exchange([EchoRequest()], session=security))
    if not session.lives or channel.error is not None:
        raise ConnectionLost("the session ended while a channel was added to it")
    session.add(channel)


async def _connect_tree(channel: Channel, security: SessionSecurity, unc: str) -> Tree:
    """Connect to a share, given as \\\\server\\share."""
    (answer,) = await channel.call(Exchange([TreeConnectRequest(unc)], session=security))
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, "TREE_CONNECT")
    told = TreeConnectResponse.parse(answer.pdu)
    tree = Tree(answer.header.tree_id, told.share_type, told.share_flags, told.capabilities, told.maximal_access)
    if tree.seal and security.signer is None:
        raise SecurityError("the share demands encryption, which a guest or anonymous session has no key for")
    if tree.seal and security.sealer is None:
        raise SecurityError("the share demands encryption, but none of the ciphers offered to the server suits it")
    return tree
