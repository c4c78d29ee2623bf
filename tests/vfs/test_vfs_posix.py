"""What programs see and may change on a mount with the POSIX extensions."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from fake_share import Node
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import settle
from smb3fs.wire.posix import PosixCreated, mode_to_wire
from smb3fs.wire.sid import Sid, of_unix_group, of_unix_user

SOMEBODY = Sid.from_text("S-1-5-21-1-2-3-1000")


def posix_world(**options: Any) -> World:
    world = World(**options)
    world.vfs.use_posix()
    world.share.posix = True
    return world


def own(node: Node, mode: int = 0o640, owner: Sid = SOMEBODY, group: Sid = SOMEBODY, links: int = 1) -> Node:
    """Have a node tell who owns it."""
    kind = stat.S_IFDIR if node.is_directory else stat.S_IFREG
    node.owned = PosixCreated(links, 0, mode_to_wire(kind | mode), owner, group)
    return node


@in_trio
async def test_modes_and_owners_are_the_servers() -> None:
    world = posix_world()
    own(world.share.put("ours"))
    own(world.share.put("theirs"), 0o4711, of_unix_user(12), of_unix_group(13))
    ours, theirs = (await world.look("ours")).attr, (await world.look("theirs")).attr
    assert (ours.mode, ours.uid, ours.gid) == (stat.S_IFREG | 0o640, 1000, 1001)
    assert (theirs.mode, theirs.uid, theirs.gid) == (stat.S_IFREG | 0o4711, 12, 13)


@in_trio
async def test_the_mounts_owner_may_be_forced() -> None:
    world = posix_world(forces_uid=True)
    own(world.share.put("theirs"), 0o644, of_unix_user(12), of_unix_group(13))
    told = (await world.look("theirs")).attr
    assert (told.uid, told.gid) == (1000, 13)
    with fails(errno.EPERM):
        await settle(world.vfs.setattr(told.ino, SetAttr(uid=7)))


@in_trio
async def test_changes_of_mode_and_owner() -> None:
    world = posix_world()
    node = own(world.share.put("file"), 0o644, of_unix_user(12), of_unix_group(13))
    number = await world.number("file")
    entry = await settle(world.vfs.setattr(number, SetAttr(mode=stat.S_IFREG | 0o751)))
    assert stat.S_IMODE(entry.attr.mode) == 0o751
    entry = await settle(world.vfs.setattr(number, SetAttr(uid=14, gid=13)))
    assert (entry.attr.uid, entry.attr.gid) == (14, 13)
    assert node.owned is not None
    assert node.owned.owner == of_unix_user(14)
    asked = world.share.count("set_owned")
    await settle(world.vfs.setattr(number, SetAttr(uid=14, gid=13)))  # it is so already
    assert world.share.count("set_owned") == asked
    entry = await settle(world.vfs.setattr(number, SetAttr(mode=0o600, mtime_ns=5 * 10**9, size=3)))
    assert (stat.S_IMODE(entry.attr.mode), entry.attr.mtime_ns, entry.attr.size) == (0o600, 5 * 10**9, 3)


@in_trio
async def test_what_the_server_refuses() -> None:
    for noperm in (False, True):
        world = posix_world(noperm=noperm)
        own(world.share.put("file"))
        number = await world.number("file")
        world.share.fail("set_owned", OSError(errno.EPERM, "no"))
        if noperm:
            assert stat.S_IMODE((await settle(world.vfs.setattr(number, SetAttr(mode=0o777)))).attr.mode) == 0o640
        else:
            with fails(errno.EPERM):
                await settle(world.vfs.setattr(number, SetAttr(mode=0o777)))


@in_trio
async def test_an_open_file_is_removed_by_the_server() -> None:
    world = posix_world()
    fh, _ = await world.create("file")
    calls = len(world.share.calls)
    await settle(world.vfs.unlink(ROOT, b"file"))
    assert world.share.calls[calls:] == ["remove_file"]
    assert world.state.aside == {}
    await settle(world.vfs.release(fh))


@in_trio
async def test_one_that_is_open_without_the_extensions_as_well_is_set_aside() -> None:
    world = posix_world()
    fh, _ = await world.create("file")
    world.state.files.get(fh).handle.posix = False
    calls = len(world.share.calls)
    await settle(world.vfs.unlink(ROOT, b"file"))
    assert world.share.calls[calls:] == ["rename", "remove_file"]
    await settle(world.vfs.release(fh))
    assert world.state.aside == {}


@in_trio
async def test_no_file_becomes_read_only() -> None:
    world = posix_world()
    await world.create("file", os.O_WRONLY, 0o444)
    assert world.share.find("file").attributes == 0


@in_trio
async def test_names_are_what_they_are() -> None:
    world = posix_world()
    for name in (b"A:B", b"case", b"CASE", b"end. "):
        world.share.put(name.decode())
        entry = await settle(world.vfs.lookup(ROOT, name))
        assert entry.attr.ino == world.share.find(name.decode()).file_id


@in_trio
async def test_a_link_is_kept_as_it_is_written() -> None:
    world = posix_world()
    entry = await settle(world.vfs.symlink(ROOT, b"link", b"/mnt/c/a\\b:c"))
    assert await settle(world.vfs.readlink(entry.attr.ino)) == b"/mnt/c/a\\b:c"
