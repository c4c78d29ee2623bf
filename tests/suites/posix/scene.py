"""What each case finds when it begins, how it acts, and what came of it."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

# A user who owns nothing.
NOBODY: Final = 65534
NAME_MAX: Final = 255
PATH_MAX: Final = 4096
# linux/fs.h
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4
AT_FDCWD: Final = -100

Action = Callable[[Path], object]


class Case(NamedTuple):
    """One call in one situation, and what Linux makes of it: a result, or the name of an errno."""

    name: str
    expected: object
    action: Action


def cases(call: str, *rows: tuple[str, object, Action]) -> list[Case]:
    """The cases of one system call."""
    return [Case(f"{call} {what}", expected, action) for what, expected, action in rows]


def set_scene(place: Path) -> Path:
    """`file` of ten bytes, `other`, `empty` and `hollow` directories, `full` with a file `inside`."""
    (place / "file").write_bytes(b"0123456789")
    (place / "other").write_bytes(b"other")
    (place / "empty").mkdir()
    (place / "hollow").mkdir()
    (place / "full").mkdir()
    (place / "full/inside").write_bytes(b"inside")
    return place


def opened(path: Path, flags: int, mode: int = 0o666) -> None:
    """open(2), and close at once."""
    os.close(os.open(path, flags, mode))


class Descriptor:
    """A descriptor for the length of a `with`."""

    def __init__(self, path: Path, flags: int, mode: int = 0o666) -> None:
        self.number = os.open(path, flags, mode)

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def with_descriptor(path: Path, flags: int, action: Callable[[int], object]) -> object:
    """Open, act on the descriptor, close; what the action returned."""
    with Descriptor(path, flags) as number:
        return action(number)


def libc(function: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call a function of the C library; OSError when it returns -1."""
    library = ctypes.CDLL(None, use_errno=True)
    # Offsets and sizes are 64 bits wide, which ctypes does not guess.
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    answer = getattr(library, function)(*wide)
    if answer == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(answer)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2)."""
    libc("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


# The numbers of setgroups, setresgid and setresuid: as system calls they are the calling thread's alone.
_IDENTITY: Final = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}


def unprivileged(action: Action, user: int = NOBODY) -> Action:
    """The same action by a user without privileges, in a thread of its own."""

    def act(place: Path) -> object:
        results: list[object] = []

        def run() -> None:
            groups, gid, uid = _IDENTITY[platform.machine()]
            library = ctypes.CDLL(None, use_errno=True)
            for number, arguments in ((groups, (0, None)), (gid, (user,) * 3), (uid, (user,) * 3)):
                if library.syscall(number, *arguments):
                    raise RuntimeError(f"no other user: errno {ctypes.get_errno()}")
            try:
                results.append(action(place))
            except OSError as error:
                results.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(results[0], OSError):
            raise results[0]
        return results[0]

    return act
