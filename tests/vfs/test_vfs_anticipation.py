"""Lookups answered from a listing: fewer requests, and never anything that this mount knows to be otherwise."""

from __future__ import annotations

import errno
import os
import stat

import pytest
import trio
from fake_share import FakeShare
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.cache.directories import DirectoryCache
from smb3fs.errors import Status
from smb3fs.handles.leases import LeaseTable
from smb3fs.vfs import anticipation
from smb3fs.vfs.anticipation import AT_LEAST, ENOUGH, ENTRIES_A_LOOKUP, WATCHED
from smb3fs.vfs.attributes import Entry, SetAttr
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.wall import settle


def filled(count: int, **more: object) -> World:
    """A mount of a share with so many files, whose names are numbers and whose sizes are those numbers."""
    world = World(FakeShare(page_entries=100_000), **more)
    for number in range(count):
        world.share.put(f"{number:05}", b"x" * number)
    return world


async def look_up(world: World, numbers: range) -> None:
    """Look so many names up and check what comes."""
    for number in numbers:
        assert (await world.look(f"{number:05}")).attr.size == number


async def all_in(world: World, directory: int) -> list[Entry]:
    """Look up so many names in a directory that a listing pays."""
    return [await settle(world.vfs.lookup(directory, b"%d" % number)) for number in range(2 * ENOUGH)]


@in_trio
async def test_one_listing_instead_of_many_lookups() -> None:
    world = filled(200)
    await look_up(world, range(200))
    assert world.share.calls.count("lookup") == ENOUGH
    assert world.share.calls.count("list_directory") == 1


@in_trio
async def test_few_lookups_list_nothing() -> None:
    world = filled(200)
    await look_up(world, range(ENOUGH))
    assert "list_directory" not in world.share.calls


@in_trio
async def test_not_longer_than_attributes_may_be_shown() -> None:
    world = filled(200)
    await look_up(world, range(50))
    world.share.put("00060", b"changed by another client")
    await trio.sleep(1.5)
    assert (await world.look("00060")).attr.size == len(b"changed by another client")


@in_trio
async def test_timeouts_shrink_with_age() -> None:
    world = filled(200)
    await look_up(world, range(50))
    fresh = await world.look("00051")
    await trio.sleep(0.5)
    older = await world.look("00052")
    assert older.attr_timeout <= fresh.attr_timeout - 0.5 + 1e-6
    assert older.entry_timeout <= fresh.entry_timeout - 0.5 + 1e-6


@in_trio
async def test_own_changes_are_seen_at_once() -> None:
    world = filled(200)
    await look_up(world, range(50))
    fh = await world.open("00100", os.O_WRONLY)
    await world.write(fh, 0, b"y" * 1000)
    assert (await world.look("00100")).attr.size == 1000
    await settle(world.vfs.setattr((await world.look("00101")).attr.ino, SetAttr(size=7)))
    assert (await world.look("00101")).attr.size == 7
    await settle(world.vfs.unlink(ROOT, b"00102"))
    with fails(errno.ENOENT):
        await world.look("00102")
    await settle(world.vfs.rename(ROOT, b"00103", ROOT, b"renamed", 0))
    with fails(errno.ENOENT):
        await world.look("00103")
    assert (await world.look("renamed")).attr.size == 103


async def look_in_vain(world: World, names: range) -> None:
    """Look for so many names that there are not."""
    for number in names:
        with fails(errno.ENOENT):
            await world.look(f"none{number}")


def telling(count: int, *, all_names: bool = True, **more: object) -> World:
    """Such a mount of a share that tells of all that is in it, though not when that changes."""
    world = filled(count, **more)
    cache = DirectoryCache[Contents](LeaseTable(), world.share.close)
    world.vfs.cache_directories(cache, root_held=False, tells_all=lambda: all_names)
    return world


@in_trio
async def test_one_listing_instead_of_many_lookups_of_what_is_not_there() -> None:
    world = telling(200)
    await look_in_vain(world, range(200))
    assert world.share.calls.count("lookup") == ENOUGH
    assert world.share.calls.count("list_directory") == 1


@in_trio
async def test_what_is_made_here_is_there_at_once() -> None:
    world = telling(200)
    await look_in_vain(world, range(50))
    for number in range(50, 100):
        with fails(errno.ENOENT):
            await world.look(f"none{number}")
        await world.create(f"none{number}")
        assert (await world.look(f"none{number}")).attr.size == 0
    await settle(world.vfs.rename(ROOT, b"00103", ROOT, b"none100", 0))
    assert (await world.look("none100")).attr.size == 103
    # One lookup each, of what is there, or now and then a listing in its place.
    listings = world.share.calls.count("list_directory")
    assert listings <= 1 + 51 // ENOUGH
    assert world.share.calls.count("lookup") == ENOUGH + 52 - listings


@pytest.mark.parametrize("make", ["create", "mknod"])
@in_trio
async def test_what_could_not_be_made_is_asked_for(make: str) -> None:
    """Somebody else has made it, or we have, and the answer was lost."""
    world = telling(200)
    await look_in_vain(world, range(50))
    world.share.put("none60", b"made before us")
    with fails(errno.EEXIST):
        if make == "create":
            await settle(world.vfs.create(ROOT, b"none60", 0o644, os.O_EXCL | os.O_RDWR))
        else:
            await settle(world.vfs.mknod(ROOT, b"none60", stat.S_IFREG | 0o644))
    assert (await world.look("none60")).attr.size == len(b"made before us")


@in_trio
async def test_what_others_make_is_seen_when_what_they_change_is() -> None:
    world = telling(200)
    await look_in_vain(world, range(50))
    world.share.put("none60", b"made by another client")
    with fails(errno.ENOENT):
        await world.look("none60")
    await trio.sleep(1.1)
    assert (await world.look("none60")).attr.size == len(b"made by another client")


@in_trio
async def test_what_others_make_is_seen_at_once_after_a_lock_was_granted() -> None:
    world = telling(200)
    await look_in_vain(world, range(50))
    world.share.put("none60", b"made by another client")
    world.state.directories.outdate(world.state.inodes.root)
    assert (await world.look("none60")).attr.size == len(b"made by another client")


@pytest.mark.parametrize("name", ["FILE", "LONGNA~1", "a:stream", "end.", "end ", "\N{KELVIN SIGN}"])
@in_trio
async def test_what_may_be_another_spelling_is_asked_for(name: str) -> None:
    world = telling(200)
    world.share.put("file", b"")
    world.share.put("a long name", b"")
    await look_in_vain(world, range(50))
    before = world.share.calls.count("lookup")
    with fails(errno.ENOENT):
        await world.look(name)
    assert world.share.calls.count("lookup") == before + 1


@pytest.mark.parametrize("options", [{"all_names": False}, {"cache": "none"}, {"acdirmax": 0.0}])
@in_trio
async def test_an_absence_is_asked_for_where_nothing_shows_it(options: dict[str, object]) -> None:
    world = telling(200, **options)  # type: ignore[arg-type]
    await look_in_vain(world, range(100))
    assert world.share.calls.count("lookup") == 100
    assert "list_directory" not in world.share.calls


@in_trio
async def test_a_directory_that_we_have_filled_since_it_was_listed_is_listed_again() -> None:
    world = telling(0, acregmax=20.0, acdirmax=20.0)
    await look_in_vain(world, range(50))
    for number in range(200):
        await world.create(f"none{number}")
    world.share.calls.clear()
    for number in range(200):
        assert (await world.look(f"none{number}")).attr.size == 0
    assert world.share.calls.count("lookup") == ENOUGH
    assert world.share.calls.count("list_directory") == 1


@in_trio
async def test_a_directory_made_here_is_listed_sooner() -> None:
    world = telling(0)
    made = (await settle(world.vfs.mkdir(ROOT, b"made", 0o755))).attr.ino
    for number in range(100):
        with fails(errno.ENOENT):
            await settle(world.vfs.lookup(made, b"%d" % number))
    assert world.share.calls.count("lookup") == AT_LEAST
    assert world.share.calls.count("list_directory") == 1


@in_trio
async def test_a_directory_of_many_pages_is_given_up() -> None:
    world = World(FakeShare(page_entries=20))
    for number in range(500):
        world.share.put(f"{number:05}", b"x" * number)
    await look_up(world, range(200))
    assert world.share.calls.count("list_directory") == 1
    assert world.share.calls.count("lookup") == 200
    assert len(world.state.directories) == 0


@in_trio
async def test_a_few_pages_are_waited_for() -> None:
    world = World(FakeShare(page_entries=100))
    for number in range(500):
        world.share.put(f"{number:05}", b"x" * number)
    await look_up(world, range(200))
    assert world.share.calls.count("lookup") == ENOUGH


@in_trio
async def test_a_large_directory_is_listed_again_only_for_many_lookups() -> None:
    count = ENTRIES_A_LOOKUP * (ENOUGH + 10)
    world = filled(count)
    await look_up(world, range(ENOUGH + 1))
    assert world.share.calls.count("list_directory") == 1
    await trio.sleep(1.5)
    await look_up(world, range(ENOUGH + 5))
    assert world.share.calls.count("list_directory") == 1
    await look_up(world, range(ENOUGH + 20))
    assert world.share.calls.count("list_directory") == 2


@pytest.mark.parametrize("options", [{"cache": "none"}, {"acregmax": 0.0}, {"acdirmax": 0.0}])
@in_trio
async def test_nothing_where_nothing_may_be_remembered(options: dict[str, object]) -> None:
    world = filled(100, **options)
    await look_up(world, range(100))
    assert "list_directory" not in world.share.calls


@in_trio
async def test_inodes_are_let_go() -> None:
    world = filled(100)
    await look_up(world, range(100))
    for number in range(100):
        inode = (await world.look(f"{number:05}")).attr.ino
        world.vfs.forget([(inode, 2)])
    await trio.sleep(2)
    with fails(errno.ENOENT):
        await world.look("none")
    assert len(world.state.directories) == 0


@in_trio
async def test_a_directory_that_may_be_searched_and_not_listed() -> None:
    world = filled(200)
    world.share.fail("list_directory", *[Status.ACCESS_DENIED] * 100)
    await look_up(world, range(200))
    await trio.sleep(5)
    await look_up(world, range(200))
    assert world.share.calls.count("lookup") == 400
    assert world.share.calls.count("list_directory") == 1
    assert len(world.state.directories) == 0


@in_trio
async def test_what_was_found_to_be_stale_is_not_told_again() -> None:
    """The kernel looks a name up anew when the file that it opens is not there any more."""
    world = filled(200)
    await look_up(world, range(50))
    number = await world.number("00060")
    world.share.remove("00060")
    world.share.put("00060", b"another")
    with fails(errno.ESTALE):
        await settle(world.vfs.open(number, os.O_RDONLY))
    assert (await world.look("00060")).attr.ino != number
    # Nor is it told from a new listing, where what is removed and still open somewhere may be found.
    await look_up(world, range(100, 150))
    assert world.share.count("list_directory") == 1
    await trio.sleep(2)
    await look_up(world, range(100, 150))
    assert world.share.count("list_directory") == 2
    fh = await world.open("00060")
    assert await world.read(fh) == b"another"


@in_trio
async def test_what_the_kernel_has_forgotten_is_not_kept_for_its_listing() -> None:
    world = World(FakeShare(page_entries=100_000))
    world.share.put("d", None)
    for number in range(2 * ENOUGH):
        world.share.put(f"d\\{number}")
    directory = await world.number("d")
    entries = await all_in(world, directory)
    assert "list_directory" in world.share.calls
    world.vfs.forget([(entry.attr.ino, 1) for entry in entries])
    assert len(world.vfs.state.inodes) == 2
    world.vfs.forget([(directory, 1)])
    assert len(world.vfs.state.inodes) == 1
    # It may come back, and be listed again.
    await all_in(world, await world.number("d"))
    assert world.share.calls.count("list_directory") == 2


async def known(count: int, **more: object) -> tuple[World, list[int]]:
    """A mount on which so many files were looked up a while ago, and their inodes."""
    world = filled(count, **more)
    numbers = [await world.number(f"{number:05}") for number in range(count)]
    await trio.sleep(10)
    world.share.calls.clear()
    return world, numbers


@in_trio
async def test_attributes_are_told_from_a_listing_as_well() -> None:
    world, numbers = await known(200)
    for size, number in enumerate(numbers):
        assert (await world.stat(number)).attr.size == size
    # How large the directory is was seen when names were looked up.
    assert (world.share.count("lookup"), world.share.count("list_directory")) == (200 // ENTRIES_A_LOOKUP, 1)
    first, later = await world.stat(numbers[0]), None
    await trio.sleep(0.5)
    later = await world.stat(numbers[0])
    assert later.attr_timeout <= first.attr_timeout - 0.5 + 1e-6


@in_trio
async def test_who_asks_for_the_same_file_time_and_again_lists_nothing() -> None:
    world, numbers = await known(200)
    for _ in range(3 * ENOUGH):
        await world.stat(numbers[7])
        await trio.sleep(0.3)
    assert "list_directory" not in world.share.calls


@in_trio
async def test_what_a_listing_does_not_tell_is_asked_for() -> None:
    world, numbers = await known(200)
    for number in numbers[:20]:
        await world.stat(number)
    world.share.calls.clear()
    fh = await world.open("00100", os.O_WRONLY)
    await world.write(fh, 0, b"y" * 1000)
    assert (await world.stat(numbers[100])).attr.size == 1000
    await settle(world.vfs.setattr(numbers[101], SetAttr(size=7)))
    assert (await world.stat(numbers[101])).attr.size == 7
    # What has another name may be changed by that.
    await settle(world.vfs.link(numbers[102], ROOT, b"second"))
    before = len(world.share.calls)
    assert (await world.stat(numbers[102])).attr.nlink == 2
    assert len(world.share.calls) == before + 1
    # Another file under the name is not taken for it.
    world.share.remove("00103")
    world.share.put("00103", b"another")
    await trio.sleep(2)
    with fails(errno.ESTALE):
        for number in numbers[110:150] + numbers[103:104]:
            await world.stat(number)


@in_trio
async def test_many_directories_at_a_time_are_listed_once_each() -> None:
    """As git asks for them: from many threads, each of which goes through directories of its own."""
    count = WATCHED - 1
    world = World(FakeShare(page_entries=100_000))
    directories = []
    for number in range(count):
        world.share.put(f"{number}", None)
        for file in range(2 * ENOUGH):
            world.share.put(f"{number}\\{file}")
        directories.append(await world.number(f"{number}"))
    world.share.calls.clear()
    for file in range(2 * ENOUGH):
        for directory in directories:
            await settle(world.vfs.lookup(directory, b"%d" % file))
    assert (world.share.count("lookup"), world.share.count("list_directory")) == (ENOUGH * count, count)


@in_trio
async def test_listings_are_bounded_by_all_that_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anticipation, "MOST_ENTRIES", 5 * ENOUGH)
    world = World(FakeShare(page_entries=100_000))
    for number in range(4):
        world.share.put(f"{number}", None)
        for file in range(2 * ENOUGH):
            world.share.put(f"{number}\\{file}")
    directories = [await world.number(f"{number}") for number in range(4)]
    for directory in directories:
        await all_in(world, directory)
    assert world.share.count("list_directory") == 4
    assert len(world.state.directories) == 2
    world.share.calls.clear()
    await all_in(world, directories[3])
    assert "lookup" not in world.share.calls
    # One that was given up is not listed again at once; then it is known how large it is.
    await all_in(world, directories[0])
    assert "list_directory" not in world.share.calls
    world.share.calls.clear()
    await trio.sleep(2)
    await all_in(world, directories[0])
    assert (world.share.count("lookup"), world.share.count("list_directory")) == (AT_LEAST, 1)
