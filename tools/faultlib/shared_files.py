"""What all workers share: names that two race for, counters under locks, logs that grow."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from faultlib.trying import Trying

COUNTERS: Final = 2
COUNTER_WIDTH: Final = 16
RECORD: Final = re.compile(rb"<(\d+) (\d+) (x*)>\n")


class SharedFiles:
    """One worker's part in it; `log` names the file that it appends to."""

    def __init__(self, root: Path, log: str, trying: Trying, chance: random.Random) -> None:
        self._root, self._log, self._trying, self._chance = root, root / log, trying, chance
        self._race = 0
        self._counters: dict[int, int] = {}
        self._log_descriptor = -1
        self._aside: set[Path] = set()

    def leave_aside(self, paths: Sequence[Path]) -> None:
        """Use some files no more: the server lets nobody open them."""
        self._aside.update(paths)
        while self._root / "races" / f"race{self._race}" in self._aside:
            self._trying.found.races[self._race] = "doubt"
            self._race += 1

    def append(self) -> None:
        """Append a record that carries its number."""
        if self._log in self._aside:
            return
        if self._log_descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND
            made = self._trying.until_done("open", os.open, self._log, flags)
            if made is None:
                return
            self._log_descriptor = made
        serial = len(self._trying.found.appended) + len(self._trying.found.perhaps_appended)
        record = b"<%d %d %s>\n" % (self._trying.number, serial, b"x" * self._chance.randrange(100))
        done = self._trying.once("append", os.write, self._log_descriptor, record)
        if isinstance(done, OSError) or done != len(record):
            self._trying.found.perhaps_appended.append(serial)
            self._trying.once("close", os.close, self._log_descriptor)
            self._log_descriptor = -1
        else:
            self._trying.found.appended.append(serial)

    def race(self) -> None:
        """Make a name that somebody else tries to make as well."""
        name = self._root / "races" / f"race{self._race}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = self._trying.once("create in a race", os.open, name, flags, fine=(errno.EEXIST,))
        if isinstance(descriptor, OSError):
            self._trying.found.races[self._race] = "lost" if descriptor.errno == errno.EEXIST else "doubt"
        else:
            self._trying.found.races[self._race] = "won"
            self._trying.once("close", os.close, descriptor)
        self._race += 1

    def count(self) -> None:
        """Add one to a counter that only one process at a time may hold."""
        which = self._chance.randrange(COUNTERS)
        if self._root / f"counter{which}" in self._aside:
            return
        descriptor = self._counters.get(which, -1)
        if descriptor < 0:
            made = self._trying.until_done("open counter", os.open, self._root / f"counter{which}", os.O_RDWR)
            if made is None:
                return
            descriptor = self._counters[which] = made
        busy = (errno.EAGAIN, errno.EACCES)
        locked = self._trying.once("lock", fcntl.lockf, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, fine=busy)
        if isinstance(locked, OSError):
            if locked.errno not in busy:
                self._give_up_counter(which)
            return
        told = self._trying.once("read counter", os.pread, descriptor, COUNTER_WIDTH, 0)
        if isinstance(told, OSError):
            self._give_up_counter(which)
            return
        if not told.isdigit() or len(told) != COUNTER_WIDTH:
            self._trying.violation(f"counter {which} holds {told!r}")
        value = b"%0*d" % (COUNTER_WIDTH, int(told or b"0") + 1)
        done = self._trying.once("write counter", os.pwrite, descriptor, value, 0)
        if isinstance(done, OSError):
            self._trying.found.perhaps_counted[which] += 1
            self._give_up_counter(which)
            return
        self._trying.found.counted[which] += 1
        if isinstance(self._trying.once("unlock", fcntl.lockf, descriptor, fcntl.LOCK_UN), OSError):
            self._give_up_counter(which)

    def _give_up_counter(self, which: int) -> None:
        """Close a counter, which lets go of its lock."""
        self._trying.once("close counter", os.close, self._counters.pop(which))

    def finish(self) -> None:
        """Close everything."""
        for which in list(self._counters):
            self._give_up_counter(which)
        if self._log_descriptor >= 0:
            self._trying.once("close", os.close, self._log_descriptor)
