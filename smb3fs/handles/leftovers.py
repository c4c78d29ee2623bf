"""Closing what a killed daemon has left open on the server, in place of waiting for the server to lose its patience.

Each persistent handle of the journal is claimed, as its owner would have after a loss, and closed; its locks go with
it. What the server does not give back is not there any more, or not ours to have. It takes no longer than it may, and
whatever goes wrong, the mount goes on without.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import trio

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, WireError, status_name
from smb3fs.handles.claims import DIED, answer_when_ready
from smb3fs.handles.journal import LeftOpen
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition, OplockLevel
from smb3fs.wire.durable import DURABLE_HANDLE_RECONNECT_V2, PERSISTENT, DurableHandleReconnectV2
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import LEASE_CONTEXT

log = logging.getLogger(__name__)


async def close_leftovers(
    session: Session, opens: Mapping[int, LeftOpen], struck: Callable[[int], None], patience: float
) -> Counter[str]:
    """Claim and close opens, by their numbers, within `patience` seconds.

    Return how many were "closed", how many the server does not give back ("gone"), and how many are "left" since it
    did not answer, or the session died. `struck` is called with the number of each that is not left.
    """
    counts = Counter(closed=0, gone=0, left=len(opens))

    async def close(number: int, left: LeftOpen) -> None:
        try:
            refusal = await _close(session, left)
        except (ConnectionLost, WireError) as error:
            session.fail(error)
            return
        if refusal in DIED:
            session.fail(ConnectionLost(f"the server no longer knows the session ({status_name(refusal)})"))
            return
        if refusal:
            log.info("%s, which was left open, is not given back (%s)", left.name, status_name(refusal))
        counts["gone" if refusal else "closed"] += 1
        counts["left"] -= 1
        struck(number)

    with trio.move_on_after(patience):
        async with trio.open_nursery() as nursery:
            for number, left in opens.items():
                nursery.start_soon(close, number, left)
    return counts


async def _close(session: Session, left: LeftOpen) -> int:
    """Claim one open and close it; return the status by which the server refused one or the other, 0 for none."""
    claim = await answer_when_ready(session, claiming(left))
    if claim.status != Status.SUCCESS:
        return claim.status
    (answer,) = await session.call([CloseRequest(CreateResponse.parse(claim.pdu).file_id)])
    return answer.status


def claiming(left: LeftOpen) -> CreateRequest:
    """Build the CREATE that claims an open ([MS-SMB2] 3.2.4.4)."""
    data = DurableHandleReconnectV2(left.file_id, left.create_guid, PERSISTENT).encode()
    contexts = [CreateContext(DURABLE_HANDLE_RECONNECT_V2, data)]
    if left.lease:
        contexts.append(CreateContext(LEASE_CONTEXT, left.lease))
    return CreateRequest(
        left.name,
        left.desired_access,
        Disposition.OPEN,
        left.create_options,
        share_access=left.share_access,
        oplock_level=OplockLevel.LEASE if left.lease else OplockLevel.NONE,
        contexts=contexts,
    )
