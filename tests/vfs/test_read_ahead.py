"""Reading ahead, on a scripted server: what is asked for, how much of it at a time, and when nothing of it is shown."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from vfs_world import World, fails, in_trio

from smb3fs.cache.read_ahead import CHUNK, PAGE, SURE, ReadAhead, Stream
from smb3fs.errors import Status
from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.vfs.wall import settle
from smb3fs.wire.lease import LeaseState

KIB = 1 << 10
MIB = 1 << 20
R = int(LeaseState.READ)
RH = int(LeaseState.READ | LeaseState.HANDLE)
MOST = 16 * MIB


def content(size: int) -> bytes:
    """Bytes that tell where they stand."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@dataclass
class Told:
    """What the stream needs to know of the attributes."""

    size: int


class Handle:
    """An open with a lease."""

    def __init__(self, size: int, lease: Lease | None) -> None:
        self.attributes_at_open = Told(size)
        self.lease = lease
        self.lost = ""


@dataclass
class File:
    """An inode."""

    changes: int = 0


class Server:
    """Holds what was asked for until it is told to answer."""

    def __init__(self, size: int, most: int = MOST, *, limit: int = 8 * MIB) -> None:
        self.data = content(size)
        self.limit = limit
        self.refuses = False
        self.most_pending = 1 << 30
        self.asked: list[tuple[int, int]] = []
        self.pending: list[tuple[int, int, Callable[[memoryview | None], None]]] = []
        self.leases = LeaseTable()
        self.lease = Lease(bytes(16), "file", state=RH)
        self.ahead = ReadAhead(self.ask, most)
        self.ahead.watch(self.leases)
        self.file = File()

    def ask(
        self, _handle: Open, offset: int, size: int, came: Callable[[memoryview | None], None], least: int = 0
    ) -> int:
        if self.refuses or (not least and len(self.pending) >= self.most_pending):
            return 0
        size = min(size, self.limit)
        self.asked.append((offset, size))
        self.pending.append((offset, size, came))
        return size

    def answer(self, count: int = 1 << 30, *, fails: bool = False) -> None:
        """Answer so many of what is pending."""
        for _ in range(min(count, len(self.pending))):
            offset, size, came = self.pending.pop(0)
            came(None if fails else memoryview(self.data[offset : offset + size]))

    def open(self) -> Stream:
        handle: Any = Handle(len(self.data), self.lease)
        stream = self.ahead.stream(handle, self.file)
        assert stream is not None
        return stream

    def change(self, new: int, reason: Reason = Reason.BROKEN) -> None:
        """Change the lease as the table does."""
        old, self.lease.state = self.lease.state, new
        for subscriber in self.leases._subscribers:
            subscriber(self.lease, old, new, reason)

    def read(self, stream: Stream, offset: int, size: int) -> bytes | None:
        """Read as the verb does, with a server that answers as soon as somebody waits; None: not from the stream."""
        wanted = stream.look(offset, size)
        if wanted is None:
            return None
        while not wanted.over:
            self.answer(1)
        parts = stream.take(wanted, offset, size)
        return None if parts is None else b"".join(parts)


def flight(server: Server) -> int:
    """How many bytes are under way."""
    return sum(size for _, size, _ in server.pending)


@in_trio
async def test_the_window_grows_with_the_stream_up_to_its_bound() -> None:
    server = Server(96 * MIB)
    stream = server.open()
    assert server.read(stream, 0, 128 * KIB) is None
    assert not server.asked
    offset, most = 128 * KIB, 0
    while offset < 64 * MIB:
        assert server.read(stream, offset, 128 * KIB) == server.data[offset : offset + 128 * KIB]
        offset += 128 * KIB
        most = max(most, flight(server))
        assert server.ahead.held <= MOST + 2 * CHUNK
    assert MOST - 2 * CHUNK < most <= MOST + CHUNK
    # ... by large requests.
    assert len(server.asked) < 64 + 16 + 20
    assert server.ahead.wasted == 0


@in_trio
async def test_who_reads_here_and_there_has_none() -> None:
    server = Server(20 * MIB)
    stream = server.open()
    for number in range(100):
        # Also pieces of a megabyte, which come in parts.
        start = (number * 7 % 17) * MIB + 4096
        for part in range(8):
            assert server.read(stream, start + part * 128 * KIB, 128 * KIB) is None
    assert not server.asked


@in_trio
async def test_in_the_middle_it_takes_a_megabyte_to_believe_it() -> None:
    server = Server(20 * MIB)
    stream = server.open()
    offset = 5 * MIB
    while offset - 5 * MIB < SURE:
        assert server.read(stream, offset, 256 * KIB) is None
        offset += 256 * KIB
    assert server.read(stream, offset, 256 * KIB) == server.data[offset : offset + 256 * KIB]


def streaming(server: Server, until: int = 4 * MIB) -> Stream:
    """A stream that has begun, with what is ahead of it still under way."""
    stream = server.open()
    server.read(stream, 0, 128 * KIB)
    for offset in range(128 * KIB, until, 128 * KIB):
        assert server.read(stream, offset, 128 * KIB) == server.data[offset : offset + 128 * KIB]
    assert server.pending
    return stream


@in_trio
async def test_what_could_not_be_asked_for_is_when_something_comes_in() -> None:
    server = Server(20 * MIB)
    server.most_pending = 2
    stream = server.open()
    for offset in range(0, 4 * MIB, 128 * KIB):
        assert server.read(stream, offset, 128 * KIB) in (None, server.data[offset : offset + 128 * KIB])
        assert len(server.pending) <= 2
    # Nobody reads, and the window fills all the same, in its order.
    while server.pending:
        server.answer(1)
    assert stream.window > 2 * CHUNK
    assert sum(size for _, size in server.asked) + 128 * KIB >= 4 * MIB + stream.window - CHUNK
    assert [offset for offset, _ in server.asked] == sorted(offset for offset, _ in server.asked)
    asked = len(server.asked)
    assert server.read(stream, 4 * MIB, 128 * KIB) == server.data[4 * MIB : 4 * MIB + 128 * KIB]
    assert len(server.asked) <= asked + 1


@in_trio
async def test_many_reads_at_a_time_are_asked_for_in_their_order_as_there_is_room() -> None:
    server = Server(40 * MIB, limit=256 * KIB)
    server.most_pending = 4
    stream = server.open()
    assert server.read(stream, 0, MIB) is None
    # As the kernel does where it reads ahead: all of it now, and nothing has come of the first.
    waits = [stream.look(offset, MIB) for offset in range(MIB, 9 * MIB, MIB)]
    assert len(server.pending) == 4
    answered = 0
    for number, wanted in enumerate(waits, 1):
        assert wanted is not None
        while not wanted.over:
            server.answer(1)
            answered += 1
            assert len(server.pending) <= 4
        # Nothing of the later ones has been in the way of it.
        assert answered <= 4 * number
        assert b"".join(stream.take(wanted, number * MIB, MIB) or ()) == server.data[number * MIB : (number + 1) * MIB]
    assert [offset for offset, _ in server.asked] == sorted({offset for offset, _ in server.asked})


@in_trio
async def test_who_waits_for_what_is_not_asked_for_yet_is_woken_when_it_ends() -> None:
    for ends in ("break", "failure", "no room for ever"):
        server = Server(40 * MIB, limit=64 * KIB)
        server.most_pending = 1
        stream = server.open()
        assert server.read(stream, 0, MIB) is None
        waits = [stream.look(offset, MIB) for offset in range(MIB, 5 * MIB, MIB)]
        if ends == "break":
            server.change(0)
        elif ends == "failure":
            server.answer(1, fails=True)
        else:
            server.refuses = True
            server.answer()
        for number, wanted in enumerate(waits, 1):
            assert wanted is not None
            assert wanted.over
            assert stream.take(wanted, number * MIB, MIB) is None
        server.answer()
        assert (server.ahead.held, stream.asked) == (0, 0)


@in_trio
async def test_what_a_reader_waits_for_is_asked_for_in_any_case() -> None:
    server = Server(20 * MIB)
    server.most_pending = 0
    stream = server.open()
    assert server.read(stream, 0, 128 * KIB) is None
    for offset in range(128 * KIB, 4 * MIB, 128 * KIB):
        assert server.read(stream, offset, 128 * KIB) == server.data[offset : offset + 128 * KIB]


@in_trio
async def test_who_moves_on_drops_what_was_fetched() -> None:
    server = Server(20 * MIB)
    stream = streaming(server)
    # One read elsewhere is not yet the end of it.
    assert server.read(stream, 18 * MIB, 4096) is None
    assert stream.asked
    assert server.read(stream, 4 * MIB, 128 * KIB) == server.data[4 * MIB : 4 * MIB + 128 * KIB]
    server.answer()
    assert server.ahead.held
    assert server.read(stream, 17 * MIB, 4096) is None
    assert server.read(stream, 17 * MIB + 4096, 4096) is None
    assert (stream.asked, server.ahead.held) == (0, 0)
    assert server.ahead.wasted > 0
    assert server.read(stream, 4 * MIB + 128 * KIB, 128 * KIB) is None


@in_trio
async def test_each_open_has_its_own() -> None:
    server = Server(20 * MIB)
    one, two = streaming(server), server.open()
    server.answer()
    offset = 10 * MIB
    while server.read(two, offset, 256 * KIB) is None:
        offset += 256 * KIB
    assert offset < 12 * MIB
    assert server.read(one, 4 * MIB, 128 * KIB) == server.data[4 * MIB : 4 * MIB + 128 * KIB]
    assert server.read(two, offset + 256 * KIB, 256 * KIB) is not None
    # Neither had to begin again for the other's sake.
    assert len({start for start, _ in server.asked}) == len(server.asked)


@in_trio
async def test_nothing_is_shown_when_r_had_a_gap() -> None:
    for reason in (Reason.BROKEN, Reason.SUSPENDED, Reason.MISSED, Reason.RELEASED):
        server = Server(20 * MIB)
        stream = streaming(server)
        server.answer(2)
        waits = stream.look(4 * MIB, 128 * KIB)
        assert waits is not None
        server.change(0, reason)
        # Whoever waits is woken, to ask the server himself; what comes late is for nobody.
        assert waits.over
        assert stream.take(waits, 4 * MIB, 128 * KIB) is None
        server.answer()
        assert (server.ahead.held, stream.asked) == (0, 0)
        server.change(RH, Reason.GRANTED)
        assert stream.take(waits, 4 * MIB, 128 * KIB) is None
        assert server.read(stream, 4 * MIB + 128 * KIB, 128 * KIB) is None


@in_trio
async def test_the_loss_of_h_alone_changes_nothing() -> None:
    server = Server(20 * MIB)
    stream = streaming(server)
    server.change(R)
    assert server.read(stream, 4 * MIB, 128 * KIB) == server.data[4 * MIB : 4 * MIB + 128 * KIB]


@in_trio
async def test_a_change_of_ours_ends_it_at_any_moment() -> None:
    server = Server(20 * MIB)
    stream = streaming(server)
    waits = stream.look(4 * MIB, 128 * KIB)
    assert waits is not None
    server.answer()
    server.file.changes += 1
    assert stream.take(waits, 4 * MIB, 128 * KIB) is None
    assert (server.ahead.held, stream.asked) == (0, 0)


@in_trio
async def test_without_r_nothing_is_asked_for() -> None:
    server = Server(20 * MIB)
    server.lease.state = 0
    stream = server.open()
    for offset in range(0, 8 * MIB, 128 * KIB):
        assert server.read(stream, offset, 128 * KIB) is None
    assert not server.asked


@in_trio
async def test_an_error_is_for_who_asks() -> None:
    server = Server(20 * MIB)
    stream = streaming(server)
    server.answer(fails=True)
    assert (server.ahead.held, stream.asked) == (0, 0)
    assert server.read(stream, 4 * MIB, 128 * KIB) is None
    server.refuses = True
    for offset in range(4 * MIB + 128 * KIB, 8 * MIB, 128 * KIB):
        assert server.read(stream, offset, 128 * KIB) is None
    assert server.ahead.held == 0


@in_trio
async def test_the_end_is_asked_for_once_and_nothing_beyond_it() -> None:
    for size in (3 * MIB, 3 * MIB + 1, 3 * MIB - 5000, 300 * KIB):
        server = Server(size)
        stream = server.open()
        found = bytearray(server.data[: 128 * KIB])
        assert server.read(stream, 0, 128 * KIB) is None
        for offset in range(128 * KIB, size, 128 * KIB):
            found += server.read(stream, offset, 128 * KIB) or b""
        if size % (128 * KIB) == 0:
            assert server.read(stream, size, 128 * KIB) is None
        assert bytes(found) == server.data or size % PAGE == 0
        assert sum(size for _, size in server.asked) <= -(-size // PAGE) * PAGE - 128 * KIB
        assert server.ahead.wasted == 0


@in_trio
async def test_a_file_that_became_shorter_ends_where_the_server_says() -> None:
    server = Server(8 * MIB)
    stream = server.open()
    server.data = server.data[: 2 * MIB + 100]
    server.read(stream, 0, MIB)
    assert server.read(stream, MIB, MIB) == server.data[MIB : 2 * MIB]
    assert server.read(stream, 2 * MIB, MIB) == server.data[2 * MIB :]
    assert server.read(stream, 3 * MIB, MIB) == b""


@in_trio
async def test_all_streams_together_are_bounded_and_the_idle_make_room() -> None:
    server = Server(8 * MIB, MIB)
    streams = [server.open() for _ in range(20)]
    for stream in streams:
        for offset in range(0, 4 * MIB, 128 * KIB):
            server.read(stream, offset, 128 * KIB)
            assert server.ahead.held <= 4 * MIB
    server.answer()
    assert server.ahead.held
    await trio.sleep(10)
    last = server.open()
    for offset in range(0, 4 * MIB, 128 * KIB):
        server.read(last, offset, 128 * KIB)
    assert last.asked


@in_trio
async def test_the_window_stops_where_chunks_wait_for_each_other() -> None:
    server = Server(96 * MIB)
    stream = server.open()
    server.read(stream, 0, MIB)
    for offset in range(MIB, 64 * MIB, MIB):
        wanted = stream.look(offset, MIB)
        assert wanted is not None
        while not wanted.over:
            await trio.sleep(0.1)  # a chunk, on a link that carries one at a time
            server.answer(1)
        assert stream.take(wanted, offset, MIB) is not None
        assert flight(server) <= 5 * MIB


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_read_is_what_the_server_had_when_it_was_licensed(data: st.DataObject) -> None:
    """Any reads, changes by others and by us, breaks and failures: never a byte that was old when it was allowed."""

    async def run() -> None:
        size = 6 * MIB
        server = Server(size, 2 * MIB)
        stream = server.open()
        at, version = 0, 0
        server.data = bytes([version]) * size
        for _ in range(40):
            match data.draw(st.integers(0, 11)):
                case 0:  # somebody else writes: the break comes with it
                    server.change(0)
                    version = (version + 1) % 251
                    server.data = bytes([version]) * size
                case 1:  # we write
                    server.file.changes += 1
                    version = (version + 1) % 251
                    server.data = bytes([version]) * size
                    server.file.changes += 1
                case 2:
                    server.change(RH, Reason.GRANTED)
                case 3:
                    server.answer(1, fails=True)
                case 4:
                    at = data.draw(st.integers(0, size // PAGE)) * PAGE
                case 5:
                    server.answer(2)
                case _:
                    length = data.draw(st.sampled_from((4096, 128 * KIB, MIB)))
                    found = server.read(stream, at, length)
                    if found is not None:
                        assert found == server.data[at : at + length]
                    at += length
        stream.drop()
        server.answer()
        assert server.ahead.held == 0

    trio.run(run)


# -- through the verbs


async def leased(size: int = 8 * MIB, **options: Any) -> tuple[World, int, Lease]:
    """A file that is open under a lease, of which so much was read that a stream has begun."""
    world = World(**options)
    fh, _ = await world.create("file")
    world.share.find("file").data[:] = content(size)
    await settle(world.vfs.release(fh))
    fh = await world.open("file")
    lease = Lease(bytes(16), "file", state=RH)
    world.state.files.get(fh).handle.lease = lease
    return world, fh, lease


@in_trio
async def test_the_verb_answers_from_what_was_fetched() -> None:
    expected = content(8 * MIB - 100)
    world, fh, _ = await leased(len(expected))
    assert await world.read(fh, 0, MIB) == expected[:MIB]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reads_right, world, fh, MIB, expected)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(reads_right, world, fh, 2 * MIB, expected)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.share.ahead) >= 3
        while world.share.ahead:
            world.share.deliver()
    reads = world.share.count("read")
    for offset in range(3 * MIB, 8 * MIB, 300 * KIB):
        while world.share.ahead:
            world.share.deliver()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads_right, world, fh, offset, expected, 300 * KIB)
            await trio.testing.wait_all_tasks_blocked()
            while world.share.ahead:
                world.share.deliver()
    assert world.share.count("read") == reads


async def reads_right(world: World, fh: int, offset: int, expected: bytes, size: int = MIB) -> None:
    """Read and compare."""
    assert await world.read(fh, offset, size) == expected[offset : offset + size]


@in_trio
async def test_a_reader_who_gives_up_leaves_the_others_alone() -> None:
    world, fh, _ = await leased()
    expected = content(8 * MIB)
    await world.read(fh, 0, MIB)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(reads_right, world, fh, MIB, expected)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await world.read(fh, 2 * MIB, MIB)
        while world.share.ahead:
            world.share.deliver()
    await reads_right(world, fh, 2 * MIB, expected)


@in_trio
async def test_who_waits_asks_the_server_when_a_chunk_fails() -> None:
    world, fh, _ = await leased()
    expected = content(8 * MIB)
    await world.read(fh, 0, MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reads_right, world, fh, MIB, expected)
        await trio.testing.wait_all_tasks_blocked()
        world.share.deliver(fails=True)
    assert world.share.count("read") == 2
    world.share.fail("read", Status.ACCESS_DENIED)
    with fails(errno.EACCES):
        await world.read(fh, 2 * MIB, MIB)


@in_trio
async def test_writers_beside_others_direct_readers_and_uncached_mounts_have_none() -> None:
    for flags, options in ((os.O_RDWR, {}), (os.O_RDONLY | os.O_DIRECT, {}), (os.O_RDONLY, {"cache": "none"})):
        world, _, _ = await leased(**options)
        fh = await world.open("file", flags)
        world.state.files.get(fh).handle.lease = Lease(bytes(16), "file", state=RH)
        for offset in range(0, 8 * MIB, MIB):
            await world.read(fh, offset, MIB)
        assert not world.share.count("read_ahead")


@in_trio
async def test_who_may_write_as_well_is_read_ahead_for_until_he_writes() -> None:
    world, fh, _ = await leased()
    expected = bytearray(content(8 * MIB))
    await settle(world.vfs.release(fh))
    fh = await world.open("file", os.O_RDWR)
    world.state.files.get(fh).handle.lease = Lease(bytes(16), "file", state=int(LeaseState.READ | LeaseState.WRITE))
    await world.read(fh, 0, MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reads_right, world, fh, MIB, bytes(expected))
        await trio.testing.wait_all_tasks_blocked()
        while world.share.ahead:
            world.share.deliver()
    assert world.share.count("read_ahead")
    await world.write(fh, 2 * MIB + 5, b"new")
    expected[2 * MIB + 5 : 2 * MIB + 8] = b"new"
    await reads_right(world, fh, 2 * MIB, bytes(expected))
    assert world.state.ahead.held == 0
    await settle(world.vfs.release(fh))


@in_trio
async def test_none_while_somebody_writes_here_and_none_of_it_after_a_truncate() -> None:
    world, fh, _ = await leased()
    expected = content(8 * MIB)
    await world.read(fh, 0, MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reads_right, world, fh, MIB, expected)
        await trio.testing.wait_all_tasks_blocked()
        writer = await world.open("file", os.O_WRONLY)
        await world.write(writer, 3 * MIB, b"new")
        while world.share.ahead:
            world.share.deliver()
    asked = world.share.count("read_ahead")
    assert (await world.read(fh, 3 * MIB, MIB))[:3] == b"new"
    assert world.share.count("read_ahead") == asked
    await settle(world.vfs.release(writer))
    await settle(world.vfs.release(fh))
    assert world.state.ahead.held == 0
