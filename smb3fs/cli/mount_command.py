"""mount.smb3fs: what mount(8) calls, and what a person may call instead ([util-linux] mount(8), external helpers)."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Final, NoReturn

import trio

from smb3fs.cli.argv import without_secrets
from smb3fs.cli.daemon import detach, log_to_stderr
from smb3fs.cli.explain import explain
from smb3fs.errors import MountError, OptionError, Smb3fsError
from smb3fs.mount import run_mount
from smb3fs.options import MountOptions, parse_mount_options
from smb3fs.status import mounted_shares

# Exit statuses of mount(8).
OK: Final = 0
USAGE: Final = 1
FAILURE: Final = 32


class _Parser(argparse.ArgumentParser):
    """argparse with mount(8)'s exit status for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and exit with 1."""
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(USAGE)


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = _Parser(prog=program, description="Mount an SMB3 share.", epilog="The options are in mount.smb3fs(8).")
    result.add_argument("source", help="//server/share[/directory]")
    result.add_argument("target", help="the directory to mount on")
    result.add_argument(
        "-o", "--options", action="append", default=[], metavar="OPTIONS", help="options, comma-separated"
    )
    result.add_argument("-r", "--read-only", action="store_true", help="mount read-only, as -o ro")
    result.add_argument("-w", "--rw", action="store_true", help="mount read-write (the default)")
    result.add_argument("-s", "--sloppy", action="store_true", help="ignore unknown options")
    result.add_argument("-f", "--fake", action="store_true", help="check the arguments, and do not mount")
    result.add_argument("-n", "--no-mtab", action="store_true", help="accepted; there is no mtab to write")
    result.add_argument("-v", "--verbose", action="store_true", help="say more")
    result.add_argument("-t", "--types", metavar="TYPE", help="the type by which mount(8) found this program")
    result.add_argument("-N", "--namespace", metavar="NS", help="refused: mount(8) enters a namespace by itself")
    result.add_argument("--foreground", action="store_true", help="stay in the foreground and log to standard error")
    result.add_argument("-V", "--version", action="version", version=f"smb3fs {version('smb3fs')}")
    return result


def main() -> int:
    """Mount, and return mount(8)'s exit status."""
    arguments, had_secret = without_secrets(os.environ)
    return run(arguments, os.path.basename(sys.argv[0]), had_secret=had_secret)


def run(arguments: Sequence[str], program: str, *, had_secret: bool = False) -> int:
    """Do what the command line asks for and return the exit status."""
    given = parser(program).parse_intermixed_args(arguments)

    def say(sentence: str) -> None:
        print(f"{program}: {sentence}", file=sys.stderr)

    try:
        options = _options(given)
    except OptionError as error:
        say(str(error))
        return USAGE
    except MountError as error:
        say(str(error))
        return OK if _nofail(given) else FAILURE
    if had_secret:
        say("the password could be read from the list of processes until now; use credentials=FILE")
    try:
        target = _target(given)
    except MountError as error:
        say(str(error))
        return OK if options.nofail else FAILURE
    log_to_stderr(options.verbose or given.verbose)
    for note in options.notes:
        if given.verbose or options.verbose:
            say(note)
    if given.fake:
        return OK
    serve = partial(_serve, options, target)
    if options.foreground or given.foreground:
        status, sentence = serve(lambda: None)
    else:
        status, sentence = detach(serve)
    if sentence:
        say(sentence)
    return OK if status == FAILURE and options.nofail else status


def _options(given: argparse.Namespace) -> MountOptions:
    """Turn the command line into options."""
    if given.namespace:
        raise OptionError("-N is refused: enter the namespace first, with nsenter(1)")
    text = ",".join([*given.options, *(["ro"] if given.read_only else [])])
    return parse_mount_options(
        given.source,
        text,
        environment=os.environ,
        cwd=os.getcwd(),
        is_root=os.geteuid() == 0,
        uid=os.getuid(),
        gid=os.getgid(),
        sloppy=given.sloppy,
        ask_password=_ask_password() if sys.stdin.isatty() else None,
    )


def _nofail(given: argparse.Namespace) -> bool:
    """Whether `nofail` stands among options that could not be read to their end."""
    return any("nofail" in text.split(",") for text in given.options)


def _target(given: argparse.Namespace) -> str:
    """Return the absolute path of the directory to mount on, or raise MountError."""
    # Only the parent is resolved: a mount that hangs there already must not hang us too.
    parent, name = os.path.split(os.path.abspath(str(given.target)))
    target = os.path.join(os.path.realpath(parent), name)
    if any(mount.mountpoint == target for mount in mounted_shares()):
        raise MountError(f"{target} has an smb3fs mount on it already; unmount that first")
    target = os.path.realpath(target)
    if not os.path.isdir(target):
        raise MountError(f"the mount point {target} is not a directory; create it first")
    return target


def _serve(options: MountOptions, target: str, ready: Callable[[], None]) -> tuple[int, str]:
    """Run the mount to its end and return the exit status with a sentence, which is empty if all went well."""
    try:
        trio.run(partial(run_mount, options, target, ready=ready))
    except (Smb3fsError, OSError) as error:
        return FAILURE, explain(error, options)
    return OK, ""


def _ask_password() -> Callable[[str], str]:
    """Return the way to ask for a password at this terminal: systemd's agent if there is one, else the terminal."""
    agent = shutil.which("systemd-ask-password")
    if agent is None:
        return getpass.getpass

    def ask(prompt: str) -> str:
        answer = subprocess.run([agent, prompt], stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode != 0:
            raise MountError("no password was given")
        return answer.stdout.removesuffix("\n")

    return ask
