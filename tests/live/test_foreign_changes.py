"""Other clients change what we know: what is gone is ESTALE or ENOENT, never somebody else's file."""

from __future__ import annotations

import os
import shutil

import pytest
from lab.server import Samba

from .conftest import Work
from .oracle import outcome

# A path is walked anew once its names have aged; a caller that holds the old inode then gets ENOENT or ESTALE.
GONE = ("ESTALE", "ENOENT")


def open_by_inode(descriptor: int, flags: int) -> int:
    """Open what an O_PATH descriptor stands for: the kernel asks for the inode, not for a name."""
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def swap(work: Work, samba: Samba) -> None:
    """Another client puts a different file under the name."""
    (work.behind / "file").rename(work.behind / "aside")
    samba.put(f"{work.name}/file", b"SOMEBODY ELSE'S")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_a_replaced_file_is_not_opened_in_its_place(work: Work, samba: Samba, flags: int) -> None:
    (work.path / "file").write_bytes(b"ours")
    known = os.open(work.path / "file", os.O_PATH)
    try:
        swap(work, samba)
        assert outcome(open_by_inode, known, flags) in GONE
    finally:
        os.close(known)
    assert (work.behind / "file").read_bytes() == b"SOMEBODY ELSE'S"
    assert (work.behind / "aside").read_bytes() == b"ours"


def test_a_replaced_file_is_not_truncated_in_its_place(work: Work, samba: Samba) -> None:
    (work.path / "file").write_bytes(b"ours")
    known = os.open(work.path / "file", os.O_PATH)
    try:
        swap(work, samba)
        assert outcome(os.truncate, f"/proc/self/fd/{known}", 0) in GONE
        assert outcome(os.utime, f"/proc/self/fd/{known}", (1, 1)) in GONE
        assert outcome(os.chmod, f"/proc/self/fd/{known}", 0o555) in GONE
    finally:
        os.close(known)
    assert (work.behind / "file").read_bytes() == b"SOMEBODY ELSE'S"
    assert (work.behind / "file").stat().st_mtime > 1000


def test_a_file_below_a_replaced_parent_is_not_opened(work: Work, samba: Samba) -> None:
    (work.path / "folder").mkdir()
    (work.path / "folder/file").write_bytes(b"ours")
    known = os.open(work.path / "folder/file", os.O_PATH)
    try:
        (work.behind / "folder").rename(work.behind / "aside")
        shutil.copytree(work.behind / "aside", work.behind / "folder")
        samba.put(f"{work.name}/folder/file", b"SOMEBODY ELSE'S")
        assert outcome(open_by_inode, known, os.O_RDONLY) in GONE
        assert outcome(open_by_inode, known, os.O_WRONLY | os.O_TRUNC) in GONE
    finally:
        os.close(known)
    assert (work.behind / "folder/file").read_bytes() == b"SOMEBODY ELSE'S"


def test_a_replaced_directory_is_not_listed(work: Work) -> None:
    (work.path / "folder").mkdir()
    (work.path / "folder/ours").write_bytes(b"")
    known = os.open(work.path / "folder", os.O_PATH)
    try:
        (work.behind / "folder").rename(work.behind / "aside")
        (work.behind / "folder").mkdir()
        (work.behind / "folder/theirs").write_bytes(b"")
        assert outcome(os.listdir, f"/proc/self/fd/{known}") in GONE
    finally:
        os.close(known)


def test_a_name_walked_anew_finds_the_new_file(work: Work, samba: Samba) -> None:
    """Once the name has aged (actimeo), the path leads to what is there now, under another inode number."""
    (work.path / "file").write_bytes(b"ours")
    with (work.path / "file").open("rb") as known:
        before = os.fstat(known.fileno()).st_ino
        swap(work, samba)
        deadline = os.times().elapsed + 5
        while outcome((work.path / "file").read_bytes) != b"SOMEBODY ELSE'S":
            assert os.times().elapsed < deadline, "the old file is still found 5 s later"
        assert (work.path / "file").stat().st_ino != before
        assert (work.path / "aside").stat().st_ino == before


def test_an_open_file_stays_what_it_was(work: Work, samba: Samba) -> None:
    (work.path / "file").write_bytes(b"ours")
    with (work.path / "file").open("r+b", buffering=0) as file:
        swap(work, samba)
        assert file.read() == b"ours"
        file.write(b" and more")
        assert os.fstat(file.fileno()).st_size == 13
    assert (work.behind / "aside").read_bytes() == b"ours and more"
    assert (work.behind / "file").read_bytes() == b"SOMEBODY ELSE'S"


def test_what_another_client_removed_is_gone(work: Work, samba: Samba) -> None:
    for name in ("a", "b"):
        (work.path / name).write_bytes(b"content")
    samba.client(f'cd "{work.name}"; del a')
    assert outcome((work.path / "a").unlink) in ("ENOENT", None)
    assert outcome(os.open, work.path / "a", os.O_RDWR) in GONE
    (work.path / "a").write_bytes(b"new")
    assert (work.behind / "a").read_bytes() == b"new"


def test_what_another_client_holds_open_without_sharing_is_busy(work: Work, samba: Samba) -> None:
    """smbclient's rename needs DELETE: our open file shares it, so both go on."""
    (work.path / "held").write_bytes(b"content")
    with (work.path / "held").open("rb") as file:
        samba.client(f'cd "{work.name}"; rename held moved')
        assert file.read() == b"content"
    assert (work.behind / "moved").read_bytes() == b"content"
