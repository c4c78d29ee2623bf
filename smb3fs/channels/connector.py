"""Makes sessions: connects, negotiates, logs in, and leaves a running channel behind in the mount's nursery."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from smb3fs.channels.authentication import Login
from smb3fs.channels.channel import Channel
from smb3fs.channels.negotiation import Policy
from smb3fs.channels.session import Session, establish
from smb3fs.channels.tcp import connect
from smb3fs.errors import ConnectionLost, DeadlineExceeded, MountError, Smb3fsError
from smb3fs.trace import Trace
from smb3fs.wire.tree import ShareType

# How long one address may take to answer a connection attempt before the next is tried.
ADDRESS_TIMEOUT: Final = 5.0


@dataclass(slots=True, frozen=True)
class Target:
    """Where the share is: what to connect to, and the UNC by which the server knows it. Times are in seconds."""

    host: str
    port: int
    unc: str
    timeout: float
    echo_interval: float


class Connector:
    """Makes one session after the other for a mount, all with the same client GUID."""

    def __init__(
        self,
        nursery: trio.Nursery,
        target: Target,
        policy: Policy,
        login: Login,
        trace: Trace,
        on_lost: Callable[[Channel, Smb3fsError], None],
    ) -> None:
        self._nursery = nursery
        self._target = target
        self._policy = policy
        self._login = login
        self._trace = trace
        self._on_lost = on_lost

    async def connect(self, previous_session_id: int = 0) -> Session:
        """Return a new session whose channel runs; raises what stood in the way, and then nothing is left running."""
        target = self._target
        transport = await connect(
            target.host,
            target.port,
            attempt_timeout=min(ADDRESS_TIMEOUT, target.timeout),
            dead_after=target.timeout / 2,
        )
        channel = Channel(
            transport,
            self._trace,
            timeout=target.timeout,
            echo_interval=target.echo_interval,
            on_lost=self._on_lost,
        )
        self._nursery.start_soon(channel.run)
        try:
            with trio.fail_after(target.timeout):
                session = await establish(channel, self._policy, self._login, target.unc, previous_session_id)
        except trio.TooSlowError as error:
            channel.fail(ConnectionLost("the server did not answer in time"))
            raise DeadlineExceeded(os.strerror(errno.ETIMEDOUT)) from error
        except ConnectionLost:
            # The reason why the channel ended says more than that it did.
            if channel.error is not None and not isinstance(channel.error, ConnectionLost):
                raise channel.error from None
            raise
        except BaseException:
            channel.fail(ConnectionLost("the session could not be set up"))
            raise
        if session.tree.share_type != ShareType.DISK:
            channel.fail(ConnectionLost("not a disk share"))
            raise MountError(f"{target.unc} is a printer or a pipe, not a disk share; only disk shares can be mounted")
        return session
