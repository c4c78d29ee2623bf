"""From a verb's result to the bytes that the kernel gets: one function for each shape of answer.

Each takes the request's number, the request, and the result, and returns one buffer, or several that `writev` puts
together, so that what was read is not copied. No record is made on the way: these run for every single call.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final

from smb3fs.handles.byte_ranges import Lock
from smb3fs.vfs.attributes import Entry
from smb3fs.vfs.directories import DirEntry
from smb3fs.vfs.opening import OpenResult
from smb3fs.vfs.operations import StatFs
from smb3fs.wire.codec import Buffer
from smb3fs.wire.fuse import OUT_HEADER
from smb3fs.wire.fuse_attributes import GetxattrIn, ListxattrIn
from smb3fs.wire.fuse_locks import F_RDLCK, F_UNLCK, F_WRLCK, LkIn, LkOut
from smb3fs.wire.fuse_ranges import CopyFileRangeOut, LseekOut
from smb3fs.wire.fuse_replies import (
    ATTR_OUT,
    DIRENT,
    ENTRY,
    FOPEN_CACHE_DIR,
    FOPEN_DIRECT_IO,
    FOPEN_KEEP_CACHE,
    FOPEN_PARALLEL_DIRECT_WRITES,
    OPEN_OUT,
    WRITE_OUT,
    StatfsOut,
    StatxOut,
)
from smb3fs.wire.fuse_requests import ReadIn

log = logging.getLogger(__name__)

Reply = Buffer | tuple[Buffer, ...]
Finish = Callable[[int, Any, Any], Reply]

NS: Final = 10**9
# Header and body in one: length, error, unique, and the body's fields.
_HEADER: Final = "=IiQ"
_ENTRY_REPLY: Final = Struct(_HEADER + ENTRY)
_ATTR_REPLY: Final = Struct(_HEADER + ATTR_OUT)
_OPEN_REPLY: Final = Struct(_HEADER + OPEN_OUT)
_CREATE_REPLY: Final = Struct(_HEADER + ENTRY + OPEN_OUT)
_SIZE_REPLY: Final = Struct(_HEADER + WRITE_OUT)
_DIRENT: Final = Struct("=" + DIRENT)
_DIRENT_PLUS: Final = Struct("=" + ENTRY + DIRENT)

# statx(2): STATX_BASIC_STATS and STATX_BTIME, the fields that are filled in.
_STATX_BASIC: Final = 0x7FF
_STATX_BTIME: Final = 0x800


def _entry_fields(told: Entry, node: int) -> tuple[int, ...]:
    """Return an entry's fields as fuse_entry_out has them."""
    attr = told.attr
    entry_timeout, attr_timeout = told.entry_timeout, told.attr_timeout
    entry_seconds, attr_seconds = int(entry_timeout), int(attr_timeout)
    atime, atime_nsec = divmod(attr.atime_ns, NS)
    mtime, mtime_nsec = divmod(attr.mtime_ns, NS)
    ctime, ctime_nsec = divmod(attr.ctime_ns, NS)
    return (
        node,
        told.generation,
        entry_seconds,
        attr_seconds,
        int((entry_timeout - entry_seconds) * NS),
        int((attr_timeout - attr_seconds) * NS),
        attr.ino,
        attr.size,
        attr.blocks,
        atime,
        mtime,
        ctime,
        atime_nsec,
        mtime_nsec,
        ctime_nsec,
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev & 0xFFFFFFFF,
        attr.blksize,
        0,
    )


def nothing(unique: int, request: object, answer: object) -> bytes:
    """Say that it is done."""
    return OUT_HEADER.pack(OUT_HEADER.size, 0, unique)


def failure(unique: int, number: int) -> bytes:
    """Say that it has failed, with a positive errno."""
    return OUT_HEADER.pack(OUT_HEADER.size, -number, unique)


def entry(unique: int, request: object, told: Entry) -> bytes:
    """Answer LOOKUP and whatever makes a name."""
    return _ENTRY_REPLY.pack(_ENTRY_REPLY.size, 0, unique, *_entry_fields(told, told.attr.ino))


def attributes(unique: int, request: object, told: Entry) -> bytes:
    """Answer GETATTR and SETATTR."""
    _, _, _, seconds, _, nsec, *attr = _entry_fields(told, 0)
    return _ATTR_REPLY.pack(_ATTR_REPLY.size, 0, unique, seconds, nsec, *attr)


def extended_attributes(unique: int, request: object, told: Entry) -> Reply:
    """Answer STATX: the same, and when the file was made."""
    attr, timeout = told.attr, told.attr_timeout
    body = StatxOut(
        int(timeout),
        int(timeout % 1 * NS),
        _STATX_BASIC | (_STATX_BTIME if attr.birth_ns else 0),
        attr.blksize,
        0,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.mode,
        attr.ino,
        attr.size,
        attr.blocks,
        0,
        *divmod(attr.atime_ns, NS),
        *divmod(attr.birth_ns, NS),
        *divmod(attr.ctime_ns, NS),
        *divmod(attr.mtime_ns, NS),
        os.major(attr.rdev),
        os.minor(attr.rdev),
    ).encode()
    return data(unique, request, body)


def _open_flags(opened: OpenResult) -> int:
    """Return FOPEN_ flags. Past the page cache nothing is shared that writers to one file would have to wait for."""
    flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES if opened.direct_io else 0
    return flags | FOPEN_KEEP_CACHE if opened.keep_cache else flags


def opened_file(unique: int, request: object, opened: OpenResult) -> bytes:
    """Answer OPEN."""
    return _OPEN_REPLY.pack(_OPEN_REPLY.size, 0, unique, opened.fh, _open_flags(opened))


def opened_directory(unique: int, fh: int, cached: bool, kept: bool) -> bytes:
    """Answer OPENDIR: whether what is read may be cached, and what was read before be kept."""
    flags = (FOPEN_CACHE_DIR if cached else 0) | (FOPEN_KEEP_CACHE if kept else 0)
    return _OPEN_REPLY.pack(_OPEN_REPLY.size, 0, unique, fh, flags)


def created(unique: int, request: object, answer: tuple[OpenResult, Entry]) -> bytes:
    """Answer CREATE."""
    opened, told = answer
    fields = _entry_fields(told, told.attr.ino)
    return _CREATE_REPLY.pack(_CREATE_REPLY.size, 0, unique, *fields, opened.fh, _open_flags(opened))


def data(unique: int, request: object, content: Buffer) -> Reply:
    """Answer READLINK, and what else is bytes."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(content), 0, unique), content


def content(unique: int, request: object, read: Buffer | tuple[Buffer, ...]) -> Reply:
    """Answer READ, with data in one piece or several."""
    if not isinstance(read, tuple):
        return data(unique, request, read)
    return OUT_HEADER.pack(OUT_HEADER.size + sum(map(len, read)), 0, unique), *read


def written(unique: int, request: object, count: int) -> bytes:
    """Answer WRITE."""
    return _SIZE_REPLY.pack(_SIZE_REPLY.size, 0, unique, count)


def position(unique: int, request: object, offset: int) -> Reply:
    """Answer LSEEK."""
    return data(unique, request, LseekOut(offset).encode())


def copied(unique: int, request: object, count: int) -> Reply:
    """Answer COPY_FILE_RANGE_64."""
    return data(unique, request, CopyFileRangeOut(count).encode())


def space(unique: int, request: object, told: StatFs) -> Reply:
    """Answer STATFS."""
    body = StatfsOut(
        told.blocks,
        told.blocks_free,
        told.blocks_available,
        told.files,
        told.files_free,
        told.block_size,
        told.name_max,
        told.block_size,
    )
    return data(unique, request, body.encode())


def access(unique: int, request: object, allowed: bool) -> bytes:
    """Answer ACCESS."""
    return nothing(unique, request, None) if allowed else failure(unique, errno.EACCES)


def sized(unique: int, request: GetxattrIn | ListxattrIn, value: bytes) -> Reply:
    """Answer GETXATTR: its size where only that was asked for, ERANGE where there is no room."""
    if not request.size:
        return written(unique, request, len(value))
    if len(value) > request.size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return data(unique, request, value)


def listed(unique: int, request: ListxattrIn, names: list[bytes]) -> Reply:
    """Answer LISTXATTR."""
    return sized(unique, request, b"".join(name + b"\0" for name in names))


def lock(unique: int, request: LkIn, found: Lock | None) -> Reply:
    """Answer GETLK: what is in the way, with whose process that is if it is one of this machine, or nothing."""
    if found is None:
        body = LkOut(request.start, request.end, F_UNLCK, 0)
    else:
        body = LkOut(found.start, found.end - 1, F_WRLCK if found.exclusive else F_RDLCK, found.pid)
    return data(unique, request, body.encode())


class Listings:
    """Answers to READDIR and READDIRPLUS, packed into one buffer that is used again for the next."""

    def __init__(self, remember: Callable[[DirEntry], object], largest: int) -> None:
        """`remember` is told of each entry that the kernel will count, `largest` is the most that it asks for."""
        self._remember = remember
        self._buffer = bytearray(OUT_HEADER.size + largest)
        self._view = memoryview(self._buffer)

    def plus(self, unique: int, request: ReadIn, entries: Iterator[DirEntry]) -> memoryview:
        """Answer READDIRPLUS: as many entries as there is room for, each counting as a lookup unless it is a dot."""
        buffer, remember, pack_into, fixed = self._buffer, self._remember, _DIRENT_PLUS.pack_into, _DIRENT_PLUS.size
        at = OUT_HEADER.size
        end = min(at + request.size, len(buffer))
        try:
            # One long step, since this runs for each entry of each listing; most of them have the same timeouts.
            entry_timeout = attr_timeout = -1.0
            entry_seconds = attr_seconds = entry_nsec = attr_nsec = 0
            for listed_entry in entries:
                name, told, next_cookie, counted = listed_entry[:4]
                begin = at + fixed
                behind = begin + len(name)
                if behind + 7 & ~7 > end:
                    break
                attr = told.attr
                if told.entry_timeout != entry_timeout or told.attr_timeout != attr_timeout:
                    entry_timeout, attr_timeout = told.entry_timeout, told.attr_timeout
                    entry_seconds, attr_seconds = int(entry_timeout), int(attr_timeout)
                    entry_nsec = int((entry_timeout - entry_seconds) * NS)
                    attr_nsec = int((attr_timeout - attr_seconds) * NS)
                ino, mode = attr.ino, attr.mode
                atime, mtime, ctime = attr.atime_ns, attr.mtime_ns, attr.ctime_ns
                pack_into(
                    buffer,
                    at,
                    ino if counted else 0,
                    told.generation,
                    entry_seconds,
                    attr_seconds,
                    entry_nsec,
                    attr_nsec,
                    ino,
                    attr.size,
                    attr.blocks,
                    atime // NS,
                    mtime // NS,
                    ctime // NS,
                    atime % NS,
                    mtime % NS,
                    ctime % NS,
                    mode,
                    attr.nlink,
                    attr.uid,
                    attr.gid,
                    attr.rdev & 0xFFFFFFFF,
                    attr.blksize,
                    0,
                    ino,
                    next_cookie,
                    len(name),
                    mode >> 12 & 15,
                )
                if counted:
                    remember(listed_entry)
                buffer[begin:behind] = name
                at = behind + 7 & ~7
        except Exception:
            log.exception("a listing ends early, after %d bytes", at)
            _unless_something_is_there(at)
        OUT_HEADER.pack_into(buffer, 0, at, 0, unique)
        return self._view[:at]

    def plain(self, unique: int, request: ReadIn, entries: Iterator[DirEntry]) -> memoryview:
        """Answer READDIR: numbers, types and names, and nothing that counts."""
        buffer, at = self._buffer, OUT_HEADER.size
        end = min(at + request.size, len(buffer))
        try:
            for name, told, next_cookie, *_ in entries:
                begin = at + _DIRENT.size
                behind = begin + len(name)
                if behind + 7 & ~7 > end:
                    break
                attr = told.attr
                _DIRENT.pack_into(buffer, at, attr.ino, next_cookie, len(name), attr.mode >> 12 & 15)
                buffer[begin:behind] = name
                at = behind + 7 & ~7
        except Exception:
            log.exception("a listing ends early, after %d bytes", at)
            _unless_something_is_there(at)
        OUT_HEADER.pack_into(buffer, 0, at, 0, unique)
        return self._view[:at]


def _unless_something_is_there(at: int) -> None:
    """Fail with EIO if a listing has failed at its first entry; else the kernel gets what it has counted."""
    if at == OUT_HEADER.size:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
