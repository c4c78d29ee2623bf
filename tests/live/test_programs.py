"""Ordinary programs at their ordinary work."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from lab.server import Samba

from .conftest import Mounter, Work
from .oracle import tree


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed and must not complain."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A tree like a project's: nested folders, small and large files, an empty one, an executable."""
    root = tmp_path / "sources"
    for folder in range(12):
        (root / f"folder {folder}/inner").mkdir(parents=True)
        for number in range(10):
            (root / f"folder {folder}/inner/file{number}.c").write_bytes(os.urandom(folder * 900 + number))
    (root / "large").write_bytes(os.urandom(3_000_000))
    (root / "empty").write_bytes(b"")
    return root


def git(folder: Path, *words: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", f"safe.directory={folder}")
    return run("git", *who, *words, cwd=folder)


def test_git(work: Work, sources: Path) -> None:
    """init, commit, clone, branch, merge, gc, fsck: locks by O_EXCL, read-only objects, renames, deletions."""
    git(sources, "init", "-q", "-b", "main")
    git(sources, "add", "-A")
    git(sources, "commit", "-qm", "first")
    run("git", "clone", "-q", sources, work.path / "clone")
    clone = work.path / "clone"
    assert git(clone, "status", "--porcelain") == ""
    (clone / "added").write_text("added\n")
    git(clone, "add", "added")
    git(clone, "commit", "-qm", "second")
    git(clone, "checkout", "-qb", "side", "HEAD~1")
    assert not (clone / "added").exists()
    git(clone, "mv", "empty", "moved")
    git(clone, "commit", "-qm", "third")
    git(clone, "merge", "-q", "--no-edit", "main")
    assert (clone / "added").read_text() == "added\n"
    git(clone, "gc", "-q", "--prune=now")
    assert "dangling" not in git(clone, "fsck", "--full", "--strict")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "rev-list", "--count", "HEAD").strip() == "4"
    run("rm", "-r", clone)
    assert os.listdir(work.behind) == []


def test_tar(work: Work, sources: Path, tmp_path: Path) -> None:
    """Unpack with times, compare, pack from the mount."""
    os.utime(sources / "large", (1_234_567_890, 1_234_567_890))
    run("tar", "-cf", tmp_path / "a.tar", "-C", sources, ".")
    run("tar", "-xf", tmp_path / "a.tar", "--no-same-owner", "--no-same-permissions", "-C", work.path)
    assert tree(work.path) == tree(sources)
    assert tree(work.behind) == tree(sources)
    assert (work.path / "large").stat().st_mtime == 1_234_567_890
    run("tar", "-cf", tmp_path / "b.tar", "-C", work.path, ".")
    (tmp_path / "back").mkdir()
    run("tar", "-xf", tmp_path / "b.tar", "-C", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(sources)


def test_rsync(mounted: Mounter, samba: Samba, sources: Path) -> None:
    """Temporary name, times, rename over; the second run finds nothing to do; changes and deletions follow."""
    place = mounted("file_mode=0644").path / "rsync"
    behind = samba.directory() / "rsync"
    archive = ("rsync", "-rt", "--delete", "--itemize-changes", f"{sources}/", f"{place}/")
    run(*archive)
    assert tree(behind) == tree(sources)
    assert run(*archive) == ""
    (sources / "large").write_bytes(os.urandom(2_000_000))
    (sources / "folder 3/inner/file3.c").unlink()
    changes = run(*archive)
    assert len(changes.splitlines()) == 3, changes
    assert tree(behind) == tree(sources)
    run("rsync", "-rt", "--checksum", "--inplace", f"{sources}/", f"{place}/")
    assert tree(behind) == tree(sources)
    run("rm", "-r", place)


def test_programs_that_insist_on_owners_and_modes(mounted: Mounter, samba: Samba, sources: Path) -> None:
    """rsync -a, cp -a and tar as root want chown and chmod to succeed: under noperm they do, quietly."""
    place = mounted("noperm").path / "insisting"
    behind = samba.directory() / "insisting"
    place.mkdir()
    run("rsync", "-a", f"{sources}/", f"{place}/rsync/")
    run("cp", "-a", sources, place / "cp")
    run("tar", "-cf", sources.parent / "a.tar", "--owner=12:12", "-C", sources, ".")
    (place / "tar").mkdir()
    run("tar", "-xpf", sources.parent / "a.tar", "-C", place / "tar")
    for name in ("rsync", "cp", "tar"):
        assert tree(behind / name) == tree(sources)
    run("rm", "-r", place)


def test_editor_that_saves_by_rename(work: Work) -> None:
    """Write a temporary file, fsync, rename over the original, fsync the directory."""
    target = work.path / "letter.txt"
    target.write_text("version 0\n")
    for version in range(1, 6):
        temporary = work.path / f".letter.txt.{version}"
        with temporary.open("w") as file:
            file.write(f"version {version}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
        folder = os.open(work.path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        assert target.read_text() == f"version {version}\n"
        assert (work.behind / "letter.txt").read_text() == f"version {version}\n"
    assert os.listdir(work.path) == ["letter.txt"]


def test_editor_that_keeps_a_backup(work: Work) -> None:
    """As vim does: rename the original to a backup, write a new one, unlink the backup; while a reader has it open."""
    target = work.path / "letter.txt"
    target.write_text("old\n")
    target.rename(work.path / "letter.txt~")
    target.write_text("new\n")
    (work.path / "letter.txt~").unlink()
    assert os.listdir(work.path) == ["letter.txt"]
    assert target.read_text() == "new\n"


def test_sed_in_place_and_shell_redirections(work: Work) -> None:
    run("sh", "-ec", "echo one >f; echo two >>f; sed -i s/one/ONE/ f; sort -r f -o f; cat f >g", cwd=work.path)
    assert (work.behind / "f").read_text() == "two\nONE\n"
    assert (work.behind / "g").read_text() == "two\nONE\n"


def test_find_du_and_ls(work: Work, sources: Path) -> None:
    run("cp", "-r", sources, work.path / "copy")
    assert len(run("find", work.path / "copy", "-type", "f").splitlines()) == 122
    assert len(run("ls", "-lR", work.path / "copy").splitlines()) > 122
    apparent = int(run("du", "-s", "--apparent-size", "--block-size=1", work.path / "copy").split()[0])
    assert apparent >= sum(len(data) for data in tree(sources).values() if data is not None)


def test_dd_with_odd_sizes_and_sync(work: Work, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(2_000_003))
    run("dd", f"if={tmp_path}/in", f"of={work.path}/out", "bs=7777", "conv=fsync", "status=none")
    assert (work.behind / "out").read_bytes() == (tmp_path / "in").read_bytes()
    run("dd", f"if={work.path}/out", f"of={tmp_path}/back", "bs=1M", "iflag=direct", "status=none")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "in").read_bytes()


def test_a_database_in_one_process(work: Work) -> None:
    """SQLite with its journal: locks are this machine's own, fsync is the server's."""
    with closing(sqlite3.connect(work.path / "data.db")) as database, database:
        database.execute("create table t (n integer primary key, blob blob)")
        database.executemany("insert into t (blob) values (?)", [(os.urandom(500),) for _ in range(500)])
    with closing(sqlite3.connect(work.path / "data.db")) as database, database:
        database.execute("delete from t where n % 2")
    with closing(sqlite3.connect(f"file:{work.behind}/data.db?mode=ro", uri=True)) as database:
        assert database.execute("select count(*) from t").fetchone() == (250,)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
