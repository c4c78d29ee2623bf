"""How fast the server takes what is written, and so how much may wait to be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

# What is gathered shall not take longer than this to arrive, in seconds: a break of W waits for it, for 15 s at most,
# and what was measured may not last.
PATIENCE: Final = 5.0
# Bytes that may be gathered before anything is known, and however slow the server has been.
FIRST: Final = 1 << 20
LEAST: Final = 64 << 10
# What was measured is forgotten by halves, each time that something was on its way for so many seconds since.
MEMORY: Final = 2.0
# Of so few bytes at a time the time is spent on the way there and back.
LARGE: Final = 512 << 10


class Pace:
    """Measures how many bytes arrive in the time in which any are on their way; `bound` is what may be gathered."""

    def __init__(self) -> None:
        self.bound = FIRST
        self._under_way = 0
        self._since = 0.0
        self._bytes = 0.0
        self._busy = 0.0

    @contextmanager
    def moving(self, size: int) -> Iterator[None]:
        """Enclose the way of so many bytes to the server; those that fail are not counted."""
        while self._busy > MEMORY:
            self._busy, self._bytes = self._busy / 2, self._bytes / 2
        self._elapse()
        self._under_way += 1
        try:
            yield
            self._bytes += size
        finally:
            self._elapse()
            self._under_way -= 1
            self._judge()

    def _elapse(self) -> None:
        """Count the time since the last look if anything was on its way."""
        now = trio.current_time()
        if self._under_way:
            self._busy += now - self._since
        self._since = now

    def _judge(self) -> None:
        """Go by what was measured lately: by little only if that is more than was known."""
        if self._bytes >= LEAST:
            told = int(self._bytes / max(self._busy, 1e-3) * PATIENCE)
            if told > self.bound or self._bytes >= min(self.bound, LARGE):
                self.bound = max(told, LEAST)
