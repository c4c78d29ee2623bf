"""What open descriptors see while names come and go, and what two of them share."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from ..conftest import Work
from .scene import Descriptor

RW = os.O_RDWR


def test_unlinked_and_still_used(work: Work) -> None:
    """Data, size and metadata of a file without a name, until its last close; then the server's space is free."""
    (work.path / "file").write_bytes(b"0123456789")
    with Descriptor(work.path / "file", RW) as number:
        os.unlink(work.path / "file")
        assert os.listdir(work.path) == []
        assert os.pread(number, 20, 0) == b"0123456789"
        assert os.pwrite(number, b"more", 10) == 4
        assert os.fstat(number).st_size == 14
        os.fsync(number)
        os.utime(number, (1, 1))
        assert os.fstat(number).st_mtime == 1
        (work.path / "file").write_bytes(b"new")
        assert os.pread(number, 20, 0) == b"0123456789more"
    assert (work.path / "file").read_bytes() == b"new"
    assert os.listdir(work.path) == ["file"]


def test_the_directory_of_an_unlinked_open_file_is_removed(work: Work) -> None:
    (work.path / "folder").mkdir()
    (work.path / "folder/file").write_bytes(b"still here")
    with Descriptor(work.path / "folder/file", RW) as number:
        os.unlink(work.path / "folder/file")
        os.rmdir(work.path / "folder")
        assert os.pread(number, 20, 0) == b"still here"
    assert os.listdir(work.path) == []


def test_an_unlinked_file_has_no_links(work: Work) -> None:
    (work.path / "file").write_bytes(b"")
    with Descriptor(work.path / "file", RW) as number:
        os.unlink(work.path / "file")
        assert os.fstat(number).st_nlink == 0


def test_renamed_over_and_still_used(work: Work) -> None:
    (work.path / "old").write_bytes(b"old")
    (work.path / "new").write_bytes(b"new")
    with Descriptor(work.path / "old", RW) as number:
        os.rename(work.path / "new", work.path / "old")
        assert os.pread(number, 10, 0) == b"old"
        assert os.pwrite(number, b"OLD and gone", 0) == 12
        assert (work.path / "old").read_bytes() == b"new"
        assert os.pread(number, 20, 0) == b"OLD and gone"
    assert os.listdir(work.path) == ["old"]


def test_the_directory_of_an_open_file_is_renamed(work: Work) -> None:
    (work.path / "folder").mkdir()
    (work.path / "folder/file").write_bytes(b"before")
    with Descriptor(work.path / "folder/file", RW) as number:
        os.rename(work.path / "folder", work.path / "moved")
        assert os.pwrite(number, b"AFTER!", 0) == 6
        assert os.pread(number, 10, 0) == b"AFTER!"
    assert (work.path / "moved/file").read_bytes() == b"AFTER!"


def test_a_removed_directory_that_is_open(work: Work) -> None:
    (work.path / "folder").mkdir()
    number = os.open(work.path / "folder", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(work.path / "folder")
        assert os.listdir(work.path) == []
        assert os.listdir(number) == []
    finally:
        os.close(number)


def test_one_offset_after_dup_and_two_after_two_opens(work: Work) -> None:
    (work.path / "file").write_bytes(b"0123456789")
    with Descriptor(work.path / "file", RW) as first, Descriptor(work.path / "file", RW) as second:
        copy = os.dup(first)
        os.read(first, 3)
        assert os.lseek(copy, 0, os.SEEK_CUR) == 3
        assert os.lseek(second, 0, os.SEEK_CUR) == 0
        os.close(copy)
        assert os.read(first, 3) == b"345"


def test_a_mapping_outlives_its_descriptor_and_name(work: Work) -> None:
    (work.path / "file").write_bytes(b"0123456789" * 1000)
    with Descriptor(work.path / "file", os.O_RDONLY) as number:
        mapped = mmap.mmap(number, 0, access=mmap.ACCESS_READ)
    os.unlink(work.path / "file")
    assert mapped[9_990:] == b"0123456789"
    mapped.close()


def test_a_shared_mapping_writes_the_file(work: Work) -> None:
    (work.path / "file").write_bytes(bytes(20_000))
    with Descriptor(work.path / "file", RW) as number:
        mapped = mmap.mmap(number, 0)
        mapped[5_000:5_005] = b"hello"
        mapped.flush()
        assert os.pread(number, 5, 5_000) == b"hello"
        mapped[19_999:] = b"!"
        mapped.close()
        os.fsync(number)
    assert (work.behind / "file").read_bytes() == bytes(5_000) + b"hello" + bytes(14_994) + b"!"


def test_a_private_mapping_does_not(work: Work) -> None:
    (work.path / "file").write_bytes(bytes(5_000))
    with Descriptor(work.path / "file", RW) as number:
        mapped = mmap.mmap(number, 0, flags=mmap.MAP_PRIVATE)
        mapped[:5] = b"hello"
        assert mapped[:5] == b"hello"
        mapped.close()
    assert (work.behind / "file").read_bytes() == bytes(5_000)


def test_direct_and_buffered_agree(work: Work) -> None:
    """O_DIRECT beside a descriptor that goes through the page cache."""
    block = mmap.mmap(-1, 4096)
    with (
        Descriptor(work.path / "file", RW | os.O_CREAT) as buffered,
        Descriptor(work.path / "file", RW | os.O_DIRECT) as direct,
    ):
        os.pwrite(buffered, b"b" * 8192, 0)
        block[:] = b"d" * 4096
        assert os.pwritev(direct, [block], 4096) == 4096
        assert os.preadv(direct, [block], 0) == 4096
        assert block[:] == b"b" * 4096
        assert os.pread(buffered, 8192, 0) == b"b" * 4096 + b"d" * 4096
    block.close()


def test_a_file_that_runs(work: Work) -> None:
    """A program on the mount is executed, from the page cache of the mount."""
    program = work.path / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o755)
    read, write = os.pipe()
    process = os.posix_spawn(program, ["program", "it runs"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "it runs\n"
    assert os.waitpid(process, 0)[1] == 0
