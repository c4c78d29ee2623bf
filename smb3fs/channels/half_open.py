"""Connections that we have reset and the server still believes in, as the reset was lost on a dead path.

The server keeps such a one until its own keep-alive finds out, which takes hours where nobody has set it, and a link
that comes and goes leaves one behind each time. When the path is back it can be told: a SYN from the same port belongs
to no connection that the server could begin, so its kernel asks by an acknowledgement whether we mean the old one
(RFC 9293, 3.10.7.4); ours knows of none, and answers with a reset that the server's kernel believes, for it bears the
number that was asked about. No more is needed of such a socket than that it begins to connect.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any, Final

import trio

# How many are remembered, and for how many seconds the server is given time to ask: well below the second after which
# the kernel repeats the SYN, which would begin a connection.
MOST: Final = 64
PATIENCE: Final = 0.4
# linux/tcp.h: the state is the first byte of tcp_info, and what it is as long as nobody has ended the connection.
TCP_ESTABLISHED: Final = 1
# Closing a socket resets it.
NO_LINGER: Final = struct.pack("ii", 1, 0)


class HalfOpen:
    """Those to one server."""

    def __init__(self) -> None:
        self._ends: dict[tuple[Any, Any], socket.AddressFamily] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def note(self, sock: socket.socket) -> None:
        """Remember a connection that is about to be reset, if the server has not ended it."""
        with suppress(OSError):
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED:
                self._ends[sock.getsockname(), sock.getpeername()] = sock.family
                while len(self._ends) > MOST:
                    del self._ends[next(iter(self._ends))]

    async def end(self, source: str, target: str) -> None:
        """Have the server end those between two addresses, which can hear each other again."""
        sockets = []
        for ends, family in tuple(self._ends.items()):
            if (ends[0][0], ends[1][0]) == (source, target):
                del self._ends[ends]
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                sockets.append(sock)
                with suppress(OSError):  # the port is another one's by now, which means that the server knows
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    sock.bind(ends[0])
                    sock.connect_ex(ends[1])
        try:
            if sockets:
                await trio.sleep(PATIENCE)
        finally:
            for sock in sockets:
                sock.close()
