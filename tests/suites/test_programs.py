"""Programs that work a filesystem hard, each for a few seconds: what they make is right, and is what the server has."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from lab.server import Samba
from live.oracle import tree

from .configurations import PLAIN, Configuration
from .conftest import Mounter, Work

PROJECT = Path(__file__).resolve().parents[2]
# Once is enough: what differs from one configuration to the next, the other suites try.
pytestmark = pytest.mark.parametrize("configuration", [PLAIN], ids=["plain"], indirect=True)


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 180) -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def needs(program: str) -> None:
    """Skip where a program is missing; tools/setup installs them all."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (tools/setup does it)")


# -- trees of sources


def git(folder: Path, *words: str) -> str:
    """Run git as somebody, on anybody's repository."""
    who = ("-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", "safe.directory=*", "-c", "gc.auto=0")
    return run("git", *who, *words, cwd=folder)


def test_git_clone_and_gc_of_this_project(work: Work, tmp_path: Path) -> None:
    """The project's own history, or its files where there is none; then a commit, a repack, a check."""
    if (PROJECT / ".git").exists():
        git(tmp_path, "clone", "-q", "--depth", "2", f"file://{PROJECT}", str(work.path / "clone"))
    else:
        shutil.copytree(PROJECT / "smb3fs", work.path / "clone", ignore=shutil.ignore_patterns("__pycache__"))
        git(work.path / "clone", "init", "-q")
        git(work.path / "clone", "add", "-A")
        git(work.path / "clone", "commit", "-qm", "all")
    clone = work.path / "clone"
    assert git(clone, "status", "--porcelain") == ""
    (clone / "one.txt").write_text("one\n")
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "one")
    git(clone, "gc", "-q", "--prune=now")
    git(clone, "fsck", "--full", "--strict")
    assert git(clone, "status", "--porcelain") == ""
    assert (work.behind / "clone/one.txt").read_text() == "one\n"
    assert len(list((work.behind / "clone/.git/objects/pack").glob("*.pack"))) == 1
    run("rm", "-rf", clone)
    assert not (work.behind / "clone").exists()


def test_tar_and_rsync_of_this_project(
    mounted: Mounter, samba: Samba, configuration: Configuration, tmp_path: Path
) -> None:
    """Unpacked, compared, synchronised: the second rsync transfers nothing."""
    source = tmp_path / "source"
    shutil.copytree(PROJECT / "smb3fs", source, ignore=shutil.ignore_patterns("__pycache__"))
    place, behind = mounted("file_mode=0644").path / "sources", samba.directory() / "sources"
    (place / "tar").mkdir(parents=True)
    run("tar", "-cf", tmp_path / "a.tar", "-C", source, ".")
    run("tar", "-xf", tmp_path / "a.tar", "--no-same-owner", "--no-same-permissions", "-C", place / "tar")
    assert tree(behind / "tar") == tree(source)
    archive = ("rsync", "-rt", "--delete", "--stats", "--itemize-changes", f"{source}/", f"{place}/rsync/")
    run(*archive)
    assert tree(behind / "rsync") == tree(source)
    again = run(*archive)
    assert "Number of regular files transferred: 0" in again
    assert "Total transferred file size: 0 bytes" in again
    run("rm", "-r", place)


def test_make(work: Work) -> None:
    """Sixty sources compiled by parallel jobs into objects, an archive and a program that runs from the mount."""
    needs("make")
    needs("gcc")
    count = 60
    for number in range(count):
        (work.path / f"part{number}.c").write_text(f'#include "all.h"\nint part{number}(void) {{ return {number}; }}\n')
    parts = [f"part{number}" for number in range(count)]
    (work.path / "all.h").write_text("".join(f"int {part}(void);\n" for part in parts))
    total = " + ".join(f"{part}()" for part in parts)
    main = f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {total}); return 0; }}\n'
    (work.path / "main.c").write_text(main)
    (work.path / "Makefile").write_text(
        "SOURCES := $(wildcard part*.c)\n"
        "program: main.o all.a\n\t$(CC) -o $@ $^\n"
        "all.a: $(SOURCES:.c=.o)\n\tar rcs $@ $^\n"
        "%.o: %.c all.h\n\t$(CC) -O0 -c -o $@ $<\n"
    )
    run("make", "-j4", "program", cwd=work.path)
    assert run(work.path / "program").strip() == str(sum(range(count)))
    assert "is up to date" in run("make", "program", cwd=work.path)
    (work.path / "part7.c").write_text('#include "all.h"\nint part7(void) { return 1007; }\n')
    again = run("make", "-j4", "program", cwd=work.path)
    assert again.count(" -c ") == 1, again
    assert run(work.path / "program").strip() == str(sum(range(count)) + 1000)


# -- a database

STORM = """
import sqlite3, sys
path, who = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect(path, timeout=120)
for number in range(25):
    with database:
        database.execute("begin immediate")
        (total,) = database.execute("select value from counter").fetchone()
        database.execute("update counter set value = ?", (total + 1,))
        text = "x" * 500 * (number % 5)
        database.execute("insert into line (who, number, text) values (?, ?, ?)", (who, number, text))
"""


@pytest.mark.parametrize("journal", ["delete", "persist"])
def test_sqlite_write_storm(work: Work, journal: str) -> None:
    """Four processes of this machine add to one table in turn; their locks are this machine's, and hold."""
    path = work.path / "data.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"pragma journal_mode = {journal}")
        database.execute("create table counter (value integer)")
        database.execute("insert into counter values (0)")
        database.execute("create table line (who integer, number integer, text text, unique (who, number))")
    program = STORM.replace("database = sqlite3", f'journal = "{journal}"\ndatabase = sqlite3')
    writers = [subprocess.Popen([sys.executable, "-c", program, path, str(who)]) for who in range(4)]
    assert [writer.wait(timeout=150) for writer in writers] == [0] * 4
    with closing(sqlite3.connect(f"file:{work.behind}/data.db?mode=ro", uri=True)) as database:
        assert database.execute("select value from counter").fetchone() == (100,)
        assert database.execute("select count(*) from line").fetchone() == (100,)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


# -- load


FIO = {
    "written and verified in random order": ("--rw=randwrite", "--bs=4k,16k,64k", "--verify=crc32c"),
    "direct": ("--rw=randwrite", "--bs=64k", "--direct=1", "--verify=crc32c"),
    "mapped": ("--rw=randwrite", "--bs=4k", "--ioengine=mmap", "--verify=crc32c"),
    "several at a time": ("--rw=randrw", "--bs=16k", "--numjobs=3", "--verify=crc32c"),
}


@pytest.mark.parametrize("what", FIO)
def test_fio(work: Work, tmp_path: Path, what: str) -> None:
    """fio writes blocks with checksums, and reads them back."""
    needs("fio")
    common = ("--name=job", f"--directory={work.path}", "--size=4m", "--verify_fatal=1", "--end_fsync=1")
    run("fio", *common, "--thread=0", *FIO[what], "--output-format=terse", cwd=tmp_path)
    sizes = [path.stat().st_size for path in work.behind.iterdir()]
    assert set(sizes) == {4 << 20}


def test_dbench(work: Work) -> None:
    """Two clients of an office, by the load file that comes with it; it minds any answer that is not as recorded."""
    needs("dbench")
    told = run("dbench", "-c", "/usr/share/dbench/client.txt", "-t", "4", "-D", work.path, "2", timeout=120)
    assert "Throughput" in told
    assert "ERROR" not in told


# Those whose whole work a network filesystem can do; the others want links, extents, or the machine to themselves.
STRESSORS = ("dentry", "dir", "dirdeep", "flock", "fstat", "getdent", "hdd", "open", "rename", "seek", "sync-file")
STRESSORS += ("touch", "utime")
LIMITS = ("--hdd-bytes=4m", "--seek-size=4m", "--sync-file-bytes=4m", "--dentries=64", "--dirdeep-inodes=64")


def test_stress_ng(work: Work) -> None:
    """Stressors of names and files, side by side; they verify what they find."""
    needs("stress-ng")
    words = [word for name in STRESSORS for word in (f"--{name}", "1")]
    how = ("--verify", "--timeout", "4s", "--no-rand-seed", "--oomable", "--log-brief")
    run("stress-ng", "--temp-path", work.path, *how, *LIMITS, *words, timeout=180)
    assert list(work.behind.iterdir()) == []
