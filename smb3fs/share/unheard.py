"""What a lost channel has taken along, or may still bring, while the session goes on by others.

A server sends the break of a lease by one channel, and by another if that fails. What a relay or our own kernel has
acknowledged counts as heard there, whether anybody has read it or not; and of a break that wants no acknowledgement
nothing would ever show. So when a channel is lost the server is asked what it has of each lease ([MS-SMB2] 3.3.5.9.11):
by opening the file once more with the lease's key, asking for no more than there is, and closing it at once. The epoch
shows whether anything has changed; where a break is under way, that is told.

It is done in the background: what goes on meanwhile is what would go on with a break on its way.

A CREATE of the lost channel may be read by the server after its repetition has been answered, used and perhaps closed:
Samba knows a CREATE again only until its open is used. What it opens then nobody knows, and the file cannot be removed
for as long as the session lasts. It is known by its CreateGuid, since nobody uses it: so some time later, and again,
the CREATE is sent once more as a repetition. What that gets is what has come late, or is opened by it, and is closed;
or it is ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, WireError
from smb3fs.handles.lease import NONE, RWH, Lease
from smb3fs.share.chains import CLOSE_RELATED, LIST_ACCESS, STAT_ACCESS, Chains
from smb3fs.wire.create import CreateContext, CreateOptions, CreateRequest, CreateResponse, Disposition, OplockLevel
from smb3fs.wire.lease import ACK_REQUIRED, LEASE_CONTEXT, LeaseBreakNotification, LeaseState, parse_lease

log = logging.getLogger(__name__)

# How many leases are asked about at a time: others want to be served too.
SIDE_BY_SIDE: Final = 16
# As ints: arithmetic with enum's flags costs microseconds.
WRITE: Final = int(LeaseState.WRITE)
HANDLE: Final = int(LeaseState.HANDLE)


class Unheard(Chains):
    """How breaks are found that went another way than to us."""

    async def look_for_breaks(self, session: Session, broken: Callable[[LeaseBreakNotification], None]) -> int:
        """Ask what the server has of each lease; `broken` takes in what seems to be breaking, as if it was told.

        Return how many of them had changed. One round trip each, several at a time.
        """
        slots, found = trio.Semaphore(SIDE_BY_SIDE), 0
        held = [lease for lease in self._leases if lease.known and lease.opens and lease.state]
        # Others may wait for W and H; R is given up without a word.
        held.sort(key=lambda lease: (not lease.state & WRITE, not lease.state & HANDLE))

        async def look(lease: Lease) -> None:
            nonlocal found
            try:
                told = await self._ask_about(session, lease)
            finally:
                slots.release()
            found += told is not None
            if isinstance(told, LeaseBreakNotification):
                broken(told)

        async with trio.open_nursery() as nursery:
            for lease in held:
                await slots.acquire()
                if not session.lives:
                    break
                if lease.known and lease.opens and lease.state:
                    nursery.start_soon(look, lease)
                    await trio.lowlevel.checkpoint()  # what it sends goes ahead of what the next one sends
                else:
                    slots.release()
        return found

    async def close_late(self, session: Session, lost: Sequence[CreateRequest]) -> None:
        """Close what CREATEs may have opened that were lost with a channel; their repetitions are answered by now."""
        for request in lost:
            if request.create_options & CreateOptions.DELETE_ON_CLOSE:
                continue
            asked = replace(
                request,
                disposition=Disposition.OPEN,
                contexts=[_asking_for_nothing(context) for context in request.contexts],
            )
            try:
                (answer,) = await session.call([asked], replay=True)
            except ConnectionLost:
                return
            if answer.status != Status.SUCCESS:
                continue  # it is under way still, or there is no such file any more
            file_id = tuple(CreateResponse.parse(answer.pdu).file_id)
            if not any(tuple(handle.file_id) == file_id for handle in self._opens):
                self._close_opened(answer, session)

    async def _ask_about(self, session: Session, lease: Lease) -> LeaseBreakNotification | bool | None:
        """Ask about one: the break that is under way, or True if it has changed without one, or None."""
        request = self._create(lease.path, STAT_ACCESS)
        request = replace(
            request,
            desired_access=LIST_ACCESS if lease.directory else request.desired_access,
            oplock_level=OplockLevel.LEASE,
            contexts=(*request.contexts, self._leases.context(lease, NONE)),
        )
        # Of what cannot be told all is given up: who reads or writes next asks the server.
        unknown = LeaseBreakNotification(lease.epoch, ACK_REQUIRED, lease.key, RWH, NONE)
        with self._leases.asking(lease):
            try:
                answers = await session.call([request, CLOSE_RELATED])
            except ConnectionLost:
                # Another channel may be lost by now, and then it is asked anew; or the session, with all its leases.
                return None
            if answers[0].status != Status.SUCCESS:
                return unknown
            try:
                told = CreateResponse.parse(answers[0].pdu)
                contexts = dict(told.contexts)
                has = parse_lease(contexts[LEASE_CONTEXT]) if LEASE_CONTEXT in contexts else None
            except WireError as error:
                log.warning("what a lease permits is not known: %s", error)
                return unknown
            if answers[1].status != Status.SUCCESS:
                self._close_opened(answers[0], session)
            return unknown if has is None or has.key != lease.key else self._leases.compared(lease, has)


def _asking_for_nothing(context: CreateContext) -> CreateContext:
    """Return a context that names the key of a lease alone, in place of one that asks for more."""
    if context.name != LEASE_CONTEXT:
        return context
    return CreateContext(LEASE_CONTEXT, replace(parse_lease(context.data), state=NONE).encode())
