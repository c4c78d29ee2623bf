"""What each worker does on the mount, and what it knows of the outcome.

A worker is a process with a directory of its own, of which it knows every name and every byte, and a part in what all
share: names that two race for, counters under locks, a log to which all append. An operation that fails with the error
of a lost server is counted and, but for some writes, tried again until it succeeds or is seen to have been done; any
other surprise is a violation.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from faultlib.content import Content

T = TypeVar("T")

# What a call may say of a server that is not there; on a share that promises nothing these are no fault.
LOST: Final = frozenset(
    {
        errno.EIO,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
    }
)
SLOW: Final = 0.05
HEARTBEAT: Final = 0.25
PAUSE: Final = 0.004
RETRY_PAUSE: Final = 0.02
# An operation that fails for so long after the last fault will not succeed any more.
PATIENCE: Final = 90.0
FILES: Final = 12
HELD: Final = 5
LARGEST: Final = 300_000
COUNTERS: Final = 2
COUNTER_WIDTH: Final = 16
RECORD: Final = re.compile(rb"<(\d+) (\d+) (x*)>\n")


class NotHealedError(Exception):
    """An operation went on failing after all faults were over."""


@dataclass
class Tracked:
    """A file of the worker's own."""

    name: str
    content: Content = field(default_factory=Content)
    descriptor: int = -1


@dataclass
class Findings:
    """What a worker hands over in the end."""

    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """By operation and errno, as in "rename EIO"."""
    violations: list[str] = field(default_factory=list)
    races: dict[int, str] = field(default_factory=dict)
    """For each name raced for: won, lost, or doubt."""
    counted: Counter[int] = field(default_factory=Counter)
    perhaps_counted: Counter[int] = field(default_factory=Counter)
    appended: list[int] = field(default_factory=list)
    perhaps_appended: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the report's process."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Worker:
    """One worker's operations; `tell` hears of each that was slow or failed, and of one now and then."""

    def __init__(
        self, root: Path, number: int, log: str, seed: str, tell: Callable[[float, float, str, str], None]
    ) -> None:
        """`log` names the file that this worker appends to."""
        self.root, self.number, self.seed = root, number, seed
        self.place = root / f"w{number}"
        self.log = root / log
        self.chance = random.Random(seed)
        self.found = Findings()
        self.files: dict[str, Tracked] = {}
        self.folders: set[str] = set()
        self.stopping_since: float | None = None
        self._tell = tell
        self._told = 0.0
        self._failed = False
        self._names = 0
        self._race = 0
        self._counters: dict[int, int] = {}
        self._log_descriptor = -1
        self._violated: set[str] = set()
        self._operations: list[tuple[int, Callable[[], None]]] = [
            (10, self.create),
            (24, self.write),
            (12, self.read),
            (8, self.rewrite),
            (8, self.rename),
            (5, self.unlink),
            (5, self.truncate),
            (4, self.sync),
            (4, self.close_one),
            (4, self.make_or_remove_folder),
            (4, self.list),
            (3, self.stat),
            (3, self.link),
            (8, self.append),
            (7, self.race),
            (9, self.count),
        ]

    # -- how an operation is done

    def once(self, what: str, action: Callable[..., T], *arguments: Any, fine: tuple[int, ...] = ()) -> T | OSError:
        """Do something once: its result, or the error of a lost server or one that is `fine`; others are violations."""
        began = time.monotonic()
        result: T | OSError
        said = ""
        try:
            result = action(*arguments)
        except OSError as error:
            result = error
            if error.errno not in fine:
                said = errno.errorcode.get(error.errno or 0, str(error.errno))
        ended = time.monotonic()
        if not said:
            self.found.done[what] += 1
            if self._failed or ended - began >= SLOW or ended - self._told >= HEARTBEAT:
                self._tell(began, ended, what, "")
                self._told, self._failed = ended, False
            return result
        self.found.errors[f"{what} {said}"] += 1
        self._tell(began, ended, what, said)
        self._failed = True
        if isinstance(result, OSError) and result.errno not in LOST:
            self.violation(f"{what}: {result}")
        return result

    def until_done(
        self, what: str, action: Callable[..., T], *arguments: Any, explained: tuple[int, ...] = ()
    ) -> T | None:
        """Do something until it succeeds, or after a failure says that it was done; None stands for the latter."""
        result = self.once(what, action, *arguments)
        while isinstance(result, OSError):
            if result.errno not in LOST:
                return None
            if self.stopping_since is not None and time.monotonic() > self.stopping_since + PATIENCE:
                raise NotHealedError(f"{what} still fails {PATIENCE:.0f} s after the last fault: {result}")
            time.sleep(RETRY_PAUSE)
            result = self.once(what, action, *arguments, fine=explained)
            if isinstance(result, OSError) and result.errno in explained:
                return None
        return result

    def violation(self, text: str) -> None:
        """Remember what must not be; once, as it may be seen again and again."""
        if text in self._violated:
            return
        self._violated.add(text)
        now = time.monotonic()
        self.found.violations.append(f"{now:.3f} worker {self.number}: {text}")
        self._tell(now, now, "violation", text)

    def step(self) -> None:
        """Do one thing."""
        weights, operations = zip(*((weight, operation) for weight, operation in self._operations), strict=True)
        self.chance.choices(operations, weights)[0]()
        time.sleep(self.chance.expovariate(1 / PAUSE))

    # -- files of its own

    def begin(self) -> None:
        """Make the worker's directory."""
        self.until_done("mkdir", os.mkdir, self.place, explained=(errno.EEXIST,))

    def _fresh(self, kind: str) -> str:
        """A name that was never used."""
        self._names += 1
        return f"{kind}{self._names}"

    def _some_file(self) -> Tracked | None:
        """One of the files."""
        return self.files[self.chance.choice(sorted(self.files))] if self.files else None

    def _bytes(self) -> bytes:
        """What to write: mostly little, at times a lot."""
        return self.chance.randbytes(int(2 ** self.chance.uniform(0, 18)))

    def _held(self, file: Tracked) -> int:
        """The file's descriptor, opened if need be; not more than a few are kept."""
        if file.descriptor < 0:
            held = [other for other in self.files.values() if other.descriptor >= 0]
            if len(held) >= HELD:
                self._close(self.chance.choice(held))
            made = self.until_done("open", os.open, self.place / file.name, os.O_RDWR)
            file.descriptor = -1 if made is None else made
        return file.descriptor

    def _close(self, file: Tracked) -> None:
        """Close a file; what close says is counted, and the descriptor is gone in any case."""
        if file.descriptor >= 0:
            self.once("close", os.close, file.descriptor)
            file.descriptor = -1

    def _lost(self, file: Tracked) -> None:
        """Do as programs do when an open file answers EIO: close it, to open it anew."""
        self._close(file)

    def create(self) -> None:
        """Make a file that must not be there."""
        if len(self.files) >= FILES:
            self.unlink()
        file = Tracked(self._fresh("f"))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        made = self.until_done("create", os.open, self.place / file.name, flags, explained=(errno.EEXIST,))
        self.files[file.name] = file
        if made is not None:
            held = [other for other in self.files.values() if other.descriptor >= 0]
            file.descriptor = made
            if len(held) >= HELD:
                self._close(self.chance.choice(held))
        self.write(file)

    def write(self, file: Tracked | None = None) -> None:
        """Write somewhere in a file; a failed write is repeated, or left at that."""
        file = file or self._some_file()
        if file is None:
            return
        data, start = self._bytes(), self.chance.randrange(min(LARGEST, file.content.size + 5000))
        again = self.chance.random() < 0.7
        while (descriptor := self._held(file)) >= 0:
            done = self.once("write", os.pwrite, descriptor, data, start)
            if not isinstance(done, OSError):
                file.content.written(start, data[:done])
            if done == len(data):
                return
            # A short count says that the rest has failed.
            missing = 0 if isinstance(done, OSError) else done
            file.content.perhaps_written(start + missing, data[missing:])
            self._lost(file)
            if not again:
                return

    def read(self) -> None:
        """Read somewhere in a file, and compare."""
        file = self._some_file()
        if file is None:
            return
        start, length = self.chance.randrange(file.content.size + 1), self.chance.choice([1, 4096, 65_536, LARGEST * 2])
        while (descriptor := self._held(file)) >= 0:
            data = self.once("read", self._read_all, descriptor, length, start)
            if not isinstance(data, OSError):
                if fault := file.content.fault(data, start, length):
                    self.violation(f"read of {file.name} through the mount: {fault}")
                return
            self._lost(file)

    @staticmethod
    def _read_all(descriptor: int, length: int, start: int) -> bytes:
        """As much as there is: a short count alone is no end of the file, an error may follow."""
        data = b""
        while len(data) < length and (part := os.pread(descriptor, length - len(data), start + len(data))):
            data += part
        return data

    def rewrite(self) -> None:
        """Replace a file's contents, as editors and shells do: O_TRUNC, write, close."""
        file = self._some_file()
        if file is None:
            return
        self._close(file)
        data = self._bytes()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        while True:
            descriptor = self.once("open to rewrite", os.open, self.place / file.name, flags)
            if isinstance(descriptor, OSError):
                file.content.perhaps_truncated(0)
                if descriptor.errno not in LOST:
                    return
                self._patience("open to rewrite", descriptor)
                continue
            file.content.truncated(0)
            done = self.once("write", os.write, descriptor, data)
            count = 0 if isinstance(done, OSError) else done
            file.content.written(0, data[:count])
            file.content.perhaps_written(count, data[count:])
            self.once("close", os.close, descriptor)
            if count == len(data):
                return

    def _patience(self, what: str, error: OSError) -> None:
        """Wait before the next try, which must succeed some time after the last fault."""
        if self.stopping_since is not None and time.monotonic() > self.stopping_since + PATIENCE:
            raise NotHealedError(f"{what} still fails {PATIENCE:.0f} s after the last fault: {error}")
        time.sleep(RETRY_PAUSE)

    def rename(self) -> None:
        """Give a file a new name, or another file's; open or not."""
        file = self._some_file()
        if file is None:
            return
        target = self._some_file() if self.chance.random() < 0.3 else None
        if target is file:
            return
        name = self._fresh("r") if target is None else target.name
        if target is not None:
            self._close(target)
        old = self.place / file.name
        self.until_done("rename", os.rename, old, self.place / name, explained=(errno.ENOENT,))
        del self.files[file.name]
        file.name = name
        self.files[name] = file

    def unlink(self) -> None:
        """Remove a file."""
        file = self._some_file()
        if file is None:
            return
        self._close(file)
        self.until_done("unlink", os.unlink, self.place / file.name, explained=(errno.ENOENT,))
        del self.files[file.name]

    def truncate(self) -> None:
        """Cut a file or make it longer, by name or by descriptor."""
        file = self._some_file()
        if file is None:
            return
        size = self.chance.randrange(file.content.size + 5000)
        by_name = self.chance.random() < 0.5
        while True:
            descriptor = -1 if by_name else self._held(file)
            place: int | Path = self.place / file.name if by_name else descriptor
            if not by_name and descriptor < 0:
                return
            done = self.once("truncate", os.truncate, place, size)
            if not isinstance(done, OSError):
                file.content.truncated(size)
                return
            file.content.perhaps_truncated(size)
            if done.errno not in LOST:
                return
            if not by_name:
                self._lost(file)
            self._patience("truncate", done)

    def sync(self) -> None:
        """fsync(2); writes are at the server before it, so its error says nothing of them."""
        file = self._some_file()
        if file is not None and (descriptor := self._held(file)) >= 0:
            done = self.once("fsync", os.fsync, descriptor)
            if isinstance(done, OSError):
                self._lost(file)

    def close_one(self) -> None:
        """Close one of the open files."""
        held = [file for file in self.files.values() if file.descriptor >= 0]
        if held:
            self._close(self.chance.choice(held))

    def make_or_remove_folder(self) -> None:
        """mkdir(2) of a new name, rmdir(2) of an old one."""
        if len(self.folders) < 4:
            name = self._fresh("d")
            self.until_done("mkdir", os.mkdir, self.place / name, explained=(errno.EEXIST,))
            self.folders.add(name)
        else:
            name = self.chance.choice(sorted(self.folders))
            self.until_done("rmdir", os.rmdir, self.place / name, explained=(errno.ENOENT,))
            self.folders.discard(name)

    def link(self) -> None:
        """A second name for a file, which is removed again."""
        file = self._some_file()
        if file is None:
            return
        name = self._fresh("l")
        linked = self.place / name
        self.until_done("link", os.link, self.place / file.name, linked, explained=(errno.EEXIST,))
        self.until_done("unlink", os.unlink, linked, explained=(errno.ENOENT,))

    def list(self) -> None:
        """The names of the directory must be those that are known."""
        told = self.once("list", os.listdir, self.place)
        if not isinstance(told, OSError):
            self._compare_names(set(told), "through the mount")

    def stat(self) -> None:
        """A file's size."""
        file = self._some_file()
        if file is None:
            return
        told = self.once("stat", os.stat, self.place / file.name)
        if not isinstance(told, OSError) and not any(low <= told.st_size <= high for low, high in file.content.sizes):
            self.violation(f"stat of {file.name}: {told.st_size} bytes, it may have {file.content.sizes}")

    def _compare_names(self, told: set[str], where: str) -> None:
        """Every name once, no other."""
        known = set(self.files) | self.folders
        if lost := known - told:
            self.violation(f"names lost, {where}: {sorted(lost)[:5]}")
        if more := told - known:
            self.violation(f"names too many, {where}: {sorted(more)[:5]}")

    # -- what all share

    def append(self) -> None:
        """Append a record that carries its number."""
        if self._log_descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND
            made = self.until_done("open", os.open, self.log, flags)
            if made is None:
                return
            self._log_descriptor = made
        serial = len(self.found.appended) + len(self.found.perhaps_appended)
        record = b"<%d %d %s>\n" % (self.number, serial, b"x" * self.chance.randrange(100))
        done = self.once("append", os.write, self._log_descriptor, record)
        if isinstance(done, OSError) or done != len(record):
            self.found.perhaps_appended.append(serial)
            self.once("close", os.close, self._log_descriptor)
            self._log_descriptor = -1
        else:
            self.found.appended.append(serial)

    def race(self) -> None:
        """Make a name that somebody else tries to make as well."""
        name = self.root / "races" / f"race{self._race}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = self.once("create in a race", os.open, name, flags, fine=(errno.EEXIST,))
        if isinstance(descriptor, OSError):
            self.found.races[self._race] = "lost" if descriptor.errno == errno.EEXIST else "doubt"
        else:
            self.found.races[self._race] = "won"
            self.once("close", os.close, descriptor)
        self._race += 1

    def count(self) -> None:
        """Add one to a counter that only one process at a time may hold."""
        which = self.chance.randrange(COUNTERS)
        descriptor = self._counters.get(which, -1)
        if descriptor < 0:
            made = self.until_done("open counter", os.open, self.root / f"counter{which}", os.O_RDWR)
            if made is None:
                return
            descriptor = self._counters[which] = made
        busy = (errno.EAGAIN, errno.EACCES)
        locked = self.once("lock", fcntl.lockf, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, fine=busy)
        if isinstance(locked, OSError):
            if locked.errno not in busy:
                self._give_up_counter(which)
            return
        told = self.once("read counter", os.pread, descriptor, COUNTER_WIDTH, 0)
        if isinstance(told, OSError):
            self._give_up_counter(which)
            return
        if not told.isdigit() or len(told) != COUNTER_WIDTH:
            self.violation(f"counter {which} holds {told!r}")
        value = b"%0*d" % (COUNTER_WIDTH, int(told or b"0") + 1)
        done = self.once("write counter", os.pwrite, descriptor, value, 0)
        if isinstance(done, OSError):
            self.found.perhaps_counted[which] += 1
            self._give_up_counter(which)
            return
        self.found.counted[which] += 1
        if isinstance(self.once("unlock", fcntl.lockf, descriptor, fcntl.LOCK_UN), OSError):
            self._give_up_counter(which)

    def _give_up_counter(self, which: int) -> None:
        """Close a counter, which lets go of its lock."""
        self.once("close counter", os.close, self._counters.pop(which))

    # -- the end

    def finish(self, behind: Path) -> None:
        """Close everything, and compare every name and byte: on the mount, and in the server's own directory."""
        for file in self.files.values():
            self._close(file)
        for which in list(self._counters):
            self._give_up_counter(which)
        if self._log_descriptor >= 0:
            self.once("close", os.close, self._log_descriptor)
        for place, where in ((self.place, "through the mount"), (behind / self.place.name, "at the server")):
            self._compare_names(set(os.listdir(place)), where)
            for file in self.files.values():
                if (place / file.name).exists() and (fault := file.content.fault((place / file.name).read_bytes())):
                    self.violation(f"{file.name} {where}: {fault}")
