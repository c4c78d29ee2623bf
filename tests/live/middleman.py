"""Somebody in between who changes messages: a proxy in front of the server, by frames, in threads of the test's."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

# [MS-SMB2] 2.2.1.2: Command and Flags in a header; 2.2.3: DialectCount and the dialects of a NEGOTIATE.
COMMAND = slice(12, 14)
FLAGS_OFFSET = 16
FLAG_SIGNED = 0x08
NEGOTIATE = 0
READ = 8
DIALECT_COUNT_OFFSET = 66
DIALECTS_OFFSET = 100

# A message with data in it.
LONG = 10_000

Alter = Callable[[bytearray], None]


def command_of(frame: bytearray) -> int:
    """The command of a message's first element."""
    return int.from_bytes(frame[COMMAND], "little")


def keep_only(*dialects: int) -> Alter:
    """Take every other dialect out of a NEGOTIATE, and the contexts that belong to 3.1.1."""

    def alter(frame: bytearray) -> None:
        if command_of(frame) == NEGOTIATE:
            struct.pack_into("<H", frame, DIALECT_COUNT_OFFSET, len(dialects))
            frame[DIALECTS_OFFSET:] = struct.pack(f"<{len(dialects)}H", *dialects)

    return alter


class Middleman:
    """Listens on an address of this machine; `to_server` and `to_client` change the messages that pass."""

    def __init__(self, server: str, *, to_server: Alter | None = None, to_client: Alter | None = None) -> None:
        self.to_server = to_server
        self.to_client = to_client
        self._server = server
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def cut_next(self) -> None:
        """Pass only the first half of the next long message to the server, and then reset the connection."""
        self._cut.set()

    def options(self) -> list[str]:
        """What makes a mount go through here."""
        return ["ip=127.0.0.1", f"port={self.port}"]

    def _accept(self) -> None:
        """Take connections until the end."""
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._server, 445), timeout=10)
                far.settimeout(None)
                self._sockets += [near, far]
                threading.Thread(target=self._pass, args=(near, far, "to_server"), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, "to_client"), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        """Pass messages on, changed."""
        with suppress(OSError), source.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                frame = bytearray(stream.read(int.from_bytes(head[1:], "big")))
                alter: Alter | None = getattr(self, direction)
                if alter is not None:
                    alter(frame)
                if direction == "to_server" and len(frame) > LONG and self._cut.is_set():
                    self._cut.clear()
                    sink.sendall(len(frame).to_bytes(4, "big") + frame[: len(frame) // 2])
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    source.close()  # with nothing to linger for, which is a reset
                    break
                sink.sendall(len(frame).to_bytes(4, "big") + frame)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
