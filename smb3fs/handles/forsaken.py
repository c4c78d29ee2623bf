"""CREATEs whose callers have gone before the answer, and whose answer will not come: what they have opened is closed.

Theory of operation. A program that is killed while its CREATE is under way leaves it to the channel, which closes what
the answer opens. If the connection is lost before that, a server that keeps opens for good has one of which nobody
knows, and which is in everybody's way until its time is over. Only the CREATE itself, repeated, finds it ([MS-SMB2]
3.3.5.9.10). So it is noted at the loss, and repeated when the traffic flows again, to be closed. A repetition of which
the server knows nothing must not make or truncate anything that long after: it asks to open what is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import trio

from smb3fs.channels.pool import FIRST_PAUSE, UNDECIDED, UNDECIDED_PATIENCE
from smb3fs.channels.session import Session
from smb3fs.errors import Status
from smb3fs.wire.create import CreateRequest, CreateResponse, Disposition
from smb3fs.wire.durable import DURABLE_HANDLE_V2, PERSISTENT, DurableHandleRequestV2
from smb3fs.wire.header import Request
from smb3fs.wire.io import CloseRequest

# More than can be under way; what is beyond them waits for the server's patience to end.
MOST: Final = 1024


class Forsaken:
    """The CREATEs of one line that nobody waits for, and that may have opened something for good."""

    def __init__(self) -> None:
        self._requests: list[CreateRequest] = []

    def __len__(self) -> int:
        return len(self._requests)

    def note(self, requests: Iterable[Request]) -> None:
        """Take notice of what was lost with nobody waiting for it."""
        for request in requests:
            if isinstance(request, CreateRequest) and _is_for_good(request) and len(self) < MOST:
                self._requests.append(request)

    async def close(self, session: Session) -> None:
        """Close what they have opened; two round trips each. Raises ConnectionLost if the session dies of it."""
        while self._requests:
            await _close(session, self._requests[0])
            del self._requests[0]


def _is_for_good(request: CreateRequest) -> bool:
    """Whether a server keeps what a CREATE opens for good."""
    asked = dict(request.contexts).get(DURABLE_HANDLE_V2)
    return asked is not None and bool(DurableHandleRequestV2.parse(asked).flags & PERSISTENT)


async def _close(session: Session, request: CreateRequest) -> None:
    """Close what one of them has opened."""
    again, limit = replace(request, disposition=Disposition.OPEN), trio.current_time() + UNDECIDED_PATIENCE
    while True:
        (answer,) = await session.call([again], replay=True)
        if answer.status == Status.SUCCESS:
            session.post([CloseRequest(CreateResponse.parse(answer.pdu).file_id)])
        if answer.status not in UNDECIDED or trio.current_time() > limit:
            return
        await trio.sleep(FIRST_PAUSE)
