"""Copies, holes and zeros byte by byte, as the specifications and smbd have them, and FUSE's requests for them."""

from __future__ import annotations

import pytest

from smb3fs.errors import WireError
from smb3fs.wire import fuse_ranges as fuse
from smb3fs.wire import serverside as wire
from smb3fs.wire.create import FileId

KEY = bytes(range(24))


def test_a_resume_key() -> None:
    assert wire.ResumeKey(KEY).encode() == KEY + bytes(8)
    assert wire.ResumeKey.parse(KEY + bytes(4)) == wire.ResumeKey(KEY)  # without the context that is not used
    with pytest.raises(WireError):
        wire.ResumeKey.parse(KEY[:-1])


def test_a_copy_of_two_chunks() -> None:
    copy = wire.CopyChunks(KEY, [wire.Chunk(0x100000, 0, 0x100000), wire.Chunk(0x200000, 0x100000, 17)])
    expected = (
        KEY
        + bytes.fromhex("02000000 00000000")
        + bytes.fromhex("0000100000000000 0000000000000000 00001000 00000000")
        + bytes.fromhex("0000200000000000 0000100000000000 11000000 00000000")
    )
    assert copy.encode() == expected
    assert wire.CopyChunks.parse(expected) == copy
    with pytest.raises(WireError):
        wire.CopyChunks.parse(expected[:-1])


def test_the_limits_that_smbd_tells() -> None:
    told = bytes.fromhex("00010000 00001000 00000001")
    assert wire.CopyChunksDone.parse(told) == (256, 1 << 20, 16 << 20)
    assert wire.CopyChunksDone(256, 1 << 20, 16 << 20).encode() == told


def test_extents_to_be_shared() -> None:
    asked = wire.DuplicateExtents(FileId(0x0102, 0x0304), 0x10000, 0x20000, 0x3000)
    expected = bytes.fromhex("0201000000000000 0403000000000000 0000010000000000 0000020000000000 0030000000000000")
    assert asked.encode() == expected
    assert wire.DuplicateExtents.parse(expected) == asked
    with pytest.raises(WireError):
        wire.DuplicateExtents.parse(expected[:-1])


def test_sparse_or_not() -> None:
    assert wire.SetSparse(True).encode() == b"\1"
    assert wire.SetSparse.parse(b"") == wire.SetSparse(True)
    assert wire.SetSparse.parse(b"\0") == wire.SetSparse(False)


def test_allocated_ranges() -> None:
    data = bytes.fromhex("0000010000000000 0010000000000000 0000030000000000 0020000000000000")
    assert wire.allocated_ranges(data) == [(0x10000, 0x1000), (0x30000, 0x2000)]
    assert wire.allocated_ranges(b"") == []
    with pytest.raises(WireError):
        wire.allocated_ranges(data[:-1])


def test_requests_of_the_kernel() -> None:
    head = bytes(40)
    seek = bytes.fromhex("0500000000000000 0000100000000000 03000000 00000000")
    assert fuse.LseekIn.parse(memoryview(head + seek)) == (5, 1 << 20, fuse.SEEK_DATA)
    allocate = bytes.fromhex("0500000000000000 0010000000000000 0020000000000000 03000000 00000000")
    keep_and_punch = fuse.FALLOC_FL_KEEP_SIZE | fuse.FALLOC_FL_PUNCH_HOLE
    assert fuse.FallocateIn.parse(memoryview(head + allocate)) == (5, 4096, 8192, keep_and_punch)
    copy = b"".join(number.to_bytes(8, "little") for number in (1, 2, 3, 4, 5, 6, 0))
    assert fuse.CopyFileRangeIn.parse(memoryview(head + copy)) == (1, 2, 3, 4, 5, 6, 0)
    assert fuse.CopyFileRangeOut(1 << 33).encode() == bytes.fromhex("0000000002000000")
