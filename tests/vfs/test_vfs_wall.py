"""The wall: every verb ends in time, with a result or an errno, whatever happens below."""

from __future__ import annotations

import errno
import gc
import os
import re
import weakref
from collections.abc import Callable

import pytest
import trio
import trio.lowlevel
from vfs_world import ROOT, World, fails, in_trio

from smb3fs.errors import ConnectionLost, DeadlineExceeded, SecurityError, Status, StatusError, WireError
from smb3fs.trace import Trace
from smb3fs.vfs.attributes import SetAttr
from smb3fs.vfs.wall import Answer, Walled, answers, may_wait, settle, waits

# The call of the share that a verb rests on.
RESTS_ON = {
    "lookup": "lookup",
    "getattr": "lookup",
    "setattr": "set_basic",
    "open": "open",
    "create": "create",
    "mknod": "create",
    "read": "read",
    "write": "write",
    "fsync": "flush",
    "opendir": "list_directory",
    "readdir": "next_page",
    "mkdir": "make_directory",
    "rmdir": "remove_directory",
    "unlink": "remove_file",
    "rename": "rename",
    "statfs": "space",
    "symlink": "make_special",
    "readlink": "read_link",
    "link": "link",
}


async def prepared() -> tuple[World, dict[str, Callable[[], Answer[object]]]]:
    """A mount, and one call of each verb that would succeed."""
    world = World(timeout=30.0)
    for number in range(150):
        world.share.put(f"file{number}", b"content")
    world.share.put("folder", None)
    vfs = world.vfs
    number = await world.number("file1")
    link = (await settle(vfs.symlink(ROOT, b"made link", b"target"))).attr.ino
    fh = await world.open("file2", os.O_RDWR)
    directory = await settle(vfs.opendir(ROOT))
    return world, {
        "lookup": lambda: vfs.lookup(ROOT, b"file1"),
        "getattr": lambda: vfs.getattr(number),
        "setattr": lambda: vfs.setattr(number, SetAttr(mtime_ns=5)),
        "open": lambda: vfs.open(number, os.O_RDONLY),
        "create": lambda: vfs.create(ROOT, b"new", 0o644, os.O_RDWR),
        "mknod": lambda: vfs.mknod(ROOT, b"newer", 0o644),
        "read": lambda: vfs.read(fh, 0, 10),
        "write": lambda: vfs.write(fh, 0, b"x"),
        "fsync": lambda: vfs.fsync(fh, False),
        "opendir": lambda: vfs.opendir(ROOT),
        "readdir": lambda: vfs.readdir(directory, 110),
        "mkdir": lambda: vfs.mkdir(ROOT, b"made", 0o755),
        "rmdir": lambda: vfs.rmdir(ROOT, b"folder"),
        "unlink": lambda: vfs.unlink(ROOT, b"file3"),
        "rename": lambda: vfs.rename(ROOT, b"file4", ROOT, b"file5", 0),
        "statfs": vfs.statfs,
        "symlink": lambda: vfs.symlink(ROOT, b"link", b"target"),
        "readlink": lambda: vfs.readlink(link),
        "link": lambda: vfs.link(number, ROOT, b"second"),
    }


@pytest.mark.parametrize("verb", RESTS_ON)
@in_trio
async def test_a_server_that_does_not_answer(verb: str, expect_log: Callable[[str], None]) -> None:
    expect_log(f"{verb}: no answer within 30 seconds")
    world, calls = await prepared()
    world.share.hang(RESTS_ON[verb])
    began = trio.current_time()
    with fails(errno.ETIMEDOUT):
        await settle(calls[verb]())
    assert trio.current_time() - began == pytest.approx(30.0)
    assert world.trace.errors[-1].text == f"{verb}: no answer within 30 seconds"


@pytest.mark.parametrize("verb", RESTS_ON)
@in_trio
async def test_a_server_that_answers_late_is_in_time(verb: str) -> None:
    world, calls = await prepared()
    world.share.latency = 29.0
    await settle(calls[verb]())


@pytest.mark.parametrize("verb", RESTS_ON)
@pytest.mark.parametrize(
    ("failure", "number", "told"),
    [
        (StatusError(Status.ACCESS_DENIED, "CREATE"), errno.EACCES, None),
        (StatusError(Status.DISK_FULL, "WRITE"), errno.ENOSPC, None),
        (StatusError(0xC0DEC0DE, "CREATE"), errno.EIO, "NTSTATUS 0xc0dec0de"),
        (OSError(errno.ESTALE, "stale"), errno.ESTALE, None),
        (DeadlineExceeded("echo"), errno.ETIMEDOUT, None),
        (SecurityError("a wrong signature"), errno.EIO, "a wrong signature"),
        (WireError("nonsense"), errno.EIO, "nonsense"),
        (ExceptionGroup("", [StatusError(Status.ACCESS_DENIED, "CREATE")]), errno.EACCES, None),
        (KeyError("a mistake of ours"), errno.EIO, "a mistake of ours|nobody foresaw"),
        (MemoryError(), errno.ENOMEM, "nobody foresaw"),
        (ExceptionGroup("", [ValueError("one"), ValueError("two")]), errno.EIO, "nobody foresaw"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@in_trio
async def test_every_failure_is_an_errno(
    verb: str, failure: Exception, number: int, told: str | None, expect_log: Callable[[str], None]
) -> None:
    if told is not None:
        expect_log(told)
    world, calls = await prepared()
    world.share.fail(RESTS_ON[verb], failure)
    with fails(number):
        await settle(calls[verb]())


@in_trio
async def test_what_never_waits_has_the_wall_too(expect_log: Callable[[str], None]) -> None:
    expect_log("access failed for a reason that nobody foresaw")
    world = World()
    del world.vfs._inodes
    with fails(errno.EIO):
        await settle(world.vfs.access(ROOT, 0))


@in_trio
async def test_a_mistake_before_the_first_wait(expect_log: Callable[[str], None]) -> None:
    expect_log("readdir failed for a reason that nobody foresaw")
    world = World()
    fh = await settle(world.vfs.opendir(ROOT))
    world.state.directories.get(fh).pages = None
    world.state.directories.get(fh)._starts = None
    with fails(errno.EIO):
        await settle(world.vfs.readdir(fh, 5))


@in_trio
async def test_numbers_that_nobody_gave_out() -> None:
    world = World()
    for verb, more in ((world.vfs.getattr, ()), (world.vfs.lookup, (b"x",)), (world.vfs.opendir, ())):
        with fails(errno.ESTALE):
            await settle(verb(77, *more))
    with fails(errno.EBADF):
        await settle(world.vfs.write(77, 0, b""))
    with fails(errno.EBADF):
        await settle(world.vfs.read(77, 0, 1))
    for at_once in (world.vfs.release, world.vfs.releasedir, world.vfs.flush):
        with fails(errno.EBADF):
            at_once(77)


@in_trio
async def test_one_line_for_a_thousand_failures(expect_log: Callable[[str], None]) -> None:
    expect_log("statfs: ConnectionLost")
    world = World()
    world.share.fail("space", *[ConnectionLost("gone")] * 1000)
    for _ in range(1000):
        with fails(errno.EIO):
            await settle(world.vfs.statfs())
    assert len(world.trace.errors) == 1


@in_trio
async def test_cancellation_passes_and_leaves_nothing_open() -> None:
    """The end of the mount."""
    world = World()
    world.share.put("file", b"content")
    number = await world.number("file")
    for call in ("truncate", "list_directory"):
        world.share.hang(call)
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle, world.vfs.open(number, os.O_WRONLY | os.O_TRUNC))
            nursery.start_soon(settle, world.vfs.opendir(ROOT))
    assert scope.cancelled_caught
    assert not world.share.opens
    assert len(world.state.files) == len(world.state.directories) == 0


@in_trio
async def test_a_hundred_calls_at_once_do_not_wait_for_each_other() -> None:
    world, calls = await prepared()
    world.share.latency = 10.0
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(settle, calls["getattr"]())
    assert trio.current_time() - began == pytest.approx(10.0)


class Buffer:
    """What a caller's frame holds."""


class Refusing(Walled):
    """Verbs of each kind that fail, holding something meanwhile."""

    held: weakref.ref[Buffer]

    def _fail(self, grouped: bool) -> None:
        buffer = Buffer()
        self.held = weakref.ref(buffer)
        if grouped:
            raise ExceptionGroup("together", [OSError(errno.ENODATA, "refused")])
        raise OSError(errno.ENODATA, "refused")

    @answers
    def at_once(self, grouped: bool) -> None:
        """Fail before there is anything to wait for."""
        self._fail(grouped)

    @waits
    async def later(self, grouped: bool) -> None:
        """Fail while somebody waits."""
        await trio.lowlevel.checkpoint()
        self._fail(grouped)

    @may_wait
    def at_once_or_later(self, grouped: bool) -> Answer[None]:
        """Fail as the first one does."""
        self._fail(grouped)
        return None


@pytest.mark.parametrize("verb", ["at_once", "later", "at_once_or_later"])
@pytest.mark.parametrize("grouped", [False, True])
@in_trio
async def test_a_failure_keeps_nothing_that_its_frames_held(verb: str, grouped: bool) -> None:
    """Without the collector's help: requests are read into buffers of a mebibyte, of which there are few."""
    walled, number = Refusing(30.0, Trace()), None
    gc.disable()
    try:
        await settle(getattr(walled, verb)(grouped))
    except OSError as error:
        number = error.errno
    finally:
        gc.enable()
    assert number == errno.ENODATA
    assert walled.held() is None


@in_trio
async def test_a_mistake_is_counted_and_told_with_its_place(expect_log: Callable[[str], None]) -> None:
    expect_log("statfs failed for a reason that nobody foresaw")
    world = World()
    with world.trace.heeding_the_log():
        world.share.fail("space", StatusError(Status.ACCESS_DENIED, "CREATE"))
        with fails(errno.EACCES):
            await settle(world.vfs.statfs())
        assert world.trace.mistakes == 0
        world.share.fail("space", KeyError("a name that is nobody's business"))
        with fails(errno.EIO):
            await settle(world.vfs.statfs())
    assert (world.trace.mistakes, world.trace.failures) == (1, 1)
    (event,) = world.trace.errors
    assert re.fullmatch(r"statfs failed for a reason that nobody foresaw: KeyError at \w+\.py:\d+", event.text)
