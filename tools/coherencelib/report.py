"""What came of a run, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from coherencelib.operations import Operation, listed
from coherencelib.outages import Felt
from coherencelib.run import Report


def as_text(report: Report) -> str:
    """A few lines, and each violation's history."""
    seeds = f"{report.seeds[0]} to {report.seeds[-1]}" if len(report.seeds) > 1 else f"{report.seeds[0]}"
    lines = [
        f"{report.server}, cache {report.cache} ({report.options or 'no further options'}), bound {report.bound:g} s",
        f"  seeds {seeds}: {sum(report.done.values()):,} operations in {report.seconds:.0f} s, "
        f"{len(report.violations)} violations",
        f"  late: {late(report.late)}",
    ]
    lines += ["  interrupted: more was to be done"] if report.interrupted else []
    lines += felt(report.felt) if report.felt is not None else []
    for violation in report.violations:
        again = f"--seed {violation.seed}"
        if numbers := [str(one.number) for one in violation.history if isinstance(one, Operation)]:
            again += f" --only {','.join(numbers)}"
        lines += [
            f"  seed {violation.seed}, after {violation.whole} operations: {violation.words}",
            listed(violation.history),
            *([violation.evidence] if violation.evidence else []),
            f"  again: {again}",
        ]
    return "\n".join(lines)


def felt(found: Felt) -> list[str]:
    """What the faults were, which errors the share's promise has were seen, and what had become of what failed."""
    return [
        f"  faults: {counts(found.kinds)}; the longest until all had got over one {found.longest:.2f} s",
        f"  errors as promised: {counts(found.errors)}",
        f"  of files that have lost their name while they were open: {counts(found.nameless)}",
        f"  of such files that the server kept for who had lost them: {counts(found.kept_back)}",
        f"  what had failed was: {counts(found.settled)}",
    ]


def counts(found: Counter[str]) -> str:
    """Things and how many of each."""
    return ", ".join(f"{what} {count}" for what, count in sorted(found.items())) or "none"


def late(found: dict[str, list[float]]) -> str:
    """How many answers became right only later, and after how long."""
    if not found:
        return "nothing; every first answer was the right one"
    parts = [f"{what} {len(seconds)} (to {_longest(seconds)})" for what, seconds in sorted(found.items())]
    return ", ".join(parts)


def _longest(seconds: Sequence[float]) -> str:
    """The longest, in milliseconds."""
    return f"{1000 * max(seconds):.0f} ms"


def as_json(report: Report) -> dict[str, Any]:
    """Everything. Of a Counter `asdict` makes one of its items."""
    felt = (
        {name: dict(count) for name, count in vars(report.felt).items() if isinstance(count, Counter)}
        if report.felt
        else {}
    )
    told = {**asdict(replace(report, felt=None)), "done": dict(report.done), "passed": report.passed}
    return {**told, "felt": {**felt, "longest": report.felt.longest} if report.felt else None}
