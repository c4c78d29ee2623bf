"""smb3fs: what a person or a script asks of mounts that exist, and the helper links that mount(8) looks for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from math import inf
from typing import Final

from smb3fs.cli import metrics, mount_command, top
from smb3fs.cli.argv import without_secrets
from smb3fs.cli.status_text import snapshots_text, status_text
from smb3fs.errors import MountError
from smb3fs.status import StatusUnavailableError, query_status

# Where mount(8) looks for `mount.TYPE`, and the two types by which people write it in fstab.
HELPER_DIRECTORY: Final = "/sbin"
HELPERS: Final = ("mount.smb3fs", "mount.fuse.smb3fs")
PROGRAM: Final = "mount.smb3fs"
# How long the daemon may take to ask its server, in seconds.
SERVER_TIMEOUT: Final = 60.0
# The exit status where there was nothing wrong with the command line, and the answer is no.
FAILED: Final = 2


def main() -> int:
    """Do what the command line asks for and return the exit status."""
    arguments, had_secret = without_secrets(os.environ)
    if arguments[:1] == ["mount"]:
        return mount_command.run(arguments[1:], "smb3fs mount", had_secret=had_secret)
    # As mount.fuse3 calls it for the type fuse.smb3fs or fuse./path/to/smb3fs.
    if arguments and arguments[0].lower().startswith(("//", "\\\\", "smb://")):
        return mount_command.run(arguments, "smb3fs", had_secret=had_secret)
    return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """Run one of the subcommands other than mount."""
    parser = mount_command.Parser(prog="smb3fs", description="SMB3 shares as directories; see smb3fs(1).")
    parser.add_argument("-V", "--version", action="version", version=f"smb3fs {version('smb3fs')}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser("mount", help="mount a share, as mount.smb3fs does")
    status = commands.add_parser("status", help="show the state and the counters of a mount")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("mountpoint")
    live = commands.add_parser("top", help="show mounts at work, anew every second")
    live.add_argument("-b", "--batch", action="store_true", help="print one screen after the other, as for a pipe")
    live.add_argument("--once", action="store_true", help="the same as --batch -n 1")
    live.add_argument("-n", "--count", type=_positive, metavar="COUNT", help="end after so many screens")
    live.add_argument("-d", "--delay", type=_seconds, default=top.INTERVAL, metavar="SECONDS", help="between them")
    live.add_argument("mountpoint", nargs="?", help="all mounts if none is given")
    counters = commands.add_parser("metrics", help="print the counters of mounts for Prometheus")
    counters.add_argument("-o", "--output", metavar="FILE", help="replace FILE in place of printing")
    counters.add_argument("mountpoint", nargs="*", help="all mounts if none is given")
    snapshots = commands.add_parser("snapshots", help="list the previous versions of a mounted share")
    snapshots.add_argument("--json", action="store_true", help="as JSON")
    snapshots.add_argument("mountpoint")
    helper = commands.add_parser("install-helper", help="let mount(8) find mount.smb3fs")
    helper.add_argument("--remove", action="store_true", help="remove the links again")
    helper.add_argument("--directory", default=HELPER_DIRECTORY, help="where the links go (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        if given.command == "status":
            _show_status(given.mountpoint, as_json=given.json)
        elif given.command == "top":
            count = 1 if given.once else given.count
            top.run(given.mountpoint, batch=given.batch or given.once, count=count, interval=given.delay)
        elif given.command == "metrics":
            return 0 if metrics.show(given.mountpoint, given.output) else FAILED
        elif given.command == "snapshots":
            _show_snapshots(given.mountpoint, as_json=given.json)
        else:
            _link_helpers(given.directory, remove=given.remove)
    except (StatusUnavailableError, MountError) as error:
        print(f"smb3fs: {error}", file=sys.stderr)
        return FAILED
    return 0


def _positive(text: str) -> int:
    """Return a number of screens."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    """Return a time span."""
    seconds = float(text)
    if not 0 <= seconds < inf:
        raise ValueError(text)
    return seconds


def _show_status(mountpoint: str, *, as_json: bool) -> None:
    """Print what the daemon of a mount says."""
    snapshot = query_status(mountpoint)
    print(json.dumps(snapshot, indent=2) if as_json else status_text(snapshot))


def _show_snapshots(mountpoint: str, *, as_json: bool) -> None:
    """Print the previous versions that the server has of what is mounted, in the words of the option `snapshot=`."""
    found = query_status(mountpoint, SERVER_TIMEOUT, "snapshots")
    if "error" in found:
        raise StatusUnavailableError(f"the previous versions cannot be listed: {found['error']}")
    print(json.dumps(found, indent=2) if as_json else snapshots_text(found))


def _link_helpers(directory: str, *, remove: bool) -> None:
    """Make or remove the links that mount(8) looks for; whatever is no link to this program is left alone."""
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), PROGRAM)
    if not remove and not os.access(program, os.X_OK):
        raise MountError(f"{program} is not there; install smb3fs with its console scripts")
    links = [os.path.join(directory, name) for name in HELPERS]
    ours = [link for link in links if os.path.islink(link) and os.path.basename(os.readlink(link)) == PROGRAM]
    for link in links:
        if os.path.lexists(link) and link not in ours:
            raise MountError(f"{link} is another program's and stays as it is; remove it first")
    for link in links:
        try:
            if link in ours:
                os.unlink(link)
            if not remove:
                os.symlink(program, link)
        except OSError as error:
            raise MountError(f"{link} cannot be changed: {error.strerror}; run this as root") from error
        if not remove:
            print(f"{link} -> {program}")
        elif link in ours:
            print(f"removed {link}")
