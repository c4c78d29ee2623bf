"""The LOCKs that take a ledger's steps, and those that prove what an open has locked ([MS-SMB2] 2.2.26).

Theory of operation of the proof. An open that is given back after a loss should have its locks still. Samba 4.25 gives
them away meanwhile to whoever has the file open already and asks for them, and gives the open back without a word.
There is one request whose answer depends on the lock being there, and being this open's: to unlock it. So each piece
is unlocked and locked again in one message, which a server works off without a pause. If the one is not found, others
had the piece; if the other is refused, somebody has it who waited for it. Nobody can have had a lease to write while
others had the file open, so an open with that lease needs no proof.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Final

from smb3fs.connection import Answer
from smb3fs.errors import Status
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Open
from smb3fs.wire.lease import LeaseState
from smb3fs.wire.lock import EXCLUSIVE_LOCK, FAIL_IMMEDIATELY, SHARED_LOCK, UNLOCK, LockElement, LockRequest

WRITE_LEASE: Final = int(LeaseState.WRITE)


def element_of(piece: Piece, more: int = 0) -> LockElement:
    """Write a range as it stands in a request that locks it."""
    flags = EXCLUSIVE_LOCK if piece.exclusive else SHARED_LOCK
    return LockElement(piece.start, piece.end - piece.start, flags | more)


def request_for(handle: Open, step: Step) -> LockRequest:
    """Build the request that takes a step, at once or not at all."""
    if step.unlocks:
        elements = [LockElement(piece.start, piece.end - piece.start, UNLOCK) for piece in step.pieces]
    else:
        elements = [element_of(piece, FAIL_IMMEDIATELY) for piece in step.pieces]
    return LockRequest(handle.file_id, elements)


def sure_of_locks(handle: Open) -> bool:
    """Whether an open's locks need no proof after a loss: nobody else can have the file open."""
    return handle.lease is not None and bool(handle.lease.state & WRITE_LEASE)


async def has_locked(
    call: Callable[[Sequence[LockRequest]], Awaitable[list[Answer]]], handle: Open, pieces: Sequence[Piece]
) -> bool:
    """Prove that an open has locked pieces ever since it did; one round trip each. False: others may have had one.

    `call` sends a chain on the open and returns its answers. Pieces that lie over each other cannot be proved.
    """
    ordered = sorted(pieces)
    if any(one.end > other.start for one, other in pairwise(ordered)):
        return False
    for piece in ordered:
        steps = Step([piece], unlocks=True), Step([piece])
        unlocked, locked = await call([request_for(handle, step) for step in steps])
        if unlocked.status != Status.SUCCESS and locked.status == Status.SUCCESS:
            await call([request_for(handle, steps[0])])
        if unlocked.status != Status.SUCCESS or locked.status != Status.SUCCESS:
            return False
    return True
