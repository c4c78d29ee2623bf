"""Asking the server how a name is spelled, for which the only way is to list the directory that it is in."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import aclosing

from smb3fs.errors import Smb3fsError, WireError, errno_of
from smb3fs.vfs import spelling
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State
from smb3fs.wire.directory import DirectoryEntry, entry_offsets


async def _entries(state: State, parent: Inode) -> AsyncGenerator[DirectoryEntry, None]:
    """Yield the entries of a directory."""
    pages = await state.by_path(parent, lambda path: state.share.list_directory(path, parent.expect))
    try:
        read = 0
        while True:
            for page in pages.pages[read:]:
                for offset in entry_offsets(page):
                    try:
                        entry = DirectoryEntry.parse_at(page, offset)
                    except WireError:  # no name that anybody could mean
                        continue
                    if entry.name not in (".", ".."):
                        yield entry
            read = len(pages.pages)
            if not await pages.next_page():
                return
    finally:
        pages.close()


async def is_spelled(state: State, parent: Inode, name: str) -> bool:
    """Whether a name is in a directory in just this spelling."""
    async with aclosing(_entries(state, parent)) as entries:
        async for entry in entries:
            if entry.name == name:
                return True
    return False


async def spelled(state: State, parent: Inode, name: str) -> str:
    """Return the server's spelling of what `nocase` says that a name means; the name itself where nothing is like it.

    That costs nothing for a name that is known, and where the server does not tell spellings apart.
    """
    if not state.nocase or state.server_folds or parent.child(name) is not None:
        return name
    wanted, found, other = spelling.key(name), None, None
    async with aclosing(_entries(state, parent)) as entries:
        async for entry in entries:
            if entry.name == name:
                return name
            if found is None and spelling.key(entry.name) == wanted:
                found = entry.name
            if other is None and entry.name.swapcase() != entry.name:
                other = entry
    if found is None and other is not None and state.server_folds is None:
        state.server_folds = await _folds(state, parent, other)
    return found or name


async def _folds(state: State, parent: Inode, entry: DirectoryEntry) -> bool | None:
    """Whether the server finds an entry under another spelling; None if it does not say."""
    try:
        told = await state.below(parent, entry.name.swapcase(), state.share.lookup)
    except (OSError, Smb3fsError) as error:
        return False if errno_of(error) == errno.ENOENT else None
    return told.file_id == entry.file_id
