"""A break is acknowledged when what depended on the lease has come to its end, and not for ever later than it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from peer import trio_test

from smb3fs.errors import ConnectionLost
from smb3fs.handles.breaks import FLUSHING, PROMPTLY, Breaks
from smb3fs.handles.lease import NONE, RH, RWH, Lease
from smb3fs.handles.leases import LeaseTable
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateContext
from smb3fs.wire.lease import (
    ACK_REQUIRED,
    LEASE_CONTEXT,
    LeaseBreakAcknowledgment,
    LeaseBreakNotification,
    LeaseContextV2,
)


class Holder:
    """An open."""

    lease: Lease | None = None


@dataclass
class World:
    """A lease RWH, and what becomes of its breaks."""

    leases: LeaseTable
    lease: Lease
    breaks: Breaks
    trace: Trace
    log: list[object] = field(default_factory=list)

    def take(self, new: int, flags: int = ACK_REQUIRED) -> None:
        """Break it."""
        told = LeaseBreakNotification(2, flags, self.lease.key, self.lease.state, new)
        self.breaks.take(told, self.log.append)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Make it."""
    leases, trace = LeaseTable(), Trace()
    leases.speak(2)
    lease = leases.make("f", "")
    holder = Holder()
    with leases.asking(lease):
        told = LeaseContextV2(lease.key, RWH, epoch=1).encode()
        leases.granted(holder, [CreateContext(LEASE_CONTEXT, told)], {LEASE_CONTEXT: told}, 7)
    async with trio.open_nursery() as nursery:
        yield World(leases, lease, Breaks(leases, nursery.start_soon, trace), trace)
        nursery.cancel_scope.cancel()


@trio_test
async def test_without_anybody_to_wait_for_it_is_acknowledged_at_once() -> None:
    async with world() as it:
        it.leases.subscribe(lambda *told: it.log.append("told"))
        it.leases.before_acknowledging(lambda *told: it.log.append("begun"))
        it.take(RH)
        assert it.log == ["told", "begun", LeaseBreakAcknowledgment(it.lease.key, RH)]
        assert it.trace.breaks == {"RWH to RH": 1}


@trio_test
async def test_it_waits_for_everybody_who_has_something_to_end() -> None:
    async with world() as it:
        first, second = trio.Event(), trio.Event()
        for event in (first, second):
            it.leases.before_acknowledging(lambda lease, old, new, event=event: event.wait())
        it.take(RH)
        await trio.testing.wait_all_tasks_blocked()
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == []
        assert it.lease.state == RH
        second.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == [LeaseBreakAcknowledgment(it.lease.key, RH)]
        assert it.trace.overdue_breaks == 0


@trio_test
async def test_what_gives_up_by_itself_is_not_waited_for_any_longer(expect_log: Callable[[str], None]) -> None:
    """Though there may be more time for others, who have something to send."""
    async with world() as it:

        async def give_up() -> None:
            await trio.sleep(PROMPTLY)
            raise TimeoutError("it is in the way")

        it.leases.before_acknowledging(lambda *told: give_up())
        it.take(NONE)
        await trio.sleep(PROMPTLY + 0.01)
        assert it.log == [LeaseBreakAcknowledgment(it.lease.key, NONE)]
        assert it.trace.overdue_breaks == 1
    expect_log("it is in the way")


@pytest.mark.parametrize(("start", "new", "limit"), [(RWH, RH, FLUSHING), (RH, NONE, PROMPTLY)])
@trio_test
async def test_it_does_not_wait_for_ever(start: int, new: int, limit: float, expect_log: Callable[[str], None]) -> None:
    async with world() as it:
        if start != RWH:
            it.take(start)
        it.log.clear()
        never = trio.Event()
        it.leases.before_acknowledging(lambda *told: never.wait())
        it.take(new)
        await trio.sleep(limit - 0.01)
        assert it.log == []
        await trio.sleep(0.02)
        assert it.log == [LeaseBreakAcknowledgment(it.lease.key, new)]
        assert it.trace.slowest_acknowledgement == pytest.approx(limit)
        assert it.trace.overdue_breaks == 1
    expect_log("not brought to an end")


@trio_test
async def test_a_break_that_comes_again_is_acknowledged_after_the_first() -> None:
    async with world() as it:
        ended = trio.Event()
        it.leases.before_acknowledging(lambda *told: ended.wait())
        it.take(RH)
        it.take(RH)
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == []
        ended.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == 2 * [LeaseBreakAcknowledgment(it.lease.key, RH)]


@trio_test
async def test_what_fails_does_not_keep_others_waiting(expect_log: Callable[[str], None]) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("gone")

    async with world() as it:
        it.leases.before_acknowledging(lambda *told: fail())
        it.take(NONE)
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == [LeaseBreakAcknowledgment(it.lease.key, NONE)]
    expect_log("could not be brought to an end")


@trio_test
async def test_one_that_wants_no_acknowledgement_gets_none() -> None:
    async with world() as it:
        ended: list[int] = []
        it.leases.before_acknowledging(lambda lease, old, new: ended.append(new))
        it.take(NONE, flags=0)
        await trio.testing.wait_all_tasks_blocked()
        assert (it.log, ended) == ([], [NONE])
