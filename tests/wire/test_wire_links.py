"""Reparse points and Minshall and French's links, byte by byte; modes of the POSIX extensions."""

from __future__ import annotations

import stat

import pytest

from smb3fs.errors import WireError
from smb3fs.wire import posix
from smb3fs.wire.mfsymlink import SIZE, TARGET_MAX, MfSymlink
from smb3fs.wire.reparse import LxSymlink, NfsSpecialFile, NfsType, ReparsePoint, ReparseTag, SymbolicLink


def test_a_symbolic_link_as_samba_tells_it() -> None:
    data = bytes.fromhex("0000 0600 0600 0600 01000000 61005c006200 61005c006200")
    assert SymbolicLink.parse(data) == SymbolicLink("a\\b", "a\\b", True)
    assert SymbolicLink("a\\b", "a\\b", True).encode() == data


def test_a_device_as_samba_tells_it() -> None:
    data = bytes.fromhex("4348520000000000 01000000 03000000")
    assert NfsSpecialFile.parse(data) == NfsSpecialFile(NfsType.CHR, "", 1, 3)
    whole = ReparsePoint(ReparseTag.NFS, data).encode()
    assert whole == bytes.fromhex("14000080 1000 0000") + data


def test_a_foreign_tag_has_a_guid_in_front_of_its_data() -> None:
    foreign = bytes.fromhex("17000000 0200 0000") + bytes(range(16)) + b"xy"
    assert ReparsePoint.parse(foreign) == ReparsePoint(0x17, b"xy")


def test_what_is_no_link_of_wsl() -> None:
    with pytest.raises(WireError):
        LxSymlink.parse(b"\1\0\0\0target")


def test_a_link_of_minshall_and_french() -> None:
    content = MfSymlink(b"target").encode()
    assert content.startswith(b"XSym\n0006\n42aefbae01d2dfd981f7da7d823d689e\ntarget\n ")
    assert len(content) == SIZE == 1067
    assert MfSymlink.parse(content).target == b"target"
    longest = MfSymlink(b"x" * TARGET_MAX)
    assert MfSymlink.parse(longest.encode()) == longest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"XSym\n",
        bytes(SIZE),
        MfSymlink(b"target").encode()[:-1],
        MfSymlink(b"target").encode() + b" ",
        MfSymlink(b"target").encode().replace(b"target", b"tarkhn"),
        MfSymlink(b"target").encode().replace(b"0006", b"1025"),
        MfSymlink(b"target").encode().replace(b"0006", b"+006"),
    ],
)
def test_a_file_that_is_none(content: bytes) -> None:
    with pytest.raises(WireError):
        MfSymlink.parse(content)


@pytest.mark.parametrize(
    ("wire", "mode"),
    [
        (0o000644, stat.S_IFREG | 0o644),
        (0o011777, stat.S_IFDIR | 0o1777),
        (0o020777, stat.S_IFLNK | 0o777),
        (0o030666, stat.S_IFCHR | 0o666),
        (0o040660, stat.S_IFBLK | 0o660),
        (0o050600, stat.S_IFIFO | 0o600),
        (0o060755, stat.S_IFSOCK | 0o755),
    ],
)
def test_modes(wire: int, mode: int) -> None:
    assert posix.mode_from_wire(wire) == mode
    assert posix.mode_to_wire(mode) == wire
    assert stat.S_IFMT(posix.mode_from_wire(wire | 0o70000)) == stat.S_IFREG
