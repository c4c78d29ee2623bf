"""mount.smb3fs: what mount(8) calls, and what a person may call instead (mount(8), "External helpers")."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Final, NoReturn, Protocol

from smb3fs.cli.argv import without_secrets
from smb3fs.cli.daemon import FAILURE, INTERRUPTED, OK, USAGE, Outcome, detach
from smb3fs.cli.logs import SYSLOG, log_to_syslog, log_to_terminal
from smb3fs.cli.notify import notify
from smb3fs.errors import MountError, OptionError
from smb3fs.options import MountOptions, parse_mount_options, split_options

log = logging.getLogger(__name__)

# Exists where systemd runs, as sd_booted(3) checks.
SYSTEMD: Final = "/run/systemd/system"


class RunMount(Protocol):
    """The composition root's `run_mount`."""

    def __call__(
        self, options: MountOptions, target: str, *, ready: Callable[[], None], ending: Callable[[], None]
    ) -> Awaitable[None]:
        """Mount, call `ready` once the mount is live and `ending` when it no longer is, return after the farewell."""


class Parser(argparse.ArgumentParser):
    """argparse with mount(8)'s exit status for wrong usage, and without abbreviations, which `argv` does not know."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **keywords})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and exit with 1."""
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(USAGE)


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = Parser(prog=program, description="Mount an SMB3 share.", epilog="The options are in mount.smb3fs(8).")
    add = result.add_argument
    add("source", help="//server/share[/directory]")
    add("target", help="the directory to mount on")
    add("-o", "--options", action="append", default=[], metavar="OPTIONS", help="options, separated by commas")
    add("-r", "--read-only", action="store_true", help="mount read-only, as -o ro does")
    add("-w", "--rw", action="store_true", help="mount read-write (the default), as -o rw does")
    add("-s", "--sloppy", action="store_true", help="ignore unknown options")
    add("-f", "--fake", action="store_true", help="check the arguments and read the credentials, but do not mount")
    add("-n", "--no-mtab", action="store_true", help="accepted; there is no mtab to write")
    add("-v", "--verbose", action="store_true", help="say more, here and in the log")
    add("-t", "--types", metavar="TYPE", help="accepted; the type by which mount(8) found this program")
    add("-N", "--namespace", metavar="NS", help="refused; enter the namespace with nsenter(1)")
    add("-d", "--foreground", action="store_true", help="stay in the foreground and log to standard error")
    add("-V", "--version", action="version", version=f"%(prog)s {version('smb3fs')}")
    return result


def main() -> int:
    """Mount, and return mount(8)'s exit status."""
    arguments, had_secret = without_secrets(os.environ)
    return run(arguments, os.path.basename(sys.argv[0]), had_secret=had_secret)


def run(arguments: Sequence[str], program: str, *, had_secret: bool = False, run_mount: RunMount | None = None) -> int:
    """Do what the command line asks for and return the exit status; `run_mount` stands in for the real one."""
    given = parser(program).parse_intermixed_args(arguments)
    status, sentence = _mount(given, program, had_secret, run_mount)
    if sentence:
        print(f"{program}: {sentence}", file=sys.stderr)
        if given.foreground:
            notify(os.environ, STATUS=sentence)
    # With nofail an absent server is no failure, a mistyped option still is.
    return OK if status == FAILURE and _nofail(given.options) else status


def _mount(given: argparse.Namespace, program: str, had_secret: bool, run_mount: RunMount | None) -> Outcome:
    """Mount as the command line says; return how it ended, or that the mount is live."""
    try:
        options = _options(given)
        target = _target(given.target)
    except OptionError as error:
        return Outcome(USAGE, str(error))
    except MountError as error:
        return Outcome(FAILURE, str(error))
    if given.fake:
        return Outcome(OK, "the arguments are in order; as -f demands, nothing was mounted" if given.verbose else "")
    level = logging.DEBUG if given.verbose else logging.INFO
    if given.foreground:
        log_to_terminal(program, level)
        return _announced(partial(_serve, options, target, run_mount), options, target, had_secret)
    # A failure is one sentence on the terminal, unless more was asked for; warnings wait for success.
    log_to_terminal(program, level if given.verbose else logging.CRITICAL)
    return detach(partial(_serve, options, target, run_mount), partial(_go_quiet, options, program, level, had_secret))


def _announced(serve: partial[Outcome], options: MountOptions, target: str, had_secret: bool) -> Outcome:
    """Serve in the foreground, and tell systemd if it has asked for that."""

    def ready() -> None:
        _report(options, had_secret)
        notify(os.environ, READY="1", STATUS=f"{options.fsname} is mounted at {target}")

    notify(os.environ, STATUS=f"Connecting to {options.server}")
    return serve(ready, ending=lambda: notify(os.environ, STOPPING="1", STATUS="Taking leave of the server"))


def _serve(
    options: MountOptions,
    target: str,
    run_mount: RunMount | None,
    ready: Callable[[], None],
    *,
    ending: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run the mount to its end and say how that was."""
    # Imported as late as this because `argv` has to act before anything that takes its time.
    try:
        import trio

        from smb3fs.cli.explain import cause_of, explain, is_foreseen

        if run_mount is None:
            from smb3fs import mount

            run_mount = mount.run_mount
    except ImportError as error:
        return Outcome(FAILURE, f"smb3fs is not installed completely ({error}); install it again with what it needs")
    try:
        trio.run(partial(run_mount, options, target, ready=ready, ending=ending))
    except KeyboardInterrupt:  # before the mount listens to signals
        return Outcome(INTERRUPTED, "interrupted; nothing is mounted")
    except Exception as error:
        if not is_foreseen(cause_of(error)):
            log.error("the mount ended by an unexpected error", exc_info=True)
        return Outcome(FAILURE, explain(error, options))
    return Outcome(OK, "")


def _report(options: MountOptions, had_secret: bool) -> None:
    """Log what is to be said about the options."""
    for note in options.notes:
        log.info("%s", note)
    for warning in options.warnings:
        log.warning("%s", warning)
    if had_secret:
        log.warning("the password stood in the list of processes for a moment; use credentials=FILE")


def _go_quiet(options: MountOptions, program: str, level: int, had_secret: bool) -> None:
    """Say on the terminal what somebody should know, and send the log to syslog from here on."""
    log_to_terminal(program, level if level == logging.DEBUG else logging.WARNING)
    _report(options, had_secret)
    if not os.path.exists(SYSLOG):
        log.warning(
            "there is no syslog at %s: what the mount has to say is lost, unless it runs in --foreground", SYSLOG
        )
    log_to_syslog(level)
    _report(options, had_secret)


def _options(given: argparse.Namespace) -> MountOptions:
    """Turn the command line into options."""
    if given.namespace:
        raise OptionError("-N is refused: enter the namespace first, with nsenter(1)")
    words = [*given.options, *(["ro"] if given.read_only else []), *(["rw"] if given.rw else [])]
    return parse_mount_options(
        given.source,
        ",".join(words),
        environment=os.environ,
        cwd=os.getcwd(),
        is_root=os.geteuid() == 0,
        uid=os.getuid(),
        gid=os.getgid(),
        sloppy=given.sloppy,
        ask_password=(lambda _: "") if given.fake else _ask_password if sys.stdin.isatty() else None,
    )


def _nofail(options: Sequence[str]) -> bool:
    """Whether nofail is among the options, which may be wrong otherwise."""
    try:
        return any(item.name == "nofail" for item in split_options(",".join(options)))
    except OptionError:
        return False


def _target(path: str) -> str:
    """Return the absolute path of the directory to mount on, or raise MountError."""
    from smb3fs.status import mounted_shares

    taken = {mount.mountpoint for mount in mounted_shares()}
    # A mount of ours that hangs there already must not hang us too: only its parent is looked at before the list.
    target = os.path.abspath(path)
    if target not in taken:
        parent, name = os.path.split(target)
        target = os.path.join(os.path.realpath(parent), name)
    if target not in taken:
        target = os.path.realpath(target)
    if target in taken:
        raise MountError(f"{target} is mounted already by smb3fs; unmount it first (umount {target})")
    try:
        os.stat(os.path.join(target, "."))
    except OSError as error:
        raise MountError(f"cannot mount on {target}: {error.strerror}; name a directory that exists") from None
    return target


def _ask_password(prompt: str) -> str:
    """Ask for a password at this terminal, by systemd's agent where there is one."""
    agent = shutil.which("systemd-ask-password") if os.path.isdir(SYSTEMD) else None
    try:
        if agent is None:
            return getpass.getpass(prompt)
        answer = subprocess.run([agent, prompt], stdout=subprocess.PIPE, text=True, check=False)
    except (EOFError, KeyboardInterrupt):
        raise MountError("no password was given; nothing is mounted") from None
    if answer.returncode != 0:
        raise MountError("no password was given; nothing is mounted")
    return answer.stdout.removesuffix("\n")
