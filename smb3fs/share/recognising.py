"""Telling whether our CREATE has made a file, where its answer is lost and the server does not know it again.

The key of a lease that nobody has been granted yet is that CREATE's alone. If the server has a lease under it, the
CREATE was carried out, and as one that must not find a file it has made this one. Whether the server has it shows when
the file is opened with the key and an epoch that lies far from where a count begins: the server goes on counting from
its own epoch if it has the lease, and from ours if it grants a new one ([MS-SMB2] 3.3.5.9.11).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smb3fs.errors import Status
from smb3fs.handles.lease import later_by
from smb3fs.share.chains import Chains
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, Disposition
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID, DiskId
from smb3fs.wire.durable import DURABLE_HANDLE, DURABLE_HANDLE_V2
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseContextV2, parse_lease

# No count has come so far that began with the only CREATE of its lease.
FAR: Final = 0x4000


class Recognising(Chains):
    """How a CREATE that has made something is known again by its lease."""

    async def _made_by(self, request: CreateRequest) -> int:
        """Return the number of the file that a CREATE which must not find one has made; 0 if that cannot be shown.

        One round trip.
        """
        contexts = dict(request.contexts)
        told = contexts.get(LEASE_CONTEXT)
        if request.disposition != Disposition.CREATE or told is None or QUERY_ON_DISK_ID not in contexts:
            return 0
        asked = parse_lease(told)
        lease = self._leases.lease_of(asked.key)
        if not isinstance(asked, LeaseContextV2) or lease is None or lease.opens or lease.epoch or lease.asked != 1:
            return 0
        probe = replace(
            request,
            disposition=Disposition.OPEN,
            contexts=[
                CreateContext(LEASE_CONTEXT, replace(asked, epoch=FAR).encode())
                if context.name == LEASE_CONTEXT
                else context
                for context in request.contexts
                if context.name not in (DURABLE_HANDLE, DURABLE_HANDLE_V2)
            ],
        )
        session, answer, _ = await self._pool.create(probe)
        if answer.status != Status.SUCCESS:
            return 0
        self._close_opened(answer, session)
        granted = {context.name: context.data for context in CreateResponse.parse(answer.pdu).contexts}
        if LEASE_CONTEXT not in granted or QUERY_ON_DISK_ID not in granted:
            return 0
        has = parse_lease(granted[LEASE_CONTEXT])
        known = isinstance(has, LeaseContextV2) and has.key == asked.key and later_by(has.epoch, FAR) < 0
        return DiskId.parse(granted[QUERY_ON_DISK_ID]).file_id if known else 0
