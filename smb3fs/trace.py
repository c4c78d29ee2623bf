"""Counters and recent events of one mount: what `smb3fs status` shows and what tests assert instead of times."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

log = logging.getLogger(__name__)
# What the loggers of all our modules are below.
OURS: Final = "smb3fs"

# Enough to see what happened in the last incident without letting a flapping link grow the daemon.
REMEMBERED_EVENTS: Final = 50


@dataclass(slots=True, frozen=True)
class Event:
    """Something worth telling an administrator: when (seconds since the epoch) and what, in one line."""

    time: float
    text: str


@dataclass(slots=True)
class Lookups:
    """How often something was looked for in what is kept here, and how often the server had to be asked after all."""

    asked: int = 0
    missed: int = 0

    def counts(self) -> dict[str, int]:
        """Return what `smb3fs status` shows."""
        return {"hits": self.asked - self.missed, "misses": self.missed}


@dataclass(slots=True)
class Trace:
    """The counters of one mount.

    A round trip is an exchange (one message with one or more chained requests) whose answer somebody waits for from the
    moment it is sent; one that nobody waits for, such as the CLOSE behind a release, and one that is sent ahead of the
    need for it, such as the next pages of a listing, is counted in `unwaited` instead. `breaks` counts what the server
    has taken back of leases, by what they were and became, and `break_causes` by what that says of the reason;
    `slowest_acknowledgement` is for how many seconds the server waited at most until we were done with what a break had
    cost. `operations` are the kernel's requests. `data`, `attributes`, `names` and `listings` say which of those that
    read, ask for attributes, look up a name or begin to list a directory were answered without the server.
    """

    requests: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    data: Lookups = field(default_factory=Lookups)
    attributes: Lookups = field(default_factory=Lookups)
    names: Lookups = field(default_factory=Lookups)
    listings: Lookups = field(default_factory=Lookups)
    breaks: Counter[str] = field(default_factory=Counter)
    break_causes: Counter[str] = field(default_factory=Counter)
    slowest_acknowledgement: float = 0.0
    # How many breaks were acknowledged because their time was over, with something left to do.
    overdue_breaks: int = 0
    round_trips: int = 0
    unwaited: int = 0
    # Whether the task that asks works behind the scenes, so that nobody waits for what it waits for.
    behind: ContextVar[bool] = field(default_factory=lambda: ContextVar("behind", default=False))
    bytes_read: int = 0
    bytes_written: int = 0
    # What the server has copied by itself.
    bytes_copied: int = 0
    # ... and what of that takes no space, since the files share it.
    bytes_shared: int = 0
    reconnects: int = 0
    dropped_names: int = 0
    failures: int = 0
    """How many errors there were to tell of; `errors` has the last ones."""
    mistakes: int = 0
    """How often something failed for a reason that nobody foresaw: each is a defect of ours."""
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=REMEMBERED_EVENTS))
    errors: deque[Event] = field(default_factory=lambda: deque(maxlen=REMEMBERED_EVENTS))

    def exchange(self, commands: Sequence[str], *, waited: bool) -> None:
        """Count one message that carries `commands`."""
        self.requests.update(commands)
        if waited and not self.behind.get():
            self.round_trips += 1
        else:
            self.unwaited += 1

    def event(self, now: float, text: str) -> None:
        """Remember and log a change of state."""
        self.events.append(Event(now, text))
        log.info("%s", text)

    def error(self, now: float, text: str) -> None:
        """Remember and log an error."""
        self.failures += 1
        self.errors.append(Event(now, text))
        log.error("%s", text)

    @contextmanager
    def heeding_the_log(self) -> Iterator[None]:
        """Count the mistakes that are logged meanwhile, whichever part of the mount has made them."""
        handler, ours = Mistakes(self), logging.getLogger(OURS)
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)


class Mistakes(logging.Handler):
    """Counts and remembers what is logged with an exception, which is done with those that nobody foresaw alone."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.ERROR)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        """Take in one record, if it is of that kind; the exception's own text may be long, and is left to the log."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        place, step = "nowhere", error.__traceback__
        while step is not None:
            place = f"{os.path.basename(step.tb_frame.f_code.co_filename)}:{step.tb_lineno}"
            step = step.tb_next
        self._trace.mistakes += 1
        self._trace.failures += 1
        text = f"{record.getMessage()}: {type(error).__name__} at {place}"
        self._trace.errors.append(Event(record.created, text))
