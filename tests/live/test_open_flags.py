"""open(2) with every combination of flags, judged by the local filesystem."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

from .conftest import Work
from .oracle import outcome

ACCESS = {"O_RDONLY": os.O_RDONLY, "O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR}
FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECTORY", "O_NOFOLLOW", "O_SYNC")


def names(access: str, chosen: tuple[str, ...]) -> str:
    return "|".join((access, *chosen))


COMBINATIONS = [
    (access, chosen)
    for access in ACCESS
    for count in range(len(FLAGS) + 1)
    for chosen in itertools.combinations(FLAGS, count)
    if not {"O_CREAT", "O_DIRECTORY"} <= set(chosen)  # what that does differs between kernels
    and ("O_EXCL" not in chosen or "O_CREAT" in chosen)  # undefined otherwise, open(2)
]


def use(path: Path, flags: int) -> object:
    """Open, write, read; tell what came of each."""
    descriptor = os.open(path, flags, 0o644)
    found = os.fstat(descriptor)
    size = None if stat.S_ISDIR(found.st_mode) else found.st_size
    try:
        return (
            size,
            outcome(os.write, descriptor, b"XY"),
            outcome(os.pread, descriptor, 100, 0),
            outcome(os.write, descriptor, b"Z"),
            None if size is None else os.fstat(descriptor).st_size,
        )
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["absent", "file", "directory", "below a file", "below nothing"])
def test_every_combination(work: Work, tmp_path: Path, kind: str) -> None:
    differences = []
    for number, (access, chosen) in enumerate(COMBINATIONS):
        flags = ACCESS[access]
        for name in chosen:
            flags |= getattr(os, name)
        results = []
        for place in (tmp_path, work.path):
            path = place / str(number)
            if kind == "file":
                path.write_bytes(b"0123456789")
            elif kind == "directory":
                path.mkdir()
            elif kind == "below a file":
                path.write_bytes(b"")
                path = path / "below"
            elif kind == "below nothing":
                path = path / "below"
            came = outcome(use, path, flags)
            left = path.read_bytes() if path.is_file() else path.is_dir()
            results.append((came, left))
        if results[0] != results[1]:
            differences.append(f"{names(access, chosen)}: {results[1]} instead of {results[0]}")
    assert not differences, "\n".join(differences)


def test_exclusive_creation_is_the_servers_decision(work: Work) -> None:
    """A file that another client made a moment ago, not seen by us yet, is not opened."""
    with pytest.raises(FileNotFoundError):
        (work.path / "lock").stat()
    (work.behind / "lock").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        os.open(work.path / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert (work.behind / "lock").read_bytes() == b"theirs"


def test_append_goes_to_the_end(work: Work) -> None:
    (work.path / "log").write_bytes(b"one\n")
    first = os.open(work.path / "log", os.O_WRONLY | os.O_APPEND)
    second = os.open(work.path / "log", os.O_WRONLY | os.O_APPEND)
    os.write(first, b"two\n")
    os.write(second, b"three\n")
    os.write(first, b"four\n")
    os.close(first)
    os.close(second)
    assert (work.behind / "log").read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_truncation_by_open_is_on_the_server(work: Work) -> None:
    (work.path / "file").write_bytes(b"x" * 100_000)
    os.close(os.open(work.path / "file", os.O_WRONLY | os.O_TRUNC))
    assert (work.behind / "file").stat().st_size == 0


def test_an_open_file_can_be_unlinked_or_refuses_plainly(work: Work) -> None:
    """SMB deletes at the last close: the name may stay until then, the reader's data must."""
    (work.path / "file").write_bytes(b"still here")
    with (work.path / "file").open("rb") as file:
        came = outcome((work.path / "file").unlink)
        assert came in (None, "EBUSY")
        assert file.read() == b"still here"
    if came is None:
        assert not (work.path / "file").exists()
        assert not (work.behind / "file").exists()
