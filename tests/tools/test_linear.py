"""How tools/coherence --concurrent judges: what can have been is never called wrong, and what cannot always is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from coherencelib import racer  # noqa: E402
from coherencelib.concurrent import final, race  # noqa: E402
from coherencelib.linear import Event, judge  # noqa: E402

BOUND = 1.0


def words(*events: tuple[Any, ...], bound: float = BOUND, **found: Any) -> list[str]:
    """What is wrong with some events of one (what, key, value, began, ended, error)."""
    at_end: dict[str, Any] = {"log": "", "moves": [], **{key.replace("_", " "): value for key, value in found.items()}}
    return [wrong.words for wrong in judge([Event("one", *event) for event in events], at_end, bound).wrong]


WRITE = ("write", "r0 0", 7, 1.0, 2.0)


@pytest.mark.parametrize(
    ("read", "right"),
    [
        (("read", "r0 0", [7], 5.0, 5.1), True),
        (("read", "r0 0", [0], 1.5, 1.6), True),
        (("read", "r0 0", [7], 1.5, 1.6), True),
        (("read", "r0 0", [0], 2.9, 3.0), True),
        (("read", "r0 0", [0], 3.1, 3.2), False),
        (("read", "r0 0", [7], 0.5, 0.9), False),
        (("read", "r0 0", [8], 5.0, 5.1), False),
        (("read", "r0 0", [], 5.0, 5.1), False),
        (("read", "r0 0", [0, 7], 1.5, 1.6), True),
        (("read", "r0 0", [7], 5.0, 5.1, "EIO"), False),
    ],
)
def test_a_block_is_what_was_written_last(read: tuple[Any, ...], right: bool) -> None:
    assert (words(WRITE, read, r0_0=[7]) == []) is right


def test_what_two_write_at_once_may_come_in_either_order() -> None:
    other = ("write", "r0 0", 8, 1.5, 2.5)
    for last in (7, 8):
        assert words(WRITE, other, ("read", "r0 0", [last], 9.0, 9.1), r0_0=[last]) == []
    assert words(WRITE, ("write", "r0 0", 8, 2.1, 2.5), r0_0=[7]) != [], "at the server nothing may be old in the end"


@pytest.mark.parametrize(
    ("events", "log", "right"),
    [
        ([("append", "log", 7, 1.0, 2.0), ("append", "log", 8, 3.0, 4.0)], "000007\n000008\n", True),
        ([("append", "log", 7, 1.0, 2.0), ("append", "log", 8, 3.0, 4.0)], "000008\n000007\n", False),
        ([("append", "log", 7, 1.0, 3.5), ("append", "log", 8, 3.0, 4.0)], "000008\n000007\n", True),
        ([("append", "log", 7, 1.0, 2.0)], "", False),
        ([("append", "log", 7, 1.0, 2.0)], "000007\n000007\n", False),
        ([("append", "log", 7, 1.0, 2.0)], "000007\n000009\n", False),
        ([("append", "log", 7, 1.0, 2.0), ("log", "log", "", 2.5, 2.6)], "000007\n", True),
        ([("append", "log", 7, 1.0, 2.0), ("log", "log", "", 3.5, 3.6)], "000007\n", False),
        ([("append", "log", 7, 1.0, 2.0), ("log", "log", "000008\n", 3.5, 3.6)], "000007\n", False),
    ],
)
def test_a_log_has_each_record_once_and_in_order(events: list[tuple[Any, ...]], log: str, right: bool) -> None:
    assert (words(*events, log=log) == []) is right


NAME = "names/n1"
MADE = ("make", NAME, 0, 1.0, 2.0)
REMOVED = ("remove", NAME, 0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("events", "right"),
    [
        ([MADE, REMOVED, ("make", NAME, 0, 5.0, 6.0)], True),
        ([MADE, ("make", NAME, 0, 1.5, 2.5)], False),
        ([MADE, ("remove", NAME, 0, 1.5, 3.5), ("make", NAME, 0, 1.7, 2.5)], True),
        ([MADE, REMOVED, ("remove", NAME, 0, 3.5, 4.5)], False),
        ([REMOVED], False),
        ([("remove", NAME, 0, 0.5, 0.9), MADE], False),
        ([MADE, ("make", NAME, 0, 1.5, 2.5, "EEXIST")], True),
        ([("make", NAME, 0, 1.5, 2.5, "EEXIST")], False),
        ([MADE, ("look", NAME, 0, 2.5, 2.6, "ENOENT")], True),
        ([MADE, ("look", NAME, 0, 3.5, 3.6, "ENOENT")], False),
        ([MADE, ("look", NAME, 0, 0.5, 0.6)], False),
        ([MADE, REMOVED, ("look", NAME, 0, 4.5, 4.6)], True),
        ([MADE, REMOVED, ("look", NAME, 0, 5.5, 5.6)], False),
        ([MADE, ("remove", NAME, 0, 3.5, 3.6, "ENOENT")], False),
        ([MADE, REMOVED, ("remove", NAME, 0, 3.5, 3.6, "ENOENT")], True),
        ([MADE, ("remove", NAME, 0, 1.0, 1.5, "EBUSY")], False),
    ],
)
def test_a_name_is_made_and_removed_in_turns(events: list[tuple[Any, ...]], right: bool) -> None:
    assert (words(*events) == []) is right


@pytest.mark.parametrize(
    ("events", "left", "right"),
    [
        ([("move", "t0-", "t0-5", 1.0, 2.0), ("move", "t0-5", "t0-6", 3.0, 4.0)], ["t0-6"], True),
        ([("move", "t0-", "t0-5", 1.0, 2.0), ("move", "t0-", "t0-6", 1.0, 2.0)], ["t0-6"], False),
        ([("move", "t0-", "t0-5", 1.0, 2.0), ("move", "t0-", "t0-6", 1.0, 2.0, "ENOENT")], ["t0-5"], True),
        ([("move", "t0-", "t0-6", 1.0, 2.0, "ENOENT")], ["t0-"], False),
        ([("move", "t0-", "t0-5", 1.0, 2.0)], ["t0-"], False),
        ([("move", "t0-", "t0-5", 1.0, 2.0)], ["t0-", "t0-5"], False),
    ],
)
def test_a_token_is_at_one_place(events: list[tuple[Any, ...]], left: list[str], right: bool) -> None:
    assert (words(*events, moves=left) == []) is right


def test_a_local_disk_is_as_it_must_be(tmp_path: Path) -> None:
    """Processes on one directory, without any bound."""
    events, verdict = race({"left": tmp_path, "right": tmp_path}, tmp_path, 1, 1.5, 0.0, maps=False)
    assert [wrong.words for wrong in verdict.wrong] == []
    assert {event.what for event in events} >= {"write", "read", "append", "log", "make", "remove", "move"}
    assert final(tmp_path)["r0 0"]


def test_records_are_as_long_as_the_judge_takes_them_for() -> None:
    assert len(b"%06d\n" % 1) == racer.RECORD
