"""stat, chmod, utimens, truncate, statfs, access, and the options that decide owners and modes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from .conftest import Mounter, Work
from .oracle import outcome

# What is tested here is how it is without the POSIX extensions; tests/live/test_posix.py has the rest.
OPTIONS = ("noposix",)

SECOND = 1_000_000_000


def attributes_at_the_server(samba: Samba, work: Work, name: str) -> str:
    """The DOS attribute letters that another client sees."""
    listing = samba.client(f'cd "{work.name}"; allinfo "{name}"')
    return next(line.split(":")[1].split()[0] for line in listing.splitlines() if line.startswith("attributes:"))


def test_stat_tells_what_the_server_has(work: Work) -> None:
    (work.behind / "file").write_bytes(b"x" * 12345)
    os.utime(work.behind / "file", ns=(1_500_000_000 * SECOND, 1_600_000_000 * SECOND + 123_456_700))
    found = (work.path / "file").stat()
    assert stat.S_ISREG(found.st_mode)
    assert found.st_size == 12345
    assert found.st_mtime_ns == 1_600_000_000 * SECOND + 123_456_700
    assert found.st_blocks > 0
    assert found.st_nlink >= 1
    assert stat.S_ISDIR(work.path.stat().st_mode)


def test_inode_numbers_are_the_servers_and_stay(samba: Samba, mounted: Mounter) -> None:
    """From one mount to the next and across a rename; by stat and by listing."""
    place = mounted().path / "numbered"
    place.mkdir()
    for name in ("one", "two"):
        (place / name).write_bytes(b"")
    first = {name: (place / name).stat().st_ino for name in ("one", "two")}
    assert first == {name: (samba.directory() / "numbered" / name).stat().st_ino for name in first}
    again = mounted().path / "numbered"
    assert {name: (again / name).stat().st_ino for name in first} == first
    (again / "one").rename(again / "renamed")
    assert (again / "renamed").stat().st_ino == first["one"]
    listed = {entry.name: entry.inode() for entry in os.scandir(again)}
    assert listed == {"renamed": first["one"], "two": first["two"]}
    shutil.rmtree(place)


def test_without_the_servers_numbers(samba: Samba, mounted: Mounter) -> None:
    """noserverino: numbers of our own, different for different files, the same as long as a file is in use."""
    mount = mounted("noserverino")
    for name in ("own-1", "own-2"):
        samba.put(name, b"")
    numbers = [(mount.path / name).stat().st_ino for name in ("own-1", "own-2")]
    assert len(set(numbers)) == 2
    assert numbers == [(mount.path / name).stat().st_ino for name in ("own-1", "own-2")]
    assert not set(numbers) & {(samba.directory() / name).stat().st_ino for name in ("own-1", "own-2")}
    for name in ("own-1", "own-2"):
        (mount.path / name).unlink()


def test_chmod_sets_and_clears_the_read_only_attribute(work: Work, samba: Samba) -> None:
    path = work.path / "file"
    path.write_bytes(b"content")
    assert "R" not in attributes_at_the_server(samba, work, "file")
    path.chmod(path.stat().st_mode & ~0o222)
    assert "R" in attributes_at_the_server(samba, work, "file")
    assert path.stat().st_mode & 0o222 == 0
    assert outcome(path.write_bytes, b"no") in ("EACCES", "EPERM")
    assert path.read_bytes() == b"content"
    path.chmod(path.stat().st_mode | 0o200)
    assert "R" not in attributes_at_the_server(samba, work, "file")
    path.write_bytes(b"again")


def test_a_read_only_file_can_be_unlinked_and_replaced(work: Work) -> None:
    """POSIX asks the directory, not the file; SMB asks the attribute."""
    for name in ("gone", "replaced"):
        (work.path / name).write_bytes(b"old")
        (work.path / name).chmod(0o555)
    (work.path / "gone").unlink()
    (work.path / "new").write_bytes(b"new")
    (work.path / "new").rename(work.path / "replaced")
    assert sorted(os.listdir(work.behind)) == ["replaced"]
    assert (work.behind / "replaced").read_bytes() == b"new"


def test_created_read_only(work: Work, samba: Samba) -> None:
    """open(O_CREAT, 0444) gives a writable descriptor and a read-only file, as git makes its objects."""
    descriptor = os.open(work.path / "object", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
    os.write(descriptor, b"object")
    os.close(descriptor)
    assert "R" in attributes_at_the_server(samba, work, "object")
    assert (work.path / "object").read_bytes() == b"object"
    (work.path / "object").rename(work.path / "moved")
    (work.path / "moved").unlink()


def test_a_mode_that_cannot_be_kept_is_refused(work: Work) -> None:
    (work.path / "file").write_bytes(b"")
    mode = stat.S_IMODE((work.path / "file").stat().st_mode)
    assert outcome((work.path / "file").chmod, mode) is None
    assert outcome((work.path / "file").chmod, mode ^ 0o010) == "EPERM"
    assert outcome(os.chown, work.path / "file", 12345, 12345) == "EPERM"
    found = (work.path / "file").stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert outcome(os.chown, work.path / "file", found.st_uid, found.st_gid) is None


def test_noperm_keeps_quiet(mounted: Mounter) -> None:
    mount = mounted("noperm")
    path = mount.path / "noperm"
    path.write_bytes(b"")
    before = path.stat()
    path.chmod(0o700)
    os.chown(path, 12345, 12345)
    assert (path.stat().st_uid, path.stat().st_mode) == (before.st_uid, before.st_mode)
    path.unlink()


def test_owner_and_modes_are_the_mounts(mounted: Mounter) -> None:
    mount = mounted("uid=12", f"gid={UNIX_ACCOUNT}", "file_mode=0640", "dir_mode=0750")
    (mount.path / "owned").mkdir()
    (mount.path / "owned/file").write_bytes(b"")
    folder, file = (mount.path / "owned").stat(), (mount.path / "owned/file").stat()
    assert (folder.st_uid, folder.st_gid, stat.filemode(folder.st_mode)) == (12, 1, "drwxr-x---")
    assert (file.st_uid, file.st_gid, stat.filemode(file.st_mode)) == (12, 1, "-rw-r-----")
    (mount.path / "owned/file").unlink()
    (mount.path / "owned").rmdir()


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user without privileges."""
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=60, check=False)


def test_others_may_use_roots_mount_as_the_modes_say(mounted: Mounter, samba: Samba) -> None:
    samba.put("secret", b"secret")
    open_to_all = mounted("file_mode=0644", "dir_mode=0755")
    assert as_nobody("cat", open_to_all.path / "secret").stdout == "secret"
    assert "Permission denied" in as_nobody("touch", open_to_all.path / "new").stderr
    closed = mounted("file_mode=0600", "dir_mode=0755")
    assert "Permission denied" in as_nobody("cat", closed.path / "secret").stderr
    unchecked = mounted("file_mode=0600", "dir_mode=0755", "noperm")
    assert as_nobody("cat", unchecked.path / "secret").stdout == "secret"
    (open_to_all.path / "secret").unlink()


def test_access_asks_the_modes(work: Work) -> None:
    (work.path / "file").write_bytes(b"")
    assert os.access(work.path / "file", os.R_OK | os.W_OK)
    assert not os.access(work.path / "absent", os.F_OK)


@pytest.mark.parametrize("size", [0, 1, 4095, 100_000, 5_000_000])
def test_truncate_by_path_and_by_descriptor(work: Work, size: int) -> None:
    content = os.urandom(10_000)
    for way in ("path", "descriptor"):
        path = work.path / way
        path.write_bytes(content)
        if way == "path":
            os.truncate(path, size)
        else:
            with path.open("r+b") as file:
                file.truncate(size)
                assert os.fstat(file.fileno()).st_size == size
        assert path.stat().st_size == size
        assert (work.behind / way).read_bytes() == content[:size] + bytes(max(0, size - len(content)))


def test_times_can_be_set(work: Work) -> None:
    path = work.path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(1_111_111_111 * SECOND + 100, 1_222_222_222 * SECOND + 987_654_300))
    assert path.stat().st_mtime_ns == 1_222_222_222 * SECOND + 987_654_300
    assert path.stat().st_atime_ns == 1_111_111_111 * SECOND + 100
    assert (work.behind / "file").stat().st_mtime_ns == 1_222_222_222 * SECOND + 987_654_300
    before = time.time()
    os.utime(path)
    assert abs(path.stat().st_mtime - before) < 5
    os.utime(work.path, ns=(SECOND, 1_333_333_333 * SECOND))
    assert work.path.stat().st_mtime_ns == 1_333_333_333 * SECOND


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (1_600_000_000 * SECOND + 123_456_789, 1_600_000_000 * SECOND + 123_456_700),
        (1, 0),
        (-1, -100),
        (-86_400 * SECOND - 50, -86_400 * SECOND - 100),
        (2**32 * SECOND + 199, 2**32 * SECOND + 100),
    ],
)
def test_times_have_steps_of_100_ns(work: Work, wanted: int, kept: int) -> None:
    """The same in the answer, in a later one, and at the server; rounded down as local file systems do."""
    path = work.path / "file"
    path.write_bytes(b"")
    os.utime(path, ns=(wanted, wanted))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (kept, kept)
    time.sleep(1.1)  # the mount's actimeo
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (kept, kept)
    assert (work.behind / "file").stat().st_mtime_ns == kept


def test_times_that_no_server_has(work: Work) -> None:
    """Before 1601 and after the year 30828: the nearest that there is, and it is told at once."""
    path = work.path / "file"
    path.write_bytes(b"")
    for wanted, nearest in ((-20_000_000_000, -11_644_473_600), (10**13, 910_692_730_085)):
        os.utime(path, (wanted, wanted))
        told = path.stat().st_mtime_ns // SECOND
        # Newer versions of Samba tell what the disk has made of it.
        assert abs(told - nearest) <= 1 or told == (work.behind / "file").stat().st_mtime_ns // SECOND


def test_times_set_on_an_open_file_survive_its_close(work: Work) -> None:
    """As tar and cp -p do: write, utimens on the descriptor, close."""
    with (work.path / "file").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.utime(file.fileno(), ns=(SECOND, 1_222_222_222 * SECOND))
    assert (work.path / "file").stat().st_mtime == 1_222_222_222
    assert (work.behind / "file").stat().st_mtime == 1_222_222_222


def test_writing_moves_the_modification_time(work: Work) -> None:
    path = work.path / "file"
    path.write_bytes(b"one")
    os.utime(path, ns=(SECOND, SECOND))
    path.write_bytes(b"two")
    assert abs(path.stat().st_mtime - time.time()) < 10


def test_statfs(mount: Mount, samba: Samba) -> None:
    ours, theirs = os.statvfs(mount.path), os.statvfs(samba.directory())
    total = theirs.f_blocks * theirs.f_frsize
    assert abs(ours.f_blocks * ours.f_frsize - total) < total / 100
    assert abs(ours.f_bavail * ours.f_frsize - theirs.f_bavail * theirs.f_frsize) < total / 100
    assert ours.f_namemax == 255


def test_a_read_only_share_says_so(mounted: Mounter, samba: Samba) -> None:
    samba.put("here", b"content", share="readonly")
    mount = mounted(share="readonly")
    assert (mount.path / "here").read_bytes() == b"content"
    for action in (
        lambda: (mount.path / "new").write_bytes(b""),
        lambda: (mount.path / "here").write_bytes(b""),
        (mount.path / "here").unlink,
        lambda: (mount.path / "here").rename(mount.path / "there"),
        (mount.path / "folder").mkdir,
        lambda: os.truncate(mount.path / "here", 1),
    ):
        assert outcome(action) in ("EACCES", "EROFS", "EPERM")
    assert (mount.path / "here").read_bytes() == b"content"


def test_ro_is_the_kernels(mounted: Mounter) -> None:
    mount = mounted("ro")
    assert outcome((mount.path / "new").write_bytes, b"") == "EROFS"


def test_what_the_server_forbids_is_eacces(samba: Samba, mounted: Mounter) -> None:
    """A directory that belongs to root on the server: its answer arrives, whatever our modes say."""
    private = samba.directory() / "private"
    private.mkdir(mode=0o700)
    mount = mounted()
    assert outcome(os.listdir, mount.path / "private") == "EACCES"
    assert outcome((mount.path / "private/new").write_bytes, b"") == "EACCES"
    private.rmdir()
