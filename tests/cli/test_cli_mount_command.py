"""mount.smb3fs as a program, with a stand-in for the mount: readiness, exit codes, what is said and what is left."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from smb3fs import status
from smb3fs.cli import mount_command
from smb3fs.errors import MountError

FAKE = Path(__file__).with_name("fake_mount.py")
SOURCE = "//server/share"
LOGIN = "username=u"  # the password stands in the environment
OK, USAGE, INTERRUPTED, FAILURE = 0, 1, 8, 32


class Live(NamedTuple):
    """What the daemon reported of itself once it was live."""

    pid: int
    cwd: str
    target: str
    password: str
    leads_session: bool
    cmdline: list[bytes]
    environment: list[str]
    descriptors: dict[int, str]


class Command:
    """Runs the program, and ends in the end what it left running."""

    def __init__(self, folder: Path) -> None:
        self.report = folder / "report"
        self.target = folder / "target"
        self.target.mkdir()

    def environment(self, conduct: str) -> dict[str, str]:
        return {**os.environ, "PASSWD": "hunter2", "CONDUCT": conduct, "REPORT": str(self.report)}

    def words(self, *words: str) -> list[str]:
        return [sys.executable, str(FAKE), SOURCE, str(self.target), *words]

    def __call__(self, conduct: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run to the end: of the program and of whoever else holds its output."""
        return subprocess.run(
            self.words(*words),
            env=self.environment(conduct),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def live(self) -> Live:
        """Return the daemon's report."""
        wait_for(self.report)
        pid, cwd, target, password, leads, cmdline, environment, descriptors = self.report.read_text().splitlines()
        return Live(
            int(pid),
            cwd,
            target,
            ast.literal_eval(password),
            leads == "True",
            ast.literal_eval(cmdline),
            ast.literal_eval(environment),
            ast.literal_eval(descriptors),
        )

    def end(self) -> None:
        """Terminate the daemon, and wait until it is gone."""
        if self.report.exists():
            pid = int(self.report.read_text().splitlines()[0])
            if is_running(pid):
                os.kill(pid, signal.SIGTERM)
            wait_gone(pid)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody waits for any more does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 15
    while not path.exists():
        assert time.monotonic() < limit, f"{path} did not come"
        time.sleep(0.01)


def wait_gone(pid: int) -> None:
    limit = time.monotonic() + 15
    while is_running(pid):
        assert time.monotonic() < limit, f"process {pid} stayed"
        time.sleep(0.01)


@pytest.fixture
def here(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run the command in this process, as far as it goes without starting another; its status and what it said."""

    def run(*words: str) -> tuple[int, str]:
        found = mount_command.run([SOURCE, str(command.target), *words], "mount.smb3fs")
        return found, capsys.readouterr().err

    monkeypatch.setenv("PASSWD", "hunter2")
    return run


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The program, a target, and the end of its daemon."""
    made = Command(tmp_path)
    yield made
    made.end()


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("mount.smb3fs: ")
    return line


# -- the daemon ------------------------------------------------------------------------------------------------------


def test_the_command_returns_when_the_mount_is_live(command: Command) -> None:
    done = command("serve", "-o", "username=u,password=hunter3")
    assert (done.returncode, done.stdout) == (OK, "")
    assert any("credentials=FILE" in line for line in done.stderr.splitlines())
    assert "hunter3" not in done.stderr
    live = command.live()
    assert is_running(live.pid)
    assert live.cwd == "/"
    assert live.target == str(command.target)
    assert live.leads_session
    assert live.password == "hunter3"
    assert not any(b"hunter3" in word for word in live.cmdline)
    assert os.fsencode(command.target) in live.cmdline
    assert "_SMB3FS_ARGUMENTS_FD" not in live.environment
    assert live.descriptors == dict.fromkeys((0, 1, 2), "/dev/null")
    os.kill(live.pid, signal.SIGHUP)
    os.kill(live.pid, signal.SIGTERM)
    wait_gone(live.pid)


def test_what_the_caller_left_open_is_closed(command: Command) -> None:
    """Who waits for the end of an inherited pipe does not wait for the mount's."""
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe:
        done = subprocess.run(
            command.words("-o", LOGIN),
            env=command.environment("serve"),
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        os.close(writer)
        assert pipe.read() == b""
    assert done.returncode == OK
    assert is_running(command.live().pid)


def test_foreground_stays_and_reports_on_the_terminal(command: Command) -> None:
    words = command.words("--foreground", "-o", f"{LOGIN},fsc")
    with subprocess.Popen(words, env=command.environment("serve"), stderr=subprocess.PIPE, text=True) as process:
        live = command.live()
        assert live.pid == process.pid
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=15)
    assert process.returncode == OK
    assert "option fsc changes nothing" in told


class Manager:
    """What systemd is to a unit of Type=notify: a socket, and what was told there."""

    def __init__(self, place: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(place.replace("@", "\0", 1))
        self.socket.settimeout(15)

    def told(self) -> dict[str, str]:
        """The next message."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


@pytest.mark.parametrize("abstract", [False, True])
def test_a_unit_of_type_notify_is_told(command: Command, abstract: bool) -> None:
    place = f"@smb3fs-test-{os.getpid()}" if abstract else str(command.report.parent / "notify")
    manager = Manager(place)
    environment = {**command.environment("serve"), "NOTIFY_SOCKET": place}
    words = command.words("--foreground", "-o", LOGIN)
    with manager.socket, subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        assert manager.told() == {"STATUS": "Connecting to server"}
        assert manager.told() == {"READY": "1", "STATUS": f"//server/share is mounted at {command.target}"}
        process.send_signal(signal.SIGTERM)
        assert manager.told() == {"STOPPING": "1", "STATUS": "Taking leave of the server"}
        assert process.wait(15) == OK


def test_a_unit_of_type_notify_is_told_why_not(command: Command) -> None:
    manager = Manager(str(command.report.parent / "notify"))
    environment = {**command.environment("refuse"), "NOTIFY_SOCKET": str(command.report.parent / "notify")}
    with manager.socket:
        done = subprocess.run(
            command.words("--foreground", "-o", LOGIN), env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == FAILURE
        assert manager.told() == {"STATUS": "Connecting to server"}
        assert manager.told() == {"STATUS": done.stderr.strip().removeprefix("mount.smb3fs: ")}


def test_a_socket_that_nobody_listens_to_is_no_reason_to_fail(command: Command) -> None:
    environment = {**command.environment("end"), "NOTIFY_SOCKET": str(command.report.parent / "absent")}
    words = command.words("--foreground", "-o", LOGIN)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "NOTIFY_SOCKET" in done.stderr
    assert done.returncode == OK


def test_the_end_of_the_command_before_it_is_live_ends_the_mount(command: Command) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(
            command.words("-o", LOGIN), env=command.environment("hang"), stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for(command.report)
            daemon = int(command.report.read_text())
            process.send_signal(number)
            _, told = process.communicate(timeout=15)
        assert process.returncode == INTERRUPTED
        assert "interrupted" in one_line(told)
        assert not is_running(daemon)
        command.report.unlink()


def heed_interrupts() -> None:
    """A shell starts what it runs in the background, these tests perhaps, with SIGINT ignored; a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_in_the_foreground_before_it_is_live(command: Command) -> None:
    words, environment = command.words("-d", "-o", LOGIN), command.environment("hang")
    with subprocess.Popen(
        words,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 (no threads here)
    ) as process:
        wait_for(command.report)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=15)
    assert process.returncode == INTERRUPTED
    assert "interrupted" in one_line(told)


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conduct", "words"),
    [
        ("refuse", "STATUS_LOGON_FAILURE"),
        ("refuse in a group", "the share is a printer"),
        ("bug", "ZeroDivisionError"),
        ("die", "signal 9"),
        ("end", "before it was live"),
    ],
)
def test_a_failure_is_one_line_and_status_32(command: Command, conduct: str, words: str) -> None:
    done = command(conduct, "-o", LOGIN)
    assert done.returncode == FAILURE
    assert words in one_line(done.stderr)


def test_with_nofail_a_failure_is_told_and_forgiven(command: Command) -> None:
    done = command("refuse", "-o", f"{LOGIN},nofail")
    assert done.returncode == OK
    assert "STATUS_LOGON_FAILURE" in one_line(done.stderr)


def test_a_failure_in_the_foreground(command: Command) -> None:
    done = command("refuse", "--foreground", "-o", LOGIN)
    assert done.returncode == FAILURE
    assert "STATUS_LOGON_FAILURE" in one_line(done.stderr)
    told = command("bug", "-d", "-o", LOGIN).stderr
    assert "Traceback" in told
    assert "hunter2" not in told


def test_a_failure_after_it_was_live_is_no_failure_of_the_command(command: Command) -> None:
    assert command("fail later", "-o", LOGIN).returncode == OK
    wait_gone(command.live().pid)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["-o", f"{LOGIN},frobnicate"], USAGE, "frobnicate"),
        (["-o", f"{LOGIN},frobnicate,nofail"], USAGE, "frobnicate"),
        (["-o", f"{LOGIN},remount,ro"], FAILURE, "remount"),
        (["-o", "credentials=/absent/file"], FAILURE, "/absent/file"),
        (["-o", "credentials=/absent/file,nofail"], OK, "/absent/file"),
        (["-o", 'password="x'], USAGE, "password"),
        (["-N", "/proc/1/ns/mnt", "-o", LOGIN], USAGE, "nsenter"),
    ],
)
def test_options_fail_before_anything_starts(
    here: Callable[..., tuple[int, str]], words: list[str], status: int, told: str
) -> None:
    found, said = here(*words)
    assert found == status
    assert told in one_line(said)


def test_flags_of_mount_8(here: Callable[..., tuple[int, str]]) -> None:
    assert here("-f", "-o", LOGIN) == (OK, "")
    assert "nothing was mounted" in here("-fv", "-o", LOGIN)[1]
    assert here("-sfnvr", "-t", "fuse.smb3fs", "-o", "ro", "-o", f"{LOGIN},frobnicate")[0] == OK
    assert here("-w", "-f", "-o", "frobnicate", "-o", LOGIN)[0] == USAGE


def test_fake_asks_nobody(here: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PASSWD")
    assert here("-f", "-o", LOGIN) == (OK, "")


@pytest.mark.parametrize("words", [[], [SOURCE], [SOURCE, "/a", "/b"], [SOURCE, "/a", "--opt", "ro"], ["-x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        mount_command.run(words, "mount.smb3fs")
    assert caught.value.code == USAGE
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--help", "--version", "-V"])
def test_help_and_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        mount_command.run([word], "mount.smb3fs")
    assert caught.value.code == OK
    assert "mount.smb3fs" in capsys.readouterr().out


def test_read_only_by_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWD", "x")
    for words, expected in ((["-r"], True), (["-o", "ro"], True), (["-w", "-o", "ro"], False), ([], False)):
        given = mount_command.parser("p").parse_intermixed_args([SOURCE, "/m", "-o", LOGIN, *words])
        assert mount_command._options(given).read_only is expected


def test_targets(here: Callable[..., tuple[int, str]], command: Command, tmp_path: Path) -> None:
    command.target.rmdir()
    status, told = here("-o", LOGIN)
    assert status == FAILURE
    assert "No such file or directory" in one_line(told)
    command.target.write_text("a file")
    assert "Not a directory" in one_line(here("-o", LOGIN)[1])
    command.target.unlink()
    (tmp_path / "real").mkdir()
    command.target.symlink_to("real")
    assert mount_command._target(str(command.target)) == str(tmp_path / "real")


def test_a_target_that_is_mounted_is_refused_untouched(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing looks at the mount, which may hang: here it would look at a path that does not exist."""
    (tmp_path / "link").symlink_to(tmp_path)
    taken = str(tmp_path / "hangs")
    monkeypatch.setattr(status, "mounted_shares", lambda: [status.MountedShare(taken, 0)])
    for path in (taken, f"{taken}/", str(tmp_path / "link/hangs"), str(tmp_path / "x/../hangs")):
        with pytest.raises(MountError, match=r"hangs is mounted already"):
            mount_command._target(path)


# -- asking ----------------------------------------------------------------------------------------------------------


def agent(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a stand-in for systemd's agent on the path of a machine that systemd runs."""
    program = folder / "systemd-ask-password"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(mount_command, "SYSTEMD", str(folder))


def test_systemd_asks_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent(tmp_path, monkeypatch, 'echo "$1 "')
    assert mount_command._ask_password("Password for u") == "Password for u "
    agent(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(MountError, match="no password was given"):
        mount_command._ask_password("Password for u")


def test_the_terminal_is_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent(tmp_path, monkeypatch, "echo wrong")
    monkeypatch.setattr(mount_command, "SYSTEMD", str(tmp_path / "absent"))
    answers = iter(["typed", KeyboardInterrupt(), EOFError()])

    def getpass(prompt: str) -> str:
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(mount_command.getpass, "getpass", getpass)
    assert mount_command._ask_password("Password: ") == "typed"
    for _ in range(2):
        with pytest.raises(MountError, match="no password was given"):
            mount_command._ask_password("Password: ")
