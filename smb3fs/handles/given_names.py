"""Names of ours that files have for a while, and how they are taken away: none is forgotten, or anybody else's.

Theory of operation. Files are given names that nobody asked for: a second one for the time of a claim
(`handles.renamed`), and one that nobody else knows, see `handles.hidden_names`,

- for a file that was removed or replaced while it is open here, until its last close: by that name its open is claimed
  after a loss, so the server must not take it away before (decision 0047). It is `held` until then;
- for one that was to be removed, got such a name for that, and could not be removed in time;
- for one that is removed, but whose number had better not be given to another file (decision 0044);
- for a directory that is made, until it gets its own (decision 0050). Its number is not known before it is there.

Each is written down, here and in the journal, before it is asked for. If the session dies, the next one takes it away,
and if we die, the next daemon does. It is deleted only through an open that has proved to be of this file: a second
name only if the file has another one; the others, `last`, whatever name the file has beside. What somebody stands in
the way of is tried again and again, in turn. To each name one task at a time does so, and none while it is renamed.

Who deletes a name has the lease to write broken first, ours too, which is of no consequence unless we gather writes: to
bring these out takes traffic, which may wait for us. Then it is taken away in two steps. A rename does not break that
lease, and moves it along, for it has a name at the server too, to a name that nobody else knows; that is deleted by an
open with the lease's own key. The price is that the key is of no use any more for the name that the file has.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from smb3fs.channels.session import Session
from smb3fs.errors import Status, status_name
from smb3fs.handles.by_name import Found, open_named, set_and_close
from smb3fs.handles.hidden_names import Unlisted, hidden_name, is_hidden
from smb3fs.handles.journal import Journal, LeftName
from smb3fs.handles.lease import Lease
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open, OpenTable
from smb3fs.wire.create import AccessMask, CreateContext, FileAttribute
from smb3fs.wire.infoclass import (
    LEAVE_TIME,
    FileBasicInformation,
    FileDispositionInformation,
    FileLinkInformation,
    FileRenameInformation,
)
from smb3fs.wire.io import CloseRequest
from smb3fs.wire.lease import NO_KEY

log = logging.getLogger(__name__)

# Nobody's lease is broken by who asks for no more, and nobody's open is in the way of it.
NAMING_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.WRITE_ATTRIBUTES)
DELETING_ACCESS: Final = int(AccessMask.READ_ATTRIBUTES | AccessMask.DELETE)
WRITABLE: Final = FileBasicInformation(LEAVE_TIME, LEAVE_TIME, LEAVE_TIME, LEAVE_TIME, FileAttribute.NORMAL)
# By these a server says that a name is gone. Not by DELETE_PENDING: it goes with a last close, and not if the server is
# restarted before that.
GONE: Final = frozenset({Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND, Status.NO_SUCH_FILE})
# The number of what is made under a name that nobody else knows: whatever has that name is ours.
ANY: Final = 0
# Seconds for what the server may never answer, where all traffic waits for it.
MOMENT: Final = 0.3


@dataclass(slots=True, frozen=True)
class Given:
    """Which file has been given a name, and the lease that we have on it, if we have one.

    `last`: it is to go even if the file has no other name. `held`: not before the file's last close here. `pinned`: nor
    before it is known whether the file has got it. `parent_key` is the key of the lease on the directory that it is in.
    """

    file_id: int
    lease: Lease | None = None
    last: bool = False
    held: bool = False
    pinned: bool = False
    parent_key: bytes = NO_KEY


class GivenNames:
    """The names that we have given files and that may still be there; all relative to the share."""

    def __init__(
        self,
        journal: Journal | None,
        leases: LeaseTable,
        *,
        gathers: bool = False,
        opens: OpenTable | None = None,
        unlisted: set[str] | None = None,
    ) -> None:
        """With `gathers` leases to write may stand for writes that have not been sent.

        `opens` tell when a file is closed here; `unlisted` are the last components of names that nobody else knows.
        """
        self._gathers = gathers
        self._journal = journal
        self._leases = leases
        self._opens = opens
        self._unlisted = Unlisted(unlisted)
        self._given: dict[str, Given] = {}
        # What could not be taken away in the time that there was for it.
        self._slow: set[str] = set()
        # What is being taken away at the moment, and what is being renamed, with all that is below it.
        self._going: dict[str, trio.Event] = {}
        self._moving: list[str] = []
        # Of the files that are open here, by their numbers, what is held; and what has just been let go.
        self._held: dict[int, set[str]] = {}
        self._let_go: list[str] = []
        self._later = trio.Event()
        self._released = trio.Event()
        if opens is not None:
            opens.on_closed = self._closed

    def __len__(self) -> int:
        """Return how many there are that are to be taken away."""
        return len(self._given) - self.held

    def __contains__(self, name: object) -> bool:
        return name in self._given

    @property
    def held(self) -> int:
        """How many there are of files that are open here."""
        return sum(map(len, self._held.values()))

    def inherit(self, names: Mapping[int, LeftName]) -> None:
        """Take over what a daemon that was killed has left of them; each is in the journal under its number."""
        for number, left in names.items():
            self._note(left.name, Given(left.file_id, last=left.last))
            if self._journal is not None:
                self._journal.drop_left(number)

    async def take_away(self, session: Session, *, held: bool = False, hurry: bool = False) -> None:
        """Take away all names that are left, with `held` those too; raises ConnectionLost if the session dies.

        What the server refuses is kept in mind. In a `hurry` a name over which another one was cancelled is left for
        later: if nobody can open its file any more, the server does not answer this time either. Where that may be so,
        it comes last, and gets a moment.
        """
        names = [name for name, given in self._given.items() if held or not given.held]
        if not hurry:
            await self._take_each_away(session, names)
            return
        names = [name for name in names if name not in self._slow]
        doubtful = [name for name in names if self._given[name].file_id in self._leases.cut_numbers]
        await self._take_each_away(session, [name for name in names if name not in doubtful])
        with trio.move_on_after(MOMENT):
            await self._take_each_away(session, doubtful)

    async def _take_each_away(self, session: Session, names: Iterable[str]) -> None:
        """Take names away, one after the other; that over which it is cancelled is noted."""
        for name in names:
            try:
                await self._take_away(session, name)
            except trio.Cancelled:
                self._slow.add(name)
                raise
            self._slow.discard(name)

    async def take_away_in(self, session: Session, folder: str) -> None:
        """Do the same with those that are in a folder."""
        above = folder.replace("/", "\\")
        for name, given in list(self._given.items()):
            if not given.held and name.rpartition("\\")[0] == above:
                await self._take_away(session, name)

    async def any_later(self) -> None:
        """Wait until there is a name to be taken away."""
        if not len(self):
            self._later = trio.Event()
            await self._later.wait()

    async def take_one_away(self, session: Session) -> None:
        """Try to take away the name that was tried longest ago; raises ConnectionLost if the session dies."""
        name = next((name for name, given in self._given.items() if not given.held), None)
        if name is not None:
            self._given[name] = self._given.pop(name)  # the others are not kept from their turn if this one takes long
            await self._take_away(session, name)

    # -- files that were removed, or were to be

    def remove_later(self, name: str, file_id: int, lease: Lease | None) -> None:
        """Have a file removed by a name that nobody else knows: some time, after a loss, or by the next daemon.

        If it is held, that is with the file's last close.
        """
        name = name.replace("/", "\\")
        if name not in self._given:
            self._note(name, Given(file_id, lease, last=True))

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Have what is made under a name that nobody else knows removed, unless it has none of that name in the end.

        It may be renamed within the block; if that fails, or we die, what has the name goes.
        """
        name = name.replace("/", "\\")
        self._unlisted.add(name)
        if self._journal is not None:
            self._journal.keep(("name", name), LeftName(name, ANY, last=True))
        try:
            yield
        except BaseException:
            self._note(name, Given(ANY, last=True))
            raise
        self._strike(name)

    async def keep_number(self, session: Session, name: str, folder: str, file_id: int) -> None:
        """Give a file a name in `folder` that nobody else knows, so that it keeps its number when it loses the others.

        That is taken away when the server lets us. Two round trips; raises ConnectionLost if the session dies.
        """
        found = await self._find(session, name.replace("/", "\\"), (file_id,))
        if found is None:
            return
        aside = hidden_name(folder.replace("/", "\\"))
        self.remove_later(aside, file_id, None)
        self._slow.add(aside)  # whoever can open it, the number need not be kept any more
        if await set_and_close(session, found.file_id, FileLinkInformation(False, aside)) != Status.SUCCESS:
            self._strike(aside)

    def hold(self, name: str, file_id: int, lease: Lease | None, parent_key: bytes = NO_KEY) -> bool:
        """Have a file that is open here removed with its last close, by a name that it is about to get.

        `settle` is to be called when it has got it. False if it could not be written down for a next daemon.
        """
        if self._opens is None or (self._journal is not None and not self._journal.begin()):
            return False
        given = Given(file_id, lease, last=True, held=True, pinned=True, parent_key=parent_key)
        self._note(name.replace("/", "\\"), given)
        return True

    def settle(self, name: str, *, there: bool = True) -> None:
        """Take notice that a file has the name that is held for it; or that it has not, and will not have it."""
        name = name.replace("/", "\\")
        given = self._given.get(name)
        if given is None:
            return
        if not there:
            self._strike(name)
            return
        self._given[name] = replace(given, pinned=False)
        self._let_go_unused(given.file_id)

    def moved(self, old: str, new: str, parent_key: bytes = NO_KEY) -> None:
        """Take notice that a file or directory has another name, in the directory whose lease has that key."""
        if not self._given:
            return
        old, new = old.replace("/", "\\"), new.replace("/", "\\")
        for name, given in list(self._given.items()):
            if name == old or name.startswith(f"{old}\\"):
                self._note(new + name[len(old) :], replace(given, parent_key=parent_key if name == old else NO_KEY))
                self._drop(name)

    async def stand_still(self, path: str) -> None:
        """Wait until nothing that has a path, or is below it, is being taken away; that goes before it is renamed."""
        path = path.replace("/", "\\")
        while going := [event for name, event in self._going.items() if _is_below(name, path)]:
            await going[0].wait()

    def _is_moving(self, name: str) -> bool:
        """Whether nobody knows what has a name of ours, as it is being renamed.

        A second name is not renamed with its file; that it is gone is what shows that a rename was carried out.
        """
        return is_hidden(name) and any(_is_below(name, path) for path in self._moving)

    @contextmanager
    def moving(self, path: str) -> Iterator[None]:
        """Have nothing hidden taken away that has a path, or is below it, while that is renamed.

        What is closed meanwhile is let go after that.
        """
        path = path.replace("/", "\\")
        self._moving.append(path)
        try:
            yield
        finally:
            self._moving.remove(path)
            for number in tuple(self._held):
                self._let_go_unused(number)

    async def next_released(self) -> str:
        """Return, when there is one, a name of which the file has been closed."""
        while not self._let_go:
            self._released = trio.Event()
            await self._released.wait()
        return self._let_go.pop(0)

    async def take_released_away(self, session: Session, name: str) -> None:
        """Take away such a name; raises ConnectionLost if the session dies."""
        given = self._given.get(name)
        if given is not None and not given.held:
            await self._take_away(session, name)

    def _closed(self, handle: Open) -> None:
        """Take notice that a handle is closed."""
        if self._held:
            for number in {*_numbers(handle)}:
                self._let_go_unused(number)

    def _let_go_unused(self, number: int) -> None:
        """Have the names that are held of a file taken away, unless somebody here has it open."""
        if number not in self._held or any(number in _numbers(one) for one in self._opens or ()):
            return
        for name in tuple(self._held[number]):
            given = self._given[name]
            if not given.pinned and not self._is_moving(name):
                self._note(name, replace(given, held=False))
                self._let_go.append(name)
                self._released.set()

    # -- one name

    async def _find(self, session: Session, name: str, file_ids: Container[int]) -> Found | None:
        """Open what has a name if it is one of these files."""
        found = await open_named(session, name, NAMING_ACCESS)
        if not isinstance(found, Found):
            return None
        if found.told.index_number in file_ids:
            return found
        session.post([CloseRequest(found.file_id)])
        return None

    async def _take_away(self, session: Session, name: str) -> None:
        """Take a name away, unless it is about to get another one; who comes second waits for the first one.

        If both did it, each would keep the name there while the other has been told that it is gone.
        """
        while name in self._going:
            await self._going[name].wait()
        given = self._given.get(name)
        if given is None or self._is_moving(name):
            return
        with self._taking(name):
            if not self._gathers or is_hidden(name):
                await self._delete(session, name, given)
                return
            aside = await self._put_aside(session, name, given)
            if aside == name:
                await self._delete(session, name, given)
            elif aside:
                with self._taking(aside):
                    await self._delete(session, aside, given)

    @contextmanager
    def _taking(self, name: str) -> Iterator[None]:
        """Note that a name is being taken away."""
        self._going[name] = trio.Event()
        try:
            yield
        finally:
            self._going.pop(name).set()

    async def _put_aside(self, session: Session, name: str, given: Given) -> str:
        """Move a name to where nobody else looks; return what is to be deleted then, "" for nothing."""
        found = await open_named(session, name, NAMING_ACCESS)
        if not self._is_ours(session, name, given, found):
            return ""
        aside = hidden_name(name.rpartition("\\")[0])
        self._note(aside, given)
        assert isinstance(found, Found)  # noqa: S101 (so _is_ours says)
        status = await set_and_close(session, found.file_id, FileRenameInformation(False, aside))
        if status != Status.SUCCESS:
            self._strike(aside)
            return name
        self._strike(name)
        return aside

    async def _delete(self, session: Session, name: str, given: Given) -> None:
        """Delete a name if the file has another one, or need not."""
        status = await self._delete_once(session, name, given, DELETING_ACCESS)
        if status == Status.CANNOT_DELETE:  # it is read-only, which is nothing to POSIX
            status = await self._delete_once(session, name, given, DELETING_ACCESS | AccessMask.WRITE_ATTRIBUTES)
        if status == Status.SUCCESS:
            self._strike(name)
        elif status is not None:
            _complain(name, given, status)

    async def _delete_once(self, session: Session, name: str, given: Given, access: int) -> int | None:
        """Try to; return the server's answer, None if there is nothing to be deleted, or no way to open it.

        With the right to write attributes the file is made one that may be deleted.
        """
        contexts = self._contexts(given)
        found = await open_named(session, name, access, contexts)
        if contexts and found == Status.INVALID_PARAMETER:  # the lease has another name at the server
            found = await open_named(session, name, access)
        if not self._is_ours(session, name, given, found):
            return None
        assert isinstance(found, Found)  # noqa: S101 (so _is_ours says)
        before = () if access == DELETING_ACCESS else (WRITABLE,)
        return await set_and_close(session, found.file_id, *before, FileDispositionInformation(delete=True))

    def _contexts(self, given: Given) -> tuple[CreateContext, ...]:
        """Return the context by which no lease of ours is broken by our deleting a name.

        Where we do not gather writes a second name's may be. The number of a file of which a CREATE may be half done
        must not be given to another one before that is over, when the server lets in who comes without its key.
        """
        lease = given.lease
        if lease is not None and lease.opens and (self._gathers or given.last):
            return () if given.file_id in self._leases.cut_numbers else (self._leases.context(lease, lease.state),)
        named = self._leases.naming(given.parent_key)
        return () if named is None else (named,)

    def _is_ours(self, session: Session, name: str, given: Given, found: Found | int) -> bool:
        """Whether what was opened is the file that was given a name, and has another one; if not it is closed."""
        if not isinstance(found, Found):
            if found in GONE:
                self._strike(name)
            else:
                _complain(name, given, found)
            return False
        ours = given.file_id in (ANY, found.told.index_number)
        ours = ours and (given.last or found.told.standard.number_of_links > 1)
        if not ours:
            # Another file has the name by now, or this one has lost all others by somebody else's doing.
            self._strike(name)
            self._unlisted.show(name)
            session.post([CloseRequest(found.file_id)])
        return ours

    def _note(self, name: str, given: Given) -> None:
        """Write a name down before it is there."""
        known = self._given.get(name)
        self._given[name] = given
        self._unlisted.add(name)
        if given.held:
            self._held.setdefault(given.file_id, set()).add(name)
        else:
            self._not_held(name, given)
            self._later.set()
        if self._journal is not None and (known is None or (known.file_id, known.last) != (given.file_id, given.last)):
            self._journal.keep(("name", name), LeftName(name, given.file_id, given.last))

    def _not_held(self, name: str, given: Given) -> None:
        """Hold a name of a file no more."""
        names = self._held.get(given.file_id)
        if names is not None:
            names.discard(name)
            if not names:
                del self._held[given.file_id]

    def _strike(self, name: str) -> None:
        """Strike out a name that is not there any more, or not ours."""
        self._drop(name)
        self._unlisted.strike(name)

    def _drop(self, name: str) -> None:
        """Keep a name in mind no more."""
        given = self._given.pop(name, None)
        self._slow.discard(name)
        if given is not None:
            self._not_held(name, given)
        if self._journal is not None:
            self._journal.drop(("name", name))


def _is_below(name: str, path: str) -> bool:
    """Whether a name is a path, or that of something below it."""
    return name == path or name.startswith(f"{path}\\")


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


def _numbers(handle: Open) -> tuple[int, int]:
    """Return the numbers by which an open's file may be known: the one told last, and that of its CREATE."""
    return handle.seen.file_id, handle.attributes_at_open.file_id
