"""Work done in a child process, so that a mount that hangs cannot hang the bench.

A process inside a system call on a FUSE mount cannot be ended by a signal, only by the end of the mount; the child may
have to wait for that, its parent does not.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress


class WorkError(Exception):
    """The work failed, or did not end in time."""


class Worker:
    """One piece of work in a child process."""

    def __init__(self, work: Callable[[], float]) -> None:
        self._gone = False
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent takes everything down in order
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(self._reader)
            _report(writer, work)
        os.close(writer)
        with suppress(OSError):
            os.setpgid(self._pid, self._pid)  # a group for it and what it starts, whoever of us comes first

    def result(self, timeout: float) -> float:
        """What the work returned; WorkError when it raised, died or took longer than `timeout` seconds."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        if not ready:
            raise WorkError(f"no end after {timeout:.0f} s")
        with os.fdopen(os.dup(self._reader), "rb") as stream:
            text = stream.read()
        if not text:
            raise WorkError("the working process died")
        report = json.loads(text)
        if "error" in report:
            raise WorkError(report["error"])
        return float(report["value"])

    def end(self, patience: float) -> bool:
        """End the child and what it started, collect it; whether it has gone within `patience` seconds."""
        limit = time.monotonic() + patience
        while not self._gone:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            self._gone = os.waitpid(self._pid, os.WNOHANG)[0] != 0
            if self._gone:
                os.close(self._reader)
            elif time.monotonic() > limit:
                return False
            else:
                time.sleep(0.005)
        return True


def _report(writer: int, work: Callable[[], float]) -> None:
    """Do the work, write what came of it, and end this process without the parent's exit handlers."""
    report: dict[str, object]
    try:
        report = {"value": work()}
    except BaseException as error:  # noqa: BLE001  (whatever it is, the parent has to hear of it)
        report = {"error": f"{type(error).__name__}: {error}"}
    with suppress(OSError):
        os.write(writer, json.dumps(report).encode())
    os._exit(0)
