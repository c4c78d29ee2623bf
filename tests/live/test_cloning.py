"""Copies on a disk whose files can share blocks: btrfs, in an image behind smbd with its module for it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.commands import run
from lab.mounting import Mount
from lab.server import Samba

from .conftest import Mounter

KIB, MIB = 1 << 10, 1 << 20
CLUSTER = 4 * KIB
# More than is asked for at a time, and odd.
SIZE = 80 * MIB + 4321
WHOLE = SIZE // CLUSTER * CLUSTER
BLOCKS = "blocks"
MODULES = ("/usr/lib/*/samba/vfs/btrfs.so", "/usr/lib64/samba/vfs/btrfs.so")


def missing() -> str:
    """What this machine lacks for such a disk; empty if nothing."""
    if not shutil.which("mkfs.btrfs") or not shutil.which("filefrag"):
        return "mkfs.btrfs (btrfs-progs) and filefrag (e2fsprogs)"
    if not any(found for pattern in MODULES for found in Path("/").glob(pattern[1:])):
        return "Samba's module btrfs (samba-vfs-modules)"
    if "btrfs" not in Path("/proc/filesystems").read_text() and run("modprobe", "btrfs", check=False).returncode:
        return "btrfs in the kernel"
    return "" if Path("/dev/loop-control").exists() else "loop devices"


@pytest.fixture(scope="module")
def sharing() -> Iterator[Samba]:
    """This machine's Samba with a share on such a disk; the loop device goes with its mount."""
    if lack := missing():
        pytest.skip(f"no disk that shares blocks here: it takes {lack}")
    server = Samba(root="")
    server.shares[BLOCKS] = ("vfs objects = btrfs",)
    with server:
        image, place = server.folder / "disk", server.directory(BLOCKS)
        with image.open("wb") as file:
            file.truncate(700 * MIB)
        run("mkfs.btrfs", "-q", str(image))
        mounted = run("mount", "-o", "loop", str(image), str(place), check=False)
        if mounted.returncode:
            pytest.skip(f"no disk that shares blocks here: {mounted.stderr.strip()}")
        try:
            shutil.chown(place, "daemon")
            yield server
        finally:
            server.stop()
            if run("umount", str(place), check=False).returncode:
                run("umount", "--lazy", str(place))


@pytest.fixture
def blocks(sharing: Samba, mounted: Mounter) -> Iterator[Mount]:
    """A mount of that share, empty before and after."""
    yield mounted(server=sharing, share=BLOCKS)
    mounted.finish()
    for path in sharing.directory(BLOCKS).iterdir():
        path.unlink()


def data_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def moved(mount: Mount) -> dict[str, int]:
    """The counters of bytes."""
    told: dict[str, int] = mount.status()["bytes"]
    return told


def shared_bytes(path: Path) -> int:
    """How much of a file is in blocks that another has as well, as the disk tells (FIEMAP)."""
    lines = [line.split(":") for line in run("filefrag", "-s", "-b1", "-v", str(path)).stdout.splitlines()]
    return sum(int(line[3]) for line in lines if len(line) > 4 and line[0].strip().isdigit() and "shared" in line[-1])


@pytest.mark.parametrize("command", [("cp",), ("cp", "--reflink=auto")])
def test_cp_takes_no_space(blocks: Mount, sharing: Samba, command: tuple[str, ...]) -> None:
    source = sharing.put("from", data_of(SIZE), BLOCKS)
    assert shared_bytes(source) == 0
    run(*command, str(blocks.path / "from"), str(blocks.path / "to"), timeout=120)
    target = source.with_name("to")
    assert target.read_bytes() == data_of(SIZE)
    told = moved(blocks)
    assert (told["copied"], told["shared"], told["written"]) == (SIZE, WHOLE, 0)
    assert shared_bytes(target) >= WHOLE
    # Each is a file of its own all the same.
    with (blocks.path / "to").open("r+b") as file:
        os.pwrite(file.fileno(), b"changed", 10 * MIB)
    assert source.read_bytes() == data_of(SIZE)
    assert (blocks.path / "to").read_bytes() == data_of(SIZE)[: 10 * MIB] + b"changed" + data_of(SIZE)[10 * MIB + 7 :]


def copy(source: Path, target: Path, offset: int, target_offset: int, size: int) -> int:
    """copy_file_range(2) until it is done; how much that was."""
    done = 0
    with source.open("rb") as taken, target.open("r+b") as given:
        while done < size:
            place = offset + done, target_offset + done
            count = os.copy_file_range(taken.fileno(), given.fileno(), size - done, *place)
            if not count:
                break
            done += count
    return done


@pytest.mark.parametrize(
    ("offset", "target_offset", "size", "there", "shared"),
    [
        (0, 0, MIB, 0, MIB),
        (CLUSTER, 8 * CLUSTER, MIB, 4 * MIB, MIB),  # in the midst of what is there
        (CLUSTER, 8 * CLUSTER, MIB, 100, MIB),  # far behind its end
        (CLUSTER, 8 * CLUSTER, MIB, 500_000, MIB),  # across its end
        (100, 100, MIB, 4 * MIB, MIB - CLUSTER),  # out of line, both alike
        (100, 0, MIB, 4 * MIB, 0),
        (0, 1, MIB, 0, 0),
        (0, 0, CLUSTER - 1, 0, 0),
        (2 * MIB, 0, 2 * MIB, 0, MIB),  # not beyond the source's end
        (2 * MIB + CLUSTER, CLUSTER, MIB, 4 * MIB, MIB - CLUSTER),
    ],
)
def test_parts(
    blocks: Mount, sharing: Samba, offset: int, target_offset: int, size: int, there: int, shared: int
) -> None:
    data, before = data_of(3 * MIB + 99), data_of(there)
    sharing.put("from", data, BLOCKS)
    behind = sharing.put("to", before, BLOCKS)
    piece = data[offset : offset + size]
    assert copy(blocks.path / "from", blocks.path / "to", offset, target_offset, size) == len(piece)
    expected = bytearray(before + bytes(max(0, target_offset - there)))
    expected[target_offset : target_offset + len(piece)] = piece
    assert behind.read_bytes() == expected
    assert (blocks.path / "to").read_bytes() == expected
    assert moved(blocks)["shared"] == shared
    assert shared_bytes(behind) >= shared


def test_within_one_file(blocks: Mount, sharing: Samba) -> None:
    data = data_of(2 * MIB)
    behind = sharing.put("file", data, BLOCKS)
    path = blocks.path / "file"
    with pytest.raises(OSError, match="Invalid argument"):
        copy(path, path, 0, CLUSTER, MIB)
    assert copy(path, path, 0, 3 * MIB, MIB) == MIB
    assert behind.read_bytes() == path.read_bytes() == data + bytes(MIB) + data[:MIB]
    assert moved(blocks)["shared"] == MIB


def test_what_is_not_on_the_disk_yet_is_shared_as_it_is(blocks: Mount, sharing: Samba) -> None:
    """Written here a moment ago, with the target's old pages in the cache."""
    for name, byte in (("from", b"a"), ("to", b"b")):
        (blocks.path / name).write_bytes(byte * 2 * MIB)
    with (blocks.path / "from").open("r+b") as source, (blocks.path / "to").open("r+b") as target:
        assert os.pread(target.fileno(), MIB, 0) == b"b" * MIB
        os.pwrite(source.fileno(), b"new", 5000)
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB, 0, 0) == MIB
        assert os.pread(target.fileno(), 8, 4998) == b"aanewaaa"
        assert os.pread(target.fileno(), 2, MIB - 1) == b"ab"
    assert moved(blocks)["shared"] == MIB


def test_files_with_holes_are_copied(blocks: Mount, sharing: Samba) -> None:
    """smbd shares no blocks between a file that is marked as sparse and one that is not."""
    data = bytearray(data_of(2 * MIB))
    sharing.put("from", data, BLOCKS)
    run("fallocate", "-p", "-o", str(MIB), "-l", str(MIB // 2), str(blocks.path / "from"))
    data[MIB : MIB + MIB // 2] = bytes(MIB // 2)
    behind = sharing.put("to", b"", BLOCKS)
    assert copy(blocks.path / "from", blocks.path / "to", 0, 0, 2 * MIB) == 2 * MIB
    assert behind.read_bytes() == data
    assert moved(blocks)["shared"] == 0


def test_a_disk_that_cannot_is_not_asked(sharing: Samba, mounted: Mounter) -> None:
    """The same server's plain share."""
    mount = mounted(server=sharing)
    sharing.put("from", data_of(MIB))
    subprocess.run(["cp", mount.path / "from", mount.path / "to"], check=True, timeout=60)
    assert (sharing.directory() / "to").read_bytes() == data_of(MIB)
    told = moved(mount)
    assert (told["copied"], told["shared"]) == (MIB, 0)
