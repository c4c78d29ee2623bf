"""What servers know us by: the ClientGuid, and the number of losses counted under it ([MS-SMB2] 3.2.1.1, 3.2.1.3).

After a loss nobody knows which of the unanswered requests the server still works on. So each request carries a number,
the channel sequence, that grows with every loss. The server keeps the newest one for each open: a change that comes
with an older one it refuses, and a repeated change it puts off while one with an older number is under way
([MS-SMB2] 3.3.5.2.10).

The number has 16 bits, and servers compare by the sign of a 16-bit difference. With some of them an open begins at 0,
whatever its CREATE carried. From 0x8000 on our requests would seem old to these, so a ClientGuid is given up before,
and preferably when nothing is open that the server knows by it.

It is also given up with every loss where the server keeps nothing open that could be claimed by it. Samba hands a
connection to the process that serves its ClientGuid already. If a relay keeps the connection before alive there, its
breaks of leases go to that one, and are heard by nobody: whoever waits for them waits for 35 s.
"""

from __future__ import annotations

import uuid
from typing import Final

# The last number that is newer than 0, and the one from which on a new ClientGuid is taken at the next opportunity.
LAST_SEQUENCE: Final = 0x7FFF
WORN_SEQUENCE: Final = 0x4000


class ClientIdentity:
    """A ClientGuid (16 bytes) and its channel sequence; both change, and those who send refer to them."""

    __slots__ = ("guid", "sequence")

    def __init__(self, guid: bytes = b"", sequence: int = 0) -> None:
        """Without a GUID make a new one."""
        self.guid = guid or uuid.uuid4().bytes_le
        self.sequence = sequence

    def step(self) -> None:
        """Count a loss with requests outstanding."""
        self.sequence = min(self.sequence + 1, LAST_SEQUENCE)

    def resume(self, guid: bytes, sequence: int) -> None:
        """Go on as a daemon that was killed, which had come to `sequence` and may have left requests unanswered."""
        self.guid, self.sequence = guid, sequence
        self.step()

    def renew(self, opens: int, *, keeps: bool = True) -> bool:
        """Take a new GUID if it is time; to be asked while there is no connection, with the number of opens to claim.

        Where the server `keeps` nothing it is time after every loss. True if so; the server then knows none of these
        opens any more.
        """
        if keeps and self.sequence < (WORN_SEQUENCE if not opens else LAST_SEQUENCE):
            return False
        self.guid = uuid.uuid4().bytes_le
        self.sequence = 0
        return True
