"""The locks of one file as a server has them: of handles, on exact ranges, and in everybody's way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smb3fs.handles.ledger import Piece, Step


class MandatoryLocks:
    """[MS-FSA] 2.1.4.10, 2.1.5.8 and 2.1.5.9, with the habit of unlocking the exclusive one of two."""

    def __init__(self) -> None:
        self.held: list[tuple[Any, Piece]] = []

    def would_grant(self, handle: object, piece: Piece) -> bool:
        """Whether a range can be locked; shared over one's own exclusive lock, but not the other way round."""
        return not any(
            overlaps(piece, other) and (piece.exclusive or (other.exclusive and owner is not handle))
            for owner, other in self.held
        )

    def allows(self, handle: object, start: int, end: int, *, write: bool) -> bool:
        """Whether bytes can be read or written; under a shared lock nobody writes."""
        return not any(
            overlaps(Piece(start, end, write), other)
            and ((other.exclusive and owner is not handle) or (write and not other.exclusive))
            for owner, other in self.held
        )

    def take(self, handle: object, step: Step) -> bool:
        """Take a step, wholly or not at all."""
        if step.unlocks:
            unlocked = [self._unlock(handle, piece) for piece in step.pieces]
            return all(unlocked)
        before = list(self.held)
        for piece in step.pieces:
            if not self.would_grant(handle, piece):
                self.held = before
                return False
            self.held.append((handle, piece))
        return True

    def _unlock(self, handle: object, piece: Piece) -> bool:
        """Unlock a range that is locked just so."""
        for exclusive in (True, False):
            entry = (handle, piece._replace(exclusive=exclusive))
            if entry in self.held:
                self.held.remove(entry)
                return True
        return False

    def close(self, handle: object) -> None:
        """Drop what a handle has."""
        self.held = [entry for entry in self.held if entry[0] is not handle]

    def mode(self, handle: object, byte: int) -> int:
        """How a handle has locked a byte: 0 not, 1 shared, 2 exclusively."""
        return max(
            (1 + p.exclusive for owner, p in self.held if owner is handle and p.start <= byte < p.end), default=0
        )


class PosixLocks(MandatoryLocks):
    """The same of a server that keeps the locks of POSIX opens by POSIX's rules: replaced, split, and advisory."""

    def would_grant(self, handle: object, piece: Piece) -> bool:
        """Whether a range can be locked: one's own locks are never in the way."""
        return not any(
            overlaps(piece, other) and (piece.exclusive or other.exclusive)
            for owner, other in self.held
            if owner is not handle
        )

    def allows(self, handle: object, start: int, end: int, *, write: bool) -> bool:
        """Nobody is kept from reading and writing."""
        return True

    def take(self, handle: object, step: Step) -> bool:
        """Take a step; a refused one undoes by unlocking."""
        for index, piece in enumerate(step.pieces):
            if not step.unlocks and not self.would_grant(handle, piece):
                for undone in step.pieces[:index]:
                    self._cut(handle, undone)
                return False
            self._cut(handle, piece)
            if not step.unlocks:
                self.held.append((handle, piece))
        return True

    def _cut(self, handle: object, piece: Piece) -> None:
        """Take a range from what a handle has."""
        held = []
        for owner, other in self.held:
            if owner is not handle or not overlaps(piece, other):
                held.append((owner, other))
                continue
            if other.start < piece.start:
                held.append((owner, other._replace(end=piece.start)))
            if other.end > piece.end:
                held.append((owner, other._replace(start=piece.end)))
        self.held = held


def overlaps(one: Piece, other: Piece) -> bool:
    """Whether two ranges have a byte in common."""
    return one.start < other.end and other.start < one.end


def modes(pieces: Iterable[tuple[int, int, bool]], size: int) -> list[int]:
    """How each byte of a small file is locked, by any of the pieces."""
    result = [0] * size
    for start, end, exclusive in pieces:
        for byte in range(start, min(end, size)):
            result[byte] = max(result[byte], 1 + exclusive)
    return result
