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
_SEVERITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


class SyslogHandler(logging.Handler):
    """Sends records to the local syslog, and loses them rather than wait for it: the mount's event loop calls this.

    The handler of the standard library blocks while the log daemon does not read.
    """

    def __init__(self, address: str = SYSLOG) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, each line of it as a line of the log."""
        severity = next((number for level, number in _SEVERITIES if record.levelno >= level), _DEBUG)
        for line in self.format(record).splitlines():
            datagram = f"<{_FACILITY << 3 | severity}>smb3fs[{os.getpid()}]: {line}"
            with suppress(OSError):
                self._send(datagram.encode(errors="backslashreplace"))

    def _send(self, datagram: bytes) -> None:
        """Send one datagram, connecting first where there is no log daemon at the other end (any more)."""
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            raise
        except OSError:
            self._socket.connect(self._address)
            self._socket.send(datagram)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def log_to_terminal(program: str, level: int) -> None:
    """Send the log to standard error, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    _use(handler, level)


def log_to_syslog(level: int) -> None:
    """Send the log to syslog, from `level` on."""
    handler = SyslogHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _use(handler, level)


def _use(handler: logging.Handler, level: int) -> None:
    """Make `handler` the only one of the program."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    handler.setLevel(level)
    # Other people's modules speak up from WARNING on, whatever we are asked to tell of ourselves.
    logging.getLogger("smb3fs").setLevel(level)
