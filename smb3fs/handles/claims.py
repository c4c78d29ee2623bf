"""Bringing open handles over into a new session, after the one in which they were made is lost ([MS-SMB2] 3.2.4.4).

Theory of operation. Whatever is open falls into one of three states before any traffic flows on the new session:

    claimed    The server has kept the open, with its locks and its lease, and gives it back under another file id.
    reopened   The server has not, or was never asked to. The file is opened anew by its name, and the open goes on if
               it is provably the same file and nobody has changed it: the server's last answer about it says so,
               nothing was sent after that which changes it, and no lock was held, which others could have had since.
    lost       Neither is so. Every use of it is an error from now on.

A claim is a CREATE with the file's name, the context that claims, the lease's context if there was a lease, and nothing
else: servers take any other for a reason to refuse. Which state an open falls into is decided by the server's answers
alone. If the session dies on the way, what it has given back counts for nothing, and all begins again with the next
one; what was refused stays so. Claims run side by side in any order, as many as there are credits for.

What was closed here, but may be open there since nobody has seen the answer to its CLOSE, is claimed to be closed.

Where much was promised for good a few are claimed ahead of the others: a server that is not ready refuses them all, and
may forget for it what it refuses (decision 0039).

In which order they are sent, and which breaks are ended before, see `handles.claim_order`.

What was renamed while it was open, and is given back by its old name alone, is claimed by that: see `handles.renamed`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import trio

from smb3fs.channels.session import Session
from smb3fs.connection import Answer
from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, WireError, status_name
from smb3fs.handles.claim_order import end_break, end_other_breaks, in_order
from smb3fs.handles.claim_results import LATE, NAMED, NOT_DURABLE, OTHER_RULES, ROBBED, Refusal, Tally
from smb3fs.handles.ledger import Ledger
from smb3fs.handles.lock_requests import has_locked, sure_of_locks
from smb3fs.handles.opens import Durability, Open, OpenTable
from smb3fs.handles.provable import scouts, state_of, sure_to_be_kept, unprovable, updated
from smb3fs.handles.renamed import SecondNames, names_of
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition, FileId
from smb3fs.wire.durable import (
    DURABLE_HANDLE_RECONNECT,
    DURABLE_HANDLE_RECONNECT_V2,
    PERSISTENT,
    DurableHandleReconnect,
    DurableHandleReconnectV2,
)
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.posix import POSIX_GUID

log = logging.getLogger(__name__)

T = TypeVar("T")

# The session that the claims are made in has died, or will be of no use.
DIED: Final = frozenset(
    {
        Status.USER_SESSION_DELETED,
        Status.NETWORK_NAME_DELETED,
        Status.NETWORK_SESSION_EXPIRED,
    }
)
# The server is not ready: it has not finished with the old session, or has too much to do ([MS-SMB2] 3.2.5.12).
NOT_YET: Final = frozenset({Status.FILE_NOT_AVAILABLE, Status.INSUFFICIENT_RESOURCES, Status.NETWORK_BUSY})
# The server has no such open, or nothing to do with it as long as it serves the connection in which it was made: Samba
# hands a connection to the process that serves the ClientGuid, and gives nothing back that a living process has.
NOT_FOUND: Final = frozenset({Status.OBJECT_NAME_NOT_FOUND})
# Seconds for which it is tried anew if nothing is given back and that session was there still: longer than what is
# under way takes to come to an end on a machine that has much to do. What was in that session is hardly ever gone.
STANDING: Final = 10.0
# The same if it was not there any more, and what had been promised to be kept for good is not given back.
LINGERING: Final = 1.5
# ... and where it had not been promised for good.
BRIEFLY: Final = 0.5
# Seconds from the end of a session that was of no use to the next one, at first and at most, and between these as a
# share of the time that it has been tried for: the process that was handed its connection has to hear of the end, and
# to come to its own, before it is handed another one.
SETTLING: Final = 0.15
LONGEST_SETTLING: Final = 1.0
SETTLING_SHARE: Final = 0.25
# So many are claimed ahead of the others, one after the other until one is given back; after so many seconds of asking
# in vain one more in each attempt, another one each time: those may be the very ones that the server has forgotten.
SCOUTS: Final = 2
IN_VAIN: Final = 1.5
# Seconds before each further attempt at what is not given back while other things are.
AGAIN: Final = (0.05, 0.2, 0.5)
# Seconds that it may take to remove the names that files were given for their claims, for which all traffic waits.
NAMING: Final = 2.0
# Seconds between two attempts at what the server is not ready for: first, and at most.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5


class NotReadyError(ConnectionLost):
    """A session was of no use since the server is not done with the one before, which has been waited for already."""


class Claims:
    """Brings the opens of one line over. Times are in seconds of trio's clock."""

    def __init__(
        self,
        opens: OpenTable,
        reopen: Callable[[Session, Open], Awaitable[Open]],
        *,
        patience: float,
        second_names: SecondNames | None = None,
    ) -> None:
        """`reopen` opens by name, with the same access, what an open was about, or raises the server's refusal.

        `second_names` are those that files are given while what is open of them is claimed. `patience` bounds the time
        that one open may take, for which all traffic is held up.
        """
        self._opens = opens
        self._reopen = reopen
        self._names = second_names if second_names is not None else SecondNames(None, opens.leases)
        self._patience = patience
        # Until when a server is given time to come to an end with the connection that was lost, if it has to.
        self._wait_until = -math.inf
        self._waiting_since: float | None = None
        # How many attempts have been made in vain for longer than `IN_VAIN`.
        self._long_tried = 0
        # When the session was lost in which everything was still open.
        self._lost_at: float | None = None

    def suspend(self) -> None:
        """Take notice that the session is gone."""
        if self._lost_at is None:
            self._lost_at = trio.current_time()
        self._opens.leases.suspended()

    async def reclaim(self, session: Session) -> Tally:
        """Bring everything over; raises ConnectionLost if the session dies before that is done, or is of no use."""
        tally = Tally()
        self._note_patience(session)
        ended: set[bytes] = set()
        # Whoever was granted an open at the last moment may enter it only now.
        while handles := self._opens.of_earlier_sessions(session.generation):
            limit = trio.current_time() + self._patience
            refusals: dict[Open, Refusal] = {}

            async def claim(handle: Open, limit: float = limit, refusals: dict[Open, Refusal] = refusals) -> None:
                refusal: Refusal | None = LATE
                names = names_of(handle)
                if names is not None and names.kept in self._names:
                    refusals[handle] = NAMED
                    return
                with trio.CancelScope(deadline=limit):
                    end_break(session, handle, ended)
                    refusal = await self._claim(session, handle) if handle.durability else NOT_DURABLE
                    if refusal is not None and refusal.status and handle.moving_to:
                        # The rename may have been carried out, and its answer be lost.
                        refusal = await self._claim(session, handle, handle.moving_to)
                if refusal is not None:
                    refusals[handle] = refusal

            async def give_up(handle: Open, limit: float = limit, refusals: dict[Open, Refusal] = refusals) -> None:
                await self._do_without(session, handle, refusals[handle], limit, tally)

            handles = in_order(handles)
            ahead = await self._claim_ahead(session, handles, refusals, claim)
            await _side_by_side(session, [one for one in handles if one not in ahead], claim)
            await _claim_again(session, handles, refusals, claim)
            await self._claim_renamed(session, handles, refusals, limit)
            await self._check_standing(session, handles, refusals)
            tally.claimed += len(handles) - len(refusals)
            await _side_by_side(session, list(refusals), give_up)
        self._waiting_since, self._long_tried, self._lost_at = None, 0, None
        if not self._promised:
            # What is gone with its process is not given back however long that is waited for.
            self._wait_until = -math.inf
        await self._take_names_away(session)
        end_other_breaks(session, self._opens.leases)
        return tally

    def _note_patience(self, session: Session) -> None:
        """Set until when another session is tried if this one is given nothing back."""
        if self._waiting_since is not None:
            return
        patience = STANDING if session.before_stood else LINGERING if self._promised else BRIEFLY
        # The process may outlast this session as well, should that be lost soon.
        self._wait_until = max(self._wait_until, trio.current_time() + patience)

    @property
    def _promised(self) -> bool:
        """Whether the server has promised to keep anything for good."""
        return any(handle.durability == Durability.PERSISTENT for handle in self._opens)

    @property
    def _patient(self) -> bool:
        """Whether another session is tried if this one is given nothing back: once at least."""
        return self._waiting_since is None or trio.current_time() < self._wait_until

    async def _claim_ahead(
        self,
        session: Session,
        handles: Sequence[Open],
        refusals: Mapping[Open, Refusal],
        claim: Callable[[Open], Awaitable[None]],
    ) -> Sequence[Open]:
        """Claim a few to see whether the server is ready; return them, or raise NotReadyError if it is not.

        To be refused does harm: Samba 4.25 sets the time at which the open lost its connection to nothing, and forgets
        the open when a timer of an earlier loss runs. So it is those that have no such timer in the time that this may
        take, and that can be opened anew by their names.
        """
        first, others = scouts(handles, trio.current_time(), most=SCOUTS, within=STANDING)
        if not self._patient:
            return ()
        if others and self._waiting_since is not None and trio.current_time() > self._waiting_since + IN_VAIN:
            first = [*first, others[self._long_tried % len(others)]]
            self._long_tried += 1
        for number, scout in enumerate(first, 1):
            await _side_by_side(session, [scout], claim)
            if refusals.get(scout, LATE).status not in NOT_FOUND:
                return first[:number]
        if first:
            await self._wait_for_the_end(session)
        return ()

    async def _check_standing(
        self, session: Session, handles: Sequence[Open], refusals: Mapping[Open, Refusal]
    ) -> None:
        """Raise NotReadyError if the server is not done with the connection before, so that another try is due.

        Then it gives nothing back at all. It is given a while to come to an end with it, and one more try at least.
        What has been closed here may have been closed there.
        """
        kept = [handle for handle in handles if handle.durability and not handle.closed]
        unknown = [handle for handle in kept if refusals.get(handle, LATE).status in NOT_FOUND]
        if kept and len(unknown) == len(kept) and self._patient:
            await self._wait_for_the_end(session)

    async def _wait_for_the_end(self, session: Session) -> None:
        """Drop a session that is given nothing back, and wait until it is time for the next; raises NotReadyError."""
        now = trio.current_time()
        if self._waiting_since is None:
            self._waiting_since = now
        error = NotReadyError("the server gives nothing back while it serves the connection before")
        session.fail(error)
        await trio.sleep(min(max(SETTLING, SETTLING_SHARE * (now - self._waiting_since)), LONGEST_SETTLING))
        raise error

    async def _do_without(self, session: Session, handle: Open, refusal: Refusal, limit: float, tally: Tally) -> None:
        """Have an open that was not given back go on by its name until `limit`, or find it lost."""
        if handle.closed:
            if handle.kept_as and handle.lease is not None and handle.lease.path == handle.path:
                # Perhaps it is open there still, by a name that leads nowhere, and lets nobody in without this key.
                self._opens.leases.hold_on_to(handle.lease)
            self._opens.forget(handle)
            return
        wrong = refusal.why
        if refusal is not LATE:
            more = unprovable(handle)
            if not more:
                more = LATE.why
                with trio.CancelScope(deadline=limit):
                    more = await self._open_anew(session, handle)
            if not more:
                tally.reopened += 1
                return
            wrong = f"{wrong}, and {more}"
        self._opens.lose(handle, wrong)
        tally.lost += 1
        tally.robbed += refusal is ROBBED
        tally.example = f"{handle.path}: {wrong}"
        log.info("%s cannot be used any more: %s", handle.path, wrong)

    # -- claiming

    async def _claim_renamed(
        self, session: Session, handles: Sequence[Open], refusals: dict[Open, Refusal], limit: float
    ) -> None:
        """Claim by its old name what was renamed while it was open; take out of the refusals what is given back."""
        known = [one for one in handles if one.durability and not one.closed and names_of(one) is None]
        if known and all(refusals.get(one, LATE).status in NOT_FOUND for one in known):
            return  # the server gives nothing back at all
        unknown = [handle for handle, refusal in refusals.items() if refusal.status in NOT_FOUND]
        results: dict[Open, Refusal | None] = {}
        with trio.CancelScope(deadline=limit):
            results = await _or_fail(session, self._names.claim(session, unknown, self._claim))
        for handle, refusal in results.items():
            del refusals[handle]
            if refusal is not None:
                refusals[handle] = refusal

    async def _take_names_away(self, session: Session) -> None:
        """Take away the names that are left, for so long as it may take; the others are tried behind the scenes."""
        if len(self._names):
            with trio.move_on_after(NAMING):
                await _or_fail(session, self._names.take_away(session, hurry=True))

    async def _claim(self, session: Session, handle: Open, name: str = "") -> Refusal | None:
        """Claim an open with its locks, by another name if one is given; return the server's refusal, or nothing."""
        request = self._claiming(handle)
        answer = await answer_when_ready(session, replace(request, name=name) if name else request)
        _check_alive(answer)
        if answer.status != Status.SUCCESS:
            return Refusal(f"the server does not give it back ({status_name(answer.status)})", answer.status)
        told = CreateResponse.parse(answer.pdu)
        handle.file_id.persistent, handle.file_id.volatile = told.file_id
        handle.generation = session.generation
        now = trio.current_time()
        handle.timers.note(now if self._lost_at is None else self._lost_at, now)
        handle.posix = any(context.name == POSIX_GUID for context in told.contexts)
        handle.seen = updated(handle.seen, told)
        acknowledgement = self._opens.leases.regranted(handle, told.contexts)
        if acknowledgement is not None:
            session.post([acknowledgement])
        self._opens.note(handle)
        if handle.closed:
            session.post([CloseRequest(handle.file_id)], lambda: self._opens.forget(handle))
        elif handle.ledger is not None and any(context.name == POSIX_GUID for context in handle.request.contexts):
            # What is given back is an open without the POSIX extensions. Their locks are in everybody's way there, its
            # own included, and cannot be unlocked but by this.
            return _given_up(session, handle, OTHER_RULES)
        elif handle.ledger is not None and not await self._has_locks(session, handle, handle.ledger):
            return _given_up(session, handle, ROBBED)
        return None

    async def _has_locks(self, session: Session, handle: Open, ledger: Ledger) -> bool:
        """Whether an open that was given back has what it had locked."""
        return sure_of_locks(handle) or await has_locked(session.call, handle, ledger.relied_on)

    def _claiming(self, handle: Open) -> CreateRequest:
        """Build the CREATE that claims an open ([MS-SMB2] 3.2.4.4)."""
        file_id = FileId(*handle.file_id)
        if handle.durability == Durability.DURABLE:
            claim = CreateContext(DURABLE_HANDLE_RECONNECT, DurableHandleReconnect(file_id).encode())
        else:
            flags = PERSISTENT if handle.durability == Durability.PERSISTENT else 0
            data = DurableHandleReconnectV2(file_id, handle.create_guid, flags).encode()
            claim = CreateContext(DURABLE_HANDLE_RECONNECT_V2, data)
        leases = self._opens.leases.claims(handle)
        return replace(handle.request, disposition=Disposition.OPEN, contexts=(claim, *leases))

    # -- reopening

    async def _open_anew(self, session: Session, handle: Open) -> str:
        """Open by name what an open was about; return what is wrong with it, or nothing."""
        try:
            fresh = await self._reopen(session, handle)
        except StatusError as error:
            _check_alive(error)
            return f"opening it again is refused ({status_name(error.status)})"
        self._opens.leases.handed_over(fresh, handle)
        self._opens.forget(fresh)
        if state_of(fresh.seen) != state_of(handle.seen):
            session.post([CloseRequest(fresh.file_id)])
            return "the file was changed or replaced meanwhile"
        handle.file_id.persistent, handle.file_id.volatile = fresh.file_id
        handle.generation = session.generation
        handle.request, handle.create_guid, handle.durability = fresh.request, fresh.create_guid, fresh.durability
        handle.posix, handle.seen, handle.kept_as, handle.timers = fresh.posix, fresh.seen, "", fresh.timers
        self._opens.note(handle)
        if handle.closed:
            session.post([CloseRequest(handle.file_id)], lambda: self._opens.forget(handle))
        return ""


def _given_up(session: Session, handle: Open, why: Refusal) -> Refusal:
    """Close an open that was given back and is of no use, so that nobody can take it for one of the session."""
    session.post([CloseRequest(handle.file_id)])
    handle.generation = 0
    return why


async def _claim_again(
    session: Session,
    handles: Sequence[Open],
    refusals: dict[Open, Refusal],
    claim: Callable[[Open], Awaitable[None]],
) -> None:
    """Claim once more what is refused, though it was sure to be kept, while something else is given back.

    The process that had it has come to its end between the one claim and the other, or to that of the connection, if it
    serves the new one as well. If it was about to do so, what was closed may be open there still.
    """
    for pause in AGAIN:
        unknown = [one for one, why in refusals.items() if why.status in NOT_FOUND and names_of(one) is None]
        promised = any(sure_to_be_kept(one) for one in unknown)
        if not promised or all(one in refusals for one in handles if one.durability and not one.closed):
            return
        await trio.sleep(pause)
        for handle in unknown:
            del refusals[handle]
        await _side_by_side(session, unknown, claim)


async def _or_fail(session: Session, doing: Awaitable[T]) -> T:
    """Do something that the others wait for; raises ConnectionLost if the session dies of it."""
    try:
        return await doing
    except (ConnectionLost, WireError) as error:
        session.fail(error)
        raise ConnectionLost(str(error)) from error


async def _side_by_side(session: Session, handles: Sequence[Open], do: Callable[[Open], Awaitable[None]]) -> None:
    """Do something about each open; raises ConnectionLost if the session dies of it."""
    failures: list[Smb3fsError] = []

    async def try_to(handle: Open) -> None:
        try:
            await do(handle)
        except (ConnectionLost, WireError) as error:
            # The others learn of it from the channel. None of them is cancelled, which would close its open.
            session.fail(error)
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(try_to, handle)
            # What it sends first goes ahead of what the next one sends.
            await trio.lowlevel.checkpoint()
    if failures:
        raise ConnectionLost(str(failures[0])) from failures[0]


async def answer_when_ready(session: Session, request: CreateRequest) -> Answer:
    """Return the answer to a claim, which is sent again for as long as the server is not ready for it."""
    pause = FIRST_PAUSE
    while True:
        (answer,) = await session.call([request])
        if answer.status not in NOT_YET:
            return answer
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _check_alive(answer: Answer | StatusError) -> None:
    """Raise ConnectionLost if an answer says that the session is of no use."""
    if answer.status in DIED:
        raise ConnectionLost(f"the server no longer knows the new session ({Status(answer.status).name})")
