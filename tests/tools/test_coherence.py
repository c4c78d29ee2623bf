"""What tools/coherence judges by: what a share must hold, and what several can have seen at the same time."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from coherencelib.actor import Actor  # noqa: E402
from coherencelib.evidence import in_words, known, of_mounts, on_disk, open_there  # noqa: E402
from coherencelib.minimise import minimised  # noqa: E402
from coherencelib.model import Model  # noqa: E402
from coherencelib.operations import FAULT, LEFT, RIGHT, SMBCLIENT, Operation, content, difference  # noqa: E402
from coherencelib.outages import Felt, Outages, with_faults  # noqa: E402
from coherencelib.report import as_json, as_text  # noqa: E402
from coherencelib.run import Report, Violation  # noqa: E402
from coherencelib.schedule import VERBS, Schedule  # noqa: E402
from coherencelib.sequential import Course, Renamed, carry_out, names, related  # noqa: E402
from coherencelib.settling import Settling, is_lost  # noqa: E402
from coherencelib.sides import Answer, Side  # noqa: E402
from faultlib.plan import KINDS  # noqa: E402
from lab.commands import CommandError  # noqa: E402


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


def test_a_failure_shows_what_the_server_has(tmp_path: Path) -> None:
    (tmp_path / "d0").mkdir()
    (tmp_path / "d0" / "f1").write_bytes(b"abc")
    held = {"server_id": {"pid": "7"}, "access_mask": {"hex": "0x1"}, "oplock": {"text": "LEASE(RH)"}}
    opens = {
        "/share/here/d0/f1": {"opens": {"1": {**held, "lease": {"lease_key": "k"}}, "2": {}}},
        "/share/elsewhere/f1": {"opens": {"1": held}},
    }
    status = {"events": [{"time": 2.0, "text": "reconnected"}], "last_errors": [{"time": 1.0, "text": "EIO"}]}
    text = in_words(on_disk(tmp_path), open_there(opens, "here"), of_mounts({"left": status, "right": {}}))
    number = (tmp_path / "d0" / "f1").stat().st_ino
    assert f"    d0/f1: number {number}, 3 bytes, 1 names\n" in text
    assert "    d0/f1: process 7, access 0x1, LEASE(RH) of k\n" in text
    assert "d0/f1: process None" in text
    assert "elsewhere" not in text
    assert text.index("EIO") < text.index("reconnected")
    assert "right" not in text
    assert in_words([], [], []).count("nothing") == 3


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


# -- faults


class Broken(Outages):
    """Faults of which nothing is known but that one has been; the server's disk is a directory here."""

    def __init__(self, *, active: bool, excused: bool = True) -> None:
        self.felt = Felt()
        self.is_active, self.is_excused = active, excused
        self.settled = 0

    @property
    def active(self) -> bool:
        """As it was said."""
        return self.is_active

    @property
    def going_on(self) -> bool:
        """It is over."""
        return False

    @property
    def extra(self) -> float:
        """No more than the bound."""
        return 0.0

    def due(self) -> bool:
        """Whatever comes is beside it."""
        return False

    def wait(self) -> str:
        """Nothing is going on."""
        return ""

    def over(self) -> None:
        """Count."""
        self.is_active, self.settled = False, self.settled + 1

    def note(self, operation: Operation) -> None:
        """Not needed."""

    def excused(self, operation: Operation, model: Model, error: str) -> bool:
        """As it was said."""
        return self.is_excused

    def healed(self, tries: Any, patience: float) -> str:
        """At once."""
        return ""


class Failing(Directly):
    """A side of which some operations fail, after they were done or without."""

    def __init__(self, name: str, root: Path, failures: dict[int, bool], error: str = "EIO") -> None:
        super().__init__(name, root)
        self._failures, self._error = failures, error

    def do(self, operation: Operation) -> Answer:
        """Fail if it shall."""
        if operation.number in self._failures:
            if self._failures[operation.number]:
                super().do(operation)
            return Answer(0.0, 0.0, error=self._error)
        return super().do(operation)


def under_faults(
    root: Path, failures: dict[int, bool], *history: Operation, excused: bool = True, error: str = "EIO"
) -> tuple[Course, Broken]:
    """Do a history of which some operations fail on the left."""
    both: dict[str, Side] = {LEFT: Failing(LEFT, root, failures, error), RIGHT: Directly(RIGHT, root)}
    outages = Broken(active=True, excused=excused)
    settling = Settling(outages, both, root, lambda: None)
    return carry_out(history, both, -1.0, settling=settling, gathers=True), outages


CHANGES = [
    Operation(3, LEFT, "put", ("f0", 20)),
    Operation(3, LEFT, "truncate", ("f0", 3)),
    Operation(3, LEFT, "unlink", ("f0",)),
    Operation(3, LEFT, "rename", ("f0", "f1")),
    Operation(3, LEFT, "mkdir", ("d0",)),
    Operation(3, LEFT, "create", ("f2", 1)),
    Operation(3, LEFT, "write", (0, 5, 10)),
    Operation(3, LEFT, "close", (0,)),
]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.verb)
def test_what_failed_was_done_or_not_and_the_model_goes_on_from_there(
    tmp_path: Path, change: Operation, done: bool
) -> None:
    before = [Operation(1, LEFT, "put", ("f0", 10)), Operation(2, LEFT, "open", ("f0", 0, "rw"))]
    after = [Operation(number, RIGHT, "get", (f"f{number - 4}",)) for number in (4, 5, 6)]
    course, outages = under_faults(tmp_path, {3: done}, *before, change, *after, Operation(7, RIGHT, "list", ("",)))
    assert not course.violation, course.violation
    assert outages.felt.settled == {f"{change.verb} {'done' if done or change.verb == 'close' else 'not done'}": 1}


def test_what_failed_in_another_way_than_a_lost_server_is_wrong(tmp_path: Path) -> None:
    course, _ = under_faults(tmp_path, {1: True}, Operation(1, LEFT, "put", ("f0", 10)), error="EACCES")
    assert "EACCES in place of success" in course.violation


def test_what_the_share_promises_not_to_fail_is_wrong(tmp_path: Path) -> None:
    course, _ = under_faults(tmp_path, {1: True}, Operation(1, LEFT, "put", ("f0", 10)), excused=False)
    assert course.violation.startswith("EIO in place of success")


def test_what_is_neither_done_nor_left_alone_is_wrong(tmp_path: Path) -> None:
    class Half(Failing):
        """Leaves something that nobody asked for."""

        def do(self, operation: Operation) -> Answer:
            if operation.number == 2:
                (tmp_path / "f0").write_bytes(content(9, 10))
            return super().do(operation)

    both: dict[str, Side] = {LEFT: Half(LEFT, tmp_path, {2: False}), RIGHT: Directly(RIGHT, tmp_path)}
    history = [Operation(1, LEFT, "put", ("f0", 10)), Operation(2, LEFT, "rename", ("f0", "f1"))]
    settling = Settling(Broken(active=True), both, tmp_path, lambda: None)
    course = carry_out(history, both, 0.2, settling=settling)
    assert "f0: at 5 bytes of 9 in place of bytes of 1" in course.violation


def test_what_was_written_and_synced_must_be_there_in_the_end(tmp_path: Path) -> None:
    class Forgetful(Failing):
        """Forgets a write when it is asked to keep it."""

        def do(self, operation: Operation) -> Answer:
            answer = super().do(operation)
            if operation.number == 4:
                (tmp_path / "f0").write_bytes(content(1, 10))
            return answer

    both: dict[str, Side] = {LEFT: Forgetful(LEFT, tmp_path, {}), RIGHT: Directly(RIGHT, tmp_path)}
    history = [
        Operation(1, LEFT, "put", ("f0", 10)),
        Operation(2, LEFT, "open", ("f0", 0, "rw")),
        Operation(3, LEFT, "write", (0, 0, 10)),
        Operation(4, LEFT, "fsync", (0,)),
    ]
    settling = Settling(Broken(active=False), both, tmp_path, lambda: None)
    course = carry_out(history, both, 0.2, settling=settling, gathers=True)
    assert "the server has of f0: at 5 bytes of 1 in place of bytes of 3" in course.violation


def test_what_is_gathered_may_be_there_or_not_until_somebody_is_told() -> None:
    model = Model(gathers=True)
    for operation in (
        Operation(1, LEFT, "put", ("f0", 10)),
        Operation(2, LEFT, "open", ("f0", 0, "rw")),
        Operation(3, LEFT, "write", (0, 5, 10)),
        Operation(4, LEFT, "write", (0, 20, 7)),
    ):
        model.do(operation)
    file, gap = model.files["f0"], bytes(5)
    old = content(1, 10)
    first = old[:5] + content(3, 10)
    for held in (old, first, first + gap + content(4, 7), old + bytes(10) + content(4, 7)):
        assert file.may_hold(held)
    assert not file.may_hold(first[:12])
    assert not file.may_hold(old + gap + content(9, 12))
    assert file.may_hold(old[2:8], 2, 6)
    model.do(Operation(5, LEFT, "fsync", (0,)))
    assert file.may_hold(first + gap + content(4, 7))
    assert not file.may_hold(old)


def test_faults_leave_the_numbers_of_a_history_as_they_are() -> None:
    history = Schedule(3, [LEFT, RIGHT]).draw(60)
    faulty = with_faults(history, 3, 8, KINDS, 0.5)
    assert [operation for operation in faulty if operation.side != FAULT] == history
    assert sorted(operation.number for operation in faulty if operation.side == FAULT) == list(range(61, 69))
    assert faulty == with_faults(history, 3, 8, KINDS, 0.5)
    assert all(operation.arguments[1] <= 0.5 for operation in faulty if operation.side == FAULT)


@pytest.mark.parametrize(
    ("share", "kind", "verb", "shared", "fine"),
    [
        ("neither", "reset", "write", False, True),
        ("share", "reset", "write", False, True),
        ("durable", "reset", "write", False, False),
        ("durable", "reset", "write", True, True),
        ("durable", "kill", "write", False, True),
        ("durable", "reset", "append", False, True),
        ("persistent", "kill", "write", True, False),
    ],
)
def test_which_errors_the_share_promises(share: str, kind: str, verb: str, shared: bool, fine: bool) -> None:
    server = SimpleNamespace(panics=lambda: 0)
    mount = SimpleNamespace(status=lambda: {"recovery": {"robbed": 0}})
    outages = Outages(server, share, SimpleNamespace(to_be_delivered=lambda: 0), [mount])  # type: ignore[arg-type, list-item]
    model = Model()
    model.do(Operation(1, LEFT, "put", ("f0", 10)))
    opened = Operation(2, LEFT, "open", ("f0", 0, "append" if verb == "append" else "rw"))
    model.do(opened)
    outages.note(opened)
    operation = Operation(3, LEFT, verb, (0, 1) if verb == "append" else (0, 0, 1))
    assert not outages.excused(operation, model, "EIO"), "nothing has happened"
    if shared:
        model.do(Operation(4, RIGHT, "get", ("f0",)))
    outages._breaker = SimpleNamespace(do=lambda fault: kind)  # type: ignore[assignment]
    outages.begin(Operation(9, FAULT, "fault", (kind, 0.0, 0, 1)))
    assert outages.wait() == kind
    assert outages.excused(operation, model, "EIO") is fine
    outages.over()
    # By name it is not excused when all is over.
    assert outages.excused(operation, model, "EIO") is fine
    assert not outages.excused(Operation(5, LEFT, "put", ("f0", 1)), model, "EIO")


def test_what_is_lost_with_the_name_of_its_file_is_counted_apart() -> None:
    mount = SimpleNamespace(status=lambda: {"recovery": {"robbed": 0}})
    server = SimpleNamespace(panics=lambda: 0)
    outages = Outages(server, "persistent", SimpleNamespace(), [mount])  # type: ignore[arg-type, list-item]
    model = Model()
    model.do(Operation(1, LEFT, "put", ("f0", 10)))
    model.do(Operation(2, LEFT, "open", ("f0", 0, "rw")))
    outages.note(Operation(2, LEFT, "open", ("f0", 0, "rw")))
    model.do(Operation(2, LEFT, "create", ("f9", 1)))
    outages.note(Operation(2, LEFT, "create", ("f9", 1)))
    outages._breaker = SimpleNamespace(do=lambda fault: "reset")  # type: ignore[assignment]
    outages.begin(Operation(9, FAULT, "fault", ("reset", 0.0, 0, 1)))
    outages.wait()
    model.do(Operation(3, LEFT, "unlink", ("f9",)))
    assert not outages.excused(Operation(3, LEFT, "read", (1, 0, 1)), model, "EIO"), "it has a name of ours"
    read = Operation(3, LEFT, "read", (0, 0, 1))
    assert not outages.excused(read, model, "EIO")
    model.do(Operation(4, LEFT, "rename", ("f0", "f1")))
    assert not outages.excused(read, model, "EIO"), "it is nobody's but ours"
    model.do(Operation(5, RIGHT, "rename", ("f1", "f2")))
    assert outages.excused(read, model, "EIO")
    assert outages.felt.nameless == {"reset: left read EIO": 1}
    assert not outages.felt.errors


def test_what_the_server_keeps_for_who_has_lost_it_is_counted_apart() -> None:
    mount = SimpleNamespace(status=lambda: {"recovery": {"robbed": 0}})
    server = SimpleNamespace(panics=lambda: 0)
    model = Model()
    model.do(Operation(1, LEFT, "put", ("f0", 10)))
    model.do(Operation(2, LEFT, "open", ("f0", 0, "r")))
    model.do(Operation(3, LEFT, "put", ("f5", 10)))
    by_name, other = Operation(5, RIGHT, "get", ("f2",)), Operation(5, RIGHT, "get", ("f5",))
    for share, counted in (("persistent", True), ("durable", False)):
        now = copy.deepcopy(model)
        outages = Outages(server, share, SimpleNamespace(), [mount])  # type: ignore[arg-type, list-item]
        outages._breaker = SimpleNamespace(do=lambda fault: "crash")  # type: ignore[assignment]
        now.do(Operation(4, RIGHT, "rename", ("f0", "f2")))
        assert not is_lost(by_name, Answer(0, 0, error="EBUSY"), outages, now), "nothing was broken"
        outages.begin(Operation(9, FAULT, "fault", ("crash", 0.0, 0, 1)))
        outages.wait()
        outages.over()
        assert is_lost(by_name, Answer(0, 0, error="EBUSY"), outages, now) is counted
        assert outages.excused(by_name, now, "EBUSY") is counted
        assert not is_lost(other, Answer(0, 0, error="EBUSY"), outages, now)
        assert not outages.excused(by_name, now, "EACCES")
        # Also when the one who had it open has found out.
        now.lose((LEFT, 0))
        client = Operation(6, SMBCLIENT, "put", ("f2", 1))
        assert is_lost(client, Answer(0, 0, error="NT_STATUS_FILE_NOT_AVAILABLE"), outages, now) is counted
        assert outages.excused(client, now, "NT_STATUS_FILE_NOT_AVAILABLE") is counted
        told = {"crash: right get EBUSY": 1, "crash: smbclient put NT_STATUS_FILE_NOT_AVAILABLE": 1}
        assert outages.felt.kept_back == (told if counted else {})


def test_evidence_that_is_not_to_be_had_is_told_in_one_line() -> None:
    def panics() -> list[str]:
        raise CommandError("`smbstatus --json` ended with status -6: sessions\n PANIC: assert failed\n frame 1\n")

    def hangs() -> list[str]:
        raise subprocess.TimeoutExpired("smbstatus", 30)

    assert known(lambda: ["all of it"]) == ["all of it"]
    assert known(panics) == ["not known: `smbstatus --json` ended with status -6: sessions ... PANIC: assert failed"]
    assert known(hangs) == ["not known: Command 'smbstatus' timed out after 30 seconds"]
