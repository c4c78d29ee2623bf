"""smb3fs metrics: what a real parser makes of the text, names and labels as Prometheus wants them, whole files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mount_snapshots import channel, snapshot

from smb3fs.cli import metrics, smb3fs_command
from smb3fs.cli.metrics import FAMILIES, metrics_text
from smb3fs.errors import MountError
from smb3fs.status import StatusUnavailableError

# An environment that was made before the tests needed it has none; tools/setup installs it.
parser = pytest.importorskip("prometheus_client.parser")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """Every sample by its name and its labels in order; one that is there twice is a mistake."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type in ("gauge", "counter")
        assert family.documentation
        for name, labels, value, *_ in family.samples:
            key = (name, tuple(sorted(labels.items())))
            assert key not in found, key
            found[key] = value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"smb3fs_{name}", tuple(sorted({"mountpoint": "/mnt/photos", **labels}.items()))]


def test_a_real_parser_reads_what_was_counted() -> None:
    told = snapshot(channels=[channel(0, received=10, sent=20), channel(1, state="silent", speed=8_000_000)])
    samples = parsed(metrics_text({"/mnt/photos": told}))
    assert of(samples, "up") == of(samples, "connected") == 1
    assert of(samples, "requests_total", command="READ") == 1234567
    assert of(samples, "read_bytes_total") == 5 << 30
    assert of(samples, "start_time_seconds") == 1_700_000_000.5
    assert of(samples, "cache_lookups_total", cache="names", result="hit") == 3
    assert of(samples, "leases", kind="RH") == 2
    assert of(samples, "leases", kind="R") == 0
    assert of(samples, "leases", kind="directory") == 3
    assert of(samples, "lease_breaks_total", cause="opened") == 2
    assert of(samples, "lease_breaks_overdue_total") == 1
    assert of(samples, "dirty_bytes") == 1 << 20
    assert of(samples, "resident_memory_bytes") == 64 << 20
    assert of(samples, "handles_claimed_total") == 3
    first = {"channel": "0", "local": "10.0.0.2", "remote": "10.0.0.1"}
    second = {"channel": "1", "local": "10.0.1.2", "remote": "10.0.1.1"}
    assert of(samples, "channel_receive_bytes_total", **first) == 10
    assert of(samples, "channel_transmit_bytes_total", **first) == 20
    assert of(samples, "channel_round_trip_seconds", **first) == 0.00025
    assert of(samples, "channel_speed_bytes", **second) == 1_000_000
    assert of(samples, "channel_state", state="silent", **second) == 1
    assert of(samples, "channel_state", state="in use", **second) == 0


def test_every_family_is_told_of_a_mount_that_has_it_all() -> None:
    told = snapshot(channels=[channel(speed=1)])
    names = {name for name, _ in parsed(metrics_text({"/mnt/photos": told}))}
    assert names == {family.name for family in FAMILIES}


def test_names_are_as_prometheus_wants_them() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"smb3fs_[a-z][a-z_]*[a-z]", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert family.help.endswith(".")
        assert family.help.isprintable()
        assert "\\" not in family.help


def test_several_mounts_share_a_family() -> None:
    other = snapshot(mountpoint="/mnt/b", round_trips=1)
    text = metrics_text({"/mnt/photos": snapshot(), "/mnt/b": other, "/mnt/gone": None})
    assert text.count("# TYPE smb3fs_round_trips_total counter") == text.count("# HELP smb3fs_up ") == 1
    samples = parsed(text)
    assert (of(samples, "round_trips_total"), of(samples, "round_trips_total", mountpoint="/mnt/b")) == (99, 1)
    assert of(samples, "up", mountpoint="/mnt/gone") == 0
    assert sum("/mnt/gone" in dict(labels).values() for _, labels in samples) == 1


@pytest.mark.parametrize("told", [{}, {"error": "x"}, {"channels": [{}], "caches": {"data": {}}, "writes": None}])
def test_what_is_missing_is_left_out(told: dict[str, Any]) -> None:
    assert parsed(metrics_text({"/x": told}))


def test_labels_survive_whatever_is_in_them() -> None:
    place = 'a"b\\c\nd\x1b[31m\udcff日'
    text = metrics_text({"/mnt/photos": snapshot(share='back\\slash "quoted"', place="\x1b[31m"), place: None})
    assert all(line.isprintable() for line in text.split("\n"))
    samples = parsed(text)
    assert of(samples, "up", mountpoint='a"b\\c\\nd\\x1b[31m\\udcff日') == 0
    (info,) = (dict(labels) for name, labels in samples if name == "smb3fs_mount_info")
    assert info["share"] == 'back\\slash "quoted"'


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """/mnt/photos, which answers, and /mnt/gone, which does not."""

    def query(place: str) -> Mapping[str, Any]:
        if place != "/mnt/photos":
            raise StatusUnavailableError(f"the daemon of {place} is gone")
        return snapshot()

    monkeypatch.setattr(metrics, "query_status", query)


@pytest.mark.usefixtures("mounts")
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert smb3fs_command.run(["metrics", "/mnt/photos"]) == 0
    assert of(parsed(capsys.readouterr().out), "up") == 1
    assert smb3fs_command.run(["metrics", "/mnt/photos", "/mnt/gone"]) == smb3fs_command.FAILED
    told = capsys.readouterr()
    assert of(parsed(told.out), "up", mountpoint="/mnt/gone") == 0
    assert told.err == "smb3fs: the daemon of /mnt/gone is gone\n"
    monkeypatch.setattr(metrics, "mounted_shares", list)
    assert smb3fs_command.run(["metrics"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("mounts")
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "smb3fs.prom"
    target.write_text("before")
    with target.open() as reader:
        assert smb3fs_command.run(["metrics", "--output", str(target), "/mnt/photos"]) == 0
        assert reader.read() == "before"
    assert of(parsed(target.read_text()), "up") == 1
    assert target.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["smb3fs.prom"]
    assert capsys.readouterr().out == ""


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "smb3fs.prom"
    target.write_text("before")
    with pytest.raises(MountError, match=r"absent/x cannot be written: No such file"):
        metrics.write("text", str(tmp_path / "absent/x"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(MountError, match="No space left"):
        metrics.write("text", str(target))
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["smb3fs.prom"]
