"""Going into the background: the parent stays until the mount is live or has failed, and exits with what it heard.

The fork comes before any thread and before trio, neither of which survives one. Between the two processes runs a pipe
with at most one word: a byte that is the exit status, and behind it the sentence for the terminal. The end of the pipe
without a word means that the child died.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Final, NamedTuple

from smb3fs.errors import MountError

log = logging.getLogger(__name__)

# Exit statuses of mount(8): all is well, wrong usage, a system call failed, interrupted, the mount failed.
OK: Final = 0
USAGE: Final = 1
SYSTEM: Final = 2
INTERRUPTED: Final = 8
FAILURE: Final = 32


class Outcome(NamedTuple):
    """How a mount command ends: mount(8)'s exit status, and one sentence, empty where there is nothing to say."""

    status: int
    sentence: str


# Runs a mount to its end; it is given what it has to call once the mount is live.
Serve = Callable[[Callable[[], None]], Outcome]


def detach(serve: Serve, on_live: Callable[[], None]) -> Outcome:
    """Run `serve` in a process of its own session; return when the mount is live, or has failed.

    `on_live` is called in the child, which still has the terminal then and loses it right afterwards. The child does
    not return from here.
    """
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        return Outcome(SYSTEM, f"no process can be started for the mount: {error.strerror}")
    if child == 0:
        status = FAILURE
        try:
            status = _live_in_background(serve, on_live, writer)
        finally:
            os._exit(status)
    os.close(writer)
    return _hear(child, reader)


def _hear(child: int, reader: int) -> Outcome:
    """Wait for the child's word; signals that would end this process end the child first."""
    interrupted = False

    def end_child(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        os.kill(child, signal.SIGTERM)

    old = {number: signal.signal(number, end_child) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with open(reader, "rb") as pipe:
            word = pipe.read()
        if word and word[0] == OK:
            return Outcome(OK, "")
        # Failed or dead: see it gone before we go, so that nothing of the mount is left when the command returns.
        _, ending = os.waitpid(child, 0)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if interrupted:
        return Outcome(INTERRUPTED, "interrupted; nothing is mounted")
    if word:
        return Outcome(word[0], word[1:].decode(errors="replace"))
    code = os.waitstatus_to_exitcode(ending)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return Outcome(FAILURE, f"the daemon {how} before the mount was live; --foreground shows what it does")


def _live_in_background(serve: Serve, on_live: Callable[[], None], writer: int) -> int:
    """Be the child: serve, leave the terminal's session, and tell the parent how it went; return the exit status."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")  # keeps no directory busy; every path of ours is absolute by now
    _close_all_but(writer)
    live = False

    def ready() -> None:
        nonlocal live
        on_live()
        # Not before: to the kernel's automounter a process of another group than systemd's is one that wants to use the
        # mountpoint, and has to wait until there is something mounted on it.
        os.setsid()
        _leave_terminal()
        try:
            os.write(writer, bytes([OK]))
        except BrokenPipeError:
            raise MountError("the command that mounts was killed before the mount was live") from None
        os.close(writer)
        live = True

    status, sentence = serve(ready)
    if not live:
        if status == OK:
            status, sentence = FAILURE, "the mount was taken down before it was live"
        os.write(writer, bytes([status]) + sentence.encode(errors="replace"))
    elif sentence:
        log.error("%s", sentence)
    return status


def _close_all_but(kept: int) -> None:
    """Close what the caller has left open: whoever waits for the end of such a pipe must not wait for the mount's."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own descriptor, which is closed by now
                continue


def _leave_terminal() -> None:
    """Put /dev/null in the place of the standard streams."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
