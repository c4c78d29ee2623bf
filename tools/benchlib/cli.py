"""The command line of tools/bench: set-up, the run, the report, and everything put back."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from lab.server import Samba

from benchlib import machine, memory, report
from benchlib.bulk import Copy, Read, Write
from benchlib.clients import MOUNTED, Client, MountedClient, RcloneWrites, Smb3fs
from benchlib.delay import Delay
from benchlib.local import LocalDisk
from benchlib.runner import Runner
from benchlib.sections import with_others
from benchlib.small import Create, List, OpenRead, Stat, Unlink
from benchlib.smbclient import Smbclient
from benchlib.warm import Find, ReadAgain, Untar
from benchlib.workload import Operation, Pattern, Sizes

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final[tuple[type[Client], ...]] = (*MOUNTED, Smbclient, LocalDisk)
OPERATIONS: Final[tuple[type[Operation], ...]] = (
    *(Write, Copy, Read, Create, OpenRead, Stat, Unlink, List),
    *(Untar, Find, ReadAgain),
)
MEMORY: Final = "memory"
FULL: Final = Sizes(bulk_mib=512, files=1000, entries=5000)
QUICK: Final = Sizes(bulk_mib=64, files=100, entries=5000, tarred=200, found=1000, again_mib=64)
FULL_ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
# Beside the files themselves: the clients' processes and smbd's.
SPARE_MIB: Final = 1024


def names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument type: a comma-separated choice out of `allowed`, in that order."""

    def parse(text: str) -> list[str]:
        wanted = text.split(",")
        for name in wanted:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return [name for name in allowed if name in wanted]

    return parse


def parser() -> argparse.ArgumentParser:
    """The options."""
    clients = [client.name for client in CLIENTS]
    operations = [*(operation.name for operation in OPERATIONS), MEMORY]
    made = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    made.add_argument("--quick", action="store_true", help="small sizes, one round: about a minute")
    made.add_argument("--rounds", type=int, help=f"rounds (default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS})")
    made.add_argument("--only", type=names(clients), default=clients, metavar="CLIENT,...", help=", ".join(clients))
    made.add_argument("--ops", type=names(operations), metavar="OPERATION,...", help=", ".join(operations))
    made.add_argument("--mib", type=int, help=f"size of the large file (default {FULL.bulk_mib}, {QUICK.bulk_mib})")
    made.add_argument("--files", type=int, help=f"number of small files (default {FULL.files}, {QUICK.files})")
    made.add_argument("--entries", type=int, help=f"entries of the listing (default {FULL.entries})")
    made.add_argument(
        "--delay", type=float, default=0, metavar="MS", help="milliseconds on the way there and back, by a proxy"
    )
    made.add_argument("--options", default="", metavar="OPT,...", help="further mount options for smb3fs")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there as well")
    return made


def sizes_of(arguments: argparse.Namespace) -> Sizes:
    """The sizes asked for."""
    usual = QUICK if arguments.quick else FULL
    return replace(
        usual,
        bulk_mib=arguments.mib or usual.bulk_mib,
        files=arguments.files or usual.files,
        entries=arguments.entries or usual.entries,
    )


def operations_of(arguments: argparse.Namespace) -> list[str]:
    """The operations asked for; the memory run is not one of a minute."""
    if arguments.ops is not None:
        return list(arguments.ops)
    usual = [operation.name for operation in OPERATIONS]
    return usual if arguments.quick else [*usual, MEMORY]


def check_memory(sizes: Sizes, wanted: Sequence[str]) -> None:
    """Refuse what does not fit: source, fixture and what is written are all in memory, rclone's cache too."""
    needed = 4 * sizes.bulk_mib + SPARE_MIB
    if ReadAgain.name in wanted:  # the file, and the kernel's pages of it
        needed += 2 * sizes.again_mib
    if MEMORY in wanted:
        needed = max(needed, 2 * sizes.bulk_mib + memory.COPY_MIB + SPARE_MIB)
    available = machine.memory_available_mib()
    if available < needed:
        stop(f"this needs {needed} MiB of free memory and there are {available}; choose a smaller --mib or --quick")


def stop(reason: str) -> NoReturn:
    """End with a sentence."""
    print(f"tools/bench: {reason}", file=sys.stderr)
    sys.exit(1)


def say(line: str) -> None:
    """Progress, at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A tmpfs on `folder`, which belongs to whom it belonged before."""
    owner = folder.stat()
    options = f"size=75%,mode=755,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "smb3fs-bench", str(folder)], check=True)
    try:
        yield folder
    finally:
        # Lazily, because the server still has its working directory there; it ends next.
        subprocess.run(["umount", "--lazy", str(folder)])


def run(arguments: argparse.Namespace, command: str) -> report.Run:
    """Bring everything up, measure, take everything down."""
    sizes, wanted = sizes_of(arguments), operations_of(arguments)
    pattern = Pattern()
    operations: list[Operation] = [kind(sizes, pattern) for kind in OPERATIONS if kind.name in wanted]
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else FULL_ROUNDS)
    check_memory(sizes, wanted)
    if warning := machine.busy():
        say(f"==> {warning}")
    say("==> bringing up a private Samba server")
    with Samba() as server, contextlib.ExitStack() as stack:
        server.stop()
        stack.enter_context(in_memory(server.directory()))
        server.start()
        own = server.folder / "bench"
        own.mkdir()
        stack.enter_context(in_memory(own))
        local = own / "local"
        local.mkdir()
        Smb3fs.options = arguments.options
        if arguments.delay:
            MountedClient.way = stack.enter_context(Delay(server.address, arguments.delay / 1000))
        clients = [kind(server, own / kind.name) for kind in CLIENTS if kind.name in arguments.only]
        before = machine.load()
        runner = Runner(server, local, say)
        say(f"==> {rounds} rounds, {len(operations)} operations, {len(clients)} clients")
        runner.run(operations, clients, rounds)
        steps = []
        if MEMORY in wanted and Smb3fs.name in arguments.only:
            say(f"==> memory of smb3fs: {memory.COPY_MIB} MiB written and read, {memory.LISTED:,} entries listed")
            steps = memory.measure(Smb3fs(server, own / "memory"), runner.share, local)
        return report.Run(
            date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            command=command,
            rounds=rounds,
            machine=machine.describe(),
            load=(before, machine.load()),
            versions=machine.versions(server.version()),
            operations=operations,
            results=runner.results,
            memory=steps,
        )


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Take the orderly way out, whichever signal asks for it."""
    del frame
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Parse, set up, run, report."""
    arguments = parser().parse_args()
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/bench)")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    machine.install_missing([name.partition("-")[0] for name in arguments.only])
    try:
        found = run(arguments, shlex.join(["tools/bench", *sys.argv[1:]]))
    except KeyboardInterrupt:
        say("==> interrupted; everything is taken down")
        return 130
    text = report.as_markdown(found, RcloneWrites.name)
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(found), indent=1) + "\n")
    if arguments.markdown:
        before = arguments.markdown.read_text() if arguments.markdown.exists() else ""
        arguments.markdown.write_text(with_others(text, before))
    print(text)
    return 0
