"""What happens after a loss: the barrier that holds calls back, and everything that comes before it is lifted.

Theory of operation. A loss is one event with one answer, in this order, under the generation number of the session to
come:

1. The channel has noticed. The session is detached, so the pool holds all traffic back, and caches stop.
2. Attempts to get a session follow each other until one succeeds, on whichever address of the server. It names the
   session before, so that the server lets go of that one and what was open in it can be claimed.
3. What was open is brought over (`handles/claims.py`): claimed, opened again by its name, or found lost.
4. The session is attached: new calls flow, and those that were under way at the loss are repeated by their callers,
   where their rules permit it.

Nothing passes between 1 and 4 but what this module sends. If the session dies on the way, 2 and 3 begin again with
another number, and nothing is given up that a server has not refused. Applications wait meanwhile, each for as long as
the mount lets it; nobody here waits for them.

A session that has merely expired is renewed, with all that is open in it, under the same number.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.errors import AuthenticationError, LinkError, Smb3fsError, Status, StatusError
from smb3fs.handles.claim_results import Tally
from smb3fs.handles.claims import NotReadyError
from smb3fs.trace import Trace

# Attempts follow each other quickly at first, since most outages are short, and then ever more slowly: so that what is
# back is noticed after a share of the time for which it was away.
FIRST_INTERVAL: Final = 0.1
INTERVAL_SHARE: Final = 0.25
QUICK_INTERVAL: Final = 0.5
QUICK_PERIOD: Final = 60.0
LONGEST_INTERVAL: Final = 15.0
# A refused login is not repeated quickly, and ever more slowly: servers lock accounts out after a few wrong passwords,
# and begin to count anew after half an hour or so.
REFUSED_INTERVAL: Final = 60.0
LONGEST_REFUSED: Final = 900.0
# How often somebody looks meanwhile whether there is another password to try.
ROTATION_INTERVAL: Final = 1.0

LOGIN_REFUSED: Final = frozenset(
    {
        Status.LOGON_FAILURE,
        Status.WRONG_PASSWORD,
        Status.NO_SUCH_USER,
        Status.ACCOUNT_RESTRICTION,
        Status.ACCOUNT_DISABLED,
        Status.ACCOUNT_LOCKED_OUT,
        Status.PASSWORD_EXPIRED,
        Status.PASSWORD_MUST_CHANGE,
        Status.INVALID_LOGON_HOURS,
        Status.INVALID_WORKSTATION,
    }
)


@dataclass(slots=True)
class Attempts:
    """A row of attempts that failed, and how many of those by a refused login; other failures lock no account."""

    what: str
    began: float
    shortest: float = QUICK_INTERVAL
    """How many seconds lie between two at least."""
    failures: int = 0
    refusals: int = 0

    def count(self, refused: bool) -> None:
        """Count another one."""
        self.failures += 1
        self.refusals += refused


class Survivors(Protocol):
    """What outlives a session, if the server plays along."""

    def suspend(self) -> None:
        """Take notice that the session is gone."""

    async def reclaim(self, session: Session) -> Tally:
        """Bring everything over into a session; raises ConnectionLost if that dies on the way."""


class Recovery:
    """Keeps the pool supplied with a session as long as the mount lives.

    `tally` says what has become of all that was open at losses, `longest` how many seconds the longest one took from
    when it was noticed until the traffic flowed again, and `latest` the last one.
    """

    def __init__(
        self,
        pool: Pool,
        connect: Callable[[int], Awaitable[Session]],
        renew: Callable[[Session], Awaitable[None]],
        rotated: Callable[[], Awaitable[bool]],
        survivors: Survivors,
        trace: Trace,
    ) -> None:
        """`rotated` tells whether the login has changed since the last attempt."""
        self.parted: Callable[[Session], None] = lambda _: None
        """Is told of a session that has lost a channel and goes on by others."""
        self.doubled: Callable[[Session], None] = lambda _: None
        """Is told of a session whose server, as it began, may still have been serving the connection before."""
        self.tally = Tally()
        self.latest = 0.0
        self.longest = 0.0
        self.returns = 0
        self.failures = 0
        self._generation = 0
        self._survivors = survivors
        self._pool = pool
        self._connect = connect
        self._renew_session = renew
        self._rotated = rotated
        self._trace = trace
        self._impatient = trio.Event()
        self._last_session_id = 0
        self._not_before = 0.0

    def lost(self, channel: Channel, error: Smb3fsError) -> None:
        """Take notice that a channel has ended; detaches the session that lived on it, unless it has others."""
        session = self._pool.session
        if session is None or channel not in session.channels:
            return
        what = f"connection {channel.transport.description} lost: {error}"
        if session.outlives(channel):
            self._trace.event(time.time(), f"{what}; {len(session.channels)} of the session remain")
            self.parted(session)
            return
        self._pool.detach()
        self._survivors.suspend()
        self._trace.event(time.time(), what)
        session.fail(error)

    async def start(self, previous_session_id: int = 0) -> None:
        """Make the first session, which replaces one of a daemon before this one; raises what prevents it."""
        session = await self._connect(previous_session_id)
        self._number(session)
        self._attach(session)

    async def run(self) -> None:
        """Replace every session that is lost, until the pool is closed."""
        while not self._pool.closed:
            if self._pool.session is None:
                await self._reconnect()
            elif self._pool.expired:
                await self._renew(self._pool.session)
            else:
                await self._pool.changed()

    def hurry(self) -> None:
        """End the pause between two attempts."""
        self._impatient.set()

    async def _reconnect(self) -> None:
        """Try until there is a session or the mount ends."""
        attempts = Attempts("reconnecting", trio.current_time(), FIRST_INTERVAL)
        # A server that takes our login and drops us at the first request must not have us log in without a pause.
        await trio.sleep_until(self._not_before)
        hears = False
        while not self._pool.closed:
            tried = trio.current_time()
            try:
                session = await self._connect(self._last_session_id)
                # The login ends the session before, so that a further attempt finds nothing of it.
                hears = hears or session.before_hears
                self._number(session)
                tally = await self._survivors.reclaim(session)
            except (Smb3fsError, OSError) as error:
                self._survivors.suspend()
                await self._pause(attempts, error, tried)
                continue
            self._not_before = tried + QUICK_INTERVAL
            self._attach(session)
            if hears:
                self.doubled(session)
            self._note(session, trio.current_time() - attempts.began, tally)
            return

    def _number(self, session: Session) -> None:
        """Give a session the next number; the one after it will replace it on the server."""
        self._generation += 1
        session.generation = self._generation
        self._last_session_id = session.security.session_id

    def _note(self, session: Session, seconds: float, tally: Tally) -> None:
        """Count a recovery, and tell of it."""
        self.tally.add(tally)
        self.latest = seconds
        self.longest = max(self.longest, seconds)
        self.returns += 1
        self._trace.reconnects += 1
        what = f", {tally}" if tally else ""
        self._trace.event(
            time.time(), f"reconnected after {seconds:.1f} s: {session.channel.transport.description}{what}"
        )

    async def _renew(self, session: Session) -> None:
        """Try until the session is as good as before, is lost, or the mount ends."""
        attempts = Attempts("renewing the session", trio.current_time())
        await trio.sleep_until(self._not_before)
        while self._pool.session is session and not self._pool.closed:
            tried = trio.current_time()
            try:
                await self._renew_session(session)
            except (Smb3fsError, OSError) as error:
                if not session.lives:
                    return  # what was open in it is lost; a new session will be made
                await self._pause(attempts, error, tried)
                continue
            self._not_before = tried + QUICK_INTERVAL
            if self._pool.session is session:
                self._pool.renew()
            self._trace.event(
                time.time(), f"the session had expired and was renewed in {trio.current_time() - attempts.began:.1f} s"
            )
            return

    async def _pause(self, attempts: Attempts, error: Smb3fsError | OSError, tried: float) -> None:
        """Say that an attempt failed, and wait for the next one, unless that has been done."""
        refused = _refuses_login(error)
        attempts.count(refused)
        self.failures += 1
        interval = pause(error, attempts.refusals if refused else attempts.failures, tried - attempts.began)
        interval = 0.0 if isinstance(error, NotReadyError) else max(interval, attempts.shortest)
        if attempts.failures == 1 or interval > QUICK_INTERVAL:
            self._trace.error(time.time(), f"{attempts.what} failed, next attempt in {interval:.1f} s: {error}")
        await self._wait(tried + interval, look=refused)

    async def _wait(self, until: float, *, look: bool) -> None:
        """Wait for the next attempt; `look` for another password, which may be tried at once."""
        self._impatient = trio.Event()
        while (left := until - trio.current_time()) > 0 and not self._pool.closed:
            with trio.move_on_after(min(left, ROTATION_INTERVAL) if look else left):
                await self._impatient.wait()
                return
            if look and await self._rotated():
                return

    def _attach(self, session: Session) -> None:
        """Let the traffic flow on a session, unless it was lost in the meantime or the mount is being closed."""
        if session.lives and not self._pool.closed:
            self._pool.attach(session)


def _refuses_login(error: BaseException) -> bool:
    """Whether a login was refused, by the server or by one to which a DFS link led."""
    if isinstance(error, LinkError):
        return any(_refuses_login(failure) for _, failure in error.failures)
    if isinstance(error, AuthenticationError):
        return error.refused
    return isinstance(error, StatusError) and error.status in LOGIN_REFUSED


def pause(error: BaseException, failures: int, elapsed: float) -> float:
    """Return how many seconds lie between the beginnings of two attempts, `elapsed` seconds after the loss."""
    if _refuses_login(error):
        return min(REFUSED_INTERVAL * (1 << min(failures - 1, 10)), LONGEST_REFUSED)
    if elapsed < QUICK_PERIOD:
        return min(max(FIRST_INTERVAL, INTERVAL_SHARE * elapsed), QUICK_INTERVAL)
    # Jitter keeps a thousand clients of one server from coming back in step.
    slower = min(QUICK_INTERVAL * (1 << min(failures, 10)), LONGEST_INTERVAL)
    return slower * random.uniform(0.75, 1.25)  # noqa: S311 (not a secret)
