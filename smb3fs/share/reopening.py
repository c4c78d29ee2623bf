"""Opening by name what an open was about that the server has not kept."""

from __future__ import annotations

from contextlib import nullcontext

from smb3fs.channels.session import Session
from smb3fs.errors import Status, StatusError
from smb3fs.handles.lease import Lease
from smb3fs.handles.opens import Open
from smb3fs.share.chains import QUERY_ALL, QUERY_POSIX, is_leased, is_posix, raise_first, without_lease, without_posix
from smb3fs.share.opening import Opening
from smb3fs.wire.create import CreateContext
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID
from smb3fs.wire.header import Request
from smb3fs.wire.io import CloseRequest


class Reopening(Opening):
    """What recovery asks of a share, in a session on which no other traffic flows yet."""

    async def reopen(self, session: Session, handle: Open) -> Open:
        """Open what has the name of an open now, with the same access; never creates. One round trip.

        What the server says of it is in `seen`; whether it is the same file is for the caller to judge.
        """
        lease = handle.lease
        if lease is not None:
            lease = self.lease_anew(lease, handle.path, session)
        with self._leases.asking(lease) if lease is not None else nullcontext():
            return await self._reopen(session, handle, lease)

    async def _reopen(self, session: Session, handle: Open, lease: Lease | None) -> Open:
        """Do it with that lease or none."""
        before = handle.request
        request = self._create(
            handle.path,
            before.desired_access,
            options=before.create_options,
            contexts=(CreateContext(QUERY_ON_DISK_ID),),
            lease=lease,
        )
        request.share_access = before.share_access
        if not is_posix(before):
            request = without_posix(request)
        if handle.create_guid or handle.durability:
            request = self._lasting(request, session)
        query = QUERY_POSIX if is_posix(request) else QUERY_ALL
        chain: list[Request] = [request, query]
        answers = await session.call(chain)
        if answers[0].status == Status.INVALID_PARAMETER and is_leased(request):
            request = without_lease(request)
            answers = await session.call([request, *chain[1:]])
        fresh = self._opened(request, answers[0], handle.path, session, writable=handle.writable)
        try:
            raise_first(chain[1:], answers[1:])
        except StatusError:
            self._opens.forget(fresh)
            session.post([CloseRequest(fresh.file_id)])
            raise
        told = self._told(answers[1], query)
        # Servers that make numbers up may tell another one here than in the answer to a CREATE.
        same = handle.seen.file_id in (fresh.attributes_at_open.file_id, told.file_id)
        fresh.seen = told._replace(file_id=handle.seen.file_id) if same else told
        return fresh
