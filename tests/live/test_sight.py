"""smb3fs top and smb3fs metrics of real mounts: over two links, while the server is away, and while nothing answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import Mount, program, wait_until
from lab.server import Samba

from .conftest import BOUND, Mounter, native_only

# An environment that was made before the tests needed it has none; tools/setup installs it.
parser = pytest.importorskip("prometheus_client.parser")
MIB = 1 << 20
GIGABIT = 1_000_000_000


@pytest.fixture(scope="module")
def wide() -> Iterator[Samba]:
    """A server with two links."""
    with Samba(speeds=(GIGABIT, GIGABIT)) as server:
        yield server


def run(*words: str | Path) -> str:
    """What a command of smb3fs prints."""
    done = subprocess.run([program("smb3fs"), *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def samples(text: str, mount: Mount) -> dict[str, float]:
    """The metrics of a mount, by name and the values of their other labels."""
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if labels["mountpoint"] == str(mount.path):
                others = [labels[label] for label in labels if label != "mountpoint"]
                found[" ".join([name.removeprefix("smb3fs_"), *others])] = value
    return found


def table(text: str) -> list[dict[str, str]]:
    """The rows of the connections on a screen of `top`."""
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("#"))
    rows = [line.replace("in use", "in_use").split() for line in lines[head + 1 :]]
    return [dict(zip(lines[head].split(), row, strict=True)) for row in rows if row]


def channels(mount: Mount) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = mount.status()["channels"]
    return told


def test_both_links_are_seen_at_work(wide: Samba, mounted: Mounter, tmp_path: Path) -> None:
    idle = {link.server_address: wide.network.carried(link) for link in (wide.network, *wide.network.links)}
    mount = mounted("multichannel", "cache=none", server=wide)
    assert wait_until(lambda: len(channels(mount)) == 2, 60)
    links = {link.server_address: link for link in (wide.network, *wide.network.links)}
    before = samples(run("metrics", mount.path), mount)
    assert before["up"] == before["connected"] == 1
    data = os.urandom(16 * MIB)
    (mount.path / "data").write_bytes(data)
    assert (mount.path / "data").read_bytes() == data
    rows = {row["remote"]: row for row in channels(mount)}
    assert set(rows) == set(links)
    # All bytes of the file are somewhere, and what each link itself says is that and its headers.
    for way, end in (("received", 0), ("sent", 1)):
        assert sum(row[way] for row in rows.values()) > 16 * MIB
        for remote, row in rows.items():
            carried = wide.network.carried(links[remote])[end] - idle[remote][end]
            assert row[way] <= carried <= 1.1 * row[way] + MIB
    assert sorted(row["number"] for row in rows.values()) == [0, 1]
    assert {row["class"] for row in rows.values()} == {"RSS"}
    assert all(row["link_round_trip"] > 0 for row in rows.values())

    run("metrics", "--output", tmp_path / "smb3fs.prom", mount.path)
    after = samples((tmp_path / "smb3fs.prom").read_text(), mount)
    for name in ("read_bytes_total", "written_bytes_total"):
        assert after[name] - before[name] >= 16 * MIB
    assert after["operations_total"] > before["operations_total"]
    for row in rows.values():
        label = f"{row['number']} {row['local']} {row['remote']}"
        assert after[f"channel_receive_bytes_total {label}"] >= row["received"]
        assert after[f"channel_transmit_bytes_total {label}"] >= row["sent"]
        assert after[f"channel_speed_bytes {label}"] == GIGABIT / 8
        assert after[f"channel_state {label} in use"] == 1

    shown = table(run("top", "--once", mount.path))
    assert {row["REMOTE"] for row in shown} == set(links)
    assert {(row["CLASS"], row["SPEED"], row["STATE"]) for row in shown} == {("RSS", "1G", "in_use")}
    assert all(row["IN/s"] != "-" for row in shown)


def test_a_link_that_breaks_is_told_at_every_step(wide: Samba, mounted: Mounter) -> None:
    mount = mounted("multichannel", "cache=none", server=wide)
    assert wait_until(lambda: len(channels(mount)) == 2, 60)
    numbers = {row["connection"]: row["number"] for row in channels(mount)}
    wide.network.break_path(wide.network, "reject with tcp reset")
    try:
        # Something has to be under way for the reset to be heard of.
        assert wait_until(lambda: bool(os.statvfs(mount.path)) and len(channels(mount)) == 1, 60)
        (left,) = channels(mount)
        assert left["number"] == numbers[left["connection"]]
    finally:
        wide.network.mend_path(wide.network)
    assert wait_until(lambda: len(channels(mount)) == 2, 60)
    assert sorted(row["number"] for row in channels(mount)) == [0, 1]
    assert sum(row["reconnects"] for row in channels(mount)) == 1
    texts = [event["text"] for event in mount.status()["events"]]
    steps = ("mounted by connection", "added", "lost: ", "is back")
    places = [next(place for place, text in enumerate(texts) if step in text) for step in steps]
    assert places == sorted(places), texts


def test_what_stands_by_is_told_when_it_does(mounted: Mounter) -> None:
    with Samba(speeds=(GIGABIT // 10, GIGABIT)) as server:
        mount = mounted("max_channels=2", server=server)
        assert wait_until(lambda: [row["state"] for row in channels(mount)].count("standby") == 1, 60)
        slow = next(row for row in channels(mount) if row["state"] == "standby")
        texts = [event["text"] for event in mount.status()["events"]]
        assert f"channel {slow['connection']} stands by, as there are better ones" in texts
        assert {row["STATE"] for row in table(run("top", "--once", mount.path))} == {"standby", "in_use"}
        mounted.finish()


def test_while_the_server_says_nothing(own_samba: Samba, mounted: Mounter) -> None:
    """The server's processes are stopped: a call hangs in the mount, and what it waits for is to be seen."""
    mount = mounted(f"timeout={4 * BOUND}", server=own_samba)
    own_samba.pause()
    blocked = subprocess.Popen(["stat", mount.path / "absent"], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: channels(mount)[0]["state"] == "silent", 4 * BOUND)
        (row,) = table(run("top", "--once", mount.path))
        assert row["STATE"] == "silent"
        assert int(row["REQS"]) >= 1
        told = samples(run("metrics", mount.path), mount)
        assert [told[name] for name in told if name.endswith(" silent")] == [1]
    finally:
        own_samba.resume()
        blocked.wait(timeout=4 * BOUND + 5)
    assert wait_until(lambda: channels(mount)[0]["state"] == "in use", 60)
    texts = [event["text"] for event in mount.status()["events"]]
    assert any("is silent for" in text for text in texts)
    assert any("is silent no more" in text for text in texts)


def test_while_there_is_no_server(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(f"timeout={BOUND}", server=own_samba)
    own_samba.kill()
    try:
        assert wait_until(lambda: mount.status()["recovery"]["failures"] > 0, 60)
        text = run("top", "--once", mount.path)
        assert "  reconnecting  " in text
        assert "reconnecting failed" in text
        told = samples(run("metrics", mount.path), mount)
        assert (told["up"], told["connected"]) == (1, 0)
        assert told["reconnect_failures_total"] > 0
        assert told["errors_total"] > 0
    finally:
        own_samba.start()
    assert wait_until(lambda: mount.status()["state"] == "connected", 60)
    (row,) = channels(mount)
    assert row["reconnects"] == mount.status()["reconnects"] == 1
    assert row["errors"] >= 1


def test_a_daemon_that_is_gone(samba: Samba, mounted: Mounter) -> None:
    mount = mounted()
    mount.kill()
    done = subprocess.run([program("smb3fs"), "metrics"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"the daemon of {mount.path} is gone" in done.stderr
    assert samples(done.stdout, mount) == {"up": 0}
    done = subprocess.run([program("smb3fs"), "top", "--once", mount.path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is gone" in done.stderr
    subprocess.run(["umount", mount.path], check=True)


def caches(mount: Mount) -> dict[str, tuple[int, int]]:
    """Hits and misses of each cache."""
    told: dict[str, dict[str, int]] = mount.status()["caches"]
    return {name: (counts["hits"], counts["misses"]) for name, counts in told.items()}


@native_only
def test_hits_and_misses_are_told_apart(samba: Samba, mounted: Mounter) -> None:
    """Without leases and with times that are over at once the daemon has to ask; with a lease it does not."""
    name = f"hits-{os.urandom(4).hex()}"
    (samba.directory() / name).mkdir()
    (samba.directory() / name / "file").write_bytes(b"x" * 100)
    bare = mounted("nolease", "actimeo=0", "cache=none")
    for _ in range(3):
        with (bare.path / name / "file").open("rb", buffering=0) as file:
            assert file.read(100) == b"x" * 100
            os.fstat(file.fileno())
        assert os.listdir(bare.path / name) == ["file"]
    found = caches(bare)
    assert found["data"][0] == 0
    assert found["data"][1] >= 3
    assert found["names"][1] >= 3
    assert found["listings"] == (0, 3)
    assert found["handles"][0] == 0
    assert found["attributes"][1] >= 1

    kept = mounted("closetimeo=60")
    for _ in range(3):
        assert (kept.path / name / "file").read_bytes() == b"x" * 100
    hits, misses = caches(kept)["handles"]
    assert hits + misses == 3
    if kept.status()["deferred_handles"]:  # what a server needs to have for that, test_cached_files asks
        assert (hits, misses) == (2, 1)
    (samba.directory() / name / "file").unlink()
    (samba.directory() / name).rmdir()


def test_leases_breaks_memory_and_what_is_gathered(samba: Samba, mounted: Mounter) -> None:
    here, there = mounted(), mounted()
    name = f"break-{os.urandom(4).hex()}"
    with (here.path / name).open("wb", buffering=0) as file:
        file.write(b"1" * 1000)
        told = here.status()
        assert told["leases"].get("RWH") == 1
        assert told["writes"]["gathered"] == 1
        assert 10 * MIB < told["memory"]["resident"] <= told["memory"]["most"] < 1000 * MIB
        assert told["break_causes"].get("opened", 0) == 0
        assert (there.path / name).read_bytes() == b"1" * 1000
        assert wait_until(lambda: here.status()["break_causes"].get("opened", 0) == 1, 30)
        text = run("status", here.path)
        for line in ("leases ", "others have    opened: 1", "cache hits ", "memory ", "gathered "):
            assert line in text, text
        metrics = samples(run("metrics", here.path), here)
        assert metrics["lease_breaks_total opened"] == 1
        assert metrics["gathered_writes_total"] == 1
    with (there.path / name).open("rb") as reader:
        assert reader.read() == b"1" * 1000
        before = there.status()["break_causes"].get("changed", 0)
        with (here.path / name).open("r+b", buffering=0) as file:
            file.write(b"2")
        assert wait_until(lambda: there.status()["break_causes"].get("changed", 0) > before, 30)
    (here.path / name).unlink()


def test_what_has_not_arrived_is_dirty(own_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=own_samba)
    with (mount.path / "dirty").open("wb", buffering=0) as file:
        assert mount.status()["leases"] == {"RWH": 1}
        own_samba.pause()
        try:
            file.write(b"1" * 1000)
            assert mount.status()["writes"]["dirty"] == 1000
            assert "dirty 1000 B" in run("top", "--once", mount.path)
            assert samples(run("metrics", mount.path), mount)["dirty_bytes"] == 1000
        finally:
            own_samba.resume()
        os.fsync(file.fileno())
        assert mount.status()["writes"]["dirty"] == 0
    assert (own_samba.directory() / "dirty").read_bytes() == b"1" * 1000


def test_leases_on_directories(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(server=later_samba)
    (mount.path / "folder").mkdir()
    (mount.path / "folder/a").touch()
    assert os.listdir(mount.path / "folder") == ["a"]
    assert wait_until(lambda: mount.status()["directory_leases"] >= 1, 30)
    assert "directory: " in run("status", mount.path)
    later_samba.client("put /etc/hostname folder\\b" if os.path.exists("/etc/hostname") else "mkdir folder\\b")
    assert wait_until(lambda: mount.status()["break_causes"].get("directory", 0) >= 1, 30)
    assert sorted(os.listdir(mount.path / "folder")) == ["a", "b"]
    assert json.loads(run("status", "--json", mount.path))["caches"]["listings"]["misses"] >= 2
