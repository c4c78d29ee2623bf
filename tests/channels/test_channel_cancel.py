"""Callers that stop waiting, at every stage: nothing is cut in half, nothing stays open on the server."""

from __future__ import annotations

import pytest
import trio
from peer import TREE_ID, Element, Link, Peer, created, linked, make_keys, settle, trio_test

from smb3fs.errors import Status, WireError
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest, FileId
from smb3fs.wire.header import FLAG_ASYNC, Command
from smb3fs.wire.io import CloseRequest, FlushRequest, WriteRequest

GRANTED = FileId(0x1111, 0x2222)

seals = pytest.mark.parametrize("seal", [False, True], ids=["signed", "sealed"])


def closes(peer: Peer) -> list[Element]:
    """The elements that are a CLOSE on their own."""
    return [message.elements[0] for message in peer.messages if message.commands == ["CLOSE"]]


async def healthy(link: Link) -> bool:
    """Whether the channel still carries a request and its answer."""
    call = link.call(FlushRequest(GRANTED))
    await settle()
    link.peer.answer(link.peer.messages[-1])
    await settle()
    return call.answers is not None and link.losses == []


@trio_test
async def test_queued_nothing_of_it_is_ever_sent() -> None:
    peer = Peer(make_keys())
    async with linked(peer, credits=1) as link:
        first = link.call(FlushRequest(GRANTED))
        await settle()
        queued = link.call(CreateRequest("f", 1, 1))
        await settle()
        queued.scope.cancel()
        await settle()
        assert queued.cancelled
        peer.answer(peer.take())
        await settle()
        assert first.answers
        assert await healthy(link)
        assert [message.commands for message in peer.messages] == [["FLUSH"], ["FLUSH"]]
        assert peer.cancels == []


@trio_test
async def test_behind_a_full_socket_nothing_of_it_is_ever_sent() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        peer.transport.make_room(10)
        link.call(FlushRequest(GRANTED))
        await settle()
        queued = link.call(CreateRequest("f", 1, 1))
        await settle()
        queued.scope.cancel()
        await settle()
        peer.transport.make_room(None)
        await settle()
        assert [message.commands for message in peer.messages] == [["FLUSH"]]


@seals
@trio_test
async def test_half_sent_it_is_sent_to_its_end(seal: bool) -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        peer.transport.make_room(100)
        writing = link.call(WriteRequest(GRANTED, 0, b"x" * 1000), seal=seal)
        await settle()
        writing.scope.cancel()
        await settle()
        assert writing.cancelled
        peer.transport.make_room(None)
        await settle()
        message = peer.take()
        assert bytes(message.elements[0].request.data) == b"x" * 1000
        assert peer.cancels == []  # there was no room for one, and the request is harmless
        peer.answer(message)
        assert await healthy(link)


@seals
@trio_test
async def test_sent_the_server_is_asked_to_cancel_it(seal: bool) -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(FlushRequest(GRANTED), seal=seal)
        await settle()
        call.scope.cancel()
        await settle()
        message = peer.take()
        (cancel,) = peer.cancels
        assert cancel.header.message_id == message.elements[0].header.message_id
        assert not cancel.header.flags & FLAG_ASYNC
        assert cancel.message.sealed == seal
        peer.answer(message, statuses=[Status.CANCELLED])
        await settle()
        assert await healthy(link)


@trio_test
async def test_pending_it_is_cancelled_by_its_async_id() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(CreateRequest("f", 1, 1))
        await settle()
        (element,) = peer.take().elements
        peer.send(peer.pending(element, 4711))
        await settle()
        call.scope.cancel()
        await settle()
        (cancel,) = peer.cancels
        assert cancel.header.flags & FLAG_ASYNC
        assert cancel.header.async_id == 4711
        peer.send(peer.reply(element, status=Status.CANCELLED))
        await settle()
        assert await healthy(link)
        assert closes(peer) == []


@seals
@trio_test
async def test_a_handle_that_is_granted_all_the_same_is_closed(seal: bool) -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(CreateRequest("f", 1, 1), seal=seal)
        await settle()
        call.scope.cancel()
        await settle()
        peer.answer(peer.take(), created(GRANTED))
        await settle()
        (close,) = closes(peer)
        assert close.request.file_id == GRANTED
        assert close.header.tree_id == TREE_ID
        assert close.message.sealed == seal
        peer.answer(close.message)
        assert await healthy(link)


@trio_test
async def test_a_caller_cancelled_before_it_began_leaves_nothing_open_either() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        with trio.move_on_after(0):
            await link.channel.call(link.exchange(CreateRequest("f", 1, 1)))
        for message in peer.messages:
            peer.answer(message, created(GRANTED))
        await settle()
        assert len(closes(peer)) == len([m for m in peer.messages if m.commands == ["CREATE"]])


@pytest.mark.parametrize(
    ("statuses", "leftover"),
    [
        ((0, 0, 0), False),
        ((0, Status.CANCELLED, 0), False),
        ((0, 0, Status.CANCELLED), True),  # the CANCEL may hit the CLOSE of the chain
        ((0, Status.CANCELLED, Status.CANCELLED), True),
        ((Status.CANCELLED, Status.CANCELLED, Status.CANCELLED), False),
        ((Status.ACCESS_DENIED, Status.ACCESS_DENIED, Status.ACCESS_DENIED), False),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one frame", "a frame each"])
@trio_test
async def test_of_a_chain_that_closes_by_itself_only_what_is_left_open_is_closed(
    statuses: tuple[int, ...], leftover: bool, apart: bool
) -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID))
        await settle()
        call.scope.cancel()
        await settle()
        assert len(peer.cancels) == 3
        body = created(GRANTED) if not statuses[0] else None
        peer.answer(peer.take(), body, statuses=statuses, apart=apart)
        await settle()
        assert [close.request.file_id for close in closes(peer)] == ([GRANTED] if leftover else [])
        assert link.losses == []


@trio_test
async def test_a_chain_cancelled_between_its_answers_is_cancelled_for_the_rest() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID))
        await settle()
        create, flush = peer.take().elements
        peer.send(peer.reply(create, created(GRANTED)))
        peer.send(peer.pending(flush, 5))
        await settle()
        call.scope.cancel()
        await settle()
        assert [cancel.header.async_id for cancel in peer.cancels] == [5]
        peer.send(peer.reply(flush, status=Status.CANCELLED))
        await settle()
        assert [close.request.file_id for close in closes(peer)] == [GRANTED]


@trio_test
async def test_a_posted_chain_is_not_taken_for_an_abandoned_one() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        link.channel.post(link.exchange(CreateRequest("f", 1, 1)))
        await settle()
        peer.answer(peer.take(), created(GRANTED))
        await settle()
        assert closes(peer) == []


@trio_test
async def test_an_orphan_whose_answer_makes_no_sense_ends_the_channel() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call, other = link.call(CreateRequest("f", 1, 1)), link.call(FlushRequest(GRANTED))
        await settle()
        call.scope.cancel()
        await settle()
        create = next(message for message in peer.messages if message.commands == ["CREATE"])
        peer.answer(create, b"far too short")
        await settle()
        assert [type(error) for error in link.losses] == [WireError]
        assert other.lost


@trio_test
async def test_when_sending_the_cancel_breaks_the_connection_everybody_learns_of_it() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call, other = link.call(FlushRequest(GRANTED)), link.call(FlushRequest(GRANTED))
        await settle()
        peer.transport.fail_send = peer.transport.sends + 1
        call.scope.cancel()
        await settle()
        assert call.cancelled
        assert other.lost
        assert len(link.losses) == 1


@trio_test
async def test_an_answer_and_a_cancellation_at_the_same_moment() -> None:
    """The answer was taken in first: the caller has it, and nothing is cancelled that has ended."""
    peer = Peer(make_keys())
    async with linked(peer) as link:
        call = link.call(CreateRequest("f", 1, 1))
        await settle()
        peer.answer(peer.take(), created(GRANTED))
        await trio.lowlevel.checkpoint()  # the reader may or may not have run
        call.scope.cancel()
        await settle()
        if call.cancelled:
            assert len(peer.cancels) == len(closes(peer)) == 1
        else:
            assert call.statuses == [0]
            assert peer.cancels == closes(peer) == []
        assert link.losses == []


@trio_test
async def test_many_cancellations_leave_no_state_behind() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        for round_ in range(50):
            calls = [link.call(CreateRequest("f", 1, 1)) for _ in range(4)]
            await settle()
            for call in calls[round_ % 4 :]:
                call.scope.cancel()
            await settle()
            while peer.unseen:
                message = peer.take()
                peer.answer(message, created(GRANTED) if message.commands == ["CREATE"] else None)
                await settle()
        assert link.channel.in_flight == 0
        assert len(closes(peer)) == len(peer.cancels) == sum(4 - round_ % 4 for round_ in range(50))
        assert link.channel.connection.credits.in_flight == 0
        assert link.channel.connection.exchanges() == []
        assert Command.CANCEL.name in link.trace.requests
