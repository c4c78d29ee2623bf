"""What came of a run: the faults that were done, the errors and what was judged of them, the stalls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faultlib.plan import OF_THE_SERVER, Fault
from faultlib.promises import BY_DESCRIPTOR, CRASHED, ROBBED, broken
from faultlib.stalls import Event, stall
from faultlib.trying import STUCK
from faultlib.verdicts import Told

# What is judged of an error: the share's promise allows it, or is broken by it; or the server's log owns to it.
ALLOWED: Final = "allowed"
BROKEN: Final = "broken"
FORGOTTEN: Final = "forgotten"
STUCK_FILE: Final = "stuck"
TAKEN: Final = "taken"
# How far two clocks of one machine may drift apart in a run, in seconds; and how long after its first error a worker
# may be told again of one open that was lost. Then it has closed it.
DRIFT: Final = 0.05
CLOSED: Final = 2.0
# Where the server's databases lie.
MEMORY: Final = "memory"
DISK: Final = "disk"


@dataclass
class Happened:
    """A fault that was done."""

    fault: Fault
    begun: float
    over: float
    words: str
    stalls: list[float | None] = field(default_factory=list)
    panics: int = 0
    """Processes of the server that have crashed by themselves over it, before the next one."""
    robbed: int = 0
    """Opens that the server has given back without their locks, likewise."""


@dataclass
class Report:
    """What came of a run."""

    share: str
    server: str
    seed: int
    options: str
    workers: int
    gathered: bool = False
    """Whether fsync and close decide what was written."""
    seconds: float = 0.0
    happened: list[Happened] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """By operation and errno."""
    errors_after: Counter[str] = field(default_factory=Counter)
    """By the kind of the fault before, operation and errno."""
    forgotten: list[str] = field(default_factory=list)
    """Errors about opens that the server says to have deleted before their time."""
    stuck: list[str] = field(default_factory=list)
    """Errors about files of which the server says that it cannot let anybody open them; they were left aside."""
    taken: list[str] = field(default_factory=list)
    """Errors about opens that the server has not kept, by its own word, as it was taking H from them."""
    broken: list[str] = field(default_factory=list)
    """Errors that the share promises not to have."""
    violations: list[str] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    """Errors by the kind of the fault before and what was judged of them: `late: broken`, `kill: allowed`."""
    mounts: list[dict[str, Any]] = field(default_factory=list)
    links: int = 1
    """By how many links the server is reached, each mount by all of them."""
    databases: str = DISK
    """Where the server writes down what is open."""
    lost: list[str] = field(default_factory=list)
    """What the mounts say of recoveries in which opens were lost."""
    lost_opens: dict[tuple[int, int], set[float]] = field(default_factory=dict)
    """By mount and inode: when opens of it were lost, as the mount says, in seconds since the epoch."""
    planned: int = 0
    """How many faults there were to be."""
    interrupted: bool = False
    """Whether it was asked to end before all were done."""
    compared: bool = False
    """Whether all that was done has been compared in the end."""

    @property
    def passed(self) -> bool:
        """Whether everything is as promised."""
        return self.compared and not self.broken and not self.violations

    def stalls(self, kind: str = "") -> list[float]:
        """Every stall that could be told, of one kind of fault or all."""
        wanted = [one for one in self.happened if kind in ("", one.fault.kind)]
        return sorted(seconds for one in wanted for seconds in one.stalls if seconds is not None)

    @property
    def panics(self) -> int:
        """How many processes of the server have crashed by themselves."""
        return sum(one.panics for one in self.happened)

    @property
    def robbed(self) -> int:
        """How many opens the server has given back without their locks."""
        return sum(one.robbed for one in self.happened)

    def note_lost(self, texts: Iterable[str]) -> None:
        """Take notice of what the mounts say, again and again, of opens that were lost."""
        self.lost += [text for text in texts if text not in self.lost]

    def note_lost_opens(self, mount: int, told: Iterable[Mapping[str, Any]]) -> None:
        """Take notice of what a mount says, again and again, of each open that was lost."""
        for one in told:
            self.lost_opens.setdefault((mount, one["inode"]), set()).add(one["time"])

    def longest(self) -> Happened | None:
        """The fault after which somebody waited for longest."""
        told = [one for one in self.happened if any(seconds is not None for seconds in one.stalls)]
        return max(told, key=lambda one: max(seconds or 0.0 for seconds in one.stalls), default=None)

    def attribute(self, number: int, events: Sequence[Event], told: Told, mount: int = -1) -> None:
        """Say after which fault each error of a worker came, and what the share and the server's log say of it.

        An error about an open that was lost on its `mount` comes after the fault that it was lost by, however long
        nobody has used it since.
        """
        to_clock = time.time() - time.monotonic()
        apart = {STUCK_FILE: self.stuck, FORGOTTEN: self.forgotten, TAKEN: self.taken, BROKEN: self.broken}
        shown: dict[tuple[int, float], float] = {}
        for event in events:
            if not event.error:
                continue
            caused = self._caused(mount, event, to_clock, shown)
            before = [one for one in self.happened if one.begun < caused]
            kind = before[-1].fault.kind if before else "no fault"
            self.errors_after[f"{kind}: {event.what} {event.error}"] += 1
            after = f"fault {before[-1].fault.number} ({before[-1].words})" if before else "no fault at all"
            verdict = self._verdict(event, before, told, to_clock)
            self.verdicts[f"{kind}: {verdict}"] += 1
            if verdict in apart:
                apart[verdict].append(f"{event.ended:.3f} worker {number}: {event.what} {event.error} after {after}")

    def _caused(self, mount: int, event: Event, to_clock: float, shown: dict[tuple[int, float], float]) -> float:
        """When that was lost which an error is about, or when it ended if nothing is known of a loss.

        `shown` says when each loss was first seen: who has been told so closes the file.
        """
        ended = to_clock + event.ended
        losses = self.lost_opens.get((mount, event.inode), ()) if event.what in BY_DESCRIPTOR else ()
        lost = max((when for when in losses if when <= ended + DRIFT), default=None)
        if lost is None or ended > shown.setdefault((event.inode, lost), ended) + CLOSED:
            return event.ended
        return min(lost - to_clock, event.ended)

    def _verdict(self, event: Event, before: Sequence[Happened], told: Told, to_clock: float) -> str:
        """What is judged of an error, after the faults `before` it."""
        if event.error.endswith(STUCK):
            return STUCK_FILE
        deadly = [(to_clock + one.begun, one.fault.kind in OF_THE_SERVER or one.panics > 0) for one in before]
        ended = to_clock + event.ended
        if told.forgotten(event.inode, deadly, ended) or told.swept_early(event.inode, ended):
            return FORGOTTEN
        if told.was_taken(event.inode, ended):
            return TAKEN
        # An error may come to light when the next fault has begun already.
        kinds = {one.fault.kind for one in before[-2:]} or {"no fault"}
        if any(one.panics for one in before[-2:]):
            kinds.add(CRASHED)
        if any(one.robbed for one in before[-2:]):
            kinds.add(ROBBED)
        return BROKEN if all(broken(self.share, each, event.what) for each in kinds) else ALLOWED

    def measure(self, events: Sequence[Event]) -> None:
        """How long a worker stood still after each fault."""
        happened = self.happened
        for one, following in zip(happened, [*happened[1:], None], strict=True):
            next_begun = following.begun if following else float("inf")
            # Who waits for what is stuck does not wait for us; and that it was stuck is still to be tried.
            waited = any(
                event.error.endswith(STUCK) and event.began < next_begun and event.ended > one.over for event in events
            )
            one.stalls.append(None if waited else stall(events, one.begun, one.over, next_begun))
