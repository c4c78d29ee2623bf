"""A session that has expired: it is renewed, what was refused is repeated, and everybody else waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from peer import Message, Peer, make_keys, settle, trio_test
from world import OfGeneration, World, world

from smb3fs.errors import AuthenticationError, ConnectionLost, Status, StatusError
from smb3fs.recovery import QUICK_INTERVAL
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.create import FileId
from smb3fs.wire.header import Command
from smb3fs.wire.io import CloseRequest, FlushRequest

FILE = FileId(1, 2)

ExpectLog = Callable[[str], None]


def expiring(times: int = 1) -> Callable[[], Peer]:
    """Make peers whose session expires at the first requests; a CLOSE is carried out all the same."""

    def make() -> Peer:
        peer = Peer(make_keys())
        left = [times]

        def handle(message: Message) -> None:
            if left[0] and message.elements[0].command != Command.CLOSE:
                left[0] -= 1
                peer.send(*(peer.reply(element, status=Status.NETWORK_SESSION_EXPIRED) for element in message.elements))
                return
            peer.obey(message)

        peer.handler = handle
        return peer

    return make


async def echo(made: World, handle: OfGeneration | None = None) -> int:
    """Send a request and return the status of its answer."""
    _, (answer,) = await made.pool.call([EchoRequest()], handle=handle)
    return answer.status


@pytest.mark.parametrize("handle", [None, OfGeneration(1)])
@trio_test
async def test_what_was_refused_is_repeated_on_the_same_session(handle: OfGeneration | None) -> None:
    async with world(expiring()) as made:
        await trio.sleep(10)
        assert await echo(made, handle) == 0
        assert made.renewals == [10]
        assert made.pool.generation == 1
        assert made.trace.reconnects == 0
        assert [event.text for event in made.trace.events] == ["the session had expired and was renewed in 0.0 s"]


@trio_test
async def test_several_that_are_refused_bring_one_renewal() -> None:
    async with world(expiring(3)) as made:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(echo, made)
        assert made.renewals == [10]


@trio_test
async def test_what_was_sent_ahead_is_repeated_too() -> None:
    async with world(expiring()) as made:
        await trio.sleep(10)
        exchange = made.pool.begin([FlushRequest(FILE)], OfGeneration(1))
        await settle()
        answers = await made.pool.collect(exchange, OfGeneration(1))
        assert answers[0].status == 0
        assert made.renewals == [10]


@trio_test
async def test_what_is_seen_through_is_repeated_too() -> None:
    async with world(expiring()) as made:
        await trio.sleep(10)
        answers = await made.pool.see_through([FlushRequest(FILE)], OfGeneration(1))
        assert answers[0].status == 0
        assert made.renewals == [10]


@trio_test
async def test_others_wait_and_files_are_closed_meanwhile(expect_log: ExpectLog) -> None:
    expect_log("renewing the session failed")
    async with world(expiring()) as made:
        await trio.sleep(10)
        made.script = [AuthenticationError("no ticket")] * 4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, made, OfGeneration(1))
            await settle()
            assert made.pool.expired
            before = len(made.peer.messages)
            nursery.start_soon(echo, made)
            nursery.start_soon(echo, made, OfGeneration(1))
            await trio.sleep(1)
            assert len(made.peer.messages) == before
            made.pool.post([CloseRequest(FILE)], OfGeneration(1))
            await settle()
            assert made.peer.messages[-1].commands == ["CLOSE"]
        assert made.renewals == [10, 10.5, 11, 11.5, 12]
        assert not made.pool.expired


@trio_test
async def test_an_expired_session_that_is_lost_is_replaced(expect_log: ExpectLog) -> None:
    async with world(expiring()) as made:
        await trio.sleep(10)
        made.script = [ConnectionLost("gone")]
        with pytest.raises(ConnectionLost):
            await echo(made, OfGeneration(1))
        assert await echo(made) == 0
        assert made.pool.generation == 2


@trio_test
async def test_the_end_of_the_mount_ends_the_wait(expect_log: ExpectLog) -> None:
    expect_log("renewing the session failed")
    async with world(expiring()) as made:
        await trio.sleep(10)
        made.script = [AuthenticationError("no ticket")] * 1000

        async def fails() -> None:
            with pytest.raises(ConnectionLost):
                await echo(made)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep(10)
            made.pool.close()


# -- passwords that change while attempts are far apart


@pytest.mark.parametrize("how", ["file", "signal"])
@trio_test
async def test_a_new_password_is_tried_at_once(how: str, expect_log: ExpectLog) -> None:
    expect_log("next attempt in 60.0 s")
    async with world() as made:
        await trio.sleep(10)
        made.script = [StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")]
        made.peer.transport.hang_up()
        await trio.sleep(10)
        assert made.pool.session is None
        if how == "file":
            made.rotated = True
        else:
            made.recovery.hurry()
        await trio.sleep(1.1)
        assert made.pool.generation == 2


@trio_test
async def test_a_link_that_was_down_counts_for_nothing_when_a_login_is_refused(expect_log: ExpectLog) -> None:
    expect_log("reconnecting failed")
    async with world() as made:
        await trio.sleep(10)
        made.script = [ConnectionLost("x")] * 20 + [StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")]
        made.peer.transport.hang_up()
        await trio.sleep(60)
        assert made.pool.session is None
        await trio.sleep(20 * QUICK_INTERVAL)
        assert made.pool.generation == 2


@trio_test
async def test_a_password_that_a_kdc_refused_is_not_repeated_quickly_either(expect_log: ExpectLog) -> None:
    expect_log("next attempt in 60.0 s")
    async with world() as made:
        await trio.sleep(10)
        made.script = [AuthenticationError("wrong", refused=True)]
        made.peer.transport.hang_up()
        await trio.sleep(59)
        assert made.pool.session is None
        await trio.sleep(2)
        assert made.pool.generation == 2
