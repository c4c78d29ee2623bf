"""What the process that waits for an answer is about to do, where the kernel does not tell: read from /proc.

On a server that takes no notice of case both spellings of a name are one file, and by POSIX renaming one name of a file
to another of its names does nothing: the kernel looks the new name up, finds the same inode, and is done. So a change
of case alone would never reach the server, unless the lookup for it finds nothing. Nothing in that request says that
it is for a rename; but the process that waits for it is in the system call, and its arguments can be read: by root, and
for the processes of one's own user where the system allows that. Where they cannot be read, the rename does nothing.

A process that is begun by another one closes what it has inherited of that, and the kernel tells of each such close as
of any other; by the threads it shows who it was.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smb3fs.vfs.spelling import key

# asm/unistd.h: the numbers of rename, renameat and renameat2, each with which of its arguments are the two paths.
_RENAMES: Final[Mapping[str, Mapping[int, tuple[int, int]]]] = {
    "x86_64": {82: (0, 1), 264: (1, 3), 316: (1, 3)},
    "aarch64": {38: (1, 3), 276: (1, 3)},
    "riscv64": {276: (1, 3)},
}
# How often it is looked what somebody does who is about to wait, and how many seconds lie between.
LOOKS: Final = 20
BETWEEN: Final = 0.0002
_PATH_MAX: Final = 4096
_PAGE: Final = 4096


def is_respelling(process: int, name: bytes, machine: str = platform.machine()) -> bool:
    """Whether a thread is in a rename to `name` from another spelling of it."""
    if process <= 0:
        return False
    try:
        number, *arguments = _call(process)
        places = _RENAMES.get(machine, {}).get(int(number))
        if places is None:
            return False
        with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
            old, new = (_last_component(memory.fileno(), int(arguments[place], 16)) for place in places)
    except (OSError, ValueError, IndexError):
        return False
    return new == name and old != name and key(os.fsdecode(old)) == key(os.fsdecode(new))


def _call(process: int) -> list[str]:
    """Return the number of the call that a thread waits in, and its arguments in hexadecimal: see proc(5).

    One that has just asked may not have gone to sleep yet, and is told to be running until then.
    """
    for _ in range(LOOKS):
        told = Path(f"/proc/{process}/syscall").read_text().split()
        if told != ["running"]:
            break
        time.sleep(BETWEEN)
    return told


def _last_component(memory: int, address: int) -> bytes:
    """Return the last name in the path that a process has at an address."""
    path = b""
    while len(path) < _PATH_MAX and b"\0" not in path:
        place = address + len(path)
        part = os.pread(memory, _PAGE - place % _PAGE, place)  # not beyond what may be the last page that is there
        if not part:
            break
        path += part
    return re.split(rb"/+", path.partition(b"\0")[0].rstrip(b"/"))[-1]


def are_one(thread: int, other: int) -> bool | None:
    """Whether two threads are of one process; None: of a thread that has ended, or is not seen from here, nobody knows.

    `thread` may be 0, for that of a file by which nobody has written: there `other` is nobody's child that looks away.
    """
    if other <= 0:
        return None
    if thread <= 0 or thread == other:
        return True
    try:
        return _process_of(thread) == _process_of(other)
    except (OSError, ValueError, IndexError):
        return None


def _process_of(thread: int) -> int:
    """Return the process that a thread belongs to."""
    return int(Path(f"/proc/{thread}/status").read_text().partition("\nTgid:")[2].split(maxsplit=1)[0])
