"""A disk that is full, a quota that is used up, a user who may not: no write is lost in silence, no file is harmed."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from .conftest import Mounter
from .oracle import outcome, tree

KIB = 1024
CHUNK = 48 * KIB
ROOM = 2048 * KIB


class Small:
    """A small filesystem below the share, in the server's mount namespace."""

    def __init__(self, samba: Samba, name: str, options: str) -> None:
        self.samba = samba
        self.name = name
        self.behind = samba.directory() / name
        self.behind.mkdir()
        samba.beside("mount", "-t", "tmpfs", "-o", f"mode=777,{options}", "tmpfs", str(self.behind))

    def contents(self) -> dict[str, bytes | None]:
        """Every file on it."""
        return tree(self.behind)

    def remove(self) -> None:
        """Take it down."""
        self.samba.beside("umount", str(self.behind))
        self.behind.rmdir()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that an error of any step is raised."""
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def fill(number: int) -> None:
    """Write until it fails."""
    while True:
        os.write(number, bytes(CHUNK))


@pytest.fixture
def full(own_samba: Samba) -> Iterator[Small]:
    """Two MiB, and few files."""
    small = Small(own_samba, "small", f"size={ROOM},nr_inodes=20")
    yield small
    small.remove()


# Ways in which a write is carried out when it returns.
WAYS: dict[str, tuple[tuple[str, ...], int]] = {
    "cached": (("wcache=0",), 0),
    "nothing cached": (("cache=none",), 0),
    "direct": ((), os.O_DIRECT),
    "synchronous": ((), os.O_SYNC),
    "sealed": (("wcache=0", "seal"), 0),
    "in small requests": (("wcache=0", "wsize=16384"), 0),
    "appending": ((), os.O_APPEND),
}


@pytest.mark.parametrize("way", WAYS)
def test_all_that_was_taken_is_there_when_the_disk_is_full(
    full: Small, own_samba: Samba, mounted: Mounter, way: str
) -> None:
    """Writes are counted until one fails; the server's file begins with just these bytes."""
    options, flags = WAYS[way]
    path = mounted(*options, server=own_samba).path / full.name / "file"
    data = random.Random(5).randbytes(3 * ROOM)
    taken, failed = 0, None
    number = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    try:
        while failed is None and taken < len(data):
            try:
                taken += os.write(number, data[taken : taken + CHUNK])
            except OSError as error:
                failed = error.errno
        assert failed == errno.ENOSPC
        os.fsync(number)  # what has been taken is safe; that it does not fit is known already
    finally:
        os.close(number)
    assert taken >= ROOM // 2
    found = (full.behind / "file").read_bytes()
    assert found[:taken] == data[:taken]
    assert path.read_bytes() == found
    path.unlink()
    path.write_bytes(data[:CHUNK])
    assert (full.behind / "file").read_bytes() == data[:CHUNK]
    mounted.finish()


@pytest.mark.parametrize("options", [(), ("seal",), ("wsize=16384",)], ids=["cached", "sealed", "in small requests"])
def test_what_fsync_has_confirmed_is_there_when_the_disk_is_full(
    full: Small, own_samba: Samba, mounted: Mounter, options: tuple[str, ...]
) -> None:
    """Writes are gathered: each may be answered before it fails, and fsync says so, once."""
    path = mounted(*options, server=own_samba).path / full.name / "file"
    data = random.Random(5).randbytes(3 * ROOM)
    taken, confirmed, told = 0, 0, None
    number = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while told is None and taken < len(data):
            came = [
                outcome(os.pwrite, number, data[at : at + CHUNK], at) for at in range(taken, taken + 4 * CHUNK, CHUNK)
            ]
            taken += 4 * CHUNK
            told = outcome(os.fsync, number)
            if told is None:
                # All was taken, or the write itself said that it was not.
                assert set(came) <= {CHUNK, "ENOSPC"}
                if set(came) != {CHUNK}:
                    break
                confirmed = taken
        assert told == "ENOSPC" or "ENOSPC" in came
        assert outcome(os.fsync, number) is None
        assert outcome(os.close, os.dup(number)) is None
    finally:
        os.close(number)
    assert confirmed >= ROOM // 2
    assert (full.behind / "file").read_bytes()[:confirmed] == data[:confirmed]
    mounted.finish()


@pytest.mark.parametrize("options", [(), ("wcache=0",)], ids=["gathered", "through"])
def test_one_large_write_is_never_a_success(
    full: Small, own_samba: Samba, mounted: Mounter, options: tuple[str, ...]
) -> None:
    """More than fits in one call: a short count or an error, here or by close; without one what is counted is there."""
    path = mounted(*options, server=own_samba).path / full.name / "file"
    data = random.Random(6).randbytes(4 * ROOM)
    number = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        came = outcome(os.pwrite, number, data, 0)
    finally:
        closed = outcome(os.close, number)
    assert closed in ((None,) if options else (None, "ENOSPC"))
    if came != "ENOSPC" and closed is None:
        assert isinstance(came, int)
        assert came < len(data)
        assert (full.behind / "file").read_bytes()[:came] == data[:came]
    mounted.finish()


def test_saving_by_rename_keeps_the_old_file(full: Small, own_samba: Samba, mounted: Mounter) -> None:
    place = mounted(server=own_samba).path / full.name
    (place / "letter").write_bytes(b"old" * 1000)
    assert outcome(write_durably, place / "letter.new", os.urandom(2 * ROOM)) == "ENOSPC"
    (place / "letter.new").unlink()
    assert full.contents() == {"letter": b"old" * 1000}
    mounted.finish()


def test_overwriting_in_place_needs_no_room(full: Small, own_samba: Samba, mounted: Mounter) -> None:
    path = mounted(server=own_samba).path / full.name / "file"
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        assert outcome(fill, number) == "ENOSPC"
        # What had been gathered before may not have arrived either.
        assert outcome(os.fsync, number) in (None, "ENOSPC")
        assert os.pwrite(number, b"x" * CHUNK, 0) == CHUNK
        assert os.pread(number, CHUNK, 0) == b"x" * CHUNK
    finally:
        os.close(number)
    mounted.finish()


def test_a_mapping_learns_of_it(full: Small, own_samba: Samba, mounted: Mounter) -> None:
    """Written through memory into a hole that there is no room for: msync or fsync fails."""
    path = mounted(server=own_samba).path / full.name / "file"
    with path.open("w+b", buffering=0) as file:
        file.truncate(2 * ROOM)
        mapped = mmap.mmap(file.fileno(), 2 * ROOM)
        mapped[:] = b"m" * (2 * ROOM)
        failures = [outcome(mapped.flush), outcome(os.fsync, file.fileno())]
        mapped.close()
    assert {"ENOSPC", "EIO"} & set(failures), failures
    mounted.finish()


def test_no_more_files(full: Small, own_samba: Samba, mounted: Mounter) -> None:
    """Space is left, names are not."""
    place = mounted(server=own_samba).path / full.name
    came = [outcome((place / f"file-{number}").write_bytes, b"x") for number in range(40)]
    assert set(came) == {1, "ENOSPC"}
    assert len(full.contents()) == came.count(1) > 5
    assert outcome((place / "folder").mkdir) == "ENOSPC"
    assert (place / "file-0").read_bytes() == b"x"
    mounted.finish()


@pytest.mark.parametrize("options", [(), ("wcache=0",)], ids=["gathered", "through"])
def test_a_quota_that_is_used_up(own_samba: Samba, mounted: Mounter, options: tuple[str, ...]) -> None:
    """Samba calls it a full disk; either way the writer is told."""
    try:
        small = Small(own_samba, "quota", f"usrquota,usrquota_block_hardlimit={ROOM}")
    except Exception as error:  # noqa: BLE001 (a kernel without quotas on tmpfs)
        (own_samba.directory() / "quota").rmdir()
        pytest.skip(f"no quotas on tmpfs here: {error}")
    try:
        path = mounted(*options, server=own_samba).path / small.name / "file"
        data = random.Random(7).randbytes(2 * ROOM)
        number = os.open(path, os.O_WRONLY | os.O_CREAT)
        taken, failed = 0, None
        while failed is None and taken < len(data):
            try:
                taken += os.write(number, data[taken : taken + CHUNK])
            except OSError as error:
                failed = error.errno
        closed = outcome(os.close, number)
        assert failed in (errno.ENOSPC, errno.EDQUOT)
        assert closed in ((None,) if options else (None, "ENOSPC", "EDQUOT"))
        if closed is None:
            assert (small.behind / "file").read_bytes()[:taken] == data[:taken]
        assert taken >= ROOM // 2
        mounted.finish()
    finally:
        small.remove()


@pytest.fixture
def forbidden(samba: Samba, mounted: Mounter) -> Iterator[tuple[Mount, Path]]:
    """A directory and a file that the user may read and not change; our modes say otherwise, the server decides."""
    behind = samba.directory() / "forbidden"
    behind.mkdir()
    (behind / "file").write_bytes(b"precious")
    (behind / "sub").mkdir()
    (behind / "sub/inside").write_bytes(b"inside")
    yield mounted(f"uid={UNIX_ACCOUNT}", "file_mode=0777", "dir_mode=0777"), behind
    for path in (behind / "file", behind / "sub/inside"):
        path.unlink()
    (behind / "sub").rmdir()
    behind.rmdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "open to write": lambda p: os.close(os.open(p / "file", os.O_WRONLY)),
    "open to truncate": lambda p: os.close(os.open(p / "file", os.O_RDONLY | os.O_TRUNC)),
    "truncate": lambda p: os.truncate(p / "file", 0),
    "create": lambda p: os.close(os.open(p / "new", os.O_WRONLY | os.O_CREAT)),
    "mkdir": lambda p: os.mkdir(p / "new"),
    "rmdir": lambda p: os.rmdir(p / "sub"),
    "unlink": lambda p: os.unlink(p / "file"),
    "unlink inside": lambda p: os.unlink(p / "sub/inside"),
    "rename": lambda p: os.rename(p / "file", p / "new"),
    "rename a directory": lambda p: os.rename(p / "sub", p / "new"),
    "rename out": lambda p: os.rename(p / "file", p.parent / "stolen"),
    "rename over": lambda p: os.rename(p / "sub/inside", p / "file"),
    "set times": lambda p: os.utime(p / "file", (1, 1)),
    "chmod": lambda p: os.chmod(p / "file", 0o555),
}


def test_a_user_who_may_not_write(forbidden: tuple[Mount, Path]) -> None:
    mount, behind = forbidden
    before = tree(behind)
    place = mount.path / "forbidden"
    assert (place / "file").read_bytes() == b"precious"
    came = {what: outcome(change, place) for what, change in CHANGES.items()}
    allowed = {"EACCES", "EPERM", "ENOTEMPTY"}
    assert {what: result for what, result in came.items() if result not in allowed} == {}
    assert tree(behind) == before
    assert not (behind.parent / "stolen").exists()


def test_a_user_who_may_not_write_into_a_file_that_is_open(samba: Samba, mounted: Mounter) -> None:
    """Permissions are asked at the open: taken away later, the open file goes on, and a new one is refused."""
    path = mounted().path / "taken-away"
    with path.open("wb", buffering=0) as file:
        file.write(b"one")
        behind = samba.directory() / path.name
        os.chown(behind, 0, 0)
        behind.chmod(0o644)
        file.write(b"two")
    assert behind.read_bytes() == b"onetwo"
    assert outcome(os.open, path, os.O_WRONLY) == "EACCES"
    assert path.read_bytes() == b"onetwo"
    path.unlink()
