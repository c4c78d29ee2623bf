"""Where a program is going: whatever names it takes, and whatever is made meanwhile, nothing but names comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smb3fs.vfs.walk import Walk

ENOUGH, FIRST, MOST = 3, 2, 4
LISTED = [f"n{number}" for number in (3, 0, 5, 2, 7, 1, 6, 4)]
# Made after the names were listed.
NEW = ["m1", "n9"]


def take(walk: Walk, name: str) -> list[str]:
    """Do as those do that look ahead; return what is to be asked for."""
    walk.recent.append(name)
    if walk.orders is None and len(walk.recent) >= ENOUGH:
        walk.look(LISTED)
    place = walk.follow(name) if walk.knows(name) else None
    return [] if place is None else list(walk.next_names(place))


@given(st.lists(st.sampled_from([*LISTED, *NEW, "", "look"])))
def test_nothing_but_names_that_are_ahead(steps: list[str]) -> None:
    walk = Walk(ENOUGH, FIRST, MOST)
    asked: list[str] = []
    for number, step in enumerate(steps):
        if step == "":
            walk.rest(1000.0 * number, 1.0)
        elif step == "look":
            walk.look(LISTED)
        else:
            asked = take(walk, step)
            assert set(asked) <= set(LISTED) - {step}
            assert len(asked) <= MOST


@pytest.mark.parametrize("names", [LISTED, LISTED[::-1], sorted(LISTED), sorted(LISTED)[::-1]])
def test_each_order_is_a_way(names: list[str]) -> None:
    walk = Walk(ENOUGH, FIRST, MOST)
    asked = [one for name in names for one in take(walk, name)]
    assert asked == names[ENOUGH:]


def test_what_is_new_ends_a_way_and_the_next_one_begins_behind_it() -> None:
    walk = Walk(ENOUGH, FIRST, MOST)
    for name in LISTED[:ENOUGH]:
        take(walk, name)
    assert walk.heading is not None
    assert take(walk, NEW[0]) == []
    assert take(walk, LISTED[ENOUGH]) == []
    assert walk.heading is None
    assert [take(walk, name) for name in LISTED[ENOUGH + 1 :][:2]] == [[], LISTED[ENOUGH + 3 :][:FIRST]]
