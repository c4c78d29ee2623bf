"""What a run found, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchlib.clients import RcloneOff
from benchlib.memory import Step
from benchlib.runner import Result, Results
from benchlib.stats import cell, number, ratio, summarise, table
from benchlib.workload import Operation

# The client that the others are compared with.
REFERENCE: Final = RcloneOff.name

METHOD: Final = """\
- The server is a private `smbd` in a network namespace of this machine, reached over a veth link; its share is in
  memory (tmpfs), and so are the files copied from. Client and server share the processors: the figures say how the
  clients compare on this machine, not what a network between two machines would give.
- Rounds are interleaved: each round goes through all operations, each operation through all clients, beginning with
  another one each time. A cell is the median [least..most] of the rounds, and in bold how many times the rate of
  `{reference}` that is: the median of the rounds' own ratios, since what else the machine does changes from round to
  round. More is better everywhere.
- Every single measurement has a mount of its own by a process of its own, with empty caches: that is what "cold" means.
  Before the clock runs, one small file in another directory is read, so that the client is connected and logged in.
- The clock of whatever writes or removes stops when the server's side has it all: `fsync` and `close` are waited for,
  then the server's directory is looked at until it is complete (`{writes}` uploads after `close`). Outside the time
  measured, every byte is compared there.
- smbclient has no mount; it gets the same files as commands of one session, its start and login not counted."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the bench."""

    date: str
    command: str
    rounds: int
    machine: dict[str, str]
    load: tuple[str, str]
    versions: dict[str, str]
    operations: Sequence[Operation]
    results: Results
    memory: Sequence[Step]


def as_json(run: Run) -> dict[str, Any]:
    """Everything, every sample of it."""
    return {
        "date": run.date,
        "command": run.command,
        "rounds": run.rounds,
        "machine": run.machine,
        "load_average": {"before": run.load[0], "after": run.load[1]},
        "versions": run.versions,
        "reference": REFERENCE,
        "clients": {
            name: {
                "settings": facts.settings,
                "session": facts.session,
                "read_ahead_kb": facts.read_ahead_kib,
                "memory_kib": facts.memory_kib,
            }
            for name, facts in run.results.facts.items()
        },
        "results": [
            _result_json(run, operation, client, result)
            for operation in run.operations
            for client in run.results.facts
            if (result := run.results.by_operation.get((operation.name, client))) is not None
        ],
        "memory": [
            {"after": step.after, "memory_kib": step.memory_kib, "seconds": step.seconds} for step in run.memory
        ],
    }


def _result_json(run: Run, operation: Operation, client: str, result: Result) -> dict[str, Any]:
    """One operation on one client."""
    summary = summarise(result.rates.values())
    reference = run.results.by_operation.get((operation.name, REFERENCE), Result())
    return {
        "operation": operation.name,
        "title": operation.title,
        "client": client,
        "unit": operation.unit,
        "median": summary.median if summary else None,
        "min": summary.least if summary else None,
        "max": summary.most if summary else None,
        "ratio": ratio(result.rates, reference.rates),
        "rates": result.rates,
        "seconds": result.seconds,
        "step": operation.step,
        "steps": operation.steps,
        "round_trips": result.round_trips,
        "round_trips_per_step": _per_step(result.round_trips, operation),
        "cpu_seconds": result.cpu,
        "failures": result.failures,
    }


def _per_step(totals: Sequence[float], operation: Operation) -> float | None:
    """The median of several rounds, divided by what one round did."""
    return median(totals) / operation.steps if totals else None


def as_markdown(run: Run, writes: str) -> str:
    """The report; `writes` is the name of the client that uploads after close."""
    parts = [
        "# How fast it is",
        f"Written by `{run.command}` on {run.date}; the same command measures again.",
        "## The machine",
        "\n".join(f"- {what}: {value}" for what, value in run.machine.items())
        + f"\n- load average (1, 5, 15 minutes) before and after: {run.load[0]}; {run.load[1]}",
        f"## Rates, {_medians(run.rounds)}",
        rates_table(run),
        failures(run),
        "## How it was measured",
        METHOD.format(reference=REFERENCE, writes=writes),
        "## The clients",
        clients_table(run),
        "\n".join(f"- {program}: {version}" for program, version in run.versions.items()),
        costs_table(run),
        memory_table(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _medians(rounds: int) -> str:
    """Of how many rounds the figures are."""
    return f"medians of {rounds} rounds" if rounds > 1 else "one round"


def rates_table(run: Run) -> str:
    """Operations by clients."""
    clients = list(run.results.facts)
    rows = []
    for operation in run.operations:
        row = [f"{operation.title} ({operation.unit})"]
        reference = run.results.by_operation.get((operation.name, REFERENCE), Result())
        for client in clients:
            result = run.results.by_operation.get((operation.name, client), Result())
            times = ratio(result.rates, reference.rates) if client != REFERENCE else None
            row.append(cell(summarise(result.rates.values()), times, result.failures))
        rows.append(row)
    return table(["operation", *clients], rows)


def failures(run: Run) -> str:
    """What went wrong, each sentence once."""
    lines = [
        f"- {name} failed on {client}: {sentence}"
        for (name, client), result in run.results.by_operation.items()
        for sentence in dict.fromkeys(result.failures)
    ]
    return "\n".join(lines)


def clients_table(run: Run) -> str:
    """How each client was run and what it negotiated."""
    rows = []
    for name, facts in run.results.facts.items():
        ahead = "–" if facts.read_ahead_kib is None else f"{facts.read_ahead_kib}"
        memory = "–" if not facts.memory_kib else f"{facts.memory_kib / 1024:.0f}"
        rows.append([name, facts.settings, facts.session, ahead, memory])
    return table(["client", "run as", "session, as smbstatus sees it", "read_ahead_kb", "VmHWM, MiB, most seen"], rows)


def costs_table(run: Run) -> str:
    """Round trips of the clients that count them, processor time of all that have a process; empty without any."""
    counting = [name for name in run.results.facts if _any(run, name, "round_trips")]
    working = [name for name in run.results.facts if _any(run, name, "cpu")]
    rows = []
    for operation in run.operations:
        row = [operation.name, operation.step]
        for names, what, scale in ((counting, "round_trips", 1.0), (working, "cpu", 1e6)):
            for name in names:
                result = run.results.by_operation.get((operation.name, name), Result())
                figure = _per_step(getattr(result, what), operation)
                row.append("–" if figure is None else number(figure * scale))
        rows.append(row)
    header = [f"{name}, round trips" for name in counting] + [f"{name}, CPU µs" for name in working]
    if not header:
        return ""
    return "## What an operation costs\n\n" + table(["operation", "per", *header], rows)


def _any(run: Run, client: str, what: str) -> bool:
    """Whether any operation has such figures for the client."""
    return any(getattr(result, what) for (_, name), result in run.results.by_operation.items() if name == client)


def memory_table(run: Run) -> str:
    """Memory of smb3fs under a large copy and a long listing; empty when that was not measured."""
    if not run.memory:
        return ""
    rows = [
        [step.after, f"{step.memory_kib / 1024:.0f}", number(step.seconds) if step.seconds else "–"]
        for step in run.memory
    ]
    return "## Memory of smb3fs, one mount\n\n" + table(["after", "VmHWM, MiB", "seconds"], rows)
