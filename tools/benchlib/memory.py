"""How much memory smb3fs takes: the most that was ever resident, after a large copy and a long listing on one mount."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchlib import kernel
from benchlib.bulk import Deposit, Read, Write
from benchlib.clients import Smb3fs
from benchlib.runner import WORK_SECONDS, FreshMount
from benchlib.small import List
from benchlib.workload import Pattern, Sizes, clear, lay_out

COPY_MIB: Final = 2048
LISTED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Step:
    """The high-water mark after one piece of work."""

    after: str
    memory_kib: int
    seconds: float


class ReadBack(Read):
    """Sequential read of the file that was written before it."""

    fixture = None
    target = Deposit.target


class LongList(List):
    """A listing in a directory of its own."""

    fixture = "long-listing"


def measure(client: Smb3fs, share: Path, local: Path) -> list[Step]:
    """Write 2 GiB, read it back, list 100,000 names; the daemon's high-water mark from the start on."""
    sizes, pattern = Sizes(COPY_MIB, 0, LISTED), Pattern()
    write, read, listing = Write(sizes, pattern), ReadBack(sizes, pattern), LongList(sizes, pattern)
    steps = []
    copied = lay_out(write, share, local, "memory", prepared=False)
    listed = lay_out(listing, share, local, "")
    try:
        with FreshMount(client) as mount:
            steps.append(Step("the mount", kernel.usage(client.pids()).memory, 0.0))
            for title, operation, place in (
                (f"a write of {COPY_MIB} MiB", write, copied),
                ("reading it back", read, copied),
                (f"`ls -l` of {LISTED:,} entries", listing, listed),
            ):
                seconds = mount.work(partial(operation.timed, client.root / place.relative, place), WORK_SECONDS)
                steps.append(Step(title, kernel.usage(client.pids()).memory, seconds))
    finally:
        clear(write, copied)
    return steps
