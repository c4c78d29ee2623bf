"""Breaks that a lost channel has taken along are found by asking what the server has of each lease."""

from __future__ import annotations

import itertools

import pytest
import trio
from peer import Element, settle, trio_test
from stage import Stage
from test_line import a_line
from test_replay import losing
from test_share_leases import leasing

from smb3fs.channels.session import Session
from smb3fs.errors import Status
from smb3fs.handles.lease import NONE, RWH, Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Durability, Open
from smb3fs.line import HEARD, LOOKS, OFTEN, REST
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition
from smb3fs.wire.header import Command
from smb3fs.wire.lease import ACK_REQUIRED, LEASE_CONTEXT, LeaseBreakNotification, LeaseContextV2, LeaseFlag


async def ask(stage: Stage) -> tuple[int, list[LeaseBreakNotification]]:
    """Look; how many leases had changed, and the breaks that were found."""
    session, found = stage.world.pool.session, []
    assert session is not None
    return await stage.share.look_for_breaks(session, found.append), found


def noted(leases: LeaseTable) -> list[tuple[Lease, int, Reason]]:
    """What becomes of the leases from now on."""
    seen: list[tuple[Lease, int, Reason]] = []
    leases.subscribe(lambda lease, _, new, reason: seen.append((lease, new, reason)))
    return seen


async def two_opens(stage: Stage) -> list[Open]:
    """A file open for writing, and one for reading."""
    handles = [await stage.share.open("f", read=True, write=True, expect=None)]
    return [*handles, await stage.share.open("protected", read=True, write=False, expect=None)]


@trio_test
async def test_what_has_not_changed_costs_one_round_trip_and_nothing_else() -> None:
    async with leasing() as (stage, server, leases):
        handles = await two_opens(stage)
        seen, creates = noted(leases), len(server.asked)
        with stage.costs(2):
            assert await ask(stage) == (0, [])
        assert seen == []
        # No more is asked for than there is, under the same keys, and the first about what others may wait for.
        assert [(name, lease and (lease.key, lease.state)) for name, lease in server.asked[creates:]] == [
            (handle.path, handle.lease and (handle.lease.key, NONE)) for handle in handles
        ]
        assert sorted(stage.server.open_handles) == ["f", "protected"]


@trio_test
async def test_what_was_taken_without_waiting_for_a_word_is_given_up() -> None:
    async with leasing() as (stage, server, leases):
        _, reader = await two_opens(stage)
        assert reader.lease is not None
        granted, seen = server.leases[reader.lease.key], noted(leases)
        granted.state, granted.epoch = NONE, granted.epoch + 1
        assert await ask(stage) == (1, [])
        assert seen == [(reader.lease, NONE, Reason.MISSED)]
        assert await ask(stage) == (0, [])


@trio_test
async def test_a_break_that_others_wait_for_is_taken_in() -> None:
    async with leasing() as (stage, server, leases):
        writer, _ = await two_opens(stage)
        lease = writer.lease
        assert lease is not None
        server.leases[lease.key].epoch += 1

        def breaking(element: Element, body: bytes) -> bytes:
            if element.command != Command.CREATE or element.request.name != "f":
                return body
            told = CreateResponse.parse(memoryview(bytes(64) + body))
            has = LeaseContextV2.parse(dict(told.contexts)[LEASE_CONTEXT])
            has.flags |= int(LeaseFlag.BREAK_IN_PROGRESS)
            told.contexts = [one for one in told.contexts if one.name != LEASE_CONTEXT]
            told.contexts.append(CreateContext(LEASE_CONTEXT, has.encode()))
            return told.encode()

        server.distort = breaking
        found, breaks = await ask(stage)
        epoch = server.leases[lease.key].epoch
        assert (found, breaks) == (1, [LeaseBreakNotification(epoch, ACK_REQUIRED, lease.key, RWH, NONE)])
        # What is found again while it is being worked on is the same break.
        leases.broken(breaks[0])
        assert await ask(stage) == (0, [])


@pytest.mark.parametrize("status", [Status.ACCESS_DENIED, Status.OBJECT_NAME_NOT_FOUND, Status.INVALID_PARAMETER])
@trio_test
async def test_of_what_cannot_be_told_everything_is_given_up(status: Status) -> None:
    async with leasing() as (stage, server, _):
        writer, _reader = await two_opens(stage)
        assert writer.lease is not None

        def refuse(message: object, index: int) -> int | None:
            request = message.elements[index].request  # type: ignore[attr-defined]
            return status if isinstance(request, CreateRequest) and request.name == "f" else None

        server.refuse = refuse
        found, breaks = await ask(stage)
        assert (found, [(told.key, told.new_state) for told in breaks]) == (1, [(writer.lease.key, NONE)])
        assert sorted(server.open_handles) == ["f", "protected"]


@trio_test
async def test_a_session_that_is_lost_meanwhile_is_for_the_recovery() -> None:
    async with leasing() as (stage, server, leases):
        await two_opens(stage)
        seen: list[object] = []
        server.handler = lambda _: server.transport.hang_up()
        leases.subscribe(lambda *what: seen.append(what))
        assert await ask(stage) == (0, [])
        assert seen == []


@trio_test
async def test_each_loss_is_followed_by_a_look_and_what_is_found_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with leasing() as (stage, server, _), trio.open_nursery() as nursery:
        line = a_line(nursery)
        session = stage.world.pool.session
        assert session is not None
        line.pool.attach(session)
        lease = line.opens.leases.make("f", "")
        told = LeaseBreakNotification(1, ACK_REQUIRED, lease.key, RWH, NONE)
        looks: list[float] = []

        async def look(of: Session, broken: object) -> int:
            looks.append(trio.current_time())
            assert of is session
            if len(looks) == 2:
                line.recovery.parted(session)  # another channel, before this look is over
                broken(told)  # type: ignore[operator]
            await trio.lowlevel.checkpoint()
            return 0

        monkeypatch.setattr(line.share, "look_for_breaks", look)
        line.recovery.parted(session)
        line.recovery.parted(session)
        await trio.sleep(20)
        # The second loss lets it begin anew.
        began = looks[0]
        later = [sum(LOOKS[:number]) for number in range(len(LOOKS))]
        assert [when - began for when in looks] == pytest.approx([0, LOOKS[0], *(LOOKS[0] + when for when in later)])
        acknowledged = [one for one in server.messages if one.elements[0].command == Command.OPLOCK_BREAK]
        assert [(one.elements[0].request.key, one.elements[0].request.state) for one in acknowledged] == [
            (lease.key, NONE)
        ]
        seen = len(looks)
        line.recovery.parted(session)
        line.pool.detach()
        await trio.sleep(20)
        assert len(looks) == seen
        assert not line._looking


@pytest.mark.parametrize("took", [0.0, 0.2, 1.0])
@trio_test
async def test_where_the_server_serves_the_connection_before_as_well_it_is_looked_often(
    monkeypatch: pytest.MonkeyPatch, took: float
) -> None:
    """Samba tells breaks to the oldest connection of a client; and as long as it does so it may do so again.

    Where a look takes long there is time for other things between two of them.
    """
    async with leasing() as (stage, _, _leases), trio.open_nursery() as nursery:
        line = a_line(nursery)
        session = stage.world.pool.session
        assert session is not None
        line.pool.attach(session)
        looks: list[float] = []

        async def look(of: Session, broken: object) -> int:
            looks.append(trio.current_time())
            assert of is session
            await trio.sleep(took)
            return len(looks) == 3

        monkeypatch.setattr(line.share, "look_for_breaks", look)
        line.recovery.doubled(session)
        await trio.sleep(120)
        apart = [took + max(pause, REST * took) for pause in OFTEN]
        assert [later - when for when, later in itertools.pairwise(looks)] == pytest.approx([*apart, *apart[:-1]])
        assert not line._looking
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("late", [True, False])
@trio_test
async def test_an_open_that_was_made_behind_its_repetition_is_closed(late: bool, used: bool) -> None:
    """And ours is not, which the server takes it for as long as nobody has used it."""
    async with losing(available=False) as lost:
        stage = lost.stage
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        session = stage.world.pool.session
        assert session is not None
        if used:
            await stage.share.read(handle, 0, 1)
            if late:  # the server reads by now what a channel has brought that is lost
                await session.call([handle.request])
                assert stage.server.open_handles == ["f", "f"]
        await stage.share.close_late(session, [handle.request])
        await settle()
        assert stage.server.open_handles == ["f"]
        assert await stage.share.read(handle, 0, 8) == b"contents"
        stage.share.close(handle)
        await stage.nothing_open()


@trio_test
async def test_a_file_that_was_removed_is_not_made_again() -> None:
    async with losing(available=False) as lost:
        stage = lost.stage
        handle = await stage.share.create("new", read=True, write=True, exclusive=False)
        session = stage.world.pool.session
        assert session is not None
        await stage.share.read(handle, 0, 1)
        stage.share.close(handle)
        await settle()
        del stage.tree.nodes["new"]
        await stage.share.close_late(session, [handle.request])
        assert "new" not in stage.tree.nodes
        await stage.nothing_open()


@pytest.mark.parametrize("what", ["regained", "late"])
@trio_test
async def test_an_answer_without_sense_to_what_nobody_waits_for_ends_the_session_alone(what: str) -> None:
    async with leasing() as (stage, server, leases), trio.open_nursery() as nursery:
        line = a_line(nursery)
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        handle.durability, lease, session = Durability.DURABLE_V2, handle.lease, stage.world.pool.session
        assert lease is not None
        assert session is not None
        line.pool.attach(session)
        line.share = stage.share
        leases.broken(LeaseBreakNotification(lease.epoch + 1, ACK_REQUIRED, lease.key, RWH, 1))
        server.distort = lambda element, body: body[:40] if element.command == Command.CREATE else body
        line.pool.lost_creates.append((session, handle.request))
        if what == "late":
            await line._close_late(session)
        else:
            await line._regain(session, lease)
        await settle()
        assert not session.lives
        nursery.cancel_scope.cancel()


@trio_test
async def test_what_was_lost_with_a_channel_is_looked_for_some_time_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with leasing() as (stage, _, _leases), trio.open_nursery() as nursery:
        line = a_line(nursery)
        session = stage.world.pool.session
        assert session is not None
        line.pool.attach(session)
        looked: list[object] = []

        async def close_late(of: Session, lost: object) -> None:
            looked.append((of, lost))
            await trio.lowlevel.checkpoint()

        async def look(*_: object) -> int:
            await trio.lowlevel.checkpoint()
            return 0

        monkeypatch.setattr(line.share, "close_late", close_late)
        monkeypatch.setattr(line.share, "look_for_breaks", look)
        request = CreateRequest("f", 0, Disposition.OPEN)
        line.pool.lost_creates.append((session, request))
        line.recovery.parted(session)
        await settle()
        assert looked == []
        for times, pause in enumerate(HEARD, 1):
            await trio.sleep(pause + 0.1)
            assert looked == [(session, [request])] * times
        assert not line.pool.lost_creates
        await trio.sleep(3600)
        assert len(looked) == len(HEARD)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("late", HEARD)
@trio_test
async def test_what_the_server_opens_however_late_is_closed(late: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows of nothing when it is asked for the first time, as the one who reads the lost channel was busy."""
    async with losing(available=False) as lost, trio.open_nursery() as nursery:
        stage, line = lost.stage, a_line(nursery)
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        session = stage.world.pool.session
        assert session is not None
        await stage.share.read(handle, 0, 1)

        async def look(*_: object) -> int:
            await trio.lowlevel.checkpoint()
            return 0

        line.share = stage.share
        monkeypatch.setattr(line.share, "look_for_breaks", look)
        line.pool.attach(session)
        line.pool.lost_creates.append((session, handle.request))
        line.recovery.parted(session)
        await trio.sleep(late - 1)
        await session.call([handle.request])
        assert stage.server.open_handles == ["f", "f"]
        await trio.sleep(sum(HEARD))
        assert stage.server.open_handles == ["f"]
        stage.share.close(handle)
        nursery.cancel_scope.cancel()
