"""In which order opens are claimed after a loss, and the ends of breaks that have to come before.

Theory of operation. Claims are sent without waiting for each other, but a server may answer them one after the other,
some 10 ms each, and some cannot wait as long as others:

- What has locks, or could not be opened anew by its name, comes first: as long as it is not claimed Samba 4.25 gives
  its locks to whoever asks, and its scavenger may take it for lost.
- Opens under one lease follow each other. If another client's CREATE comes between two of them a break begins, and smbd
  4.25.1 dies of a claim under a lease that is being broken (decision 0041).

A break that was under way when the connection was lost goes on at the server. Nobody here has heard of it, or knows
whether the server has heard the answer, and others wait; Samba does not tell of it in the answer to a claim. So it is
ended ahead of the first claim under each lease, by an acknowledgement down to nothing; what is not being broken is left
as it is ([MS-SMB2] 3.3.5.22.2). That is done once, and while nothing is known of the lease in this session: from then
on what is believed here and what the server has must be the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from smb3fs.channels.session import Session
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.wire.lease import LeaseBreakAcknowledgment, LeaseState


def in_order(handles: Iterable[Open]) -> list[Open]:
    """Return opens in the order in which they are to be claimed."""
    groups: dict[object, list[Open]] = {}
    for handle in handles:
        groups.setdefault(handle if handle.lease is None else handle.lease.key, []).append(handle)
    ordered = sorted(groups.values(), key=lambda group: min(map(_rank, group)))
    return [handle for group in ordered for handle in sorted(group, key=_rank)]


def _rank(handle: Open) -> int:
    """Return how long an open can wait, less for what must not."""
    if handle.closed:
        return 3
    if handle.ledger is not None and handle.ledger.pieces:
        return 0
    return 1 if handle.in_doubt or not (handle.seen.modified and handle.seen.changed) else 2


def end_break(session: Session, handle: Open, ended: set[bytes]) -> None:
    """End a break of an open's lease that may be under way, unless its key is among those of which it was `ended`."""
    lease = handle.lease
    if lease is not None and handle.durability and lease.key not in ended and not lease.known:
        ended.add(lease.key)
        session.post([LeaseBreakAcknowledgment(lease.key, LeaseState.NONE)])


def end_other_breaks(session: Session, leases: LeaseTable) -> None:
    """End those of leases that a CREATE has asked for whose answer is lost, and that nothing else here is open under.

    The CREATE is repeated next, which is a claim where it was carried out.
    """
    for lease in leases:
        if lease.asked and not lease.opens and not lease.known and not lease.directory:
            session.post([LeaseBreakAcknowledgment(lease.key, LeaseState.NONE)])
