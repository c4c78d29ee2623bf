"""What it costs the daemon to know a tree: its memory with 100,000 files known, and when the kernel has forgotten them.

`tools/bench inodes`: a tree of empty files in directories of 100 is gone through by `find -ls` on a fresh mount, then
each directory is opened and held, and gone through again; then the kernel is made to forget what nobody uses. On
Debian's Samba, and on the later one of tools/lab/samba.py if that is there, which has leases on directories.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.commands import run
from lab.mounting import Mount, wait_until
from lab.root import found
from lab.server import Samba

from benchlib import machine
from benchlib.cli import in_memory, say, stop
from benchlib.sections import INODES, put_section
from benchlib.stats import table
from benchlib.warm import EACH, spread

FILES: Final = 100_000
# Until the kernel has told of all that it has forgotten.
FORGETTING: Final = 60.0
SPARE_MIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """How things stood after a piece of work."""

    after: str
    resident: int
    """Bytes."""
    inodes: int
    directories: int
    """How many are kept under a lease."""
    held: int = 0
    """How many programs have open."""


def lay_out(top: Path, count: int) -> None:
    """Make the tree, as if a client had."""
    owner = top.parent.stat()
    top.mkdir()
    made = [top]
    for name in spread(count):
        path = top / name
        if not path.parent.exists():
            path.parent.mkdir()
            made.append(path.parent)
        path.touch()
        made.append(path)
    for path in made:
        os.chown(path, owner.st_uid, owner.st_gid)


def go_through(top: Path) -> None:
    """Have every attribute of every file asked for."""
    run("find", str(top), "-ls", timeout=1200)


@contextmanager
def held_open(top: Path) -> Iterator[int]:
    """Each directory open; how many there are."""
    held = [os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY) for entry in os.scandir(top)]
    try:
        yield len(held)
    finally:
        for descriptor in held:
            os.close(descriptor)


def step(mount: Mount, after: str, held: int = 0) -> Step:
    """How things stand now, by the daemon's own account."""
    told: dict[str, Any] = mount.status()
    return Step(after, told["memory"]["resident"], told["inodes"], told["directories"]["directories"], held)


def measure(server: Samba, count: int) -> list[Step]:
    """One server; the figures of a mount of its own."""
    share = server.directory()
    lay_out(share / "tree", count)
    with Mount(server.source(), server.folder / "smb3fs", [f"credentials={server.credentials}"]) as mount:
        steps = [step(mount, "the mount")]
        tree = mount.path / "tree"
        go_through(tree)
        steps.append(step(mount, "`find -ls`"))
        with held_open(tree) as held:
            go_through(tree)
            steps.append(step(mount, f"{held:,} directories open, `find -ls` again", held))
        # Remounted, a file system has the kernel drop all names that nobody uses: of this one alone.
        subprocess.run(["mount", "-i", "-o", "remount", str(mount.path)], check=True)
        wait_until(lambda: mount.status()["inodes"] <= steps[0].inodes + steps[1].directories + 1, FORGETTING)
        steps.append(step(mount, "the kernel has forgotten them"))
        go_through(tree)
        steps.append(step(mount, "`find -ls` once more"))
    return steps


def rows(server: str, steps: Sequence[Step]) -> list[list[str]]:
    """The lines of one server; what an inode costs is told where all are known, and nothing else is open."""
    start = steps[0]
    lines = []
    for one in steps:
        more = one.resident - start.resident
        each = f"{more / one.inodes:,.0f}" if one.inodes > FILES // EACH and not one.held else "–"
        mib = f"{one.resident / 2**20:.0f}"
        lines.append([server, one.after, mib, f"{one.inodes:,}", each, f"{one.directories:,}"])
    return lines


def as_markdown(found: Sequence[tuple[str, Sequence[Step]]], count: int, command: str) -> str:
    """The section of the report."""
    heads = ["server", "after", "resident, MiB", "inodes known", "bytes each", "directories kept"]
    lines = [line for server, steps in found for line in rows(server, steps)]
    open_ones = [
        f"{(one.resident - before.resident) / one.held / 1024:.0f} KiB ({server})"
        for server, steps in found
        for before, one in itertools.pairwise(steps)
        if one.held
    ]
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return f"""{INODES}

Written by `{command}` on {when}, load {machine.load()}: {count:,} empty files in directories of {EACH},
one mount. `smb3fs status` tells how many inodes are known, and the daemon's resident memory.

{table(heads, lines)}

An inode is known as long as the kernel knows it (FORGET), has it open, or knows something below it; so their number is
bounded by the kernel's memory, not by an option. What is kept beside them is bounded here: the listings of 1,000
directories with 100,000 entries in all, handles of closed files by `max_cached_handles=`, and bytes to be written by
`wcache=`. A directory that a program holds open keeps what it has read of it,
{", ".join(open_ones)} each in this run. Memory
that was given back is used again before more is asked for, and stays resident."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print the section, and put it where it belongs if asked."""
    parser = argparse.ArgumentParser(prog="tools/bench inodes", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help=f"how many files (default {FILES:,})")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the section into this document")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/bench)")
    if machine.memory_available_mib() < SPARE_MIB:
        stop(f"this needs {SPARE_MIB} MiB of free memory")
    results: list[tuple[str, list[Step]]] = []
    for root in dict.fromkeys(("", found() or "")):
        with Samba(root=root) as server, in_memory(server.directory()):
            server.restart()
            say(f"==> {given.files:,} files on {server.version()}")
            name = " ".join(server.version().removeprefix("Version ").split("-")[:1])
            results.append((f"Samba {name}", measure(server, given.files)))
    command = "tools/bench inodes" + (f" --files {given.files}" if given.files != FILES else "")
    section = as_markdown(results, given.files, command)
    if given.markdown:
        put_section(given.markdown, section)
    print(section)
    return 0
