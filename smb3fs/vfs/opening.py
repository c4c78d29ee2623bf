"""Opening and creating files: with a handle that waited for it, one that was asked for ahead, or at the server.

What an open has brought along of a small file is handed over to the kernel with the answer (docs/decisions/0016); what
is read later comes from what was fetched ahead, or from the server (`smb3fs.vfs.reading`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

import trio

from smb3fs.cache.handles import Coming
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.trace import Trace
from smb3fs.vfs import links
from smb3fs.vfs.attributes import Entry, Settings
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.files import HEAD_SIZE, Access, OpenFile
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.opening_ahead import OpensAhead
from smb3fs.vfs.state import stale
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import Answer, may_wait, waits

# What the counts by which attributes are known to be old never are.
UNTRUE: Final = (-1, -1)


@dataclass(slots=True)
class OpenResult:
    """What the kernel is told of a file that it has opened."""

    fh: int
    direct_io: bool
    # Without a lease since then what the page cache holds from an earlier open may be anything.
    keep_cache: bool = False


class OpeningVerbs(Verbs):
    """open, create and mknod."""

    def __init__(self, share: ShareVerbs, settings: Settings, trace: Trace) -> None:
        super().__init__(share, settings, trace)
        self.opens_ahead = OpensAhead(self.state, self.cached.contents)

    @may_wait
    def open(self, number: int, flags: int) -> Answer[OpenResult]:
        """Open an existing file; what is not the file that the kernel means is not touched."""
        inode, access = self._inodes.get(number), Access.of(flags)
        if not access.write and inode not in self.state.writes:
            handle = self.state.deferred.take(number, trio.current_time())
            if handle is not None:
                return self._opened_again(inode, handle, flags)
            coming = self.state.deferred.coming.get(number)
            if coming is not None and coming.wanted:
                return self._open_when_come(inode, coming, flags)
        return self._open(inode, access, flags)

    async def _open_when_come(self, inode: Inode, coming: Coming, flags: int) -> OpenResult:
        """Open a file for reading whose handle is on its way already."""
        await coming.over.wait()
        handle = self.state.deferred.take(inode.number, trio.current_time()) if inode not in self.state.writes else None
        if handle is not None:
            return self._opened_again(inode, handle, flags)
        return await self._open(inode, Access.of(flags), flags)

    def _opened_again(self, inode: Inode, handle: Open, flags: int) -> OpenResult:
        """Open a file with a handle that has waited for it."""
        untouched, ahead = inode.untouched, self.opens_ahead.brings(inode, handle)
        opened = self._opened(inode, handle, flags)
        if ahead:
            self.cached.opened(inode, handle)
            file, now = self._files.get(opened.fh), trio.current_time()
            # The lease with R was held since, so what it has brought is as true as what the kernel was told later.
            file.head_of = (self._files.changes, inode.told)
            file.head_until = now + self.state.presentation.file_timeout
            if not (opened.keep_cache or opened.direct_io):
                opened.keep_cache = untouched and self._hand_over(file)
        self.opens_ahead.note(inode, handle)
        return opened

    async def _open(self, inode: Inode, access: Access, flags: int) -> OpenResult:
        """Open a file at the server."""
        await self.state.settle(inode)
        if access.write:
            self.state.deferred.drop(inode.number)
        brings_head = not (access.write or self.state.uncached or flags & os.O_DIRECT)
        brings_head = brings_head and not self.state.pages.has(inode.number, inode.changes)
        asked, now = (self._files.changes, inode.told), trio.current_time()
        asked_after = (inode.changes, inode.told)
        if inode in self.state.writes:  # somebody goes on writing: what the server tells is old already
            brings_head, asked_after = False, UNTRUE

        async def open_it(path: str) -> Open:
            handle = await self._share.open(
                path,
                read=access.read,
                write=access.write,
                expect=inode.expect,
                head=HEAD_SIZE if brings_head else 0,
            )
            if not self.state.is_it(inode, handle.attributes_at_open):
                self._share.close(handle)
                raise stale()
            return handle

        handle = await self.state.by_path(inode, open_it)
        handle.asked_at, handle.asked_after = now, asked_after
        if flags & os.O_TRUNC:
            await self._empty(inode, handle)
        untouched = inode.untouched
        opened = self._opened(inode, handle, flags)
        self.cached.opened(inode, handle)
        file = self._files.get(opened.fh)
        file.head_of, file.head_until = asked, now + self.state.presentation.file_timeout
        if not opened.keep_cache:
            opened.keep_cache = untouched and self._hand_over(file)
        if not access.write:
            self.opens_ahead.note(inode, handle)
        return opened

    def _hand_over(self, file: OpenFile) -> bool:
        """Give the kernel all of a small file that it has no pages of, so that it need not ask; whether it took them.

        Only then may it be told to keep what pages it has, and only then is it certain that no READ holds any.
        """
        head = file.head(0, HEAD_SIZE, self._files.changes, trio.current_time())
        if not head or len(head) == HEAD_SIZE or not self.state.store_pages(file.inode.number, head):
            return False
        # Who asks all the same has other attributes than the file had when it was opened.
        file.handle.head = None
        return True

    @waits
    async def create(self, parent: int, name: bytes, mode: int, flags: int) -> tuple[OpenResult, Entry]:
        """Create a file and open it, or open what another client has created a moment ago."""
        directory = self._inodes.get(parent)
        text = self.state.names.to_server(name)
        changes = self._files.changes
        handle = await self._create(directory, text, mode, flags)
        inode = self.state.seen(directory, text, handle.attributes_at_open)
        self.state.deferred.drop(inode.number)
        told = handle.attributes_at_open
        if flags & os.O_TRUNC and not handle.created:
            await self.state.settle(inode)
            told = await self._empty(inode, handle)
        elif inode in self.state.writes or (inode.changes and self._files.changes != changes):
            told = await self.state.attributes(inode)  # what was written before may have arrived since then alone
        return self._opened(inode, handle, flags), self.state.counted(inode, told)

    @waits
    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Entry:
        """Create a regular file, or what else the server has: devices, pipes, sockets."""
        directory = self._inodes.get(parent)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            return self.state.counted(*await links.make_special(self.state, directory, name, mode, rdev))
        text = self.state.names.to_server(name)
        handle = await self._create(directory, text, mode, os.O_EXCL | os.O_WRONLY)
        self._share.close(handle)
        return self.state.counted(
            self.state.seen(directory, text, handle.attributes_at_open), handle.attributes_at_open
        )

    async def _create(self, directory: Inode, name: str, mode: int, flags: int) -> Open:
        """Have the server create a file; one without write bits becomes read-only for everybody who opens it later."""
        access = Access.of(flags)
        readonly = self.state.presentation.readonly_at_creation(mode)
        try:
            return await self.state.make(
                directory,
                name,
                lambda path: self._share.create(
                    path,
                    read=access.read,
                    write=access.write,
                    exclusive=bool(flags & os.O_EXCL),
                    readonly_attribute=readonly,
                    mode=mode & 0o7777,
                ),
            )
        finally:
            # Also if that failed: it may be there, from us or from another client. The program writes first, as a rule.
            self.state.changed(directory, name, hurry=False)

    async def _empty(self, inode: Inode, handle: Open) -> FileAttributes:
        """Do what O_TRUNC asks for, to a handle that is known to be the right file's; close it if that fails."""
        try:
            with self._files.changing(inode):
                return await self._share.truncate(handle, 0)
        except BaseException:
            self._share.close(handle)
            raise
        finally:
            self.state.directories.note_change_of(inode)

    def _opened(self, inode: Inode, handle: Open, flags: int) -> OpenResult:
        """Enter a handle into the table of open files."""
        # A writer that only appends is kept out of the page cache, which would hold its data at the kernel's idea of
        # the end of the file, and the file's is what counts.
        appends = bool(flags & os.O_APPEND) and flags & os.O_ACCMODE == os.O_WRONLY
        direct = self.state.uncached or bool(flags & os.O_DIRECT) or appends
        file = self._files.add(inode, handle, flags, direct=direct)
        if not direct and file.readable:
            file.stream = self.state.ahead.stream(handle, inode)
        file.failures = self.state.writes.failures(inode)
        keeps = self.state.keeps_pages and not direct
        return OpenResult(
            file.fh, direct, keeps and self.state.pages.may_keep(inode.number, handle.lease, inode.changes)
        )
