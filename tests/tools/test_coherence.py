"""What tools/coherence judges by: what a share must hold, and what several can have seen at the same time."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from coherencelib.actor import Actor  # noqa: E402
from coherencelib.minimise import minimised  # noqa: E402
from coherencelib.model import Model  # noqa: E402
from coherencelib.operations import LEFT, RIGHT, Operation, content, difference  # noqa: E402
from coherencelib.report import as_json, as_text  # noqa: E402
from coherencelib.run import Report, Violation  # noqa: E402
from coherencelib.schedule import VERBS, Schedule  # noqa: E402
from coherencelib.sequential import Renamed, carry_out, names, related  # noqa: E402
from coherencelib.sides import Answer, Side  # noqa: E402


class Directly(Side):
    """A side on a directory of this machine, in this process; what it sees can be falsified."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name)
        self._actor = Actor(root, {"r": 0, "rw": 2, "direct": 2, "append": 0o2001})
        self.stale: dict[int, Any] = {}
        """Answers that are given in place of the true ones, by operation, once each."""

    def enter(self, folder: str) -> None:
        """Nothing to do."""

    def do(self, operation: Operation) -> Answer:
        """Carry it out here."""
        try:
            value = self._actor.do(operation.number, operation.verb, list(operation.arguments))
        except FileNotFoundError:
            return Answer(0.0, 0.0, error="ENOENT")
        except FileExistsError:
            return Answer(0.0, 0.0, error="EEXIST")
        except OSError as error:
            return Answer(0.0, 0.0, error="ENOTEMPTY" if error.errno == 39 else str(error))
        return Answer(0.0, 0.0, self.stale.pop(operation.number, value))

    def close(self) -> None:
        """Nothing to do."""


def sides(root: Path) -> dict[str, Directly]:
    """Two of them."""
    return {name: Directly(name, root) for name in (LEFT, RIGHT)}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_local_disk_does_what_the_model_says(tmp_path: Path, seed: int) -> None:
    history = Schedule(seed, [LEFT, RIGHT], without=frozenset({"pause"})).draw(300)
    course = carry_out(history, sides(tmp_path), 0.0)
    assert not course.violation, course.at
    assert not course.late
    assert sum(course.done.values()) == len(history)


def test_everything_is_drawn() -> None:
    drawn = {operation.verb for seed in range(5) for operation in Schedule(seed, [LEFT, RIGHT]).draw(200)}
    assert drawn == VERBS.keys()


def test_a_seed_draws_the_same_again() -> None:
    assert Schedule(7, [LEFT, RIGHT]).draw(50) == Schedule(7, [LEFT, RIGHT]).draw(50)


HISTORY = [
    Operation(1, LEFT, "put", ("f0", 10)),
    Operation(2, LEFT, "put", ("f1", 10)),
    Operation(3, RIGHT, "put", ("f0", 10)),
    Operation(4, LEFT, "get", ("f0",)),
]


def test_an_answer_that_is_old_is_asked_for_again_within_the_bound(tmp_path: Path) -> None:
    both = sides(tmp_path)
    both[LEFT].stale[4] = content(1, 10)
    course = carry_out(HISTORY, both, 10.0)
    assert not course.violation
    assert list(course.late) == ["get"]


def test_an_answer_that_stays_old_is_a_violation(tmp_path: Path) -> None:
    both = sides(tmp_path)
    both[LEFT].do = lambda operation: Answer(  # type: ignore[method-assign]
        float(operation.number), float(operation.number), content(1, 10) if operation.verb == "get" else None
    )
    course = carry_out(HISTORY, both, -1.0)
    assert course.at == HISTORY[3]
    assert "bytes of 1 in place of bytes of 3" in course.violation


def test_what_has_changed_something_is_not_done_again(tmp_path: Path) -> None:
    both = sides(tmp_path)
    wrong = [Operation(1, LEFT, "put", ("f0", 1)), Operation(2, LEFT, "create", ("f0", 0))]
    both[LEFT].do = lambda operation: Answer(0.0, 0.0)  # type: ignore[method-assign]
    course = carry_out(wrong, both, 10.0)
    assert "success in place of EEXIST" in course.violation


def test_a_name_that_another_side_has_taken_is_looked_at_before_it_is_renamed_onto_the_file() -> None:
    renamed, model = Renamed(3.0), Model()
    before = dict(model.files)
    assert model.do(Operation(0, LEFT, "put", ("a", 3))) is not None
    assert model.do(Operation(1, LEFT, "rename", ("a", "b"))) is not None
    renamed.note({**before, "a": object()}, model.files, LEFT)
    found = renamed.first(model, Operation(2, RIGHT, "rename", ("a", "b")))
    assert found is not None
    assert (found[0].verb, found[0].arguments, found[1].error) == ("stat", ("a",), "ENOENT")
    assert renamed.first(model, Operation(3, LEFT, "rename", ("a", "b"))) is None
    assert renamed.first(model, Operation(4, RIGHT, "rename", ("a", "c"))) is None


def test_so_is_the_name_of_a_directory() -> None:
    renamed, model = Renamed(3.0), Model()
    assert model.do(Operation(0, LEFT, "mkdir", ("d0",))) is not None
    before = names(model)
    assert model.do(Operation(1, LEFT, "rename_directory", ("d0", "d1"))) is not None
    renamed.note(before, names(model), LEFT)
    found = renamed.first(model, Operation(2, RIGHT, "rename_directory", ("d0", "d1")))
    assert found is not None
    assert (found[0].verb, found[0].arguments, found[1].error) == ("stat", ("d0",), "ENOENT")
    assert renamed.first(model, Operation(3, LEFT, "rename_directory", ("d0", "d1"))) is None


def test_what_is_related_to_the_failure() -> None:
    assert [operation.number for operation in related(HISTORY)] == [1, 3, 4]


def test_what_is_left_out_may_leave_others_without_sense() -> None:
    model = Model()
    assert model.do(Operation(1, LEFT, "read", (0, 0, 1))) is None
    assert model.do(Operation(2, LEFT, "unlink", ("f0",))) is not None


def test_where_it_differs_is_said_in_words() -> None:
    assert difference(content(1, 20), content(1, 7) + content(2, 13)) == "at 12 bytes of 1 in place of bytes of 2"
    assert difference(content(1, 7), content(1, 9)).startswith("7 bytes in place of 9, and at 7 the end")
    assert difference(bytes(9), content(12, 9)) == "at 0 zeros in place of bytes of 12"


def test_a_history_is_shortened_to_what_fails() -> None:
    def fails(attempt: Sequence[int]) -> bool:
        return {3, 40, 99} <= set(attempt)

    assert minimised(range(100), fails, 1000)[0] == [3, 40, 99]
    shorter, left = minimised(range(100), fails, 10)
    assert left == 0
    assert {3, 40, 99} <= set(shorter)
    assert len(shorter) < 100


def test_a_report_is_for_people_and_for_programs() -> None:
    history = Schedule(3, [LEFT, RIGHT]).draw(2)
    report = Report("smbd", "strict", "", 1.0, 9.0, [3, 4], Counter({"left stat": 2, "right read": 5}))
    report.late["size"] = [0.01]
    report.violations.append(Violation(4, "it is old", history, 2))
    assert "seeds 3 to 4: 7 operations in 9 s, 1 violations" in as_text(report)
    told = json.loads(json.dumps(as_json(report)))
    assert told["done"] == {"left stat": 2, "right read": 5}
    assert (told["passed"], told["violations"][0]["words"]) == (False, "it is old")
