"""Locks between machines: two mounts with sessions of their own, another client, and the server's own processes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab.mounting import Mount, wait_until
from lab.server import Samba

from .adversary import Adversary
from .conftest import DRIVER, Mounter
from .locker import Locker

pytestmark = pytest.mark.skipif("fuse=pyfuse3" in DRIVER, reason="pyfuse3 leaves locks to the kernel")

EX, SH, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB, fcntl.LOCK_UN
SIZE = 1000


class Scene(NamedTuple):
    """Two mounts, another client of the server, and a file that all of them see."""

    here: Mount
    there: Mount
    adversary: Adversary
    name: str
    behind: Path

    @property
    def paths(self) -> tuple[Path, Path]:
        """The file on each mount."""
        return self.here.path / self.name, self.there.path / self.name


@pytest.fixture(scope="module", params=["posix", "noposix"])
def stage(
    samba: Samba, every_mount: list[Mount], request: pytest.FixtureRequest
) -> Iterator[tuple[Mount, Mount, Adversary]]:
    """The two mounts and the other client, with the POSIX extensions where the server has them, and without."""
    mounter = Mounter(samba, every_mount)
    try:
        here, there = (mounter(*(["noposix"] if request.param == "noposix" else [])) for _ in range(2))
        if request.param == "posix" and not here.status()["posix"]:
            pytest.skip("the server does not have the POSIX extensions")
        with Adversary(samba) as adversary:
            yield here, there, adversary
    finally:
        mounter.finish()


@pytest.fixture
def scene(stage: tuple[Mount, Mount, Adversary], samba: Samba) -> Iterator[Scene]:
    """A file of the test's own, on which nothing is locked afterwards."""
    name = f"locked-{os.urandom(4).hex()}"
    behind = samba.directory() / name
    made = Scene(*stage, name, behind)
    made.adversary.make(name, bytes(SIZE))
    assert wait_until(lambda: all(path.exists() for path in made.paths), 5)  # it breaks the leases on the directory
    yield made
    handle = made.adversary.open(name)
    free = wait_until(lambda: made.adversary.can_lock(handle, 0, 1 << 63), 5)
    made.adversary.close(handle)
    behind.unlink()
    assert free


@pytest.fixture
def locker() -> Iterator[Callable[[Path], Locker]]:
    """Other processes that lock files: `locker(path)`."""
    made: list[Locker] = []

    def make(path: Path) -> Locker:
        made.append(Locker(path))
        return made[-1]

    yield make
    for one in made:
        one.end()


def lock(descriptor: int, how: int, start: int = 0, length: int = 0) -> int:
    """Lock a range by fcntl(2); return 0 or the errno."""
    try:
        fcntl.lockf(descriptor, how, length, start)
    except OSError as error:
        return error.errno or -1
    return 0


def asked(descriptor: int, kind: int, start: int, length: int) -> tuple[int, int, int, int]:
    """What F_GETLK says: type, start, length, pid."""
    told = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack("hhqqi4x", kind, 0, start, length, 0))
    kind, _, start, length, pid = struct.unpack("hhqqi4x", told)
    return kind, start, length, pid


def test_two_mounts_see_each_others_locks(scene: Scene) -> None:
    one, two = (os.open(path, os.O_RDWR) for path in scene.paths)
    try:
        assert lock(one, EX | NB, 0, 10) == 0
        assert lock(two, EX | NB, 5, 10) == errno.EAGAIN
        assert lock(two, SH | NB, 9, 1) == errno.EAGAIN
        assert lock(two, EX | NB, 10, 10) == 0
        assert asked(two, fcntl.F_RDLCK, 0, 5) == (fcntl.F_WRLCK, 0, 5, 0)
        assert asked(two, fcntl.F_WRLCK, 20, 0)[0] == fcntl.F_UNLCK
        assert lock(one, SH | NB, 0, 10) == 0
        assert asked(two, fcntl.F_WRLCK, 0, 5) == (fcntl.F_RDLCK, 0, 5, 0)
        assert lock(two, SH | NB, 0, 10) == 0
        assert lock(one, EX | NB, 0, 10) == errno.EAGAIN
        assert lock(two, UN, 0, 10) == 0
        assert lock(one, EX | NB, 0, 10) == 0
        # To the end of the file, wherever that is.
        assert lock(one, EX | NB, 100) == 0
        assert lock(two, EX | NB, (1 << 63) - 2, 1) == errno.EAGAIN
        assert lock(one, UN) == 0
        assert lock(two, EX | NB) == 0
    finally:
        os.close(one)
        os.close(two)


def test_the_third_party_sees_them_and_is_seen(scene: Scene) -> None:
    adversary = scene.adversary
    theirs = adversary.open(scene.name)
    with scene.paths[0].open("r+b", buffering=0) as file:
        assert lock(file.fileno(), EX | NB, 0, 10) == 0
        assert not adversary.lock(theirs, 9, 11)
        assert adversary.lock(theirs, 10, 20)
        assert lock(file.fileno(), EX | NB, 0, 11) == errno.EAGAIN
        if not scene.here.status()["posix"]:
            file.seek(15)
            with pytest.raises(PermissionError):
                file.write(b"x")
            file.seek(0)
            with pytest.raises(PermissionError):
                file.read(5)  # the page has bytes that are locked
            file.seek(15)
        assert adversary.unlock(theirs, 10, 20)
        assert len(file.read(5)) == 5
    assert adversary.can_lock(theirs, 0, SIZE)  # closed, and so unlocked
    adversary.close(theirs)


def test_smbtorture_beside_them(scene: Scene, samba: Samba, locker: Callable[[Path], Locker]) -> None:
    """Samba's own tests of locks do all that the protocol allows on the same share; ours stay what they are."""
    one, two = (locker(path) for path in scene.paths)
    assert one.ask("lock", EX | NB, 0, 10) == 0
    two.begin("lock", EX, 5, 10)
    account = f"--authentication-file={samba.credentials}"
    done = subprocess.run(
        ["smbtorture", samba.source(), account, "--configfile=/dev/null", "smb2.lock"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout
    assert results.count("success") >= 20
    assert scene.here.status()["locks"]["on_server"] == 1
    assert scene.there.status()["locks"]["waiting_at_server"] == 1
    assert one.ask("lock", UN, 0, 10) == 0
    assert two.result() == 0
    assert one.ask("lock", EX | NB, 5, 1) == errno.EAGAIN


def test_the_servers_own_processes_see_them_and_are_seen(scene: Scene) -> None:
    with scene.behind.open("r+b") as local, scene.paths[0].open("r+b") as file:
        assert lock(file.fileno(), EX | NB, 0, 10) == 0
        assert lock(local.fileno(), EX | NB, 5, 1) == errno.EAGAIN
        assert lock(local.fileno(), EX | NB, 10, 1) == 0
        assert lock(file.fileno(), EX | NB, 10, 1) == errno.EAGAIN
        waits = threading.Timer(0.3, lock, (local.fileno(), UN, 10, 1))
        waits.start()
        assert lock(file.fileno(), EX, 10, 1) == 0
        waits.join()
        assert lock(local.fileno(), EX | NB, 10, 1) == errno.EAGAIN


def test_who_waits_gets_it_and_sees_what_was_written(scene: Scene, locker: Callable[[Path], Locker]) -> None:
    mine, theirs = scene.paths
    other = locker(theirs)
    with mine.open("r+b", buffering=0) as file:
        assert file.read(5) == bytes(5)  # now it is in the page cache
        assert other.ask("lock", EX | NB, 500, 10) == 0
        results: list[int] = []
        waiting = threading.Thread(target=lambda: results.append(lock(file.fileno(), EX, 500, 10)))
        waiting.start()
        requests = scene.here.status()["requests"]["LOCK"]
        assert other.ask("write", 0, "fresh") == 5
        time.sleep(1)
        assert results == []
        # It waits at the server, rather than to ask again and again.
        assert scene.here.status()["requests"]["LOCK"] <= requests + 2
        assert other.ask("lock", UN, 500, 10) == 0
        waiting.join(10)
        assert results == [0]
        file.seek(0)
        assert file.read(5) == b"fresh"


def test_a_signal_ends_the_wait_and_nothing_is_left(scene: Scene, locker: Callable[[Path], Locker]) -> None:
    mine, theirs = scene.paths
    holder, waiter = locker(theirs), locker(mine)
    assert holder.ask("lock", EX | NB, 0, 10) == 0
    waiter.begin("lock", EX, 0, 10)
    assert wait_until(lambda: scene.here.status()["channels"][0]["in_flight"] > 0, 5)
    waiter.process.send_signal(signal.SIGUSR1)  # its handler raises
    assert waiter.result() == errno.EINTR
    assert wait_until(lambda: scene.here.status()["channels"][0]["in_flight"] == 0, 5)
    waiter.begin("lock", EX, 0, 10)
    assert wait_until(lambda: scene.here.status()["channels"][0]["in_flight"] > 0, 5)
    waiter.process.kill()
    waiter.process.wait(10)
    assert wait_until(lambda: scene.here.status()["channels"][0]["in_flight"] == 0, 5)
    assert holder.ask("lock", UN, 0, 10) == 0
    handle = scene.adversary.open(scene.name)
    assert scene.adversary.can_lock(handle, 0, 10)
    scene.adversary.close(handle)


def test_a_wait_outlasts_timeout_and_the_watch_over_the_connection(
    mounted: Mounter, scene: Scene, locker: Callable[[Path], Locker]
) -> None:
    short = mounted("timeout=2")
    holder, waiter = locker(scene.paths[1]), locker(short.path / scene.name)
    assert holder.ask("lock", EX | NB, 0, 10) == 0
    waiter.begin("lock", EX, 0, 10)
    time.sleep(5)
    assert waiter.process.poll() is None
    assert short.status()["reconnects"] == 0
    assert holder.ask("lock", UN, 0, 10) == 0
    assert waiter.result() == 0
    waiter.end()


def test_processes_of_one_mount(scene: Scene, locker: Callable[[Path], Locker]) -> None:
    one, two = locker(scene.paths[0]), locker(scene.paths[0])
    assert one.ask("lock", EX | NB, 0, 10) == 0
    assert two.ask("lock", EX | NB, 5, 1) == errno.EAGAIN
    assert two.ask("asked", fcntl.F_WRLCK, 5, 1) == [fcntl.F_WRLCK, 0, 10, one.process.pid]
    two.begin("lock", EX, 0, 1)
    time.sleep(0.2)
    assert one.ask("lock", EX | NB, 20, 1) == 0
    one.begin("lock", EX, 0, 1)  # it has that
    assert one.result() == 0
    assert one.ask("lock", UN, 0, 10) == 0
    assert two.result() == 0
    # Each waits for the other: the second is told.
    one.begin("lock", EX, 0, 1)
    time.sleep(0.2)
    assert two.ask("lock", EX, 20, 1) == errno.EDEADLK
    assert two.ask("close") == 0
    assert one.result() == 0


def test_closing_any_descriptor_releases_all_locks_of_the_process(scene: Scene) -> None:
    mine, theirs = scene.paths
    one, another = os.open(mine, os.O_RDWR), os.open(mine, os.O_RDONLY)
    with theirs.open("r+b") as file:
        assert lock(one, EX | NB, 0, 10) == 0
        assert lock(file.fileno(), EX | NB, 0, 10) == errno.EAGAIN
        os.close(another)
        assert lock(file.fileno(), EX | NB, 0, 10) == 0
    os.close(one)


def test_open_file_descriptions(scene: Scene) -> None:
    mine, theirs = scene.paths
    lock_it = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)
    one, another = os.open(mine, os.O_RDWR), os.open(mine, os.O_RDWR)
    set_lock = 37  # F_OFD_SETLK
    fcntl.fcntl(one, set_lock, lock_it)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(another, set_lock, lock_it)
    # Closing another descriptor of the file does not release it, nor does closing one of two for this one.
    os.close(os.dup(one))
    os.close(another)
    with theirs.open("r+b") as file:
        with pytest.raises(BlockingIOError):
            fcntl.fcntl(file.fileno(), set_lock, lock_it)
        os.close(one)
        assert wait_until(lambda: lock(file.fileno(), EX | NB, 0, 10) == 0, 5)


def test_flock(scene: Scene) -> None:
    mine, theirs = scene.paths
    one, two = os.open(mine, os.O_RDONLY), os.open(theirs, os.O_RDONLY)
    try:
        fcntl.flock(one, SH | NB)
        fcntl.flock(two, SH | NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, EX | NB)
        fcntl.flock(two, UN)
        fcntl.flock(one, EX | NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, SH | NB)
        # Not in the way of fcntl(2) on this machine, and in the way of it on another.
        with mine.open("r+b") as file:
            assert lock(file.fileno(), EX | NB, 0, 10) == 0
        with theirs.open("r+b") as file:
            assert lock(file.fileno(), EX | NB, 0, 10) == errno.EAGAIN
        waiting = subprocess.Popen(["flock", theirs, "true"])
        time.sleep(0.3)
        assert waiting.poll() is None
        fcntl.flock(one, UN)
        assert waiting.wait(10) == 0
    finally:
        os.close(one)
        os.close(two)


def test_flock_of_a_file_that_may_not_be_written(scene: Scene) -> None:
    mine, theirs = scene.paths
    scene.behind.chmod(0o444)
    with mine.open("rb") as one, theirs.open("rb") as two:
        fcntl.flock(one, SH | NB)
        fcntl.flock(two, SH | NB)
        fcntl.flock(two, UN)
        if scene.here.status()["posix"]:
            with pytest.raises(OSError, match="Bad file descriptor"):
                fcntl.flock(one, EX | NB)
        else:
            fcntl.flock(one, EX | NB)
            with pytest.raises(BlockingIOError):
                fcntl.flock(two, SH | NB)
    scene.behind.chmod(0o644)


def test_writing_through_any_descriptor_of_the_file(scene: Scene) -> None:
    """The locks are one handle's on the server, and still no descriptor here is kept out by them."""
    mine, theirs = scene.paths
    reads, writes, late = os.open(mine, os.O_RDONLY), os.open(mine, os.O_WRONLY), -1
    try:
        assert lock(reads, SH | NB, 0, 10) == 0
        assert lock(writes, EX | NB, 20, 30) == 0
        assert os.pwrite(writes, b"written", 20) == 7
        assert os.pread(reads, 7, 20) == b"written"
        late = os.open(mine, os.O_RDWR | os.O_APPEND)
        assert os.write(late, b"end") == 3
        os.truncate(late, SIZE + 100)
        os.close(reads)  # which ends this process's locks
        reads = -1
        assert os.pwrite(writes, b"again", 0) == 5
        assert theirs.read_bytes()[:27] == b"again".ljust(20, b"\0") + b"written"
    finally:
        for descriptor in (reads, writes, late):
            if descriptor >= 0:
                os.close(descriptor)
    status = scene.here.status()
    assert status["open_handles"] == 0


def test_what_else_is_done_to_a_locked_file(scene: Scene) -> None:
    before = scene.paths[0].stat()
    descriptor = os.open(scene.paths[0], os.O_RDWR)
    try:
        assert lock(descriptor, EX | NB, 0, 10) == 0
        os.ftruncate(descriptor, 7)
        assert os.pwrite(descriptor, b"locked", 1) == 6
        os.utime(descriptor, ns=(10**18, 10**18 + 100))
        told = os.fstat(descriptor)
        assert (told.st_size, told.st_mtime_ns) == (7, 10**18 + 100)
        assert scene.behind.read_bytes() == b"\0locked"
        assert scene.behind.stat().st_mtime_ns == 10**18 + 100
        if scene.here.status()["posix"]:
            assert (told.st_mode, told.st_uid) == (before.st_mode, before.st_uid)
            os.fchmod(descriptor, 0o640)
            assert os.fstat(descriptor).st_mode & 0o777 == 0o640
    finally:
        os.close(descriptor)


def test_status_counts_them(scene: Scene, locker: Callable[[Path], Locker]) -> None:
    none = {"ranges": 0, "files": 0, "on_server": 0, "waiting_at_server": 0}
    one, two, other = locker(scene.paths[0]), locker(scene.paths[0]), locker(scene.paths[1])
    assert one.ask("lock", SH | NB, 0, 10) == two.ask("lock", SH | NB, 5, 10) == 0
    assert other.ask("lock", EX | NB, 100, 10) == 0
    # What the processes of one mount have locked together is locked once on the server, or piece by piece.
    assert scene.here.status()["locks"] == {**none, "ranges": 2, "files": 1, "on_server": 2}
    one.begin("lock", SH, 100, 1)
    assert wait_until(lambda: scene.here.status()["locks"]["waiting_at_server"] == 1, 5)
    other.end()
    assert one.result() == 0
    for process in (one, two):
        process.end()
    assert wait_until(lambda: scene.here.status()["locks"] == none, 5)
    assert scene.there.status()["locks"] == none


def test_a_killed_process_leaves_no_lock(scene: Scene, locker: Callable[[Path], Locker]) -> None:
    mine, theirs = scene.paths
    victim = locker(mine)
    assert victim.ask("lock", EX | NB, 0, 100) == 0
    assert victim.ask("flock", SH | NB) == 0
    victim.process.kill()
    victim.process.wait(10)
    with theirs.open("r+b") as file:
        assert wait_until(lambda: lock(file.fileno(), EX | NB) == 0, 5)


@pytest.mark.parametrize("option", ["nobrl", "nolock"])
def test_nobrl(mounted: Mounter, scene: Scene, locker: Callable[[Path], Locker], option: str) -> None:
    alone = mounted(option)
    one, two = locker(alone.path / scene.name), locker(alone.path / scene.name)
    assert one.ask("lock", EX | NB, 0, 10) == 0
    assert two.ask("lock", EX | NB, 0, 10) == errno.EAGAIN
    with scene.paths[0].open("r+b") as file:
        assert lock(file.fileno(), EX | NB, 0, 10) == 0
    assert "LOCK" not in alone.status()["requests"]
    one.end()
    two.end()


@pytest.mark.parametrize("seed", range(3))
def test_ranges_at_random_as_on_a_local_file(
    scene: Scene, locker: Callable[[Path], Locker], tmp_path: Path, seed: int
) -> None:
    """Two processes on one mount and two on one local file do the same; each call ends alike on both."""
    chance = random.Random(seed)
    oracle = tmp_path / "oracle"
    oracle.write_bytes(bytes(SIZE))
    pairs = [(locker(scene.paths[0]), locker(oracle)) for _ in range(2)]
    for step in range(150):
        process = chance.choice(pairs)
        start, length = chance.randrange(20), chance.choice([0, 1, 2, 5, 10])
        action: tuple[Any, ...]
        if chance.random() < 0.25:
            action = ("asked", chance.choice([fcntl.F_RDLCK, fcntl.F_WRLCK]), start, length)
        elif chance.random() < 0.05:
            action = ("reopen",)
        else:
            action = ("lock", chance.choice([EX, EX, SH, SH, UN]) | NB, start, length)
        ours, local = (one.ask(*action) for one in process)
        if action[0] == "asked" and ours[0] != fcntl.F_UNLCK:
            ours[3], local[3] = ours[3] > 0, local[3] > 0
        assert ours == local, (step, action)


@pytest.mark.parametrize("seed", range(2))
def test_ranges_at_random_on_two_mounts(
    scene: Scene, locker: Callable[[Path], Locker], tmp_path: Path, seed: int
) -> None:
    """The same across two mounts, but for what the server keeps: it may refuse more, and never grants more."""
    chance = random.Random(seed)
    oracle = tmp_path / "oracle"
    oracle.write_bytes(bytes(SIZE))
    pairs = [(locker(path), locker(oracle)) for path in scene.paths]
    refused_more = 0
    for step in range(150):
        process = chance.choice(pairs)
        start, length = chance.randrange(20), chance.choice([0, 1, 2, 5, 10])
        how = chance.choice([EX, SH, UN, UN])
        ours = process[0].ask("lock", how | NB, start, length)
        if ours == 0:
            assert process[1].ask("lock", how | NB, start, length) == 0, (step, how, start, length)
        else:
            assert ours == errno.EAGAIN
            kind = fcntl.F_WRLCK if how == EX else fcntl.F_RDLCK
            refused_more += process[1].ask("asked", kind, start, length)[0] == fcntl.F_UNLCK
        if step % 30 == 29:
            for one in (end for pair in pairs for end in pair):
                assert one.ask("lock", UN, 0, 0) == 0
            assert process[0].ask("lock", EX | NB, 0, 0) == 0
            assert process[0].ask("lock", UN, 0, 0) == 0
    assert refused_more < 75


# Commits until it is told that both have had enough; which it asks only after its own share of that.
WRITER = """
import os, sqlite3, sys
path, name, enough, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
base = sqlite3.connect(path, timeout=200, isolation_level=None)
count = 0
while count < enough or not os.path.exists(stop):
    base.execute("BEGIN IMMEDIATE")
    (balance,) = base.execute("SELECT sum(n) FROM t").fetchone()
    base.execute("INSERT INTO t VALUES (?, ?, 1)", (name, balance or 0))
    base.execute("COMMIT")
    count += 1
    if count == enough:
        print("enough", flush=True)
print(count)
"""
ENOUGH = 25


def test_sqlite_in_two_processes_on_two_mounts(scene: Scene, samba: Samba, tmp_path: Path) -> None:
    """Neither stops before both have committed so many: who starved would never come to its own."""
    name, stop = f"base-{os.urandom(4).hex()}.db", tmp_path / "stop"
    with closing(sqlite3.connect(scene.here.path / name)) as base, base:
        base.execute("CREATE TABLE t (who TEXT, before INTEGER, n INTEGER)")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, mount.path / name, str(number), str(ENOUGH), stop],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, mount in enumerate((scene.here, scene.there))
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "enough\n"
    stop.touch()
    counts = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    print(f"transactions: {counts}")
    with closing(sqlite3.connect(scene.there.path / name)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        # Every transaction has seen all before it, and none was lost.
        rows = base.execute("SELECT who, before FROM t ORDER BY rowid").fetchall()
    assert [before for _, before in rows] == list(range(sum(counts)))
    assert sorted(who for who, _ in rows) == ["0"] * counts[0] + ["1"] * counts[1]
    (samba.directory() / name).unlink()


def test_a_journal_beside_the_locked_file_is_seen_as_it_is(scene: Scene) -> None:
    """What was shown of a name beside the file a moment ago is not, once a lock is granted."""
    mine, theirs = scene.paths
    beside, there = (path.with_name(f"{scene.name}-journal") for path in (mine, theirs))
    with mine.open("r+b") as file, theirs.open("r+b") as other:
        there.touch()
        for round_ in range(10):
            assert lock(other.fileno(), EX | NB, 0, 10) == 0
            assert beside.stat().st_size == round_  # held by the kernel from now on, for a second
            there.write_bytes(bytes(round_ + 1))
            assert lock(other.fileno(), UN, 0, 10) == 0
            assert lock(file.fileno(), SH | NB, 0, 10) == 0
            assert beside.stat().st_size == round_ + 1
            assert lock(file.fileno(), UN, 0, 10) == 0
        assert lock(other.fileno(), EX | NB, 0, 10) == 0
        there.unlink()
        assert lock(other.fileno(), UN, 0, 10) == 0
        assert lock(file.fileno(), SH | NB, 0, 10) == 0
        assert not beside.exists()


def test_a_name_is_free_again_when_the_other_machine_closes_its_removed_file(mounted: Mounter, scene: Scene) -> None:
    name = f"{scene.name}-journal"
    path = scene.here.path / name
    path.write_bytes(b"old")
    held = os.open(mounted("noposix").path / name, os.O_RDONLY)
    (scene.there.path / name).unlink()
    for flags in (os.O_CREAT, os.O_CREAT | os.O_EXCL):
        with pytest.raises(OSError, match="busy"):
            os.close(os.open(path, flags | os.O_RDWR))
    closes = threading.Timer(0.3, os.close, (held,))
    closes.start()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    closes.join()
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)
    path.unlink()


@pytest.mark.parametrize("option", ["lease", "nolease"])
def test_a_file_that_was_locked_leaves_its_name_when_it_is_removed(mounted: Mounter, samba: Samba, option: str) -> None:
    """What carries its locks may be an open without the POSIX extensions, to which a removed file keeps its name."""
    here = mounted(*([option] if option == "nolease" else []))
    path, instead = here.path / "was-locked", here.path / "instead"
    path.write_bytes(b"removed")
    instead.write_bytes(b"instead")
    with path.open("r+b", buffering=0) as file:
        assert lock(file.fileno(), EX | NB, 0, 10) == 0
        assert lock(file.fileno(), UN, 0, 10) == 0
        path.unlink()
        samba.client("rename instead was-locked")
        assert file.write(b"written") == 7
        assert os.pread(file.fileno(), 20, 0) == b"written"
        assert wait_until(lambda: path.exists() and path.read_bytes() == b"instead", 5)
    assert path.read_bytes() == b"instead"
    path.unlink()
