"""A line's breaks: acknowledged on the channel that brought them, however far its session has come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from peer import trio_test

from smb3fs.channels.channel import Channel
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Smb3fsError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.journal import Journal
from smb3fs.handles.lease import NONE, RH, RWH
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Durability, Open, OpenTable
from smb3fs.line import Line
from smb3fs.share.share import Share
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateRequest, Disposition, HeldFileId
from smb3fs.wire.lease import ACK_REQUIRED, LeaseBreakAcknowledgment, LeaseBreakNotification


class Attempt:
    """A channel, the session that is made on it, and what was posted there."""

    def __init__(self) -> None:
        self.posted: list[object] = []
        self.channel = cast(Channel, SimpleNamespace(error=None))
        agreed = SimpleNamespace(lease_version=2, capabilities=0)
        made = SimpleNamespace(
            channel=self.channel,
            has=lambda channel: channel is self.channel,
            agreed=agreed,
            post=self.posted.extend,
            place=None,
        )
        self.session = cast(Session, made)


class Attempts:
    """A connector: each attempt brings breaks while it is made, and may fail then."""

    def __init__(self, line: Line, breaks: list[LeaseBreakNotification]) -> None:
        self._line, self._breaks = line, breaks
        self.made: list[Attempt] = []
        self.error: Smb3fsError | None = None

    async def connect(self, previous_session_id: int) -> Session:
        """Make the next session."""
        attempt = Attempt()
        self.made.append(attempt)
        for told in self._breaks:
            self._line.broken(attempt.channel, told)
        if self.error is not None:
            attempt.channel.error = self.error
            raise self.error
        return attempt.session


def a_line(nursery: trio.Nursery) -> Line:
    """A line that reaches nobody."""
    pool, opens, trace = Pool(), OpenTable(LeaseTable()), Trace()
    nothing = cast(Any, SimpleNamespace(version=0))
    return Line(pool, Share(pool, opens, trace), opens, cast(Journal, nothing), nothing, 1.0, trace, nursery)


@trio_test
async def test_a_break_is_acknowledged_whatever_has_become_of_its_session_by_then() -> None:
    async with trio.open_nursery() as nursery:
        line = a_line(nursery)
        lease = line.opens.leases.make("f", "")
        told = LeaseBreakNotification(1, ACK_REQUIRED, lease.key, RWH, RH)
        unknown = LeaseBreakNotification(1, ACK_REQUIRED, b"?" * 16, RWH, RH)
        attempts = Attempts(line, [told, unknown])
        line.connector = cast(Any, attempts)

        attempts.error = ConnectionLost("just now")
        try:
            await line._connect(0)
        except ConnectionLost:
            attempts.error = None
        session = await line._connect(0)
        failed, made = attempts.made
        # What came while the session was made; nothing of the attempt that failed, whose channel is gone.
        expected: list[object] = [
            LeaseBreakAcknowledgment(lease.key, RH),
            LeaseBreakAcknowledgment(unknown.key, NONE),
        ]
        assert (failed.posted, made.posted) == ([], expected)
        # What comes while the opens are claimed, and the pool has no session yet, or later.
        line.broken(session.channel, told)
        assert made.posted == [*expected, expected[0]]
        # What comes late, on a channel that another one has replaced.
        await line._connect(0)
        line.broken(session.channel, told)
        assert len(attempts.made[-1].posted) == 2


def opened(line: Line, durability: Durability, state: int, guid: bytes = b"G" * 16) -> Open:
    """Enter an open with a lease, of which the server was asked to keep it if it has a `guid`."""
    request = CreateRequest("f", 0, Disposition.OPEN)
    handle = Open("f", HeldFileId(1, 1), 1, cast(FileAttributes, None), request)
    handle.create_guid, handle.durability = guid, durability
    handle.lease = line.opens.leases.make("f", "")
    handle.lease.state = state
    line.opens.add(handle)
    return handle


@pytest.mark.parametrize(
    ("opens", "renewed"),
    [
        ([], False),  # what a CREATE without an answer has opened may be kept
        ([(Durability.NONE, RH)], True),
        ([(Durability.NONE, NONE)], False),  # who has no H is refused by servers that keep others
        ([(Durability.NONE, RWH, b"")], False),  # nobody asked
        ([(Durability.DURABLE_V2, RH)], False),
        ([(Durability.PERSISTENT, NONE)], False),
        ([(Durability.NONE, RH), (Durability.DURABLE_V2, RH), (Durability.NONE, RH)], False),
    ],
)
@trio_test
async def test_a_server_that_keeps_nothing_does_not_know_us_again(opens: list[Any], renewed: bool) -> None:
    async with trio.open_nursery() as nursery:
        line = a_line(nursery)
        line.connector = cast(Any, Attempts(line, []))
        await line._connect(0)
        guid = line.client.guid
        handles = [opened(line, *how) for how in opens]
        await line._connect(1)
        assert (line.client.guid != guid) == renewed
        # It is the server of which this is known, not what is open.
        for handle in handles:
            line.opens.forget(handle)
        guid = line.client.guid
        await line._connect(2)
        assert (line.client.guid != guid) == renewed
