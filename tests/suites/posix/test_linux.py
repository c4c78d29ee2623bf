"""What Linux offers beside POSIX, and what several processes and several mounts see of each other."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import Samba
from live.oracle import outcome

from ..conftest import Mounter, Work
from .scene import Descriptor, libc

RW = os.O_RDWR | os.O_CREAT
APPEND = """
import os, sys
number = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for count in range(60):
    os.write(number, f"{sys.argv[2]}:{count:04}\\n".encode() * 20)
"""
TRY_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(11)
"""


def test_appending_is_atomic_among_processes(work: Work) -> None:
    """Four processes, one log: every write whole, none over another."""
    path = work.path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, path, str(who)]) for who in range(4)]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    lines = (work.behind / "log").read_text().splitlines()
    assert len(lines) == 4 * 60 * 20
    blocks = [lines[place : place + 20] for place in range(0, len(lines), 20)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert len({block[0] for block in blocks}) == 240


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_keeps_other_processes_out(work: Work, kind: str) -> None:
    (work.path / "file").write_bytes(b"")
    with Descriptor(work.path / "file", RW) as number:
        getattr(fcntl, kind)(number, fcntl.LOCK_EX)
        other = [sys.executable, "-c", TRY_LOCK, str(work.path / "file"), kind]
        assert subprocess.run(other).returncode == 11
        getattr(fcntl, kind)(number, fcntl.LOCK_UN)
        assert subprocess.run(other).returncode == 0


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_keeps_other_clients_out(work: Work, mounted: Mounter, kind: str) -> None:
    """Another mount stands for another machine."""
    (work.path / "file").write_bytes(b"")
    elsewhere = mounted().path / work.name / "file"
    with Descriptor(work.path / "file", RW) as number:
        getattr(fcntl, kind)(number, fcntl.LOCK_EX)
        came = subprocess.run([sys.executable, "-c", TRY_LOCK, elsewhere, kind]).returncode
        assert came == 11, f"locked twice, status {came}"


def watch(path: Path, mask: int) -> int:
    """inotify_init(2) and inotify_add_watch(2)."""
    number = libc("inotify_init1", os.O_NONBLOCK)
    libc("inotify_add_watch", number, os.fsencode(path), mask)
    return number


def events(number: int, seconds: float) -> bytes:
    """What inotify has told within some time."""
    return os.read(number, 4096) if select.select([number], [], [], seconds)[0] else b""


def test_inotify_tells_what_this_machine_does(work: Work) -> None:
    number = watch(work.path, 0x100)  # IN_CREATE
    (work.path / "made").write_bytes(b"")
    assert b"made" in events(number, 5)
    os.close(number)


def test_inotify_tells_what_others_do(work: Work) -> None:
    number = watch(work.path, 0x100)  # IN_CREATE
    (work.behind / "made").write_bytes(b"")
    told = events(number, 1)
    os.close(number)
    assert b"made" in told, "inotify is silent"


def test_what_others_do_is_seen_within_a_second_or_two(work: Work) -> None:
    """actimeo=1: a new name, a new size, a name that has gone."""
    assert os.listdir(work.path) == []
    assert not (work.path / "theirs").exists()
    (work.behind / "theirs").write_bytes(b"one")
    deadline = os.times().elapsed + 6
    while not (work.path / "theirs").exists():
        assert os.times().elapsed < deadline
    (work.behind / "theirs").write_bytes(b"longer")
    while (work.path / "theirs").stat().st_size != 6:
        assert os.times().elapsed < deadline
    (work.behind / "theirs").unlink()
    while (work.path / "theirs").exists():
        assert os.times().elapsed < deadline


def test_types_are_told_by_readdir(work: Work) -> None:
    """d_type of directories and files, without a stat."""
    (work.path / "folder").mkdir()
    (work.path / "file").write_bytes(b"")
    with os.scandir(work.path) as entries:
        found = {
            entry.name: (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)) for entry in entries
        }
    assert found == {"folder": (True, False), "file": (False, True)}


def test_inode_numbers_agree(work: Work) -> None:
    """stat, readdir and fstat tell one number, which a rename does not change."""
    (work.path / "file").write_bytes(b"")
    number = (work.path / "file").stat().st_ino
    assert {entry.name: entry.inode() for entry in os.scandir(work.path)} == {"file": number}
    (work.path / "file").rename(work.path / "moved")
    assert (work.path / "moved").stat().st_ino == number
    with Descriptor(work.path / "moved", os.O_RDONLY) as descriptor:
        assert os.fstat(descriptor).st_ino == number


def test_links_of_a_directory(work: Work) -> None:
    """Two and one for each directory in it, or a number by which programs know not to count on that."""
    (work.path / "folder/sub").mkdir(parents=True)
    assert (work.path / "folder").stat().st_nlink == 3


def test_find_does_not_trust_the_number_of_links(work: Work) -> None:
    """find(1) once skipped directories by it."""
    for number in range(3):
        (work.path / f"a/b{number}/c").mkdir(parents=True)
    told = subprocess.run(["find", work.path, "-type", "d"], capture_output=True, text=True, check=True)
    assert len(told.stdout.splitlines()) == 8


def test_statfs(work: Work) -> None:
    found = os.statvfs(work.path)
    assert found.f_blocks >= found.f_bfree >= found.f_bavail > 0
    assert found.f_namemax == 255
    assert found.f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV


def test_the_number_of_files(work: Work) -> None:
    """df -i."""
    found = os.statvfs(work.path)
    assert found.f_files > found.f_ffree > 0


def test_a_mapping_of_what_is_not_cached(mounted: Mounter, samba: Samba) -> None:
    """cache=none: what is written through memory is on the server; kernels before 6.6 map nothing but to read."""
    path = mounted("cache=none").path / "uncached"
    path.write_bytes(b"content")
    with Descriptor(path, os.O_RDWR) as number:
        private = mmap.mmap(number, 7, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        assert private[:] == b"content"
        private.close()
        if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 6):
            assert outcome(mmap.mmap, number, 7) == "ENODEV"
        else:
            with mmap.mmap(number, 7) as shared:
                shared[:] = b"CONTENT"
                shared.flush()
            assert (samba.directory() / "uncached").read_bytes() == b"CONTENT"
    path.unlink()


def test_beyond_the_end_of_a_mapping(work: Work) -> None:
    """A file that has been cut shorter: the page that is left is zeros behind the end."""
    (work.path / "file").write_bytes(b"x" * 5000)
    with Descriptor(work.path / "file", os.O_RDWR) as number:
        mapped = mmap.mmap(number, 5000)
        os.ftruncate(number, 10)
        assert mapped[:20] == b"x" * 10 + bytes(10)
        mapped.close()


def test_sendfile_and_splice(work: Work) -> None:
    data = os.urandom(200_000)
    (work.path / "file").write_bytes(data)
    read, write = os.pipe()
    with Descriptor(work.path / "file", os.O_RDONLY) as source, Descriptor(work.path / "copy", RW) as target:
        sent = 0
        while sent < len(data):
            moved = os.splice(source, write, 65_536, offset_src=sent)
            while moved:
                count = os.splice(read, target, moved, offset_dst=sent)
                sent, moved = sent + count, moved - count
    os.close(read)
    os.close(write)
    with Descriptor(work.path / "copy", os.O_RDONLY) as source, Descriptor(work.path / "again", RW) as target:
        assert os.sendfile(target, source, 0, len(data)) == len(data)
    assert (work.behind / "again").read_bytes() == data


class Timestamp(ctypes.Structure):
    """struct statx_timestamp, linux/stat.h."""

    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_uint32), ("reserved", ctypes.c_int32))


def time_of_birth(path: Path) -> int | None:
    """statx(2)'s stx_btime in seconds; None where the filesystem tells none."""
    buffer = ctypes.create_string_buffer(256)
    birth = 0x800
    libc("statx", -100, os.fsencode(path), 0, birth, buffer)
    mask = ctypes.c_uint32.from_buffer(buffer, 0).value
    return int(Timestamp.from_buffer(buffer, 80).seconds) if mask & birth else None


def test_time_of_birth(work: Work) -> None:
    """statx's, which FUSE passes on from a driver that answers STATX."""
    (work.path / "file").write_bytes(b"")
    os.utime(work.path / "file", (1, 1))
    born = time_of_birth(work.path / "file")
    assert born is not None, "no time of birth"
    assert abs(born - (work.behind / "file").stat().st_ctime) < 100


def test_umask(work: Work) -> None:
    """What a new file may not have, by the mask of the process."""
    before = os.umask(0o077)
    try:
        (work.path / "file").write_bytes(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((work.path / "file").stat().st_mode) & 0o077 == 0, "others may"


def test_access_lists(work: Work) -> None:
    """POSIX access lists, as setfacl(1) sets them: one more user may read."""
    (work.path / "file").write_bytes(b"")
    entries = ((1, 6, -1), (2, 4, 12), (4, 4, -1), (16, 4, -1), (32, 4, -1))
    packed = (2).to_bytes(4, "little")
    packed += b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(work.path / "file", "system.posix_acl_access", packed)
    assert os.getxattr(work.path / "file", "system.posix_acl_access") == packed


def test_flags_of_chattr(work: Work) -> None:
    """FS_IOC_GETFLAGS."""
    (work.path / "file").write_bytes(b"")
    with Descriptor(work.path / "file", os.O_RDONLY) as number:
        fcntl.ioctl(number, 0x80086601, bytearray(8))


def test_map_of_extents(work: Work) -> None:
    """FS_IOC_FIEMAP."""
    (work.path / "file").write_bytes(b"content")
    with Descriptor(work.path / "file", os.O_RDONLY) as number:
        fcntl.ioctl(number, 0xC020660B, bytearray(b"\0" * 8 + b"\xff" * 8 + b"\0" * 16))


def test_clones(work: Work) -> None:
    """FICLONE, as cp --reflink=always asks for it."""
    (work.path / "file").write_bytes(b"content")
    with Descriptor(work.path / "file", os.O_RDONLY) as source, Descriptor(work.path / "copy", RW) as target:
        fcntl.ioctl(target, 0x40049409, source)
    assert (work.behind / "copy").read_bytes() == b"content"


def test_leases(work: Work) -> None:
    """F_SETLEASE: to be told before another process opens the file."""
    (work.path / "file").write_bytes(b"")
    with Descriptor(work.path / "file", os.O_RDONLY) as number:
        fcntl.fcntl(number, 1024, fcntl.F_RDLCK)


def test_handles_of_files(work: Work) -> None:
    """name_to_handle_at(2), by which a kernel's NFS server would export the mount."""
    (work.path / "file").write_bytes(b"")
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132), 136)
    mount_id = ctypes.create_string_buffer(8)
    libc("name_to_handle_at", -100, os.fsencode(work.path / "file"), handle, mount_id, 0)


def test_a_file_of_the_mount_as_a_disk(work: Work, tmp_path: Path) -> None:
    """A filesystem in a file of the mount, by mkfs and its checker; no loop device is needed for that."""
    if not Path("/sbin/mkfs.ext4").exists():
        pytest.skip("no mkfs.ext4 here")
    with Descriptor(work.path / "disk", RW) as number:
        os.ftruncate(number, 8 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", work.path / "disk"], check=True, capture_output=True)
    subprocess.run(["/sbin/e2fsck", "-fn", work.behind / "disk"], check=True, capture_output=True)


def test_the_kernel_may_read_ahead(mount: Mount, work: Work) -> None:
    """A file read in small pieces costs few requests: the kernel asks for more than the program does."""
    (work.behind / "file").write_bytes(os.urandom(4 << 20))
    before = mount.status()["requests"].get("READ", 0)
    with (work.path / "file").open("rb", buffering=0) as file:
        while file.read(4096):
            pass
    assert mount.status()["requests"]["READ"] - before < 1024 // 8


def test_the_mount_as_a_working_directory(work: Work) -> None:
    """getcwd(3), .., and relative paths; where the directory is removed the process goes on without it."""
    (work.path / "here").mkdir()
    told = subprocess.run(["sh", "-c", "pwd; cd ..; ls; cd here; rmdir ../here; ls"], cwd=work.path / "here",
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert told.stdout.splitlines() == [str(work.path / "here"), "here"]
    assert os.listdir(work.behind) == []
