"""The report of a run, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from faultlib.outcome import MEMORY, Happened, Report
from faultlib.promises import PROMISES

SHOWN: Final = 20


def as_text(report: Report) -> str:
    """What a person wants to know."""
    kinds = Counter(one.fault.kind for one in report.happened)
    lines = [
        f"share {report.share} of {report.server}, seed {report.seed}, {report.workers} workers"
        + (f", {report.links} links" if report.links > 1 else "")
        + (", its databases in memory" if report.databases == MEMORY else ""),
        f"  promised: {PROMISES[report.share]}",
        *(
            ["  of what write(2) has taken that is lost, fsync or close tells before it is seen"]
            if report.gathered
            else []
        ),
        f"  {sum(kinds.values())} faults in {report.seconds:.0f} s: {_counts(kinds)}",
        f"  {sum(report.done.values())} operations: {_counts(report.done)}",
        f"  {sum(report.errors.values())} errors: {_counts(report.errors)}",
        *([f"  {report.panics} times a process of the server crashed by itself"] if report.panics else []),
        *([f"  {report.robbed} opens were given back without their locks"] if report.robbed else []),
        *_apart("opens that the server deleted before their time", report.forgotten),
        *_apart("opens from which the server was taking H when the connection was cut", report.taken),
        *_apart("files that the server lets nobody open any more, which were left aside", report.stuck),
        *(_listed("recoveries in which opens were lost", report.lost) if report.lost else []),
        f"  after what: {_counts(report.errors_after)}",
        f"  {_stalls(report)}",
        *_listed("errors that are promised not to be", report.broken),
        *_listed("violations", report.violations),
        _outcome(report),
    ]
    return "\n".join(lines)


def _outcome(report: Report) -> str:
    """The last word."""
    done = len(report.happened)
    if not report.compared:
        return f"ended after {done} of {report.planned} faults, and nothing was compared"
    word = "passed" if report.passed else "FAILED"
    return f"{word}, as far as it went: {done} of {report.planned} faults" if report.interrupted else word


def _counts(counts: Mapping[str, int]) -> str:
    """The most frequent first."""
    return ", ".join(f"{name} {number}" for name, number in Counter(counts).most_common()) or "none"


def _stalls(report: Report) -> str:
    """The longest, and after what."""
    told, longest = report.stalls(), report.longest()
    if longest is None:
        return "no stall could be told"
    by_kind = {
        kind: max(report.stalls(kind), default=0.0) for kind in sorted({one.fault.kind for one in report.happened})
    }
    waited = [seconds for seconds in told if seconds > 0]
    middle = waited[len(waited) // 2] if waited else 0.0
    return (
        f"stalls after the end of a fault: longest {told[-1]:.2f} s (fault {longest.fault.number}, {longest.words}), "
        f"median {middle:.2f} s of {len(waited)}; longest by kind: "
        + ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in by_kind.items())
    )


def _apart(what: str, found: list[str]) -> list[str]:
    """Errors that the server's log owns to, if there are any."""
    return _listed(f"errors about {what}", found) if found else []


def _listed(what: str, found: list[str]) -> list[str]:
    """A few of them."""
    more = [f"    and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [f"  {len(found)} {what}", *(f"    {one}" for one in found[:SHOWN]), *more]


def as_json(report: Report) -> dict[str, Any]:
    """Everything."""
    return {
        **{
            name: getattr(report, name)
            for name in (
                "share",
                "server",
                "seed",
                "options",
                "workers",
                "gathered",
                "seconds",
                "passed",
                "done",
                "errors",
            )
        },
        "links": report.links,
        "databases": report.databases,
        "planned": report.planned,
        "interrupted": report.interrupted,
        "compared": report.compared,
        "errors_after": report.errors_after,
        "verdicts": report.verdicts,
        "panics": report.panics,
        "robbed": report.robbed,
        "lost": report.lost,
        "forgotten": report.forgotten,
        "stuck": report.stuck,
        "taken": report.taken,
        "lost_opens": {f"{mount} {inode}": sorted(when) for (mount, inode), when in report.lost_opens.items()},
        "broken": report.broken,
        "violations": report.violations,
        "faults": [_fault(one) for one in report.happened],
        "longest_stall": max(report.stalls(), default=None),
        "mounts": report.mounts,
    }


def _fault(one: Happened) -> dict[str, Any]:
    """One fault."""
    return {
        "number": one.fault.number,
        "kind": one.fault.kind,
        "words": one.words,
        "begun": one.begun,
        "over": one.over,
        "stalls": one.stalls,
        "panics": one.panics,
        "robbed": one.robbed,
    }
