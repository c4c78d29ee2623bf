"""smb3fs: what a person or a script asks of mounts that exist, and the helper links that mount(8) looks for."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from smb3fs.cli import mount_command
from smb3fs.cli.argv import without_secrets
from smb3fs.cli.status_text import status_text
from smb3fs.errors import MountError
from smb3fs.status import StatusUnavailableError, query_status

# Where mount(8) looks for `mount.TYPE`, and the two types by which people write it in fstab.
HELPERS: Final = ("/sbin/mount.smb3fs", "/sbin/mount.fuse.smb3fs")


def main() -> int:
    """Do what the command line asks for and return the exit status."""
    arguments, had_secret = without_secrets(os.environ)
    if arguments[:1] == ["mount"]:
        return mount_command.run(arguments[1:], "smb3fs mount", had_secret=had_secret)
    return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """Run one of the subcommands other than mount."""
    parser = argparse.ArgumentParser(prog="smb3fs", description="SMB3 shares as directories; see smb3fs(1).")
    parser.add_argument("--version", action="version", version=f"smb3fs {version('smb3fs')}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser("mount", help="mount a share, as mount.smb3fs does")
    status = commands.add_parser("status", help="show the state and the counters of a mount")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("mountpoint")
    helper = commands.add_parser("install-helper", help="let mount(8) find mount.smb3fs")
    helper.add_argument("--remove", action="store_true", help="remove the links again")
    given = parser.parse_args(arguments)
    try:
        if given.command == "status":
            _show_status(given.mountpoint, as_json=given.json)
        else:
            _link_helpers(remove=given.remove)
    except (StatusUnavailableError, MountError) as error:
        print(f"smb3fs: {error}", file=sys.stderr)
        return 1
    return 0


def _show_status(mountpoint: str, *, as_json: bool) -> None:
    """Print what the daemon of a mount says."""
    snapshot = query_status(mountpoint)
    print(json.dumps(snapshot, indent=2) if as_json else status_text(snapshot))


def _link_helpers(*, remove: bool) -> None:
    """Make or remove the links in /sbin; a file there that is no link to this program is left alone."""
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "mount.smb3fs")
    if not remove and not os.access(program, os.X_OK):
        raise MountError(f"{program} is not there; install smb3fs with its console scripts")
    for link in HELPERS:
        ours = os.path.islink(link) and os.path.basename(os.readlink(link)) == "mount.smb3fs"
        if os.path.lexists(link) and not ours:
            raise MountError(f"{link} is another program's; it is left alone")
        try:
            if ours:
                os.unlink(link)
            if not remove:
                os.symlink(program, link)
        except OSError as error:
            raise MountError(f"{link}: {error.strerror}; this needs root") from error
        print(f"removed {link}" if remove else f"{link} -> {program}")
