"""A session of several channels: what goes where, and what becomes of requests when one of them is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from peer import Peer, fetch_credits, make_keys, settle, trio_test
from test_pool import Asked
from world import OfGeneration, World, world

from smb3fs.channels.channel import Channel
from smb3fs.channels.pool import Repeat
from smb3fs.channels.scheduling import LATE, LEAST_PIECE
from smb3fs.channels.session import PIECE, Session
from smb3fs.channels.watching import INTERVAL, watch
from smb3fs.errors import ConnectionLost
from smb3fs.wire.create import RELATED_FILE_ID, CreateContext, CreateRequest, Disposition, FileId
from smb3fs.wire.durable import DURABLE_HANDLE_V2, DurableHandleRequestV2
from smb3fs.wire.header import FLAG_REPLAY, Command, Request
from smb3fs.wire.infoclass import FileDispositionInformation
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, WriteRequest
from smb3fs.wire.lock import EXCLUSIVE_LOCK, LockElement, LockRequest
from smb3fs.wire.query import InfoType, SetInfoRequest

FILE = FileId(3, 4)
LOOK: list[Request] = [CreateRequest("f", 1, Disposition.OPEN), CloseRequest(RELATED_FILE_ID)]
READ = ReadRequest(FILE, 0, PIECE)
WRITE = WriteRequest(FILE, 0, bytes(PIECE))
DELETE = SetInfoRequest(RELATED_FILE_ID, InfoType.FILE, 13, FileDispositionInformation(delete=True).encode())


@dataclass
class Several:
    """A world whose session has as many channels as there are peers; each of these answers only when told."""

    world: World
    session: Session
    peers: list[Peer]

    async def commands(self) -> list[list[str]]:
        """What each peer has been sent that it has not answered, one word for each message."""
        await settle()
        return [["+".join(message.commands) for message in peer.unseen] for peer in self.peers]

    def answer(self, index: int) -> None:
        """Have a peer answer everything that it was sent, and obey from now on."""
        peer = self.peers[index]
        while peer.unseen:
            peer.answer(peer.take())
        peer.handler = peer.obey

    def lose(self, index: int) -> None:
        """End the connection to a peer."""
        self.peers[index].transport.hang_up()


@asynccontextmanager
async def several(count: int = 2) -> AsyncIterator[Several]:
    def peer() -> Peer:
        return Peer(make_keys())

    async with world(peer) as made:
        session = made.pool.session
        assert session is not None
        session.channel.connection.client = made.client
        for _ in range(count - 1):
            another = peer()
            assert another.keys is not None
            made.peers.append(another)
            lost = made.recovery.lost
            channel = Channel(another.transport, made.trace, timeout=30, echo_interval=60, on_lost=lost)
            channel.connection.session = another.keys.client
            channel.connection.negotiated(large_mtu=True, client=made.client)
            fetch_credits(channel, another, 512)
            made.nursery.start_soon(channel.run)
            session.add(channel)
        await settle()
        yield Several(made, session, list(made.peers))


@trio_test
async def test_large_requests_are_spread_and_a_small_one_waits_behind_none() -> None:
    async with several(3) as made:
        for _ in range(2):
            Asked(made.world, [READ], handle=OfGeneration(1), repeat=Repeat.SAFE)
            await settle()
        Asked(made.world, LOOK, repeat=Repeat.SAFE)
        assert await made.commands() == [["READ"], ["READ"], ["CREATE+CLOSE"]]


@trio_test
async def test_what_nobody_waits_for_is_not_overtaken() -> None:
    async with several() as made:
        made.world.pool.post([CloseRequest(FILE)], OfGeneration(1))
        for requests in (LOOK, [READ], [WRITE]):
            Asked(made.world, requests, handle=OfGeneration(1), repeat=Repeat.SAFE)
            await settle()
        assert await made.commands() == [["CLOSE", "CREATE+CLOSE", "READ", "WRITE"], []]


@trio_test
async def test_nor_is_what_its_caller_has_given_up() -> None:
    async with several() as made:
        pool = made.world.pool
        for _ in range(2):
            with trio.move_on_after(1):
                await pool.call([WRITE], handle=OfGeneration(1), repeat=Repeat.REPLAY)
        # The second went behind the first, for that was not answered.
        assert await made.commands() == [["WRITE", "WRITE"], []]
        Asked(made.world, [WRITE], handle=OfGeneration(1), repeat=Repeat.REPLAY)
        assert await made.commands() == [["WRITE", "WRITE", "WRITE"], []]


@trio_test
async def test_but_what_the_server_takes_its_time_for_holds_nothing_up() -> None:
    async with several() as made:
        with trio.move_on_after(1):
            await made.world.pool.call([WRITE], handle=OfGeneration(1), repeat=Repeat.REPLAY)
        peer = made.peers[0]
        peer.send(peer.pending(peer.take().elements[0], 7))
        await settle()
        assert not made.session.channels[0].tied
        for _ in range(2):
            Asked(made.world, [WRITE], handle=OfGeneration(1), repeat=Repeat.REPLAY)
            await settle()
        assert sorted(await made.commands()) == [["WRITE"], ["WRITE"]]


@trio_test
async def test_given_up_on_two_channels_it_is_waited_for() -> None:
    async with several() as made:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                with trio.move_on_after(1):
                    await made.world.pool.call([WRITE], handle=OfGeneration(1), repeat=Repeat.REPLAY)

            nursery.start_soon(give_up)
            await settle()
            nursery.start_soon(give_up)
        assert await made.commands() == [["WRITE"], ["WRITE"]]
        Asked(made.world, [READ], handle=OfGeneration(1), repeat=Repeat.SAFE)
        Asked(made.world, [FlushRequest(FILE)], handle=OfGeneration(1), repeat=Repeat.SAFE)
        assert await made.commands() == [["WRITE", "READ"], ["WRITE"]]
        made.answer(1)
        await trio.sleep(0.1)
        assert await made.commands() == [["WRITE", "READ", "FLUSH"], []]


@trio_test
async def test_what_is_fetched_ahead_leaves_little_under_way() -> None:
    async with several() as made:
        session, told = made.session, []
        # Of channels of which nothing is known one request each has to tell; what is waited for is sent all the same.
        for _ in made.peers:
            allotted = session.allot(8 << 20, 0)
            assert allotted is not None
            channel, size = allotted
            assert size == LEAST_PIECE
            session.begin([ReadRequest(FILE, 0, size)], told.append, channel)
            await settle()
        assert await made.commands() == [["READ"], ["READ"]]
        assert session.allot(8 << 20, 0) is None
        assert (session.allot(8 << 20, 1 << 20) or (None, 0))[1] == 1 << 20
        await trio.sleep(0.01)
        made.answer(1)
        await settle()
        assert len(told) == 1
        channel, size = session.allot(8 << 20, 0) or (None, 0)
        assert channel is session.channels[1]
        assert size > LEAST_PIECE


@trio_test
async def test_what_was_fetched_ahead_is_asked_of_a_sibling_once() -> None:
    async with several() as made:
        pool, told = made.world.pool, []
        assert pool.read_ahead(READ, OfGeneration(1), told.append, made.session.channels[0])
        assert await made.commands() == [["READ"], []]
        made.peers[0].take()
        made.lose(0)
        assert (await made.commands())[1] == ["READ"]
        assert told == []
        made.answer(1)
        await settle()
        assert [answers and answers[0].status for answers in told] == [0]
        assert pool.generation == 1
        # With the last channel it is gone.
        made.peers[1].handler = None
        assert pool.read_ahead(READ, OfGeneration(1), told.append)
        made.lose(1)
        await settle()
        assert told[1:] == [None]


@pytest.mark.parametrize(
    ("requests", "repeat", "flag"),
    [([READ], Repeat.SAFE, True), ([WRITE], Repeat.REPLAY, True), (LOOK, Repeat.SAFE, False)],
    ids=["read", "write", "look"],
)
@trio_test
async def test_what_may_be_done_twice_moves_to_a_sibling(requests: list[Request], repeat: Repeat, flag: bool) -> None:
    async with several() as made:
        handle = OfGeneration(1) if requests is not LOOK else None
        call = Asked(made.world, requests, handle=handle, repeat=repeat)
        (before, nothing) = await made.commands()
        assert nothing == []
        first = made.peers[0].take()
        made.lose(0)
        assert (await made.commands())[1] == before
        again = made.peers[1].unseen[0]
        # The server knows the repetition, and refuses what comes late.
        assert first.elements[0].header.status == 0
        assert again.elements[0].header.status == 1
        assert bool(again.elements[0].header.flags & FLAG_REPLAY) is flag
        made.answer(1)
        await settle()
        assert (call.generation, set(call.statuses)) == (1, {0})
        assert handle is None or handle.doubts == 0
        assert (made.world.pool.session, made.world.kept.suspensions) == (made.session, 0)
        assert made.session.channels[0].connection.pending == 0
        assert "1 of the session remain" in made.world.trace.events[-1].text


@trio_test
async def test_an_open_that_the_server_knows_again_moves_too() -> None:
    context = CreateContext(DURABLE_HANDLE_V2, DurableHandleRequestV2(0, 0, b"G" * 16).encode())
    request = CreateRequest("f", 1, Disposition.OPEN_IF, contexts=(context,))
    async with several() as made:
        made.world.nursery.start_soon(made.world.pool.create, request)
        assert await made.commands() == [["CREATE"], []]
        made.lose(0)
        assert (await made.commands())[1] == ["CREATE"]
        assert made.peers[1].unseen[0].elements[0].header.flags & FLAG_REPLAY
        made.answer(1)
        await settle()
        assert made.world.pool.generation == 1


@trio_test
async def test_what_nobody_waits_for_is_done_by_a_sibling() -> None:
    done = []
    async with several() as made:
        made.world.pool.post([CloseRequest(FILE)], OfGeneration(1), lambda: done.append(1))
        made.world.pool.post([CloseRequest(FileId(5, 6))], OfGeneration(1))
        assert await made.commands() == [["CLOSE", "CLOSE"], []]
        made.lose(0)
        assert (await made.commands())[1] == ["CLOSE", "CLOSE"]
        made.answer(1)
        await settle()
        assert done == [1]


@pytest.mark.parametrize(
    ("requests", "repeat", "handle"),
    [
        ([CreateRequest("f", 1, Disposition.OPEN), DELETE, CloseRequest(RELATED_FILE_ID)], Repeat.NEVER, None),
        ([CreateRequest("f", 1, Disposition.OPEN), DELETE, CloseRequest(RELATED_FILE_ID)], Repeat.SAFE, None),
        ([CreateRequest("f", 1, Disposition.CREATE), CloseRequest(RELATED_FILE_ID)], Repeat.UNIQUE, None),
        ([CreateRequest("f", 1, Disposition.OPEN)], Repeat.SAFE, None),
        ([LockRequest(FILE, [LockElement(0, 1, EXCLUSIVE_LOCK)])], Repeat.NEVER, OfGeneration(1)),
        ([WRITE], Repeat.NEVER, OfGeneration(1)),
    ],
    ids=["remove", "remove again", "make", "open", "lock", "write once"],
)
@trio_test
async def test_with_what_may_not_be_done_late_the_whole_session_goes(
    requests: list[Request], repeat: Repeat, handle: OfGeneration | None
) -> None:
    async with several() as made:
        call = Asked(made.world, requests, handle=handle, repeat=repeat)
        await settle()
        made.lose(0)
        await trio.sleep(2)
        assert made.world.pool.generation == 2
        assert made.world.kept.suspensions == 1
        assert await made.commands() == [["+".join(Command(r.command).name for r in requests)], []]
        assert all(peer.transport.closed for peer in made.peers[:2])
        assert isinstance(call.error, ConnectionLost) or repeat in (Repeat.SAFE, Repeat.UNIQUE)


@trio_test
async def test_the_last_channel_takes_the_session_with_it() -> None:
    async with several() as made:
        made.lose(0)
        await settle()
        made.lose(1)
        await trio.sleep(2)
        assert made.world.pool.generation == 2


@trio_test
async def test_a_session_that_the_server_forgot_is_gone_on_all_channels() -> None:
    async with several() as made:
        made.session.fail(ConnectionLost("by the test"))
        await trio.sleep(2)
        assert made.world.pool.generation == 2
        assert all(peer.transport.closed for peer in made.peers[:2])


@asynccontextmanager
async def watched(made: Several) -> AsyncIterator[None]:
    """Watch over the channels."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, made.session, made.world.pool.look_after_late_reads)
        yield
        nursery.cancel_scope.cancel()


@trio_test
async def test_what_is_late_ahead_of_a_reader_is_asked_of_a_sibling_and_the_first_answer_counts() -> None:
    for first in (0, 1):
        async with several() as made, watched(made):
            pool, told = made.world.pool, []
            assert pool.read_ahead(READ, OfGeneration(1), told.append, made.session.channels[0])
            await trio.sleep(LATE - 0.1)
            assert await made.commands() == [["READ"], []]
            await trio.sleep(0.1 + INTERVAL)
            assert (await made.commands())[1] == ["READ"]
            await trio.sleep(1.0)
            assert [one.count("READ") for one in await made.commands()] == [1, 1]
            for index in (first, 1 - first):
                made.answer(index)
                await settle()
                assert [answers and answers[0].status for answers in told] == [0]
            assert [lane.data_requests for lane in made.session.lanes.values()] == [0, 0]


@trio_test
async def test_so_it_is_when_either_of_the_two_is_lost() -> None:
    for lost in (0, 1):
        async with several() as made, watched(made):
            pool, told = made.world.pool, []
            assert pool.read_ahead(READ, OfGeneration(1), told.append, made.session.channels[0])
            await trio.sleep(LATE + INTERVAL)
            made.peers[lost].take()
            made.lose(lost)
            await settle()
            assert told == []
            made.answer(1 - lost)
            await settle()
            assert [answers and answers[0].status for answers in told] == [0]
            assert pool.generation == 1


@trio_test
async def test_where_siblings_wait_as_well_it_is_the_server_that_is_slow() -> None:
    async with several() as made, watched(made):
        pool, told = made.world.pool, []
        for channel in made.session.channels:
            assert pool.read_ahead(READ, OfGeneration(1), told.append, channel)
        await trio.sleep(1.5)
        assert [one.count("READ") for one in await made.commands()] == [1, 1]
        for index in (0, 1):
            made.answer(index)
        await settle()
        assert [answers and answers[0].status for answers in told] == [0, 0]


@trio_test
async def test_a_silent_channel_is_given_up_while_another_one_answers() -> None:
    async with several() as made, watched(made):
        made.peers[1].handler = made.peers[1].obey
        call = Asked(made.world, [READ], handle=OfGeneration(1), repeat=Repeat.SAFE)
        await trio.sleep(1.9)
        assert call.waiting
        assert len(made.session.channels) == 2
        await trio.sleep(0.6)
        assert call.statuses == [0]
        # Nothing of what the kernel still holds may reach the server now.
        assert made.peers[0].transport.was_reset
        assert made.session.channels == [made.session.channel]


@trio_test
async def test_if_all_are_silent_the_server_is_busy_and_the_longer_bound_decides() -> None:
    async with several() as made, watched(made):
        call = Asked(made.world, [READ], handle=OfGeneration(1), repeat=Repeat.SAFE)
        await trio.sleep(10)
        assert len(made.session.channels) == 2
        made.answer(0)
        await settle()
        assert call.statuses == [0]


@trio_test
async def test_a_channel_that_only_takes_long_is_kept() -> None:
    async with several() as made, watched(made):
        made.peers[1].handler = made.peers[1].obey
        call = Asked(made.world, [READ], handle=OfGeneration(1), repeat=Repeat.SAFE)
        await settle()
        read = made.peers[0].take()
        # It answers whether it is there, and no more.
        made.peers[0].handler = lambda message: made.peers[0].obey(message) if message.commands == ["ECHO"] else None
        await trio.sleep(20)
        assert call.waiting
        assert len(made.session.channels) == 2
        made.peers[0].answer(read)
        await settle()
        assert call.statuses == [0]


@trio_test
async def test_who_is_told_of_a_loss_may_ask_again_at_once() -> None:
    told: list[object] = []
    async with several() as made:

        def once_more(answers: object) -> None:
            told.append(answers)
            made.session.begin([READ], told.append)

        made.session.begin([READ], once_more)
        assert await made.commands() == [["READ"], []]
        made.lose(0)
        assert (await made.commands())[1] == ["READ"]
        made.answer(1)
        await settle()
        assert told[0] is None
        assert told[1] is not None


@trio_test
async def test_a_break_may_come_on_a_channel_before_the_session_uses_it() -> None:
    async with several() as made:
        channel = made.session.channels[1]
        made.session.channels.remove(channel)
        assert made.session.has(channel)
        channel.connection.session = None
        assert not made.session.has(channel)
