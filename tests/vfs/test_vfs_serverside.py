"""Copies, holes and space through the verbs: which handle, how long, and what is told of what was done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
import trio
from vfs_world import World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status
from smb3fs.handles.ledger import Piece
from smb3fs.vfs.files import Owner
from smb3fs.vfs.wall import settle
from smb3fs.wire.fuse_ranges import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE

DATA = b"0123456789" * 1000


async def pair(world: World, flags: int = os.O_WRONLY) -> tuple[int, int]:
    """A file with data, open for reading, and an empty one."""
    world.share.put("from").data[:] = DATA
    world.share.put("to")
    return await world.open("from"), await world.open("to", flags)


def target(world: World) -> bytes:
    return bytes(world.share.find("to").data)


async def copy(world: World, *arguments: Any) -> int:
    return await settle(world.vfs.copy_file_range(*arguments))


@in_trio
async def test_a_copy_goes_by_the_server_in_as_many_pieces_as_it_takes() -> None:
    world = World()
    source, to = await pair(world)
    world.share.copy_at_most = 3000
    assert await copy(world, source, 0, to, 0, len(DATA)) == len(DATA)
    assert target(world) == DATA
    assert world.share.count("copy") == 4
    assert not {"read", "write"} & set(world.share.calls)


@in_trio
async def test_the_end_of_the_source_is_the_end() -> None:
    world = World()
    source, to = await pair(world)
    assert await copy(world, source, len(DATA) - 7, to, 3, 100) == 7
    assert target(world) == bytes(3) + DATA[-7:]
    assert await copy(world, source, len(DATA), to, 0, 100) == 0


@in_trio
async def test_a_long_copy_ends_long_before_its_time_is_up() -> None:
    world = World(timeout=20.0)
    source, to = await pair(world)
    world.share.copy_at_most, world.share.latency = 1000, 2.0
    assert await copy(world, source, 0, to, 0, len(DATA)) == 3000
    assert trio.current_time() < 7


@in_trio
async def test_a_failure_after_a_part_is_told_by_the_next_call() -> None:
    world = World()
    source, to = await pair(world)
    world.share.copy_at_most = 4000
    world.share.fail("copy", None, Status.DISK_FULL, Status.DISK_FULL)
    assert await copy(world, source, 0, to, 0, len(DATA)) == 4000
    with fails(errno.ENOSPC):
        await copy(world, source, 4000, to, 4000, 6000)


@in_trio
async def test_a_part_is_told_to_one_who_is_interrupted() -> None:
    world = World()
    source, to = await pair(world)
    world.share.copy_at_most = 4000
    counts = []
    with trio.CancelScope() as scope:
        # As a share does, which stays for the server's answer.
        world.share.before = lambda call: scope.cancel() if call == "copy" else None
        world.share.exchange = shielded(world.share.exchange)  # type: ignore[method-assign]
        counts.append(await copy(world, source, 0, to, 0, len(DATA)))
    assert counts == [4000]


def shielded(call: Any) -> Any:
    async def within(name: str) -> None:
        with trio.CancelScope(shield=True):
            await call(name)

    return within


@in_trio
async def test_what_cannot_be_copied_to() -> None:
    world = World()
    source, appending = await pair(world, os.O_WRONLY | os.O_APPEND)
    with fails(errno.EBADF):
        await copy(world, source, 0, appending, 0, 10)
    with fails(errno.EINVAL):
        await copy(world, source, 0, appending, 0, 10, 1)
    with fails(errno.EBADF):
        await copy(world, 999, 0, source, 0, 10)
    assert world.share.count("copy") == 0


@in_trio
async def test_a_lost_connection_is_eio(expect_log: Callable[[str], None]) -> None:
    expect_log("copy_file_range: ConnectionLost")
    world = World()
    source, to = await pair(world)
    world.share.fail("copy", ConnectionLost("gone"))
    with fails(errno.EIO):
        await copy(world, source, 0, to, 0, 10)


@in_trio
async def test_another_way_is_the_kernels_to_choose() -> None:
    world = World()
    source, to = await pair(world)
    for number in (errno.EOPNOTSUPP, errno.EXDEV):
        world.share.fail("copy", OSError(number, "another way"))
        with fails(number):
            await copy(world, source, 0, to, 0, 10)


@in_trio
async def test_files_with_locks_are_copied_by_the_handles_that_have_them() -> None:
    world = World()
    source, to = await pair(world, os.O_RDWR)
    writer = await world.open("from", os.O_RDWR)
    other = await world.open("to", os.O_RDWR)
    for number, fh in enumerate((writer, other)):
        await settle(world.vfs.setlk(fh, Owner(False, number), 0, 1 << 40, exclusive=True, pid=1))
    # By any other handle the server would refuse it.
    assert await copy(world, source, 0, to, 0, len(DATA)) == len(DATA)
    await settle(world.vfs.fallocate(to, 0, 10, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
    assert target(world) == bytes(10) + DATA[10:]


@in_trio
async def test_somebody_elses_lock_is_in_the_way() -> None:
    world = World()
    source, to = await pair(world)
    theirs = await world.share.open("to", read=True, write=True, expect=None)
    assert await world.share.wait_for_lock(theirs, Piece(0, 100, True))
    with fails(errno.EACCES):
        await copy(world, source, 0, to, 0, 10)
    with fails(errno.EACCES):
        await settle(world.vfs.fallocate(to, 0, 10, FALLOC_FL_ZERO_RANGE))


@in_trio
async def test_what_was_brought_along_by_an_open_is_old_after_a_copy() -> None:
    world = World()
    source, to = await pair(world)
    reader = await world.open("to")
    assert await copy(world, source, 0, to, 0, 10) == 10
    assert await world.read(reader, 0, 10) == DATA[:10]


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        (0, "allocate"),
        (FALLOC_FL_KEEP_SIZE, "allocate"),
        (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch"),
        (FALLOC_FL_ZERO_RANGE, "zero"),
        (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero"),
        (FALLOC_FL_PUNCH_HOLE, None),
        (0x08, None),  # FALLOC_FL_COLLAPSE_RANGE
        (0x20, None),  # FALLOC_FL_INSERT_RANGE
        (0x40, None),  # FALLOC_FL_UNSHARE_RANGE
        (FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, None),
    ],
)
@in_trio
async def test_modes_of_fallocate(mode: int, call: str | None) -> None:
    world = World()
    fh, _ = await world.create("file")
    await world.write(fh, 0, b"x" * 100)
    before = len(world.share.calls)
    if call is None:
        with fails(errno.EOPNOTSUPP):
            await settle(world.vfs.fallocate(fh, 50, 100, mode))
        assert world.share.calls[before:] == []
        return
    await settle(world.vfs.fallocate(fh, 50, 100, mode))
    assert world.share.calls[before:] == [call]
    size = 100 if mode & FALLOC_FL_KEEP_SIZE else 150
    kept = b"x" * (100 if call == "allocate" else 50)
    assert bytes(world.share.find("file").data) == kept + bytes(size - len(kept))


@in_trio
async def test_nothing_to_allocate() -> None:
    world = World()
    fh, _ = await world.create("file")
    with fails(errno.EINVAL):
        await settle(world.vfs.fallocate(fh, 0, 0, 0))


@in_trio
async def test_seeking() -> None:
    world = World()
    world.share.put("file").data[:] = bytes(8192) + b"x" * 100 + bytes(8092)
    fh = await world.open("file")
    assert await settle(world.vfs.lseek(fh, 0, os.SEEK_DATA)) == 8192
    assert await settle(world.vfs.lseek(fh, 8192, os.SEEK_HOLE)) == 12288
    with fails(errno.ENXIO):
        await settle(world.vfs.lseek(fh, 12288, os.SEEK_DATA))
    with fails(errno.EINVAL):
        await settle(world.vfs.lseek(fh, 0, os.SEEK_SET))


@in_trio
async def test_the_kernel_is_made_to_write_back_what_may_be_mapped() -> None:
    world = World()
    dropped: list[int] = []

    async def forget_pages(number: int, names: Any) -> None:
        dropped.append(number)

    world.state.forget_pages = forget_pages
    world.share.put("file").data[:] = b"x"
    number = await world.number("file")
    reader = await world.open("file")
    await settle(world.vfs.lseek(reader, 0, os.SEEK_DATA))
    await world.open("file", os.O_WRONLY)
    await settle(world.vfs.lseek(reader, 0, os.SEEK_DATA))
    assert dropped == []
    await world.open("file", os.O_RDWR)
    await settle(world.vfs.lseek(reader, 0, os.SEEK_DATA))
    assert dropped == [number]


@in_trio
async def test_who_may_only_write_asks_by_somebody_who_may_read() -> None:
    world = World()
    world.share.put("file").data[:] = b"x"
    writer = await world.open("file", os.O_WRONLY)
    reader = await world.open("file")
    asked = []

    async def seek(handle: Any, offset: int, *, hole: bool) -> int:
        asked.append(handle)
        return offset

    world.share.seek = seek  # type: ignore[method-assign]
    await settle(world.vfs.lseek(writer, 0, os.SEEK_DATA))
    assert asked == [world.state.files.get(reader).handle]
