"""A file is known for ours by the lease of the CREATE that has made it, where the answer to that is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from attached_server import AttachedServer
from peer import Message, trio_test
from stage import Stage, staged
from tree_server import Tree

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost
from smb3fs.handles.lease import RWH
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition, FileId, OplockLevel
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseContextV2


@dataclass
class Past:
    """What outlives the sessions: epochs by the keys of leases, and what is to be lost."""

    epochs: dict[bytes, int] = field(default_factory=dict)
    lost: str = ""
    meanwhile: Callable[[], object] = lambda: None
    """What others do while we have no connection."""


class ForgetfulServer(AttachedServer):
    """Knows no CREATE again, but every lease."""

    def __init__(self, tree: Tree, past: Past) -> None:
        super().__init__(tree)
        self.past = past
        self.handler = self.receive

    def receive(self, message: Message) -> None:
        """Lose a CREATE that makes something, or its answer."""
        request = message.elements[0].request
        if not self.past.lost or not isinstance(request, CreateRequest) or request.disposition != Disposition.CREATE:
            self.serve(message)
            return
        if self.past.lost == "answer":
            self.send = lambda *_replies, **_how: None  # type: ignore[method-assign]
            self.serve(message)
        self.past.lost = ""
        self.transport.hang_up()
        self.past.meanwhile()

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        """Grant a lease with an epoch that goes on from the server's own, or else from the client's."""
        told = CreateResponse.parse(memoryview(bytes(64) + super()._created(file_id, request)))
        data = dict(request.contexts).get(LEASE_CONTEXT)
        if data is not None:
            asked = LeaseContextV2.parse(data)
            epoch = self.past.epochs.setdefault(asked.key, asked.epoch + 1)
            told.oplock_level = OplockLevel.LEASE
            told.contexts.append(CreateContext(LEASE_CONTEXT, LeaseContextV2(asked.key, RWH, epoch=epoch).encode()))
        return told.encode()


@asynccontextmanager
async def forgetful(*, leases: bool = True) -> AsyncIterator[tuple[Stage, Past]]:
    """A share on such a server."""
    past = Past()
    async with staged(serve=lambda tree: ForgetfulServer(tree, past), leases=leases) as stage:
        connect = stage.world._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            stage.opens.leases.speak(2)
            return session

        stage.world.recovery._connect = connected
        stage.opens.leases.speak(2)
        yield stage, past


@pytest.mark.parametrize("lost", ["request", "answer"])
@trio_test
async def test_what_was_made_is_opened(lost: str) -> None:
    async with forgetful() as (stage, past):
        past.lost = lost
        handle = await stage.share.create("new", read=True, write=True, exclusive=True)
        assert handle.created
        assert handle.attributes_at_open.file_id == stage.tree.nodes["new"].number
        assert handle.lease is not None
        assert await stage.share.write(handle, 0, b"mine") == 4
        # What had been opened before the loss is in the way of whoever comes with its key, and ends with another.
        assert len(past.epochs) == (2 if lost == "answer" else 1)
        stage.share.close(handle)
        await stage.nothing_open()
        assert len(stage.opens.leases) == 0


@trio_test
async def test_a_file_that_another_has_made_is_not_taken_for_ours() -> None:
    async with forgetful() as (stage, past):
        past.lost, past.meanwhile = "request", lambda: stage.tree.add("new", b"another's")
        with pytest.raises(ConnectionLost):
            await stage.share.create("new", read=True, write=True, exclusive=True)
        assert stage.tree.nodes["new"].data == b"another's"
        await stage.nothing_open()
        assert len(stage.opens.leases) == 0


@trio_test
async def test_nor_is_one_that_has_taken_the_place_of_what_we_had_made() -> None:
    async with forgetful() as (stage, past):

        def replace() -> None:
            stage.tree.add("new", b"another's")
            past.epochs.clear()  # with the file went its lease

        past.lost, past.meanwhile = "answer", replace
        with pytest.raises(ConnectionLost):
            await stage.share.create("new", read=True, write=True, exclusive=True)
        await stage.nothing_open()


@trio_test
async def test_without_a_lease_nobody_can_tell() -> None:
    async with forgetful(leases=False) as (stage, past):
        past.lost = "answer"
        with pytest.raises(ConnectionLost):
            await stage.share.create("new", read=True, write=True, exclusive=True)
        await stage.nothing_open()


@trio_test
async def test_a_key_that_another_open_has_shows_nothing() -> None:
    """The file was open here when somebody moved it away, and its name is made anew."""
    async with forgetful() as (stage, past):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        assert handle.lease is not None
        node = stage.tree.nodes["f"]
        del stage.tree.nodes["f"]
        past.lost, past.meanwhile = "request", lambda: stage.tree.nodes.update(f=node)
        with pytest.raises(ConnectionLost):
            await stage.share.create("f", read=True, write=True, exclusive=True)
