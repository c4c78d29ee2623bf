"""Answering breaks: what a lease permitted is brought to an end, then the server is told so ([MS-SMB2] 3.2.5.19.2).

First the lease table takes a break in, so that nobody relies any more on what is lost. Then whatever was registered
there (`LeaseTable.before_acknowledging`) is begun, and waited for in a task of its own: others wait at the server
meanwhile, so for a bounded time. The acknowledgement comes last. A break that comes again while the first is being
worked on is acknowledged after it, since the server would take an earlier word for the end of all that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from smb3fs.errors import Smb3fsError
from smb3fs.handles.lease import lease_name
from smb3fs.handles.leases import LeaseTable
from smb3fs.trace import Trace
from smb3fs.wire.lease import LeaseBreakAcknowledgment, LeaseBreakNotification, LeaseState

log = logging.getLogger(__name__)

# As ints: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)
WRITE: Final = int(LeaseState.WRITE)
HANDLE: Final = int(LeaseState.HANDLE)
# Seconds that may pass before a break is acknowledged: where only pages and handles are given up, and where what was
# written has to reach the server first. After 35 s a server goes on without us.
PROMPTLY: Final = 1.0
FLUSHING: Final = 15.0

Post = Callable[[LeaseBreakAcknowledgment], None]


class Breaks:
    """Takes in the breaks of one line's leases and sees to it that they are acknowledged."""

    def __init__(self, leases: LeaseTable, start_soon: Callable[..., Any], trace: Trace) -> None:
        """`start_soon` begins a task that lives as long as the line."""
        self._leases = leases
        self._start_soon = start_soon
        self._trace = trace
        self._under_way: dict[bytes, trio.Event] = {}

    def take(self, told: LeaseBreakNotification, post: Post) -> None:
        """Take in a break; its acknowledgement, if it wants one, is given to `post` when all is done."""
        self._trace.breaks[f"{lease_name(told.current_state)} to {lease_name(told.new_state)}"] += 1
        lease = self._leases.lease_of(told.key)
        directory = lease is not None and lease.directory
        self._trace.break_causes[cause(told.current_state & ~told.new_state, directory=directory)] += 1
        before = lease.state if lease is not None else 0
        answer = self._leases.broken(told)
        rest = self._leases.prepare(told.key, before)
        earlier = self._under_way.get(told.key)
        if not rest and earlier is None:
            if answer is not None:
                post(answer)
            return
        done = self._under_way[told.key] = trio.Event()
        limit = FLUSHING if before & ~told.new_state & WRITE else PROMPTLY
        self._start_soon(self._finish, told.key, earlier, rest, limit, answer, post, done)

    async def _finish(
        self,
        key: bytes,
        earlier: trio.Event | None,
        rest: list[Awaitable[None]],
        limit: float,
        answer: LeaseBreakAcknowledgment | None,
        post: Post,
        done: trio.Event,
    ) -> None:
        """Wait for what is left to do, and acknowledge."""
        began = trio.current_time()
        try:
            if earlier is not None:
                await earlier.wait()
            with trio.move_on_after(limit) as scope:
                async with trio.open_nursery() as nursery:
                    for awaitable in rest:
                        nursery.start_soon(self._wait, awaitable)
            if scope.cancelled_caught:
                self._trace.overdue_breaks += 1
                log.warning("what a lease permitted was not brought to an end within %.0f s of its break", limit)
            if answer is not None:
                post(answer)
            self._trace.slowest_acknowledgement = max(self._trace.slowest_acknowledgement, trio.current_time() - began)
        finally:
            done.set()
            if self._under_way.get(key) is done:
                del self._under_way[key]

    async def _wait(self, awaitable: Awaitable[None]) -> None:
        """Wait for something, which may fail: the lease is lost all the same."""
        try:
            await awaitable
        except (Smb3fsError, OSError) as error:
            self._trace.overdue_breaks += isinstance(error, TimeoutError)
            log.warning("what a lease permitted could not be brought to an end: %s", error)


def cause(lost: int, *, directory: bool) -> str:
    """Return what another client must have done for a lease to lose so much ([MS-SMB2] 3.3.4.7, [MS-FSA] 2.1.4.12).

    `directory`: changed something in a directory. Else with R it has `changed` the file's data; H was `in the way` of
    its removing, renaming or opening the file; and with W alone it has `opened` it.
    """
    if directory:
        return "directory"
    if lost & READ:
        return "changed"
    return "in_the_way" if lost & HANDLE else "opened"
