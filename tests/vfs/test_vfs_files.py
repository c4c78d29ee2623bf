"""Open files: every flag, which file is opened, and what becomes of handles."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import trio
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import ConnectionLost, Status
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.files import HEAD_SIZE
from smb3fs.vfs.opening import OpenResult
from smb3fs.vfs.wall import Answer, settle
from smb3fs.wire.create import FileAttribute


@in_trio
async def test_write_read_close() -> None:
    world = World()
    fh, entry = await world.create("file")
    assert entry.attr.size == 0
    assert await world.write(fh, 0, b"hello") == 5
    assert await world.write(fh, 7, b"world") == 5
    assert await world.read(fh) == b"hello\0\0world"
    assert await world.read(fh, 7, 2) == b"wo"
    assert await world.read(fh, 100) == b""
    await settle(world.vfs.release(fh))
    assert not world.share.opens
    assert bytes(world.share.find("file").data) == b"hello\0\0world"
    with fails(errno.EBADF):
        await world.read(fh)


@in_trio
async def test_release_queues_the_close_before_it_returns() -> None:
    world = World()
    fh, _ = await world.create("file")
    assert world.vfs.release(fh) is None
    assert world.share.calls[-1] == "close"
    assert len(world.state.files) == 0


@in_trio
async def test_round_trips_of_a_small_file() -> None:
    world = World()
    fh, _ = await world.create("file")
    await world.write(fh, 0, b"x")
    world.vfs.release(fh)
    assert world.share.calls == ["create", "write", "close"]
    number = await world.number("file")
    world.share.calls.clear()
    opened = await settle(world.vfs.open(number, os.O_RDONLY))
    await world.read(opened.fh)
    world.vfs.release(opened.fh)
    assert world.share.calls == ["open", "close"]  # the open has brought the contents along


@in_trio
async def test_what_an_open_brings_along() -> None:
    world = World(acregmax=1.0)
    content = os.urandom(HEAD_SIZE - 1)
    world.share.put("small", content)
    fh = await world.open("small")
    world.share.calls.clear()
    for offset, size in ((0, 100), (1000, 4096), (0, 1 << 20), (HEAD_SIZE - 10, 100), (HEAD_SIZE, 1)):
        assert await world.read(fh, offset, size) == content[offset : offset + size]
    assert world.share.calls == []
    await trio.sleep(1.5)  # nothing is shown for longer than attributes are believed
    world.share.find("small").data[:4] = b"NEW!"
    assert await world.read(fh, 0, 4) == b"NEW!"
    assert world.share.calls == ["read"]


@in_trio
async def test_what_an_open_brings_along_of_a_large_file() -> None:
    world = World()
    content = os.urandom(HEAD_SIZE + 5)
    world.share.put("large", content)
    fh = await world.open("large")
    world.share.calls.clear()
    assert await world.read(fh, 0, HEAD_SIZE) == content[:HEAD_SIZE]
    assert world.share.calls == []
    assert await world.read(fh, 10, HEAD_SIZE) == content[10 : HEAD_SIZE + 10]
    assert world.share.calls == ["read"]
    assert world.state.files.get(fh).handle.head is None


class Pages:
    """A kernel that takes pages, unless it is told not to."""

    def __init__(self, world: World, *, takes: bool = True) -> None:
        self.stored: list[tuple[int, bytes]] = []
        self.takes = takes
        world.vfs.attach(lambda _parent, _name: None, lambda _process, _name: False, store_pages=self.store)

    def store(self, number: int, data: memoryview) -> bool:
        self.stored.append((number, bytes(data)))
        return self.takes


@in_trio
async def test_a_small_file_is_handed_over_with_its_first_open() -> None:
    world = World()
    pages = Pages(world)
    world.share.put("small", b"content")
    number = await world.number("small")
    first = await settle(world.vfs.open(number, os.O_RDONLY))
    assert pages.stored == [(number, b"content")]
    assert first.keep_cache
    # Who asks all the same has found that the file is another one by now.
    world.share.find("small").data[:] = b"changed"
    assert await world.read(first.fh) == b"changed"
    # By the second time the kernel has pages, which may be of any age and be waited for.
    second = await settle(world.vfs.open(number, os.O_RDONLY))
    assert len(pages.stored) == 1
    assert not second.keep_cache


@pytest.mark.parametrize("size", [0, HEAD_SIZE, HEAD_SIZE + 1])
@in_trio
async def test_what_is_empty_or_large_is_not_handed_over(size: int) -> None:
    world = World()
    pages = Pages(world)
    world.share.put("file", bytes(size))
    opened = await settle(world.vfs.open(await world.number("file"), os.O_RDONLY))
    assert pages.stored == []
    assert not opened.keep_cache


@pytest.mark.parametrize(
    ("flags", "options"), [(os.O_RDWR, {}), (os.O_DIRECT, {}), (os.O_RDONLY, {"cache": "none"})], ids=str
)
@in_trio
async def test_opens_that_hand_nothing_over(flags: int, options: dict[str, str]) -> None:
    world = World(**options)
    pages = Pages(world)
    world.share.put("file", b"content")
    number = await world.number("file")
    for flag in (flags, os.O_RDONLY):  # and then it is not the first open any more
        assert not (await settle(world.vfs.open(number, flag))).keep_cache
    assert pages.stored == []


@in_trio
async def test_pages_that_the_kernel_does_not_take() -> None:
    world = World()
    Pages(world, takes=False)
    world.share.put("file", b"content")
    opened = await settle(world.vfs.open(await world.number("file"), os.O_RDONLY))
    assert not opened.keep_cache
    world.share.calls.clear()
    assert await world.read(opened.fh) == b"content"
    assert world.share.calls == []


@pytest.mark.parametrize("meanwhile", ["lookup", "getattr", "listing", "write"])
@in_trio
async def test_nothing_is_handed_over_that_may_be_older_than_what_was_told_meanwhile(meanwhile: str) -> None:
    """The kernel drops pages by the attributes that it is told: those that come after these it would keep for ever."""
    world = World()
    pages = Pages(world)
    world.share.put("file", b"content")
    world.share.put("other", b"")
    number = await world.number("file")
    writer = await world.open("other", os.O_WRONLY)
    gate = world.share.hang("open")
    async with trio.open_nursery() as nursery:
        opened: list[OpenResult] = []

        async def open_it() -> None:
            opened.append(await settle(world.vfs.open(number, os.O_RDONLY)))

        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()
        match meanwhile:
            case "lookup":
                await world.look("file")
            case "getattr":
                await world.stat(number)
            case "listing":
                await world.listing()
            case "write":
                await world.write(writer, 0, b"x")
        gate.set()
    assert pages.stored == []
    assert not opened[0].keep_cache
    world.share.find("file").data[:] = b"CONTENT"
    assert await world.read(opened[0].fh) == b"CONTENT"  # nor is it read from what the open has brought along


@pytest.mark.parametrize("change", ["write", "truncate", "truncate by path", "O_TRUNC"])
@in_trio
async def test_what_an_open_brought_along_is_old_after_a_change_of_ours(change: str) -> None:
    world = World()
    world.share.put("file", b"old content")
    fh = await world.open("file")
    number = await world.number("file")
    match change:
        case "write":
            await world.write(await world.open("file", os.O_WRONLY), 0, b"NEW")
        case "truncate":
            await settle(world.vfs.setattr(number, SetAttr(size=3), await world.open("file", os.O_WRONLY)))
        case "truncate by path":
            await settle(world.vfs.setattr(number, SetAttr(size=3)))
        case "O_TRUNC":
            await world.open("file", os.O_WRONLY | os.O_TRUNC)
    assert await world.read(fh) == bytes(world.share.find("file").data)


@in_trio
async def test_what_an_open_brings_along_amid_a_write_of_ours() -> None:
    """Asked for before the write is done, arriving after it: nobody knows which contents these are."""
    world = World()
    world.share.put("file", b"old content")
    writer = await world.open("file", os.O_WRONLY)
    number = await world.number("file")
    gate = world.share.hang("write")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.write, writer, 0, b"NEW")
        await trio.testing.wait_all_tasks_blocked()
        fh = (await settle(world.vfs.open(number, os.O_RDONLY))).fh
        gate.set()
    assert await world.read(fh) == b"NEW content"


@pytest.mark.parametrize(
    ("flags", "options"), [(os.O_RDWR, {}), (os.O_DIRECT, {}), (os.O_RDONLY, {"cache": "none"})], ids=str
)
@in_trio
async def test_opens_that_bring_nothing_along(flags: int, options: dict[str, str]) -> None:
    world = World(**options)
    world.share.put("file", b"content")
    fh = await world.open("file", flags)
    assert await world.read(fh) == b"content"
    assert world.share.calls[-1] == "read"


@pytest.mark.parametrize(
    ("flags", "writable", "direct"),
    [
        (os.O_RDONLY, False, False),
        (os.O_WRONLY, True, False),
        (os.O_RDWR, True, False),
        (os.O_ACCMODE, True, False),
        (os.O_RDONLY | os.O_TRUNC, True, False),
        (os.O_RDONLY | os.O_DIRECT, False, True),
        (os.O_WRONLY | os.O_APPEND, True, True),
        (os.O_RDWR | os.O_APPEND, True, False),
        (os.O_WRONLY | os.O_SYNC, True, False),
    ],
)
@in_trio
async def test_open_flags(flags: int, writable: bool, direct: bool) -> None:
    world = World()
    world.share.put("file", b"content")
    opened = await settle(world.vfs.open(await world.number("file"), flags))
    assert opened.direct_io is direct
    assert not opened.keep_cache
    assert world.state.files.get(opened.fh).handle.writable is writable
    assert len(world.share.find("file").data) == (0 if flags & os.O_TRUNC else 7)


@in_trio
async def test_cache_none_goes_past_the_page_cache() -> None:
    world = World(cache="none")
    world.share.put("file")
    assert (await settle(world.vfs.open(await world.number("file"), os.O_RDONLY))).direct_io


@in_trio
async def test_exclusive_creation() -> None:
    world = World()
    world.share.put("file", b"theirs")
    with fails(errno.EEXIST):
        await world.create("file", os.O_RDWR | os.O_EXCL)
    fh, entry = await world.create("file", os.O_RDWR)  # somebody was faster, and we may share it
    assert entry.attr.size == 6
    assert await world.read(fh) == b"theirs"
    fh, entry = await world.create("file", os.O_RDWR | os.O_TRUNC)
    assert entry.attr.size == 0
    assert bytes(world.share.find("file").data) == b""


@in_trio
async def test_creation_without_write_permission() -> None:
    world = World(file_mode=0o644)
    fh, entry = await world.create("object", os.O_WRONLY | os.O_EXCL, 0o444)
    assert entry.attr.mode & 0o777 == 0o444
    assert await world.write(fh, 0, b"data") == 4
    world.vfs.release(fh)
    assert world.share.find("object").attributes == FileAttribute.READONLY
    with fails(errno.EACCES):
        await world.open("object", os.O_WRONLY)


@in_trio
async def test_creating_where_a_directory_is() -> None:
    world = World()
    world.share.put("folder", None)
    with fails(errno.EISDIR):
        await world.create("folder")


@in_trio
async def test_mknod() -> None:
    world = World()
    entry = await settle(world.vfs.mknod(ROOT, b"file", 0o100644))
    assert entry.attr.ino == world.share.find("file").file_id
    assert not world.share.opens
    assert world.state.inodes.get(entry.attr.ino).lookups == 1
    with fails(errno.EEXIST):
        await settle(world.vfs.mknod(ROOT, b"file", 0o644))


@in_trio
async def test_another_file_in_its_place_is_not_touched() -> None:
    """Others may rename any parent: the server's file id decides, before anything is read, written or truncated."""
    world = World()
    world.share.put("folder", None)
    world.share.put("folder\\file", b"ours")
    number = await world.number("folder/file")
    world.share.move("folder", "aside")
    world.share.put("folder", None)
    theirs = world.share.put("folder\\file", b"SOMEBODY ELSE'S")
    before = theirs.told()
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        with fails(errno.ESTALE):
            await settle(world.vfs.open(number, flags))
    for changes in (SetAttr(size=0), SetAttr(mtime_ns=5), SetAttr(mode=0o555)):
        with fails(errno.ESTALE):
            await settle(world.vfs.setattr(number, changes))
    with fails(errno.ESTALE):
        await world.stat(number)
    assert theirs.told() == before
    assert not world.share.opens
    assert (await world.stat(await world.number("aside/file"))).attr.ino == number


@in_trio
async def test_a_reused_id_under_another_name_is_another_file() -> None:
    """Server file systems give the id of a deleted file to the next one; the creation time tells them apart."""
    world = World()
    world.share.put("old", b"old", file_id=500)
    number = await world.number("old")
    world.share.remove("old")
    world.share.put("new", b"new", file_id=500)
    assert await world.number("new") != number
    with fails(errno.ESTALE):
        await settle(world.vfs.open(number, os.O_RDONLY))


@pytest.mark.parametrize("look_first", [True, False])
@in_trio
async def test_a_file_of_a_reused_id_is_known_under_the_name_of_the_former_one(look_first: bool) -> None:
    """Another client has removed the one, and given its name to the other, which is open here: it is set aside."""
    world = World()
    world.share.holds = True
    world.share.put("old", b"old", file_id=500)
    number = await world.number("old")
    world.share.remove("old")
    world.share.put("new", b"new", file_id=500)
    fh = await world.open("new", os.O_RDWR)
    world.share.move("new", "old")
    if look_first:
        assert await world.number("old") == world.state.files.get(fh).inode.number != number
    else:  # the kernel believes the old name still, and opens what it stood for
        with fails(errno.ESTALE):
            await settle(world.vfs.open(number, os.O_RDONLY))
        await world.look("old")
    await settle(world.vfs.unlink(ROOT, b"old"))
    assert await world.listing() == []
    assert await world.read(fh) == b"new"
    await settle(world.vfs.release(fh))
    assert list(world.share.walk()) == []


@in_trio
async def test_a_server_without_ids_is_asked_for_the_creation_time() -> None:
    world = World()
    world.share.put("file", b"old", file_id=0)
    number = await world.number("file")
    theirs = world.share.put("file", b"new", file_id=0)
    for verb in (world.vfs.open(number, os.O_WRONLY | os.O_TRUNC), world.vfs.getattr(number)):
        with fails(errno.ESTALE):
            await settle(verb)
    assert bytes(theirs.data) == b"new"
    assert not world.share.opens
    assert await world.number("file") != number


@in_trio
async def test_a_creation_time_that_moves_changes_nothing() -> None:
    world = World()
    node = world.share.put("folder", None)
    number = await world.number("folder")
    for _ in range(3):
        node.created = world.share.tick()
        assert await world.number("folder") == number
        node.created = world.share.tick()
        world.vfs.releasedir(await settle(world.vfs.opendir(number)))
        assert (await world.stat(number)).attr.ino == number


@in_trio
async def test_a_directory_in_the_place_of_a_file() -> None:
    world = World()
    world.share.put("name")
    number = await world.number("name")
    world.share.put("name", None)
    for verb in (world.vfs.open(number, os.O_RDONLY), world.vfs.getattr(number)):
        with fails(errno.ESTALE):
            await settle(verb)
    world.share.put("name")
    with fails(errno.ESTALE):
        await settle(world.vfs.opendir(number))


@in_trio
async def test_a_file_that_is_gone() -> None:
    world = World()
    world.share.put("file")
    number = await world.number("file")
    world.share.remove("file")
    with fails(errno.ESTALE):
        await world.stat(number)
    with fails(errno.ESTALE):
        await settle(world.vfs.open(number, os.O_RDONLY))
    with fails(errno.ENOENT):
        await world.look("file")


@in_trio
async def test_a_parent_that_is_gone() -> None:
    """By name in a directory that moved: ESTALE, so that the kernel walks the path anew; below the root ENOENT."""
    world = World()
    world.share.put("folder", None)
    world.share.put("folder\\file")
    folder = await world.number("folder")
    world.share.remove("folder")
    for verb in (
        world.vfs.lookup(folder, b"file"),
        world.vfs.create(folder, b"new", 0o644, os.O_RDWR),
        world.vfs.mkdir(folder, b"new", 0o755),
        world.vfs.unlink(folder, b"file"),
        world.vfs.rmdir(folder, b"file"),
        world.vfs.rename(folder, b"file", ROOT, b"file", 0),
    ):
        with fails(errno.ESTALE):
            await settle(verb)
    with fails(errno.ENOENT):
        await settle(world.vfs.unlink(ROOT, b"folder"))


@in_trio
async def test_the_other_name_of_a_hard_link_is_tried() -> None:
    world = World()
    node = world.share.put("one", b"linked")
    world.share.root.children["two"] = node
    number = await world.number("one")
    assert await world.number("two") == number
    world.share.remove("two")
    assert (await world.stat(number)).attr.size == 6
    assert await world.read((await settle(world.vfs.open(number, os.O_RDONLY))).fh) == b"linked"


@in_trio
async def test_an_open_file_is_found_while_its_name_is_on_the_way() -> None:
    """fstat(2) names an inode, not a descriptor: with the name gone, any handle of it answers."""
    world = World()
    world.share.put("file", b"content")
    await world.open("file", os.O_RDONLY)
    number = await world.number("file")
    world.share.remove("file")
    assert (await world.stat(number)).attr.size == 7


@in_trio
async def test_a_rename_of_ours_under_way() -> None:
    """A path that was right when the request was made and is not when it arrives."""
    world = World()
    world.share.put("old", b"content")
    number = await world.number("old")
    gate = world.share.hang("lookup")
    found = []

    async def stat() -> None:
        found.append((await world.stat(number)).attr.size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stat)
        await trio.testing.wait_all_tasks_blocked()
        await settle(world.vfs.rename(ROOT, b"old", ROOT, b"new", 0))
        gate.set()
    assert found == [7]


@in_trio
async def test_requests_leave_in_the_order_of_the_verbs() -> None:
    """Up to its first request a verb does not give way."""
    world = World()
    world.share.put("a")
    number = await world.number("a")
    world.share.calls.clear()
    verbs: list[Answer[object]] = [
        world.vfs.getattr(number),
        world.vfs.open(number, os.O_RDONLY),
        world.vfs.rename(ROOT, b"a", ROOT, b"b", 0),
        world.vfs.create(ROOT, b"a", 0o644, os.O_RDWR),
        world.vfs.mkdir(ROOT, b"c", 0o755),
        world.vfs.opendir(ROOT),
        world.vfs.statfs(),
    ]
    queued = []

    async def run(verb: Answer[object]) -> None:
        # The verb runs from here to its first wait, and then the loop below goes on.
        started.set()
        await settle(verb)

    for call in ("lookup", "open", "rename", "create", "make_directory", "list_directory", "space"):
        world.share.hang(call)
    async with trio.open_nursery() as nursery:
        for verb in verbs:
            started = trio.Event()
            nursery.start_soon(run, verb)
            await started.wait()
            queued.append(world.share.calls[-1])
        for gate in world.share.gates.values():
            gate.set()
    assert queued == ["lookup", "open", "rename", "create", "make_directory", "list_directory", "space"]


@in_trio
async def test_the_size_comes_from_a_handle_that_writes() -> None:
    world = World()
    fh, entry = await world.create("file")
    await world.write(fh, 0, b"x" * 1000)
    world.share.calls.clear()
    assert (await world.stat(entry.attr.ino)).attr.size == 1000
    assert world.share.calls == ["attributes"]


@in_trio
async def test_append_goes_to_the_servers_end() -> None:
    world = World()
    world.share.put("log", b"one\n")
    fh = await world.open("log", os.O_WRONLY | os.O_APPEND)
    world.share.find("log").data += b"theirs\n"
    await world.write(fh, 4, b"two\n")
    await world.write(fh, 8, b"three\n")
    assert bytes(world.share.find("log").data) == b"one\ntheirs\ntwo\nthree\n"


@in_trio
async def test_fsync_and_o_sync() -> None:
    world = World()
    fh, _ = await world.create("file", os.O_RDWR)
    reader = await world.open("file")
    await settle(world.vfs.fsync(fh, False))
    await settle(world.vfs.fsync(reader, True))  # what was written through the other one is what counts
    assert world.share.count("flush") == 2
    world.vfs.release(fh)
    assert world.vfs.fsync(reader, False) is None
    await settle(world.vfs.write(await world.open("file", os.O_WRONLY | os.O_SYNC), 0, b"x"))
    assert world.share.count("flush") == 2  # the kernel sends an fsync by itself
    await settle(world.vfs.write(await world.open("file", os.O_WRONLY | os.O_SYNC | os.O_DIRECT), 0, b"x"))
    assert world.share.count("flush") == 3  # past the page cache it does not


@in_trio
async def test_flush_is_not_asked_for_again() -> None:
    world = World()
    fh, _ = await world.create("file")
    with fails(errno.ENOSYS):
        await settle(world.vfs.flush(fh))


@in_trio
async def test_after_a_reconnect(expect_log: Callable[[str], None]) -> None:
    """Open files answer EIO; the same files by path are well."""
    for verb in ("read", "write", "fsync", "setattr"):
        expect_log(f"{verb}: ConnectionLost: the file was opened on a connection that is gone")
    world = World()
    world.share.put("file", b"content")
    fh = await world.open("file", os.O_RDWR)
    number = await world.number("file")
    world.share.lose_connection()
    for verb in (world.vfs.read(fh, 0, 10), world.vfs.write(fh, 0, b"x"), world.vfs.fsync(fh, False)):
        with fails(errno.EIO):
            await settle(verb)
    world.trace.errors.clear()
    assert (await world.stat(number)).attr.size == 7
    assert (await settle(world.vfs.setattr(number, SetAttr(mtime_ns=5)))).attr.mtime_ns == 5
    assert (await settle(world.vfs.setattr(number, SetAttr(size=3)))).attr.size == 3
    with fails(errno.EIO):
        await settle(world.vfs.setattr(number, SetAttr(size=1), fh))  # ftruncate(2) means that descriptor
    world.vfs.release(fh)
    assert await world.read(await world.open("file")) == b"con"


@pytest.mark.parametrize("failure", [Status.DISK_FULL, Status.ACCESS_DENIED, ConnectionLost("gone")])
@in_trio
async def test_o_trunc_that_fails_leaves_no_handle(
    failure: Status | ConnectionLost, expect_log: Callable[[str], None]
) -> None:
    if isinstance(failure, ConnectionLost):
        expect_log("open: ConnectionLost: gone")
        expect_log("create: ConnectionLost: gone")
    world = World()
    world.share.put("file", b"content")
    world.share.fail("truncate", failure, failure)
    number = await world.number("file")
    with pytest.raises(OSError, match=r"."):
        await settle(world.vfs.open(number, os.O_WRONLY | os.O_TRUNC))
    with pytest.raises(OSError, match=r"."):
        await world.create("file", os.O_WRONLY | os.O_TRUNC)
    assert not world.share.opens
    assert len(world.state.files) == 0
    assert world.state.inodes.get(number).opens == 0


@in_trio
async def test_an_inode_lives_until_it_is_closed_and_forgotten() -> None:
    world = World()
    fh, entry = await world.create("file")
    world.vfs.forget([(entry.attr.ino, 1)])
    assert await world.write(fh, 0, b"x") == 1
    assert len(world.state.inodes) == 2
    world.vfs.release(fh)
    assert len(world.state.inodes) == 1


@in_trio
async def test_two_descriptors_of_one_file() -> None:
    world = World()
    one, entry = await world.create("file")
    two = await world.open("file", os.O_RDWR)
    assert one != two
    world.vfs.release(one)
    await world.write(two, 0, b"x")
    assert (await world.stat(entry.attr.ino)).attr.size == 1
