"""Listings: complete, stable, sought in, hostile, and never behind what this mount itself has done."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from fake_share import FakeShare
from hypothesis import given, settings
from hypothesis import strategies as st
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status
from smb3fs.vfs.attributes import Entry, SetAttr
from smb3fs.vfs.contents import Contents
from smb3fs.vfs.directories import OpenDirectory
from smb3fs.vfs.joined import BASE, JoinedListings
from smb3fs.vfs.wall import settle
from smb3fs.wire.directory import DirectoryEntry, encode_page


def filled(count: int, *, page_entries: int = 100, prefix: str = "entry") -> World:
    """A mount of a share with so many files."""
    world = World(FakeShare(page_entries=page_entries))
    for number in range(count):
        world.share.put(f"{prefix}-{number:06}", b"x" * number)
    return world


def names(count: int) -> list[str]:
    return [f"entry-{number:06}" for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 97, 98, 99, 250, 3000])
@pytest.mark.parametrize("room", [1, 25, 5000])
@in_trio
async def test_every_entry_once(count: int, room: int) -> None:
    world = filled(count)
    fh = await settle(world.vfs.opendir(ROOT))
    found = await world.rest(fh, room=room)
    assert [name for name, _, _ in found] == [".", "..", *names(count)]
    assert [cookie for _, cookie, _ in found][:2] == [1, 2]
    assert await world.some(fh, found[-1][1]) == []
    assert await world.some(fh, 10**9) == []


@in_trio
async def test_attributes_without_another_request() -> None:
    world = filled(150)
    world.share.put("folder", None)
    fh = await settle(world.vfs.opendir(ROOT))
    found = {name: entry.attr for name, _, entry in await world.rest(fh)}
    assert world.share.calls == ["list_directory", "next_page"]
    assert found["entry-000123"].size == 123
    assert found["folder"].mode & 0o170000 == 0o040000
    for name, attr in found.items():
        if name not in (".", ".."):
            looked_up = (await world.look(name)).attr
            assert looked_up == attr
    assert found["."].ino == found[".."].ino == ROOT


@in_trio
async def test_dots_of_a_folder_below() -> None:
    world = World()
    world.share.put("a", None)
    world.share.put("a\\b", None)
    a, b = await world.number("a"), await world.number("a/b")
    fh = await settle(world.vfs.opendir(b))
    assert [(name, entry.attr.ino) for name, _, entry in await world.some(fh, 0)] == [(".", b), ("..", a)]
    assert [name for name, _, _ in await world.some(fh, 1)] == [".."]


@in_trio
async def test_only_what_the_kernel_took_is_counted() -> None:
    world = filled(300)
    fh = await settle(world.vfs.opendir(ROOT))
    taken = await world.some(fh, 0, room=12)
    assert len(world.state.inodes) == 1 + 10  # the root, and what is neither . nor ..
    assert all(inode.lookups == 1 for inode in world.state.inodes)
    again = await world.some(fh, 2, room=5)  # sought back
    assert [name for name, _, _ in again] == [name for name, _, _ in taken[2:7]]
    assert world.state.inodes.get(taken[2][2].attr.ino).lookups == 2
    world.vfs.forget([(entry.attr.ino, 2 if index < 5 else 1) for index, (_, _, entry) in enumerate(taken[2:])])
    assert len(world.state.inodes) == 1


@in_trio
async def test_pages_come_on_demand() -> None:
    world = filled(1000, page_entries=100)
    fh = await settle(world.vfs.opendir(ROOT))
    await world.some(fh, 0, room=50)
    assert world.share.calls == ["list_directory"]
    await world.some(fh, 300, room=5)
    assert world.share.count("next_page") == 2
    assert not world.share.listings[0].closed
    await world.rest(fh, 300)
    assert world.share.count("next_page") == 10
    assert world.share.listings[0].closed  # the server's handle is not held until closedir
    world.vfs.releasedir(fh)
    with fails(errno.EBADF):
        await settle(world.vfs.readdir(fh, 0))


@in_trio
async def test_closedir_in_the_middle() -> None:
    world = filled(1000)
    fh = await settle(world.vfs.opendir(ROOT))
    await world.some(fh, 0)
    world.vfs.releasedir(fh)
    assert world.share.listings[0].closed
    assert world.state.inodes.root.opens == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 62), st.integers(1, 30)), max_size=10))
def test_any_seeking_gives_what_was_there(count: int, page: int, seeks: list[tuple[int, int]]) -> None:
    async def check() -> None:
        world = filled(count, page_entries=page)
        fh = await settle(world.vfs.opendir(ROOT))
        straight = await world.rest(fh, room=9)
        cookies = [0, *(cookie for _, cookie, _ in straight)]
        for index, room in seeks:
            if 0 < index < len(cookies):
                part = await world.some(fh, cookies[index], room=room)
                assert [name for name, _, _ in part] == [name for name, _, _ in straight[index : index + room]]

    trio.run(check)


@in_trio
async def test_a_listing_is_one_moment() -> None:
    """What others do meanwhile neither hides nor doubles an entry."""
    world = filled(500)
    fh = await settle(world.vfs.opendir(ROOT))
    first = await world.some(fh, 0, room=50)
    for number in range(0, 500, 3):
        world.share.remove(f"entry-{number:06}")
        world.share.put(f"foreign-{number:06}")
    rest = await world.rest(fh, first[-1][1])
    assert [name for name, _, _ in first + rest][2:] == names(500)


@in_trio
async def test_rewinding_lists_anew() -> None:
    world = filled(10)
    fh = await settle(world.vfs.opendir(ROOT))
    first = await world.rest(fh)
    world.share.remove("entry-000003")
    world.share.put("new")
    assert [name for name, _, _ in await world.rest(fh, first[1][1])] == names(10)
    anew = [name for name, _, _ in await world.rest(fh, 0)]
    assert "new" in anew
    assert "entry-000003" not in anew
    assert world.share.count("list_directory") == 2
    assert world.share.listings[0].closed


@in_trio
async def test_rewinding_that_fails() -> None:
    world = filled(10)
    fh = await settle(world.vfs.opendir(ROOT))
    await world.rest(fh)
    await world.unlink("entry-000004")
    world.share.fail("list_directory", Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await settle(world.vfs.readdir(fh, 0))
    # The old listing stands, and still knows what we removed.
    assert [name for name, _, _ in await world.rest(fh, 2)] == [name for name in names(10) if not name.endswith("4")]


@pytest.mark.parametrize("room", [1, 20, 100])
@in_trio
async def test_removing_everything_while_others_create(room: int) -> None:
    """As rm -rf does it: read some, remove them, read on, until nothing comes; then once more for what was new."""
    world = filled(1000, page_entries=64)
    made = 0
    fh = await settle(world.vfs.opendir(ROOT))
    cookie, removed = 0, []
    while part := await world.some(fh, cookie, room=room):
        cookie = part[-1][1]
        for name, _, _ in part:
            if name not in (".", ".."):
                await settle(world.vfs.unlink(ROOT, os.fsencode(name)))
                removed.append(name)
            world.share.put(f"foreign-{made:06}")
            made += 1
    assert removed == names(1000)
    assert sorted(world.share.root.children) == [f"foreign-{number:06}" for number in range(made)]


# -- what we change ourselves


@in_trio
async def test_a_write_after_the_listing_is_not_taken_back() -> None:
    world = filled(20)
    fh = await settle(world.vfs.opendir(ROOT))
    file = await world.open("entry-000010", os.O_RDWR)
    await world.write(file, 0, b"y" * 5000)
    world.share.calls.clear()
    found = {name: entry.attr.size for name, _, entry in await world.rest(fh)}
    assert found["entry-000010"] == 5000
    assert found["entry-000011"] == 11
    assert world.share.calls == ["attributes"]  # for that one alone


@in_trio
async def test_a_setattr_after_the_listing_is_not_taken_back() -> None:
    world = filled(20)
    number = await world.number("entry-000010")
    fh = await settle(world.vfs.opendir(ROOT))
    await settle(world.vfs.setattr(number, SetAttr(size=77)))
    found = {name: entry.attr.size for name, _, entry in await world.rest(fh)}
    assert found["entry-000010"] == 77


@in_trio
async def test_what_we_removed_since_is_not_shown() -> None:
    """The kernel would believe the listing, and know a name that is no more."""
    world = filled(20)
    world.share.put("folder", None)
    fh = await settle(world.vfs.opendir(ROOT))
    for name in ("entry-000000", "entry-000010", "entry-000011", "entry-000019"):
        await world.unlink(name)
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    await world.rename("entry-000005", "other")
    await world.rename("entry-000006", "entry-000007")
    found = {name: entry.attr.ino for name, _, entry in await world.rest(fh)}
    gone = {0, 5, 6, 10, 11, 19}
    assert sorted(found) == [".", "..", *(f"entry-{number:06}" for number in range(20) if number not in gone)]
    assert found["entry-000007"] == world.share.find("entry-000007").file_id


@in_trio
async def test_what_we_made_in_its_place_is_shown_as_it_is() -> None:
    world = filled(5)
    fh = await settle(world.vfs.opendir(ROOT))
    await world.unlink("entry-000002")
    file, _ = await world.create("entry-000002")
    await world.write(file, 0, b"new content")
    await world.unlink("entry-000003")
    await settle(world.vfs.mkdir(ROOT, b"entry-000003", 0o755))
    found = {name: entry.attr for name, _, entry in await world.rest(fh)}
    assert found["entry-000002"].size == 11
    assert found["entry-000002"].ino == world.share.find("entry-000002").file_id
    assert found["entry-000003"].mode & 0o170000 == 0o040000


@in_trio
async def test_a_write_while_the_listing_is_on_its_way() -> None:
    """The listing was asked for before the write and arrives after it: its size may be the old one."""
    world = filled(5)
    file = await world.open("entry-000002", os.O_RDWR)
    gate = world.share.hang("write")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.write, file, 0, b"y" * 100)
        await trio.testing.wait_all_tasks_blocked()
        fh = await settle(world.vfs.opendir(ROOT))
        gate.set()
    found = {name: entry.attr.size for name, _, entry in await world.rest(fh)}
    assert found["entry-000002"] == 100


@in_trio
async def test_changes_elsewhere_cost_nothing() -> None:
    world = filled(50)
    world.share.put("folder", None)
    fh = await settle(world.vfs.opendir(ROOT))
    await world.create("folder/file")
    world.share.calls.clear()
    await world.rest(fh)
    assert world.share.calls == []


@in_trio
async def test_old_pages_are_believed_for_less_long() -> None:
    world = World(acregmax=1.0, acdirmax=2.0)
    world.share.put("file")
    fh = await settle(world.vfs.opendir(ROOT))
    await trio.sleep(0.75)
    entry = (await world.some(fh, 2))[0][2]
    assert (entry.entry_timeout, entry.attr_timeout) == (1.25, 0.25)
    await trio.sleep(5)
    entry = (await world.some(fh, 2))[0][2]
    assert (entry.entry_timeout, entry.attr_timeout) == (0.0, 0.0)


# -- servers' ways


@in_trio
async def test_a_server_that_lists_no_dots() -> None:
    world = filled(3)
    world.share.server_dots = False
    fh = await settle(world.vfs.opendir(ROOT))
    assert [name for name, _, _ in await world.rest(fh)] == [".", "..", *names(3)]


@in_trio
async def test_hostile_names_never_reach_the_kernel(expect_log: Callable[[str], None]) -> None:
    for kind in ("an empty name", r"a name that is \. or \.\.", "a name with / or NUL", "a name of more than 255"):
        expect_log(kind)
    world = World(FakeShare(page_entries=4))
    hostile = ["", "/etc/passwd", "../../evil", "a\0b", ".\uf029", "x" * 300, "b/c"]
    for name in ["good-1", *hostile, "good-2", *(f"{n}/{n}" for n in range(20)), "good-3", "z/z"]:
        world.share.root.children[name] = world.share.put("template")
        del world.share.root.children["template"]
    for room in (1, 2, 100):
        assert await world.listing(room=room) == ["good-1", "good-2", "good-3"]
    assert world.trace.dropped_names == 3 * (len(hostile) + 21)
    assert len(world.state.inodes) == 4


@in_trio
async def test_a_directory_of_hostile_names_alone(expect_log: Callable[[str], None]) -> None:
    expect_log("a name with / or NUL")
    world = World(FakeShare(page_entries=3))
    for number in range(10):
        world.share.root.children[f"{number}/"] = world.share.put("template")
        del world.share.root.children["template"]
    assert await world.listing() == []


@in_trio
async def test_a_name_that_is_no_utf16(expect_log: Callable[[str], None]) -> None:
    expect_log("a name that is no UTF-16")
    world = filled(3)
    fh = await settle(world.vfs.opendir(ROOT))
    listing = world.share.listings[0]
    page = bytearray(encode_page([DirectoryEntry(name, 9 + len(name), *[0] * 8) for name in ("one", "odd")]))
    offset = len(page) - 80 - len("odd".encode("utf-16-le"))
    page[offset + 60] -= 1  # FileNameLength of the last entry
    listing.pages[0] = memoryview(bytes(page))
    directory = world.state.directories.get(fh)
    directory.begin(listing, trio.current_time())
    assert [name for name, _, _ in await world.rest(fh)] == [".", "..", "one"]


@in_trio
async def test_ids_that_are_none_or_repeat() -> None:
    world = World()
    for name, file_id in (("none", 0), ("root", 1), ("ones", 2**64 - 1), ("real", 50), ("double", 50)):
        world.share.put(name, file_id=file_id)
    fh = await settle(world.vfs.opendir(ROOT))
    listed = {name: entry.attr.ino for name, _, entry in await world.rest(fh)}
    del listed["."], listed[".."]
    assert len(set(listed.values())) == 5
    assert listed["real"] == 50
    assert ROOT not in listed.values()
    assert {name: await world.number(name) for name in listed} == listed
    for name in listed:
        await world.open(name)


@in_trio
async def test_hard_links_are_one_inode() -> None:
    world = World()
    world.share.root.children["other"] = world.share.put("one")
    fh = await settle(world.vfs.opendir(ROOT))
    listed = {name: entry.attr.ino for name, _, entry in await world.rest(fh)}
    assert listed["one"] == listed["other"]
    assert world.state.inodes.get(listed["one"]).lookups == 2


@in_trio
async def test_a_directory_that_is_another_one_now() -> None:
    world = World()
    world.share.put("folder", None)
    number = await world.number("folder")
    world.share.move("folder", "aside")
    world.share.put("folder", None)
    with fails(errno.ESTALE):
        await settle(world.vfs.opendir(number))
    assert len(world.state.directories) == 0
    assert world.state.inodes.get(number).opens == 0


@in_trio
async def test_a_page_that_fails(expect_log: Callable[[str], None]) -> None:
    expect_log("readdir: ConnectionLost")
    world = filled(300)
    fh = await settle(world.vfs.opendir(ROOT))
    first = await world.rest(fh, room=102)
    assert len(first) == 302
    fh = await settle(world.vfs.opendir(ROOT))
    world.share.fail("next_page", ConnectionLost("gone"))
    part = await world.some(fh, 0, room=1000)
    assert len(part) == 100
    with fails(errno.EIO):
        await settle(world.vfs.readdir(fh, part[-1][1]))


@in_trio
async def test_an_opendir_that_is_refused() -> None:
    world = World()
    world.share.fail("list_directory", Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await settle(world.vfs.opendir(ROOT))
    assert world.vfs.forget([]) is None
    assert len(world.state.directories) == 0


@in_trio
async def test_fsyncdir() -> None:
    world = World()
    fh = await settle(world.vfs.opendir(ROOT))
    assert world.vfs.fsyncdir(fh, False) is None


@in_trio
async def test_a_random_life_of_one_directory() -> None:
    """Listings amid our own creates, removals and renames show what was there all along, and nothing that is gone."""
    chance = random.Random(7)
    world = filled(60, page_entries=16)
    for _ in range(30):
        before = set(world.share.root.children)
        fh = await settle(world.vfs.opendir(ROOT))
        cookie, found, touched = 0, [], set()
        while part := await world.some(fh, cookie, room=chance.randrange(1, 12)):
            cookie = part[-1][1]
            for name, _, entry in part:
                if name not in (".", ".."):
                    assert entry.attr.ino == world.share.find(name).file_id
                    found.append(name)
            victim = chance.choice(sorted(world.share.root.children))
            new = f"new-{chance.randrange(40)}"
            touched |= {victim, new}
            match chance.randrange(3):
                case 0:
                    await world.unlink(victim)
                case 1:
                    await world.rename(victim, new)
                case 2:
                    file, _ = await world.create(new)
                    world.vfs.release(file)
        assert len(found) == len(set(found))
        assert before - touched <= set(found) <= before | touched
        world.vfs.releasedir(fh)


@in_trio
async def test_positions_of_one_listing_do_not_go_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a kernel that keeps what is read would join the beginning of the one and the end of the other."""
    world = World(FakeShare(page_entries=3))
    for number in range(20):
        world.share.put(f"{number:02}")
    bases = [5 << 25, 3 << 25]
    monkeypatch.setattr(world.state.cached, "base", bases.pop)
    fh = await settle(world.vfs.opendir(ROOT))
    seen: list[set[int]] = []
    for base in (3 << 25, 5 << 25):
        found = await world.rest(fh)
        assert [name for name, _, _ in found] == [".", "..", *(f"{number:02}" for number in range(20))]
        assert all(base < position < base + 100 for _, position, _ in found)
        assert [name for name, _, _ in await world.rest(fh, found[9][1])] == [name for name, _, _ in found[10:]]
        seen.append({position for _, position, _ in found})
    assert not seen[0] & seen[1]


@in_trio
async def test_a_position_of_another_listing_leads_on_there_or_as_far_from_the_beginning() -> None:
    """What the kernel has put together it may lose before a reader is through, who then asks on with its position."""
    world = World(FakeShare(page_entries=100))

    async def opened(base: int) -> OpenDirectory:
        world.share.put(f"made before {base}")
        directory = world.state.directories.add(world.state.inodes.root)
        directory.begin(await world.state.list_directory(directory), trio.current_time(), base * BASE)
        return directory

    first, now = await opened(1), await opened(3)
    mine = first.pages
    joined = JoinedListings(world.state, lambda inode: Contents(now))
    assert (joined.place(first, BASE + 7), first.pages) == (7, mine)
    assert (joined.place(first, 2 * BASE + 7), first.pages) == (7, mine)
    assert (joined.place(first, 3 * BASE + 7), first.pages, first.base) == (7, now.pages, now.base)


@pytest.mark.parametrize("when", ["after it", "meanwhile"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
@in_trio
async def test_what_a_directory_was_is_told_to_who_has_opened_it_before_we_removed_it(
    how: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As opendir(3) asks by the descriptor that it has got."""
    world = World()
    world.share.put("folder", None)
    world.share.put("other", None)
    before = await world.look("folder")
    number, verb = before.attr.ino, {"removed": "remove_directory", "replaced": "rename"}[how]
    await world.number("other")
    under_way = world.state.directories.add(world.state.inodes.get(number)).fh  # by somebody whose opendir will fail
    fh = await settle(world.vfs.opendir(number))
    gone, answered, carry_out = trio.Event(), trio.Event(), getattr(world.share, verb)

    async def answer_late(*args: Any, **named: Any) -> None:
        await carry_out(*args, **named)
        gone.set()
        await answered.wait()

    async def remove() -> None:
        if how == "removed":
            await settle(world.vfs.rmdir(ROOT, b"folder"))
        else:
            await settle(world.vfs.rename(ROOT, b"other", ROOT, b"folder", 0))

    monkeypatch.setattr(world.share, verb, answer_late)
    if when == "after it":
        answered.set()
    found: list[Entry] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        await gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, world, number, found)
        await trio.testing.wait_all_tasks_blocked()
        answered.set()
    (told,) = found
    assert told.attr.nlink == 0
    assert (told.attr.mode, told.attr.mtime_ns) == (before.attr.mode, before.attr.mtime_ns)
    for one in (under_way, fh):
        await settle(world.vfs.releasedir(one))
    if how == "removed":
        with fails(errno.ENOENT):
            await world.look("folder")
    with fails(errno.ESTALE):
        await world.stat(number)


async def ask(world: World, number: int, found: list[Entry]) -> None:
    """Ask for attributes."""
    found.append(await world.stat(number))
