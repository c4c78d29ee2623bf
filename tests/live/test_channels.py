"""Several connections for one mount, over several links: all are used, and none of them is missed when it breaks."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import Mount, wait_until
from lab.network import Link, Network
from lab.server import Samba

from .conftest import Mounter

MIB = 1 << 20
GIGABIT = 1_000_000_000
SIZE = 64 * MIB
WRITERS = 4
ROUNDS = 5


@pytest.fixture(scope="module")
def wide() -> Iterator[Samba]:
    """A server with two links of one speed."""
    with Samba(speeds=(GIGABIT, GIGABIT)) as server:
        yield server


def links(server: Samba) -> list[Link | Network]:
    """All links to a server, that of the first connection first."""
    return [server.network, *server.network.links]


def channels(mount: Mount) -> list[dict[str, Any]]:
    """What the status says of the mount's connections."""
    told: list[dict[str, Any]] = mount.status()["channels"]
    return told


def has(mount: Mount, count: int) -> bool:
    """Whether the mount comes to have so many connections."""
    return wait_until(lambda: len(channels(mount)) == count, 60)


def fill(path: Path, seed: int, size: int = SIZE // WRITERS) -> str:
    """Write a file that no other is alike, and return the digest of what is in it."""
    block, digest = os.urandom(MIB - 8), hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for number in range(size // MIB):
            part = seed.to_bytes(4, "big") + number.to_bytes(4, "big") + block
            assert file.write(part) == MIB
            digest.update(part)
        os.fsync(file.fileno())
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while part := file.read(MIB):
            digest.update(part)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "options",
    [
        ("multichannel",),
        ("max_channels=2", "seal"),
        ("max_channels=4", "vers=3.0"),
        ("max_channels=2", "vers=3.0.2", "seal"),
    ],
    ids=["signed", "sealed", "3.0", "3.0.2 sealed"],
)
def test_data_go_over_all_links(wide: Samba, mounted: Mounter, options: tuple[str, ...]) -> None:
    mount = mounted(*options, "cache=none", server=wide)
    assert has(mount, 4 if "max_channels=4" in options else 2)
    before = [wide.network.carried(link) for link in links(wide)]
    with ThreadPoolExecutor(WRITERS) as pool:
        files = [mount.path / f"spread-{number}" for number in range(WRITERS)]
        # A machine that is busy otherwise may have one request under way at a time, which one link is enough for.
        for _ in range(ROUNDS):
            written = list(pool.map(fill, files, range(WRITERS)))
            # What the server has, without the mount.
            assert [digest_of(wide.directory() / file.name) for file in files] == written
            assert list(pool.map(digest_of, files)) == written
            after = [wide.network.carried(link) for link in links(wide)]
            shares = [later[end] - earlier[end] for earlier, later in zip(before, after, strict=True) for end in (0, 1)]
            if min(shares) > SIZE / 8:
                break
    assert min(shares) > SIZE / 8, f"this and the other end of each link received {shares} bytes"
    assert all(channel["state"] == "in use" and channel["bytes"] > 0 for channel in channels(mount))
    assert mount.status()["last_errors"] == []
    for file in files:
        file.unlink()


def test_only_the_fastest_links_are_used(mounted: Mounter) -> None:
    with Samba(speeds=(GIGABIT // 10, GIGABIT, GIGABIT)) as server:
        mount = mounted("max_channels=4", server=server)
        assert has(mount, 4)
        assert wait_until(lambda: [channel["state"] for channel in channels(mount)].count("standby") == 1, 10)
        slow, *_ = links(server)
        before = server.network.carried(slow)
        assert fill(mount.path / "f", 1) == digest_of(server.directory() / "f")
        after = server.network.carried(slow)
        assert max(after[end] - before[end] for end in (0, 1)) < MIB
        mounted.finish()


def test_a_server_without_it_has_one_connection_and_nothing_is_said(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings("server multi channel support = no"):
        mount = mounted("max_channels=4", server=own_samba)
        (mount.path / "f").write_bytes(b"1")
        assert len(channels(mount)) == 1
        assert mount.status()["last_errors"] == []
        mounted.finish()


def test_an_address_that_cannot_be_reached_is_in_nobodys_way(wide: Samba, mounted: Mounter) -> None:
    wide.network.break_path(wide.network.links[0], "drop")
    try:
        mount = mounted("multichannel", server=wide)
        (mount.path / "f").write_bytes(b"1")
        assert wait_until(lambda: "no channel" in str(mount.status()["last_errors"]), 30)
        assert len(channels(mount)) == 1
    finally:
        wide.network.mend_path()
    assert wait_until(lambda: len(channels(mount)) == 2, 60)


@pytest.mark.parametrize("which", [0, 1], ids=["first link", "second link"])
@pytest.mark.parametrize("verdict", ["drop", "reject with tcp reset"], ids=["silence", "reset"])
def test_a_link_that_breaks_costs_no_error_and_comes_back(
    wide: Samba, mounted: Mounter, which: int, verdict: str
) -> None:
    mount = mounted("multichannel", "cache=none", server=wide)
    assert has(mount, 2)
    (mount.path / "big").write_bytes(data := os.urandom(16 * MIB))
    done, rounds = threading.Event(), []

    def read() -> None:
        with (mount.path / "big").open("rb", buffering=0) as file:
            while not done.is_set():
                parts = [os.pread(file.fileno(), MIB, offset) for offset in range(0, len(data), MIB)]
                rounds.append(b"".join(parts) == data)

    def write(number: int) -> None:
        path = mount.path / f"broken-{number}"
        with path.open("w+b", buffering=0) as file:
            while not done.is_set():
                written = [os.urandom(8) * (MIB // 8) for _ in range(4)]
                for index, part in enumerate(written):
                    assert os.pwrite(file.fileno(), part, index * MIB) == MIB
                os.fsync(file.fileno())
                assert digest_of(wide.directory() / path.name) == hashlib.sha256(b"".join(written)).hexdigest()

    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(read), *(pool.submit(write, number) for number in range(2))]
        try:
            assert wait_until(lambda: len(rounds) > 1, 60)
            wide.network.break_path(links(wide)[which], verdict)
            try:
                assert has(mount, 1)
                seen = len(rounds)
                assert wait_until(lambda: len(rounds) > seen + 1, 60)
            finally:
                wide.network.mend_path()
            assert has(mount, 2)
            seen = len(rounds)
            assert wait_until(lambda: len(rounds) > seen + 1, 60)
        finally:
            done.set()
        for task in tasks:
            task.result(60)
    assert all(rounds)
    status = mount.status()
    # It was no loss of the session: nothing was claimed, or opened again.
    assert (status["reconnects"], status["recovery"]["generation"]) == (0, 1)
    texts = [event["text"] for event in status["events"]]
    assert any("lost" in text and "1 of the session remain" in text for text in texts)
    assert any("is back" in text for text in texts)


def test_when_all_links_break_the_mount_recovers_and_spreads_again(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "timeout=6", server=wide)
    assert has(mount, 2)
    with (mount.path / "held").open("wb") as file:
        file.write(b"before")
        file.flush()
        wide.kill()
        assert wait_until(lambda: mount.status()["state"] != "connected", 30)
        wide.start()
        assert wait_until(lambda: mount.status()["state"] == "connected", 30)
    assert has(mount, 2)
    assert mount.status()["recovery"]["generation"] > 1
    (mount.path / "after").write_bytes(b"after")
    assert (wide.directory() / "after").read_bytes() == b"after"


def test_a_lease_is_given_back_whichever_channel_the_break_comes_on(wide: Samba, mounted: Mounter) -> None:
    ours, theirs = mounted("multichannel", server=wide), mounted("max_channels=2", server=wide)
    assert has(ours, 2)
    assert has(theirs, 2)
    for number in range(10):
        for writer, reader in ((ours, theirs), (theirs, ours)):
            (reader.path / "shared").write_text("before")
            with (reader.path / "shared").open() as held:
                assert held.read() == "before"
                text = f"{number} of {writer.path.name}"
                (writer.path / "shared").write_text(text)
                held.seek(0)
                assert held.read() == text
    assert min(sum(mount.status()["breaks"].values()) for mount in (ours, theirs)) >= 10


def test_where_there_can_be_no_more_than_one_it_is_said(samba: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "vers=2.1", server=samba)
    assert wait_until(
        lambda: any(event["text"].startswith("one connection: ") for event in mount.status()["events"]), 10
    )
    assert len(channels(mount)) == 1
    assert (mount.path / "alone").write_bytes(b"one") == 3
    assert (mount.path / "alone").read_bytes() == b"one"
