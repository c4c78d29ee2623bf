"""What becomes of an open file's handle when a program closes it: it waits for the next open, or goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import trio

from smb3fs.handles.opens import Open
from smb3fs.vfs.files import OpenFile
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State


def close(state: State, file: OpenFile) -> None:
    """Take an open file out of the table, and defer or queue its CLOSE."""
    state.files.remove(file.fh)
    if file.stream is not None:
        file.stream.drop()
    if not file.keeps_handle and not _defer(state, file):
        # A file that was removed while it was open goes with its last handle.
        state.share.close(file.handle, hurry=file.handle.writable or state.is_aside(file.inode))
    if file.handle.writable:
        state.cached.closed(file.inode)
    if not state.files.of(file.inode):
        state.not_aside(file.inode)
        state.writes.forget(file.inode)
        state.presentation.doubted.discard(file.inode.number)
    for other in state.files.of(file.inode):  # what pages there are may have come under the lease that ends now
        state.got_pages(other)
    state.inodes.drop_unused(file.inode)


def _defer(state: State, file: OpenFile) -> bool:
    """Have the handle of a file wait for the next open, if nothing speaks against it."""
    number = file.inode.number
    return (
        _is_named(state, file)
        and number not in state.locks.by_inode
        and not state.is_aside(file.inode)
        and file.handle.ledger is None
        and file.handle.users == 1
        # Samba 4.17 gives back no open of a file that has another one.
        and not state.files.of(file.inode)
        and state.share.usable(file.handle)
        and state.deferred.put(number, file.handle, trio.current_time())
    )


def _is_named(state: State, file: OpenFile) -> bool:
    """Whether a file still has the name by which it was opened; others may be from before somebody renamed it.

    One that was removed is not there any more, but while it is open its directory cannot be removed either.
    """
    with suppress(OSError):
        return file.handle.path in state.inodes.paths(file.inode)
    return False


def handles_of(state: State, inode: Inode) -> Iterator[Open]:
    """Yield the handles of a file, those that are used first."""
    for file in state.files.of(inode):
        yield file.handle
    waiting = state.deferred.find(inode.number)
    if waiting is not None:
        yield waiting


def drop_handles_in(state: State, directory: Inode) -> None:
    """Close what waits of the files in a directory."""
    for child in tuple((directory.names or {}).values()):
        state.deferred.drop(child.number)
