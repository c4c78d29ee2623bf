"""A channel's sending side: in which order requests leave, what a full socket and an empty account do to that."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import Call, Link, Message, Peer, created, linked, make_keys, settle, trio_test

from smb3fs.channels.channel import BURST, FILE_ONLY, MOST_PUT_OFF, READING
from smb3fs.errors import ConnectionLost, WireError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import RELATED_FILE_ID, AccessMask, CreateRequest, Disposition, FileId
from smb3fs.wire.header import FLAG_RESPONSE, HEADER_SIZE, UNSOLICITED_MESSAGE_ID, Command, Header, Request
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, WriteRequest
from smb3fs.wire.lease import LeaseBreakNotification, OplockBreakNotification

FILE = FileId(3, 4)
READ_SIZE = HEADER_SIZE + len(ReadRequest(FILE, 0, 10).encode())


def read(offset: int, size: int = 10) -> ReadRequest:
    """A request that is told from others by its offset."""
    return ReadRequest(FILE, offset, size)


def offsets(peer: Peer) -> list[int]:
    """The offsets of the reads that have reached the peer."""
    return [message.elements[0].request.offset for message in peer.messages]


@pytest.mark.parametrize("seal", [False, True], ids=["signed", "sealed"])
@trio_test
async def test_answers_find_their_callers_in_whatever_order(seal: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        calls = []
        for offset in range(5):
            calls.append(link.call(read(offset), seal=seal))
            await settle()
        assert offsets(link.peer) == [0, 1, 2, 3, 4]
        for offset in (3, 0, 4, 2, 1):
            message = link.peer.messages[offset]
            link.peer.answer(message, statuses=[0xC0000000 + offset])
            await settle()
        assert [call.statuses for call in calls] == [[0xC0000000 + offset] for offset in range(5)]


@pytest.mark.parametrize("apart", [False, True], ids=["one frame", "a frame each"])
@trio_test
async def test_a_chain_returns_when_its_last_answer_is_there(apart: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        call = link.call(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID), CloseRequest(RELATED_FILE_ID))
        await settle()
        link.peer.answer(link.peer.take(), statuses=[0, 0xC0000022, 0], apart=apart)
        await settle()
        assert call.statuses == [0, 0xC0000022, 0]


@trio_test
async def test_interim_answers_keep_the_caller_waiting() -> None:
    async with linked(Peer(make_keys())) as link:
        call = link.call(CreateRequest("f", 1, 1))
        await settle()
        (element,) = link.peer.take().elements
        link.peer.send(link.peer.pending(element, 9))
        await settle()
        assert call.waiting
        link.peer.send(link.peer.reply(element, created(FILE)))
        await settle()
        assert call.statuses == [0]


@trio_test
async def test_what_is_waited_for_and_what_is_not_is_counted() -> None:
    peer = Peer(make_keys())
    peer.handler = peer.obey
    async with linked(peer) as link:
        link.call(CreateRequest("f", 1, 1), CloseRequest(RELATED_FILE_ID))
        link.channel.post(link.exchange(CloseRequest(FILE)))
        await settle()
        assert (link.trace.round_trips, link.trace.unwaited) == (1, 1)
        assert link.trace.requests == Counter(CREATE=1, CLOSE=2)
        assert link.channel.in_flight == 0


def unasked(command: int, body: bytes) -> bytes:
    """What a server sends of its own accord: neither signed nor of any session."""
    return Header(command, UNSOLICITED_MESSAGE_ID, flags=FLAG_RESPONSE).encode() + body


@trio_test
async def test_breaks_are_handed_up_in_their_order_signed_or_not() -> None:
    told = [LeaseBreakNotification(1, 1, bytes(16), 7, 3), OplockBreakNotification(0, FILE)]
    async with linked(Peer(make_keys())) as link:
        for one in told:
            link.peer.transport.put(unasked(Command.OPLOCK_BREAK, one.encode()))
        await settle()
        assert link.breaks == told
        assert link.losses == []


@pytest.mark.parametrize(
    ("command", "body"),
    [(Command.OPLOCK_BREAK, bytes(24)), (Command.OPLOCK_BREAK, b""), (Command.CLOSE, bytes(60))],
)
@trio_test
async def test_what_is_no_break_ends_the_connection(command: int, body: bytes) -> None:
    async with linked(Peer(make_keys())) as link:
        link.peer.transport.put(unasked(command, body))
        await settle()
        assert [type(error) for error in link.losses] == [WireError]
        assert link.breaks == []


# -- what nobody is in a hurry about


def opening(access: int = READING, disposition: int = Disposition.OPEN, options: int = FILE_ONLY) -> CreateRequest:
    return CreateRequest("f", access, disposition, options)


@pytest.mark.parametrize(
    ("request_", "overtakes"),
    [
        (opening(), True),
        (opening(access=READING | AccessMask.WRITE_DATA), False),
        (opening(access=AccessMask.DELETE), False),
        (opening(disposition=Disposition.OPEN_IF), False),
        (opening(options=0), False),  # a lookup, or a listing
        (read(0), False),
        (CloseRequest(FileId(5, 6)), False),
    ],
    ids=str,
)
@trio_test
async def test_what_is_put_off_goes_with_the_next_request(request_: Request, overtakes: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        sends = link.peer.transport.sends
        link.channel.post(link.exchange(CloseRequest(FILE)), hurry=False)
        assert link.peer.messages == []
        link.channel.submit(link.exchange(request_))
        # Before anybody else had a turn.
        requests = [message.elements[0].request.encode() for message in link.peer.messages]
        close = CloseRequest(FILE).encode()
        assert requests == ([request_.encode(), close] if overtakes else [close, request_.encode()])
        assert link.peer.transport.sends - sends == (1 if overtakes else 2)


@pytest.mark.parametrize("close", [False, True])
@trio_test
async def test_what_is_asked_ahead_goes_behind_anything(close: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        sends = link.peer.transport.sends
        asked = link.exchange(opening(options=0))
        asked.ahead = lambda _answers: None
        link.channel.post(asked, hurry=False)
        if close:  # which nothing but an open for reading overtakes
            link.channel.post(link.exchange(CloseRequest(FILE)), hurry=False)
        assert link.peer.messages == []
        link.channel.submit(link.exchange(read(0)))
        commands = [message.commands[0] for message in link.peer.messages]
        assert commands == (["CREATE", "CLOSE", "READ"] if close else ["READ", "CREATE"])
        assert link.peer.transport.sends - sends == (3 if close else 1)


@trio_test
async def test_what_is_put_off_waits_for_what_begins_to_run() -> None:
    async with linked(Peer(make_keys())) as link:
        for _ in range(20):  # tasks of one turn run in any order
            link.peer.messages.clear()
            sends = link.peer.transport.sends
            asked = link.exchange(opening(options=0))
            asked.ahead = lambda _answers: None
            link.channel.post(asked, hurry=False)
            link.call(read(0))
            await settle()
            assert [message.commands[0] for message in link.peer.messages] == ["READ", "CREATE"]
            assert link.peer.transport.sends - sends == 1


@trio_test
async def test_what_is_put_off_has_no_company() -> None:
    peer = Peer(make_keys())
    peer.handler = peer.obey
    async with linked(peer) as link:
        link.channel.post(link.exchange(CloseRequest(FILE)), hurry=False)
        assert peer.messages == []
        await settle()
        assert link.trace.requests == Counter(CLOSE=1)
        assert link.channel.in_flight == 0


@trio_test
async def test_not_much_is_put_off_at_a_time() -> None:
    async with linked(Peer(make_keys())) as link:
        for number in range(MOST_PUT_OFF):
            assert link.peer.messages == []
            link.channel.post(link.exchange(CloseRequest(FileId(number, 0))), hurry=False)
        ids = [message.elements[0].request.file_id for message in link.peer.messages]
        assert ids == [FileId(number, 0) for number in range(MOST_PUT_OFF)]


@trio_test
async def test_what_is_put_off_while_the_socket_is_full() -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        peer.transport.make_room(10)
        link.call(read(0))
        await settle()
        link.channel.post(link.exchange(CloseRequest(FILE), urgent=True), hurry=False)
        link.call(opening())
        await settle()
        assert peer.messages == []
        peer.transport.make_room(None)
        await settle()
        assert sorted(message.commands[0] for message in peer.messages) == ["CLOSE", "CREATE", "READ"]


@trio_test
async def test_what_is_put_off_while_there_are_no_credits() -> None:
    peer = Peer(make_keys())
    async with linked(peer, credits=1) as link:
        link.channel.post(link.exchange(CloseRequest(FILE), urgent=True), hurry=False)
        link.channel.post(link.exchange(opening()))  # before anybody else has a turn
        await settle()
        assert [message.commands for message in peer.messages] == [["CREATE"]]
        peer.answer(peer.messages[0])
        await settle()
        assert [message.commands for message in peer.messages] == [["CREATE"], ["CLOSE"]]


@trio_test
async def test_what_is_put_off_when_the_connection_is_lost() -> None:
    async with linked(Peer(make_keys())) as link:
        link.channel.post(link.exchange(CloseRequest(FILE)), hurry=False)
        link.channel.fail(ConnectionLost("by the test"))
        await settle()
        assert link.peer.messages == []
        link.channel.post(link.exchange(CloseRequest(FILE)), hurry=False)


# -- a socket that is full


@pytest.mark.parametrize("room", [0, 1, 63, 64, READ_SIZE - 1, READ_SIZE, READ_SIZE + 20])
@trio_test
async def test_a_message_that_was_begun_is_finished_before_the_next(room: int) -> None:
    peer = Peer(make_keys())
    async with linked(peer) as link:
        peer.transport.make_room(room)
        for offset in range(3):
            link.call(read(offset))
            await settle()
        urgent = link.call(EchoRequest(), urgent=True)
        await settle()
        assert len(peer.messages) == room // READ_SIZE
        peer.transport.make_room(None)
        await settle()
        # The urgent request has overtaken what was queued, not what was begun.
        begun = room // READ_SIZE + 1
        commands = [message.commands[0] for message in peer.messages]
        assert commands == ["READ"] * begun + ["ECHO"] + ["READ"] * (3 - begun)
        reads = [message for message in peer.messages if message.commands == ["READ"]]
        assert [message.elements[0].request.offset for message in reads] == [0, 1, 2]
        assert urgent.waiting


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_the_socket_takes_at_a_time_the_messages_arrive_whole_and_in_order(seed: int) -> None:
    rnd = random.Random(seed)

    @trio_test
    async def check() -> None:
        peer = Peer(make_keys())
        async with linked(peer) as link:
            expected = []
            for offset in range(12):
                peer.transport.make_room(rnd.choice([0, 1, 3, 64, 113, 1000, 100_000]))
                data = rnd.randbytes(rnd.choice([1, 10, 1000, 70_000]))
                expected.append((offset, data))
                link.call(WriteRequest(FILE, offset, data), seal=rnd.random() < 0.3)
                await settle()
            peer.transport.make_room(None)
            await settle()
            arrived = [message.elements[0].request for message in peer.messages]
            assert [(request.offset, bytes(request.data)) for request in arrived] == expected

    check()


# -- an account that is empty


async def reads_in_a_row(link: Link, count: int, size: int = 10) -> list[Call]:
    """Have so many callers read, one behind the other."""
    calls = []
    for offset in range(count):
        calls.append(link.call(read(offset, size)))
        await settle()
    return calls


@trio_test
async def test_requests_wait_for_credits_in_their_order() -> None:
    peer = Peer(make_keys())
    peer.grant = lambda header: max(header.credit_charge, 1)
    async with linked(peer, credits=20) as link:
        await reads_in_a_row(link, 30)
        first = len(peer.messages)
        assert 0 < first < 20
        while peer.unseen:
            peer.answer(peer.take())
            await settle()
        assert offsets(peer) == list(range(30))


@trio_test
async def test_urgent_requests_live_on_the_reserve() -> None:
    peer = Peer(make_keys())
    async with linked(peer, credits=20) as link:
        await reads_in_a_row(link, 30)
        waiting = len(peer.messages)
        link.channel.post(link.exchange(CloseRequest(FILE), urgent=True))
        link.call(EchoRequest(), urgent=True)
        await settle()
        assert [message.commands for message in peer.messages[waiting:]] == [["CLOSE"], ["ECHO"]]


@trio_test
async def test_a_large_request_is_not_overtaken_by_small_ones_for_ever() -> None:
    peer = Peer(make_keys())
    peer.grant = lambda header: header.credit_charge
    async with linked(peer, credits=20) as link:
        small = await reads_in_a_row(link, 4)
        large = link.call(read(100, 14 * 65536))
        await settle()
        behind = await reads_in_a_row(link, 2)
        assert len(peer.messages) == 4
        for _ in range(4):
            peer.answer(peer.take())
            await settle()
        assert all(call.answers for call in small)
        assert 100 in offsets(peer)
        while peer.unseen:
            peer.answer(peer.take())
            await settle()
        assert large.answers
        assert all(call.answers for call in behind)


@trio_test
async def test_when_a_large_request_is_given_up_what_stood_behind_it_moves() -> None:
    peer = Peer(make_keys())
    async with linked(peer, credits=20) as link:
        large = link.call(read(100, 21 * 65536))  # more than the whole window
        await settle()
        behind = link.call(read(1))
        await settle()
        assert peer.messages == []
        large.scope.cancel()
        await settle()
        assert offsets(peer) == [1]
        assert behind.waiting
        assert peer.cancels == []


@trio_test
async def test_with_nothing_on_its_way_an_echo_fetches_the_credits_that_a_request_lacks() -> None:
    peer = Peer(make_keys())
    peer.handler = peer.obey  # grants whatever is asked for
    async with linked(peer, credits=4) as link:
        call = link.call(read(0, 8 * 65536))
        await trio.sleep(2)
        assert call.statuses == [0]
        assert [message.commands for message in peer.messages] == [["ECHO"], ["READ"]]


@trio_test
async def test_a_server_that_grants_nothing_any_more_is_given_up() -> None:
    peer = Peer(make_keys())
    peer.handler = peer.obey
    peer.grant = lambda _: 0
    async with linked(peer, credits=8, timeout=30) as link:
        calls = await reads_in_a_row(link, 20)
        await trio.sleep(40)
        assert len(link.losses) == 1
        assert all(call.answers or call.lost for call in calls)
        assert any(call.lost for call in calls)


# -- the reader


@trio_test
async def test_a_flood_of_answers_does_not_keep_others_from_running() -> None:
    peer = Peer(make_keys())
    async with linked(peer, credits=5000) as link:
        count = 2000
        handled = [0]

        def counted(message: Message) -> None:
            handled[0] += 1

        peer.handler = counted
        for _ in range(count):
            link.channel.post(link.exchange(EchoRequest()))
        seen = []

        async def other() -> None:
            while link.channel.in_flight:
                seen.append(link.channel.in_flight)
                await trio.lowlevel.checkpoint()

        for message in peer.messages:
            peer.answer(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
        assert max(before - after for before, after in pairwise(seen)) <= 2 * BURST
        assert handled == [count]
