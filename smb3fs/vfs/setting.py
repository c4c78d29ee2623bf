"""setattr: size, times, modes and owners of a file."""

from __future__ import annotations

from collections.abc import Callable

from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.vfs import posix
from smb3fs.vfs.attributes import Entry, SetAttr
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.state import State
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import waits
from smb3fs.wire.codec import Buffer


class SettingVerbs(Verbs):
    """setattr."""

    @waits
    async def setattr(self, number: int, changes: SetAttr, fh: int | None = None) -> Entry:
        """Change attributes and return what they are then; what cannot be is refused before anything is changed."""
        inode = self._inodes.get(number)
        settled = await self._settle_with_times(inode, changes)
        presentation = self.state.presentation
        inode.changes += 1
        if (changes.mode, changes.uid, changes.gid, changes.size) != (None, None, None, None):
            self.state.deferred.drop(number)  # who may open it now, the server is to say
        if self.state.posix:
            return self.state.told(inode, await self._setattr_posix(inode, changes, fh, settled))
        presentation.check_owner(changes.uid, changes.gid)
        readonly, told = None, settled
        if changes.mode is not None:
            readonly = presentation.readonly_wish(changes.mode, is_directory=inode.is_directory)
        try:
            if changes.size is not None:
                with self._files.changing(inode):
                    told = await self._truncate(inode, changes.size, fh)
            attributes = 0
            if readonly is not None:
                told = told or await self.state.attributes(inode)
                attributes = presentation.with_readonly(told.attributes, readonly)
            if attributes or (changes.sets_times and settled is None):
                told = await set_basic(self.state, inode, _times(changes)._replace(attributes=attributes))
        finally:
            self.state.directories.note_change_of(inode)
        if told is None:
            told = await self.state.attributes(inode)
        self._inodes.adopt(inode, told.file_id, told.created)
        presentation.remember(number, changes)
        return self.state.told(inode, told)

    async def _settle_with_times(self, inode: Inode, changes: SetAttr) -> FileAttributes | None:
        """Have what was written arrive, and with it times if nothing else is to be set; None if they are not set.

        That is how an archive is unpacked and a file copied: written, given its times, closed.
        """
        told: FileAttributes | None = None
        times = _times(changes)

        async def last(handle: Open, offset: int, data: Buffer, /, *, check: Callable[[], None] | None = None) -> int:
            nonlocal told
            told = await self._share.write_and_set(handle, offset, data, times, check=check)
            return len(data)

        await self.state.settle(inode, last=last if changes.only_times else None)
        return told

    async def _setattr_posix(
        self, inode: Inode, changes: SetAttr, fh: int | None, settled: FileAttributes | None
    ) -> FileAttributes:
        """Change attributes where the server keeps owners and modes; `settled` says that times are set already."""
        told = settled
        try:
            if (changes.mode, changes.uid, changes.gid) != (None, None, None):
                told = await posix.set_owned(self.state, inode, changes)
            if changes.size is not None:
                with self._files.changing(inode):
                    told = await self._truncate(inode, changes.size, fh)
            if changes.sets_times and settled is None:
                told = await set_basic(self.state, inode, _times(changes))
        finally:
            self.state.directories.note_change_of(inode)
        if told is None:
            told = await self.state.attributes(inode)
        self._inodes.adopt(inode, told.file_id, told.created)
        self.state.presentation.remember(inode.number, changes)
        return told

    async def _truncate(self, inode: Inode, size: int, fh: int | None) -> FileAttributes:
        """Set a file's size through a handle that may write, or by path."""
        given = self._files.get(fh) if fh is not None else None
        if given is not None and given.handle.writable:
            return await self._share.truncate(self.state.locks.handle_for(given, write=True), size)
        told = await self.state.through_writer(inode, lambda handle: self._share.truncate(handle, size))
        if told is None:
            told = await self.state.by_path(
                inode, lambda path: self._share.truncate_path(path, size, expect=inode.expect)
            )
        return told


async def set_basic(state: State, inode: Inode, wish: Basics) -> FileAttributes:
    """Set times and FILE_ATTRIBUTE bits through a handle that may write, or by path."""
    told = await state.through_writer(inode, lambda handle: state.share.set_basic_open(handle, wish))
    if told is None:
        told = await state.by_path(inode, lambda path: state.share.set_basic(path, wish, expect=inode.expect))
    return told


def _times(changes: SetAttr) -> Basics:
    """Return the times of access and of the last write that are to be set, as the layers below take them.

    For them 0 is no time; one nanosecond later is the same time in a FILETIME.
    """
    return Basics(
        accessed=1 if changes.atime_ns == 0 else changes.atime_ns,
        modified=1 if changes.mtime_ns == 0 else changes.mtime_ns,
    )
