"""A copy within the share over a link of 1 Gbit/s: by the server, and through the client.

`tools/bench server-side`: a private Samba whose share is in memory, its link shaped in both directions by tc's token
bucket; each round copies one file both ways, on a mount of its own, and compares every byte on the server.
"""

from __future__ import annotations

import argparse
import datetime
import filecmp
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from lab.commands import run
from lab.server import Samba

from benchlib import machine
from benchlib.cli import in_memory, say, stop
from benchlib.clients import Smb3fs
from benchlib.sections import COPIES, put_section
from benchlib.stats import table
from benchlib.workload import Pattern

RATE: Final = "1gbit"
WAYS: Final[dict[str, Sequence[str]]] = {
    "by the server: `cp`": ("cp", "{source}", "{target}"),
    # dd reads and writes by itself, as every program did before it could ask for a copy.
    "through the client: `dd bs=1M`": ("dd", "bs=1M", "if={source}", "of={target}", "status=none"),
}


class Sample(NamedTuple):
    """One copy: its time in seconds, and the bytes that came here, went from here, and did neither."""

    seconds: float
    read: int
    written: int
    copied: int


def shape(server: Samba) -> None:
    """Let the link carry so much and no more, in both directions."""
    bucket = ("root", "tbf", "rate", RATE, "burst", "256kb", "latency", "50ms")
    network = server.network
    run("tc", "qdisc", "add", "dev", network.near, *bucket)
    network.inside("tc", "qdisc", "add", "dev", network.far, *bucket)


def measure(server: Samba, client: Smb3fs, command: Sequence[str]) -> Sample:
    """Copy once, on a fresh mount."""
    share = server.directory()
    client.start()
    try:
        os.stat(client.root / "source")
        before = client.status()["bytes"]
        names = {"source": str(client.root / "source"), "target": str(client.root / "target")}
        start = time.monotonic()
        subprocess.run([word.format(**names) for word in command], check=True)
        seconds = time.monotonic() - start
        after = client.status()["bytes"]
    finally:
        client.stop()
    if not filecmp.cmp(share / "source", share / "target", shallow=False):
        stop("the copy is not like its source")
    (share / "target").unlink()
    return Sample(seconds, *(after[key] - before[key] for key in ("read", "written", "copied")))


def as_markdown(samples: dict[str, list[Sample]], mib: int, rounds: int, version: str) -> str:
    """Return the section."""
    middle = {way: median(sample.seconds for sample in taken) for way, taken in samples.items()}
    slowest = max(middle.values())
    rows = [
        [
            way,
            f"{middle[way]:.2f} [{min(s.seconds for s in taken):.2f}..{max(s.seconds for s in taken):.2f}]",
            f"{mib * 1.048576 / middle[way]:,.0f}",
            f"{slowest / middle[way]:.1f} x",
            " / ".join(f"{number / 2**20:,.1f}" for number in taken[0][1:]),
        ]
        for way, taken in samples.items()
    ]
    columns = ["copy", "seconds", "MB/s", "rate", "MiB read / written / copied on the server"]
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return "\n\n".join(
        [
            COPIES,
            f"Written by `tools/bench server-side --mib {mib} --rounds {rounds}` on {now}: one file of {mib} MiB,"
            f"\ncopied within a share in memory, over a link that tc (tbf) shapes to 1 Gbit/s both ways; medians"
            f"\nof {rounds} rounds [least..most], each on a mount of its own, every byte compared. {version}.",
            table(columns, rows),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, print the section, and put it where it belongs if asked."""
    parser = argparse.ArgumentParser(prog="tools/bench server-side", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file (default 1024; 64 for a quick look)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the section into this document")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/bench)")
    if machine.memory_available_mib() < 3 * given.mib + 512:
        stop("there is not enough free memory; choose a smaller --mib")
    samples: dict[str, list[Sample]] = {}
    with Samba() as server, in_memory(server.directory()):
        shape(server)
        owner = server.directory().stat()
        Pattern().write(server.directory() / "source", given.mib)
        os.chown(server.directory() / "source", owner.st_uid, owner.st_gid)
        client = Smb3fs(server, server.folder / "smb3fs")
        for number in range(given.rounds):
            say(f"==> round {number + 1} of {given.rounds}")
            for way, command in WAYS.items():
                samples.setdefault(way, []).append(measure(server, client, command))
        section = as_markdown(samples, given.mib, given.rounds, server.version())
    if given.markdown:
        put_section(given.markdown, section)
    print(section)
    return 0
