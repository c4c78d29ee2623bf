"""What tools/faults judges by: which bytes may be there, who may have won, how long somebody stood still."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from faultlib.breaking import Breaker  # noqa: E402
from faultlib.content import Content, GatheredContent  # noqa: E402
from faultlib.judging import judge  # noqa: E402
from faultlib.outcome import Happened, Report  # noqa: E402
from faultlib.own_files import OwnFiles  # noqa: E402
from faultlib.plan import KINDS, Fault, faults  # noqa: E402
from faultlib.promises import CRASHED, DURABLE, NEITHER, PERSISTENT, ROBBED, broken  # noqa: E402
from faultlib.report import as_json, as_text  # noqa: E402
from faultlib.run import Run  # noqa: E402
from faultlib.shared_files import COUNTER_WIDTH  # noqa: E402
from faultlib.stalls import Event, stall  # noqa: E402
from faultlib.sums import sums  # noqa: E402
from faultlib.trying import STUCK, Behind, LeftAsideError, Trying  # noqa: E402
from faultlib.verdicts import KEPT, Told, read, stuck_in  # noqa: E402
from faultlib.workload import Worker  # noqa: E402
from lab.terminal import heeding_signals  # noqa: E402

# -- what a file may hold --------------------------------------------------------------------------------------------


def written(*pieces: tuple[int, bytes]) -> Content:
    """A file after writes that have succeeded."""
    content = Content()
    for start, data in pieces:
        content.written(start, data)
    return content


def test_what_was_written_must_be_there() -> None:
    content = written((0, b"abcdef"), (2, b"XY"))
    assert not content.fault(b"abXYef")
    assert content.fault(b"abcdef")
    assert content.fault(b"abXYe")
    assert content.fault(b"abXYef\0")


def test_a_hole_is_zeros() -> None:
    assert not written((3, b"x")).fault(b"\0\0\0x")


def test_a_failed_write_may_be_there_or_not_or_in_part() -> None:
    content = written((0, b"abcdef"))
    content.perhaps_written(4, b"1234")
    for data in (b"abcdef", b"abcd1234", b"abcd1f", b"abcd12", b"abcd123"):
        assert not content.fault(data), data
    for data in (b"abcd", b"abcd12345", b"abcdx234", b"ab1234"):
        assert content.fault(data), data


def test_a_write_that_succeeds_settles_what_failed_before() -> None:
    content = written((0, b"abcdef"))
    content.perhaps_written(0, b"123456")
    content.written(1, b"BCDE")
    assert not content.fault(b"aBCDEf")
    assert not content.fault(b"1BCDE6")
    assert content.fault(b"12CDEf"), "the failed write came late"


def test_a_failed_truncation() -> None:
    content = written((0, b"abcdef"))
    content.perhaps_truncated(2)
    assert not content.fault(b"ab")
    assert not content.fault(b"abcdef")
    assert content.fault(b"abcd")
    content.written(5, b"F")
    assert not content.fault(b"ab\0\0\0F")
    assert not content.fault(b"abcdeF")
    assert content.fault(b"ab")


def test_a_truncation_that_succeeds_settles_the_rest() -> None:
    content = written((0, b"abcdef"))
    content.perhaps_written(0, b"123456")
    content.truncated(3)
    content.truncated(5)
    assert not content.fault(b"1bc\0\0")
    assert content.fault(b"123\0" + b"5")


def test_a_part_that_is_read() -> None:
    content = written((0, b"abcdef"))
    assert not content.fault(b"cd", 2, 2)
    assert not content.fault(b"ef", 4, 100)
    assert not content.fault(b"", 6, 100)
    assert content.fault(b"e", 4, 100)
    assert content.fault(b"cx", 2, 2)


@pytest.mark.parametrize("seed", range(30))
def test_every_outcome_of_operations_that_fail_is_allowed(seed: int) -> None:
    """Whatever is really done of what failed, the file is as it may be; and what succeeds is always demanded."""
    chance = random.Random(seed)
    content, real = Content(), bytearray()
    for _ in range(40):
        start, data = chance.randrange(60), chance.randbytes(chance.randrange(1, 30))
        fails, done = chance.random() < 0.4, chance.random() < 0.5
        if chance.random() < 0.3:
            (content.perhaps_truncated if fails else content.truncated)(start)
            if done or not fails:
                real[start:] = bytes(max(0, start - len(real)))
        else:
            (content.perhaps_written if fails else content.written)(start, data)
            if done or not fails:
                real.extend(bytes(max(0, start - len(real))))
                real[start : start + len(data)] = data
        assert not content.fault(bytes(real))
    content.truncated(4)
    content.written(0, b"done")
    assert not content.fault(b"done")
    assert content.fault(b"d0ne")


def test_what_was_gathered_is_there_until_fsync_or_close_says_that_it_is_not() -> None:
    content = GatheredContent()
    content.written(0, b"abcdef")
    content.settle(arrived=True)
    content.written(4, b"1234")
    content.perhaps_written(0, b"A")
    for data in (b"abcd1234", b"Abcd1234"):
        assert not content.fault(data), data
    for data in (b"abcdef", b"abcd12"):
        assert content.fault(data), "nobody has said that it is lost"
    content.settle(arrived=False)
    for data in (b"abcd1234", b"Abcdef", b"abcd1f", b"abcd12"):
        assert not content.fault(data), data
    assert content.fault(b"abcd"), "what had arrived"
    content.written(4, b"EF")
    content.settle(arrived=True)
    assert content.fault(b"abcdef")
    content.settle(arrived=False)  # told to another open: nothing was written since
    assert content.fault(b"abcdef")
    assert not content.fault(b"abcdEF34")


def test_a_truncation_is_not_gathered() -> None:
    content = GatheredContent()
    content.written(0, b"abcdef")
    content.truncated(3)
    content.perhaps_truncated(2)
    content.settle(arrived=False)
    for data in (b"abc", b"ab", b"\0\0\0", b"a\0c"):
        assert not content.fault(data), data
    for data in (b"abcd", b"a", b"abX"):
        assert content.fault(data), data


# -- what all share --------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as a run leaves it: one race, two counters, one log."""
    (tmp_path / "races").mkdir()
    (tmp_path / "races/race0").touch()
    for number in range(2):
        (tmp_path / f"counter{number}").write_bytes(b"%0*d" % (COUNTER_WIDTH, 3))
    (tmp_path / "log").write_bytes(b"<0 0 x>\n<1 0 >\n<0 2 xx>\n")
    return tmp_path


def ends() -> dict[int, dict[str, Any]]:
    """What two workers hand over that have done all that is in the directory."""
    return {
        0: {
            "races": {"0": "won"},
            "counted": {"0": 2, "1": 1},
            "perhaps_counted": {"1": 1},
            "appended": [0, 2],
            "perhaps_appended": [1],
        },
        1: {
            "races": {"0": "lost"},
            "counted": {"0": 1, "1": 1},
            "perhaps_counted": {},
            "appended": [0],
            "perhaps_appended": [],
        },
    }


def verdict(place: Path, told: dict[int, dict[str, Any]]) -> str:
    """All violations in one string."""
    return "; ".join(judge(place, told, dict.fromkeys(told, "log")))


def test_all_is_well(place: Path) -> None:
    assert verdict(place, ends()) == ""


@pytest.mark.parametrize(
    ("result", "said"), [("won", "won 2 times"), ("doubt", ""), ("lost", "")], ids=["won", "doubt", "lost"]
)
def test_one_wins_a_race(place: Path, result: str, said: str) -> None:
    told = ends()
    told[1]["races"]["0"] = result
    assert said in verdict(place, told)
    assert bool(verdict(place, told)) == bool(said)


def test_a_name_that_nobody_made(place: Path) -> None:
    told = ends()
    told[0]["races"]["0"] = "lost"
    assert "lost by all" in verdict(place, told)
    told[0]["races"]["0"] = "won"
    (place / "races/race0").unlink()
    assert "not there" in verdict(place, told)


@pytest.mark.parametrize(("value", "well"), [(1, False), (2, True), (3, True), (4, False)])
def test_a_counter_has_what_was_counted_and_perhaps_more(place: Path, value: int, well: bool) -> None:
    (place / "counter1").write_bytes(b"%0*d" % (COUNTER_WIDTH, value))
    assert ("counter 1" not in verdict(place, ends())) == well


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (b"<0 0 x>\n<1 0 >\n<0 1 >\n<0 2 xx>\n", ""),
        (b"<0 0 x>\n<1 0 >\n", "lost"),
        (b"<0 0 x>\n<1 0 >\n<0 2 xx>\n<1 0 >\n", "twice"),
        (b"<0 0 x>\n<1 0 >\n<0 2 xx>\n<1 1 >\n", "did not write"),
        (b"<0 2 x>\n<1 0 >\n<0 0 xx>\n", "out of order"),
    ],
)
def test_records(place: Path, log: bytes, said: str) -> None:
    (place / "log").write_bytes(log)
    assert said in verdict(place, ends())
    assert bool(verdict(place, ends())) == bool(said)


def test_bytes_that_are_no_record(place: Path) -> None:
    told = ends()
    told[0]["perhaps_appended"] = []
    (place / "log").write_bytes(b"<0 0 x>\n<1 0 >\n\0\0\0<0 2 xx>\n")
    assert "no record" in verdict(place, told)


# -- a worker, on this machine's own disk ----------------------------------------------------------------------------


class Unreliable(Trying):
    """Says of some operations that they failed, done or not; and, if it lies, of some that they succeeded."""

    def __init__(self, seed: int, *, lies: bool) -> None:
        super().__init__(0, lambda *_: None)
        self.chance, self.lies = random.Random(seed), lies

    def once(self, what: str, action: Any, *arguments: Any, fine: tuple[int, ...] = ()) -> Any:
        """As it should be, but for one in five."""

        def unreliable(*words: Any) -> Any:
            told = action(*words) if what.startswith("close") or self.chance.random() < 0.5 else None
            if action is os.open and told is not None:
                os.close(told)  # a handle that came too late
            raise OSError(errno.EIO, "lost")

        if what == "write" and self.lies and self.chance.random() < 0.1:
            return len(arguments[1])
        fails = self.chance.random() < 0.2
        return super().once(what, unreliable if fails else action, *arguments, fine=fine)


class Gathering(Trying):
    """Undoes some writes when their file is synchronised or closed, and says so there, unless it lies."""

    def __init__(self, seed: int, *, lies: bool = False) -> None:
        super().__init__(0, lambda *_: None)
        self.chance, self.lies = random.Random(seed), lies
        self.undone = 0
        self.written: tuple[int, int, bytes, int] | None = None

    def once(self, what: str, action: Any, *arguments: Any, fine: tuple[int, ...] = ()) -> Any:
        """As it should be, but for what was written last."""
        if what not in ("fsync", "close") or not self.written or self.written[0] != arguments[0]:
            self.written = None
            if action is os.pwrite:
                descriptor, data, start = arguments
                before = os.pread(descriptor, len(data), start)
                self.written = (descriptor, start, before, os.fstat(descriptor).st_size)
            return super().once(what, action, *arguments, fine=fine)
        descriptor, start, before, size = self.written
        self.written = None
        os.pwrite(descriptor, before, start)
        os.truncate(descriptor, size)
        self.undone += 1

        def undone(*words: Any) -> Any:
            action(*words)
            raise OSError(errno.EIO, "lost")

        return super().once(what, action if self.lies else undone, *arguments, fine=fine)


def worked(
    place: Path, trying: Trying, monkeypatch: pytest.MonkeyPatch, *, gathered: bool = False, steps: int = 400
) -> Worker:
    """A worker after some hundred operations in a directory as a run has it."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (place / "log").write_bytes(b"")
    for number in range(2):
        (place / f"counter{number}").write_bytes(b"%0*d" % (COUNTER_WIDTH, 0))
    worker = Worker(place, "log", "seed", trying, gathered=gathered)
    worker.begin()
    for _ in range(steps):
        worker.step()
    return worker


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_takes_errors_as_they_are(place: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever of what failed was done: nothing is found fault with."""
    trying = Unreliable(seed, lies=False)
    (place / "races/race0").unlink()
    worked(place, trying, monkeypatch).finish(place)
    assert trying.found.violations == []
    assert sum(trying.found.errors.values()) > 30
    told = trying.found.as_json()
    assert verdict(place, {0: json.loads(json.dumps(told))}) == ""


def test_a_worker_notices_writes_that_were_not_done(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trying = Unreliable(1, lies=True)
    (place / "races/race0").unlink()
    worked(place, trying, monkeypatch).finish(place)
    assert any("wrong bytes" in violation or "the end may be" in violation for violation in trying.found.violations)


@pytest.mark.parametrize(
    ("lies", "gathered"), [(False, True), (True, True), (False, False)], ids=["told", "lied", "judged as not gathered"]
)
def test_a_worker_has_fsync_and_close_decide(
    place: Path, monkeypatch: pytest.MonkeyPatch, lies: bool, gathered: bool
) -> None:
    trying = Gathering(1, lies=lies)
    (place / "races/race0").unlink()
    worked(place, trying, monkeypatch, gathered=gathered, steps=1000).finish(place)
    assert trying.undone
    assert bool(trying.found.violations) == (lies or not gathered)


@pytest.mark.parametrize("damage", ["byte", "lost", "more"])
def test_a_worker_notices_damage(place: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    trying = Trying(0, lambda *_: None)
    (place / "races/race0").unlink()
    worker = worked(place, trying, monkeypatch)
    assert trying.found.violations == []
    file = max((place / "w0").glob("[fr]*"), key=lambda path: path.stat().st_size)
    if damage == "byte":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "lost":
        file.unlink()
    else:
        (place / "w0/another").touch()
    worker.finish(place)
    (said,) = {violation.split(": ", 1)[1].split(",")[0].split(" ")[0] for violation in trying.found.violations}
    assert said == {"byte": file.name, "lost": "names", "more": "names"}[damage]


# -- stalls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([Event(0.1, 0.2, "read", ""), Event(2.4, 2.5, "read", "")], 0.0),  # it did not wait
        ([Event(0.1, 2.7, "read", "")], 0.7),
        ([Event(1.1, 1.2, "read", "EIO"), Event(1.2, 2.3, "open", "")], 0.3),
        ([Event(1.1, 2.2, "read", "EIO"), Event(2.2, 2.6, "open", "")], 0.6),
        ([Event(2.4, 2.5, "read", "EIO"), Event(2.5, 2.9, "open", "")], 0.5),  # it noticed late
        ([Event(1.1, 9.5, "read", "")], None),  # the next fault came before
        ([Event(0.1, 0.2, "read", "")], None),
    ],
)
def test_a_stall_is_from_the_end_of_the_fault_to_the_first_success(events: list[Event], seconds: float | None) -> None:
    told = stall(events, begun=1.0, over=2.0, next_begun=9.0)
    assert told == (None if seconds is None else pytest.approx(seconds))


# -- the plan and the promises ---------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_faults_again() -> None:
    first, again = (list(faults(7, 50, KINDS, 30.0)) for _ in range(2))
    assert first == again
    assert first != list(faults(8, 50, KINDS, 30.0))
    assert first[:20] == list(faults(7, 20, KINDS, 30.0))


def test_most_outages_are_short() -> None:
    drawn = list(faults(1, 1000, KINDS, 30.0))
    assert {fault.kind for fault in drawn} == set(KINDS)
    assert sum(fault.seconds < 1 for fault in drawn) > 850
    assert all(0.1 <= fault.seconds <= 30 for fault in drawn)
    assert max(fault.seconds for fault in faults(1, 1000, KINDS, 2.0)) == 2.0


def test_promises() -> None:
    assert broken(PERSISTENT, "kill", "lock")
    assert not broken(PERSISTENT, ROBBED, "write counter")
    assert broken(PERSISTENT, ROBBED, "write")
    assert broken(DURABLE, "link", "write")
    assert not broken(DURABLE, "link", "write counter")
    assert not broken(DURABLE, "link", "mkdir")
    assert broken(DURABLE, "link", "create")
    assert broken(PERSISTENT, "link", "mkdir")
    assert not broken(DURABLE, "kill", "write")
    assert not broken(DURABLE, CRASHED, "write")
    assert not broken(NEITHER, "link", "write")


# -- what the server has broken --------------------------------------------------------------------------------------


def entry(second: float, text: str) -> str:
    """An entry of a log of the server's, so many seconds after the beginning of an hour."""
    return f"[2026/11/22 04:{second // 60:02.0f}:{second % 60:09.6f}, 10, pid=7] source3/smbd/x.c:1(f)\n  f: {text}\n"


def hour(second: float) -> float:
    """That time since the epoch."""
    return time.mktime((2026, 11, 22, 4, 0, 0, 0, 0, -1)) + second


def cleaned(number: int, inode: int = 77) -> str:
    """What the scavenger says when it deletes an open."""
    place = f"(file-id='65024:{inode}:0', servicepath='/s', name='run/log1')"
    return f"cleaning up entry for file {place} from open_persistent_id {number}"


NOT_FOUND = "smbXsrv_open_global_verify_record for %08X failed: NT_STATUS_NOT_FOUND"
IN_USE = "file (file-id='65024:77:0', servicepath='/s', name='run/log1') is used by server 9 ==> internal error"
STUCK_LINE = "Failed to cleanup open global for file 65024:%d:0 open 2916636206: NT_STATUS_NOT_FOUND"

UNMARKED_LINE = "scavenger_add_timer: Open [0x%x] fileid [65024:%d:0] is not marked disconnected"


def test_an_open_that_the_scavenger_takes_for_one_of_a_living_process_is_stuck() -> None:
    line = entry(1, UNMARKED_LINE % (0x11F7B21C, 77))
    assert stuck_in(line) == read(line).stuck == {77}
    assert not stuck_in(line + entry(60, cleaned(0x11F7B21C))), "it was deleted after all"
    assert stuck_in(line + entry(60, cleaned(0x11F7B21D))) == {77}, "another one of the same file was"


def test_an_open_that_was_deleted_and_then_claimed_is_forgotten() -> None:
    told = read(entry(101.25, cleaned(0xE2D1B7F1)) + entry(102.5, NOT_FOUND % 0xE2D1B7F1))
    kill = (hour(100), True)
    assert told.forgotten(77, [(hour(50), False), kill], hour(103))
    assert told.forgotten(77, [kill, (hour(102), False)], hour(103))
    again = entry(101.25, cleaned(0xE2D1B7F1)) + entry(102.5, NOT_FOUND % 0xE2D1B7F1) + entry(160, cleaned(0xE2D1B7F1))
    assert read(again).forgotten(77, [kill], hour(103)), "another timer does the same later"
    again += entry(161, NOT_FOUND % 0xE2D1B7F1)
    assert read(again).forgotten(77, [kill], hour(103)), "and it is claimed in vain again"
    assert not told.forgotten(78, [kill], hour(103)), "another file"
    assert not told.forgotten(77, [(hour(101.5), True)], hour(103)), "it was deleted before the loss"
    assert not told.forgotten(77, [kill], hour(102)), "the error came before the claim"
    assert not told.forgotten(77, [(hour(101.25 - KEPT), True)], hour(103)), "its time was over"
    assert not told.forgotten(77, [(hour(100), False)], hour(103)), "no process of the server had ended"
    assert not told.forgotten(77, [(hour(99), True), (hour(100), False)], hour(103)), "nor at the latest loss"
    assert not told.forgotten(77, [], hour(103))
    assert not told.forgotten(0, [kill], hour(103))


@pytest.mark.parametrize(
    "log",
    [
        "",
        entry(101, cleaned(5)),
        entry(102, NOT_FOUND % 5),
        entry(101, cleaned(5)) + entry(102, NOT_FOUND % 6),
        entry(101, NOT_FOUND % 5) + entry(102, cleaned(5)),
        # Its process lives: the server has refused a claim of ours.
        entry(101, cleaned(5)) + entry(101, IN_USE) + entry(102, NOT_FOUND % 5),
    ],
)
def test_nothing_less_is_enough(log: str) -> None:
    assert not read(log).forgotten(77, [(hour(100), True)], hour(103))


SWEEP = "cleaning up 2 entries for file (file-id='65024:77:0', servicepath='/s', name='run/log1')"
DISCONNECT = "mark file 65024:77:0 as disconnected at 2026/11/22 04:01:40.25 with timeout at 2026/11/22 04:02:40.25"


def test_opens_that_a_timer_of_an_earlier_loss_has_deleted_are_forgotten() -> None:
    """Samba 4.17 looks only whether all opens of the file are without their connection, not for how long."""
    told = read(entry(41, DISCONNECT) + entry(100, DISCONNECT) + entry(101, SWEEP) + entry(110, DISCONNECT))
    assert told.swept_early(77, hour(101.5))
    assert not told.swept_early(78, hour(101.5)), "another file"
    assert not told.swept_early(77, hour(100.5)), "it was there still"
    assert not told.swept_early(77, hour(111)), "other opens were lost since"
    assert not read(entry(40, DISCONNECT) + entry(101, SWEEP)).swept_early(77, hour(102)), "its time was over"
    assert not read(entry(101, SWEEP) + entry(102, DISCONNECT)).swept_early(77, hour(101.5)), "nothing was lost before"
    assert not read(entry(100, DISCONNECT)).swept_early(77, hour(101.5)), "nothing was deleted"


BREAKING = "initial_break_processing: called for 65024:%d:0/2609219838"
BREAK = "send_break_message_smb2: sending oplock break for file run/w2/r340, fnum 542033168, smb2 level %d"
NOT_KEPT = "Failed to disconnect durable handle for file run/w2/r340: NT_STATUS_NOT_SUPPORTED - proceeding"


def test_an_open_is_taken_if_h_of_its_lease_was_taken_right_before_the_cut() -> None:
    """A name of the file was removed: W and H went, R stayed, and the open was not kept."""
    begun = entry(10, BREAKING % 77) + entry(10.001, BREAK % 1)
    told = read(begun + entry(10.1, NOT_KEPT) + entry(70, DISCONNECT))
    assert told.taken == [(77, hour(10.1))]
    assert told.was_taken(77, hour(10.5))
    assert told.was_taken(77, hour(69))
    assert not told.was_taken(77, hour(10)), "it was there still"
    assert not told.was_taken(77, hour(71)), "what was lost since was another open"
    assert not told.was_taken(78, hour(10.5)), "another file"
    assert not told.was_taken(0, hour(10.5))
    again = entry(9.5, BREAKING % 77) + entry(9.501, BREAK % 3) + begun
    assert read(again + entry(10.1, NOT_KEPT)).taken, "W first, then H"


@pytest.mark.parametrize(
    "log",
    [
        entry(10.1, NOT_KEPT),
        entry(10, BREAKING % 77) + entry(10.1, NOT_KEPT),
        entry(10, BREAK % 1) + entry(10.1, NOT_KEPT),
        # H stayed; R went as well, as it does when somebody writes.
        entry(10, BREAKING % 77) + entry(10.001, BREAK % 3) + entry(10.1, NOT_KEPT),
        entry(10, BREAKING % 77) + entry(10.001, BREAK % 0) + entry(10.1, NOT_KEPT),
        # We should have had it back.
        entry(10, BREAKING % 77) + entry(10.001, BREAK % 1) + entry(11.1, NOT_KEPT),
        # Another name, another time, and nobody knows which of two.
        entry(10, BREAKING % 77) + entry(10.001, BREAK.replace("r340", "r34") % 1) + entry(10.1, NOT_KEPT),
        entry(10, BREAKING % 77) + entry(10.1, BREAK % 1) + entry(10.2, NOT_KEPT),
        entry(10, BREAKING % 77) + entry(10, BREAKING % 78) + entry(10.001, BREAK % 1) + entry(10.1, NOT_KEPT),
    ],
)
def test_nothing_less_says_that_it_was_taken(log: str) -> None:
    assert not any(read(log).was_taken(inode, hour(10.5)) for inode in (0, 77, 78))


def failing(number: int) -> int:
    """What a call on a mount comes to."""
    raise OSError(number, "x")


@pytest.mark.parametrize(
    ("number", "waited", "line", "aside"),
    [
        (errno.ETIMEDOUT, 60.0, "this", True),
        (errno.EIO, 60.0, "this", False),
        (errno.ETIMEDOUT, 1.0, "this", False),
        (errno.ETIMEDOUT, 60.0, "other", False),
        (errno.ETIMEDOUT, 60.0, "none", False),
    ],
)
def test_a_file_is_left_aside_upon_the_servers_word_alone(
    number: int, waited: float, line: str, aside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount, behind, log = tmp_path / "mount", tmp_path / "behind", tmp_path / "log"
    (behind / "w0").mkdir(parents=True)
    (behind / "w0" / "f1").touch()
    inode = (behind / "w0" / "f1").stat().st_ino
    log.write_text({"this": entry(1, STUCK_LINE % inode), "other": entry(1, STUCK_LINE % (inode + 1))}.get(line, ""))
    told: list[tuple[Any, ...]] = []
    trying = Trying(0, lambda *words: told.append(words), Behind(mount, behind, log))
    times = iter([0.0, waited])
    now = [1000.0]

    def clock() -> float:
        now[0] = next(times, now[0] + 1.0)
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    path = mount / "w0" / "f1"
    if aside:
        with pytest.raises(LeftAsideError) as error:
            trying.once("open", lambda place: failing(number), path)
        assert error.value.paths == [path]
    else:
        assert isinstance(trying.once("open", lambda place: failing(number), path), OSError)
    assert [(words[3].endswith(STUCK), words[4]) for words in told] == [(aside, inode)]


def test_what_was_left_aside_is_not_missed(tmp_path: Path) -> None:
    trying = Trying(0, lambda *_: None)
    worker = Worker(tmp_path, "log", "seed", trying)
    worker.begin()
    own = worker._own
    while len(own._files) < 3:
        own.create()
    one, two = sorted(own._files)[:2]
    worker._own.leave_aside([own.place / one])
    own.list()
    os.unlink(own.place / one)
    own.list()
    assert trying.found.violations == []
    os.unlink(own.place / two)
    own.list()
    assert len(trying.found.violations) == 1


def test_a_file_is_left_aside_by_whatever_name_it_has_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unlink that is given up may have renamed the file, whose name is not the worker's any more."""
    mount, behind, log = tmp_path / "mount", tmp_path / "behind", tmp_path / "log"
    for place in (mount, behind):
        (place / "w0").mkdir(parents=True)
    log.touch()
    trying = Trying(0, lambda *_: None, Behind(mount, behind, log))
    own = OwnFiles(mount / "w0", trying, random.Random(1))
    (behind / "w0" / "f1").touch()
    log.write_text(entry(1, STUCK_LINE % (behind / "w0" / "f1").stat().st_ino))
    now = iter([0.0, *(60.0 + tenth / 10 for tenth in range(1000))])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def unlink(path: Path) -> None:
        (behind / "w0" / path.name).rename(behind / "w0" / ".smb3fs-0")
        raise OSError(errno.ETIMEDOUT, "gave up")

    with pytest.raises(LeftAsideError) as error:
        trying.once("unlink", unlink, mount / "w0" / "f1")
    own.leave_aside(error.value.paths)
    for name in (".smb3fs-0", "other"):
        (mount / "w0" / name).touch()
    (behind / "w0" / "other").touch()
    own.list()
    (said,) = trying.found.violations
    assert "other" in said
    assert ".smb3fs-0" not in said


def test_a_name_of_the_mounts_own_is_no_violation_where_the_server_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second name of a file that is stuck cannot be taken away."""
    mount, behind, log = tmp_path / "mount", tmp_path / "behind", tmp_path / "log"
    for place in (mount, behind):
        (place / "w0").mkdir(parents=True)
        for name in (".smb3fs-0", ".smb3fs-1"):
            (place / "w0" / name).touch()
    trying = Trying(0, lambda *_: None, Behind(mount, behind, log))
    own = OwnFiles(mount / "w0", trying, random.Random(1))
    log.write_text(entry(1, STUCK_LINE % (behind / "w0" / ".smb3fs-0").stat().st_ino))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    own.list()
    (said,) = trying.found.violations
    assert ".smb3fs-1" in said
    assert ".smb3fs-0" not in said


def test_a_wrong_read_is_told_with_what_the_server_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with what was done to the file before, so that it shows who was wrong."""
    mount, behind = tmp_path / "mount", tmp_path / "behind"
    for place in (mount, behind):
        (place / "w0").mkdir(parents=True)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    trying = Trying(0, lambda *_: None, Behind(mount, behind, tmp_path / "log"))
    own = OwnFiles(mount / "w0", trying, random.Random(1))
    own.create()
    (behind / "w0" / "f1").write_bytes((mount / "w0" / "f1").read_bytes())
    os.truncate(mount / "w0" / "f1", 0)
    while not trying.found.violations:
        own.read()
    (said,) = trying.found.violations
    assert "mount 0 bytes 0 bytes from 0 on" in said
    assert re.search(r"server \d+ bytes as they should be", said)
    assert re.search(r"before that:; [\d.]+ write of \d+ at \d+", said)


def test_an_error_of_a_lock_is_about_the_file_of_its_descriptor(tmp_path: Path) -> None:
    """And not about the one whose descriptor has the number of the lock's kind."""
    told: list[tuple[Any, ...]] = []

    class Numbers(Behind):
        """Each descriptor is of the file of that inode."""

        def inode(self, place: object) -> int:
            """The descriptor itself."""
            return place if isinstance(place, int) else 0

    trying = Trying(0, lambda *words: told.append(words), Numbers(tmp_path, tmp_path, tmp_path / "log"))

    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.EIO, f"{descriptor} {kind}")

    trying.once("lock", refuse, 3, 6)
    assert [words[-1] for words in told] == [3]


class UsedByOthers(Run):
    """The end of a run with one stuck file, of which another client can do some things."""

    def __init__(self, what: str, can: Sequence[str]) -> None:
        self._workers = [SimpleNamespace(events=[Event(1.0, 61.0, what, "ETIMEDOUT" + STUCK, 77)])]  # type: ignore[list-item]
        self._server = SimpleNamespace(open_inodes=dict, log=lambda: entry(1, STUCK_LINE % 77))  # type: ignore[assignment]
        self._share, self.can = PERSISTENT, can
        self.report = report(1, ["kill"], stuck=["one"])

    def _names_of(self, inodes: set[int]) -> dict[str, int]:
        return {"f": 77} if 77 in inodes else {}

    def _opens(self, name: str) -> bool:
        return "open" in self.can

    def _removes(self, name: str) -> bool:
        return "remove" in self.can


@pytest.mark.parametrize(
    ("what", "can", "fine"),
    [
        ("open", ["open"], False),
        ("open", [], True),
        ("unlink", ["open"], True),
        ("unlink", ["open", "remove"], False),
        ("unlink", [], True),
    ],
)
def test_what_is_taken_for_stuck_has_to_be_so_for_others(what: str, can: Sequence[str], fine: bool) -> None:
    run = UsedByOthers(what, can)
    run._open_files()
    assert (run.report.violations == []) == fine


# -- when a fault is over ----------------------------------------------------------------------------------------------


class Relay:
    """What a breaker asks of the relay, and in which order."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def hold(self, way: object) -> None:
        """Hold requests back."""
        self.asked.append(f"hold {way}")

    def cut_clients(self, later: float) -> None:
        """Cut, and deliver later."""
        assert later >= 0
        self.asked.append("cut")

    def holds_back(self) -> bool:
        """Three times yes, then no."""
        self.asked.append("ask")
        return self.asked.count("ask") < 4


def test_late_is_over_when_the_server_has_heard_what_was_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    relay = Relay()
    Breaker(None, relay).do(Fault(1, "late", 0.1, 0.1, settle=True, seed=1))  # type: ignore[arg-type]
    assert relay.asked == ["hold Way.TO_SERVER", "cut", "ask", "ask", "ask", "ask"]


# -- several runs ----------------------------------------------------------------------------------------------------


def report(seed: int, kinds: Sequence[str], **more: Any) -> Report:
    """What came of a run with faults a second apart, none of which anybody waited for."""
    made = Report("durable", "Version 4", seed, "", 4, gathered=True, planned=len(kinds), compared=True, **more)
    for number, kind in enumerate(kinds, 1):
        fault = Fault(number, kind, 0.1, 0.1, settle=True, seed=1)
        made.happened.append(Happened(fault, float(number), number + 0.5, kind, [0.0]))
    return made


def test_errors_are_counted_by_the_fault_before_and_by_what_is_judged() -> None:
    made = report(1, ["link", "kill"])
    made.happened[1].robbed = 1
    events = [
        Event(1.1, 1.2, "append", "EIO"),
        Event(1.3, 1.4, "lock", "EIO"),
        Event(2.1, 2.2, "write", "EIO"),
        Event(2.3, 2.4, "open", "ETIMEDOUT" + STUCK),
        Event(2.5, 2.6, "open", ""),
    ]
    made.attribute(0, events, Told())
    assert made.verdicts == {"link: broken": 1, "link: allowed": 1, "kill: allowed": 1, "kill: stuck": 1}
    assert len(made.broken) == len(made.stuck) == 1
    assert not made.passed


def test_an_error_comes_after_the_fault_by_which_its_file_was_lost() -> None:
    """However long it was not used since; but only until its user has been told, and only on that mount."""
    made, now = report(1, ["kill", "link", "link", "link"]), time.time() - time.monotonic()
    made.note_lost_opens(1, [{"inode": 77, "time": now + 1.6}, {"inode": 78, "time": now + 3.6}])
    made.note_lost_opens(1, [{"inode": 77, "time": now + 1.6}])
    events = [
        Event(4.5, 4.6, "write", "EIO", 77),
        Event(4.6, 4.7, "close", "EIO", 77),
        Event(4.7, 4.8, "open", "EIO", 77),
        Event(4.7, 4.8, "write", "EIO", 78),
        Event(4.8, 4.9, "write", "EIO", 79),
        Event(7.0, 7.1, "write", "EIO", 77),
    ]
    made.attribute(1, events, Told(), 1)
    assert made.verdicts == {"kill: allowed": 2, "link: broken": 4}
    assert [line.split(": ")[1].split(" after fault ")[0] for line in made.broken] == [
        "open EIO",
        "write EIO",
        "write EIO",
        "write EIO",
    ]
    assert " after fault 3 " in made.broken[1]
    assert " after fault 4 " in made.broken[2]
    other = report(1, ["kill", "link", "link", "link"])
    other.lost_opens = made.lost_opens
    other.attribute(0, events[:1], Told(), 0)
    assert other.verdicts == {"link: broken": 1}


def test_what_was_taken_is_told_apart() -> None:
    made, now = report(1, ["link"]), time.time() - time.monotonic()
    made.attribute(0, [Event(1.3, 1.4, "write", "EIO", 77)], Told(taken=[(77, now + 1.2)]))
    assert made.verdicts == {"link: taken": 1}
    made.compared = True
    assert made.passed
    assert "1 errors about opens from which the server was taking H when the connection was cut\n" in as_text(made)
    assert "| link | 1 | 1 | 0 | 1 | 0 | 0.00 s |" in [line.strip() for line in sums([as_json(made)])]


def test_runs_are_put_together() -> None:
    one, two = report(7, ["link", "kill"]), report(8, ["link", "link", "drop"])
    one.attribute(0, [Event(1.1, 1.2, "append", "EIO")], Told())
    two.happened[1].stalls = [0.2, 1.5]
    two.done["write"] = 10
    two.violations.append("a wrong byte")
    runs = [json.loads(json.dumps(as_json(each))) for each in (one, two)]
    lines = [line.strip() for line in sums(runs)]
    assert lines[0] == "share durable of Version 4, writes gathered"
    assert "2 runs, 2 not as promised; seeds and faults: 7 (2), 8 (3)" in lines
    assert "| link | 3 | 1 | 1 | 0 | 1 | 1.50 s |" in lines
    assert "| all | 5 | 1 | 1 | 0 | 1 | 1.50 s |" in lines
    assert lines[-1] == "seed 8: a wrong byte"


def test_opens_that_mounts_have_lost_are_told_once() -> None:
    made = report(1, ["kill"])
    for texts in (["mount 0: 1 lost"], ["mount 0: 1 lost", "mount 1: 2 lost"]):
        made.note_lost(texts)
    assert made.lost == ["mount 0: 1 lost", "mount 1: 2 lost"] == as_json(made)["lost"]
    assert "2 recoveries in which opens were lost\n    mount 0: 1 lost\n" in as_text(made)


def test_a_run_that_was_ended_tells_how_far_it_came() -> None:
    made = report(1, ["link"])
    made.planned, made.interrupted = 3, True
    assert as_text(made).endswith("passed, as far as it went: 1 of 3 faults")
    made.compared = False
    assert not made.passed
    assert as_text(made).endswith("ended after 1 of 3 faults, and nothing was compared")


class Asking(Run):
    """A run of nothing but faults that do nothing; asked to end in the second of them, so many times."""

    def __init__(self, times: int) -> None:
        self._asked, self._say, self._workers = False, lambda _: None, []
        self.report, self.times = report(1, []), times

    def go(self) -> None:
        """Do three."""
        self._do([Fault(number, "link", 0.0, 0.0, settle=False, seed=1) for number in (1, 2, 3)], self, [], stop=False)  # type: ignore[arg-type]

    def _charge(self, mounts: Sequence[Any]) -> None:
        """There is no server that could have done anything."""

    def do(self, fault: Fault) -> str:
        """What breaks nothing."""
        if fault.number == 2:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGTERM)
        return "nothing"


@pytest.mark.parametrize(("times", "done"), [(0, 3), (1, 2), (2, 1)])
def test_a_signal_ends_a_run_after_the_present_fault_and_a_second_one_at_once(times: int, done: int) -> None:
    run = Asking(times)
    with suppress(KeyboardInterrupt), heeding_signals(run.ask_to_end):
        run.go()
    assert len(run.report.happened) == done
    assert run.report.interrupted == (times == 1)


# -- several links ---------------------------------------------------------------------------------------------------


class Wires:
    """A network with two further links that notes what is done to which of them."""

    def __init__(self) -> None:
        self.server_address = "10.0.0.1"
        self.links = [SimpleNamespace(server_address=f"10.0.0.{number}") for number in (5, 9)]
        self.broken: list[str] = []
        self.told: list[tuple[str, ...]] = []

    def all_links(self) -> list[Any]:
        return [self, *self.links]

    def cut(self, link: Any = None) -> None:
        self.broken.append((link or self).server_address)

    def connect(self, link: Any = None) -> None:
        self.broken.remove((link or self).server_address)

    drop, pass_again = cut, connect

    def aim(self, addresses: Iterable[str]) -> None:
        self.told.append(tuple(addresses))


@pytest.mark.parametrize("kind", ["link", "drop"])
def test_of_several_links_one_breaks_or_all_and_all_are_mended(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires()
    hit: list[tuple[str, ...]] = []
    monkeypatch.setattr("faultlib.breaking.time.sleep", lambda _: hit.append(tuple(wires.broken)))
    breaker = Breaker(SimpleNamespace(network=wires), wires)  # type: ignore[arg-type]
    words = {breaker.do(Fault(number, kind, 0.1, 0.1, settle=True, seed=number)) for number in range(40)}
    everything = tuple(link.server_address for link in wires.all_links())
    assert set(hit) == {everything, *((address,) for address in everything)}
    assert {word.rpartition(", ")[2] for word in words} == {"all links", *(f"link {n} alone" for n in (1, 2, 3))}
    assert wires.broken == []
    # The relay is told which connections it is about, and that it is over.
    assert wires.told[::2] == hit
    assert set(wires.told[1::2]) == {()}
