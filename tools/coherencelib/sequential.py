"""One operation at a time, from alternating sides: what each must answer is known exactly."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coherencelib.model import Expected, Model
from coherencelib.operations import ASKING, FAULT, SMBCLIENT, Operation, difference
from coherencelib.outages import Outages
from coherencelib.settling import LostError, Settling, is_lost
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
        if done
        and (files & wanted or names & set(operation.arguments) or "dir" in operation.verb or operation.side == FAULT)
    ]


def fits(answer: Answer, expected: Expected) -> bool:
    """Whether that is the answer; a time that nobody knows fits any."""
    if answer.error or expected.error:
        return answer.error == expected.error
    seen, wanted = answer.value, expected.value
    if expected.allows is not None and expected.allows(seen):
        return True
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
    settling: Settling | None = None,
    *,
    gathers: bool = False,
) -> Course:
    """Do a history up to its first violation: an answer that is still wrong after `bound` seconds.

    `actimeo` is for how many seconds the sides believe a name that they have looked up. With `settling` there may be
    faults in it; `gathers` says that the sides then keep what is written for a while.
    """
    carrying = Carrying(sides, bound, actimeo, settling, gathers=gathers and settling is not None)
    for place, operation in enumerate(operations):
        progress(place)
        if wrong := carrying.carry(operation):
            carrying.course.violation, carrying.course.at = wrong, operation
            return carrying.course
    if wrong := carrying.end():
        carrying.course.violation, carrying.course.at = wrong, operations[-1]
    return carrying.course


class Carrying:
    """A history on its way: the model, and what has come of the operations so far."""

    def __init__(
        self, sides: Mapping[str, Side], bound: float, actimeo: float, settling: Settling | None, *, gathers: bool
    ) -> None:
        self._sides, self._bound, self._actimeo, self._settling = sides, bound, actimeo, settling
        self._outages = settling.outages if settling is not None else None
        self._model = Model(gathers=gathers)
        self._renamed = Renamed(bound)
        self._settled = 0
        self.course = Course()

    def carry(self, operation: Operation) -> str:
        """Do one; what is wrong, empty if nothing."""
        wrong = ""
        if self._outages is not None and (operation.side == FAULT or self._outages.due()) and self._outages.active:
            wrong = self._settle()
        if wrong:
            return wrong
        if operation.side == FAULT:
            assert self._outages is not None
            self._outages.begin(operation)
            return ""
        try:
            return self._carry(operation)
        except GoneError as error:
            return f"{operation.side}: {error}"

    def end(self) -> str:
        """With faults, compare all that the server has in the end."""
        return self._settle() if self._settling is not None else ""

    def _settle(self, failed: Operation | None = None, before: Model | None = None) -> str:
        """Have everybody get over what has happened."""
        assert self._settling is not None
        self._settled += 1
        try:
            self._model, wrong = self._settling.settle(self._model, failed, before)
        except GoneError as error:
            return f"afterwards: {error}"
        return wrong

    def _carry(self, operation: Operation) -> str:
        """Do one that is no fault."""
        settled = -1
        while settled != self._settled and (first := self._renamed.first(self._model, operation)):
            settled = self._settled
            if first[1].value == b"":
                time.sleep(self._actimeo * AGED)  # one empty file is like another
            if wrong := self._try(*first, self._model):
                return wrong
        there = names(self._model)
        before = copy.deepcopy(self._model) if self._settling is not None else self._model
        expected = self._model.do(operation)
        if expected is None:
            return ""
        wrong = self._try(operation, expected, before)
        self._renamed.note(there, names(self._model), operation.side)
        self.course.done[f"{operation.side} {operation.verb}"] += 1
        return wrong

    def _try(self, operation: Operation, expected: Expected, before: Model) -> str:
        """Do one; with faults it may fail if the share's promise has that, and then it was done or not."""
        outages = self._outages
        if outages is None:
            return _one(operation, expected, self._sides[operation.side], self._bound, self.course)
        if outages.active:
            expected = loosened(self._model, operation, expected)
        try:
            wrong = _one(
                operation,
                expected,
                self._sides[operation.side],
                self._bound + outages.extra,
                self.course,
                outages,
                before,
            )
        except LostError as error:
            if not outages.excused(operation, before, error.answer.error):
                return told(error.answer, expected)
            return self._settle(operation, before)
        except GoneError:
            if operation.side != SMBCLIENT or not outages.excused(operation, before, "has gone"):
                raise
            return self._settle(operation, before)
        outages.note(operation)
        return wrong


def loosened(model: Model, operation: Operation, expected: Expected) -> Expected:
    """What an operation may answer while nobody knows whether all that is gathered will arrive."""
    files = [file for file in model.about(operation)[-1:] if file.past]
    if not files or expected.error:
        return expected
    match operation.verb:
        case "get":
            return Expected(expected.value, allows=files[0].may_hold)
        case "read" | "map_read":
            place = operation.arguments[1:]
            return Expected(expected.value, allows=lambda data: files[0].may_hold(data, *place))
        case "size":
            return Expected(expected.value, allows=files[0].may_be_long)
        case "stat":
            return Expected(expected.value, allows=lambda value: value[0] == "file" and files[0].may_be_long(value[1]))
    return expected


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


def _one(
    operation: Operation,
    expected: Expected,
    side: Side,
    bound: float,
    course: Course,
    outages: Outages | None = None,
    before: Model | None = None,
) -> str:
    """Do one, again and again if it may be: what is wrong in the end, empty if nothing.

    With faults an error of a lost server is a LostError, and the bound begins when the fault is over.
    """
    answer = _done(operation, side, expected, outages, before)
    if fits(answer, expected):
        return ""
    began, first, wait = answer.began, told(answer, expected), FIRST_WAIT
    while answer.error or operation.verb in ASKING:
        late = answer.began - began
        if late > bound:
            if outages is None or not outages.going_on:
                break
            outages.wait()
            began = time.monotonic()
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
        answer = _done(operation, side, expected, outages, before)
        if fits(answer, expected):
            course.late.setdefault(_sort(operation, first), []).append(answer.began - began)
            return ""
    then = told(answer, expected)
    return f"{first}, and {answer.began - began:.3f} s later {'still' if then == first else then}"


def _done(
    operation: Operation, side: Side, expected: Expected, outages: Outages | None, before: Model | None
) -> Answer:
    """Do one, once."""
    answer = side.do(operation)
    if outages is None or before is None or answer.error == expected.error:
        return answer
    if is_lost(operation, answer, outages, before):
        raise LostError(answer)
    return answer
