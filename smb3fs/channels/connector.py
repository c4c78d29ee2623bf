"""Makes sessions: connects, negotiates, logs in, and leaves a running channel behind in the mount's nursery."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import trio

from smb3fs.channels.authentication import authenticate_again
from smb3fs.channels.channel import Channel
from smb3fs.channels.dialling import Dialler
from smb3fs.channels.following import Follower, Referred
from smb3fs.channels.logins import Logins, asks_for_another
from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import Negotiated, Policy, validate
from smb3fs.channels.pairing import Pair
from smb3fs.channels.places import Place, Placement
from smb3fs.channels.referrals import ask, connect_pipes
from smb3fs.channels.session import Session, establish, join
from smb3fs.channels.transport import Transport
from smb3fs.connection import SessionSecurity
from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    MountError,
    SecurityError,
    Smb3fsError,
    Status,
    StatusError,
)
from smb3fs.trace import Trace
from smb3fs.wire.create import RELATED_FILE_ID, AccessMask, CreateRequest, Disposition
from smb3fs.wire.header import Request
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import Break
from smb3fs.wire.tree import ShareType

# How long one address may take to answer a connection attempt before the next is tried; a quarter of `timeout` where
# that is less, so that a call that spent half of it until a loss was noticed lives to see the next one answer.
ADDRESS_TIMEOUT: Final = 5.0
# The same for a further channel of a session, which nobody waits for.
SIBLING_TIMEOUT: Final = 2.0
# What a server answers that does not hold a share of a namespace, but may know who does.
NOT_HERE: Final = frozenset(
    {
        Status.BAD_NETWORK_NAME,
        Status.OBJECT_NAME_NOT_FOUND,
        Status.OBJECT_PATH_NOT_FOUND,
        Status.PATH_NOT_COVERED,
    }
)
Result = TypeVar("Result")
LOOK: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)


@dataclass(slots=True, frozen=True)
class Target:
    """What to mount, where to connect to for it, and whether DFS links are followed. Times are in seconds.

    `host` stands for the server of the place; other servers, to which links lead, are found by their names.
    """

    host: str
    port: int
    place: Place
    timeout: float
    echo_interval: float
    follow: bool = True
    source_address: str | None = None
    max_credits: int | None = None


class Connector:
    """Makes one session after the other for a mount, all with the same client GUID."""

    def __init__(
        self,
        nursery: trio.Nursery,
        target: Target,
        policy: Policy,
        logins: Logins,
        trace: Trace,
        on_lost: Callable[[Channel, Smb3fsError], None],
        on_break: Callable[[Channel, Break], None] | None = None,
    ) -> None:
        self._nursery = nursery
        self._target = target
        self._policy = policy
        self._logins = logins
        self._trace = trace
        self._on_lost = on_lost
        self._on_break = on_break
        self._follower = Follower(self._reach, follow=target.follow)
        self._previous = ("", 0)
        self._diallers: dict[str, Dialler] = {}

    async def connect(self, previous_session_id: int = 0) -> Session:
        """Return a new session whose channel runs; raises what stood in the way, and then nothing is left running."""
        server, _ = self._previous
        self._previous = (server, previous_session_id)
        try:
            # Each target has its own bound; a chain of links with many targets must have one too.
            with trio.fail_after(2 * self._target.timeout):
                session = await self._follower.open(self._target.place)
        except trio.TooSlowError as error:
            raise DeadlineExceeded(os.strerror(errno.ETIMEDOUT)) from error
        if session.place is not None:
            self._previous = (session.place.server.lower(), 0)
        return session

    async def renew(self, session: Session) -> None:
        """Log in again to a session that has expired; raises what stood in the way."""
        policy = self._policy_for(session.place or self._target.place)

        async def again(login: Login) -> None:
            with trio.fail_after(self._target.timeout):
                await authenticate_again(session.channel, policy, login, session.first_security)

        try:
            await self._by_any_login(again)
        except trio.TooSlowError as error:
            session.fail(ConnectionLost("the server did not renew the session in time"))
            raise DeadlineExceeded(os.strerror(errno.ETIMEDOUT)) from error
        except (StatusError, SecurityError) as error:
            # The server may have dropped the session by now, and one that somebody tampers with is no use.
            session.fail(ConnectionLost(f"the session could not be renewed: {error}"))
            raise

    async def _by_any_login(self, attempt: Callable[[Login], Awaitable[Result]]) -> Result:
        """Try with each login that may do; raises what the first one came to if none does."""
        first: Smb3fsError | None = None
        async with aclosing(self._logins.candidates()) as candidates:
            async for login in candidates:
                try:
                    result = await attempt(login)
                except (StatusError, AuthenticationError) as error:
                    if not asks_for_another(error):
                        raise
                    first = first or error
                else:
                    self._logins.worked(login)
                    return result
        raise first or MountError("there is no login to try")

    def is_home(self, place: Place) -> bool:
        """Whether a place is on the server that the mount names."""
        return place.server.lower() == self._target.place.server.lower()

    def _dialler(self, host: str) -> Dialler:
        """Return what connects to a server."""
        dialler = self._diallers.get(host)
        if dialler is None:
            dialler = self._diallers[host] = Dialler(host, self._target.port, self._target.source_address)
        return dialler

    def _policy_for(self, place: Place) -> Policy:
        """Return the policy for a place's server."""
        return self._policy if self.is_home(place) else replace(self._policy, server_name=place.server)

    def _begin(self, transport: Transport) -> Channel:
        """Return a channel that runs."""
        target = self._target
        channel = Channel(
            transport,
            self._trace,
            timeout=target.timeout,
            echo_interval=target.echo_interval,
            on_lost=self._on_lost,
            on_break=self._on_break,
        )
        if target.max_credits is not None:
            channel.connection.credits.limit(target.max_credits)
        self._nursery.start_soon(channel.run)
        return channel

    async def bind(self, session: Session, pair: Pair) -> Channel:
        """Give a session one more channel, between two addresses; raises what stood in the way."""
        return await self._by_any_login(partial(self._bind_as, session, pair))

    async def _bind_as(self, session: Session, pair: Pair, login: Login) -> Channel:
        """Do so with one login."""
        target = self._target
        place = session.place or target.place
        policy = self._policy_for(place)
        source = str(pair.source) if pair.source is not None else target.source_address
        first = self._dialler(target.host if self.is_home(place) else place.server)
        dialler = Dialler(str(pair.target), target.port, source, beside=first)
        transport = await dialler.connect(attempt_timeout=SIBLING_TIMEOUT)
        channel = self._begin(transport)
        try:
            with trio.fail_after(min(ADDRESS_TIMEOUT, target.timeout)):
                await join(session, channel, policy, login)
        except trio.TooSlowError as error:
            channel.fail(ConnectionLost("the server did not answer in time"))
            raise DeadlineExceeded(os.strerror(errno.ETIMEDOUT)) from error
        except BaseException:
            channel.fail(ConnectionLost("the channel could not be bound to the session"))
            raise
        first.learn(dialler)
        self._nursery.start_soon(dialler.half_open.end, *transport.ends)
        return channel

    async def _reach(self, place: Place) -> Session:
        """Make a session on the server that a place names; raises Referred where that says that it is elsewhere."""
        return await self._by_any_login(partial(self._reach_as, place))

    async def _reach_as(self, place: Place, login: Login) -> Session:
        """Do so with one login."""
        target = self._target
        policy = self._policy_for(place)
        # A session of another server's may have the same number, and would be ended.
        server, session_id = self._previous
        previous = session_id if server in ("", place.server.lower()) else 0
        dialler = self._dialler(target.host if self.is_home(place) else place.server)
        transport = await dialler.connect(attempt_timeout=min(ADDRESS_TIMEOUT, max(1.0, target.timeout / 4)))
        channel = self._begin(transport)

        async def elsewhere(agreed: Negotiated, security: SessionSecurity, error: StatusError) -> None:
            if error.status in NOT_HERE:
                # What is below the share is for whoever holds it to say.
                await self._ask(channel, policy, agreed, security, replace(place, path=""))

        try:
            with trio.fail_after(target.timeout):
                session = await establish(channel, policy, login, place.unc, previous, elsewhere=elsewhere)
                await self._settle(session, policy, place)
        except trio.TooSlowError as error:
            dialler.disappointed()
            channel.fail(ConnectionLost("the server did not answer in time"))
            raise DeadlineExceeded(os.strerror(errno.ETIMEDOUT)) from error
        except ConnectionLost:
            dialler.disappointed()
            # The reason why the channel ended says more than that it did.
            if channel.error is not None and not isinstance(channel.error, ConnectionLost):
                raise channel.error from None
            raise
        except BaseException:
            channel.fail(ConnectionLost("the session could not be set up"))
            raise
        if session.tree.share_type != ShareType.DISK:
            channel.fail(ConnectionLost("not a disk share"))
            raise MountError(f"{place.unc} is a printer or a pipe, not a disk share; only disk shares can be mounted")
        return session

    async def _settle(self, session: Session, policy: Policy, place: Place) -> None:
        """Tell a session which place it is about; raises Referred where a DFS link is on the way there."""
        home = self._target.place
        session.place = place
        namespace = f"{place.server}\\{place.share}" if session.tree.namespace else ""
        if namespace or place.path != home.path:
            session.placement = Placement(home.path, place.path, namespace)
        if not namespace:
            return
        look: list[Request] = [CreateRequest(home.path, LOOK, Disposition.OPEN), CloseRequest(RELATED_FILE_ID)]
        answers = await session.call(look)
        if answers[0].status == Status.PATH_NOT_COVERED:
            await self._ask(session.channel, policy, session.agreed, session.security, place)

    async def _ask(
        self, channel: Channel, policy: Policy, agreed: Negotiated, security: SessionSecurity, place: Place
    ) -> None:
        """Ask the server where a place is, and raise Referred if it knows."""
        try:
            tree_id = await connect_pipes(channel, security, place.server)
        except StatusError:
            return
        if security.signer is not None:
            await validate(channel, policy, agreed, security, tree_id, seal=False)
        link = await ask(channel, security, tree_id, place)
        if link is not None:
            # Of the root of a namespace a server may say that it is where it was looked for.
            if not link.place.path:
                link.targets = [target for target in link.targets if target.key != link.place.key]
            if link.targets:
                raise Referred(link)
