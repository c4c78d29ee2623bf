"""What is done to a file by its name, on a session of which the share does not know: it is opened, set, and closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from smb3fs.channels.pool import SESSION_GONE
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, status_name
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    CreateContext,
    CreateOptions,
    CreateRequest,
    CreateResponse,
    Disposition,
    FileId,
    OplockLevel,
)
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import (
    FileAllInformation,
    FileBasicInformation,
    FileDispositionInformation,
    FileLinkInformation,
    FileRenameInformation,
)
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest

OPTIONS: Final = int(CreateOptions.OPEN_REPARSE_POINT)
QUERY: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileAllInformation.information_class, 16 * 1024)


class Found(NamedTuple):
    """An open, and what the server says of its file."""

    file_id: FileId
    told: FileAllInformation


async def open_named(session: Session, name: str, access: int, contexts: Iterable[CreateContext] = ()) -> Found | int:
    """Open a name and ask what is there; return that, or the status of the refusal."""
    contexts = list(contexts)
    level = OplockLevel.LEASE if contexts else OplockLevel.NONE
    request = CreateRequest(name, access, Disposition.OPEN, OPTIONS, oplock_level=level, contexts=contexts)
    chain: list[Request] = [request, QUERY]
    opened, queried = await session.call(chain)
    check_alive(opened.status)
    if opened.status != Status.SUCCESS:
        return opened.status
    file_id = CreateResponse.parse(opened.pdu).file_id
    if queried.status not in (Status.SUCCESS, Status.BUFFER_OVERFLOW):
        session.post([CloseRequest(file_id)])
        return queried.status
    return Found(file_id, FileAllInformation.parse(memoryview(QueryInfoResponse.parse(queried.pdu).data)))


async def set_and_close(
    session: Session,
    file_id: FileId,
    *infos: FileBasicInformation | FileLinkInformation | FileRenameInformation | FileDispositionInformation,
) -> int:
    """Set information through an open and close it; return the status of what was set last."""
    chain: list[Request] = [
        *(SetInfoRequest(file_id, InfoType.FILE, info.information_class, info.encode()) for info in infos),
        CloseRequest(file_id),
    ]
    status = (await session.call(chain))[-2].status
    check_alive(status)
    return status


def check_alive(status: int) -> None:
    """Raise ConnectionLost if a status says that the session is of no use: what a name leads to is not known then."""
    if status in SESSION_GONE or status == Status.NETWORK_SESSION_EXPIRED:
        raise ConnectionLost(f"the server no longer knows the new session ({status_name(status)})")
