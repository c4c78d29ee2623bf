"""Writes that are gathered under a write lease: what is sent, when, in which order, and who learns of a failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import trio
import trio.testing

from smb3fs.cache.pace import FIRST, LEAST, PATIENCE, Pace
from smb3fs.cache.writes import AGE, LOOK, RUN, SIDE_BY_SIDE, Cause, GatheredWrites
from smb3fs.errors import Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.breaks import Breaks
from smb3fs.handles.lease import NONE, RH, RWH
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open, OpenTable
from smb3fs.trace import Trace
from smb3fs.wire.codec import Buffer
from smb3fs.wire.create import CreateContext, CreateRequest, HeldFileId
from smb3fs.wire.lease import (
    ACK_REQUIRED,
    LEASE_CONTEXT,
    LeaseBreakAcknowledgment,
    LeaseBreakNotification,
    LeaseContext,
    LeaseContextV2,
)

NOBODY = FileAttributes(*([0] * len(FileAttributes._fields)))


class World:
    """A server that answers WRITEs when it is told to, the leases, and what is gathered under them."""

    def __init__(self, *, limit: int = 64 << 20, timeout: float = 30.0) -> None:
        self.leases = LeaseTable()
        self.leases.speak(2)
        self.opens = OpenTable(self.leases)
        self.content = bytearray()
        self.sent: list[tuple[int, int]] = []
        self.answered = 0
        self.refusals: dict[int, Exception] = {}
        self.held = False
        self.go_on = trio.Event()
        self.session = trio.Event()
        self.session.set()
        self.told: list[str] = []
        self.writes = GatheredWrites[str](self._write, limit=limit, timeout=timeout, on_written=self.told.append)
        self.writes.watch(self.leases)

    async def _write(
        self, handle: Open, offset: int, data: Buffer, /, *, check: Callable[[], None] | None = None
    ) -> int:
        """Do as a share does: wait for a session, and ask whether it may be sent whenever it is about to be."""
        assert check is not None
        await self.session.wait()
        check()
        self.sent.append((offset, len(data)))
        await trio.lowlevel.checkpoint()
        if self.held:
            await self.go_on.wait()
            check()
        if offset in self.refusals:
            raise self.refusals[offset]
        if offset > len(self.content):
            self.content += bytes(offset - len(self.content))
        self.content[offset : offset + len(data)] = data
        self.answered += 1
        return len(data)

    def release(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self.held = False
        self.go_on.set()

    def open(self, path: str = "f", state: int = RWH, *, version: int = 2) -> Open:
        """Open with that lease."""
        handle = Open(path, HeldFileId(1, 2), 1, NOBODY, CreateRequest(path, 0, 0, 0), writable=True)
        lease = self.leases.find(path) or self.leases.make(path, "")
        with self.leases.asking(lease):
            kind = LeaseContextV2(lease.key, state, epoch=1) if version == 2 else LeaseContext(lease.key, state)
            told = kind.encode()
            self.leases.granted(handle, [CreateContext(LEASE_CONTEXT, told)], {LEASE_CONTEXT: told}, 7)
        self.opens.add(handle)
        return handle

    def break_of(self, handle: Open, new: int) -> LeaseBreakNotification:
        lease = handle.lease
        assert lease is not None
        return LeaseBreakNotification(lease.epoch + 1, ACK_REQUIRED, lease.key, lease.state, new)

    def lose(self) -> None:
        """Lose the connection."""
        self.leases.suspended()

    def claim(self, handle: Open, state: int, *, epoch: int = 1) -> None:
        """Claim an open in the next session, with what the server says of its lease."""
        lease = handle.lease
        assert lease is not None
        self.leases.speak(2)
        handle.generation += 1
        told = LeaseContextV2(lease.key, state, epoch=epoch).encode()
        self.leases.regranted(handle, [CreateContext(LEASE_CONTEXT, told)])


def run(test: Callable[[World], object], world: World | None = None) -> None:
    """Run a test while what is gathered is sent, on a clock that jumps."""

    async def main() -> None:
        here = world or World()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.writes.run)
            await trio.testing.wait_all_tasks_blocked()
            await test(here)  # type: ignore[misc]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_small_writes_become_one_request() -> None:
    async def main(world: World) -> None:
        handle, piece = world.open(), os.urandom(4096)
        for number in range(100):
            assert world.writes.take("f", handle, number * 4096, piece)
        assert world.sent == []
        assert world.writes.dirty == world.writes.most == 409_600
        await world.writes.settle("f", Cause.FSYNC)
        assert world.sent == [(0, 409_600)]
        assert world.content == piece * 100
        assert (world.writes.dirty, world.writes.taken, dict(world.writes.runs)) == (0, 100, {Cause.FSYNC: 1})
        assert "f" not in world.writes
        assert world.told == ["f"]

    run(main)


def test_a_run_is_sent_when_it_is_full() -> None:
    async def main(world: World) -> None:
        handle, piece = world.open(), os.urandom(RUN // 16)
        for number in range(40):
            while not world.writes.take("f", handle, number * len(piece), piece):
                await world.writes.room()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(world.sent) == [(0, RUN), (RUN, RUN)]
        assert world.writes.dirty == 8 * len(piece)
        await world.writes.settle("f", Cause.CLOSE)
        assert world.writes.runs == {Cause.FULL: 2, Cause.CLOSE: 1}
        assert world.content == piece * 40

    run(main)


def test_what_fills_a_request_is_not_copied() -> None:
    async def main(world: World) -> None:
        handle, data = world.open(), memoryview(bytes(RUN))
        assert world.writes.take("f", handle, 0, data)
        await trio.testing.wait_all_tasks_blocked()
        assert world.sent == [(0, RUN)]

    run(main)


def test_what_overlaps_is_written_over_in_its_place() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        for offset, data in ((10, b"aaaaaaaaaa"), (12, b"bb"), (18, b"cccc"), (22, b"d")):
            assert world.writes.take("f", handle, offset, data)
        assert world.writes.dirty == 13
        await world.writes.settle("f", Cause.NEEDED)
        assert world.sent == [(10, 13)]
        assert world.content == bytes(10) + b"aabbaaaaccccd"

    run(main)


def test_a_run_waits_for_earlier_ones_that_it_overlaps_and_for_no_others() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        for offset, data in ((0, b"aaaa"), (100, b"bbbb"), (2, b"cccc"), (200, b"dddd")):
            assert world.writes.take("f", handle, offset, data)
        assert world.writes.take("f", handle, 300, b"e")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(world.sent) == [(0, 4), (100, 4), (200, 4)]
        world.release()
        await world.writes.settle("f", Cause.CLOSE)
        assert sorted(world.sent) == [(0, 4), (2, 4), (100, 4), (200, 4), (300, 1)]
        assert world.sent.index((2, 4)) > world.sent.index((0, 4))
        assert world.content[:6] == b"aacccc"

    run(main)


def test_runs_of_two_handles_are_two_and_keep_their_order() -> None:
    async def main(world: World) -> None:
        first, second = world.open(), world.open()
        world.writes.take("f", first, 0, b"first")
        world.writes.take("f", second, 0, b"SECO")
        world.writes.take("f", first, 1, b"!")
        await world.writes.settle("f", Cause.CLOSE)
        assert world.content == b"S!COt"

    run(main)


def test_no_more_than_so_many_at_a_time() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        for number in range(3 * SIDE_BY_SIDE):
            world.writes.take("f", handle, number * 1000, b"x")
        await world.writes.settle("nothing", Cause.NEEDED)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.sent) == SIDE_BY_SIDE
        world.release()
        await world.writes.finish()
        assert len(world.sent) == 3 * SIDE_BY_SIDE

    run(main)


def test_who_writes_more_than_there_is_room_for_waits() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        assert world.writes.take("f", handle, 0, bytes(60_000))
        assert not world.writes.take("f", handle, 60_000, bytes(60_000))
        waited = []

        async def wait() -> None:
            await world.writes.room()
            waited.append(world.writes.dirty)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert world.sent == [(0, 60_000)]
            assert waited == []
            world.release()
        assert waited == [0]
        assert world.writes.take("f", handle, 60_000, bytes(200_000))  # more than there may be, but alone
        await world.writes.finish()
        assert world.writes.runs == {Cause.ROOM: 1, Cause.END: 1}

    run(main, World(limit=100_000))


def test_room_is_made_by_all_files() -> None:
    async def main(world: World) -> None:
        for name in ("a", "b"):
            assert world.writes.take(name, world.open(name), 0, bytes(40_000))
        assert not world.writes.take("a", world.open("a"), 40_000, bytes(40_000))
        await world.writes.room()
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.sent) == 2

    run(main, World(limit=100_000))


def test_what_is_old_is_sent() -> None:
    async def main(world: World) -> None:
        world.writes.take("f", world.open(), 0, b"old")
        await trio.sleep(AGE + 2 * LOOK)
        assert world.content == b"old"
        assert world.writes.runs == {Cause.AGE: 1}

    run(main)


# -- failures


def test_a_failure_is_kept_and_ends_the_gathering() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.refusals = {0: StatusError(Status.DISK_FULL, "WRITE")}
        world.writes.take("f", handle, 0, b"lost")
        world.writes.take("f", handle, 100, b"arrives")
        await world.writes.settle("f", Cause.FSYNC)
        assert world.writes.failures("f") == 1
        error = world.writes.failure("f")
        assert isinstance(error, StatusError)
        assert error.status == Status.DISK_FULL
        assert world.content[100:] == b"arrives"
        assert (world.writes.dirty, world.writes.failed) == (0, 1)
        world.writes.forget("f")
        assert (world.writes.failures("f"), world.writes.failure("f")) == (0, None)

    run(main)


def test_what_does_not_arrive_in_time_has_failed() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        world.writes.take("f", handle, 0, b"lost")
        began = trio.current_time()
        await world.writes.settle("f", Cause.CLOSE)
        assert trio.current_time() - began == pytest.approx(7.0)
        error = world.writes.failure("f")
        assert isinstance(error, OSError)
        assert error.errno == errno.ETIMEDOUT
        assert world.writes.dirty == 0

    run(main, World(timeout=7.0))


def test_the_end_of_the_mount_leaves_nobody_waiting() -> None:
    world = World()

    async def main(here: World) -> None:
        here.held = True
        here.writes.take("f", here.open(), 0, bytes(RUN))
        await trio.testing.wait_all_tasks_blocked()

    run(main, world)
    assert (world.writes.dirty, world.writes.failures("f")) == (0, 1)
    assert "f" not in world.writes


# -- leases


@pytest.mark.parametrize(("state", "version"), [(RH, 2), (NONE, 2), (RWH, 1)])
def test_nothing_is_gathered_without_a_write_lease_that_has_numbers(state: int, version: int) -> None:
    world = World()
    assert not world.writes.permits(world.open("f", state, version=version))
    assert world.writes.permits(world.open("g"))
    lost = world.open("h")
    world.opens.lose(lost, "for the test")
    assert not world.writes.permits(lost)


def acknowledge(world: World, nursery: trio.Nursery, told: LeaseBreakNotification) -> list[LeaseBreakAcknowledgment]:
    """Have a break taken in as a line does; return what the server will get for it."""
    posted: list[LeaseBreakAcknowledgment] = []
    Breaks(world.leases, nursery.start_soon, Trace()).take(told, posted.append)
    return posted


@pytest.mark.parametrize("new", [RH, NONE])
def test_a_break_is_acknowledged_when_everything_has_arrived(new: int) -> None:
    async def main(world: World) -> None:
        handle, other = world.open(), world.open("other")
        world.held = True
        world.writes.take("f", handle, 0, b"ours")
        world.writes.take("other", other, 0, b"")
        async with trio.open_nursery() as nursery:
            posted = acknowledge(world, nursery, world.break_of(handle, new))
            assert not world.writes.permits(handle)
            await trio.testing.wait_all_tasks_blocked()
            assert world.sent == [(0, 4)]  # and nothing of other files
            assert posted == []
            world.release()
        assert world.content == b"ours"
        assert [answer.state for answer in posted] == [new]
        assert world.writes.runs == {Cause.BREAK: 1}
        assert not world.writes.failed

    run(main)


def test_a_break_that_leaves_w_waits_for_nothing() -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.writes.take("f", handle, 0, b"ours")
        async with trio.open_nursery() as nursery:
            posted = acknowledge(world, nursery, world.break_of(handle, RWH & ~2))
            assert len(posted) == 1
        assert world.sent == []

    run(main)


def test_what_is_not_begun_when_the_break_cannot_wait_longer_is_not_written_over_others(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("was not brought to an end within 15 s")

    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        for number in range(SIDE_BY_SIDE + 2):
            world.writes.take("f", handle, number * 10, b"ours")
        async with trio.open_nursery() as nursery:
            posted = acknowledge(world, nursery, world.break_of(handle, RH))
        assert len(posted) == 1
        assert len(world.sent) == SIDE_BY_SIDE
        world.release()
        await world.writes.finish()
        assert len(world.sent) == SIDE_BY_SIDE
        assert world.writes.failed == 2

    run(main, World(timeout=60.0))


@pytest.mark.parametrize("sent", [False, True])
def test_what_is_here_at_a_loss_is_written_if_the_lease_was_kept(sent: bool) -> None:
    async def main(world: World) -> None:
        handle = world.open()
        world.held = sent
        world.writes.take("f", handle, 0, b"ours")
        if sent:
            world.writes.take("f", handle, 100, b"next")
            await trio.testing.wait_all_tasks_blocked()
        for loss in range(2):
            world.lose()
            assert not world.writes.permits(handle)
            assert handle.in_doubt  # if it is not claimed, it is not to go on as if nothing had been written
            world.claim(handle, RWH)
            assert not handle.in_doubt
            assert world.writes.permits(handle), loss
        world.release()
        await world.writes.settle("f", Cause.CLOSE)
        assert world.content[:4] == b"ours"
        assert not world.writes.failed

    run(main)


LESS = {
    "without W": (RH, 1),
    "without anything": (NONE, 1),
    "with other numbers": (RWH, 2),
}


@pytest.mark.parametrize(("last", "arrives"), [(RWH, True), (RH, False)])
def test_what_is_to_be_sent_between_two_sessions_waits_for_what_the_next_one_says(last: int, arrives: bool) -> None:
    """Claimed in a session that was lost as well, it is neither kept nor lost until it is claimed again."""

    async def main(world: World) -> None:
        handle = world.open()
        assert world.writes.take("f", handle, 0, b"abc")
        world.lose()
        world.claim(handle, RWH)
        world.lose()
        world.session = trio.Event()
        world.writes.send("f", Cause.CLOSE)
        await trio.testing.wait_all_tasks_blocked()
        assert "f" in world.writes, "it is given up while nobody knows"
        world.claim(handle, last)
        world.session.set()
        await world.writes.settle("f", Cause.CLOSE)
        assert bytes(world.content) == (b"abc" if arrives else b"")
        assert world.writes.failures("f") == (not arrives)

    run(main)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("how", LESS)
def test_what_is_here_at_a_loss_is_not_written_over_others(how: str, sent: bool) -> None:
    async def main(world: World) -> None:
        handle, (state, epoch) = world.open(), LESS[how]
        world.held = sent
        world.writes.take("f", handle, 0, b"ours")
        if sent:
            world.writes.take("f", handle, 100, b"next")
            await trio.testing.wait_all_tasks_blocked()
        world.lose()
        world.claim(handle, state, epoch=epoch)
        world.release()
        await world.writes.settle("f", Cause.CLOSE)
        assert world.content == b""
        assert handle.in_doubt
        assert world.writes.failed == 1 + sent
        error = world.writes.failure("f")
        assert isinstance(error, OSError)
        assert error.errno == errno.EIO

    run(main)


@pytest.mark.parametrize("new", [RH, NONE])
def test_what_a_break_has_not_seen_arrive_before_a_loss_is_not_written_afterwards(new: int) -> None:
    """Whoever has waited for the break may have written by then."""

    async def main(world: World) -> None:
        handle = world.open()
        world.held = True
        world.writes.take("f", handle, 0, b"ours")
        world.leases.broken(world.break_of(handle, new))
        world.writes._send(world.writes._files["f"], Cause.BREAK)
        await trio.testing.wait_all_tasks_blocked()
        world.lose()
        world.claim(handle, new, epoch=2)
        world.release()
        await world.writes.settle("f", Cause.CLOSE)
        assert (world.content, world.writes.failed) == (b"", 1)

    run(main)


# -- the pace


def test_the_bound_follows_the_server() -> None:
    async def main(_: World) -> None:
        pace = Pace()
        assert pace.bound == FIRST

        async def move(size: int, seconds: float) -> None:
            with pace.moving(size):
                await trio.sleep(seconds)

        await move(1 << 20, 0.125)
        assert pace.bound == (8 << 20) * PATIENCE
        for _ in range(40):
            await move(1 << 20, 256.0)
        assert pace.bound == LEAST
        for _ in range(40):
            await move(1 << 20, 0.5)
        assert pace.bound == pytest.approx((2 << 20) * PATIENCE, rel=0.01)
        await trio.sleep(1000)  # in which nothing was on its way
        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(move, 1 << 20, 2.0)
        assert pace.bound == pytest.approx((2 << 20) * PATIENCE, rel=0.01)

    run(main)


def test_a_stall_and_small_requests_say_nothing() -> None:
    async def main(_: World) -> None:
        pace = Pace()

        async def fail() -> None:
            with pace.moving(1 << 20):
                await trio.sleep(500)
                raise OSError(errno.EIO, "lost")

        with pytest.raises(OSError, match=r"lost"):
            await fail()
        for _ in range(10):
            with pace.moving(100):
                await trio.sleep(0.2)
        assert pace.bound == FIRST

    run(main)
