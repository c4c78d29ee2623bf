"""Several links to one server: what all of them carry together, what breaking one costs, and what a second one does.

`tools/bench links`: private Samba servers whose shares are in memory, with veth links that tc's token bucket shapes in
both directions. Each round takes every figure once, on a mount of its own, so that what else the machine does touches
all of them; every byte is compared. Both ends' counters tell what each link has carried.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import filecmp
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from lab.mounting import Mount, wait_until
from lab.network import Link, Network
from lab.server import Samba

from benchlib import machine
from benchlib.cli import in_memory, say, stop
from benchlib.sections import LINKS, put_section
from benchlib.stats import table

MIB: Final = 1 << 20
MEGABIT: Final = 1_000_000
GATHERED: Final = "wcache=67108864"
READ: Final = ("dd", "bs=1M", "if={mounted}", "of=/dev/null", "status=none")
WRITE: Final = ("dd", "bs=1M", "if={source}", "of={mounted}", "conv=fsync", "status=none")
# What is done: its name, further options of the mount, the command, and whether that writes.
WAYS: Final = (
    ("read", "", READ, False),
    ("write, gathered", GATHERED, WRITE, True),
    ("write through", "wcache=0", WRITE, True),
)
# Servers by the speeds of their links in Mbit/s, and how each is mounted: a name, options, how many connections come.
ALIKE: Final = (
    ("1 of 4 links", "nomultichannel", 1),
    ("2 of 4 links", "max_channels=2", 2),
    ("4 of 4 links", "", 4),
)
UNLIKE: Final = (
    ("slower alone", "nomultichannel", 1),
    ("both, default", "", 2),
    ("both, mixlinks", "mixlinks", 2),
)
ONE: Final = (
    ("1 connection", "nomultichannel", 1),
    ("2 connections", "max_channels=2", 2),
    ("4 connections", "max_channels=4", 4),
)
FILES: Final = 400
# For how many seconds a link must carry most of what it can, to be used again.
WINDOW: Final = 0.5


class Sample(NamedTuple):
    """One figure: how much a second (Mbit, or files), and the bytes that each link brought here, and there."""

    rate: float
    here: Sequence[int] = ()
    there: Sequence[int] = ()


Samples = dict[str, list[Sample]]


class Breakage(NamedTuple):
    """What breaking one of two links did: seconds of the longest read, and until both were used again."""

    stall: float
    back: float


def links(server: Samba) -> list[Link | Network]:
    """All links to a server."""
    return [server.network, *server.network.links]


@contextlib.contextmanager
def shaped(speeds: Sequence[int], *, shape: bool = True) -> Iterator[Samba]:
    """A server with links of these speeds in Mbit/s, which are merely said if they are not to be shaped."""
    with Samba(speeds=[speed * MEGABIT for speed in speeds]) as server:
        server.stop()
        with in_memory(server.directory()):
            server.start()
            if shape:
                for link, speed in zip(links(server), speeds, strict=True):
                    server.network.shape(link, f"{speed}mbit")
            yield server


@contextlib.contextmanager
def mounted(server: Samba, options: str, count: int) -> Iterator[Mount]:
    """A mount that has so many connections."""
    words = [f"credentials={server.credentials}", *filter(None, options.split(","))]
    with Mount(server.source(), server.folder / "mnt", words) as mount:
        if not wait_until(lambda: len(mount.status()["channels"]) == count, 30):
            stop(f"there were not {count} connections after 30 s: {mount.status()['last_errors']}")
        yield mount


def carried(server: Samba) -> list[tuple[int, int]]:
    """What each end of each link has received."""
    return [server.network.carried(link) for link in links(server)]


def once(server: Samba, options: str, count: int, command: Sequence[str], *, writes: bool) -> Sample:
    """Move the file once, and compare it."""
    source = server.directory() / "source"
    target = server.directory() / "target"
    with mounted(server, options, count) as mount:
        name = mount.path / ("target" if writes else "source")
        os.stat(mount.path / "source")
        before = carried(server)
        start = time.monotonic()
        subprocess.run([word.format(source=source, mounted=name) for word in command], check=True)
        seconds = time.monotonic() - start
        after = carried(server)
    if writes:
        if not filecmp.cmp(source, target, shallow=False):
            stop("what was written is not like its source")
        target.unlink()
    moved = [[later[end] - earlier[end] for earlier, later in zip(before, after, strict=True)] for end in (0, 1)]
    return Sample(source.stat().st_size * 8 / MEGABIT / seconds, *moved)


def small(server: Samba, options: str, count: int) -> Sample:
    """Open and read small files, one after the other."""
    folder = server.directory() / "small"
    if not folder.exists():
        folder.mkdir()
        for number in range(FILES):
            (folder / f"{number}").write_bytes(os.urandom(4096))
    with mounted(server, options, count) as mount:
        names = [mount.path / "small" / f"{number}" for number in range(FILES)]
        start = time.monotonic()
        contents = [name.read_bytes() for name in names]
        seconds = time.monotonic() - start
    if contents != [(folder / name.name).read_bytes() for name in names]:
        stop("what was read is not what is there")
    return Sample(FILES / seconds)


def broken(server: Samba, verdict: str, mbit: int) -> Breakage:
    """Read a file from one end to the other again and again, break the first of two links, and mend it."""
    link, size = server.network, (server.directory() / "source").stat().st_size
    done, stalls = threading.Event(), [0.0]

    def read(path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            while not done.is_set():
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for offset in range(0, size, MIB):
                    start = time.monotonic()
                    if len(os.pread(file.fileno(), MIB, offset)) != MIB:
                        stop("a read was too short")
                    stalls.append(time.monotonic() - start)
                    if done.is_set():
                        break

    def flows() -> bool:
        """Whether the link carries most of what it can, for half a second."""
        start, before = time.monotonic(), server.network.carried(link)[0]
        time.sleep(WINDOW)
        moved = server.network.carried(link)[0] - before
        return moved * 8 / MEGABIT > 0.7 * mbit * (time.monotonic() - start)

    with mounted(server, "multichannel", 2) as mount, ThreadPoolExecutor(1) as pool:
        task = pool.submit(read, mount.path / "source")
        try:
            if not wait_until(flows, 30):
                stop("the link carries nothing")
            stalls.clear()
            server.network.break_path(link, verdict)
            try:
                gone = wait_until(lambda: len(mount.status()["channels"]) == 1, 30)
                time.sleep(2)
            finally:
                server.network.mend_path(link)
            since, longest = time.monotonic(), max(stalls)
            if not gone or not wait_until(flows, 60):
                stop("the loss of a link was not noticed, or the link is not used again")
            back = time.monotonic() - since - WINDOW
        finally:
            done.set()
        task.result(60)
    return Breakage(longest, back)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Take all figures."""
    found: dict[str, Any] = {"server": "", "alike": {}, "unlike": {}, "one": {}, "broken": {}}

    def spread(server: Samba, group: str, layouts: Sequence[tuple[str, str, int]]) -> None:
        for name, options, count in layouts:
            for way, more, command, writes in WAYS:
                sample = once(server, ",".join(filter(None, (options, more))), count, command, writes=writes)
                found[group].setdefault(f"{name}: {way}", []).append(sample)
                say(f"    {name}: {way}: {sample.rate:,.0f} Mbit/s")

    def prepare(server: Samba) -> None:
        owner, source = server.directory().stat(), server.directory() / "source"
        with source.open("wb") as file:
            for _ in range(given.mib):
                file.write(os.urandom(MIB))
        os.chown(source, owner.st_uid, owner.st_gid)
        found["server"] = server.version()

    rate = given.mbit
    if "alike" in given.parts:
        with shaped([rate] * 4) as server:
            prepare(server)
            for number in range(given.rounds):
                say(f"==> four links of {rate} Mbit/s, round {number + 1} of {given.rounds}")
                spread(server, "alike", ALIKE)
    if "unlike" in given.parts:
        with shaped([rate, 3 * rate]) as server:
            prepare(server)
            for number in range(given.rounds):
                say(f"==> links of {rate} and {3 * rate} Mbit/s, round {number + 1} of {given.rounds}")
                spread(server, "unlike", UNLIKE)
    if "one" in given.parts:
        with shaped([10_000], shape=False) as server:
            prepare(server)
            for number in range(given.rounds):
                say(f"==> one link as it is, round {number + 1} of {given.rounds}")
                spread(server, "one", ONE)
                for name, options, count in ONE:
                    sample = small(server, options, count)
                    found["one"].setdefault(f"{name}: open and read 4 KiB", []).append(sample)
                    say(f"    {name}: {sample.rate:,.0f} files/s")
    if "broken" in given.parts:
        with shaped([rate] * 2) as server:
            prepare(server)
            for number in range(given.rounds):
                for what, verdict in (("silence", "drop"), ("reset", "reject with tcp reset")):
                    sample = broken(server, verdict, rate)
                    found["broken"].setdefault(what, []).append(sample)
                    say(f"==> {what}, round {number + 1}: stall {sample.stall:.2f} s, back {sample.back:.1f} s")
    return found


def rows_of(samples: Samples, base: str) -> list[list[str]]:
    """Return the rows of a table: medians, spans, ratios to the first layout's, and each link's share."""
    rows = []
    for name, taken in samples.items():
        way = name.partition(": ")[2]
        first = samples[f"{base}: {way}"]
        ratio = median(sample.rate / other.rate for sample, other in zip(taken, first, strict=True))
        rates = [sample.rate for sample in taken]
        moved = taken[-1].there if "write" in way else taken[-1].here
        shares = " / ".join(f"{100 * part / sum(moved):.0f}" for part in moved) if len(moved) > 1 else "–"
        rows.append([name, f"{median(rates):,.0f} [{min(rates):,.0f}..{max(rates):,.0f}]", f"{ratio:.2f}×", shares])
    return rows


def as_markdown(found: dict[str, Any], given: argparse.Namespace) -> str:
    """Return the section."""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    rate = given.mbit
    told = [
        LINKS,
        f"Written by `tools/bench links --mib {given.mib} --mbit {rate} --rounds {given.rounds}` on {now}: one file of"
        f"\n{given.mib} MiB, over veth links that tc (tbf) shapes both ways; medians of {given.rounds} rounds"
        f"\n[least..most], each on a mount of its own, every byte compared; beside them how many times the first row of"
        f"\nthe same kind that is, and how many percent of the data each link carried by its counters. Load average"
        f"\n{found['load'][0]:.1f} before and {found['load'][1]:.1f} after. {found['server']}.",
    ]
    columns = ["mount", "Mbit/s", "ratio", "share of each link, %"]
    headings = {
        "alike": f"Four links of {rate} Mbit/s.",
        "unlike": f"One link of {rate} Mbit/s, by which the first connection goes, and one of {3 * rate} Mbit/s.",
        "one": "One link that nothing shapes: this machine's processors are the bound. Files are counted a second.",
    }
    bases = {"alike": ALIKE, "unlike": UNLIKE, "one": ONE}
    for group, heading in headings.items():
        if found[group]:
            told += [heading, table(columns, rows_of(found[group], bases[group][0][0]))]
    if found["broken"]:
        told.append(
            f"One of two links of {rate} Mbit/s broken while a program reads a file, in seconds: the longest read of"
            "\n1 MiB, and from when the link was mended until it carried most of what it can."
        )
        rows = [
            [what, *(f"{median(all_):.2f} [{min(all_):.2f}..{max(all_):.2f}]" for all_ in zip(*taken, strict=True))]
            for what, taken in found["broken"].items()
        ]
        told.append(table(["how", "longest read", "back"], rows))
    return "\n\n".join(told)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the section, and put it where it belongs if asked."""
    parts = ("alike", "unlike", "one", "broken")
    parser = argparse.ArgumentParser(prog="tools/bench links", description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of the file (default 256)")
    parser.add_argument("--mbit", type=int, default=100, help="rate of a link in Mbit/s (default 100)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="which figures (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the section into this document")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/bench)")
    if machine.memory_available_mib() < 4 * given.mib + 512:
        stop("there is not enough free memory; choose a smaller --mib")
    if warning := machine.busy():
        say(f"==> {warning}")
    before = os.getloadavg()[0]
    found = measure(given)
    found |= {"load": [before, os.getloadavg()[0]], "machine": machine.describe()}
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    section = as_markdown(found, given)
    if given.markdown:
        put_section(given.markdown, section)
    print(section)
    return 0
