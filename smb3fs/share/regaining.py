"""Getting H back under which an open outlives its connection.

Samba from 4.22 on takes H back from whoever has a file open when one of its names is removed, also from us when it is
we who remove another name of it. What is not kept for good is not kept at all then if the connection is lost. The lease
rises again when somebody opens the file with its key. Where the other name was renamed before, Samba has our lease
under that new name, since it follows a file and not its names, and refuses the key: then what is open is opened anew
with another.
"""

from __future__ import annotations

from typing import Final

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status
from smb3fs.handles.lease import Lease
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import CLOSE_RELATED, is_posix, without_posix
from smb3fs.share.opening import Opening
from smb3fs.wire.create import CreateOptions, CreateResponse
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseState, parse_lease

# As ints: arithmetic with enum's flags costs microseconds.
READ: Final = int(LeaseState.READ)
HANDLE: Final = int(LeaseState.HANDLE)
KEPT_BY_H: Final = (Durability.DURABLE, Durability.DURABLE_V2)


class Regaining(Opening):
    """How the lease of what is open is raised again."""

    def needs_h(self, lease: Lease, generation: int) -> bool:
        """Whether anything that is open with a lease in a session would be kept after a loss if that had H."""
        return not lease.state & HANDLE and self._kept_by_h(lease, generation) is not None

    def _kept_by_h(self, lease: Lease, generation: int) -> Open | None:
        """Return something that is open with a lease, and is kept as long as that has H."""
        for handle in lease.opens:
            if (
                isinstance(handle, Open)
                and handle.durability in KEPT_BY_H
                and handle.generation == generation
                and not (handle.closed or handle.lost)
            ):
                return handle
        return None

    async def regain(self, session: Session, lease: Lease) -> None:
        """Open a file once more as it is open, with its lease, and close that again; one round trip."""
        handle = self._kept_by_h(lease, session.generation)
        if handle is None or self._leases.find(handle.path) is not lease:
            return
        access = handle.request.desired_access
        request = self._create(lease.path, access, options=CreateOptions.NON_DIRECTORY_FILE, lease=lease)
        request.share_access = handle.request.share_access
        if not is_posix(handle.request):
            request = without_posix(request)
        with self._leases.asking(lease):
            try:
                answers = await session.call([request, CLOSE_RELATED])
            except ConnectionLost:
                return
            if answers[0].status == Status.INVALID_PARAMETER:
                self._leases.nameless(lease)
                for one in tuple(lease.opens):
                    if isinstance(one, Open) and one.durability in KEPT_BY_H and one.ledger is None:
                        await self._follow(one)
                return
            if answers[0].status != Status.SUCCESS:
                return  # the name is gone, or another file's by now
            contexts = {one.name: one.data for one in CreateResponse.parse(answers[0].pdu).contexts}
            if LEASE_CONTEXT in contexts:
                self._leases.told(lease, parse_lease(contexts[LEASE_CONTEXT]))
            if answers[1].status != Status.SUCCESS:
                self._close_opened(answers[0], session)
