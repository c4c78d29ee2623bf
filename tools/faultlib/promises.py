"""What each share promises to programs whose connection is lost, and which errors break the promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from faultlib.plan import OF_THE_SERVER

NEITHER: Final = "neither"
DURABLE: Final = "durable"
PERSISTENT: Final = "persistent"

PROMISES: Final[Mapping[str, str]] = {
    NEITHER: "calls on open files may fail; what succeeded was done, what failed was done or not, no byte is wrong",
    DURABLE: "nothing fails when only the link does, but for locks and mkdir; with its process, open files may be lost",
    PERSISTENT: "nothing fails, whatever is lost and comes back within timeout=, but for locks given away",
}
# What a process of the server that crashes by itself amounts to.
CRASHED: Final = "crash"
# An open was given back without its locks: Samba 4.25 gives those of a lost connection to whoever asks for them.
ROBBED: Final = "robbed"
# [MS-SMB2] 3.3.7.1: a durable open keeps its byte-range locks only under a lease to write, which files that several
# clients have open never get. Here these are the counters.
WITHOUT_A_LEASE: Final = frozenset({"lock", "unlock", "read counter", "write counter", "open counter", "close counter"})
# Samba makes no open of a directory durable and grants it no lease that would tell whose it is, so whoever has lost the
# answer to a mkdir cannot tell who has made what is there.
NOT_KNOWN_AGAIN: Final = frozenset({"mkdir"})

# What goes by an open, so that its error may be about one that was lost at any time before.
BY_DESCRIPTOR: Final = WITHOUT_A_LEASE - {"open counter"} | {"write", "read", "append", "fsync", "close", "truncate"}


def broken(share: str, kind: str, what: str) -> bool:
    """Whether an error of an operation, after a fault of a kind, breaks the share's promise."""
    if share == PERSISTENT:
        return kind != ROBBED or what not in WITHOUT_A_LEASE
    return share == DURABLE and kind not in OF_THE_SERVER and what not in WITHOUT_A_LEASE | NOT_KNOWN_AGAIN
