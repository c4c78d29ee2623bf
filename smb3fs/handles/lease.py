"""One lease: what the server lets us keep of one file. What becomes of it, and when, stands in `leases`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from smb3fs.wire.lease import NO_KEY, LeaseState

# As ints: arithmetic with enum's flags costs microseconds.
NONE: Final = 0
RH: Final = int(LeaseState.READ | LeaseState.HANDLE)
RWH: Final = int(LeaseState.READ | LeaseState.WRITE | LeaseState.HANDLE)


class Reason(Enum):
    """Why a lease has changed."""

    GRANTED = auto()
    BROKEN = auto()
    MISSED = auto()
    """More has changed than we were told of: what was kept is worthless, whatever is granted now."""
    SUSPENDED = auto()
    CLAIMED = auto()
    """Given back with its open after a loss, unchanged: what was kept is true."""
    RELEASED = auto()


class Holder(Protocol):
    """What may hold a lease: an open."""

    lease: Lease | None


@dataclass(slots=True, eq=False)
class Lease:
    """The lease on one file under one name; `path` is as in `Open`, `file_id` the file's number, 0 if it is not known.

    `opens` are those that hold it, `asked` counts the CREATEs on their way that ask for it. `known` tells whether the
    server has said anything of it yet in this session; `early` is what breaks have left of it before that, with the
    epoch of the latest of them.
    """

    key: bytes
    path: str
    parent_key: bytes = NO_KEY
    file_id: int = 0
    state: int = NONE
    epoch: int = 0
    opens: set[Holder] = field(default_factory=set)
    asked: int = 0
    known: bool = False
    guards_name: bool = False
    """Whether H is taken back when another client removes or renames the file."""
    numbered: bool = False
    """Whether its changes have numbers, so that it shows after a loss whether it was kept all along."""
    kept: int = NONE
    """The state that it had when the connection was lost."""
    early: tuple[int, int] | None = None
    directory: bool = False
    cut: bool = False
    """Whether a CREATE that asked for it has ended with the server's process, and may be half done there for ever."""
    losses: int = 0
    """How often any of it was taken back or lost; where that is the same as before, it was held all along."""


def lease_name(state: int) -> str:
    """Return a state as people write it: RWH, or none."""
    letters = ((LeaseState.READ, "R"), (LeaseState.WRITE, "W"), (LeaseState.HANDLE, "H"))
    return "".join(letter for bit, letter in letters if state & bit) or "none"


def later_by(epoch: int, other: int) -> int:
    """Return by how much an epoch is later than another one: their difference in 16 bits, with a sign."""
    return (epoch - other + 0x8000) % 0x10000 - 0x8000
