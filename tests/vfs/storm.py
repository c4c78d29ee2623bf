"""A program for test_storm.py: do a bit of everything in a directory until the time is up. The arguments are the
directory, a seed and the number of seconds."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time

top, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
chance = random.Random(seed)
end = time.monotonic() + seconds


def name() -> str:
    """One of few names, which others use too."""
    return os.path.join(top, f"{chance.choice('abcd')}{chance.randrange(12)}")


def act() -> None:
    """Do one thing."""
    match chance.randrange(9):
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


while time.monotonic() < end:
    with contextlib.suppress(OSError):
        act()
