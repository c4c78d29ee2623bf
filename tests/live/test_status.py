"""smb3fs status: what it tells, while all is well and while the server is gone, and the round trips it counts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.mounting import Mount, program
from lab.server import Samba

from .conftest import BOUND, Mounter, Work
from .oracle import outcome

# Long enough that nothing known ages within a test: what is counted is then what the action itself costs.
AGE = 60
KEYS = {"dialect", "signing", "encryption", "channels", "requests", "round_trips", "unwaited", "bytes", "open_handles"}


@pytest.fixture(scope="module")
def mount(samba: Samba, every_mount: list[Mount]) -> Iterator[Mount]:
    """This module's mount."""
    made = Mounter(samba, every_mount)
    try:
        yield made(f"actimeo={AGE}")
    finally:
        made.finish()


def test_json_has_what_scripts_rely_on(mount: Mount) -> None:
    status = mount.status()
    assert set(status) >= KEYS
    assert isinstance(status["channels"], list)
    assert len(status["channels"]) == 1
    assert status["requests"]["NEGOTIATE"] == 1
    assert status["requests"]["SESSION_SETUP"] == 2
    assert status["requests"]["TREE_CONNECT"] == 1
    assert set(status["bytes"]) == {"read", "written", "copied", "shared"}
    assert all(isinstance(status[key], int) for key in ("round_trips", "unwaited", "open_handles"))


def test_for_people(mount: Mount, samba: Samba) -> None:
    done = subprocess.run([program("smb3fs"), "status", mount.path], capture_output=True, text=True, check=True)
    for word in ("3.1.1", "GMAC", samba.address, "share", str(mount.path)):
        assert word in done.stdout, done.stdout


def test_the_mount_is_never_asked(own_samba: Samba, mounted: Mounter) -> None:
    """The server hangs, calls on the mount wait: the status answers all the same."""
    mount = mounted(f"timeout={BOUND}", server=own_samba)
    own_samba.pause()
    blocked = subprocess.Popen(["stat", mount.path / "absent"], stderr=subprocess.DEVNULL)
    try:
        done = subprocess.run([program("smb3fs"), "status", "--json", mount.path], capture_output=True, timeout=5)
        assert done.returncode == 0
    finally:
        own_samba.resume()
        blocked.wait(timeout=BOUND + 5)


def test_no_mount_is_said(tmp_path: Path) -> None:
    done = subprocess.run([program("smb3fs"), "status", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


class Cost:
    """What happened between two looks at the status."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.requests: dict[str, int] = {}


@contextmanager
def cost_of(mount: Mount) -> Iterator[Cost]:
    """Count what the block costs."""
    cost = Cost()
    before = mount.status()
    yield cost
    after = mount.status()
    cost.round_trips = after["round_trips"] - before["round_trips"]
    cost.requests = {
        name: count - before["requests"].get(name, 0)
        for name, count in after["requests"].items()
        if count != before["requests"].get(name, 0) and name != "ECHO"
    }


def test_stat_of_an_unknown_name_costs_one(work: Work, mount: Mount) -> None:
    (work.behind / "file").write_bytes(b"x")
    work.path.stat()
    with cost_of(mount) as cost:
        (work.path / "file").stat()
    assert cost.round_trips == 1, cost.requests
    with cost_of(mount) as again:
        (work.path / "file").stat()
    assert again.round_trips == 0, again.requests


def test_each_unknown_component_costs_one(work: Work, mount: Mount) -> None:
    (work.behind / "a/b/c").mkdir(parents=True)
    work.path.stat()
    with cost_of(mount) as cost:
        (work.path / "a/b/c").stat()
    assert cost.round_trips == 3, cost.requests


def test_a_name_that_is_not_there_costs_one(work: Work, mount: Mount) -> None:
    work.path.stat()
    with cost_of(mount) as cost:
        assert not (work.path / "absent").exists()
    assert cost.round_trips == 1, cost.requests


def removed(action: Callable[[], None], path: Path, mount: Mount) -> Cost:
    """What an action costs whose name has just been looked up."""
    path.stat()
    with cost_of(mount) as cost:
        action()
    return cost


def test_unlink_and_rmdir_cost_one(work: Work, mount: Mount) -> None:
    (work.path / "file").write_bytes(b"x")
    (work.path / "folder").mkdir()
    assert removed((work.path / "file").unlink, work.path / "file", mount).round_trips == 1
    assert removed((work.path / "folder").rmdir, work.path / "folder", mount).round_trips == 1
    assert os.listdir(work.behind) == []


def test_mkdir_costs_one_and_the_kernels_lookup(work: Work, mount: Mount) -> None:
    """The kernel asks first whether the name is taken: that is a stat of an unknown name."""
    work.path.stat()
    with cost_of(mount) as cost:
        (work.path / "folder").mkdir()
    assert cost.round_trips <= 2, cost.requests


def test_rename_costs_one_and_the_kernels_lookup(work: Work, mount: Mount) -> None:
    (work.path / "old").write_bytes(b"x")
    (work.path / "old").stat()
    with cost_of(mount) as cost:
        (work.path / "old").rename(work.path / "new")
    assert cost.round_trips <= 2, cost.requests


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_listing_costs_one_and_the_pages(work: Work, mounted: Mounter, count: int) -> None:
    """One exchange opens the directory and brings what fits; the other pages are asked for ahead of the reader."""
    for number in range(count):
        (work.behind / f"name-of-20-letters-{number:06}").write_bytes(b"")
    mount = mounted("actimeo=60")  # however slow the machine is, nothing is asked for twice
    (mount.path / work.name).stat()
    with cost_of(mount) as cost, os.scandir(mount.path / work.name) as entries:
        assert sum(1 for entry in entries if entry.stat().st_size == 0) == count
    assert cost.round_trips <= 2, cost.requests
    # Names of 26 characters: 500 in a page of 64 KiB, 320 where the POSIX extensions tell of owners,
    # and up to sixteen pages are asked for in vain at the end.
    page = 320 if mount.status()["posix"] else 500
    assert cost.requests.get("QUERY_DIRECTORY", 0) <= max(2, count // page + 1 + 16), cost.requests


def test_reading_and_writing_cost_what_the_sizes_say(work: Work, mount: Mount) -> None:
    """4 KiB files: create+write+close and open+read+close, each with its CLOSE that nobody waits for."""
    work.path.stat()
    with cost_of(mount) as writing:
        (work.path / "file").write_bytes(bytes(4096))
    assert writing.requests["WRITE"] == 1
    assert writing.requests["CLOSE"] >= 1
    with cost_of(mount) as reading:
        (work.path / "file").read_bytes()
    assert reading.requests["READ"] <= 2
    assert outcome((work.behind / "file").read_bytes) == bytes(4096)


def test_open_handles_are_counted(work: Work, mount: Mount) -> None:
    files = [(work.path / str(number)).open("wb") for number in range(7)]
    assert mount.status()["open_handles"] == 7
    for file in files:
        file.close()
    assert mount.status()["open_handles"] == 0
