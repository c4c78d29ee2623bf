"""Holes, zeros and promised space: nothing is done that was not asked for, and nothing is said that is not so."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from peer import settle, trio_test
from serverside_server import ServerSideServer, commands, fails
from stage import Stage, staged
from tree_server import Tree

from smb3fs.errors import Status, StatusError
from smb3fs.handles.opens import Open
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.lock import UNLOCK
from smb3fs.wire.serverside import FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA

DATA = b"x" * 100


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[tuple[Stage, ServerSideServer, Open]]:
    """A share with one open file; `refused` names controls that the server does not know."""
    tree = Tree()
    tree.add("f", DATA)
    refused = settings.pop("refused", {})
    async with staged(tree, serve=ServerSideServer) as stage:
        server = stage.server
        assert isinstance(server, ServerSideServer)
        for name, value in settings.items():
            setattr(server, name, value)
        server.refuse = lambda message, index: refused.get(getattr(message.elements[index].request, "ctl_code", 0))
        yield stage, server, await stage.share.open("f", read=True, write=True, expect=None)
        # Whatever was locked meanwhile is unlocked.
        await settle()
        flags = [element.flags for elements in server.locked for element in elements]
        assert len(flags) % 2 == 0
        assert all(flag == UNLOCK for flag in flags[1::2])


def data(stage: Stage) -> bytes:
    return bytes(stage.tree.nodes["f"].data)


@trio_test
async def test_a_hole() -> None:
    async with opened() as (stage, server, handle):
        await stage.share.punch(handle, 10, 20)
        assert data(stage) == b"x" * 10 + bytes(10) + b"x" * 80
        assert server.controls == [FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA]
        await stage.share.punch(handle, 90, 1000)
        assert data(stage)[80:] == b"x" * 10 + bytes(10)


@pytest.mark.parametrize("control", [FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA])
@pytest.mark.parametrize("status", [Status.INVALID_DEVICE_REQUEST, Status.NOT_SUPPORTED, Status.INVALID_PARAMETER])
@trio_test
async def test_no_hole_where_there_are_none(control: int, status: Status) -> None:
    async with opened(refused={control: status}) as (stage, _, handle):
        with fails(errno.EOPNOTSUPP):
            await stage.share.punch(handle, 10, 20)
        assert data(stage) == DATA


@trio_test
async def test_a_lock_in_the_way_of_zeros_stays_one() -> None:
    async with opened(refused={FSCTL_SET_ZERO_DATA: Status.FILE_LOCK_CONFLICT}) as (stage, _, handle):
        with pytest.raises(StatusError):
            await stage.share.zero(handle, 10, 20, keep_size=True)


@pytest.mark.parametrize(
    ("offset", "end", "keep_size", "expected"),
    [
        (10, 20, True, b"x" * 10 + bytes(10) + b"x" * 80),
        (10, 20, False, b"x" * 10 + bytes(10) + b"x" * 80),
        (90, 120, True, b"x" * 90 + bytes(10)),
        (90, 120, False, b"x" * 90 + bytes(30)),
        (150, 160, False, b"x" * 100 + bytes(60)),
    ],
)
@trio_test
async def test_zeros(offset: int, end: int, keep_size: bool, expected: bytes) -> None:
    async with opened() as (stage, server, handle):
        await stage.share.zero(handle, offset, end, keep_size=keep_size)
        assert data(stage) == expected
        assert not stage.tree.nodes["f"].attributes & FileAttribute.SPARSE_FILE
        assert bool(server.locked) == (end > 100 and not keep_size)


@trio_test
async def test_a_file_never_becomes_shorter_by_becoming_longer() -> None:
    """Somebody else makes the file longer than it is to become, between the question and the order."""
    async with opened() as (stage, server, handle):
        plain = server._do_ioctl

        def and_grow(request: Any, *rest: Any) -> bytes:
            told = plain(request, *rest)
            server.distort = grow
            return told

        def grow(element: Any, body: bytes) -> bytes:
            if len(data(stage)) == 100 and type(element.request).__name__ == "QueryInfoRequest":
                stage.tree.nodes["f"].data += b"y" * 900
            return body

        server._do_ioctl = and_grow  # type: ignore[method-assign]
        await stage.share.zero(handle, 90, 120, keep_size=False)
        assert data(stage) == b"x" * 90 + bytes(10) + b"y" * 900


@trio_test
async def test_nothing_grows_where_somebody_has_locked_what_is_behind() -> None:
    async with opened(lock_status=Status.LOCK_NOT_GRANTED) as (stage, _, handle):
        for verb in (stage.share.zero, stage.share.allocate):
            with fails(errno.EOPNOTSUPP):
                await verb(handle, 90, 120, keep_size=False)
        assert len(data(stage)) == 100


@pytest.mark.parametrize("keep_size", [True, False])
@trio_test
async def test_space_that_the_server_gives(keep_size: bool) -> None:
    async with opened() as (stage, server, handle):
        await stage.share.allocate(handle, 50, 5000, keep_size=keep_size)
        assert server.allocation["f"] == 5000
        assert data(stage) == (DATA if keep_size else DATA + bytes(4900))


@pytest.mark.parametrize("keep_size", [True, False])
@trio_test
async def test_space_that_the_server_only_claims_to_give(keep_size: bool) -> None:
    async with opened(allocates=False) as (stage, _, handle):
        with fails(errno.EOPNOTSUPP):
            await stage.share.allocate(handle, 0, 5000, keep_size=keep_size)
        assert data(stage) == DATA


@trio_test
async def test_space_that_is_there() -> None:
    async with opened() as (stage, server, handle):
        await stage.share.allocate(handle, 10, 100, keep_size=False)
        assert "SET_INFO" not in commands(server)
        server.allocation["f"] = 50
        with fails(errno.EOPNOTSUPP):
            await stage.share.allocate(handle, 10, 100, keep_size=False)


@trio_test
async def test_a_file_that_may_have_holes_is_promised_nothing() -> None:
    async with opened() as (stage, server, handle):
        stage.tree.nodes["f"].attributes |= FileAttribute.SPARSE_FILE
        for end in (100, 5000):
            with fails(errno.EOPNOTSUPP):
                await stage.share.allocate(handle, 0, end, keep_size=False)
        assert "SET_INFO" not in commands(server)
