"""The table of locks against one that has an entry for each byte; the ledger against a server that keeps the rules."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mandatory_locks import MandatoryLocks, PosixLocks, modes

from smb3fs.handles.byte_ranges import END, Lock, RangeLocks
from smb3fs.handles.ledger import Ledger, Piece, PosixLedger, Step, union

SIZE = 16
RANGE = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(lambda pair: (pair[0], min(SIZE, sum(pair))))
OWNER = st.integers(1, 3)
ACTION = st.tuples(OWNER, RANGE, st.sampled_from(["shared", "exclusive", "unlock", "drop"]))


@given(st.lists(ACTION, max_size=30))
@settings(deadline=None)
def test_the_table_does_as_a_table_of_single_bytes(actions: list[tuple[int, tuple[int, int], str]]) -> None:
    table = RangeLocks()
    model: dict[int, list[int]] = {owner: [0] * SIZE for owner in (1, 2, 3)}
    for owner, (start, end), what in actions:
        if what == "drop":
            assert table.drop(owner) == any(model[owner])
            model[owner] = [0] * SIZE
        elif what == "unlock":
            assert table.unset(owner, start, end) == any(model[owner][start:end])
            model[owner][start:end] = [0] * (end - start)
        else:
            exclusive = what == "exclusive"
            least = 1 if exclusive else 2
            blocked = any(
                model[other][byte] >= least for other in model if other != owner for byte in range(start, end)
            )
            assert bool(table.conflicts(owner, start, end, exclusive=exclusive)) == blocked
            if not blocked:
                table.set(Lock(owner, start, end, exclusive))
                model[owner][start:end] = [1 + exclusive] * (end - start)
        for one, bytes_ in model.items():
            held = table.of(one)
            assert modes(((lock.start, lock.end, lock.exclusive) for lock in held), SIZE) == bytes_
            # As few entries as there can be.
            assert all(a.end < b.start or (a.end == b.start and a.exclusive != b.exclusive) for a, b in pairs(held))
        assert bool(table) == any(map(any, model.values()))


def pairs(held: list[Lock]) -> list[tuple[Lock, Lock]]:
    return list(itertools.pairwise(held))


def test_to_the_end_of_the_file() -> None:
    table = RangeLocks()
    table.set(Lock(1, 100, END, exclusive=True))
    assert table.conflicts(2, END - 1, END, exclusive=False) == [Lock(1, 100, END, exclusive=True)]
    assert table.unset(1, 200, 300)
    assert table.of(1) == [Lock(1, 100, 200, exclusive=True), Lock(1, 300, END, exclusive=True)]
    table.set(Lock(1, 0, END, exclusive=False))
    assert table.of(1) == [Lock(1, 0, END, exclusive=False)]


@given(st.lists(st.tuples(RANGE, st.booleans()).map(lambda one: (*one[0], one[1])), max_size=8))
def test_the_union_is_the_strongest_at_each_byte(pieces: list[tuple[int, int, bool]]) -> None:
    joined = union(pieces)
    assert modes(joined, SIZE) == modes(pieces, SIZE)
    for one, next_one in itertools.pairwise(joined):
        assert one.end <= next_one.start
        assert (one.end, one.exclusive) != (next_one.start, next_one.exclusive)


class Side:
    """One client: a table, a ledger, and how they follow each other; the server is shared with the other side."""

    def __init__(self, server: MandatoryLocks) -> None:
        self.server = server
        self.table = RangeLocks()
        self.ledger = PosixLedger() if isinstance(server, PosixLocks) else Ledger()

    def wanted(self) -> list[Piece]:
        return union((lock.start, lock.end, lock.exclusive) for lock in self.table)

    def check(self) -> None:
        """The ledger is what the server has, and no byte is locked less than it should be."""
        held = [piece for owner, piece in self.server.held if owner is self]
        if isinstance(self.ledger, PosixLedger):
            assert union(self.ledger.pieces) == union(held) == self.wanted()
        else:
            assert sorted(self.ledger.pieces) == sorted(held)
        for byte, mode in enumerate(modes(self.wanted(), SIZE)):
            assert self.server.mode(self, byte) >= mode

    def take(self, steps: list[Step], *, certain: bool, but: Piece | None = None) -> list[bool]:
        """Take steps; in between every wanted byte stays locked, but for what is being upgraded."""
        done = []
        for step in steps:
            done.append(self.server.take(self, step))
            assert done[-1] or not (certain or step.unlocks)
            if done[-1]:
                self.ledger.take(step)
            for byte, mode in enumerate(modes(self.wanted(), SIZE)):
                if but is None or not but.start <= byte < but.end:
                    assert self.server.mode(self, byte) >= mode
        return done

    def lock(self, owner: int, start: int, end: int, *, exclusive: bool) -> bool:
        if self.table.conflicts(owner, start, end, exclusive=exclusive):
            return False
        want = Piece(start, end, exclusive)
        missing, weak = self.ledger.lacks(want)
        granted = True
        if weak:
            plan = self.ledger.upgrade(want)
            granted = self.take(plan.steps, certain=False, but=want)[plan.crucial]
            self.take(plan.granted if granted else plan.refused, certain=True, but=None if granted else want)
            assert granted or all(self.ledger.covers(piece) for piece in plan.whole)
        elif missing:
            (granted,) = self.take([Step(missing)], certain=False)
        if granted:
            self.table.set(Lock(owner, start, end, exclusive))
        self.settle()
        return granted

    def settle(self) -> None:
        self.take(self.ledger.shrink(self.wanted()), certain=True)
        assert self.ledger.shrink(self.wanted()) == []


@pytest.mark.parametrize("kind", [MandatoryLocks, PosixLocks])
@given(actions=st.lists(st.tuples(st.integers(0, 1), ACTION), max_size=30))
@settings(deadline=None, max_examples=80)
def test_the_server_follows_without_a_gap(kind: type[MandatoryLocks], actions: list[tuple[int, Any]]) -> None:
    server = kind()
    sides = [Side(server), Side(server)]
    for number, (owner, (start, end), what) in actions:
        side, other = sides[number], sides[1 - number]
        if what == "drop":
            side.table.drop(owner)
            side.settle()
        elif what == "unlock":
            side.table.unset(owner, start, end)
            side.settle()
        else:
            exclusive = what == "exclusive"
            free = not any(
                server.mode(other, byte) >= (1 if exclusive else 2) for byte in range(start, end)
            ) and not side.table.conflicts(owner, start, end, exclusive=exclusive)
            assert side.lock(owner, start, end, exclusive=exclusive) == free
        for one in sides:
            one.check()
        # Where a byte is locked for writing by one of us, the server lets our handle write, and nobody else's.
        for byte, mode in enumerate(modes(side.wanted(), SIZE)):
            if mode == 2:
                assert server.allows(side, byte, byte + 1, write=True)
                assert not server.would_grant(other, Piece(byte, byte + 1, False))
    for side in sides:
        side.table.clear()
        side.settle()
        assert side.ledger.pieces == []
    assert server.held == []


def test_a_part_of_an_exclusive_piece_is_kept_until_all_of_it_can_go() -> None:
    server = MandatoryLocks()
    side = Side(server)
    assert side.lock(1, 0, 10, exclusive=True)
    side.table.unset(1, 0, 5)
    side.settle()
    assert [piece for _, piece in server.held] == [Piece(0, 10, True)]
    assert side.lock(2, 0, 3, exclusive=False)  # no question to the server: it is locked already
    side.table.unset(1, 5, 10)
    side.settle()
    assert [piece for _, piece in server.held] == [Piece(0, 3, False)]
