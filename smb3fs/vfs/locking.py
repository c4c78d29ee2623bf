"""Locking files: what the server has locked (`server_locks`) follows from what the processes of this mount hold.

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
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.handles.byte_ranges import Lock
from smb3fs.handles.ledger import Ledger, Piece
from smb3fs.handles.opens import Open
from smb3fs.vfs import server_locks
from smb3fs.vfs.closing import close
from smb3fs.vfs.files import OpenFile, Owner
from smb3fs.vfs.locks import InodeLocks, Wish
from smb3fs.vfs.state import State

T = TypeVar("T")

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
    except ConnectionLost:
        with suppress(ConnectionLost):
            state.locks.handle_for(file, write=write)  # if it was lost with its locks, this call has told so
        raise
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
                        if not holders and await server_locks.cover(state, locks, file, wish, first=first):
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
                    elif not await server_locks.wait_for_part(state, locks, wish.piece, changed, granted):
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
                await server_locks.settle(state, locks)
        elif locks.doubtful:
            await server_locks.settle(state, locks)


async def unlock(state: State, file: OpenFile, owner: Owner, start: int, end: int) -> None:
    """Give a range up."""
    locks = _alive(state, file)
    if locks.space(owner).unset(owner.number, start, end):
        locks.note_change()
        await server_locks.settle(state, locks)


async def test_lock(state: State, file: OpenFile, wish: Wish) -> Lock | None:
    """Return a lock that is in the way of another: somebody's here, or one elsewhere, whose owner is 0 and nobody."""
    locks = _alive(state, file)
    found = locks.conflicts(wish)
    if found:
        return found[0]
    async with locks.turn:
        if not wish.piece.exclusive:
            await server_locks.end_waits(locks, wish.piece, exclusive=True)
        # What is locked shared here may be so elsewhere too, which cannot be found out without giving it up.
        missing = locks.ledger.gaps(wish.piece)
        handle = locks.carrier or file.handle
        if not state.share.keeps_locks(handle):
            handle = await server_locks.carrier_for(state, locks, file)
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
        await server_locks.settle(state, locks)


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
        await server_locks.shrink(state, locks)


def _is_loss(state: State, locks: InodeLocks, loss: ConnectionLost) -> bool:
    """Whether anybody has lost anything by the loss of a request for a lock, which cannot simply be asked for anew.

    Nobody has by that of a handle by which nothing is locked and which has ended, as it does with its connection or if
    the server does not give it back: what it was granted at last is nobody's lock then. The handle of a descriptor has
    to be there again in the next session, which whoever asks by it next learns.
    """
    carrier = locks.carrier
    if carrier is None or locks.ledger.pieces or any(True for _ in locks):
        return True
    if not state.share.usable(carrier):
        return not locks.ours
    return bool(carrier.durability) or not loss.sent


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
