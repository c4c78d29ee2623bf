"""What is removed or replaced while it is open, where opens are claimed by their names, keeps one until its close."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest
import trio
import trio.testing
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import settle


def holding(**options: object) -> World:
    """A filesystem on a share that gives opens back after a loss, by their names."""
    world = World(**options)
    world.share.holds = True
    return world


def hidden(world: World) -> list[str]:
    """The names of ours on the server."""
    return [name for name in world.share.walk() if ".smb3fs-" in name]


@in_trio
async def test_a_removed_file_has_a_name_until_its_close() -> None:
    world = holding()
    fh, entry = await world.create("file")
    calls = len(world.share.calls)
    await settle(world.vfs.unlink(ROOT, b"file"))
    assert world.share.calls[calls:] == ["rename"]
    (name,) = hidden(world)
    assert world.share.held == {name: entry.attr.ino}
    assert await world.listing() == []
    with fails(errno.ENOENT):
        await world.look("file")
    told = await world.stat(entry.attr.ino)
    assert (told.attr.ino, stat.S_IFMT(told.attr.mode)) == (entry.attr.ino, stat.S_IFREG)
    await settle(world.vfs.setattr(entry.attr.ino, SetAttr(mtime_ns=5 * 10**9)))
    assert (await world.stat(entry.attr.ino)).attr.mtime_ns == 5 * 10**9
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []
    assert not world.state.aside
    with fails(errno.ESTALE):
        await world.stat(entry.attr.ino)


@in_trio
async def test_its_name_does_not_count_among_its_links() -> None:
    world = holding()
    world.share.put("one", b"content")
    await settle(world.vfs.link(await world.number("one"), ROOT, b"two"))
    fh = await world.open("one", os.O_RDWR)
    number = await world.number("one")
    assert (await world.stat(number)).attr.nlink == 2
    await settle(world.vfs.unlink(ROOT, b"one"))
    assert world.share.find("two").links == 2
    assert (await world.stat(number)).attr.nlink == 1
    assert (await world.look("two")).attr.nlink == 1
    assert sorted(await world.listing()) == ["two"]
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == ["two"]


@in_trio
async def test_two_opens_of_one_file() -> None:
    world = holding()
    world.share.put("file", b"content")
    first, second = await world.open("file", os.O_RDWR), await world.open("file", os.O_RDWR)
    await world.unlink("file")
    await settle(world.vfs.release(first))
    assert len(hidden(world)) == 1
    assert await world.read(second) == b"content"
    await settle(world.vfs.release(second))
    assert list(world.share.walk()) == []


@pytest.mark.parametrize("posix", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
@in_trio
async def test_what_is_only_read_is_kept_before_it_loses_its_name(posix: bool, replaced: bool) -> None:
    """It can be opened anew by its name as long as it has that; after it, only what the server keeps goes on."""
    world = holding()
    world.share.posix, world.share.keeps_readers = posix, False
    world.share.put("file", b"content")
    world.share.put("new", b"new")
    fh = await world.open("file", os.O_RDONLY)
    number, new = await world.number("file"), await world.number("new")
    calls = len(world.share.calls)
    await (world.rename("new", "file") if replaced else world.unlink("file"))
    asked = [call for call in world.share.calls[calls:] if call != "lookup"]
    assert asked == ["make_lasting", "rename", *(["rename"] if replaced else [])]
    (name,) = hidden(world)
    assert world.share.held == {name: number}
    assert await world.read(fh) == b"content"
    await settle(world.vfs.release(fh))
    assert (hidden(world), world.share.held) == ([], {})
    assert await world.number("file" if replaced else "new") == new


@in_trio
async def test_what_nobody_has_open_is_asked_nothing_before_it_is_removed() -> None:
    world = holding()
    world.share.keeps_readers = False
    world.share.put("file", b"content")
    await settle(world.vfs.release(await world.open("file", os.O_RDONLY)))
    calls = len(world.share.calls)
    await settle(world.vfs.unlink(ROOT, b"file"))
    assert world.share.calls[calls:] == ["remove_file"]


@in_trio
async def test_a_replaced_file_is_not_to_be_removed_before_it_is_replaced() -> None:
    """Whoever dies in between must not leave an order to remove what may be the only one."""
    world = holding()
    world.share.put("old", b"old")
    world.share.put("new", b"new")
    fh = await world.open("old", os.O_RDWR)
    held: list[int] = []
    world.share.before = lambda call: held.append(len(world.share.held))
    await world.rename("new", "old")
    assert not any(held)
    assert world.share.calls[-2:] == ["rename", "rename"], "not onto it, which breaks the lease"
    assert len(world.share.held) == 1
    assert await world.read(fh) == b"old"
    assert await world.listing() == ["old"]
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == ["old"]
    assert bytes(world.share.find("old").data) == b"new"


@in_trio
async def test_a_file_that_keeps_others_out_is_renamed_before_another_gets_its_name() -> None:
    """To be asked to replace it the server would wait for a process that is gone."""
    world = holding()
    world.share.put("new", b"new")
    world.share.in_the_way.add(world.share.put("old", b"old").file_id)
    replacing: list[bool] = []
    rename = world.share.rename

    async def noting(*arguments: str, replace: bool, **known: int | None) -> None:
        replacing.append(replace)
        await rename(*arguments, replace=replace, **known)

    world.share.rename = noting  # type: ignore[method-assign]
    await world.rename("new", "old")
    assert replacing == [False, False]
    assert list(world.share.walk()) == ["old"]
    assert bytes(world.share.find("old").data) == b"new"


@pytest.mark.parametrize("failure", [Status.ACCESS_DENIED, ConnectionLost("the connection was lost")])
@in_trio
async def test_what_is_not_replaced_after_all_is_not_removed(
    failure: Status | ConnectionLost, expect_log: Callable[[str], None]
) -> None:
    if not isinstance(failure, Status):
        expect_log("rename: ConnectionLost")
    world = holding()
    world.share.put("old", b"old")
    world.share.put("new", b"new")
    fh = await world.open("old", os.O_RDWR)
    world.share.fail("rename", None, failure)
    with fails(errno.EACCES if isinstance(failure, Status) else errno.EIO):
        await world.rename("new", "old")
    assert world.share.held == {}
    await settle(world.vfs.release(fh))
    assert sorted(world.share.walk()) == ["new", "old"]
    assert bytes(world.share.find("old").data) == b"old"


@in_trio
async def test_a_file_that_cannot_be_set_aside_is_removed_as_it_is() -> None:
    world = holding()
    fh, _ = await world.create("file")
    world.share.fail("rename", Status.SHARING_VIOLATION)
    await world.unlink("file")
    assert (hidden(world), world.share.held) == ([], {})
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []


@in_trio
async def test_one_that_is_closed_while_it_is_set_aside() -> None:
    world = holding()
    fh, _ = await world.create("file")
    gate = world.share.hang("rename")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: settle(world.vfs.unlink(ROOT, b"file")))
        await trio.testing.wait_all_tasks_blocked()
        await settle(world.vfs.release(fh))
        gate.set()
    assert list(world.share.walk()) == []
    assert (world.state.aside, world.share.held) == ({}, {})


@in_trio
async def test_a_signal_leaves_it_to_the_last_close() -> None:
    world = holding()
    fh, _ = await world.create("file")
    gate = world.share.hang("rename")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: settle(world.vfs.unlink(ROOT, b"file")))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.set()
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []
    assert not world.state.aside


@in_trio
async def test_its_directory_can_be_removed() -> None:
    world = holding()
    world.share.put("folder", None)
    fh, entry = await world.create("folder/file")
    await world.write(fh, 0, b"content")
    await world.unlink("folder/file")
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    (name,) = world.share.walk()
    assert world.share.held == {name: entry.attr.ino}
    assert await world.listing() == []
    assert await world.read(fh) == b"content"
    assert (await world.stat(entry.attr.ino)).attr.size == 7
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []
    assert not world.state.aside


@in_trio
async def test_where_it_cannot_be_moved_to_the_top_it_goes_as_the_server_has_it() -> None:
    world = holding()
    world.share.put("folder", None)
    fh, _ = await world.create("folder/file")
    await world.unlink("folder/file")
    world.share.fail("rename", Status.ACCESS_DENIED)
    with fails(errno.ENOTEMPTY):  # this one keeps the name until the last close
        await settle(world.vfs.rmdir(ROOT, b"folder"))
    assert world.share.calls[-2:] == ["remove_file", "remove_directory"]
    await settle(world.vfs.release(fh))
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    assert list(world.share.walk()) == []


@in_trio
async def test_a_directory_that_it_was_in_can_be_replaced() -> None:
    world = holding()
    for name in ("old", "new"):
        world.share.put(name, None)
    fh, _ = await world.create("old/file")
    await world.unlink("old/file")
    await world.rename("new", "old")
    assert await world.listing() == ["old"]
    assert await world.listing("old") == []
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == ["old"]


@in_trio
async def test_what_is_to_be_removed_in_a_directory_goes_before_it() -> None:
    """It was closed right before, and the share is about to remove it."""
    world = holding()
    world.share.put("folder", None)
    await world.look("folder")
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    assert "clear_aside" not in world.share.calls, "nothing is asked for where there is nothing"
    world.share.put("folder", None)
    world.share.put("folder\\.smb3fs-0", b"")
    names = {".smb3fs-0"}
    world.vfs.leave_out(names)
    await world.look("folder")
    assert await world.listing("folder") == []

    def clear(call: str) -> None:
        if call == "clear_aside":
            names.clear()
            world.share.remove("folder\\.smb3fs-0")

    world.share.before = clear
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    assert list(world.share.walk()) == []


@pytest.mark.parametrize("since", [None, b"another file"])
@in_trio
async def test_a_name_that_another_client_has_taken_from_an_open_file_is_in_nobodys_way(since: bytes | None) -> None:
    world = holding()
    world.share.put("old", b"open")
    world.share.put("new", b"content")
    fh = await world.open("old", os.O_RDWR)
    await world.look("new")
    world.share.root.children["elsewhere"] = world.share.root.children.pop("old")
    if since is not None:
        world.share.put("old", since)
    await settle(world.vfs.rename(ROOT, b"new", ROOT, b"old", 0))
    assert sorted(world.share.walk()) == ["elsewhere", "old"]
    assert bytes(world.share.find("old").data) == b"content"
    assert await world.read(fh) == b"open"
    await settle(world.vfs.release(fh))
    assert sorted(world.share.walk()) == ["elsewhere", "old"]


@in_trio
async def test_a_rename_onto_a_directory_that_is_gone_does_not_wait_for_itself() -> None:
    """What is hidden there is to be cleared first, and who finds nothing waits for the renames under way."""
    world = holding()
    world.share.put("one", None)
    world.share.put("two", None)
    world.state.unlisted.add("hidden")
    world.share.fail("clear_aside", Status.OBJECT_NAME_NOT_FOUND)
    await world.rename("one", "two")
    assert list(world.share.walk()) == ["two"]
