"""Reading an open directory: from the pages of its listing to entries for the kernel."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator

import trio

from smb3fs.errors import Smb3fsError, errno_of
from smb3fs.vfs.attributes import Entry, Listed
from smb3fs.vfs.directories import BATCH, DOTS, DirEntry, OpenDirectory
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.names import Hostile
from smb3fs.vfs.spelling import Changes
from smb3fs.vfs.state import MOVED, State
from smb3fs.vfs.wall import Answer, settle
from smb3fs.wire.codec import filetime_to_ns


def begin(state: State, directory: OpenDirectory) -> Answer[None]:
    """Begin a listing, at opendir or rewinddir, from what is kept of the directory if that may be."""
    state.trace.listings.asked += 1
    state.listings_ahead.note(directory.inode)
    if not state.cached.list(directory):
        return _ask(state, directory)
    state.listings_ahead.passed(directory.inode)
    return None


async def _ask(state: State, directory: OpenDirectory) -> None:
    """Ask the server for a listing, unless that was done ahead."""
    inode = directory.inode
    if await state.listings_ahead.take(directory) or state.cached.list(directory):
        return
    state.trace.listings.missed += 1
    # What we change from now on may or may not be in the listing; what we changed before is.
    before, directory.changed = directory.changed, Changes()
    directory.outdated = state.locks.is_crowded(inode)
    try:
        pages = await state.list_directory(directory)
    except BaseException:
        directory.changed |= before
        raise
    directory.begin(pages, trio.current_time(), state.cached.base())


def read(state: State, directory: OpenDirectory, cookie: int) -> Answer[Iterator[DirEntry]]:
    """Return entries from a position on; none means the end of the directory."""
    if cookie == 0 and (directory.read or not state.cached.may_join(directory)):
        directory.read = True
        return _again(state, directory)
    directory.read = True
    place = state.cached.place(directory, cookie) if cookie else 0
    if place < DOTS:
        return itertools.chain(_dots(state, directory)[place:], _entries(state, directory, 0))
    index = _next_shown(state, directory, place - DOTS)
    if index < len(directory):
        if not _was_changed(directory, index):
            return _entries(state, directory, index)
    elif directory.complete:
        return iter(())
    return _wait(state, directory, index)


async def _again(state: State, directory: OpenDirectory) -> Iterator[DirEntry]:
    """Begin again, after rewinddir."""
    await settle(begin(state, directory))
    return itertools.chain(_dots(state, directory), _entries(state, directory, 0))


async def _wait(state: State, directory: OpenDirectory, index: int) -> Iterator[DirEntry]:
    """Return entries from an index on, once there is one that can be shown: fetched, or looked up anew."""
    while True:
        index = _next_shown(state, directory, index)
        if index >= len(directory):
            if not await directory.fetch(trio.current_time()):
                return iter(())
        elif not _was_changed(directory, index):
            return _entries(state, directory, index)
        else:
            entry = await _looked_up(state, directory, index)
            if entry is not None:
                return itertools.chain((entry,), _entries(state, directory, index + 1))
            index += 1


def of_removed(state: State, inode: Inode) -> Entry | None:
    """Return the attributes of a directory that we have removed, and somebody has open, as they were when he opened it.

    opendir(3) asks for them by the descriptor that it has just got, and there is no name any more to ask the server by.
    """
    for _, told, came in (one for opened in state.directories.removed(inode) for one in opened.entries(0, DOTS)):
        if told is not None and told.name == ".":
            entry = state.presentation.listed(inode.number, told, trio.current_time() - came, stat.S_IFDIR, 0)
            entry.attr.nlink = 0
            return entry
    return None


def _dots(state: State, directory: OpenDirectory) -> tuple[DirEntry, DirEntry]:
    """Return `.` and `..`, of which the kernel counts no lookups."""
    inode, base = directory.inode, directory.base
    own, parent = (state.presentation.directory(number) for number in (inode.number, inode.parent.number))
    return (
        DirEntry(b".", own, base + 1, False, inode, "", 0, 0, stat.S_IFDIR),
        DirEntry(b"..", parent, base + DOTS, False, inode, "", 0, 0, stat.S_IFDIR),
    )


def _entries(state: State, directory: OpenDirectory, index: int) -> Iterator[DirEntry]:
    """Yield the entries that have come, up to one that we have changed since; not more than one answer can hold.

    The kernel must take each (see `Vfs.remember`) or none from it on before the next one is asked for: numbers are
    chosen as entries pass.
    """
    now = trio.current_time()
    parent, changed, inodes = directory.inode, directory.changed, state.inodes
    listed, listed_kind = state.presentation.listed, state.presentation.listed_kind
    held = state.cached.holding(directory)
    first = directory.base + DOTS + 1
    for position, told, came in directory.entries(index, BATCH):
        name = _name(state, directory, position, told)
        if name is None or told is None:
            continue
        if changed and told.name in changed:
            return
        created = filetime_to_ns(told.creation_time)
        kind = listed_kind(told)
        known = inodes.find(parent, told.name, told.file_id, created, kind)
        number = known.number if known is not None else inodes.choose_number(told.file_id)
        entry = listed(number, told, now - came, kind, known.nlink if known is not None else 1)
        if held is not None and kind:
            held(entry, known, told.name, kind)
        yield DirEntry(
            name,
            entry,
            first + position,
            True,
            parent,
            told.name,
            told.file_id,
            created,
            kind,
            known,
        )


def _name(state: State, directory: OpenDirectory, index: int, told: Listed | None) -> bytes | None:
    """Return an entry's name for the kernel; None for one that is not shown."""
    if told is None:
        if index not in directory.dropped:
            directory.dropped.add(index)
            state.names.drop(Hostile.UNDECODABLE, f"entry {index}")
        return None
    # Servers list these two as well; the kernel has had ours.
    if told.name in (".", "..") or state.is_hidden(told.name):
        return None
    name = state.names.to_kernel(told.name)
    if isinstance(name, Hostile):
        if index not in directory.dropped:
            directory.dropped.add(index)
            state.names.drop(name, told.name)
        return None
    return name


def _next_shown(state: State, directory: OpenDirectory, index: int) -> int:
    """Return the index of the next entry that is shown, or the number of entries that have come."""
    for position, told, _ in directory.entries(index, len(directory)):
        if _name(state, directory, position, told) is not None:
            return position
    return max(index, len(directory))


def _was_changed(directory: OpenDirectory, index: int) -> bool:
    """Whether we have changed an entry since its listing was asked for."""
    if not directory.changed:
        return False
    told, _ = directory.entry(index)
    return told is not None and told.name in directory.changed


async def _looked_up(state: State, directory: OpenDirectory, index: int) -> DirEntry | None:
    """Return an entry as it is now; None if it is gone."""
    told, _ = directory.entry(index)
    name = _name(state, directory, index, told)
    if told is None or name is None:
        return None
    parent = directory.inode
    path = state.inodes.path_below(parent, told.name)
    known = parent.child(told.name)
    try:
        if known is not None and state.files.writer(known):
            now = await state.attributes(known)
        else:
            now = await state.share.lookup(path)
    except (OSError, Smb3fsError) as error:
        if errno_of(error) in MOVED:
            return None
        raise
    found = state.inodes.find(parent, told.name, now.file_id, now.created, now.kind)
    number = found.number if found is not None else state.inodes.choose_number(now.file_id)
    entry = state.presentation.entry(number, now)
    return DirEntry(
        name,
        entry,
        directory.base + index + DOTS + 1,
        True,
        parent,
        told.name,
        now.file_id,
        now.created,
        now.kind,
        found,
    )
