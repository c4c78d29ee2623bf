"""smb3fs: the subcommands, the helper links, and the status for people."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smb3fs.cli import mount_command, smb3fs_command
from smb3fs.cli.status_text import status_text
from smb3fs.status import StatusUnavailableError

SNAPSHOT: dict[str, Any] = {
    "server": "nas",
    "share": "photos",
    "mountpoint": "/mnt/photos",
    "uptime": 3725.4,
    "state": "connected",
    "dialect": "3.1.1",
    "signing": "AES_GMAC",
    "encryption": None,
    "channels": [{"connection": "10.0.0.2:50000 -> 10.0.0.1:445", "transport": "tcp", "in_flight": 0, "credits": 512}],
    "requests": {"CREATE": 12, "READ": 1234567},
    "round_trips": 99,
    "unwaited": 7,
    "bytes": {"read": 5 << 30, "written": 100},
    "open_handles": 3,
    "locks": {"ranges": 5, "files": 2, "on_server": 4, "waiting_at_server": 1},
    "last_errors": [{"time": 0, "text": "the link went away"}],
    "events": [],
}


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the console scripts, one of which was started."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mount.smb3fs").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin/smb3fs")])
    return tmp_path / "bin"


def test_helper_links_come_and_go(scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sbin").mkdir()
    for _ in range(2):  # again after a new installation
        assert smb3fs_command.run(["install-helper", "--directory", f"{tmp_path}/sbin"]) == 0
        for name in ("mount.smb3fs", "mount.fuse.smb3fs"):
            assert os.readlink(tmp_path / "sbin" / name) == str(scripts / "mount.smb3fs")
            assert name in capsys.readouterr().out or name == "mount.fuse.smb3fs"
    assert smb3fs_command.run(["install-helper", "--remove", "--directory", f"{tmp_path}/sbin"]) == 0
    assert os.listdir(tmp_path / "sbin") == []
    assert smb3fs_command.run(["install-helper", "--remove", "--directory", f"{tmp_path}/sbin"]) == 0


@pytest.mark.parametrize("foreign", ["file", "link", "directory"])
def test_other_peoples_helpers_stay(
    scripts: Path, tmp_path: Path, foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    place = sbin / "mount.fuse.smb3fs"
    if foreign == "file":
        place.write_text("#!/bin/sh\n")
    elif foreign == "link":
        place.symlink_to("/usr/bin/somebody-elses")
    else:
        place.mkdir()
    for words in ([], ["--remove"]):
        assert smb3fs_command.run(["install-helper", *words, "--directory", str(sbin)]) != 0
        assert "mount.fuse.smb3fs" in capsys.readouterr().err
        assert os.listdir(sbin) == ["mount.fuse.smb3fs"]  # nothing half done either


def test_without_scripts_or_permission(scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smb3fs_command.run(["install-helper", "--directory", f"{tmp_path}/absent"]) != 0
    assert "root" in capsys.readouterr().err
    (scripts / "mount.smb3fs").unlink()
    assert smb3fs_command.run(["install-helper", "--directory", str(tmp_path)]) != 0
    assert "console scripts" in capsys.readouterr().err


def test_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(smb3fs_command, "query_status", lambda mountpoint: {**SNAPSHOT, "mountpoint": mountpoint})
    assert smb3fs_command.run(["status", "--json", "/x"]) == 0
    assert json.loads(capsys.readouterr().out) == {**SNAPSHOT, "mountpoint": "/x"}
    assert smb3fs_command.run(["status", "/x"]) == 0
    assert "//nas/photos on /x" in capsys.readouterr().out

    def absent(mountpoint: str) -> dict[str, Any]:
        raise StatusUnavailableError("/x is not an smb3fs mount")

    monkeypatch.setattr(smb3fs_command, "query_status", absent)
    assert smb3fs_command.run(["status", "/x"]) != 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "smb3fs: /x is not an smb3fs mount\n")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["status"], ["status", "--js", "/x"], ["-x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        smb3fs_command.run(words)
    assert caught.value.code == 1
    assert "usage: smb3fs" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["mount", "//s/h", "/m"], ["//s/h", "/m"], ["\\\\s\\h", "/m"], ["smb://s/h", "/m"]])
def test_it_mounts_too(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a subcommand, or without as mount.fuse3 calls it."""
    called: list[list[str]] = []

    def run(arguments: list[str], program: str, *, had_secret: bool) -> int:
        called.append(arguments)
        return 32

    monkeypatch.setattr(mount_command, "run", run)
    monkeypatch.setattr(sys, "argv", ["smb3fs", *words])
    assert smb3fs_command.main() == 32
    assert called == [words[-2:]]


def test_what_people_read() -> None:
    lines = status_text(SNAPSHOT).splitlines()
    assert lines[0] == "//nas/photos on /mnt/photos"
    words = {" ".join(line.split()) for line in lines}
    assert words >= {
        "mounted for 1:02:05",
        "dialect 3.1.1",
        "signing AES_GMAC",
        "encryption none",
        "open handles 3",
        "locks 5 ranges of 2 files, 4 on the server, 1 waited for there",
        "round trips 99",
        "not waited for 7",
        "read 5.0 GiB",
        "written 100 B",
        "READ 1,234,567",
        "CREATE 12",
    }
    assert any("10.0.0.1:445" in line and "credits 512" in line for line in lines)
    assert any(line.endswith("the link went away") for line in lines)


@pytest.mark.parametrize("key", SNAPSHOT)
def test_what_is_missing_is_left_out(key: str) -> None:
    for snapshot in ({name: SNAPSHOT[name] for name in SNAPSHOT if name != key}, {**SNAPSHOT, key: None}, {}):
        assert status_text(snapshot)
    assert status_text({"channels": [{}], "events": [{}], "bytes": {}})
    several = {"speed": 1e9, "state": "standby", "bytes": 1 << 20, "reconnects": 2}
    assert "reconnects 2, 1,000 Mbit/s, standby, carried 1.0 MiB" in status_text({"channels": [several]})


def test_a_daemon_that_cannot_describe_itself() -> None:
    assert "could not" in status_text({"error": "the daemon could not describe itself"})


VERSIONS: dict[str, Any] = {
    "mountpoint": "/mnt/photos",
    "mounted": "@GMT-2024.01.01-00.00.00",
    "snapshots": ["@GMT-2025.06.01-12.30.00", "@GMT-2024.01.01-00.00.00", "what is this"],
}


def test_previous_versions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    asked: list[tuple[str, str]] = []

    def query(mountpoint: str, timeout: float, question: str) -> dict[str, Any]:
        asked.append((mountpoint, question))
        return VERSIONS

    monkeypatch.setattr(smb3fs_command, "query_status", query)
    try:
        assert smb3fs_command.run(["snapshots", "/mnt/photos"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "@GMT-2025.06.01-12.30.00  2025-06-01 14:30:00 CEST",
            "@GMT-2024.01.01-00.00.00  2024-01-01 01:00:00 CET  (mounted)",
            "what is this",
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert asked == [("/mnt/photos", "snapshots")]


def test_previous_versions_for_programs_and_none_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[dict[str, Any]] = [VERSIONS, {"snapshots": []}, {"error": "no such thing"}]
    monkeypatch.setattr(smb3fs_command, "query_status", lambda *_: answers.pop(0))
    assert smb3fs_command.run(["snapshots", "--json", "/mnt/photos"]) == 0
    assert json.loads(capsys.readouterr().out) == VERSIONS
    assert smb3fs_command.run(["snapshots", "/mnt/photos"]) == 0
    assert capsys.readouterr().out == "the server has no previous versions of this share\n"
    assert smb3fs_command.run(["snapshots", "/mnt/photos"]) == smb3fs_command.FAILED
    assert "cannot be listed: no such thing" in capsys.readouterr().err
