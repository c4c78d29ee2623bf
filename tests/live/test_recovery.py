"""Open files outlive their connection: whatever breaks it, who has them open notices no more than a pause."""

from __future__ import annotations

import errno
import fcntl
import hashlib
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
from lab.server import PERSISTENT, Samba

from .conftest import Mounter
from .locker import Locker
from .middleman import Middleman

BLOCK = 50_000
# A call waits for as long as it takes; that it does so not for ever, the guard against hanging sees to.
PATIENT = ("hard", "timeout=6", "echo_interval=1")


def block(number: int) -> bytes:
    """A piece of content that is like no other."""
    return number.to_bytes(4, "big") * (BLOCK // 4)


@contextmanager
def healthy(samba: Samba) -> Iterator[None]:
    """The server is mended afterwards, whatever was done to it."""
    try:
        yield
    finally:
        samba.network.connect()
        if not samba.running:
            samba.start()


# Does something to the server, and undoes it when the mount has noticed.
Accident = Callable[[Samba, Callable[[], bool]], None]


def cut_link(samba: Samba, noticed: Callable[[], bool]) -> None:
    samba.network.cut()
    assert wait_until(noticed, 60)
    samba.network.connect()


def swallow(samba: Samba, noticed: Callable[[], bool]) -> None:
    samba.network.drop()
    try:
        assert wait_until(noticed, 60)
    finally:
        samba.network.pass_again()


def kill_processes(samba: Samba) -> None:
    for process in samba.session_processes():
        os.kill(process, signal.SIGKILL)


def kill_session(samba: Samba, noticed: Callable[[], bool]) -> None:
    kill_processes(samba)
    assert wait_until(noticed, 60)


def crash(samba: Samba, noticed: Callable[[], bool]) -> None:
    samba.kill()
    assert wait_until(noticed, 60)
    samba.start()


def stop_and_start(samba: Samba, noticed: Callable[[], bool]) -> None:
    samba.stop()
    assert wait_until(noticed, 60)
    samba.start()


def recovery_of(mount: Mount) -> dict[str, Any]:
    """What the mount says of its losses."""
    told: dict[str, Any] = mount.status()["recovery"]
    return told


def suffer(mount: Mount, accident: Callable[[Callable[[], bool]], None]) -> None:
    """Have an accident, and wait until the mount is over it."""
    before = recovery_of(mount)["generation"]

    def over() -> bool:
        return bool(recovery_of(mount)["generation"] > before)

    accident(lambda: over() or mount.status()["state"] != "connected")
    assert wait_until(over, 60)


def write_through(mount: Mount, name: str, accident: Callable[[Callable[[], bool]], None], times: int) -> None:
    """Write one block after the other to one open file, and read some back, while accidents happen."""
    over = threading.Event()

    def happen() -> None:
        try:
            for _ in range(times):
                time.sleep(0.5)
                suffer(mount, accident)
        finally:
            over.set()

    thread = threading.Thread(target=happen)
    with (mount.path / name).open("w+b", buffering=0) as file:
        thread.start()
        number = 0
        while not over.is_set() or number < 20:
            assert file.write(block(number)) == BLOCK
            if number % 7 == 3:
                assert os.pread(file.fileno(), BLOCK, (number - 3) * BLOCK) == block(number - 3)
                os.fsync(file.fileno())
            number += 1
            time.sleep(0.005)
        thread.join()
        assert os.fstat(file.fileno()).st_size == number * BLOCK
    whole = b"".join(block(index) for index in range(number))
    assert (mount.path / name).read_bytes() == whole


@pytest.mark.parametrize("accident", [cut_link, swallow, kill_session, stop_and_start, crash])
def test_an_open_file_goes_on_on_a_persistent_share(later_samba: Samba, mounted: Mounter, accident: Accident) -> None:
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    with healthy(later_samba):
        write_through(mount, accident.__name__, lambda noticed: accident(later_samba, noticed), 2)
    told = recovery_of(mount)
    assert told["lost"] == 0
    assert told["claimed"] >= 2
    status = mount.status()
    assert status["open_handles"] == 0
    assert status["handles"]["persistent"] == status["deferred_handles"]  # what was read last waits under its lease


def test_a_silence_may_last(later_samba: Samba, mounted: Mounter) -> None:
    """The server is told that the connection is gone however long nothing came through; it has no reason to ask."""
    mount = mounted("hard", "timeout=2", "echo_interval=1", server=later_samba, share=PERSISTENT)

    def silence(noticed: Callable[[], bool]) -> None:
        later_samba.network.drop()
        try:
            assert wait_until(noticed, 60)
            time.sleep(4)  # twice what a connection may be silent for; no shorter one would show anything
        finally:
            later_samba.network.pass_again()

    with (mount.path / "silent").open("w+b", buffering=0) as file:
        assert file.write(b"before, ") == 8
        suffer(mount, silence)
        assert file.write(b"after") == 5
        assert os.pread(file.fileno(), 100, 0) == b"before, after"
    assert recovery_of(mount)["lost"] == 0


def test_a_file_that_two_programs_have_open_goes_on_on_a_durable_share(samba: Samba, mounted: Mounter) -> None:
    """Samba 4.17 gives no open of a file back that has two; those of one mount are one."""
    mount = mounted(*PATIENT, share="durable")
    log = mount.path / "two"
    log.touch()
    flags = os.O_WRONLY | os.O_APPEND
    first, second = os.open(log, flags), os.open(log, flags)
    expected = b""
    try:
        for number in range(3):
            for descriptor in (first, second):
                record = b"%d of %d\n" % (number, descriptor)
                assert os.write(descriptor, record) == len(record)
                expected += record
            suffer(mount, lambda noticed: cut_link(samba, noticed))
    finally:
        os.close(first)
        os.write(second, b"end")
        os.close(second)
    assert (samba.directory("durable") / "two").read_bytes() == expected + b"end"
    told = recovery_of(mount)
    assert (told["claimed"], told["lost"]) == (3, 0)


def test_an_open_file_goes_on_when_a_frame_is_cut_in_half(later_samba: Samba, mounted: Mounter) -> None:
    with Middleman(later_samba.address) as between:
        mount = mounted(*PATIENT, *between.options(), server=later_samba, share=PERSISTENT)
        write_through(mount, "cut", lambda noticed: between.cut_next(), 6)
        told = recovery_of(mount)
        assert told["lost"] == 0
        assert told["claimed"] >= 6
        mount.unmount()


def test_what_is_asked_of_an_open_file_afterwards(later_samba: Samba, mounted: Mounter) -> None:
    """Samba gives an open of the POSIX extensions back as one without them."""
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    behind = later_samba.directory(PERSISTENT) / "asked"
    with (mount.path / "asked").open("w+b", buffering=0) as file:
        file.write(b"content")
        os.fchmod(file.fileno(), 0o640)
        suffer(mount, lambda noticed: kill_session(later_samba, noticed))
        os.ftruncate(file.fileno(), 3)
        os.utime(file.fileno(), ns=(10**18, 10**18 + 100))
        told = os.fstat(file.fileno())
        assert (told.st_size, told.st_mtime_ns) == (3, 10**18 + 100)
        assert told.st_mode == behind.stat().st_mode
        assert told.st_mode & 0o777 == 0o640
        os.fchmod(file.fileno(), 0o600)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
        assert recovery_of(mount)["claimed"] >= 1
    assert behind.read_bytes() == b"con"


def test_what_is_closed_while_the_server_is_away_is_in_nobodys_way(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    with healthy(later_samba):
        file = (mount.path / "left").open("wb", buffering=0)
        file.write(b"content")
        fcntl.lockf(file, fcntl.LOCK_EX)
        later_samba.stop()
        assert wait_until(lambda: mount.status()["state"] == "reconnecting", 20)
        descriptor = os.dup(file.fileno())
        threading.Thread(target=file.close).start()
        os.close(descriptor)
        later_samba.start()
        assert wait_until(lambda: mount.status()["state"] == "connected", 20)
        assert wait_until(lambda: later_samba.open_files() == [], 20)
    with mounted(*PATIENT, server=later_samba, share=PERSISTENT).path.joinpath("left").open("r+b") as other:
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_copy_survives_five_deaths_of_its_session(later_samba: Samba, mounted: Mounter, tmp_path: Path) -> None:
    size = 48 << 20
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1 << 20) * (size >> 20))
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    copied, killed = mount.path / "copy", 0
    copy = subprocess.Popen(["dd", f"if={source}", f"of={copied}", "bs=64k", "conv=fsync", "status=none"])
    while killed < 5 and copy.poll() is None:
        reached = size * killed // 6
        behind = later_samba.directory(PERSISTENT) / "copy"
        if behind.exists() and behind.stat().st_size > reached:
            kill_processes(later_samba)
            killed += 1
        time.sleep(0.002)
    assert copy.wait(timeout=120) == 0
    assert checksum(copied) == checksum(source)
    assert checksum(later_samba.directory(PERSISTENT) / "copy") == checksum(source)
    assert recovery_of(mount)["lost"] == 0
    assert killed == 5


@pytest.mark.parametrize("options", [(), ("noposix",)], ids=["posix", "noposix"])
@pytest.mark.parametrize("accident", [cut_link, swallow, kill_session, crash])
def test_locks_outlive_their_connection(
    later_samba: Samba, mounted: Mounter, accident: Accident, options: tuple[str, ...]
) -> None:
    """Nobody else gets them, their holder can go on, give them up, and take others."""
    ours, theirs = (mounted(*PATIENT, *options, server=later_samba, share=PERSISTENT) for _ in range(2))
    name = f"locked-{accident.__name__}-{len(options)}"
    (ours.path / name).write_bytes(b"." * 100)
    holder, other = Locker(ours.path / name), Locker(theirs.path / name)
    try:
        assert holder.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        assert other.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 10) == 0
        with healthy(later_samba):
            suffer(ours, lambda noticed: accident(later_samba, noticed))
        assert other.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == errno.EAGAIN
        assert holder.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 10) == errno.EAGAIN
        assert holder.ask("write", 0, "held") == 4
        assert holder.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 10) == 0
        assert holder.ask("lock", fcntl.LOCK_UN, 0, 0) == 0
        assert other.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 30) == 0
        assert other.ask("write", 0, "taken") == 5
        assert (later_samba.directory(PERSISTENT) / name).read_bytes()[:6] == b"taken."
        assert recovery_of(ours)["lost"] == recovery_of(theirs)["lost"] == 0
    finally:
        holder.end()
        other.end()


def test_who_had_locks_that_the_server_cannot_give_back_is_told(later_samba: Samba, mounted: Mounter) -> None:
    """Only the POSIX extensions can open such a name, and Samba gives opens back without them."""
    ours, theirs = (mounted(*PATIENT, server=later_samba, share=PERSISTENT) for _ in range(2))
    (ours.path / "a:b").write_bytes(b"." * 100)
    lockers = [Locker(ours.path / "a:b")]
    try:
        assert lockers[0].ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        suffer(ours, lambda noticed: kill_session(later_samba, noticed))
        lockers.append(Locker(theirs.path / "a:b"))
        assert lockers[0].ask("write", 0, "held") == errno.EIO
        assert lockers[1].ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        assert lockers[0].ask("reopen") == 0
        assert lockers[0].ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == errno.EAGAIN
    finally:
        for locker in lockers:
            locker.end()


def test_a_locked_file_can_be_removed_and_replaced(later_samba: Samba, mounted: Mounter) -> None:
    mount = mounted(*PATIENT, server=later_samba, share=PERSISTENT)
    (mount.path / "held").write_bytes(b"content")
    holder = Locker(mount.path / "held")
    try:
        assert holder.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        (mount.path / "held").unlink()
        (mount.path / "held").write_bytes(b"another")
        assert holder.ask("write", 0, "still") == 5
        assert (mount.path / "held").read_bytes() == b"another"
        assert holder.ask("reopen") == 0
        assert holder.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10) == 0
        (mount.path / "new").write_bytes(b"the next")
        os.replace(mount.path / "new", mount.path / "held")
        assert (mount.path / "held").read_bytes() == b"the next"
    finally:
        holder.end()


@pytest.mark.parametrize("options", [(), ("noposix",)], ids=["posix", "noposix"])
@pytest.mark.parametrize("accident", [cut_link, kill_session])
def test_a_file_that_was_renamed_while_it_was_open_goes_on(
    later_samba: Samba, mounted: Mounter, accident: Accident, options: tuple[str, ...]
) -> None:
    mount = mounted(*PATIENT, *options, server=later_samba, share=PERSISTENT)
    name = f"{accident.__name__}-{len(options)}"
    with (mount.path / f"{name}-old").open("w+b", buffering=0) as file:
        assert file.write(b"before, ") == 8
        (mount.path / f"{name}-old").rename(mount.path / f"{name}-new")
        assert file.write(b"between, ") == 9
        with healthy(later_samba):
            suffer(mount, lambda noticed: accident(later_samba, noticed))
        assert file.write(b"after") == 5
        assert os.pread(file.fileno(), 100, 0) == b"before, between, after"
    assert recovery_of(mount)["lost"] == 0
    assert (mount.path / f"{name}-new").read_bytes() == b"before, between, after"
    assert wait_until(lambda: later_samba.open_files() == [], 20)


@pytest.mark.parametrize("options", [(), ("noposix",)], ids=["posix", "noposix"])
@pytest.mark.parametrize("accident", [cut_link, kill_session])
def test_so_does_one_that_is_locked(
    later_samba: Samba, mounted: Mounter, accident: Accident, options: tuple[str, ...]
) -> None:
    """It is not opened anew under its new name, for its lock; the server has to be shown it under the old one."""
    mount, other = (mounted(*PATIENT, *options, server=later_samba, share=PERSISTENT) for _ in range(2))
    name = f"locked-{accident.__name__}-{len(options)}"
    behind = later_samba.directory(PERSISTENT)
    with (mount.path / f"{name}-old").open("w+b", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert file.write(b"before, ") == 8
        (mount.path / f"{name}-old").rename(mount.path / f"{name}-new")
        with healthy(later_samba):
            suffer(mount, lambda noticed: accident(later_samba, noticed))
        assert file.write(b"after") == 5
        names = (f"{name}-old", ".smb3fs-", f"{name}-new")
        assert wait_until(lambda: [entry for entry in os.listdir(behind) if entry.startswith(names)] == [names[2]], 20)
        locker = Locker(other.path / names[2])
        try:
            assert locker.ask("lock", fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 1) == errno.EAGAIN
        finally:
            locker.end()
    assert recovery_of(mount)["lost"] == 0
    assert (behind / names[2]).read_bytes() == b"before, after"
