"""Copies that never come here, holes, and space: what programs do with them, and what is behind the server's back."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Mounter, Work

MIB = 1 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
# What an open for reading brings along, without being asked, of however large a file.
HEAD = 65536
# More than one request's worth, and odd.
SIZE = 40 * MIB + 4321
# Blocks of 512 bytes in which a disk may describe where a file's pieces are.
DESCRIPTION = 64


def data_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def run(*command: object) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def extents(path: Path) -> list[tuple[int, int]]:
    """Where a file has data, as lseek(2) tells."""
    found, position = [], 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            assert start < position <= size
            found.append((start, position))
    return found


def moved(mount: Mount) -> dict[str, int]:
    """The counters of bytes."""
    told: dict[str, int] = mount.status()["bytes"]
    return told


def check_copy(mount: Mount, source: Path, target: Path, behind: Path, *command: str) -> None:
    """Copy by a command, and see that the server has done it and has done it right."""
    before, size = moved(mount), source.stat().st_size
    run(*command, source, target)
    after = moved(mount)
    assert after["written"] == before["written"]
    assert after["read"] - before["read"] <= HEAD
    assert after["copied"] - before["copied"] == size
    assert target.stat().st_size == size
    run("cmp", behind / source.name, behind / target.name)


@pytest.mark.parametrize(
    "command", [("cp",), ("cp", "--reflink=auto"), ("cp", "--preserve=timestamps"), ("cp", "--sparse=auto")]
)
def test_cp_moves_nothing_here(mount: Mount, work: Work, samba: Samba, command: tuple[str, ...]) -> None:
    samba.put(f"{work.name}/from", data_of(SIZE))
    check_copy(mount, work.path / "from", work.path / "to", work.behind, *command)


@pytest.mark.parametrize("size", [0, 1, 4095, 65537, MIB, 16 * MIB + 1])
def test_copies_of_all_sizes(work: Work, samba: Samba, size: int) -> None:
    samba.put(f"{work.name}/from", data_of(size))
    run("cp", work.path / "from", work.path / "to")
    assert (work.behind / "to").read_bytes() == data_of(size)


@pytest.mark.parametrize("options", [["seal"], ["vers=2.1"], ["vers=3.0"], ["cache=none"], ["nobrl"]], ids=str)
def test_by_every_kind_of_session(mounted: Mounter, samba: Samba, options: list[str]) -> None:
    mount = mounted(*options)
    samba.put("from", data_of(SIZE))
    check_copy(mount, mount.path / "from", mount.path / "to", samba.directory(), "cp")
    for name in ("from", "to"):
        (mount.path / name).unlink()


def test_programs_in_python_and_parts_of_files(work: Work, samba: Samba) -> None:
    data = data_of(3 * MIB)
    samba.put(f"{work.name}/from", data)
    with (work.path / "from").open("rb") as source, (work.path / "to").open("w+b", buffering=0) as target:
        target.write(b"x" * MIB)
        assert target.seek(0) == 0
        assert target.read() == b"x" * MIB
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB, 17, MIB // 2) == MIB
        # What was in the page cache is not what is shown.
        assert os.pread(target.fileno(), 4 * MIB, 0) == b"x" * (MIB // 2) + data[17 : MIB + 17]
        assert os.fstat(target.fileno()).st_size == MIB + MIB // 2
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB, 3 * MIB, 0) == 0
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB, 3 * MIB - 5, 0) == 5
        # Within one file, side by side; over itself the kernel refuses.
        assert os.copy_file_range(target.fileno(), target.fileno(), 1000, 0, 5000) == 1000
        with pytest.raises(OSError, match="Invalid argument"):
            os.copy_file_range(target.fileno(), target.fileno(), 1000, 0, 500)
    expected = bytearray(b"x" * (MIB // 2) + data[17 : MIB + 17])
    expected[:5] = data[-5:]
    expected[5000:6000] = expected[:1000]
    assert (work.behind / "to").read_bytes() == expected


def test_the_times_of_a_copy_are_its_own(work: Work, samba: Samba) -> None:
    samba.put(f"{work.name}/from", data_of(MIB))
    os.utime(samba.put(f"{work.name}/to", b""), (10**9, 10**9))
    with (work.path / "from").open("rb") as source, (work.path / "to").open("r+b") as target:
        assert os.fstat(target.fileno()).st_mtime == 10**9
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB) == MIB
    assert (work.path / "to").stat().st_mtime > 1_700_000_000
    assert (work.path / "to").stat().st_mtime_ns == (work.behind / "to").stat().st_mtime_ns // 100 * 100


COPIER = """
import fcntl, os, sys
source, target = open(sys.argv[1], "rb"), open(sys.argv[2], "r+b")
fcntl.lockf(source, fcntl.LOCK_SH)
fcntl.lockf(target, fcntl.LOCK_EX)
print(os.copy_file_range(source.fileno(), target.fileno(), 1 << 30))
"""


def test_under_locks(work: Work, samba: Samba) -> None:
    samba.put(f"{work.name}/from", data_of(SIZE))
    samba.put(f"{work.name}/to", b"")
    assert run(sys.executable, "-c", COPIER, work.path / "from", work.path / "to") == f"{SIZE}\n"
    assert (work.behind / "to").read_bytes() == data_of(SIZE)


def test_a_source_that_has_become_shorter(work: Work, samba: Samba) -> None:
    """The kernel believes in the old size for a second; the copy ends where the file does."""
    samba.put(f"{work.name}/from", data_of(2 * MIB))
    with (work.path / "from").open("rb") as source, (work.path / "to").open("wb") as target:
        os.truncate(work.behind / "from", MIB)
        done = 0
        while count := os.copy_file_range(source.fileno(), target.fileno(), 4 * MIB):
            done += count
    assert done == MIB
    assert (work.behind / "to").read_bytes() == data_of(2 * MIB)[:MIB]


def test_between_two_mounts_and_to_the_local_disk(mounted: Mounter, work: Work, samba: Samba, tmp_path: Path) -> None:
    other = mounted()
    samba.put(f"{work.name}/from", data_of(MIB))
    run("cp", work.path / "from", other.path / work.name / "to")
    run("cp", work.path / "from", tmp_path / "to")
    assert (work.behind / "to").read_bytes() == (tmp_path / "to").read_bytes() == data_of(MIB)


def test_a_server_that_does_not_copy(work: Work, own_samba: Samba, mounted: Mounter) -> None:
    """An encrypted disk behind the share, for instance; here one on which writing is what fails."""
    full = own_samba.directory() / "small"
    full.mkdir()
    own_samba.beside("mount", "-t", "tmpfs", "-o", "size=20m,mode=777", "tmpfs", str(full))
    try:
        mount = mounted(server=own_samba)
        own_samba.put("from", data_of(SIZE))
        done = subprocess.run(["cp", mount.path / "from", mount.path / "small/to"], capture_output=True, text=True)
        assert "No space left on device" in done.stderr
        mounted.finish()
    finally:
        own_samba.beside("umount", str(full))


# -- holes and space


def test_a_hole_is_punched_and_found_and_copied_as_one(mount: Mount, work: Work, samba: Samba) -> None:
    data = bytearray(data_of(SIZE))
    samba.put(f"{work.name}/from", data)
    blocks = (work.behind / "from").stat().st_blocks
    run("fallocate", "-p", "-o", 5 * MIB, "-l", 10 * MIB, work.path / "from")
    data[5 * MIB : 15 * MIB] = bytes(10 * MIB)
    assert (work.behind / "from").read_bytes() == data
    assert (work.path / "from").read_bytes() == data
    assert (work.path / "from").stat().st_size == SIZE
    # The server's disk may need a block or two more to describe a file in more pieces.
    assert 0 <= 10 * MIB // 512 - (blocks - (work.behind / "from").stat().st_blocks) <= DESCRIPTION
    assert extents(work.path / "from") == [(0, 5 * MIB), (15 * MIB, SIZE)]
    before = moved(mount)
    run("cp", "--sparse=auto", work.path / "from", work.path / "to")
    after = moved(mount)
    # By its own reads and writes, as coreutils 9.1 does with holes; of them it goes by what it was told.
    assert after["written"] - before["written"] + after["copied"] - before["copied"] == SIZE - 10 * MIB
    assert (work.behind / "to").read_bytes() == data
    freed = [(work.behind / name).stat().st_blocks for name in ("from", "to")]
    assert abs(freed[0] - freed[1]) <= DESCRIPTION


def test_zeros(work: Work, samba: Samba) -> None:
    data = bytearray(data_of(SIZE))
    samba.put(f"{work.name}/file", data)
    run("fallocate", "-z", "-n", "-o", 1000, "-l", 3 * MIB, work.path / "file")
    data[1000 : 1000 + 3 * MIB] = bytes(3 * MIB)
    assert (work.behind / "file").read_bytes() == data
    run("fallocate", "-z", "-n", "-o", SIZE - 10, "-l", 1000, work.path / "file")
    data[-10:] = bytes(10)
    assert (work.behind / "file").read_bytes() == data
    run("fallocate", "-z", "-o", SIZE - 10, "-l", 1000, work.path / "file")
    assert (work.path / "file").stat().st_size == SIZE + 990
    assert (work.behind / "file").read_bytes() == data + bytes(990)
    assert (work.path / "file").read_bytes() == data + bytes(990)


def test_what_cannot_be_had_is_refused_and_changes_nothing(work: Work, samba: Samba) -> None:
    """Samba allocates nothing unless told to, and says nevertheless that it has."""
    data = data_of(MIB)
    samba.put(f"{work.name}/file", data)
    with (work.path / "file").open("r+b") as file:
        for mode in (0, KEEP_SIZE, 0x08, 0x20, PUNCH_HOLE):
            with pytest.raises(OSError, match="fallocate") as caught:
                fallocate(file.fileno(), mode, MIB, MIB)
            assert caught.value.errno == errno.EOPNOTSUPP
        assert os.fstat(file.fileno()).st_size == MIB
        assert (work.behind / "file").read_bytes() == data
        # What is there already is there, and the C library knows what to do about the rest.
        fallocate(file.fileno(), 0, 0, MIB)
        os.posix_fallocate(file.fileno(), 0, 2 * MIB)
    assert (work.behind / "file").read_bytes() == data + bytes(MIB)
    assert (work.behind / "file").stat().st_blocks * 512 >= 2 * MIB


def test_space_that_is_given(own_samba: Samba, mounted: Mounter) -> None:
    with own_samba.settings("strict allocate = yes"):
        mount = mounted(server=own_samba)
        own_samba.put("file", b"data")
        behind = own_samba.directory() / "file"
        run("fallocate", "-n", "-l", 8 * MIB, mount.path / "file")
        assert behind.stat().st_blocks * 512 >= 8 * MIB
        assert behind.stat().st_size == (mount.path / "file").stat().st_size == 4
        run("fallocate", "-l", 16 * MIB, mount.path / "file")
        assert behind.stat().st_blocks * 512 >= 16 * MIB
        assert behind.stat().st_size == (mount.path / "file").stat().st_size == 16 * MIB
        assert (mount.path / "file").read_bytes() == b"data" + bytes(16 * MIB - 4)
        mounted.finish()


def test_rsync_and_cp_make_holes(mounted: Mounter, work: Work, tmp_path: Path) -> None:
    there = mounted("noperm").path / work.name
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for place in (0, 7 * MIB, 20 * MIB):
            file.seek(place)
            file.write(data_of(100_000))
        file.truncate(30 * MIB)
    for name, command in (
        ("rsynced", ["rsync", "-S"]),
        ("in place", ["rsync", "-S", "--inplace"]),
        ("copied", ["cp", "--sparse=always"]),
    ):
        run(*command, sparse, there / name)
        run("cmp", sparse, work.behind / name)
        assert (work.behind / name).stat().st_blocks * 512 < MIB
    # And read back by somebody who goes by the holes.
    run("cp", "--sparse=always", there / "copied", tmp_path / "back")
    run("cmp", sparse, tmp_path / "back")


MAPPED = """
import mmap, os, subprocess, sys
file = open(sys.argv[1], "r+b")
mapping = mmap.mmap(file.fileno(), 0)
mapping[9 << 20] = 1
subprocess.run(["cp", "--sparse=auto", sys.argv[1], sys.argv[2]], check=True)
"""


def test_what_is_only_in_a_mapping_is_no_hole(work: Work, samba: Samba) -> None:
    samba.put(f"{work.name}/from", data_of(16 * MIB))
    run("fallocate", "-p", "-o", MIB, "-l", 14 * MIB, work.path / "from")
    run(sys.executable, "-c", MAPPED, work.path / "from", work.path / "to")
    expected = bytearray(data_of(16 * MIB))
    expected[MIB : 15 * MIB] = bytes(14 * MIB)
    expected[9 << 20] = 1
    assert (work.behind / "to").read_bytes() == expected


def test_many_holes(work: Work, samba: Samba) -> None:
    """More than one answer has room for: 5,000 of them."""
    place = samba.put(f"{work.name}/file", b"")
    with place.open("r+b") as file:
        for number in range(5000):
            os.pwrite(file.fileno(), b"x", number << 14)
    run("fallocate", "-p", "-o", 4096, "-l", 4096, work.path / "file")  # makes it known as one with holes
    with (work.path / "file").open("rb") as file:
        for number in (0, 1, 2, 700, 2500, 4998):
            start = number << 14
            assert os.lseek(file.fileno(), start, os.SEEK_HOLE) == start + 4096
            assert os.lseek(file.fileno(), start + 4096, os.SEEK_DATA) == start + (1 << 14)


def test_a_copy_that_is_interrupted_writes_no_more(work: Work, samba: Samba) -> None:
    """Whoever ends a copy may use the file at once, as after any write."""
    samba.put(f"{work.name}/from", data_of(SIZE))
    for _ in range(5):
        with (work.path / "to").open("wb") as target:
            copier = subprocess.Popen(["cp", work.path / "from", work.path / "to"])
            copier.terminate()
            copier.wait(60)
            os.ftruncate(target.fileno(), 0)
            target.write(b"after")
        assert (work.behind / "to").read_bytes() == b"after"
