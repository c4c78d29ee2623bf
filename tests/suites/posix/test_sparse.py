"""Files with holes: sizes, zeros, and the space that they take."""

from __future__ import annotations

import os

from ..conftest import Work
from .scene import Descriptor

RW = os.O_RDWR | os.O_CREAT
MIB = 1 << 20


def test_a_hole_reads_as_zeros(work: Work) -> None:
    with Descriptor(work.path / "file", RW) as number:
        os.pwrite(number, b"end", 100 * MIB)
        assert os.fstat(number).st_size == 100 * MIB + 3
        assert os.pread(number, 10, 50 * MIB) == bytes(10)
        assert os.pread(number, 10, 100 * MIB - 5) == bytes(5) + b"end"
    assert (work.behind / "file").stat().st_size == 100 * MIB + 3


def test_a_hole_takes_no_space(work: Work) -> None:
    with Descriptor(work.path / "file", RW) as number:
        os.ftruncate(number, 64 * MIB)
        os.fsync(number)
    assert (work.behind / "file").stat().st_blocks * 512 < MIB
    assert (work.path / "file").stat().st_blocks * 512 < MIB


def test_far_out(work: Work) -> None:
    """Beyond 32 bits, where an offset is cut short in careless code."""
    with Descriptor(work.path / "file", RW) as number:
        for gib in (2, 4, 1023):
            os.pwrite(number, b"mark%d" % gib, gib << 30)
        for gib in (2, 4, 1023):
            assert os.pread(number, 8, gib << 30).rstrip(b"\0") == b"mark%d" % gib
        assert os.pread(number, 8, 0) == bytes(8)
        os.ftruncate(number, 3 << 30)
        assert os.fstat(number).st_size == 3 << 30
        assert os.pread(number, 8, 4 << 30) == b""


def test_what_was_cut_off_comes_back_as_zeros(work: Work) -> None:
    """Truncated and extended again: nothing old may show, within a page and beyond it."""
    with Descriptor(work.path / "file", RW) as number:
        os.pwrite(number, b"x" * 20_000, 0)
        os.ftruncate(number, 5_001)
        os.ftruncate(number, 20_000)
        assert os.pread(number, 20_000, 0) == b"x" * 5_001 + bytes(14_999)
        os.ftruncate(number, 10)
        os.pwrite(number, b"end", 9_000)
        assert os.pread(number, 20_000, 0) == b"x" * 10 + bytes(8_990) + b"end"
    assert (work.behind / "file").read_bytes() == b"x" * 10 + bytes(8_990) + b"end"


def test_holes_are_found(work: Work) -> None:
    """SEEK_DATA and SEEK_HOLE with the grain of the server's disk."""
    with Descriptor(work.path / "file", RW) as number:
        os.pwrite(number, b"data", 10 * MIB)
        os.ftruncate(number, 20 * MIB)
        os.fsync(number)
        assert os.lseek(number, 0, os.SEEK_HOLE) == 0
        assert 0 < os.lseek(number, 0, os.SEEK_DATA) <= 10 * MIB
        assert 10 * MIB < os.lseek(number, 10 * MIB, os.SEEK_HOLE) < 20 * MIB
