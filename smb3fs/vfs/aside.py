"""Hidden names: where files are that were removed or replaced while they are open here, until their last close.

Most are deleted under such a name at once, and the server keeps it until they are closed. Where what is open outlives
its connection a server would give it back by its name alone, or once and not again if it is to be deleted. There the
file is deleted by us, after its last close, and has its hidden name until then (decision 0047).
"""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from typing import Final

from smb3fs.errors import ConnectionLost, Smb3fsError, StatusError, describe, errno_of
from smb3fs.vfs.grace import to_the_end
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State

log = logging.getLogger(__name__)

# In place of the number of an inode, for a name that is no inode's.
NOBODYS: Final = 0


def known_by(inode: Inode | None) -> dict[str, int | None]:
    """Return by what the server can know a file again: its number, and when it was born."""
    return {} if inode is None else {"expect": inode.expect, "born": inode.created or None}


async def make_lasting(state: State, inode: Inode, parent: Inode, name: str) -> None:
    """Have what is open of a file outlive its connection, which is about to lose the name to be opened anew by."""
    if any(not file.handle.durability for file in state.files.of(inode)):
        await state.below(parent, name, lambda path: state.share.make_lasting(path, expect=inode.expect))


async def set_aside_until_closed(state: State, inode: Inode, parent: Inode, name: str, hidden: str) -> bool:
    """Rename a file that is removed to a hidden name; True if it goes from there with its last close."""
    path = state.inodes.path_below(parent, hidden)
    held = await state.below(parent, name, lambda old: state.share.hold_aside(old, path, expect=inode.expect))
    there = True  # for all that is known
    try:
        await set_aside(state, inode, parent, name, hidden)
    except StatusError:
        there = False
        raise
    finally:
        if held:
            await state.share.settle_aside(path, there=there)
    if held:
        _forget_closed(state, inode, parent, hidden)
    return held


def _forget_closed(state: State, inode: Inode, parent: Inode, hidden: str) -> None:
    """Forget the hidden name of a file that was closed while it was given it."""
    if not state.files.of(inode):
        state.not_aside(inode)
        state.inodes.unlink(parent, hidden)


async def set_aside(state: State, inode: Inode, parent: Inode, name: str, hidden: str) -> None:
    """Rename a file to a hidden name of ours."""
    state.aside[hidden] = inode.number, parent
    others = state.spellings(inode, parent, name)
    new_path = state.inodes.path_below(parent, hidden)
    with state.moving():
        try:
            await _rename_for_certain(state, inode, parent, name, new_path)
        except BaseException:
            state.aside.pop(hidden, None)  # its last close may have forgotten it
            raise
        state.forget_spellings(parent, others)
        state.inodes.rename(parent, name, parent, hidden)


async def _rename_for_certain(state: State, inode: Inode, parent: Inode, name: str, new_path: str) -> None:
    """Rename to a name that nobody else has; after a loss the server is asked whether that was done."""
    while True:
        try:
            return await state.below(
                parent, name, lambda path: state.share.rename(path, new_path, replace=False, **known_by(inode))
            )
        except ConnectionLost as error:
            log.debug("whether a rename to %s was done is asked on the next connection: %s", new_path, describe(error))
        try:
            await state.share.lookup(new_path)
        except StatusError as error:
            if errno_of(error) != errno.ENOENT:
                raise ConnectionLost("nobody knows whether it was renamed") from error
        else:
            return None


async def put_back(state: State, inode: Inode, parent: Inode, hidden: str, name: str, *, doomed: bool = False) -> None:
    """Undo `set_aside`, as far as the server lets us; what is `doomed` was to be removed, not only replaced."""
    new_path = state.inodes.path_below(parent, name)
    try:
        await state.below(
            parent, hidden, lambda path: state.share.rename(path, new_path, replace=False, **known_by(inode))
        )
    except (OSError, Smb3fsError) as error:
        if doomed and isinstance(error, ConnectionLost):
            await remove_later(state, inode, parent, hidden, name)
        else:
            leave_aside(state, hidden, name)
    except BaseException:
        if doomed:  # whoever asked learns only that it was not done in time
            await remove_later(state, inode, parent, hidden, name)
        else:
            leave_aside(state, hidden, name)
        raise
    else:
        state.aside.pop(hidden, None)
        state.inodes.rename(parent, hidden, parent, name)


async def remove_later(state: State, inode: Inode, parent: Inode, hidden: str, name: str) -> None:
    """Give up on removing a file that was set aside, and have it removed when the server lets us; nobody sees it."""
    path = state.inodes.path_below(parent, hidden)
    if await state.share.remove_later(path, expect=inode.expect):
        state.aside[hidden] = NOBODYS, parent
    else:
        leave_aside(state, hidden, name)


def leave_aside(state: State, hidden: str, name: str) -> None:
    """Give up on a file that was set aside: it is listed under its hidden name from now on."""
    state.aside.pop(hidden, None)
    log.warning("the server did not do what was to follow: what was %r may be called %s now", name, hidden)


async def clear(state: State, directory: Inode) -> None:
    """Take what is hidden in a directory, and would keep it from being removed, out of there."""
    for name, (_, holder) in tuple(state.aside.items()):
        inode = directory.child(name)
        if holder is directory and inode is not None:
            await to_the_end(_move_up(state, directory, name, inode))
    if state.unlisted:
        with suppress(OSError, Smb3fsError):
            await state.by_path(directory, state.share.clear_aside, patient=False)  # it may be a rename's


async def _move_up(state: State, directory: Inode, name: str, inode: Inode) -> None:
    """Move what is hidden to the top of the mount; where that cannot be it is removed, and lost with its connection."""
    root, known = state.inodes.root, known_by(inode)
    new_path = state.inodes.path_below(root, name)
    try:
        with state.moving():
            await state.below(directory, name, lambda path: state.share.rename(path, new_path, replace=False, **known))
            state.inodes.rename(directory, name, root, name)
        if name in state.aside:
            state.aside[name] = inode.number, root
    except (OSError, Smb3fsError) as error:
        log.debug("%s is not moved out of a directory that is to be removed: %s", name, describe(error))
        with suppress(OSError, Smb3fsError):
            await state.below(directory, name, lambda path: state.share.remove_file(path, **known))
            state.inodes.unlink(directory, name)
    finally:
        if name not in state.aside:  # it was closed meanwhile
            state.inodes.unlink(root, name)


async def goes_when_closed(state: State, target: Inode, parent: Inode, hidden: str) -> bool:
    """Whether a file that was replaced, and has a hidden name by now, goes with its last close.

    Not before it has been replaced is that asked for, and written down: until then it is nobody's to remove.
    """
    path = state.inodes.path_below(parent, hidden)
    held = await state.share.hold_aside(path, path, expect=target.expect)
    if held:
        await state.share.settle_aside(path, there=True)
        _forget_closed(state, target, parent, hidden)
    return held
