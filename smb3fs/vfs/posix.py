"""Owners and modes where the server keeps them: what a chmod or chown asks of it."""

from __future__ import annotations

import errno
import os

from smb3fs.handles.attributes import FileAttributes
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State
from smb3fs.wire.posix import PERMISSIONS
from smb3fs.wire.sid import Sid, of_unix_group, of_unix_user


async def set_owned(state: State, inode: Inode, changes: SetAttr) -> FileAttributes:
    """Set permission bits, owner and group; EPERM for what the server does not let us, except under noperm."""
    told: FileAttributes | None = None
    try:
        owner, group = None, None
        if changes.uid is not None or changes.gid is not None:
            told = await state.attributes(inode)
            owner, group = _wishes(state, told, changes)
        mode = None if changes.mode is None else changes.mode & PERMISSIONS
        if (mode, owner, group) != (None, None, None):
            told = await state.by_path(
                inode,
                lambda path: state.share.set_owned(path, expect=inode.expect, mode=mode, owner=owner, group=group),
            )
    except OSError as error:
        if error.errno != errno.EPERM or not state.presentation.keeps_none:
            raise
    return told if told is not None else await state.attributes(inode)


def _wishes(state: State, told: FileAttributes, changes: SetAttr) -> tuple[Sid | None, Sid | None]:
    """Return the owner and the group to set; None for what is so already."""
    presentation = state.presentation
    had = presentation.owner(told.owned) if told.owned is not None else (None, None)
    uid = None if changes.uid == had[0] else changes.uid
    gid = None if changes.gid == had[1] else changes.gid
    if (uid is not None and presentation.forces_uid) or (gid is not None and presentation.forces_gid):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return None if uid is None else of_unix_user(uid), None if gid is None else of_unix_group(gid)
