"""Directories that we change: the kernel's question is sent behind the change, and answered with nothing old."""

from __future__ import annotations

import os

import trio
import trio.testing
from vfs_world import ROOT, World, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.attributes import Entry, SetAttr
from smb3fs.vfs.wall import settle


async def world_with(directory: str = "d", **options: object) -> tuple[World, int]:
    """A mount whose kernel asks for the attributes of a directory, in which a file has just been made."""
    world = World(**options)
    world.share.attributes_asked = []
    world.share.put(directory, None)
    number = await world.number(directory)
    await create(world, f"{directory}/first")
    return world, number


def touch(world: World) -> None:
    """The directory is another one than it was, as its times show."""
    node = world.share.find("d")
    node.modified = node.changed = world.share.tick()


async def create(world: World, path: str) -> None:
    """Make a file, as the kernel does when it knows the directory."""
    fh, _ = await world.create(path)
    await settle(world.vfs.release(fh))


async def tell(world: World, *, fails: bool = False) -> None:
    """Answer all that was asked ahead."""
    while world.share.attributes_asked:
        world.share.tell(fails=fails)
    await trio.lowlevel.checkpoint()


def asked(world: World) -> int:
    """How many questions somebody had to wait for."""
    return world.share.count("lookup") + world.share.count("attributes")


@in_trio
async def test_after_each_change_nothing_is_waited_for() -> None:
    world, number = await world_with()
    await tell(world)
    for name in ("a", "b"):
        before = asked(world)
        entry = await world.stat(number)
        assert asked(world) == before
        assert entry.attr.mtime_ns == world.share.find("d").told().modified
        assert 0 < entry.attr_timeout <= 2.0
        touch(world)
        fh, _ = await settle(world.vfs.create(number, os.fsencode(name), 0o644, os.O_RDWR))
        await settle(world.vfs.release(fh.fh))
        await tell(world)
    before = asked(world)
    await world.stat(number)
    await settle(world.vfs.unlink(number, b"a"))
    await tell(world)
    assert (await world.stat(number)).attr.mtime_ns == world.share.find("d").told().modified
    assert asked(world) == before


@in_trio
async def test_who_asks_before_it_has_come_waits_for_that() -> None:
    world, number = await world_with()
    before, seen = asked(world), []

    async def look() -> None:
        seen.append(await world.stat(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        assert not seen
        await tell(world)
    assert isinstance(seen[0], Entry)
    assert asked(world) == before


@in_trio
async def test_one_answer_is_for_one_question() -> None:
    world, number = await world_with()
    await tell(world)
    await world.stat(number)
    touch(world)
    before = asked(world)
    assert (await world.stat(number)).attr.mtime_ns == world.share.find("d").told().modified
    assert asked(world) == before + 1


@in_trio
async def test_what_came_before_another_change_is_not_told() -> None:
    world, number = await world_with()
    touch(world)
    await settle(world.vfs.setattr(number, SetAttr(mtime_ns=10**18)))
    await tell(world)
    before = asked(world)
    assert (await world.stat(number)).attr.mtime_ns == 10**18
    assert asked(world) == before + 1


@in_trio
async def test_what_was_told_meanwhile_is_not_followed_by_older_news() -> None:
    world, number = await world_with()
    await tell(world)
    touch(world)
    newer = (await world.look("d")).attr.mtime_ns
    assert (await world.stat(number)).attr.mtime_ns == newer == world.share.find("d").told().modified


@in_trio
async def test_nothing_is_told_that_is_too_old() -> None:
    world, number = await world_with()
    await tell(world)
    await trio.sleep(2.0)
    touch(world)
    assert (await world.stat(number)).attr.mtime_ns == world.share.find("d").told().modified


@in_trio
async def test_a_question_that_fails_is_asked_in_earnest() -> None:
    world, number = await world_with()
    await tell(world, fails=True)
    before = asked(world)
    await world.stat(number)
    assert asked(world) == before + 1


@in_trio
async def test_nothing_is_asked_where_nobody_wants_to_know() -> None:
    for options in ({"noperm": True}, {"cache": "none"}, {"acdirmax": 0.0}):
        world, _ = await world_with(**options)
        await create(world, "d/second")
        assert world.share.attributes_asked == []
    world, _ = await world_with()
    for name in "abc":
        await create(world, f"d/{name}")
    assert len(world.share.attributes_asked or ()) == 1


@in_trio
async def test_what_failed_may_have_changed_it_all_the_same() -> None:
    world, number = await world_with()
    await tell(world)
    await world.stat(number)
    world.share.fail("remove_file", Status.ACCESS_DENIED)
    try:
        await settle(world.vfs.unlink(number, b"first"))
    except PermissionError:
        await tell(world)
    before = asked(world)
    await world.stat(number)
    assert asked(world) == before


@in_trio
async def test_a_rename_has_each_directory_asked_for_once() -> None:
    world, number = await world_with()
    await tell(world)
    await world.stat(number)
    await settle(world.vfs.rename(number, b"first", number, b"second", 0))
    assert [path for path, _ in world.share.attributes_asked or ()] == ["d"]
    await tell(world)
    await world.stat(number)
    await settle(world.vfs.rename(number, b"second", ROOT, b"third", 0))
    assert sorted(path for path, _ in world.share.attributes_asked or ()) == ["", "d"]


@in_trio
async def test_the_root_is_a_directory_like_others() -> None:
    world, _ = await world_with()
    await create(world, "file")
    await tell(world)
    before = asked(world)
    await world.stat(ROOT)
    assert asked(world) == before
