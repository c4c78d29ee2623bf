"""Which fault comes when: drawn from a seed, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# What can happen, and how often beside the others. Of the server's process only those at the end are more than a
# broken link: what it holds in memory is gone with it.
KINDS: Final[Mapping[str, int]] = {
    "link": 20,
    "drop": 14,
    "reset": 14,
    "frame": 18,
    "unanswered": 14,
    "late": 8,
    "kill": 8,
    "restart": 2,
    "crash": 2,
}
OF_THE_SERVER: Final = frozenset({"kill", "restart", "crash"})
# How long something is away, in seconds: short, long (of so many of those that are not short), very long.
SHORT: Final = (0.1, 1.0)
LONG: Final = (1.0, 5.0)
VERY_LONG: Final = (5.0, 30.0)
MERELY_LONG: Final = 0.8
# How many are not short: as in real life, few.
USUALLY_LONG: Final = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `seconds` that it lasts, `pause` after the one before, and a seed for all else."""

    number: int
    kind: str
    seconds: float
    pause: float
    settle: bool
    """Whether it waits until everybody has got over the one before."""
    seed: int


def faults(
    seed: int, count: int, kinds: Mapping[str, int], longest: float, long: float = USUALLY_LONG
) -> Iterator[Fault]:
    """Draw the faults of a run, `long` of whose outages take more than a second; the same arguments draw the same."""
    chance = random.Random(f"faults {seed}")
    names, weights = list(kinds), list(kinds.values())
    for number in range(1, count + 1):
        shares = (1 - long, long * MERELY_LONG, long * (1 - MERELY_LONG))
        low, high = chance.choices((SHORT, LONG, VERY_LONG), shares)[0]
        seconds = low * (high / low) ** chance.random()
        yield Fault(
            number,
            chance.choices(names, weights)[0],
            min(seconds, longest),
            chance.uniform(0.05, 1.0),
            chance.random() < 0.8,
            chance.randrange(2**32),
        )
