"""Which directories are listed ahead, and that nothing is seen by it that is older than it may be, or left behind."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from fake_share import FakeListing, FakeShare
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.listing_ahead import ENOUGH, FIRST, MOST
from smb3fs.vfs.wall import settle


class Listed(FakeShare):
    """A share that remembers which directories were listed."""

    def __init__(self, *, page_entries: int) -> None:
        super().__init__(page_entries=page_entries)
        self.paths: list[str] = []

    async def list_directory(self, path: str, expect: int | None) -> FakeListing:
        self.paths.append(path)
        return await super().list_directory(path, expect)


class Tree(World):
    """A mount of a share with so many directories in its root, each with a file in it, which a program has listed."""

    share: Listed

    def __init__(self, count: int, *, page_entries: int = 100_000, **options: object) -> None:
        super().__init__(Listed(page_entries=page_entries), **options)
        self.names = [f"d{number:03}" for number in range(count)]
        for name in self.names:
            self.share.put(name, None)
            self.share.put(f"{name}\\file", b"x")

    @property
    def asked(self) -> int:
        """How many listings were asked of the server, without those of the root."""
        return sum(path != "" for path in self.share.paths)


@asynccontextmanager
async def tree(count: int, *, page_entries: int = 100_000, **options: object) -> AsyncIterator[Tree]:
    """One whose root has been listed, with what works behind the scenes; nothing may be left of it in the end."""
    world = Tree(count, page_entries=page_entries, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.vfs.list_ahead)
        await trio.testing.wait_all_tasks_blocked()
        await world.listing()
        yield world
        nursery.cancel_scope.cancel()
    assert {directory.inode.number for directory in world.state.directories} <= {ROOT}  # for lookups of names in it
    assert all(listing.closed or listing.complete for listing in world.share.listings)


async def walk(world: Tree, names: list[str]) -> None:
    """List directories one after the other, as a program does that takes its time."""
    for name in names:
        assert await world.listing(name) == ["file"]
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("step", [1, -1])
@in_trio
async def test_who_lists_some_in_a_row_finds_the_next_ones_listed(step: int) -> None:
    async with tree(40) as world:
        names = world.names[::step]
        await walk(world, names[: ENOUGH - 1])
        assert world.asked == ENOUGH - 1
        await walk(world, names[ENOUGH - 1 : ENOUGH])
        assert world.asked == ENOUGH + FIRST
        trips = world.trace.listings.missed
        await walk(world, names[ENOUGH:])
        assert world.asked == 40
        assert world.vfs.listings_ahead.used == 40 - ENOUGH
        assert world.trace.listings.missed == trips


@in_trio
async def test_few_at_first_and_never_too_many() -> None:
    async with tree(200) as world:
        for place in range(100):
            await walk(world, world.names[place : place + 1])
            assert world.asked <= place + 1 + MOST
        assert world.asked > 100 + FIRST


@in_trio
async def test_in_the_order_of_names_too() -> None:
    async with tree(20) as world:
        world.share.put("a-first-name-that-is-listed-last", None)
        world.share.put("a-first-name-that-is-listed-last\\file", b"x")
        world.names.insert(0, "a-first-name-that-is-listed-last")
        await world.listing()
        before = world.asked
        await walk(world, world.names[:ENOUGH])
        assert world.asked == before + ENOUGH + FIRST


@in_trio
async def test_who_jumps_about_has_nothing_listed() -> None:
    async with tree(40) as world:
        names = [world.names[place * 7 % 40] for place in range(20)]
        await walk(world, names)
        assert world.asked == 20


@in_trio
async def test_what_is_on_its_way_is_waited_for() -> None:
    async with tree(40) as world:
        await walk(world, world.names[: ENOUGH - 1])
        gate = world.share.hang("list_directory")
        async with trio.open_nursery() as nursery:
            for name in world.names[ENOUGH - 1 : ENOUGH + 1]:
                nursery.start_soon(walk, world, [name])
                await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert world.vfs.listings_ahead.used == 1
        assert len(world.share.paths) == len(set(world.share.paths))


@in_trio
async def test_a_rename_of_what_is_being_listed_ahead_and_is_gone_ends() -> None:
    """Each would wait for the other one: the listing for the renames under way, the rename for the listing."""
    async with tree(40) as world:
        await walk(world, world.names[: ENOUGH - 1])
        gate = world.share.hang("list_directory")
        name = world.names[ENOUGH]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk, world, [world.names[ENOUGH - 1]])
            await trio.testing.wait_all_tasks_blocked()
            world.share.move(name, "elsewhere")  # by another client
            nursery.start_soon(open_gate, gate)
            with fails(errno.ENOENT):
                await settle(world.vfs.rename(ROOT, name.encode(), ROOT, b"new", 0))


async def open_gate(gate: trio.Event) -> None:
    """Let go on what hangs, when everything else waits."""
    await trio.testing.wait_all_tasks_blocked()
    gate.set()


@in_trio
async def test_it_is_not_older_than_names_may_be() -> None:
    async with tree(40) as world:
        await walk(world, world.names[:ENOUGH])
        world.share.put(f"{world.names[ENOUGH]}\\more", b"by another client")
        await trio.sleep(1.5)
        assert await world.listing(world.names[ENOUGH]) == ["file", "more"]


@in_trio
async def test_what_we_have_changed_is_seen_at_once() -> None:
    async with tree(40) as world:
        await walk(world, world.names[:ENOUGH])
        name = world.names[ENOUGH]
        fh, _ = await world.create(f"{name}/more")
        await settle(world.vfs.release(fh))
        assert await world.listing(name) == ["file", "more"]
        await world.unlink(f"{world.names[ENOUGH + 1]}/file")
        assert await world.listing(world.names[ENOUGH + 1]) == []


@in_trio
async def test_a_listing_is_used_once() -> None:
    async with tree(40) as world:
        await walk(world, world.names[:ENOUGH])
        assert await world.listing(world.names[ENOUGH]) == ["file"]
        world.share.put(f"{world.names[ENOUGH]}\\more", b"by another client")
        assert await world.listing(world.names[ENOUGH]) == ["file", "more"]


@in_trio
async def test_who_begins_again_sees_what_there_is_now() -> None:
    async with tree(40) as world:
        await walk(world, world.names[:ENOUGH])
        name = world.names[ENOUGH]
        fh = await settle(world.vfs.opendir(await world.number(name)))
        assert [found for found, _, _ in await world.rest(fh)] == [".", "..", "file"]
        world.share.put(f"{name}\\more", b"by another client")
        assert [found for found, _, _ in await world.rest(fh)] == [".", "..", "file", "more"]
        await settle(world.vfs.releasedir(fh))


@in_trio
async def test_what_is_not_used_is_given_up() -> None:
    async with tree(40, page_entries=1) as world:
        for name in world.names:
            world.share.put(f"{name}\\more", b"")
        for name in world.names[:ENOUGH]:
            await world.listing(name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.state.directories) == FIRST
        assert [listing.closed for listing in world.share.listings[-FIRST:]] == [False] * FIRST
        await trio.sleep(2)
        assert not len(world.state.directories)
        assert all(listing.closed for listing in world.share.listings[-FIRST:])


@in_trio
async def test_a_listing_with_more_pages_goes_on_where_it_is() -> None:
    async with tree(40, page_entries=1) as world:
        for name in world.names:
            world.share.put(f"{name}\\more", b"")
        for name in world.names[:ENOUGH]:
            await world.listing(name)
        await trio.testing.wait_all_tasks_blocked()
        assert await world.listing(world.names[ENOUGH]) == ["file", "more"]
        assert world.vfs.listings_ahead.used == 1
        await trio.testing.wait_all_tasks_blocked()
        assert world.asked == ENOUGH + world.vfs.listings_ahead.asked


@in_trio
async def test_before_a_directory_is_renamed_or_removed_it_is_given_up() -> None:
    async with tree(40, page_entries=1) as world:
        for name in world.names:
            world.share.put(f"{name}\\more", b"")
        for name in world.names[: ENOUGH - 1]:
            await world.listing(name)
        gate = world.share.hang("list_directory")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.listing, world.names[ENOUGH - 1])
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(world.rename, world.names[ENOUGH], "elsewhere")
            await trio.testing.wait_all_tasks_blocked()
            assert "rename" not in world.share.calls
            gate.set()
        moved = next(listing for listing in world.share.listings if listing.closed and not listing.complete)
        assert moved.closed
        world.share.find(world.names[ENOUGH + 1]).children.clear()
        await settle(world.vfs.rmdir(ROOT, world.names[ENOUGH + 1].encode()))
        with fails(2):
            await world.look(world.names[ENOUGH + 1])


@in_trio
async def test_what_cannot_be_listed_ahead_is_found_out_in_earnest() -> None:
    async with tree(40) as world:
        await walk(world, world.names[: ENOUGH - 1])
        world.share.fail("list_directory", None, *[Status.ACCESS_DENIED] * FIRST)
        await walk(world, world.names[ENOUGH - 1 : ENOUGH])
        assert await world.listing(world.names[ENOUGH]) == ["file"]
        await trio.testing.wait_all_tasks_blocked()
        world.share.fail("list_directory", Status.ACCESS_DENIED)
        with fails(13):
            await world.listing(world.names[-1])


@pytest.mark.parametrize("options", [{"acregmax": 0.0}, {"acdirmax": 0.0}, {"cache": "none"}])
@in_trio
async def test_nothing_where_nothing_may_be_believed(options: dict[str, object]) -> None:
    async with tree(20, **options) as world:
        await walk(world, world.names)
        assert world.asked == 20


@in_trio
async def test_who_rests_begins_anew() -> None:
    async with tree(40) as world:
        await walk(world, world.names[: ENOUGH - 1])
        await trio.sleep(5)
        await walk(world, world.names[ENOUGH - 1 : ENOUGH])
        assert world.asked == ENOUGH


@in_trio
async def test_what_is_new_since_a_walk_does_not_stand_in_the_way_of_the_next() -> None:
    async with tree(40) as world:
        await walk(world, world.names[:ENOUGH])
        world.share.put("new", None)
        world.share.put("new\\file", b"x")
        await trio.sleep(5)
        await walk(world, ["new", *world.names[: ENOUGH - 1]])
        assert world.asked == ENOUGH + FIRST + ENOUGH
        await walk(world, world.names[ENOUGH - 1 : ENOUGH])
        assert world.asked == ENOUGH + FIRST + ENOUGH + 1 + FIRST
