"""Copies that share blocks: what is asked for, what is left to the other control, what is never claimed in vain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import trio_test
from serverside_server import ServerSideServer
from stage import staged
from tree_server import Tree

from smb3fs.errors import Status, StatusError
from smb3fs.handles.opens import Open
from smb3fs.share import cloning
from smb3fs.share.share import Share
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.infoclass import FILE_SUPPORTS_BLOCK_REFCOUNTING
from smb3fs.wire.serverside import CopyChunksDone

KIB = 1024
CLUSTER = 4 * KIB
DATA = bytes(range(251)) * 400  # 100,400 bytes: 24 clusters and a part
WHOLE = len(DATA) // CLUSTER * CLUSTER


class Cloned:
    """A share, its server, and two open files."""

    def __init__(self, share: Share, server: ServerSideServer, source: Open, target: Open, stage: Any) -> None:
        self.share, self.server, self.source, self.target, self.stage = share, server, source, target, stage

    async def copy_all(self, offset: int = 0, target_offset: int = 0, size: int = len(DATA)) -> list[int]:
        """Copy as the verb does, call by call, until nothing is left; what each call says."""
        counts: list[int] = []
        while left := min(size, len(DATA) - offset) - sum(counts):
            done = sum(counts)
            counts.append(await self.share.copy(self.source, offset + done, self.target, target_offset + done, left))
            assert counts[-1] > 0
        return counts

    @property
    def target_data(self) -> bytearray:
        return self.server.tree.nodes["to"].data


@asynccontextmanager
async def cloned(there: bytes = b"", *, asked_root: bool = True, **settings: Any) -> AsyncIterator[Cloned]:
    """Files on a volume that shares blocks, with `there` in the target."""
    tree = Tree()
    tree.add("from", DATA)
    tree.add("to", there)
    async with staged(tree, serve=ServerSideServer) as stage:
        server = stage.server
        assert isinstance(server, ServerSideServer)
        server.volume = FILE_SUPPORTS_BLOCK_REFCOUNTING
        for name, value in settings.items():
            setattr(server, name, value)
        if asked_root:
            await stage.share.root()
        source = await stage.share.open("from", read=True, write=False, expect=None)
        target = await stage.share.open("to", read=False, write=True, expect=None)
        yield Cloned(stage.share, server, source, target, stage)


@trio_test
async def test_a_new_file_shares_all_but_the_last_part_of_a_cluster() -> None:
    async with cloned() as c:
        assert await c.copy_all() == [WHOLE, len(DATA) - WHOLE]
        assert c.server.clones == [(0, 0, WHOLE)]
        assert c.server.copies == [[CLUSTER], [len(DATA) - WHOLE]]  # the first makes the target longer
        assert c.target_data == DATA
        trace = c.stage.world.trace
        assert (trace.bytes_copied, trace.bytes_shared) == (len(DATA), WHOLE)
        assert (trace.bytes_read, trace.bytes_written) == (0, 0)


@trio_test
async def test_a_target_that_is_long_enough_is_not_made_longer() -> None:
    async with cloned(b"x" * 2 * len(DATA)) as c:
        await c.copy_all(0, CLUSTER, WHOLE)
        assert (c.server.clones, c.server.copies) == ([(0, CLUSTER, WHOLE)], [])
        expected = b"x" * CLUSTER + DATA[:WHOLE]
        assert c.target_data == expected + b"x" * (2 * len(DATA) - len(expected))


@trio_test
async def test_the_volume_is_asked_about_once() -> None:
    async with cloned(DATA) as c:
        with c.stage.costs(3 + 2):  # key, target, clone; key, chunk
            await c.copy_all()
        c.server.messages.clear()
        await c.copy_all()
        assert all(len(message.elements) <= 2 for message in c.server.messages)


@trio_test
async def test_a_share_behind_a_link_finds_out_by_itself() -> None:
    async with cloned(asked_root=False) as c:
        await c.copy_all()
        assert len(c.server.clones) == 1
    async with cloned(asked_root=False, volume=3) as c:
        assert await c.copy_all() == [len(DATA)]
        assert c.server.clones == []


@pytest.mark.parametrize(("offset", "target_offset"), [(1, 0), (0, 512), (4096, 100), (4097, 2)])
@trio_test
async def test_what_is_not_in_line_is_copied(offset: int, target_offset: int) -> None:
    async with cloned() as c:
        await c.copy_all(offset, target_offset)
        assert c.server.clones == []
        assert c.target_data == bytes(target_offset) + DATA[offset:]


@trio_test
async def test_what_is_out_of_line_alike_is_copied_up_to_the_first_cluster() -> None:
    async with cloned() as c:
        await c.copy_all(100, CLUSTER + 100, 50_000)
        assert c.server.clones == [(CLUSTER, 2 * CLUSTER, 45_056)]
        assert c.target_data == bytes(CLUSTER + 100) + DATA[100:50_100]


@trio_test
async def test_larger_clusters() -> None:
    async with cloned(cluster=16 * KIB) as c:
        await c.copy_all(CLUSTER, CLUSTER)
        assert c.server.clones == [(16 * KIB, 16 * KIB, 80 * KIB)]
        assert c.target_data == bytes(CLUSTER) + DATA[CLUSTER:]


@pytest.mark.parametrize("cluster", [0, 4096 + 512, 4 << 20])
@trio_test
async def test_clusters_that_cannot_be(cluster: int) -> None:
    async with cloned(cluster=cluster) as c:
        assert await c.copy_all() == [len(DATA)]
        assert c.server.clones == []


@trio_test
async def test_units_that_are_smaller_than_clusters() -> None:
    async with cloned(cluster=1024) as c:
        await c.copy_all()
        assert c.server.clones == [(0, 0, WHOLE)]


@pytest.mark.parametrize("sparse", ["from", "to"])
@trio_test
async def test_files_of_two_sorts(sparse: str) -> None:
    async with cloned() as c:
        c.server.tree.nodes[sparse].attributes |= FileAttribute.SPARSE_FILE
        await c.copy_all()
        assert c.server.clones == []
        assert c.target_data == DATA


@pytest.mark.parametrize(
    "status",
    [
        Status.NOT_SUPPORTED,
        Status.INVALID_PARAMETER,
        Status.NOT_SAME_DEVICE,
        Status.INVALID_HANDLE,
        Status.ACCESS_DENIED,
        Status.DISK_FULL,
        0xC000048C,  # a block has too many references
    ],
)
@trio_test
async def test_what_is_refused_is_copied_and_asked_for_another_time(status: int) -> None:
    async with cloned(clone_status=[status]) as c:
        assert await c.copy_all() == [len(DATA)]
        assert c.target_data == DATA
        assert c.stage.world.trace.bytes_shared == 0
        c.target_data[:] = b""
        await c.copy_all()
        assert len(c.server.clones) == 2
        assert c.target_data == DATA


@pytest.mark.parametrize("status", [Status.INVALID_DEVICE_REQUEST, Status.NOT_IMPLEMENTED])
@trio_test
async def test_a_server_that_never_does_it_is_not_asked_again(status: int) -> None:
    async with cloned(clone_status=[status]) as c:
        for _ in range(2):
            assert await c.copy_all() == [len(DATA)]
        assert len(c.server.clones) == 1
        assert c.target_data == DATA


@trio_test
async def test_a_server_that_was_asked_to_stop_is_asked_for_nothing_more() -> None:
    async with cloned(clone_status=[Status.CANCELLED]) as c:
        with pytest.raises(StatusError):
            await c.copy_all()
        assert c.server.copies == [[CLUSTER]]


@trio_test
async def test_a_target_that_does_not_get_longer_shares_nothing() -> None:
    """What smbd would do then is nothing, successfully."""
    async with cloned(copied_short=1, limits=CopyChunksDone(256, 1 << 20, 16 << 20)) as c:
        assert await c.share.copy(c.source, 0, c.target, 0, len(DATA)) == len(DATA) - 1
        assert c.server.clones == []


@trio_test
async def test_a_large_file_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning, "MOST_AT_ONCE", 8 * CLUSTER + 17)
    async with cloned() as c:
        piece = 8 * CLUSTER
        assert await c.copy_all() == [piece, piece, piece, len(DATA) - WHOLE]
        assert c.server.clones == [(place, place, piece) for place in range(0, WHOLE, piece)]
        assert c.target_data == DATA


@given(
    offset=st.integers(0, 12) | st.sampled_from([4095, 4096, 4097, 8192, 99_000, WHOLE, len(DATA) - 1]),
    target_offset=st.sampled_from([0, 1, 100, 4095, 4096, 4097, 8192, 50_000]),
    size=st.integers(1, 9000) | st.integers(80_000, 120_000),
    there=st.sampled_from([0, 1, 4096, 8191, 60_000, 150_000]),
)
@settings(max_examples=25, deadline=None)
def test_any_range_is_copied_byte_by_byte(offset: int, target_offset: int, size: int, there: int) -> None:
    @trio_test
    async def check() -> None:
        async with cloned(b"x" * there) as c:
            counts = await c.copy_all(offset, target_offset, size)
            piece = DATA[offset : offset + size]
            assert sum(counts) == len(piece)
            expected = bytearray(b"x" * there)
            expected.extend(bytes(max(0, target_offset - there)))
            expected[target_offset : target_offset + len(piece)] = piece
            assert c.target_data == expected

    check()
