"""What servers wrote until a test failed is kept, and no more than that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lab import kept_logs
from lab.kept_logs import drop_logs, keep_logs


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The folder of a lab of this process."""
    made = tmp_path / "base" / f"smb3fs-lab-{os.getpid()}-3"
    for folder in ("samba/private", "shares/share", "mnt-1", "dc/log"):
        (made / folder).mkdir(parents=True)
    (made / "samba/log.smbd").write_text("smbd's words")
    (made / "dc/log/log.samba").write_text("the controller's words")
    for secret in ("credentials", "samba/passdb.tdb", "samba/private/log.x", "mnt-1/log", "shares/share/log"):
        (made / secret).write_text("secret")
    return made


def kept(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*")) if path.is_file()}


def test_the_logs_are_kept_and_nothing_else(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "base/smb3fs-lab-1-0/samba").mkdir(parents=True)
    (tmp_path / "base/smb3fs-lab-1-0/samba/log.smbd").write_text("another process's")
    place = tmp_path / "logs"
    target = keep_logs("test_a[first/second link]", place=place, base=tmp_path / "base")
    assert target == place / "test_a_first_second_link_"
    assert kept(place) == {
        f"{target.name}/{lab.name}/samba/log.smbd": "smbd's words",
        f"{target.name}/{lab.name}/dc/log/log.samba": "the controller's words",
    }
    drop_logs(place)
    assert not place.exists()


def test_only_the_end_of_a_long_log(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_logs, "TAIL", 5)
    target = keep_logs("test", place=tmp_path / "logs", base=tmp_path / "base")
    assert target is not None
    assert (target / lab.name / "samba/log.smbd").read_text() == "words"


def test_the_oldest_go(lab: Path, tmp_path: Path) -> None:
    for number in range(kept_logs.MOST + 3):
        target = keep_logs(f"test_{number}", place=tmp_path / "logs", base=tmp_path / "base")
        assert target is not None
        os.utime(target, (number, number))
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert names == {f"test_{number}" for number in range(3, kept_logs.MOST + 3)}


def test_without_a_lab_there_is_nothing(tmp_path: Path) -> None:
    assert keep_logs("test", place=tmp_path / "logs", base=tmp_path) is None
    assert not (tmp_path / "logs").exists()
