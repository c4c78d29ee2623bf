"""Asking a server for its addresses, which it may have more of than the one that a session was made at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import trio

from smb3fs.channels.negotiation import ANY_FILE
from smb3fs.channels.session import Session
from smb3fs.errors import Smb3fsError, Status, StatusError, WireError
from smb3fs.trace import Trace
from smb3fs.wire.interfaces import FSCTL_QUERY_NETWORK_INTERFACE_INFO, NetworkInterface, parse_interfaces
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.negotiate import Capability, SigningAlgorithm

# Seconds between two questions for the server's addresses, as Linux and Windows have it; between two at least, whatever
# has happened; and after one that was not answered, doubled each time.
ASK_INTERVAL: Final = 600.0
SOONEST: Final = 5.0
FIRST_PAUSE: Final = 2.0
# As much as one credit pays for: more than 400 addresses.
ROOM: Final = 65536
# How a server says that it has, just now, nothing to tell.
NOT_NOW: Final = frozenset({Status.NOT_SUPPORTED, Status.NOT_IMPLEMENTED, Status.INVALID_DEVICE_REQUEST})


def takes_several(session: Session) -> bool:
    """Whether a session may have several channels.

    That of a guest has no key to bind another one with, and where GMAC signs it takes message ids set apart for it.
    """
    if not session.agreed.capabilities & Capability.MULTI_CHANNEL or session.security.signer is None:
        return False
    return (
        session.binding_ids is None or session.agreed.signing != SigningAlgorithm.AES_GMAC or bool(session.binding_ids)
    )


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


class Offers:
    """What the server of one session says of its addresses, asked again every ten minutes and when that may be of use.

    `interfaces` is what it has said last; None as long as it has not said anything.
    """

    def __init__(self, trace: Trace) -> None:
        self.interfaces: Sequence[NetworkInterface] | None = None
        self._trace = trace
        self._asked = self._due = trio.current_time()
        self._failures = 0

    def again(self) -> None:
        """Ask soon: a channel was lost, or a link of ours has changed."""
        if not self._failures:
            self._due = min(self._due, self._asked + SOONEST)

    @property
    def due(self) -> bool:
        """Whether it is time to ask."""
        return trio.current_time() >= self._due

    @property
    def due_in(self) -> float:
        """In how many seconds that is."""
        return self._due - trio.current_time()

    async def ask(self, session: Session) -> None:
        """Ask; where there is no answer, what was known stays, and it is tried again after a while."""
        self._asked = trio.current_time()
        try:
            self.interfaces = await interfaces_of(session)
        except Smb3fsError as error:
            if not self._failures:
                self._trace.error(time.time(), f"the server's interfaces are not known: {error}")
            self._due = self._asked + min(FIRST_PAUSE * (1 << min(self._failures, 10)), ASK_INTERVAL)
            self._failures += 1
        else:
            self._failures = 0
            self._due = self._asked + ASK_INTERVAL
