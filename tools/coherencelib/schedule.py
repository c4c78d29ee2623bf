"""Which operations are done: drawn from a seed, so that a history can be had again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coherencelib.model import MAPS, READS, WRITES, Model
from coherencelib.operations import PAGE, SMBCLIENT, Operation

# How often each is drawn beside the others.
VERBS: Final[Mapping[str, int]] = {
    "get": 14,
    "put": 8,
    "stat": 10,
    "list": 6,
    "create": 6,
    "unlink": 5,
    "rename": 6,
    "truncate": 3,
    "utime": 2,
    "mkdir": 2,
    "rmdir": 1,
    "rename_directory": 1,
    "open": 12,
    "close": 7,
    "read": 14,
    "write": 12,
    "append": 16,
    "cut": 3,
    "size": 4,
    "fsync": 2,
    "map_read": 6,
    "map_write": 4,
    "pause": 1,
}
WITHOUT_A_MOUNT: Final = frozenset({"get", "put", "stat", "list", "unlink", "rename", "mkdir", "rmdir"})
"""What smbclient can do."""
MAPPING: Final = frozenset({"map_read", "map_write"})
DIRECTORIES: Final = ("d0", "d1")
NAMES: Final = ("f0", "f1", "f2", "f3")
PATHS: Final = (*NAMES, *(f"{directory}/{name}" for directory in DIRECTORIES for name in NAMES[:2]))
SLOTS: Final = 3
LARGEST: Final = 160 * 1024
# How many times rarer smbclient is than a mount: each of its operations costs the others their leases.
RARER: Final = 3
TRIES: Final = 40


class Schedule:
    """Draws operations that mean something where they stand; what is left when some are taken out may not."""

    def __init__(self, seed: int, sides: Sequence[str], *, without: frozenset[str] = frozenset()) -> None:
        self._chance = random.Random(f"coherence {seed}")
        self._sides = list(sides)
        self._weights = [1 if side == SMBCLIENT else RARER for side in sides]
        self._verbs = {verb: weight for verb, weight in VERBS.items() if verb not in without}
        self._model = Model()

    def draw(self, count: int) -> list[Operation]:
        """A history of so many operations."""
        return [self._one(number) for number in range(1, count + 1)]

    def _one(self, number: int) -> Operation:
        """One that the model can carry out."""
        operation = Operation(number, self._sides[0], "list", ("",))
        for _ in range(TRIES):
            side = self._chance.choices(self._sides, self._weights)[0]
            verb = self._chance.choices(list(self._verbs), list(self._verbs.values()))[0]
            if side == SMBCLIENT and verb not in WITHOUT_A_MOUNT:
                continue
            arguments = self._arguments(side, verb)
            if arguments is not None:
                operation = Operation(number, side, verb, arguments)
                if self._model.do(operation) is not None:
                    return operation
        self._model.do(operation)
        return operation

    def _path(self) -> str:
        """A path: as a rule one where a file is."""
        there = list(self._model.files)
        return self._chance.choice(there if there and self._chance.random() < 0.8 else PATHS)

    def _slot(self, side: str, hows: frozenset[str]) -> int | None:
        """One of a side's open files."""
        mine = [slot for (whose, slot), (_, how) in self._model.slots.items() if whose == side and how in hows]
        return self._chance.choice(mine) if mine else None

    def _offset(self, side: str, slot: int) -> int:
        """A place in a file: its beginning, its end, an edge of a page, or anywhere."""
        length = len(self._model.slots[side, slot][0].data)
        edge = self._chance.randrange(LARGEST // PAGE) * PAGE
        return min(
            self._chance.choice([0, length, max(0, length - 100), edge, edge + 1, self._chance.randrange(length + 1)]),
            LARGEST,
        )

    def _amount(self) -> int:
        """So many bytes: mostly few."""
        return self._chance.choice([1, 7, 100, 512, PAGE, PAGE + 1, 20_000, 70_000])

    def _arguments(self, side: str, verb: str) -> tuple[Any, ...] | None:
        """What it is done to; None if there is nothing such."""
        chance = self._chance
        match verb:
            case "get" | "unlink":
                return (self._path(),)
            case "put":
                return self._path(), self._amount()
            case "stat":
                return (chance.choice([self._path(), self._path(), *PATHS, *DIRECTORIES]),)
            case "list":
                return (chance.choice(["", *DIRECTORIES]),)
            case "rename":
                return self._path(), chance.choice(PATHS)
            case "truncate":
                return self._path(), chance.choice([0, 1, self._amount(), LARGEST])
            case "utime":
                return self._path(), chance.randrange(10**9, 15 * 10**8)
            case "mkdir" | "rmdir":
                return (chance.choice(DIRECTORIES),)
            case "rename_directory":
                return tuple(chance.sample(DIRECTORIES, 2))
            case "create":
                return chance.choice(PATHS), chance.randrange(SLOTS)
            case "open":
                return self._path(), chance.randrange(SLOTS), chance.choice(["r", "rw", "rw", "direct", "append"])
            case "pause":
                return (chance.choice([0.01, 0.1, 0.4, 1.2]),)
            case _:
                return self._of_slot(side, verb)

    def _of_slot(self, side: str, verb: str) -> tuple[Any, ...] | None:
        """The same for what is done to an open file."""
        hows = {
            "read": READS,
            "write": WRITES,
            "cut": WRITES,
            "fsync": WRITES,
            "append": frozenset({"append"}),
            "map_read": MAPS,
            "map_write": frozenset({"rw"}),
        }
        slot = self._slot(side, hows.get(verb, READS | {"append"}))
        if slot is None:
            return None
        match verb:
            case "read" | "write" | "map_read":
                return slot, self._offset(side, slot), self._amount()
            case "append":
                return slot, min(self._amount(), PAGE)
            case "cut":
                return slot, self._chance.choice([0, self._offset(side, slot), self._amount()])
            case "map_write":
                return slot, self._chance.randrange(LARGEST // PAGE)
            case _:
                return (slot,)
