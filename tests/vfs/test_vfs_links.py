"""Symbolic links, second names, pipes, sockets and devices: the kernel's calls, and what a mount remembers of them."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import Status
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import settle
from smb3fs.wire.reparse import SymbolicLink


@in_trio
async def test_a_link_is_made_and_read() -> None:
    world = World()
    entry = await settle(world.vfs.symlink(ROOT, b"link", b"../some:where"))
    assert (entry.attr.mode, entry.attr.size) == (stat.S_IFLNK | 0o777, 13)
    assert world.share.find("link").target == SymbolicLink("..\\some\uf022where", "..\\some\uf022where", True)
    again = await world.look("link")
    assert (again.attr.ino, again.attr.mode, again.attr.size) == (entry.attr.ino, entry.attr.mode, 13)
    assert await settle(world.vfs.readlink(entry.attr.ino)) == b"../some:where"
    await world.unlink("link")
    with fails(errno.ENOENT):
        await world.look("link")


@in_trio
async def test_the_name_must_be_free_and_the_server_willing() -> None:
    world = World()
    world.share.put("file")
    with fails(errno.EEXIST):
        await settle(world.vfs.symlink(ROOT, b"file", b"x"))
    with fails(errno.EEXIST):
        await settle(world.vfs.link(await world.number("file"), ROOT, b"file"))
    world.share.points_refused = True
    with fails(errno.EPERM):
        await settle(world.vfs.symlink(ROOT, b"link", b"x"))
    with fails(errno.EPERM):
        await settle(world.vfs.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o644))


@in_trio
async def test_links_that_the_mount_does_not_make() -> None:
    none = World(symlink="none", special_files="none")
    with fails(errno.EPERM):
        await settle(none.vfs.symlink(ROOT, b"link", b"x"))
    with fails(errno.EPERM):
        await settle(none.vfs.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o644))
    assert none.share.calls == []
    with fails(errno.EPERM):
        await settle(World().vfs.mknod(ROOT, b"what", stat.S_IFLNK | 0o644))


@in_trio
async def test_links_in_files() -> None:
    world = World(symlink="mfsymlinks", mfsymlinks=True)
    entry = await settle(world.vfs.symlink(ROOT, b"link", b"a\\b"))
    assert world.share.find("link").target == b"a\\b"
    assert (stat.S_IFMT(entry.attr.mode), entry.attr.size) == (stat.S_IFLNK, 3)
    assert await settle(world.vfs.readlink(entry.attr.ino)) == b"a\\b"
    with fails(errno.ENAMETOOLONG):
        await settle(world.vfs.symlink(ROOT, b"long", b"n" * 1025))


@in_trio
async def test_a_listing_does_not_say_more_than_the_server_did() -> None:
    world = World(mfsymlinks=True)
    await settle(world.vfs.symlink(ROOT, b"link", b"target"))
    await settle(world.vfs.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600))
    world.share.put("like a link", bytes(1067))
    world.share.put("file", b"x")
    fh = await settle(world.vfs.opendir(ROOT))
    listed = {name: entry for name, _, entry in await world.rest(fh)}
    kinds = {name: stat.S_IFMT(entry.attr.mode) for name, entry in listed.items()}
    assert (kinds["link"], kinds["fifo"], kinds["like a link"], kinds["file"]) == (stat.S_IFLNK, 0, 0, stat.S_IFREG)
    for name, entry in listed.items():
        # What is not known is not to be kept: the kernel asks when it needs it.
        assert (entry.attr_timeout == 0) == (name in ("link", "fifo", "like a link")), name
    assert stat.S_ISREG((await world.look("like a link")).attr.mode)
    assert stat.S_ISFIFO((await world.look("fifo")).attr.mode)


@in_trio
async def test_without_the_option_a_file_of_that_size_is_a_file() -> None:
    world = World()
    world.share.put("like a link", bytes(1067))
    fh = await settle(world.vfs.opendir(ROOT))
    listed = {name: entry for name, _, entry in await world.rest(fh)}
    assert stat.S_ISREG(listed["like a link"].attr.mode)


@in_trio
async def test_lookups_answered_from_a_listing_leave_links_to_the_server() -> None:
    world = World()
    for number in range(30):
        world.share.put(f"file{number}")
    await settle(world.vfs.symlink(ROOT, b"link", b"target"))
    for number in range(20):
        await world.look(f"file{number}")
    assert world.share.count("list_directory") == 1
    before = world.share.count("lookup")
    assert (await world.look("link")).attr.size == len("target")
    assert world.share.count("lookup") == before + 1


@in_trio
async def test_special_files() -> None:
    world = World()
    for kind, rdev in ((stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, 0x812)):
        entry = await settle(world.vfs.mknod(ROOT, f"{kind:o}".encode(), kind | 0o640, rdev))
        assert (stat.S_IFMT(entry.attr.mode), entry.attr.rdev) == (kind, rdev)
        assert (await world.look(f"{kind:o}")).attr.rdev == rdev


@in_trio
async def test_two_names_are_one_inode() -> None:
    world = World()
    world.share.put("file", b"content")
    world.share.put("folder", None)
    first = await world.look("file")
    entry = await settle(world.vfs.link(first.attr.ino, await world.number("folder"), b"second"))
    assert (entry.attr.ino, entry.attr.nlink) == (first.attr.ino, 2)
    assert (await world.look("folder/second")).attr.ino == first.attr.ino
    # A listing does not tell the number of links; what is known of it stays.
    fh = await settle(world.vfs.opendir(ROOT))
    assert {name: entry.attr.nlink for name, _, entry in await world.rest(fh)}["file"] == 2
    # One name may go, and the other one leads to the file still.
    await world.unlink("file")
    assert await world.read(await world.open("folder/second")) == b"content"
    assert (await world.stat(first.attr.ino)).attr.ino == first.attr.ino


@in_trio
async def test_a_second_name_for_a_file_whose_time_of_creation_the_server_makes_up() -> None:
    """Samba takes the oldest of the other times where none is stored, so reading a file can move it."""
    world = World()
    node = world.share.put("file", b"content")
    number = await world.number("file")
    node.created += 1
    entry = await settle(world.vfs.link(number, ROOT, b"second"))
    assert (entry.attr.ino, entry.attr.nlink) == (number, 2)
    assert (await world.look("second")).attr.ino == number


@in_trio
async def test_a_second_name_for_what_is_another_file_by_now() -> None:
    world = World()
    world.share.put("file", b"one")
    number = await world.number("file")
    await world.share.remove_file("file")
    world.share.put("file", b"another")
    with fails(errno.ESTALE):
        await settle(world.vfs.link(number, ROOT, b"second"))
    with fails(errno.ENOENT):
        await world.look("second")


@in_trio
async def test_a_name_that_went_from_file_to_link_is_another_inode() -> None:
    world = World()
    node = world.share.put("name", b"x")
    number = await world.number("name")
    node.special, node.target = stat.S_IFLNK, SymbolicLink("t", "t", True)  # the same file id
    entry = await world.look("name")
    assert entry.attr.ino != number
    assert stat.S_ISLNK(entry.attr.mode)


@in_trio
async def test_reading_what_is_no_link_any_more() -> None:
    world = World()
    entry = await settle(world.vfs.symlink(ROOT, b"link", b"t"))
    world.share.find("link").target = None
    with fails(errno.EINVAL):
        await settle(world.vfs.readlink(entry.attr.ino))


@pytest.mark.parametrize("verb", ["symlink", "link"])
@in_trio
async def test_a_directory_that_is_gone(verb: str) -> None:
    world = World()
    world.share.put("folder", None)
    folder, number = await world.number("folder"), (world.share.put("file"), await world.number("file"))[1]
    world.share.fail("make_special" if verb == "symlink" else "link", Status.OBJECT_PATH_NOT_FOUND)
    with fails(errno.ESTALE):
        if verb == "symlink":
            await settle(world.vfs.symlink(folder, b"link", b"t"))
        else:
            await settle(world.vfs.link(number, folder, b"second"))


@in_trio
async def test_times_of_a_link_are_its_own() -> None:
    world = World()
    entry = await settle(world.vfs.symlink(ROOT, b"link", b"t"))
    set_ = await settle(world.vfs.setattr(entry.attr.ino, SetAttr(mtime_ns=5 * 10**9)))
    assert (stat.S_IFMT(set_.attr.mode), set_.attr.mtime_ns) == (stat.S_IFLNK, 5 * 10**9)


@in_trio
async def test_links_are_renamed_with_care() -> None:
    world = World()
    await settle(world.vfs.symlink(ROOT, b"link", b"t"))
    world.share.put("file")
    await world.rename("link", "moved")
    await world.rename("file", "other")
    assert world.share.points_renamed == 1
    assert stat.S_ISLNK((await world.look("moved")).attr.mode)


@in_trio
async def test_a_listing_has_no_devices_since_it_does_not_know_their_numbers() -> None:
    world = World()
    node = world.share.put("null")
    node.special, node.rdev = stat.S_IFCHR, os.makedev(1, 3)
    fh = await settle(world.vfs.opendir(ROOT))
    listed = {name: entry for name, _, entry in await world.rest(fh)}
    assert (listed["null"].attr.mode, listed["null"].attr_timeout) == (0, 0)
    assert (await world.look("null")).attr.rdev == os.makedev(1, 3)
