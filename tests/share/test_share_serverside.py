"""Copies by the server: what is asked of it, how much at a time, and what becomes of refusals and cancellations."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from peer import settle, trio_test
from serverside_server import ServerSideServer, fails
from stage import staged
from tree_server import Tree

from smb3fs.errors import ConnectionLost, Status, StatusError, WireError
from smb3fs.handles.opens import Open
from smb3fs.share.serverside import REQUESTS_AT_A_TIME
from smb3fs.share.share import Share
from smb3fs.wire.serverside import AllocatedRange, CopyChunksDone

KIB = 1024
DATA = bytes(range(251)) * 400  # 100,400 bytes


class Copying:
    """A share, its server, and two open files."""

    def __init__(self, share: Share, server: ServerSideServer, source: Open, target: Open, stage: Any) -> None:
        self.share, self.server, self.source, self.target, self.stage = share, server, source, target, stage

    async def copy(self, offset: int = 0, target_offset: int = 0, size: int = len(DATA)) -> int:
        return await self.share.copy(self.source, offset, self.target, target_offset, size)

    @property
    def copied(self) -> bytes:
        return bytes(self.server.tree.nodes["to"].data)


@asynccontextmanager
async def copying(**settings: Any) -> AsyncIterator[Copying]:
    tree = Tree()
    tree.add("from", DATA)
    tree.add("to")
    async with staged(tree, serve=ServerSideServer) as stage:
        server = stage.server
        assert isinstance(server, ServerSideServer)
        for name, value in settings.items():
            setattr(server, name, value)
        await stage.share.root()
        source = await stage.share.open("from", read=True, write=False, expect=None)
        target = await stage.share.open("to", read=False, write=True, expect=None)
        yield Copying(stage.share, server, source, target, stage)


def small(chunks: int, chunk: int, total: int) -> CopyChunksDone:
    """Limits of a small server."""
    return CopyChunksDone(chunks, chunk, total)


@trio_test
async def test_a_small_copy_is_two_round_trips_and_no_data() -> None:
    async with copying() as c:
        with c.stage.costs(2):
            assert await c.copy() == len(DATA)
        assert c.copied == DATA
        trace = c.stage.world.trace
        assert (trace.bytes_read, trace.bytes_written, trace.bytes_copied) == (0, 0, len(DATA))


@trio_test
async def test_a_part_to_another_place() -> None:
    async with copying() as c:
        assert await c.copy(1000, 5, 300) == 300
        assert c.copied == bytes(5) + DATA[1000:1300]


@trio_test
async def test_the_limits_are_learned_once() -> None:
    async with copying(limits=small(3, 4 * KIB, 10 * KIB)) as c:
        assert await c.copy() == 40 * KIB
        assert c.server.copies == [[len(DATA)], *[[4 * KIB, 4 * KIB, 2 * KIB]] * REQUESTS_AT_A_TIME]
        assert await c.copy(40 * KIB, 40 * KIB) == 40 * KIB
        assert await c.copy(80 * KIB, 80 * KIB) == len(DATA) - 80 * KIB
        assert await c.copy(len(DATA), len(DATA)) == 0
        assert c.copied == DATA
        assert max(sum(lengths) for lengths in c.server.copies[1:]) == 10 * KIB


@pytest.mark.parametrize("limits", [(0, 4096, 4096), (256, 1 << 20, 0)])
@trio_test
async def test_limits_by_which_nothing_could_be_copied(limits: tuple[int, int, int]) -> None:
    async with copying(limits=CopyChunksDone(*limits)) as c:
        with fails(errno.EOPNOTSUPP):
            await c.copy()
        assert len(c.server.copies) == 1


@trio_test
async def test_not_beyond_the_end_of_the_source() -> None:
    async with copying() as c:
        assert await c.copy(len(DATA) - 10, 0, 1 << 40) == 10
        assert await c.copy(len(DATA) + 10, 0, 10) == 0
        assert c.copied == DATA[-10:]


@pytest.mark.parametrize(
    "status",
    [Status.INVALID_DEVICE_REQUEST, Status.NOT_SUPPORTED, Status.ACCESS_DENIED, Status.INVALID_VIEW_SIZE],
)
@trio_test
async def test_a_refusal_says_that_there_is_another_way(status: Status) -> None:
    async with copying(copy_status=[status]) as c:
        with fails(errno.EOPNOTSUPP):
            await c.copy()
        assert c.copied == b""


@trio_test
async def test_a_server_that_does_not_copy_is_not_asked_again() -> None:
    async with copying(copy_status=[Status.NOT_SUPPORTED]) as c:
        for _ in range(2):
            with fails(errno.EOPNOTSUPP):
                await c.copy()
        assert len(c.server.copies) == 1


@trio_test
async def test_what_is_refused_for_a_reason_keeps_it() -> None:
    async with copying(copy_status=[Status.DISK_FULL]) as c:
        with pytest.raises(StatusError) as caught:
            await c.copy()
        assert caught.value.status == Status.DISK_FULL


@trio_test
async def test_only_what_comes_before_a_failure_counts() -> None:
    tight = {"limits": small(1, 10 * KIB, 10 * KIB)}
    async with copying(**tight) as c:
        await c.copy(0, 0, 1)
        c.share._limits = c.server.limits
        c.server.copy_status = [Status.SUCCESS, Status.SUCCESS, Status.DISK_FULL, Status.SUCCESS]
        assert await c.copy() == 20 * KIB
        assert c.copied[: 20 * KIB] == DATA[: 20 * KIB]


@pytest.mark.parametrize("short", [-1, len(DATA)])
@trio_test
async def test_a_claim_that_cannot_be(short: int) -> None:
    async with copying(copied_short=short) as c:
        with pytest.raises(WireError):
            await c.copy()


@trio_test
async def test_less_than_asked_for_is_less() -> None:
    async with copying(copied_short=7) as c:
        assert await c.copy() == len(DATA) - 7


@trio_test
async def test_the_requests_of_a_copy_are_under_way_together() -> None:
    async with copying(limits=small(1, 10 * KIB, 10 * KIB), held=[]) as c, trio.open_nursery() as nursery:
        c.share._limits = c.server.limits
        counts: list[int] = []

        async def copy() -> None:
            counts.append(await c.copy())

        nursery.start_soon(copy)
        await settle()
        assert c.server.held is not None
        assert len(c.server.held) == REQUESTS_AT_A_TIME
        c.server.release()
        await settle()
        assert counts == [40 * KIB]


@trio_test
async def test_who_is_cancelled_stays_until_the_server_has_done_it() -> None:
    async with copying(limits=small(1, 10 * KIB, 10 * KIB), held=[]) as c, trio.open_nursery() as nursery:
        c.share._limits = c.server.limits
        counts: list[int] = []
        scope = trio.CancelScope()

        async def copy() -> None:
            with scope:
                counts.append(await c.copy())

        nursery.start_soon(copy)
        await settle()
        scope.cancel()
        await settle()
        assert counts == []
        c.server.release()
        await settle()
        assert counts == [40 * KIB]
        assert not scope.cancelled_caught


@trio_test
async def test_the_end_of_the_link_is_the_end_of_the_copy() -> None:
    async with copying(held=[]) as c, trio.open_nursery() as nursery:

        async def copy() -> None:
            with pytest.raises(ConnectionLost):
                await c.copy()

        nursery.start_soon(copy)
        await settle()
        c.stage.world.peer.transport.hang_up()


@trio_test
async def test_files_of_two_sessions() -> None:
    async with copying() as c:
        c.target.generation += 1  # as after a loss
        with fails(errno.EXDEV):
            await c.copy()


# -- holes

# Data at 10..20, 20..30 and 50..60 of 80 bytes.
RANGES = [AllocatedRange(10, 10), AllocatedRange(20, 10), AllocatedRange(50, 10)]
END = OSError


@pytest.mark.parametrize("how", ["at once", "one at a time", "all or none", "none at all"])
@trio_test
async def test_data_and_holes(how: str) -> None:
    tree = Tree()
    tree.add("sparse", bytes(80))
    async with staged(tree, serve=ServerSideServer) as stage:
        server = stage.server
        assert isinstance(server, ServerSideServer)
        server.ranges["sparse"] = RANGES
        if how == "one at a time":
            server.most_ranges = 1
        elif how == "all or none":
            server.most_ranges, server.all_or_none = 1, True
        elif how == "none at all":
            server.ranges["sparse"] = []
        handle = await stage.share.open("sparse", read=True, write=False, expect=None)

        async def seek(offset: int, *, hole: bool) -> int | None:
            try:
                return await stage.share.seek(handle, offset, hole=hole)
            except OSError as error:
                return None if error.errno == errno.ENXIO else -1

        data = set[int]() if how == "none at all" else {*range(10, 30), *range(50, 60)}
        for offset in (0, 9, 10, 19, 20, 29, 30, 49, 50, 59, 60, 79, 80, 1000):
            rest = range(offset, 80)
            assert await seek(offset, hole=False) == next((one for one in rest if one in data), None)
            first = next((one for one in rest if one not in data), None)
            assert await seek(offset, hole=True) == first


@pytest.mark.parametrize("status", [Status.INVALID_DEVICE_REQUEST, Status.ACCESS_DENIED, Status.NOT_SUPPORTED])
@trio_test
async def test_what_is_not_told_is_data(status: Status) -> None:
    async with copying(no_ranges=status) as c:
        assert await c.share.seek(c.source, 17, hole=False) == 17
        assert await c.share.seek(c.source, 17, hole=True) == len(DATA)
        for hole in (True, False):
            with fails(errno.ENXIO):
                await c.share.seek(c.source, len(DATA), hole=hole)


@trio_test
async def test_ranges_that_lead_nowhere() -> None:
    async with copying(most_ranges=0) as c:
        with pytest.raises(WireError):
            await c.share.seek(c.source, 0, hole=False)


@trio_test
async def test_room_for_ranges_is_sought_but_not_for_ever() -> None:
    async with copying(no_ranges=Status.BUFFER_TOO_SMALL) as c:
        assert await c.share.seek(c.source, 0, hole=True) == len(DATA)
        assert len(c.server.controls) < 20


@trio_test
async def test_a_fragmented_file_is_not_asked_about_byte_by_byte() -> None:
    """After a crowded part the questions become large again."""
    tree = Tree()
    tree.add("sparse", bytes(1 << 20))
    async with staged(tree, serve=ServerSideServer) as stage:
        server = stage.server
        assert isinstance(server, ServerSideServer)
        server.most_ranges, server.all_or_none = 4, True
        server.ranges["sparse"] = [AllocatedRange(place, 1) for place in range(0, 64, 2)]
        handle = await stage.share.open("sparse", read=True, write=False, expect=None)
        assert await stage.share.seek(handle, 62, hole=False) == 62
        with fails(errno.ENXIO):
            await stage.share.seek(handle, 63, hole=False)
        assert len(server.controls) < 60
