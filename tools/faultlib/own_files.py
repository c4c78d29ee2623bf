"""A worker's own files, of which it knows every name and every byte."""

from __future__ import annotations

import errno
import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faultlib.content import Content, GatheredContent
from faultlib.trying import LOST, Trying

FILES: Final = 12
HELD: Final = 5
LARGEST: Final = 300_000
# What was done to a file last, as far as it is told with a wrong read; and seconds until it is looked at once more.
REMEMBERED: Final = 12
LATER: Final = 2.5


@dataclass
class Tracked:
    """A file of the worker's own."""

    name: str
    content: Content
    descriptor: int = -1
    done: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def note(self, words: str) -> None:
        """Take down what was done to it."""
        self.done.append(f"{time.monotonic():.3f} {words}")


class OwnFiles:
    """A directory and what one worker does in it; whether writes are gathered decides what their success says."""

    def __init__(self, place: Path, trying: Trying, chance: random.Random, *, gathered: bool = False) -> None:
        self.place, self._trying, self._chance = place, trying, chance
        self._content = GatheredContent if gathered else Content
        self._files: dict[str, Tracked] = {}
        self._folders: set[str] = set()
        self._aside: set[str] = set()
        self._names = 0

    def begin(self) -> None:
        """Make the worker's directory."""
        self._trying.until_done("mkdir", os.mkdir, self.place, explained=(errno.EEXIST,))

    def leave_aside(self, paths: Sequence[Path]) -> None:
        """Know nothing of some names any more: the server lets nobody open what they stand for."""
        for name in (path.name for path in paths if path.parent == self.place):
            self._aside.add(name)
            self._folders.discard(name)
            file = self._files.pop(name, None)
            if file is not None:
                self._close(file)

    def _fresh(self, kind: str) -> str:
        """A name that was never used."""
        self._names += 1
        return f"{kind}{self._names}"

    def _some_file(self) -> Tracked | None:
        """One of the files."""
        return self._files[self._chance.choice(sorted(self._files))] if self._files else None

    def _bytes(self) -> bytes:
        """What to write: mostly little, at times a lot."""
        return self._chance.randbytes(int(2 ** self._chance.uniform(0, 18)))

    def _held(self, file: Tracked) -> int:
        """The file's descriptor, opened if need be; not more than a few are kept."""
        if file.descriptor < 0:
            held = [other for other in self._files.values() if other.descriptor >= 0]
            if len(held) >= HELD:
                self._close(self._chance.choice(held))
            made = self._trying.until_done("open", os.open, self.place / file.name, os.O_RDWR)
            file.descriptor = -1 if made is None else made
            file.note("open")
        return file.descriptor

    def _close(self, file: Tracked) -> None:
        """Close a file; what close says is counted, and the descriptor is gone in any case."""
        if file.descriptor >= 0:
            self._settle(file, "close", os.close, file.descriptor)
            file.descriptor = -1

    def _settle(self, file: Tracked, what: str, action: Callable[[int], None], descriptor: int) -> bool:
        """Do what says whether all that was written has arrived; return whether it has."""
        arrived = not isinstance(self._trying.once(what, action, descriptor), OSError)
        file.note(what if arrived else f"{what} in vain")
        file.content.settle(arrived=arrived)
        return arrived

    def _lost(self, file: Tracked) -> None:
        """Do as programs do when an open file answers EIO: close it, to open it anew."""
        self._close(file)

    def create(self) -> None:
        """Make a file that must not be there."""
        if len(self._files) >= FILES:
            self.unlink()
        file = Tracked(self._fresh("f"), self._content())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        made = self._trying.until_done("create", os.open, self.place / file.name, flags, explained=(errno.EEXIST,))
        self._files[file.name] = file
        if made is not None:
            held = [other for other in self._files.values() if other.descriptor >= 0]
            file.descriptor = made
            if len(held) >= HELD:
                self._close(self._chance.choice(held))
        self.write(file)

    def write(self, file: Tracked | None = None) -> None:
        """Write somewhere in a file; a failed write is repeated, or left at that."""
        file = file or self._some_file()
        if file is None:
            return
        data, start = self._bytes(), self._chance.randrange(min(LARGEST, file.content.size + 5000))
        again = self._chance.random() < 0.7
        while (descriptor := self._held(file)) >= 0:
            done = self._trying.once("write", os.pwrite, descriptor, data, start)
            file.note(f"write of {len(data)} at {start}: {done}")
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
        start, length = (
            self._chance.randrange(file.content.size + 1),
            self._chance.choice([1, 4096, 65_536, LARGEST * 2]),
        )
        while (descriptor := self._held(file)) >= 0:
            data = self._trying.once("read", self._read_all, descriptor, length, start)
            if not isinstance(data, OSError):
                if fault := file.content.fault(data, start, length):
                    evidence = self._evidence(file, descriptor)
                    self._trying.violation(f"read of {file.name} through the mount: {fault}; {evidence}")
                file.note(f"read of {length} at {start}: {len(data)}")
                return
            self._lost(file)

    def _evidence(self, file: Tracked, descriptor: int) -> str:
        """Whose fault a wrong read is: what the mount and the server have now, and later, and what was done before."""
        told = [f"at {time.monotonic():.3f}"]
        for _ in range(2):
            for where, path in (("mount", self.place), ("server", self._trying.behind(self.place))):
                try:
                    data = (path / file.name).read_bytes() if path is not None else b""
                    told.append(f"{where} {len(data)} bytes {file.content.fault(data) or 'as they should be'}")
                except OSError as error:
                    told.append(f"{where} {error}")
            told.append(f"fstat {os.fstat(descriptor).st_size} bytes")
            time.sleep(LATER)
        return "; ".join([*told, "before that:", *file.done])

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
            descriptor = self._trying.once("open to rewrite", os.open, self.place / file.name, flags)
            if isinstance(descriptor, OSError):
                file.content.perhaps_truncated(0)
                if descriptor.errno not in LOST:
                    return
                self._trying.patience("open to rewrite", descriptor)
                continue
            file.content.truncated(0)
            file.note(f"open to rewrite with {len(data)}")
            done = self._trying.once("write", os.write, descriptor, data)
            count = 0 if isinstance(done, OSError) else done
            file.content.written(0, data[:count])
            file.content.perhaps_written(count, data[count:])
            if self._settle(file, "close", os.close, descriptor) and count == len(data):
                return

    def rename(self) -> None:
        """Give a file a new name, or another file's; open or not."""
        file = self._some_file()
        if file is None:
            return
        target = self._some_file() if self._chance.random() < 0.3 else None
        if target is file:
            return
        name = self._fresh("r") if target is None else target.name
        if target is not None:
            self._close(target)
        old = self.place / file.name
        self._trying.until_done("rename", os.rename, old, self.place / name, explained=(errno.ENOENT,))
        del self._files[file.name]
        file.note(f"rename from {file.name}, in place of {'nothing' if target is None else 'another'}")
        file.name = name
        self._files[name] = file

    def unlink(self) -> None:
        """Remove a file."""
        file = self._some_file()
        if file is None:
            return
        self._close(file)
        self._trying.until_done("unlink", os.unlink, self.place / file.name, explained=(errno.ENOENT,))
        del self._files[file.name]

    def truncate(self) -> None:
        """Cut a file or make it longer, by name or by descriptor."""
        file = self._some_file()
        if file is None:
            return
        size = self._chance.randrange(file.content.size + 5000)
        by_name = self._chance.random() < 0.5
        while True:
            descriptor = -1 if by_name else self._held(file)
            place: int | Path = self.place / file.name if by_name else descriptor
            if not by_name and descriptor < 0:
                return
            done = self._trying.once("truncate", os.truncate, place, size)
            file.note(f"truncate to {size} {'by name' if by_name else 'by descriptor'}: {done}")
            if not isinstance(done, OSError):
                file.content.truncated(size)
                return
            file.content.perhaps_truncated(size)
            if done.errno not in LOST:
                return
            self._lost(file)
            self._trying.patience("truncate", done)

    def sync(self) -> None:
        """fsync(2); its error says nothing of writes that are not gathered, which are at the server before it."""
        file = self._some_file()
        if file is None or (descriptor := self._held(file)) < 0:
            return
        if not self._settle(file, "fsync", os.fsync, descriptor):
            self._lost(file)

    def close_one(self) -> None:
        """Close one of the open files."""
        held = [file for file in self._files.values() if file.descriptor >= 0]
        if held:
            self._close(self._chance.choice(held))

    def make_or_remove_folder(self) -> None:
        """mkdir(2) of a new name, rmdir(2) of an old one."""
        if len(self._folders) < 4:
            name = self._fresh("d")
            self._trying.until_done("mkdir", os.mkdir, self.place / name, explained=(errno.EEXIST,))
            self._folders.add(name)
        else:
            name = self._chance.choice(sorted(self._folders))
            self._trying.until_done("rmdir", os.rmdir, self.place / name, explained=(errno.ENOENT,))
            self._folders.discard(name)

    def link(self) -> None:
        """A second name for a file, which is removed again."""
        file = self._some_file()
        if file is None:
            return
        name = self._fresh("l")
        linked = self.place / name
        self._trying.until_done("link", os.link, self.place / file.name, linked, explained=(errno.EEXIST,))
        self._trying.until_done("unlink", os.unlink, linked, explained=(errno.ENOENT,))

    def list(self) -> None:
        """The names of the directory must be those that are known."""
        told = self._trying.once("list", os.listdir, self.place)
        if not isinstance(told, OSError):
            self._compare_names(set(told), "through the mount")

    def stat(self) -> None:
        """A file's size."""
        file = self._some_file()
        if file is None:
            return
        told = self._trying.once("stat", os.stat, self.place / file.name)
        if not isinstance(told, OSError) and not any(low <= told.st_size <= high for low, high in file.content.sizes):
            self._trying.violation(f"stat of {file.name}: {told.st_size} bytes, it may have {file.content.sizes}")

    def _compare_names(self, told: set[str], where: str) -> None:
        """Every name once, no other."""
        known = set(self._files) | self._folders
        if lost := known - told - self._aside:
            self._trying.violation(f"names lost, {where}: {sorted(lost)[:5]}")
        more = {name for name in told - known - self._aside if not self._trying.is_aside(self.place / name)}
        if more:
            self._trying.violation(f"names too many, {where}: {sorted(more)[:5]}")

    def finish(self, behind: Path) -> None:
        """Close everything, and compare every name and byte: on the mount, and in the server's own directory."""
        for file in self._files.values():
            self._close(file)
        for place, where in ((self.place, "through the mount"), (behind / self.place.name, "at the server")):
            self._compare_names(set(os.listdir(place)), where)
            for file in self._files.values():
                if (place / file.name).exists() and (fault := file.content.fault((place / file.name).read_bytes())):
                    self._trying.violation(f"{file.name} {where}: {fault}")
