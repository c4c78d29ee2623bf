"""Several spellings of one name: one inode, and no change under one of them that the others outlive."""

from __future__ import annotations

import ctypes
import errno
import os
import unicodedata

import pytest
from fake_share import FakeShare
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.fuse import callers
from smb3fs.vfs.anticipation import ENOUGH
from smb3fs.vfs.spelling import Changes, is_short, key
from smb3fs.vfs.wall import settle
from smb3fs.wire.infoclass import FileFsAttributeInformation


class Told:
    """What the kernel is told to forget."""

    def __init__(self, world: World) -> None:
        self.names: list[str] = []
        world.vfs.attach(self.forget, lambda process, name: False)

    def forget(self, parent: int, name: bytes) -> None:
        assert parent == ROOT
        self.names.append(name.decode())


def folding(**options: object) -> tuple[World, Told]:
    """A mount of a server that takes no notice of case, with two files."""
    world = World(FakeShare(case_sensitive=False, page_entries=3), **options)
    world.share.put("Name", b"content")
    world.share.put("Other", b"other")
    return world, Told(world)


def test_what_spellings_have_in_common() -> None:
    assert key("Name") == key("nAME")
    assert key("GRÜSSE") == key("grüße")
    assert key(unicodedata.normalize("NFD", "É")) == key("é")
    assert key("a") != key("b")


@pytest.mark.parametrize("name", ["FOO~1.TXT", "FOOBAR~1", "a~1", "ALONGN~X.TEX"])
def test_names_that_the_server_may_have_made_up(name: str) -> None:
    assert is_short(name)


@pytest.mark.parametrize("name", ["file~", "~file", ".foo~1", "averylong~1.txt", "FOO~1.TEXT", "name", "name.txt"])
def test_names_that_it_has_not(name: str) -> None:
    assert not is_short(name)


def test_changes_are_remembered_in_all_spellings() -> None:
    changes, more = Changes(), Changes()
    assert not changes
    assert "name" not in changes
    changes.add("Name")
    assert changes
    assert "NAME" in changes
    assert "other" not in changes
    more.add("OTHER~1")
    changes |= more
    assert "whatever" in changes


@in_trio
async def test_all_spellings_are_one_inode_and_asked_for_each_time() -> None:
    world, _ = folding()
    first = await world.look("Name")
    assert first.entry_timeout > 0
    for spelling in ("NAME", "name", "Name"):
        entry = await world.look(spelling)
        assert entry.attr.ino == first.attr.ino
        assert entry.entry_timeout == 0.0
    assert (await world.look("Other")).entry_timeout > 0
    assert "list_directory" not in world.share.calls


@pytest.mark.parametrize("by", ["Name", "NAME"])
@in_trio
async def test_a_removal_reaches_the_other_spellings(by: str) -> None:
    world, told = folding()
    for spelling in ("Name", "NAME", "Other"):
        await world.look(spelling)
    await settle(world.vfs.unlink(ROOT, by.encode()))
    assert told.names == [{"Name": "NAME", "NAME": "Name"}[by]]
    assert world.state.inodes.root.child("Name") is None
    assert world.state.inodes.root.child("NAME") is None
    for spelling in ("Name", "NAME"):
        with fails(errno.ENOENT):
            await world.look(spelling)


@in_trio
async def test_the_removal_of_an_open_file_does_too() -> None:
    world, told = folding()
    fh = await world.open("Name")
    await world.look("NAME")
    await settle(world.vfs.unlink(ROOT, b"NAME"))
    assert told.names == ["Name"]
    with fails(errno.ENOENT):
        await world.look("Name")
    assert await world.read(fh) == b"content"


@in_trio
async def test_a_rename_reaches_the_other_spellings_on_both_sides() -> None:
    world, told = folding()
    for spelling in ("Name", "NAME", "Other", "OTHER"):
        await world.look(spelling)
    await settle(world.vfs.rename(ROOT, b"NAME", ROOT, b"OTHER", 0))
    assert sorted(told.names) == ["Name", "Other"]
    with fails(errno.ENOENT):
        await world.look("Name")
    assert await world.read(await world.open("Other")) == b"content"


@in_trio
async def test_a_failure_forgets_nothing() -> None:
    world, told = folding()
    for spelling in ("Name", "NAME"):
        await world.look(spelling)
    world.share.fail("remove_file", OSError(errno.EACCES, "no"))
    with fails(errno.EACCES):
        await settle(world.vfs.unlink(ROOT, b"Name"))
    assert told.names == []
    assert world.state.inodes.root.child("NAME") is not None


@in_trio
async def test_a_change_of_case_alone() -> None:
    """The kernel would do nothing if both spellings were one inode."""
    world, told = folding()
    number = await world.number("Name")
    world.state.is_respelling = lambda process, name: (process, name) == (7, b"NAME")
    assert (await settle(world.vfs.lookup(ROOT, b"NAME", 6))).attr.ino == number
    with fails(errno.ENOENT):
        await settle(world.vfs.lookup(ROOT, b"NAME", 7))
    await settle(world.vfs.rename(ROOT, b"Name", ROOT, b"NAME", 0))
    assert sorted(world.share.walk()) == ["NAME", "Other"]
    assert await world.number("NAME") == number
    assert told.names == []
    # Whoever finds it spelled so by now is not denied it.
    assert (await settle(world.vfs.lookup(ROOT, b"NAME", 7))).attr.ino == number
    assert all(listing.closed for listing in world.share.listings)


@in_trio
async def test_a_server_that_tells_them_apart() -> None:
    world = World()
    told = Told(world)
    world.share.put("name")
    world.share.put("NAME")
    one, other = await world.look("name"), await world.look("NAME")
    assert one.attr.ino != other.attr.ino
    assert other.entry_timeout > 0
    await world.unlink("NAME")
    assert told.names == []
    assert (await world.look("name")).attr.ino == one.attr.ino
    assert "list_directory" not in world.share.calls


@in_trio
async def test_an_open_listing_does_not_show_what_went_under_another_spelling() -> None:
    world, _ = folding()
    fh = await settle(world.vfs.opendir(ROOT))
    await settle(world.vfs.unlink(ROOT, b"NAME"))
    assert [name for name, _, _ in await world.rest(fh)] == [".", "..", "Other"]


@in_trio
async def test_a_held_listing_answers_for_no_name_that_it_does_not_have() -> None:
    """Nor for one that may have been changed under another name."""
    world = World(FakeShare(case_sensitive=False))
    for number in range(100):
        world.share.put(f"long name {number:02}")
    world.share.short_names = {"LONGNA~1": "long name 77"}
    for number in range(2 * ENOUGH):
        await world.look(f"long name {number:02}")
    assert world.share.count("list_directory") == 1

    asked = world.share.count("lookup")
    number = await world.number("long name 77")
    assert world.share.count("lookup") == asked  # the listing has it
    assert await world.number("LONGNA~1") == number
    assert await world.number("LONG NAME 77") == number
    with fails(errno.ENOENT):
        await world.look("absent")
    assert world.share.count("lookup") == asked + 3

    told = Told(world)
    await settle(world.vfs.unlink(ROOT, b"LONGNA~1"))
    assert sorted(told.names) == ["LONG NAME 77", "long name 77"]
    with fails(errno.ENOENT):
        await world.look("long name 77")


@in_trio
async def test_nocase_on_a_server_that_tells_spellings_apart() -> None:
    world = World(nocase=True)
    told = Told(world)
    world.share.put("Name", b"content")
    entry = await world.look("NAME")
    assert entry.entry_timeout == 0.0
    assert await world.number("Name") == entry.attr.ino
    fh = await world.open("name")
    assert await world.read(fh) == b"content"
    await settle(world.vfs.release(fh))
    with fails(errno.ENOENT):
        await world.look("absent")
    world.share.put("Taken")
    await settle(world.vfs.rename(ROOT, b"NAME", ROOT, b"TAKEN", 0))
    assert list(world.share.walk()) == ["Taken"]
    assert told.names == ["Name"]
    await settle(world.vfs.unlink(ROOT, b"TAKEN"))
    assert list(world.share.walk()) == []
    assert told.names == ["Name", "Taken"]


@in_trio
async def test_nocase_with_the_posix_extensions() -> None:
    world = World(nocase=True)
    world.vfs.use_posix()
    world.share.put("Name", b"content")
    assert await world.number("NAME") == await world.number("Name")
    await settle(world.vfs.unlink(ROOT, b"NAME"))
    assert list(world.share.walk()) == []


@in_trio
async def test_nocase_leaves_it_to_a_server_that_does_not() -> None:
    world, _ = folding(nocase=True)
    with fails(errno.ENOENT):
        await world.look("absent")
    assert world.state.server_folds  # one listing and one more lookup have told
    listings = world.share.count("list_directory")
    with fails(errno.ENOENT):
        await world.look("absent")
    assert await world.number("NAME")
    assert world.share.count("list_directory") == listings


@in_trio
async def test_a_file_system_that_says_so_is_believed() -> None:
    world, _ = folding(nocase=True)
    world.state.learn(FileFsAttributeInformation(0x2, 255, "FAT"))
    with fails(errno.ENOENT):
        await world.look("absent")
    assert "list_directory" not in world.share.calls
    for volume in (None, FileFsAttributeInformation(0x3, 255, "NTFS")):
        world, _ = folding()
        world.state.learn(volume)
        assert world.state.server_folds is None


@pytest.mark.parametrize(
    ("path", "last"), [(b"a/b/Name", b"Name"), (b"Name", b"Name"), (b"/x//Name//", b"Name"), (b"", b"")]
)
def test_the_last_name_of_a_path_in_memory(path: bytes, last: bytes) -> None:
    text = ctypes.create_string_buffer(path)
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        assert callers._last_component(memory.fileno(), ctypes.addressof(text)) == last


def test_who_is_in_no_rename() -> None:
    assert not callers.is_respelling(os.getpid(), b"name")
    assert not callers.is_respelling(0, b"name")
    assert not callers.is_respelling(2**22 + 1, b"name")  # beyond the kernel's largest
    assert not callers.is_respelling(os.getpid(), b"name", "unheard-of")


def test_who_has_not_gone_to_sleep_yet_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ctypes.create_string_buffer(b"d/name"), ctypes.create_string_buffer(b"d/NAME")
    waits = f"82 {ctypes.addressof(old):#x} {ctypes.addressof(new):#x} 0x0 0x0 0x0 0x0 0x0 0x0\n"
    told = iter(["running\n", "running\n", waits])
    monkeypatch.setattr(callers.Path, "read_text", lambda _: next(told))
    assert callers.is_respelling(os.getpid(), b"NAME", "x86_64")
