"""What single mount options change about the verbs."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import pytest
import trio
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import settle


async def change(world: World, path: str, **wish: int) -> tuple[int, int, int]:
    """A chmod or chown, and mode and owners as they are then."""
    attr = (await settle(world.vfs.setattr(await world.number(path), SetAttr(**wish)))).attr
    return stat.S_IMODE(attr.mode), attr.uid, attr.gid


@in_trio
async def test_dynperm_remembers_what_the_server_does_not_keep() -> None:
    world = World(dynperm=True)
    world.share.put("file")
    world.share.put("folder", None)
    assert await change(world, "file", mode=0o640) == (0o640, 1000, 1001)
    assert await change(world, "file", uid=7) == (0o640, 7, 1001)
    assert await change(world, "file", gid=8) == (0o640, 7, 8)
    assert await change(world, "folder", mode=0o700) == (0o700, 1000, 1001)
    attr = (await world.look("file")).attr
    assert (stat.S_IMODE(attr.mode), attr.uid, attr.gid) == (0o640, 7, 8)
    modes = {name: stat.S_IMODE(entry.attr.mode) for name, _, entry in await world.rest(await opened(world))}
    assert (modes["file"], modes["folder"]) == (0o640, 0o700)


async def opened(world: World) -> int:
    return await settle(world.vfs.opendir(ROOT))


@in_trio
async def test_dynperm_forgets_with_the_inode() -> None:
    world = World(dynperm=True)
    node = world.share.put("file")
    await change(world, "file", mode=0o600)
    number = await world.number("file")
    assert number == node.file_id
    world.vfs.forget([(number, world.state.inodes.get(number).lookups)])
    assert stat.S_IMODE((await world.look("file")).attr.mode) == 0o755


@in_trio
async def test_without_dynperm_nothing_is_remembered() -> None:
    world = World(noperm=True)
    world.share.put("file")
    assert await change(world, "file", mode=0o640, uid=7) == (0o755, 1000, 1001)


@in_trio
async def test_dynperm_keeps_the_write_bits_on_the_server_too() -> None:
    world = World(dynperm=True)
    node = world.share.put("file")
    assert await change(world, "file", mode=0o440) == (0o440, 1000, 1001)
    assert node.attributes & 1
    assert await change(world, "file", mode=0o640) == (0o640, 1000, 1001)
    assert not node.attributes & 1


@in_trio
async def test_nodelete() -> None:
    world = World(nodelete=True)
    for name in ("one", "other"):
        world.share.put(name)
    world.share.put("folder", None)
    for verb, name in ((world.vfs.unlink, b"one"), (world.vfs.rmdir, b"folder")):
        with fails(errno.EACCES):
            await settle(verb(ROOT, name))
    with fails(errno.EACCES):
        await world.rename("one", "other")
    with fails(errno.EEXIST):
        await settle(world.vfs.rename(ROOT, b"one", ROOT, b"folder", 0))
    await world.rename("one", "new")
    assert sorted(world.share.walk()) == ["folder", "new", "other"]


@pytest.mark.parametrize("strict", [True, False])
@in_trio
async def test_fsync_waits_for_the_disk_or_does_not(strict: bool) -> None:
    world = World(strictsync=strict)
    fh, _ = await world.create("file")
    await world.write(fh, 0, b"data")
    await settle(world.vfs.fsync(fh, False))
    assert world.share.count("flush") == (1 if strict else 0)


@in_trio
async def test_hard_waits_and_soft_does_not(expect_log: Callable[[str], None]) -> None:
    expect_log("lookup: no answer within 5 seconds")
    for hard in (True, False):
        world = World(hard=hard, timeout=5.0)
        world.share.put("file")
        answers = world.share.hang("lookup")
        async with trio.open_nursery() as nursery:
            if hard:
                nursery.start_soon(world.look, "file")
                await trio.sleep(3600)
                answers.set()
                await trio.sleep(1)
                assert not world.vfs._patient
            else:
                with fails(errno.ETIMEDOUT):
                    await world.look("file")


@in_trio
async def test_hard_ends_with_the_mount(expect_log: Callable[[str], None]) -> None:
    expect_log("lookup: no answer within 5 seconds")
    world = World(hard=True, timeout=5.0)
    world.share.put("file")
    world.share.hang("lookup")
    ended = []

    async def look() -> None:
        with fails(errno.ETIMEDOUT):
            await world.look("file")
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(100)
        assert not ended
        asked = trio.current_time()
        world.vfs.lose_patience()
    assert ended == [asked + 5.0]
    with fails(errno.ETIMEDOUT):
        await world.look("file")
