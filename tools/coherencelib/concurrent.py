"""Both mounts at work at the same time on the same files, and a judge of what they have seen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from coherencelib import racer
from coherencelib.linear import Event, Verdict, judge
from coherencelib.operations import PAGE
from coherencelib.sides import Lines

# Racers a side.
EACH: Final = 2


def race(
    places: Mapping[str, Path],
    behind: Path,
    seed: int,
    seconds: float,
    bound: float,
    say: Callable[[float], None] = lambda _: None,
    *,
    each: int = EACH,
    maps: bool = True,
) -> tuple[list[Event], Verdict]:
    """Have `each` racers a side work for so long; what they did, and what is wrong with it.

    `places` are the sides' directories, `behind` is the same on the server's own disk; `say` hears how long it still
    is.
    """
    racer.lay_out(next(iter(places.values())))
    running: dict[str, Lines] = {}
    try:
        for number in range(each * len(places)):
            side = list(places)[number % len(places)]
            name = f"{side} {number // len(places)}"
            words = [str(places[side]), str(number + 1), f"race {seed} {number}", *(["maps"] if maps else [])]
            running[name] = Lines([sys.executable, racer.__file__, *words])
        for lines in running.values():
            lines.tell("")
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            say(left)
            time.sleep(min(1.0, left))
        for lines in running.values():
            lines.tell("")
        events = [Event(name, *told) for name, lines in running.items() for told in json.loads(lines.hear(b"\n"))]
    finally:
        for lines in running.values():
            lines.close()
    return events, judge(events, final(behind), bound)


def final(behind: Path) -> dict[str, Any]:
    """What the server has in the end."""
    found: dict[str, Any] = {}
    for name in racer.FILES:
        data = (behind / name).read_bytes()
        for block in range(racer.BLOCKS):
            found[f"{name} {block}"] = racer.numbers(data[block * PAGE : (block + 1) * PAGE])
    found[racer.LOG] = (behind / racer.LOG).read_bytes().decode(errors="replace")
    found[racer.MOVES] = sorted(path.name for path in (behind / racer.MOVES).iterdir())
    return found
