"""The driver that uses libfuse through pyfuse3: a thin translation, and the life of the mount.

pyfuse3 keeps its session in module globals, so there is one mount in a process. It calls each handler in a task of its
own, and a handler that lets anything but FUSEError out ends the mount, so none does. What it does not offer (locks,
ioctl, fallocate, parallel lookups in a directory) the mount does not have.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import RequestContext as Context

from smb3fs.errors import MountError
from smb3fs.fuse import callers, kernel
from smb3fs.fuse.options import FuseOptions, escaped_for_libfuse, mount_options
from smb3fs.vfs.attributes import Entry, SetAttr
from smb3fs.vfs.opening import OpenResult
from smb3fs.vfs.operations import Vfs
from smb3fs.vfs.wall import Answer, settle
from smb3fs.wire.codec import Buffer

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

# Tasks that wait for requests. Each request that is under way has one, so this bounds how many calls may hang on a
# server that is gone before the others do too.
MIN_TASKS: Final = 4
MAX_TASKS: Final = 1024


class Handlers(pyfuse3.Operations):
    """pyfuse3's calls, put to a `Vfs`.

    Poll is left to the base class, whose ENOSYS the kernel remembers and does not ask again.
    """

    # Handles of files for NFS export would outlive our inode numbers.
    supports_dot_lookup = False
    # With it the kernel trusts its own sizes and times, and never sees those of other clients.
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, vfs: Vfs) -> None:
        super().__init__()
        self._vfs = vfs
        self.initialized = trio.Event()

    def init(self) -> None:
        """Learn that the kernel has greeted us."""
        self.initialized.set()

    # -- names and attributes

    async def lookup(self, parent_inode: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Find a name in a directory."""
        return _attributes(await _ask(self._vfs.lookup, parent_inode, name, ctx.pid))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back lookups."""
        try:
            await settle(self._vfs.forget(inode_list))
        except OSError as error:
            log.error("forget: %s", error)

    async def getattr(self, inode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Return attributes."""
        return _attributes(await _ask(self._vfs.getattr, inode, None, ctx.pid))

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: Context,
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        changes = SetAttr(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return _attributes(await _ask(self._vfs.setattr, inode, changes, fh))

    async def access(self, inode: int, mode: int, ctx: Context) -> bool:
        """Answer access(2); the kernel asks only without default_permissions."""
        return await _ask(self._vfs.access, inode, mode)

    async def statfs(self, ctx: Context) -> pyfuse3.StatvfsData:
        """Return the size of the share."""
        told = await _ask(self._vfs.statfs)
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = told.block_size
        data.f_blocks, data.f_bfree, data.f_bavail = told.blocks, told.blocks_free, told.blocks_available
        data.f_files, data.f_ffree, data.f_favail = told.files, told.files_free, told.files_free
        data.f_namemax = told.name_max
        return data

    # -- extended attributes

    async def getxattr(self, inode: int, name: bytes, ctx: Context) -> bytes:
        """Return the value of an extended attribute; pyfuse3 sees to the size of the program's buffer."""
        return await _ask(self._vfs.getxattr, inode, name)

    async def listxattr(self, inode: int, ctx: Context) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return await _ask(self._vfs.listxattr, inode)

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Context) -> None:
        """Set an extended attribute; pyfuse3 obeys the flags by asking for the attribute first."""
        await _ask(self._vfs.setxattr, inode, name, value, 0)

    async def removexattr(self, inode: int, name: bytes, ctx: Context) -> None:
        """Remove an extended attribute."""
        await _ask(self._vfs.removexattr, inode, name)

    # -- files

    async def open(self, inode: int, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        """Open a file."""
        return _file_info(await _ask(self._vfs.open, inode, flags))

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Create and open a file."""
        opened, entry = await _ask(self._vfs.create, parent_inode, name, mode, flags)
        return _file_info(opened), _attributes(entry)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Create a file without opening it, or a pipe, socket or device."""
        return _attributes(await _ask(self._vfs.mknod, parent_inode, name, mode, rdev))

    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]
        """Read; the buffer goes to the kernel as it is, though pyfuse3 declares bytes."""
        read: Buffer | tuple[Buffer, ...] = await _ask(self._vfs.read, fh, off, size)
        if isinstance(read, tuple):
            return b"".join(read)
        return read

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write."""
        return await _ask(self._vfs.write, fh, off, buf)

    async def flush(self, fh: int) -> None:
        """Answer close(2)."""
        await _ask(self._vfs.flush, fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Answer fsync(2)."""
        await _ask(self._vfs.fsync, fh, datasync)

    async def release(self, fh: int) -> None:
        """Close a file, after its last descriptor and mapping."""
        await _ask(self._vfs.release, fh)

    # -- directories

    async def opendir(self, inode: int, ctx: Context) -> int:
        """Open a directory."""
        return await _ask(self._vfs.opendir, inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List some entries with their attributes."""
        entries = await _ask(self._vfs.readdir, fh, start_id)
        taken = 0
        try:
            for entry in entries:
                if not pyfuse3.readdir_reply(token, entry.name, _attributes(entry.entry), entry.next_cookie):
                    break
                if entry.counted:
                    self._vfs.remember(entry)
                taken += 1
        except Exception:
            log.exception("readdir ends early, after %d entries", taken)
            # The kernel gets what it has counted; the next call meets the failure first.
            if not taken:
                raise pyfuse3.FUSEError(errno.EIO) from None

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        await _ask(self._vfs.releasedir, fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Answer fsync(2) of a directory."""
        await _ask(self._vfs.fsyncdir, fh, datasync)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return _attributes(await _ask(self._vfs.mkdir, parent_inode, name, mode))

    async def rmdir(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        """Remove a directory."""
        await _ask(self._vfs.rmdir, parent_inode, name)

    async def unlink(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        """Remove a file."""
        await _ask(self._vfs.unlink, parent_inode, name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: Context,
    ) -> None:
        """Rename."""
        await _ask(self._vfs.rename, parent_inode_old, name_old, parent_inode_new, name_new, flags)

    async def readlink(self, inode: int, ctx: Context) -> bytes:
        """Return where a symbolic link leads."""
        return await _ask(self._vfs.readlink, inode)

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        return _attributes(await _ask(self._vfs.symlink, parent_inode, name, target))

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Give a file a second name."""
        return _attributes(await _ask(self._vfs.link, inode, new_parent_inode, new_name))


async def _ask(verb: Callable[P, Answer[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a verb and return its result; whatever it raises becomes the exception that pyfuse3 takes for an errno."""
    try:
        return await settle(verb(*args, **kwargs))
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
    except Exception as error:
        log.exception("a verb let an exception out")
        raise pyfuse3.FUSEError(errno.EIO) from error


def _forget(parent: int, name: bytes) -> None:
    """Have the kernel forget a name, in a thread: it waits for whatever is being done in that directory."""
    pyfuse3.invalidate_entry_async(parent, name, ignore_enoent=True)


def _attributes(entry: Entry) -> pyfuse3.EntryAttributes:
    """Translate an entry."""
    attr, out = entry.attr, pyfuse3.EntryAttributes()
    out.st_ino = attr.ino
    out.generation = entry.generation
    out.entry_timeout = entry.entry_timeout
    out.attr_timeout = entry.attr_timeout
    out.st_mode = attr.mode
    out.st_nlink = attr.nlink
    out.st_rdev = attr.rdev
    out.st_uid = attr.uid
    out.st_gid = attr.gid
    out.st_size = attr.size
    out.st_blocks = attr.blocks
    out.st_blksize = attr.blksize
    out.st_atime_ns = attr.atime_ns
    out.st_mtime_ns = attr.mtime_ns
    out.st_ctime_ns = attr.ctime_ns
    return out


def _file_info(opened: OpenResult) -> pyfuse3.FileInfo:
    """Translate the result of an open; pyfuse3's own choice would be to keep the page cache."""
    return pyfuse3.FileInfo(fh=opened.fh, direct_io=opened.direct_io, keep_cache=opened.keep_cache)


async def serve(vfs: Vfs, target: str, options: FuseOptions, ready: Callable[[], None]) -> None:
    """Mount, call `ready` once the kernel can use the mount, and serve it until it is unmounted.

    It ends by umount(8), by `terminate`, or by cancellation; nothing is mounted afterwards.
    """
    handlers = Handlers(vfs)
    vfs.attach(_forget, callers.is_respelling)
    _mount(handlers, target, options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_announce, handlers, target, options, ready)
            # From the mount to here nothing gives way, so `terminate` cannot come in between.
            await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


def _mount(handlers: Handlers, target: str, options: FuseOptions) -> None:
    """Make the mount, or raise MountError."""
    if not os.path.exists("/dev/fuse"):
        raise MountError("/dev/fuse is missing: load the kernel module fuse, or give the container this device")
    try:
        pyfuse3.init(handlers, os.path.abspath(target), mount_options(options, escaped_for_libfuse(options.fsname)))
    except RuntimeError as error:
        raise MountError(
            f"the kernel or fusermount3 refused to mount at {target} ({error}); what it said stands above"
        ) from error


async def _announce(handlers: Handlers, target: str, options: FuseOptions, ready: Callable[[], None]) -> None:
    """Once the kernel has our answer to its greeting, by which it sets its read-ahead, set that and report."""
    await handlers.initialized.wait()
    await trio.to_thread.run_sync(kernel.tune, target, options.rasize)
    ready()


def terminate() -> None:
    """End `serve`: requests under way are still answered, then the mount is taken down."""
    if pyfuse3.trio_token is not None:  # the loop runs
        pyfuse3.terminate()
