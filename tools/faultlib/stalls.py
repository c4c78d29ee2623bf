"""How long each worker stood still after the end of a fault, from what the workers told of their operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Event(NamedTuple):
    """An operation that was slow or failed, the first that succeeded after it, or one now and then; monotonic times."""

    began: float
    ended: float
    what: str
    error: str
    inode: int = 0
    """Of the file that it was about, if it failed."""


def stall(events: Sequence[Event], begun: float, over: float, next_begun: float) -> float | None:
    """Seconds from the end of a fault to a worker's first success, 0 if it did not wait, None if it cannot be told.

    That is so when the next fault came before: the wait is then counted for that one.
    """
    failed = False
    for event in events:
        if event.ended < begun:
            continue
        if event.ended < over:
            failed = bool(event.error)
            continue
        waited = failed or event.began < over
        if event.error:
            failed = True
            if event.began >= over and not waited:
                over = event.began  # the loss came to light only here
            continue
        if event.ended > next_begun and waited:
            return None
        return max(0.0, event.ended - over) if waited else 0.0
    return None
