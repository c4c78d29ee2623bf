"""Names: making, removing and renaming them, and where SMB and POSIX disagree about what is open or in the way.

SMB deletes a file when its last handle is closed and keeps its name until then; it does not rename onto a file that is
open, onto a read-only one (some servers), or onto a directory. POSIX does all of that. So a file that is open here is
first renamed to a name of ours in the same directory (`handles.hidden_names`), and deleted under that: the
name that the program meant is free at once, and the file goes with its last close, whatever becomes of us. Such names
are not listed, though other clients see them until the close. All this costs requests only where it happens.

Which of them are deleted at once, and which when they are closed, is told in `vfs.aside`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

from smb3fs.errors import ConnectionLost, Smb3fsError, StatusError, describe, errno_of
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.hidden_names import hidden_name
from smb3fs.vfs import spelling
from smb3fs.vfs.aside import (
    clear,
    goes_when_closed,
    known_by,
    leave_aside,
    make_lasting,
    put_back,
    remove_later,
    set_aside,
    set_aside_until_closed,
)
from smb3fs.vfs.closing import drop_handles_in
from smb3fs.vfs.grace import to_the_end
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.searching import is_spelled, spelled
from smb3fs.vfs.state import PARENT_GONE, State, stale, too_long

log = logging.getLogger(__name__)

# The flags of renameat2(2), linux/fs.h.
RENAME_NOREPLACE: Final = 1
# Answers to a rename that something in its way may have caused.
IN_THE_WAY: Final = frozenset({errno.EACCES, errno.EEXIST, errno.EBUSY, errno.EPERM})
# ... and by which a name shows that it is not that of a file any more.
NOT_THERE: Final = frozenset({errno.ENOENT, errno.ESTALE})


def _refusal(number: int) -> OSError:
    """Return an OSError with its usual text."""
    return OSError(number, os.strerror(number))


class Found(NamedTuple):
    """What is under a name; `alone` is false if the file is known here by other spellings of it too."""

    inode: Inode
    told: FileAttributes
    alone: bool


async def look_up(state: State, parent: Inode, name: bytes, process: int = 0) -> Found:
    """Find a name in a directory, for a process (0 if it is not known)."""
    text = state.names.to_server(name)
    try:
        told = await state.below(parent, text, state.share.lookup)
    except (OSError, Smb3fsError) as error:
        if not state.nocase or errno_of(error) != errno.ENOENT:
            raise
        true = await spelled(state, parent, text)
        if true == text:
            raise
        return Found(state.seen(parent, true, told := await state.below(parent, true, state.share.lookup)), told, False)
    known = state.inodes.find(parent, text, told.file_id, told.created, told.kind)
    alone = known is None or not state.spellings(known, parent, text)
    if not alone and state.is_respelling(process, name) and not await is_spelled(state, parent, text):
        # If one file had two names here, renaming it from one to the other would change nothing, by POSIX.
        raise _refusal(errno.ENOENT)
    return Found(state.seen(parent, text, told), told, alone)


async def make_directory(state: State, parent: Inode, name: bytes, mode: int) -> tuple[Inode, FileAttributes]:
    """Make a directory."""
    text = state.names.to_server(name)
    try:
        told = await state.make(parent, text, lambda path: state.share.make_directory(path, mode & 0o7777))
    finally:
        state.changed(parent, text)
    return state.seen(parent, text, told), told


async def remove_directory(state: State, parent: Inode, name: bytes) -> None:
    """Remove an empty directory."""
    _may_delete(state)
    text = await _meant(state, parent, name)
    await state.listings_ahead.leave(parent.child(text))
    inode = parent.child(text)
    state.cached.leave(inode)
    if inode is not None:
        drop_handles_in(state, inode)
        await clear(state, inode)
    with state.moving():
        try:
            known = known_by(inode)
            await state.below(parent, text, lambda path: state.share.remove_directory(path, **known))
        finally:
            state.changed(parent, text)
        state.gone(parent, text)
    if inode is not None:
        await _left_behind(state, inode)


async def _left_behind(state: State, directory: Inode) -> None:
    """Close what somebody has opened of a directory while it was removed: it is gone with the last of its handles."""
    state.directories.note_removal(directory)
    await state.listings_ahead.leave(directory)
    state.cached.leave(directory)
    state.directories.note_removal(directory)  # of who has opened it by what was listed ahead, too


async def remove_file(state: State, parent: Inode, name: bytes) -> None:
    """Remove a name of a file; one that is open here goes out of sight now and from the server at its last close."""
    _may_delete(state)
    text = await _meant(state, parent, name)
    inode = parent.child(text)
    if inode is not None:
        await state.settle(inode)
        state.deferred.drop(inode.number)
    try:
        if inode is not None:
            await make_lasting(state, inode, parent, text)
        if (
            inode is None
            or not _is_in_the_way(state, inode)
            or not await to_the_end(_remove_open(state, inode, parent, text))
        ):
            known = known_by(parent.child(text))
            await state.below(parent, text, lambda path: state.share.remove_file(path, **known))
            state.gone(parent, text)
    finally:
        if inode is not None:
            state.deferred.drop(inode.number)  # of somebody who was faster than we
        state.changed(parent, text)


def _is_in_the_way(state: State, inode: Inode) -> bool:
    """Whether a file that is removed keeps its name for as long as it is open here.

    With the POSIX extensions it does not. But an open that is to outlive its connection may come back without them, and
    what carries locks is without them where the server would not know its own locks again.
    """
    handles = [file.handle for file in state.files.of(inode)]
    locks = state.locks.by_inode.get(inode.number)
    if locks is not None and locks.carrier is not None:
        handles.append(locks.carrier)
    return any(not (state.posix and handle.posix) or bool(handle.durability) for handle in handles)


def _may_delete(state: State) -> None:
    """Raise EACCES under `nodelete`, as the Linux client does."""
    if state.nodelete:
        raise _refusal(errno.EACCES)


async def _meant(state: State, parent: Inode, name: bytes) -> str:
    """Return the server's name for one that the kernel wants to be rid of, in the server's spelling."""
    text = state.names.to_server(name)
    true = await spelled(state, parent, text)
    if true != text:
        state.forget_in_kernel(parent, true)
    return true


async def _remove_open(state: State, inode: Inode, parent: Inode, name: str) -> bool:
    """Remove a file that is open here; False if the server does not let us rename it for that."""
    hidden = hidden_name()
    try:
        if await set_aside_until_closed(state, inode, parent, name, hidden):
            return True
    except (OSError, Smb3fsError) as error:
        log.debug("an open file cannot be renamed before it is removed: %s", describe(error))
        return False
    except BaseException:
        # Perhaps it has that name by now; to remove it is what was asked for.
        await remove_later(state, inode, parent, hidden, name)
        raise
    try:
        await state.below(parent, hidden, lambda path: state.share.remove_file(path, **known_by(inode)))
    except (OSError, Smb3fsError):
        await put_back(state, inode, parent, hidden, name, doomed=True)
        raise
    except BaseException:
        await remove_later(state, inode, parent, hidden, name)
        raise
    state.inodes.unlink(parent, hidden)
    return True


async def rename(state: State, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, flags: int) -> None:
    """Rename, replacing what POSIX says is replaced."""
    if flags & ~RENAME_NOREPLACE:
        raise _refusal(errno.EINVAL)
    old = await _meant(state, parent, name)
    # Its other spellings may be in the way as well as the name itself.
    new = await spelled(state, new_parent, state.names.to_server(new_name))
    if parent is new_parent and spelling.key(old) == spelling.key(new):
        new = state.names.to_server(new_name)
    with state.moving():
        await _move(state, parent, old, new_parent, new, flags)


async def _move(state: State, parent: Inode, old: str, new_parent: Inode, new: str, flags: int) -> None:
    """Do so with the server's names for both."""
    move = Move(state, parent, old, new_parent, new)
    source, target = parent.child(old), new_parent.child(new)
    if source is None or source.is_directory:
        await state.settle_in(None)  # it may be below that
    for inode in (source, target):
        if inode is not None:
            await state.settle(inode)
    await state.listings_ahead.leave(source)
    if target is not None:
        await state.listings_ahead.leave(target)
    source, target = parent.child(old), new_parent.child(new)
    state.cached.leave(source)
    if target is not None:
        state.cached.leave(target)
    _make_way(state, source, target)
    try:
        if state.nodelete and target is not None and target is not source:
            _may_delete(state)
        if flags & RENAME_NOREPLACE or state.nodelete:
            await move.rename(replace=False)
        elif source is None or target is None:
            await move.rename(replace=True)
        elif source is target and (parent is not new_parent or new not in state.spellings(source, parent, old)):
            await _check_is(state, source, parent, old)
            await _check_is(state, target, new_parent, new)
            return  # two names of one file: POSIX leaves both
        elif source is target:
            await move.rename(replace=True)
        elif source.is_directory != target.is_directory:
            raise _refusal(errno.ENOTDIR if source.is_directory else errno.EISDIR)
        elif source.is_directory:
            await move.onto_directory(target)
        else:
            await move.onto_file(target)
    finally:
        _make_way(state, source, target)
        if parent is new_parent:
            state.directories.note_change(parent, old)
        else:
            state.changed(parent, old)
        state.changed(new_parent, new)
    moved = ((parent, old), (new_parent, new))
    for (directory, spelt), inode in zip(moved, (source, target), strict=True):
        if inode is not None:
            others = state.spellings(inode, directory, spelt)
            state.forget_spellings(directory, [other for other in others if (directory, other) not in moved])
    state.inodes.rename(parent, old, new_parent, new)
    state.cached.moved(parent, new_parent, new)
    if target is not None and target.is_directory and target is not source:
        await _left_behind(state, target)


async def _check_is(state: State, inode: Inode, parent: Inode, name: str) -> None:
    """Be sure that a name still is the file's, which may have lost it through others; else ESTALE, to ask anew."""
    with suppress(OSError, Smb3fsError):
        if state.is_it(inode, await state.below(parent, name, state.share.lookup)):
            return
    state.inodes.unlink(parent, name)
    state.on_stale(parent)
    raise stale()


def _make_way(state: State, source: Inode | None, target: Inode | None) -> None:
    """Close what waits of files that a rename moves or replaces, also of those below a directory, which it changes."""
    for inode in (source, target):
        if inode is not None and inode.is_directory:
            inode.changes += 1
            state.deferred.drop_all()
        elif inode is not None:
            state.deferred.drop(inode.number)


class Move:
    """One rename under way."""

    def __init__(self, state: State, parent: Inode, old: str, new_parent: Inode, new: str) -> None:
        self.state = state
        self.new_parent = new_parent
        self.new = new
        self.old_path = state.inodes.path_below(parent, old)
        self.new_path = state.inodes.path_below(new_parent, new)
        source = parent.child(old)
        plain = source is None or source.kind in (stat.S_IFREG, stat.S_IFDIR)
        self._rename = state.share.rename if plain else state.share.rename_point
        self._known = known_by(source)
        self._parents_can_go = {parent, new_parent} != {state.inodes.root}

    async def rename(self, *, replace: bool) -> None:
        """Have the server rename."""
        try:
            await self._rename(self.old_path, self.new_path, replace=replace, **self._known)
        except StatusError as error:
            if too_long(error, self.new):
                raise _refusal(errno.ENAMETOOLONG) from error
            if error.status in PARENT_GONE and self._parents_can_go:
                raise stale() from error
            raise

    async def onto_directory(self, target: Inode) -> None:
        """Replace a directory, which POSIX allows if it is empty and SMB does not."""
        await clear(self.state, target)
        try:
            await self.rename(replace=self.state.posix)
        except (OSError, Smb3fsError) as error:
            if errno_of(error) not in IN_THE_WAY:
                raise
        else:
            return
        try:
            await self.state.share.remove_directory(self.new_path)
        except (OSError, Smb3fsError) as error:
            if errno_of(error) != errno.ENOENT:
                raise
        try:
            await self.rename(replace=False)
        except (OSError, Smb3fsError):
            with suppress(OSError, Smb3fsError):
                await self.state.share.make_directory(self.new_path, 0o777)
            raise

    async def onto_file(self, target: Inode) -> None:
        """Replace a file, which may be open, being opened, or read-only: none of that matters to POSIX.

        What a server would keep open over a loss it must not be asked to replace: Samba refuses that, and has broken
        the handle lease by then, without which nothing is kept. If another client has taken the name from it, that is
        not in the way any more, and whatever has the name by now is replaced. Nor must it be asked to replace a file of
        which a process that is gone has something open: it would wait 35 s for that one.
        """
        await make_lasting(self.state, target, self.new_parent, self.new)
        kept = any(file.handle.durability for file in self.state.files.of(target))
        kept = kept or await self.state.share.keeps_others_out(self.new_path, expect=target.expect)
        if kept:
            try:
                return await to_the_end(self._onto_open(target))
            except (OSError, Smb3fsError) as error:
                if errno_of(error) not in NOT_THERE:
                    raise
        try:
            await self.rename(replace=True)
        except (OSError, Smb3fsError) as error:
            if kept or errno_of(error) not in IN_THE_WAY:
                raise
        else:
            return None
        return await to_the_end(self._onto_open(target))

    async def _onto_open(self, target: Inode) -> None:
        """Replace a file that is in the way as long as it has its name."""
        hidden = hidden_name()
        await set_aside(self.state, target, self.new_parent, self.new, hidden)
        try:
            await self.rename(replace=False)
        except (OSError, Smb3fsError):
            await put_back(self.state, target, self.new_parent, hidden, self.new)
            raise
        except BaseException:
            leave_aside(self.state, hidden, self.new)
            raise
        try:
            if await goes_when_closed(self.state, target, self.new_parent, hidden):
                return
            await self.state.below(
                self.new_parent, hidden, lambda path: self.state.share.remove_file(path, **known_by(target))
            )
        # The rename itself is done.
        except (OSError, Smb3fsError) as error:
            if isinstance(error, ConnectionLost):
                await remove_later(self.state, target, self.new_parent, hidden, self.new)
            else:
                leave_aside(self.state, hidden, self.new)
        except BaseException:
            await remove_later(self.state, target, self.new_parent, hidden, self.new)
            raise
        else:
            self.state.inodes.unlink(self.new_parent, hidden)
            if not self.state.files.of(target):
                self.state.not_aside(target)
