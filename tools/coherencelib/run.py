"""Runs: two mounts of a share, who works on them, one history after the other, and what came of each."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from faultlib.proxy import PORT, Proxy
from lab.commands import CommandError
from lab.mounting import Mount
from lab.server import UNIX_ACCOUNT, Samba

from coherencelib.concurrent import race
from coherencelib.evidence import in_words, known, of_mounts, on_disk, open_there
from coherencelib.linear import Event
from coherencelib.minimise import minimised
from coherencelib.operations import DISK, LEFT, RIGHT, SMBCLIENT, Operation
from coherencelib.outages import Felt, Outages, Plan, with_faults
from coherencelib.promises import Promise, actimeo
from coherencelib.schedule import Schedule
from coherencelib.sequential import Course, carry_out, related
from coherencelib.settling import Settling
from coherencelib.sides import GoneError, Side, Smbclient, Worker

TRIES: Final = 40
# Longer than the longest outage: what a program waits for is not over before it.
TIMEOUT: Final = "timeout=60"
# A shorter history counts as failing as well if it does so in one of so many attempts.
ATTEMPTS: Final = 2


@dataclass
class Violation:
    """A history that ended in what must not be."""

    seed: int
    words: str
    history: Sequence[Operation | Event]
    """As short as it was found to fail; the whole if no shorter one did."""
    whole: int
    """Of how many operations it was made."""
    evidence: str = ""
    """What the server had on its disk and open when it was first seen."""


@dataclass
class Report:
    """What came of a run."""

    server: str
    cache: str
    options: str
    bound: float
    seconds: float = 0.0
    seeds: list[int] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    late: dict[str, list[float]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    """Whether it was asked to end before it was through."""
    felt: Felt | None = None
    """What faults have done, if there were any."""

    @property
    def passed(self) -> bool:
        """Whether everything was seen in time."""
        return not self.violations

    def take(self, course: Course) -> None:
        """Count what was done in a history."""
        self.done.update(course.done)
        for what, seconds in course.late.items():
            self.late.setdefault(what, []).extend(seconds)


class Run:
    """Two mounts of a server's share, smbclient, and its disk if asked for; a context manager."""

    def __init__(
        self,
        server: Samba,
        cache: str,
        promise: Promise,
        *,
        bound: float,
        options: Sequence[str] = (),
        share: str = "share",
        disk: bool = False,
        plan: Plan | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._server, self._share, self._say, self._disk = server, share, say, disk
        self._promise, self._bound = promise, bound
        self._plan = plan
        self._options = [*promise.options, *([TIMEOUT] if plan else []), *options]
        self._outages: Outages | None = None
        self._folder = ""
        self._stack = ExitStack()
        self._mounts: list[Mount] = []
        self.sides: dict[str, Side] = {}
        self.report = Report(server.version(), cache, ",".join(self._options), bound)

    def __enter__(self) -> Run:
        try:
            proxy = self._stack.enter_context(Proxy(self._server.network)) if self._plan else None
            for name in (LEFT, RIGHT):
                words = [f"credentials={self._server.credentials}", *self._options]
                words += [f"port={PORT}"] if proxy and name == RIGHT else []
                mount = Mount(self._server.source(self._share), self._server.folder / f"mnt-{name}", words)
                self._stack.callback(mount.unmount)
                mount.mount()
                self._mounts.append(mount)
            if proxy:
                self._outages = Outages(self._server, self._share, proxy, self._mounts)
                self.report.felt = self._outages.felt
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._end()

    def _start(self) -> None:
        """Start everybody."""
        for mount, name in zip(self._mounts, (LEFT, RIGHT), strict=True):
            self.sides[name] = Worker(name, mount.path)
        self.sides[SMBCLIENT] = Smbclient(self._server, self._share, self._server.folder)
        if self._disk:
            self.sides[DISK] = Worker(DISK, self._server.directory(self._share), account=UNIX_ACCOUNT)

    def _end(self) -> None:
        """End everybody."""
        while self.sides:
            self.sides.popitem()[1].close()

    def sequential(self, seed: int, count: int, *, only: Sequence[int] = (), tries: int = TRIES) -> bool:
        """A history of so many operations, or of these of its; minimise it if it fails. Whether it was as promised."""
        history = Schedule(seed, list(self.sides), without=self._promise.without).draw(count)
        if self._plan:
            history = with_faults(history, seed, self._plan.count, self._plan.kinds, self._plan.longest)
        if only:
            history = [operation for operation in history if operation.number in set(only)]
        if not history:
            return True
        self.report.seeds.append(seed)
        course = self._attempt(history, seed)
        self.report.take(course)
        if not course.at:
            return True
        history = history[: history.index(course.at) + 1]
        violation = Violation(seed, course.violation, history, len(history), self._evidence())
        self.report.violations.append(violation)  # now, should it be interrupted
        self._say(f"seed {seed}: {course.at}: {course.violation}; looking for a shorter history of {len(history)}")
        fewer = related(history)
        if tries and len(fewer) < len(history) and self._fails(fewer, seed, course):
            history = fewer
        shortest, _ = minimised(history, lambda attempt: self._fails(attempt, seed, course), tries)
        violation.history = shortest
        return False

    def _evidence(self) -> str:
        """What the server has, and the mounts tell, right after a history has failed."""
        disk = known(lambda: on_disk(self._server.directory(self._share) / self._folder))
        opens = known(lambda: open_there(self._server.status()["open_files"], self._folder))
        statuses = {}
        for name, mount in zip((LEFT, RIGHT), self._mounts, strict=True):
            with suppress(OSError, ValueError, CommandError, subprocess.SubprocessError):
                statuses[name] = mount.status()
        return in_words(disk, opens, known(lambda: of_mounts(statuses)))

    def _fails(self, history: Sequence[Operation], seed: int, course: Course) -> bool:
        """Whether a shorter history ends in the same."""
        self._say(f"seed {seed}: {len(history)} operations")
        for _ in range(ATTEMPTS):
            found = self._attempt(history, seed)
            if found.at == course.at:
                course.violation = found.violation
                return True
        return False

    def concurrent(self, seed: int, seconds: float) -> bool:
        """Both mounts at the same time, for so long; whether all that was seen can have been."""
        folder = f"race-{secrets.token_hex(4)}"
        behind = self._server.directory(self._share) / folder
        self._stack.callback(shutil.rmtree, behind, ignore_errors=True)
        (self._mounts[0].path / folder).mkdir()
        places = {name: mount.path / folder for name, mount in zip((LEFT, RIGHT), self._mounts, strict=True)}
        maps = "map_read" not in self._promise.without
        self.report.seeds.append(seed)
        events, verdict = race(
            places,
            behind,
            seed,
            seconds,
            self._bound,
            lambda left: self._say(f"seed {seed}: {left:.0f} s; {len(self.report.violations)} violations so far"),
            maps=maps,
        )
        self.report.done.update(f"{event.who} {event.what}" for event in events)
        if verdict.late:
            self.report.late.setdefault("read beside a write", []).extend(verdict.late)
        for wrong in verdict.wrong:
            self.report.violations.append(Violation(seed, wrong.words, wrong.events, len(events)))
        return not verdict.wrong

    def _attempt(self, history: Sequence[Operation], seed: int) -> Course:
        """Do a history in a new directory of its own."""
        folder = self._folder = f"history-{secrets.token_hex(4)}"
        self._stack.callback(shutil.rmtree, self._server.directory(self._share) / folder, ignore_errors=True)
        try:
            (self._mounts[0].path / folder).mkdir()
            for side in self.sides.values():
                side.enter(folder)
        except GoneError:  # somebody hung or died in the one before
            self._end()
            self._start()
            for side in self.sides.values():
                side.enter(folder)

        def progress(place: int) -> None:
            if place % 25 == 0:
                self._say(f"seed {seed}: {place} of {len(history)}; {len(self.report.violations)} violations so far")

        settling = None
        if self._outages is not None:
            self._outages.forget()
            place = self._server.directory(self._share) / folder
            settling = Settling(self._outages, self.sides, place, lambda: self._renew(folder))
        gathers = "wcache=0" not in self._options and self._promise.gathers
        return carry_out(history, self.sides, self._bound, actimeo(self._options), progress, settling, gathers=gathers)

    def _renew(self, folder: str) -> None:
        """Give smbclient, which finds no way back by itself, a new connection."""
        self.sides.pop(SMBCLIENT).close()
        self.sides[SMBCLIENT] = Smbclient(self._server, self._share, self._server.folder)
        self.sides[SMBCLIENT].enter(folder)

    def finish(self, began: float) -> Report:
        """Ask the mounts how they are, and hand over."""
        self.report.mounts = [mount.status() for mount in self._mounts]
        self.report.seconds = time.monotonic() - began
        return self.report
