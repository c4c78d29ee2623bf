"""What the server has locked of a file for all of this mount, and the handle that has it, the carrier (see `locking`).

What changes a file's locks on the server runs one at a time: whoever calls one of these has the file's turn, except to
wait, and for `settle`, which takes it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, status_name
from smb3fs.handles.ledger import Ledger, Piece, PosixLedger, Step
from smb3fs.handles.opens import Open
from smb3fs.vfs.files import OpenFile
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.locks import InodeLocks, Wait, Wish
from smb3fs.vfs.names import NameMapping
from smb3fs.vfs.state import State

log = logging.getLogger(__name__)

# Statuses of a lock that somebody else's lock is in the way of.
IN_THE_WAY: Final = frozenset({Status.LOCK_NOT_GRANTED, Status.FILE_LOCK_CONFLICT})


async def cover(state: State, locks: InodeLocks, file: OpenFile, wish: Wish, *, first: bool) -> bool:
    """Have the server lock what is not locked of a range; False if somebody else's lock is in the way.

    A shared lock is tried at the `first` attempt even if an exclusive one is waited for there, which is asked for anew
    then; after that it waits behind it, or the two would take back each other's requests for ever.
    """
    carrier = await carrier_for(state, locks, file)
    await _end_doubts(state, locks, carrier)
    missing, weak = locks.ledger.lacks(wish.piece)
    if not missing and not weak:
        return True
    # A shared lock over an exclusive one, whichever of them is granted last, would keep us from writing, and the
    # exclusive one would go first when the shared one is to.
    if not wish.piece.exclusive and not first and any(_waits(locks, wish.piece, exclusive=True)):
        return False
    await end_waits(locks, wish.piece, exclusive=not wish.piece.exclusive)
    missing, weak = locks.ledger.lacks(wish.piece)
    if weak:
        return await _upgrade(state, locks, carrier, wish)
    if not missing:
        return True
    return (await _take(state, locks, carrier, [Step(missing)]))[0]


async def _take(state: State, locks: InodeLocks, carrier: Open, steps: Sequence[Step]) -> list[bool]:
    """Take steps, and note what was done."""
    ledger = locks.ledger
    ledger.leaving = [piece for step in steps if step.unlocks for piece in step.pieces]
    try:
        statuses = await state.share.change_locks(carrier, steps)
    except ConnectionLost:
        locks.doubtful += [piece for step in steps if not step.unlocks for piece in step.pieces]
        raise
    finally:
        ledger.leaving = []
    done = []
    failure: StatusError | None = None
    for step, status in zip(steps, statuses, strict=True):
        done.append(status == Status.SUCCESS)
        if status == Status.SUCCESS:
            ledger.take(step)
            locks.stale |= not step.unlocks
        elif step.unlocks:
            # It is not there, or not ours any more; what else could be done about it?
            log.warning("a lock cannot be given up: %s", status_name(status))
            ledger.take(step)
        elif status not in IN_THE_WAY and failure is None:
            failure = StatusError(status, "LOCK")
    if failure is not None:
        raise failure
    return done


async def _end_doubts(state: State, locks: InodeLocks, carrier: Open) -> None:
    """Unlock what may have been locked for those who have given up, if it was; nobody else can ask for it meanwhile."""
    if locks.doubtful:
        await state.share.change_locks(carrier, [Step([piece], unlocks=True) for piece in locks.doubtful])
        locks.doubtful.clear()


async def _upgrade(state: State, locks: InodeLocks, carrier: Open, wish: Wish) -> bool:
    """Go from shared to exclusive (see `Ledger.upgrade`); ENOLCK if the shared lock was lost in the attempt."""
    plan = locks.ledger.upgrade(wish.piece)
    done = await _take(state, locks, carrier, plan.steps)
    granted = done[plan.crucial]
    more = plan.granted if granted else plan.refused
    if more:
        await _take(state, locks, carrier, more)
    if not granted and not all(locks.ledger.covers(piece) for piece in plan.whole):
        # Somebody has come in between, and may have changed what was read under the lock.
        for piece in plan.whole:
            locks.lose(piece)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    return granted


async def wait_for_part(
    state: State, locks: InodeLocks, piece: Piece, changed: trio.Event, granted: list[Piece]
) -> bool:
    """Wait for the server to grant a part of what is missing, or for a change here; False if it cannot be asked to."""
    missing, weak = locks.ledger.lacks(piece)
    carrier = locks.carrier
    if weak or carrier is None or locks.doubtful:
        return False
    if not missing or changed.is_set():
        return True
    # The first, so that clients that wait for several do so in the same order.
    first = missing[0]
    # Two requests for one range could both be granted, one over the other.
    other = next((wait for wait in locks.waits if wait.piece.start < first.end and wait.piece.end > first.start), None)
    if other is not None:
        await other.over.wait()
        return True
    wait = Wait(first)
    locks.waits.append(wait)
    try:
        with wait.scope:
            if await state.share.wait_for_lock(carrier, first):
                locks.ledger.add([first])
                locks.reserved.append(first)
                granted.append(first)
                locks.stale = True
    except (trio.Cancelled, ConnectionLost) as failure:
        # Whoever has given up while there was no session learns nothing; it may have been granted, or yet be.
        lasts = bool(carrier.durability) and state.share.usable(carrier)
        locks.doubtful += [first] * lasts
        if not lasts or isinstance(failure, trio.Cancelled):
            raise
    except StatusError as refusal:
        # The server has no room for another request that waits.
        if refusal.status != Status.INSUFFICIENT_RESOURCES:
            raise
        return False
    finally:
        locks.waits.remove(wait)
        wait.over.set()
    return True


async def end_waits(locks: InodeLocks, piece: Piece, *, exclusive: bool) -> None:
    """Take back the requests for locks of one kind on parts of a range, and see how they have ended."""
    for wait in list(_waits(locks, piece, exclusive=exclusive)):
        wait.scope.cancel()
        await wait.over.wait()


def _waits(locks: InodeLocks, piece: Piece, *, exclusive: bool) -> Iterator[Wait]:
    """Yield the requests for locks of one kind on parts of a range that the server has not answered."""
    for wait in locks.waits:
        if wait.piece.start < piece.end and wait.piece.end > piece.start and wait.piece.exclusive == exclusive:
            yield wait


async def settle(state: State, locks: InodeLocks) -> None:
    """Have the server unlock what nobody wants any more, as far as that goes."""
    async with locks.turn:
        await shrink(state, locks)


async def shrink(state: State, locks: InodeLocks) -> None:
    """Do so, having the turn."""
    if locks.carrier is None:
        return
    try:
        await _end_doubts(state, locks, locks.carrier)
        steps = locks.ledger.shrink(locks.wanted())
        if not steps:
            return
        done = await _take(state, locks, locks.carrier, steps)
    except ConnectionLost:
        # Nobody knows what the handle still has locked; closed, it has nothing.
        state.locks.lose_carrier(locks)
        return
    if not all(done) and locks.ours and not (locks.ledger.pieces or locks.waits or any(True for _ in locks)):
        # Samba 4.25 says now and then that there is no such lock, and goes on holding it against everybody.
        state.locks.lose_carrier(locks)


# -- the carrier


async def carrier_for(state: State, locks: InodeLocks, file: OpenFile) -> Open:
    """Return the handle that has the locks, or choose one: it should be able to do whatever any descriptor may do.

    One that has none any more, and should not have others since its lease was broken, is no carrier any longer.
    """
    if locks.carrier is not None:
        if locks.ours or locks.ledger.pieces or locks.waits or state.share.keeps_locks(locks.carrier):
            return locks.carrier
        locks.carrier.ledger = None
        locks.carrier, locks.ledger = None, Ledger()
    carrier = await _choose(state, locks, file)
    locks.ledger = PosixLedger() if await _goes_by_posix(state, carrier) else Ledger()
    carrier.ledger = locks.ledger
    return carrier


async def _goes_by_posix(state: State, carrier: Open) -> bool:
    """Whether the server keeps a handle's locks by POSIX's rules, which shows before there are any.

    To unlock what is not locked is nothing to POSIX and an error to SMB. Not every server that has the extensions has
    this part of them.
    """
    if state.names.mapping is not NameMapping.POSIX:
        return False
    (status,) = await state.share.change_locks(carrier, [Step([Piece(0, 1, False)], unlocks=True)])
    return status == Status.SUCCESS


async def _choose(state: State, locks: InodeLocks, file: OpenFile) -> Open:
    """Choose the handle."""
    for other in (file, *state.files.of(file.inode)):
        handle = other.handle
        able = other.readable and handle.writable
        if able and state.share.usable(handle) and state.share.keeps_locks(handle):
            locks.carrier, locks.readable, locks.ours = handle, True, False
            return handle
    own = await _open_for_both(state, file.inode)
    if own is not None:
        locks.carrier, locks.readable, locks.ours = own, True, True
        return own
    # What cannot be opened for both nobody has open for the other, as a rule.
    locks.carrier, locks.readable, locks.ours = file.handle, file.readable, False
    return file.handle


async def _open_for_both(state: State, inode: Inode) -> Open | None:
    """Open a file for reading and writing; None where that is not allowed, or it has no name any more."""

    async def open_it(path: str) -> Open:
        handle = await state.share.open_for_locks(path, expect=inode.expect)
        if not state.is_it(inode, handle.attributes_at_open):
            state.share.close(handle)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return handle

    try:
        return await state.by_path(inode, open_it)
    except (OSError, Smb3fsError) as failure:
        if isinstance(failure, ConnectionLost):
            raise
        return None
