"""A full disk and a quota: each verb that needs room says so, and what was there stays."""

from __future__ import annotations

import errno
import os

import pytest
from vfs_world import World, fails, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import settle

NO_ROOM = {
    Status.DISK_FULL: errno.ENOSPC,
    Status.ALLOTTED_SPACE_EXCEEDED: errno.ENOSPC,
    Status.QUOTA_EXCEEDED: errno.EDQUOT,
    Status.DISK_QUOTA_EXCEEDED: errno.EDQUOT,
}


@pytest.mark.parametrize("status", NO_ROOM)
@in_trio
async def test_no_room(status: Status) -> None:
    world = World()
    world.share.put("file", b"before")
    fh = await world.open("file", os.O_RDWR)
    world.share.fail("write", status)
    with fails(NO_ROOM[status]):
        await world.write(fh, 0, b"after")
    world.share.fail("flush", status)
    with fails(NO_ROOM[status]):
        await settle(world.vfs.fsync(fh, False))
    world.share.fail("truncate", status)
    with fails(NO_ROOM[status]):
        await settle(world.vfs.setattr(await world.number("file"), SetAttr(size=1 << 40)))
    world.share.fail("create", status)
    with fails(NO_ROOM[status]):
        await world.create("new")
    assert await world.read(fh) == b"before"
    assert await world.write(fh, 0, b"after!") == 6  # there is room again


@in_trio
async def test_a_synchronous_write_that_does_not_reach_the_disk_has_failed() -> None:
    world = World()
    world.share.put("file", b"before")
    fh = await world.open("file", os.O_RDWR | os.O_SYNC | os.O_DIRECT)
    world.share.fail("flush", Status.DISK_FULL)
    with fails(errno.ENOSPC):
        await world.write(fh, 0, b"after")
