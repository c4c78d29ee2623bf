"""Deferred close: what was open for reading stays open on the server for a while, to be used by the next open(2).

Theory of operation. A lease with H promises that the server tells us when a handle of ours is in somebody's way
([MS-SMB2] 3.3.4.7). So after the last close(2) the handle of a file waits here instead of being closed:

- for `seconds` at most, and with `most` others at most, of which the one that has waited longest goes first;
- until the lease loses H: then it is closed before the break is acknowledged, and whoever waits for that goes on;
- until we remove or rename the file, or change who may open it: its handle must not be in our own way either;
- until the connection is lost. A handle that nobody uses is not worth claiming.

Not every server tells when another client removes the file or renames it. Samba 4.17 carries such a removal out with
our CLOSE, and by name: on whatever another client has given that name meanwhile. There nothing waits.

Only what could not write waits. A server may take the time of a handle's CLOSE for that of the last write, and what a
program has written others should find closed; also W, which an open for writing brings along, costs others a break.
Who opens the file to write gets a handle of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from smb3fs.handles.lease import RH, Lease, Reason
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
HANDLE: Final = int(LeaseState.HANDLE)


class Coming:
    """A handle that is on its way; `wanted` until something speaks against it, `over` when it has come or will not."""

    __slots__ = ("over", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        self.over = trio.Event()


class Waiting(NamedTuple):
    """A handle that waits, and until when (seconds of trio's clock)."""

    handle: Open
    until: float


class DeferredHandles:
    """The handles of one mount that are open on the server and not here, by the numbers of their inodes.

    `reused` counts those that were used again, `missed` the opens for reading for which there was none.
    """

    def __init__(
        self,
        close: Callable[[Open], None],
        *,
        seconds: float,
        most: int,
        on_drop: Callable[[int], None] = lambda number: None,
    ) -> None:
        """`close` queues the CLOSE of a handle, then `on_drop` is told its number; with `most` 0 none ever waits."""
        self._on_drop = on_drop
        self.seconds = seconds
        self.reused = 0
        self.missed = 0
        self._close = close
        self._most = most
        # In the order in which they came.
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._numbers: dict[object, int] = {}
        # What was opened ahead of the need for it: see `expect`.
        self.coming: dict[int, Coming] = {}
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wanted(self) -> bool:
        """Whether any handle may wait."""
        return self._most > 0 and self.seconds > 0

    def watch(self, leases: LeaseTable) -> None:
        """Give up what these leases do not permit any more."""
        leases.subscribe(self._changed)
        leases.before_acknowledging(self._broken)

    def put(self, number: int, handle: Open, now: float) -> bool:
        """Have a handle wait, if its lease permits it; False if it is to be closed."""
        lease = handle.lease
        if not self.wanted or lease is None or lease.state != RH or not lease.guards_name or handle.writable:
            return False
        self.drop(number)
        self._waiting[number] = Waiting(handle, now + self.seconds)
        self._numbers[handle] = number
        if len(self._waiting) > self._most:
            self.drop(next(iter(self._waiting)))
        self._arrived.set()
        return True

    def take(self, number: int, now: float) -> Open | None:
        """Return a handle that may read the file, if one waits that is as good as new."""
        waiting = self._waiting.get(number)
        if waiting is None:
            self.missed += 1
            return None
        lease = waiting.handle.lease
        if now > waiting.until or lease is None or lease.state & RH != RH or waiting.handle.lost:
            self.drop(number)
            self.missed += 1
            return None
        del self._waiting[number], self._numbers[waiting.handle]
        self.reused += 1
        return waiting.handle

    def expect(self, number: int) -> Coming:
        """Take note that a handle is on its way which nobody has asked for yet: `has_come` says when it is there.

        Whatever would close it if it waited here already takes the wish for it back.
        """
        coming = self.coming[number] = Coming()
        return coming

    def has_come(self, number: int, coming: Coming) -> None:
        """Take note that a handle is on its way no longer."""
        if self.coming.get(number) is coming:
            del self.coming[number]
        coming.over.set()

    def find(self, number: int) -> Open | None:
        """Return the handle of an inode that waits, which goes on waiting."""
        waiting = self._waiting.get(number)
        return None if waiting is None else waiting.handle

    def drop(self, number: int) -> None:
        """Close the handle of an inode, if one waits."""
        coming = self.coming.get(number)
        if coming is not None:
            coming.wanted = False
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            del self._numbers[waiting.handle]
            self._close(waiting.handle)
            self._on_drop(number)

    def drop_all(self) -> None:
        """Close all that wait."""
        for number in (*self._waiting, *self.coming):
            self.drop(number)

    async def run(self) -> None:
        """Close what has waited for long enough, for as long as the mount lives."""
        while True:
            while not self._waiting:
                self._arrived = trio.Event()
                await self._arrived.wait()
            await trio.sleep_until(next(iter(self._waiting.values())).until)
            self.expire(trio.current_time())

    def expire(self, now: float) -> None:
        """Close what has waited until `now`."""
        while self._waiting:
            number, waiting = next(iter(self._waiting.items()))
            if waiting.until > now:
                return
            self.drop(number)

    # -- leases

    def _broken(self, lease: Lease, old: int, new: int) -> None:
        """Close what stands in others' way, ahead of the acknowledgement that it does not any more."""
        if old & ~new & HANDLE:
            self._give_up(lease)

    def _changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Close what a lease does not permit any more for other reasons than a break."""
        if old & ~new & HANDLE and reason not in (Reason.BROKEN, Reason.RELEASED):
            self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        """Close what waits under a lease."""
        for holder in tuple(lease.opens):
            number = self._numbers.get(holder)
            if number is not None:
                self.drop(number)
