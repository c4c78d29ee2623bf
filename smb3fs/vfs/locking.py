"""Locking files: what the server has locked follows from what the processes of this mount hold.

Theory of operation. A conflict between processes of this mount is found in the table (`locks`), and everything else at
the server: other clients see the mount as one. SMB's locks bind everybody but the handle that has them, so all reads
and writes of a file with locks go through that handle, the carrier, whichever descriptor they come from.

Order. What changes a file's locks on the server runs one at a time (`turn`), and enters into the table what it was
granted before the next one looks. Waiting for somebody else's lock is done outside of that, by a request that the
server answers when it can; it is taken back when anything changes here, and asked anew. No read, write or lookup ever
waits for any of this; therefore a lock may wait until the kernel has dropped the pages of a file, which takes the
reads under way to be answered: who gets a lock must see what was written under the one before.

Locks stay with the handle that has them. If that is lost with its connection, all who had locks on the file get EIO for
what they do through the descriptors by which they set them, whether these have handles of their own or not, and for
close(2) if for nothing else: others may have had the locks in between. Who opens the file anew begins with none.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

import trio

from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, status_name
from smb3fs.handles.byte_ranges import Lock
from smb3fs.handles.ledger import Ledger, Piece, PosixLedger, Step
from smb3fs.handles.opens import Open
from smb3fs.vfs.closing import close
from smb3fs.vfs.files import OpenFile, Owner
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.locks import InodeLocks, Wait, Wish
from smb3fs.vfs.names import NameMapping
from smb3fs.vfs.state import State

log = logging.getLogger(__name__)

T = TypeVar("T")

# Statuses of a lock that somebody else's lock is in the way of.
IN_THE_WAY: Final = frozenset({Status.LOCK_NOT_GRANTED, Status.FILE_LOCK_CONFLICT})
# Statuses of a read or write by a handle that was the right one when it was sent.
WRONG_HANDLE: Final = frozenset({Status.FILE_LOCK_CONFLICT, Status.FILE_CLOSED})
# Seconds that an attempt to lock may take where somebody is in the way, if that is worth it (see `_patience`), and for
# which somebody who was refused may be coming back.
BRIEFLY: Final = 0.1
RECENTLY: Final = 1.0
# Seconds between attempts at what a server cannot be asked to wait for: first, and at most.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0


def error(number: int) -> OSError:
    """Return the error with a number."""
    return OSError(number, os.strerror(number))


async def through(state: State, file: OpenFile, call: Callable[[Open], Awaitable[T]], *, write: bool) -> T:
    """Read or write a file by the handle for it; by the next one, where that has changed on the way."""
    handle = state.locks.handle_for(file, write=write)
    try:
        return await call(handle)
    except StatusError as failure:
        now = state.locks.handle_for(file, write=write)
        if now is handle or failure.status not in WRONG_HANDLE:
            raise
        return await call(now)


# -- asking


async def set_lock(state: State, file: OpenFile, wish: Wish, *, wait: bool) -> None:
    """Lock a range: EAGAIN if somebody is in the way, or wait for as long as that takes."""
    locks = _alive(state, file)
    give_up_at = math.inf if wait else trio.current_time() + _patience(locks, wish.owner)
    if wish.owner.flock and wish.piece.exclusive:
        await _give_up_for_conversion(state, locks, wish.owner)
    pause, first = FIRST_PAUSE, True
    granted: list[Piece] = []
    try:
        while True:
            try:
                changed = locks.changed
                holders = {lock.owner for lock in locks.conflicts(wish)}
                if not holders:
                    async with locks.turn:
                        holders = {lock.owner for lock in locks.conflicts(wish)}
                        if not holders and await _cover(state, locks, file, wish, first=first):
                            await _enter(state, locks, file, wish)
                            return
                        first = first and bool(holders)
                if trio.current_time() >= give_up_at:
                    locks.refused[wish.owner] = trio.current_time()
                    raise error(errno.EAGAIN)
                if holders and wait and state.locks.would_deadlock(wish, holders):
                    raise error(errno.EDEADLK)
                with trio.CancelScope(deadline=give_up_at):
                    if holders and wait:
                        await state.locks.wait_here(wish, holders, changed)
                    elif holders:
                        await changed.wait()
                    elif not await _wait_at_server(state, locks, wish.piece, changed, granted):
                        with trio.move_on_after(pause):
                            await changed.wait()
                        pause = min(2 * pause, LONGEST_PAUSE)
            except ConnectionLost as loss:
                if _is_loss(state, locks, loss):
                    raise
                state.locks.lose_carrier(locks)
            _alive(state, file)
    finally:
        for piece in granted:
            if piece in locks.reserved:
                locks.reserved.remove(piece)
        # What was granted and is not used, because something else came first.
        if locks.ledger.shrink(locks.wanted()):
            with trio.CancelScope(shield=True):
                await settle(state, locks)
        elif locks.doubtful:
            await settle(state, locks)


async def unlock(state: State, file: OpenFile, owner: Owner, start: int, end: int) -> None:
    """Give a range up."""
    locks = _alive(state, file)
    if locks.space(owner).unset(owner.number, start, end):
        locks.note_change()
        await settle(state, locks)


async def test_lock(state: State, file: OpenFile, wish: Wish) -> Lock | None:
    """Return a lock that is in the way of another: somebody's here, or one elsewhere, whose owner is 0 and nobody."""
    locks = _alive(state, file)
    found = locks.conflicts(wish)
    if found:
        return found[0]
    async with locks.turn:
        if not wish.piece.exclusive:
            await _end_waits(locks, wish.piece, exclusive=True)
        # What is locked shared here may be so elsewhere too, which cannot be found out without giving it up.
        missing = locks.ledger.gaps(wish.piece)
        handle = locks.carrier or file.handle
        if not state.share.keeps_locks(handle):
            handle = await _carrier(state, locks, file)
        if not missing or await state.share.is_lockable(handle, missing):
            return None
        exclusive = not wish.piece.exclusive or not await state.share.is_lockable(
            handle, [piece._replace(exclusive=False) for piece in missing]
        )
    return Lock(0, wish.piece.start, wish.piece.end, exclusive)


def _patience(locks: InodeLocks, owner: Owner) -> float:
    """Return for how many seconds somebody who asks for a lock, and not to wait for it, is kept waiting all the same.

    Programs that ask again and again (SQLite does, with pauses of up to 100 ms) find the lock held each time that they
    look if it is free for a moment only, and starve. So who was refused just now and is back gets a little while, but
    only with no other lock on the file: while somebody waits here, nobody must wait for him.
    """
    now = trio.current_time()
    locks.refused = {one: when for one, when in locks.refused.items() if now - when < RECENTLY}
    return BRIEFLY if owner in locks.refused and not locks.space(owner).of(owner.number) else 0.0


def _alive(state: State, file: OpenFile) -> InodeLocks:
    """Return a file's locks; raise if the file was lost with its connection."""
    locks = state.locks.of(file.inode)
    if locks.carrier is not None and not state.share.usable(locks.carrier):
        state.locks.lose_carrier(locks)
    locks.check(file)
    if not state.share.usable(file.handle):
        raise ConnectionLost("the file was opened on a connection that is gone, and so are its locks")
    return locks


async def _give_up_for_conversion(state: State, locks: InodeLocks, owner: Owner) -> None:
    """Give up a shared flock(2) that is to become exclusive: so it is done, or two who do it would wait for ever."""
    held = locks.space(owner).of(owner.number)
    if held and not held[0].exclusive:
        locks.space(owner).drop(owner.number)
        locks.note_change()
        await settle(state, locks)


# -- at the server; whoever calls these has the turn, except to wait


async def _cover(state: State, locks: InodeLocks, file: OpenFile, wish: Wish, *, first: bool) -> bool:
    """Have the server lock what is not locked of a range; False if somebody else's lock is in the way.

    A shared lock is tried at the `first` attempt even if an exclusive one is waited for there, which is asked for anew
    then; after that it waits behind it, or the two would take back each other's requests for ever.
    """
    carrier = await _carrier(state, locks, file)
    await _end_doubts(state, locks, carrier)
    missing, weak = locks.ledger.lacks(wish.piece)
    if not missing and not weak:
        return True
    # A shared lock over an exclusive one, whichever of them is granted last, would keep us from writing, and the
    # exclusive one would go first when the shared one is to.
    if not wish.piece.exclusive and not first and any(_waits(locks, wish.piece, exclusive=True)):
        return False
    await _end_waits(locks, wish.piece, exclusive=not wish.piece.exclusive)
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
        raise error(errno.ENOLCK)
    return granted


async def _enter(state: State, locks: InodeLocks, file: OpenFile, wish: Wish) -> None:
    """Enter a lock that the server's locks cover, once the kernel shows what the last one to have it left.

    That is the file, and the names beside it: programs leave word there of what they do to the file, as SQLite does by
    its journal.
    """
    if locks.stale:
        locks.stale = False
        state.locks.granted += 1
        with state.files.changing(file.inode):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(state.locks.watch_crowd, [parent for parent, _ in file.inode.links])
                    await state.forget_pages(file.inode.number, state.outdate_beside(file.inode))
                    nursery.cancel_scope.cancel()
            except BaseException:
                locks.stale = True
                raise
    less = bool(locks.space(wish.owner).of(wish.owner.number)) and not wish.piece.exclusive
    locks.space(wish.owner).set(wish.lock)
    if file.lock_owners is None:
        file.lock_owners = set()
    file.lock_owners.add(wish.owner)
    if less:
        locks.note_change()
        await _shrink(state, locks)


async def _wait_at_server(
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


def _is_loss(state: State, locks: InodeLocks, loss: ConnectionLost) -> bool:
    """Whether anybody has lost anything by the loss of a request for a lock, which cannot simply be asked for anew.

    Nobody has by that of a handle of our own by which nothing is locked and which ends with its connection: what it was
    granted at last has ended as well.
    """
    carrier = locks.carrier
    if carrier is None or not locks.ours or carrier.durability or locks.ledger.pieces or any(True for _ in locks):
        return True
    in_time = loss.sent or not state.share.usable(carrier)
    return not in_time


async def _end_waits(locks: InodeLocks, piece: Piece, *, exclusive: bool) -> None:
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
        await _shrink(state, locks)


async def _shrink(state: State, locks: InodeLocks) -> None:
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


async def _carrier(state: State, locks: InodeLocks, file: OpenFile) -> Open:
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
            raise error(errno.ESTALE)
        return handle

    try:
        return await state.by_path(inode, open_it)
    except (OSError, Smb3fsError) as failure:
        if isinstance(failure, ConnectionLost):
            raise
        return None


# -- closing


def release_owner(state: State, file: OpenFile, owner: Owner) -> InodeLocks | None:
    """Drop what an owner has locked of a file, at close(2); return the locks if the server is to hear of it."""
    locks = state.locks.by_inode.get(file.inode.number)
    if file.lock_owners is not None:
        file.lock_owners.discard(owner)
    if locks is not None:
        locks.bereaved.discard(owner)
        locks.untold.discard(owner)
    if locks is None or not locks.space(owner).drop(owner.number):
        return None
    locks.note_change()
    return locks


def release(state: State, file: OpenFile) -> InodeLocks | None:
    """Close a file, with the locks that were set through it; return the locks if the server is to hear of them.

    The last one to be closed takes all locks along: the server drops them with the handle.
    """
    locks = state.locks.by_inode.get(file.inode.number)
    if locks is None:
        close(state, file)
        return None
    dropped = [locks.space(owner).drop(owner.number) for owner in file.lock_owners or ()]
    locks.bereaved -= file.lock_owners or set()
    locks.untold &= locks.bereaved
    if file.inode.opens == 1:
        del state.locks.by_inode[file.inode.number]
        if locks.carrier is not None and locks.ours:
            state.share.close(locks.carrier)
        locks.forget()
    elif locks.carrier is file.handle and not any(
        other.handle is file.handle for other in state.files.of(file.inode) if other is not file
    ):
        if locks.in_use:
            locks.ours = file.keeps_handle = True
        else:
            locks.carrier, locks.ledger = None, Ledger()
    close(state, file)
    if not any(dropped):
        return None
    locks.note_change()
    return locks
