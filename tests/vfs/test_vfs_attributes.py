"""stat, chmod, chown, utimens, truncate and statfs: what files look like, and what changes them."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pytest
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.attributes import MAX_SIZE, SetAttr
from smb3fs.vfs.wall import settle
from smb3fs.wire.create import FileAttribute

READONLY = int(FileAttribute.READONLY)
SECOND = 10**9


async def chmod(world: World, path: str, mode: int) -> int:
    """chmod(1), and the mode that results."""
    number = await world.number(path)
    return (await settle(world.vfs.setattr(number, SetAttr(mode=mode)))).attr.mode & 0o7777


@in_trio
async def test_what_stat_tells() -> None:
    world = World(acregmax=3.0, acdirmax=5.0)
    node = world.share.put("file", b"x" * 5000, created=123 * SECOND)
    node.accessed, node.modified, node.changed = 124 * SECOND, 125 * SECOND, 126 * SECOND
    node.links = 3
    entry = await world.look("file")
    assert entry.attr.ino == node.file_id
    assert stat.S_ISREG(entry.attr.mode)
    assert (entry.attr.uid, entry.attr.gid, entry.attr.nlink) == (1000, 1001, 3)
    assert (entry.attr.size, entry.attr.blocks, entry.attr.blksize) == (5000, 16, 1 << 20)
    times = (entry.attr.birth_ns, entry.attr.atime_ns, entry.attr.mtime_ns, entry.attr.ctime_ns)
    assert times == (123 * SECOND, 124 * SECOND, 125 * SECOND, 126 * SECOND)
    assert (entry.entry_timeout, entry.attr_timeout) == (5.0, 3.0)
    assert (await world.stat(entry.attr.ino)).attr == entry.attr


@in_trio
async def test_the_time_of_birth_is_the_same_wherever_it_comes_from() -> None:
    """From the answers to a creation, a look-up, a stat and a listing, and after a change of other times."""
    world = World()
    fh, made = await world.create("file")
    born = world.share.find("file").created
    assert born == made.attr.birth_ns != 0
    await world.write(fh, 0, b"later")
    assert (await world.look("file")).attr.birth_ns == born
    assert (await world.stat(made.attr.ino)).attr.birth_ns == born
    changed = await settle(world.vfs.setattr(made.attr.ino, SetAttr(mtime_ns=SECOND, atime_ns=SECOND)))
    assert changed.attr.birth_ns == born
    listed = await settle(world.vfs.opendir(ROOT))
    entries = {name: entry for name, _, entry in await world.rest(listed)}
    assert entries["file"].attr.birth_ns == born
    folder = await settle(world.vfs.mkdir(ROOT, b"folder", 0o755))
    assert folder.attr.birth_ns == world.share.find("folder").created


@in_trio
async def test_a_server_that_knows_no_time_of_birth() -> None:
    world = World()
    world.share.put("file", b"", created=0)
    assert (await world.look("file")).attr.birth_ns == 0


@in_trio
async def test_a_directory() -> None:
    world = World(dir_mode=0o2750)
    world.share.put("folder", None).attributes = READONLY
    entry = await world.look("folder")
    assert stat.S_ISDIR(entry.attr.mode)
    assert entry.attr.mode & 0o7777 == 0o2750  # READONLY means something else there
    assert entry.attr.nlink == 2
    assert (entry.entry_timeout, entry.attr_timeout) == (2.0, 2.0)
    assert stat.S_ISDIR((await world.stat(ROOT)).attr.mode)


@in_trio
async def test_one_round_trip_each() -> None:
    world = World()
    world.share.put("folder", None)
    world.share.put("folder\\file")
    number = await world.number("folder/file")
    assert world.share.calls == ["lookup", "lookup"]
    await world.stat(number)
    assert world.share.calls == ["lookup"] * 3


@in_trio
async def test_times_that_a_server_does_not_keep() -> None:
    world = World()
    node = world.share.put("file")
    node.accessed = node.changed = 0
    node.modified = 125 * SECOND
    attr = (await world.look("file")).attr
    assert attr.atime_ns == attr.mtime_ns == attr.ctime_ns == 125 * SECOND


@in_trio
async def test_sizes_beyond_reason_are_cut() -> None:
    world = World()
    told = world.share.put("file").told()._replace(size=2**64 - 1, allocation=2**64 - 1)
    attr = world.state.presentation.entry(7, told).attr
    assert attr.size == MAX_SIZE
    assert attr.blocks <= MAX_SIZE


@in_trio
async def test_a_file_system_without_link_counts() -> None:
    world = World()
    world.share.put("file").links = 0
    assert (await world.look("file")).attr.nlink == 1


@in_trio
async def test_chmod_sets_and_clears_readonly() -> None:
    world = World(file_mode=0o640)
    node = world.share.put("file")
    node.attributes = int(FileAttribute.ARCHIVE | FileAttribute.HIDDEN)
    assert await chmod(world, "file", 0o440) == 0o440
    assert node.attributes == FileAttribute.ARCHIVE | FileAttribute.HIDDEN | FileAttribute.READONLY
    assert await chmod(world, "file", 0o440) == 0o440
    assert world.share.count("set_basic") == 1  # it was so already
    assert await chmod(world, "file", 0o640) == 0o640
    assert node.attributes == FileAttribute.ARCHIVE | FileAttribute.HIDDEN


@in_trio
async def test_the_last_attribute_leaves_normal() -> None:
    """0 in a SET_INFO says "leave"; a file without attributes is NORMAL."""
    world = World()
    node = world.share.put("file")
    node.attributes = READONLY
    assert await chmod(world, "file", 0o755) == 0o755
    assert node.attributes == 0


@in_trio
async def test_modes_that_cannot_be_kept() -> None:
    world = World(file_mode=0o644, dir_mode=0o755)
    world.share.put("file")
    world.share.put("folder", None)
    for path, mode in (("file", 0o600), ("file", 0o755), ("file", 0o4644), ("folder", 0o700), ("folder", 0o555)):
        calls = len(world.share.calls)
        with fails(errno.EPERM):
            await chmod(world, path, mode)
        assert world.share.calls[calls:] == ["lookup"]  # ours, to get the number
    assert await chmod(world, "folder", 0o755) == 0o755
    assert await chmod(world, "file", 0o644) == 0o644


@in_trio
async def test_chmod_of_files_that_are_never_writable() -> None:
    world = World(file_mode=0o444)
    node = world.share.put("file")
    assert await chmod(world, "file", 0o444) == 0o444
    assert node.attributes == 0
    with fails(errno.EPERM):
        await chmod(world, "file", 0o644)


@in_trio
async def test_noperm_is_quiet_and_looks_at_the_write_bits() -> None:
    world = World(noperm=True, file_mode=0o755)
    node = world.share.put("file")
    world.share.put("folder", None)
    assert await chmod(world, "file", 0o600) == 0o755
    assert node.attributes == 0
    assert await chmod(world, "file", 0o400) == 0o555
    assert node.attributes == READONLY
    assert await chmod(world, "file", 0o200) == 0o755
    assert await chmod(world, "folder", 0o700) == 0o755
    number = await world.number("file")
    assert (await settle(world.vfs.setattr(number, SetAttr(uid=5, gid=6)))).attr.uid == 1000


@pytest.mark.parametrize(
    ("owner", "allowed"),
    [
        ({"uid": 1000}, True),
        ({"gid": 1001}, True),
        ({"uid": 1000, "gid": 1001}, True),
        ({"uid": 0}, False),
        ({"gid": 0}, False),
        ({"uid": 1000, "gid": 5}, False),
    ],
)
@in_trio
async def test_chown(owner: dict[str, int], allowed: bool) -> None:
    world = World()
    world.share.put("file")
    number = await world.number("file")
    if allowed:
        assert (await settle(world.vfs.setattr(number, SetAttr(**owner)))).attr.uid == 1000
    else:
        with fails(errno.EPERM):
            await settle(world.vfs.setattr(number, SetAttr(**owner, size=0)))
        assert world.share.calls == ["lookup"]  # nothing was changed before it was refused


@in_trio
async def test_utimens() -> None:
    world = World()
    node = world.share.put("file")
    number = await world.number("file")
    before = node.accessed
    entry = await settle(world.vfs.setattr(number, SetAttr(mtime_ns=99 * SECOND)))
    assert (node.accessed, node.modified) == (before, 99 * SECOND)
    assert entry.attr.mtime_ns == 99 * SECOND
    await settle(world.vfs.setattr(number, SetAttr(atime_ns=0, mtime_ns=-SECOND)))
    assert node.accessed == 1  # not 0, which would say "leave"; a FILETIME has no single nanoseconds
    assert node.modified == -SECOND
    assert world.share.calls == ["lookup", "set_basic", "set_basic"]


@in_trio
async def test_all_at_once() -> None:
    world = World()
    node = world.share.put("file", b"0123456789")
    number = await world.number("file")
    changes = SetAttr(mode=0o555, uid=1000, size=4, atime_ns=SECOND, mtime_ns=2 * SECOND)
    attr = (await settle(world.vfs.setattr(number, changes))).attr
    assert (attr.size, attr.mtime_ns, attr.atime_ns, attr.mode & 0o777) == (4, 2 * SECOND, SECOND, 0o555)
    assert bytes(node.data) == b"0123"
    assert node.attributes == READONLY
    assert world.share.calls == ["lookup", "open", "truncate", "close", "set_basic"]


@in_trio
async def test_changes_go_through_a_handle_that_writes() -> None:
    """The server would otherwise set the time of the close over the time that was asked for."""
    world = World()
    world.share.put("file", b"0123456789")
    reader, writer = await world.open("file"), await world.open("file", os.O_RDWR)
    number = await world.number("file")
    world.share.calls.clear()
    await settle(world.vfs.setattr(number, SetAttr(size=3), reader))
    await settle(world.vfs.setattr(number, SetAttr(size=2), writer))
    await settle(world.vfs.setattr(number, SetAttr(size=1, mtime_ns=SECOND)))
    await settle(world.vfs.setattr(number, SetAttr(mode=0o555)))
    assert (await world.stat(number)).attr.size == 1
    assert set(world.share.calls) == {"truncate", "set_basic_open", "attributes"}


@in_trio
async def test_a_directorys_times() -> None:
    world = World()
    node = world.share.put("folder", None)
    await settle(world.vfs.setattr(await world.number("folder"), SetAttr(mtime_ns=SECOND)))
    assert node.modified == SECOND


@in_trio
async def test_statfs() -> None:
    world = World()
    told = await settle(world.vfs.statfs())
    assert (told.block_size, told.blocks, told.blocks_free, told.blocks_available) == (4096, 1000, 500, 400)
    assert told.name_max == 255


@pytest.mark.parametrize(
    ("options", "mask", "allowed"),
    [
        ({"file_mode": 0o600}, os.R_OK | os.W_OK, True),
        ({"file_mode": 0o600}, os.X_OK, False),
        ({"file_mode": 0o610}, os.X_OK, True),
        ({"file_mode": 0o000}, os.F_OK, True),
    ],
)
@in_trio
async def test_access_of_a_file(options: dict[str, Any], mask: int, allowed: bool) -> None:
    world = World(noperm=True, **options)
    world.share.put("file")
    assert await settle(world.vfs.access(await world.number("file"), mask)) is allowed
    assert await settle(world.vfs.access(ROOT, os.X_OK))


@in_trio
async def test_the_root_must_be_a_directory() -> None:
    world = World()
    told = world.share.put("file").told()
    with fails(errno.ENOTDIR):
        world.vfs.set_root(told)


@in_trio
async def test_what_the_server_refuses() -> None:
    world = World()
    world.share.put("file")
    number = await world.number("file")
    world.share.fail("set_basic", Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await settle(world.vfs.setattr(number, SetAttr(mtime_ns=SECOND)))
