"""Leases are given back in time by a mount that has much to do: dirty bytes on a slow link, handles on a busy one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faultlib.proxy import PORT, Proxy
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Mounter, until

MIB = 1 << 20
# What the slow link carries in a second, as tc(8) writes it and in bytes.
RATE, BYTES = "16mbit", 2_000_000
# Seconds for which a write lease may be kept back, and those of the measured rate that may be dirty.
FLUSHING, PATIENCE = 15, 5
# For how many seconds the server believes in a connection that is lost; and what it says of a break that nobody heard.
STANDING = 20
GIVEN_UP = "lease break timed out for file"


def test_many_dirty_bytes_are_there_before_their_time_is_over(own_samba: Samba, mounted: Mounter) -> None:
    """No more is gathered than the link carries in a third of the time, so that all of it arrives."""
    mount = mounted(server=own_samba)
    content = os.urandom(4 * MIB).hex().encode()  # the other client's output is text
    own_samba.network.shape(own_samba.network, RATE)
    try:
        number = os.open(mount.path / "much", os.O_CREAT | os.O_WRONLY)
        for at in range(0, len(content), MIB // 4):
            assert os.pwrite(number, content[at : at + MIB // 4], at) == MIB // 4
        before = mount.status()["writes"]
        # A margin for what arrived in a burst when the bound was judged.
        assert 2 * MIB < before["limit"] < 1.5 * PATIENCE * BYTES
        assert before["dirty"] > 2 * MIB
        assert own_samba.client("get much -").encode() == content
    finally:
        own_samba.network.unshape(own_samba.network)
    after = mount.status()
    assert (after["writes"]["dirty"], after["writes"]["failed"]) == (0, 0)
    assert after["break_causes"]["opened"] == 1
    # It was waited for, and not given up because the time was over.
    assert 0 < after["slowest_acknowledgement"] < FLUSHING
    print(f"the acknowledgement took {after['slowest_acknowledgement']:.3f} s")
    os.close(number)
    (mount.path / "much").unlink()
    mounted.finish()


@contextmanager
def busy(here: Mount, there: Mount) -> Iterator[Path]:
    """A directory, below both mounts, in which programs of the first read and write as fast as they can meanwhile.

    In the end, no write has failed there, and no break was answered too late.
    """
    folder = Path(f"busy-{os.urandom(4).hex()}")
    (there.path / folder).mkdir()
    (there.path / folder / "large").write_bytes(bytes(32 * MIB))
    over = threading.Event()

    def load(number: int) -> None:
        while not over.is_set():
            data = (here.path / folder / "large").read_bytes()
            (here.path / folder / f"load-{number}").write_bytes(data[: 8 * MIB])

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield folder
    finally:
        over.set()
        for thread in threads:
            thread.join()
    told = here.status()
    assert (told["writes"]["failed"], told["overdue_breaks"]) == (0, 0)
    print(f"the slowest acknowledgement took {told['slowest_acknowledgement']:.3f} s")
    for path in (there.path / folder).iterdir():
        path.unlink()
    (there.path / folder).rmdir()


def test_what_waits_is_given_back_by_a_busy_mount(later_samba: Samba, mounted: Mounter) -> None:
    """Another client removes what is kept here."""
    here, there = mounted(server=later_samba), mounted(server=later_samba)
    with busy(here, there) as folder:
        names = [folder / f"{number}" for number in range(40)]
        for name in names:
            (there.path / name).write_bytes(b"x" * 1000)
        for name in names:
            assert (here.path / name).read_bytes() == b"x" * 1000
            (there.path / name).unlink()
        until(lambda: not any((here.path / name).exists() for name in names))
    assert here.status()["break_causes"]["in_the_way"] >= 30
    mounted.finish()


def test_what_was_read_is_given_back_by_a_busy_mount(later_samba: Samba, mounted: Mounter) -> None:
    """Another client writes to what is open here."""
    here, there = mounted(server=later_samba), mounted("wcache=0", server=later_samba)
    with busy(here, there) as folder:
        names = [folder / f"{number}" for number in range(20)]
        for name in names:
            (there.path / name).write_bytes(b"old" * 1000)
        for name in names:
            descriptor = os.open(here.path / name, os.O_RDONLY)
            assert os.pread(descriptor, 3000, 0) == b"old" * 1000
            with open(there.path / name, "r+b", buffering=0) as other:
                other.write(b"new" * 1000)
            until(lambda descriptor=descriptor: os.pread(descriptor, 3000, 0) == b"new" * 1000)
            os.close(descriptor)
    assert here.status()["break_causes"]["changed"] >= 15
    mounted.finish()


@pytest.mark.parametrize("server", ["samba", "later_samba"])
def test_what_the_server_tells_the_connection_before_is_found(
    server: str, mounted: Mounter, request: pytest.FixtureRequest
) -> None:
    """It has not heard of the loss, and tells breaks by the oldest connection: others would wait for 35 s."""
    samba: Samba = request.getfixturevalue(server)
    given_up = samba.log().count(GIVEN_UP)
    with Proxy(samba.network) as proxy:
        mount = mounted(f"port={PORT}", share="durable", server=samba)
        other = mounted(share="durable", server=samba)
        try:
            with (mount.path / "told-elsewhere").open("w+b", buffering=0) as file:
                assert file.write(b"content") == 7
                proxy.cut_clients(STANDING)
                until(lambda: mount.status()["recovery"]["generation"] == 2)
                assert (other.path / "told-elsewhere").read_bytes() == b"content"
                assert file.write(b", and more") == 10
            # The other one hears of that in its own time.
            until(lambda: (other.path / "told-elsewhere").read_bytes() == b"content, and more")
            status = mount.status()
        finally:
            mount.unmount()
    assert status["recovery"]["lost"] == 0
    assert status["breaks"]["RWH to none"] == 1
    assert "a lost connection has taken breaks of 1 leases along" in [event["text"] for event in status["events"]]
    assert samba.log().count(GIVEN_UP) == given_up
