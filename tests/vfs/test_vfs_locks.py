"""Locks by the verbs: between processes of one mount, and against another client of the server."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from fake_share import FakeShare
from mandatory_locks import PosixLocks
from vfs_world import World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.handles.byte_ranges import END, Lock
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Durability, Open
from smb3fs.vfs.files import Owner
from smb3fs.vfs.locking import BRIEFLY, RECENTLY
from smb3fs.vfs.names import NameMapping
from smb3fs.vfs.wall import settle

A, B, C = (Owner(False, number) for number in (0xA, 0xB, 0xC))
FA, FB = Owner(True, 0xA), Owner(True, 0xB)


class Locking(World):
    """A file `f`, open a few times, and processes that lock it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(FakeShare(), **options)
        self.share.put("f", bytes(100))
        self.dropped: list[int] = []
        self.asked_anew: list[tuple[int, bytes]] = []
        self.slowness = 0.0
        """Seconds that the kernel takes to forget pages and names."""

        async def forget_pages(number: int, names: Iterable[tuple[int, bytes]]) -> None:
            await trio.sleep(self.slowness)
            self.dropped.append(number)
            self.asked_anew = list(names)

        self.vfs.attach(lambda _parent, _name: None, lambda _process, _name: False, forget_pages)

    async def lock(
        self, fh: int, who: Owner, start: int, end: int, *, exclusive: bool = True, wait: bool = False
    ) -> None:
        verb = self.vfs.setlkw if wait else self.vfs.setlk
        await settle(verb(fh, who, start, end, exclusive=exclusive, pid=who.number))

    async def unlock(self, fh: int, who: Owner, start: int = 0, end: int = END) -> None:
        await settle(self.vfs.setlk(fh, who, start, end, exclusive=None, pid=0))

    async def test(self, fh: int, who: Owner, start: int, end: int, *, exclusive: bool = True) -> Lock | None:
        return await settle(self.vfs.getlk(fh, who.number, start, end, exclusive=exclusive))

    async def flush(self, fh: int, who: Owner) -> None:
        await settle(self.vfs.flush(fh, who.number))

    async def release(self, fh: int) -> None:
        await settle(self.vfs.release(fh))

    def pieces(self) -> list[Piece]:
        """What is locked on the server."""
        return sorted(piece for _, piece in self.share.locks_of(self.share.find("f")).held)

    def nothing_left(self) -> None:
        assert self.pieces() == []
        assert len(self.state.locks) == 0
        assert self.state.locks.by_inode == {}
        assert self.share.opens == {}


class Foreign:
    """Another client of the server: a second mount of the same share."""

    def __init__(self, world: Locking) -> None:
        self.world = Locking()
        self.world.share = self.world.state.share = self.world.vfs._share = self.world.state.locks._share = world.share
        self.world.vfs.set_root(world.share.root.told())


async def runs(nursery: trio.Nursery, call: Callable[..., Awaitable[None]], *args: Any, **named: Any) -> list[str]:
    """Begin something that waits; the list tells when it is done."""
    done: list[str] = []

    async def run() -> None:
        try:
            await call(*args, **named)
            done.append("done")
        except OSError as error:
            done.append(errno.errorcode[error.errno or 0])

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    return done


@in_trio
async def test_processes_of_one_mount() -> None:
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    with fails(errno.EAGAIN):
        await w.lock(fh, B, 5, 15)
    await w.lock(fh, B, 10, 20)
    assert await w.test(fh, B, 0, 30) == Lock(0xA, 0, 10, exclusive=True, pid=0xA)
    assert await w.test(fh, A, 0, 10) is None
    assert w.pieces() == [Piece(0, 10, True), Piece(10, 20, True)]
    await w.lock(fh, A, 0, 10, exclusive=False)
    await w.lock(fh, B, 0, 10, exclusive=False)
    assert w.pieces() == [Piece(0, 10, False), Piece(10, 20, True)]
    await w.flush(fh, A)
    await w.flush(fh, B)
    assert w.pieces() == []
    await w.release(fh)
    w.nothing_left()


@in_trio
async def test_another_client() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    with fails(errno.EAGAIN):
        await other.lock(theirs, A, 5, 15, exclusive=False)
    assert await other.test(theirs, A, 5, 15) == Lock(0, 5, 15, exclusive=True)
    assert await other.test(theirs, A, 10, 15) is None
    with fails(errno.EACCES):
        await other.read(theirs, 0, 100)
    with fails(errno.EACCES):
        await other.write(theirs, 9, b"xx")
    await w.lock(fh, A, 0, 10, exclusive=False)
    assert await other.test(theirs, A, 5, 15) == Lock(0, 5, 15, exclusive=False)
    assert await other.test(theirs, A, 5, 15, exclusive=False) is None
    await other.lock(theirs, A, 5, 15, exclusive=False)
    with fails(errno.EAGAIN):
        await w.lock(fh, A, 0, 10)
    # What was there is there again.
    assert len(w.pieces()) >= 2
    with fails(errno.EAGAIN):
        await other.lock(theirs, B, 0, 5)
    await other.unlock(theirs, A)
    await w.lock(fh, A, 0, 10)
    assert await w.write(fh, 0, b"1234567890") == 10
    await w.release(fh)
    await other.release(theirs)
    w.nothing_left()
    other.nothing_left()


@in_trio
async def test_waiting_for_another_client() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 20, wait=True)
        await trio.sleep(1000)  # no deadline
        assert done == []
        assert w.share.count("wait_for_lock") == 1
        await other.unlock(theirs, A)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["done"]
    assert w.dropped == [await w.number("f")]
    with fails(errno.EAGAIN):
        await other.lock(theirs, A, 15, 16)
    await w.unlock(fh, A)
    assert w.pieces() == []


@in_trio
async def test_waiting_for_a_process_of_the_same_mount() -> None:
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    async with trio.open_nursery() as nursery:
        first = await runs(nursery, w.lock, fh, B, 0, 5, wait=True)
        second = await runs(nursery, w.lock, fh, C, 5, 10, wait=True)
        await w.unlock(fh, A, 5, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert (first, second) == ([], ["done"])
        # The server keeps what it has: there was nobody to ask.
        assert w.pieces() == [Piece(0, 10, True)]
        await w.flush(fh, A)
        await trio.testing.wait_all_tasks_blocked()
        assert first == ["done"]
    assert w.share.count("wait_for_lock") == 0
    await w.flush(fh, B)
    await w.flush(fh, C)
    assert w.pieces() == []


@in_trio
async def test_a_wait_is_given_up_and_leaves_nothing() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    with trio.move_on_after(5) as scope:
        await w.lock(fh, A, 0, 10, wait=True)
    assert scope.cancelled_caught
    assert w.share.waiting == []
    await other.unlock(theirs, A)
    assert w.pieces() == []
    # Granted in the very moment in which it is given up: what was granted is given back.
    await other.lock(theirs, A, 0, 10)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: w.lock(fh, A, 0, 10, wait=True))
            await trio.testing.wait_all_tasks_blocked()
            await other.unlock(theirs, A)
            scope.cancel()
    assert scope.cancelled_caught
    assert w.pieces() == []
    assert len(w.state.locks) == 0


@in_trio
async def test_a_shared_lock_does_not_come_over_an_exclusive_one_that_is_granted_at_the_same_time() -> None:
    """Nobody could write then, not even who has locked exclusively; and that lock would go first."""
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    change = w.share.change_locks

    async def behind_the_other(handle: Open, steps: Sequence[Step]) -> list[int]:
        """The other client lets go before the server hears this."""
        w.share.change_locks = change  # type: ignore[method-assign]
        await other.unlock(theirs, A)
        await trio.sleep(0.1)
        return await change(handle, steps)

    async with trio.open_nursery() as nursery:
        writer = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        assert w.share.count("wait_for_lock") == 1
        w.share.change_locks = behind_the_other  # type: ignore[method-assign]
        reader = await runs(nursery, w.lock, fh, B, 0, 10, exclusive=False, wait=True)
        await trio.sleep(1)
        assert (writer, reader, w.pieces()) == ([], ["done"], [Piece(0, 10, False)])
        await w.flush(fh, B)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(2)
        assert (writer, w.pieces()) == (["done"], [Piece(0, 10, True)])
    await w.flush(fh, A)
    assert w.pieces() == []


@in_trio
async def test_readers_and_a_writer_who_wait_for_another_client_do_not_take_back_each_others_requests_for_ever() -> (
    None
):
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    async with trio.open_nursery() as nursery:
        writer = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        readers = [await runs(nursery, w.lock, fh, owner, 0, 10, exclusive=False, wait=True) for owner in (B, C)]
        await trio.testing.wait_all_tasks_blocked()
        asked = w.share.count("wait_for_lock")
        assert asked <= 6
        await trio.sleep(1000)
        assert w.share.count("wait_for_lock") == asked
        await other.unlock(theirs, A)
        await trio.sleep(2)
        for owner, done in ((A, writer), (B, readers[0]), (C, readers[1])):
            if done:
                await w.flush(fh, owner)
        await trio.sleep(5)
        for owner in (A, B, C):
            await w.flush(fh, owner)
            await trio.sleep(5)
        assert [writer, *readers] == [["done"]] * 3
    await w.flush(fh, A)


@in_trio
async def test_both_wait_for_each_other() -> None:
    w = Locking()
    w.share.put("g", bytes(100))
    f, g = await w.open("f", os.O_RDWR), await w.open("g", os.O_RDWR)
    await w.lock(f, A, 0, 1)
    await w.lock(g, B, 0, 1)
    async with trio.open_nursery() as nursery:
        first = await runs(nursery, w.lock, g, A, 0, 1, wait=True)
        with fails(errno.EDEADLK):
            await w.lock(f, B, 0, 1, wait=True)
        assert first == []
        await w.flush(g, B)
        await trio.testing.wait_all_tasks_blocked()
        assert first == ["done"]


@in_trio
async def test_from_shared_to_exclusive_waits_for_the_other_reader() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10, exclusive=False)
    await other.lock(theirs, A, 0, 10, exclusive=False)
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        await trio.sleep(30)
        assert done == []
        # While it waits it keeps what it has.
        with fails(errno.EAGAIN):
            await other.lock(theirs, A, 0, 10)
        await other.unlock(theirs, A)
        await trio.sleep(2)
        assert done == ["done"]
    with fails(errno.EAGAIN):
        await other.lock(theirs, A, 3, 4, exclusive=False)


@in_trio
async def test_a_lock_that_is_lost_on_the_way_up_is_told() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 1, exclusive=False)
    locks = w.share.locks_of(w.share.find("f"))
    take, handle = locks.take, other.state.files.get(theirs).handle

    def somebody_comes_in_between(who: object, step: Any) -> bool:
        done = take(who, step)
        if step.unlocks and who is not handle:
            locks.held.append((handle, Piece(0, 1, True)))
        return done

    locks.take = somebody_comes_in_between  # type: ignore[method-assign]
    with fails(errno.ENOLCK):
        await w.lock(fh, A, 0, 1)
    locks.take = take  # type: ignore[method-assign]
    assert len(w.state.locks) == 0
    assert w.pieces() == [Piece(0, 1, True)]


@in_trio
async def test_flock_and_fcntl_know_nothing_of_each_other_here() -> None:
    w = Locking()
    other = Foreign(w).world
    one, two = await w.open("f", os.O_RDONLY), await w.open("f", os.O_RDWR)
    theirs = await other.open("f", os.O_RDWR)
    await w.lock(one, FA, 0, END)
    await w.lock(two, A, 0, 10)
    with fails(errno.EAGAIN):
        await w.lock(two, FB, 0, END, exclusive=False)
    with fails(errno.EAGAIN):
        await other.lock(theirs, A, 50, 60)
    await w.unlock(one, FA)
    # The exclusive piece of the whole file stays until the part of it that is wanted goes too.
    with fails(errno.EAGAIN):
        await other.lock(theirs, A, 50, 60)
    await w.unlock(two, A)
    await other.lock(theirs, A, 50, 60)


@in_trio
async def test_two_who_turn_a_shared_flock_into_an_exclusive_one_do_not_wait_for_ever() -> None:
    w = Locking()
    one, two = await w.open("f"), await w.open("f")
    await w.lock(one, FA, 0, END, exclusive=False)
    await w.lock(two, FB, 0, END, exclusive=False)
    async with trio.open_nursery() as nursery:
        first = await runs(nursery, w.lock, one, FA, 0, END, wait=True)
        second = await runs(nursery, w.lock, two, FB, 0, END, wait=True)
        assert first == ["done"]
        await w.unlock(one, FA)
        await trio.testing.wait_all_tasks_blocked()
        assert second == ["done"]


@in_trio
async def test_all_reads_and_writes_go_through_the_handle_with_the_locks() -> None:
    w = Locking()
    reads, writes = await w.open("f", os.O_RDONLY), await w.open("f", os.O_WRONLY)
    await w.lock(reads, A, 0, 10, exclusive=False)
    await w.lock(writes, B, 20, 30)
    carrier = w.state.locks.by_inode[await w.number("f")].carrier
    assert carrier not in (w.state.files.get(reads).handle, w.state.files.get(writes).handle)
    await w.write(writes, 20, b"written")
    assert (await w.read(reads, 0, 100))[20:27] == b"written"
    with fails(errno.EACCES):
        await w.write(writes, 0, b"x")  # locked shared: nobody writes
    # Whoever opens the file later goes the same way.
    late = await w.open("f", os.O_RDWR)
    await w.write(late, 22, b"WR")
    assert (await w.read(late, 20, 7)) == b"wrWRten"
    for fh in (reads, writes, late):
        await w.release(fh)
    w.nothing_left()


@in_trio
async def test_where_reading_and_writing_cannot_be_had_together() -> None:
    w = Locking()
    reads = await w.open("f", os.O_RDONLY)
    w.share.fail("open", Status.ACCESS_DENIED)
    await w.lock(reads, FA, 0, END)
    assert w.state.locks.by_inode[await w.number("f")].carrier is w.state.files.get(reads).handle
    assert len(await w.read(reads, 0, 100)) == 100
    await w.release(reads)
    w.nothing_left()


@in_trio
async def test_the_handle_stays_as_long_as_it_has_locks() -> None:
    w = Locking()
    first = await w.open("f", os.O_RDWR)
    second = await w.open("f", os.O_RDWR)
    await w.lock(first, A, 0, 10)  # carried by the first's handle
    await w.lock(second, B, 20, 30)
    await w.flush(first, A)
    await w.release(first)
    assert w.pieces() == [Piece(20, 30, True)]
    await w.write(second, 20, b"x")
    await w.lock(second, B, 40, 50)
    await w.release(second)
    w.nothing_left()


@in_trio
async def test_the_handle_goes_when_it_has_none() -> None:
    w = Locking()
    first, second = await w.open("f", os.O_RDWR), await w.open("f", os.O_RDWR)
    await w.lock(first, A, 0, 10)
    await w.release(first)
    assert w.pieces() == []
    assert len(w.share.opens) == 1
    await w.write(second, 0, b"x")
    await w.lock(second, A, 0, 10)
    await w.release(second)
    w.nothing_left()


@in_trio
async def test_what_close_gives_up() -> None:
    """FLUSH names the process, whichever descriptor it closes; the last close of an open file ends what is its own."""
    w = Locking()
    one, two = await w.open("f", os.O_RDWR), await w.open("f", os.O_RDWR)
    of_the_file = Owner(False, 0xF11E)
    await w.lock(one, A, 0, 10)
    await w.lock(one, of_the_file, 20, 30)
    await w.flush(two, A)
    assert w.pieces() == [Piece(20, 30, True)]
    # Released late, after the process has locked anew through another descriptor: only the first one's go.
    await w.flush(one, A)
    await w.lock(two, A, 40, 50)
    await w.release(one)
    assert w.pieces() == [Piece(40, 50, True)]
    await w.release(two)
    w.nothing_left()


@in_trio
async def test_what_is_lost_with_the_connection(expect_log: Callable[[str], None]) -> None:
    expect_log("ConnectionLost")
    w = Locking()
    old = await w.open("f", os.O_RDWR)
    await w.lock(old, A, 0, 10)
    w.share.lose_connection()
    for call in (w.lock(old, A, 20, 30), w.unlock(old, A), w.write(old, 0, b"x"), w.test(old, A, 0, 1)):
        with fails(errno.EIO):
            await call
    new = await w.open("f", os.O_RDWR)
    await w.lock(new, B, 0, 10)  # the old lock is in nobody's way
    with fails(errno.EIO):
        await w.lock(old, A, 20, 30)
    with fails(errno.EIO):
        await w.write(old, 50, b"x")
    await w.write(new, 0, b"x")
    await w.flush(old, A)
    await w.release(old)
    assert w.pieces() == [Piece(0, 10, True)]
    await w.release(new)
    assert len(w.state.locks) == 0
    assert w.state.locks.by_inode == {}


@in_trio
async def test_a_handle_that_should_not_carry_locks_any_more_does_so_until_it_has_none() -> None:
    """As its lease was broken by another client, who may be in the way from now on."""
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    handle = w.state.files.get(fh).handle
    await w.lock(fh, A, 0, 10)
    (locks,) = w.state.locks.by_inode.values()
    assert (locks.carrier, locks.ours) == (handle, False)
    w.share.keeping = False
    await w.lock(fh, B, 10, 20)
    assert locks.carrier is handle
    await w.unlock(fh, A)
    await w.unlock(fh, B)
    assert await w.test(fh, A, 0, 10) is None
    assert locks.ours
    assert handle.ledger is None
    await w.lock(fh, A, 0, 10)
    assert w.share.locks_of(w.share.find("f")).held == [(locks.carrier, Piece(0, 10, True))]
    await w.write(fh, 0, b"written")
    await w.release(fh)
    w.nothing_left()


@in_trio
async def test_a_lock_is_asked_for_by_another_handle_where_one_that_was_to_be_kept_is_not_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is Samba's habit: a durable open is lost if a break of its lease is under way. Nobody had locked by it."""
    w = Locking()
    w.share.keeping = False
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, B, 0, 10)
    wait_for_lock, lost = w.share.wait_for_lock, trio.Event()

    async def lose(handle: Open, piece: Piece) -> bool:
        monkeypatch.setattr(w.share, "wait_for_lock", wait_for_lock)
        await lost.wait()
        handle.durability, handle.generation = Durability.DURABLE_V2, 0
        raise ConnectionLost("gone")

    monkeypatch.setattr(w.share, "wait_for_lock", lose)
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        lost.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not done
        await other.unlock(theirs, B)
    assert done == ["done"]
    assert w.pieces() == [Piece(0, 10, True)]
    await w.release(fh)


@pytest.mark.parametrize("wait", [False, True])
@in_trio
async def test_a_lock_whose_request_is_lost_is_asked_for_by_another_handle(wait: bool) -> None:
    """What the one was granted has ended with it, and nobody had locked anything by it."""
    w = Locking()
    w.share.keeping = False
    fh = await w.open("f", os.O_RDWR)
    if wait:
        other = Foreign(w).world
        theirs = await other.open("f", os.O_RDWR)
        await other.lock(theirs, B, 0, 10)
        w.share.fail("wait_for_lock", ConnectionLost("gone"))
    else:
        w.share.fail("lock", ConnectionLost("gone"), ConnectionLost("gone"))
    opened = w.share.calls.count("open")
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=wait)
        if wait:
            assert not done
            await other.unlock(theirs, B)
    assert done == ["done"]
    assert w.share.calls.count("open") == opened + (2 if wait else 3)
    assert w.pieces() == [Piece(0, 10, True)]
    await w.release(fh)


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("ends", ["in time", "by a signal"])
@in_trio
async def test_who_gives_up_while_there_is_no_session_has_locked_nothing(
    granted: bool, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He asks anew, or is told that somebody else has the lock; what the server may have granted goes."""
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await w.lock(fh, A, 20, 30)
    await w.unlock(fh, A)
    (locks,) = w.state.locks.by_inode.values()
    assert locks.carrier is not None
    locks.carrier.durability = Durability.PERSISTENT
    await other.lock(theirs, B, 0, 10)
    with fails(errno.EAGAIN):
        await w.lock(fh, A, 0, 10)  # who has been refused and comes back waits a little

    async def wait_for_lock(handle: Open, piece: Piece) -> bool:
        if granted:
            await other.unlock(theirs, B)
            assert w.share.locks_of(w.share.find("f")).take(handle, Step([piece]))
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ConnectionLost("the caller gave up before the connection came back") from None

    with monkeypatch.context() as patched:
        patched.setattr(w.share, "wait_for_lock", wait_for_lock)
        if ends == "in time" and granted:
            await w.lock(fh, A, 0, 10)
            await w.unlock(fh, A)
        elif ends == "in time":
            with fails(errno.EAGAIN):
                await w.lock(fh, A, 0, 10)
        else:
            with trio.move_on_after(0.01):
                await w.lock(fh, A, 0, 10)
            await w.lock(fh, C, 40, 41)
            await w.unlock(fh, C)
    assert all(handle is not locks.carrier for handle, _ in w.share.locks_of(w.share.find("f")).held)
    if granted:
        await other.lock(theirs, B, 0, 10)
    await other.unlock(theirs, B)
    await w.lock(fh, A, 0, 10)
    assert w.pieces() == [Piece(0, 10, True)]
    await w.release(fh)
    await other.release(theirs)
    w.nothing_left()


@pytest.mark.parametrize("back", [False, True])
@in_trio
async def test_a_lock_whose_request_is_lost_with_a_descriptors_handle_is_asked_for_when_that_is_there_again(
    back: bool, expect_log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been opened anew as the same file, and nobody had locked anything by it; or else it is lost."""
    if not back:
        expect_log("ConnectionLost")
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, B, 0, 10)
    wait_for_lock, lost = w.share.wait_for_lock, trio.Event()

    async def lose(handle: Open, piece: Piece) -> bool:
        monkeypatch.setattr(w.share, "wait_for_lock", wait_for_lock)
        await lost.wait()
        if not back:
            handle.generation = 0  # the server does not give it back, and it was changed meanwhile
        raise ConnectionLost("gone")

    monkeypatch.setattr(w.share, "wait_for_lock", lose)
    opened = w.share.calls.count("open")
    async with trio.open_nursery() as nursery:
        if not back:
            lost.set()
            with fails(errno.EIO):
                await w.lock(fh, A, 0, 10, wait=True)
            return
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        lost.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not done
        await other.unlock(theirs, B)
    assert done == ["done"]
    assert w.share.calls.count("open") == opened
    assert w.pieces() == [Piece(0, 10, True)]
    await w.release(fh)


@pytest.mark.parametrize("why", ["held", "no connection", "kept", "kept, and a descriptor's"])
@in_trio
async def test_it_is_an_error_where_something_may_be_lost_by_it(why: str, expect_log: Callable[[str], None]) -> None:
    expect_log("ConnectionLost")
    w = Locking()
    w.share.keeping = why.endswith("descriptor's")
    fh = await w.open("f", os.O_RDWR)
    if why == "held":
        await w.lock(fh, B, 10, 20)
    if why.startswith("kept"):
        await w.lock(fh, B, 10, 20)
        await w.unlock(fh, B)
        (locks,) = w.state.locks.by_inode.values()
        assert locks.carrier is not None
        locks.carrier.durability = Durability.PERSISTENT
    w.share.fail("lock", ConnectionLost("gone", sent=why != "no connection"))
    with fails(errno.EIO):
        await w.lock(fh, A, 0, 10)


@in_trio
async def test_locks_lost_with_a_handle_of_their_own_are_missed_by_those_who_held_them(
    expect_log: Callable[[str], None],
) -> None:
    """Their descriptors' own handles have outlived the connection, the one that had the locks has not."""
    expect_log("ConnectionLost")
    w = Locking()
    holder, bystander = await w.open("f", os.O_RDONLY), await w.open("f", os.O_RDONLY)
    await w.lock(holder, A, 0, 10, exclusive=False)
    (locks,) = w.state.locks.by_inode.values()
    assert locks.carrier is not None
    assert locks.ours
    carrier = locks.carrier
    carrier.generation = 0
    await w.read(bystander, 0, 1)
    assert carrier.closed  # nobody else would do it
    for call in (w.read(holder, 0, 1), w.lock(holder, A, 20, 30, exclusive=False), w.unlock(holder, A)):
        with fails(errno.EIO):
            await call
    await w.lock(bystander, B, 0, 10, exclusive=False)
    await w.flush(holder, A)
    await w.release(holder)
    again = await w.open("f", os.O_RDONLY)
    await w.lock(again, A, 0, 10, exclusive=False)
    await w.read(again, 0, 1)
    await w.release(again)
    await w.release(bystander)
    assert w.state.locks.by_inode == {}


@pytest.mark.parametrize("holder", [A, FA])
@in_trio
async def test_who_closes_a_file_is_told_of_locks_that_are_lost(
    holder: Owner, expect_log: Callable[[str], None]
) -> None:
    """What he has done under them, to other files too, may have been done beside others; nothing else may tell him."""
    expect_log("flush: ConnectionLost")
    w = Locking()
    fh, other = await w.open("f", os.O_RDWR), await w.open("f", os.O_RDWR)
    await w.lock(fh, holder, 0, 10)
    w.share.lose_connection()
    await w.flush(other, B)
    if holder is A:
        await w.flush(fh, B)  # another process, which has inherited the descriptor
    with fails(errno.EIO):
        await w.flush(fh, A)
    if holder is A:
        await w.flush(fh, A)
        await w.flush(other, A)
    await w.release(fh)
    await w.release(other)
    w.nothing_left()


@pytest.mark.parametrize("write", [False, True])
@in_trio
async def test_who_was_told_by_a_call_that_was_under_way_is_not_told_again(
    write: bool, expect_log: Callable[[str], None]
) -> None:
    expect_log("ConnectionLost")
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    gate = w.share.hang("write" if write else "read")
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.write, fh, 0, b"x") if write else await runs(nursery, w.read, fh, 0, 1)
        w.share.lose_connection()
        gate.set()
    assert done == ["EIO"]
    await w.flush(fh, A)
    await w.release(fh)
    w.nothing_left()


@in_trio
async def test_who_has_locked_by_another_descriptor_since_is_told_too(expect_log: Callable[[str], None]) -> None:
    expect_log("flush: ConnectionLost")
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    w.share.lose_connection()
    again = await w.open("f", os.O_RDWR)
    await w.lock(again, A, 20, 30)
    with fails(errno.EIO):
        await w.flush(fh, A)
    assert w.pieces() == []  # a close gives up all that its process has locked
    await w.release(fh)
    await w.flush(again, A)
    await w.release(again)
    w.nothing_left()


@in_trio
async def test_a_wait_ends_with_the_connection(expect_log: Callable[[str], None]) -> None:
    expect_log("setlkw: ConnectionLost")
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        w.share.lose_connection()
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["EIO"]


@in_trio
async def test_a_server_without_room_for_those_who_wait_is_asked_again() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)
    w.share.fail("wait_for_lock", *[StatusError(Status.INSUFFICIENT_RESOURCES, "LOCK")] * 1000)
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 10, wait=True)
        await trio.sleep(20)
        await other.unlock(theirs, A)
        await trio.sleep(2)
        assert done == ["done"]


@in_trio
async def test_the_pages_are_dropped_before_a_lock_is_told_and_not_for_what_the_server_was_not_asked() -> None:
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    await w.lock(fh, A, 0, 10)
    assert len(w.dropped) == 1
    await w.lock(fh, A, 2, 5)
    await w.lock(fh, A, 2, 5, exclusive=False)
    await w.unlock(fh, A, 0, 3)
    assert len(w.dropped) == 1
    await w.lock(fh, A, 50, 60)
    assert len(w.dropped) == 2


@in_trio
async def test_what_an_open_has_brought_along_is_not_shown_after_a_lock() -> None:
    w = Locking()
    fh = await w.open("f", os.O_RDONLY)
    w.share.find("f").data[:] = b"y" * 100
    await w.lock(fh, A, 0, 10, exclusive=False)
    assert await w.read(fh, 0, 5) == b"yyyyy"


@in_trio
async def test_a_read_under_way_while_the_handle_changes() -> None:
    w = Locking()
    one, two = await w.open("f", os.O_RDWR), await w.open("f", os.O_RDWR)
    await w.lock(one, A, 0, 10)
    gate = w.share.hang("read")
    async with trio.open_nursery() as nursery:
        done: list[bytes] = []

        async def read() -> None:
            done.append(await w.read(two, 0, 5))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await w.release(one)
        gate.set()
    assert done == [bytes(5)]


@in_trio
async def test_no_room_in_the_lock_table_of_the_server() -> None:
    w = Locking()
    fh = await w.open("f", os.O_RDWR)
    w.share.fail("lock", StatusError(Status.INSUFFICIENT_RESOURCES, "LOCK"))
    with fails(errno.EREMOTEIO):
        await w.lock(fh, A, 0, 10)
    assert len(w.state.locks) == 0
    await w.lock(fh, A, 0, 10)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))])
def test_any_sequence_with_many_waiting(seed: int) -> None:
    """Processes of two clients lock, wait, give up and close at random; in the end nothing is left, and all got on."""
    chance = random.Random(seed)

    @in_trio
    async def run() -> None:
        w = Locking()
        other = Foreign(w).world
        got = 0
        refusals: set[int | None] = set()

        async def process(world: Locking, number: int) -> None:
            nonlocal got
            who = Owner(False, number)
            for _ in range(15):
                fh = await world.open("f", os.O_RDWR)
                for _ in range(chance.randint(1, 4)):
                    start = chance.randrange(12)
                    end = start + chance.randint(1, 4)
                    with trio.move_on_after(chance.choice([0.5, 3, 30])):
                        try:
                            await world.lock(
                                fh, who, start, end, exclusive=chance.random() < 0.5, wait=chance.random() < 0.7
                            )
                            got += 1
                        except OSError as error:
                            refusals.add(error.errno)
                    await trio.sleep(chance.random())
                    if chance.random() < 0.5:
                        await world.unlock(fh, who, start, end)
                await world.flush(fh, who)
                await world.release(fh)

        async with trio.open_nursery() as nursery:
            for world in (w, other):
                for number in range(4):
                    nursery.start_soon(process, world, number + 1)
        assert got > 100
        assert refusals <= {errno.EAGAIN, errno.EDEADLK, errno.ENOLCK}
        w.nothing_left()
        other.nothing_left()

    run()


@in_trio
async def test_where_locks_go_by_posix_they_are_changed_in_place_and_keep_nobody_from_writing() -> None:
    w = Locking()
    w.vfs.state.use_names(NameMapping.POSIX)
    w.share.locks[w.share.find("f")] = PosixLocks()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    other.vfs.state.use_names(NameMapping.POSIX)
    await w.lock(fh, A, 0, 100, exclusive=False)
    await w.lock(fh, A, 0, 100)
    await w.unlock(fh, A, 40, 60)
    assert w.pieces() == [Piece(0, 40, True), Piece(60, 100, True)]
    await other.lock(theirs, A, 40, 60)
    await w.lock(fh, A, 0, 10, exclusive=False)
    assert w.pieces() == [Piece(0, 10, False), Piece(10, 40, True), Piece(40, 60, True), Piece(60, 100, True)]
    await w.write(fh, 45, b"x")
    assert await w.test(fh, A, 0, 100) == Lock(0, 0, 100, exclusive=True)
    assert w.pieces()[0] == Piece(0, 10, False)  # asking has changed nothing
    with fails(errno.EAGAIN):
        await w.lock(fh, A, 0, 100)
    assert w.pieces()[0] == Piece(0, 10, False)
    await w.release(fh)
    await other.release(theirs)
    w.nothing_left()


@in_trio
async def test_who_is_back_after_a_refusal_gets_a_little_while() -> None:
    w = Locking()
    other = Foreign(w).world
    fh, theirs = await w.open("f", os.O_RDWR), await other.open("f", os.O_RDWR)
    await other.lock(theirs, A, 0, 10)

    async def refused(who: Owner, start: int, end: int) -> float:
        began = trio.current_time()
        with fails(errno.EAGAIN):
            await w.lock(fh, who, start, end)
        return trio.current_time() - began

    assert await refused(A, 0, 5) == 0
    assert await refused(B, 0, 5) == 0
    assert await refused(A, 0, 5) == BRIEFLY
    assert w.share.waiting == []
    assert w.pieces() == [Piece(0, 10, True)]
    async with trio.open_nursery() as nursery:
        done = await runs(nursery, w.lock, fh, A, 0, 5)
        assert done == []
        await other.unlock(theirs, A)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["done"]
    # The same among the processes of one mount.
    assert await refused(B, 0, 5) == BRIEFLY
    await trio.sleep(RECENTLY)
    assert await refused(B, 0, 5) == 0
    # Who holds something of the file is refused at once: somebody may wait for him.
    await w.lock(fh, B, 50, 60)
    assert await refused(B, 0, 5) == 0
    await w.release(fh)
    await other.release(theirs)
    w.nothing_left()


@in_trio
async def test_who_gets_a_lock_sees_the_names_beside_the_file() -> None:
    w = Locking(acregmax=60.0, acdirmax=60.0)
    for name in ("f-journal", "g"):
        w.share.put(name)
    w.share.put("folder", None)
    assert (await w.look("f-journal")).entry_timeout == 60.0
    await w.look("folder")
    fh, root = await w.open("f", os.O_RDWR), await w.number("")
    directory = await settle(w.vfs.opendir(root))
    await w.lock(fh, A, 0, 10)
    assert sorted(w.asked_anew) == [(root, b"f"), (root, b"f-journal")]
    # What was listed before is told, and not kept.
    assert [entry.entry_timeout for name, _, entry in await w.rest(directory) if name[0] != "."] == [0.0] * 4
    await settle(w.vfs.releasedir(directory))
    await w.look("g")
    await w.unlock(fh, A)
    await w.lock(fh, A, 0, 10)
    assert w.asked_anew == [(root, b"g")]
    # Nor is what was asked for before a lock was granted.
    await w.unlock(fh, A)
    gate = w.share.gates["lookup"] = trio.Event()
    entries: list[float] = []

    async def look() -> None:
        entries.append((await w.look("g")).entry_timeout)

    async with trio.open_nursery() as nursery:
        await runs(nursery, look)
        await w.lock(fh, A, 0, 10)
        gate.set()
    assert entries == [0.0]
    assert (await w.look("g")).entry_timeout == 60.0


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
@in_trio
async def test_a_lock_that_the_server_denies_to_have_goes_with_its_handle(
    flags: int, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    """As Samba 4.25 does now and then. The handle of a program is not ours to close."""
    expect_log("a lock cannot be given up")
    w = Locking()
    fh = await w.open("f", flags)
    await w.lock(fh, A, 0, 10)
    change = w.share.change_locks

    async def deny(handle: Open, steps: Sequence[Step]) -> list[int]:
        if any(step.unlocks for step in steps):
            return [int(Status.RANGE_NOT_LOCKED) for _ in steps]
        return await change(handle, steps)

    with monkeypatch.context() as patched:
        patched.setattr(w.share, "change_locks", deny)
        await w.unlock(fh, A)
    if flags == os.O_WRONLY:
        assert w.pieces() == []
        await w.lock(fh, B, 0, 10)
        assert w.pieces() == [Piece(0, 10, True)]
    await w.release(fh)
    assert w.pieces() == []


@in_trio
async def test_of_a_file_with_several_names_each_is_seen_anew() -> None:
    """Others have renamed it, or it is linked: the kernel may believe in all of its names."""
    w = Locking(acregmax=60.0, acdirmax=60.0)
    w.share.put("folder", None)
    w.share.put("g", b"content")
    for name in ("h", "folder/i"):
        await w.share.link("g", name.replace("/", "\\"), None)
        await w.look(name)
    await w.look("g")
    fh, root = await w.open("f", os.O_RDWR), await w.number("")
    linked = w.state.inodes.get(await w.number("g"))
    await w.lock(fh, A, 0, 10)
    assert sorted(w.asked_anew) == [(root, b"f"), (root, b"g"), (root, b"h")]
    assert linked.shown  # by its name in the folder still, of which nobody has been told


@in_trio
async def test_where_the_kernel_takes_long_to_forget_names_it_is_given_none_to_keep_for_a_while() -> None:
    w = Locking(acregmax=60.0, acdirmax=60.0)
    w.share.put("g")
    w.share.put("folder", None)
    fh, root = await w.open("f", os.O_RDWR), await w.number("")
    w.share.put("folder\\h")

    async def timeouts() -> list[float]:
        """What is told of a file here, one elsewhere and a directory, of one that is made here, and in a listing."""
        told = [(await w.look(name)).entry_timeout for name in ("g", "folder/h", "folder")]
        directory = await settle(w.vfs.opendir(root))
        listed = {name: entry.entry_timeout for name, _, entry in await w.rest(directory)}
        await settle(w.vfs.releasedir(directory))
        return [*told, listed["g"]]

    assert await timeouts() == [60.0] * 4
    w.slowness = 2.0
    await w.lock(fh, A, 0, 10)
    assert w.asked_anew
    assert await timeouts() == [0.0, 60.0, 60.0, 0.0]
    await w.unlock(fh, A)
    w.slowness = 0.0
    await w.lock(fh, A, 0, 10)
    assert w.asked_anew == []
    await trio.sleep(61)
    assert await timeouts() == [60.0] * 4
    await w.unlock(fh, A)
    await w.lock(fh, A, 0, 10)
    assert (root, b"g") in w.asked_anew


@in_trio
async def test_no_lookup_is_answered_from_what_was_listed_before_a_lock() -> None:
    w = Locking()
    for number in range(40):
        w.share.put(f"{number}")
    for number in range(40):
        await w.look(f"{number}")
    assert w.share.count("list_directory") == 1
    fh = await w.open("f", os.O_RDWR)
    asked = w.share.count("lookup")
    await w.look("39")
    assert w.share.count("lookup") == asked
    await w.lock(fh, A, 0, 10)
    w.share.remove("39")
    with fails(errno.ENOENT):
        await w.look("39")
