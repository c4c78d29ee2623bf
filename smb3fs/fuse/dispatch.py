"""Which verb answers which request: one row for each opcode, in a list that the opcode is the index of.

A row reads a request, puts it to the verb, and turns the result into an answer. What has no row is ENOSYS, which the
kernel remembers for most opcodes, so that it does not ask again and does what it does for filesystems without them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from smb3fs.fuse import replies
from smb3fs.handles.byte_ranges import END
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.files import Owner
from smb3fs.vfs.operations import Vfs
from smb3fs.vfs.wall import Answer
from smb3fs.wire import fuse_attributes as attributes
from smb3fs.wire import fuse_locks as locks
from smb3fs.wire import fuse_ranges as ranges
from smb3fs.wire import fuse_requests as requests
from smb3fs.wire.fuse import Name, Nothing, Opcode
from smb3fs.wire.fuse_session import BatchForgetIn, ForgetIn


class Row(NamedTuple):
    """How one kind of request is read, put to a verb, and answered (None: it is not).

    `begin` is given the node that the request is about, the request, and the thread that asks.
    """

    parse: Callable[[memoryview], Any]
    begin: Callable[[int, Any, int], Answer[Any]]
    finish: replies.Finish | None


Table = list[Row | None]


def put(table: Table, opcode: Opcode, row: Row) -> None:
    """Enter a row."""
    table[opcode] = row


def table_of(vfs: Vfs, largest: int) -> Table:
    """Return the rows for all that a Vfs has verbs for; `largest` is the size of the largest listing in bytes."""
    table: Table = [None] * (max(Opcode) + 1)
    listings = replies.Listings(vfs.remember, largest)
    rows: dict[Opcode, Row] = {
        **_names(vfs),
        **_attributes(vfs),
        **_files(vfs),
        **_ranges(vfs),
        **(_locks(vfs) if vfs.server_locks else {}),
        # -- directories
        Opcode.OPENDIR: Row(
            requests.OpenIn.parse,
            lambda node, _told, _: vfs.opendir(node),
            lambda unique, _told, fh: replies.opened_directory(unique, fh, *vfs.keeps_listing(fh)),
        ),
        Opcode.READDIR: Row(
            requests.ReadIn.parse, lambda _node, told, _: vfs.readdir(told.fh, told.offset), listings.plain
        ),
        Opcode.READDIRPLUS: Row(
            requests.ReadIn.parse, lambda _node, told, _: vfs.readdir(told.fh, told.offset), listings.plus
        ),
        Opcode.RELEASEDIR: Row(
            requests.ReleaseIn.parse, lambda _node, told, _: vfs.releasedir(told.fh), replies.nothing
        ),
        Opcode.FSYNCDIR: Row(
            requests.FsyncIn.parse,
            lambda _node, told, _: vfs.fsyncdir(told.fh, bool(told.flags & requests.FSYNC_FDATASYNC)),
            replies.nothing,
        ),
    }
    for opcode, row in rows.items():
        put(table, opcode, row)
    return table


def _names(vfs: Vfs) -> dict[Opcode, Row]:
    """Return the rows about names."""
    return {
        Opcode.LOOKUP: Row(Name.parse, lambda node, told, thread: vfs.lookup(node, told.name, thread), replies.entry),
        Opcode.FORGET: Row(ForgetIn.parse, lambda node, told, _: vfs.forget(((node, told.lookups),)), None),
        Opcode.BATCH_FORGET: Row(BatchForgetIn.parse, lambda _node, told, _: vfs.forget(told.pairs), None),
        Opcode.MKNOD: Row(
            requests.MknodIn.parse,
            lambda node, told, _: vfs.mknod(node, told.name, told.mode, told.rdev),
            replies.entry,
        ),
        Opcode.MKDIR: Row(
            requests.MkdirIn.parse, lambda node, told, _: vfs.mkdir(node, told.name, told.mode), replies.entry
        ),
        Opcode.UNLINK: Row(Name.parse, lambda node, told, _: vfs.unlink(node, told.name), replies.nothing),
        Opcode.RMDIR: Row(Name.parse, lambda node, told, _: vfs.rmdir(node, told.name), replies.nothing),
        Opcode.RENAME: Row(
            requests.RenameIn.parse,
            lambda node, told, _: vfs.rename(node, told.name, told.new_directory, told.new_name, 0),
            replies.nothing,
        ),
        Opcode.RENAME2: Row(
            requests.Rename2In.parse,
            lambda node, told, _: vfs.rename(node, told.name, told.new_directory, told.new_name, told.flags),
            replies.nothing,
        ),
        Opcode.SYMLINK: Row(
            requests.SymlinkIn.parse, lambda node, told, _: vfs.symlink(node, told.name, told.target), replies.entry
        ),
        Opcode.READLINK: Row(Nothing.parse, lambda node, _told, _: vfs.readlink(node), replies.data),
        Opcode.LINK: Row(
            requests.LinkIn.parse, lambda node, told, _: vfs.link(told.nodeid, node, told.name), replies.entry
        ),
    }


def _attributes(vfs: Vfs) -> dict[Opcode, Row]:
    """Return the rows about attributes."""

    def getattr_(node: int, told: attributes.GetattrIn | attributes.StatxIn, thread: int) -> Answer[Any]:
        return vfs.getattr(node, told.fh if told.flags & attributes.GETATTR_FH else None, thread)

    def setattr_(node: int, told: attributes.SetattrIn, _thread: int) -> Answer[Any]:
        return vfs.setattr(node, changes_of(told), told.fh if told.valid & attributes.FATTR_FH else None)

    return {
        Opcode.GETATTR: Row(attributes.GetattrIn.parse, getattr_, replies.attributes),
        Opcode.STATX: Row(attributes.StatxIn.parse, getattr_, replies.extended_attributes),
        Opcode.SETATTR: Row(attributes.SetattrIn.parse, setattr_, replies.attributes),
        Opcode.ACCESS: Row(
            attributes.AccessIn.parse, lambda node, told, _: vfs.access(node, told.mask), replies.access
        ),
        Opcode.GETXATTR: Row(
            attributes.GetxattrIn.parse, lambda node, told, _: vfs.getxattr(node, told.name), replies.sized
        ),
        Opcode.LISTXATTR: Row(attributes.ListxattrIn.parse, lambda node, _told, _: vfs.listxattr(node), replies.listed),
        Opcode.SETXATTR: Row(
            attributes.SetxattrIn.parse,
            lambda node, told, _: vfs.setxattr(node, told.name, told.value, told.flags),
            replies.nothing,
        ),
        Opcode.REMOVEXATTR: Row(Name.parse, lambda node, told, _: vfs.removexattr(node, told.name), replies.nothing),
        Opcode.STATFS: Row(Nothing.parse, lambda _node, _told, _: vfs.statfs(), replies.space),
    }


def changes_of(told: attributes.SetattrIn) -> SetAttr:
    """Return what a SETATTR asks for; the kernel sends a time of change only to those who keep that themselves."""
    valid = told.valid
    return SetAttr(
        mode=told.mode if valid & attributes.FATTR_MODE else None,
        uid=told.uid if valid & attributes.FATTR_UID else None,
        gid=told.gid if valid & attributes.FATTR_GID else None,
        size=told.size if valid & attributes.FATTR_SIZE else None,
        atime_ns=told.atime * replies.NS + told.atime_nsec if valid & attributes.FATTR_ATIME else None,
        mtime_ns=told.mtime * replies.NS + told.mtime_nsec if valid & attributes.FATTR_MTIME else None,
    )


def _files(vfs: Vfs) -> dict[Opcode, Row]:
    """Return the rows about open files."""
    return {
        Opcode.OPEN: Row(requests.OpenIn.parse, lambda node, told, _: vfs.open(node, told.flags), replies.opened_file),
        Opcode.CREATE: Row(
            requests.CreateIn.parse,
            lambda node, told, _: vfs.create(node, told.name, told.mode, told.flags),
            replies.created,
        ),
        Opcode.READ: Row(
            requests.ReadIn.parse, lambda _node, told, _: vfs.read(told.fh, told.offset, told.size), replies.content
        ),
        Opcode.WRITE: Row(
            requests.WriteIn.parse,
            lambda _node, told, thread: vfs.write(told.fh, told.offset, told.data, thread),
            replies.written,
        ),
        Opcode.FLUSH: Row(
            requests.FlushIn.parse,
            lambda _node, told, thread: vfs.flush(told.fh, told.lock_owner if vfs.server_locks else None, thread),
            replies.nothing,
        ),
        Opcode.RELEASE: Row(requests.ReleaseIn.parse, lambda _node, told, _: vfs.release(told.fh), replies.nothing),
        Opcode.FSYNC: Row(
            requests.FsyncIn.parse,
            lambda _node, told, _: vfs.fsync(told.fh, bool(told.flags & requests.FSYNC_FDATASYNC)),
            replies.nothing,
        ),
    }


# The most that one COPY_FILE_RANGE copies: its answer has 32 bits. The kernel's own limit for a read or a write.
_MAX_COUNT: Final = 0x7FFFF000


def _ranges(vfs: Vfs) -> dict[Opcode, Row]:
    """Return the rows about parts of files that never come here."""

    def copy(told: ranges.CopyFileRangeIn, length: int) -> Answer[Any]:
        return vfs.copy_file_range(told.fh_in, told.offset_in, told.fh_out, told.offset_out, length, told.flags)

    return {
        Opcode.LSEEK: Row(
            ranges.LseekIn.parse, lambda _node, told, _: vfs.lseek(told.fh, told.offset, told.whence), replies.position
        ),
        Opcode.FALLOCATE: Row(
            ranges.FallocateIn.parse,
            lambda _node, told, _: vfs.fallocate(told.fh, told.offset, told.length, told.mode),
            replies.nothing,
        ),
        Opcode.COPY_FILE_RANGE: Row(
            ranges.CopyFileRangeIn.parse,
            lambda _node, told, _: copy(told, min(told.length, _MAX_COUNT)),
            replies.written,
        ),
        Opcode.COPY_FILE_RANGE_64: Row(
            ranges.CopyFileRangeIn.parse, lambda _node, told, _: copy(told, told.length), replies.copied
        ),
    }


def _locks(vfs: Vfs) -> dict[Opcode, Row]:
    """Return the rows about locks. The kernel names the last byte of a range, and the largest number for the end."""

    def getlk(_node: int, told: locks.LkIn, _thread: int) -> Answer[Any]:
        start, end = range_of(told)
        return vfs.getlk(told.fh, told.owner, start, end, exclusive=told.type == locks.F_WRLCK)

    def wish_of(told: locks.LkIn) -> dict[str, Any]:
        owner = Owner(bool(told.lk_flags & locks.LK_FLOCK), told.owner)
        start, end = range_of(told)
        exclusive = None if told.type == locks.F_UNLCK else told.type == locks.F_WRLCK
        return {"owner": owner, "start": start, "end": end, "exclusive": exclusive, "pid": told.pid}

    return {
        Opcode.GETLK: Row(locks.LkIn.parse, getlk, replies.lock),
        Opcode.SETLK: Row(
            locks.LkIn.parse, lambda _node, told, _: vfs.setlk(told.fh, **wish_of(told)), replies.nothing
        ),
        Opcode.SETLKW: Row(
            locks.LkIn.parse, lambda _node, told, _: vfs.setlkw(told.fh, **wish_of(told)), replies.nothing
        ),
    }


def range_of(told: locks.LkIn) -> tuple[int, int]:
    """Return the range that a request is about, half-open."""
    end = min(told.end + 1, END)
    if told.start >= end:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return told.start, end
