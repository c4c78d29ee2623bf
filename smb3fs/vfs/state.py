"""Everything that one mount knows, and the few moves that all verbs are made of.

Who runs: every verb is called by the driver in a task that waits for nothing else, on one thread, so what stands
between two `await`s is done at once. Each verb decides synchronously, then waits: it reads the tables, builds its
paths, and the share queues its request before the first wait, so requests leave in the order of the kernel's. What an
answer says is entered into the tables in one go when it comes.

Nothing locks a file or a directory here. The kernel does not create, remove or rename in a directory while it looks
up or lists there; beyond that, an answer that is overtaken by another one leaves a link in the inode table that leads
nowhere, and whoever follows it tries the next one and then says ESTALE, on which the kernel walks the path anew.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias, TypeVar

import trio

from smb3fs.cache.handles import DeferredHandles
from smb3fs.cache.pages import KeptPages
from smb3fs.cache.read_ahead import ReadAhead
from smb3fs.cache.writes import Cause, GatheredWrites, Write
from smb3fs.errors import Smb3fsError, Status, StatusError, errno_of
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.trace import Trace
from smb3fs.vfs import spelling
from smb3fs.vfs.attributes import Entry, Presentation, Settings
from smb3fs.vfs.backend import Pages, ShareVerbs
from smb3fs.vfs.directories import DirectoryTable, OpenDirectory
from smb3fs.vfs.files import FileTable, OpenFile
from smb3fs.vfs.inodes import Inode, InodeTable
from smb3fs.vfs.kept import AheadListings, KeptDirectories
from smb3fs.vfs.locks import Locks
from smb3fs.vfs.names import NAME_MAX, NameMapping, Names
from smb3fs.vfs.targets import Targets
from smb3fs.wire import mfsymlink
from smb3fs.wire.infoclass import FILE_CASE_SENSITIVE_SEARCH, FILE_NAMED_STREAMS, FileFsAttributeInformation

T = TypeVar("T")
# The directory, the children of which attributes, and the names (directory, name) that the kernel may believe in.
DirectoryChanged: TypeAlias = Callable[[int, Sequence[int], Sequence[tuple[int, bytes]]], trio.Event]

# Answers by which a path shows that it no longer leads to the file that it led to.
MOVED: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.EISDIR})
# ... and that it is the directory above that has moved.
PARENT_GONE: Final = frozenset({Status.OBJECT_PATH_NOT_FOUND, Status.OBJECT_PATH_INVALID})
# Answers by which a handle shows that it no longer stands for anything: its connection was lost.
HANDLE_LOST: Final = frozenset({errno.EIO, errno.EBADF})
# Seconds that a new name waits for a removed file to be closed by others, and between attempts: first, and at most.
NAME_PATIENCE: Final = 2.0
FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.1


async def _nothing_to_forget(number: int, names: Iterable[tuple[int, bytes]]) -> None:
    """Do what there is to do about the pages of a file, and about names, where nobody caches any."""


def stale() -> OSError:
    """Return the error that makes the kernel walk the path anew."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def absent() -> OSError:
    """Return the error of a name that does not exist."""
    return OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def too_long(error: StatusError, name: str) -> bool:
    """Whether a name was refused for its length: a server's disk may count bytes where SMB counts characters."""
    return error.status == Status.OBJECT_NAME_INVALID and len(name.encode("utf-8", "surrogatepass")) > NAME_MAX


class State:
    """The tables of one mount, and the share that they are about."""

    def __init__(self, share: ShareVerbs, settings: Settings, trace: Trace) -> None:
        self.share = share
        self.uncached = settings.cache == "none"
        self.user_xattr = settings.user_xattr
        # Whether files may have alternate data streams.
        self.has_streams = True
        self.names = Names(NameMapping(settings.name_mapping), trace)
        self.inodes = InodeTable(server_numbers=settings.server_inodes, separator=self.names.separator)
        self.files = FileTable()
        self.locks = Locks(share)
        self.directories = DirectoryTable()
        self.presentation = Presentation(settings)
        self.inodes.on_drop = self._dropped
        self.nodelete = settings.nodelete
        # How symbolic links and special files are made: `native`, `mfsymlinks` or `none`; `nfs` or `none`.
        self.symlink = settings.symlink
        self.special = settings.special_files
        self._symlink_root = settings.symlink_root
        if settings.mfsymlinks:
            self.presentation.link_file_size = mfsymlink.SIZE
        self.trace = trace
        # Whether names are looked for in other spellings, and whether the server does so by itself (None: not known).
        self.nocase = settings.nocase
        self.server_folds: bool | None = None
        # The driver's: forget what the kernel holds under a name of a directory; and whether a process that looks up a
        # name is about to rename another spelling of it to that.
        self.on_invalidate: Callable[[int, bytes], None] = lambda parent, name: None
        self.is_respelling: Callable[[int, bytes], bool] = lambda process, name: False
        # The verbs': take note that somebody else has changed something in a directory; and that we have.
        self.on_stale: Callable[[Inode], None] = lambda parent: None
        self.on_changed: Callable[[Inode, bool], None] = lambda directory, hurry: None
        # The driver's again: have the kernel drop the pages of a file and what it knows of it, and ask for names in
        # directories before it uses them again; wait until it has and will.
        self.forget_pages: Callable[[int, Iterable[tuple[int, bytes]]], Awaitable[None]] = _nothing_to_forget
        # Whether the driver can, so that pages may be kept from one open to the next.
        self.keeps_pages = False
        self.ahead = ReadAhead(share.read_ahead, 0 if self.uncached else settings.read_ahead)
        self.pages = KeptPages(
            lambda number: self.forget_pages(number, ()),
            lifetime=settings.acregmax,
            loose=settings.cache == "loose",
        )
        self.deferred = DeferredHandles(
            lambda handle: share.close(handle, hurry=False),
            seconds=settings.closetimeo,
            most=0 if self.uncached or not settings.handle_cache else settings.max_cached_handles,
            on_drop=self.inodes.drop_if_unused,
        )
        self.writes = GatheredWrites[Inode](
            # Nobody else sees the file before all of it has arrived.
            partial(share.write, spread=True),
            limit=0 if self.uncached or "sync" in settings.kernel_flags else settings.wcache,
            timeout=math.inf if settings.hard else settings.timeout,
            on_written=self.note_write,
        )
        # And: give the kernel the first pages of a file of which it has none, and tell whether it has taken them.
        self.store_pages: Callable[[int, memoryview], bool] = lambda number, data: False
        # And, where it can: have the kernel drop a directory's listing and attributes, and those of its children, and
        # ask for names again; and have it ask for a file's attributes before the answer to what it asks just now.
        self.directory_changed: DirectoryChanged | None = None
        self.forget_attributes: Callable[[int], None] = lambda number: None
        # And: whether two threads are of one process (None: nobody knows).
        self.are_one: Callable[[int, int], bool | None] = lambda thread, other: None
        # What is kept of directories while the server's leases permit it.
        self.cached = KeptDirectories()
        # What was listed before a program comes to it.
        self.listings_ahead = AheadListings()
        self.targets = self._translate_targets()
        # Names of files that were removed or replaced while open here, which they have until they are closed, with
        # their inode numbers and directories; a file that had several names may have several of these. They are not
        # listed, nor are the others of ours that are to be removed some time, which the share knows.
        self.aside: dict[str, tuple[int, Inode]] = {}
        self.unlisted: set[str] = set()
        # Renames of ours that are under way, each with what is set when it is entered into the tables.
        self._moves: set[trio.Event] = set()

    def _dropped(self, number: int) -> None:
        """Forget what is kept of an inode that is no longer known."""
        self.deferred.drop(number)
        self.pages.drop(number)
        self.presentation.forget(number)

    def note_write(self, inode: Inode) -> None:
        """Note that a program has written something, or that this has arrived at the server, or failed to."""
        self.files.changed(inode)
        self.directories.note_change_of(inode)
        if self.writes.failures(inode) and inode.number not in self.presentation.doubted:
            self.presentation.doubted.add(inode.number)
            # The kernel shows what is lost no longer than what no lease is about.
            self.pages.touched(inode.number, None, trio.current_time())

    def check_arrived(self, inode: Inode, *, fh: int | None = None, thread: int = 0) -> None:
        """Raise what has kept something from arriving, for a writer who was not told: less is not to be shown to him.

        He is known by his open file, or, where there is none, by the thread (0: it is not known).
        """
        failures, error = self.writes.failures(inode), self.writes.failure(inode)
        if error is None:
            return
        for file in self.files.of(inode):
            if not file.writes or file.failures >= failures:
                continue
            if file.fh == fh or (fh is None and self.are_one(file.writer, thread) is not False):
                raise error

    def learn(self, volume: FileFsAttributeInformation | None) -> None:
        """Take in what the file system says of itself; that it tells spellings apart many say that do not."""
        self.has_streams = volume is None or bool(volume.attributes & FILE_NAMED_STREAMS)
        if volume is not None and not volume.attributes & FILE_CASE_SENSITIVE_SEARCH:
            self.server_folds = True

    def use_names(self, mapping: NameMapping) -> None:
        """Map names in another way, before the first of them has come: it depends on what the server can."""
        self.names = Names(mapping, self.trace)
        self.inodes.separator = self.names.separator
        self.targets = self._translate_targets()

    def use_posix(self) -> None:
        """Have names, modes, owners and open files as POSIX has them, since the server does."""
        self.presentation.posix = True
        self.server_folds = False
        self.use_names(NameMapping.POSIX)

    @property
    def expires(self) -> bool:
        """Whether the kernel can be told that what it believes for long holds no more."""
        return self.directory_changed is not None

    @property
    def posix(self) -> bool:
        """Whether the POSIX extensions are in use."""
        return self.presentation.posix

    def spellings(self, inode: Inode, parent: Inode, name: str) -> list[str]:
        """Return the other spellings of a name by which a file is known in a directory, where there are such."""
        return [] if self.posix else spelling.others(inode, parent, name)

    def _translate_targets(self) -> Targets:
        """Return the way of links' targets, which follows from that of names."""
        posix = self.names.mapping is NameMapping.POSIX
        targets = Targets(self.names, self._symlink_root, posix=posix)
        self.presentation.target_length = targets.length
        return targets

    # -- answers into the tables

    def seen(self, parent: Inode, name: str, told: FileAttributes) -> Inode:
        """Enter what the server says is under a name."""
        return self.inodes.enter(parent, name, told.file_id, told.created, told.kind)

    def counted(self, inode: Inode, told: FileAttributes) -> Entry:
        """Return an entry for the kernel, which will hold one lookup more."""
        inode.nlink = self._seen_links(inode, told).links
        entry = self.told(inode, told)
        if not inode.is_directory and any(self.locks.is_crowded(parent) for parent, _ in inode.links):
            entry.entry_timeout = 0.0
        inode.tell(believed=entry.entry_timeout > 0)
        return entry

    def told(self, inode: Inode, told: FileAttributes) -> Entry:
        """Return an inode's attributes for the kernel."""
        inode.told += 1
        seen = self._seen_links(inode, told)
        entry = self.presentation.entry(inode.number, seen)
        if seen is not told:  # that it has none is certain then
            entry.attr.nlink = seen.links
        return entry

    def is_it(self, inode: Inode, told: FileAttributes) -> bool:
        """Whether what was found at a path of an inode is that file; if so, learn what is new about it."""
        if not self.inodes.is_same(inode, told.file_id, told.created, told.kind):
            return False
        self.inodes.adopt(inode, told.file_id, told.created)
        return True

    def changed(self, parent: Inode, name: str, *, hurry: bool = True) -> None:
        """Note that we have changed what is under a name, and with that the directory.

        Without `hurry` the program has something else to do before it looks at the directory again.
        """
        self.directories.note_change(parent, name)
        parent.changes += 1
        self.on_changed(parent, hurry)

    def gone(self, parent: Inode, name: str) -> Inode | None:
        """Note that we have removed a name, and with it its other spellings; return what it stood for."""
        inode = parent.child(name)
        if inode is not None:
            self.forget_spellings(parent, self.spellings(inode, parent, name))
        return self.inodes.unlink(parent, name)

    def forget_spellings(self, parent: Inode, others: Iterable[str]) -> None:
        """Forget names here and in the kernel, since what another spelling of them stands for has changed."""
        for other in others:
            self.inodes.unlink(parent, other)
            self.forget_in_kernel(parent, other)

    def outdate_beside(self, inode: Inode) -> list[tuple[int, bytes]]:
        """Note that what is in the directories of a file may have changed; return the names that the kernel may show.

        They are (directory, name) as the kernel has them; directories are not among them.
        """
        parents = dict.fromkeys(parent for parent, _ in inode.links)
        beside, names = set(), []
        for parent in parents:
            self.directories.outdate(parent)
            for name, child in (parent.names or {}).items():
                if child.shown and not child.is_directory:
                    beside.add(child)
                    seen = self.names.to_kernel(name)
                    if isinstance(seen, bytes):
                        names.append((parent.number, seen))
        for child in beside:  # of two names in here, or one elsewhere, each is to be told of
            child.shown = any(parent not in parents for parent, _ in child.links)
        return names

    def forget_in_kernel(self, parent: Inode, name: str) -> None:
        """Have the kernel forget a name."""
        seen = self.names.to_kernel(name)
        if isinstance(seen, bytes):
            self.on_invalidate(parent.number, seen)

    def not_aside(self, inode: Inode) -> None:
        """Forget under which names an inode was set aside: they are removed with its last handle."""
        for name in [name for name, (number, _) in self.aside.items() if number == inode.number]:
            _, parent = self.aside.pop(name)
            self.inodes.unlink(parent, name)
            self.directories.note_change(parent, name)
            parent.changes += 1
            self.forget_attributes(parent.number)  # the kernel knows of no change that comes with a last close

    def is_aside(self, inode: Inode) -> bool:
        """Whether a file was set aside, so that it goes with its last handle."""
        return any(number == inode.number for number, _ in self.aside.values())

    def is_hidden(self, name: str) -> bool:
        """Whether a name is one of ours that nobody is to see."""
        return name in self.aside or name in self.unlisted

    def _seen_links(self, inode: Inode, told: FileAttributes) -> FileAttributes:
        """Return what the server says of a file without the names that it has for our sake alone."""
        if not self.aside:
            return told
        hidden = sum(name in self.aside for _, name in inode.links)
        return told._replace(links=max(0, told.links - hidden)) if hidden else told

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Enclose a rename, or a removal, from before the server is asked until the tables have it."""
        move = trio.Event()
        self._moves.add(move)
        try:
            yield
        finally:
            self._moves.remove(move)
            move.set()

    # -- ways to the server

    async def below(self, parent: Inode, name: str, call: Callable[[str], Awaitable[T]]) -> T:
        """Do something to a name in a directory; ESTALE if the directory is no longer where it was."""
        path = self.inodes.path_below(parent, name)
        try:
            return await call(path)
        except StatusError as error:
            if too_long(error, name):
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)) from error
            if error.status in PARENT_GONE and parent is not self.inodes.root:
                raise stale() from error
            raise

    async def make(self, parent: Inode, name: str, call: Callable[[str], Awaitable[T]]) -> T:
        """Make something under a name; EBUSY if what is there has been removed, and somebody keeps it open.

        Such a name is nobody's any more, but the server frees it with the last close only. As a rule that is about to
        come, from another client that had the file open just now, so it is waited for.
        """
        pause, give_up_at = FIRST_PAUSE, trio.current_time() + NAME_PATIENCE
        gone_before = False
        while True:
            try:
                return await self.below(parent, name, call)
            except StatusError as error:
                there = await self._in_the_way(parent, name, error.status)
                if there == Status.OBJECT_NAME_NOT_FOUND and not gone_before:
                    gone_before = True  # it went between the two questions
                    continue
                if there != Status.DELETE_PENDING:
                    raise
                if trio.current_time() >= give_up_at:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _in_the_way(self, parent: Inode, name: str, status: int) -> int | None:
        """Return why something could not be made under a name: DELETE_PENDING if what is there was removed already.

        OBJECT_NAME_NOT_FOUND says that nothing is there any more. None is for every other reason.
        """
        if status == Status.DELETE_PENDING:
            return status
        if status == Status.OBJECT_NAME_COLLISION:  # what comes first of two refusals, where a new file was insisted on
            try:
                await self.below(parent, name, self.share.lookup)
            except StatusError as error:
                return error.status
        return None

    async def by_path(self, inode: Inode, call: Callable[[str], Awaitable[T]], *, patient: bool = True) -> T:
        """Do something to an inode by each of its paths until one leads to it; ESTALE if none does.

        The paths are asked for again after each attempt, and once more when the renames of ours that are under way then
        are done, or removals: to POSIX an open or stat meets a file before these or after them, never in between. What
        they wait for themselves must not be `patient`.
        """
        tried: set[str] = set()
        while True:
            path = next((path for path in self.inodes.paths(inode) if path not in tried), None)
            if path is None and patient and self._moves:
                patient = False
                for move in tuple(self._moves):
                    await move.wait()
                continue
            if path is None:
                # The lookup that follows must not be answered from a listing, which may still have the name.
                self.directories.note_change_of(inode)
                for parent, _ in inode.links:
                    self.on_stale(parent)
                raise stale()
            tried.add(path)
            try:
                return await call(path)
            except (OSError, Smb3fsError) as error:
                if errno_of(error) not in MOVED:
                    raise

    async def settle(self, inode: Inode, cause: Cause = Cause.NEEDED, last: Write | None = None) -> None:
        """Have the server get what was written to a file until now; what fails waits to be told: see `vfs.writing`.

        `last` writes what is left, if given: see `GatheredWrites.send`.
        """
        if inode in self.writes:
            await self.writes.settle(inode, cause, last)

    async def settle_for(self, file: OpenFile) -> None:
        """Do the same before what is shown to whoever has opened a file, unless less has arrived than he knows of."""
        await self.settle(file.inode)
        self.check_arrived(file.inode, fh=file.fh)

    async def settle_in(self, directory: Inode | None) -> None:
        """Do the same for all files that are, or may be, in a directory; None: for all files."""
        for inode in self.writes:
            if directory is None or _may_be_in(inode, directory):
                await self.writes.settle(inode, Cause.NEEDED)

    def is_written_in(self, directory: Inode) -> bool:
        """Whether anything of a file that is, or may be, in a directory has not arrived at the server yet."""
        return any(_may_be_in(inode, directory) for inode in self.writes)

    async def list_directory(self, directory: OpenDirectory, *, patient: bool = True) -> Pages:
        """Begin the listing of a directory, with a lease if it shall be kept; for `patient` see `by_path`."""
        inode = directory.inode
        await self.settle_in(inode)
        self.cached.begins(directory)
        lease = {"lease": True} if self.cached.wants(inode) else {}

        async def begin(path: str) -> Pages:
            return await self.share.list_directory(path, inode.expect, **lease)

        return await self.by_path(inode, begin, patient=patient)

    async def attributes(self, inode: Inode) -> FileAttributes:
        """Return the attributes of an inode: through a handle that writes to it, by path, or through any handle."""
        await self.settle(inode)
        told = await self.through_writer(inode, self.share.attributes)
        if told is not None:
            return self._learned(inode, told)

        async def look(path: str) -> FileAttributes:
            told = await self.share.lookup(path)
            if not self.is_it(inode, told):
                raise stale()
            inode.nlink = self._seen_links(inode, told).links
            return told

        try:
            return await self.by_path(inode, look)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            for file in self.files.of(inode):
                told = await self._unless_lost(file, self.share.attributes)
                if told is not None:
                    return self._learned(inode, told)
            raise

    async def through_writer(self, inode: Inode, call: Callable[[Open], Awaitable[T]]) -> T | None:
        """Do something through an open handle that may write to an inode; None if there is no such handle."""
        writer = self.files.writer(inode)
        return None if writer is None else await self._unless_lost(writer, call)

    async def _unless_lost(self, file: OpenFile, call: Callable[[Open], Awaitable[T]]) -> T | None:
        """Do something with a handle; None if its connection was lost, so that it stands for nothing any more."""
        try:
            return await call(self.locks.handle_for(file, write=file.handle.writable))
        except (OSError, Smb3fsError) as error:
            if errno_of(error) not in HANDLE_LOST:
                raise
        return None

    def _learned(self, inode: Inode, told: FileAttributes) -> FileAttributes:
        """Take over what is new about a file that was reached through a handle of its own."""
        self.inodes.adopt(inode, told.file_id, told.created)
        inode.nlink = self._seen_links(inode, told).links
        return told

    def got_pages(self, file: OpenFile) -> None:
        """Take note that the kernel gets pages of a file, or has some, that it believes for an open one."""
        if self.keeps_pages and not file.direct:
            self.pages.touched(file.inode.number, file.handle.lease, trio.current_time())


def _may_be_in(inode: Inode, directory: Inode) -> bool:
    """Whether one of a file's names may be in a directory; of one that has several not all are known."""
    return inode.nlink > 1 or any(parent is directory for parent, _ in inode.links)
