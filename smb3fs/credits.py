"""The credit account of one connection: which message ids may be used, and by whom ([MS-SMB2] 3.2.1.2, 3.2.4.1.2).

Theory of operation
-------------------
A connection begins with one credit and with message id 0. A request with a charge of n spends n credits and takes n
consecutive ids, of which its header carries the first. Credits come back only as the server grants them: each answer,
interim or final, carries a number. So four figures describe the account:

    available   credits to spend now
    in flight   credits spent on requests whose final answer has not come
    window      available + in flight: what the server lets us have at once; it grows or shrinks as an answer grants
                more or less than its request was charged, and never exceeds 65535
    reserve     the part of `available` that ordinary requests leave alone

Ids are taken in order and none is skipped or given back, for a server moves its own window on only when the lowest id
has arrived: who takes ids sends them, at once and in that order. CANCEL takes neither credit nor id: it carries those
of the request that it cancels.

The reserve is for what frees resources or keeps the connection alive: CLOSE, ECHO, the acknowledgement of a lease
break. Without it, requests that the server holds back until we acknowledge a break could use up every credit, and the
acknowledgement would have to wait for them. It is at most half of the window, so that a small window still works, and
it counts for nothing while nothing is in flight, so that whatever fits the window goes out some time: with an idle
connection there is nobody to wait for. A request larger than the window never goes out; `window` tells its author.

Each request asks for its own charge again and for what the window lacks to `target`. Those that are in flight ask for
the same lack, so the window may come to exceed the target; a server grants what it thinks fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# CreditRequest and CreditResponse have 16 bits ([MS-SMB2] 2.2.1.2); a window beyond that is of no use to anyone, and a
# server that grants more, again and again, gets no more than this out of us.
MAX_WINDOW: Final = 0xFFFF
# What Samba allows a client by default (`smb2 max credits`): 512 MiB of reading or writing in flight.
DEFAULT_TARGET: Final = 8192
# Our own choice: more than the urgent requests that usually come together, little beside the window of any server.
DEFAULT_RESERVE: Final = 8


class CreditAccount:
    """Message ids and credits of one connection."""

    __slots__ = ("_available", "_in_flight", "_limited", "_next_id", "_reserve", "_target")

    def __init__(self, *, reserve: int = DEFAULT_RESERVE, target: int = DEFAULT_TARGET) -> None:
        self._reserve = reserve
        self._target = min(target, MAX_WINDOW)
        self._limited = False
        self._available = 1
        self._in_flight = 0
        self._next_id = 0

    def limit(self, target: int) -> None:
        """Ask the server for no more credits than this from now on."""
        self._target = min(target, self._target)
        self._limited = True

    @property
    def next_id(self) -> int:
        """The message id that the next request takes."""
        return self._next_id

    @property
    def available(self) -> int:
        """The credits that can be spent now, the reserve included."""
        return self._available

    @property
    def in_flight(self) -> int:
        """The credits spent on requests whose final answer has not come."""
        return self._in_flight

    @property
    def window(self) -> int:
        """The credits that the server lets us have at once; a request or chain that costs more cannot be sent."""
        return self._available + self._in_flight

    def try_take(self, charge: int, *, urgent: bool = False) -> int | None:
        """Take the ids of one request and return the first of them, or None as long as there are too few credits."""
        ids = self.try_take_chain((charge,), urgent=urgent)
        return None if ids is None else ids[0]

    def try_take_chain(self, charges: Sequence[int], *, urgent: bool = False) -> list[int] | None:
        """Take the ids of a compound's elements, all or none of them, and return the first id of each."""
        if not charges or min(charges) < 1:
            raise ValueError(f"{list(charges)} are no charges: each request costs at least one credit")
        cost = sum(charges)
        if cost > self._available - (0 if urgent else self._kept_back()):
            return None
        self._available -= cost
        self._in_flight += cost
        ids = []
        for charge in charges:
            ids.append(self._next_id)
            self._next_id += charge
        return ids

    def _kept_back(self) -> int:
        """Return what an ordinary request must leave."""
        if not self._in_flight:
            return 0
        return min(self._reserve, self.window // 2)

    def grant(self, credits: int, *, settled: int) -> None:
        """Take in what an answer grants; `settled` is the charge of the request that it ends, 0 for an interim one."""
        if not 0 <= settled <= self._in_flight:
            raise ValueError(f"an answer settles {settled} credits, {self._in_flight} are in flight")
        self._in_flight -= settled
        self._available = min(self._available + credits, MAX_WINDOW - self._in_flight)

    def request_amount(self, charge: int) -> int:
        """Return the number of credits to ask for in the header of a request that was charged `charge`."""
        # Samba grants the charge and what was asked for less one, so who wants no more than so many has to ask for less
        # than the charge once there are more.
        least = 1 if self._limited else charge
        return min(max(charge + self._target - self.window, least), MAX_WINDOW)
