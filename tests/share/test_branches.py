"""Links in a namespace: which share a verb goes to, what it is told there, and what a link cannot be used for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
import trio
from peer import trio_test

from smb3fs.errors import ConnectionLost, MountError, Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.branches import PATIENCE, Branches
from smb3fs.share.listing import Listing
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateRequest, HeldFileId
from smb3fs.wire.directory import DirectoryEntry, encode_page, entry_offsets

ExpectLog = Callable[[str], None]
DFS = 0x8000000A


def attributes(file_id: int) -> FileAttributes:
    """Attributes of a file of which only the number counts."""
    return FileAttributes(file_id, 0x80, 0, 0, 1, 1, 2, 3, 4)


class FakeShare:
    """A share in which everything exists but what lies behind a link; it notes what it is asked for."""

    def __init__(self, *links: str, file_id: int = 7) -> None:
        self.links = links
        self.file_id = file_id
        self.calls: list[tuple[Any, ...]] = []
        self.closed: list[Open] = []

    async def _do(self, *call: Any) -> None:
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        for path in call[1:]:
            if isinstance(path, str) and any(path == link or path.startswith(f"{link}\\") for link in self.links):
                raise StatusError(Status.PATH_NOT_COVERED, "CREATE")

    async def lookup(self, path: str) -> FileAttributes:
        await self._do("lookup", path)
        return attributes(self.file_id)

    async def open(self, path: str, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        await self._do("open", path, expect)
        return Open(path, HeldFileId(1, 2), 1, attributes(self.file_id), CreateRequest(path, 1, 1))

    async def attributes(self, handle: Open) -> FileAttributes:
        await self._do("attributes", handle)
        return attributes(self.file_id)

    async def copy(self, source: Open, offset: int, target: Open, target_offset: int, size: int) -> int:
        await self._do("copy", source, offset, target, target_offset, size)
        return size

    async def security(self, path: str, parts: int, expect: int | None) -> bytes:
        await self._do("security", path, parts, expect)
        return b"descriptor"

    async def remove_directory(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        await self._do("remove_directory", path)

    async def remove_file(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        await self._do("remove_file", path)

    async def rename(
        self, old: str, new: str, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        await self._do("rename", old, new)

    async def link(self, path: str, new: str, expect: int | None) -> FileAttributes:
        await self._do("link", path, new, expect)
        return attributes(self.file_id)

    async def list_directory(self, path: str, expect: int | None) -> Listing:
        await self._do("list", path, expect)
        listing = Listing(None, 65536)  # type: ignore[arg-type]
        entries = [
            DirectoryEntry("file", self.file_id, 0x80, 0, 0, 11, 12, 13, 14, 0),
            DirectoryEntry("link", 8, 0x410, 0, 0, 11, 12, 13, 14, DFS),
            DirectoryEntry("symlink", 9, 0x400, 0, 0, 11, 12, 13, 14, 0xA000000C),
        ]
        listing.pages = [memoryview(encode_page(entries))]
        listing.complete = True
        return listing

    def close(self, handle: Open) -> None:
        self.closed.append(handle)

    async def space(self) -> str:
        await self._do("space")
        return "the trunk's"


class Twig:
    """A branch."""

    def __init__(self, share: FakeShare) -> None:
        self.share = share


class World:
    """A trunk with links, and the branches that were asked for."""

    def __init__(self, *links: str, **shares: FakeShare) -> None:
        self.trunk = FakeShare(*links)
        self.shares = {path.replace("_", "\\"): share for path, share in shares.items()}
        self.opened: list[str] = []
        self.failure: Exception | None = None
        self.trace = Trace()
        self.verbs: Any = Branches(self.trunk, self._open, self.trace)

    async def _open(self, path: str) -> Twig:
        self.opened.append(path)
        await trio.sleep(0.1)
        if self.failure is not None:
            raise self.failure
        return Twig(self.shares[path])


@trio_test
async def test_what_is_not_behind_a_link_stays_in_the_trunk() -> None:
    world = World("link")
    assert await world.verbs.lookup("d\\file") == attributes(7)
    assert await world.verbs.space() == "the trunk's"
    assert world.trunk.calls == [("lookup", "d\\file"), ("space",)]


@trio_test
async def test_what_is_behind_one_goes_there_from_then_on() -> None:
    branch = FakeShare()
    world = World("d\\link", d_link=branch)
    await world.verbs.security("d\\link\\deep\\file", 3, None)
    assert branch.calls == [("security", "deep\\file", 3, None)]
    tried = len(world.trunk.calls)
    await world.verbs.lookup("d\\link")
    await world.verbs.lookup("d\\linked")
    assert branch.calls[-1] == ("lookup", "")
    assert world.trunk.calls[tried:] == [("lookup", "d\\linked")]
    assert world.opened == ["d\\link"]


@trio_test
async def test_many_at_once_open_one_branch() -> None:
    world = World("link", link=FakeShare())
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(world.verbs.lookup, f"link\\{number}")
    assert world.opened == ["link"]


@trio_test
async def test_a_link_behind_a_link() -> None:
    outer, inner = FakeShare("in"), FakeShare()
    world = World("out", out=outer, out_in=inner)
    await world.verbs.lookup("out\\in\\file")
    assert inner.calls == [("lookup", "file")]
    await world.verbs.lookup("out\\file")
    assert outer.calls[-1] == ("lookup", "file")
    assert world.opened == ["out", "out\\in"]


@trio_test
async def test_file_ids_are_the_branchs_own_and_go_back_as_the_servers() -> None:
    branch = FakeShare(file_id=7)
    world = World("link", link=branch)
    told = await world.verbs.lookup("link\\file")
    assert told.file_id != 7
    assert (await world.verbs.lookup("file")).file_id == 7
    handle = await world.verbs.open("link\\file", read=True, write=False, expect=told.file_id)
    assert branch.calls[-1] == ("open", "file", 7)
    assert handle.attributes_at_open.file_id == told.file_id
    assert (await world.verbs.attributes(handle)).file_id == told.file_id
    await world.verbs.security("link\\file", 1, told.file_id)
    assert branch.calls[-1] == ("security", "file", 1, 7)
    pages = await world.verbs.list_directory("link", told.file_id)
    assert branch.calls[-1] == ("list", "", 7)
    page = pages.pages[0]
    listed = [DirectoryEntry.parse_at(page, offset) for offset in entry_offsets(page)]
    assert listed[0].file_id == told.file_id
    assert [entry.name for entry in listed] == ["file", "link", "symlink"]


@pytest.mark.parametrize("file_id", [0, 2**64 - 1])
@trio_test
async def test_what_is_no_file_id_stays_none(file_id: int) -> None:
    world = World("link", link=FakeShare(file_id=file_id))
    assert (await world.verbs.lookup("link\\file")).file_id == file_id


@trio_test
async def test_handles_go_to_the_share_that_gave_them() -> None:
    branch = FakeShare()
    world = World("link", link=branch)
    there = await world.verbs.open("link\\file", read=True, write=False, expect=None)
    here = await world.verbs.open("file", read=True, write=False, expect=None)
    world.verbs.close(there)
    world.verbs.close(here)
    assert (branch.closed, world.trunk.closed) == ([there], [here])
    world.verbs.close(there)  # as a second close by mistake: nobody's any more
    assert world.trunk.closed == [here, there]


@trio_test
async def test_links_are_listed_without_an_identity() -> None:
    world = World()
    pages = await world.verbs.list_directory("", None)
    page = pages.pages[0]
    file, link, symlink = (DirectoryEntry.parse_at(page, offset) for offset in entry_offsets(page))
    assert (file.file_id, file.creation_time) == (7, 11)
    assert (link.file_id, link.creation_time, link.last_write_time) == (0, 0, 13)
    assert (symlink.file_id, symlink.creation_time) == (9, 11)
    assert pages.complete


@trio_test
async def test_a_link_is_neither_removed_nor_renamed() -> None:
    branch = FakeShare()
    world = World("link", link=branch)
    for call in (
        world.verbs.remove_directory("link"),
        world.verbs.remove_file("link"),
        world.verbs.rename("link", "other", replace=False),
        world.verbs.rename("link", "link\\other", replace=False),
        world.verbs.rename("link\\other", "link", replace=True),
    ):
        with pytest.raises(OSError) as error:
            await call
        assert error.value.errno == errno.EBUSY
    assert branch.calls == []
    assert [call for call in world.trunk.calls if call[0] != "lookup"] == [("remove_directory", "link")]


@trio_test
async def test_nothing_is_renamed_or_linked_across_links() -> None:
    one, two = FakeShare(), FakeShare()
    world = World("one", "two", one=one, two=two)
    for call in (
        world.verbs.rename("one\\file", "file", replace=False),
        world.verbs.rename("file", "two\\file", replace=False),
        world.verbs.rename("one\\file", "two\\file", replace=False),
        world.verbs.link("one\\file", "two\\file", None),
    ):
        with pytest.raises(OSError) as error:
            await call
        assert error.value.errno == errno.EXDEV
    await world.verbs.rename("one\\a", "one\\b", replace=False)
    assert one.calls == [("rename", "a", "b")]
    assert two.calls == []


@trio_test
async def test_a_link_that_cannot_be_followed_is_remote_for_a_while(expect_log: ExpectLog) -> None:
    expect_log("link: nodfs forbids it")
    expect_log("link: gone")
    world = World("link", link=FakeShare())
    world.failure = MountError("nodfs forbids it")
    for _ in range(5):
        with pytest.raises(OSError) as error:
            await world.verbs.lookup("link\\file")
        assert error.value.errno == errno.EREMOTE
    assert world.opened == ["link"]
    assert [event.text for event in world.trace.errors] == ["link: nodfs forbids it"]
    world.failure = ConnectionLost("gone")
    await trio.sleep(PATIENCE)
    with pytest.raises(OSError) as error:
        await world.verbs.lookup("link\\file")
    assert error.value.errno == errno.EIO
    world.failure = None
    await trio.sleep(PATIENCE)
    assert (await world.verbs.lookup("link\\file")).links == 1


@trio_test
async def test_a_server_that_makes_no_sense_ends_in_its_own_error() -> None:
    """It says of a path that it is elsewhere, but of no part of it; and a target is its own link, for ever."""
    world = World("link")
    world.trunk.lookup = lambda path: FakeShare().lookup(path)  # type: ignore[method-assign]
    with pytest.raises(StatusError, match="PATH_NOT_COVERED"):
        await world.verbs.security("link", 1, None)
    assert world.opened == []
    shares = {"_".join(["a"] * count): FakeShare("a") for count in range(1, 30)}
    endless = World("a", **shares)
    with pytest.raises(StatusError, match="PATH_NOT_COVERED"):
        await endless.verbs.lookup("\\".join(["a"] * 29))
    assert len(endless.opened) < 10


@trio_test
async def test_a_copy_from_one_share_to_another() -> None:
    """The kernel is told that there is another way; within one share, whichever it is, the server does it."""
    world = World("one", "two", one=FakeShare(), two=FakeShare())
    verbs = world.verbs

    async def opened(path: str) -> Open:
        handle: Open = await verbs.open(path, read=True, write=True, expect=None)
        return handle

    here, there, beside, far = [await opened(path) for path in ("f", "one\\f", "one\\g", "two\\f")]
    assert await verbs.copy(there, 1, beside, 2, 30) == 30
    assert world.shares["one"].calls[-1] == ("copy", there, 1, beside, 2, 30)
    assert await verbs.copy(here, 0, here, 50, 10) == 10
    for source, target in ((here, there), (there, here), (there, far)):
        with pytest.raises(OSError, match="cross-device") as caught:
            await verbs.copy(source, 0, target, 0, 10)
        assert caught.value.errno == errno.EXDEV
