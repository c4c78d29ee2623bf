"""A real mount of a share in memory: the kernel's copies, holes and space by the native driver."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_mount import Mounted
from vfs_world import fails

from smb3fs.wire.fuse_ranges import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is missing, or not for this user"
)
DATA = bytes(range(256)) * 400


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    path = tmp_path / "mnt"
    path.mkdir()
    made = Mounted("native", path)
    made.share.put("from").data[:] = DATA
    made.share.put("sparse").data[:] = bytes(20 << 12)
    try:
        yield made
    finally:
        made.end()


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def test_a_copy(mount: Mounted) -> None:
    """What the kernel had of the target is not shown any more, nor is its old size."""
    with (mount.path / "from").open("rb") as source, (mount.path / "to").open("w+b", buffering=0) as target:
        target.write(b"old" * 100)
        assert target.seek(0) == 0
        assert target.read() == b"old" * 100
        reads = mount.share.count("read")
        assert os.copy_file_range(source.fileno(), target.fileno(), 50_000, 1000, 10) == 50_000
        assert mount.share.count("read") == reads
        assert mount.share.count("copy") == 1
        target.seek(0)
        assert target.read() == b"old" * 3 + b"o" + DATA[1000:51_000]
        assert os.fstat(target.fileno()).st_size == 50_010
        # Up to the end of the source, whatever was asked for.
        assert os.copy_file_range(source.fileno(), target.fileno(), 1 << 40, 0, 0) == len(DATA)
        assert (mount.path / "to").read_bytes() == DATA


def test_a_copy_that_the_server_does_not_do_is_the_kernels(mount: Mounted) -> None:
    mount.share.fail("copy", OSError(errno.EOPNOTSUPP, "no"), OSError(errno.EXDEV, "elsewhere"))
    for name in ("one", "two"):
        with (mount.path / "from").open("rb") as source, (mount.path / name).open("wb") as target:
            done = 0
            while done < len(DATA):
                done += os.copy_file_range(source.fileno(), target.fileno(), len(DATA))
        assert (mount.path / name).read_bytes() == DATA
        assert mount.share.count("read") > 0
    # Neither is taken for the last word.
    with (mount.path / "from").open("rb") as source, (mount.path / "three").open("wb") as target:
        before = mount.share.count("copy")
        assert os.copy_file_range(source.fileno(), target.fileno(), len(DATA)) == len(DATA)
        assert mount.share.count("copy") == before + 1


# In a process of its own: a page fault holds the interpreter that the driver of this mount needs.
MAPPED = """
import mmap, os, sys
source, target = open(sys.argv[1], "r+b"), open(sys.argv[2], "wb")
mapping = mmap.mmap(source.fileno(), 0)
mapping[5 << 12] = 1
print(os.lseek(source.fileno(), 0, os.SEEK_DATA), os.lseek(source.fileno(), 5 << 12, os.SEEK_HOLE))
mapping[100:105] = b"FRESH"
print(os.copy_file_range(source.fileno(), target.fileno(), 1 << 20, 0, 0))
"""


def test_what_is_only_in_a_mapping_is_no_hole_and_is_copied(mount: Mounted) -> None:
    arguments = [sys.executable, "-c", MAPPED, mount.path / "sparse", mount.path / "to"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(5 << 12), str(6 << 12), str(20 << 12)]
    copied = bytes(mount.share.find("to").data)
    assert copied == bytes(100) + b"FRESH" + bytes((5 << 12) - 105) + b"\1" + bytes((15 << 12) - 1)


def test_seeking(mount: Mounted) -> None:
    with (mount.path / "sparse").open("rb") as file:
        fd = file.fileno()
        with fails(errno.ENXIO):
            os.lseek(fd, 0, os.SEEK_DATA)
        assert os.lseek(fd, 100, os.SEEK_HOLE) == 100
        with fails(errno.ENXIO):
            os.lseek(fd, 20 << 12, os.SEEK_HOLE)


def test_space(mount: Mounted) -> None:
    with (mount.path / "from").open("r+b", buffering=0) as file:
        fd = file.fileno()
        assert file.read() == DATA
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 5000)
        expected = DATA[:10] + bytes(5000) + DATA[5010:]
        assert os.pread(fd, 1 << 20, 0) == expected
        fallocate(fd, FALLOC_FL_ZERO_RANGE, len(DATA) - 5, 100)
        expected = expected[:-5] + bytes(100)
        assert os.pread(fd, 1 << 20, 0) == expected
        assert os.fstat(fd).st_size == len(expected)
        fallocate(fd, 0, 0, len(expected) + 1)
        assert os.fstat(fd).st_size == len(expected) + 1
        fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 30)
        assert os.fstat(fd).st_size == len(expected) + 1
        mount.share.fail("allocate", OSError(errno.EOPNOTSUPP, "no"))
        with fails(errno.EOPNOTSUPP):
            fallocate(fd, 0, 0, 1 << 30)
        with fails(errno.EOPNOTSUPP):
            fallocate(fd, 0x08, 0, 4096)  # FALLOC_FL_COLLAPSE_RANGE
