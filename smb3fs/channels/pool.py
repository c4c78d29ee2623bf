"""The one place where a request finds a session to travel on.

The pool reports losses and holds traffic back while there is no session; it recovers nothing itself. Each session has a
generation number, by which a handle of an earlier one is recognised.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.late_reads import LateReads, Told
from smb3fs.channels.session import Session
from smb3fs.connection import Answer, Exchange
from smb3fs.errors import ConnectionLost, Smb3fsError, Status
from smb3fs.wire.header import Request

# The server has lost what the session stands on; nothing of such a request was carried out.
SESSION_GONE: Final = frozenset({Status.USER_SESSION_DELETED, Status.NETWORK_NAME_DELETED})
# Answers to a repeated CREATE that leave open what became of the first one.
UNDECIDED: Final = frozenset({Status.FILE_NOT_AVAILABLE, Status.DUPLICATE_OBJECTID})
# Seconds for which a server that has seen the session end may say so of a CREATE of that session: later it always will.
# Samba has a note that such a CREATE is under way, and if its process is killed nobody takes that away.
UNDECIDED_PATIENCE: Final = 0.5
# Seconds between two attempts at what the server is not ready for.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0
# Of so many CREATEs that were lost with a channel it is remembered.
MOST_LOST: Final = 1000


class Repeat(Enum):
    """What may be done with a chain that was lost on the way, when nobody knows whether the server has carried it out.

    SAFE: doing it twice is the same as doing it once. REPLAY: so it is on an open that outlives the connection. UNIQUE:
    of two only one can succeed, so a success is the only one, and a refusal of the repetition tells nothing. NEVER: its
    caller must learn of the loss.
    """

    SAFE = auto()
    REPLAY = auto()
    UNIQUE = auto()
    NEVER = auto()


class Held(Protocol):
    """What is valid in one session: an open, or the session itself."""

    @property
    def generation(self) -> int:
        """The number of that session."""


class Handle(Held, Protocol):
    """An open, and how many changes were sent on it of which nobody knows whether they were carried out."""

    doubts: int


class Pool:
    """The mount's current session, or the wait for the next one."""

    def __init__(self, repeats: int | None = None, patience: float = math.inf) -> None:
        """`repeats` is how often a lost request is sent again at most; None stands for as often as it takes.

        `patience` is how many seconds those wait for a session whom nobody can cancel.
        """
        self._repeats = math.inf if repeats is None else repeats
        self._patience = patience
        self.generation = 0
        self.session: Session | None = None
        self.expired = False
        """Whether the session waits for a new login, which all but those who close their files must wait for."""
        self.closed = False
        self.lost_creates: deque[tuple[Session, Request]] = deque(maxlen=MOST_LOST)
        """CREATEs that were lost with a channel of a session that goes on: the server may carry them out yet."""
        # Takes notice of CREATEs that were sent, and whose callers have given up between two sessions.
        self.forsake: Callable[[Sequence[Request]], None] = lambda _: None
        self._late: LateReads | None = None
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

    def attempts(self) -> Iterator[int]:
        """Count the attempts that may be made at something: the first one, and so many more as are lost."""
        attempt = 0
        while attempt <= self._repeats and not self.closed:
            yield attempt
            attempt += 1

    async def ready(self, handle: Held | None = None, patience: float = math.inf) -> Session:
        """Return the current session, waiting for one if need be; bounded by the deadline or `patience`.

        What is open may be claimed in the next session; ConnectionLost says that a `handle` was not, or may yet be.
        """
        while self.session is None or self.expired:
            if self.closed:
                raise ConnectionLost("the mount is being closed", sent=False)
            with trio.move_on_after(patience) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                raise ConnectionLost("the connection did not come back in time", sent=False)
        if handle is not None and self.generation != handle.generation:
            raise _unclaimed()
        return self.session

    async def call(
        self,
        requests: Sequence[Request],
        *,
        handle: Handle | None = None,
        repeat: Repeat = Repeat.NEVER,
        check: Callable[[], None] | None = None,
        channel: Channel | None = None,
    ) -> tuple[Session, list[Answer]]:
        """Send a chain and return its answers with the session that carried them.

        `handle` is the open that they refer to, if any; they make sense only where it is valid. What is lost on the way
        is sent again if nothing of it can have been carried out, or if `repeat` permits; otherwise ConnectionLost is
        raised, as it is when the handle does not outlive the connection.

        `check` is called when there is a session, each time before anything is sent, and raises an OSError for what
        must not be sent in it. It goes by the `channel` that the session has allotted for it, if that still lives.
        """
        send = Session.call if channel is None else partial(Session.call, preferred=channel)
        return await self._persist(requests, handle, repeat, send, check=check)

    async def see_through(
        self, requests: Sequence[Request], handle: Handle, repeat: Repeat = Repeat.REPLAY, *, changes: bool = True
    ) -> list[Answer]:
        """Send a chain to a handle, and stay for its answers even when cancelled.

        So the caller knows what was done. ConnectionLost says that nobody does, or that the handle is gone, and all it
        stood for. What `changes` nothing of the file leaves no doubt about that if it is lost.
        """
        return (await self._persist(requests, handle, repeat, Session.see_through, self._patience, changes=changes))[1]

    async def _persist(
        self,
        requests: Sequence[Request],
        handle: Handle | None,
        repeat: Repeat,
        send: Callable[..., Awaitable[list[Answer]]],
        patience: float = math.inf,
        check: Callable[[], None] | None = None,
        *,
        changes: bool = True,
    ) -> tuple[Session, list[Answer]]:
        """Send a chain until it is answered, or may not be sent again."""
        lost, repeated, replay, pause = 0, False, False, FIRST_PAUSE
        while True:
            session = None
            try:
                session = await self.ready(handle, patience)
                if check is not None:
                    check()
                answers = await send(session, requests, replay=replay)
            except trio.Cancelled:
                if not repeated or patience == math.inf:
                    raise
                # Between two sessions there is nobody to ask. The caller's next checkpoint is where it is cancelled.
                raise ConnectionLost("the caller gave up before the connection came back") from None
            except ConnectionLost as error:
                if session is None:
                    raise
                if error.sent and handle is not None and repeat is not Repeat.SAFE and not replay:
                    handle.doubts += changes
                forbidden = repeat is Repeat.NEVER or (repeat is Repeat.REPLAY and handle is None)
                if lost >= self._repeats or (error.sent and forbidden):
                    if error.sent:
                        # Whoever learns of the loss takes it that the server does nothing more of this.
                        session.fail(error)
                    raise
                lost += 1
                repeated = repeated or error.sent
                replay = repeated and handle is not None
                await self._leave(session)
                continue
            if self._refuses(session, answers[0].status):
                # On the next session, or the renewed one, it is done for the first time.
                await self._leave(session)
                continue
            if handle is None and answers[0].status == Status.FILE_NOT_AVAILABLE:
                # The server keeps the file for somebody who has lost the connection and not come back yet, as we may
                # have ourselves: nothing of the chain was done.
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if repeated and repeat is Repeat.UNIQUE and answers[0].status != Status.SUCCESS:
                raise ConnectionLost("the connection was lost, and nobody knows whether it was done before that")
            if handle is not None and repeat is Repeat.REPLAY:
                if any(answer.status == Status.FILE_NOT_AVAILABLE for answer in answers):
                    # The server still works on what was sent before a loss ([MS-SMB2] 3.2.5.11, 3.2.5.12, 3.2.5.14).
                    handle.doubts += changes and not replay
                    replay = True
                    await trio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                handle.doubts -= changes and replay
            return session, answers

    def _refuses(self, session: Session, status: int) -> bool:
        """Whether a status says that the server has refused a chain as a whole since it does not take the session."""
        if status == Status.NETWORK_SESSION_EXPIRED:
            # What the chain carries of the session will be good again.
            self.expire(session)
            return True
        if status in SESSION_GONE:
            session.fail(_gone(status))
            return True
        return False

    async def create(
        self, request: Request, renewed: Callable[[Session], Request] | None = None
    ) -> tuple[Session, Answer, bool]:
        """Send a CREATE by itself until it is answered; True says that it was sent more than once.

        If it carries a CreateGuid, the server recognises it and gives the answer of the first time ([MS-SMB2]
        3.3.5.9.10). That is so only as long as nobody has used the open: whatever else belongs to it must wait. If the
        answer is one of `UNDECIDED` after all, the session in which it was sent first is gone, and nobody knows.
        One that was put off may have made the file all the same: that its name is taken then is told as if it was lost.

        `renewed` is what to send in a session in place of what was sent in the one before, if it may have arrived.
        """
        unanswered: list[Request] = []
        try:
            return await self._create(request, renewed, unanswered)
        except trio.Cancelled:
            if unanswered:
                # What is under way now is the channel's to close; what was lost before, somebody has to ask for.
                self.forsake(unanswered)
                self._notify()
            raise

    async def _create(
        self, request: Request, renewed: Callable[[Session], Request] | None, unanswered: list[Request]
    ) -> tuple[Session, Answer, bool]:
        """Do so; `unanswered` is what was sent and lost on the way."""
        lost, repeated, replay, pause = 0, False, False, FIRST_PAUSE
        gone, limit, put_off, sent_in = False, math.inf, False, 0
        while True:
            session = await self.ready()
            if repeated and renewed is not None and session.generation != sent_in:
                again = renewed(session)
                request, replay = again, replay and again is request
            sent_in = session.generation
            try:
                (answer,) = await session.call([request], replay=replay)
            except ConnectionLost as error:
                if lost >= self._repeats:
                    raise
                lost += 1
                repeated = replay = repeated or error.sent
                if error.sent and request not in unanswered:
                    unanswered.append(request)
                await self._leave(session)
                gone, limit = gone or not session.lives, math.inf
                if error.sent and session.lives:
                    self.lost_creates.append((session, request))
                continue
            if self._refuses(session, answer.status):
                await self._leave(session)
            elif answer.status == Status.FILE_NOT_AVAILABLE and not repeated:
                # The server keeps the file for somebody who has lost the connection and not come back yet. Samba has
                # made a new one by then, whose number it keeps for what had it before.
                put_off = True
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            elif repeated and answer.status in UNDECIDED and trio.current_time() < limit:
                limit = min(limit, trio.current_time() + UNDECIDED_PATIENCE) if gone else math.inf
                # Either the first one is still under way, or a server that would keep the open for good has no record
                # of it, so that it never arrived. Without the flag it is carried out in the second case, and only then.
                replay = answer.status == Status.DUPLICATE_OBJECTID or not replay
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return session, answer, repeated or (put_off and answer.status == Status.OBJECT_NAME_COLLISION)

    def ask_ahead(
        self,
        requests: Sequence[Request],
        handle: Held,
        told: Callable[[Sequence[Answer | None] | None], None],
        channel: Channel | None = None,
        *,
        hurry: bool = True,
    ) -> bool:
        """Send a chain whose answers somebody may come to need; False, and nothing is sent, if this is not the time.

        `told` is called once, with the answers, or with None if there will be none. It takes the `channel` that the
        session has allotted for it, if it has. For `hurry` see `Channel.post`.
        """
        session = self.session
        if session is None or self.expired or self.generation != handle.generation:
            return False
        if not session.lives or session.short_of_credits or not session.affords(requests):
            return False
        session.begin(requests, told, channel, hurry=hurry)
        return True

    def read_ahead(
        self,
        request: Request,
        handle: Held,
        told: Callable[[Sequence[Answer | None] | None], None],
        channel: Channel | None = None,
    ) -> bool:
        """Do as `ask_ahead` does with what may be done twice; what is late or lost a sibling is asked for."""
        session = self.session
        if session is None or channel is None or not session.lanes:
            return self.ask_ahead([request], handle, told, channel)
        if self._late is None or self._late.session is not session:
            self._late = LateReads(session)

        def ask(came: Told, channel: Channel) -> bool:
            return session is self.session and self.ask_ahead([request], handle, came, channel)

        return self._late.begin(request.credit_size, channel, told, ask, trio.current_time())

    def look_after_late_reads(self) -> None:
        """Ask siblings for what was read ahead and is long overdue."""
        if self._late is not None and self._late.session is self.session:
            self._late.look(trio.current_time())

    def begin(self, requests: Sequence[Request], handle: Handle) -> Exchange:
        """Send a chain ahead of the need for its answers; raises ConnectionLost if its session is gone."""
        return self._session_of(handle).begin(requests)

    async def collect(self, exchange: Exchange, handle: Handle) -> list[Answer]:
        """Return the answers to a chain that was sent ahead; raises ConnectionLost if its session is gone."""
        session = self._session_of(handle)
        answers = await session.collect(exchange)
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
            raise _unclaimed()
        return self.session

    async def _leave(self, session: Session) -> None:
        """Wait until a session that failed has been detached; one that has expired is waited for elsewhere.

        Where only one of its channels has failed, the others are there to go on with.
        """
        if session.lives:
            await trio.lowlevel.checkpoint()
        while self.session is session and not self.expired and not session.lives:
            await self._changed.wait()


def _gone(status: int) -> Smb3fsError:
    """Return the reason for giving up a session that the server no longer knows."""
    return ConnectionLost(f"the server no longer knows the session ({Status(status).name})")


def _unclaimed() -> ConnectionLost:
    """Return what befalls those who use a handle that the server no longer knows."""
    return ConnectionLost("the file was opened on a connection that is gone", sent=False)
