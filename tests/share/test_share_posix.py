"""The POSIX extensions on a share: when they are used, what is told through them, and what they let one set."""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from peer import trio_test
from posix_server import GROUP, OWNER, PosixServer
from stage import Stage, staged, usual_tree
from world import agreed

from smb3fs.errors import Status, StatusError, errno_of
from smb3fs.handles.attributes import Basics
from smb3fs.wire.create import CreateRequest
from smb3fs.wire.header import Command
from smb3fs.wire.posix import POSIX_GUID, PosixDirectoryEntry, posix_entry_offsets
from smb3fs.wire.reparse import SymbolicLink
from smb3fs.wire.sid import of_unix_group, of_unix_user


@asynccontextmanager
async def posix_staged(*, offered: bool = True) -> AsyncIterator[Stage]:
    """A share on a server with the extensions, before anybody has asked for them."""
    sizes = replace(agreed(), posix=offered)
    async with staged(usual_tree(), sizes=sizes, serve=PosixServer) as stage:
        yield stage


def server(stage: Stage) -> PosixServer:
    assert isinstance(stage.server, PosixServer)
    return stage.server


@trio_test
async def test_they_are_used_where_the_server_has_them() -> None:
    async with posix_staged() as stage:
        with stage.costs(1):
            assert await stage.share.use_posix("")
        assert stage.share.posix
        with stage.costs(1):
            told = await stage.share.lookup("d/1")
        assert told.owned is not None
        assert (told.owned.owner, told.owned.group, told.owned.mode, told.links) == (OWNER, GROUP, 0o644, 1)
        root, _ = await stage.share.root()
        assert root.is_directory
        await stage.nothing_open()


@trio_test
async def test_they_are_not_used_where_they_were_not_agreed() -> None:
    async with posix_staged(offered=False) as stage:
        with stage.costs(0):
            assert not await stage.share.use_posix("")
        assert (await stage.share.lookup("d\\1")).owned is None


@pytest.mark.parametrize("status", [Status.INVALID_INFO_CLASS, Status.OBJECT_NAME_NOT_FOUND])
@trio_test
async def test_they_are_not_used_on_a_share_where_they_do_not_work(status: Status) -> None:
    async with posix_staged() as stage:
        server(stage).switched_off = status == Status.INVALID_INFO_CLASS
        stage.server.refuse = lambda _message, index: status if index == 1 else None
        assert not await stage.share.use_posix("")
        stage.server.refuse = lambda _message, _index: None
        assert (await stage.share.lookup("d\\1")).owned is None
        await stage.nothing_open()


@trio_test
async def test_the_directory_that_is_the_root_of_the_mount() -> None:
    async with posix_staged() as stage:
        assert await stage.share.use_posix("d")
        assert (await stage.share.lookup("3")).size == 3


@trio_test
async def test_every_create_says_so() -> None:
    async with posix_staged() as stage:
        share = stage.share
        await share.use_posix("")
        seen: list[CreateRequest] = []
        create = server(stage)._create

        def watch(request: CreateRequest):  # type: ignore[no-untyped-def]
            seen.append(request)
            return create(request)

        server(stage)._create = watch  # type: ignore[method-assign]
        await share.lookup("f")
        handle = await share.create("new", read=True, write=True, exclusive=True, mode=0o640)
        share.close(handle)
        share.close(await share.open("new", read=True, write=False, expect=None, head=10))
        await share.make_directory("folder", 0o1750)
        await share.set_basic("f", Basics(modified=1), expect=None)
        await share.truncate_path("f", 3, None)
        await share.link("f", "folder/second", None)
        await share.rename("f", "folder/moved", replace=False)
        await share.rename_point("folder/moved", "f", replace=False)
        await share.make_link("link", SymbolicLink("a/b", "a/b", True))
        await share.read_link("link", None)
        await share.set_owned("f", expect=None, mode=0o600, owner=None, group=None)
        await share.space()
        listing = await share.list_directory("folder", None)
        listing.close()
        await share.remove_file("folder/second")
        await share.remove_directory("folder")
        await share.extended_attributes("f", None)
        assert len(seen) > 15
        assert all(any(context.name == POSIX_GUID for context in request.contexts) for request in seen)
        await stage.nothing_open()


@trio_test
async def test_modes_of_what_is_made() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        handle = await stage.share.create("new", read=True, write=True, exclusive=True, mode=0o640)
        assert handle.attributes_at_open.owned is not None
        assert (handle.attributes_at_open.kind, handle.attributes_at_open.owned.mode) == (stat.S_IFREG, 0o640)
        stage.share.close(handle)
        made = await stage.share.make_directory("folder", 0o1750)
        assert made.owned is not None
        assert (made.kind, made.owned.mode & 0o7777) == (stat.S_IFDIR, 0o1750)


@trio_test
async def test_a_mode_is_set() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        number = stage.tree.nodes["f"].number
        with stage.costs(2, unwaited=1):
            told = await stage.share.set_owned("f", expect=number, mode=0o751, owner=None, group=None)
        assert told.owned is not None
        assert told.owned.mode == 0o751
        with pytest.raises(OSError, match="Stale"):
            await stage.share.set_owned("f", expect=1, mode=0o600, owner=None, group=None)
        # A bit that the server does not keep: the mode is what it was, and whoever wanted it learns.
        with pytest.raises(OSError, match="not permitted"):
            await stage.share.set_owned("f", expect=number, mode=0o4700, owner=None, group=None)
        assert server(stage).owned[stage.tree.nodes["f"]].mode == 0o751
        server(stage).kept_of_modes = 0o7777
        told = await stage.share.set_owned("f", expect=number, mode=0o4700, owner=None, group=None)
        assert told.owned is not None
        assert told.owned.mode == 0o4700
        server(stage).kept_of_modes = 0o777
        await stage.share.set_owned("f", expect=number, mode=0o4700, owner=None, group=None)  # it is so already
        await stage.nothing_open()


@trio_test
async def test_owner_and_group_are_set() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        told = await stage.share.set_owned("f", expect=None, mode=0o640, owner=of_unix_user(7), group=of_unix_group(8))
        assert told.owned is not None
        assert (told.owned.owner, told.owned.group, told.owned.mode) == (of_unix_user(7), of_unix_group(8), 0o640)
        told = await stage.share.set_owned("f", expect=None, mode=None, owner=None, group=of_unix_group(9))
        assert told.owned is not None
        assert (told.owned.owner, told.owned.group) == (of_unix_user(7), of_unix_group(9))


@pytest.mark.parametrize("command", [Command.CREATE, Command.SET_INFO])
@trio_test
async def test_what_the_server_does_not_let_us(command: Command) -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        status = Status.ACCESS_DENIED
        stage.server.refuse = lambda message, index: status if message.elements[index].command == command else None
        with pytest.raises(OSError, match="not permitted"):
            await stage.share.set_owned("f", expect=None, mode=None, owner=of_unix_user(7), group=None)
        status = Status.DISK_FULL
        with pytest.raises(StatusError) as error:
            await stage.share.set_owned("f", expect=None, mode=0o600, owner=None, group=None)
        assert errno_of(error.value) == errno.ENOSPC
        await stage.nothing_open()


@trio_test
async def test_a_listing_tells_all_that_a_lookup_does() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        stage.server.entry_limit = 3
        listing = await stage.share.list_directory("d", None)
        while await listing.next_page():
            pass
        assert listing.posix
        found = {}
        for page in listing.pages:
            for offset in posix_entry_offsets(page):
                entry = PosixDirectoryEntry.parse_at(page, offset)
                found[entry.name] = entry
        assert sorted(found) == [".", "..", "0", "1", "2", "3", "4"]
        told = await stage.share.lookup("d/3")
        assert told.owned == found["3"].owned
        assert told.file_id == found["3"].file_id
        await stage.nothing_open()


@trio_test
async def test_the_size_of_the_share_counts_files() -> None:
    async with posix_staged() as stage:
        assert (await stage.share.space()).files == 0
        await stage.share.use_posix("")
        with stage.costs(1):
            space = await stage.share.space()
        assert (space.total_blocks, space.free_blocks, space.available_blocks) == (1000, 400, 300)
        assert (space.files, space.files_free) == (90, 80)


@trio_test
async def test_a_session_without_them_does_not_suit_a_mount_with_them() -> None:
    async with posix_staged() as stage:
        session = await stage.world.pool.ready()
        assert stage.share.suits(session)
        await stage.share.use_posix("")
        assert stage.share.suits(session)
        session.agreed.posix = False
        assert not stage.share.suits(session)


@trio_test
async def test_links_are_looked_up_in_two_round_trips() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        link = SymbolicLink("a\\b/c", "a\\b/c", True)
        await stage.share.make_link("link", link)
        with stage.costs(2):
            told = await stage.share.lookup("link")
        assert (told.kind, told.target) == (stat.S_IFLNK, link)


@trio_test
async def test_the_size_of_what_has_no_name_any_more() -> None:
    async with posix_staged() as stage:
        await stage.share.use_posix("")
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        stage.server.refuse = lambda message, index: (
            Status.OBJECT_NAME_NOT_FOUND if message.elements[index].command == Command.SET_INFO else None
        )
        assert (await stage.share.truncate(handle, 20)).size == 20
        assert bytes(stage.tree.nodes["f"].data) == b"contents of f".ljust(20, b"\0")
        assert (await stage.share.truncate(handle, 20)).size == 20
        with pytest.raises(OSError, match="not supported"):
            await stage.share.truncate(handle, 3)
        with pytest.raises(OSError, match="not supported"):
            await stage.share.set_basic_open(handle, Basics(modified=1))
        stage.share.close(handle)
        await stage.nothing_open()


@trio_test
async def test_what_carries_locks_is_no_open_of_theirs_and_tells_what_one_tells() -> None:
    async with posix_staged() as stage:
        assert await stage.share.use_posix("")
        looked_up = await stage.share.lookup("d/1")
        handle = await stage.share.open_for_locks("d/1", expect=looked_up.file_id)
        assert not handle.posix
        with stage.costs(2):
            assert await stage.share.attributes(handle) == looked_up
        with stage.costs(2):
            cut = await stage.share.truncate(handle, 3)
        assert (cut.size, cut.owned) == (3, looked_up.owned)
        told = await stage.share.set_basic_open(handle, Basics(modified=10**18))
        assert (told.modified, told.owned) == (10**18, looked_up.owned)
        stage.share.close(handle)
        await stage.nothing_open()
