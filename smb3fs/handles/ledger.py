"""What one handle has locked on the server, and how that follows what is wanted without ever leaving a gap.

Theory of operation. What is wanted is the union of what all owners of this mount hold, at each byte the strongest of
it. The server has pieces, each locked by one request, and knows these rules ([MS-FSA] 2.1.5.8, 2.1.5.9):

- it unlocks a piece as a whole, by its exact range, or not at all;
- over an exclusive piece the same handle may lock a shared one, and over a shared one another shared one; but an
  exclusive piece suffers nothing under it, not even of the same handle;
- of two pieces with the same range the exclusive one goes first;
- what is locked shared nobody may write, not even the handle that has locked it.

So what is wanted less of becomes smaller in two steps, first new shared pieces over the old one, then the old one away,
and nobody gets in between. That does not do for a part of an exclusive piece that stays exclusive: such a piece stays
as it is until nothing in it is wanted exclusively. Locking more is another piece beside those that are there. And from
shared to exclusive there is no way but to give up the one and ask for the other, see `upgrade`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A range [start, end) and how it is locked."""

    start: int
    end: int
    exclusive: bool


class Step(NamedTuple):
    """What one request does: lock pieces, all or none of them, or unlock them."""

    pieces: Sequence[Piece]
    unlocks: bool = False


class Upgrade(NamedTuple):
    """From shared to exclusive: `steps` in one go, of which the one at `crucial` may be refused.

    Granted, `granted` follows. Refused, the last of the steps has locked shared again what could be, and `refused`
    does so with the rest. `whole` is what must be covered afterwards, one way or another.
    """

    steps: list[Step]
    crucial: int
    granted: list[Step]
    refused: list[Step]
    whole: list[Piece]


def union(pieces: Iterable[tuple[int, int, bool]]) -> list[Piece]:
    """Return (start, end, exclusive) ranges as disjoint pieces in order, at each byte the strongest."""
    pieces = list(pieces)
    exclusive = _merged((start, end) for start, end, strong in pieces if strong)
    shared = _minus(_merged((start, end) for start, end, strong in pieces if not strong), exclusive)
    return sorted([Piece(*one, True) for one in exclusive] + [Piece(*one, False) for one in shared])


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, and as one where they touch."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def _minus(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is in `ranges` and not in `others`, both merged."""
    result = []
    for start, end in ranges:
        for low, high in others:
            if high <= start or low >= end:
                continue
            if low > start:
                result.append((start, low))
            start = max(start, high)  # noqa: PLW2901 (what is left of it)
        if start < end:
            result.append((start, end))
    return result


def _halves(start: int, end: int) -> list[Piece]:
    """Return a range of two bytes or more as two shared pieces, so that neither has the range of another piece."""
    middle = (start + end) // 2
    return [Piece(start, middle, False), Piece(middle, end, False)]


class Ledger:
    """The pieces that one handle has on the server; `leaving` are those that it has been asked to unlock."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.leaving: list[Piece] = []

    def add(self, pieces: Iterable[Piece]) -> None:
        """Note what has been locked."""
        self.pieces += pieces

    def take(self, step: Step) -> None:
        """Note that a step has been done."""
        if not step.unlocks:
            self.add(step.pieces)
            return
        for piece in step.pieces:
            self.pieces.remove(piece)

    @property
    def relied_on(self) -> list[Piece]:
        """The pieces that nobody has asked the server to unlock."""
        kept = list(self.pieces)
        for piece in self.leaving:
            if piece in kept:
                kept.remove(piece)
        return kept

    def _covered(self, *, by_exclusive: bool) -> list[tuple[int, int]]:
        """Return what is locked, or what is locked exclusively."""
        return _merged((piece.start, piece.end) for piece in self.pieces if piece.exclusive or not by_exclusive)

    def lacks(self, want: Piece) -> tuple[list[Piece], list[Piece]]:
        """Return what of a wanted range is not locked at all, and what is locked shared and should be exclusive."""
        whole = [(want.start, want.end)]
        missing = _minus(whole, self._covered(by_exclusive=False))
        weak = []
        if want.exclusive:
            weak = _minus(_minus(whole, self._covered(by_exclusive=True)), missing)
        return [Piece(*one, want.exclusive) for one in missing], [Piece(*one, True) for one in weak]

    def shrink(self, wanted: Sequence[Piece]) -> list[Step]:
        """Return the steps that give up what is not wanted any more and can be given up; none of them is refused."""
        strong = [piece for piece in wanted if piece.exclusive]
        kept = [piece for piece in self.pieces if piece.exclusive and _overlaps(piece, strong)]
        targets = _minus(
            _merged((piece.start, piece.end) for piece in wanted), _merged((one.start, one.end) for one in kept)
        )
        left = targets
        for piece in sorted((one for one in self.pieces if not one.exclusive), key=lambda one: one.start - one.end):
            outside = _minus([(piece.start, piece.end)], targets)
            news = _minus([(piece.start, piece.end)], _minus(targets, left))
            if not outside and news:
                kept.append(piece)
                left = _minus(left, [(piece.start, piece.end)])
        gone = list(self.pieces)
        for piece in kept:
            gone.remove(piece)
        if not gone:
            return []
        steps = [Step([Piece(*one, False) for one in left])] if left else []
        # One after the other: where a server does not find one of them, the others are unlocked all the same.
        return steps + [Step([piece], unlocks=True) for piece in sorted(gone, key=lambda one: not one.exclusive)]

    def upgrade(self, want: Piece) -> Upgrade:
        """Return how to come to an exclusive lock on what is locked shared, in part at least.

        The shared lock has to go before the exclusive one can come, and somebody could get in between. So all of it
        goes as one message, which a server works off without looking elsewhere, with a shared lock behind the exclusive
        one: if that is refused, it puts back what was given up; if it is granted, it lies over it, allowed and
        superfluous, in two halves, since it could not be unlocked by itself if it had the same range. A single byte
        has no halves, and is locked again when the refusal has come.
        """
        missing, weak = self.lacks(want)
        olds = [piece for piece in self.pieces if not piece.exclusive and _overlaps(piece, weak)]
        whole = _merged((piece.start, piece.end) for piece in olds)
        around = _minus(whole, [(want.start, want.end)])
        steps = [Step([Piece(*one, False) for one in around])] if around else []
        steps += [Step([piece], unlocks=True) for piece in olds]
        crucial = len(steps)
        steps.append(Step([*missing, *weak]))
        behind = [half for piece in weak if piece.end - piece.start > 1 for half in _halves(piece.start, piece.end)]
        single = [Piece(piece.start, piece.end, False) for piece in weak if piece.end - piece.start == 1]
        if behind:
            steps.append(Step(behind))
        return Upgrade(
            steps,
            crucial,
            [Step([piece], unlocks=True) for piece in behind],
            [Step([piece]) for piece in single],
            [Piece(*one, False) for one in whole],
        )

    def gaps(self, want: Piece) -> list[Piece]:
        """Return what of a range is not locked at all."""
        missing = _minus([(want.start, want.end)], self._covered(by_exclusive=False))
        return [Piece(*one, want.exclusive) for one in missing]

    def covers(self, piece: Piece) -> bool:
        """Whether a range is locked, at least as strongly."""
        missing, weak = self.lacks(piece)
        return not missing and not weak


class PosixLedger(Ledger):
    """The same on a handle whose locks go by POSIX's rules, as Samba's do where the extensions are in use.

    What is locked replaces what was locked there before, up and down, and any part of it can be unlocked. `pieces` are
    disjoint here, and what is held is what is wanted.
    """

    def add(self, pieces: Iterable[Piece]) -> None:
        """Note what has been locked, in the place of what was there."""
        for piece in pieces:
            self._cut(piece)
            self.pieces.append(piece)

    def take(self, step: Step) -> None:
        """Note that a step has been done."""
        if not step.unlocks:
            self.add(step.pieces)
            return
        for piece in step.pieces:
            self._cut(piece)

    def _cut(self, piece: Piece) -> None:
        """Forget what is held of a range."""
        kept = []
        for other in self.pieces:
            rest = _minus([(other.start, other.end)], [(piece.start, piece.end)])
            kept += [Piece(*one, other.exclusive) for one in rest]
        self.pieces = kept

    def lacks(self, want: Piece) -> tuple[list[Piece], list[Piece]]:
        """Return what is to be locked: for an exclusive lock all of it at once, since a shared one is no hindrance."""
        if want.exclusive:
            whole = [(want.start, want.end)]
            return ([want], []) if _minus(whole, self._covered(by_exclusive=True)) else ([], [])
        return self.gaps(want), []

    def shrink(self, wanted: Sequence[Piece]) -> list[Step]:
        """Return the steps that make what is held what is wanted."""
        strong = _merged((piece.start, piece.end) for piece in wanted if piece.exclusive)
        weak = _merged((piece.start, piece.end) for piece in wanted if not piece.exclusive)
        exclusive = self._covered(by_exclusive=True)
        surplus = _minus(exclusive, strong)
        lowered = _minus(surplus, _minus(surplus, weak))
        gone = _minus(self._covered(by_exclusive=False), _merged([*strong, *weak]))
        steps = [Step([Piece(*one, False)]) for one in lowered]
        return steps + [Step([Piece(*one, False)], unlocks=True) for one in gone]


def _overlaps(piece: Piece, others: Iterable[Piece]) -> bool:
    """Whether a piece has a byte in common with any of the others."""
    return any(piece.start < other.end and piece.end > other.start for other in others)
