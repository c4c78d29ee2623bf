"""A server that gives no open back of a file that has two is left with one.

Who opens a file waits for who is about to, and another key ends what was lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
import trio
from attached_server import AttachedServer
from peer import Message, settle, trio_test
from stage import Stage, staged
from tree_server import Tree
from world import agreed

from smb3fs.channels.session import Session
from smb3fs.errors import Status, StatusError
from smb3fs.handles.lease import RWH
from smb3fs.handles.opens import Durability, Open
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, FileId, OplockLevel
from smb3fs.wire.durable import (
    DURABLE_HANDLE_RECONNECT_V2,
    DURABLE_HANDLE_V2,
    DurableHandleReconnectV2,
    DurableHandleRequestV2,
    DurableHandleResponseV2,
)
from smb3fs.wire.header import Command
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseContextV2
from smb3fs.wire.negotiate import Capability

ExpectLog = Callable[[str], None]

# What is logged where all claims are refused.
UNGIVEN = "serves the connection before"


@dataclass(eq=False)
class Entry:
    """An open in the server's table of share modes; `server` is the session that it belongs to."""

    path: str
    number: int
    key: bytes
    server: FormerServer | None


@dataclass
class Past:
    """What outlives the sessions with such a server, and what the test wants lost."""

    entries: list[Entry] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(7000))
    lose: str = ""
    """Whether the next CREATE is lost with the connection, or its answer."""
    refused: int = 0
    """How many claims were."""

    def of(self, path: str) -> list[Entry]:
        """The opens of a file."""
        return [entry for entry in self.entries if entry.path == path]


class FormerServer(AttachedServer):
    """Does as Samba 4.17: a file that has two opens is given back neither; what is lost ends when another key comes."""

    def __init__(self, tree: Tree, past: Past) -> None:
        super().__init__(tree)
        self.past = past
        self.handler = self.receive
        for entry in past.entries:
            entry.server = None
        self._number = 0

    def receive(self, message: Message) -> None:
        """Serve a message, and lose the answer if the test wants it so."""
        request = message.elements[0].request
        if not self.past.lose or not isinstance(request, CreateRequest):
            self.serve(message)
            return
        if self.past.lose == "answer":
            self.send = lambda *_replies, **_how: None  # type: ignore[method-assign]
            self.serve(message)
        self.past.lose = ""
        self.transport.hang_up()

    def _create(self, request: CreateRequest) -> FileId:
        contexts = dict(request.contexts)
        past = self.past
        lease = LeaseContextV2.parse(contexts[LEASE_CONTEXT]) if LEASE_CONTEXT in contexts else None
        if DURABLE_HANDLE_RECONNECT_V2 in contexts:
            claim = DurableHandleReconnectV2.parse(contexts[DURABLE_HANDLE_RECONNECT_V2])
            entries = past.of(request.name)
            if len(entries) != 1 or entries[0].number != claim.file_id.persistent or entries[0].server is not None:
                past.refused += 1
                raise StatusError(Status.OBJECT_NAME_NOT_FOUND, "CREATE")
            entries[0].server = self
            self._number = claim.file_id.persistent
        elif DURABLE_HANDLE_V2 in contexts and lease is not None:
            past.entries = [
                one
                for one in past.entries
                if one.path != request.name or one.server is not None or one.key == lease.key
            ]
            self._number = next(past.numbers)
            past.entries.append(Entry(request.name, self._number, lease.key, self))
        file_id = super()._create(request)
        if DURABLE_HANDLE_RECONNECT_V2 in contexts or DURABLE_HANDLE_V2 in contexts:
            fresh = FileId(self._number, file_id.volatile + next(self._ids))
            self.handles[fresh] = self.handles.pop(file_id)
            return fresh
        return file_id

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        told = CreateResponse.parse(memoryview(bytes(64) + super()._created(file_id, request)))
        contexts = dict(request.contexts)
        if LEASE_CONTEXT in contexts:
            key = LeaseContextV2.parse(contexts[LEASE_CONTEXT]).key
            told.oplock_level = OplockLevel.LEASE
            told.contexts.append(CreateContext(LEASE_CONTEXT, LeaseContextV2(key, RWH, epoch=1).encode()))
        if DURABLE_HANDLE_V2 in contexts:
            asked = DurableHandleRequestV2.parse(contexts[DURABLE_HANDLE_V2])
            told.contexts.append(
                CreateContext(DURABLE_HANDLE_V2, DurableHandleResponseV2(60_000, asked.flags).encode())
            )
        return told.encode()

    def _do_close(self, request: object, handle: object, file_id: FileId) -> bytes:
        self.past.entries = [one for one in self.past.entries if one.number != file_id.persistent]
        return super()._do_close(request, handle, file_id)  # type: ignore[arg-type]


@asynccontextmanager
async def former(capabilities: int = 0) -> AsyncIterator[tuple[Stage, Past]]:
    """A share on such a server."""
    past = Past()
    sizes = replace(agreed(), capabilities=capabilities)
    async with staged(serve=lambda tree: FormerServer(tree, past), leases=True, sizes=sizes) as stage:
        connect = stage.world._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            stage.opens.leases.speak(2)
            return session

        stage.world.recovery._connect = connected
        stage.opens.leases.speak(2)
        yield stage, past


async def lose(stage: Stage) -> None:
    """Lose the connection, and wait until there is another."""
    stage.server.transport.hang_up()
    await trio.sleep(5)


@trio_test
async def test_two_that_open_a_file_at_one_time_have_one_open() -> None:
    async with former() as (stage, past):
        found: list[Open] = []

        async def come() -> None:
            found.append(await stage.share.open("f", read=False, write=True, expect=None))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(come)
        assert found[0] is found[1] is found[2]
        assert len(past.of("f")) == 1
        found[0].note_change()  # so that only the server can give it back
        await lose(stage)
        assert not found[0].lost
        assert past.refused == 0
        for handle in found:
            stage.share.close(handle)
        await stage.nothing_open()
        assert stage.share._turns == {}


@trio_test
async def test_who_waits_for_its_turn_and_gives_up_is_in_nobodys_way() -> None:
    async with former() as (stage, _):
        server, found = stage.server, []
        server.handler = None
        second = trio.CancelScope()

        async def first() -> None:
            found.append(await stage.share.open("f", read=False, write=True, expect=None))

        async def come() -> None:
            with second:
                await stage.share.open("f", read=False, write=True, expect=None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await settle()
            nursery.start_soon(come)
            await settle()
            assert sum(one.elements[0].command == Command.CREATE for one in server.unseen) == 1
            second.cancel()
            await settle()
            server.serve(list(server.unseen)[-1])
        assert stage.share._turns == {}
        stage.share.close(found[0])


@pytest.mark.parametrize("capabilities", [0, int(Capability.DIRECTORY_LEASING)], ids=["former", "later"])
@trio_test
async def test_an_open_whose_answer_was_lost_ends_with_its_repetition(capabilities: int, expect_log: ExpectLog) -> None:
    """Where the server knows a CREATE again it would be wrong to come with another key."""
    async with former(capabilities) as (stage, past):
        past.lose = "answer"
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        assert len(past.of("f")) == (2 if capabilities else 1)
        assert handle.lease is not None
        assert [entry.key for entry in past.of("f")][-1] == handle.lease.key
        assert len(stage.opens.leases) == 1
        handle.note_change()
        if capabilities:
            expect_log(UNGIVEN)
        await lose(stage)
        assert bool(handle.lost) == bool(capabilities)
        stage.share.close(handle)


@trio_test
async def test_what_is_opened_anew_ends_what_was_lost(expect_log: ExpectLog) -> None:
    """A file has two opens, and another loss follows."""
    async with former() as (stage, past):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        await stage.share.attributes(handle)
        first = handle.lease
        past.entries.append(Entry("f", next(past.numbers), past.of("f")[0].key, past.of("f")[0].server))
        expect_log(UNGIVEN)
        await lose(stage)
        assert past.refused
        assert not handle.lost
        assert handle.lease is not first
        assert handle.lease is not None
        assert [(entry.key, entry.server) for entry in past.of("f")] == [(handle.lease.key, stage.server)]
        assert [lease.key for lease in stage.opens.leases] == [handle.lease.key]
        assert handle.durability == Durability.DURABLE_V2
        handle.note_change()
        refused = past.refused
        await lose(stage)
        assert not handle.lost
        assert past.refused == refused
        stage.share.close(handle)


@trio_test
async def test_several_of_one_file_have_one_key_again(expect_log: ExpectLog) -> None:
    async with former() as (stage, past):
        handles = [await stage.share._open_apart("f", read=True, write=True, expect=None) for _ in range(2)]
        for handle in handles:
            await stage.share.attributes(handle)
        expect_log(UNGIVEN)
        await lose(stage)
        assert not any(handle.lost for handle in handles)
        assert handles[0].lease is handles[1].lease
        assert len(past.of("f")) == len(handles)
        for handle in handles:
            stage.share.close(handle)
        await stage.nothing_open()
        assert len(stage.opens.leases) == 0


@pytest.mark.parametrize("lost", ["request", "answer"])
@trio_test
async def test_what_goes_on_under_a_key_keeps_it(lost: str, expect_log: ExpectLog) -> None:
    """A CREATE beside an open, which has arrived or has not, must not break the lease of that when it is repeated."""
    async with former() as (stage, past):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        await stage.share.attributes(handle)
        first, past.lose = handle.lease, lost
        if lost == "answer":
            expect_log(UNGIVEN)
        other = await stage.share._open_apart("f", read=True, write=False, expect=None)
        assert (handle.lease is first) == (lost == "request")
        assert other.lease is handle.lease
        assert (past.refused > 0) == (lost == "answer")
        assert {entry.server for entry in past.of("f")} == {stage.server}
        assert not handle.lost
        stage.share.close(handle)
        stage.share.close(other)
        await stage.nothing_open()
