"""Who carries operations out: processes on a directory, and smbclient."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.server import Samba

from coherencelib import actor
from coherencelib.operations import SMBCLIENT, Operation, content

# Longer than the mounts' own bound for a call.
PATIENCE: Final = 90.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an operation, and when, by the machine's monotonic clock."""

    began: float
    ended: float
    value: Any = None
    error: str = ""


class GoneError(Exception):
    """A side that has died or does not answer: nothing more can be asked of it."""


class Side(ABC):
    """One who carries out one operation at a time."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def enter(self, folder: str) -> None:
        """Work in another directory of the share from now on."""

    @abstractmethod
    def do(self, operation: Operation) -> Answer:
        """Carry out one."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


class Lines:
    """A child that is told lines and tells lines; its own reading, since a pipe's buffers hide what select asks for."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the child)
        self._rest = b""
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; we take everything down in order
        )

    def tell(self, line: str) -> None:
        """One line to it."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line.encode() + b"\n")
        except OSError as error:
            raise GoneError(self.complaint()) from error

    def hear(self, end: bytes) -> str:
        """What it says up to and without some words."""
        assert self._child.stdout is not None
        limit = time.monotonic() + PATIENCE
        while end not in self._rest:
            if not select.select([self._child.stdout], [], [], max(0.0, limit - time.monotonic()))[0]:
                raise GoneError(f"no answer within {PATIENCE:.0f} s")
            piece = os.read(self._child.stdout.fileno(), 1 << 20)
            if not piece:
                raise GoneError(self.complaint())
            self._rest += piece
        said, _, self._rest = self._rest.partition(end)
        return said.decode(errors="replace")

    def complaint(self) -> str:
        """Why it has gone."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._errors.seek(0)
        return f"ended with {self._child.poll()}: {self._errors.read()[-1500:]}"

    def close(self) -> None:
        """End it by closing its input; by force if that does not help."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(30)
        self._child.stdout.close()
        self._errors.close()


class Worker(Side):
    """A process on a directory: a mount's, or the server's own."""

    def __init__(self, name: str, root: Path, account: str = "") -> None:
        super().__init__(name)
        self._root = root
        self._lines = Lines([sys.executable, actor.__file__, str(root), *([account] if account else [])])

    def enter(self, folder: str) -> None:
        """Close all, and go."""
        self.do(Operation(0, self.name, "enter", (str(self._root / folder),)))

    def do(self, operation: Operation) -> Answer:
        """Let the process do it."""
        self._lines.tell(json.dumps([operation.number, operation.verb, operation.arguments]))
        told = json.loads(self._lines.hear(b"\n"))
        value = told.get("value")
        if isinstance(value, dict):
            value = base64.b64decode(value["bytes"])
        return Answer(told["began"], told["ended"], value, told.get("error", ""))

    def close(self) -> None:
        """End the process, which closes what it has open."""
        self._lines.close()


DONE: Final = "-- done --"
STATUS: Final = re.compile(r"NT_STATUS_\w+")
ERRORS: Final = {
    "NT_STATUS_OBJECT_NAME_NOT_FOUND": "ENOENT",
    "NT_STATUS_OBJECT_PATH_NOT_FOUND": "ENOENT",
    "NT_STATUS_NO_SUCH_FILE": "ENOENT",
    "NT_STATUS_OBJECT_NAME_COLLISION": "EEXIST",
    "NT_STATUS_DIRECTORY_NOT_EMPTY": "ENOTEMPTY",
}
# `  name    A   size  date`; names here have no blanks.
ENTRY: Final = re.compile(r"^  (\S+) +([A-Z]*) +(\d+)  \w{3} \w{3}", re.MULTILINE)


class Smbclient(Side):
    """One session of Samba's own client, which caches nothing."""

    def __init__(self, server: Samba, share: str, folder: Path) -> None:
        super().__init__(SMBCLIENT)
        self._file = folder / "smbclient-file"
        self._folder = ""
        account = ["-A", str(server.credentials), "-s", "/dev/null"]
        # It waits for its input, then reads through a buffer, in which a second line would wait for a third.
        self._lines = Lines(["stdbuf", "-i0", "-o0", "smbclient", *account, server.source(share)])
        self._say("")

    def enter(self, folder: str) -> None:
        """Go there."""
        self._folder = folder

    def do(self, operation: Operation) -> Answer:
        """Give the commands, and read what they say."""
        path, other = (*(str(argument).replace("/", "\\") for argument in operation.arguments), "")[:2]
        if operation.verb == "put":
            self._file.write_bytes(content(operation.number, int(other)))
        commands = {
            "get": f'get "{self._at(path)}" "{self._file}"',
            "put": f'put "{self._file}" "{self._at(path)}"',
            "stat": f'ls "{self._at(path)}"',
            "list": f'ls "{self._at(path) if path else self._folder}\\*"',
            "unlink": f'rm "{self._at(path)}"',
            "rename": f'rename "{self._at(path)}" "{self._at(other)}" -f',
            "mkdir": f'mkdir "{self._at(path)}"',
            "rmdir": f'rmdir "{self._at(path)}"',
        }
        began = time.monotonic()
        said = self._say(commands[operation.verb])
        ended = time.monotonic()
        refused = STATUS.search(said)
        if refused and not (operation.verb == "list" and refused[0] == "NT_STATUS_NO_SUCH_FILE"):
            return Answer(began, ended, error=ERRORS.get(refused[0], refused[0]))
        return Answer(began, ended, self._value(operation.verb, said))

    def _at(self, path: str) -> str:
        """A path of the share."""
        return f"{self._folder}\\{path}"

    def _say(self, command: str) -> str:
        """What one command says."""
        self._lines.tell(f"{command}\n!echo '{DONE}'")
        return self._lines.hear(f"{DONE}\n".encode())

    def _value(self, verb: str, said: str) -> Any:
        """What a command has found."""
        if verb == "get":
            return self._file.read_bytes()
        entries = [entry for entry in ENTRY.findall(said) if entry[0] not in (".", "..")]
        if verb == "list":
            return sorted(name for name, _, _ in entries if not name.startswith(actor.ASIDE))
        if verb == "stat" and entries:
            return ["directory"] if "D" in entries[0][1] else ["file", int(entries[0][2]), None]
        return None if verb != "stat" else said

    def close(self) -> None:
        """End the session."""
        self._lines.close()
