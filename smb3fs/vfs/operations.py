"""The verbs of the filesystem on plain types: all that a FUSE driver calls, whichever driver it is.

Each verb returns its result or an awaitable of it (`wall.Answer`), and fails with an OSError that has an errno, within
`timeout` seconds. The kernel's rules that shape them: it sends getattr without saying for which descriptor; it splits
and merges reads and writes; it gives O_APPEND writes an offset from the size that it last knew; it forgets inodes in
its own time and counts every entry that it was given; on ESTALE it walks the path anew and asks again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from smb3fs.cache.directories import DirectoryCache
from smb3fs.errors import StatusError, errno_of
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.leases import LeaseTable
from smb3fs.trace import Trace
from smb3fs.vfs import directory_entries, namespace, xattrs
from smb3fs.vfs.attributes import UNTOLD, Entry, Settings
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.changed import ChangedDirectories, name_of
from smb3fs.vfs.closing import handles_of
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.directory_verbs import DirectoryVerbs
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.lock_verbs import LockVerbs
from smb3fs.vfs.opening import OpeningVerbs
from smb3fs.vfs.reading import ReadingVerbs
from smb3fs.vfs.serverside_verbs import ServerSideVerbs
from smb3fs.vfs.setting import SettingVerbs
from smb3fs.vfs.state import DirectoryChanged, absent
from smb3fs.vfs.wall import Answer, answers, may_wait, waits
from smb3fs.vfs.writing import WritingVerbs
from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.lease import LeaseState

# Inode numbers are the server's to give out, so how many are left nobody knows; statvfs(3) has 0 for that.
UNKNOWN_COUNT: Final = 0
# As an int: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)


@dataclass(slots=True)
class StatFs:
    """What statfs(2) tells; blocks of `block_size` bytes."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    name_max: int
    files: int = UNKNOWN_COUNT
    files_free: int = UNKNOWN_COUNT


class Vfs(DirectoryVerbs, LockVerbs, OpeningVerbs, ReadingVerbs, ServerSideVerbs, WritingVerbs, SettingVerbs):
    """The filesystem of one mount."""

    def __init__(self, share: ShareVerbs, settings: Settings, trace: Trace) -> None:
        super().__init__(share, settings, trace)
        # Whether locks are asked of the verbs, by a driver that can, or are the kernel's own affair.
        self.server_locks = settings.server_locks
        self._changed = ChangedDirectories(self.state, self.cached)
        self.state.on_changed = self._changed.changed

    def attach(
        self,
        on_invalidate: Callable[[int, bytes], None],
        is_respelling: Callable[[int, bytes], bool],
        forget_pages: Callable[[int, Iterable[tuple[int, bytes]]], Awaitable[None]] | None = None,
        store_pages: Callable[[int, memoryview], bool] | None = None,
        directory_changed: DirectoryChanged | None = None,
        forget_attributes: Callable[[int], None] | None = None,
        are_one: Callable[[int, int], bool | None] | None = None,
    ) -> None:
        """Take what only the driver can do: see `State`."""
        self.state.on_invalidate = on_invalidate
        self.state.is_respelling = is_respelling
        if forget_pages is not None:
            self.state.forget_pages, self.state.keeps_pages = forget_pages, True
        if store_pages is not None:
            self.state.store_pages = store_pages
        self.state.directory_changed = directory_changed
        if forget_attributes is not None:
            self.state.forget_attributes = forget_attributes
        if are_one is not None:
            self.state.are_one = are_one

    def watch(self, leases: LeaseTable) -> None:
        """Keep what these leases permit."""
        self.state.deferred.watch(leases)
        self.state.pages.watch(leases)
        self.state.ahead.watch(leases)
        self.state.writes.watch(leases)

    def leave_out(self, names: set[str]) -> None:
        """Leave names out of listings, which somebody else adds to and takes from."""
        self.state.unlisted = names

    def set_root(self, told: FileAttributes) -> None:
        """Take in what the server says of the root of the mount, which must be a directory."""
        if not told.is_directory:
            raise NotADirectoryError(
                errno.ENOTDIR, "the path on the share is a file; mount the directory that it is in"
            )
        self._inodes.adopt(self._inodes.root, told.file_id, told.created)

    # -- names and attributes

    @may_wait
    def lookup(self, parent: int, name: bytes, process: int = 0) -> Answer[Entry]:
        """Find a name in a directory, for a process or thread; the kernel holds one lookup more of what was found."""
        directory = self._inodes.get(parent)
        text = self.state.names.to_server(name)
        self._trace.names.asked += 1
        entry = self.cached.look_up(directory, text) or self._look_up_ahead(directory, text)
        return entry if entry is not None else self._look_up(directory, name, process)

    def _look_up_ahead(self, directory: Inode, text: str) -> Entry | None:
        """Find a name in a fresh listing, if there is one; raises ENOENT if that shows that there is no such name."""
        now = trio.current_time()
        found = self._ahead.find(directory, text, now)
        if found is None:
            if self._ahead.lacks(directory, text, now):
                raise absent()
            return None
        told, age = found
        kind = self.state.presentation.listed_kind(told)
        if kind in UNTOLD:
            return None
        created = filetime_to_ns(told.creation_time)
        inode = self._inodes.enter(directory, text, told.file_id, created, kind)
        inode.tell()
        return self.state.presentation.listed(inode.number, told, age, kind, inode.nlink)

    async def _look_up(self, directory: Inode, name: bytes, process: int) -> Entry:
        """Find a name by asking the server: for it alone, or for the whole directory if that promises to pay."""
        self._trace.names.missed += 1
        new = self._ahead.is_new(directory)
        if new or self._ahead.worth_listing(directory, trio.current_time()):
            await (self._ahead.keep(directory) if new else self._ahead.list(directory))
            text = self.state.names.to_server(name)
            entry = self.cached.look_up(directory, text) or self._look_up_ahead(directory, text)
            if entry is not None:
                return entry
        granted, text = self.state.locks.granted, self.state.names.to_server(name)
        again = directory.child(text)
        asked = self.cached.asked(directory, again)
        before = again, again.changes if again is not None else 0, self._files.changes
        try:
            found = await namespace.look_up(self.state, directory, name, process)
        except StatusError as error:
            if errno_of(error) == errno.ENOENT:
                self.cached.learn_absent(directory, text, asked)
                self._ahead.want(directory)
                self._ahead.note_absent(directory, text, trio.current_time())
            raise
        if self._may_have_grown(found.inode, before):
            found = found._replace(told=await self.state.attributes(found.inode))
        self._ahead.note(directory, text, trio.current_time())
        if again is not None:
            self._ahead.want(directory)
        entry = self.state.counted(found.inode, found.told)
        # What was asked before a lock was granted may be told after it, but not be kept.
        if not found.alone or granted != self.state.locks.granted:
            entry.entry_timeout = 0.0
        else:
            self.cached.learn((directory, text), found.inode, found.told, entry, asked)
        return entry

    def _may_have_grown(self, inode: Inode, before: tuple[Inode | None, int, int]) -> bool:
        """Whether what the server was asked of a file may be less than was written to it before that.

        Not all of that had arrived then, perhaps. The kernel, which takes an answer for older than what is written
        since it has asked, would believe it, and end the file there. `before` is what was known under the name, how
        often that had been changed, and how often any file had, when the server was asked.
        """
        if inode in self.state.writes:
            return True
        known, changes, all_changes = before
        if inode is known:
            return inode.changes != changes and not inode.is_directory
        return inode.changes > 0 and self._files.changes != all_changes

    async def list_ahead(self) -> None:
        """List directories that are to be kept, or come next, behind the scenes, as long as the mount lives."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ahead.run)
            nursery.start_soon(self.listings_ahead.run)

    def cache_directories(
        self, cache: DirectoryCache[Contents], *, root_held: bool, tells_all: Callable[[], bool]
    ) -> None:
        """Keep directories while the server's leases permit it: see `CachedNames.use`."""
        self.cached.use(cache, root_held=root_held, tells_all=tells_all)

    def keeps_listing(self, fh: int) -> tuple[bool, bool]:
        """Whether the kernel may keep what it reads of a directory just opened, and what it has read of it before."""
        return self.cached.joined.keeps(self.state.directories.get(fh))

    @answers
    def forget(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take back (inode, count) lookups."""
        for number, count in pairs:
            self._inodes.forget(number, count)
            self._ahead.forgotten(number)

    @may_wait
    def getattr(self, number: int, fh: int | None = None, thread: int = 0) -> Answer[Entry]:
        """Return the attributes of an inode, for a thread (0: it is not known)."""
        inode = self._inodes.get(number)
        self._trace.attributes.asked += 1
        coming = self._changed.asked(inode) if inode.is_directory else None
        if coming is not None:
            return self._getattr_when_fetched(inode, fh, thread, coming)
        known = self._known_attributes(inode)
        return known if known is not None else self._getattr(inode, fh, thread)

    async def _getattr_when_fetched(self, inode: Inode, fh: int | None, thread: int, coming: trio.Event) -> Entry:
        """Return the attributes of a directory that were asked for ahead."""
        await coming.wait()
        known = self._known_attributes(inode)
        return known if known is not None else await self._getattr(inode, fh, thread)

    def _known_attributes(self, inode: Inode) -> Entry | None:
        """Return the attributes of an inode if they are known; None if the server has to be asked."""
        known = self.cached.attributes(inode)
        if known is not None:
            return known
        if inode.is_directory:
            return self._changed.take(inode)
        if self.state.writes.failures(inode):
            return None
        return self._told_at_open(inode) or self._listed_ahead(inode)

    def _may_be_listed(self, inode: Inode) -> bool:
        """Whether a listing tells the attributes of an inode: those of a file with one name that is not open here."""
        return inode.nlink <= 1 and len(inode.links) == 1 and not inode.is_directory and not self._files.of(inode)

    def _listed_ahead(self, inode: Inode) -> Entry | None:
        """Return the attributes of an inode from a fresh listing, if there is one."""
        if not self._may_be_listed(inode):
            return None
        parent, name = inode.links[0]
        found = self._ahead.find(parent, name, trio.current_time())
        if found is None:
            return None
        told, age = found
        kind = self.state.presentation.listed_kind(told)
        created = filetime_to_ns(told.creation_time)
        if kind in UNTOLD or not self._inodes.is_same(inode, told.file_id, created, kind):
            return None
        inode.told += 1
        return self.state.presentation.listed(inode.number, told, age, kind, inode.nlink)

    async def _getattr(self, inode: Inode, fh: int | None, thread: int) -> Entry:
        """Return the attributes of an inode as the server has them: it is asked for them, or for the directory."""
        self._trace.attributes.missed += 1
        if self._may_be_listed(inode):
            parent = inode.links[0][0]
            if self._ahead.worth_listing(parent, trio.current_time()):
                await self._ahead.list(parent)
                listed = self._listed_ahead(inode)
                if listed is not None:
                    return listed
        granted, name = self.state.locks.granted, name_of(inode)
        asked = self.cached.asked(name[0], inode)
        try:
            told = await self.state.attributes(inode)
        except OSError as error:
            removed = directory_entries.of_removed(self.state, inode) if error.errno == errno.ESTALE else None
            if removed is None:
                raise
            return removed
        self.state.check_arrived(inode, fh=fh, thread=thread)
        if self._may_be_listed(inode):
            self._ahead.note(*inode.links[0], trio.current_time())
        entry = self.state.told(inode, told)
        if granted == self.state.locks.granted and inode.links[:1] == (name,) * bool(inode.links):
            self.cached.learn(name, inode, told, entry, asked)
        return entry

    def _told_at_open(self, inode: Inode) -> Entry | None:
        """Return what the server told at an open, as far as that may be believed still; None if it may not.

        The kernel asks for all attributes after each read, for the sake of the time of access. Without R the size may
        be another one; the times may be so in any case, and are believed for no longer than without a lease. How many
        names a file has is not told at an open, so one that had several is asked about.
        """
        if inode.nlink > 1 or self.state.is_aside(inode):
            return None
        now, timeout = trio.current_time(), self.state.presentation.file_timeout
        for handle in handles_of(self.state, inode):
            lease, age = handle.lease, now - handle.asked_at
            if age < timeout and lease is not None and lease.state & READ:
                if handle.asked_after != (inode.changes, inode.told):
                    continue
                told = handle.attributes_at_open._replace(links=inode.nlink)
                entry = self.state.presentation.entry(inode.number, told)
                entry.attr_timeout = max(0.0, timeout - age)
                return entry
        return None

    def use_posix(self) -> None:
        """Go by the POSIX extensions from now on, which the share uses; before anything has been looked up."""
        self.state.use_posix()

    @answers
    def access(self, number: int, mask: int) -> bool:
        """Whether access(2) succeeds as far as this side knows; asked only under noperm, where the server judges.

        As with mount.cifs, nothing is executable that has no execute bit at all; where the server keeps modes, it is
        the kernel that sees to that.
        """
        inode = self._inodes.get(number)
        bits = self.state.presentation.file_permissions
        return self.state.posix or inode.is_directory or not mask & os.X_OK or bool(bits & 0o111)

    # -- extended attributes

    @may_wait
    def getxattr(self, number: int, name: bytes) -> Answer[bytes]:
        """Return the value of an extended attribute, ENODATA without it."""
        return xattrs.get(self.state, self._inodes.get(number), name)

    @may_wait
    def listxattr(self, number: int) -> Answer[list[bytes]]:
        """Return the names of the extended attributes."""
        return xattrs.names(self.state, self._ahead, self._inodes.get(number))

    @may_wait
    def setxattr(self, number: int, name: bytes, value: bytes, flags: int) -> Answer[None]:
        """Set an extended attribute; `flags` are those of setxattr(2)."""
        self.state.deferred.drop(number)  # it may be about who may open the file
        self._inodes.get(number).changes += 1
        return xattrs.set_(self.state, self._inodes.get(number), name, value, flags)

    @may_wait
    def removexattr(self, number: int, name: bytes) -> Answer[None]:
        """Remove an extended attribute, ENODATA without it."""
        self.state.deferred.drop(number)  # it may be about who may open the file
        self._inodes.get(number).changes += 1
        return xattrs.remove(self.state, self._inodes.get(number), name)

    # -- the share

    @waits
    async def statfs(self) -> StatFs:
        """Return the size of the share and what is free of it."""
        space = await self._share.space()
        return StatFs(
            space.block_size,
            space.total_blocks,
            space.free_blocks,
            space.available_blocks,
            space.name_max,
            space.files,
            space.files_free,
        )
