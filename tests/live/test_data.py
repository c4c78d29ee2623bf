"""What is written is what is read, by every way of writing and reading, and on the server's disk."""

from __future__ import annotations

import filecmp
import mmap
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from lab.mounting import Mount
from lab.server import Samba

from .conftest import BOUND, Mounter, Work

KIB = 1024
SIZES = [0, 1, 4 * KIB, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, KIB * KIB, KIB * KIB + 1, 5 * KIB * KIB + 17]


@pytest.mark.parametrize("size", SIZES)
def test_cp_there_and_back(work: Work, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(size).randbytes(size))
    subprocess.run(["cp", source, work.path / "file"], check=True)
    assert (work.behind / "file").read_bytes() == source.read_bytes()
    assert (work.path / "file").stat().st_size == size
    subprocess.run(["cp", work.path / "file", tmp_path / "back"], check=True)
    assert filecmp.cmp(source, tmp_path / "back", shallow=False)


@pytest.mark.parametrize("size", SIZES)
def test_read_what_the_server_has(work: Work, samba: Samba, size: int) -> None:
    data = random.Random(size).randbytes(size)
    samba.put(f"{work.name}/file", data)
    assert (work.path / "file").read_bytes() == data


def test_random_writes_against_a_model(work: Work) -> None:
    chance = random.Random(20)
    model = bytearray()
    with (work.path / "file").open("w+b", buffering=0) as file:
        for _ in range(300):
            what = chance.random()
            offset = chance.randrange(600_000)
            if what < 0.5:
                data = chance.randbytes(chance.choice([1, 100, 4096, 70_000, 200_000]))
                assert os.pwrite(file.fileno(), data, offset) == len(data)
                if offset > len(model):
                    model.extend(bytes(offset - len(model)))
                model[offset : offset + len(data)] = data
            elif what < 0.9:
                size = chance.choice([1, 4096, 150_000])
                assert os.pread(file.fileno(), size, offset) == bytes(model[offset : offset + size])
            else:
                file.truncate(offset)
                del model[offset:]
                model.extend(bytes(offset - len(model)))
        os.fsync(file.fileno())
        assert (work.behind / "file").read_bytes() == bytes(model)
    assert (work.path / "file").read_bytes() == bytes(model)


def test_holes_read_as_zeros(work: Work) -> None:
    with (work.path / "file").open("wb", buffering=0) as file:
        os.pwrite(file.fileno(), b"end", 10_000_000)
        os.pwrite(file.fileno(), b"middle", 5_000_000)
    assert (work.path / "file").stat().st_size == 10_000_003
    data = (work.path / "file").read_bytes()
    assert data == bytes(5_000_000) + b"middle" + bytes(10_000_000 - 5_000_006) + b"end"


def test_reads_at_and_beyond_the_end(work: Work) -> None:
    (work.path / "file").write_bytes(b"0123456789")
    with (work.path / "file").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 5) == b"56789"
        assert os.pread(file.fileno(), 100, 10) == b""
        assert os.pread(file.fileno(), 100, 1_000_000) == b""


def test_mapped_for_reading(work: Work, samba: Samba) -> None:
    data = random.Random(3).randbytes(300_001)
    samba.put(f"{work.name}/file", data)
    with (work.path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[250_000:] == data[250_000:]
        assert mapped[:] == data


def test_two_writers_of_one_file(work: Work) -> None:
    first = os.open(work.path / "file", os.O_RDWR | os.O_CREAT)
    second = os.open(work.path / "file", os.O_RDWR)
    os.pwrite(first, b"A" * 10_000, 0)
    os.pwrite(second, b"B" * 10_000, 5_000)
    assert os.pread(first, 20_000, 0) == b"A" * 5_000 + b"B" * 10_000
    os.close(second)
    os.pwrite(first, b"C", 14_999)
    os.close(first)
    assert (work.behind / "file").read_bytes() == b"A" * 5_000 + b"B" * 9_999 + b"C"


def test_written_is_on_the_server_after_close(work: Work) -> None:
    data = os.urandom(3_000_000)
    (work.path / "file").write_bytes(data)
    assert (work.behind / "file").read_bytes() == data


def test_another_clients_write_is_seen(work: Work, samba: Samba) -> None:
    """Without a lease nothing is older than actimeo (1 s unless given)."""
    (work.path / "file").write_bytes(b"old")
    assert (work.path / "file").read_bytes() == b"old"
    samba.put(f"{work.name}/file", b"new and longer")
    deadline = os.times().elapsed + 5
    while (work.path / "file").stat().st_size == 3:
        assert os.times().elapsed < deadline, "the old size is still shown 5 s later"
    assert (work.path / "file").read_bytes() == b"new and longer"


def test_small_requests_when_asked_for(mounted: Mounter, samba: Samba, tmp_path: Path) -> None:
    """rsize= and wsize= bound what one request carries: the counts show it."""
    mount = mounted("rsize=65536", "wsize=65536", f"timeout={BOUND}")
    data = os.urandom(1_048_576)
    before = mount.status()["requests"]
    (mount.path / "sized").write_bytes(data)
    written = mount.status()["requests"]
    assert written["WRITE"] - before.get("WRITE", 0) >= 16
    (tmp_path / "sized-foreign").write_bytes(data)
    samba.client(
        f"put {tmp_path}/sized-foreign sized-foreign"
    )  # the root may be kept, and the server's own disk tells nobody
    assert (mount.path / "sized-foreign").read_bytes() == data
    assert mount.status()["requests"]["READ"] - written.get("READ", 0) >= 16
    for name in ("sized", "sized-foreign"):
        (mount.path / name).unlink()


def test_many_files_at_once(work: Work, tmp_path: Path) -> None:
    """Eight programs copy side by side."""
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(random.Random(number).randbytes(700_000 + number))
    copies = [
        subprocess.Popen(["cp", tmp_path / f"{number}", work.path / f"{number}"], stderr=subprocess.PIPE)
        for number in range(8)
    ]
    assert [copy.communicate()[1] for copy in copies] == [b""] * 8
    for number in range(8):
        assert filecmp.cmp(tmp_path / f"{number}", work.behind / f"{number}", shallow=False)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that an error of any step is raised."""
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def test_a_full_disk_is_not_success(own_samba: Samba, mounted: Mounter) -> None:
    """The server's share on a small filesystem: the writer learns of ENOSPC by write, fsync or close."""
    full = own_samba.directory() / "small"
    full.mkdir()
    own_samba.beside("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(full))
    try:
        mount = mounted(server=own_samba)
        with pytest.raises(OSError, match="No space left on device"):
            write_durably(mount.path / "small/file", os.urandom(4 * KIB * KIB))
        assert (mount.path / "small").is_dir()
        mounted.finish()
    finally:
        own_samba.beside("umount", str(full))


def test_a_tree_survives_the_copy(work: Work, mount: Mount, tmp_path: Path) -> None:
    """cp -r of the package itself, compared file by file."""
    source = Path(__file__).parents[2] / "smb3fs"
    shutil.copytree(source, tmp_path / "tree", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["cp", "-r", tmp_path / "tree", work.path / "tree"], check=True)
    assert subprocess.run(["diff", "-r", tmp_path / "tree", work.path / "tree"], check=False).returncode == 0
    assert subprocess.run(["diff", "-r", tmp_path / "tree", work.behind / "tree"], check=False).returncode == 0
