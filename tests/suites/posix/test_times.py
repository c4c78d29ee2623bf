"""Which of a file's and its directory's times each operation must move, and which it must leave."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from ..conftest import Work
from .scene import Descriptor, opened, set_scene, with_descriptor

SECOND: Final = 1_000_000_000
# A past that no clock of the test shows, with a fraction that 100 ns can hold.
PAST: Final = 1_111_111_111 * SECOND + 123_456_700
LATER: Final = PAST + 7 * SECOND


class Moves(NamedTuple):
    """An operation; and the times that it must move and may not move: `file m` is the modification time of `file`."""

    name: str
    action: Callable[[Path], object]
    moved: str
    kept: str


def overwrite(place: Path) -> None:
    """Write into the file and let it be closed."""
    with Descriptor(place / "file", os.O_WRONLY) as number:
        os.pwrite(number, b"xx", 3)


TABLE: Final = [
    Moves("write", overwrite, "file m, file c", "full m, place m, place c"),
    Moves("write of nothing", lambda p: with_descriptor(p / "file", os.O_WRONLY, lambda fd: os.write(fd, b"")),
          "", "file m, file c"),
    Moves("truncate", lambda p: os.truncate(p / "file", 3), "file m, file c", "place m"),
    Moves("truncate upwards", lambda p: os.truncate(p / "file", 30), "file m, file c", "place m"),
    Moves("ftruncate", lambda p: with_descriptor(p / "file", os.O_RDWR, lambda fd: os.ftruncate(fd, 3)),
          "file m, file c", "place m"),
    Moves("open to truncate", lambda p: opened(p / "file", os.O_WRONLY | os.O_TRUNC), "file m, file c", "place m"),
    Moves("open and close", lambda p: opened(p / "file", os.O_RDWR), "", "file m, file c, place m"),
    Moves("read", lambda p: (p / "file").read_bytes(), "", "file m, file c, place m, place c"),
    Moves("stat", lambda p: (p / "file").stat(), "", "file m, file c, file a, place m"),
    Moves("list", lambda p: os.listdir(p / "full"), "", "full m, full c"),
    Moves("create", lambda p: opened(p / "full/new", os.O_WRONLY | os.O_CREAT), "full m, full c, full/new m",
          "place m, full/inside m"),
    Moves("open of what is there to create", lambda p: opened(p / "file", os.O_WRONLY | os.O_CREAT),
          "", "place m, place c, file m"),
    Moves("create that fails", lambda p: _fails(opened, p / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
          "", "place m, place c, file m, file c"),
    Moves("mkdir", lambda p: os.mkdir(p / "full/new"), "full m, full c, full/new m", "place m"),
    Moves("mkdir that fails", lambda p: _fails(os.mkdir, p / "full"), "", "place m, place c, full m"),
    Moves("rmdir", lambda p: os.rmdir(p / "empty"), "place m, place c", "full m, file m"),
    Moves("rmdir that fails", lambda p: _fails(os.rmdir, p / "full"), "", "place m, full m, full c"),
    Moves("unlink", lambda p: os.unlink(p / "full/inside"), "full m, full c", "place m, file m"),
    Moves("rename", lambda p: os.rename(p / "full/inside", p / "full/new"), "full m, full c", "full/new m, place m"),
    Moves("rename to another directory", lambda p: os.rename(p / "full/inside", p / "empty/new"),
          "full m, full c, empty m, empty c", "empty/new m, place m"),
    Moves("rename over a file", lambda p: os.rename(p / "full/inside", p / "file"), "full m, place m", "file m"),
    Moves("rename that fails", lambda p: _fails(os.rename, p / "empty", p / "full"), "", "place m, full m, empty m"),
    Moves("mknod", lambda p: os.mknod(p / "full/new"), "full m, full c", "place m"),
    Moves("link", lambda p: os.link(p / "full/inside", p / "empty/new"), "full/inside c, empty m, empty c",
          "full/inside m, full m"),
    Moves("unlink of one of two names",
          lambda p: (os.link(p / "full/inside", p / "empty/new"), _age(p), os.unlink(p / "full/inside")),
          "empty/new c, full m", "empty/new m"),
    Moves("symlink", lambda p: os.symlink("target", p / "full/new"), "full m, full c", "place m"),
    Moves("chmod", lambda p: os.chmod(p / "file", 0o555), "file c", "file m, place m"),
    Moves("chmod of a directory", lambda p: os.chmod(p / "full", 0o711), "full c", "full m, place m"),
    Moves("chown", lambda p: os.chown(p / "file", 12, 12), "file c", "file m, place m"),
    Moves("setxattr", lambda p: os.setxattr(p / "file", "user.name", b"value"), "file c", "file m, place m"),
    Moves("utimensat", lambda p: os.utime(p / "file", ns=(LATER, LATER)), "file a, file m, file c", "place m"),
    Moves("utimensat of now", lambda p: os.utime(p / "file"), "file a, file m, file c", "place m"),
    Moves("utimensat of the access time", lambda p: _touch(p / "file", "-a"), "file a, file c", "file m"),
    Moves("utimensat of the modification time", lambda p: _touch(p / "file", "-m"), "file m, file c", "file a"),
    Moves("fallocate", lambda p: with_descriptor(p / "file", os.O_RDWR, lambda fd: os.posix_fallocate(fd, 0, 100)),
          "file c", "place m"),
]  # fmt: skip


def _fails(action: Callable[..., object], *arguments: object) -> None:
    """Do what must fail."""
    with pytest.raises(OSError, match=r"."):
        action(*arguments)


def _touch(path: Path, which: str) -> None:
    """touch(1) leaves the other time with UTIME_OMIT, which Python cannot say."""
    subprocess.run(["touch", which, path], check=True)


def _age(place: Path) -> None:
    """Move the access and modification times of everything into the past, the innermost first."""
    for folder, _, files in os.walk(place, topdown=False):
        for name in [*files, "."]:
            os.utime(Path(folder) / name, ns=(PAST, PAST))


def times(path: Path) -> dict[str, int]:
    """By letter."""
    found = path.stat(follow_symlinks=False)
    return {"a": found.st_atime_ns, "m": found.st_mtime_ns, "c": found.st_ctime_ns}


def snapshot(place: Path) -> dict[str, dict[str, int]]:
    """The times of every path, by its name below the place."""
    found = {"place": times(place)}
    for folder, folders, files in os.walk(place):
        for name in [*folders, *files]:
            path = Path(folder) / name
            found[str(path.relative_to(place))] = times(path)
    return found


@pytest.mark.parametrize("moves", TABLE, ids=lambda moves: moves.name)
def test_times(work: Work, moves: Moves) -> None:
    place = set_scene(work.path)
    _age(place)
    before = snapshot(place)
    time.sleep(0.02)  # more than a tick, by which a disk counts
    moves.action(place)
    after = snapshot(place)
    wrong = []
    for rule, must_move in ((moves.moved, True), (moves.kept, False)):
        for what in filter(None, rule.split(", ")):
            name, which = what.split(" ")
            earlier = before.get(name, {"a": PAST, "m": PAST, "c": 0})[which]
            if (after[name][which] != earlier) is not must_move:
                wrong.append(f"{what} was to {'move' if must_move else 'stay'}")
    assert not wrong, "; ".join(wrong)
    behind = snapshot(work.behind)
    assert {name: found["m"] // 100 for name, found in behind.items()} == {
        name: found["m"] // 100 for name, found in after.items()
    }


STAMPS: Final = {
    "the epoch": 0,
    "before the epoch": -1 * SECOND,
    "one tick of SMB": 100,
    "1901": -(2**31) * SECOND,
    "2038": 2**31 * SECOND,
    "2106": 2**32 * SECOND,
    "2400": 13_569_465_600 * SECOND,
}


@pytest.mark.parametrize("stamp", STAMPS)
def test_stamps_are_kept(work: Work, stamp: str) -> None:
    (work.path / "file").write_bytes(b"")
    os.utime(work.path / "file", ns=(STAMPS[stamp], STAMPS[stamp]))
    assert times(work.path / "file")["m"] == STAMPS[stamp]
    assert times(work.path / "file")["a"] == STAMPS[stamp]


def test_times_are_the_servers_clock_and_in_order(work: Work) -> None:
    (work.path / "file").write_bytes(b"")
    found = times(work.path / "file")
    assert abs(found["m"] - time.time_ns()) < 60 * SECOND
    time.sleep(0.02)
    (work.path / "later").write_bytes(b"")
    assert times(work.path / "later")["m"] > found["m"]
