"""The pool: which session carries a request, what waits for the next one, and what must not be sent twice."""

from __future__ import annotations

import pytest
import trio
from peer import Message, Peer, make_keys, settle, trio_test
from world import OfGeneration, World, world

from smb3fs.channels.pool import SESSION_GONE, Repeat
from smb3fs.errors import ConnectionLost, SecurityError, Smb3fsError, Status, WireError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest, FileId
from smb3fs.wire.header import Request
from smb3fs.wire.io import CloseRequest, FlushRequest

FILE = FileId(3, 4)
LOOK = [CreateRequest("f", 1, 1), CloseRequest(RELATED_FILE_ID)]

gone = pytest.mark.parametrize("status", sorted(SESSION_GONE), ids=lambda status: status.name)


class Asked:
    """A call of the pool in a task of its own."""

    def __init__(
        self,
        world: World,
        requests: list[Request],
        *,
        handle: OfGeneration | None = None,
        repeat: Repeat = Repeat.NEVER,
    ) -> None:
        self.generation: int | None = None
        self.statuses: list[int] = []
        self.error: Smb3fsError | None = None

        async def run() -> None:
            try:
                session, answers = await world.pool.call(requests, handle=handle, repeat=repeat)
                self.generation, self.statuses = session.generation, [answer.status for answer in answers]
            except Smb3fsError as error:
                self.error = error

        world.nursery.start_soon(run)

    @property
    def waiting(self) -> bool:
        return self.generation is None and self.error is None


def series(*statuses: int | None) -> list[Peer]:
    """Peers of which each answers everything with a status; one with None answers nothing."""
    made = []
    for status in statuses:
        peer = Peer(make_keys())
        if status is not None:

            def handler(message: Message, peer: Peer = peer, status: int = status) -> None:
                peer.answer(message, statuses=[status] * len(message.elements))

            peer.handler = handler
        made.append(peer)
    return made


@trio_test
async def test_a_call_travels_on_the_session_that_there_is() -> None:
    async with world() as made:
        session, answers = await made.pool.call(LOOK)
        assert session is made.pool.session
        assert [answer.status for answer in answers] == [0, 0]
        assert made.pool.generation == session.generation == 1


@pytest.mark.parametrize("repeat", [Repeat.NEVER, Repeat.SAFE])
@trio_test
async def test_what_is_lost_on_the_way_is_sent_again_only_if_that_does_no_harm(repeat: Repeat) -> None:
    made_peers = series(None, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, LOOK, repeat=repeat)
        await settle()
        made.peers[0].transport.hang_up()
        await trio.sleep(2)
        assert made.pool.generation == 2
        if repeat is Repeat.SAFE:
            assert (call.generation, call.statuses) == (2, [0, 0])
            assert made.peers[1].messages[0].commands == ["CREATE", "CLOSE"]
        else:
            assert isinstance(call.error, ConnectionLost)
            assert made.peers[1].messages == []


@trio_test
async def test_what_has_left_for_the_socket_may_have_been_sent() -> None:
    """Waiting behind a full socket or lost on the way: the caller cannot tell, and it is not told otherwise."""
    made_peers = series(None, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        made.peer.transport.make_room(0)
        call = Asked(made, LOOK)
        await settle()
        made.peers[0].transport.hang_up()
        await trio.sleep(2)
        assert isinstance(call.error, ConnectionLost)


@pytest.mark.parametrize("repeat", Repeat)
@trio_test
async def test_what_waited_for_credits_was_never_sent_and_may_always_be(repeat: Repeat) -> None:
    made_peers = series(None, 0)
    async with world(lambda: made_peers.pop(0), credits=2) as made:
        first = Asked(made, LOOK)
        await settle()
        second = Asked(made, LOOK, repeat=repeat)
        await settle()
        assert len(made.peer.messages) == 1
        made.peer.transport.hang_up()
        await trio.sleep(2)
        assert isinstance(first.error, ConnectionLost)
        assert second.statuses == [0, 0]


@trio_test
async def test_a_repeatable_call_outlives_several_losses() -> None:
    made_peers = series(None, None, None, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, LOOK, repeat=Repeat.SAFE)
        for generation in range(3):
            await trio.sleep(1)
            made.peers[generation].transport.hang_up()
        await trio.sleep(2)
        assert call.generation == 4


@gone
@pytest.mark.parametrize("repeat", [Repeat.NEVER, Repeat.SAFE])
@trio_test
async def test_a_server_that_does_not_know_the_session_has_done_nothing(status: Status, repeat: Repeat) -> None:
    made_peers = series(status, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, LOOK, repeat=repeat)
        await trio.sleep(2)
        assert (call.generation, call.statuses) == (2, [0, 0])
        assert made.peers[0].transport.closed
        assert status.name in made.trace.events[0].text


@gone
@trio_test
async def test_but_a_handle_of_that_session_is_gone(status: Status) -> None:
    made_peers = series(status, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, [FlushRequest(FILE)], handle=OfGeneration(1))
        await trio.sleep(2)
        assert isinstance(call.error, ConnectionLost)
        assert made.pool.generation == 2
        assert made.peers[1].messages == []


@trio_test
async def test_one_status_of_that_kind_ends_the_session_once_for_all_callers() -> None:
    made_peers = series(Status.USER_SESSION_DELETED, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        calls = [Asked(made, LOOK, repeat=Repeat.SAFE) for _ in range(20)]
        await trio.sleep(2)
        assert {call.generation for call in calls} == {2}
        assert made.trace.reconnects == 1


@trio_test
async def test_other_statuses_are_the_callers_affair() -> None:
    made_peers = series(Status.ACCESS_DENIED)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, LOOK, repeat=Repeat.SAFE)
        await settle()
        assert call.statuses == [Status.ACCESS_DENIED] * 2
        assert made.pool.generation == 1


@trio_test
async def test_a_handle_of_another_session_is_refused_at_once() -> None:
    made_peers = series(0, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        made.peer.transport.hang_up()
        await trio.sleep(2)
        for generation in (1, 3):
            with pytest.raises(ConnectionLost):
                await made.pool.call([FlushRequest(FILE)], handle=OfGeneration(generation))
            with pytest.raises(ConnectionLost):
                await made.pool.ready(OfGeneration(generation))
        made.pool.post([CloseRequest(FILE)], OfGeneration(1))
        await settle()
        assert made.peer.messages == []
        made.pool.post([CloseRequest(FILE)], OfGeneration(2))
        await settle()
        assert [message.commands for message in made.peer.messages] == [["CLOSE"]]


@trio_test
async def test_a_handle_waits_for_the_session_in_which_it_may_be_claimed() -> None:
    async with world(recover=False) as made:
        claimed, forgotten = OfGeneration(1), OfGeneration(1)
        made.peer.transport.hang_up()
        await settle()
        calls = [Asked(made, [FlushRequest(FILE)], handle=handle) for handle in (claimed, forgotten)]
        with trio.move_on_after(5) as scope:
            await made.pool.ready(claimed)
        assert scope.cancelled_caught
        made.pool.post([CloseRequest(FILE)], claimed)
        assert all(call.waiting for call in calls)
        claimed.generation = 2
        await made.recovery.start()
        await settle()
        assert calls[0].statuses == [0]
        assert isinstance(calls[1].error, ConnectionLost)
        assert [message.commands for message in made.peer.messages] == [["FLUSH"]]


@trio_test
async def test_who_cannot_be_cancelled_does_not_wait_for_ever() -> None:
    async with world(recover=False) as made:
        made.pool.detach()
        with pytest.raises(ConnectionLost):
            await made.pool.ready(OfGeneration(1), patience=30)
        assert trio.current_time() == 30


@trio_test
async def test_callers_wait_for_a_session_and_all_are_let_go() -> None:
    async with world(recover=False) as made:
        session = made.pool.session
        assert session is not None
        made.pool.detach()
        waiting = [Asked(made, LOOK) for _ in range(5)]
        bounded = Asked(made, LOOK)
        with trio.move_on_after(0) as scope:
            await made.pool.ready()
        assert scope.cancelled_caught
        assert all(call.waiting for call in [*waiting, bounded])
        made.pool.attach(session)
        await settle()
        assert [call.statuses for call in [*waiting, bounded]] == [[0, 0]] * 6


@trio_test
async def test_closed_it_refuses_everything_and_whoever_waits() -> None:
    async with world(recover=False) as made:
        made.pool.detach()
        waiting = [Asked(made, LOOK, repeat=Repeat.SAFE), Asked(made, LOOK)]
        await settle()
        made.pool.close()
        await settle()
        assert all(isinstance(call.error, ConnectionLost) for call in waiting)
        for repeat in Repeat:
            with pytest.raises(ConnectionLost):
                await made.pool.call([EchoRequest()], repeat=repeat)
        with pytest.raises(ConnectionLost):
            await made.pool.call([EchoRequest()], handle=OfGeneration(1))
        made.pool.post([EchoRequest()], OfGeneration(1))


@trio_test
async def test_a_repeatable_call_under_way_when_the_mount_ends_does_not_wait_for_ever() -> None:
    made_peers = series(None)
    async with world(lambda: made_peers.pop(0)) as made:
        call = Asked(made, LOOK, repeat=Repeat.SAFE)
        await settle()
        made.pool.close()
        made.peer.transport.hang_up()
        await settle()
        assert isinstance(call.error, ConnectionLost)


@pytest.mark.parametrize("error", [WireError("garbage"), SecurityError("forged")])
@trio_test
async def test_the_callers_see_a_loss_whatever_ended_the_channel(error: Smb3fsError) -> None:
    made_peers = series(None, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        calls = [Asked(made, LOOK), Asked(made, LOOK, repeat=Repeat.SAFE)]
        await settle()
        assert made.pool.session is not None
        made.pool.session.channel.fail(error)
        await trio.sleep(2)
        assert isinstance(calls[0].error, ConnectionLost)
        assert calls[0].error.__cause__ is error
        assert calls[1].statuses == [0, 0]


@pytest.mark.parametrize("repeats", [0, 1, 2])
@trio_test
async def test_a_lost_call_is_repeated_so_often_and_no_more(repeats: int) -> None:
    made_peers = series(None, None, None, 0)
    async with world(lambda: made_peers.pop(0), repeats=repeats) as made:
        call = Asked(made, LOOK, repeat=Repeat.SAFE)
        for generation in range(repeats + 1):
            await trio.sleep(1)
            assert call.waiting
            made.peers[generation].transport.hang_up()
        await trio.sleep(2)
        assert isinstance(call.error, ConnectionLost)
