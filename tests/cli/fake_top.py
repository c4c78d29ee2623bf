"""smb3fs top on the terminal that is its standard input, of a mount that is made up; to be run as a program."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from mount_snapshots import snapshot

from smb3fs.cli import top
from smb3fs.status import StatusUnavailableError


def main() -> None:
    """Answer every question with a snapshot that is a second later than the one before, or as the argument says."""
    asked = 0

    def query(place: str, timeout: float) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if sys.argv[1:] == ["gone"] and asked > 1:
            raise StatusUnavailableError(f"the daemon of {place} is gone")
        return snapshot(uptime=asked, operations=1000 * asked)

    top.run("/mnt/photos", interval=60 if sys.argv[1:] == ["slow"] else 0.1, query=query)


def run_as_job() -> int:
    """Do what a shell does for a job: give it the terminal, notice that it was stopped, and have it go on."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        main()
        sys.stdout.flush()
        os._exit(0)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        os.tcsetpgrp(0, os.getpgid(0))
        os.write(1, b"<stopped>")
        os.read(0, 100)
        os.tcsetpgrp(0, job)
        os.kill(job, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(run_as_job() if sys.argv[1:] == ["job"] else main())
