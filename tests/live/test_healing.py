"""The server restarts, crashes, hangs; the link is cut or swallows everything; this machine sleeps. The mount heals."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import Mount, wait_until
from lab.server import Samba

from .conftest import BOUND, Mounter
from .oracle import outcome

# A call ends within timeout=; the rest is for a machine that is busy with other things.
SLACK = 4.0
LOST = ("EIO", "ETIMEDOUT", "EHOSTDOWN", "ECONNRESET", "ENOTCONN", "EHOSTUNREACH", "ECONNREFUSED")


@pytest.fixture
def healing(own_samba: Samba, mounted: Mounter) -> Iterator[Mount]:
    """A mount of a server that may be broken; the server is mended before the unmount."""
    mount = mounted(f"timeout={BOUND}", "echo_interval=1", server=own_samba)
    yield mount
    own_samba.resume()
    if not own_samba.running:
        own_samba.start()


def timed(action: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What came of an action, and how long it took."""
    before = time.monotonic()
    return outcome(action, *arguments), time.monotonic() - before


@contextmanager
def in_background(action: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run an action beside the block; its outcome is in the list afterwards."""
    came: list[Any] = []
    thread = threading.Thread(target=lambda: came.append(timed(action)))
    thread.start()
    yield came
    thread.join(timeout=60)
    assert not thread.is_alive(), "a call did not come back within a minute"


def is_healthy(mount: Mount, samba: Samba) -> None:
    """New files can be written, read, listed and removed."""
    path = mount.path / f"healthy-{os.urandom(4).hex()}"
    path.write_bytes(b"healthy")
    assert (samba.directory() / path.name).read_bytes() == b"healthy"
    assert path.name in os.listdir(mount.path)
    path.unlink()
    assert mount.status()["state"] == "connected"


def healthy_listing(mount: Mount) -> None:
    """The mount has a connection again."""
    assert wait_until(lambda: outcome(os.listdir, mount.path) not in LOST, BOUND * 2)


def stop_and_start(samba: Samba) -> None:
    samba.stop()
    samba.start()


def crash_and_start(samba: Samba) -> None:
    samba.kill()
    samba.start()


@pytest.mark.parametrize("accident", [stop_and_start, crash_and_start])
def test_after_a_restart_new_calls_succeed_and_so_do_open_files_that_are_unchanged(
    own_samba: Samba, healing: Mount, accident: Callable[[Samba], None]
) -> None:
    before = healing.status()["recovery"]
    for name in ("open", "changed", "written"):
        (healing.path / name).write_bytes(b"content")
    (healing.path / "folder").mkdir(exist_ok=True)
    with (
        (healing.path / "open").open("r+b", buffering=0) as file,
        (healing.path / "changed").open("r+b", buffering=0) as changed,
        (healing.path / "written").open("r+b", buffering=0) as written,
    ):
        assert file.read(1) == b"c"
        written.write(b"C")  # a server that crashes may have this, or not
        own_samba.put("changed", b"CONTENT")
        accident(own_samba)
        healthy_listing(healing)
        assert file.read() == b"ontent"
        assert file.write(b"!") == 1
        for lost in (changed, written):
            assert outcome(os.pread, lost.fileno(), 1, 0) == "EIO"
            assert outcome(os.pwrite, lost.fileno(), b"lost", 0) == "EIO"
            assert outcome(os.fsync, lost.fileno()) == "EIO"
    for name, content in (("open", b"content!"), ("changed", b"CONTENT"), ("written", b"Content")):
        assert (own_samba.directory() / name).read_bytes() == content
    after = healing.status()["recovery"]
    assert (after["reopened"] - before["reopened"], after["lost"] - before["lost"]) == (1, 2)
    assert after["generation"] > before["generation"]
    is_healthy(healing, own_samba)
    assert (healing.path / "open").read_bytes() == b"content!"
    assert (healing.path / "folder").is_dir()
    assert healing.status()["reconnects"] >= 1


def test_calls_during_an_outage_wait_and_succeed(own_samba: Samba, healing: Mount) -> None:
    (healing.path / "before").write_bytes(b"content")
    own_samba.stop()
    calls: list[Callable[[], Any]] = [
        lambda: (healing.path / "new").write_bytes(b"written during the outage"),
        (healing.path / "before").read_bytes,
        lambda: sorted(os.listdir(healing.path)),
        (healing.path / "unknown").exists,
    ]
    came: list[Any] = []
    threads = [threading.Thread(target=lambda call=call: came.append(timed(call))) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(BOUND / 3)
    assert came == []
    own_samba.start()
    for thread in threads:
        thread.join(timeout=60)
    results = [result for result, _ in came]
    assert len(results) == 4
    assert not any(isinstance(result, str) for result in results), results
    assert (own_samba.directory() / "new").read_bytes() == b"written during the outage"


def test_a_call_in_the_middle_of_a_crash_is_bounded(own_samba: Samba, healing: Mount) -> None:
    """A reader and a writer at work when the server dies: an error in time, never success for lost data."""
    (healing.path / "big").write_bytes(bytes(20_000_000))

    def write() -> None:
        with (healing.path / "log").open("wb", buffering=0) as file:
            for _ in range(100_000):
                file.write(bytes(100_000))

    def read() -> None:
        while True:
            (healing.path / "big").read_bytes()

    with in_background(write) as writer, in_background(read) as reader:
        time.sleep(0.5)
        own_samba.kill()
    assert writer[0][0] in LOST
    assert reader[0][0] in LOST
    own_samba.start()
    is_healthy(healing, own_samba)
    for name in ("big", "log"):
        (healing.path / name).unlink()


def break_link(samba: Samba) -> None:
    samba.network.cut()


def swallow(samba: Samba) -> None:
    samba.network.drop()


def hang(samba: Samba) -> None:
    samba.pause()


def end(samba: Samba) -> None:
    samba.kill()


BREAKS: dict[Callable[[Samba], None], Callable[[Samba], None]] = {
    break_link: lambda samba: samba.network.connect(),
    swallow: lambda samba: samba.network.pass_again(),
    hang: lambda samba: samba.resume(),
    end: lambda samba: samba.start(),
}


@contextmanager
def broken(samba: Samba, accident: Callable[[Samba], None]) -> Iterator[None]:
    """Within the block the server cannot be reached; afterwards it can again."""
    accident(samba)
    try:
        yield
    finally:
        BREAKS[accident](samba)


@pytest.mark.parametrize("accident", BREAKS, ids=lambda accident: accident.__name__)
def test_every_call_returns_within_the_bound(
    own_samba: Samba, healing: Mount, accident: Callable[[Samba], None]
) -> None:
    """Nothing answers: each call fails after timeout= at the latest. Then the server is back, and so is the mount."""
    (healing.path / "file").write_bytes(b"content")
    (healing.path / "folder").mkdir(exist_ok=True)
    descriptor = os.open(healing.path / "file", os.O_RDWR)
    # A call waits for a write to the same file first, in the kernel: that is the time of two calls.
    synced = os.open(healing.path / "synced", os.O_RDWR | os.O_CREAT)
    listed = os.open(healing.path / "folder", os.O_RDONLY | os.O_DIRECTORY)
    calls: dict[str, tuple[Callable[..., Any], *tuple[Any, ...]]] = {
        "stat": (os.stat, healing.path / "absent"),
        "open": (os.open, healing.path / "file", os.O_RDONLY),
        "create": (os.open, healing.path / "new", os.O_CREAT | os.O_WRONLY),
        "pread": (os.pread, descriptor, 7, 0),
        "pwrite": (os.pwrite, descriptor, b"x", 0),
        "fsync": (os.fsync, synced),
        "listdir": (os.listdir, listed),
        "mkdir": (os.mkdir, healing.path / "made"),
        "rmdir": (os.rmdir, healing.path / "folder"),
        "unlink": (os.unlink, healing.path / "file"),
        "rename": (os.rename, healing.path / "file", healing.path / "renamed"),
        "truncate": (os.truncate, healing.path / "file", 1),
        "utime": (os.utime, healing.path / "file", (1, 1)),
        "statvfs": (os.statvfs, healing.path),
    }
    came: dict[str, tuple[Any, float]] = {}

    def call(name: str) -> None:
        came[name] = timed(*calls[name])

    with broken(own_samba, accident):
        time.sleep(1.1)  # what the kernel remembers (actimeo) has aged
        threads = [threading.Thread(target=call, args=(name,)) for name in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert set(came) == set(calls), f"no answer within a minute: {set(calls) - set(came)}"
        late = {name: seconds for name, (_, seconds) in came.items() if seconds > BOUND + SLACK}
        assert not late, f"later than timeout={BOUND} allows: {late}"
        # What was gathered was answered at once, and who closes the file learns what became of it.
        gathered = came["pwrite"][0] == 1 and came.pop("pwrite") is not None
        wrong = {name: result for name, (result, _) in came.items() if result not in LOST}
        assert not wrong, f"no error that speaks of a lost server: {wrong}"
        assert subprocess.run(["true"], cwd="/", check=True).returncode == 0
        assert outcome(os.close, descriptor) in (LOST if gathered else (None, *LOST))
        assert outcome(os.close, synced) in (None, *LOST)
        os.close(listed)
        assert healing.status()["mountpoint"] == str(healing.path)
    assert wait_until(lambda: outcome(os.listdir, healing.path) not in LOST, BOUND * 2)
    is_healthy(healing, own_samba)


@pytest.mark.parametrize("accident", BREAKS, ids=lambda accident: accident.__name__)
def test_unmounting_while_the_server_is_gone(
    own_samba: Samba, mounted: Mounter, accident: Callable[[Samba], None]
) -> None:
    mount = mounted(f"timeout={BOUND}", "echo_interval=1", server=own_samba)
    (mount.path / "file").write_bytes(b"content")
    with broken(own_samba, accident):
        done, seconds = timed(subprocess.run, ["umount", mount.path])
        assert done.returncode == 0
        assert seconds < BOUND + SLACK
        assert wait_until(lambda: not mount.daemons(), BOUND + SLACK), "the daemon stays"
    if accident in (hang, end):
        assert wait_until(lambda: own_samba.sessions() == 0, 30)
    else:  # our farewell may have been swallowed too: the server notices by its own keepalive, minutes later
        own_samba.restart()


def test_hundreds_of_blocked_calls_do_not_freeze_the_mount(own_samba: Samba, healing: Mount) -> None:
    """More callers than any pool of tasks has members; all come back in time, and the mount serves again."""
    came: list[tuple[Any, float]] = []
    with broken(own_samba, hang):
        threads = [
            threading.Thread(target=lambda n=n: came.append(timed(os.stat, healing.path / f"absent-{n}")))
            for n in range(250)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=BOUND * 10)
    assert len(came) == 250
    assert {result for result, _ in came} <= {*LOST, "ENOENT"}
    assert wait_until(lambda: outcome(os.listdir, healing.path) not in LOST, BOUND * 2)
    is_healthy(healing, own_samba)


def test_a_killed_caller_is_let_go(own_samba: Samba, healing: Mount) -> None:
    """Ctrl-C and kill -9 work on a program that waits for the server, within the bound."""
    with broken(own_samba, hang):
        reader = subprocess.Popen(["stat", healing.path / "absent"], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        reader.kill()
        reader.wait(timeout=BOUND + SLACK)
    is_healthy(healing, own_samba)


def test_a_short_pause_is_only_a_pause(own_samba: Samba, healing: Mount) -> None:
    """The link is away for less than it takes to give up: open files go on."""
    with (healing.path / "open").open("wb", buffering=0) as file:
        file.write(b"before ")
        own_samba.network.cut()
        time.sleep(0.3)
        own_samba.network.connect()
        file.write(b"after")
    assert (own_samba.directory() / "open").read_bytes() == b"before after"


def test_this_machine_slept(own_samba: Samba, healing: Mount) -> None:
    """The daemon stood still while the server forgot us."""
    (daemon,) = healing.daemons()
    os.kill(daemon, signal.SIGSTOP)
    own_samba.restart()
    time.sleep(2)
    os.kill(daemon, signal.SIGCONT)
    is_healthy(healing, own_samba)


def test_many_restarts(own_samba: Samba, healing: Mount) -> None:
    for number in range(5):
        own_samba.restart()
        (healing.path / "again").write_bytes(str(number).encode())
        assert (own_samba.directory() / "again").read_bytes() == str(number).encode()
    assert own_samba.sessions() == 1
    assert Path(healing.path / "again").exists()


def change_password(samba: Samba, mount: Mount) -> None:
    """The login fails on reconnect: calls fail within the bound, and the status says why."""
    samba.set_password("another-Passw0rd")
    samba.restart()
    try:
        result, seconds = timed(os.stat, mount.path / "absent")
        assert result in (*LOST, "EACCES")
        assert seconds < BOUND + SLACK
        status = mount.status()
        assert "STATUS_LOGON_FAILURE" in f"{status['last_errors']} {status['events']}"
    finally:
        samba.set_password(samba.password)


def test_a_new_password_on_the_server_is_said(own_samba: Samba, healing: Mount) -> None:
    change_password(own_samba, healing)


@pytest.mark.slow
def test_the_old_password_again_heals_the_mount(own_samba: Samba, healing: Mount) -> None:
    """A refused login is tried again once a minute only, so that no account is locked."""
    change_password(own_samba, healing)
    assert wait_until(lambda: outcome(os.listdir, healing.path) not in (*LOST, "EACCES"), 120)
    is_healthy(healing, own_samba)
