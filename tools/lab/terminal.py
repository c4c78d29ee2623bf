"""What the tools that run for long have in common at a terminal: progress, and being asked to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def say(line: str) -> None:
    """Progress: one line that is overwritten on a terminal, a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]}", end="", file=sys.stderr)
    else:
        print(line, file=sys.stderr)
    sys.stderr.flush()


def end_line() -> None:
    """Leave the line that was overwritten as it is."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


@contextmanager
def heeding_signals(ask: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Have SIGINT and SIGTERM ask for an orderly end, which is a KeyboardInterrupt where `ask` does not see to it."""

    def heed(number: int, frame: FrameType | None) -> None:
        """Take the way out that is left."""
        del frame
        if not ask():
            raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
