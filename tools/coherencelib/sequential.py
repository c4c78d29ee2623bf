"""One operation at a time, from alternating sides: what each must answer is known exactly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coherencelib.model import Expected, Model
from coherencelib.operations import ASKING, Operation, difference
from coherencelib.sides import Answer, GoneError, Side

FIRST_WAIT: Final = 0.002
LONGEST_WAIT: Final = 0.1
AGED: Final = 1.1
FOLLOWING: Final = frozenset({"put", "truncate", "utime", "open"})
"""Calls that change the file which a name leads to, or open it to be changed; so does the removal of an open one."""


@dataclass
class Course:
    """What came of a history."""

    done: Counter[str] = field(default_factory=Counter)
    late: dict[str, list[float]] = field(default_factory=dict)
    """Seconds after which a first answer that was not the right one yet had become right, by what was wrong with it."""
    violation: str = ""
    at: Operation | None = None


def related(operations: Sequence[Operation]) -> list[Operation]:
    """Those that have to do with what the last one is about: its files, their names, and what makes directories."""
    model, everything = Model(), []  # the model is kept, so that no identity is used twice
    kept: list[object] = []
    for operation in operations:
        before = model.touched(operation)
        expected = model.do(operation)
        everything.append((operation, before | model.touched(operation), expected is not None))
        kept += [model.files.copy(), model.slots.copy()]
    wanted = everything[-1][1]
    names = {word for operation, files, _ in everything if files & wanted for word in operation.arguments[:2]}
    names = {name for name in names if isinstance(name, str)}
    return [
        operation
        for operation, files, done in everything
        if done and (files & wanted or names & set(operation.arguments) or "dir" in operation.verb)
    ]


def fits(answer: Answer, expected: Expected) -> bool:
    """Whether that is the answer; a time that nobody knows fits any."""
    if answer.error or expected.error:
        return answer.error == expected.error
    seen, wanted = answer.value, expected.value
    if isinstance(wanted, list) and len(wanted) == 3 and wanted[0] == "file" and isinstance(seen, list):
        pairs: list[tuple[Any, Any]] = list(zip(seen, wanted, strict=False))
        return len(seen) == 3 and all(one == other or other is None or one is None for one, other in pairs)
    return bool(seen == wanted)


def told(answer: Answer, expected: Expected) -> str:
    """What is wrong with an answer."""
    if answer.error:
        return f"{answer.error} in place of {expected.error or 'success'}"
    if expected.error:
        return f"success in place of {expected.error}"
    return difference(answer.value, expected.value)


def _sort(operation: Operation, words: str) -> str:
    """A sort of answer that came late: the verb, and the error if there was one that should not have been."""
    return f"{operation.verb}: {words}" if " in place of success" in words else operation.verb


def carry_out(
    operations: Sequence[Operation],
    sides: Mapping[str, Side],
    bound: float,
    actimeo: float = 0.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Course:
    """Do a history up to its first violation: an answer that is still wrong after `bound` seconds.

    `actimeo` is for how many seconds the sides believe a name that they have looked up.
    """
    course, model, renamed = Course(), Model(), Renamed(bound)
    for place, operation in enumerate(operations):
        first = renamed.first(model, operation)
        before = names(model)
        expected = model.do(operation)
        if expected is None:
            continue
        progress(place)
        side = sides[operation.side]
        try:
            if first and first[1].value == b"":
                time.sleep(actimeo * AGED)  # one empty file is like another
            wrong = _one(*first, side, bound, course) if first else ""
            wrong = wrong or _one(operation, expected, side, bound, course)
        except GoneError as error:
            wrong = f"{operation.side}: {error}"
        renamed.note(before, names(model), operation.side)
        course.done[f"{operation.side} {operation.verb}"] += 1
        if wrong:
            course.violation, course.at = wrong, operation
            break
    return course


def names(model: Model) -> dict[str, object]:
    """What each name leads to; all directories are alike here."""
    return {**model.files, **dict.fromkeys(model.directories, "directory")}


class Renamed:
    """Names that somebody has given to another file of late, or to none.

    Who still believes the old name may be led to the file that had it, and change that: such a call would do what is
    promised to nobody. So before one, the side reads the file by that name until it is the right one.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self._changed: dict[str, tuple[float, str]] = {}

    def note(self, before: Mapping[str, object], after: Mapping[str, object], side: str) -> None:
        """Take down what an operation of a side has done to names."""
        for path in {*before, *after}:
            if before.get(path) is not after.get(path):
                self._changed[path] = time.monotonic(), side

    def first(self, model: Model, operation: Operation) -> tuple[Operation, Expected] | None:
        """What has to be done before an operation, if anything."""
        path = str(operation.arguments[0]) if operation.arguments else ""
        # What is open goes out of sight when it is removed only if it is known by that name.
        removed = model.files[path] if operation.verb == "unlink" and path in model.files else None
        # Of two names of one file rename(2) leaves both, and a name that is believed for a moment longer is one of two.
        there = names(model)
        back = "rename" in operation.verb and path not in there and operation.arguments[1] in there
        if operation.verb not in FOLLOWING and not (removed and removed.opens) and not back:
            return None
        when, side = self._changed.get(path, (float("-inf"), operation.side))
        if side == operation.side or time.monotonic() - when > self._bound:
            return None
        look = Operation(operation.number, operation.side, "stat" if back else "get", (path,))
        expected = model.do(look)
        return (look, expected) if expected else None


def _one(operation: Operation, expected: Expected, side: Side, bound: float, course: Course) -> str:
    """Do one, again and again if it may be: what is wrong in the end, empty if nothing."""
    answer = side.do(operation)
    if fits(answer, expected):
        return ""
    began, first, wait = answer.began, told(answer, expected), FIRST_WAIT
    while answer.error or operation.verb in ASKING:
        late = answer.began - began
        if late > bound:
            break
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
        answer = side.do(operation)
        if fits(answer, expected):
            course.late.setdefault(_sort(operation, first), []).append(answer.began - began)
            return ""
    then = told(answer, expected)
    return f"{first}, and {answer.began - began:.3f} s later {'still' if then == first else then}"
