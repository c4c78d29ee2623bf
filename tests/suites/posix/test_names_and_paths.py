"""Lengths of names and paths, and names that only Linux thinks of."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from live.oracle import outcome

from ..conftest import Work

NAMES = {
    "the longest of letters": "n" * 255,
    "the longest of letters of two bytes": "\u00fc" * 127,
    "the longest of letters of four bytes": "\U0001f600" * 63,
    "dots": "...",
    "a dot in front": ".hidden",
    "a dot behind": "name.",
    "a blank in front": " name",
    "a blank behind": "name ",
    "a blank alone": " ",
    "a newline": "line\nfeed",
    "a tab and a bell": "tab\tbell\a",
    "what Windows reserves": '<>:"|?*',
    "a backslash": "back\\slash",
    "a device of Windows": "NUL",
    "another device of Windows": "com1.txt",
    "a stream's name": "file:stream:$DATA",
    "a short name's tilde": "LONGNA~1.TXT",
    "a wildcard": "*",
    "composed": unicodedata.normalize("NFC", "e\u0301"),
    "decomposed": "e\u0301",
    "beyond the basic plane": "\U00010000",
    "a delete": "\x7f",
    "right to left": "\u05d0\u202e",
    "a dash in front": "-rf",
    "a percent sign": "%41",
    "a temporary name of ours": ".smb3fs-0123456789abcdef",
}


@pytest.mark.parametrize("what", NAMES)
def test_a_name(work: Work, what: str) -> None:
    """Made, listed as it is, read, renamed, removed; as a file and as a directory."""
    name = NAMES[what]
    (work.path / name).write_bytes(b"content")
    assert os.listdir(work.path) == [name]
    assert (work.path / name).read_bytes() == b"content"
    (work.path / name).rename(work.path / "plain")
    (work.path / "plain").rename(work.path / name)
    assert len(os.listdir(work.behind)) == 1
    (work.path / name).unlink()
    (work.path / name).mkdir()
    (work.path / name / "below").write_bytes(b"deep")
    assert (work.path / name / "below").read_bytes() == b"deep"
    (work.path / name / "below").unlink()
    (work.path / name).rmdir()
    assert os.listdir(work.path) == []


def test_a_name_that_is_no_unicode(work: Work) -> None:
    """Bytes that no server could hold are refused before they are sent."""
    assert outcome(os.mkdir, os.fsencode(work.path) + b"/\xff\xfe") == "EILSEQ"
    assert os.listdir(work.path) == []


@pytest.mark.parametrize("units", [255, 256])
def test_a_name_of_more_than_255_bytes(work: Work, units: int) -> None:
    """SMB counts letters, the server's disk bytes; whichever gives in first, the name is too long."""
    assert outcome(os.mkdir, work.path / ("\u00fc" * units)) == "ENAMETOOLONG"
    assert os.listdir(work.path) == []


def test_composed_and_decomposed_are_two(work: Work) -> None:
    (work.path / "\u00e9").write_bytes(b"one")
    (work.path / "e\u0301").write_bytes(b"two")
    assert sorted(os.listdir(work.path)) == ["e\u0301", "\u00e9"]
    assert (work.path / "\u00e9").read_bytes() == b"one"


def test_names_that_differ_in_case_are_two(work: Work) -> None:
    (work.path / "name").write_bytes(b"one")
    (work.path / "NAME").write_bytes(b"two")
    assert sorted(os.listdir(work.path)) == ["NAME", "name"]
    assert (work.path / "name").read_bytes() == b"one"


def deep(start: Path, levels: int, name: str) -> Path:
    """Directories within each other."""
    path = start
    for _ in range(levels):
        path = path / name
        path.mkdir()
    return path


def test_a_deep_tree(work: Work) -> None:
    """A hundred directories within each other, moved as one, read, and removed from within."""
    deepest = deep(work.path, 100, "d")
    (deepest / "file").write_bytes(b"deep")
    (work.path / "d").rename(work.path / "moved")
    moved = work.path / "moved" / Path(*["d"] * 99)
    assert (moved / "file").read_bytes() == b"deep"
    (moved / "file").unlink()
    while moved != work.path:
        moved.rmdir()
        moved = moved.parent
    assert os.listdir(work.path) == []


def test_a_long_path(work: Work) -> None:
    """Fifteen names of 200 letters."""
    deepest = deep(work.path, 15, "p" * 200)
    (deepest / "file").write_bytes(b"far")
    assert (deepest / "file").read_bytes() == b"far"
    assert (deepest / "file").stat().st_size == 3
    assert os.listdir(deepest) == ["file"]
    (deepest / "file").rename(deepest / "renamed")
    (deepest / "renamed").unlink()


def test_a_path_longer_than_path_max(work: Work) -> None:
    """Step by step there is no limit to how deep a tree may be."""
    steps = [os.open(work.path, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for _ in range(24):
            os.mkdir("q" * 200, dir_fd=steps[-1])
            steps.append(os.open("q" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=steps[-1]))
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=steps[-1]))
        assert os.listdir(steps[-1]) == ["file"]
        os.unlink("file", dir_fd=steps[-1])
    finally:
        for step in steps:
            os.close(step)
