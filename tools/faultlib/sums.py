"""Several runs taken together: a table of the kinds of faults for each share and server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from faultlib.outcome import ALLOWED, BROKEN, FORGOTTEN, MEMORY, STUCK_FILE, TAKEN
from faultlib.plan import KINDS

# A stall that is more than a pause, in seconds.
LONG: Final = 1.0
COLUMNS: Final = ("kind", "faults", "errors", "not allowed", "the server's own", "stalls over 1 s", "longest stall")


def sums(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a report on what runs have written by --json."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        how = "gathered" if run["gathered"] else "not gathered"
        how += ", databases in memory" if run.get("databases") == MEMORY else ""
        groups.setdefault((run["share"], run["server"], how), []).append(run)
    lines = []
    for (share, server, how), of_group in sorted(groups.items()):
        lines += [f"share {share} of {server}, writes {how}", *_of_group(of_group), ""]
    return lines[:-1]


def _of_group(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is told of runs on the same share of the same server."""
    faults = [fault for run in runs for fault in run["faults"]]
    verdicts = Counter[str]()
    for run in runs:
        verdicts.update(run["verdicts"])
    operations = sum(count for run in runs for count in run["done"].values())
    panics, robbed = (sum(run[name] for run in runs) for name in ("panics", "robbed"))
    failed = [run for run in runs if not run["passed"]]
    violations = [f"  seed {run['seed']}: {violation}" for run in runs for violation in run["violations"]]
    return [
        f"  {len(runs)} runs, {len(failed)} not as promised; seeds and faults: "
        + ", ".join(f"{run['seed']} ({len(run['faults'])})" for run in runs),
        f"  {len(faults)} faults, {operations} operations, {sum(run['seconds'] for run in runs):.0f} s; "
        f"{panics} crashes of the server's own, {robbed} opens given back without their locks",
        *_table(faults, verdicts),
        f"  {len(violations)} violations",
        *violations,
    ]


def _table(faults: Sequence[Mapping[str, Any]], verdicts: Mapping[str, int]) -> list[str]:
    """A line for each kind, and one for all."""
    kinds = [kind for kind in (*KINDS, "no fault") if _errors(verdicts, [kind]) or _of_kind(faults, [kind])]
    rows = [_row(kind, _of_kind(faults, [kind]), verdicts, [kind]) for kind in kinds]
    rows.append(_row("all", faults, verdicts, kinds))
    return ["  | " + " | ".join(row) + " |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]


def _row(
    name: str, faults: Iterable[Mapping[str, Any]], verdicts: Mapping[str, int], kinds: Sequence[str]
) -> list[str]:
    """The cells of a line."""
    faults = list(faults)
    stalls = [max((one or 0.0 for one in fault["stalls"]), default=0.0) for fault in faults]
    own = _errors(verdicts, kinds, FORGOTTEN, STUCK_FILE, TAKEN)
    return [
        *(name, str(len(faults)), str(_errors(verdicts, kinds)), str(_errors(verdicts, kinds, BROKEN)), str(own)),
        *(str(sum(seconds > LONG for seconds in stalls)), f"{max(stalls, default=0.0):.2f} s"),
    ]


def _of_kind(faults: Iterable[Mapping[str, Any]], kinds: Sequence[str]) -> list[Mapping[str, Any]]:
    """The faults of some kinds."""
    return [fault for fault in faults if fault["kind"] in kinds]


def _errors(
    verdicts: Mapping[str, int],
    kinds: Sequence[str],
    *which: str,
) -> int:
    """How many errors came after some kinds of faults, of some verdicts or all."""
    wanted = which or (ALLOWED, BROKEN, FORGOTTEN, STUCK_FILE, TAKEN)
    return sum(verdicts.get(f"{kind}: {verdict}", 0) for kind in kinds for verdict in wanted)
