"""Running programs for the lab: output kept, a failure says the command and what it printed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class CommandError(Exception):
    """A program of the lab ended with a status that it must not end with."""


def run(
    *command: str, check: bool = True, stdin: str | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; its standard input is `stdin` or nothing."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if check and done.returncode:
        raise CommandError(failure(command, done.returncode, done.stdout + done.stderr))
    return done


def failure(command: Sequence[str], status: int, output: str) -> str:
    """One sentence and the program's own words."""
    return f"`{' '.join(command)}` ended with status {status}: {output.strip() or 'no output'}"
