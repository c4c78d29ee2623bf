"""The command line of tools/coherence."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from faultlib.cli import INTERRUPTED, kinds
from faultlib.plan import KINDS
from lab.root import RootError, build, found
from lab.server import PERSISTENT, Samba
from lab.terminal import end_line, heeding_signals, say

from coherencelib.outages import Plan
from coherencelib.promises import MODES, bound
from coherencelib.report import as_json, as_text
from coherencelib.run import TRIES, Report, Run

# Seconds of a race.
RACE: Final = 20.0


def numbers(text: str) -> list[int]:
    """Comma-separated numbers."""
    return [int(word) for word in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="tools/coherence",
        description="Two mounts and smbclient on a share of a private Samba, at random and again by seed, and a model "
        "that knows what each must see. Every history is in a directory of its own; one that fails is shortened.",
    )
    made.add_argument("--cache", choices=list(MODES), default="strict", help="how the mounts cache (default strict)")
    made.add_argument("--seed", type=int, help="of the first history (default: another each time)")
    made.add_argument("--histories", type=int, metavar="N", help="how many, with seeds one after the other (default 5)")
    made.add_argument("--seconds", type=float, metavar="S", help="begin no further history after so long")
    made.add_argument("--operations", type=int, default=300, metavar="N", help="of each history (default 300)")
    made.add_argument("--only", type=numbers, default=[], metavar="N,...", help="of a history only these operations")
    made.add_argument("--bound", type=float, metavar="S", help="after which what was done is seen (default: by cache)")
    made.add_argument("--options", default="", metavar="OPT,...", help="further mount options")
    made.add_argument("--share", default="share", help="of the private server (default share)")
    made.add_argument("--later", action="store_true", help="on the later Samba of tools/lab/samba.py root")
    made.add_argument("--server-disk", action="store_true", help="with a process on the server's own disk as well")
    made.add_argument(
        "--concurrent",
        type=float,
        nargs="?",
        const=RACE,
        metavar="S",
        help=f"both mounts at work at the same time, for so many seconds a seed (default {RACE:.0f})",
    )
    made.add_argument("--faults", type=int, default=0, metavar="N", help="so many of tools/faults in each history")
    made.add_argument("--kinds", type=kinds, default=KINDS, metavar="KIND,...", help=f"of them: {', '.join(KINDS)}")
    made.add_argument("--longest", type=float, default=1.0, metavar="S", help="no outage is longer (default 1)")
    made.add_argument("--tries", type=int, default=TRIES, metavar="N", help=f"to shorten a history (default {TRIES})")
    made.add_argument("--stop", action="store_true", help="end at the first violation")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    made.add_argument("--quiet", action="store_true", help="show no progress")
    return made


def stop(reason: str) -> NoReturn:
    """End with a sentence."""
    print(f"tools/coherence: {reason}", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    """Set up, run, report: 0 when everything was seen as promised, 1 when not."""
    arguments = parser().parse_args()
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/coherence)")
    promise = MODES[arguments.cache]
    if arguments.server_disk and not promise.server_disk:
        stop(f"with --cache {arguments.cache} nothing is promised about the server's own disk (none, nolease)")
    if arguments.concurrent and (arguments.faults or arguments.server_disk or arguments.only):
        stop("--concurrent has two mounts, no faults and no single operations")
    if arguments.faults and arguments.server_disk:
        stop("while a fault lasts nobody can say when the server's own disk is seen: --faults or --server-disk")
    root = ""
    if arguments.later or arguments.share == PERSISTENT:
        try:
            root = found() or (build() and found()) or ""
        except RootError as error:
            stop(str(error))
    with heeding_signals(), Samba(root=root) as server:
        if arguments.share not in server.shares:
            stop(f"{server.version()} has no share {arguments.share}")
        report = run(server, arguments)
    end_line()
    print(as_text(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(report), indent=1) + "\n")
    if report.interrupted:
        return INTERRUPTED
    return 0 if report.passed else 1


def run(server: Samba, arguments: argparse.Namespace) -> Report:
    """One history after the other."""
    options = [option for option in arguments.options.split(",") if option]
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    count = arguments.histories or (1 if arguments.only else 10**9 if arguments.seconds else 5)
    began = time.monotonic()
    with Run(
        server,
        arguments.cache,
        MODES[arguments.cache],
        bound=bound(options) if arguments.bound is None else arguments.bound,
        options=options,
        share=arguments.share,
        disk=arguments.server_disk,
        plan=Plan(arguments.faults, arguments.kinds, arguments.longest) if arguments.faults else None,
        say=(lambda _: None) if arguments.quiet else say,
    ) as running:
        try:
            for each in range(seed, seed + count):
                if arguments.concurrent:
                    right = running.concurrent(each, arguments.concurrent)
                else:
                    right = running.sequential(each, arguments.operations, only=arguments.only, tries=arguments.tries)
                if (arguments.seconds and time.monotonic() - began > arguments.seconds) or (
                    arguments.stop and not right
                ):
                    break
        except KeyboardInterrupt:
            running.report.interrupted = True
        return running.finish(began)
