"""Symbolic links, second names of files, pipes, sockets and devices: what becomes of the kernel's calls for them."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from smb3fs.handles.attributes import FileAttributes
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State
from smb3fs.wire.mfsymlink import TARGET_MAX

SPECIAL: Final = frozenset({stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})


def _refusal(number: int) -> OSError:
    """Return an OSError with its usual text."""
    return OSError(number, os.strerror(number))


async def read_link(state: State, inode: Inode) -> bytes:
    """Return where a link leads."""
    target = await state.by_path(inode, lambda path: state.share.read_link(path, inode.expect))
    return state.targets.to_kernel(target)


async def make_link(state: State, parent: Inode, name: bytes, target: bytes) -> tuple[Inode, FileAttributes]:
    """Make a symbolic link, in the notation that the mount is told to use."""
    text = state.names.to_server(name)
    notation = state.symlink
    if notation == "none":
        raise _refusal(errno.EPERM)
    if notation == "mfsymlinks":
        if len(target) > TARGET_MAX:
            raise _refusal(errno.ENAMETOOLONG)
        made = state.make(parent, text, lambda path: state.share.make_link_file(path, target))
    else:
        link = state.targets.to_server(target)
        made = state.make(parent, text, lambda path: state.share.make_link(path, link))
    try:
        told = await made
    finally:
        state.changed(parent, text)
    return state.seen(parent, text, told), told


async def make_special(state: State, parent: Inode, name: bytes, mode: int, rdev: int) -> tuple[Inode, FileAttributes]:
    """Make a pipe, a socket or a device, as far as the server has them."""
    text = state.names.to_server(name)
    if stat.S_IFMT(mode) not in SPECIAL or state.special == "none":
        raise _refusal(errno.EPERM)
    try:
        told = await state.make(parent, text, lambda path: state.share.make_special(path, mode, rdev))
    finally:
        state.changed(parent, text)
    return state.seen(parent, text, told), told


async def link(state: State, inode: Inode, parent: Inode, name: bytes) -> FileAttributes:
    """Give a file a second name."""
    text = state.names.to_server(name)
    new = state.inodes.path_below(parent, text)
    try:
        told = await state.by_path(inode, lambda path: state.share.link(path, new, inode.expect))
    finally:
        state.changed(parent, text)
        state.directories.note_change_of(inode)
    # The time of creation that a server makes up moves with the others; taken over first, it makes no newcomer of what
    # has been given the name.
    if not state.is_it(inode, told) or state.seen(parent, text, told) is not inode:
        raise _refusal(errno.ESTALE)
    return told
