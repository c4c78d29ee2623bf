"""Asking a server for its addresses, which it may have more of than the one that a session was made at."""

from __future__ import annotations

from typing import Final

from smb3fs.channels.negotiation import ANY_FILE
from smb3fs.channels.session import Session
from smb3fs.errors import Status, StatusError, WireError
from smb3fs.wire.interfaces import FSCTL_QUERY_NETWORK_INTERFACE_INFO, NetworkInterface, parse_interfaces
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.negotiate import Capability

# As much as one credit pays for: more than 400 addresses.
ROOM: Final = 65536
# How a server says that it has, just now, nothing to tell.
NOT_NOW: Final = frozenset({Status.NOT_SUPPORTED, Status.NOT_IMPLEMENTED, Status.INVALID_DEVICE_REQUEST})


def takes_several(session: Session) -> bool:
    """Whether a session may have several channels; that of a guest has no key to bind another one with."""
    return bool(session.agreed.capabilities & Capability.MULTI_CHANNEL) and session.security.signer is not None


async def interfaces_of(session: Session) -> list[NetworkInterface]:
    """Return what the server says of its addresses; nothing where it does not say ([MS-SMB2] 3.2.4.20.10).

    Raises ConnectionLost, or StatusError for a refusal that is not one of those that mean "no".
    """
    (answer,) = await session.call([IoctlRequest(FSCTL_QUERY_NETWORK_INTERFACE_INFO, ANY_FILE, b"", ROOM)])
    if answer.status in NOT_NOW:
        return []
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, "FSCTL_QUERY_NETWORK_INTERFACE_INFO")
    if not answer.protected:
        raise WireError("the server's list of interfaces is neither signed nor encrypted")
    return parse_interfaces(memoryview(IoctlResponse.parse(answer.pdu).output))
