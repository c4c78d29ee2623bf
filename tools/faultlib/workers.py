"""The workers' processes, and what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from faultlib import process
from faultlib.stalls import Event


class Process:
    """One worker; `events` grows while it works, `end` is there when it has ended by itself."""

    def __init__(
        self, mount: Path, behind: Path, server_log: Path, number: int, log: str, seed: str, *, gathered: bool
    ) -> None:
        """`behind` is the server's own view of what is at `mount`, `log` the name that is appended to."""
        self.number = number
        self.events: list[Event] = []
        self.end: dict[str, Any] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._child = subprocess.Popen(
            [
                *(sys.executable, process.__file__, str(mount), str(behind), str(server_log), str(number), log, seed),
                *["gathered"][: int(gathered)],
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we take everything down in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def working(self) -> bool:
        """Whether the process is there."""
        return self._child.poll() is None

    def last_success(self) -> float:
        """When it last told of an operation that succeeded."""
        return next((event.ended for event in reversed(self.events) if not event.error), 0.0)

    def stop(self) -> None:
        """Have it come to an end."""
        with suppress(OSError, ValueError):
            if self._child.stdin is not None:
                self._child.stdin.close()

    def wait(self, limit: float) -> str:
        """Wait for its end, until a moment at most; what is wrong with it, empty if nothing."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.1, limit - time.monotonic()))
        if self.working:
            self._child.kill()
            last = self.events[-1] if self.events else None
            return f"worker {self.number} hangs; the last that it told: {last}"
        self._reader.join(5)
        if self.end is None:
            self._errors.seek(0)
            return f"worker {self.number} died: {self._errors.read()[-2000:]}"
        return ""

    def close(self) -> None:
        """End it if it has not ended, and let go of what was between us."""
        if self.working:
            self._child.kill()
            self._child.wait(30)
        self.stop()
        self._reader.join(5)
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        """Take what it tells."""
        if self._child.stdout is not None:
            for line in self._child.stdout:
                words = json.loads(line)
                if words[0] == "end":
                    self.end = words[1]
                else:
                    self.events.append(Event(*words))


# Longer than what waits for a file that is stuck: the mounts' timeout=.
SETTLE_SECONDS: Final = 75.0


def settled(workers: list[Process], since: float, limit: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Wait until every worker has succeeded in something since a moment, or it is `enough`."""
    while not enough() and any(worker.working and worker.last_success() < since for worker in workers):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True
