"""A program for test_storm.py: do a bit of everything in a directory until the time is up. The arguments are the
directory, a seed and the number of seconds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import sys
import time

top, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
chance = random.Random(seed)
end = time.monotonic() + seconds


def name() -> str:
    """One of few names, which others use too."""
    return os.path.join(top, f"{chance.choice('abcd')}{chance.randrange(12)}")


# F_OFD_SETLK and F_OFD_SETLKW of linux/fcntl.h, which Python has no names for.
OFD = (37, 38)


def lock() -> None:
    """Lock parts of a file, or all of it, in one of the three ways; give it up again, or leave that to close(2)."""
    with open(name(), "r+b", buffering=0) as file:
        for _ in range(chance.randrange(1, 5)):
            exclusive, waits = chance.random() < 0.5, chance.random() < 0.5
            start, length = chance.randrange(100), chance.choice((0, 1, 10))
            how = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if waits else fcntl.LOCK_NB)
            match chance.randrange(4):
                case 0:
                    fcntl.lockf(file, how, length, start)
                case 1:
                    fcntl.flock(file, how)
                case 2:
                    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
                    fcntl.fcntl(file, OFD[waits], struct.pack("hhqqi4x", kind, 0, start, length, 0))
                case 3:
                    fcntl.lockf(file, fcntl.LOCK_UN, length, start)
            if chance.random() < 0.5:
                file.read(10)


def act() -> None:
    """Do one thing."""
    match chance.randrange(12):
        case 0 | 1:
            with open(name(), "wb", buffering=0) as file:
                file.write(bytes(chance.randrange(200_000)))
        case 2 | 3:
            with open(name(), "rb", buffering=0) as file:
                file.read()
        case 4:
            os.rename(name(), name())
        case 5:
            os.unlink(name())
        case 6:
            with os.scandir(top) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        entry.stat()
        case 7:
            os.stat(name())
        case 8:
            with open(name(), "r+b", buffering=0) as file:
                file.truncate(chance.randrange(1000))
        case _:
            lock()


while time.monotonic() < end:
    with contextlib.suppress(OSError):
        act()
