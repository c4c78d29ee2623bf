"""Names: what a server may be told, what POSIX allows, and what must never reach the kernel."""

from __future__ import annotations

import os
import unicodedata

import pytest
from lab.server import Samba

from .conftest import Mounter, Work
from .oracle import outcome

# What is tested here is how it is without the POSIX extensions; tests/live/test_posix.py has the rest.
OPTIONS = ("noposix",)

PLAIN = [
    "a",
    "with blank",
    ".hidden",
    "-dash",
    "percent%20",
    "#hash;semicolon&ampersand",
    "quote'quote",
    "dollar$`tick`",
    "Grüße.txt",
    "日本語",
    "emoji 🐟",
    unicodedata.normalize("NFD", "é"),
    unicodedata.normalize("NFC", "é"),
    "a" * 255,
    "ü" * 120,
    "line\nbreak",
    "tab\there",
]
# [MS-FSCC] 2.1.5.2: these cannot be in a name on the wire; a client maps them into the private use area.
RESERVED = ["a:b", "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a\\b", "trailing dot.", "trailing blank ", "..."]


@pytest.mark.parametrize("name", PLAIN, ids=ascii)
def test_a_name_comes_back_as_it_went(work: Work, name: str) -> None:
    (work.path / name).write_bytes(b"content")
    assert os.listdir(work.path) == [name]
    assert (work.path / name).read_bytes() == b"content"
    (work.path / name).rename(work.path / "other")
    (work.path / "other").rename(work.path / name)
    (work.path / name).unlink()
    (work.path / name).mkdir()
    (work.path / name).rmdir()
    assert os.listdir(work.path) == []


@pytest.mark.parametrize("name", PLAIN[:12], ids=ascii)
def test_the_server_has_the_same_name(work: Work, name: str) -> None:
    (work.path / name).write_bytes(b"")
    assert os.listdir(work.behind) == [name]


@pytest.mark.parametrize("name", RESERVED, ids=ascii)
def test_a_reserved_character_works_or_is_refused(work: Work, name: str) -> None:
    """Never another file's name: either it is there under its own name, or EINVAL."""
    came = outcome((work.path / name).write_bytes, b"content")
    if came == "EINVAL":
        assert os.listdir(work.path) == []
    else:
        assert came == 7
        assert os.listdir(work.path) == [name]
        assert (work.path / name).read_bytes() == b"content"
        (work.path / name).unlink()


def test_too_long_is_said(work: Work) -> None:
    with pytest.raises(OSError, match="File name too long"):
        (work.path / ("a" * 256)).write_bytes(b"")
    with pytest.raises(OSError, match="File name too long"):
        (work.path / ("a" * 256)).stat()


def test_too_long_for_the_servers_disk_is_said(work: Work) -> None:
    """Within SMB's 255 units, and beyond the 255 bytes of most file systems of Linux."""
    name = "\N{KATAKANA LETTER A}" * 85
    (work.path / name).write_bytes(b"1")
    assert os.listdir(work.path) == [name]
    with pytest.raises(OSError, match="File name too long"):
        (work.path / (name + "x")).write_bytes(b"")
    with pytest.raises(OSError, match="File name too long"):
        (work.path / (name + "x")).stat()
    with pytest.raises(OSError, match="File name too long"):
        (work.path / name).rename(work.path / (name + "x"))


def test_composed_and_decomposed_are_two_names(work: Work) -> None:
    for form in ("NFC", "NFD"):
        (work.path / unicodedata.normalize(form, "é")).write_text(form)
    assert len(os.listdir(work.path)) == len(os.listdir(work.behind)) == 2
    for form in ("NFC", "NFD"):
        assert (work.path / unicodedata.normalize(form, "é")).read_text() == form
        (work.path / unicodedata.normalize(form, "é")).unlink()
        assert form == "NFD" or os.listdir(work.path) == [unicodedata.normalize("NFD", "é")]


@pytest.mark.parametrize("mapping", ["mapposix", "mapchars", "nomapchars"])
def test_the_mappings(mounted: Mounter, samba: Samba, mapping: str) -> None:
    """Where the server keeps what it cannot have, as the Linux client and others look for it there."""
    path = mounted(mapping).path
    name, server = {
        "mapposix": ('a*:<>?|"\\b ', "a\uf021\uf022\uf023\uf024\uf025\uf027\uf020\uf026b\uf028"),
        "mapchars": ("a*:<>?|b", "a\uf02a\uf03a\uf03c\uf03e\uf03f\uf07cb"),
        "nomapchars": ("a\uf021\uf03ab", "a\uf021\uf03ab"),
    }[mapping]
    (path / name).write_bytes(b"content")
    try:
        assert server in os.listdir(samba.directory())
        assert name in os.listdir(path)
        assert (path / name).read_bytes() == b"content"
        for other in {"mapposix": [], "mapchars": ['"', "x\\y", "x."], "nomapchars": ["*", ":", '"', "x ", "x."]}[
            mapping
        ]:
            assert outcome((path / other).write_bytes, b"") == "EINVAL"
    finally:
        (path / name).unlink()


def test_deep_paths(work: Work) -> None:
    path = work.path
    for depth in range(40):
        path = path / f"level {depth:02} {'x' * 30}"
        path.mkdir()
    (path / "file").write_bytes(b"deep down")
    assert (path / "file").read_bytes() == b"deep down"
    assert os.path.relpath(path, work.path) == os.path.relpath(
        next(folder for folder, _, files in os.walk(work.behind) if files), work.behind
    )


def test_a_path_longer_than_the_protocol_allows_fails_plainly(work: Work) -> None:
    """[MS-SMB2] gives a name 64 KiB, Samba's machine 4,096 bytes: beyond, its answer is that nothing is there."""
    descriptor = os.open(work.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for depth in range(200):  # noqa: B007 -- how far it went is looked at below
            came = outcome(os.mkdir, "y" * 200, dir_fd=descriptor)
            if came is not None:
                break
            deeper = os.open("y" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        assert came in ("ENAMETOOLONG", "EINVAL", "ENOENT", "ESTALE")
        assert depth >= 4000 // 201
    finally:
        os.close(descriptor)
    assert os.listdir(work.path) == ["y" * 200]


def test_upper_and_lower_case(work: Work) -> None:
    """One name in two spellings: what the server says, and never two entries that are one file."""
    (work.path / "Name").write_bytes(b"1")
    came = outcome((work.path / "NAME").read_bytes)
    assert came in (b"1", "ENOENT")
    (work.path / "Name").unlink()
    assert outcome((work.path / "NAME").stat) == "ENOENT"


def test_names_that_only_the_server_can_make(work: Work) -> None:
    """What Samba shows for names that SMB does not allow is listed, and whatever is listed can be used."""
    for name in ("colon:here", "star*", "back\\slash"):
        (work.behind / name).write_bytes(b"x")
    for name in os.listdir(work.path):
        assert "/" not in name
        assert name not in (".", "..")
        assert outcome((work.path / name).read_bytes) in (b"x", "ENOENT", "EINVAL")
