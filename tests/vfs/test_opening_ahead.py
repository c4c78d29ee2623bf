"""Which files are opened ahead, and what becomes of those that nobody uses, or that are changed while on their way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import trio
from fake_share import FakeShare
from vfs_world import ROOT, World, in_trio

from smb3fs.cache.directories import MOST_ENTRIES_EACH
from smb3fs.handles.lease import RH, Lease
from smb3fs.handles.opens import Open
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.inodes import Inode
from smb3fs.vfs.opening_ahead import FIRST, MOST, OpensAhead
from smb3fs.vfs.wall import settle
from smb3fs.wire.posix import PosixCreated, mode_to_wire
from smb3fs.wire.sid import Sid

assert MOST_ENTRIES_EACH > MOST


class Ahead(FakeShare):
    """A share on which opens that nobody waits for come when the test says so."""

    def __init__(self) -> None:
        super().__init__(page_entries=100_000)
        self.asked: list[tuple[str, Callable[[Open | None], None]]] = []

    def open_ahead(self, path: str, expect: int | None, head: int, came: Callable[[Open | None], None]) -> bool:
        self.asked.append((path, came))
        return True

    @property
    def names(self) -> list[str]:
        """What was asked for since this was looked at last."""
        return [path for path, _ in self.asked]

    async def arrive(self) -> list[Open]:
        """Have all come that was asked for."""
        asked, self.asked = self.asked, []
        handles = []
        for path, came in asked:
            handle = await self.open(path, read=True, write=False, expect=None)
            handle.head = memoryview(bytes(self.find(path).data))
            handle.lease = Lease(os.urandom(16), path, state=RH, guards_name=True)
            handle.lease.opens.add(handle)
            handles.append(handle)
            came(handle)
        return handles


class Walked(World):
    """A directory of files that is kept, and a program that opens them."""

    share: Ahead
    contents: Contents

    def __init__(self, *names: str, size: int = 10, share: Ahead | None = None) -> None:
        super().__init__(share or Ahead(), closetimeo=10.0)
        for name in names:
            self.share.put(name, b"x" * size)

    async def keep(self) -> None:
        """List the root, and take it for kept from now on."""
        listing = self.state.directories.add(self.state.inodes.root)
        listing.begin(await self.state.list_directory(listing), trio.current_time())
        contents = self.contents = Contents(listing)

        def contents_of(inode: Inode) -> Contents | None:
            return contents if inode.number == ROOT else None

        self.vfs.opens_ahead = OpensAhead(self.state, contents_of)

    async def read(self, *names: str) -> None:
        """Open these for reading, and close them."""
        for name in names:
            await settle(self.vfs.release(await self.open(name)))


def numbered(count: int) -> list[str]:
    return [f"{number:03}" for number in range(count)]


async def walked(count: int = 100) -> Walked:
    """So many files of which three in a row have been read."""
    world = Walked(*numbered(count))
    await world.keep()
    await world.read("000", "001", "002")
    return world


@in_trio
async def test_three_in_a_row_are_enough() -> None:
    world = await walked()
    assert world.share.names == numbered(100)[3 : 3 + FIRST]


@in_trio
async def test_twice_as_many_each_time_that_half_is_used() -> None:
    world = await walked()
    sizes = []
    for name in numbered(100)[3:80]:
        await world.share.arrive()
        before = world.vfs.opens_ahead.asked
        await world.read(name)
        sizes.append(world.vfs.opens_ahead.asked - before)
    assert max(sizes) <= MOST
    assert world.vfs.opens_ahead.asked == 97
    assert world.vfs.opens_ahead.used == 77


@in_trio
async def test_backwards_and_by_name() -> None:
    shuffled = sorted(numbered(40), key=lambda name: int(name) * 7 % 40)
    for order in (sorted(shuffled, reverse=True), sorted(shuffled), shuffled, shuffled[::-1]):
        world = Walked(*shuffled)
        await world.keep()
        await world.read(*order[10:13])
        assert world.share.names == order[13 : 13 + FIRST]


@in_trio
async def test_not_out_of_order_nor_seldom() -> None:
    world = Walked(*numbered(40))
    await world.keep()
    await world.read("000", "002", "001", "005", "004", "010")
    for name in numbered(40)[20:30]:
        await trio.sleep(2)
        await world.read(name)
    assert world.share.names == []


@in_trio
async def test_not_what_is_large_empty_or_a_directory() -> None:
    world = Walked(*numbered(12))
    world.share.put("003x", b"x" * 70_000)
    world.share.put("004x", b"")
    await settle(world.vfs.mkdir(ROOT, b"005x", 0o755))
    await world.keep()
    await world.read("000", "001", "002")
    assert world.share.names == ["003", "004", "005", "006"]


@in_trio
async def test_not_what_is_open_or_was_changed_here() -> None:
    world = Walked(*numbered(12))
    await world.keep()
    held = await world.open("003")
    await settle(world.vfs.setattr(await world.number("004"), SetAttr(mtime_ns=10**18)))
    await world.read("000", "001", "002")
    assert world.share.names == ["005", "006"]
    await settle(world.vfs.release(held))


@in_trio
async def test_what_has_come_is_opened_without_a_request() -> None:
    world = await walked()
    await world.share.arrive()
    number = await world.number("003")
    before = list(world.share.calls)
    opened = world.vfs.open(number, os.O_RDONLY)
    assert not isinstance(opened, trio.Event)
    assert world.share.calls == before
    assert bytes(await settle(world.vfs.read((await settle(opened)).fh, 0, 100))) == b"x" * 10
    assert "read" not in world.share.calls[len(before) :]


@in_trio
async def test_who_comes_too_early_waits_for_what_is_on_its_way() -> None:
    world = await walked()
    number = await world.number("003")
    before = world.share.count("open")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle, world.vfs.open(number, os.O_RDONLY))
        await trio.testing.wait_all_tasks_blocked()
        assert world.share.count("open") == before
        arrived = await world.share.arrive()
    assert world.share.count("open") == before + len(arrived)
    assert world.vfs.opens_ahead.used == 1


@in_trio
async def test_what_will_not_come_is_asked_for() -> None:
    world = await walked()
    number = await world.number("003")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle, world.vfs.open(number, os.O_RDONLY))
        await trio.testing.wait_all_tasks_blocked()
        before = world.share.count("open")
        world.share.asked[0][1](None)
    assert world.share.count("open") == before + 1


@in_trio
async def test_what_is_removed_meanwhile_is_closed_when_it_comes() -> None:
    world = await walked()
    await settle(world.vfs.unlink(ROOT, b"003"))
    world.share.put("003", b"another")
    first, *others = await world.share.arrive()
    assert first.closed
    assert not any(handle.closed for handle in others)


@in_trio
async def test_data_are_not_shown_that_came_before_a_loss_of_r() -> None:
    world = await walked()
    first, *_ = await world.share.arrive()
    assert first.lease is not None
    first.lease.losses += 1  # taken back, and granted again
    world.share.find("003").data[:] = b"y" * 10
    fh = await world.open("003")
    assert bytes(await settle(world.vfs.read(fh, 0, 100))) == b"y" * 10
    assert world.vfs.opens_ahead.used == 0


@in_trio
async def test_what_nobody_uses_is_forgotten() -> None:
    world = await walked()
    inodes = len(world.state.inodes)
    handles = await world.share.arrive()
    assert len(world.state.inodes) == inodes
    world.state.deferred.expire(trio.current_time() + 11)
    assert all(handle.closed for handle in handles)
    assert len(world.state.inodes) == inodes - len(handles)
    assert not world.state.deferred.coming


@in_trio
async def test_what_is_wrong_with_another_file_is_not_told() -> None:
    class Refusing(Ahead):
        def open_ahead(self, path: str, expect: int | None, head: int, came: Callable[[Open | None], None]) -> bool:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    world = Walked(*numbered(12), share=Refusing())
    await world.keep()
    await world.read(*numbered(12))
    assert not world.state.deferred.coming
    assert world.vfs.opens_ahead.asked == 0


@in_trio
async def test_what_has_come_ahead_tells_owners_and_modes() -> None:
    world = await walked()
    await world.share.arrive()
    assert world.contents.noted.learned == {}  # the listing is good enough, as long as it is kept
    world = Walked(*numbered(40))
    world.vfs.use_posix()
    somebody = Sid.from_text("S-1-5-21-1-2-3-1000")
    for name in numbered(40):
        world.share.find(name).owned = PosixCreated(1, 0, mode_to_wire(stat.S_IFREG | 0o640), somebody, somebody)
    await world.keep()
    await world.read("000", "001", "002")
    world.state.changed(world.state.inodes.root, "004")
    world.contents.noted.add("004")
    await world.share.arrive()
    told = {name: attributes for name, attributes, _ in world.contents.noted.learned.values()}
    assert set(told) == {"003", "005", "006"}
    assert all(attributes is not None and attributes.owned is not None for attributes in told.values())
