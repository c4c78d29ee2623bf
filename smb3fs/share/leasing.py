"""Opening files with their leases: which key a CREATE carries, and what becomes of one that is refused for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from smb3fs.errors import Status, StatusError
from smb3fs.handles.lease import Lease
from smb3fs.share.chains import Chains

T = TypeVar("T")


class Leasing(Chains):
    """How a file is opened so that what its lease permits can be kept."""

    async def leased(self, path: str, expect: int | None, open_it: Callable[[Lease | None], Awaitable[T]]) -> T:
        """Open the file `expect` at a path with the lease that it has or a new one; without, where none is asked for.

        A server that takes the key for another file's, which it may be by now, is asked again with a new one, and at
        last without any: nobody who opens a file has to know of leases. One round trip each.
        """
        if not self._leases.asks or self._timewarp:
            return await open_it(None)
        known = self._leases.find(path, expect)
        if known is not None:
            try:
                with self._leases.asking(known):
                    return await open_it(known)
            except StatusError as error:
                if not _is_refusal(error):
                    raise
        fresh = self._leases.make(path, path.rpartition(self._separator)[0], expect)
        try:
            with self._leases.asking(fresh):
                return await open_it(fresh)
        except StatusError as error:
            if not _is_refusal(error):
                raise
        return await open_it(None)


def _is_refusal(error: StatusError) -> bool:
    """Whether it may be the lease for which a CREATE was refused."""
    return error.status == Status.INVALID_PARAMETER and error.command == "CREATE"
