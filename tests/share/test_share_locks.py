"""The verbs about locks: what is asked, in how many round trips, and that whoever is cancelled knows what was done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from peer import Message, settle, trio_test
from stage import Stage, staged

from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Open
from smb3fs.share.locks import WaitingLock
from smb3fs.wire.create import FileId
from smb3fs.wire.header import Command
from smb3fs.wire.lock import (
    EXCLUSIVE_LOCK,
    FAIL_IMMEDIATELY,
    SHARED_LOCK,
    UNLOCK,
    LockElement,
    LockRequest,
    LockResponse,
)

HOUR = 3600
RANGE = Piece(5, 15, True)


class Locking:
    """A share whose server leaves the answers to LOCK to the test, and an open file."""

    def __init__(self, stage: Stage, handle: Open) -> None:
        self.stage = stage
        self.handle = handle
        self.asked: list[Message] = []
        self.taken_back: list[Message] = []
        stage.server.handler = self.serve

    def serve(self, message: Message) -> None:
        """Collect what is about locks, and serve the rest."""
        if message.elements[0].command == Command.LOCK:
            self.asked.append(message)
        elif message.elements[0].command == Command.CANCEL:
            self.taken_back.append(message)
        else:
            self.stage.server.serve(message)

    def answer(self, *statuses: int) -> None:
        """Answer the oldest message."""
        server, message = self.stage.server, self.asked.pop(0)
        body = LockResponse().encode()
        server.send(
            *(
                server.reply(element, body if status == Status.SUCCESS else None, status)
                for element, status in zip(message.elements, statuses, strict=True)
            )
        )

    def put_off(self) -> None:
        """Say that the oldest message will take some time."""
        server, message = self.stage.server, self.asked[0]
        server.send(server.pending(message.elements[0], 7))


@asynccontextmanager
async def locking() -> AsyncIterator[Locking]:
    async with staged() as stage:
        yield Locking(stage, await stage.share.open("f", read=True, write=True, expect=None))


@trio_test
async def test_steps_are_one_message_and_each_has_its_status() -> None:
    steps = [
        Step([Piece(0, 5, False), Piece(20, 1 << 63, False)]),
        Step([Piece(0, 10, True)], unlocks=True),
        Step([RANGE]),
    ]
    async with locking() as w, trio.open_nursery() as nursery:
        found: list[int] = []

        async def change() -> None:
            with w.stage.costs(1):
                found.extend(await w.stage.share.change_locks(w.handle, steps))

        nursery.start_soon(change)
        await settle()
        first, second, third = (element.request for element in w.asked[0].elements)
        assert {request.file_id for request in (first, second, third)} == {FileId(*w.handle.file_id)}
        assert list(first.elements) == [
            LockElement(0, 5, SHARED_LOCK | FAIL_IMMEDIATELY),
            LockElement(20, (1 << 63) - 20, SHARED_LOCK | FAIL_IMMEDIATELY),
        ]
        assert list(second.elements) == [LockElement(0, 10, UNLOCK)]
        assert list(third.elements) == [LockElement(5, 10, EXCLUSIVE_LOCK | FAIL_IMMEDIATELY)]
        w.answer(Status.SUCCESS, Status.RANGE_NOT_LOCKED, Status.LOCK_NOT_GRANTED)
        await settle()
        assert found == [Status.SUCCESS, Status.RANGE_NOT_LOCKED, Status.LOCK_NOT_GRANTED]


@trio_test
async def test_a_wait_may_take_hours() -> None:
    async with locking() as w, trio.open_nursery() as nursery:
        granted: list[bool] = []

        async def wait() -> None:
            granted.append(await w.stage.share.wait_for_lock(w.handle, RANGE))

        nursery.start_soon(wait)
        await settle()
        (element,) = w.asked[0].elements[0].request.elements
        assert element == LockElement(5, 10, EXCLUSIVE_LOCK)
        w.put_off()
        await trio.sleep(3 * HOUR)
        assert granted == []
        w.answer(Status.SUCCESS)
        await settle()
        assert granted == [True]
        assert w.stage.world.peers == [w.stage.server]  # it was one connection all the time


@pytest.mark.parametrize("put_off", [False, True])
@pytest.mark.parametrize("granted", [False, True])
@trio_test
async def test_whoever_gives_up_learns_what_was_done(granted: bool, put_off: bool) -> None:
    async with locking() as w, trio.open_nursery() as nursery:
        told: list[bool] = []

        async def wait() -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                told.append(await w.stage.share.wait_for_lock(w.handle, RANGE))

        scopes: list[trio.CancelScope] = []
        nursery.start_soon(wait)
        await settle()
        if put_off:
            w.put_off()
            await settle()
        scopes[0].cancel()
        await settle()
        assert told == []
        assert len(w.taken_back) == 1
        w.answer(Status.SUCCESS if granted else Status.CANCELLED)
        await settle()
        assert told == [granted]


@trio_test
async def test_a_wait_ends_with_the_connection_and_other_refusals_are_raised() -> None:
    async with locking() as w:
        async with trio.open_nursery() as nursery:
            failures: list[type[Exception]] = []

            async def wait() -> None:
                try:
                    await w.stage.share.wait_for_lock(w.handle, RANGE)
                except (ConnectionLost, StatusError) as error:
                    failures.append(type(error))

            nursery.start_soon(wait)
            await settle()
            w.answer(Status.INSUFFICIENT_RESOURCES)
            await settle()
            nursery.start_soon(wait)
            await settle()
            w.put_off()
            w.stage.tree.nodes["f"].touch()
            w.stage.server.transport.hang_up()
            await settle()
            assert failures == [StatusError, ConnectionLost]
        assert not w.stage.share.usable(w.handle)
        with pytest.raises(ConnectionLost):
            await w.stage.share.change_locks(w.handle, [Step([RANGE])])


@trio_test
async def test_to_find_out_whether_a_range_could_be_locked_costs_one_round_trip() -> None:
    async with locking() as w:
        for statuses, expected in (
            ((Status.SUCCESS, Status.SUCCESS), True),
            ((Status.LOCK_NOT_GRANTED, Status.RANGE_NOT_LOCKED), False),
            ((Status.FILE_LOCK_CONFLICT, Status.RANGE_NOT_LOCKED), False),
        ):
            found: list[bool] = []

            async def probe(found: list[bool] = found) -> None:
                with w.stage.costs(1):
                    found.append(await w.stage.share.is_lockable(w.handle, [RANGE]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(probe)
                await settle()
                w.answer(*statuses)
            assert found == [expected]


@trio_test
async def test_a_wait_that_is_encoded_again_says_the_same_again() -> None:
    """After a loss it asks to be told at once, and remains what was asked for."""
    async with locking() as w:
        wanted = [LockElement(5, 10, EXCLUSIVE_LOCK)]
        request = WaitingLock(w.handle.file_id, wanted, handle=w.handle, generation=w.handle.generation)
        assert request.encode() == LockRequest(w.handle.file_id, wanted).encode()
        request.generation -= 1
        at_once = [LockElement(5, 10, EXCLUSIVE_LOCK | FAIL_IMMEDIATELY)]
        for _ in range(2):
            assert request.encode() == LockRequest(w.handle.file_id, at_once).encode()
        assert request.elements == wanted
