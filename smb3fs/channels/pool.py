"""The one place where a request finds a session to travel on.

The pool reports losses and holds traffic back while there is no session; it recovers nothing itself. Each session has a
generation number, by which a handle of an earlier one is recognised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

import trio

from smb3fs.channels.session import Session
from smb3fs.connection import Answer, Exchange
from smb3fs.errors import ConnectionLost, Smb3fsError, Status
from smb3fs.wire.header import Request

# The server has lost what the session stands on; nothing of such a request was carried out.
SESSION_GONE = frozenset({Status.USER_SESSION_DELETED, Status.NETWORK_NAME_DELETED})


class Repeat(Enum):
    """What may be done with a chain that was lost on the way, when nobody knows whether the server has carried it out.

    SAFE: doing it twice is the same as doing it once. REPLAY: so it is on an open that outlives the connection. NEVER:
    its caller must learn of the loss.
    """

    SAFE = auto()
    REPLAY = auto()
    NEVER = auto()


class Held(Protocol):
    """What is valid in one session: an open, or the session itself."""

    @property
    def generation(self) -> int:
        """The number of that session."""


class Pool:
    """The mount's current session, or the wait for the next one."""

    def __init__(self, repeats: int | None = None) -> None:
        """`repeats` is how often a lost request is sent again at most; None stands for as often as it takes."""
        self._repeats = math.inf if repeats is None else repeats
        self.generation = 0
        self.session: Session | None = None
        self.expired = False
        """Whether the session waits for a new login, which all but those who close their files must wait for."""
        self.closed = False
        self._changed = trio.Event()

    def attach(self, session: Session) -> None:
        """Let traffic flow on a new session."""
        self.generation = session.generation
        self.session = session
        self.expired = False
        self._notify()

    def expire(self, session: Session) -> None:
        """Hold traffic back until the session is renewed; what is open in it stays open."""
        if self.session is session and not self.expired:
            self.expired = True
            self._notify()

    def renew(self) -> None:
        """Let traffic flow again on the session that was renewed."""
        self.expired = False
        self._notify()

    def detach(self) -> None:
        """Hold traffic back: the session is gone, and another one may come."""
        self.session = None
        self.expired = False
        self._notify()

    def close(self) -> None:
        """Refuse all traffic for good."""
        self.closed = True
        self.detach()

    def _notify(self) -> None:
        """Wake everyone who waits for a change."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self) -> None:
        """Wait for the next attach, detach or close."""
        await self._changed.wait()

    async def ready(self, handle: Held | None = None) -> Session:
        """Return the current session, waiting for one if need be; the caller's deadline bounds the wait.

        That of a `handle` is there or gone for good, and then ConnectionLost is raised.
        """
        if handle is not None:
            while self.expired and self.generation == handle.generation:
                await self._changed.wait()
            return self._session_of(handle)
        while self.session is None or self.expired:
            if self.closed:
                raise ConnectionLost("the mount is being closed")
            await self._changed.wait()
        return self.session

    async def call(
        self, requests: Sequence[Request], *, handle: Held | None = None, repeat: Repeat = Repeat.NEVER
    ) -> tuple[Session, list[Answer]]:
        """Send a chain and return its answers with the session that carried them.

        `handle` is the open that they refer to, if any; they make sense only on its session. Without one they wait for
        whatever session comes, and what is lost on the way is sent again if `repeat` is SAFE. Raises ConnectionLost
        otherwise.
        """
        lost = 0
        while True:
            session = await self.ready(handle)
            try:
                answers = await session.call(requests)
            except ConnectionLost:
                if repeat is not Repeat.SAFE or handle is not None or lost >= self._repeats:
                    raise
                lost += 1
                await self._leave(session)
                continue
            if answers[0].status == Status.NETWORK_SESSION_EXPIRED:
                # Refused as a whole as well, but what the chain carries of the session will be good again.
                self.expire(session)
                continue
            if answers[0].status in SESSION_GONE:
                # Refused as a whole: on the next session it is done for the first time.
                session.channel.fail(_gone(answers[0].status))
                if handle is not None:
                    raise ConnectionLost("the server has dropped the session that the file was opened in")
                await self._leave(session)
                continue
            return session, answers

    async def see_through(self, requests: Sequence[Request], handle: Held) -> list[Answer]:
        """Send a chain to a handle, and stay for its answers even when cancelled.

        So the caller knows what was done; ConnectionLost says that the handle is gone, and all it stood for.
        """
        session = self._session_of(handle)
        answers = await session.see_through(requests)
        while answers[0].status == Status.NETWORK_SESSION_EXPIRED:
            # Refused as a whole: there is nothing to stay for until the session is renewed.
            self.expire(session)
            session = await self.ready(handle)
            answers = await session.see_through(requests)
        if answers[0].status in SESSION_GONE:
            session.channel.fail(_gone(answers[0].status))
            raise ConnectionLost("the server has dropped the session that the file was opened in")
        return answers

    def begin(self, requests: Sequence[Request], handle: Held) -> Exchange:
        """Send a chain ahead of the need for its answers; raises ConnectionLost if its session is gone."""
        return self._session_of(handle).begin(requests)

    async def collect(self, exchange: Exchange, handle: Held) -> list[Answer]:
        """Return the answers to a chain that was sent ahead; raises ConnectionLost if its session is gone."""
        session = self._session_of(handle)
        answers = await session.channel.collect(exchange)
        if answers[0].status == Status.NETWORK_SESSION_EXPIRED:
            self.expire(session)
            _, answers = await self.call(exchange.requests, handle=handle)
        return answers

    def post(
        self, requests: Sequence[Request], handle: Held, done: Callable[[], None] | None = None, *, hurry: bool = True
    ) -> None:
        """Send a chain that nobody waits for, if its session still lives; `done` is called when it is answered.

        For `hurry` see `Channel.post`.
        """
        if self.session is not None and self.generation == handle.generation:
            self.session.post(requests, done, hurry=hurry)

    def _session_of(self, handle: Held) -> Session:
        """Return the session of a handle, or raise ConnectionLost."""
        if self.session is None or self.generation != handle.generation:
            raise ConnectionLost("the file was opened on a connection that is gone")
        return self.session

    async def _leave(self, session: Session) -> None:
        """Wait until a session that failed has been detached."""
        while self.session is session:
            await self._changed.wait()


def _gone(status: int) -> Smb3fsError:
    """Return the reason for giving up a session that the server no longer knows."""
    return ConnectionLost(f"the server no longer knows the session ({Status(status).name})")
