"""What each worker does on the mount, and what it knows of the outcome.

A worker is a process with a directory of its own (`own_files`), and a part in what all share (`shared_files`). An
operation that fails with the error of a lost server is counted and, but for some writes, tried again until it succeeds
or is seen to have been done; any other surprise is a violation (`trying`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from faultlib.own_files import OwnFiles
from faultlib.shared_files import SharedFiles
from faultlib.trying import LeftAsideError, Trying

PAUSE: Final = 0.004


class Worker:
    """One worker's operations, drawn from a seed."""

    def __init__(self, root: Path, log: str, seed: str, trying: Trying, *, gathered: bool = False) -> None:
        self._chance = random.Random(seed)
        self._own = own = OwnFiles(root / f"w{trying.number}", trying, self._chance, gathered=gathered)
        self._shared = shared = SharedFiles(root, log, trying, self._chance)
        self._operations: list[tuple[int, Callable[[], None]]] = [
            (10, own.create),
            (24, own.write),
            (12, own.read),
            (8, own.rewrite),
            (8, own.rename),
            (5, own.unlink),
            (5, own.truncate),
            (4, own.sync),
            (4, own.close_one),
            (4, own.make_or_remove_folder),
            (4, own.list),
            (3, own.stat),
            (3, own.link),
            (8, shared.append),
            (7, shared.race),
            (9, shared.count),
        ]

    def begin(self) -> None:
        """Make what it works in."""
        self._own.begin()

    def step(self) -> None:
        """Do one thing, at random."""
        weights, operations = zip(*self._operations, strict=True)
        try:
            self._chance.choices(operations, weights)[0]()
        except LeftAsideError as error:
            self._own.leave_aside(error.paths)
            self._shared.leave_aside(error.paths)
        time.sleep(self._chance.expovariate(1 / PAUSE))

    def finish(self, behind: Path) -> None:
        """Close everything and compare; `behind` is the server's own view of the root."""
        self._shared.finish()
        self._own.finish(behind)
