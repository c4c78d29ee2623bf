"""A session: a login that lives on a channel, and the trees connected in it ([MS-SMB2] 3.2.1.3, 3.2.1.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from smb3fs.channels.apart import call_apart
from smb3fs.channels.authentication import authenticate, stands
from smb3fs.channels.channel import Channel
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import Negotiated, Policy, negotiate, validate
from smb3fs.channels.places import Place, Placement
from smb3fs.connection import CREDIT_UNIT, Answer, Exchange, SessionSecurity
from smb3fs.errors import SecurityError, Status, StatusError
from smb3fs.wire.header import Request
from smb3fs.wire.negotiate import Capability
from smb3fs.wire.session import LogoffRequest
from smb3fs.wire.tree import ShareCapability, ShareFlag, TreeConnectRequest, TreeConnectResponse, TreeDisconnectRequest

# As an int: arithmetic with enum's flags costs microseconds.
SEAL: Final = int(ShareFlag.ENCRYPT_DATA)
NAMESPACE: Final = int(ShareFlag.DFS | ShareFlag.DFS_ROOT)
PERSISTENT_HANDLES: Final = int(Capability.PERSISTENT_HANDLES)
NAMESPACE_CAPABILITY: Final = int(ShareCapability.DFS)


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
    """A login on one channel with one tree; `generation` tells it from the mount's earlier and later ones."""

    def __init__(self, channel: Channel, agreed: Negotiated, security: SessionSecurity, tree: Tree) -> None:
        self.channel = channel
        self.agreed = agreed
        self.security = security
        self.tree = tree
        self.generation = 0
        # Whether the server still had the session before this one when the login began, which ended that.
        self.before_stood = False
        self.place: Place | None = None
        self.placement: Placement | None = None

    def payload_limit(self, agreed: int) -> int:
        """Return the most bytes that one request may ask for or carry: what was agreed, and a quarter of the credits.

        A request that costs more than the server's whole window of credits could never be sent.
        """
        return min(agreed, max(self.channel.connection.credits.window // 4, 1) * CREDIT_UNIT)

    async def call(self, requests: Sequence[Request], *, urgent: bool = False, replay: bool = False) -> list[Answer]:
        """Send a chain of related requests on the tree and return their answers, whatever their status.

        `replay` says of each that the server may have carried it out before.
        """
        if len(requests) == 1 or self.channel.connection.affords(requests):
            return await self.channel.call(self._exchange(requests, urgent, replay))

        async def call(request: Request) -> Answer:
            return (await self.channel.call(self._exchange([request], urgent, replay)))[0]

        return await call_apart(call, lambda request: self.post([request]), requests)

    async def see_through(self, requests: Sequence[Request], *, replay: bool = False) -> list[Answer]:
        """Do as `call` does, and stay for the answers when cancelled (see `Channel.see_through`)."""
        if len(requests) == 1 or self.channel.connection.affords(requests):
            return await self.channel.see_through(self._exchange(requests, urgent=False, replay=replay))
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
        exchange = self._exchange(requests, urgent=True)
        exchange.done = done
        self.channel.post(exchange, hurry=hurry)

    def begin(
        self, requests: Sequence[Request], ahead: Callable[[Sequence[Answer | None] | None], None] | None = None
    ) -> Exchange:
        """Send a chain of requests ahead of the need for its answers.

        They are what `channel.collect` returns, or what `ahead` is told when they are in; None if that will never be.
        """
        exchange = self._exchange(requests, urgent=False)
        exchange.ahead = ahead
        self.channel.post(exchange)
        return exchange

    def _exchange(self, requests: Sequence[Request], urgent: bool, replay: bool = False) -> Exchange:
        """Address requests to the tree, and to the place in it that the session is about."""
        exchange = Exchange(
            requests,
            tree_id=self.tree.tree_id,
            session=self.security,
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
        await self.channel.call(Exchange([LogoffRequest()], session=self.security, urgent=True))


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
    lasting = bool(previous_session_id and agreed.capabilities & PERSISTENT_HANDLES)
    before_stood = lasting and await stands(channel, previous_session_id)
    security = await authenticate(channel, policy, agreed, login, previous_session_id)
    try:
        tree = await _connect_tree(channel, security, unc)
    except StatusError as error:
        if elsewhere is not None:
            await elsewhere(agreed, security, error)
        raise
    await validate(channel, policy, agreed, security, tree.tree_id, seal=tree.seal)
    session = Session(channel, agreed, security, tree)
    session.before_stood = before_stood
    return session


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
