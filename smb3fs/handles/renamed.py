"""Second names for files that were renamed while they were open, by which a server finds their opens again.

Theory of operation. Samba's record of a persistent open keeps the name of its CREATE, and the open is given back if
that name leads to the file. After a rename it does not, so the open is given back under neither name and stays in
everybody's way until its time is over. What helps is a hard link: the file is given its old name once more, the open is
claimed by that, and the name is taken away. To rename the file back would not do: the name that it has by right must be
there all the time.

A second name is a danger of its own: whoever makes a file of that name meanwhile gets this one. So it is given only
where we have held the lease to write, as then the server puts everybody off who opens the file, by whichever name,
until the claim has come; and it is there for three round trips. That it goes whatever happens, `handles.given_names`
sees to.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from smb3fs.channels.session import Session
from smb3fs.errors import Status, status_name
from smb3fs.handles.by_name import set_and_close
from smb3fs.handles.given_names import Given, GivenNames
from smb3fs.handles.opens import Durability, Open
from smb3fs.wire.infoclass import FileLinkInformation
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import LeaseState

log = logging.getLogger(__name__)

T = TypeVar("T")
WRITE: Final = int(LeaseState.WRITE)


class Names(NamedTuple):
    """The name in the server's record of an open, and those that its file may have, each relative to the share."""

    kept: str
    now: tuple[str, ...]


def names_of(handle: Open) -> Names | None:
    """Return the names of an open whose file was renamed, or may have been; None where no other one would help.

    Of what is closed here the server may have nothing any more that keeps others away: then another open must do so.
    """
    kept = handle.kept_as or (handle.request.name if handle.moving_to else "")
    if not kept or handle.durability != Durability.PERSISTENT:
        return None
    if handle.lease is None:
        return None
    permitted = handle.lease.state if handle.closed else handle.lease.kept | handle.lease.state
    if not permitted & WRITE:
        return None
    now = (name.replace("/", "\\") for name in (handle.moving_to, handle.request.name) if name and name != kept)
    return Names(kept.replace("/", "\\"), tuple(now))


class SecondNames(GivenNames):
    """The names that we have given files, and how opens are claimed by them."""

    async def claim(
        self, session: Session, opens: Iterable[Open], claim: Callable[[Session, Open, str], Awaitable[T]]
    ) -> dict[Open, T]:
        """Give files their old names, `claim` what is open of them by these, and take them away again.

        Return what `claim` has returned for each, which is None if the open was given back; those are left out whose
        file cannot have its old name. Five round trips for each file, or seven. Raises ConnectionLost if the session
        dies.
        """
        files: dict[Names, list[Open]] = {}
        for handle in opens:
            names = names_of(handle)
            if names is not None:
                files.setdefault(names, []).append(handle)
        results: dict[Open, T] = {}
        for names, of_file in files.items():
            if not await self._give(session, names, of_file):
                continue
            for handle in of_file:
                results[handle] = await claim(session, handle, names.kept)
                if self._gathers and results[handle] is None and handle.lease is not None:
                    self._leases.nameless(handle.lease)
            if all(results[handle] is None for handle in of_file):
                await self._take_away(session, names.kept)
        return results

    async def _give(self, session: Session, names: Names, opens: Sequence[Open]) -> bool:
        """Give the file of some opens its old name beside the one it has; False if that cannot be."""
        given = self._given.get(names.kept)
        if given is not None:
            # The session of another attempt died before its claim was answered, or before the name was there.
            found = await self._find(session, names.kept, (given.file_id,))
            if found is not None:
                session.post([CloseRequest(found.file_id)])
                return True
        file_ids = {number for one in opens for number in (one.seen.file_id, one.attributes_at_open.file_id) if number}
        for now in names.now:
            found = await self._find(session, now, file_ids)
            if found is None:
                continue
            self._note(names.kept, Given(found.told.index_number, opens[0].lease))
            status = await set_and_close(session, found.file_id, FileLinkInformation(False, names.kept))
            if status == Status.SUCCESS:
                return True
            log.info("%s cannot be called %s for a moment (%s)", now, names.kept, status_name(status))
            self._strike(names.kept)
        return False
