"""Where the random tests begin: always at the same numbers, unless one is given to see a failure again."""

from __future__ import annotations

import os
import random


def seeds(count: int) -> list[int]:
    """SMB3FS_SEED alone if it is set; else the same few in each run, so that a run can be repeated."""
    given = os.environ.get("SMB3FS_SEED")
    return [int(given)] if given else list(range(1, count + 1))


def fresh_seeds(count: int) -> list[int]:
    """Seeds that are others in each run."""
    given = os.environ.get("SMB3FS_SEED")
    return [int(given)] if given else [random.SystemRandom().randrange(2**32) for _ in range(count)]
