"""Files that are read in order are fetched ahead, on real servers: how many requests, and that nothing old is shown."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount, mount_point_type, wait_until
from lab.server import Samba

from .conftest import Mounter, native_only

MIB = 1 << 20
SIZE = 24 * MIB
# What a mount by an ordinary user has of the kernel's own read-ahead.
KERNELS = 128


@pytest.fixture(params=["own_samba", "later_samba"])
def server(request: pytest.FixtureRequest) -> Samba:
    """Either server."""
    found: Samba = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(server: Samba, mounted: Mounter) -> Iterator[Callable[..., Mount]]:
    """Mounts of that server, with the kernel's read-ahead as an ordinary user has it."""

    def make(*options: str) -> Mount:
        mount = mounted(*options, server=server)
        assert mount_point_type(mount.path)
        device = os.stat(mount.path).st_dev
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(f"{KERNELS}\n")
        return mount

    yield make
    mounted.finish()


def block(number: int, turn: int = 0) -> bytes:
    """A megabyte that is like no other."""
    return random.Random(number * 1000 + turn).randbytes(64 << 10) * 16


def make(mount: Mount, name: str) -> Path:
    """A large file."""
    with (mount.path / name).open("wb") as file:
        for number in range(SIZE // MIB):
            file.write(block(number))
    return mount.path / name


@native_only
@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_file_is_fetched_by_few_large_requests(place: Callable[..., Mount], mode: str) -> None:
    here, there = place(), place()
    make(there, "large")
    before = here.status()["requests"].get("READ", 0)
    with (here.path / "large").open(mode, buffering=0) as file:
        for number in range(SIZE // MIB):
            assert file.read(MIB) == block(number)
    status = here.status()
    # Of the kernel's 128 KiB it would be 192.
    assert status["requests"]["READ"] - before < 60
    assert status["read_ahead"]["used"] > SIZE - 2 * MIB
    assert status["read_ahead"]["wasted"] == 0
    assert wait_until(lambda: here.status()["read_ahead"]["held"] == 0, 30)


@pytest.mark.parametrize("options", [(), ("nolease",), ("rasize=0",), ("cache=none",)])
def test_nothing_is_fetched_that_nobody_asks_for(place: Callable[..., Mount], options: tuple[str, ...]) -> None:
    here, there = place(*options), place()
    path = here.path / "large"
    make(there, "large")
    dice = random.Random(7)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Here and there; or, where nothing may be kept, also in order.
        for step in range(60):
            number = step % (SIZE // MIB) if options else dice.choice(range(0, SIZE // MIB, 2))
            assert os.pread(descriptor, 4096, number * MIB + 8192) == block(number)[8192 : 8192 + 4096]
        if options:
            for number in range(SIZE // MIB):
                assert os.pread(descriptor, MIB, number * MIB) == block(number)
    finally:
        os.close(descriptor)
    assert here.status()["read_ahead"] == {"used": 0, "wasted": 0, "held": 0}


@native_only
def test_what_another_client_writes_ahead_of_us_is_what_we_read(place: Callable[..., Mount]) -> None:
    here, there = place(), place()
    theirs = make(there, "large")
    for turn in range(1, 5):
        with (here.path / "large").open("rb", buffering=0) as file:
            for number in range(6):
                assert file.read(MIB) == block(number)
            assert here.status()["leases"] == {"RH": 1}
            assert here.status()["read_ahead"]["held"] > 0
            breaks = sum(here.status()["breaks"].values())
            with theirs.open("r+b", buffering=0) as writer:
                for number in range(6, 14):
                    os.pwrite(writer.fileno(), block(number, turn), number * MIB)
            # The server does not wait for us when it takes R back, so we may hear of it a moment late.
            assert wait_until(lambda before=breaks: sum(here.status()["breaks"].values()) > before, 30)  # type: ignore[misc]
            assert wait_until(lambda: here.status()["read_ahead"]["held"] == 0, 30)
            for number in range(6, SIZE // MIB):
                assert file.read(MIB) == block(number, turn if number < 14 else 0), (turn, number)


def test_what_we_write_or_cut_off_ourselves_is_what_we_read(place: Callable[..., Mount]) -> None:
    here, there = place(), place()
    make(there, "large")
    path = here.path / "large"
    with path.open("rb", buffering=0) as file:
        for number in range(8):
            assert file.read(MIB) == block(number)
        with path.open("r+b", buffering=0) as own:
            own.seek(8 * MIB)
            own.write(block(8, 1))
        assert file.read(MIB) == block(8, 1)
        for number in range(9, 12):
            assert file.read(MIB) == block(number)
        os.truncate(path, 12 * MIB + 100)
        assert file.read(MIB) == block(12)[:100]
        assert file.read(MIB) == b""


def test_who_writes_what_he_is_about_to_read_reads_it(place: Callable[..., Mount], server: Samba) -> None:
    """By one descriptor, whose writes are gathered and whose reads are read ahead."""
    here, there = place(), place()
    behind = server.directory() / make(there, "large").name
    expected = bytearray(behind.read_bytes())
    dice = random.Random(9)
    with (here.path / "large").open("r+b", buffering=0) as file:
        for number in range(SIZE // MIB):
            assert os.pread(file.fileno(), MIB, number * MIB) == expected[number * MIB : (number + 1) * MIB]
            if number % 5 == 4:
                at, piece = (
                    dice.randrange(number * MIB, SIZE - 200_000),
                    dice.randbytes(dice.choice((10, 5000, 150_000))),
                )
                os.pwrite(file.fileno(), piece, at)
                expected[at : at + len(piece)] = piece
        assert here.status()["writes"]["gathered"] > 0
    assert behind.read_bytes() == expected


def test_a_session_that_is_killed_amid_a_stream(place: Callable[..., Mount], server: Samba) -> None:
    here, there = place(), place()
    make(there, "large")
    with (here.path / "large").open("rb", buffering=0) as file:
        for number in range(SIZE // MIB):
            if number in (6, 15):
                before = here.status()["recovery"]["generation"]
                for process in server.session_processes():
                    os.kill(process, signal.SIGKILL)
                assert wait_until(lambda before=before: here.status()["recovery"]["generation"] > before, 60)  # type: ignore[misc]
            assert file.read(MIB) == block(number), number
    assert here.status()["read_ahead"]["used"] > 4 * MIB
    assert wait_until(lambda: here.status()["read_ahead"]["held"] == 0, 30)
