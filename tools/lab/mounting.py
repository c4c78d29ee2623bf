"""Mounting with the real commands, and being sure afterwards that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lab.commands import run
from smb3fs.status import StatusUnavailableError, query_status

# An unmount tells the daemon to close its handles and log off; both are bounded by the mount's timeout.
DAEMON_SECONDS: Final = 15.0
# How long it may take to say how it did; one that is stopped or gone says nothing.
LAST_WORDS_SECONDS: Final = 2.0


class MountFailedError(Exception):
    """mount.smb3fs ended with a status other than 0."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"mount.smb3fs ended with status {status}: {output.strip()}")
        self.status = status
        self.output = output


class LeftBehindError(Exception):
    """An unmount that did not leave the machine as it was before, or a daemon that left mistakes of its own."""


def program(name: str) -> str:
    """A console script of the environment that this runs in."""
    return str(Path(sys.executable).parent / name)


def mount_point_type(path: Path) -> str | None:
    """The filesystem type mounted on `path`, None when nothing is."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields.split()[4])
        if point == str(path):
            return rest.split()[0]
    return None


def daemons(path: Path) -> list[int]:
    """Processes of smb3fs that have this very mount point in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if os.fsencode(path) in words and any(b"smb3fs" in os.path.basename(word) for word in words[:3]):
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


class Mount:
    """One mount by mount.smb3fs; a context manager that unmounts."""

    def __init__(self, source: str, path: Path, options: Sequence[str], command: Sequence[str] = ()) -> None:
        """`command` replaces mount.smb3fs, as in `mount -t smb3fs`."""
        self.source = source
        self.path = path
        self.options = list(options)
        self.command = list(command) or [program("mount.smb3fs")]
        self.output = ""

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def mount(self, timeout: float = 60) -> None:
        """Mount, and return when the command says that it is done."""
        self.path.mkdir(parents=True, exist_ok=True)
        command = [*self.command, self.source, str(self.path), "-o", ",".join(self.options)]
        done = run(*command, check=False, timeout=timeout)
        self.output = done.stdout + done.stderr
        if done.returncode:
            raise MountFailedError(done.returncode, self.output)

    def shown_options(self) -> list[str]:
        """The options as they may be printed: without passwords."""
        secret = re.compile(r"\b(pass(word)?2?=)[^,]*")
        return [secret.sub(r"\1...", option) for option in self.options]

    @property
    def mounted(self) -> bool:
        """Whether the mount is there."""
        return mount_point_type(self.path) is not None

    def daemons(self) -> list[int]:
        """Process ids of the mount's daemon (one, as a rule)."""
        return daemons(self.path)

    def status(self) -> dict[str, Any]:
        """What `smb3fs status --json` says."""
        done = run(program("smb3fs"), "status", "--json", str(self.path))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def mistakes(self) -> list[str]:
        """The last errors of a daemon that has met what nobody foresaw; none where it cannot be asked any more."""
        if not self.mounted:
            return []
        try:
            told = query_status(str(self.path), LAST_WORDS_SECONDS)
        except StatusUnavailableError:
            return []
        return [entry["text"] for entry in told["last_errors"]] if told.get("mistakes") else []

    def unmount(self) -> None:
        """Unmount; raise LeftBehindError when that took force, left a mount or a process, or there were mistakes."""
        problems = [f"a mistake of the daemon's: {text}" for text in self.mistakes()]
        if self.mounted:
            try:
                done = run("umount", str(self.path), check=False, timeout=60)
                complaint = done.stderr.strip() if done.returncode else ""
            except subprocess.TimeoutExpired:
                complaint = "umount did not return within 60 s"
            if complaint:
                problems.append(complaint)
                run("umount", "--lazy", str(self.path), check=False)
        if not wait_until(lambda: not self.daemons(), DAEMON_SECONDS):
            problems.append(f"the daemon {self.daemons()} was still there {DAEMON_SECONDS:.0f} s after the unmount")
            self.kill()
        if self.mounted:
            problems.append(f"{self.path} is still mounted")
        else:
            with suppress(OSError):
                self.path.rmdir()
        if problems:
            raise LeftBehindError("; ".join(problems))

    def kill(self) -> None:
        """End the daemon at once, by its id."""
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.daemons(), 5)
