"""Where the log goes: the terminal as long as somebody is there, syslog afterwards."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import suppress
from typing import Final

SYSLOG: Final = "/dev/log"
# RFC 3164 4.1.1: facility 3 is that of system daemons; the severities of our levels.
_FACILITY: Final = 3
_SEVERITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


class SyslogHandler(logging.Handler):
    """Sends records to the local syslog, and loses them rather than wait for it: the mount's event loop calls this.

    The handler of the standard library blocks when the log daemon does not read.
    """

    def __init__(self, address: str = SYSLOG) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with suppress(OSError):
            self._socket.connect(address)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, connecting again where the log daemon was restarted."""
        severity = next((number for level, number in _SEVERITIES if record.levelno >= level), 7)
        # A line of its own for each line of a traceback: a datagram is one line of the log.
        for line in self.format(record).splitlines():
            datagram = f"<{_FACILITY << 3 | severity}>smb3fs[{os.getpid()}]: {line}".encode(errors="backslashreplace")
            try:
                self._socket.send(datagram)
            except BlockingIOError:
                return
            except OSError:
                with suppress(OSError):
                    self._socket.connect(self._address)
                    self._socket.send(datagram)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def _replace(handler: logging.Handler, *, verbose: bool) -> None:
    """Make `handler` the only one of the program."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    logging.getLogger("smb3fs").setLevel(logging.DEBUG if verbose else logging.INFO)


def log_to_terminal(program: str, *, quiet: bool, verbose: bool) -> None:
    """Send the log to standard error; `quiet` leaves out what is no warning."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    if quiet:
        handler.setLevel(logging.WARNING)
    _replace(handler, verbose=verbose)


def log_to_syslog(what: str, *, verbose: bool) -> None:
    """Send the log to syslog, each line beginning with `what` is mounted."""
    handler = SyslogHandler()
    handler.setFormatter(logging.Formatter(f"{what}: %(message)s".replace("\n", " ")))
    _replace(handler, verbose=verbose)
