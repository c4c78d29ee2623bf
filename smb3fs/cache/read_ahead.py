"""Read-ahead: a program that reads a file from one end to the other finds the data fetched when it asks for them.

Theory of operation. Each open(2) that can read may have a stream. It begins with the second read of those that
follow upon each other from the start of the file, elsewhere after a megabyte of them, so that who reads here and there
has none. From then on what is asked for, and a window beyond it, is asked of the server in chunks, of which many are
under way at a time. A read is answered from the chunks that it lies in, and waits for those that have not come.

How far. The window is doubled when a read has to wait, once a round trip, as long as chunks take no longer than twice
what the quickest took: beyond that they wait for each other on the way, and a larger window would only make all others
on the connection wait too. It never exceeds `most` bytes, all streams together hold four times that, and
nothing is asked for beyond the page in which the file ended when it was opened.

With several connections neither the window nor what readers wait for is asked for at once: what may be under way is
for those to say, which ask for little at a time on a slow one. The rest is asked for in its order as the chunks come
in. The kernel reads ahead as well, megabytes at a time, and the program waits for the first of it alone.

What may be shown. A chunk is good as long as R of the open's lease is held without a gap since it was asked for, and
nothing was changed through this mount meanwhile. When that ends, all is thrown away, and who waits asks the server
himself: a program that reads and writes one file in turns has no use of a stream. So he does where a chunk could not
be had: nobody is told of an error who has not asked for those bytes.

A read elsewhere is the server's to answer; with the second one the program has moved on, and the stream is over.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

import trio

from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)
# The largest chunk in bytes: more in one request is not faster on any server, and keeps others waiting longer.
CHUNK: Final = 1 << 20
# How many bytes have to be read one after the other, elsewhere than from the start, until we believe in it.
SURE: Final = 1 << 20
# The window in bytes to begin with, at least.
FIRST_WINDOW: Final = 256 << 10
PAGE: Final = 4096
# All streams together may hold so many times what one may.
STREAMS: Final = 4
# What was fetched for a program that has not read for so many seconds makes room for others.
IDLE: Final = 5.0
# How many chunks of what readers wait for are under way even where the connections have no room for more.
LEAST_UNDER_WAY: Final = 2


class Changing(Protocol):
    """A file whose changes through this mount are counted."""

    changes: int


# Asks for bytes of an open file: offset, size, what is told the data, once, or None if there are none to be had, and
# how many of them somebody waits for. Returns how many were asked for; 0 if that is not possible at present.
Ask = Callable[[Open, int, int, Callable[[memoryview | None], None], int], int]


class Chunk:
    """Bytes that were asked for, and the data when they have come."""

    __slots__ = ("arrived", "asked_at", "data", "epoch", "forgotten", "offset", "over", "size", "used")

    def __init__(self, offset: int, epoch: int, now: float) -> None:
        self.offset = offset
        self.size = 0
        self.epoch = epoch
        self.asked_at = now
        self.data: memoryview | None = None
        self.used = 0
        # Whether it is under way no more, and whether nobody will ask for it any more.
        self.arrived = False
        self.forgotten = False
        # Set when there is nothing to wait for any more.
        self.over = trio.Event()

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size


class Wanted:
    """What a read waits for: the chunks that it lies in, as they are asked for."""

    __slots__ = ("asked", "chunks", "end", "offset")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.chunks: list[Chunk] = []
        # Set when no more of them will come.
        self.asked = trio.Event()

    def add(self, chunk: Chunk) -> bool:
        """Take a chunk in if the read lies in it; whether that was the last one."""
        common = min(chunk.end, self.end) - max(chunk.offset, self.offset)
        if common > 0:
            chunk.used += common
            self.chunks.append(chunk)
        if chunk.end >= self.end:
            self.asked.set()
        return self.asked.is_set()

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.asked.is_set() and all(chunk.over.is_set() for chunk in self.chunks)

    async def wait(self) -> None:
        """Wait until that is so."""
        await self.asked.wait()
        for chunk in self.chunks:
            await chunk.over.wait()


class ReadAhead:
    """What is read ahead for one mount; counts bytes: those that reads were answered from, and fetched in vain."""

    def __init__(self, ask: Ask, most: int) -> None:
        """`most` bytes are fetched ahead for one reader."""
        self.most = most
        self.used = 0
        self.wasted = 0
        self.held = 0
        self._ask = ask
        # Those with chunks, the one that was used last at the end.
        self._streams: OrderedDict[Stream, float] = OrderedDict()
        self._of_lease: dict[Lease, set[Stream]] = {}

    def watch(self, leases: LeaseTable) -> None:
        """Give up what these leases do not permit any more."""
        leases.subscribe(self._changed)

    def stream(self, handle: Open, file: Changing) -> Stream | None:
        """Return what reads ahead through a handle; None where nothing is."""
        return Stream(self, handle, file) if self.most else None

    def use(self, stream: Stream, now: float) -> None:
        """Note that a stream has begun, or is read from."""
        self._streams[stream] = now
        self._streams.move_to_end(stream)
        if stream.lease is not None:
            self._of_lease.setdefault(stream.lease, set()).add(stream)

    def leave(self, stream: Stream) -> None:
        """Forget a stream that has no chunks any more."""
        self._streams.pop(stream, None)
        others = self._of_lease.get(stream.lease) if stream.lease is not None else None
        if others is not None:
            others.discard(stream)
            if not others and stream.lease is not None:
                del self._of_lease[stream.lease]

    def ask(self, stream: Stream, chunk: Chunk, size: int, now: float, least: int) -> bool:
        """Ask for a chunk, if there is room for it; `least` bytes of it are waited for."""
        while self.held + size > STREAMS * self.most:
            oldest, used = next(iter(self._streams.items()))
            if oldest is stream or now - used < IDLE:
                return False
            oldest.drop()
        asked = self._ask(stream.handle, chunk.offset, size, lambda data: stream.came(chunk, data), least)
        if chunk.arrived:  # the connection broke when it was asked for
            return False
        chunk.size = asked
        self.held += asked
        return asked > 0

    def _changed(self, lease: Lease, old: int, new: int, _reason: Reason) -> None:
        """Throw away what was fetched under a lease when its R has had a gap."""
        if not (old & READ and new & READ):
            for stream in tuple(self._of_lease.get(lease, ())):
                stream.drop()


class Stream:
    """The reads through one open file, and what is fetched ahead of them."""

    def __init__(self, ahead: ReadAhead, handle: Open, file: Changing) -> None:
        self.handle = handle
        self.lease: Lease | None = None
        self.window = 0
        self._ahead = ahead
        self._file = file
        self._changes = 0
        # Where the reads that follow upon each other began, and where the next one of them will.
        self._start = 0
        self._next = 0
        self._chunks: deque[Chunk] = deque()
        # Where what was asked for ends, how many chunks of that are under way, and the reads that wait for what is not.
        self._end = 0
        self._under_way = 0
        self._waits: list[Wanted] = []
        # Where the reads so far end, and the file; and whether the window beyond could not be asked for in whole.
        self._wanted = 0
        self._last = 0
        self._held_up = False
        self._strays = 0
        # Counts what was thrown away.
        self._epoch = 0
        # In seconds, of chunks of the largest size so far: what the latest took, and the quickest.
        self._largest = 0
        self._latest = 0.0
        self._quickest = math.inf
        # Beyond which offset a chunk tells how it is with the window that there is now, and whether one has.
        self._probe = 0
        self._may_grow = False

    @property
    def asked(self) -> int:
        """How many chunks are asked for or there."""
        return len(self._chunks)

    def passed(self, offset: int, size: int) -> None:
        """Note a read that was answered from elsewhere."""
        if offset == self._next and not self._is_live:
            self._next = offset + size

    @property
    def _is_live(self) -> bool:
        """Whether anything is asked for, or there."""
        return bool(self._chunks or self._waits)

    def look(self, offset: int, size: int) -> Wanted | None:
        """Return what a read waits for, having asked for it and what is ahead; None if it is none of ours."""
        if not self._licensed():
            self.drop()
        last = -(-self.handle.attributes_at_open.size // PAGE) * PAGE
        end = min(offset + size, last)
        if not self._is_live:
            if not self._follows(offset, size) or end <= offset or not self._may_begin(offset, size):
                return None
        elif not self._begin <= offset <= max(self._end, self._wanted) or end <= offset:
            self._stray(offset, size)
            return None
        self._strays = 0
        now = trio.current_time()
        # What has not come may be waited for by a read that was made before.
        while self._chunks and self._chunks[0].end <= offset and self._chunks[0].arrived:
            self._forget(self._chunks.popleft())
        self._ahead.use(self, now)
        wanted = Wanted(offset, end)
        if not any(wanted.add(chunk) for chunk in self._chunks):
            self._waits.append(wanted)
        self._wanted, self._last = max(self._wanted, end), last
        if not self._fill(now):
            self.drop()
            self._start, self._next = offset, offset + size
            return None
        if not wanted.asked.is_set() or any(chunk.data is None for chunk in wanted.chunks):
            self._grow()
        return wanted

    def take(self, wanted: Wanted, offset: int, size: int) -> tuple[memoryview, ...] | None:
        """Return the bytes of a read; None if it has to ask the server, as what was fetched is not to be shown."""
        if not self._licensed():
            self.drop()
        end, parts = offset + size, []
        for chunk in wanted.chunks:
            if chunk.data is None or chunk.epoch != self._epoch:
                return None
            part = chunk.data[offset - chunk.offset : end - chunk.offset]
            parts.append(part)
            offset += len(part)
            if len(chunk.data) < chunk.size:  # so the file ends there
                end = offset
                break
        if offset < end:
            return None
        self._ahead.used += sum(map(len, parts))
        return tuple(parts)

    def drop(self) -> None:
        """Throw away what was fetched; who waits for it is woken."""
        self._epoch += 1
        self._start = self._next
        self._strays = 0
        while self._chunks:
            chunk = self._chunks.popleft()
            if not chunk.arrived:
                chunk.used = 0
            self._forget(chunk)
            chunk.over.set()
        waits, self._waits = self._waits, []
        for wanted in waits:
            wanted.asked.set()
        self._under_way = self._wanted = 0
        self._ahead.leave(self)
        self.lease = None

    def came(self, chunk: Chunk, data: memoryview | None) -> None:
        """Take in a chunk; without data it could not be had, and who needs it finds out why."""
        chunk.arrived = True
        if chunk.epoch == self._epoch:
            self._under_way -= 1
            chunk.data = data
            if data is not None:
                self._measure(chunk)
        if chunk.forgotten:
            self._discount(chunk, data)
        if data is None and chunk.epoch == self._epoch:
            self.drop()
        chunk.over.set()
        if self._held_up and self._is_live and not self._fill(trio.current_time()):
            self.drop()

    # -- beginning and end

    def _licensed(self) -> bool:
        """Whether what was fetched, or will be, may be shown."""
        lease = self.handle.lease
        if lease is None or not lease.state & READ or self.handle.lost:
            return False
        return self.lease is None or (lease is self.lease and self._changes == self._file.changes)

    def _follows(self, offset: int, size: int) -> bool:
        """Note a read without a stream; whether it follows upon enough others for one."""
        follows = offset == self._next
        if not follows:
            self._start = offset
        self._next = offset + size
        return follows and offset > 0 and (self._start == 0 or offset - self._start >= SURE)

    def _may_begin(self, offset: int, size: int) -> bool:
        """Begin a stream, if the lease permits it."""
        lease = self.handle.lease
        if lease is None or not lease.state & READ:
            return False
        self.lease, self._changes = lease, self._file.changes
        self._end = offset
        self.window = min(max(FIRST_WINDOW, 2 * size), self._ahead.most)
        self._largest, self._quickest, self._probe, self._may_grow = 0, math.inf, offset, False
        return True

    def _stray(self, offset: int, size: int) -> None:
        """Note a read elsewhere: with the second one the stream is over."""
        self._strays += 1
        if self._strays > 1:
            self.drop()
            self._start, self._next = offset, offset + size

    # -- asking

    @property
    def _begin(self) -> int:
        """Where what is asked for, or there, begins."""
        return self._chunks[0].offset if self._chunks else self._end

    def _fill(self, now: float) -> bool:
        """Ask for what reads wait for, and for the window beyond, as far as there is room; False if nothing comes.

        A little of what is waited for is under way whatever the connections have to do for others.
        """
        step = max(PAGE, min(CHUNK, self.window // 2))
        self._held_up = False
        while self._end < self._wanted:
            least = PAGE if self._under_way < LEAST_UNDER_WAY else 0
            if not self._ask(max(step, min(CHUNK, self._wanted - self._end)), self._last, now, least):
                self._held_up = True
                return self._under_way > 0
        target = min(self._wanted + self.window, self._last)
        while self._end < target and (target - self._end >= step or target == self._last):
            if not self._ask(step, self._last, now, 0):
                self._held_up = True
                break
        return True

    def _ask(self, size: int, last: int, now: float, least: int) -> bool:
        """Ask for the next bytes, of which `least` are waited for."""
        chunk = Chunk(self._end, self._epoch, now)
        if not self._ahead.ask(self, chunk, min(size, last - self._end), now, least):
            return False
        self._chunks.append(chunk)
        self._end = chunk.end
        self._under_way += 1
        self._waits = [wanted for wanted in self._waits if not wanted.add(chunk)]
        return True

    def _forget(self, chunk: Chunk) -> None:
        """Count a chunk no more that nobody will ask for."""
        chunk.forgotten = True
        if chunk.arrived:
            self._discount(chunk, chunk.data)

    def _discount(self, chunk: Chunk, data: memoryview | None) -> None:
        """Take a chunk off what is held; what of it no read was answered from was fetched in vain."""
        self._ahead.held -= chunk.size
        if data is not None:
            self._ahead.wasted += max(0, len(data) - chunk.used)

    # -- how far

    def _measure(self, chunk: Chunk) -> None:
        """Note how long a chunk took, if it is one of the largest."""
        self._may_grow = self._may_grow or chunk.offset >= self._probe
        if chunk.size < self._largest:
            return
        self._latest = trio.current_time() - chunk.asked_at
        self._quickest = min(self._quickest, self._latest) if chunk.size == self._largest else self._latest
        self._largest = chunk.size

    def _grow(self) -> None:
        """Read further ahead from now on, unless what is under way waits for each other already."""
        if self._may_grow and self._latest <= 2 * self._quickest:
            self.window = min(2 * self.window, self._ahead.most)
            self._probe, self._may_grow = self._end, False
