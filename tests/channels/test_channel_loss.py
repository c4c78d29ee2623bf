"""The end of a channel, whatever brings it: each caller learns of it once, the owner once, and nothing runs on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import Call, Link, Message, Peer, linked, make_keys, settle, trio_test

from smb3fs.channels.channel import Channel
from smb3fs.errors import ConnectionLost, SecurityError, Smb3fsError, WireError
from smb3fs.trace import Trace
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest, FileId
from smb3fs.wire.header import Command
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, WriteRequest

FILE = FileId(3, 4)


async def busy(link: Link) -> list[Call]:
    """Do a bit of everything: chains, large writes through a narrow socket, posts, a cancellation, interim answers."""
    peer = link.peer

    def slowly(message: Message) -> None:
        if message.elements[0].command == Command.CANCEL:
            return
        if message.commands == ["FLUSH"]:
            peer.send(peer.pending(message.elements[0], 99))
        peer.answer(message, apart=len(peer.messages) % 2 == 0)

    peer.handler = slowly
    calls = []
    chain = [CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID)]
    for requests in (chain, [FlushRequest(FILE)], [ReadRequest(FILE, 0, 100)], [EchoRequest()]):
        calls.append(link.call(*requests))
        await settle()
    peer.transport.make_room(100)
    for _ in range(3):
        calls.append(link.call(WriteRequest(FILE, 0, b"d" * 500)))
        await settle()
    calls[-2].scope.cancel()
    link.channel.post(link.exchange(CloseRequest(FILE)))
    for _ in range(14):
        peer.transport.make_room(170)
        await settle()
    peer.transport.make_room(None)
    calls.append(link.call(CreateRequest("g", 1, 1)))
    await settle()
    return calls


async def counted() -> tuple[int, int]:
    """Return how many sends and receives it takes when nothing fails."""
    async with linked(Peer(make_keys())) as link:
        calls = await busy(link)
        assert all(call.answers or call.cancelled for call in calls)
        assert link.losses == []
        return link.peer.transport.sends, link.peer.transport.receives


async def fail_at(way: str, number: int) -> None:
    """Fail at the n-th use of the transport, and see who learns of it."""
    peer = Peer(make_keys())
    setattr(peer.transport, f"fail_{way}", number)
    async with linked(peer) as link:
        calls = await busy(link)
        # When the last receive fails, the reader learns of it with the next message only.
        if not link.losses:
            link.channel.post(link.exchange(EchoRequest()))
            await settle()
        assert [type(error) for error in link.losses] == [ConnectionLost], f"{way} {number}"
        for call in calls:
            assert call.lost or call.answers or call.cancelled, f"{way} {number}: {call.errors}"
            assert len(call.errors) <= 1
        assert peer.transport.closed
        with pytest.raises(ConnectionLost):
            await link.channel.call(link.exchange(EchoRequest()))
        link.channel.post(link.exchange(EchoRequest()))  # nobody waits, nobody is told
        link.channel.fail(WireError("again"))
        assert len(link.losses) == 1
        assert isinstance(link.channel.error, ConnectionLost)
        # The channel's own tasks have ended: only the test's body is left in the nursery.
        await settle()
        assert not link.nursery.child_tasks


@trio_test
async def test_failing_at_every_send_and_every_receive() -> None:
    sends, receives = await counted()
    assert sends > 15
    assert receives >= 8
    for number in range(1, sends + 1):
        await fail_at("send", number)
    for number in range(1, receives + 1):
        await fail_at("receive", number)


async def ended_by(action: Callable[[Link], object], *, queued: int = 2) -> tuple[Link, list[Call]]:
    """End a channel on which callers wait in every stage, and return who learned what."""
    peer = Peer(make_keys())
    async with linked(peer, credits=2) as link:
        calls = [link.call(FlushRequest(FILE)) for _ in range(2 + queued)]
        await settle()
        peer.send(peer.pending(peer.messages[0].elements[0], 5))
        await settle()
        action(link)
        await settle()
        return link, calls


@trio_test
async def test_the_server_hangs_up() -> None:
    link, calls = await ended_by(lambda link: link.peer.transport.hang_up())
    assert all(call.lost for call in calls)
    assert [type(error) for error in link.losses] == [ConnectionLost]


@pytest.mark.parametrize("garbage", [b"", b"\xfeSMB", b"\xfdSMB" + bytes(60), b"GET / HTTP/1.1\r\n" * 20, bytes(64)])
@trio_test
async def test_the_server_sends_garbage(garbage: bytes) -> None:
    link, calls = await ended_by(lambda link: link.peer.transport.put(garbage))
    assert all(call.lost for call in calls)
    (loss,) = link.losses
    assert isinstance(loss, (WireError, SecurityError))
    assert all(call.errors[0].__cause__ is loss for call in calls)


@trio_test
async def test_a_message_beyond_the_limit_is_garbage() -> None:
    link, calls = await ended_by(lambda link: link.peer.transport.put(bytes(link.peer.transport.limit + 1)))
    assert all(call.lost for call in calls)
    assert [type(error) for error in link.losses] == [WireError]


@trio_test
async def test_an_answer_that_is_not_signed_is_a_matter_of_security() -> None:
    def forge(link: Link) -> None:
        link.peer.send(link.peer.reply(link.peer.messages[0].elements[0]), protect=False)

    link, calls = await ended_by(forge)
    assert all(call.lost for call in calls)
    assert [type(error) for error in link.losses] == [SecurityError]


@trio_test
async def test_good_answers_in_front_of_garbage_in_one_frame_do_not_count() -> None:
    def half_garbage(link: Link) -> None:
        replies = [link.peer.reply(message.elements[0], bytes(4)) for message in link.peer.messages]
        replies[-1].header.message_id = 4711
        link.peer.send(*replies)

    link, calls = await ended_by(half_garbage)
    assert all(call.lost for call in calls)
    assert len(link.losses) == 1


@trio_test
async def test_its_owner_ends_it() -> None:
    link, calls = await ended_by(lambda link: link.channel.fail(ConnectionLost("enough")))
    assert all(call.lost for call in calls)
    assert [str(error) for error in link.losses] == ["enough"]


@trio_test
async def test_its_task_is_cancelled() -> None:
    peer = Peer(make_keys())
    losses: list[Smb3fsError] = []
    channel = Channel(
        peer.transport, Trace(), timeout=30, echo_interval=60, on_lost=lambda _, error: losses.append(error)
    )
    async with trio.open_nursery() as callers:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            link = Link(channel, peer, Trace(), losses, callers, trio.Event())
            call = link.call(EchoRequest())
            await settle()
            nursery.cancel_scope.cancel()
        await settle()
        assert call.lost
        assert len(losses) == 1
        assert peer.transport.closed


@trio_test
async def test_one_that_failed_before_it_ran_ends_at_once() -> None:
    peer = Peer()
    losses: list[Smb3fsError] = []
    channel = Channel(
        peer.transport, Trace(), timeout=30, echo_interval=60, on_lost=lambda _, error: losses.append(error)
    )
    channel.fail(ConnectionLost("early"))
    with trio.fail_after(1):
        await channel.run()
    assert [str(error) for error in losses] == ["early"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.booleans())
def test_whatever_the_server_sends_the_channel_ends_in_an_orderly_way_or_lives(frames: list[bytes], smb: bool) -> None:
    @trio_test
    async def check() -> None:
        peer = Peer(make_keys())
        async with linked(peer) as link:
            calls = [link.call(FlushRequest(FILE)), link.call(CreateRequest("f", 1, 1))]
            await settle()
            for frame in frames:
                peer.transport.put(b"\xfeSMB\x40\0" + frame if smb else frame)
            await settle()
            assert len(link.losses) == 1
            assert all(call.lost for call in calls)

    check()
