"""Gathered writes: what programs write under a write lease goes to the server later, in large requests side by side.

Theory of operation. As long as a file's lease has W, nobody else has the file open, and the server waits for us before
it lets anybody in ([MS-SMB2] 3.3.4.7). So a write is answered as soon as its data are here:

- Writes that follow each other, or overlap, become one run, of one request's size at most. Each other write ends the
  run of its file and begins the next one.
- A run is sent when it is full or old, when somebody needs what is in it (`settle`), when room is needed, and before
  the break of W is acknowledged. Several are on their way at a time; one that overlaps earlier ones waits for them.
- What is here, unsent or unanswered, has `limit` bytes at most: the user's bound, and no more than the server takes in
  a fraction of the time for which a break may wait (`smb3fs.cache.pace`). Who writes more waits for room.

A failure is kept until the file's last close, and told to each open file once, whoever asks first: fsync or close. From
then on nothing more is gathered for that file, so that a full disk is met by the write itself.

After a loss of the connection a run is sent, or sent again, only if its handle was claimed with the same lease: only
then is it certain that nobody else has had the file meanwhile. Else it has failed (EIO), and is never written over what
others may have written.

Whose file a run belongs to is for the user to say (`T`); what is asked before and after is what keeps it coherent: see
`smb3fs.vfs.writing`.
"""

from __future__ import annotations

import errno
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from enum import Enum
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

import trio

from smb3fs.cache.pace import Pace
from smb3fs.errors import Smb3fsError
from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.wire.codec import Buffer
from smb3fs.wire.lease import LeaseState

T = TypeVar("T", bound=Hashable)

# As an int: arithmetic with enum's flags costs microseconds.
WRITE: Final = int(LeaseState.WRITE)
# The size of a run. Larger requests are no faster.
RUN: Final = 1 << 20
# Runs on their way at a time; more of them only wait at the server, in everybody's way.
SIDE_BY_SIDE: Final = 8
# Seconds after which a run is sent whatever happens, and between looks whether there is such a one.
AGE: Final = 2.0
LOOK: Final = 0.5


class Cause(Enum):
    """Why a run was sent."""

    FULL = "full"
    ELSEWHERE = "elsewhere"
    """The next write was somewhere else in the file."""
    CLOSE = "close"
    FSYNC = "fsync"
    NEEDED = "needed"
    """Something was to be read or done that has to find it on the server."""
    ROOM = "room"
    AGE = "age"
    BREAK = "break"
    END = "end"
    """The mount ends."""


class Write(Protocol):
    """Writes to an open: its handle, the offset, the data; `check` raises what forbids it when it is to be sent."""

    def __call__(
        self, handle: Open, offset: int, data: Buffer, /, *, check: Callable[[], None] | None = None
    ) -> Awaitable[int]:
        """Return the number of bytes, which is all of them."""


class Failure(NamedTuple):
    """How many runs of a file have failed since it was opened first, and why the last one has."""

    times: int
    error: Exception


class Run:
    """What is to be written in one request."""

    __slots__ = ("barred", "began", "claimed", "data", "done", "doubted", "generation", "handle", "offset", "started")

    def __init__(self, handle: Open, offset: int, data: Buffer, began: float) -> None:
        self.handle = handle
        self.offset = offset
        self.data = data
        self.began = began
        self.started = False
        # In which session it may be sent, whether in another one as well since the lease was claimed with the open, and
        # whether it may not be sent any more at all.
        self.generation = handle.generation
        self.claimed = False
        self.barred = False
        # Whether it counts among its handle's doubts, so that the handle is lost if it is not claimed.
        self.doubted = False
        self.done = trio.Event()

    @property
    def end(self) -> int:
        """Where it ends in the file."""
        return self.offset + len(self.data)

    def may_grow(self, handle: Open, offset: int, size: int) -> bool:
        """Whether a write can become part of it: one that begins in it or right behind it."""
        return self.handle is handle and self.offset <= offset <= self.end and offset + size - self.offset <= RUN

    def grow(self, offset: int, data: Buffer) -> int:
        """Make a write part of it; return by how many bytes it has become longer."""
        mine = cast(bytearray, self.data)
        before, at = len(mine), offset - self.offset
        mine[at : at + len(data)] = data
        return len(mine) - before

    def doubt(self, doubted: bool) -> None:
        """Have its handle count it among the changes of which nobody knows whether they will be, or not any more."""
        self.handle.doubts += doubted - self.doubted
        self.doubted = doubted

    def check(self) -> None:
        """Raise EIO if others may have written what this would be written over."""
        if self.barred or (self.handle.generation != self.generation and not self.claimed):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class _Gathered(Generic[T]):
    """What is here of one file: the run that grows, and those that are sent."""

    __slots__ = ("file", "growing", "sent")

    def __init__(self, file: T) -> None:
        self.file = file
        self.growing: Run | None = None
        self.sent: list[Run] = []

    def under(self, lease: Lease) -> list[Run]:
        """Return the runs that were written under a lease."""
        runs = self.sent if self.growing is None else [*self.sent, self.growing]
        return [run for run in runs if run.handle.lease is lease]


class GatheredWrites(Generic[T]):
    """The writes of one mount that the server has not answered yet.

    `dirty` counts their bytes, `most` says how many there have been at a time, `taken` counts the writes, `runs` what
    they were sent as, by cause, and `failed` the runs that have failed.
    """

    def __init__(
        self, write: Write, *, limit: int, timeout: float = math.inf, on_written: Callable[[T], None] = lambda _: None
    ) -> None:
        """Gather `limit` bytes at most, none for 0; a run fails that has not arrived after `timeout` seconds.

        `on_written` is told of each file of which something has arrived, or has failed to.
        """
        self.dirty = 0
        self.most = 0
        self.taken = 0
        self.failed = 0
        self.runs: Counter[Cause] = Counter()
        self._write = write
        self._limit = limit
        self._timeout = timeout
        self._on_written = on_written
        self._pace = Pace()
        self._files: dict[T, _Gathered[T]] = {}
        self._failures: dict[T, Failure] = {}
        self._nursery: trio.Nursery | None = None
        self._slots = trio.Semaphore(SIDE_BY_SIDE)
        self._arrived = trio.Event()
        self._room = trio.Event()

    def __contains__(self, file: object) -> bool:
        """Whether there is anything of a file that the server has not answered yet."""
        return file in self._files

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._files))

    @property
    def wanted(self) -> bool:
        """Whether anything is gathered at all."""
        return self._limit > 0 and self._nursery is not None

    @property
    def limit(self) -> int:
        """How many bytes there may be at present."""
        return min(self._limit, self._pace.bound)

    def watch(self, leases: LeaseTable) -> None:
        """Heed what becomes of these leases."""
        leases.subscribe(self._changed)
        leases.before_acknowledging(self._broken)

    # -- writing

    def permits(self, handle: Open) -> bool:
        """Whether writes to an open may be gathered: its lease has W, and shows after a loss whether it was kept."""
        lease = handle.lease
        return (
            lease is not None and bool(lease.state & WRITE) and lease.numbered and not handle.closed and not handle.lost
        )

    def take(self, file: T, handle: Open, offset: int, data: Buffer) -> bool:
        """Take a write over; False where there is no room for it now. The data must not be changed afterwards."""
        size = len(data)
        if self.dirty and self.dirty + size > self.limit:
            for other in self._files.values():
                self._send(other, Cause.ROOM)
            return False
        self.taken += 1
        gathered = self._files.get(file)
        if gathered is None:
            gathered = self._files[file] = _Gathered(file)
        run = gathered.growing
        if run is not None and run.may_grow(handle, offset, size):
            self._count(run.grow(offset, data))
        else:
            self._send(gathered, Cause.ELSEWHERE if run is None or run.end != offset else Cause.FULL)
            # What fills a run by itself is not copied.
            own = data if size >= RUN else bytearray(data)
            run = gathered.growing = Run(handle, offset, own, trio.current_time())
            self._count(size)
            self._arrived.set()
        if len(run.data) >= RUN:
            self._send(gathered, Cause.FULL)
        return True

    def _count(self, size: int) -> None:
        """Count bytes that have come."""
        self.dirty += size
        self.most = max(self.most, self.dirty)

    async def room(self) -> None:
        """Wait until something has arrived at the server."""
        if self.dirty:
            await self._room.wait()

    def send(self, file: T, cause: Cause, last: Write | None = None) -> Sequence[Run]:
        """Send what there is of a file; return what is on its way then.

        Where that is a single run, `last` writes it if given: it may do more in the same exchange.
        """
        gathered = self._files.get(file)
        if gathered is None:
            return ()
        self._send(gathered, cause, last if not gathered.sent else None)
        return tuple(gathered.sent)

    async def settle(self, file: T, cause: Cause, last: Write | None = None) -> None:
        """Do so, and wait until all of that has arrived or failed; see `failure`."""
        for run in self.send(file, cause, last):
            await run.done.wait()

    # -- failures

    def failures(self, file: T) -> int:
        """Return how many runs of a file have failed."""
        failure = self._failures.get(file)
        return 0 if failure is None else failure.times

    def failure(self, file: T) -> Exception | None:
        """Return why the last one has that did."""
        failure = self._failures.get(file)
        return None if failure is None else failure.error

    def forget(self, file: T) -> None:
        """Forget the failures of a file that nobody has open any more."""
        self._failures.pop(file, None)

    # -- sending

    async def run(self) -> None:
        """Send what is gathered, for as long as the mount lives."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    while not self._files:
                        self._arrived = trio.Event()
                        await self._arrived.wait()
                    await trio.sleep(LOOK)
                    self.expire(trio.current_time())
            finally:
                self._nursery = None

    def expire(self, now: float) -> None:
        """Send what has been here for long."""
        for gathered in self._files.values():
            if gathered.growing is not None and gathered.growing.began + AGE <= now:
                self._send(gathered, Cause.AGE)

    async def finish(self) -> None:
        """Send everything, and wait until it has arrived or failed; nothing may be written meanwhile."""
        for run in [run for file in self for run in self.send(file, Cause.END)]:
            await run.done.wait()

    def _send(self, gathered: _Gathered[T], cause: Cause, write: Write | None = None) -> None:
        """Send the run that grows, in the usual way if not told another."""
        run, gathered.growing = gathered.growing, None
        if run is None:
            return
        self.runs[cause] += 1
        earlier = [other.done for other in gathered.sent if other.offset < run.end and run.offset < other.end]
        gathered.sent.append(run)
        deadline = trio.current_time() + self._timeout
        assert self._nursery is not None  # noqa: S101 (nothing is gathered without it)
        self._nursery.start_soon(self._carry, gathered, run, earlier, deadline, write or self._write)

    async def _carry(
        self, gathered: _Gathered[T], run: Run, earlier: list[trio.Event], deadline: float, write: Write
    ) -> None:
        """Bring a run to the server."""
        error: Exception = OSError(errno.EIO, os.strerror(errno.EIO))
        arrived = False
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                for done in earlier:
                    await done.wait()
                try:  # to wait for what is there costs a turn of the loop
                    self._slots.acquire_nowait()
                except trio.WouldBlock:
                    await self._slots.acquire()
                try:
                    # Where there is no session the next one says whether it may be sent, not what the last one was.
                    if run.barred:
                        run.check()
                    run.started = True
                    with self._pace.moving(len(run.data)):
                        await write(run.handle, run.offset, run.data, check=run.check)
                finally:
                    self._slots.release()
                arrived = True
            if scope.cancelled_caught:
                error = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except (OSError, Smb3fsError) as failure:
            error = failure
        finally:
            self._ended(gathered, run, None if arrived else error)

    def _ended(self, gathered: _Gathered[T], run: Run, error: Exception | None) -> None:
        """Take note that a run has arrived, or why it has not."""
        file = gathered.file
        gathered.sent.remove(run)
        self.dirty -= len(run.data)
        if error is not None:
            self._fail(file, error)
        if not gathered.sent and gathered.growing is None:
            del self._files[file]
        run.done.set()
        room, self._room = self._room, trio.Event()
        room.set()
        self._on_written(file)

    def _fail(self, file: T, error: Exception) -> None:
        """Keep a failure."""
        self.failed += 1
        self._failures[file] = Failure(self.failures(file) + 1, error)

    # -- leases

    def _changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Note for what was written under a lease whether it holds in the next session."""
        if reason is Reason.GRANTED or not (old | new) & WRITE:
            return
        for gathered in self._files.values():
            for run in gathered.under(lease):
                run.claimed = reason is Reason.CLAIMED
                if reason in (Reason.SUSPENDED, Reason.CLAIMED):
                    run.doubt(reason is Reason.SUSPENDED)
                if reason in (Reason.BROKEN, Reason.MISSED):
                    # What has arrived before the acknowledgement was in time, in this session and no other one.
                    run.generation = run.handle.generation

    def _broken(self, lease: Lease, old: int, new: int) -> Awaitable[None] | None:
        """Have everything arrive before a break of W is acknowledged."""
        if not old & ~new & WRITE:
            return None
        files = [file for file, gathered in self._files.items() if gathered.under(lease)]
        return self._give_way(files, lease) if files else None

    async def _give_way(self, files: list[T], lease: Lease) -> None:
        """Send what was written under a lease; what is not begun when others cannot wait any longer has failed."""
        try:
            for run in [run for file in files for run in self.send(file, Cause.BREAK)]:
                await run.done.wait()
        except trio.Cancelled:
            for gathered in self._files.values():
                for run in gathered.under(lease):
                    run.barred = run.barred or not run.started
            raise
