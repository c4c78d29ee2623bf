"""What leases let us keep of files, on real servers: what is asked again, what is not, and that nothing old is shown.

Counters say it, never times. The server's own disk breaks no lease, so whoever changes a file here is another client.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Counted, Mounter, native_only, until

# Longer than any test: what is closed is closed for another reason.
KEPT = ("closetimeo=600", "actimeo=600")


@native_only
def test_a_file_is_read_again_without_a_request(later_samba: Samba, mounted: Mounter) -> None:
    here, there = (mounted(*options, server=later_samba) for options in (KEPT, ()))
    path = here.path / "again"
    (there.path / "again").write_bytes(bytes(200_000))
    # close(2) waits for the data and not for the server's own close, which breaks the lease on the directory.
    until(lambda: not any(file["filename"] == "again" for file in later_samba.status()["open_files"].values()))
    assert "again" in os.listdir(here.path)  # or it would be listed behind the scenes when a file is opened in it
    counted = Counted(here)
    cold = counted(path.read_bytes)
    assert cold["CREATE"] == 1
    assert here.status()["deferred_handles"] == 1
    until(lambda: here.status()["open_handles"] == 0)  # a directory that is being listed counts until it is kept
    for _ in range(3):
        assert counted(path.read_bytes) == {}
    status = here.status()
    assert status["opens"]["reused"] == 3
    assert status["opens"]["pages_kept"] == 3
    assert status["leases"] == {"RH": 1}
    path.unlink()
    mounted.finish()


@native_only
def test_what_another_client_writes_is_read_at_once(place: Callable[..., Mount]) -> None:
    here, there = place(*KEPT), place()
    ours, theirs = here.path / "shared", there.path / "shared"
    theirs.write_bytes(b"0" * 5000)
    with ours.open("rb") as held:
        for turn in range(1, 6):
            content = b"%d" % turn * 5000
            assert ours.read_bytes() == b"%d" % (turn - 1) * 5000
            # While a break is acknowledged the server sends no other one, so the lease has to be whole again by then.
            until(lambda: bool(ours.read_bytes()) and here.status()["leases"] == {"RH": 1})
            descriptor = os.open(theirs, os.O_WRONLY)
            os.pwrite(descriptor, content, 0)
            os.close(descriptor)
            # The server does not wait for us when it takes R back, so we may hear of it a moment late.
            until(lambda turn=turn: sum(here.status()["breaks"].values()) >= turn)  # type: ignore[misc]
            assert os.pread(held.fileno(), 5000, 0) == content
            assert ours.read_bytes() == content
    ours.unlink()


@native_only
def test_a_mapped_file_shows_what_another_client_writes(place: Callable[..., Mount]) -> None:
    here, there = place(*KEPT), place()
    ours, theirs = here.path / "mapped", there.path / "mapped"
    theirs.write_bytes(b"0" * 8192)
    with ours.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:3] == b"000"
        descriptor = os.open(theirs, os.O_WRONLY)
        os.pwrite(descriptor, b"new", 0)
        os.close(descriptor)
        until(lambda: pages[:3] == b"new")
    ours.unlink()


def test_an_open_file_without_a_lease_is_not_old_for_ever(place: Callable[..., Mount]) -> None:
    """Neither lease nor time of writing tell of what another client writes; pages came under a lease that has ended."""
    here, there = place(), place()
    theirs = os.open(there.path / "unleased", os.O_CREAT | os.O_RDWR)
    ours = os.open(here.path / "unleased", os.O_RDWR)
    (there.path / "unleased").rename(there.path / "renamed")
    os.truncate(there.path / "renamed", 4096)
    until(lambda: here.status()["leases"] == {"none": 1})
    assert (here.path / "renamed").read_bytes() == bytes(4096)
    os.pwrite(theirs, b"written", 0)
    until(lambda: os.pread(ours, 7, 0) == b"written")
    os.pwrite(theirs, b"anew...", 0)
    until(lambda: os.pread(ours, 7, 0) == b"anew...")
    os.close(theirs)
    os.close(ours)
    (there.path / "renamed").unlink()


def test_what_we_change_ourselves_is_read_back(place: Callable[..., Mount]) -> None:
    """Past the page cache as well as through it, by the name that is open and by another."""
    here = place(*KEPT)
    path, second = here.path / "ours", here.path / "second"
    path.write_bytes(b"a" * 6000)
    expected = b"a" * 6000
    for _ in range(3):
        assert path.read_bytes() == expected
        with path.open("ab", buffering=0) as appender:
            appender.write(b"appended")
        expected += b"appended"
        assert path.read_bytes() == expected
        os.truncate(path, 5000)
        expected = expected[:5000]
        assert path.read_bytes() == expected
        descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        page[:] = os.urandom(4096)
        os.pwritev(descriptor, [page], 0)
        os.close(descriptor)
        expected = page[:] + expected[4096:]
        assert path.read_bytes() == expected
    os.link(path, second)
    with second.open("r+b", buffering=0) as other:
        for number in range(3):
            other.seek(0)
            other.write(b"%d" % number)
            assert path.read_bytes()[:1] == second.read_bytes()[:1] == b"%d" % number
    path.unlink()
    second.unlink()


def test_what_waits_is_in_nobodys_way(place: Callable[..., Mount], server: Samba) -> None:
    here, there = place(*KEPT, "actimeo=0"), place()
    folder = here.path / "folder"
    folder.mkdir()

    def wait_there(name: str) -> Path:
        (there.path / "folder" / name).write_bytes(name.encode())
        path = folder / name
        assert path.read_bytes() == name.encode()
        return path

    # Ours: removed, replaced, renamed, made anew; and the directory renamed and removed.
    wait_there("a").unlink()
    wait_there("a").rename(folder / "b")
    wait_there("c").rename(folder / "b")
    assert (folder / "b").read_bytes() == b"c"
    (folder / "b").write_bytes(b"anew")
    assert (folder / "b").read_bytes() == b"anew"
    moved = folder.rename(here.path / "moved")
    assert (moved / "b").read_bytes() == b"anew"
    # Others': written over, replaced.
    theirs = there.path / "moved"
    (theirs / "d").write_bytes(b"theirs")
    (theirs / "d").replace(theirs / "b")
    until(lambda: (moved / "b").read_bytes() == b"theirs")
    (moved / "b").unlink()
    moved.rmdir()
    until(lambda: server.open_files() == [])


@pytest.mark.parametrize("end", ["removed", "replaced"])
def test_what_had_another_name_before_does_not_wait_once_it_is_removed(place: Callable[..., Mount], end: str) -> None:
    here, there = place(*KEPT), place()
    folder = here.path / "folder"
    folder.mkdir()
    (folder / "other").write_bytes(b"other")
    with (here.path / "first").open("w+b"):
        (there.path / "first").rename(there.path / "second")
        until(lambda: "second" in os.listdir(here.path))
        (here.path / "second").rename(folder / "third")
    with (folder / "third").open("rb"):
        if end == "removed":
            (folder / "third").unlink()
        else:
            (folder / "other").rename(folder / "third")
    for name in os.listdir(folder):
        (folder / name).unlink()
    # Which no server does as long as anything is open in it, of whomever.
    (there.path / "folder").rmdir()


def test_on_a_server_that_says_so_a_file_that_another_client_removes_is_gone(
    later_samba: Samba, mounted: Mounter
) -> None:
    here, there = (mounted(*options, server=later_samba) for options in ((*KEPT, "actimeo=0"), ()))
    (there.path / "f").write_bytes(b"old")
    assert (here.path / "f").read_bytes() == b"old"
    (there.path / "f").unlink()
    until(lambda: here.status()["deferred_handles"] == 0)
    assert not (here.path / "f").exists()
    (there.path / "f").write_bytes(b"new")
    assert (here.path / "f").read_bytes() == b"new"
    (there.path / "f").unlink()
    mounted.finish()


def test_what_was_written_is_closed_and_keeps_its_times(place: Callable[..., Mount]) -> None:
    here = place(*KEPT, "noperm")
    path = here.path / "written"
    path.write_bytes(b"x" * 100)
    assert here.status()["deferred_handles"] == 0
    path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"y")
    os.utime(path, ns=(10**18, 10**18 + 10**9))
    path.read_bytes()
    other = place()
    assert (other.path / "written").stat().st_mtime_ns == 10**18 + 10**9
    path.unlink()


def test_handles_wait_neither_for_ever_nor_without_number(later_samba: Samba, mounted: Mounter) -> None:
    here = mounted("closetimeo=600", "max_cached_handles=5", server=later_samba)
    for number in range(12):
        (here.path / f"{number}").write_bytes(b"x")
        (here.path / f"{number}").read_bytes()
    assert here.status()["deferred_handles"] == 5
    until(lambda: len(later_samba.open_files()) == 5)
    brief = mounted("closetimeo=1", server=later_samba)
    (brief.path / "0").read_bytes()
    until(lambda: brief.status()["deferred_handles"] == 0)
    for number in range(12):
        (here.path / f"{number}").unlink()
    mounted.finish()


@pytest.mark.parametrize("option", ["cache=none", "nolease", "nohandlecache", "closetimeo=0"])
def test_nothing_waits_where_it_must_not(mounted: Mounter, samba: Samba, option: str) -> None:
    here = mounted(option)
    (here.path / "none").write_bytes(b"x")
    counted = Counted(here)
    for _ in range(2):
        assert counted((here.path / "none").read_bytes)["CREATE"] >= 1
        assert here.status()["deferred_handles"] == 0
    (here.path / "none").unlink()


def test_nothing_waits_where_nobody_says_who_removes_it(mounted: Mounter, samba: Samba) -> None:
    """Such a server would carry a removal out with our CLOSE, on whatever has the name by then."""
    if samba.has_persistent_handles():
        pytest.skip("this server says so")
    here, there = mounted(*KEPT), mounted()
    (there.path / "old").write_bytes(b"old")
    (there.path / "new").write_bytes(b"new")
    read = Counted(here)(lambda: [(here.path / "old").read_bytes() for _ in range(5)])
    assert read["CREATE"] >= 5
    until(lambda: not samba.open_files())
    (there.path / "old").unlink()
    samba.client("rename new old -f")
    here.unmount()
    there.unmount()
    assert (samba.directory() / "old").read_bytes() == b"new"
    (samba.directory() / "old").unlink()


@native_only
def test_loose_believes_what_it_has_until_the_file_is_seen_to_have_changed(samba: Samba, mounted: Mounter) -> None:
    loose, other = mounted("cache=loose", "nolease", "actimeo=600"), mounted("noac", "nolease")
    (other.path / "loose").write_bytes(bytes(200_000))
    until(lambda: not samba.open_files())  # the close of what was written may change its times
    path = loose.path / "loose"
    path.read_bytes()
    assert "READ" not in Counted(loose)(path.read_bytes)
    assert path.read_bytes() == bytes(200_000)
    path.unlink()


def test_nothing_is_left_by_an_unmount(mounted: Mounter, later_samba: Samba) -> None:
    here = mounted(*KEPT, server=later_samba)
    (here.path / "left").write_bytes(b"x")
    (here.path / "left").read_bytes()
    assert here.status()["deferred_handles"] == 1
    here.unmount()
    until(lambda: later_samba.open_files(directories=True) == [])


def test_a_restart_of_the_server_ends_what_waits(mounted: Mounter, later_samba: Samba) -> None:
    here = mounted(*KEPT, server=later_samba)
    path = here.path / "restart"
    path.write_bytes(b"before")
    assert path.read_bytes() == b"before"
    assert here.status()["deferred_handles"] == 1
    later_samba.stop()
    until(lambda: here.status()["deferred_handles"] == 0)
    (later_samba.directory() / "restart").write_bytes(b"after!")
    later_samba.start()
    assert path.read_bytes() == b"after!"
    path.unlink()
