"""The bench's pure parts: figures, tables, reports, what it reads out of the kernel's and Samba's words."""

from __future__ import annotations

import inspect
import json
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from smb3fs.fuse.device import MAX_DATA
from smb3fs.fuse.dispatch import table_of
from smb3fs.vfs.operations import Vfs
from smb3fs.wire.fuse import Opcode

TOOLS = Path(__file__).resolve().parents[2] / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from benchlib import cli, kernel, machine, report, stats  # noqa: E402
from benchlib.bulk import Read, Write  # noqa: E402
from benchlib.delay import Delay  # noqa: E402
from benchlib.drivers import Memory  # noqa: E402
from benchlib.inodes import Step as Known  # noqa: E402
from benchlib.inodes import as_markdown  # noqa: E402
from benchlib.memory import Step  # noqa: E402
from benchlib.runner import Facts, Result, Results, describe_sessions, turns  # noqa: E402
from benchlib.small import Create, List, OpenRead, Stat, Unlink, small_name  # noqa: E402
from benchlib.warm import Find, Untar, spread  # noqa: E402
from benchlib.worker import Worker, WorkError  # noqa: E402
from benchlib.workload import MIB, Operation, Pattern, Place, Sizes, WorkloadError, clear, lay_out  # noqa: E402

SIZES = Sizes(bulk_mib=2, files=3, entries=4, tarred=101, found=102, again_mib=1)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_median_is_not_the_mean() -> None:
    assert stats.summarise([1.0, 100.0, 2.0]) == stats.Summary(2.0, 1.0, 100.0, 3)


def test_no_samples_have_no_summary() -> None:
    assert stats.summarise([]) is None


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    one, other = {1: 5.0, 2: 50.0, 3: 6.0}, {1: 2.0, 2: 10.0, 3: 3.0}
    assert stats.ratio(one, other) == 2.5


def test_a_ratio_takes_only_rounds_that_both_have() -> None:
    assert stats.ratio({1: 5.0, 3: 8.0}, {2: 100.0, 3: 2.0}) == 4.0
    assert stats.ratio({1: 5.0}, {2: 100.0}) is None
    assert stats.ratio({1: 5.0}, {1: 0.0}) is None
    assert stats.ratio({}, {}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (0.04123, "0.0412"),
        (4.123, "4.12"),
        (41.23, "41.2"),
        (412.3, "412"),
        (4123.0, "4,123"),
        (41230.0, "41.2 k"),
        (734000.0, "734 k"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert stats.number(value) == text


def test_a_cell_shows_median_span_and_ratio() -> None:
    assert stats.cell(stats.summarise([3.0, 1.0, 2.0]), 2.5) == "2.00 [1.00..3.00] **2.50×**"


def test_a_cell_of_one_round_has_no_span() -> None:
    assert stats.cell(stats.summarise([412.0]), None) == "412"


def test_a_cell_tells_failed_from_not_measured() -> None:
    assert stats.cell(None, None) == "–"
    assert stats.cell(None, None, ["it broke"]) == "failed"
    assert stats.cell(stats.summarise([412.0]), None, ["it broke"]) == "412 (1 failed)"


def test_a_table_is_padded_markdown() -> None:
    assert stats.table(["a", "long"], [["value", "b"]]) == "| a     | long |\n| ----- | ---- |\n| value | b    |"


# -- the order of measurements ---------------------------------------------------------------------------------------


def test_every_client_comes_first_in_turn() -> None:
    orders = [turns(["a", "b", "c"], first) for first in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


# -- what others say -------------------------------------------------------------------------------------------------


def test_the_topmost_mount_on_a_path_is_found_by_its_unescaped_name() -> None:
    text = (
        "22 1 0:20 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
        "45 22 0:40 / /mnt/a\\040b rw,nosuid shared:1 - fuse.rclone bench:share rw\n"
        "46 22 0:41 / /mnt/a rw - fuse.smbnetfs smbnetfs rw\n"
    )
    assert kernel.parse_mountinfo(text, "/mnt/a b") == kernel.MountInfo("0:40", "fuse.rclone")
    assert kernel.parse_mountinfo(text, "/mnt/c") is None


def test_the_high_water_mark_is_read_in_kib() -> None:
    assert kernel.high_water_kib("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  81234 kB\n") == 81234
    assert kernel.high_water_kib("Name:\tkthreadd\n") == 0


def test_a_family_holds_children_and_their_use() -> None:
    worker = Worker(lambda: time.sleep(60) or 0.0)
    try:
        assert len(kernel.family(os.getpid())) >= 2
        assert kernel.usage([os.getpid()]).memory > 1000
    finally:
        assert worker.end(5)


def test_sessions_are_described_by_what_protects_ordinary_requests() -> None:
    def session(
        number: str, signing: tuple[str, str], encryption: tuple[str, str] = ("none", "-")
    ) -> dict[str, object]:
        return {
            "session_id": number,
            "session_dialect": "SMB3_11",
            "signing": {"degree": signing[0], "cipher": signing[1]},
            "encryption": {"degree": encryption[0], "cipher": encryption[1]},
        }

    unsigned = {"sessions": {"1": session("1", ("partial", "AES-128-GMAC"))}}
    assert describe_sessions(unsigned) == "SMB 3.1.1, not signed"
    tree = {"session_id": "1", "signing": {"degree": "full", "cipher": "AES-128-CMAC"}}
    signed = {"sessions": {"1": session("1", ("partial", "AES-128-CMAC"))}, "tcons": {"5": tree}}
    assert describe_sessions(signed) == "SMB 3.1.1, signed with AES-128-CMAC"
    sealed = {"sessions": {"1": session("1", ("none", "-"), ("full", "AES-128-GCM"))}}
    assert describe_sessions(sealed) == "SMB 3.1.1, encrypted with AES-128-GCM"
    assert describe_sessions({}) == "not seen"


def test_a_busy_machine_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    assert machine.busy() == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert "3.00 on 2 processors" in machine.busy()


def test_the_machine_is_read_out_of_proc() -> None:
    assert machine.cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n") == "Some CPU @ 3 GHz"
    assert machine.memory_kib("MemTotal:       24 kB\nMemAvailable:   12 kB\n", "MemAvailable") == 12
    assert machine.system_name('NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == (
        "Debian GNU/Linux 12 (bookworm)"
    )


# -- work in a child -------------------------------------------------------------------------------------------------


def test_work_in_a_child_returns_its_value() -> None:
    worker = Worker(lambda: 4.5)
    assert worker.result(10) == 4.5
    assert worker.end(10)


def test_work_that_raises_says_why() -> None:
    def fail() -> float:
        raise WorkloadError("a short write")

    worker = Worker(fail)
    with pytest.raises(WorkError, match="WorkloadError: a short write"):
        worker.result(10)
    assert worker.end(10)


def test_work_that_hangs_is_given_up_and_ended() -> None:
    worker = Worker(lambda: time.sleep(600) or 0.0)
    with pytest.raises(WorkError, match="no end after 0 s"):
        worker.result(0.05)
    assert worker.end(10)


def test_work_that_dies_is_noticed() -> None:
    worker = Worker(lambda: os._exit(3))
    with pytest.raises(WorkError, match="died"):
        worker.result(10)
    assert worker.end(10)


# -- operations, on a directory that is both the mount and the server ------------------------------------------------


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    (tmp_path / "local").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", cli.OPERATIONS)
def test_every_operation_works_on_a_plain_directory(kind: type[Operation], share: Path) -> None:
    operation = kind(SIZES, Pattern())
    place = lay_out(operation, share / "share", share / "local", "work")
    assert operation.timed(place.server, place) > 0
    operation.verify(place)
    clear(operation, place)
    assert place.server.exists() == (operation.fixture is not None)


def test_a_file_that_arrives_damaged_is_noticed(share: Path) -> None:
    operation = Write(SIZES, Pattern())
    place = lay_out(operation, share / "share", share / "local", "work")
    operation.timed(place.server, place)
    with (place.server / operation.target).open("r+b") as stream:
        stream.seek(MIB + 4000)
        stream.write(b"\0\0\0\0")
    with pytest.raises(WorkloadError, match="block 1"):
        operation.verify(place)


def test_a_block_in_the_wrong_place_is_noticed_by_the_reader(share: Path) -> None:
    operation = Read(SIZES, Pattern())
    place = lay_out(operation, share / "share", share / "local", "work")
    (place.server / operation.target).write_bytes(operation.pattern.block(1) + operation.pattern.block(0))
    with pytest.raises(WorkloadError, match="block 0 was read wrong"):
        operation.perform(place.server, place)


def test_a_file_that_is_too_short_or_too_long_is_noticed_by_the_reader(share: Path) -> None:
    operation = Read(SIZES, Pattern())
    place = lay_out(operation, share / "share", share / "local", "work")
    with (place.server / operation.target).open("r+b") as stream:
        stream.truncate(MIB)
        with pytest.raises(WorkloadError, match="ends in block 1"):
            operation.perform(place.server, place)
    operation.prepare(place)
    with (place.server / operation.target).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(WorkloadError, match="does not end"):
        operation.perform(place.server, place)


def test_what_has_not_arrived_is_not_counted_as_there(share: Path) -> None:
    pattern = Pattern()
    place = Place(share / "share", "share", share / "local")
    assert not Write(SIZES, pattern).arrived(place)
    assert not Create(SIZES, pattern).arrived(place)
    for index in range(SIZES.files):
        (place.server / small_name(index)).touch()
    assert not Create(SIZES, pattern).arrived(place), "files without content are not complete"
    assert not Unlink(SIZES, pattern).arrived(place)


def test_wrong_small_files_are_noticed(share: Path) -> None:
    pattern = Pattern()
    place = lay_out(OpenRead(SIZES, pattern), share / "share", share / "local", "")
    (place.server / small_name(1)).write_bytes(b"?" * 4095)
    with pytest.raises(WorkloadError, match=small_name(1)):
        OpenRead(SIZES, pattern).perform(place.server, place)
    with pytest.raises(WorkloadError, match=small_name(1)):
        Stat(SIZES, pattern).perform(place.server, place)
    with pytest.raises(WorkloadError, match=small_name(1)):
        Create(SIZES, pattern).verify(place)


def test_a_tree_that_misses_a_file_or_has_a_wrong_one_is_noticed(share: Path) -> None:
    untar, find = Untar(SIZES, Pattern()), Find(SIZES, Pattern())
    for operation in (untar, find):
        place = lay_out(operation, share / "share", share / "local", "untar")
        operation.perform(place.server, place)
        last = place.server / spread(operation.steps if operation is untar else SIZES.found)[-1]
        if operation is untar:
            last.write_bytes(bytes(4096))
            with pytest.raises(WorkloadError):
                operation.verify(place)
        last.unlink()
        with pytest.raises(WorkloadError):
            find.perform(place.server, place)
    assert not untar.arrived(lay_out(untar, share / "share", share / "local", "untar"))


def test_what_goes_through_a_delay_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("benchlib.delay.SMB_PORT", server.getsockname()[1])
        with Delay("127.0.0.1", 0.001) as way, socket.create_connection((way.address, way.port)) as near:
            far, _ = server.accept()
            with far:
                for one, other in ((near, far), (far, near)):
                    one.sendall(content := os.urandom(100_000))
                    got = b""
                    while len(got) < len(content):
                        got += other.recv(1 << 20)
                    assert got == content
                near.shutdown(socket.SHUT_WR)
                assert far.recv(1) == b""


def test_a_listing_that_misses_an_entry_is_noticed(share: Path) -> None:
    operation = List(SIZES, Pattern())
    place = lay_out(operation, share / "share", share / "local", "")
    next(place.server.iterdir()).unlink()
    with pytest.raises(WorkloadError, match="3 entries listed instead of 4"):
        operation.perform(place.server, place)


# -- the report ------------------------------------------------------------------------------------------------------


def a_run(*, memory: bool = True) -> report.Run:
    operations = [Write(SIZES, Pattern()), Stat(SIZES, Pattern())]
    results = Results(
        by_operation={
            ("write", "smb3fs"): Result({1: 300.0, 2: 500.0, 3: 400.0}, {1: 1, 2: 2, 3: 3}, [0.2, 0.2, 0.2], [6, 8, 6]),
            ("write", "rclone-off"): Result({1: 75.0, 2: 125.0, 3: 160.0}, {1: 1, 2: 2, 3: 3}, [0.5, 0.5, 0.5]),
            ("stat", "smb3fs"): Result(failures=["it broke", "it broke"]),
            ("stat", "rclone-off"): Result({1: 1000.0}, {1: 1}, [0.1]),
        },
        facts={
            "smb3fs": Facts("mount.smb3fs", "SMB 3.1.1, signed with AES-128-GMAC", 1024, 81920),
            "rclone-off": Facts("rclone mount", "SMB 3.1.1, signed with AES-128-CMAC", 128, 1024),
        },
    )
    return report.Run(
        date="2000-01-01 00:00 UTC",
        command="tools/bench",
        rounds=3,
        machine={"CPU": "a CPU"},
        load=("0.1", "0.2"),
        versions={"smb3fs": "1"},
        operations=operations,
        results=results,
        memory=[Step("the mount", 51200, 0.0), Step("more", 102400, 2.5)] if memory else [],
    )


def test_json_holds_every_sample_and_what_follows_from_them() -> None:
    found = json.loads(json.dumps(report.as_json(a_run())))
    entry = next(item for item in found["results"] if (item["operation"], item["client"]) == ("write", "smb3fs"))
    assert entry["rates"] == {"1": 300.0, "2": 500.0, "3": 400.0}
    assert (entry["median"], entry["min"], entry["max"], entry["ratio"]) == (400.0, 300.0, 500.0, 4.0)
    assert entry["round_trips_per_step"] == 3.0, "the median of the rounds, for each of 2 MiB"
    assert found["clients"]["smb3fs"]["read_ahead_kb"] == 1024
    assert found["clients"]["smb3fs"]["memory_kib"] == 81920
    assert [step["memory_kib"] for step in found["memory"]] == [51200, 102400]
    broken = next(item for item in found["results"] if (item["operation"], item["client"]) == ("stat", "smb3fs"))
    assert broken["median"] is None
    assert broken["failures"] == ["it broke", "it broke"]


def test_the_tables_compare_with_the_reference() -> None:
    text = report.rates_table(a_run())
    assert "400 [300..500] **4.00×**" in text
    assert "| 125 [75.0..160] " in text, "the reference has no ratio to itself"
    assert "| failed " in text


def test_a_failure_is_told_once() -> None:
    assert report.failures(a_run()) == "- stat failed on smb3fs: it broke"


def test_costs_are_for_one_step() -> None:
    lines = report.costs_table(a_run()).splitlines()
    assert "smb3fs, round trips" in lines[2]
    assert "rclone-off, round trips" not in lines[2], "rclone does not count them"
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["write", "MiB", "3.00", "100 k", "250 k"]


def test_the_report_states_machine_read_ahead_and_memory() -> None:
    text = report.as_markdown(a_run(), "rclone-writes")
    assert "- CPU: a CPU" in text
    assert "| 1024 " in text
    assert "| more      | 100        | 2.50    |" in text
    assert "Memory of smb3fs" not in report.as_markdown(a_run(memory=False), "rclone-writes")


# -- the command line ------------------------------------------------------------------------------------------------


def test_clients_and_operations_are_chosen_in_the_tables_order() -> None:
    arguments = cli.parser().parse_args(["--only", "rclone-off,smb3fs", "--ops", "ls,write"])
    assert arguments.only == ["smb3fs", "rclone-off"]
    assert cli.operations_of(arguments) == ["write", "ls"]


def test_an_unknown_client_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["--only", "cifs"])
    assert "'cifs' is none of smb3fs, rclone-off" in capsys.readouterr().err


def test_a_quick_run_is_small_and_leaves_the_memory_run_out() -> None:
    arguments = cli.parser().parse_args(["--quick", "--mib", "8"])
    assert cli.sizes_of(arguments) == replace(cli.QUICK, bulk_mib=8)
    assert cli.MEMORY not in cli.operations_of(arguments)
    assert cli.MEMORY in cli.operations_of(cli.parser().parse_args([]))


def test_a_run_that_does_not_fit_into_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.check_memory(Sizes(1 << 30, 1, 1), [])
    assert "choose a smaller --mib" in capsys.readouterr().err


def test_what_an_inode_costs() -> None:
    mib = 1 << 20
    steps = [
        Known("the mount", 50 * mib, 1, 0),
        Known("`find -ls`", 100 * mib, 100 * 1024, 0),
        Known("2 directories open", 101 * mib, 100 * 1024, 0, 2),
        Known("the kernel has forgotten them", 101 * mib, 1, 0),
    ]
    section = as_markdown([("Samba", steps)], 100_000, "tools/bench inodes")
    told = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| Samba")
    ]
    assert [line[4] for line in told] == ["–", "512", "–", "–"]
    assert "512 KiB (Samba) each" in section


def test_what_answers_from_memory_has_the_verbs_that_drivers_call() -> None:
    """By the same parameters as the real ones, which come and go."""
    for name, verb in inspect.getmembers(Memory, inspect.isfunction):
        if not name.startswith("_") and name != "attach":
            wanted = inspect.signature(getattr(Vfs, name)).parameters
            assert list(inspect.signature(verb).parameters)[: len(wanted)] == list(wanted), name
    assert table_of(cast(Vfs, Memory()), MAX_DATA)[Opcode.OPEN] is not None
