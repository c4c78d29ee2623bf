"""Where links lead: what the server is told and what programs are shown."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfs_world import fails

from smb3fs.trace import Trace
from smb3fs.vfs.names import NameMapping, Names
from smb3fs.vfs.targets import Targets
from smb3fs.wire.reparse import SymbolicLink


def targets(mapping: NameMapping = NameMapping.MAPPOSIX, root: str = "/mnt") -> Targets:
    return Targets(Names(mapping, Trace()), root, posix=mapping is NameMapping.POSIX)


@pytest.mark.parametrize(
    ("target", "substitute"),
    [
        (b"file", "file"),
        (b"../a/b", "..\\a\\b"),
        (b"./a//b/", ".\\a\\\\b\\"),
        (b"user@host.1:2", "user@host.1\uf0222"),
        (b"a\\b/c", "a\uf026b\\c"),
        (b"/usr/bin/python3", "/usr/bin/python3"),
        (b"/usr/a:b", "/usr/a\uf022b"),
        (b"/mnt/c", "\\??\\C:"),
        (b"/mnt/c/Program Files/x", "\\??\\C:\\Program Files\\x"),
        (b"/mnt/cd/x", "/mnt/cd/x"),
        ("/ä/\U0001f600".encode(), "/ä/\U0001f600"),
    ],
)
def test_there_and_back(target: bytes, substitute: str) -> None:
    link = targets().to_server(target)
    assert link == SymbolicLink(substitute, substitute, not target.startswith(b"/"))
    assert targets().to_kernel(link) == target


@pytest.mark.parametrize(
    ("substitute", "relative", "shown"),
    [
        ("a/b", True, b"a/b"),  # as a client with POSIX paths wrote it
        ("\\??\\D:\\", False, b"/drives/d"),
        ("\\??\\d:\\x\\y", False, b"/drives/d/x/y"),
        ("\\??\\UNC\\server\\share\\x", False, b"//server/share/x"),
        ("\\??\\Volume{1}\\x", False, b"/??/Volume{1}/x"),
        ("\\x", False, b"/x"),
        ("n" * 300, True, b"n" * 300),
        ("\ud800", True, b"\xed\xa0\x80"),
    ],
)
def test_what_others_wrote_is_shown(substitute: str, relative: bool, shown: bytes) -> None:
    ours = targets(root="/drives")
    link = SymbolicLink(substitute, "", relative)
    assert ours.to_kernel(link) == shown
    assert ours.length(link) == len(shown)


def test_what_is_no_target() -> None:
    for hostile in (SymbolicLink("", "", True), SymbolicLink("a\0b", "", True), b"", b"a\0"):
        with fails(errno.EIO):
            targets().to_kernel(hostile)
        assert targets().length(hostile) == 0


def test_what_the_server_cannot_hold() -> None:
    with fails(errno.EILSEQ):
        targets().to_server(b"\xff")
    with fails(errno.EILSEQ):
        targets().to_server("\uf022".encode())
    with fails(errno.EINVAL):
        targets(NameMapping.NOMAPCHARS).to_server(b"a:b")
    with fails(errno.ENAMETOOLONG):
        targets().to_server(b"n" * 256)
    with fails(errno.ENAMETOOLONG):
        targets().to_server(b"/".join([b"n" * 200] * 25))


def test_a_server_with_posix_names_has_the_text_itself() -> None:
    ours = targets(NameMapping.POSIX)
    for text in (b"a\\b/c:d", b"/mnt/c/x", b"/abs", b"n" * 300):
        link = ours.to_server(text)
        assert link.substitute_name == text.decode()
        assert link.relative == (not text.startswith(b"/"))
        assert ours.to_kernel(link) == text


@given(st.binary(min_size=1, max_size=60), st.sampled_from(list(NameMapping)))
def test_whatever_is_taken_comes_back(target: bytes, mapping: NameMapping) -> None:
    ours = targets(mapping)
    try:
        link = ours.to_server(target)
    except OSError:
        return
    if b"\0" not in target:
        assert ours.to_kernel(link) == target
