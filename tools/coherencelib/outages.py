"""Faults in a history: when they come, what breaks, and which errors the share's promise has for it.

A fault is an operation of a history like any other, so that a history can be shortened by leaving it out. It begins
beside the operations that follow it, as many as it says; then it is waited for, and everybody must have got over it
before the history goes on.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faultlib.breaking import Breaker
from faultlib.plan import Fault, faults
from faultlib.promises import CRASHED, NEITHER, PERSISTENT, PROMISES, ROBBED, broken
from faultlib.proxy import Proxy
from lab.mounting import Mount
from lab.server import Samba

from coherencelib.model import Model
from coherencelib.operations import FAULT, SMBCLIENT, Operation

# How many operations a fault may be beside; with none it is over before the next one begins.
BESIDE: Final = (0, 1, 1, 2, 3, 5, 8)
# A fault begins so many seconds into the operation beside it, at most.
INTO: Final = 0.05
# What others are told of a file that the server keeps for somebody, by a mount and by smbclient.
KEPT_BACK: Final = frozenset({"EBUSY", "NT_STATUS_FILE_NOT_AVAILABLE"})
# In the words of tools/faults: what an append needs is its lock.
WORDS: Final = {"append": "lock"}


def with_faults(
    history: Sequence[Operation], seed: int, count: int, kinds: Mapping[str, int], longest: float
) -> list[Operation]:
    """The history with so many faults in it; its own operations keep their numbers."""
    chance = random.Random(f"coherence faults {seed}")
    places = sorted(chance.sample(range(1, len(history)), min(count, max(0, len(history) - 1))))
    made = list(history)
    for place, fault in reversed(list(zip(places, faults(seed, count, kinds, longest), strict=False))):
        words = (fault.kind, round(fault.seconds, 3), chance.choice(BESIDE), fault.seed)
        made.insert(place, Operation(len(history) + fault.number, FAULT, "fault", words))
    return made


@dataclass
class Felt:
    """What the faults of a run have done."""

    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Errors that the share's promise has, by kind, verb and name."""
    nameless: Counter[str] = field(default_factory=Counter)
    """The same of files that have lost their name while they were open, where the share promises more."""
    kept_back: Counter[str] = field(default_factory=Counter)
    """What others are told of such files, which the server keeps for who cannot claim them any more."""
    settled: Counter[str] = field(default_factory=Counter)
    """What was found to have become of operations that failed, by verb: done, not done, in part."""
    longest: float = 0.0
    """How long all took to get over one, from its end on."""


@dataclass
class Plan:
    """What faults each history has."""

    count: int
    kinds: Mapping[str, int]
    longest: float
    """No outage is longer, in seconds."""


@dataclass
class _Past:
    """A fault that was begun."""

    kind: str
    panics: int
    """How often the server's processes had crashed by themselves when it began."""
    robbed: int
    """How many opens it had given back without their locks."""


class Outages:
    """Breaks the links and the server of a run, one thing at a time."""

    def __init__(self, server: Samba, share: str, proxy: Proxy, mounts: Sequence[Mount]) -> None:
        self._server, self._mounts = server, mounts
        # A share that says nothing of itself grants what Samba grants where its own programs have a say: nothing.
        self._share = share if share in PROMISES else NEITHER
        self._breaker = Breaker(server, proxy)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._words = ""
        self._past: list[_Past] = []
        self._opened: dict[tuple[str, int], int] = {}
        self._left = 0
        self._seconds = 0.0
        self.felt = Felt()

    def forget(self) -> None:
        """Another history begins: what was open is closed."""
        self._opened.clear()

    @property
    def active(self) -> bool:
        """Whether a fault has begun that is not settled yet."""
        return self._thread is not None

    @property
    def going_on(self) -> bool:
        """Whether a fault has begun and is not over."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def extra(self) -> float:
        """For how much longer than without faults an answer may be old: packets are sent again ever more rarely."""
        return 2 * self._seconds

    def begin(self, operation: Operation) -> None:
        """Have a fault happen beside what follows."""
        kind, seconds, self._left, seed = operation.arguments
        self._seconds = seconds
        fault = Fault(operation.number, kind, seconds, 0.0, settle=True, seed=seed)
        self._past.append(_Past(kind, self._server.panics(), self._robbed()))
        self.felt.kinds[kind] += 1
        self._failure = None

        def work() -> None:
            try:
                if self._left:
                    time.sleep(random.Random(seed).uniform(0, INTO))
                self._words = self._breaker.do(fault)
            except BaseException as error:  # noqa: BLE001 (whatever it is, the history must not go on)
                self._failure = error

        self._thread = threading.Thread(target=work, name="fault", daemon=True)
        self._thread.start()

    def due(self) -> bool:
        """Whether no further operation belongs beside the fault; asked once before each."""
        self._left -= 1
        return self.active and self._left < 0

    def wait(self) -> str:
        """Have the present fault end, if there is one: what was done, in words."""
        if self._thread is not None:
            self._thread.join()
            if self._failure is not None:
                raise self._failure
        return self._words

    def over(self) -> None:
        """All have got over it."""
        self._thread, self._left, self._seconds = None, 0, 0.0

    def note(self, operation: Operation) -> None:
        """A file was opened: its handle has seen the faults from here on."""
        if operation.verb in ("create", "open"):
            self._opened[operation.side, operation.arguments[1]] = len(self._past) - self.active

    def excused(self, operation: Operation, model: Model, error: str) -> bool:
        """Whether the share's promise has an error of an operation, as things stood before it; counted if it has."""
        if self.is_kept_back(operation, model, error):
            self.felt.kept_back[f"{self._past[-1].kind}: {operation.side} {operation.verb} {error}"] += 1
            return True
        slot = model.slot(operation)
        since = self._opened.get(slot, len(self._past)) if slot else len(self._past) - self.active
        past = self._past[since:]
        if not past:
            return False
        what = f"{past[-1].kind}: {operation.side} {operation.verb} {error}"
        if operation.side == SMBCLIENT or self._allowed(operation, model, past):
            self.felt.errors[what] += 1
            return True
        # Open: a later Samba gives back what is open by its name; where another client has the file open as well, or
        # has renamed it, no second name is made for the claim.
        if model.is_nameless(operation):
            self.felt.nameless[what] += 1
            return True
        return False

    def is_kept_back(self, operation: Operation, model: Model, error: str) -> bool:
        """Whether an error says that the server keeps a file for somebody who cannot claim it by its name any more.

        What is to be kept for good it keeps until its time is over, and lets nobody else open the file.
        """
        return (
            error in KEPT_BACK
            and self._share == PERSISTENT
            and bool(self._past)
            and model.slot(operation) is None
            and model.may_be_kept_back(operation)
        )

    def _allowed(self, operation: Operation, model: Model, past: Sequence[_Past]) -> bool:
        """Whether after one of these faults the share allows it."""
        kinds = {one.kind for one in past}
        kinds |= {CRASHED} if self._server.panics() > past[0].panics else set()
        kinds |= {ROBBED} if self._robbed() > past[0].robbed else set()
        what = WORDS.get(operation.verb, operation.verb)
        if not all(broken(self._share, kind, what) for kind in kinds):
            return True
        # A durable handle lives as long as nobody else wants the file: a lease that is broken is not kept for us.
        return self._share != PERSISTENT and model.is_shared(operation)

    def _robbed(self) -> int:
        """How many opens the server has given back without their locks, by the mounts' own account."""
        if self._share != PERSISTENT:
            return 0
        told: list[dict[str, Any]] = [mount.status().get("recovery") or {} for mount in self._mounts]
        return sum(one.get("robbed", 0) for one in told)

    def healed(self, tries: Mapping[str, Callable[[], str]], patience: float) -> str:
        """Have each side do something that takes the server; what is wrong if one does not get to."""
        began = time.monotonic()
        for name, attempt in tries.items():
            while said := attempt():
                if time.monotonic() - began > patience:
                    return f"{name} still has {said} {patience:.0f} s after {self._words}"
                self.felt.errors[f"{self._past[-1].kind if self._past else 'no fault'}: {name} afterwards {said}"] += 1
                time.sleep(0.1)
        self.felt.longest = max(self.felt.longest, time.monotonic() - began)
        return ""
