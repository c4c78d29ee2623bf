"""A mount with the SMB3 POSIX extensions: modes, owners, names, links and open files as a local filesystem has them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount, MountFailedError, wait_until
from lab.server import Samba

from tests.live.conftest import Mounter, Work
from tests.live.oracle import outcome


@pytest.fixture(scope="module")
def has_posix(samba: Samba, every_mount: list[Mount]) -> bool:
    """Whether this server offers the extensions: Samba does from 4.20 on, and by default from 4.23 on."""
    made = Mounter(samba, every_mount)
    try:
        return bool(made().status()["posix"])
    finally:
        made.finish()


@pytest.fixture(scope="module")
def mount(samba: Samba, every_mount: list[Mount], has_posix: bool) -> Iterator[Mount]:
    """A mount with them, for all tests here."""
    if not has_posix:
        pytest.skip(f"{samba.version()} has no POSIX extensions; with SMB3FS_SAMBA_ROOT a later one is used")
    made = Mounter(samba, every_mount)
    try:
        yield made("posix")
    finally:
        made.finish()


def test_they_can_be_demanded_and_declined(mounted: Mounter, has_posix: bool) -> None:
    assert not mounted("noposix").status()["posix"]
    if has_posix:
        assert mounted("posix").status()["posix"]
        assert not mounted("vers=3.0").status()["posix"]
    else:
        with pytest.raises(MountFailedError, match="does not offer the SMB3 POSIX extensions"):
            mounted("posix")
    with pytest.raises(MountFailedError, match=r"option posix needs SMB 3\.1\.1"):
        mounted("posix", "vers=3.0")


def test_modes(work: Work) -> None:
    path = work.path / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o640)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o640
    os.close(descriptor)
    for mode in (0o600, 0o751, 0o444, 0o000, 0o644):
        path.chmod(mode)
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((work.behind / "file").stat().st_mode) == mode
        # Samba wants the right to write of whoever sets times, even of the owner.
        assert outcome(os.utime, path, ns=(mode * 10**9, mode * 10**9)) == (None if mode & 0o200 else "EACCES")
    (work.path / "none").touch(0o000)
    (work.path / "none").rename(work.path / "no one's")
    (work.path / "no one's").unlink()
    (work.path / "folder").mkdir(0o750)
    assert stat.S_IMODE((work.behind / "folder").stat().st_mode) == 0o750
    (work.path / "folder").chmod(0o750)  # it is so already
    before = (work.behind / "file").stat().st_mode
    assert outcome(os.chmod, path, 0o4755) == "EPERM"  # Samba keeps no such bits, and nothing was changed
    assert (work.behind / "file").stat().st_mode == before
    (work.behind / "file").chmod(0o2751)
    os.sync()
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(work.path) if entry.name == "file"] == [0o2751]


def test_owners(work: Work, mounted: Mounter) -> None:
    (work.path / "ours").write_text("x")
    (work.path / "others").write_text("x")
    os.chown(work.behind / "others", 1234, 4321)
    ours, others = (work.path / "ours").stat(), os.stat(work.path / "others")
    assert ours.st_uid == os.getuid()
    assert ours.st_gid == (work.behind / "ours").stat().st_gid
    assert (others.st_uid, others.st_gid) == (1234, 4321)
    os.chown(work.path / "ours", ours.st_uid, ours.st_gid)
    assert outcome(os.chown, work.path / "ours", 4711, -1) == "EPERM"
    assert outcome(os.chown, work.path / "others", os.getuid(), -1) == "EPERM"
    assert outcome(os.chmod, work.path / "others", 0o777) == "EPERM"
    (work.path / "others").rename(work.path / "others'")
    (work.path / "others'").rename(work.path / "others")
    forced = mounted("posix", "uid=77", "gid=78").path / work.name / "others"
    assert (forced.stat().st_uid, forced.stat().st_gid) == (77, 78)
    shown = mounted("posix", "uid=77,gid=78,noforceuid,noforcegid").path / work.name
    assert ((shown / "others").stat().st_uid, (shown / "others").stat().st_gid) == (1234, 4321)
    assert (shown / "ours").stat().st_uid == 77
    (work.path / "others").unlink()


def test_modes_are_obeyed_by_the_kernel(work: Work) -> None:
    (work.path / "secret").write_text("x")
    (work.path / "secret").chmod(0o600)
    work.path.chmod(0o755)
    work.path.parent.chmod(0o755)
    read = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(work.path / "secret")]
    done = subprocess.run(read, capture_output=True, text=True, check=False)
    assert "Permission denied" in done.stderr
    (work.path / "secret").chmod(0o604)
    assert subprocess.run(read, capture_output=True, text=True, check=True).stdout == "x"


NAMES = [
    "Case",
    "case",
    "CASE",
    "a\\b",
    "a:b",
    '"*<>?|',
    "trailing. ",
    "con",
    "ä",
    "a\u0308",
    "x" * 255,
    "~",
    "new\nline",
]


def test_every_name(work: Work) -> None:
    for name in NAMES:
        (work.path / name).write_text(name)
    assert sorted(os.listdir(work.path)) == sorted(os.listdir(work.behind)) == sorted(NAMES)
    for name in NAMES:
        assert (work.path / name).read_text() == (work.behind / name).read_text() == name
        (work.path / name).rename(work.path / f"{name[:200]}-moved")
    (work.path / "fo\\l:der").mkdir()
    (work.path / "fo\\l:der" / "in\\side").write_text("x")
    assert os.listdir(work.behind / "fo\\l:der") == ["in\\side"]
    shutil.rmtree(work.path / "fo\\l:der")
    for name in NAMES:
        (work.path / f"{name[:200]}-moved").unlink()
    assert os.listdir(work.behind) == []


def test_an_open_file_is_unlinked_at_once(work: Work) -> None:
    with (work.path / "file").open("w+") as file:
        file.write("content")
        file.flush()
        (work.path / "file").unlink()
        # Its open outlives a connection, for which the server has to have a name for it.
        assert os.listdir(work.path) == []
        assert len(os.listdir(work.behind)) == 1
        assert os.fstat(file.fileno()).st_nlink == 0
        (work.path / "file").write_text("another")
        file.seek(0)
        assert file.read() == "content"
        file.write(" and more")
        file.flush()
        assert os.fstat(file.fileno()).st_size == len("content and more")
        os.ftruncate(file.fileno(), 100)
        assert os.fstat(file.fileno()).st_size == 100
        os.ftruncate(file.fileno(), 3)
        os.utime(file.fileno(), ns=(10**18, 10**18))
        assert (os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime_ns) == (3, 10**18)
    assert (work.path / "file").read_text() == "another"
    assert wait_until(lambda: os.listdir(work.behind) == ["file"], 10)


def test_an_open_file_is_replaced(work: Work) -> None:
    (work.path / "new").write_text("new")
    with (work.path / "old").open("w+") as file:
        file.write("old")
        file.flush()
        (work.path / "new").replace(work.path / "old")
        assert os.listdir(work.path) == ["old"]
        assert (work.path / "old").read_text() == "new"
        file.seek(0)
        assert file.read() == "old"
    assert wait_until(lambda: os.listdir(work.behind) == ["old"], 10)
    assert (work.path / "old").read_text() == "new"


def test_directories_are_renamed(work: Work) -> None:
    (work.path / "one").mkdir()
    (work.path / "one" / "file").write_text("content")
    with (work.path / "one" / "file").open() as file:
        (work.path / "one").rename(work.path / "two")
        assert file.read() == "content"
    (work.path / "empty").mkdir()
    (work.path / "two").rename(work.path / "empty")
    assert (work.path / "empty" / "file").read_text() == "content"
    (work.path / "other").mkdir()
    assert outcome(os.rename, work.path / "other", work.path / "empty") == "ENOTEMPTY"


def test_links_and_special_files(work: Work, mounted: Mounter) -> None:
    targets = {"relative": "a/b\\c:d", "absolute": "/etc/hostname", "drive": "/mnt/c/x"}
    for name, target in targets.items():
        (work.path / name).symlink_to(target)
    # What lies on the server's disk is told as what it is.
    (work.behind / "real").symlink_to("some/where")
    os.mkfifo(work.behind / "real fifo", 0o640)
    os.mkfifo(work.path / "fifo", 0o604)
    os.mknod(work.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (work.path / "file").write_text("content")
    os.link(work.path / "file", work.path / "FILE")
    for _ in range(2):
        kinds = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(work.path)}
        assert kinds == {
            **dict.fromkeys((*targets, "real"), stat.S_IFLNK),
            **dict.fromkeys(("fifo", "real fifo"), stat.S_IFIFO),
            "null": stat.S_IFCHR,
            "file": stat.S_IFREG,
            "FILE": stat.S_IFREG,
        }
    for name, target in {**targets, "real": "some/where"}.items():
        assert os.readlink(work.path / name) == target
        assert os.lstat(work.path / name).st_size == len(target)
    assert os.lstat(work.path / "null").st_rdev == os.makedev(1, 3)
    fresh = mounted("posix").path / work.name
    assert {entry.name for entry in os.scandir(fresh)} == {*kinds}
    assert os.lstat(fresh / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(os.lstat(work.path / "fifo").st_mode) == 0o604
    assert os.lstat(work.path / "file").st_nlink == os.lstat(work.path / "FILE").st_nlink == 2
    for name in ("relative", "real", "fifo"):
        (work.path / name).rename(work.path / f"moved {name}")
    assert os.readlink(work.path / "moved relative") == targets["relative"]
    assert os.readlink(work.path / "moved real") == "some/where"
    assert stat.S_ISFIFO(os.lstat(work.path / "moved fifo").st_mode)
    (work.path / "file").unlink()
    assert (work.path / "FILE").read_text() == "content"
    shutil.rmtree(work.path)
    work.path.mkdir()


def test_the_filesystem_counts_its_files(mount: Mount, samba: Samba) -> None:
    seen, real = os.statvfs(mount.path), os.statvfs(samba.directory())
    assert (seen.f_frsize, seen.f_blocks, seen.f_files) == (real.f_frsize, real.f_blocks, real.f_files)


def test_a_copy_keeps_what_a_local_one_keeps(work: Work, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "tool").write_text("#!/bin/sh\necho it works\n")
    (source / "bin" / "tool").chmod(0o750)
    (source / "bin" / "link").symlink_to("tool")
    os.link(source / "bin" / "tool", source / "same")
    (source / "private").mkdir(0o700)
    subprocess.run(["rsync", "-rlptH", f"{source}/", f"{work.path}/"], check=True)
    second = subprocess.run(
        ["rsync", "-rlptH", "--out-format=%i %n", f"{source}/", f"{work.path}/"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert second.stdout == ""
    assert (
        subprocess.run([work.path / "bin" / "link"], capture_output=True, text=True, check=True).stdout == "it works\n"
    )
    assert stat.S_IMODE((work.path / "private").stat().st_mode) == 0o700
    assert (work.path / "same").samefile(work.path / "bin" / "tool")


def test_it_all_holds_after_a_reconnect(mounted: Mounter, own_samba: Samba, has_posix: bool) -> None:
    if not has_posix:
        pytest.skip("this server has no POSIX extensions")
    mount = mounted("posix", server=own_samba)
    (mount.path / "a\\b").write_text("content")
    (mount.path / "a\\b").chmod(0o640)
    own_samba.restart()
    for _ in range(100):
        if outcome(os.stat, mount.path / "a\\b") not in ("EIO", "ENOTCONN"):
            break
    assert (mount.path / "a\\b").read_text() == "content"
    assert stat.S_IMODE((mount.path / "a\\b").stat().st_mode) == 0o640
    assert errno.errorcode[errno.ENOENT] == outcome(os.stat, mount.path / "A\\B")
