"""One open on the server for several of ours, where it outlives its connection by itself alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from attached_server import AttachedServer
from peer import settle, trio_test
from stage import Stage, staged
from test_share_leases import LeasingServer
from tree_server import Node

from smb3fs.handles.ledger import Ledger
from smb3fs.handles.opens import Durability, Open
from smb3fs.wire.header import Command


@asynccontextmanager
async def sharing(durability: Durability = Durability.DURABLE_V2) -> AsyncIterator[tuple[Stage, Open]]:
    """A share on which `f` is open for reading and writing."""
    async with staged(serve=LeasingServer, leases=True) as stage:
        stage.opens.leases.speak(2)
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        handle.durability = durability
        yield stage, handle


def sent(stage: Stage, command: Command) -> int:
    """How many requests of a kind the server has had."""
    assert isinstance(stage.server, AttachedServer)
    return sum(element.request.command == command for message in stage.server.messages for element in message.elements)


@pytest.mark.parametrize("durability", [Durability.DURABLE, Durability.DURABLE_V2])
@pytest.mark.parametrize(("read", "write"), [(True, True), (True, False), (False, True)])
@trio_test
async def test_who_opens_what_is_open_uses_the_same_open(durability: Durability, read: bool, write: bool) -> None:
    async with sharing(durability) as (stage, handle):
        handle.head = memoryview(b"old")
        stage.tree.nodes["f"].data[:] = b"changed meanwhile"
        with stage.costs(1):
            again = await stage.share.open("f", read=read, write=write, expect=None)
        assert again is handle
        assert sent(stage, Command.CREATE) == 1
        assert (again.attributes_at_open.size, again.head) == (17, None)
        # It is there until both have closed it.
        stage.share.close(again)
        assert await stage.share.read(handle, 0, 7) == b"changed"
        stage.share.close(handle)
        stage.share.close(handle)
        await stage.nothing_open()
        assert sent(stage, Command.CLOSE) == 1


@trio_test
async def test_who_comes_while_there_is_no_session_waits_for_it() -> None:
    """No lease permits anything then, but the open may be claimed; a second one would cost both at the next loss."""
    async with sharing() as (stage, handle):
        session = stage.world.pool.session
        assert session is not None
        stage.world.pool.session = None  # as between two sessions, but nobody makes another one
        stage.opens.leases.suspended()
        found: list[Open] = []

        async def come() -> None:
            found.append(await stage.share.open("f", read=True, write=False, expect=None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            await settle()
            assert not found
            stage.opens.leases.speak(2)
            assert handle.lease is not None
            handle.lease.known, handle.lease.state = True, handle.lease.kept
            stage.world.pool.attach(session)
        assert found == [handle]
        assert sent(stage, Command.CREATE) == 1


def _lost(handle: Open) -> None:
    handle.lost = "for a test"


def _locked(handle: Open) -> None:
    handle.ledger = Ledger()


def _in_doubt(handle: Open) -> None:
    handle.doubts = 1


def _of_another_session(handle: Open) -> None:
    handle.generation -= 1


def _reader(handle: Open) -> None:
    handle.request.desired_access = 1


@pytest.mark.parametrize("spoil", [_lost, _locked, _in_doubt, _of_another_session, _reader])
@trio_test
async def test_what_cannot_stand_for_both_is_opened_apart(spoil: Callable[[Open], None]) -> None:
    async with sharing() as (stage, handle):
        spoil(handle)
        again = await stage.share.open("f", read=True, write=True, expect=None)
        assert again is not handle
        assert (handle.users, again.users) == (1, 1)
        assert sent(stage, Command.CREATE) == 2


@pytest.mark.parametrize("durability", [Durability.NONE, Durability.PERSISTENT])
@trio_test
async def test_where_nothing_or_everything_is_kept_each_has_its_own(durability: Durability) -> None:
    async with sharing(durability) as (stage, handle):
        assert await stage.share.open("f", read=True, write=True, expect=None) is not handle


@trio_test
async def test_another_file_of_the_same_name_is_another_open() -> None:
    async with sharing() as (stage, handle):
        number = stage.tree.nodes["f"].number
        assert await stage.share.open("f", read=True, write=True, expect=number) is handle
        stage.tree.nodes["f"] = Node(number + 1000)
        assert await stage.share.open("f", read=True, write=True, expect=number + 1000) is not handle


@trio_test
async def test_a_truncation_by_path_closes_nobodys_open_but_its_own() -> None:
    async with sharing() as (stage, handle):
        told = await stage.share.truncate_path("f", 3, None)
        assert told.size == 3
        assert await stage.share.read(handle, 0, 9) == b"con"
        stage.share.close(handle)
        await stage.nothing_open()
