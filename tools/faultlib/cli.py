"""The command line of tools/faults."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from lab.root import RootError, build, found
from lab.server import Samba
from lab.terminal import end_line, heeding_signals, say

from faultlib.outcome import DISK, MEMORY
from faultlib.plan import KINDS, USUALLY_LONG, faults
from faultlib.promises import DURABLE, PERSISTENT, PROMISES
from faultlib.report import as_json, as_text
from faultlib.run import Run
from faultlib.sums import sums
from faultlib.verdicts import BREAKS_LEVEL, LOG_LEVEL
from smb3fs.options import MountOptions

# Longer than the longest outage: what a program waits for is not over before it.
TIMEOUT: Final = "timeout=60"
SUM: Final = "sum"
# What the server says of each of several links.
GIGABIT: Final = 1_000_000_000
# The status of what was asked to end, as shells have it.
INTERRUPTED: Final = 130


def kinds(text: str) -> Mapping[str, int]:
    """Comma-separated kinds of faults, as frequent as they are among all."""
    wanted = text.split(",")
    for name in wanted:
        if name not in KINDS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(KINDS)}")
    return {name: weight for name, weight in KINDS.items() if name in wanted}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="tools/faults",
        description="Faults under a mixed workload on two mounts of a private Samba; every byte is compared.",
        epilog=f"tools/faults {SUM} FILE... puts together what several runs have written by --json. Asked to end by "
        "SIGINT or SIGTERM, a run compares what was done so far and reports it; asked twice, it reports what it has.",
    )
    made.add_argument("share", choices=list(PROMISES), help="what the server grants decides what is promised")
    made.add_argument("--faults", type=int, default=100, metavar="N", help="how many (default 100)")
    made.add_argument("--seed", type=int, help="draw the same faults and work again (default: another each time)")
    made.add_argument("--kinds", type=kinds, default=KINDS, metavar="KIND,...", help=", ".join(KINDS))
    made.add_argument("--longest", type=float, default=30.0, metavar="S", help="no outage is longer (default 30)")
    made.add_argument(
        "--long",
        type=float,
        default=USUALLY_LONG,
        metavar="SHARE",
        help="of the outages, of more than 1 s (default 0.1)",
    )
    made.add_argument("--workers", type=int, default=4, metavar="N", help="processes at work (default 4)")
    made.add_argument(
        "--wcache",
        type=int,
        default=MountOptions.__dataclass_fields__["wcache"].default,
        metavar="BYTES",
        help="mount with wcache=; fsync and close decide what was written, with 0 each write (default %(default)s)",
    )
    made.add_argument("--options", default="", metavar="OPT,...", help="further mount options")
    made.add_argument(
        "--links",
        type=int,
        default=1,
        metavar="N",
        help="the server has so many links, each mount a connection by each; what breaks links breaks one, or all",
    )
    made.add_argument(
        "--later", action="store_true", help="on the later Samba of tools/lab/samba.py root; persistent is"
    )
    made.add_argument(
        "--databases",
        choices=(MEMORY, DISK),
        default=MEMORY,
        help="where the server writes down what is open and locked, and syncs it (default %(default)s)",
    )
    made.add_argument("--stop", action="store_true", help="end at the first violation")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    made.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log there")
    made.add_argument(
        "--debug", default="", metavar="CLASS:N,...", help="what else it tells, as in smb.conf's log level: smb2:10"
    )
    made.add_argument("--quiet", action="store_true", help="no line for each fault")
    return made


def stop(reason: str) -> NoReturn:
    """End with a sentence."""
    print(f"tools/faults: {reason}", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    """Set up, run, report: 0 when everything was as promised, 1 when not."""
    if sys.argv[1:2] == [SUM]:
        return add_up([Path(word) for word in sys.argv[2:]])
    arguments = parser().parse_args()
    if os.geteuid() != 0:
        stop("needs root: it makes network namespaces and mounts (sudo tools/faults)")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    root = ""
    if arguments.later or arguments.share == PERSISTENT:
        try:
            root = found() or (build() and found()) or ""
        except RootError as error:
            stop(str(error))
    planned = list(faults(seed, arguments.faults, arguments.kinds, arguments.longest, arguments.long))
    options = [TIMEOUT, *(option for option in arguments.options.split(",") if option)]
    print(f"==> {len(planned)} faults on {arguments.share}, seed {seed}", file=sys.stderr)
    speeds = (GIGABIT,) * arguments.links if arguments.links > 1 else ()
    breaks = [BREAKS_LEVEL] if arguments.share == DURABLE and root else []
    level = " ".join((LOG_LEVEL, *breaks, *filter(None, arguments.debug.split(","))))
    in_memory = arguments.databases == MEMORY
    with heeding_signals(), Samba(root=root, settings=level, speeds=speeds, in_memory=in_memory) as server:
        if arguments.share not in server.shares:
            stop(f"{server.version()} has no share {arguments.share}")
        run = Run(
            server,
            arguments.share,
            seed,
            arguments.workers,
            options,
            (lambda _: None) if arguments.quiet else say,
            wcache=arguments.wcache,
        )
        run.report.databases = arguments.databases
        try:
            with heeding_signals(run.ask_to_end):
                run.run(planned, stop=arguments.stop)
        except KeyboardInterrupt:
            run.report.interrupted = True
        finally:
            end_line()
            if arguments.log:
                arguments.log.write_text(server.log())
            if arguments.json:
                arguments.json.write_text(json.dumps(as_json(run.report), indent=1) + "\n")
            print(as_text(run.report), flush=True)
    if run.report.interrupted:
        return INTERRUPTED
    return 0 if run.report.passed else 1


def add_up(files: Sequence[Path]) -> int:
    """Put several runs together: 0 when in all of them everything was as promised."""
    if not files:
        stop(f"{SUM} needs what runs have written by --json")
    try:
        runs = [json.loads(file.read_text()) for file in files]
        print("\n".join(sums(runs)))
    except (OSError, ValueError, KeyError) as error:
        stop(f"this is not what --json writes: {error!r}")
    return 0 if all(run["passed"] for run in runs) else 1
