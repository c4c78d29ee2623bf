"""Buffers that are used again: never one that somebody still looks at, and no more new ones than are in use."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.buffers import STEP, SpareBuffers

MIB = 1 << 20


def test_what_nobody_looks_at_any_more_is_used_again() -> None:
    spare = SpareBuffers(4)
    seen = set()
    for size in (MIB, MIB + 80, MIB - 100, MIB + 132):
        view = spare.take(size)
        assert len(view) == size
        seen.add(id(view.obj))
        del view
    assert len(seen) == 2  # of one MiB, and of a little more


def test_a_part_of_a_view_keeps_the_whole() -> None:
    spare = SpareBuffers(4)
    first = spare.take(MIB)
    part = first[100:200]
    part[:] = b"x" * 100
    memory = id(first.obj)
    del first
    second = spare.take(MIB)
    assert id(second.obj) != memory
    second[:] = bytes(MIB)
    assert bytes(part) == b"x" * 100
    del part, second
    both = spare.take(MIB), spare.take(MIB)
    assert memory in {id(view.obj) for view in both}
    assert len(spare) == 2


def test_no_small_message_holds_a_large_buffer() -> None:
    spare = SpareBuffers(4)
    spare.take(8 * MIB)
    small = spare.take(2 * STEP)
    assert isinstance(small.obj, bytearray)
    assert len(small.obj) == 2 * STEP


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6 * STEP), st.booleans()), max_size=40))
def test_nobody_finds_somebody_elses_bytes_in_what_he_holds(steps: list[tuple[int, bool]]) -> None:
    spare = SpareBuffers(3)
    held: list[tuple[memoryview, int]] = []
    for number, (size, keep) in enumerate(steps):
        view = spare.take(size)
        view[:] = bytes([number]) * size
        assert len(spare) <= 3
        if keep:
            held.append((view, number))
        elif held:
            held.pop(0)
        del view
        assert all(bytes(view) == bytes([number]) * len(view) for view, number in held)
