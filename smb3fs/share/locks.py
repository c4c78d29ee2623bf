"""Verbs about locks on ranges of bytes. They belong to a handle, and are in everybody else's way ([MS-FSA] 2.1.4.10).

Whoever asks for one of these learns what was done even if it is cancelled meanwhile, and notices its cancellation only
afterwards: a lock that nobody knows of would stay for as long as the handle does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Status
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.lock_requests import element_of, has_locked, request_for, sure_of_locks
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import Chains, raise_first
from smb3fs.wire.header import Request
from smb3fs.wire.lock import LockRequest

# That somebody has a lock that is in the way; servers have two ways to say it.
IN_THE_WAY: Final = frozenset({Status.LOCK_NOT_GRANTED, Status.FILE_LOCK_CONFLICT})
# What becomes of a request that is taken back; smbd says the second where the file is closed meanwhile.
TAKEN_BACK: Final = frozenset({Status.CANCELLED, Status.RANGE_NOT_LOCKED})


class Locks(Chains):
    """What can be locked and unlocked."""

    async def change_locks(self, handle: Open, steps: Sequence[Step]) -> list[int]:
        """Take the steps one after the other in one round trip, whatever becomes of each; return their statuses."""
        session = handle.generation
        answers = await self._take(handle, [request_for(handle, step) for step in steps])
        statuses = [answer.status for answer in answers]
        for number, step in enumerate(steps):
            granted = statuses[number] == Status.SUCCESS and not step.unlocks
            if granted and not await self._granted_since(session, handle, step.pieces):
                statuses[number] = Status.LOCK_NOT_GRANTED
        return statuses

    async def wait_for_lock(self, handle: Open, piece: Piece) -> bool:
        """Wait until a range can be locked, for as long as it takes; False if the wait was cancelled before.

        True may come to a caller that is cancelled: the lock is there then.
        """
        session = handle.generation
        chain = [LockRequest(handle.file_id, [element_of(piece)])]
        (answer,) = await self._take(handle, chain)
        if answer.status in TAKEN_BACK:
            return False
        raise_first(chain, [answer])
        return await self._granted_since(session, handle, [piece])

    async def is_lockable(self, handle: Open, pieces: Sequence[Piece]) -> bool:
        """Whether ranges could be locked just now: they are, and unlocked in the same round trip."""
        chain = [request_for(handle, Step(pieces)), request_for(handle, Step(pieces, unlocks=True))]
        locked, unlocked = await self._take(handle, chain)
        if locked.status in IN_THE_WAY:
            return False
        raise_first(chain, [locked, unlocked])
        return True

    async def _granted_since(self, session: int, handle: Open, pieces: Sequence[Piece]) -> bool:
        """Whether what was granted to a request that was sent in a session can be relied on in the present one.

        The answer to a repetition is that of the first time, and what was locked then may be others' by now.
        """
        if handle.generation == session or sure_of_locks(handle):
            return True

        async def call(chain: Sequence[Request]) -> list[Answer]:
            return await self._pool.see_through(chain, handle, Repeat.NEVER)

        if await has_locked(call, handle, pieces):
            return True
        await call([request_for(handle, Step([piece], unlocks=True)) for piece in pieces])
        return False

    async def _take(self, handle: Open, chain: Sequence[LockRequest]) -> list[Answer]:
        """Send a chain of LOCKs and stay for the answers; a repetition is recognised where the server promised to.

        Servers look at the sequence only in requests on handles that last ([MS-SMB2] 3.3.5.14). On others a LOCK whose
        answer was lost is not sent again: a second one may be in the way of the first.
        """
        if handle.durability < Durability.DURABLE_V2:
            return await self._pool.see_through(chain, handle, Repeat.NEVER)
        for request in chain:
            request.sequence = handle.lock_sequence.take()
        repeat = Repeat.REPLAY if all(request.sequence for request in chain) else Repeat.NEVER
        answers = await self._pool.see_through(chain, handle, repeat)
        for request in chain:
            handle.lock_sequence.give_back(request.sequence)
        return answers
