"""Handles and pages that are kept under a lease, and everything that ends it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from peer import trio_test

from smb3fs.cache.handles import DeferredHandles
from smb3fs.cache.pages import PATIENCE, KeptPages
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.lease import NONE, RH, RWH
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open, OpenTable
from smb3fs.wire.create import CreateContext, CreateRequest, HeldFileId
from smb3fs.wire.lease import ACK_REQUIRED, LEASE_CONTEXT, LeaseBreakNotification, LeaseContextV2, LeaseState

READ = int(LeaseState.READ)
NOBODY = FileAttributes(*([0] * len(FileAttributes._fields)))


class World:
    """Opens with leases, and what is kept of them."""

    def __init__(self, *, most: int = 3, loose: bool = False, guards_names: bool = True) -> None:
        self.leases = LeaseTable()
        self.leases.speak(2, guards_names=guards_names)
        self.opens = OpenTable(self.leases)
        self.closed: list[str] = []
        self.forgotten: list[int] = []
        self.handles = DeferredHandles(self._close, seconds=5.0, most=most)
        self.pages = KeptPages(self._forget, loose=loose)
        for one in (self.handles, self.pages):
            one.watch(self.leases)

    def _close(self, handle: Open) -> None:
        """Do as a share does."""
        assert self.opens.remove(handle)
        self.closed.append(handle.path)

    async def _forget(self, number: int) -> None:
        self.forgotten.append(number)

    def open(self, path: str, state: int = RH, *, writable: bool = False) -> Open:
        """Open with that lease."""
        request = CreateRequest(path, 0, 0, 0)
        handle = Open(path, HeldFileId(1, 2), 1, NOBODY, request, writable)
        lease = self.leases.find(path) or self.leases.make(path, "")
        with self.leases.asking(lease):
            told = LeaseContextV2(lease.key, state, epoch=lease.epoch + (not lease.known)).encode()
            self.leases.granted(handle, [CreateContext(LEASE_CONTEXT, told)], {LEASE_CONTEXT: told}, 7)
        self.opens.add(handle)
        return handle

    def break_it(self, handle: Open, new: int) -> Sequence[object]:
        """Break its lease; return what is left to wait for."""
        lease = handle.lease
        assert lease is not None
        before = lease.state
        self.leases.broken(LeaseBreakNotification(lease.epoch + 1, ACK_REQUIRED, lease.key, before, new))
        return self.leases.prepare(lease.key, before)


@trio_test
async def test_pages_that_the_kernel_does_not_drop_are_not_waited_for_any_longer() -> None:
    """A call of its own, which waits for this acknowledgement, may have locked the file."""
    world = World()
    handle = world.open("f", RWH, writable=True)
    world.pages.may_keep(1, handle.lease, 0)
    never = trio.Event()
    world.pages._forget = lambda _: never.wait()
    (rest,) = world.break_it(handle, NONE)
    began = trio.current_time()
    with pytest.raises(TimeoutError):
        await rest  # type: ignore[misc]
    assert trio.current_time() - began == pytest.approx(PATIENCE)


def test_what_waits_is_used_again_once() -> None:
    world = World()
    handle = world.open("f")
    assert world.handles.put(1, handle, 0.0)
    assert world.handles.find(1) is handle
    assert world.handles.take(1, 4.9) is handle
    assert world.handles.take(1, 4.9) is None
    assert (world.handles.reused, world.handles.missed, world.closed) == (1, 1, [])


def test_what_could_write_or_has_another_lease_does_not_wait() -> None:
    world = World()
    for state, writable in ((RH, True), (RWH, False), (READ, False), (NONE, False)):
        assert not world.handles.put(1, world.open(f"{state}{writable}", state, writable=writable), 0.0)
    assert not World(most=0).handles.put(1, world.open("f"), 0.0)
    assert len(world.handles) == 0


def test_nothing_waits_where_nobody_says_who_removes_it() -> None:
    world = World(guards_names=False)
    assert not world.handles.put(1, world.open("f"), 0.0)


def test_neither_too_many_wait_nor_too_long() -> None:
    world = World(most=3)
    for number in range(5):
        assert world.handles.put(number, world.open(str(number)), float(number))
    assert world.closed == ["0", "1"]
    world.handles.expire(7.5)
    assert world.closed == ["0", "1", "2"]
    assert world.handles.take(3, 8.5) is None
    assert world.closed == ["0", "1", "2", "3"]
    world.handles.drop_all()
    assert world.closed == ["0", "1", "2", "3", "4"]
    assert len(world.leases) == 0


@pytest.mark.parametrize(("new", "closed"), [(NONE, ["f"]), (READ, ["f"]), (RH, [])])
def test_a_break_of_h_closes_what_waits(new: int, closed: list[str]) -> None:
    world = World()
    handle, other = world.open("f"), world.open("g")
    world.handles.put(1, handle, 0.0)
    world.handles.put(2, other, 0.0)
    world.break_it(handle, new)
    assert world.closed == closed


def test_a_lost_connection_closes_what_waits() -> None:
    world = World()
    world.handles.put(1, world.open("f"), 0.0)
    world.leases.suspended()
    assert world.closed == ["f"]
    assert len(world.leases) == 0


def test_pages_are_kept_while_r_is_held_and_nothing_changes_here() -> None:
    world = World()
    first = world.open("f")
    assert not world.pages.may_keep(1, first.lease, 0)
    second = world.open("f")
    assert world.pages.may_keep(1, second.lease, 0)
    assert not world.pages.may_keep(1, second.lease, 2)
    assert world.pages.may_keep(1, second.lease, 2)
    world.pages.drop(1)
    assert not world.pages.may_keep(1, second.lease, 2)


@pytest.mark.parametrize("end", ["break", "suspend", "release", "none"])
def test_any_gap_ends_it(end: str) -> None:
    world = World()
    handle = world.open("f")
    world.pages.may_keep(1, handle.lease, 0)
    if end == "break":
        (rest,) = world.break_it(handle, NONE)
        assert not world.pages.has(1, 0)  # before anything else happens

        async def wait() -> None:
            await rest  # type: ignore[misc]

        trio.run(wait)
        assert world.forgotten == [1]
        world.open("f")
    elif end == "suspend":
        world.leases.suspended()
        world.open("f")
    elif end == "release":
        world.opens.remove(handle)
        handle = world.open("f")
    assert world.pages.may_keep(1, handle.lease, 0) == (end == "none")


def test_a_break_under_another_of_its_names_ends_it_too() -> None:
    world = World()
    one, two = world.open("f"), world.open("g")
    world.pages.may_keep(1, one.lease, 0)
    world.pages.may_keep(1, two.lease, 0)
    (rest,) = world.break_it(one, NONE)
    assert not world.pages.has(1, 0)

    async def wait() -> None:
        await rest  # type: ignore[misc]

    trio.run(wait)
    assert world.forgotten == [1]


def test_pages_that_no_lease_is_about_are_dropped_soon() -> None:
    world = World()
    watched, unwatched = world.open("f"), world.open("g", NONE)

    async def live() -> None:
        world.pages.touched(1, watched.lease, trio.current_time())
        world.pages.touched(2, unwatched.lease, trio.current_time())
        world.pages.touched(3, None, trio.current_time())
        with trio.move_on_after(0.9):
            await world.pages.run()
        assert world.forgotten == []
        with trio.move_on_after(0.2):
            await world.pages.run()
        assert world.forgotten == [2, 3]
        world.pages.touched(2, unwatched.lease, trio.current_time())
        with trio.move_on_after(1.1):
            await world.pages.run()
        assert world.forgotten == [2, 3, 2]

    trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_second_name_begins_anew() -> None:
    world = World()
    one, two = world.open("f"), world.open("g")
    assert [world.pages.may_keep(1, handle.lease, 0) for handle in (one, two, two, one)] == [False, False, True, False]


def test_loose_needs_no_lease_but_minds_our_own_changes() -> None:
    world = World(loose=True)
    assert [world.pages.may_keep(1, None, changes) for changes in (0, 0, 2, 2)] == [False, True, False, True]
    handle = world.open("f")
    assert world.pages.may_keep(1, handle.lease, 2)
    world.opens.remove(handle)
    assert world.pages.may_keep(1, world.open("f").lease, 2)
