"""The order of measurements, and one measurement: fresh client, primed connection, the work in a child, the proof."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from lab.commands import CommandError
from lab.mounting import MountFailedError
from lab.server import Samba

from benchlib import kernel
from benchlib.clients import Client, ClientError, MountedClient
from benchlib.smbclient import Smbclient
from benchlib.stats import number
from benchlib.worker import Worker, WorkError
from benchlib.workload import Operation, Place, WorkloadError, clear, lay_out

# No single measurement of a client that works comes near this.
WORK_SECONDS: Final = 600.0
PRIME_SECONDS: Final = 30.0
# What an ended process may take to come back from a system call on a mount that works.
LET_GO_SECONDS: Final = 5.0
PRIME_FILE: Final = "prime/file"

T = TypeVar("T")


@dataclass(slots=True)
class Result:
    """What the rounds of one operation on one client came to; rates and seconds by the number of the round."""

    rates: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    round_trips: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Facts:
    """What was seen of a client while it was connected."""

    settings: str
    session: str = "not seen"
    read_ahead_kib: int | None = None
    memory_kib: int = 0


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that one run has found."""

    by_operation: dict[tuple[str, str], Result]
    facts: dict[str, Facts]


def turns(clients: Sequence[T], first: int) -> list[T]:
    """The clients in their order, beginning with another one each time."""
    start = first % len(clients)
    return [*clients[start:], *clients[:start]]


def describe_sessions(status: dict[str, Any]) -> str:
    """The dialect and protection of the connections that smbstatus tells of, each kind once.

    Samba calls a session "partially" signed when only its login was; whether the rest is shows at the tree connect.
    """
    trees = list(status.get("tcons", {}).values())
    found = set()
    for session in status.get("sessions", {}).values():
        own = [tree for tree in trees if tree.get("session_id") == session.get("session_id")]
        signing, encryption = (_protection(session, own, what) for what in ("signing", "encryption"))
        dialect = str(session.get("session_dialect", "?")).replace("SMB3_11", "SMB 3.1.1")
        if encryption != "none":
            found.add(f"{dialect}, encrypted with {encryption}")
        else:
            found.add(f"{dialect}, signed with {signing}" if signing != "none" else f"{dialect}, not signed")
    return "; ".join(sorted(found)) or "not seen"


def _protection(session: dict[str, Any], trees: Iterable[dict[str, Any]], what: str) -> str:
    """The algorithm that protects a session's ordinary requests in one way, or "none"."""
    for holder in (session, *trees):
        entry = holder.get(what, {})
        if entry.get("degree") == "full":
            return str(entry.get("cipher"))
    return "none"


class Runner:
    """One run of the bench on one server."""

    def __init__(self, server: Samba, local: Path, say: Callable[[str], None]) -> None:
        """`local` is this machine's own scratch directory, `say` takes lines of progress."""
        self.server = server
        self.share = server.directory()
        self.local = local
        self.say = say
        self.results = Results({}, {})
        self._unique = itertools.count()
        self._prepare_prime()

    def _prepare_prime(self) -> None:
        """Make what each fresh mount looks at before the clock runs: clients connect and log in by then."""
        path = self.share / PRIME_FILE
        owner = self.share.stat()
        path.parent.mkdir()
        path.write_bytes(b"prime")
        for made in (path.parent, path):
            os.chown(made, owner.st_uid, owner.st_gid)

    def run(self, operations: Sequence[Operation], clients: Sequence[Client], rounds: int) -> None:
        """Measure everything; each round goes through all operations, each operation through all clients."""
        for client in clients:
            self.results.facts[client.name] = Facts(client.settings)
        able = {
            operation.name: [client for client in clients if self._can(client, operation)] for operation in operations
        }
        total = rounds * sum(map(len, able.values()))
        count = itertools.count(1)
        for round_number in range(1, rounds + 1):
            for index, operation in enumerate(operations):
                for client in turns(able[operation.name], round_number + index) if able[operation.name] else []:
                    outcome = self.measure(operation, client, round_number)
                    place = f"[{next(count):>{len(str(total))}}/{total}] round {round_number}/{rounds}"
                    self.say(f"{place} {operation.name:<10} {client.name:<14} {outcome}")

    def _can(self, client: Client, operation: Operation) -> bool:
        """Whether the operation makes sense for the client."""
        if not isinstance(client, Smbclient):
            return True
        return operation.smbclient(Place(self.share, "any", self.local)) is not None

    def measure(self, operation: Operation, client: Client, round_number: int) -> str:
        """Measure one operation on one client once; what came of it, for the progress."""
        result = self.results.by_operation.setdefault((operation.name, client.name), Result())
        place = lay_out(operation, self.share, self.local, f"work-{next(self._unique)}")
        try:
            if isinstance(client, Smbclient):
                seconds = self._by_smbclient(operation, client, place)
            elif isinstance(client, MountedClient):
                seconds = self._through_mount(operation, client, place, result)
            else:
                raise TypeError(f"{client.name} is no client that can be measured")
            operation.verify(place)
        except (ClientError, WorkError, WorkloadError, MountFailedError, CommandError, OSError) as error:
            result.failures.append(str(error))
            return f"failed: {error}"
        except subprocess.TimeoutExpired as error:
            result.failures.append(str(error))
            return f"failed: {error}"
        finally:
            clear(operation, place)
        result.seconds[round_number] = seconds
        result.rates[round_number] = operation.rate(seconds)
        return f"{number(result.rates[round_number])} {operation.unit}"

    def _by_smbclient(self, operation: Operation, client: Smbclient, place: Place) -> float:
        """Seconds that smbclient takes."""
        commands = operation.smbclient(place)
        if commands is None:
            raise WorkloadError(f"smbclient has nothing like {operation.name}")
        process = client.start()
        try:
            self._note(client)
            seconds = client.run(process, commands, WORK_SECONDS)
        finally:
            client.end(process)
        if not operation.arrived(place):
            raise WorkloadError("smbclient has ended and the server has not all of it")
        return seconds

    def _through_mount(self, operation: Operation, client: MountedClient, place: Place, result: Result) -> float:
        """Seconds that the work takes on a fresh mount."""
        with FreshMount(client) as mount:
            self._note(client)
            before = kernel.usage(client.pids())
            exchanged = client.round_trips()
            directory = client.root / place.relative
            seconds = mount.work(lambda: operation.timed(directory, place), WORK_SECONDS)
            if exchanged is not None:
                result.round_trips.append((client.round_trips() or 0) - exchanged)
            after = kernel.usage(client.pids())
            result.cpu.append(after.cpu - before.cpu)
            facts = self.results.facts[client.name]
            facts.memory_kib = max(facts.memory_kib, after.memory)
        return seconds

    def _note(self, client: Client) -> None:
        """Write down, once, how a client is connected."""
        facts = self.results.facts[client.name]
        if facts.session != "not seen":
            return
        facts.session = describe_sessions(self.server.status())
        if isinstance(client, MountedClient):
            facts.read_ahead_kib = kernel.read_ahead_kib(client.mountpoint)


class FreshMount:
    """A mount that begins with nothing in its caches and an open connection, and is gone afterwards."""

    def __init__(self, client: MountedClient) -> None:
        self.client = client
        self._workers: list[Worker] = []

    def __enter__(self) -> FreshMount:
        try:
            self.client.start()
            prime = self.client.root / PRIME_FILE
            self.work(lambda: float(len(prime.read_bytes())), PRIME_SECONDS)
        except BaseException:
            self._take_down()
            raise
        return self

    def work(self, work: Callable[[], float], timeout: float) -> float:
        """Do something on the mount that may hang."""
        worker = Worker(work)
        self._workers.append(worker)
        return worker.result(timeout)

    def __exit__(self, *_: object) -> None:
        self._take_down()

    def _take_down(self) -> None:
        """Unmount; end the client first where work hangs on the mount, since that would keep the unmount waiting."""
        try:
            hanging = [worker for worker in self._workers if not worker.end(LET_GO_SECONDS)]
            if hanging:
                self.client.kill()
            self.client.stop()
        finally:
            for worker in self._workers:
                worker.end(LET_GO_SECONDS)
