"""One run: a server, two mounts, workers on them, faults, and the comparison in the end."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from lab.commands import CommandError
from lab.mounting import LeftBehindError, Mount, wait_until
from lab.server import Samba

from faultlib.breaking import Breaker
from faultlib.judging import judge
from faultlib.outcome import Happened, Report
from faultlib.plan import Fault
from faultlib.promises import NEITHER, PERSISTENT
from faultlib.proxy import PORT, Proxy
from faultlib.shared_files import COUNTER_WIDTH, COUNTERS
from faultlib.trying import PATIENCE, STUCK
from faultlib.verdicts import KEPT, read
from faultlib.workers import SETTLE_SECONDS, Process, settled

PLACE: Final = "run"
# What a worker may take for its comparison, beside the patience that its last operation has.
COMPARE_SECONDS: Final = 120.0
WARM_UP: Final = 0.5
# What takes a name from a file: of one that is stuck another client may read what it cannot remove.
REMOVING: Final = frozenset({"unlink", "rmdir", "rename"})
# What a mount says of a recovery in which opens were lost.
LOST: Final = re.compile(r", [1-9]\d* lost")
# After so many faults mounts are asked what was lost, of which they remember 200, where nothing else hangs on it.
ASKED_EVERY: Final = 8
# How long the further connections of a mount may take.
CHANNEL_SECONDS: Final = 30.0


class Run:
    """A run on a share of a server that is up; `say` hears of each fault.

    With `wcache` that many bytes are gathered, and fsync and close decide what was written; with 0 each write does.
    """

    def __init__(
        self,
        server: Samba,
        share: str,
        seed: int,
        workers: int,
        options: Sequence[str],
        say: Callable[[str], None],
        *,
        wcache: int = 0,
    ) -> None:
        self._gathered = wcache > 0
        options = [*options, f"wcache={wcache}"]
        self._server, self._share, self._options, self._say = server, share, options, say
        self._workers: list[Process] = []
        self._count = workers
        self._asked = False
        self.report = Report(share, server.version(), seed, ",".join(options), workers, self._gathered)

    def run(self, faults: Sequence[Fault], *, stop: bool = False) -> Report:
        """Do the faults under the workload; with `stop` no more of them after a first violation."""
        began = time.monotonic()
        self.report.planned = len(faults)
        with ExitStack() as stack:
            proxy = stack.enter_context(Proxy(self._server.network))
            mounts = [self._mount(0), self._mount(1, f"port={PORT}")]
            stack.callback(self._unmount, mounts)
            for mount in mounts:
                mount.mount()
                self._check_channels(mount)
            self._lay_out(mounts[0].path / PLACE)
            stack.callback(self._close_workers)
            behind = self._server.directory(self._share) / PLACE
            for number in range(self._count):
                place = mounts[number % 2].path / PLACE
                seed = f"{self.report.seed} {number}"
                log = self._server.state / "log.smbd"
                self._workers.append(
                    Process(place, behind, log, number, self._log(number), seed, gathered=self._gathered)
                )
            time.sleep(WARM_UP)
            self._do(faults, Breaker(self._server, proxy), mounts, stop=stop)
            self._end(behind, mounts)
            self.report.mounts = [self._status(mount) for mount in mounts]
        self._open_files()
        self.report.seconds = time.monotonic() - began
        return self.report

    def ask_to_end(self) -> bool:
        """Have no fault follow the present one, and all be compared as if there had been no more; False if it was."""
        first, self._asked = not self._asked, True
        if first:
            self._say("asked to end: what was done is compared; once more, and it is not")
        return first

    def _mount(self, number: int, *options: str) -> Mount:
        """One of the mounts."""
        words = [f"credentials={self._server.credentials}", *self._options, *options]
        return Mount(self._server.source(self._share), self._server.folder / f"mnt-faults-{number}", words)

    def _check_channels(self, mount: Mount) -> None:
        """Wait for a connection by each link: what several of them do is to be tried then."""
        links = self._server.network.all_links()
        wait_until(lambda: len(self._status(mount).get("channels", ())) >= len(links), CHANNEL_SECONDS)
        count = len(self._status(mount).get("channels", ()))
        if count < len(links):
            self.report.violations.append(f"a mount has {count} connections by {len(links)} links")
        self.report.links = len(links)

    def _log(self, number: int) -> str:
        """The log that a worker appends to: one for each mount, since SMB has no append that two clients share."""
        return f"log{number % 2}"

    def _lay_out(self, place: Path) -> None:
        """Make what all workers share."""
        place.mkdir()
        (place / "races").mkdir()
        for counter in range(COUNTERS):
            (place / f"counter{counter}").write_bytes(b"%0*d" % (COUNTER_WIDTH, 0))
        for number in range(2):
            (place / self._log(number)).touch()

    def _do(self, faults: Sequence[Fault], breaker: Breaker, mounts: Sequence[Mount], *, stop: bool) -> None:
        """Do one fault after the other."""
        told = 0
        for fault in faults:
            time.sleep(fault.pause)
            if self._asked:
                self.report.interrupted = True
                return
            self._charge(mounts)
            begun = time.monotonic()
            words = breaker.do(fault)
            over = time.monotonic()
            self.report.happened.append(Happened(fault, begun, over, words))
            if fault.settle and not settled(self._workers, over, over + SETTLE_SECONDS, lambda: self._asked):
                self.report.violations.append(f"after fault {fault.number} ({words}): not everybody went on")
            for mount in mounts:
                if not mount.daemons():
                    self.report.violations.append(f"after fault {fault.number} ({words}): a mount's daemon has gone")
                    return
            self._say(self._progress(fault, len(faults), words))
            for violation in self._told_violations()[told:]:
                self._say(f"    {violation}\n")
                told += 1
            if stop and (self._told_violations() or self.report.violations):
                return

    def _charge(self, mounts: Sequence[Mount], *, last: bool = False) -> None:
        """Charge the latest fault with what the server has done by itself since it began; `last` after all of them."""
        happened = self.report.happened
        if not happened:
            return
        happened[-1].panics = self._server.panics() - sum(one.panics for one in happened[:-1])
        asked = self._share == PERSISTENT or (self._share != NEITHER and (last or len(happened) % ASKED_EVERY == 0))
        statuses = [self._status(mount) for mount in mounts if asked]
        for number, status in enumerate(statuses):
            self.report.note_lost_opens(number, (status.get("recovery") or {}).get("lost_files", ()))
            if self._share != PERSISTENT:
                continue
            texts = [event["text"] for event in status.get("events", ()) if LOST.search(event["text"])]
            self.report.note_lost(f"mount {number}: {text}" for text in texts)
        told = [status.get("recovery") for status in statuses]
        if told and all(told):  # a mount that is too busy to tell does so after the next one
            happened[-1].robbed = sum(one["robbed"] for one in told) - sum(one.robbed for one in happened[:-1])

    def _progress(self, fault: Fault, count: int, words: str) -> str:
        """One line."""
        failed = sum(bool(event.error) for worker in self._workers for event in list(worker.events))
        bad = len(self._told_violations()) + len(self.report.violations)
        return f"{fault.number} of {count}, {fault.kind}: {words}; {failed} errors, {bad} violations so far"

    def _told_violations(self) -> list[str]:
        """Violations that workers have told of."""
        return [event.error for worker in self._workers for event in list(worker.events) if event.what == "violation"]

    def _end(self, behind: Path, mounts: Sequence[Mount]) -> None:
        """Let the workers end and compare, then judge what they did together."""
        settled(self._workers, time.monotonic(), time.monotonic() + SETTLE_SECONDS)
        self._charge(mounts, last=True)
        for worker in self._workers:
            worker.stop()
        limit = time.monotonic() + PATIENCE + COMPARE_SECONDS
        self.report.violations += [fault for worker in self._workers if (fault := worker.wait(limit))]
        ends = {worker.number: worker.end for worker in self._workers if worker.end is not None}
        for end in ends.values():
            self.report.violations += end["violations"]
            self.report.done.update(end["done"])
            self.report.errors.update(end["errors"])
        self.report.violations += judge(behind, ends, {number: self._log(number) for number in ends})
        told = read(self._server.log())
        for worker in self._workers:
            events = [event for event in worker.events if event.what != "violation"]
            self.report.attribute(worker.number, events, told, worker.number % len(mounts))
            self.report.measure(events)
        self.report.compared = True

    def _status(self, mount: Mount) -> dict[str, Any]:
        """What the mount says of itself."""
        try:
            return mount.status()
        except (OSError, CommandError, json.JSONDecodeError) as error:
            return {"error": str(error)}

    def _close_workers(self) -> None:
        """End what still works; one that hangs in a call ends with the mount."""
        for worker in self._workers:
            with suppress(subprocess.TimeoutExpired):
                worker.close()

    def _unmount(self, mounts: Sequence[Mount]) -> None:
        """Unmount; what that leaves behind is a violation."""
        for mount in mounts:
            try:
                mount.unmount()
            except LeftBehindError as error:
                self.report.violations.append(str(error))

    def _open_files(self) -> None:
        """Nothing may be open at the server when all is over, but what is stuck; and that has to be."""
        left: dict[int, str] = {}

        def all_closed() -> bool:
            """Whether that is so; smbstatus cannot tell while a process that was killed has left a database behind."""
            left.clear()
            with suppress(CommandError):
                left.update(self._server.open_inodes())
            return not left

        if not wait_until(all_closed, 5) and self._share == PERSISTENT:
            # Whoever asks for such a file has the server look whether it can be let go of, when its time is over.
            for name in left.values():
                self._opens(name)
            wait_until(all_closed, KEPT + 5)
        told = read(self._server.log())
        if others := [name for inode, name in left.items() if inode not in told.stuck]:
            self.report.violations.append(f"left open at the server: {others[:5]}")
        names = self._names_of(told.stuck) if self.report.stuck else {}
        opened, removed = self._stuck_at()
        if fine := [
            name
            for name, inode in names.items()
            if self._opens(name) and (inode not in removed - opened or self._removes(name))
        ]:
            self.report.violations.append(f"taken for stuck, and another client can use them: {fine[:5]}")

    def _stuck_at(self) -> tuple[set[int], set[int]]:
        """The inodes of files that could not be used, and of those that could not be removed or renamed."""
        stuck = [event for worker in self._workers for event in worker.events if event.error.endswith(STUCK)]
        removed = {event.inode for event in stuck if event.what in REMOVING}
        return {event.inode for event in stuck if event.what not in REMOVING}, removed

    def _names_of(self, inodes: set[int]) -> dict[str, int]:
        """The names of some files, as clients see them, and their inodes."""
        top = self._server.directory(self._share)
        told = {str(path.relative_to(top)): path.stat().st_ino for path in top.rglob("*")}
        return {name: inode for name, inode in told.items() if inode in inodes}

    def _opens(self, name: str) -> bool:
        """Whether another client can open a file."""
        with suppress(CommandError, subprocess.TimeoutExpired):
            return "NT_STATUS" not in self._server.client(f'get "{name}" /dev/null', self._share)
        return False

    def _removes(self, name: str) -> bool:
        """Whether another client can remove a file."""
        with suppress(CommandError, subprocess.TimeoutExpired):
            return "NT_STATUS" not in self._server.client(f'rm "{name}"', self._share)
        return False
