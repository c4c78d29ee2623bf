"""One side as a process: carries out an operation for each line on its standard input, and answers with a line.

actor.py DIRECTORY [ACCOUNT]: with an ACCOUNT it works as that, on the server's disk
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import json
import mmap
import os
import pwd
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coherencelib.operations import PAGE, content

FLAGS: Final = {
    "r": os.O_RDONLY,
    "rw": os.O_RDWR,
    "direct": os.O_RDWR | os.O_DIRECT,
    "append": os.O_WRONLY | os.O_APPEND,
}
# Names under which a mount keeps what was removed while it is open.
ASIDE: Final = ".smb3fs-"
WHOLE: Final = 1 << 20


class Buffer(ctypes.Structure):
    """Py_buffer of Python's C interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


def address(mapping: mmap.mmap) -> int:
    """Where a mapping is in memory."""
    buffer = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


class Actor:
    """A side's open files and mappings, and what it can do."""

    def __init__(self, root: Path, flags: Mapping[str, int] = FLAGS) -> None:
        self._root, self._flags = root, flags
        self._slots: dict[int, int] = {}
        self._maps: dict[int, mmap.mmap] = {}

    def do(self, number: int, verb: str, arguments: list[Any]) -> Any:
        """Carry out an operation; its value, or OSError."""
        return getattr(self, f"_{verb}")(number, *arguments)

    @cached_property
    def _memory(self) -> int:
        """This process's memory: here a page that cannot be had is an error, and not the end by SIGBUS."""
        return os.open("/proc/self/mem", os.O_RDWR)

    def _enter(self, number: int, path: str) -> None:
        """Work in another directory from now on; what was open is closed."""
        for slot in list(self._slots):
            with suppress(OSError):
                self._close(number, slot)
        self._root = Path(path)

    # -- by path -----------------------------------------------------------------------------------------------------

    def _get(self, number: int, path: str) -> bytes:
        """Open, read all, close."""
        descriptor = os.open(self._root / path, os.O_RDONLY)
        try:
            pieces = []
            while piece := os.read(descriptor, WHOLE):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def _put(self, number: int, path: str, size: int) -> None:
        """Make or empty, write all, close."""
        descriptor = os.open(self._root / path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            self._all(os.pwrite(descriptor, content(number, size), 0), size)
        finally:
            os.close(descriptor)

    def _all(self, done: int, size: int) -> None:
        """A write in part is none."""
        if done != size:
            raise OSError(errno.EIO, f"{done} of {size} bytes were written")

    def _truncate(self, number: int, path: str, size: int) -> None:
        os.truncate(self._root / path, size)

    def _stat(self, number: int, path: str) -> list[Any]:
        """What it is; of a file also the size, and the time of the last write in seconds."""
        told = os.stat(self._root / path)
        if stat.S_ISDIR(told.st_mode):
            return ["directory"]
        return ["file", told.st_size, told.st_mtime_ns // 10**9]

    def _utime(self, number: int, path: str, seconds: int) -> None:
        os.utime(self._root / path, (seconds, seconds))

    def _list(self, number: int, path: str) -> list[str]:
        return sorted(name for name in os.listdir(self._root / path) if not name.startswith(ASIDE))

    def _unlink(self, number: int, path: str) -> None:
        os.unlink(self._root / path)

    def _rename(self, number: int, path: str, to: str) -> None:
        os.rename(self._root / path, self._root / to)

    def _mkdir(self, number: int, path: str) -> None:
        os.mkdir(self._root / path)

    def _rmdir(self, number: int, path: str) -> None:
        os.rmdir(self._root / path)

    _rename_directory = _rename

    # -- what is open ------------------------------------------------------------------------------------------------

    def _create(self, number: int, path: str, slot: int) -> None:
        self._slots[slot] = os.open(self._root / path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)

    def _open(self, number: int, path: str, slot: int, how: str) -> None:
        self._slots[slot] = os.open(self._root / path, self._flags[how])

    def _close(self, number: int, slot: int) -> None:
        if slot in self._maps:
            self._maps.pop(slot).close()
        os.close(self._slots.pop(slot))

    def _read(self, number: int, slot: int, offset: int, size: int) -> bytes:
        """Until the end of the file or all was read; O_DIRECT takes any place and size here."""
        pieces: list[bytes] = []
        while size and (piece := os.pread(self._slots[slot], size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _write(self, number: int, slot: int, offset: int, size: int) -> None:
        self._all(os.pwrite(self._slots[slot], content(number, size), offset), size)

    def _append(self, number: int, slot: int, size: int) -> None:
        """At the end, which a lock keeps where it is."""
        fcntl.lockf(self._slots[slot], fcntl.LOCK_EX)
        try:
            self._all(os.write(self._slots[slot], content(number, size)), size)
        finally:
            fcntl.lockf(self._slots[slot], fcntl.LOCK_UN)

    def _cut(self, number: int, slot: int, size: int) -> None:
        os.ftruncate(self._slots[slot], size)

    def _size(self, number: int, slot: int) -> int:
        return os.fstat(self._slots[slot]).st_size

    def _fsync(self, number: int, slot: int) -> None:
        os.fsync(self._slots[slot])

    def _map(self, slot: int, end: int) -> mmap.mmap:
        """The slot's mapping, which lasts as long as the file is not found longer; ERANGE if it is not that long."""
        length = os.fstat(self._slots[slot]).st_size
        if length < end:
            raise OSError(errno.ERANGE, f"{length} bytes where {end} are asked for")
        if slot in self._maps and len(self._maps[slot]) < end:
            self._maps.pop(slot).close()
        if slot not in self._maps:
            writable = fcntl.fcntl(self._slots[slot], fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._maps[slot] = mmap.mmap(self._slots[slot], length, access=access)
        return self._maps[slot]

    def _map_read(self, number: int, slot: int, offset: int, size: int) -> bytes:
        """From a shared mapping, the size of the file having been asked for."""
        at = address(self._map(slot, offset + size)) + offset
        pieces: list[bytes] = []
        while size:
            pieces.append(os.pread(self._memory, size, at))
            at, size = at + len(pieces[-1]), size - len(pieces[-1])
        return b"".join(pieces)

    def _map_write(self, number: int, slot: int, page: int) -> None:
        """A whole page, and msync."""
        mapping = self._map(slot, (page + 1) * PAGE)
        self._all(os.pwrite(self._memory, content(number, PAGE), address(mapping) + page * PAGE), PAGE)
        mapping.flush(page * PAGE, PAGE)

    def _pause(self, number: int, seconds: float) -> None:
        time.sleep(seconds)


def encoded(value: Any) -> Any:
    """A value as JSON has it: bytes in a list of one string of base64."""
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def main() -> None:
    """Carry out until there are no more."""
    root, *account = sys.argv[1:]
    if account:
        told = pwd.getpwnam(account[0])
        os.setgroups([])
        os.setgid(told.pw_gid)
        os.setuid(told.pw_uid)
    # A disk takes O_DIRECT in whole blocks only.
    actor = Actor(Path(root), {**FLAGS, "direct": os.O_RDWR} if account else FLAGS)
    for line in sys.stdin:
        number, verb, arguments = json.loads(line)
        began = time.monotonic()
        try:
            answer = {"value": encoded(actor.do(number, verb, arguments))}
        except OSError as error:
            answer = {"error": errno.errorcode.get(error.errno or 0, str(error))}
        print(json.dumps({**answer, "began": began, "ended": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
