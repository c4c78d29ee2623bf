"""Second names for files that were renamed while they were open, by which a server finds their opens again.

Theory of operation. Samba's record of a persistent open keeps the name of its CREATE, and the open is given back if
that name leads to the file. After a rename it does not, so the open is given back under neither name and stays in
everybody's way until its time is over. What helps is a hard link: the file is given its old name once more, the open is
claimed by that, and the name is taken away. To rename the file back would not do: the name that it has by right must be
there all the time.

A second name is a danger of its own: whoever makes a file of that name meanwhile gets this one. So it is given only
where we have held the lease to write, as then the server puts everybody off who opens the file, by whichever name,
until the claim has come; it is there for three round trips; and it is written down, here and in the journal, before it
is asked for. If the session dies meanwhile, the next one claims by it and takes it away, and if we die, the next daemon
does the latter.

Who deletes a name has the lease to write broken first, ours too, which is of no consequence unless we gather writes: to
bring these out takes traffic, which waits for us. Then it is taken away in two steps. A rename does not break that
lease, and moves it along, for it has a name at the server too, to a name that nobody else knows; that is deleted by an
open with the lease's own key. The price is that the key is of no use any more for the name that the file has.

A name is deleted only through an open that has proved to be of this file, and only if the file has another one.

The same is done for a file that was to be removed, got a name that nobody else knows for that, and could not be removed
in time: whoever asked has given up, and the name is written down here, to go whatever other name the file has. So it is
for one that is removed, but whose number had better not be given to another file (decision 0044).

What cannot be taken away is tried again, some time and after each loss.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import trio

from smb3fs.channels.pool import SESSION_GONE
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, status_name
from smb3fs.handles.journal import Journal, LeftName
from smb3fs.handles.leases import Lease, LeaseTable
from smb3fs.handles.opens import Durability, Open
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateContext,
    CreateOptions,
    CreateRequest,
    CreateResponse,
    Disposition,
    FileId,
    OplockLevel,
)
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import (
    FileAllInformation,
    FileDispositionInformation,
    FileLinkInformation,
    FileRenameInformation,
)
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import LeaseState
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest

log = logging.getLogger(__name__)

T = TypeVar("T")
WRITE: Final = int(LeaseState.WRITE)
# Nobody's lease is broken by who asks for no more, and nobody's open is in the way of it.
NAMING_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.WRITE_ATTRIBUTES)
DELETING_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.DELETE)
OPTIONS: Final = int(CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT)
QUERY: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileAllInformation.information_class, 16 * 1024)
# By these a server says that a name is gone.
GONE: Final = frozenset(
    {Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND, Status.NO_SUCH_FILE, Status.DELETE_PENDING}
)
ASIDE: Final = ".smb3fs-"


class Names(NamedTuple):
    """The name in the server's record of an open, and those that its file may have, each relative to the share."""

    kept: str
    now: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Given:
    """Which file has been given a name, and the lease that we have on it, if we have one.

    `last`: it is to go even if the file has no other name.
    """

    file_id: int
    lease: Lease | None = None
    last: bool = False


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


class SecondNames:
    """The names that we have given files and that may still be there; all relative to the share."""

    def __init__(self, journal: Journal | None, leases: LeaseTable, *, gathers: bool = False) -> None:
        """With `gathers` leases to write may stand for writes that have not been sent."""
        self._gathers = gathers
        self._journal = journal
        self._leases = leases
        self._given: dict[str, Given] = {}
        self._later = trio.Event()

    def __len__(self) -> int:
        return len(self._given)

    def __contains__(self, name: object) -> bool:
        return name in self._given

    def inherit(self, names: Mapping[int, LeftName]) -> None:
        """Take over what a daemon that was killed has left of them; each is in the journal under its number."""
        for number, left in names.items():
            self._note(left.name, Given(left.file_id, last=left.last))
            if self._journal is not None:
                self._journal.drop_left(number)

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

    async def take_away(self, session: Session) -> None:
        """Take away all names that are left; raises ConnectionLost if the session dies.

        What the server refuses is kept in mind.
        """
        for name in list(self._given):
            await self._take_away(session, name)

    # -- files that were to be removed

    def remove_later(self, name: str, file_id: int, lease: Lease | None) -> None:
        """Have a file removed by a name that nobody else knows: some time, after a loss, or by the next daemon."""
        self._note(name.replace("/", "\\"), Given(file_id, lease, last=True))

    async def keep_number(self, session: Session, name: str, folder: str, file_id: int) -> None:
        """Give a file a name in `folder` that nobody else knows, so that it keeps its number when it loses the others.

        That is taken away when the server lets us. Two round trips; raises ConnectionLost if the session dies.
        """
        found = await self._find(session, name.replace("/", "\\"), (file_id,))
        if found is None:
            return
        aside = (f"{folder}/" if folder else "").replace("/", "\\") + f"{ASIDE}{os.urandom(8).hex()}"
        self.remove_later(aside, file_id, None)
        if await _set(session, found.file_id, FileLinkInformation(False, aside)) != Status.SUCCESS:
            self._strike(aside)

    async def any_later(self) -> None:
        """Wait until there is a name to be taken away."""
        if not self._given:
            self._later = trio.Event()
            await self._later.wait()

    async def take_one_away(self, session: Session) -> None:
        """Try to take away the name that was tried longest ago; raises ConnectionLost if the session dies."""
        name = next(iter(self._given), None)
        if name is not None:
            self._given[name] = self._given.pop(name)  # the others are not kept from their turn if this one takes long
            await self._take_away(session, name)

    # -- one name

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
            status = await _set(session, found.file_id, FileLinkInformation(False, names.kept))
            if status == Status.SUCCESS:
                return True
            log.info("%s cannot be called %s for a moment (%s)", now, names.kept, status_name(status))
            self._strike(names.kept)
        return False

    async def _find(self, session: Session, name: str, file_ids: Container[int]) -> _Found | None:
        """Open what has a name if it is one of these files."""
        found = await self._open(session, name, NAMING_ACCESS)
        if not isinstance(found, _Found):
            return None
        if found.told.index_number in file_ids:
            return found
        session.post([CloseRequest(found.file_id)])
        return None

    async def _take_away(self, session: Session, name: str) -> None:
        """Take a name away."""
        given = self._given.get(name)
        if given is None:
            return
        if self._gathers and not name.rpartition("\\")[2].startswith(ASIDE):
            name = await self._put_aside(session, name, given)
        if name:
            await self._delete(session, name, given)

    async def _put_aside(self, session: Session, name: str, given: Given) -> str:
        """Move a name to where nobody else looks; return what is to be deleted then, "" for nothing."""
        found = await self._open(session, name, NAMING_ACCESS)
        if not self._is_ours(session, name, given, found):
            return ""
        folder, separator, _ = name.rpartition("\\")
        aside = f"{folder}{separator}{ASIDE}{os.urandom(8).hex()}"
        self._note(aside, given)
        assert isinstance(found, _Found)  # noqa: S101 (so _is_ours says)
        status = await _set(session, found.file_id, FileRenameInformation(False, aside))
        if status != Status.SUCCESS:
            self._strike(aside)
            return name
        self._strike(name)
        return aside

    async def _delete(self, session: Session, name: str, given: Given) -> None:
        """Delete a name if the file has another one, or need not."""
        lease = given.lease if self._gathers and given.lease is not None and given.lease.opens else None
        contexts = () if lease is None else (self._leases.context(lease, lease.state),)
        found = await self._open(session, name, DELETING_ACCESS, contexts)
        if contexts and found == Status.INVALID_PARAMETER:  # the lease has another name at the server
            found = await self._open(session, name, DELETING_ACCESS)
        if not self._is_ours(session, name, given, found):
            return
        assert isinstance(found, _Found)  # noqa: S101 (so _is_ours says)
        status = await _set(session, found.file_id, FileDispositionInformation(delete=True))
        if status == Status.SUCCESS:
            self._strike(name)
        else:
            _complain(name, given, status)

    def _is_ours(self, session: Session, name: str, given: Given, found: _Found | int) -> bool:
        """Whether what was opened is the file that was given a name, and has another one; if not it is closed."""
        if not isinstance(found, _Found):
            if found in GONE:
                self._strike(name)
            else:
                _complain(name, given, found)
            return False
        ours = found.told.index_number == given.file_id and (given.last or found.told.standard.number_of_links > 1)
        if not ours:
            # Another file has the name by now, or this one has lost all others by somebody else's doing.
            self._strike(name)
            session.post([CloseRequest(found.file_id)])
        return ours

    async def _open(
        self, session: Session, name: str, access: int, contexts: Iterable[CreateContext] = ()
    ) -> _Found | int:
        """Open a name and ask what is there; return that, or the status of the refusal."""
        contexts = list(contexts)
        level = OplockLevel.LEASE if contexts else OplockLevel.NONE
        request = CreateRequest(name, access, Disposition.OPEN, OPTIONS, oplock_level=level, contexts=contexts)
        chain: list[Request] = [request, QUERY]
        opened, queried = await session.call(chain)
        _check_alive(opened.status)
        if opened.status != Status.SUCCESS:
            return opened.status
        file_id = CreateResponse.parse(opened.pdu).file_id
        if queried.status not in (Status.SUCCESS, Status.BUFFER_OVERFLOW):
            session.post([CloseRequest(file_id)])
            return queried.status
        return _Found(file_id, FileAllInformation.parse(memoryview(QueryInfoResponse.parse(queried.pdu).data)))

    def _note(self, name: str, given: Given) -> None:
        """Write a name down before it is there."""
        self._given[name] = given
        self._later.set()
        if self._journal is not None:
            self._journal.keep(("name", name), LeftName(name, given.file_id, given.last))

    def _strike(self, name: str) -> None:
        """Strike out a name that is not there any more, or not ours."""
        self._given.pop(name, None)
        if self._journal is not None:
            self._journal.drop(("name", name))


def _complain(name: str, given: Given, status: int) -> None:
    """Log that a name cannot be removed; what is tried again and again is for whoever debugs."""
    what = "the name of a file that was to be removed" if given.last else "a second name of a file"
    log.log(
        logging.DEBUG if given.last else logging.WARNING,
        "%s, %s, cannot be removed (%s)",
        name,
        what,
        status_name(status),
    )


class _Found(NamedTuple):
    """An open, and what the server says of its file."""

    file_id: FileId
    told: FileAllInformation


async def _set(
    session: Session,
    file_id: FileId,
    info: FileLinkInformation | FileRenameInformation | FileDispositionInformation,
) -> int:
    """Set information through an open and close it; return the status of the former."""
    chain: list[Request] = [
        SetInfoRequest(file_id, InfoType.FILE, info.information_class, info.encode()),
        CloseRequest(file_id),
    ]
    status = (await session.call(chain))[0].status
    _check_alive(status)
    return status


def _check_alive(status: int) -> None:
    """Raise ConnectionLost if a status says that the session is of no use: what a name leads to is not known then."""
    if status in SESSION_GONE or status == Status.NETWORK_SESSION_EXPIRED:
        raise ConnectionLost(f"the server no longer knows the new session ({status_name(status)})")
