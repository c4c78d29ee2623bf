"""smbclient, which mounts nothing: its commands do the same work, without a filesystem in between."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Final

from benchlib.clients import Client, ClientError

READY_SECONDS: Final = 20.0


class Smbclient(Client):
    """One session after another of Samba's own client."""

    name = "smbclient"

    @property
    def settings(self) -> str:
        """How its commands are given."""
        return "smbclient put/get/del/ls in one session, start and login not counted"

    def run(self, process: subprocess.Popen[bytes], commands: Sequence[str], timeout: float) -> float:
        """Seconds for these commands in the session that `start` made, until it has ended."""
        try:
            began = time.perf_counter()
            _, errors = process.communicate("\n".join([*commands, "quit", ""]).encode(), timeout)
            elapsed = time.perf_counter() - began
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"smbclient has not ended after {timeout:.0f} s") from error
        said = errors + (self.folder / "output").read_bytes()
        if process.returncode or b"NT_STATUS_" in said:
            at = max(said.find(b"NT_STATUS_"), 0)
            raise ClientError(f"smbclient: {said[at : at + 300].decode(errors='replace')}")
        return elapsed

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and return when it has logged in and listens."""
        account = ["-A", str(self.server.credentials), "-s", "/dev/null"]
        output = (self.folder / "output").open("w+b")
        with output:
            process = subprocess.Popen(
                ["smbclient", *account, self.server.source()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        assert process.stdin is not None
        # Its prompt stays in a buffer; a command for the shell is the first thing that shows it has logged in.
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        process.stdin.write(f"!touch {ready}\n".encode())
        process.stdin.flush()
        limit = time.monotonic() + READY_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > limit:
                self.end(process)
                raise ClientError(f"smbclient did not log in: {(self.folder / 'output').read_bytes()[-300:]!r}")
            time.sleep(0.005)
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """See it gone."""
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()
