"""What the workers have done together: was everything done once that was said to be, and nothing twice?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faultlib.shared_files import COUNTERS, RECORD


def judge(place: Path, ends: Mapping[int, dict[str, Any]], logs: Mapping[int, str]) -> Iterator[str]:
    """Every violation in what all workers share; `place` is the directory at the server, `logs` each worker's."""
    yield from _races(place, list(ends.values()))
    for counter in range(COUNTERS):
        yield from _counter(place, counter, list(ends.values()))
    for log in sorted(set(logs.values())):
        yield from _log(place / log, {number: end for number, end in ends.items() if logs[number] == log})


def _races(place: Path, ends: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One winner for each name, and no name without one."""
    there = set(os.listdir(place / "races"))
    for name in sorted({name for end in ends for name in end["races"]}, key=int):
        results = Counter(end["races"][name] for end in ends if name in end["races"])
        exists = f"race{name}" in there
        if results["won"] > 1:
            yield f"race {name}: won {results['won']} times"
        if results["won"] and not exists:
            yield f"race {name}: won, and the file is not there"
        if not results["won"] and not results["doubt"]:
            yield f"race {name}: lost by all ({results['lost']})"


def _counter(place: Path, counter: int, ends: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As many as were counted, and some of those whose count failed."""
    value = int((place / f"counter{counter}").read_bytes())
    sure = sum(end["counted"].get(str(counter), 0) for end in ends)
    perhaps = sum(end["perhaps_counted"].get(str(counter), 0) for end in ends)
    if not sure <= value <= sure + perhaps:
        yield f"counter {counter} stands at {value}; {sure} were counted and perhaps {perhaps} more"


def _log(log: Path, ends: Mapping[int, dict[str, Any]]) -> Iterator[str]:
    """Each record that was appended once and in order, each that may have been at most once, and nothing else."""
    data = log.read_bytes()
    records = [(int(match[1]), int(match[2])) for match in RECORD.finditer(data)]
    rest = RECORD.sub(b"", data)
    if rest and not any(end["perhaps_appended"] for end in ends.values()):
        yield f"{log.name}: {len(rest)} bytes that are no record: {rest[:80]!r}"
    for number, end in ends.items():
        found = [serial for worker, serial in records if worker == number]
        twice = [serial for serial, times in Counter(found).items() if times > 1]
        lost = sorted(set(end["appended"]) - set(found))
        alien = sorted(set(found) - set(end["appended"]) - set(end["perhaps_appended"]))
        if twice:
            yield f"{log.name}: records of worker {number} twice: {twice[:5]}"
        if lost:
            yield f"{log.name}: records of worker {number} lost: {lost[:5]}"
        if alien:
            yield f"{log.name}: records of worker {number} that it did not write: {alien[:5]}"
        if not twice and found != sorted(found):
            yield f"{log.name}: records of worker {number} out of order"
