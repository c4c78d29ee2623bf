"""The watchdog: silence is questioned, a dead link is given up in time, and patience is not mistaken for death."""

from __future__ import annotations

import pytest
import trio
from peer import Message, Peer, created, linked, make_keys, settle, trio_test

import smb3fs.channels.channel
from smb3fs.errors import ConnectionLost
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import RELATED_FILE_ID, CreateRequest, FileId
from smb3fs.wire.header import Command
from smb3fs.wire.io import CloseRequest, FlushRequest

FILE = FileId(3, 4)
TIMEOUT = 30.0
HOUR = 3600.0


def echoes(peer: Peer) -> int:
    """How many ECHOs have reached the peer."""
    return sum(message.commands == ["ECHO"] for message in peer.messages)


def echo_only(peer: Peer) -> None:
    """Have the peer answer ECHOs and nothing else."""

    def handler(message: Message) -> None:
        if message.commands == ["ECHO"]:
            peer.answer(message)

    peer.handler = handler


@trio_test
async def test_an_unanswered_request_is_followed_by_an_echo_and_the_link_given_up_within_half_the_timeout() -> None:
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT) as link:
        await trio.sleep(20)
        began = trio.current_time()
        call = link.call(FlushRequest(FILE))
        await trio.sleep(4.9)
        assert echoes(peer) == 0
        await trio.sleep(2)
        assert echoes(peer) == 1
        await link.lost.wait()
        assert 14.9 <= trio.current_time() - began <= TIMEOUT / 2 + 1.2
        assert echoes(peer) == 1
        await settle()
        assert call.lost
        assert isinstance(link.losses[0], ConnectionLost)


@trio_test
async def test_silence_counts_from_the_first_request_behind_an_idle_time() -> None:
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT, echo_interval=HOUR) as link:
        await trio.sleep(HOUR / 2)
        link.call(FlushRequest(FILE))
        await trio.sleep(4)
        assert link.losses == []
        assert echoes(peer) == 0


@trio_test
async def test_a_stream_of_requests_to_a_dead_server_does_not_put_the_end_off() -> None:
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT) as link:
        for _ in range(40):
            if link.losses:
                break
            link.call(FlushRequest(FILE))
            await trio.sleep(0.5)
        assert link.losses
        assert trio.current_time() <= TIMEOUT / 2 + 2


@trio_test
async def test_a_server_that_answers_echoes_may_take_an_hour_over_a_request() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        call = link.call(CreateRequest("f", 1, 1))
        await settle()
        (element,) = peer.take().elements
        peer.send(peer.pending(element, 1))
        await trio.sleep(HOUR)
        assert link.losses == []
        assert call.waiting
        peer.send(peer.reply(element, created(FILE)))
        await settle()
        assert call.statuses == [0]


@trio_test
async def test_an_idle_link_is_asked_once_in_an_interval() -> None:
    peer = Peer(make_keys())
    peer.handler = peer.obey
    async with linked(peer, echo_interval=60) as link:
        await trio.sleep(HOUR)
        assert link.losses == []
        assert HOUR / 62 - 1 <= echoes(peer) <= HOUR / 60
        assert link.trace.round_trips == 0


@trio_test
async def test_an_idle_link_that_is_dead_is_noticed() -> None:
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT, echo_interval=60) as link:
        await trio.sleep(60 + TIMEOUT / 2 + 3)
        assert len(link.losses) == 1
        assert echoes(peer) == 1


@trio_test
async def test_echoes_are_protected_as_the_session_is() -> None:
    peer = Peer(make_keys(seal_everything=True))
    peer.handler = peer.obey
    async with linked(peer, echo_interval=5):
        await trio.sleep(8)
        assert peer.messages[0].commands == ["ECHO"]
        assert peer.messages[0].sealed


@trio_test
async def test_an_answer_that_nobody_waits_for_must_come_too() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        link.channel.post(link.exchange(CloseRequest(FILE)))
        await trio.sleep(TIMEOUT - 1)
        assert link.losses == []
        await trio.sleep(3)
        assert len(link.losses) == 1
        assert str(link.losses[0]) == f"the server did not answer CLOSE for {TIMEOUT:.0f} s"


@trio_test
async def test_and_that_to_a_request_whose_caller_has_gone() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        call = link.call(FlushRequest(FILE))
        await trio.sleep(20)
        call.scope.cancel()
        await trio.sleep(TIMEOUT - 1)
        assert link.losses == []
        await trio.sleep(3)
        assert len(link.losses) == 1


@trio_test
async def test_but_not_if_the_server_has_said_that_it_takes_time() -> None:
    """Samba cancels nothing in a chain: what was given up waits for another client's lease all the same."""
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        call = link.call(CreateRequest("f", 1, 1), FlushRequest(RELATED_FILE_ID))
        await settle()
        (first, second) = peer.take().elements
        peer.send(peer.pending(first, 1))
        await settle()
        call.scope.cancel()
        await trio.sleep(HOUR)
        assert link.losses == []
        assert link.channel.given_up == 2
        peer.send(peer.reply(first, created(FILE)), peer.reply(second))
        await settle()
        assert link.channel.given_up == 0
        assert peer.messages[-1].commands == ["CLOSE"]


@trio_test
async def test_unless_somebody_has_to_know_what_became_of_it() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        call = link.see_through(CreateRequest("f", 1, 1))
        await settle()
        (element,) = peer.take().elements
        peer.send(peer.pending(element, 1))
        await settle()
        call.scope.cancel()
        await trio.sleep(TIMEOUT + 3)
        assert len(link.losses) == 1
        assert call.lost


@trio_test
async def test_a_caller_may_wait_longer_than_the_timeout_if_it_wants_to() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=TIMEOUT) as link:
        call = link.call(FlushRequest(FILE))
        await trio.sleep(3 * TIMEOUT)
        assert call.waiting
        assert link.losses == []


@trio_test
async def test_a_socket_that_takes_nothing_is_a_dead_link_too() -> None:
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT) as link:
        peer.transport.make_room(10)
        calls = [link.call(FlushRequest(FILE)), link.call(FlushRequest(FILE))]
        await trio.sleep(TIMEOUT / 2 + 2)
        assert len(link.losses) == 1
        assert all(call.lost for call in calls)


class Sleep:
    """The time that the machine has slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(smb3fs.channels.channel, "_time_asleep", lambda: self.seconds)


@trio_test
async def test_after_the_machine_slept_the_server_must_answer_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = Sleep(monkeypatch)
    peer = Peer(make_keys())
    async with linked(peer, timeout=TIMEOUT) as link:
        await trio.sleep(2.5)
        sleep.seconds += 300
        began = trio.current_time()
        await trio.sleep(1)
        assert echoes(peer) == 1
        await link.lost.wait()
        assert trio.current_time() - began < 6
        assert "slept" in str(link.losses[0])


@trio_test
async def test_a_connection_that_outlived_the_sleep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = Sleep(monkeypatch)
    peer = Peer(make_keys())
    peer.handler = peer.obey
    async with linked(peer) as link:
        for _ in range(5):
            await trio.sleep(2.5)
            sleep.seconds += 300
        await trio.sleep(10)
        assert link.losses == []
        assert echoes(peer) == 5


@trio_test
async def test_a_clock_that_is_set_a_little_is_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = Sleep(monkeypatch)
    peer = Peer(make_keys())
    async with linked(peer):
        for _ in range(20):
            await trio.sleep(1)
            sleep.seconds += 0.01
        assert echoes(peer) == 0


@trio_test
async def test_an_echo_needs_no_more_than_the_reserve() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, credits=6, timeout=TIMEOUT) as link:
        for _ in range(20):
            link.call(FlushRequest(FILE))
            await settle()
        await trio.sleep(20)
        assert echoes(peer) >= 2
        assert link.losses == []


@trio_test
async def test_before_the_login_an_echo_does_not_get_in_its_way() -> None:
    """The server takes its time over NEGOTIATE, which has the only credit."""
    peer = Peer()
    async with linked(peer, credits=None, timeout=TIMEOUT) as link:
        call = link.call(EchoRequest())
        await trio.sleep(10)
        assert [message.elements[0].command for message in peer.messages] == [Command.ECHO]
        peer.grant = lambda _: 1
        peer.answer(peer.take())
        await settle()
        assert call.statuses == [0]
        following = link.call(FlushRequest(FILE))
        await settle()
        while peer.unseen:
            peer.answer(peer.take())
            await settle()
        assert following.statuses == [0]
        assert link.losses == []


@trio_test
async def test_a_request_that_was_put_off_is_no_sign_of_a_dead_link_and_a_dead_link_is_noticed_all_the_same() -> None:
    peer = Peer(make_keys())
    echo_only(peer)
    async with linked(peer, timeout=2) as link:  # too short for an echo to come in between
        link.call(FlushRequest(FILE))
        await settle()
        (element,) = peer.take().elements
        peer.send(peer.pending(element, 1))
        await trio.sleep(HOUR)
        assert link.losses == []
        peer.handler = None
        await trio.sleep(5)
        assert len(link.losses) == 1


@trio_test
async def test_silence_is_told_once_and_its_end_too() -> None:
    """What moves on the connection, though no answer comes of it, is no silence."""
    peer = Peer(make_keys())
    async with linked(peer, timeout=10 * TIMEOUT) as link:
        texts = link.trace.events
        await trio.sleep(20)
        link.call(FlushRequest(FILE))
        for _ in range(10):
            peer.transport.receives += 1 << 16  # what its progress is
            await trio.sleep(0.5)
        assert not link.channel.silent
        assert not texts
        await trio.sleep(5)
        assert link.channel.silent
        assert [event.text.partition(" for ")[0] for event in texts] == ["connection memory is silent"]
        peer.answer(peer.messages[0])
        await trio.sleep(2)
        assert not link.channel.silent
        assert texts[-1].text == "connection memory is silent no more"
        assert len(texts) == 2  # the ECHO in between has moved something, too
