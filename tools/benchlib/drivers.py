"""tools/bench drivers: the two FUSE drivers side by side, on a filesystem that answers from memory.

What is measured is what a request costs on its way between the kernel and a verb, and nothing of SMB. Each driver
serves a filesystem of one directory in a process of its own; four processes call it as fast as they can. (Processes,
since four threads of Python would wait for each other.) How many requests that makes the filesystem counts itself, and
tells by statfs(2).
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType
from typing import Any, Final, NamedTuple, TypeAlias

import trio

from smb3fs.fuse.drivers import driver_named
from smb3fs.option_values import FUSE_DRIVERS
from smb3fs.vfs.attributes import Attr, Entry
from smb3fs.vfs.directories import DirEntry
from smb3fs.vfs.opening import OpenResult
from smb3fs.vfs.operations import StatFs

CALLERS: Final = 4
FILE_SIZE: Final = 1 << 30
LARGEST: Final = 1 << 20
LISTED: Final = 1000
# Seconds to a far server and back, and how many look for names there.
FAR: Final = 0.02
SEEKERS: Final = 8
# Inode numbers: the directory, a file that is answered at once, and one whose attributes take a task switch.
ROOT, QUICK, SLOW = 1, 2, 3
NAMES: Final = {b"quick": QUICK, b"slow": SLOW}


@dataclass(frozen=True)
class Options:
    """What a driver asks of mount options."""

    fsname: str = "bench"
    read_only: bool = False
    allow_other: bool = False
    noperm: bool = True
    kernel_flags: Sequence[str] = ("nosuid", "nodev")
    rasize: int = LARGEST


class Memory:
    """The verbs, from memory. The kernel is told to remember nothing, so every call comes here."""

    server_locks = False
    """Locks are the kernel's."""

    def __init__(self) -> None:
        self.requests = 0
        self._content = memoryview(bytes(LARGEST))

    def _entry(self, number: int) -> Entry:
        mode = 0o40755 if number == ROOT else 0o100644
        attr = Attr(number, mode, 1, 0, 0, FILE_SIZE, FILE_SIZE >> 9, LARGEST, 0, 0, 0, 0)
        return Entry(attr, 0.0, 0.0)

    def attach(self, *_: object) -> None:
        """There is nothing to tell the kernel."""

    def keeps_listing(self, fh: int) -> tuple[bool, bool]:
        """Have the kernel keep nothing of a directory."""
        return False, False

    def lookup(self, parent: int, name: bytes, process: int = 0) -> Entry | CoroutineType[Any, Any, Entry]:
        """Find a name, at once; or find after the time that a far server takes that it is not there."""
        self.requests += 1
        if name in NAMES:
            return self._entry(NAMES[name])
        return self._absent()

    async def _absent(self) -> Entry:
        await trio.sleep(FAR)
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def forget(self, pairs: object) -> None:
        """Nothing is counted."""

    def getattr(self, number: int, fh: int | None = None, thread: int = 0) -> Entry | CoroutineType[Any, Any, Entry]:
        """Tell attributes, at once or after a wait."""
        self.requests += 1
        return self._later(number) if number == SLOW else self._entry(number)

    async def _later(self, number: int) -> Entry:
        await trio.lowlevel.checkpoint()
        return self._entry(number)

    def access(self, number: int, mask: int) -> bool:
        """Let everybody in."""
        self.requests += 1
        return True

    def statfs(self) -> StatFs:
        """Tell the number of requests."""
        return StatFs(4096, 0, 0, 0, 255, files=self.requests)

    def open(self, number: int, flags: int) -> OpenResult:
        """Open past the page cache."""
        self.requests += 1
        return OpenResult(number, direct_io=True)

    def read(self, fh: int, offset: int, size: int) -> memoryview:
        """Read zeros."""
        self.requests += 1
        return self._content[:size]

    def write(self, fh: int, offset: int, data: Any, thread: int = 0) -> int:
        """Take whatever comes."""
        self.requests += 1
        return len(data)

    def flush(self, fh: int, owner: int | None = None, thread: int = 0) -> None:
        """Say once that there is no need to ask."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def release(self, fh: int) -> None:
        """Close."""
        self.requests += 1

    def opendir(self, number: int) -> int:
        """Open the directory."""
        self.requests += 1
        return number

    def releasedir(self, fh: int) -> None:
        """Close it."""
        self.requests += 1

    def readdir(self, fh: int, cookie: int) -> Iterator[DirEntry]:
        """List."""
        self.requests += 1
        for index in range(cookie, LISTED):
            yield DirEntry(
                b"entry-%05d" % index,
                self._entry(100 + index),
                index + 1,
                True,
                None,
                "",
                0,
                0,
                False,  # type: ignore[arg-type]
            )

    def remember(self, entry: DirEntry) -> None:
        """Nothing is counted."""


def serve(driver_name: str, target: str) -> None:
    """Serve until SIGTERM; for a process of its own."""
    driver = driver_named(driver_name)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal)
            await driver.serve(Memory(), target, Options(), lambda: print("ready", flush=True))  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()

    async def end_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                driver.terminate()

    trio.run(main)


# -- callers


def stat_quick(path: Path) -> Callable[[], object]:
    """fstat(2), answered at once."""
    descriptor = os.open(path / "quick", os.O_RDONLY)
    return lambda: os.fstat(descriptor)


def stat_slow(path: Path) -> Callable[[], object]:
    """fstat(2), answered after a wait."""
    descriptor = os.open(path / "slow", os.O_RDONLY)
    return lambda: os.fstat(descriptor)


def open_read_close(path: Path) -> Callable[[], object]:
    """Open, read 4 KiB, close."""
    name, buffer = path / "quick", [bytearray(4096)]

    def call() -> None:
        descriptor = os.open(name, os.O_RDONLY)
        os.preadv(descriptor, buffer, 0)
        os.close(descriptor)

    return call


def read(path: Path) -> Callable[[], object]:
    """Read 1 MiB."""
    descriptor, buffer = os.open(path / "quick", os.O_RDONLY), [bytearray(LARGEST)]
    return lambda: os.preadv(descriptor, buffer, 0)


def write(path: Path) -> Callable[[], object]:
    """Write 1 MiB."""
    descriptor, buffer = os.open(path / "quick", os.O_WRONLY), [bytes(LARGEST)]
    return lambda: os.pwritev(descriptor, buffer, 0)


def listing(path: Path) -> Callable[[], object]:
    """List 1000 entries with their attributes."""
    return lambda: os.listdir(path)


def look(path: Path) -> Callable[[], object]:
    """Look for names that nobody has looked for, all in one directory, on a far server."""
    numbers = itertools.count()
    return lambda: os.path.exists(path / f"{os.getpid()}-{next(numbers)}")


# Makes, in the process of a caller, what that is to call.
Preparation: TypeAlias = Callable[[Path], Callable[[], object]]

OPERATIONS: Final[dict[str, Preparation]] = {
    "fstat": stat_quick,
    "fstat, answered after a wait": stat_slow,
    "open, read 4 KiB, close": open_read_close,
    "read of 1 MiB": read,
    "write of 1 MiB": write,
    f"listing of {LISTED} entries": listing,
    f"lookup of a new name, {SEEKERS} callers, {FAR * 1000:.0f} ms away": look,
}


class Sample(NamedTuple):
    """Requests a second, and what each cost the driver's process in microseconds of processor time."""

    rate: float
    cost: float


class Server:
    """One driver's process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.path = folder / name
        self.path.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchlib.drivers", "serve", name, str(self.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the driver {name} did not start")

    def seconds(self) -> float:
        """Processor time of the process so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def requests(self) -> int:
        """How many requests it has answered."""
        return os.statvfs(self.path).f_files

    def measure(
        self, prepare: Callable[[Path], Callable[[], object]], seconds: float, callers: int = CALLERS
    ) -> Sample:
        """Have the callers call for a while."""
        go, done = time.monotonic() + 0.2, time.monotonic() + 0.2 + seconds
        children = []
        for _ in range(SEEKERS if prepare is look else callers):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    call = prepare(self.path)
                    time.sleep(max(0.0, go - time.monotonic()))
                    while time.monotonic() < done:
                        call()
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        time.sleep(max(0.0, go - time.monotonic()))
        requests, cpu, began = self.requests(), self.seconds(), time.monotonic()
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(statuses):
            raise RuntimeError(f"a caller of the driver {self.name} failed")
        requests, cpu, elapsed = self.requests() - requests, self.seconds() - cpu, time.monotonic() - began
        return Sample(requests / elapsed, cpu / requests * 1e6)

    def end(self) -> None:
        """Unmount and wait."""
        self.process.terminate()
        self.process.wait(20)


def main(arguments: Sequence[str]) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="tools/bench drivers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each operation, driver and round")
    given = parser.parse_args(arguments)
    samples: dict[tuple[str, str], list[Sample]] = {}
    with tempfile.TemporaryDirectory() as folder:
        servers = []
        try:
            servers += [Server(name, Path(folder)) for name in FUSE_DRIVERS]
            for _ in range(given.rounds):
                for operation, prepare in OPERATIONS.items():
                    for server in servers:
                        samples.setdefault((operation, server.name), []).append(server.measure(prepare, given.seconds))
        finally:
            for server in servers:
                server.end()
    print(f"| {CALLERS} callers | " + " | ".join(f"{name}: requests/s, us each" for name in FUSE_DRIVERS), "| ratio |")
    print("|---|" + "---|" * len(FUSE_DRIVERS) + "---|")
    for operation in OPERATIONS:
        middle = [
            Sample(*(statistics.median(values) for values in zip(*samples[operation, name], strict=True)))
            for name in FUSE_DRIVERS
        ]
        cells = [f"{one.rate:,.0f}, {one.cost:.1f}" for one in middle]
        ratio = f"{middle[0].rate / middle[1].rate:.2f} x rate, {middle[0].cost / middle[1].cost:.2f} x time"
        print(f"| {operation} | " + " | ".join(cells), f"| {ratio} |")
    return 0


if __name__ == "__main__":
    serve(*sys.argv[2:4])
