"""Links, special files and second names: what they cost, in every notation, and what a server may refuse."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from peer import trio_test
from stage import staged
from tree_server import Node, Tree

from smb3fs.errors import Status, StatusError, errno_of
from smb3fs.handles.attributes import Basics
from smb3fs.share.share import Share
from smb3fs.wire.create import FileAttribute
from smb3fs.wire.mfsymlink import SIZE, MfSymlink
from smb3fs.wire.reparse import LxSymlink, NfsSpecialFile, NfsType, ReparsePoint, ReparseTag, SymbolicLink

LINK = SymbolicLink("d\\1", "shown", True)


def point(tree: Tree, path: str, tag: int, data: bytes, *, directory: bool = False) -> Node:
    """Put a reparse point into the tree."""
    node = tree.add(path, directory=directory)
    node.point = ReparsePoint(tag, data).encode()
    node.attributes |= FileAttribute.REPARSE_POINT
    return node


@trio_test
async def test_a_link_is_made_in_one_round_trip_and_looked_up_in_two() -> None:
    async with staged() as stage:
        with stage.costs(1, unwaited=1):
            made = await stage.share.make_link("link", LINK)
        assert (made.kind, made.target, made.file_id) == (stat.S_IFLNK, LINK, stage.tree.nodes["link"].number)
        with stage.costs(2):
            found = await stage.share.lookup("link")
        assert (found.kind, found.target, found.file_id) == (stat.S_IFLNK, LINK, made.file_id)
        with stage.costs(1):
            assert await stage.share.read_link("link", made.file_id) == LINK
        with pytest.raises(OSError, match="Stale"):
            await stage.share.read_link("link", made.file_id + 1)
        with pytest.raises(StatusError) as error:
            await stage.share.make_link("f", LINK)
        assert errno_of(error.value) == errno.EEXIST
        await stage.nothing_open()


@pytest.mark.parametrize(
    ("tag", "data", "kind", "target", "rdev"),
    [
        (ReparseTag.SYMLINK, LINK.encode(), stat.S_IFLNK, LINK, 0),
        (ReparseTag.LX_SYMLINK, LxSymlink(b"/usr/\xff").encode(), stat.S_IFLNK, b"/usr/\xff", 0),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.LNK, "../ä").encode(), stat.S_IFLNK, "../ä".encode(), 0),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.FIFO).encode(), stat.S_IFIFO, None, 0),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.SOCK).encode(), stat.S_IFSOCK, None, 0),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.CHR, "", 1, 3).encode(), stat.S_IFCHR, None, os.makedev(1, 3)),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.BLK, "", 8, 1).encode(), stat.S_IFBLK, None, os.makedev(8, 1)),
        (ReparseTag.NFS, NfsSpecialFile(NfsType.BLK, "", 4096, 1).encode(), stat.S_IFBLK, None, 0),
        (ReparseTag.AF_UNIX, b"", stat.S_IFSOCK, None, 0),
        (ReparseTag.LX_FIFO, b"", stat.S_IFIFO, None, 0),
        # What makes no sense is what its tag says, as far as that goes.
        (ReparseTag.SYMLINK, b"\xff" * 12, stat.S_IFLNK, None, 0),
        (ReparseTag.LX_SYMLINK, b"\0\0\0\0x", stat.S_IFLNK, None, 0),
        (ReparseTag.NFS, b"", stat.S_IFREG, None, 0),
        (ReparseTag.NFS, NfsSpecialFile(1234).encode(), stat.S_IFREG, None, 0),
        (0x8000001B, b"something of an app store", stat.S_IFREG, None, 0),
    ],
)
@trio_test
async def test_notations(tag: int, data: bytes, kind: int, target: SymbolicLink | bytes | None, rdev: int) -> None:
    async with staged() as stage:
        point(stage.tree, "odd", tag, data)
        told = await stage.share.lookup("odd")
        assert (told.kind, told.target, told.rdev) == (kind, target, rdev)
        if target is not None:
            assert await stage.share.read_link("odd", None) == target
        await stage.nothing_open()


@trio_test
async def test_special_files() -> None:
    async with staged() as stage:
        for kind, rdev in ((stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFCHR, os.makedev(5, 1)), (stat.S_IFBLK, 1)):
            with stage.costs(1, unwaited=1):
                made = await stage.share.make_special(f"{kind}", kind | 0o600, rdev)
            found = await stage.share.lookup(f"{kind}")
            assert (made.kind, made.rdev) == (found.kind, found.rdev) == (kind, rdev)
        with pytest.raises(OSError, match="Invalid"):
            await stage.share.read_link(f"{stat.S_IFIFO}", None)
        await stage.nothing_open()


@trio_test
async def test_a_server_without_reparse_points_is_left_as_it_was_and_asked_once() -> None:
    async with staged() as stage:
        stage.server.no_points = True
        with stage.costs(2, unwaited=1), pytest.raises(OSError, match="not permitted"):
            await stage.share.make_link("link", LINK)
        await stage.nothing_open()
        assert "link" not in stage.tree.nodes
        with stage.costs(0), pytest.raises(OSError, match="not permitted"):
            await stage.share.make_special("fifo", stat.S_IFIFO, 0)
        await stage.nothing_open()


@trio_test
async def test_what_was_made_in_vain_is_removed_but_not_held_against_the_server() -> None:
    async with staged() as stage:
        refuse = stage.server.refuse
        stage.server.refuse = lambda message, index: Status.DISK_FULL if index == 1 else None
        with pytest.raises(StatusError) as error:
            await stage.share.make_link("link", LINK)
        assert errno_of(error.value) == errno.ENOSPC
        assert "link" not in stage.tree.nodes
        with pytest.raises(StatusError):
            await stage.share.make_link_file("link", b"target")
        assert "link" not in stage.tree.nodes
        stage.server.refuse = refuse
        await stage.share.make_link("link", LINK)
        await stage.nothing_open()


@trio_test
async def test_a_link_on_the_way_is_no_link_at_the_end() -> None:
    async with staged() as stage:
        stage.server.refuse = lambda _message, index: Status.STOPPED_ON_SYMLINK if index == 0 else None
        with pytest.raises(StatusError) as error:
            await stage.share.lookup("d\\1")
        assert errno_of(error.value) == errno.ESTALE


@trio_test
async def test_links_in_files() -> None:
    async with staged() as stage:
        share = Share(stage.world.pool, stage.opens, stage.world.trace, mfsymlinks=True)
        with stage.costs(1, unwaited=1):
            made = await share.make_link_file("link", b"some/where")
        assert bytes(stage.tree.nodes["link"].data) == MfSymlink(b"some/where").encode()
        with stage.costs(2):
            found = await share.lookup("link")
        assert (made.kind, made.target) == (found.kind, found.target) == (stat.S_IFLNK, b"some/where")
        with stage.costs(1):
            assert await share.read_link("link", made.file_id) == b"some/where"
        with stage.costs(1):
            assert (await share.lookup("f")).kind == stat.S_IFREG
        # A file of that size that is none, and one of another size that would be one.
        stage.tree.add("like one", b"x" * SIZE)
        assert (await share.lookup("like one")).kind == stat.S_IFREG
        with pytest.raises(OSError, match="Invalid"):
            await share.read_link("like one", None)
        # Links of the other kind are read as well.
        await share.make_link("point", LINK)
        assert await share.read_link("point", None) == LINK
        # Who does not ask for it sees files.
        assert (await stage.share.lookup("link")).kind == stat.S_IFREG
        await stage.nothing_open()


@trio_test
async def test_a_second_name() -> None:
    async with staged() as stage:
        node = stage.tree.nodes["f"]
        with stage.costs(1):
            told = await stage.share.link("f", "d\\second", node.number)
        assert (told.file_id, told.links) == (node.number, 2)
        assert stage.tree.nodes["d\\second"] is node
        with pytest.raises(StatusError) as error:
            await stage.share.link("f", "d\\second", node.number)
        assert errno_of(error.value) == errno.EEXIST
        point(stage.tree, "link", ReparseTag.SYMLINK, LINK.encode())
        told = await stage.share.link("link", "link too", None)
        assert (told.links, told.target) == (2, LINK)
        await stage.nothing_open()


@trio_test
async def test_another_file_gets_no_second_name() -> None:
    async with staged() as stage:
        with pytest.raises(OSError, match="Stale"):
            await stage.share.link("f", "second", 1)
        assert "second" not in stage.tree.nodes
        assert "f" in stage.tree.nodes
        stage.server.no_hard_links = True
        with pytest.raises(OSError, match="not permitted"):
            await stage.share.link("f", "second", None)
        await stage.nothing_open()


@trio_test
async def test_times_of_a_link() -> None:
    async with staged() as stage:
        await stage.share.make_link("link", LINK)
        told = await stage.share.set_basic("link", Basics(modified=5 * 10**9), expect=None)
        assert (told.kind, told.target, told.modified) == (stat.S_IFLNK, LINK, 5 * 10**9)
        await stage.nothing_open()


@trio_test
async def test_a_link_is_one_after_a_rename() -> None:
    async with staged() as stage:
        await stage.share.make_link("link", LINK)
        with stage.costs(2, unwaited=1):
            await stage.share.rename_point("link", "d\\moved", replace=False)
        assert (await stage.share.lookup("d\\moved")).target == LINK
        await stage.share.rename_point("f", "g", replace=False)  # what turns out to be none
        assert (await stage.share.lookup("g")).kind == stat.S_IFREG
        with pytest.raises(StatusError) as error:
            await stage.share.rename_point("g", "d\\moved", replace=False)
        assert errno_of(error.value) == errno.EEXIST
        stage.server.refuse = lambda message, index: Status.ACCESS_DENIED if len(message.elements) == 2 else None
        await stage.share.rename_point("g", "f", replace=False)
        assert "f" in stage.tree.nodes
        await stage.nothing_open()


@trio_test
async def test_links_to_directories_that_are_directories_on_the_server() -> None:
    async with staged() as stage:
        point(stage.tree, "junction", ReparseTag.SYMLINK, LINK.encode(), directory=True)
        assert (await stage.share.lookup("junction")).kind == stat.S_IFLNK
        await stage.share.remove_file("junction")
        assert "junction" not in stage.tree.nodes
        with pytest.raises(StatusError) as error:
            await stage.share.remove_file("empty")
        assert errno_of(error.value) == errno.EISDIR
        assert "empty" in stage.tree.nodes
        await stage.nothing_open()


@pytest.mark.parametrize(
    ("value", "rdev"),
    [(b"\1\0\0\0\3\0\0\0", os.makedev(1, 3)), (b"\1\0\0\0", 0), (b"\xff" * 8, 0), (None, 0)],
)
@trio_test
async def test_devices_of_wsl_have_their_number_beside_them(value: bytes | None, rdev: int) -> None:
    async with staged() as stage:
        node = point(stage.tree, "null", ReparseTag.LX_CHR, b"")
        if value is not None:
            node.extended[b"$LXDEV"] = value
        with stage.costs(3):
            told = await stage.share.lookup("null")
        assert (told.kind, told.rdev) == (stat.S_IFCHR, rdev)
        await stage.nothing_open()
