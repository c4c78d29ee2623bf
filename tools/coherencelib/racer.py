"""One of several who work on the same files at the same time, as a process: writes down what it did, and when.

racer.py DIRECTORY NUMBER SEED [maps]: works from the first line on its standard input to the second, then tells all as
JSON; with `maps` it also reads through mappings
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import random
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coherencelib.operations import PAGE, TOKEN, content

FILES: Final = ("r0", "r1")
BLOCKS: Final = 6
LOG: Final = "log"
NAMES: Final = "names"
MOVES: Final = "moves"
TOKENS: Final = 3
RECORD: Final = 7
# Numbers of one racer; all are told apart by who has written them.
OWN: Final = 100_000
PAUSE: Final = 0.003
# So many names a second are there to be made, so that all try for the same ones.
NAMES_A_SECOND: Final = 6.0
FLAGS: Final = (os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_DIRECT)


def lay_out(folder: Path) -> None:
    """Make what all work on."""
    for name in FILES:
        (folder / name).write_bytes(content(0, PAGE) * BLOCKS)
    (folder / LOG).touch()
    (folder / NAMES).mkdir()
    (folder / MOVES).mkdir()
    for token in range(TOKENS):
        (folder / MOVES / f"t{token}-").touch()


def numbers(data: bytes) -> list[int]:
    """Whose bytes a block is made of."""
    return sorted({int(found[1]) for found in TOKEN.finditer(data)})


class Racer:
    """Does one thing after the other, at random."""

    def __init__(self, root: Path, number: int, seed: str, *, maps: bool) -> None:
        self._root, self._mapping = root, maps
        self._chance = random.Random(seed)
        self._next = number * OWN
        self._at = ""
        """Which of several calls is under way, where that is worth telling."""
        self._held: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._begun = time.monotonic()
        self.events: list[list[Any]] = []
        self._what: dict[Callable[[], None], int] = {
            self._write: 26,
            self._read: 34,
            self._turn: 6,
            self._append: 8,
            self._read_log: 6,
            self._make: 10,
            self._remove: 8,
            self._look: 6,
            self._move: 8,
        }

    def step(self) -> None:
        """One thing."""
        self._chance.choices(list(self._what), list(self._what.values()))[0]()
        time.sleep(self._chance.expovariate(1 / PAUSE))

    def _did(self, what: str, key: str, value: Any, action: Callable[[], Any]) -> None:
        """Do it and write down what came of it; a value of None stands for what the action has found."""
        began, error, found = time.monotonic(), "", None
        try:
            found = action()
        except OSError as failure:
            error = errno.errorcode.get(failure.errno or 0, str(failure)) + (f" at {self._at}" if self._at else "")
        self._at = ""
        self.events.append([what, key, found if value is None else value, began, time.monotonic(), error])

    def _new(self) -> int:
        """A number that nobody has used."""
        self._next += 1
        return self._next

    # -- blocks

    def _place(self) -> tuple[str, int]:
        """A file and a block."""
        return self._chance.choice(FILES), self._chance.randrange(BLOCKS)

    def _turn(self) -> None:
        """Open or close a file that stays open for a while."""
        name = self._chance.choice(FILES)
        if name not in self._held:
            self._held[name] = os.open(self._root / name, self._chance.choice(FLAGS))
            return
        if name in self._maps:
            self._maps.pop(name).close()
        self._did("close", name, 0, lambda: os.close(self._held.pop(name)))

    def _on(self, name: str, action: Callable[[int], Any]) -> Any:
        """Do something to a file by what is open of it, or open it for that."""
        if name in self._held:
            return action(self._held[name])
        descriptor = os.open(self._root / name, os.O_RDWR)
        try:
            return action(descriptor)
        finally:
            os.close(descriptor)

    def _write(self) -> None:
        """A block, by a number of its own."""
        (name, block), number = self._place(), self._new()
        buffer = mmap.mmap(-1, PAGE)  # O_DIRECT is asked for in whole pages
        buffer.write(content(number, PAGE))

        def write(descriptor: int) -> None:
            if os.pwrite(descriptor, buffer, block * PAGE) != PAGE:
                raise OSError(errno.EIO, "a short write")

        self._did("write", f"{name} {block}", number, lambda: self._on(name, write))

    def _read(self) -> None:
        """A block, by read or through a mapping that lasts as long as the file is open."""
        name, block = self._place()

        def read(descriptor: int) -> list[int]:
            mapping = self._mapping and name in self._held and self._chance.random() < 0.3
            if not mapping or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                buffer = mmap.mmap(-1, PAGE)
                return numbers(buffer[: os.preadv(descriptor, [buffer], block * PAGE)])
            if name not in self._maps:
                self._maps[name] = mmap.mmap(descriptor, BLOCKS * PAGE, access=mmap.ACCESS_READ)
            return numbers(self._maps[name][block * PAGE : (block + 1) * PAGE])

        self._did("read", f"{name} {block}", None, lambda: self._on(name, read))

    # -- the log

    def _append(self) -> None:
        """A record at the end, which a lock keeps where it is."""
        number = self._new()

        def append() -> None:
            descriptor = os.open(self._root / LOG, os.O_WRONLY | os.O_APPEND)
            try:
                self._at = "lock"
                fcntl.lockf(descriptor, fcntl.LOCK_EX)
                self._at = "write"
                if os.write(descriptor, b"%06d\n" % number) != RECORD:
                    raise OSError(errno.EIO, "a short write")
                self._at = "unlock"
                fcntl.lockf(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

        self._did("append", LOG, number, append)

    def _read_log(self) -> None:
        """All of it, under a lock: on most servers what another has locked cannot be read."""

        def read() -> str:
            with (self._root / LOG).open("rb") as file:
                self._at = "lock"
                fcntl.lockf(file, fcntl.LOCK_SH)
                self._at = "read"
                return file.read().decode(errors="replace")

        self._did("log", LOG, None, read)

    # -- names

    def _name(self) -> str:
        """One that all try for about now."""
        at = int((time.monotonic() - self._begun) * NAMES_A_SECOND)
        return f"{NAMES}/n{max(0, at - self._chance.randrange(3))}"

    def _make(self) -> None:
        name = self._name()

        def make() -> None:
            os.close(os.open(self._root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))

        self._did("make", name, 0, make)

    def _remove(self) -> None:
        name = self._name()
        self._did("remove", name, 0, lambda: os.unlink(self._root / name))

    def _look(self) -> None:
        name = self._name()
        self._did("look", name, 0, lambda: os.stat(self._root / name) and None)

    def _move(self) -> None:
        """A token, from where it is seen to where it never was."""
        with suppress(OSError):
            if there := sorted(os.listdir(self._root / MOVES)):
                name = self._chance.choice(there)
                new = f"{name.partition('-')[0]}-{self._new()}"
                old, to = self._root / MOVES / name, self._root / MOVES / new
                self._did("move", name, new, lambda: os.rename(old, to))

    def end(self) -> None:
        """Close all; what is gathered has to arrive."""
        for name in list(self._held):
            if name in self._maps:
                self._maps.pop(name).close()
            self._did("close", name, 0, lambda name=name: os.close(self._held.pop(name)))  # type: ignore[misc]


def main() -> None:
    """Work from one line to the next."""
    root, number, seed, *more = sys.argv[1:]
    racer = Racer(Path(root), int(number), seed, maps="maps" in more)
    sys.stdin.buffer.raw.read(1)  # type: ignore[attr-defined]
    while not select.select([sys.stdin], [], [], 0)[0]:
        racer.step()
    racer.end()
    print(json.dumps(racer.events), flush=True)


if __name__ == "__main__":
    main()
