"""Names: making, removing and renaming them, and where SMB and POSIX disagree about what is open or in the way.

SMB deletes a file when its last handle is closed and keeps its name until then; it does not rename onto a file that is
open, onto a read-only one (some servers), or onto a directory. POSIX does all of that. So a file that is open here is
first renamed to a name of ours in the same directory, `.smb3fs-` and 16 hexadecimal digits, and deleted under that: the
name that the program meant is free at once, and the file goes with its last close, whatever becomes of us. Such names
are not listed, though other clients see them until the close. All this costs requests only where it happens.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from contextlib import suppress
from typing import Final

from smb3fs.errors import Smb3fsError, describe, errno_of
from smb3fs.handles.attributes import FileAttributes
from smb3fs.vfs.attributes import READONLY
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import PARENT_GONE, State, stale
from smb3fs.wire.directory import DirectoryEntry, entry_offsets

log = logging.getLogger(__name__)

# The flags of renameat2(2), linux/fs.h.
RENAME_NOREPLACE: Final = 1
# Answers to a rename that something in its way may have caused.
IN_THE_WAY: Final = frozenset({errno.EACCES, errno.EEXIST, errno.EBUSY, errno.EPERM})


def _refusal(number: int) -> OSError:
    """Return an OSError with its usual text."""
    return OSError(number, os.strerror(number))


async def look_up(state: State, parent: Inode, name: bytes) -> tuple[Inode, FileAttributes]:
    """Find a name in a directory."""
    text = state.names.to_server(name)
    told = await state.below(parent, text, state.share.lookup)
    known = state.inodes.find(parent, text, told.file_id, told.created, told.kind)
    if known is not None and _is_another_spelling(known, parent, text) and not await _is_spelled(state, parent, text):
        # If one file had two names here, renaming it from one to the other would change nothing, by POSIX.
        raise _refusal(errno.ENOENT)
    return state.seen(parent, text, told), told


def _is_another_spelling(inode: Inode, parent: Inode, text: str) -> bool:
    """Whether a file is known in this directory by the same letters in another case, and not by these."""
    folded = text.casefold()
    return parent.child(text) is not inode and any(
        directory is parent and name.casefold() == folded for directory, name in inode.links
    )


async def _is_spelled(state: State, parent: Inode, text: str) -> bool:
    """Ask the server whether a name is in a directory in just this spelling; the only way is to list it."""

    def names(page: memoryview) -> set[str]:
        return {DirectoryEntry.parse_at(page, offset).name for offset in entry_offsets(page)}

    pages = await state.by_path(parent, lambda path: state.share.list_directory(path, parent.expect))
    try:
        read = 0
        while True:
            for page in pages.pages[read:]:
                if text in names(page):
                    return True
            read = len(pages.pages)
            if not await pages.next_page():
                return False
    finally:
        pages.close()


async def make_directory(state: State, parent: Inode, name: bytes) -> tuple[Inode, FileAttributes]:
    """Make a directory."""
    text = state.names.to_server(name)
    try:
        told = await state.below(parent, text, state.share.make_directory)
    finally:
        state.changed(parent, text)
    return state.seen(parent, text, told), told


async def remove_directory(state: State, parent: Inode, name: bytes) -> None:
    """Remove an empty directory."""
    text = state.names.to_server(name)
    try:
        await state.below(parent, text, state.share.remove_directory)
    finally:
        state.changed(parent, text)
    state.inodes.unlink(parent, text)


async def remove_file(state: State, parent: Inode, name: bytes) -> None:
    """Remove a name of a file; one that is open here goes out of sight now and from the server at its last close."""
    text = state.names.to_server(name)
    try:
        inode = parent.child(text)
        if inode is None or not state.files.of(inode) or not await _remove_open(state, inode, parent, text):
            await state.below(parent, text, state.share.remove_file)
            state.inodes.unlink(parent, text)
    finally:
        state.changed(parent, text)


async def _remove_open(state: State, inode: Inode, parent: Inode, name: str) -> bool:
    """Remove a file that is open here; False if the server does not let us rename it for that."""
    try:
        hidden = await _set_aside(state, inode, parent, name)
    except (OSError, Smb3fsError) as error:
        log.debug("an open file cannot be renamed before it is removed: %s", describe(error))
        return False
    try:
        await state.below(parent, hidden, state.share.remove_file)
    except (OSError, Smb3fsError):
        await _put_back(state, inode, parent, hidden, name)
        raise
    except BaseException:
        _leave_aside(state, inode, hidden, name)
        raise
    state.inodes.unlink(parent, hidden)
    return True


async def _set_aside(state: State, inode: Inode, parent: Inode, name: str) -> str:
    """Rename a file to a hidden name of ours and return that."""
    hidden = f".smb3fs-{secrets.token_hex(8)}"
    state.aside[inode.number] = hidden
    new_path = state.inodes.path_below(parent, hidden)
    try:
        await state.below(parent, name, lambda path: state.share.rename(path, new_path, replace=False))
    except BaseException:
        del state.aside[inode.number]
        raise
    state.inodes.rename(parent, name, parent, hidden)
    return hidden


async def _put_back(state: State, inode: Inode, parent: Inode, hidden: str, name: str) -> None:
    """Undo `_set_aside`, as far as the server lets us."""
    new_path = state.inodes.path_below(parent, name)
    try:
        await state.below(parent, hidden, lambda path: state.share.rename(path, new_path, replace=False))
    except BaseException as error:
        _leave_aside(state, inode, hidden, name)
        if not isinstance(error, OSError | Smb3fsError):
            raise
    else:
        state.aside.pop(inode.number, None)
        state.inodes.rename(parent, hidden, parent, name)


def _leave_aside(state: State, inode: Inode, hidden: str, name: str) -> None:
    """Give up on a file that was set aside: it is listed under its hidden name from now on."""
    state.aside.pop(inode.number, None)
    log.warning("the server did not do what was to follow: what was %r may be called %s now", name, hidden)


async def rename(state: State, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, flags: int) -> None:
    """Rename, replacing what POSIX says is replaced."""
    if flags & ~RENAME_NOREPLACE:
        raise _refusal(errno.EINVAL)
    old, new = state.names.to_server(name), state.names.to_server(new_name)
    move = Move(state, parent, old, new_parent, new)
    source, target = parent.child(old), new_parent.child(new)
    try:
        if flags & RENAME_NOREPLACE:
            await move.rename(replace=False)
        elif source is None or target is None:
            await move.rename(replace=True)
        elif source is target:
            return  # two names of one file: POSIX leaves both
        elif source.is_directory != target.is_directory:
            raise _refusal(errno.ENOTDIR if source.is_directory else errno.EISDIR)
        elif source.is_directory:
            await move.onto_directory()
        else:
            await move.onto_file(target)
    finally:
        state.changed(parent, old)
        state.changed(new_parent, new)
    state.inodes.rename(parent, old, new_parent, new)


class Move:
    """One rename under way."""

    def __init__(self, state: State, parent: Inode, old: str, new_parent: Inode, new: str) -> None:
        self.state = state
        self.new_parent = new_parent
        self.new = new
        self.old_path = state.inodes.path_below(parent, old)
        self.new_path = state.inodes.path_below(new_parent, new)
        self._parents_can_go = {parent, new_parent} != {state.inodes.root}

    async def rename(self, *, replace: bool) -> None:
        """Have the server rename."""
        try:
            await self.state.share.rename(self.old_path, self.new_path, replace=replace)
        except Smb3fsError as error:
            if getattr(error, "status", None) in PARENT_GONE and self._parents_can_go:
                raise stale() from error
            raise

    async def onto_directory(self) -> None:
        """Replace a directory, which POSIX allows if it is empty and SMB does not."""
        try:
            await self.rename(replace=False)
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
                await self.state.share.make_directory(self.new_path)
            raise

    async def onto_file(self, target: Inode) -> None:
        """Replace a file, which may be open here or read-only."""
        try:
            await self.rename(replace=True)
        except (OSError, Smb3fsError) as error:
            if errno_of(error) not in IN_THE_WAY or not await self._is_protected(target):
                raise
        else:
            return
        hidden = await _set_aside(self.state, target, self.new_parent, self.new)
        try:
            await self.rename(replace=False)
        except (OSError, Smb3fsError):
            await _put_back(self.state, target, self.new_parent, hidden, self.new)
            raise
        except BaseException:
            _leave_aside(self.state, target, hidden, self.new)
            raise
        try:
            await self.state.below(self.new_parent, hidden, self.state.share.remove_file)
        except (OSError, Smb3fsError):
            # The rename itself is done.
            _leave_aside(self.state, target, hidden, self.new)
        except BaseException:
            _leave_aside(self.state, target, hidden, self.new)
            raise
        else:
            self.state.inodes.unlink(self.new_parent, hidden)
            if not self.state.files.of(target):
                self.state.aside.pop(target.number, None)

    async def _is_protected(self, target: Inode) -> bool:
        """Whether it may be the target that SMB would not replace: it is open here, or read-only."""
        return bool(self.state.files.of(target)) or bool((await self.state.attributes(target)).attributes & READONLY)
