"""Several connections for one mount, over several links: all are used, and none of them is missed when it breaks."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faultlib.proxy import PORT, Proxy, Way
from lab.commands import run
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


def grown(mount: Mount, count: int) -> list[dict[str, Any]]:
    """Wait until the mount has so many connections; return the errors until then.

    There may be some on a busy machine: each attempt has five seconds, whatever keeps the server from answering, and
    the next one succeeds. Once the connections are there, nothing is to fail any more.
    """
    assert has(mount, count)
    errors: list[dict[str, Any]] = mount.status()["last_errors"]
    assert all(one["text"].startswith("no channel from ") and one["text"].endswith("timed out") for one in errors)
    return errors


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
    errors = grown(mount, 4 if "max_channels=4" in options else 2)
    # The signature that costs least, where there is a choice: each channel is bound under message ids of its own.
    chosen = "AES_CMAC" if "vers=3.0" in options else "AES_GMAC"
    assert mount.status()["signing"] == (None if "seal" in options else chosen)
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
    assert mount.status()["last_errors"] == errors
    for file in files:
        file.unlink()


def test_without_any_option_each_link_has_one_connection(wide: Samba, mounted: Mounter) -> None:
    mount, single = mounted("cache=none", server=wide), mounted("nomultichannel", server=wide)
    errors = grown(mount, 2)
    files = [mount.path / f"by-default-{number}" for number in range(WRITERS)]

    def write() -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            written = list(pool.map(fill, files, range(WRITERS)))
        assert [digest_of(wide.directory() / file.name) for file in files] == written

    # What a machine that is busy otherwise does one after the other one link is enough for.
    assert any(min(moved(wide, write)) > SIZE / 8 for _ in range(ROUNDS))
    assert mount.status()["last_errors"] == errors
    # What the server offers is asked for once at the mount, and by nobody who has been told not to.
    assert mount.status()["requests"]["IOCTL"] == 1
    assert "IOCTL" not in single.status()["requests"]
    assert len(channels(single)) == 1
    for file in files:
        file.unlink()


def test_where_there_is_one_link_there_is_one_connection_and_one_login(samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=samba)
    assert wait_until(lambda: mount.status()["requests"].get("IOCTL") == 1, 10)
    (mount.path / "one").write_bytes(b"one")
    assert (len(channels(mount)), mount.status()["requests"]["SESSION_SETUP"]) == (1, 2)
    assert mount.status()["requests"].get("ECHO", 0) == 0
    assert mount.status()["last_errors"] == []


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


def states(mount: Mount) -> list[str]:
    """Which of the mount's connections are used, and which stand by."""
    return sorted(channel.get("state", "alone") for channel in channels(mount))


def moved(server: Samba, work: Callable[[], object]) -> list[int]:
    """How many bytes each link carried at most in a direction while something was done."""
    before = [server.network.carried(link) for link in links(server)]
    work()
    after = [server.network.carried(link) for link in links(server)]
    return [max(later[end] - earlier[end] for end in (0, 1)) for earlier, later in zip(before, after, strict=True)]


def test_the_slower_link_takes_over_when_the_faster_one_fails_and_gives_way_when_it_is_back(mounted: Mounter) -> None:
    with Samba(speeds=(GIGABIT // 10, GIGABIT)) as server:
        mount = mounted("multichannel", server=server)
        _, fast = links(server)

        def write() -> None:
            assert fill(mount.path / "f", 1) == digest_of(server.directory() / "f")

        assert wait_until(lambda: states(mount) == ["in use", "standby"], 60)
        assert moved(server, write)[0] < MIB
        server.network.break_path(fast, "drop")
        try:
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(write).result(60) is None
            assert has(mount, 1)
            assert moved(server, write)[0] > SIZE / WRITERS / 2
        finally:
            server.network.mend_path(fast)
        assert wait_until(lambda: states(mount) == ["in use", "standby"], 60)
        assert moved(server, write)[0] < MIB
        assert (mount.status()["reconnects"], mount.status()["recovery"]["generation"]) == (0, 1)
        mounted.finish()


def test_links_of_different_speed_carry_data_together_where_that_is_asked_for(mounted: Mounter) -> None:
    with Samba(speeds=(GIGABIT // 10, GIGABIT * 3 // 10)) as server:
        mount = mounted("multichannel,mixlinks", "cache=none", server=server)
        assert wait_until(lambda: states(mount) == ["in use", "in use"], 60)

        def write() -> None:
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(fill, [mount.path / f"mixed-{number}" for number in range(WRITERS)], range(WRITERS)))

        shares = [0, 0]
        for _ in range(ROUNDS):
            shares = [sum(both) for both in zip(shares, moved(server, write), strict=True)]
            if min(shares) > SIZE / 8:
                break
        assert min(shares) > SIZE / 8
        mounted.finish()


def test_a_link_that_becomes_slow_attracts_little(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", server=wide)
    errors = grown(mount, 2)
    wide.put("long", os.urandom(SIZE))
    lame = wide.network.links[0]

    def read() -> None:
        assert digest_of(mount.path / "long") == digest_of(wide.directory() / "long")

    wide.network.shape(lame, "4mbit")
    try:
        # Of so slow a link nobody knows before something was sent there: a small piece now and then.
        assert moved(wide, read)[1] < SIZE / 16
    finally:
        wide.network.unshape(lame)
    assert mount.status()["last_errors"] == errors


@pytest.mark.parametrize(
    "options", ["exclude_interfaces={0}", "interfaces={1}", "interfaces={1}:nothing*,max_channels=4"]
)
def test_interfaces_that_are_not_to_be_used_are_left(wide: Samba, mounted: Mounter, options: str) -> None:
    names = [link.near for link in links(wide)]
    mount = mounted("multichannel", options.format(*names), server=wide)
    other = wide.network.links[0].server_address
    # The first connection goes where the mount's address leads to, and ends when there is another one.
    assert wait_until(
        lambda: {row["connection"].split()[-1].partition(":")[0] for row in channels(mount)} == {other}, 60
    )
    assert moved(wide, lambda: fill(mount.path / "listed", 3))[0] < MIB
    assert mount.status()["recovery"]["generation"] == 1


def test_all_connections_come_from_the_address_that_is_asked_for(wide: Samba, mounted: Mounter) -> None:
    address = wide.network.client_address
    mount = mounted("max_channels=3", f"srcaddr={address}", server=wide)
    assert has(mount, 3)
    assert {row["connection"].partition(":")[0] for row in channels(mount)} == {address}
    assert fill(mount.path / "from", 4) == digest_of(wide.directory() / "from")


def test_a_link_that_is_taken_down_here_is_left_at_once_and_used_again(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", server=wide)
    assert has(mount, 2)
    link = wide.network.links[0]
    run("ip", "link", "set", link.near, "down")
    try:
        assert has(mount, 1)
        assert any("end of its link is down" in event["text"] for event in mount.status()["events"])
        assert fill(mount.path / "down", 5) == digest_of(wide.directory() / "down")
    finally:
        run("ip", "link", "set", link.near, "up")
    assert has(mount, 2)
    assert mount.status()["recovery"]["generation"] == 1


def test_what_is_opened_and_written_when_a_link_breaks_costs_no_session(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", server=wide)
    assert has(mount, 2)
    names = [f"small-{number}" for number in range(50)]
    for name in names:
        wide.put(name, name.encode())
    done, rounds, written = threading.Event(), [0, 0], [0]

    def read(number: int) -> None:
        while not done.is_set():
            assert [(mount.path / name).read_bytes() for name in names] == [name.encode() for name in names]
            for name in names:  # what was cached is opened again
                os.utime(wide.directory() / name)
            rounds[number] += 1

    def write() -> None:
        # A share that keeps nothing open after a loss: with the session this open would be lost.
        with (mount.path / "steady").open("wb", buffering=0) as file:
            while not done.is_set():
                assert file.write(b"line\n") == 5
                written[0] += 1

    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(read, 0), pool.submit(read, 1), pool.submit(write)]
        try:
            for link in links(wide):
                wide.network.break_path(link, "drop")
                try:
                    assert has(mount, 1)
                finally:
                    wide.network.mend_path(link)
                seen = [*rounds, *written]
                assert wait_until(
                    lambda seen=seen: all(n > m for n, m in zip([*rounds, *written], seen, strict=True)), 60
                )
                assert has(mount, 2)
        finally:
            done.set()
        for task in tasks:
            task.result(60)
    assert (wide.directory() / "steady").read_bytes() == b"line\n" * written[0]
    assert (mount.status()["reconnects"], mount.status()["recovery"]["generation"]) == (0, 1)


def test_links_that_fail_in_silence_come_back_one_by_one(mounted: Mounter) -> None:
    with Samba(speeds=(GIGABIT,) * 4) as server:
        mount = mounted("max_channels=4", server=server)
        assert has(mount, 4)
        done, rounds = threading.Event(), []

        def write() -> None:
            while not done.is_set():
                rounds.append(fill(mount.path / "f", len(rounds), 2 * MIB) == digest_of(server.directory() / "f"))

        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(write)
            try:
                for link in links(server)[:3]:
                    server.network.break_path(link, "drop")
                assert has(mount, 1)
                for count, link in enumerate(links(server)[:3], 2):
                    server.network.mend_path(link)
                    assert has(mount, count)
                seen = len(rounds)
                assert wait_until(lambda: len(rounds) > seen + 1, 60)
            finally:
                done.set()
            task.result(60)
        assert all(rounds)
        assert mount.status()["recovery"]["generation"] == 1
        mounted.finish()


def test_the_server_keeps_nothing_of_a_connection_whose_reset_was_lost(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "cache=none", server=wide)
    assert has(mount, 2)

    def believed() -> int:
        """How many connections the server believes in."""
        return len(wide.network.inside("ss", "-Htn", "state", "established", "( sport = :445 )").splitlines())

    before = believed()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            fill(mount.path / "f", 0, 2 * MIB)

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(write)
        try:
            for _ in range(2):
                wide.network.break_path(wide.network.links[0], "drop")
                try:
                    assert has(mount, 1)
                    # The reset is lost, and the server has nothing to say by which it would find out.
                    assert believed() == before
                finally:
                    wide.network.mend_path(wide.network.links[0])
                assert has(mount, 2)
                assert wait_until(lambda: believed() == before, 20)
        finally:
            done.set()
        task.result(60)
    (mount.path / "f").unlink()


def test_a_new_session_is_made_by_any_link_that_has_carried_the_one_before(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "timeout=20", server=wide)
    assert has(mount, 2)
    told, other = links(wide)
    wide.network.break_path(told, "drop")
    try:
        assert has(mount, 1)
        with ThreadPoolExecutor(1) as pool:
            wide.network.break_path(other, "reject with tcp reset")
            try:
                task = pool.submit((mount.path / "asked").exists)
                assert wait_until(lambda: mount.status()["state"] == "reconnecting", 60)
            finally:
                wide.network.mend_path(other)
            # The address that the mount was told is still out of reach.
            task.result(60)
        assert fill(mount.path / "elsewhere", 6, MIB) == digest_of(wide.directory() / "elsewhere")
        assert mount.status()["recovery"]["generation"] > 1
        assert len(channels(mount)) == 1
    finally:
        wide.network.mend_path(told)
    assert has(mount, 2)


def test_nothing_is_left_after_the_unmount(mounted: Mounter) -> None:
    # A server of its own: of a connection whose end it could not be told one learns only in time.
    with Samba(speeds=(GIGABIT, GIGABIT)) as server:
        mount = mounted("max_channels=4", server=server)
        assert has(mount, 4)
        fill(mount.path / "last", 7)
        assert server.sessions() == 1
        mounted.finish()
        ours = run("ss", "--tcp", "--numeric", "--no-header", "state", "established", "dport", "=", ":445").stdout
        assert not any(link.server_address in ours for link in links(server))
        assert wait_until(lambda: not server.session_processes(), 30)
        assert server.sessions() == 0


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
        wide.network.mend_path(wide.network.links[0])
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
                wide.network.mend_path(links(wide)[which])
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
                # For the end of R alone the server waits for nobody, so it may be on its way still.
                assert wait_until(lambda held=held, text=text: held.seek(0) == 0 and held.read() == text, 5)  # type: ignore[misc]
    assert min(sum(mount.status()["breaks"].values()) for mount in (ours, theirs)) >= 10


def test_a_break_that_is_lost_with_its_channel_is_found_and_acknowledged(wide: Samba, mounted: Mounter) -> None:
    """A relay has acknowledged it, so that the server does not send it by another channel."""
    with Proxy(wide.network) as proxy, ThreadPoolExecutor(1) as pool:
        ours, theirs = mounted("multichannel", f"port={PORT}", server=wide), mounted("nomultichannel", server=wide)
        assert has(ours, 2)
        with (ours.path / "given").open("wb", buffering=0) as file:
            file.write(b"gathered")
            # A server sends what it has for a client by the first of its connections.
            proxy.aim([wide.network.server_address])
            assert proxy.hold(Way.TO_CLIENT) == 1
            reading = pool.submit((theirs.path / "given").read_bytes)
            assert wait_until(proxy.keeps_any, 10)
            # Samba asks its kernel after a second at the latest how much has been acknowledged, and then believes that.
            time.sleep(1.2)
            assert not reading.done()
            assert proxy.cut() == 2
            assert reading.result(60) == b"gathered"
        texts = [event["text"] for event in ours.status()["events"]]
        assert [text for text in texts if "has taken breaks of 1 leases along" in text]
        assert ours.status()["reconnects"] == 0
        assert has(ours, 2)
        mounted.finish()


def test_where_there_can_be_no_more_than_one_it_is_said(samba: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "vers=2.1", server=samba)
    assert wait_until(
        lambda: any(event["text"].startswith("one connection: ") for event in mount.status()["events"]), 10
    )
    assert len(channels(mount)) == 1
    assert (mount.path / "alone").write_bytes(b"one") == 3
    assert (mount.path / "alone").read_bytes() == b"one"
