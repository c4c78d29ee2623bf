"""A server of SMB that has nothing in common with Samba: impacket's, in Python, which speaks SMB 2.0.2.

It runs in a network namespace of its own, like the private Samba, and from a virtual environment of its own
(`.venv-servers`, made by tools/setup), since what it needs is none of smb3fs' concern.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.commands import CommandError
from lab.network import end_processes
from lab.owner import claim, clean

ENVIRONMENT: Final = Path(__file__).resolve().parents[2] / ".venv-servers"
USER: Final = "lab"
PASSWORD: Final = "lab-Passw0rd"
START_SECONDS: Final = 20.0

# What the server's own interpreter runs: address and directory are arguments, user and password come by standard input.
PROGRAM: Final = """
import sys
from impacket import smbserver
from impacket.ntlm import compute_lmhash, compute_nthash
user, password = sys.stdin.read().split()
server = smbserver.SimpleSMBServer(listenAddress=sys.argv[1], listenPort=445)
server.addShare("SHARE", sys.argv[2], "")
server.setSMB2Support(True)
server.addCredential(user, 0, compute_lmhash(password), compute_nthash(password))
server.setSMBChallenge("")
server.setLogFile(sys.argv[3])
server.start()
"""


def missing() -> str:
    """Why the server cannot run here; empty when it can."""
    return "" if (ENVIRONMENT / "bin/python").exists() else f"{ENVIRONMENT.name} is not there: tools/setup makes it"


class Impacket:
    """One server with one share; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        clean()
        self.folder, self.network = claim()
        self.credentials = self.folder / "credentials"
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def source(self) -> str:
        """The share as mount wants it."""
        return f"//{self.network.server_address}/share"

    @property
    def directory(self) -> Path:
        """The share's directory."""
        return self.folder / "share"

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir()
            self.credentials.touch(mode=0o600)
            self.credentials.write_text(f"username={USER}\npassword={PASSWORD}\n")
            self.network.up()
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_processes(self.network.namespace)
        if self._process is not None:
            self._process.wait(timeout=10)
        self.network.down()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        """Start it, and return when it accepts connections."""
        python = str(ENVIRONMENT / "bin/python")
        words = [python, "-c", PROGRAM, self.network.server_address, str(self.directory), str(self._log)]
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*self.network.prefix(), *words], stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        if self._process.stdin is not None:
            self._process.stdin.write(f"{USER} {PASSWORD}".encode())
            self._process.stdin.close()
        limit = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise CommandError(f"impacket's server did not start:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def _accepts(self) -> bool:
        """Whether a connection is taken."""
        with suppress(OSError), socket.create_connection((self.network.server_address, 445), timeout=1):
            return True
        return False

    def log(self) -> str:
        """What it wrote."""
        files = (self.folder / "output", self._log)
        return "".join(path.read_text(errors="replace") for path in files if path.exists())
