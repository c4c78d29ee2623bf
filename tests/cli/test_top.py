"""smb3fs top on a terminal, and without one: what ends it, what wakes it, and how it leaves the terminal behind."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mount_snapshots import snapshot

from smb3fs.cli import smb3fs_command, top
from smb3fs.cli.terminal import END_OF_SCREEN, ENTER, HOME, LEAVE
from smb3fs.status import MountedShare, StatusUnavailableError

FAKE = Path(__file__).with_name("fake_top.py")
# Makes the terminal the one that Ctrl-C is pressed at.
CONTROL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Screen:
    """The other end of the terminal, and the program that runs on it."""

    def __init__(self, master: int, slave: int, program: subprocess.Popen[bytes]) -> None:
        self.master = master
        self.slave = slave
        self.program = program
        self.seen = ""

    def read(self) -> None:
        """Take in what is there, or comes within a while."""
        ready, _, _ = select.select([self.master], [], [], 0.1)
        if ready:
            try:
                self.seen += os.read(self.master, 65536).decode()
            except OSError as error:
                if error.errno != errno.EIO:  # nobody has the other end open
                    raise

    def wait_for(self, text: str) -> None:
        self.wait_until(lambda: text in self.seen)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        while not condition():
            assert self.program.poll() is None, self.seen
            assert time.monotonic() < limit, self.seen
            self.read()

    def shown(self) -> str:
        """The last screen that is complete."""
        screens = self.seen.split(HOME)
        return next((one for one in reversed(screens) if END_OF_SCREEN in one), "")

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        limit = time.monotonic() + 60
        while self.program.poll() is None:
            assert time.monotonic() < limit
            self.read()
        self.read()
        return self.program.wait()


@contextmanager
def screen(*words: str, terminal: str = "xterm") -> Iterator[Screen]:
    """A terminal of 100 columns with the program on it; afterwards it has to be as it was before."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    program = subprocess.Popen(
        [sys.executable, "-c", CONTROL, sys.executable, str(FAKE), *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "TERM": terminal},
    )
    made = Screen(master, slave, program)
    try:
        yield made
        assert termios.tcgetattr(slave) == before
        assert "Traceback" not in made.seen
        assert terminal == "dumb" or made.seen.endswith(LEAVE)
    finally:
        if program.poll() is None:
            program.kill()
        program.wait()
        os.close(master)
        os.close(slave)


def test_a_new_size_is_heeded_at_once_and_keys_without_meaning_are_not() -> None:
    with screen("slow") as made:
        made.wait_for("LOCAL")
        assert made.seen.startswith(ENTER)
        made.press(b"x\x1b[A")
        made.resize(40, 30)
        made.wait_until(lambda: "REMOTE" in made.shown() and "LOCAL" not in made.shown())
        sequence = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
        assert max(len(sequence.sub("", line)) for line in made.shown().split("\r\n")) <= 40
        assert "operations -/s" in made.shown()
        made.press(b" ")  # a look before its time; what counts then is the daemon's clock
        made.wait_until(lambda: "operations 1,000/s" in made.shown())
        made.press(b"\x1a")  # there is no shell that would have it go on, so it does not stop
        made.wait_until(lambda: made.seen.count(ENTER) == 2)
        made.press(b"\x03")
        assert made.ended() == 0


def test_it_can_be_stopped_and_goes_on_and_q_ends_it() -> None:
    """As a job of a shell, which here is the program itself."""
    with screen("job") as made:
        made.wait_for("operations 1,000/s")
        assert not termios.tcgetattr(made.slave)[3] & (termios.ECHO | termios.ICANON)
        made.press(b"\x1a")
        made.wait_for("<stopped>")
        assert LEAVE in made.seen
        assert termios.tcgetattr(made.slave)[3] & termios.ECHO
        made.seen = ""
        made.press(b"fg\n")
        made.wait_for(ENTER)
        made.wait_for("operations")
        assert not termios.tcgetattr(made.slave)[3] & termios.ECHO
        made.press(b"q")
        assert made.ended() == 0


def test_a_daemon_that_goes_is_said_until_somebody_ends_it() -> None:
    with screen("gone") as made:
        made.wait_for("the daemon of /mnt/photos is gone")
        os.kill(made.program.pid, signal.SIGTERM)
        assert made.ended() == 128 + signal.SIGTERM


def test_a_terminal_that_can_do_nothing_gets_lines() -> None:
    with screen(terminal="dumb") as made:
        made.wait_for("operations 1,000/s")
        made.press(b"\x03")
        assert made.ended() == 0
        assert "\x1b" not in made.seen


# -- without a terminal ----------------------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the daemons say, one answer after the other; nobody waits in between."""
    told = [snapshot(uptime=float(second), operations=10 * second) for second in range(10)]

    def query(place: str, timeout: float) -> dict[str, Any]:
        if not told:
            raise StatusUnavailableError(f"the daemon of {place} is gone")
        return told.pop(0)

    monkeypatch.setattr(top, "run", partial(top.run, query=query))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return told


@pytest.mark.parametrize(
    ("words", "count"), [(["--once"], 1), (["--batch", "-n", "3"], 3), (["-b", "-n2", "-d", "0"], 2), (["-n", "2"], 2)]
)
def test_batches(
    answers: list[dict[str, Any]], words: list[str], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smb3fs_command.run(["top", *words, "/mnt/photos"]) == 0
    told = capsys.readouterr().out
    assert told.count("smb3fs top") == told.count("operations 10/s") == count
    assert len(told.split("\n\n")) == count
    assert told.isprintable() or set(told) - {"\n"} == {one for one in told if one.isprintable()}
    assert len(answers) == 10 - count - 1


def test_all_mounts(
    answers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mounts = [MountedShare("/a", 0), MountedShare("/b", 0), MountedShare("/b", 0)]
    monkeypatch.setattr(top, "mounted_shares", lambda: mounts)
    assert smb3fs_command.run(["top", "--once"]) == 0
    assert capsys.readouterr().out.count("//nas/photos on") == 2
    mounts.clear()
    assert smb3fs_command.run(["top", "--once"]) == smb3fs_command.FAILED
    assert "nothing is mounted" in capsys.readouterr().err


def test_nobody_answers(answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    answers.clear()
    assert smb3fs_command.run(["top", "/mnt/photos"]) == smb3fs_command.FAILED
    assert capsys.readouterr() == ("", "smb3fs: the daemon of /mnt/photos is gone\n")


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "x"], ["-d", "x"], ["-d", "nan"], ["-d", "-1"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        smb3fs_command.run(["top", *words])
    assert caught.value.code == 1
    assert "usage: smb3fs top" in capsys.readouterr().err


def test_who_reads_may_have_seen_enough() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {FAKE} | head -n 1"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("smb3fs top")
    assert done.stderr == ""
