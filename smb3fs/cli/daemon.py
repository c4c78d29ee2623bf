"""Going into the background: the parent stays until the mount is live or has failed, and exits with what it heard.

The fork comes before any thread and before trio, neither of which survives one.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

# Where syslog listens, as every libc assumes.
SYSLOG: Final = "/dev/log"
FORMAT: Final = "smb3fs[%(process)d]: %(levelname)s: %(message)s"
# The first byte of the child's word to the parent: the exit status; behind it the sentence for the terminal.
LIVE: Final = 0
# The child ended without a word, which is a bug of ours or a kill: mount(8)'s "internal error".
SILENT: Final = 4


def log_to_stderr(verbose: bool) -> None:
    """Send the log to standard error: warnings and worse, or everything that is worth a line."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )


def _log_to_syslog() -> None:
    """Send the log to syslog instead of a terminal that nobody watches any more; without syslog it is not kept."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    syslog: logging.Handler
    try:
        syslog = logging.handlers.SysLogHandler(SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
    except OSError:  # a container without syslog; `smb3fs status` has the last events all the same
        syslog = logging.NullHandler()
    syslog.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(syslog)
    root.setLevel(logging.INFO)


def detach(serve: Callable[[Callable[[], None]], tuple[int, str]]) -> tuple[int, str]:
    """Run `serve` in a child process of its own session; return its word in the parent.

    `serve` is given what it has to call once the mount is live, and returns an exit status and a sentence. In the
    child this function does not return.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            word = pipe.read()
        if not word:
            return SILENT, "the daemon ended without a word; run with --foreground to see why"
        return word[0], word[1:].decode(errors="replace")
    os.close(reader)
    status = SILENT
    try:
        os.setsid()
        os.chdir("/")  # keeps no directory busy; every path of ours is absolute by now
        status = _run(serve, writer)
    except BaseException:
        log.critical("the mount ended by a bug of smb3fs", exc_info=True)
    finally:
        logging.shutdown()
        os._exit(status)


def _run(serve: Callable[[Callable[[], None]], tuple[int, str]], writer: int) -> int:
    """Serve in the child; a failure before the mount is live is told to the parent, a later one to the log."""
    live = False

    def ready() -> None:
        nonlocal live
        live = True
        _become_quiet(writer)

    status, sentence = serve(ready)
    if not live:
        os.write(writer, bytes([status]) + sentence.encode(errors="replace"))
    elif sentence:
        log.error("%s", sentence)
    return status


def _become_quiet(writer: int) -> None:
    """Tell the parent that the mount is live, and let go of the terminal."""
    _log_to_syslog()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.write(writer, bytes([LIVE]))
    os.close(writer)
