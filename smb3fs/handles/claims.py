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
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import trio

from smb3fs.channels.session import Session
from smb3fs.connection import Answer
from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, WireError, status_name
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Durability, Open, OpenTable
from smb3fs.wire.create import CreateContext, CreateOptions, CreateRequest, CreateResponse, Disposition, FileId
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
# Seconds between two attempts at what the server is not ready for: first, and at most.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5


@dataclass(slots=True)
class Tally:
    """How many opens fell into which state."""

    claimed: int = 0
    reopened: int = 0
    lost: int = 0
    example: str = ""
    """One that was lost, and why."""

    def __bool__(self) -> bool:
        """Whether there was anything."""
        return bool(self.claimed or self.reopened or self.lost)

    def __str__(self) -> str:
        """Write it for the log."""
        told = f"{self.claimed} handles claimed, {self.reopened} reopened, {self.lost} lost"
        return f"{told}, for one {self.example}" if self.example else told

    def add(self, other: Tally) -> None:
        """Count another one in."""
        self.claimed += other.claimed
        self.reopened += other.reopened
        self.lost += other.lost


class Claims:
    """Brings the opens of one line over. Times are in seconds of trio's clock."""

    def __init__(
        self,
        opens: OpenTable,
        reopen: Callable[[Session, Open], Awaitable[Open]],
        *,
        patience: float,
    ) -> None:
        """`reopen` opens by name, with the same access, what an open was about, or raises the server's refusal.

        `patience` bounds the time that one open may take, for which all traffic is held up.
        """
        self._opens = opens
        self._reopen = reopen
        self._patience = patience

    def suspend(self) -> None:
        """Take notice that the session is gone."""
        self._opens.leases.suspended()

    async def reclaim(self, session: Session) -> Tally:
        """Bring everything over; raises ConnectionLost if the session dies before that is done."""
        tally = Tally()
        # Whoever was granted an open at the last moment may enter it only now.
        while handles := self._opens.of_earlier_sessions(session.generation):
            failures: list[Smb3fsError] = []

            async def bring_over(handle: Open, failures: list[Smb3fsError] = failures) -> None:
                try:
                    await self._bring_over(session, handle, tally)
                except (ConnectionLost, WireError) as error:
                    # The others learn of it from the channel. None of them is cancelled, which would close its open.
                    session.channel.fail(error)
                    failures.append(error)

            async with trio.open_nursery() as nursery:
                for handle in handles:
                    nursery.start_soon(bring_over, handle)
            if failures:
                raise ConnectionLost(str(failures[0])) from failures[0]
        return tally

    async def _bring_over(self, session: Session, handle: Open, tally: Tally) -> None:
        """Bring one open over, or find it lost."""
        wrong = "the server did not answer in time"
        with trio.move_on_after(self._patience):
            wrong = await self._claim(session, handle) if handle.durability else "it was not durable"
            if not wrong:
                tally.claimed += 1
                return
            if not handle.closed:
                refusal, wrong = wrong, _unprovable(handle) or await self._open_anew(session, handle)
                if not wrong:
                    tally.reopened += 1
                    return
                wrong = f"{refusal}, and {wrong}"
        if handle.closed:
            self._opens.forget(handle)
            return
        self._opens.lose(handle, wrong)
        tally.lost += 1
        tally.example = f"{handle.path}: {wrong}"
        log.info("%s cannot be used any more: %s", handle.path, wrong)

    # -- claiming

    async def _claim(self, session: Session, handle: Open) -> str:
        """Claim an open; return the server's refusal, or nothing."""
        answer = await answer_when_ready(session, self._claiming(handle))
        _check_alive(answer)
        if answer.status != Status.SUCCESS:
            return f"the server does not give it back ({status_name(answer.status)})"
        told = CreateResponse.parse(answer.pdu)
        handle.file_id.persistent, handle.file_id.volatile = told.file_id
        handle.generation = session.generation
        handle.posix = any(context.name == POSIX_GUID for context in told.contexts)
        handle.seen = _updated(handle.seen, told)
        acknowledgement = self._opens.leases.regranted(handle, told.contexts)
        if acknowledgement is not None:
            session.post([acknowledgement])
        self._opens.note(handle)
        if handle.closed:
            session.post([CloseRequest(handle.file_id)], lambda: self._opens.forget(handle))
        elif handle.ledger is not None and any(context.name == POSIX_GUID for context in handle.request.contexts):
            # What is given back is an open without the POSIX extensions. Their locks are in everybody's way there, its
            # own included, and cannot be unlocked but by this.
            session.post([CloseRequest(handle.file_id)])
            return "the server has given it back under other rules for locks"
        return ""

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
        if _state(fresh.seen) != _state(handle.seen):
            session.post([CloseRequest(fresh.file_id)])
            return "the file was changed or replaced meanwhile"
        handle.file_id.persistent, handle.file_id.volatile = fresh.file_id
        handle.generation = session.generation
        handle.request, handle.create_guid, handle.durability = fresh.request, fresh.create_guid, fresh.durability
        handle.posix, handle.seen = fresh.posix, fresh.seen
        self._opens.note(handle)
        return ""


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


def _unprovable(handle: Open) -> str:
    """Return why it could not be proved that the file behind an open is the same, or nothing."""
    if handle.in_doubt:
        return "nobody knows what became of a change"
    if handle.ledger is not None and handle.ledger.pieces:
        return "others may have had what it had locked"
    if handle.request.create_options & CreateOptions.DELETE_ON_CLOSE:
        return "its file was to be deleted"
    if handle.request.create_options & CreateOptions.DIRECTORY_FILE:
        return "the server has forgotten how far its listing had come"
    if not all(_state(handle.seen)):
        return "the server has not told what it was like after the last change"
    return ""


def _state(seen: FileAttributes) -> tuple[int, int, int, int]:
    """Return what shows whether two answers are about the same contents; times are 0 where they are not known."""
    # The size of an empty file is as good as any other.
    return seen.file_id, seen.size + 1, seen.modified, seen.changed


def _updated(seen: FileAttributes, told: CreateResponse) -> FileAttributes:
    """Return what is known of a file after an answer to CREATE."""
    now = FileAttributes.from_create(told, seen.file_id, seen.links)
    return seen._replace(
        size=now.size, allocation=now.allocation, accessed=now.accessed, modified=now.modified, changed=now.changed
    )
