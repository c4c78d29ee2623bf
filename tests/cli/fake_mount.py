"""mount.smb3fs with a stand-in for the mount, whose conduct the variable CONDUCT names; to be run as a program."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from smb3fs.cli import mount_command
from smb3fs.cli.argv import without_secrets
from smb3fs.errors import MountError, Status, StatusError
from smb3fs.options import MountOptions


async def run_mount(
    options: MountOptions, target: str, *, ready: Callable[[], None], ending: Callable[[], None]
) -> None:
    """Behave as CONDUCT says; what is worth knowing goes into the file REPORT."""
    conduct, report = os.environ["CONDUCT"], Path(os.environ["REPORT"])
    if conduct == "refuse":
        raise StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")
    if conduct == "refuse in a group":
        async with trio.open_nursery():
            raise MountError("the share is a printer")
    if conduct == "bug":
        raise ZeroDivisionError("division by zero")
    if conduct == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if conduct == "end":
        return
    if conduct == "hang":
        _write(report, [str(os.getpid())])
        await trio.sleep_forever()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        ready()
        _write(report, _describe(options, target))
        if conduct == "fail later":
            raise MountError("it broke")
        async for _ in signals:
            ending()
            return


def _describe(options: MountOptions, target: str) -> list[str]:
    """What a test wants to know of the daemon, one thing a line."""
    descriptors = {int(name): _target(name) for name in os.listdir("/proc/self/fd")}
    return [
        str(os.getpid()),
        os.getcwd(),
        target,
        repr(options.credentials.password),
        str(os.getsid(0) == os.getpid()),
        repr(Path("/proc/self/cmdline").read_bytes().split(b"\0")),
        repr(sorted(os.environ)),
        repr({number: place for number, place in descriptors.items() if place}),
    ]


def _write(report: Path, lines: list[str]) -> None:
    """Let the report appear with all that is in it."""
    report.with_suffix(".tmp").write_text("\n".join(lines))
    report.with_suffix(".tmp").rename(report)


def _target(number: str) -> str:
    """Where a descriptor leads; empty for the kernel objects that trio uses and for what was closed meanwhile."""
    try:
        place = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""
    return "" if place.startswith(("anon_inode:", "socket:")) or place.endswith("/fd") else place


if __name__ == "__main__":
    if os.environ["CONDUCT"] == "show arguments":
        arguments, had_secret = without_secrets(os.environ)
        print(repr([arguments, had_secret]))
        print(repr(Path("/proc/self/cmdline").read_bytes().split(b"\0")))
        print(repr(Path("/proc/self/environ").read_bytes().split(b"\0")))
        print(repr([sys.flags.no_user_site, sys.flags.utf8_mode]))
        sys.exit(0)
    given = without_secrets(os.environ)
    sys.exit(mount_command.run(given.words, "mount.smb3fs", had_secret=given.had_secret, run_mount=run_mount))
