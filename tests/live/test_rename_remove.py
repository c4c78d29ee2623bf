"""rename, unlink, mkdir and rmdir, judged by the local filesystem."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Work
from .oracle import outcome, tree

# linux/fs.h
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AT_FDCWD = -100


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python has no function for (glibc 2.28 has)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def layout(place: Path) -> None:
    """Files and directories to move about."""
    (place / "file").write_bytes(b"file")
    (place / "other").write_bytes(b"other")
    (place / "empty").mkdir()
    (place / "hollow").mkdir()
    (place / "full").mkdir()
    (place / "full/inside").write_bytes(b"inside")


NAMES = ["file", "other", "empty", "hollow", "full", "full/inside", "absent", "full/new", "file/below", "absent/below"]
ACTIONS: dict[str, Callable[[Path], object]] = {
    **{
        f"rename {old} {new}": lambda place, old=old, new=new: os.rename(place / old, place / new)  # type: ignore[misc]
        for old in NAMES
        for new in [*NAMES, "empty/below", "full/below/it"]
    },
    **{
        f"noreplace {old} {new}": lambda place, old=old, new=new: renameat2(  # type: ignore[misc]
            place / old, place / new, RENAME_NOREPLACE
        )
        for old in ("file", "empty", "absent")
        for new in ("other", "hollow", "absent", "full/new")
    },
    **{f"unlink {name}": lambda place, name=name: os.unlink(place / name) for name in NAMES},  # type: ignore[misc]
    **{f"rmdir {name}": lambda place, name=name: os.rmdir(place / name) for name in NAMES},  # type: ignore[misc]
    **{f"mkdir {name}": lambda place, name=name: os.mkdir(place / name) for name in NAMES},  # type: ignore[misc]
}


@pytest.mark.parametrize("kind", ["rename", "noreplace", "unlink", "rmdir", "mkdir"])
def test_as_the_local_filesystem_does(work: Work, tmp_path: Path, kind: str) -> None:
    differences = []
    for number, (what, action) in enumerate(item for item in ACTIONS.items() if item[0].startswith(f"{kind} ")):
        results = []
        for place in (tmp_path / str(number), work.path / str(number)):
            place.mkdir()
            layout(place)
            came = outcome(action, place)
            # Linux says EEXIST or ENOTEMPTY for the same thing, and POSIX allows both.
            results.append(("ENOTEMPTY" if came == "EEXIST" else came, tree(place)))
        if results[0] != results[1]:
            differences.append(f"{what}: {results[1]} instead of {results[0]}")
        elif tree(work.behind / str(number)) != results[0][1]:
            differences.append(f"{what}: the server has {tree(work.behind / str(number))}")
    assert not differences, "\n".join(differences)


def test_exchange_is_refused_and_changes_nothing(work: Work) -> None:
    (work.path / "a").write_bytes(b"a")
    (work.path / "b").write_bytes(b"b")
    with pytest.raises(OSError, match=r".") as caught:
        renameat2(work.path / "a", work.path / "b", RENAME_EXCHANGE)
    assert caught.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    assert tree(work.behind) == {"a": b"a", "b": b"b"}


def test_noreplace_is_the_servers_decision(work: Work) -> None:
    """A target that another client made a moment ago, not seen by us yet, is not replaced."""
    (work.path / "mine").write_bytes(b"mine")
    with pytest.raises(FileNotFoundError):
        (work.path / "theirs").stat()
    (work.behind / "theirs").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        renameat2(work.path / "mine", work.path / "theirs", RENAME_NOREPLACE)
    assert (work.behind / "theirs").read_bytes() == b"theirs"


def test_an_open_file_follows_its_rename(work: Work) -> None:
    (work.path / "old").write_bytes(b"before")
    with (work.path / "old").open("r+b", buffering=0) as file:
        (work.path / "old").rename(work.path / "new")
        file.write(b"AFTER!")
        assert os.fstat(file.fileno()).st_size == 6
    assert (work.path / "new").read_bytes() == b"AFTER!"
    assert not (work.path / "old").exists()


def test_what_is_below_a_renamed_directory_is_found_there(work: Work) -> None:
    (work.path / "old/deep").mkdir(parents=True)
    (work.path / "old/deep/file").write_bytes(b"content")
    assert (work.path / "old/deep/file").read_bytes() == b"content"
    (work.path / "old").rename(work.path / "new")
    assert (work.path / "new/deep/file").read_bytes() == b"content"
    (work.path / "new/deep/file").write_bytes(b"changed")
    assert (work.behind / "new/deep/file").read_bytes() == b"changed"
    assert outcome((work.path / "old/deep/file").read_bytes) == "ENOENT"


def test_the_working_directory_may_be_renamed(work: Work) -> None:
    (work.path / "old").mkdir()
    (work.path / "old/file").write_bytes(b"content")
    descriptor = os.open(work.path / "old", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (work.path / "old").rename(work.path / "new")
        assert os.listdir(descriptor) == ["file"]
        os.mkdir("made", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    assert (work.behind / "new/made").is_dir()


def test_a_change_of_case_alone(work: Work) -> None:
    (work.path / "name").write_bytes(b"content")
    (work.path / "name").rename(work.path / "NAME")
    assert os.listdir(work.behind) == ["NAME"]
    assert (work.path / "NAME").read_bytes() == b"content"


def test_the_machine_is_one_that_has_renameat2() -> None:
    """What the tests above rest on."""
    assert platform.system() == "Linux"
    assert hasattr(ctypes.CDLL(None), "renameat2")
