#!/usr/bin/env python3
"""A private Samba from a shell: `samba.py run` until Ctrl-C, `samba.py list`, `samba.py clean`, `samba.py root`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.kept_logs import drop_logs
from lab.owner import clean, labs
from lab.root import PLACE, RootError, build
from lab.server import Samba


def serve(arguments: argparse.Namespace) -> int:
    """Bring a server up, say how to reach it, take it down on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Samba(settings="\n".join(arguments.setting), root=arguments.samba_root) as samba:
        print(f"{samba.version()} serves {', '.join(samba.source(share) for share in samba.shares)}")
        print(f"user {samba.user}, password {samba.password}, credentials={samba.credentials}")
        print(f"directories below {samba.directory().parent}, configuration {samba.state}/smb.conf")
        print("Ctrl-C ends it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ending")
    return 0


def show(_: argparse.Namespace) -> int:
    """Name every lab of this machine."""
    for name, owner in labs().items():
        state = "left by a crash" if owner is None or not owner.alive() else f"of process {owner.pid}"
        print(f"{name}: {'kept on purpose' if owner and owner.kept else state}")
    return 0


def remove_leftovers(arguments: argparse.Namespace) -> int:
    """Remove what crashes left, and the logs of servers under which tests have failed."""
    drop_logs()
    for name in clean(kept=arguments.kept):
        print(f"removed {name}")
    return 0


def make_root(arguments: argparse.Namespace) -> int:
    """Unpack a later Samba into a folder, unless it is there."""
    try:
        build(arguments.place)
    except RootError as error:
        print(f"samba.py: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="serve until Ctrl-C")
    run.add_argument("--setting", action="append", default=[], help="a line for smb.conf's global section; repeatable")
    run.add_argument("--samba-root", help="a Debian root whose Samba is used (default: SMB3FS_SAMBA_ROOT)")
    run.set_defaults(action=serve)
    commands.add_parser("list", help="name the labs of this machine").set_defaults(action=show)
    sweep = commands.add_parser("clean", help="remove what crashed and failed runs left")
    sweep.add_argument("--kept", action="store_true", help="also what was kept on purpose")
    sweep.set_defaults(action=remove_leftovers)
    root = commands.add_parser("root", help="unpack a later Samba than this machine's: 20 s, 50 MB fetched")
    root.add_argument("place", nargs="?", type=Path, default=PLACE, help=f"where to (default: {PLACE})")
    root.set_defaults(action=make_root)
    arguments = parser.parse_args()
    status: int = arguments.action(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
