"""mkdir, rmdir, unlink and rename, above all where SMB would not do what POSIX asks for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import trio
import trio.testing
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.vfs.namespace import RENAME_NOREPLACE
from smb3fs.vfs.wall import settle
from smb3fs.wire.create import FileAttribute

READONLY = int(FileAttribute.READONLY)


def hidden(world: World) -> list[str]:
    """The names of ours on the server."""
    return [name for name in world.share.walk() if ".smb3fs-" in name]


@in_trio
async def test_mkdir_and_rmdir() -> None:
    world = World()
    entry = await settle(world.vfs.mkdir(ROOT, b"folder", 0o700))
    assert entry.attr.mode == 0o040755
    assert entry.attr.ino == world.share.find("folder").file_id
    with fails(errno.EEXIST):
        await settle(world.vfs.mkdir(ROOT, b"folder", 0o700))
    fh, _ = await world.create("folder/file")
    world.vfs.release(fh)
    with fails(errno.ENOTEMPTY):
        await settle(world.vfs.rmdir(ROOT, b"folder"))
    await world.unlink("folder/file")
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    assert list(world.share.walk()) == []
    assert world.share.calls.count("remove_directory") == 2


@in_trio
async def test_one_round_trip_each() -> None:
    world = World()
    for name in ("a", "b"):
        world.share.put(name)
        await world.look(name)
    world.share.calls.clear()
    await settle(world.vfs.mkdir(ROOT, b"folder", 0o755))
    await settle(world.vfs.rmdir(ROOT, b"folder"))
    await settle(world.vfs.unlink(ROOT, b"a"))
    await settle(world.vfs.rename(ROOT, b"b", ROOT, b"c", 0))
    assert world.share.calls == ["make_directory", "remove_directory", "remove_file", "rename"]


@in_trio
async def test_unlink_of_what_is_no_file() -> None:
    world = World()
    world.share.put("folder", None)
    with fails(errno.EISDIR):
        await settle(world.vfs.unlink(ROOT, b"folder"))
    with fails(errno.ENOENT):
        await settle(world.vfs.unlink(ROOT, b"absent"))
    world.share.put("file")
    with fails(errno.ENOTDIR):
        await settle(world.vfs.rmdir(ROOT, b"file"))


# -- removing what is open


@in_trio
async def test_an_open_file_is_removed_at_once_and_stays_usable() -> None:
    world = World()
    fh, entry = await world.create("file")
    await world.write(fh, 0, b"content")
    await world.unlink("file")
    with fails(errno.ENOENT):
        await world.look("file")
    assert len(hidden(world)) == 1  # the server keeps it until the close
    assert await world.listing() == []  # and the kernel does not see that
    assert await world.read(fh) == b"content"
    await world.write(fh, 7, b"!")
    assert (await world.stat(entry.attr.ino)).attr.size == 8
    again, other = await world.create("file")  # the name is free
    assert other.attr.ino != entry.attr.ino
    world.vfs.release(fh)
    assert hidden(world) == []
    assert list(world.share.walk()) == ["file"]
    assert not world.state.aside
    world.vfs.release(again)


@in_trio
async def test_an_unlinked_file_that_is_only_read() -> None:
    world = World()
    world.share.put("file", b"content")
    fh = await world.open("file")
    number = await world.number("file")
    await world.unlink("file")
    assert (await world.stat(number)).attr.size == 7
    assert await world.read(fh) == b"content"
    world.vfs.release(fh)
    with fails(errno.ESTALE):
        await world.stat(number)


@in_trio
async def test_a_server_that_renames_no_open_file_deletes_it_later() -> None:
    world = World()
    fh, _ = await world.create("file")
    world.share.fail("rename", Status.SHARING_VIOLATION)
    await world.unlink("file")
    assert hidden(world) == []
    assert list(world.share.walk()) == ["file"]
    world.vfs.release(fh)
    assert list(world.share.walk()) == []


@in_trio
async def test_an_open_file_that_must_not_be_deleted_gets_its_name_back() -> None:
    world = World()
    fh, _ = await world.create("file")
    world.share.fail("remove_file", Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.unlink("file")
    assert list(world.share.walk()) == ["file"]
    assert await world.listing() == ["file"]
    assert world.state.files.get(fh).inode is world.state.inodes.get(await world.number("file"))


@in_trio
async def test_one_of_two_names_of_an_open_file() -> None:
    world = World()
    world.share.root.children["two"] = world.share.put("one", b"content")
    fh = await world.open("one")
    assert await world.number("two") == await world.number("one")
    await world.unlink("one")
    with fails(errno.ENOENT):
        await world.look("one")
    assert await world.read(fh) == b"content"


# -- rename


@in_trio
async def test_rename_replaces() -> None:
    world = World()
    world.share.put("old", b"old")
    world.share.put("new", b"new")
    number = await world.number("old")
    await world.rename("old", "new")
    assert list(world.share.walk()) == ["new"]
    assert await world.number("new") == number
    assert (await world.stat(number)).attr.size == 3


@in_trio
async def test_noreplace() -> None:
    world = World()
    world.share.put("old")
    world.share.put("new")
    with fails(errno.EEXIST):
        await world.rename("old", "new", RENAME_NOREPLACE)
    await world.rename("old", "newer", RENAME_NOREPLACE)
    assert sorted(world.share.walk()) == ["new", "newer"]


@pytest.mark.parametrize("flags", [2, 3, 4, 8])
@in_trio
async def test_flags_that_cannot_be_had(flags: int) -> None:
    """RENAME_EXCHANGE and RENAME_WHITEOUT, and whatever comes."""
    world = World()
    world.share.put("a")
    world.share.put("b")
    with fails(errno.EINVAL):
        await world.rename("a", "b", flags)
    assert world.share.count("rename") == 0


@in_trio
async def test_kinds_do_not_replace_each_other() -> None:
    world = World()
    world.share.put("file")
    world.share.put("folder", None)
    with fails(errno.EISDIR):
        await world.rename("file", "folder")
    with fails(errno.ENOTDIR):
        await world.rename("folder", "file")
    assert world.share.count("rename") == 0


@in_trio
async def test_a_name_that_others_have_taken_from_the_file_is_no_second_one() -> None:
    world = World()
    world.share.put("one")
    await world.look("one")
    world.share.move("one", "other")
    number = await world.number("other")
    assert number == (await world.look("other")).attr.ino
    with fails(errno.ESTALE):  # on which the kernel looks both names up again
        await settle(world.vfs.rename(ROOT, b"other", ROOT, b"one", 0))
    await settle(world.vfs.rename(ROOT, b"other", ROOT, b"one", 0))
    assert list(world.share.walk()) == ["one"]


@in_trio
async def test_two_names_of_one_file_stay() -> None:
    world = World()
    world.share.root.children["two"] = world.share.put("one")
    await world.rename("one", "two")
    assert sorted(world.share.walk()) == ["one", "two"]


@in_trio
async def test_between_directories_with_what_is_below() -> None:
    world = World()
    for path in ("a", "b", "a\\deep"):
        world.share.put(path, None)
    world.share.put("a\\deep\\file", b"content")
    number = await world.number("a/deep/file")
    fh = await world.open("a/deep/file", os.O_RDWR)
    await world.rename("a/deep", "b/moved")
    assert (await world.stat(number)).attr.size == 7
    assert await world.read(fh) == b"content"
    await settle(world.vfs.open(number, os.O_RDONLY))
    assert next(world.state.inodes.paths(world.state.inodes.get(number))) == "b\\moved\\file"
    with fails(errno.ENOENT):
        await world.look("a/deep")


@in_trio
async def test_onto_an_empty_directory() -> None:
    """POSIX replaces it, SMB does not."""
    world = World()
    world.share.put("full", None)
    world.share.put("full\\file")
    world.share.put("empty", None)
    number = await world.number("full")
    await world.rename("full", "empty")
    assert sorted(world.share.walk()) == ["empty", "empty\\file"]
    assert await world.number("empty") == number


@in_trio
async def test_onto_a_full_directory() -> None:
    world = World()
    world.share.put("empty", None)
    world.share.put("full", None)
    world.share.put("full\\file")
    with fails(errno.ENOTEMPTY):
        await world.rename("empty", "full")
    assert sorted(world.share.walk()) == ["empty", "full", "full\\file"]


@in_trio
async def test_a_directory_that_cannot_be_replaced_after_all_is_there_again() -> None:
    world = World()
    world.share.put("one", None)
    world.share.put("two", None)
    world.share.fail("rename", Status.OBJECT_NAME_COLLISION, Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.rename("one", "two")
    assert sorted(world.share.walk()) == ["one", "two"]


@in_trio
async def test_a_directory_in_the_way_that_somebody_else_removes() -> None:
    world = World()
    world.share.put("one", None)
    world.share.put("two", None)
    world.share.before = lambda call: world.share.remove("two") and None if call == "remove_directory" else None
    await world.rename("one", "two")
    assert sorted(world.share.walk()) == ["two"]


@in_trio
async def test_onto_an_open_file() -> None:
    """An editor's save, while a reader has the old version open."""
    world = World()
    world.share.put("letter", b"old")
    world.share.put("letter.new", b"newer")
    reader = await world.open("letter")
    old = await world.number("letter")
    await world.rename("letter.new", "letter")
    assert await world.read(reader) == b"old"
    assert (await world.stat(old)).attr.size == 3
    assert (await world.look("letter")).attr.size == 5
    assert await world.listing() == ["letter"]
    world.vfs.release(reader)
    assert list(world.share.walk()) == ["letter"]
    assert not world.state.aside


@in_trio
async def test_onto_a_read_only_file() -> None:
    world = World()
    world.share.put("old", b"old").attributes = READONLY
    world.share.put("new", b"newer")
    await world.rename("new", "old")
    assert list(world.share.walk()) == ["old"]
    assert (await world.look("old")).attr.size == 5
    assert not world.state.aside


@in_trio
async def test_a_refusal_that_the_target_did_not_cause() -> None:
    world = World()
    world.share.put("one")
    world.share.put("two")
    world.share.fail("rename", Status.ACCESS_DENIED, Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.rename("one", "two")
    assert sorted(world.share.walk()) == ["one", "two"]
    assert not world.state.aside


@in_trio
async def test_onto_a_file_that_is_being_opened_or_open_elsewhere() -> None:
    """The server refuses, and nothing on this side tells why: its open is under way, or another client's."""
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"other")
    world.share.fail("rename", Status.ACCESS_DENIED)
    await world.rename("one", "two")
    assert list(world.share.walk()) == ["two"]
    assert (await world.look("two")).attr.size == 3
    assert not world.state.aside


@in_trio
async def test_an_open_target_is_put_back_if_the_rename_fails_after_all() -> None:
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"two")
    fh = await world.open("two", os.O_RDWR)
    world.share.fail("rename", Status.ACCESS_DENIED, None, Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.rename("one", "two")
    assert sorted(world.share.walk()) == ["one", "two"]
    assert sorted(await world.listing()) == ["one", "two"]
    assert await world.read(fh) == b"two"
    assert not world.state.aside


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("verb", ["unlink", "rename"])
@in_trio
async def test_the_answer_to_setting_aside_is_lost(verb: str, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is asked whether it was done, so that the name goes once, and nothing stays behind."""
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"two")
    fh = await world.open("two", os.O_RDWR)
    real, lost = world.share.rename, [ConnectionLost("gone")]

    async def rename(old: str, new: str, *, replace: bool, **_: int | None) -> None:
        """Lose the answer of the first to a hidden name."""
        if ".smb3fs-" not in new or not lost:
            return await real(old, new, replace=replace)
        if done:
            await real(old, new, replace=replace)
        raise lost.pop()

    monkeypatch.setattr(world.share, "rename", rename)
    if verb == "unlink":
        await world.unlink("two")
    else:
        await world.rename("one", "two")
    assert lost == []
    assert await world.listing() == ["one" if verb == "unlink" else "two"]
    assert await world.read(fh) == b"two"
    world.vfs.release(fh)
    assert hidden(world) == []


@in_trio
async def test_an_open_target_that_cannot_be_put_back_is_not_lost(expect_log: Callable[[str], None]) -> None:
    expect_log(r"what was 'two' may be called \.smb3fs-[0-9a-f]{16} now")
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"two")
    await world.open("two", os.O_RDWR)
    world.share.fail("rename", Status.ACCESS_DENIED, None, Status.ACCESS_DENIED, Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.rename("one", "two")
    listed = await world.listing()
    assert "one" in listed
    assert len(listed) == 2  # it is shown under the name that it has


@in_trio
async def test_a_replaced_file_that_cannot_be_deleted_is_shown(expect_log: Callable[[str], None]) -> None:
    expect_log(r"what was 'two' may be called \.smb3fs-")
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"two!")
    await world.open("two", os.O_RDWR)
    world.share.fail("remove_file", Status.ACCESS_DENIED)
    await world.rename("one", "two")
    assert (await world.look("two")).attr.size == 3
    assert len(await world.listing()) == 2


@pytest.mark.parametrize("step", range(4))
@in_trio
async def test_a_server_that_falls_silent_in_the_middle(step: int, expect_log: Callable[[str], None]) -> None:
    """Whatever happened until then, nothing has vanished from the listing for good."""
    expect_log("rename: no answer within 30 seconds")
    if step > 1:
        expect_log("may be called")
    world = World()
    world.share.put("one", b"one")
    world.share.put("two", b"two!")
    await world.open("two", os.O_RDWR)
    calls = 0

    def before(call: str) -> None:
        nonlocal calls
        calls += call in ("rename", "remove_file")
        if calls == step + 1:
            world.share.hang(call)

    world.share.before = before
    with fails(errno.ETIMEDOUT):
        await world.rename("one", "two")
    world.share.before = lambda call: None
    world.share.gates.clear()
    assert len(await world.listing()) == len(list(world.share.walk()))
    assert not world.state.aside


# -- failures


@pytest.mark.parametrize("failure", [Status.ACCESS_DENIED, ConnectionLost("gone")])
@in_trio
async def test_what_fails_changes_no_bookkeeping(
    failure: Status | ConnectionLost, expect_log: Callable[[str], None]
) -> None:
    if isinstance(failure, ConnectionLost):
        for verb in ("unlink", "rmdir", "rename", "mkdir"):
            expect_log(f"{verb}: ConnectionLost")
    world = World()
    world.share.put("file")
    world.share.put("folder", None)
    file, folder = await world.number("file"), await world.number("folder")
    for call in ("remove_file", "remove_directory", "rename", "make_directory"):
        world.share.fail(call, failure)
    for verb in (
        world.vfs.unlink(ROOT, b"file"),
        world.vfs.rmdir(ROOT, b"folder"),
        world.vfs.rename(ROOT, b"file", ROOT, b"elsewhere", 0),
        world.vfs.mkdir(ROOT, b"new", 0o755),
    ):
        with pytest.raises(OSError, match=r"."):
            await settle(verb)
    assert (await world.stat(file)).attr.ino == file
    assert (await world.stat(folder)).attr.ino == folder
    await trio.lowlevel.checkpoint()


@in_trio
async def test_renaming_in_a_directory_that_is_gone() -> None:
    world = World()
    world.share.put("file")
    world.share.put("folder", None)
    folder = await world.number("folder")
    await world.look("file")
    world.share.remove("folder")
    with fails(errno.ESTALE):
        await settle(world.vfs.rename(ROOT, b"file", folder, b"file", 0))


@in_trio
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_EXCL])
async def test_a_name_whose_file_was_removed_and_is_open_elsewhere_is_waited_for(flags: int) -> None:
    world = World()
    old = world.share.put("a", b"old")
    theirs = await world.share.open("a", read=True, write=False, expect=None)
    await world.share.remove_file("a")
    with fails(errno.EBUSY):
        await world.create("a", flags)
    with fails(errno.ENOENT):
        await world.look("a")

    async def close() -> None:
        await trio.sleep(0.5)
        world.share.close(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        fh, entry = await world.create("a", flags)
    assert entry.attr.ino != old.file_id
    assert entry.attr.size == 0
    await settle(world.vfs.release(fh))


@in_trio
async def test_what_is_there_is_there_at_once() -> None:
    world = World()
    world.share.put("a")
    began = trio.current_time()
    with fails(errno.EEXIST):
        await world.create("a", os.O_EXCL)
    assert trio.current_time() == began


@in_trio
async def test_what_goes_while_it_is_being_looked_at_is_in_nobodys_way() -> None:
    world = World()
    world.share.fail("create", Status.OBJECT_NAME_COLLISION)
    fh, _ = await world.create("a", os.O_RDWR | os.O_EXCL)
    await settle(world.vfs.release(fh))


@in_trio
async def test_what_is_in_the_way_and_not_shown_is_not_waited_for() -> None:
    world = World()
    world.share.fail("create", *[Status.OBJECT_NAME_COLLISION] * 10)
    began = trio.current_time()
    with fails(errno.EEXIST):
        await world.create("a", os.O_RDWR | os.O_EXCL)
    assert trio.current_time() == began


@in_trio
async def test_an_open_meets_a_file_before_its_rename_or_after_it() -> None:
    world = World()
    world.share.put("a", b"data")
    number = await world.number("a")
    gate = world.share.gates["rename"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.rename, "a", "b")
        await trio.sleep(1)
        world.share.move("a", "b")  # the server has done it, and its answer is on the way

        async def answer() -> None:
            await trio.sleep(1)
            world.share.move("b", "a")
            gate.set()

        nursery.start_soon(answer)
        opened = await settle(world.vfs.open(number, os.O_RDONLY))
    assert await world.read(opened.fh) == b"data"
    await settle(world.vfs.release(opened.fh))
    assert not world.state._moves


@in_trio
async def test_two_names_of_one_open_file_are_set_aside_at_once() -> None:
    world = World()
    node = world.share.put("a", b"data")
    world.share.root.children["b"] = node
    fh = await world.open("a")
    await world.look("b")
    gate = world.share.gates["remove_file"] = trio.Event()
    async with trio.open_nursery() as nursery:
        for name in (b"a", b"b"):
            nursery.start_soon(lambda name=name: settle(world.vfs.unlink(ROOT, name)))
        await trio.sleep(1)
        assert len(hidden(world)) == 2
        assert await world.listing() == []
        gate.set()
    await settle(world.vfs.release(fh))
    assert not world.state.aside


@pytest.mark.parametrize("step", ["rename", "remove_file"])
@in_trio
async def test_a_signal_does_not_leave_a_file_set_aside(step: str) -> None:
    world = World()
    fh, _ = await world.create("file")
    gate = world.share.hang(step)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: settle(world.vfs.unlink(ROOT, b"file")))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()  # which reaches whoever waits at once
        gate.set()
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []
    assert not world.state.aside


@in_trio
async def test_nor_is_the_server_waited_for_beyond_that(expect_log: Callable[[str], None]) -> None:
    expect_log("the server did not do what was to follow")
    world = World()
    fh, _ = await world.create("file")
    gate = world.share.hang("remove_file")
    with trio.move_on_after(1) as scope:
        await settle(world.vfs.unlink(ROOT, b"file"))
    assert scope.cancelled_caught
    assert trio.current_time() < 20
    assert len(hidden(world)) == 1
    gate.set()
    await settle(world.vfs.release(fh))


@pytest.mark.parametrize("step", ["rename", "remove_file"])
@in_trio
async def test_what_is_given_up_is_removed_later_and_not_shown(step: str) -> None:
    """Whoever asked learns that it was not done in time; that it is done after all is seen to."""
    world = World()
    world.share.removes_later = True
    fh, _ = await world.create("file")
    world.share.hang(step)
    with trio.move_on_after(1) as scope:
        await settle(world.vfs.unlink(ROOT, b"file"))
    assert scope.cancelled_caught
    ((path, number),) = world.share.to_be_removed
    assert path.startswith(".smb3fs-")
    assert number == world.share.find(hidden(world)[0] if step == "remove_file" else "file").file_id
    world.share.gates.clear()
    assert await world.listing() == ([] if step == "remove_file" else ["file"])
    await settle(world.vfs.release(fh))
    assert await world.listing() == ([] if step == "remove_file" else ["file"])


@in_trio
async def test_what_is_refused_and_cannot_be_put_back_in_time_is_removed_later_and_not_shown() -> None:
    """Samba refuses after 35 s what a process that is gone stands in the way of, each time."""
    world = World()
    world.share.removes_later = True
    fh, _ = await world.create("file")

    def refuse(call: str) -> None:
        if call == "remove_file":
            world.share.hang("rename")
            raise StatusError(Status.ACCESS_DENIED, "SET_INFO")

    world.share.before = refuse
    with trio.move_on_after(1) as scope:
        await settle(world.vfs.unlink(ROOT, b"file"))
    assert scope.cancelled_caught
    ((path, number),) = world.share.to_be_removed
    assert [path] == hidden(world)
    assert number == world.share.find(path).file_id
    world.share.gates.clear()
    assert await world.listing() == []
    await settle(world.vfs.release(fh))


@in_trio
async def test_what_can_neither_be_removed_nor_put_back_over_losses_is_removed_later_and_not_shown(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("unlink: ConnectionLost")
    world = World()
    world.share.removes_later = True
    fh, _ = await world.create("file")
    renames: list[str] = []

    def lose(call: str) -> None:
        renames.extend([call] * (call == "rename"))
        if call == "remove_file" or (call == "rename" and len(renames) == 2):
            raise ConnectionLost("the connection was lost")

    world.share.before = lose
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await settle(world.vfs.unlink(ROOT, b"file"))
    assert [path for path, _ in world.share.to_be_removed] == hidden(world)
    assert await world.listing() == []
    await settle(world.vfs.release(fh))


@in_trio
async def test_what_was_only_to_be_replaced_is_never_removed_for_that(expect_log: Callable[[str], None]) -> None:
    expect_log("may be called")
    world = World()
    world.share.removes_later = True
    world.share.put("one", b"one")
    world.share.put("two", b"two!")
    await world.open("two", os.O_RDWR)
    renames: list[str] = []

    def refuse(call: str) -> None:
        if call == "rename":
            renames.append(call)
            if len(renames) == 4:
                world.share.hang("rename")
            elif len(renames) != 2:
                raise StatusError(Status.ACCESS_DENIED, "SET_INFO")

    world.share.before = refuse
    with trio.move_on_after(1):
        await world.rename("one", "two")
    assert len(renames) == 4, "onto it, aside, into its place, back"
    assert not world.share.to_be_removed
    assert len(hidden(world)) == 1


@pytest.mark.parametrize("lost", [False, True])
@in_trio
async def test_a_replaced_file_is_removed_later_where_that_may_succeed(
    lost: bool, expect_log: Callable[[str], None]
) -> None:
    """What the server has refused is shown instead, and so is what was not replaced."""
    world = World()
    world.share.removes_later = True
    world.share.put("one", b"one")
    world.share.put("two", b"two!")
    await world.open("two", os.O_RDWR)
    if lost:
        world.share.before = _lose
    else:
        expect_log("may be called")
        world.share.fail("remove_file", Status.ACCESS_DENIED)
    await world.rename("one", "two")
    assert len(world.share.to_be_removed) == lost
    assert len(await world.listing()) == 2 - lost


def _lose(call: str) -> None:
    """Lose the connection at each removal."""
    if call == "remove_file":
        raise ConnectionLost("the connection was lost")
