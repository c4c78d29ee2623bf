"""A daemon that is killed in the middle of a recovery, and a program that is killed while its CREATE is unanswered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.mounting import Mount, wait_until
from lab.server import PERSISTENT, Samba

from .conftest import Mounter
from .middleman import Middleman, command_of
from .test_journal import OPTIONS, kill, left_open, locks

CREATE = 5
MESSAGE_ID = slice(24, 32)
PENDING = b"\x03\x01\x00\x00"
# The context of a claim ([MS-SMB2] 2.2.13.2.12).
CLAIM = b"DH2C"
NAMES = ("one", "two", "three")


class Watcher(Middleman):
    """Does something when it sees the n-th CREATE of a kind, before the server has it, or before we have its answer."""

    def __init__(self, server: str) -> None:
        super().__init__(server, to_server=self.sees_request, to_client=self.sees_answer)
        self._wanted = b""
        self._left = 0
        self._before = True
        self._do: Callable[[], object] = lambda: None
        self._awaited = b""
        self.seen = threading.Event()

    def at(self, wanted: bytes, number: int, do: Callable[[], object], *, answer: bool) -> None:
        """Do something at the n-th CREATE in which there is what is wanted, or at its answer."""
        self._left, self._do, self._before, self._wanted = number, do, not answer, wanted

    def sees_request(self, frame: bytearray) -> None:
        """Count it, if it is one of those."""
        if not self._wanted or command_of(frame) != CREATE or self._wanted not in frame:
            return
        self._left -= 1
        if self._left:
            return
        self._wanted = b""
        if self._before:
            self._happen()
        else:
            self._awaited = bytes(frame[MESSAGE_ID])

    def sees_answer(self, frame: bytearray) -> None:
        """Look whether it is the one."""
        if self._awaited and frame[MESSAGE_ID] == self._awaited and frame[8:12] != PENDING:
            self._awaited = b""
            self._happen()

    def _happen(self) -> None:
        """Do it."""
        self.seen.set()
        self._do()

    def cut(self) -> None:
        """End the connection that was made last."""
        for sock in self._sockets[-2:]:
            sock.shutdown(2)


def kill_daemon(mount: Mount) -> None:
    (daemon,) = mount.daemons()
    os.kill(daemon, signal.SIGKILL)
    raise ConnectionAbortedError


@pytest.mark.parametrize(("number", "answer"), [(1, False), (len(NAMES), True)], ids=["first claim", "last answer"])
def test_a_daemon_that_is_killed_while_it_claims(
    later_samba: Samba, mounted: Mounter, number: int, answer: bool
) -> None:
    """Some of its opens are claimed by then, some are not; the next daemon closes them all."""
    other = mounted("soft", "timeout=4", server=later_samba, share=PERSISTENT)
    with Watcher(later_samba.address) as watcher:
        mount = mounted(*OPTIONS, *watcher.options(), server=later_samba, share=PERSISTENT)
        with left_open(mount, *NAMES):
            watcher.at(CLAIM, number, lambda: kill_daemon(mount), answer=answer)
            watcher.cut()
            assert watcher.seen.wait(20)
            assert wait_until(lambda: not mount.daemons(), 10)
            subprocess.run(["umount", "--lazy", str(mount.path)], check=True)
        mount.mount()
        told = mount.status()["recovery"]["inherited"]
        assert told["closed"] == len(NAMES)
        assert told["left"] == 0
        assert wait_until(lambda: later_samba.open_files() == [], 10)
        assert all(locks(other.path / name) for name in NAMES)
        mount.unmount()


def test_a_daemon_that_is_killed_while_all_links_are_down(later_samba: Samba, mounted: Mounter) -> None:
    other = mounted("soft", "timeout=4", server=later_samba, share=PERSISTENT)
    mount = mounted(*OPTIONS, "echo_interval=1", "timeout=4", server=later_samba, share=PERSISTENT)
    with left_open(mount, *NAMES):
        later_samba.network.cut()
        try:
            assert wait_until(lambda: mount.status()["state"] == "reconnecting", 30)
            kill(mount)
        finally:
            later_samba.network.connect()
    mount.mount()
    told = mount.status()["recovery"]["inherited"]
    assert told == {"closed": len(NAMES), "gone": 0, "left": 0}
    assert wait_until(lambda: later_samba.open_files() == [], 10)
    assert wait_until(lambda: all(locks(other.path / name) for name in NAMES), 10)


# -- a program that is killed


def program(path: Path) -> subprocess.Popen[bytes]:
    """A program that makes a file, and would go on to live with it."""
    made = "import os, sys, time; os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL); time.sleep(100)"
    return subprocess.Popen([sys.executable, "-c", made, str(path)])


@pytest.mark.parametrize("lost", [False, True], ids=["answered late", "never answered"])
@pytest.mark.parametrize("answer", [False, True], ids=["request", "answer"])
def test_what_a_killed_program_has_asked_to_be_opened_is_closed(
    later_samba: Samba, mounted: Mounter, answer: bool, lost: bool
) -> None:
    """Whether the server opens it after that or before, and even if its answer never comes through."""
    with Watcher(later_samba.address) as watcher:
        mount = mounted(*watcher.options(), server=later_samba, share=PERSISTENT)
        go_on = threading.Event()

        def hold() -> None:
            go_on.wait(20)
            if lost:
                raise ConnectionAbortedError

        name = f"cancelled-{answer}-{lost}"
        watcher.at(name.encode("utf-16-le"), 2, hold, answer=answer)  # the first one looks for it
        child = program(mount.path / name)
        try:
            assert watcher.seen.wait(20)
        finally:
            child.kill()
        assert child.wait(20) == -signal.SIGKILL
        go_on.set()
        assert mount.path.stat()
        assert wait_until(lambda: later_samba.open_files() == [], 20)
        (mount.path / name).unlink(missing_ok=True)
        mount.unmount()
