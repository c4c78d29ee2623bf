"""Listings: complete, with attributes, a snapshot for each opendir, and positions that can be returned to."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from lab.server import UNIX_ACCOUNT

from .conftest import Mounter, Work

MANY = 3000


def fill(folder: Path, count: int, prefix: str = "entry") -> set[str]:
    """Make files at the server's side, in a folder that clients may change."""
    if not folder.exists():
        folder.mkdir()
        shutil.chown(folder, UNIX_ACCOUNT)
    names = {f"{prefix}-{number:06}" for number in range(count)}
    for name in names:
        (folder / name).write_bytes(b"")
    return names


def test_every_entry_once(work: Work) -> None:
    names = fill(work.behind, MANY)
    listed = os.listdir(work.path)
    assert len(listed) == MANY
    assert set(listed) == names


def test_types_and_attributes_come_with_the_listing(work: Work) -> None:
    """What it costs: test_status."""
    fill(work.behind, 500)
    (work.behind / "folder").mkdir()
    with os.scandir(work.path) as entries:
        found = {entry.name: (entry.is_dir(), entry.stat().st_ino, entry.inode()) for entry in entries}
    assert len(found) == 501
    assert [name for name, (is_directory, _, _) in found.items() if is_directory] == ["folder"]
    assert all(by_stat == by_entry for _, by_stat, by_entry in found.values())


class Directory:
    """opendir(3) and its relatives, which Python does not show."""

    class Entry(ctypes.Structure):
        """struct dirent of 64-bit Linux."""

        _fields_ = (
            ("d_ino", ctypes.c_uint64),
            ("d_off", ctypes.c_int64),
            ("d_reclen", ctypes.c_ushort),
            ("d_type", ctypes.c_ubyte),
            ("d_name", ctypes.c_char * 256),
        )

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(None, use_errno=True)
        self.c.opendir.restype = ctypes.c_void_p
        self.c.readdir.restype = ctypes.POINTER(self.Entry)
        self.c.telldir.restype = ctypes.c_long
        self.stream = ctypes.c_void_p(self.c.opendir(os.fsencode(path)))
        assert self.stream

    def read(self) -> str | None:
        """The next name."""
        entry = self.c.readdir(self.stream)
        return os.fsdecode(entry.contents.d_name) if entry else None

    def rest(self) -> list[str]:
        """All that is left."""
        return list(iter(self.read, None))

    def tell(self) -> int:
        """Where we are."""
        return int(self.c.telldir(self.stream))

    def seek(self, position: int) -> None:
        """Go back to where we were."""
        self.c.seekdir(self.stream, ctypes.c_long(position))

    def rewind(self) -> None:
        """Begin again."""
        self.c.rewinddir(self.stream)

    def close(self) -> None:
        """closedir(3)."""
        self.c.closedir(self.stream)


def test_positions_can_be_returned_to(work: Work) -> None:
    fill(work.behind, 1000)
    directory = Directory(work.path)
    positions = []
    while True:
        position = directory.tell()
        name = directory.read()
        if name is None:
            break
        positions.append((position, name))
    assert len(positions) == 1002  # with . and ..
    for index in (900, 3, 500, 1001, 0, 777):
        directory.seek(positions[index][0])
        assert [directory.read(), *directory.rest()] == [name for _, name in positions[index:]]
    directory.close()


def test_a_listing_is_one_moments(work: Work, mounted: Mounter) -> None:
    """What another client removes or makes meanwhile neither hides nor doubles the other entries."""
    names = fill(work.behind, MANY)
    others = mounted().path / work.name
    directory = Directory(work.path)
    first = [directory.read() for _ in range(10)]
    removed = {f"entry-{number:06}" for number in range(0, MANY, 3)}
    for name in removed:
        (others / name).unlink()
    added = {f"added-{number:06}" for number in range(300)}
    for name in added:
        (others / name).touch()
    listed = [name for name in [*first, *directory.rest()] if name not in (".", "..")]
    assert len(listed) == len(set(listed))
    untouched = names - removed
    assert untouched <= set(listed) <= names | added
    directory.rewind()
    anew = set(directory.rest()) - {".", ".."}
    assert anew == untouched | added
    directory.close()


def test_rm_of_everything_while_others_create(work: Work) -> None:
    """rm -rf reads, removes, reads on: a position must not slide when earlier entries vanish."""
    names = fill(work.behind / "big", MANY)
    stop = threading.Event()
    made: list[str] = []

    def create() -> None:
        while not stop.is_set():
            made.append(f"foreign-{len(made):06}")
            (work.behind / "big" / made[-1]).write_bytes(b"")
            stop.wait(0.002)

    creator = threading.Thread(target=create)
    creator.start()
    try:
        removal = subprocess.run(["rm", "-rf", work.path / "big"], capture_output=True, text=True, timeout=120)
    finally:
        stop.set()
        creator.join()
    left = set(os.listdir(work.behind / "big"))
    assert made
    assert left & names == set(), f"rm skipped what was there from the beginning: {removal.stderr[:500]}"
    subprocess.run(["rm", "-rf", work.path / "big"], timeout=120, check=True)
    assert not (work.behind / "big").exists()


def test_removing_while_reading_by_hand(work: Work) -> None:
    names = fill(work.behind, MANY)
    seen = set()
    with os.scandir(work.path) as entries:
        for entry in entries:
            seen.add(entry.name)
            os.unlink(entry.path)
    assert seen == names
    assert os.listdir(work.behind) == []


def test_a_new_file_is_listed_at_once(work: Work) -> None:
    for number in range(20):
        (work.path / str(number)).write_bytes(b"")
        assert len(os.listdir(work.path)) == number + 1
    for number in range(20):
        (work.path / str(number)).unlink()
        assert len(os.listdir(work.path)) == 19 - number


def test_two_readers_of_one_directory(work: Work) -> None:
    names = fill(work.behind, 500)
    first, second = Directory(work.path), Directory(work.path)
    mixed: tuple[set[str | None], set[str | None]] = (set(), set())
    for _ in range(600):
        mixed[0].add(first.read())
        mixed[1].add(second.read())
    first.close()
    second.close()
    assert mixed[0] == mixed[1] == names | {".", "..", None}


@pytest.mark.slow
def test_a_hundred_thousand_entries(work: Work) -> None:
    """The full size: listed once, then removed amid foreign creates."""
    names = fill(work.behind / "huge", 100_000)
    assert set(os.listdir(work.path / "huge")) == names
    subprocess.run(["rm", "-rf", work.path / "huge"], timeout=900, check=True)
    assert not (work.behind / "huge").exists()
