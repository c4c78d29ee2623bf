"""The numbers by which a server tells a repeated LOCK from a new one ([MS-SMB2] 3.2.4.19, 3.3.5.14)."""

from __future__ import annotations

from typing import Final

# A server remembers the last number under each of so many indexes, counted from 1.
INDEXES: Final = 64
NUMBER_BITS: Final = 4


class LockSequence:
    """The sequence values of one open: each LOCK under way has an index of its own, and a number new for that index.

    A value that a server has seen last under its index stands for a LOCK that it has carried out: it answers success
    and does nothing. So none may ever be used for two different requests in a row.
    """

    __slots__ = ("_free", "_numbers")

    def __init__(self) -> None:
        self._numbers = [0] * (INDEXES + 1)
        self._free = list(range(INDEXES, 0, -1))

    def take(self) -> int:
        """Return the value for a new request; 0, which protects nothing, while all indexes are in use."""
        if not self._free:
            return 0
        index = self._free.pop()
        self._numbers[index] = (self._numbers[index] + 1) % (1 << NUMBER_BITS)
        return index << NUMBER_BITS | self._numbers[index]

    def give_back(self, value: int) -> None:
        """Take notice that a request was answered; one whose fate nobody knows keeps its index for good."""
        if value:
            self._free.append(value >> NUMBER_BITS)
