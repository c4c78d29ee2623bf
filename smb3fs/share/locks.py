"""Verbs about locks on ranges of bytes. They belong to a handle, and are in everybody else's way ([MS-FSA] 2.1.4.10).

Whoever asks for one of these learns what was done even if it is cancelled meanwhile, and notices its cancellation only
afterwards: a lock that nobody knows of would stay for as long as the handle does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Status
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.lock_requests import element_of, has_locked, request_for, sure_of_locks
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import Chains, raise_first
from smb3fs.wire.lock import FAIL_IMMEDIATELY, LockRequest

# That somebody has a lock that is in the way; servers have two ways to say it.
IN_THE_WAY: Final = frozenset({Status.LOCK_NOT_GRANTED, Status.FILE_LOCK_CONFLICT})
# What becomes of a request that is taken back; smbd says the second where the file is closed meanwhile.
TAKEN_BACK: Final = frozenset({Status.CANCELLED, Status.RANGE_NOT_LOCKED})


@dataclass(slots=True)
class WaitingLock(LockRequest):
    """A LOCK that waits, but not when it is repeated after a loss: what it waits for may be what it was granted."""

    handle: Open = field(kw_only=True)
    generation: int = field(kw_only=True)

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        if self.handle.generation == self.generation:
            return LockRequest.encode(self)
        at_once = [one._replace(flags=one.flags | FAIL_IMMEDIATELY) for one in self.elements]
        return LockRequest(self.file_id, at_once, self.sequence).encode()


class Locks(Chains):
    """What can be locked and unlocked."""

    async def change_locks(self, handle: Open, steps: Sequence[Step]) -> list[int]:
        """Take the steps one after the other in one round trip, whatever becomes of each; return their statuses."""
        session = handle.generation
        answers = await self._take(handle, [request_for(handle, step) for step in steps])
        statuses = [answer.status for answer in answers]
        if handle.generation == session:
            return statuses
        for number, step in enumerate(steps):
            granted = statuses[number] == Status.SUCCESS
            # By POSIX's rules our own locks are in nobody's way here, and an unlock would take those away as well.
            refused = statuses[number] in IN_THE_WAY and not handle.posix
            if step.unlocks or not (granted or refused) or (granted and sure_of_locks(handle)):
                continue
            held = await self._has_locked(handle, step.pieces)
            statuses[number] = Status.SUCCESS if held else Status.LOCK_NOT_GRANTED
        return statuses

    async def wait_for_lock(self, handle: Open, piece: Piece) -> bool:
        """Wait until a range can be locked, for as long as it takes; False if the wait was ended before.

        True may come to a caller that is cancelled: the lock is there then.
        """
        session = handle.generation
        chain = [WaitingLock(handle.file_id, [element_of(piece)], handle=handle, generation=session)]
        (answer,) = await self._take(handle, chain)
        if answer.status in TAKEN_BACK:
            return False
        if answer.status in IN_THE_WAY and handle.generation != session:
            return await self._has_locked(handle, [piece])
        raise_first(chain, [answer])
        return handle.generation == session or sure_of_locks(handle) or await self._has_locked(handle, [piece])

    async def is_lockable(self, handle: Open, pieces: Sequence[Piece]) -> bool:
        """Whether ranges could be locked just now: they are, and unlocked in the same round trip."""
        chain = [request_for(handle, Step(pieces)), request_for(handle, Step(pieces, unlocks=True))]
        locked, unlocked = await self._take(handle, chain)
        if locked.status in IN_THE_WAY:
            return False
        raise_first(chain, [locked, unlocked])
        return True

    async def _has_locked(self, handle: Open, pieces: Sequence[Piece]) -> bool:
        """Whether a handle has pieces locked that were asked for before a loss; what it has of them goes if not all.

        The answer to a repetition is that of the first time, and what was locked then may be others' by now. Or the
        server has forgotten the first time with the process that was killed over it, and what is in the way of the
        repetition is our own lock. Another loss on the way has it proved anew.
        """
        while True:
            session = handle.generation
            if not await has_locked(partial(self._take, handle), handle, pieces):
                await self._take(handle, [request_for(handle, Step([piece], unlocks=True)) for piece in pieces])
                return False
            if handle.generation == session:
                return True

    async def _take(self, handle: Open, chain: Sequence[LockRequest]) -> list[Answer]:
        """Send a chain of LOCKs and stay for the answers; a repetition is recognised where the server promised to.

        Servers look at the sequence only in requests on handles that last ([MS-SMB2] 3.3.5.14). On others a LOCK whose
        answer was lost is not sent again: a second one may be in the way of the first. No LOCK changes the file: where
        the open is lost and made anew, what it had locked went with it.
        """
        if handle.durability < Durability.DURABLE_V2:
            return await self._pool.see_through(chain, handle, Repeat.NEVER, changes=False)
        for request in chain:
            request.sequence = handle.lock_sequence.take()
        repeat = Repeat.REPLAY if all(request.sequence for request in chain) else Repeat.NEVER
        answers = await self._pool.see_through(chain, handle, repeat, changes=False)
        for request in chain:
            handle.lock_sequence.give_back(request.sequence)
        return answers
