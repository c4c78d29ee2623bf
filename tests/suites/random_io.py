"""A file under random reads and writes, beside an array of bytes that says what must be in it."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

PAGE: Final = 4096
LARGEST: Final = 700_000


class Mismatch(AssertionError):  # noqa: N818 (it is the finding)
    """The file is not what the model says; the text tells how to see it again."""


class RandomFile:
    """One file, several descriptors of it, its model, and the history of what was done."""

    def __init__(
        self, path: Path, behind: Path, seed: int, flags: tuple[int, ...], *, mapped: bool, gathered: bool = False
    ) -> None:
        """`flags` are the descriptors' own, of which one is drawn for each; `mapped`: whether mmap is to be used.

        `gathered`: whether what is written need not be on the server's disk before fsync(2) or close(2).
        """
        self.path, self.behind, self.seed = path, behind, seed
        self.chance = random.Random(seed)
        self.flags = flags
        self.gathered = gathered
        self.model = bytearray()
        self.history: list[str] = []
        self.descriptors = [self.open(os.O_CREAT), self.open()]
        self.actions: list[tuple[float, Callable[[], None]]] = [
            (10, self.write),
            (10, self.read),
            (3, self.truncate),
            (1, self.truncate_by_path),
            (2, self.append),
            (2, self.reopen),
            (1, self.sync),
            (1, self.forget_pages),
            (1, self.size),
            (1, self.copy_range),
            (1, self.rewrite),
            (1, self.look_behind),
        ]
        if mapped:
            self.actions += [(3, self.write_mapped), (3, self.read_mapped)]

    def open(self, more: int = 0) -> int:
        """Open with flags of which one is drawn."""
        return os.open(self.path, os.O_RDWR | more | self.chance.choice(self.flags), 0o644)

    def close(self) -> None:
        """Close every descriptor."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def run(self, steps: int) -> None:
        """Do so many things; a failure tells the seed and what came before."""
        weights, actions = zip(*self.actions, strict=True)
        try:
            for _ in range(steps):
                self.chance.choices(actions, weights)[0]()
            self.close()
            self.history.append("read it all after the last close")
            self.compare(0, self.path.read_bytes(), len(self.model) + 1)
            self.look_behind()
        except (AssertionError, OSError) as error:
            lines = "\n  ".join(self.history[-25:])
            raise Mismatch(f"SMB3FS_SEED={self.seed}, step {len(self.history)}: {error!r} after\n  {lines}") from error
        finally:
            with suppress(OSError):
                self.close()

    # -- what is drawn

    def drawn(self, limit: int) -> int:
        """A number up to `limit`, near the edge of a page rather often."""
        number = self.chance.randint(0, limit)
        if self.chance.random() < 0.4:
            number = number // PAGE * PAGE + self.chance.choice([-1, 0, 1])
        return max(0, min(number, limit))

    def descriptor(self) -> int:
        """One of the descriptors."""
        return self.chance.choice(self.descriptors)

    def length(self) -> int:
        """How much to read or write: mostly little."""
        return self.chance.choice([1, 7, 100, 512, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 20_000, 70_000, 150_000])

    # -- the model

    def put(self, offset: int, data: bytes) -> None:
        """Write into the model."""
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        """Truncate the model."""
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def compare(self, offset: int, found: bytes, size: int) -> None:
        """Compare what was read of `size` bytes from an offset."""
        expected = bytes(self.model[offset : offset + size])
        if found != expected:
            pairs = enumerate(zip(found, expected, strict=False))
            first = next((at for at, (one, other) in pairs if one != other), min(len(found), len(expected)))
            raise AssertionError(
                f"{len(found)} bytes instead of {len(expected)} at {offset}, other from {offset + first} on: "
                f"{found[first : first + 16]!r} instead of {expected[first : first + 16]!r}"
            )

    # -- what is done

    def write(self) -> None:
        """pwrite(2)."""
        offset, data, descriptor = self.drawn(LARGEST), self.chance.randbytes(self.length()), self.descriptor()
        self.history.append(f"write {len(data)} at {offset} through {descriptor}")
        assert os.pwrite(descriptor, data, offset) == len(data)
        self.put(offset, data)

    def read(self) -> None:
        """pread(2)."""
        offset, size, descriptor = self.drawn(len(self.model) + PAGE), self.length(), self.descriptor()
        self.history.append(f"read {size} at {offset} through {descriptor}")
        self.compare(offset, os.pread(descriptor, size, offset), size)

    def truncate(self) -> None:
        """ftruncate(2)."""
        size, descriptor = self.drawn(min(LARGEST, len(self.model) + 50_000)), self.descriptor()
        self.history.append(f"ftruncate to {size} through {descriptor}, from {len(self.model)}")
        os.ftruncate(descriptor, size)
        self.resize(size)

    def truncate_by_path(self) -> None:
        """truncate(2)."""
        size = self.drawn(len(self.model) + PAGE)
        self.history.append(f"truncate to {size}, from {len(self.model)}")
        os.truncate(self.path, size)
        self.resize(size)

    def append(self) -> None:
        """Through a descriptor of its own with O_APPEND, which only writes."""
        data = self.chance.randbytes(self.length())
        self.history.append(f"append {len(data)} at {len(self.model)}")
        number = os.open(self.path, self.chance.choice([os.O_WRONLY, os.O_RDWR]) | os.O_APPEND)
        try:
            assert os.write(number, data) == len(data)
        finally:
            os.close(number)
        self.put(len(self.model), data)

    def reopen(self) -> None:
        """Close one descriptor and open another."""
        place = self.chance.randrange(len(self.descriptors))
        old = self.descriptors[place]
        os.close(old)
        self.descriptors[place] = self.open()
        self.history.append(f"closed {old}, opened {self.descriptors[place]}")

    def sync(self) -> None:
        """fsync(2)."""
        self.history.append("fsync")
        os.fsync(self.descriptor())

    def forget_pages(self) -> None:
        """Have the kernel drop what it has cached."""
        self.history.append("drop the pages")
        os.posix_fadvise(self.descriptor(), 0, 0, os.POSIX_FADV_DONTNEED)

    def size(self) -> None:
        """fstat(2) and stat(2)."""
        self.history.append("stat")
        assert os.fstat(self.descriptor()).st_size == self.path.stat().st_size == len(self.model)

    def copy_range(self) -> None:
        """copy_file_range(2) from before a point to behind it."""
        half = len(self.model) // 2
        source, size = self.drawn(half), min(self.length(), half)
        target = self.drawn(LARGEST)
        size = min(size, max(0, target - source))  # it refuses ranges that overlap
        first, second = self.descriptors
        self.history.append(f"copy {size} from {source} to {target}")
        if size:
            copied = os.copy_file_range(first, second, size, source, target)
            assert 0 < copied <= size
            self.put(target, bytes(self.model[source : source + copied]))

    def rewrite(self) -> None:
        """Open with O_TRUNC and write, as a program that saves does."""
        if self.chance.random() < 0.2:
            data = self.chance.randbytes(self.length())
            self.history.append(f"rewrite with {len(data)}")
            self.path.write_bytes(data)
            self.model[:] = data

    def look_behind(self) -> None:
        """What the server's own disk has; unless this side gathers, nothing has to be synchronised, or after close."""
        self.history.append("look at the server's file")
        if self.gathered and self.descriptors:
            os.fsync(self.descriptor())
        self.compare(0, self.behind.read_bytes(), len(self.model) + 1)

    def map(self) -> mmap.mmap:
        """mmap(2) of the whole file, shared."""
        return mmap.mmap(self.descriptor(), len(self.model))

    def write_mapped(self) -> None:
        """Write through a mapping and flush it."""
        if self.model:
            offset = self.chance.randrange(len(self.model))
            data = self.chance.randbytes(min(self.length(), len(self.model) - offset))
            self.history.append(f"write {len(data)} at {offset} mapped")
            with self.map() as mapped:
                mapped[offset : offset + len(data)] = data
                mapped.flush()
            self.put(offset, data)

    def read_mapped(self) -> None:
        """Read through a mapping."""
        if self.model:
            offset, size = self.drawn(len(self.model) - 1), self.length()
            self.history.append(f"read {size} at {offset} mapped")
            with self.map() as mapped:
                self.compare(offset, mapped[offset : offset + size], size)
