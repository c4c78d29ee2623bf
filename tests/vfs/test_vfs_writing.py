"""Writes that are gathered, as the verbs see them: what sends them first, and who is told of a failure."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.cache.writes import AGE, Cause
from smb3fs.errors import Status
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.lease import RWH, Lease
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.files import Owner
from smb3fs.vfs.wall import settle

KEY = bytes(range(16))


@asynccontextmanager
async def gathering(**options: int) -> AsyncIterator[World]:
    """A world that sends what is gathered."""
    world = World(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.state.writes.run)
        nursery.start_soon(world.state.pages.run)
        await trio.testing.wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


async def writer(world: World, name: str = "f", flags: int = os.O_RDWR) -> int:
    """Open a file, making it if need be, with a write lease."""
    if name in world.share.root.children:
        fh = await world.open(name, flags)
    else:
        fh, _ = await world.create(name, flags)
    world.state.files.get(fh).handle.lease = Lease(KEY, name, state=RWH, numbered=True)
    return fh


def content(world: World, name: str = "f") -> bytes:
    """What the server has."""
    return bytes(world.share.root.children[name].data)


@in_trio
async def test_a_write_is_answered_before_it_is_sent_and_sent_when_it_is_old() -> None:
    async with gathering() as world:
        fh = await writer(world)
        for number in range(4):
            assert world.vfs.write(fh, number * 2, b"%d!" % number) == 2
        assert content(world) == b""
        await trio.sleep(2 * AGE)
        assert content(world) == b"0!1!2!3!"
        assert world.state.writes.runs == {Cause.AGE: 1}
        await settle(world.vfs.release(fh))


@pytest.mark.parametrize("name", ["f", "other"])
@in_trio
async def test_a_lookup_that_is_answered_before_what_was_written_arrives_tells_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has asked after the write, so it would believe that the file ends where it did before."""
    async with gathering() as world:
        fh = await writer(world)
        inode = world.state.files.get(fh).inode
        world.share.root.children["other"] = world.share.root.children["f"]
        answer = world.share.lookup

        async def lookup(path: str) -> FileAttributes:
            told = await answer(path)
            await world.state.writes.settle(inode, Cause.AGE)
            return told

        monkeypatch.setattr(world.share, "lookup", lookup)
        assert world.vfs.write(fh, 0, b"content") == len(b"content")
        assert (await world.look(name)).attr.size == len(b"content")
        calls = len(world.share.calls)
        assert (await world.look(name)).attr.size == len(b"content")
        assert world.share.calls[calls:] == ["lookup"]
        await settle(world.vfs.release(fh))


async def _read(world: World, fh: int) -> None:
    assert await world.read(fh, 0, 2) == b"xg"


async def _stat(world: World, fh: int) -> None:
    assert (await world.stat(await world.number("f"))).attr.size == 9


async def _look(world: World, fh: int) -> None:
    assert (await world.look("f")).attr.size == 9


async def _list(world: World, fh: int) -> None:
    directory = await settle(world.vfs.opendir(ROOT))
    sizes = {name: entry.attr.size for name, _, entry in await world.rest(directory)}
    assert sizes["f"] == 9


async def _truncate(world: World, fh: int) -> None:
    await settle(world.vfs.setattr(await world.number("f"), SetAttr(size=1)))


async def _touch(world: World, fh: int) -> None:
    told = await settle(world.vfs.setattr(await world.number("f"), SetAttr(mtime_ns=10**18)))
    assert told.attr.mtime_ns == 10**18


async def _open(world: World, fh: int) -> None:
    other = await world.open("f")
    assert await world.read(other) == b"xgathered"[:9]


async def _rename(world: World, fh: int) -> None:
    await world.rename("f", "g")
    await world.rename("g", "f")


async def _rename_directory(world: World, fh: int) -> None:
    await settle(world.vfs.mkdir(ROOT, b"d", 0o755))
    await world.rename("d", "e")


async def _link(world: World, fh: int) -> None:
    assert (await settle(world.vfs.link(await world.number("f"), ROOT, b"l"))).attr.size == 9


async def _fsync(world: World, fh: int) -> None:
    await settle(world.vfs.fsync(fh, False))


async def _close(world: World, fh: int) -> None:
    await settle(world.vfs.flush(fh, 7))


async def _lock(world: World, fh: int) -> None:
    await settle(world.vfs.setlk(fh, Owner(False, 7), 0, 1, exclusive=True, pid=1))
    assert isinstance(await settle(world.vfs.write(fh, 0, b"x")), int)
    assert world.state.writes.taken == 1  # no more while there are locks


async def _seek(world: World, fh: int) -> None:
    await settle(world.vfs.lseek(fh, 0, os.SEEK_DATA))


async def _write_past_it(world: World, fh: int) -> None:
    other = await world.open("f", os.O_RDWR | os.O_SYNC)
    await world.write(other, 0, b"x")


@pytest.mark.parametrize(
    "act",
    [
        *(_read, _stat, _look, _list, _truncate, _touch, _open, _rename, _rename_directory, _link, _fsync, _close),
        *(_lock, _seek, _write_past_it),
    ],
)
@in_trio
async def test_what_needs_it_has_it_sent_first(act: Callable[[World, int], Awaitable[None]]) -> None:
    async with gathering() as world:
        fh = await writer(world)
        assert world.vfs.write(fh, 0, b"xgathered") == 9
        assert content(world) == b""
        await act(world, fh)
        assert content(world) == b"xgathered"[: 1 if act is _truncate else 9]
        assert world.state.writes.dirty == 0


@pytest.mark.parametrize("flags", [os.O_SYNC, os.O_DSYNC, os.O_APPEND, os.O_DIRECT])
@in_trio
async def test_who_asks_for_it_writes_at_once(flags: int) -> None:
    async with gathering() as world:
        fh = await writer(world, "f", os.O_RDWR | flags)
        await world.write(fh, 0, b"now")
        assert content(world) == b"now"
        assert world.state.writes.taken == 0


@pytest.mark.parametrize(
    "options", [{"cache": "none"}, {"wcache": 0}, {"kernel_flags": ("sync",)}], ids=["cache", "wcache", "sync"]
)
@in_trio
async def test_nothing_is_gathered_where_it_must_not_be(options: dict[str, int]) -> None:
    async with gathering(**options) as world:
        fh = await writer(world)
        await world.write(fh, 0, b"now")
        assert content(world) == b"now"


@in_trio
async def test_times_go_along_with_what_was_written() -> None:
    async with gathering() as world:
        fh = await writer(world)
        number = world.state.files.get(fh).inode.number
        world.vfs.write(fh, 0, b"gathered")
        del world.share.calls[:]
        told = await settle(world.vfs.setattr(number, SetAttr(mtime_ns=10**18), fh))
        assert (told.attr.mtime_ns, told.attr.size) == (10**18, 8)
        assert (content(world), world.state.writes.dirty) == (b"gathered", 0)
        assert world.share.calls == ["write"]


@pytest.mark.parametrize("refused", ["write", "times"])
@in_trio
async def test_times_that_did_not_go_along_are_set_alone(refused: str) -> None:
    async with gathering() as world:
        fh = await writer(world)
        number = world.state.files.get(fh).inode.number
        world.vfs.write(fh, 0, b"gathered")
        if refused == "write":
            world.share.fail("write", Status.DISK_FULL)
        world.share.times_refused = refused == "times"
        told = await settle(world.vfs.setattr(number, SetAttr(mtime_ns=10**18), fh))
        assert told.attr.mtime_ns == 10**18
        assert "set_basic_open" in world.share.calls
        assert content(world) == (b"gathered" if refused == "times" else b"")
        if refused == "write":
            with fails(errno.ENOSPC):
                await settle(world.vfs.flush(fh, 7))


@pytest.mark.parametrize("changes", [SetAttr(mtime_ns=10**18, size=3), SetAttr(mtime_ns=10**18, mode=0o555)])
@in_trio
async def test_times_are_set_behind_other_changes(changes: SetAttr) -> None:
    async with gathering() as world:
        fh = await writer(world)
        number = world.state.files.get(fh).inode.number
        world.vfs.write(fh, 0, b"gathered")
        told = await settle(world.vfs.setattr(number, changes, fh))
        assert told.attr.mtime_ns == 10**18
        assert content(world) == (b"gat" if changes.size else b"gathered")
        assert "set_basic_open" in world.share.calls


@in_trio
async def test_times_are_set_when_all_that_is_on_its_way_has_arrived() -> None:
    async with gathering() as world:
        fh = await writer(world)
        number = world.state.files.get(fh).inode.number
        world.vfs.write(fh, 100, b"elsewhere")
        world.vfs.write(fh, 0, b"gathered")  # which sends the other, to arrive whenever it does
        told = await settle(world.vfs.setattr(number, SetAttr(mtime_ns=10**18), fh))
        assert told.attr.mtime_ns == 10**18
        assert world.share.calls[-1] == "set_basic_open"


@in_trio
async def test_a_failure_is_told_to_each_open_file_once() -> None:
    async with gathering() as world:
        first = await writer(world)
        second, third = await writer(world), await world.open("f")
        world.share.fail("write", Status.DISK_FULL)
        assert world.vfs.write(first, 0, b"lost") == 4
        await trio.sleep(2 * AGE)
        with fails(errno.ENOSPC):
            await settle(world.vfs.fsync(first, False))
        await settle(world.vfs.fsync(first, False))
        await settle(world.vfs.flush(first, 7))
        with fails(errno.ENOSPC):
            await settle(world.vfs.flush(second, 7))
        await settle(world.vfs.flush(third, 7))  # it cannot have written
        late = await writer(world)
        await settle(world.vfs.fsync(late, False))
        await world.write(late, 0, b"at once")
        assert content(world) == b"at once"
        for fh in (first, second, third, late):
            await settle(world.vfs.release(fh))
        again = await writer(world)
        assert world.vfs.write(again, 0, b"gathered") == 8
        assert content(world) == b"at once"
        await settle(world.vfs.flush(again, 7))
        assert content(world) == b"gathered"


@in_trio
async def test_a_failure_outlives_the_close_of_another_open_file_and_not_the_last_one() -> None:
    async with gathering() as world:
        first, second = await writer(world), await writer(world)
        inode = world.state.files.get(first).inode
        world.share.fail("write", Status.DISK_FULL)
        assert world.vfs.write(first, 0, b"lost") == 4
        await trio.sleep(2 * AGE)
        await settle(world.vfs.release(first))
        with fails(errno.ENOSPC):
            await settle(world.vfs.fsync(second, False))
        assert world.state.writes.failures(inode) == 1
        await settle(world.vfs.release(second))
        assert world.state.writes.failures(inode) == 0


@in_trio
async def test_whoever_wrote_what_is_lost_is_not_shown_less_before_he_is_told() -> None:
    """The kernel takes the end of a file from attributes, and answers what lies behind it with nothing."""
    async with gathering(acregmax=60) as world:
        world.state.are_one = lambda thread, other: thread == other
        forgotten: list[int] = []

        async def forget(number: int, names: object) -> None:
            forgotten.append(number)

        world.vfs.attach(lambda parent, name: None, lambda process, name: False, forget)
        fh = await writer(world)
        number = await world.number("f")
        await settle(world.vfs.write(fh, 0, b"arrived", 11))
        await settle(world.vfs.fsync(fh, False))
        world.share.fail("write", Status.DISK_FULL)
        await settle(world.vfs.write(fh, 7, b", lost", 11))
        await trio.sleep(2 * AGE)
        for act in (
            lambda: world.vfs.getattr(number, fh),
            lambda: world.vfs.getattr(number, None, 11),
            lambda: world.vfs.read(fh, 0, 20),
            lambda: world.vfs.read(fh, 0, 20),
            lambda: world.vfs.lseek(fh, 0, os.SEEK_HOLE),
        ):
            with fails(errno.ENOSPC):
                await settle(act())
        forgotten.clear()
        await trio.sleep(60)
        assert forgotten == [number]
        late = await world.open("f")
        # It holds for others, who are told the truth, which the kernel may not take for the writer's.
        for told in (
            await settle(world.vfs.getattr(number, None, 22)),
            await settle(world.vfs.getattr(number, late)),
            await world.look("f"),
        ):
            assert (told.attr.size, told.attr_timeout) == (7, 0.0)
        assert await world.read(late) == b"arrived"
        with fails(errno.ENOSPC):
            await settle(world.vfs.fsync(fh, False))
        assert (await settle(world.vfs.getattr(number, fh))).attr.size == 7
        assert await world.read(fh) == b"arrived"
        for one in (fh, late):
            await settle(world.vfs.release(one))
        assert (await settle(world.vfs.getattr(number))).attr_timeout > 0


@in_trio
async def test_a_process_that_has_inherited_a_descriptor_does_not_wait() -> None:
    async with gathering() as world:
        world.state.are_one = lambda thread, other: thread == other
        fh = await writer(world)
        world.share.latency = 5.0
        assert world.vfs.write(fh, 0, b"slow", 11) == 4
        assert world.vfs.flush(fh, 7, 22) is None
        assert world.state.writes.runs == {Cause.CLOSE: 1}
        began = trio.current_time()
        await settle(world.vfs.flush(fh, 7, 11))
        assert trio.current_time() - began == 5.0
        assert content(world) == b"slow"


@in_trio
async def test_a_failure_is_not_used_up_by_somebody_who_may_be_another_process() -> None:
    """The thread that wrote has ended, so nobody knows whose it was; a child closes what it has and looks away."""
    async with gathering() as world:
        processes = {22: 2, 33: 1}
        world.state.are_one = lambda thread, other: (
            processes[thread] == processes[other] if {thread, other} <= processes.keys() else None
        )
        fh = await writer(world)
        world.share.fail("write", Status.DISK_FULL)
        assert world.vfs.write(fh, 0, b"lost", 11) == 4
        for thread in (22, 33):
            with fails(errno.ENOSPC):
                await settle(world.vfs.flush(fh, 7, thread))
        with fails(errno.ENOSPC):
            await settle(world.vfs.fsync(fh, False))
        await settle(world.vfs.flush(fh, 7, 33))
        await settle(world.vfs.release(fh))


@in_trio
async def test_a_file_is_closed_behind_what_was_written() -> None:
    async with gathering() as world:
        fh = await writer(world)
        handle = world.state.files.get(fh).handle
        world.share.latency = 5.0
        world.vfs.write(fh, 0, b"slow")
        released = world.vfs.release(fh)
        assert not handle.closed
        await settle(released)
        assert content(world) == b"slow"
        assert len(world.state.files) == 0
