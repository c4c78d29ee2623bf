"""Symbolic links, hard links and special files on a mount without the POSIX extensions."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from smb3fs.wire.reparse import LxSymlink, NfsSpecialFile, NfsType, ReparsePoint, ReparseTag
from tests.live.conftest import Mounter
from tests.live.oracle import outcome


@pytest.fixture(scope="module")
def has_points(samba: Samba, every_mount: list[Mount]) -> bool:
    """Whether this server keeps reparse points: Samba does from 4.18 on."""
    version = samba.version().split()[1].split(".")
    return (int(version[0]), int(version[1])) >= (4, 18)


@pytest.fixture
def links(mounted: Mounter) -> Path:
    """A directory on a mount that makes links in files, which every server keeps."""
    path = mounted("mfsymlinks,noposix").path / f"links-{os.urandom(4).hex()}"
    path.mkdir()
    return path


def test_links_in_files(links: Path, samba: Samba, mounted: Mounter) -> None:
    (links / "folder").mkdir()
    (links / "folder" / "file").write_text("content")
    for name, target in {
        "relative": "folder/file",
        "up": "../" + links.name + "/folder",
        "absolute": "/etc/hostname",
        "dangling": "nowhere",
        "odd": "a\\b:c?é",
        "long": "x" * 1024,
    }.items():
        (links / name).symlink_to(target)
        assert os.readlink(links / name) == target
        assert os.lstat(links / name).st_size == len(target.encode())
        assert (samba.directory() / links.name / name).stat().st_size == 1067
    assert (links / "relative").read_text() == "content"
    assert (links / "up" / "file").read_text() == "content"
    assert outcome(os.symlink, "x", links / "folder") == "EEXIST"
    assert outcome(os.symlink, "x" * 1025, links / "too long") == "ENAMETOOLONG"
    assert outcome(os.open, links / "dangling", os.O_RDONLY) == "ENOENT"
    # Whoever lists sees no plain files where there are links, from a fresh mount as well.
    fresh = mounted("mfsymlinks,noposix").path / links.name
    for place in (links, fresh):
        assert {entry.name for entry in os.scandir(place) if entry.is_symlink()} == {
            "relative",
            "up",
            "absolute",
            "dangling",
            "odd",
            "long",
        }
    assert outcome(os.readlink, links / "folder") == "EINVAL"
    # ... and to whom the option is not given they are files.
    plain = mounted("noposix").path / links.name
    assert not (plain / "relative").is_symlink()
    assert (plain / "relative").stat().st_size == 1067


def test_links_are_renamed_replaced_and_removed_by_themselves(links: Path) -> None:
    (links / "file").write_text("content")
    (links / "link").symlink_to("file")
    (links / "link").rename(links / "moved")
    assert os.readlink(links / "moved") == "file"
    (links / "other").symlink_to("elsewhere")
    (links / "other").replace(links / "moved")
    assert os.readlink(links / "moved") == "elsewhere"
    (links / "moved").unlink()
    assert (links / "file").read_text() == "content"
    assert sorted(os.listdir(links)) == ["file"]


def test_a_file_that_looks_like_a_link_by_its_size(links: Path) -> None:
    (links / "file").write_bytes(b"x" * 1067)
    assert (links / "file").is_file()
    assert not (links / "file").is_symlink()
    assert (links / "file").read_bytes() == b"x" * 1067
    assert [entry.is_file(follow_symlinks=False) for entry in os.scandir(links)] == [True]


def test_times_of_a_link_are_its_own(links: Path) -> None:
    (links / "file").write_text("content")
    (links / "link").symlink_to("file")
    before = (links / "file").stat().st_mtime_ns
    os.utime(links / "link", ns=(10**18, 10**18), follow_symlinks=False)
    assert os.lstat(links / "link").st_mtime_ns == 10**18
    assert (links / "file").stat().st_mtime_ns == before


def test_an_archive_with_links_comes_back_the_same(links: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python3.11").write_text("#!")
    (made / "bin" / "python3").symlink_to("python3.11")
    (made / "bin" / "python").symlink_to("python3")
    (made / "lib64").symlink_to("lib")
    os.link(made / "bin" / "python3.11", made / "second")
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        archive.add(made, "made")
    subprocess.run(["tar", "-xf", tmp_path / "archive.tar", "-C", links, "--no-same-owner"], check=True)
    assert (links / "made" / "bin" / "python").read_text() == "#!"
    assert os.readlink(links / "made" / "lib64") == "lib"
    assert (links / "made" / "second").samefile(links / "made" / "bin" / "python3.11")
    result = subprocess.run(
        ["rsync", "-rlHtni", "--out-format=%i %n", f"{made}/", f"{links}/made/"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert [line for line in result.stdout.splitlines() if not line.startswith(".")] == []


def test_native_links(mounted: Mounter, samba: Samba, has_points: bool) -> None:
    place = mounted("noposix").path
    if not has_points:
        assert outcome(os.symlink, "target", place / "native") == "EPERM"
        assert outcome(os.mkfifo, place / "fifo") == "EPERM"
        assert sorted(os.listdir(place)) == sorted(os.listdir(samba.directory()))
        return
    folder = place / "native"
    folder.mkdir()
    targets = {"relative": "a/b", "absolute": "/etc/hostname", "odd": "x:y\\z", "drive": "/mnt/c/Windows", "up": "../x"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    fresh = mounted("noposix").path / "native"
    for where in (folder, fresh):
        assert {entry.name: os.readlink(entry) for entry in os.scandir(where) if entry.is_symlink()} == targets
        assert {name: os.lstat(where / name).st_size for name in targets} == {
            name: len(target) for name, target in targets.items()
        }
    (folder / "relative").rename(folder / "moved")
    assert os.readlink(folder / "moved") == "a/b"
    assert os.readlink(mounted("noposix").path / "native" / "moved") == "a/b"
    os.utime(folder / "moved", ns=(10**18, 10**18), follow_symlinks=False)
    assert (os.readlink(folder / "moved"), os.lstat(folder / "moved").st_mtime_ns) == ("a/b", 10**18)
    os.link(folder / "moved", folder / "second", follow_symlinks=False)
    assert os.readlink(folder / "second") == "a/b"
    (folder / "moved").unlink()
    assert outcome(os.lstat, folder / "moved") == "ENOENT"


def test_special_files(mounted: Mounter, samba: Samba, has_points: bool) -> None:
    if not has_points:
        pytest.skip("Samba before 4.18 keeps no special files, see test_native_links")
    folder = mounted("noposix").path / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o644)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 17))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    behind = samba.directory() / "special"
    os.mkfifo(behind / "real fifo")  # Samba shows the real ones in the same notation
    os.chown(behind / "real fifo", 1, 1)
    fresh = mounted("noposix").path / "special"
    for where in (folder, fresh):
        found = {name: os.lstat(where / name) for name in os.listdir(where)}
        assert {name: stat.S_IFMT(told.st_mode) for name, told in found.items()} == {
            "fifo": stat.S_IFIFO,
            "real fifo": stat.S_IFIFO,
            "null": stat.S_IFCHR,
            "disk": stat.S_IFBLK,
            "socket": stat.S_IFSOCK,
        }
        assert (found["null"].st_rdev, found["disk"].st_rdev) == (os.makedev(1, 3), os.makedev(8, 17))
    # A pipe connects the programs of this machine.
    writer = subprocess.Popen(["sh", "-c", f'echo through > "{folder}/fifo"'])
    assert (folder / "fifo").read_text() == "through\n"
    assert writer.wait() == 0
    for name in os.listdir(folder):
        (folder / name).unlink()
    assert os.listdir(behind) == []


def test_links_can_be_switched_off(mounted: Mounter) -> None:
    place = mounted("symlink=none,reparse=none").path
    assert outcome(os.symlink, "target", place / "none") == "EPERM"
    assert outcome(os.mkfifo, place / "none") == "EPERM"


def test_hard_links(mounted: Mounter, samba: Samba) -> None:
    folder = mounted("noposix").path / "hard"
    folder.mkdir()
    (folder / "one").write_text("content")
    os.link(folder / "one", folder / "two")
    one, two = (folder / "one").stat(), (folder / "two").stat()
    assert (one.st_ino, one.st_nlink) == (two.st_ino, two.st_nlink) == (one.st_ino, 2)
    assert (samba.directory() / "hard" / "one").stat().st_nlink == 2
    with (folder / "two").open("a") as file:
        file.write(" and more")
    assert (folder / "one").read_text() == "content and more"
    assert {entry.name: entry.stat().st_nlink for entry in os.scandir(folder)} == {"one": 2, "two": 2}
    assert outcome(os.link, folder / "one", folder / "two") == "EEXIST"
    assert outcome(os.link, folder, folder / "three") == "EPERM"
    assert outcome(os.link, folder / "absent", folder / "three") == "ENOENT"
    # POSIX: renaming one name onto the other leaves both.
    (folder / "one").rename(folder / "two")
    assert sorted(os.listdir(folder)) == ["one", "two"]
    (folder / "one").unlink()
    assert (folder / "two").read_text() == "content and more"
    assert (folder / "two").stat().st_nlink == 1


def test_a_name_of_an_open_file_goes_and_the_other_one_stays(mounted: Mounter) -> None:
    folder = mounted("noposix").path / "open-links"
    folder.mkdir()
    with (folder / "one").open("w+") as file:
        file.write("content")
        file.flush()
        os.link(folder / "one", folder / "two")
        (folder / "one").unlink()
        assert os.listdir(folder) == ["two"]
        file.seek(0)
        assert file.read() == "content"
    assert (folder / "two").read_text() == "content"
    assert os.listdir(folder) == ["two"]


def test_replacing_an_open_file(mounted: Mounter, samba: Samba) -> None:
    """A file of ours that is open when it is renamed over is set aside, and deleted at its last close."""
    folder = mounted("noposix").path / "replaced"
    folder.mkdir()
    (folder / "new").write_text("new")
    with (folder / "old").open("w+") as file:
        file.write("old")
        file.flush()
        (folder / "new").replace(folder / "old")
        assert (folder / "old").read_text() == "new"
        assert os.listdir(folder) == ["old"]
        file.seek(0)
        assert file.read() == "old"
        file.write(" and more")
        file.flush()
        assert os.fstat(file.fileno()).st_size == len("old and more")
    for _ in range(50):
        if os.listdir(samba.directory() / "replaced") == ["old"]:
            break
    assert (samba.directory() / "replaced" / "old").read_text() == "new"
    assert os.listdir(folder) == ["old"]


def test_links_on_the_servers_own_disk(mounted: Mounter, samba: Samba) -> None:
    """Without the POSIX extensions Samba follows links that lie on its disk, and shows what they lead to."""
    folder = samba.directory() / "own-links"
    folder.mkdir()
    os.chown(folder, 1, 1)
    (folder / "file").write_text("content")
    (folder / "link").symlink_to("file")
    os.chown(folder / "file", 1, 1)
    seen = mounted("noposix").path / "own-links"
    assert (seen / "link").read_text() == "content"
    assert stat.S_ISREG(os.lstat(seen / "link").st_mode)
    assert sorted(entry.name for entry in os.scandir(seen) if entry.is_file(follow_symlinks=False)) == ["file", "link"]


def test_what_others_made(mounted: Mounter, samba: Samba, has_points: bool) -> None:
    """Reparse points in the notations of WSL and of Windows' NFS server, as Samba keeps them on its disk."""
    if not has_points:
        pytest.skip("Samba before 4.18 keeps no reparse points")
    folder = samba.directory() / "made-by-others"
    folder.mkdir()
    for name, tag, data in (
        ("wsl link", ReparseTag.LX_SYMLINK, LxSymlink(b"some/where").encode()),
        ("wsl pipe", ReparseTag.LX_FIFO, b""),
        ("wsl null", ReparseTag.LX_CHR, b""),
        ("nfs link", ReparseTag.NFS, NfsSpecialFile(NfsType.LNK, "some/where").encode()),
    ):
        path = folder / name
        path.touch()
        os.setxattr(path, "user.SmbReparse", ReparsePoint(tag, data).encode())
        # Samba's DOS attributes in version 5 ("store dos attributes"): no times, FILE_ATTRIBUTE_REPARSE_POINT.
        os.setxattr(path, "user.DOSATTRIB", struct.pack("<HHIIIQ", 0, 5, 5, 1, 0x400, 0))
    os.setxattr(folder / "wsl null", "user.$LXDEV", struct.pack("<II", 1, 3))
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, UNIX_ACCOUNT)
    seen = mounted("noposix").path / "made-by-others"
    kinds = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(seen)}
    assert kinds == {
        "wsl link": stat.S_IFLNK,
        "wsl pipe": stat.S_IFIFO,
        "wsl null": stat.S_IFCHR,
        "nfs link": stat.S_IFLNK,
    }
    assert os.readlink(seen / "wsl link") == os.readlink(seen / "nfs link") == "some/where"
    assert os.lstat(seen / "wsl null").st_rdev == os.makedev(1, 3)
