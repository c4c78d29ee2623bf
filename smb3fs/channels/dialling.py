"""Connecting by TCP to a server that has several addresses, or is away and comes back at any moment.

An attempt begins every half second, at one address after the other, while the earlier ones still wait; the first that
is answered is taken. For the kernel repeats what is lost of a connection's beginning after 1, 3 and 7 seconds, and a
link that is back in between would be noticed that late. It also keeps an address that says nothing from costing more
than the half second. What a name stood for is remembered: who resolves names may be behind the same dead link.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from contextlib import suppress
from itertools import count
from typing import Any, Final, TypeAlias

import trio

from smb3fs.channels.half_open import HalfOpen
from smb3fs.channels.tcp import NO_LINGER, TcpTransport, tune

# Seconds between the beginnings of two attempts, and how long the answer of a resolver that was heard before is
# waited for.
STAGGER: Final = 0.5

# Family and address, as the socket module has them.
Address: TypeAlias = tuple[int, Any]


class Dialler:
    """Connects to one name again and again, and learns which of its addresses do."""

    def __init__(self, host: str, port: int, source: str | None = None, beside: Dialler | None = None) -> None:
        """`source` is the local address to connect from; addresses of the other family are passed over then.

        `beside` is another dialler to the same server: when either has a connection, the server hears us.
        """
        self.host = host
        self._port = port
        self._source = source
        self._known: list[Address] = []
        # Where else the same server was found.
        self._learned: list[Address] = []
        # The address that answered last, which comes first the next time, or last if no session came of it.
        self._last: Address | None = None
        self._disappointing = False
        # Sockets of connections that were given up while the server could not be told.
        self._abandoned: list[socket.socket] = beside._abandoned if beside is not None else []
        self.half_open: HalfOpen = beside.half_open if beside is not None else HalfOpen()
        """Connections that were reset, of which the server may not have learned."""

    async def connect(self, *, attempt_timeout: float) -> TcpTransport:
        """Connect to the first address that answers.

        Each address gets at least `attempt_timeout` seconds. Raises OSError with the errno of the last failure
        (socket.gaierror where the name does not resolve).
        """
        await self._resolve()
        race = _Race(self._ordered(), self._source)
        sock, self._last = await race.run(attempt_timeout)
        self._disappointing = False
        self._reset_abandoned()
        return TcpTransport(sock, self._abandoned.append, self.half_open.note)

    def _reset_abandoned(self) -> None:
        """End the connections that were given up, now that the server hears us.

        For one that it believes in it waits for minutes: Samba keeps the process that serves it, hands our next
        connection to that one, and does not give back what was open in a process that is still there.
        """
        for sock in self._abandoned:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            sock.close()
        self._abandoned.clear()

    def disappointed(self) -> None:
        """Take notice that no session came of the last connection: other addresses come first the next time."""
        self._disappointing = True
        if self._last in self._learned:
            self._learned.remove(self._last)

    def learn(self, other: Dialler) -> None:
        """Try where another dialler has found the same server, too: what its name stands for may be out of reach."""
        if other._last is not None and other._last not in self._learned:
            self._learned.append(other._last)

    async def _resolve(self) -> None:
        """Find the addresses; what was found before will do where that fails or takes too long."""
        wanted = socket.AF_UNSPEC if self._source is None else _family(self._source)
        with trio.move_on_after(STAGGER if self._known else math.inf):
            try:
                found = await trio.socket.getaddrinfo(self.host, self._port, wanted, type=socket.SOCK_STREAM)
            except OSError:
                if not self._known:
                    raise
            else:
                self._known = [(family, address) for family, _, _, _, address in found] or self._known

    def _ordered(self) -> list[Address]:
        """Return the addresses in the order in which to try them."""
        every = [*self._known, *(address for address in self._learned if address not in self._known)]
        if self._last not in every:
            return every
        others = [address for address in every if address != self._last]
        return [*others, self._last] if self._disappointing else [self._last, *others]


class _Race:
    """Attempts that run at the same time until one is through."""

    def __init__(self, addresses: list[Address], source: str | None) -> None:
        self._addresses = addresses
        self._source = source
        self._running = 0
        self._won: tuple[socket.socket, Address] | None = None
        self._failure = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def run(self, attempt_timeout: float) -> tuple[socket.socket, Address]:
        """Return a connected socket and the address at its other end."""
        if not self._addresses:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        with trio.move_on_after(attempt_timeout + STAGGER * (len(self._addresses) - 1)):
            async with trio.open_nursery() as nursery:
                await self._begin_attempts(nursery)
        if self._won is None:
            raise self._failure
        return self._won

    async def _begin_attempts(self, nursery: trio.Nursery) -> None:
        """Begin attempts until none of them can succeed any more; one that does ends the nursery."""
        for number in count():
            due = trio.current_time() + STAGGER
            failed = trio.Event()
            self._running += 1
            nursery.start_soon(self._attempt, self._addresses[number % len(self._addresses)], failed, nursery)
            with trio.move_on_at(due):
                await failed.wait()
                # The first time around the next address is tried at once, after that none of them is hammered.
                if number + 1 >= len(self._addresses):
                    if not self._running:
                        return
                    await trio.sleep_until(due)

    async def _attempt(self, address: Address, failed: trio.Event, nursery: trio.Nursery) -> None:
        """Connect to one address, and end the race if that works."""
        family, where = address
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            tune(sock)
            if self._source is not None:
                await sock.bind((self._source, 0))
            await sock.connect(where)
            if self._won is None:
                self._won = (socket.socket(fileno=sock.detach()), address)
                nursery.cancel_scope.cancel()
        except OSError as error:
            self._failure = error
        finally:
            self._running -= 1
            failed.set()
            sock.close()


def _family(address: str) -> socket.AddressFamily:
    """Return the family of an address literal."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
