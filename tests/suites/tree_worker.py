"""One of several processes that work in the same tree: `tree_worker.py DIRECTORY SEED STEPS`; prints what went wrong.

Each file is made by one process, whole, and says which: `who` is repeated to the end of it. So whatever the others do
to names, a file that is found has the contents that somebody gave it.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import random
import sys
from pathlib import Path

# What may come of an operation on a name that another process has just taken, made or moved.
RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}
# The kernel looks a name up again, once, when the file behind it is another than it was a moment ago.
RACES.add(errno.ESTALE)
STALE_SHARE = 0.005
BLOCK = 64


def is_whole(data: bytes) -> bool:
    """Whether a file's contents are one process's block over and over."""
    return len(data) % BLOCK == 0 and data == data[:BLOCK] * (len(data) // BLOCK)


class Worker:
    """Random operations under one directory."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.seed = seed
        self.chance = random.Random(seed)
        self.count = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def path(self) -> Path:
        """One of few names, in one of few directories: the others are at work there too."""
        folder = self.chance.choice(["", "one", "two", "one/deep"])
        return self.root / folder / f"n{self.chance.randrange(8)}"

    def step(self) -> None:
        """Do one thing."""
        path, other = self.path(), self.path()
        what = self.chance.randrange(11)
        if what <= 2:
            self.make(path)
        elif what == 3:
            path.mkdir()
        elif what == 4:
            path.rmdir()
        elif what <= 6:
            path.unlink()
        elif what <= 8:
            path.rename(other)
        elif what == 9:
            data = path.read_bytes()
            if not is_whole(data):
                self.faults.append(f"{path} is torn: {data[:BLOCK]!r}... of {len(data)}")
        else:
            sorted(os.listdir(path.parent))

    def make(self, path: Path) -> None:
        """Write a file under a name of this process's own, and rename it to where it is to be: nobody sees half."""
        self.count += 1
        block = f"{self.seed} {self.count} ".encode().ljust(BLOCK, b".")
        temporary = self.root / f"tmp-{self.seed}-{self.count}"
        temporary.write_bytes(block * self.chance.choice([0, 1, 10, 1000]))
        try:
            temporary.rename(path)
        except OSError:
            temporary.unlink()
            raise

    def run(self, steps: int) -> None:
        """Do so many things; what the others cause is counted, all else is a fault."""
        for _ in range(steps):
            try:
                self.step()
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, str(error.errno))
                self.errors[name] += 1
                if error.errno not in RACES:
                    self.faults.append(f"{name}: {error}")
        if self.errors["ESTALE"] > steps * STALE_SHARE:
            self.faults.append(f"{self.errors['ESTALE']} times ESTALE")


if __name__ == "__main__":
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]))
    worker.run(int(sys.argv[3]))
    json.dump({"errors": worker.errors, "faults": worker.faults}, sys.stdout)
