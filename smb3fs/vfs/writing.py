"""Writing to open files, and closing them: what goes to the server at once, what later, and who learns of a failure.

Theory of operation. What programs write under a write lease is gathered (`smb3fs.cache.writes`), and answered at once.
The kernel knows size and data of what it has written, as the pages are its own; everything else is told by the server,
which has to have the data before it is asked. So whatever looks at a file, or changes it in another way, begins by
having what was written arrive (`State.settle`): attributes, lookups, listings of its directory, reads that the kernel
cannot answer, opens, truncation, times, names, copies, locks. A file with locks gathers nothing, nor does what was
opened by O_APPEND, O_SYNC, O_DSYNC or O_DIRECT. An answer that was asked for before a write and comes after it the
kernel tells from a later one by itself.

close(2) waits for the data, as on NFS and with the kernel's own client, so that its caller learns what became of them,
and whoever opens the file next finds them. Only who has inherited a descriptor does not wait for what another process
has written by it: every program that begins another one would. What has failed each open file is told once, by fsync or
close.
"""

from __future__ import annotations

import errno
import os

from smb3fs.cache.writes import Cause
from smb3fs.trace import Trace
from smb3fs.vfs import locking, server_locks
from smb3fs.vfs.attributes import Settings
from smb3fs.vfs.backend import ShareVerbs
from smb3fs.vfs.files import OpenFile, Owner
from smb3fs.vfs.locks import InodeLocks, locks_lost
from smb3fs.vfs.verbs import Verbs
from smb3fs.vfs.wall import Answer, may_wait, settle
from smb3fs.wire.codec import Buffer


class WritingVerbs(Verbs):
    """write, flush, fsync and release."""

    def __init__(self, share: ShareVerbs, settings: Settings, trace: Trace) -> None:
        super().__init__(share, settings, trace)
        self._strictsync = settings.strictsync

    @may_wait
    def write(self, fh: int, offset: int, data: Buffer, thread: int = 0) -> Answer[int]:
        """Write all of `data`, which nobody changes afterwards, now or later, for a thread (0: it is not known)."""
        file = self._files.get(fh)
        file.writer = thread
        self.state.got_pages(file)
        return len(data) if self._gather(file, offset, data) else self._write(file, offset, data)

    def _may_gather(self, file: OpenFile) -> bool:
        """Whether what is written to an open file may arrive later."""
        writes = self.state.writes
        return (
            file.gathers
            and writes.wanted
            and file.inode.number not in self.state.locks.by_inode
            and not writes.failures(file.inode)
            and writes.permits(file.handle)
        )

    def _gather(self, file: OpenFile, offset: int, data: Buffer) -> bool:
        """Gather a write, if it may be and there is room for it."""
        if not data or not self._may_gather(file) or not self.state.writes.take(file.inode, file.handle, offset, data):
            return False
        self.state.note_write(file.inode)
        return True

    async def _write(self, file: OpenFile, offset: int, data: Buffer) -> int:
        """Wait for room, or write at once, behind what was gathered.

        With O_APPEND that is at the end of the file as the server has it, wherever the kernel thinks. Between asking
        for the end and writing there, another client may append too: that needs a lock or a lease.
        """
        while data and self._may_gather(file):
            await self.state.writes.room()
            if self._gather(file, offset, data):
                return len(data)
        await self.state.settle(file.inode)
        try:
            if file.append:
                offset = (await self._share.attributes(file.handle)).size
            with self._files.changing(file.inode):
                if file.inode.number in self.state.locks.by_inode:
                    count = await locking.through(
                        self.state, file, lambda handle: self._share.write(handle, offset, data), write=True
                    )
                else:
                    # What is appended arrives in order, so that nobody sees a hole in it.
                    count = await self._share.write(file.handle, offset, data, spread=not file.append)
            if file.synchronous:
                await self._share.flush(self.state.locks.handle_for(file, write=True))
        finally:
            self.state.directories.note_change_of(file.inode)
        return count

    # -- learning what became of it

    def _raise_failure(self, file: OpenFile, *, told: bool = True) -> None:
        """Raise why something that was gathered has not arrived, if this open file was not told of it.

        Unless that is `told` then, it is raised again: whoever asks may be a process that has inherited the descriptor,
        and closes it before it becomes another program, which looks at no error.
        """
        failures, error = self.state.writes.failures(file.inode), self.state.writes.failure(file.inode)
        if error is not None and file.failures < failures:
            if told:
                file.failures = failures
            raise error

    @may_wait
    def flush(self, fh: int, owner: int | None = None, thread: int = 0) -> Answer[None]:
        """Answer close(2) of a thread: every write is on the server when it returns, and its locks are given up.

        `owner` is whose fcntl(2) locks these are. None says that locks are the kernel's own affair: then, if nothing is
        gathered either, there is nothing to do, ever, and ENOSYS is a success that the kernel remembers so that it does
        not ask again.
        """
        file = self._files.get(fh)
        if owner is None and not self.state.writes.wanted:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if file.writes and (file.inode in self.state.writes or self.state.writes.failures(file.inode)):
            one = self.state.are_one(file.writer, thread)
            if one is not False:
                return self._flush(file, owner, told=one is True)
            # It is none of this process, which may have been begun just now, and ends what it has inherited.
            self.state.writes.send(file.inode, Cause.CLOSE)
        return self._give_up_locks(file, owner)

    async def _flush(self, file: OpenFile, owner: int | None, *, told: bool) -> None:
        """Wait for what was gathered, then do the rest, whatever became of that; `told`: it is the writer who asks."""
        try:
            await self.state.settle(file.inode, Cause.CLOSE)
            self._raise_failure(file, told=told)
        finally:
            await settle(self._give_up_locks(file, owner))

    def _give_up_locks(self, file: OpenFile, owner: int | None) -> Answer[None]:
        """Give up an owner's locks on a file; if they are lost, and nobody was told, this is the last time to do so."""
        if owner is None:
            return None
        lost = self.state.locks.are_lost(file, owner)
        locks = locking.release_owner(self.state, file, Owner(False, owner))
        if lost:
            return self._tell_of_loss(locks)
        return server_locks.settle(self.state, locks) if locks is not None else None

    async def _tell_of_loss(self, locks: InodeLocks | None) -> None:
        """Say that locks are lost, once the server has heard of those that have been set since."""
        if locks is not None:
            await server_locks.settle(self.state, locks)
        raise locks_lost()

    @may_wait
    def fsync(self, fh: int, datasync: bool) -> Answer[None]:
        """Have the server put a file onto its disk; where nobody writes to it there is nothing to put there.

        With nostrictsync it is for the server to decide when that happens.
        """
        file = self._files.get(fh)
        if file.inode in self.state.writes or self.state.writes.failures(file.inode):
            return self._fsync_gathered(file)
        return self._fsync(file)

    async def _fsync_gathered(self, file: OpenFile) -> None:
        """Do so with what was gathered."""
        await self.state.settle(file.inode, Cause.FSYNC)
        self._raise_failure(file)
        await settle(self._fsync(file))

    def _fsync(self, file: OpenFile) -> Answer[None]:
        """Do so with what the server has."""
        writer = self._files.writer(file.inode) if self._strictsync else None
        return self._share.flush(self.state.locks.handle_for(writer, write=True)) if writer is not None else None

    @may_wait
    def release(self, fh: int) -> Answer[None]:
        """Close a file; the CLOSE is queued before this returns, ahead of whatever the program does next.

        Where a close(2) was interrupted, and something is still on its way, it comes after that.
        """
        file = self._files.get(fh)
        return self._release_settled(file) if file.inode in self.state.writes else self._release(file)

    async def _release_settled(self, file: OpenFile) -> None:
        """Wait for what was gathered, then close."""
        try:
            await self.state.settle(file.inode, Cause.CLOSE)
        finally:
            await settle(self._release(file))

    def _release(self, file: OpenFile) -> Answer[None]:
        """Close a file."""
        locks = locking.release(self.state, file)
        return server_locks.settle(self.state, locks) if locks is not None else None
