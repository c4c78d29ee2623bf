"""A relay between the mount and the server that cuts anywhere: in the middle of a frame, after the server has heard a
request and before its answer is through, or with what the client said held back until it is of no use any more.

It listens inside the server's network namespace, so that what befalls the link befalls its clients' connections.
"""

from __future__ import annotations

import ctypes
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Final, Self

from lab.network import Network

PORT: Final = 1445
CLONE_NEWNET: Final = 0x40000000
PIECE: Final = 65_536
RESET: Final = struct.pack("ii", 1, 0)


class Way(Enum):
    """A direction."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


@dataclass(eq=False)
class Side:
    """One socket of a pair, and what waits to be sent to it."""

    sock: socket.socket
    way: Way
    """Where to lies what comes out of this socket."""
    other: Side | None = None
    pending: bytearray = field(default_factory=bytearray)
    left: int | None = None
    """How many more bytes may come out of it before the pair is cut; None stands for no cut."""
    reset: bool = True
    """Whether that cut is a reset, or an end in good order in the middle of a frame."""
    held: bool = False
    """Whether what comes out of it stays here."""
    stored: bytearray = field(default_factory=bytearray)
    address: str = ""
    """By which of the server's addresses the client has come."""


class Proxy:
    """The relay, in a thread of its own; a context manager."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sides: set[Side] = set()
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._ended = False
        self._listener: socket.socket | None = None
        self._due: list[tuple[float, Side, bytes]] = []
        self._aim: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        if self._failure is not None:
            raise RuntimeError(f"the proxy did not start: {self._failure}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join(10)

    # -- what the faults ask for

    def aim(self, addresses: Iterable[str]) -> None:
        """Do what follows to the connections that came by these addresses of the server, by any if there are none."""
        with self._lock:
            self._aim = frozenset(addresses)

    def _aimed_at(self) -> list[Side]:
        """The sockets that it is about."""
        return [side for side in self._sides if not self._aim or side.address in self._aim]

    def cut_after(self, way: Way, count: int, *, reset: bool) -> int:
        """Cut every connection after so many more bytes in one direction; how many there are."""
        with self._lock:
            sides = [side for side in self._aimed_at() if side.way is way]
            for side in sides:
                side.left, side.reset = count, reset
        return len(sides)

    def to_be_cut(self) -> int:
        """How many connections have not come to the byte that they are to be cut at."""
        with self._lock:
            return sum(side.left is not None for side in self._sides)

    def cut_what_waits(self) -> None:
        """Cut those now."""
        with self._lock:
            for side in [side for side in self._sides if side.left is not None]:
                self._cut_pair(side, reset=side.reset)

    def cut(self) -> int:
        """Cut every connection now."""
        with self._lock:
            sides = self._aimed_at()
            for side in sides:
                self._close(side)
        return len(sides)

    def hold(self, way: Way) -> int:
        """Keep here what goes in one direction."""
        with self._lock:
            sides = [side for side in self._aimed_at() if side.way is way]
            for side in sides:
                side.held = True
        return len(sides)

    def keeps_any(self) -> bool:
        """Whether anything is kept here."""
        with self._lock:
            return any(side.stored for side in self._aimed_at())

    def cut_clients(self, later: float) -> int:
        """Cut the clients' connections, and have the server hear `later` seconds after what was held of them."""
        with self._lock:
            sides = [side for side in self._sides if side.way is Way.TO_SERVER]
            for side in sides:
                if side.other is not None:
                    self._due.append((time.monotonic() + later, side.other, bytes(side.stored)))
                    side.other.other = None
                self._close(side)
        return len(sides)

    def holds_back(self) -> bool:
        """Whether the server has yet to hear something of connections that are cut."""
        with self._lock:
            return bool(self._due)

    # -- the thread

    def _run(self) -> None:
        """Relay until the end."""
        try:
            self._enter()
            # On each link's address where there are several.
            self._listener = socket.create_server(("" if self._network.links else self._network.server_address, PORT))
        except OSError as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._ended:
            for key, events in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept(self._listener)
                    elif key.data in self._sides:
                        self._serve(key.data, events)
            with self._lock:
                self._deliver()
        with self._lock:
            self._close_all()
            self._listener.close()
            self._selector.close()

    def _enter(self) -> None:
        """Move this thread, and no other, into the server's namespace."""
        library = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self._network.namespace}") as namespace:
            if library.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _accept(self, listener: socket.socket) -> None:
        """Take a connection, and make the one to the server that it continues in."""
        with suppress(OSError):
            near, _ = listener.accept()
            address = near.getsockname()[0]
            try:
                far = socket.create_connection((address, 445), timeout=1)
            except OSError:
                near.close()
                return
            one, two = Side(near, Way.TO_SERVER, address=address), Side(far, Way.TO_CLIENT, address=address)
            one.other, two.other = two, one
            for side in (one, two):
                side.sock.setblocking(False)
                side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sides.add(side)
                self._selector.register(side.sock, selectors.EVENT_READ, side)

    def _serve(self, side: Side, events: int) -> None:
        """Move what has come, and what was waiting."""
        if events & selectors.EVENT_WRITE:
            self._flush(side)
        if side in self._sides and events & selectors.EVENT_READ:
            self._receive(side)

    def _receive(self, side: Side) -> None:
        """Take what a socket has and pass it on, keep it, or cut in the middle of it."""
        try:
            data = side.sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            # As a network does with a reset: what was not through before it does not come behind it.
            self._cut_pair(side, reset=True)
            return
        if not data:
            self._cut_pair(side, reset=False)
        elif side.held:
            side.stored += data
        elif side.other is not None:
            if side.left is not None:
                data, side.left = data[: side.left], side.left - len(data)
            side.other.pending += data
            self._flush(side.other)
            if side.left is not None and side.left <= 0 and side in self._sides:
                self._cut_pair(side, reset=side.reset)

    def _flush(self, side: Side) -> None:
        """Send what waits; it stays bounded by what a client may have outstanding."""
        try:
            while side.pending:
                del side.pending[: side.sock.send(side.pending)]
        except BlockingIOError:
            pass
        except OSError:
            self._cut_pair(side)
            return
        self._selector.modify(side.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if side.pending else 0), side)

    def _deliver(self) -> None:
        """Let the server hear what is due, and nothing after it."""
        now = time.monotonic()
        due = [entry for entry in self._due if entry[0] <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for _, side, data in due:
            if side in self._sides:
                with suppress(OSError):
                    side.sock.setblocking(True)
                    side.sock.settimeout(1)
                    side.sock.sendall(data)
                self._close(side, reset=False)

    def _cut_pair(self, side: Side, *, reset: bool = True) -> None:
        """Close a connection on both sides."""
        self._close(side, reset=reset)
        if side.other is not None:
            self._close(side.other, reset=reset)

    def _close_all(self) -> int:
        """Close every socket; how many there were."""
        sides = list(self._sides)
        for side in sides:
            self._close(side)
        return len(sides)

    def _close(self, side: Side, *, reset: bool = True) -> None:
        """Close one socket, with a reset or in good order."""
        if side not in self._sides:
            return
        self._sides.discard(side)
        self._selector.unregister(side.sock)
        with suppress(OSError):
            if side.pending and not reset:
                side.sock.setblocking(True)
                side.sock.settimeout(0.2)
                side.sock.sendall(side.pending)
            if reset:
                side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        side.sock.close()


def somewhere(chance: random.Random) -> int:
    """After how many bytes to cut: within a header as often as within a megabyte."""
    return int(2 ** chance.uniform(0, 20))
