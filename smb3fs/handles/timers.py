"""When a server will look whether the time of an open is over, after losses that it has outlived.

Samba leaves a timer with its scavenger when an open loses its connection, and does not take it back when the open is
claimed. When the timer runs the open is deleted if it looks abandoned at that moment, whenever that began: if its
process does not exist, or if a claim of it was refused that has not been granted since (decision 0039). So an open is
in danger around that time, and a younger one never is.
"""

from __future__ import annotations

import math
from typing import Final

# For how long an open is kept where the server has not said, and by how much its clock and ours may be apart.
USUAL: Final = 60.0
MARGIN: Final = 1.0


class Timers:
    """The timers of one open; all times are in seconds of one clock."""

    __slots__ = ("_absences", "kept_for")

    def __init__(self) -> None:
        self.kept_for = 0.0
        """For how long the server keeps the open after a loss, 0 if it has not said."""
        # From when to when it was without a connection: somewhere in between the server has noticed.
        self._absences: tuple[tuple[float, float], ...] = ()

    @property
    def _patience(self) -> float:
        """How long after a loss a timer runs."""
        return self.kept_for or USUAL

    def note(self, lost: float, back: float) -> None:
        """Take notice that the open was given back, and when it had been lost."""
        running = [one for one in self._absences if one[0] != lost and one[1] + self._patience + MARGIN > back]
        self._absences = (*running, (lost, back))

    def next(self, now: float) -> float:
        """Return in how many seconds a timer may run at the earliest, 0 if that may be now, inf if there is none."""
        waits = [
            max(0.0, lost + self._patience - MARGIN - now)
            for lost, back in self._absences
            if back + self._patience + MARGIN > now
        ]
        return min(waits, default=math.inf)
