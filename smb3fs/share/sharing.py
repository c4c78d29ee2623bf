"""One open on the server for several of ours, where an open outlives its connection.

Samba 4.17 gives no durable open back of a file that has another one, even if both are of one client (it finds "more
than one entry"), so two programs with one log would lose it at every loss. Where persistent handles are kept every open
is given back by itself, and where nothing is kept there is nothing to win.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from smb3fs.channels.pool import Repeat
from smb3fs.errors import Smb3fsError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import SYNCHRONIZE
from smb3fs.share.leasing import Leasing
from smb3fs.wire.lease import LeaseState

HANDLE: Final = int(LeaseState.HANDLE)
KEPT_ALONE: Final = (Durability.DURABLE, Durability.DURABLE_V2)


class Sharing(Leasing):
    """Who opens a file that is open already uses the same open, and is told what the server says of it now."""

    @asynccontextmanager
    async def in_turn(self, path: str) -> AsyncIterator[None]:
        """Have who opens a file wait for who is about to, where an open is to be had by both.

        Of what is kept by itself alone two would be made otherwise. What is only read can be opened anew after a loss,
        and need not wait.
        """
        session = self._pool.session
        if not self._opens.keeps or session is None or self.persists(session):
            yield
            return
        turn = self._turns.setdefault(path, trio.Lock())
        try:
            async with turn:
                yield
        finally:
            if not turn.locked() and self._turns.get(path) is turn:
                del self._turns[path]

    async def attributes(self, handle: Open) -> FileAttributes:
        """Return the attributes of an open file."""
        query = self._query(handle)
        handle.seen = self._told((await self._on(handle, [query], Repeat.SAFE))[0], query)
        return handle.seen

    async def joined(self, path: str, access: int, expect: int | None) -> Open | None:
        """Return an open of the file `expect` at a path that permits `access` and others use; None if there is none.

        It is to be closed like one's own. One round trip, as a CREATE would take.
        """
        if self._leases.find(path, expect) is not None:
            await self._pool.ready()  # while there is no session no lease permits anything
        handle = self._to_join(path, access, expect)
        if handle is None:
            return None
        handle.users += 1
        try:
            handle.attributes_at_open = await self.attributes(handle)
        except BaseException as error:
            self.close(handle)
            if isinstance(error, Smb3fsError):  # it may be lost by now; then a CREATE tells what there is
                return None
            raise
        handle.head = None  # which was true for who opened it
        return handle

    def _to_join(self, path: str, access: int, expect: int | None) -> Open | None:
        """Find an open that somebody else may use as well.

        What carries locks stays apart, since it is lost with them; so does what may have an unknown change under way.
        """
        lease = self._leases.find(path, expect)
        if (
            lease is None or not lease.state & HANDLE
        ):  # without H it is lost with the connection, and a CREATE may win H
            return None
        for handle in lease.opens:
            if (
                isinstance(handle, Open)
                and handle.durability in KEPT_ALONE
                and not access & ~(handle.request.desired_access | SYNCHRONIZE)
                and handle.path == path
                and handle.ledger is None
                and handle.posix == self._posix
                and self.usable(handle)
                and not handle.in_doubt
            ):
                return handle
        return None
