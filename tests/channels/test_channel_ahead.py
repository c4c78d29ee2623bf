"""Requests that are sent ahead of the need for their answers, and collected later or never."""

from __future__ import annotations

import pytest
import trio
from peer import Link, Message, Peer, linked, make_keys, settle, trio_test
from test_pool import series
from world import OfGeneration, world

from smb3fs.connection import Answer, Exchange
from smb3fs.errors import ConnectionLost
from smb3fs.wire.create import FileId
from smb3fs.wire.io import FlushRequest

FILE = FileId(3, 4)


def ahead(link: Link) -> Exchange:
    """Send a request ahead."""
    exchange = link.exchange(FlushRequest(FILE))
    link.channel.post(exchange)
    return exchange


class Collected:
    """A task that collects."""

    def __init__(self, link: Link, exchange: Exchange) -> None:
        self.answers: list[Answer] | None = None
        self.error: ConnectionLost | None = None
        self.scope = trio.CancelScope()

        async def run() -> None:
            with self.scope:
                try:
                    self.answers = await link.channel.collect(exchange)
                except ConnectionLost as error:
                    self.error = error

        link.nursery.start_soon(run)


@pytest.mark.parametrize("answered", ["before", "after"])
@trio_test
async def test_it_is_collected_whenever_the_answer_comes(answered: str) -> None:
    async with linked(Peer(make_keys())) as link:
        exchange = ahead(link)
        await settle()
        if answered == "before":
            link.peer.answer(link.peer.take(), statuses=[0xC0000022])
            await settle()
        collected = Collected(link, exchange)
        await settle()
        if answered == "after":
            assert collected.answers is None
            link.peer.answer(link.peer.take(), statuses=[0xC0000022])
            await settle()
        assert collected.answers is not None
        assert [answer.status for answer in collected.answers] == [0xC0000022]
        assert (link.trace.round_trips, link.trace.unwaited) == (0, 1)


@trio_test
async def test_it_may_wait_for_credits_first() -> None:
    async with linked(Peer(make_keys()), credits=1) as link:
        first, second = ahead(link), ahead(link)
        collected = Collected(link, second)
        await settle()
        assert not second.sent
        for exchange in (first, second):
            assert exchange.sent
            link.peer.answer(link.peer.take())
            await settle()
        assert collected.answers


@pytest.mark.parametrize("sent", [False, True], ids=["queued", "sent"])
@trio_test
async def test_who_collects_may_give_up(sent: bool) -> None:
    async with linked(Peer(make_keys()), credits=10 if sent else 1) as link:
        first = ahead(link)
        exchange = ahead(link)
        collected = Collected(link, exchange)
        await settle()
        assert exchange.sent == sent
        collected.scope.cancel()
        await settle()
        assert [cancel.header.message_id for cancel in link.peer.cancels] == ([1] if sent else [])
        while link.peer.unseen:
            link.peer.answer(link.peer.take())
            await settle()
        assert first.missing == 0
        assert link.channel.in_flight == 0
        await trio.sleep(100)
        assert link.peer.messages[-1].commands == ["ECHO"]  # which is all that happens after that
        assert "left a request unanswered" not in str(link.losses)


@trio_test
async def test_lost_it_is_a_loss_for_who_waits_and_for_who_comes_later() -> None:
    async with linked(Peer(make_keys())) as link:
        exchanges = [ahead(link), ahead(link)]
        collected = Collected(link, exchanges[0])
        await settle()
        link.peer.transport.hang_up()
        await settle()
        assert collected.error is not None
        with pytest.raises(ConnectionLost):
            await link.channel.collect(exchanges[1])


@trio_test
async def test_what_was_answered_before_the_loss_is_there() -> None:
    async with linked(Peer(make_keys())) as link:
        exchange = ahead(link)
        link.peer.answer(link.peer.take())
        await settle()
        link.peer.transport.hang_up()
        await settle()
        assert len(await link.channel.collect(exchange)) == 1


@pytest.mark.parametrize("collected", [False, True])
@trio_test
async def test_one_that_nobody_collects_is_expected_to_be_answered_in_time(collected: bool) -> None:
    peer = Peer(make_keys())

    def echo_only(message: Message) -> None:
        if message.commands == ["ECHO"]:
            peer.answer(message)

    peer.handler = echo_only
    async with linked(peer, timeout=30) as link:
        exchange = ahead(link)
        if collected:
            Collected(link, exchange)  # and is patient
        await trio.sleep(100)
        assert len(link.losses) == (not collected)


@trio_test
async def test_the_pool_knows_whether_its_session_is_gone() -> None:
    made_peers = series(0, 0)
    async with world(lambda: made_peers.pop(0)) as made:
        exchange = made.pool.begin([FlushRequest(FILE)], OfGeneration(1))
        (answer,) = await made.pool.collect(exchange, OfGeneration(1))
        assert answer.status == 0
        made.peer.transport.hang_up()
        await settle()
        assert made.pool.generation == 2
        with pytest.raises(ConnectionLost):
            made.pool.begin([FlushRequest(FILE)], OfGeneration(1))
        with pytest.raises(ConnectionLost):
            await made.pool.collect(exchange, OfGeneration(1))
