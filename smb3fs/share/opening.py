"""Opens that may have to outlive their connection, and CREATEs whose double execution matters.

A CREATE that asks to be remembered carries a CreateGuid of its own and travels alone: if its answer is lost, it is sent
again with the flag of a repetition, and the server gives the answer of the first time. It does so only until the open
is used for the first time, so what belongs to it follows when the answer is there. Where the share does not promise to
remember, what makes something travels as one chain with it, and is sent again as well: of two only one can succeed, so
that a success is the only one, and a refusal of the repetition means that nobody knows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any, Final, TypeVar

from smb3fs.channels.pool import UNDECIDED, Repeat
from smb3fs.channels.session import Session
from smb3fs.connection import Answer
from smb3fs.errors import ConnectionLost, Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.lease import RH, RWH, Lease
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.chains import CLOSE_RELATED, POSIX_ALONE, STAT_ACCESS, is_posix, without_posix
from smb3fs.share.recognising import Recognising
from smb3fs.wire.create import CreateContext, CreateOptions, CreateRequest, Disposition
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID
from smb3fs.wire.durable import (
    DURABLE_HANDLE,
    DURABLE_HANDLE_V2,
    PERSISTENT,
    DurableHandleRequest,
    DurableHandleRequestV2,
)
from smb3fs.wire.header import FLAG_ASYNC, Request
from smb3fs.wire.lease import LEASE_CONTEXT, LeaseState, parse_lease
from smb3fs.wire.negotiate import Dialect

T = TypeVar("T")

log = logging.getLogger(__name__)

GUID_SIZE: Final = 16
WRITE: Final = int(LeaseState.WRITE)
# By these a server says that there is no such name, or none any more.
GONE: Final = frozenset(
    {Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND, Status.NO_SUCH_FILE, Status.DELETE_PENDING}
)
# What a CREATE carries that no other one may.
REMEMBERING: Final = frozenset({LEASE_CONTEXT, DURABLE_HANDLE, DURABLE_HANDLE_V2})
# Dispositions of which a second execution does what the first did.
OPENING: Final = frozenset({Disposition.OPEN, Disposition.OPEN_IF})


class Opening(Recognising):
    """How what is to last is opened."""

    def _lasting(self, request: CreateRequest, session: Session) -> CreateRequest:
        """Return a CREATE that asks the server to keep the open after a loss, and to recognise the CREATE itself."""
        # What only the POSIX extensions can name cannot be claimed, for which a server refuses them.
        if self._timewarp or (is_posix(request) and POSIX_ALONE.search(request.name)):
            return request
        if session.agreed.dialect < Dialect.SMB_3_0:
            asked = CreateContext(DURABLE_HANDLE, DurableHandleRequest().encode())
        else:
            flags = PERSISTENT if self.persists(session) else 0
            data = DurableHandleRequestV2(self._handle_timeout, flags, os.urandom(GUID_SIZE)).encode()
            asked = CreateContext(DURABLE_HANDLE_V2, data)
        return replace(request, contexts=(*request.contexts, asked))

    async def _open_alone(self, request: CreateRequest, path: str, *, writable: bool = False) -> Open:
        """Open or create with a CREATE that is executed once, whatever is lost, and is to outlive the connection.

        ConnectionLost says that nobody knows whether the file was made.
        """
        asked = self._lasting(request, await self._pool.ready())
        with ExitStack() as asking:

            def renewed(session: Session) -> CreateRequest:
                nonlocal asked
                asked = self._renewed(asked, path, session, asking)
                return asked

            session, answer, repeated = await self._pool.create(asked, renewed)
            return await self._entered(asked, answer, path, session, writable=writable, repeated=repeated)

    async def _entered(
        self, asked: CreateRequest, answer: Answer, path: str, session: Session, *, writable: bool, repeated: bool
    ) -> Open:
        """Enter what a CREATE has opened that was sent alone, once or more often."""
        if (
            answer.status == Status.OBJECT_NAME_COLLISION
            and answer.header.flags & FLAG_ASYNC
            and self.persists(session)
        ):
            # A name that is taken keeps nobody waiting. Samba has made the file, waited for what it had kept of another
            # one of the same number, and begun anew.
            raise unknown()
        if repeated and self.persists(session):
            # A process that was killed over the first one leaves an open that nobody can end, and only this key passes.
            self._leases.hold_on(asked.contexts, cut=answer.status in UNDECIDED)
        if repeated and answer.status != Status.SUCCESS:
            if asked.disposition not in OPENING:
                return await self._open_made(asked, path, session, writable=writable)
            # Refused may be what was to be given back; the name is still there to be opened anew.
            asked = self._lasting(without_asking(asked), session)
            session, answer, _ = await self._pool.create(asked)
        return self._opened(asked, answer, path, session, writable=writable)

    def _renewed(self, asked: CreateRequest, path: str, session: Session, asking: ExitStack) -> CreateRequest:
        """Return what to send in a session for a CREATE that may have been carried out in one before it.

        Where the server does not know that again, it gets another lease, unless what is open with the first one was
        given back: see `lease_anew`. Of two that open something only one is left then.
        """
        contexts = dict(asked.contexts)
        lasts = DURABLE_HANDLE in contexts or DURABLE_HANDLE_V2 in contexts
        if asked.disposition not in OPENING or not lasts or LEASE_CONTEXT not in contexts:
            return asked
        lease = self._leases.lease_of(parse_lease(contexts[LEASE_CONTEXT]).key)
        other = self.lease_anew(lease, path, session) if lease is not None else None
        if other is None or other is lease:
            return asked
        asking.enter_context(self._leases.asking(other))
        told = self._leases.context(other, parse_lease(contexts[LEASE_CONTEXT]).state)
        plain = [told if context.name == LEASE_CONTEXT else context for context in without_asking(asked).contexts]
        return self._lasting(replace(asked, contexts=plain), session)

    def lease_anew(self, lease: Lease, path: str, session: Session) -> Lease:
        """Return the lease by which to open a file in a session where an open of before may be left at the server.

        Samba before 4.22 gives no open back of a file that has two, and keeps each for a minute. What has lost its
        connection ends there as soon as somebody comes with the key of another lease, be that ours, and never by its
        own key. As long as something goes on with that it stays, since another one would break it.
        """
        if not self.is_forgetful(session) or any(
            isinstance(one, Open) and one.generation == session.generation for one in lease.opens
        ):
            return lease
        found = self._leases.find(path, lease.file_id or None)
        if found is not None and found is not lease:
            return found
        return self._leases.make(path, path.rpartition(self._separator)[0], lease.file_id)

    async def _open_made(self, lost: CreateRequest, path: str, session: Session, *, writable: bool) -> Open:
        """Open what a CREATE has made whose answer is lost, if the server knows that; else raise ConnectionLost.

        What that CREATE has opened is still there, without a connection. A durable open is the server's to end when
        somebody comes with another lease than its own, so it is opened with another; a persistent one is not, so it is
        opened with the same. Two round trips.
        """
        made = await self._made_by(lost)
        lease = self._leases.lease_of(parse_lease(dict(lost.contexts)[LEASE_CONTEXT]).key) if made else None
        if lease is None:
            raise unknown()
        if not self.persists(session):
            lease = self._leases.make(path, path.rpartition(self._separator)[0], made)
        kept = [context for context in lost.contexts if context.name not in REMEMBERING]
        request = replace(
            lost, disposition=Disposition.OPEN, contexts=[*kept, self._leases.context(lease, RWH if writable else RH)]
        )
        with self._leases.asking(lease):
            asked = self._lasting(request, await self._pool.ready())
            session, answer, _ = await self._pool.create(asked)
            handle = self._opened(asked, answer, path, session, writable=writable)
        if handle.attributes_at_open.file_id != made:
            self.close(handle)
            raise unknown()
        handle.created = True
        return handle

    async def _open_renamed(self, path: str) -> None:
        """Open anew what is kept open for good and has got the name `path`, or one below it; one round trip each.

        Samba's record of such an open keeps the name of the CREATE, and is given back under neither name. What has been
        chosen to carry locks stays as it is, since others could get these meanwhile.
        """
        for handle in self._opens.below(path, self._separator):
            if handle.durability != Durability.PERSISTENT or handle.ledger is not None or handle.lost:
                continue
            await self._follow(handle)

    async def open_given_back(self) -> None:
        """Open anew what was given back by a name that its file had before it was renamed; two round trips each.

        What carries locks stays as it is, but that its lease permits to write again; so does what shares its lease
        where that has another name at the server.
        """
        for handle in self._opens:
            if not handle.kept_as or handle.lost or handle.closed:
                continue
            lease = handle.lease
            carries = lease is not None and any(_carries_locks(one) for one in lease.opens)
            if lease is None or not carries or self._leases.find(handle.path) is lease:
                await self._follow(handle)

    async def _follow(self, handle: Open) -> None:
        """Open anew what has been renamed, or is to be kept, unless that is being done; one round trip, or two.

        It may have begun before a loss: what the server has opened for it goes by the old lease, and is given back to
        the CREATE that is repeated. Another one under another lease would break that at the same time, of which smbd
        4.25.1 dies (decision 0041).
        """
        if handle in self._following or not self._is_let_in(handle):
            return
        self._following.add(handle)
        before, named = handle.lease, self._is_named(handle)
        try:
            try:
                await self._exchange(handle)
            except StatusError:
                if handle.lost or handle.closed or self._is_named(handle) == named or not self._is_let_in(handle):
                    raise
                await self._exchange(handle)  # it was claimed by its old name meanwhile, which has cost the lease's
            if handle.writable and handle.lease not in (None, before) and not handle.lease.state & WRITE:
                await self._exchange(handle)
        except (ConnectionLost, StatusError) as error:
            # A loss would end it; until then it is as good as before.
            log.info("%s cannot be opened anew: %s", handle.path, error)
        finally:
            self._following.discard(handle)

    def _is_named(self, handle: Open) -> bool:
        """Whether the lease of an open, if it has one, has the same name here as its file."""
        return handle.lease is None or self._leases.find(handle.path) is handle.lease

    def _is_let_in(self, handle: Open) -> bool:
        """Whether the server lets in who opens the file of an open anew.

        Where a CREATE may be half done for ever it lets in the key of that one under its name alone, and everybody else
        waits, up to the time for which opens are kept (decision 0060).
        """
        lease, numbers = handle.lease, self._leases.cut_numbers
        if lease is not None and lease.cut:
            return self._is_named(handle)
        return handle.seen.file_id not in numbers and handle.attributes_at_open.file_id not in numbers

    def _lease_for(self, handle: Open) -> Lease | None:
        """Return the lease by which an open may be made anew: its own, unless that has another name at the server.

        Another one may permit to write only when what was open with the former is closed.
        """
        if handle.lease is None or self._is_named(handle):
            return handle.lease
        parent = handle.path.rpartition(self._separator)[0]
        return self._leases.make(handle.path, parent, handle.lease.file_id)

    async def _exchange(self, handle: Open) -> None:
        """Have an open stand for one that is made now, and close what it stood for."""
        before = handle.request
        options = before.create_options
        query_id = CreateContext(QUERY_ON_DISK_ID)
        lease = self._lease_for(handle)
        request = self._create(handle.path, before.desired_access, options=options, contexts=(query_id,), lease=lease)
        request.share_access = before.share_access
        if not is_posix(before):
            request = without_posix(request)
        with self._leases.asking(lease) if lease is not None else nullcontext():
            fresh = await self._open_alone(request, handle.path, writable=handle.writable)
        same = fresh.attributes_at_open.file_id in (handle.attributes_at_open.file_id, handle.seen.file_id)
        same = same and handle.ledger is None
        if same and handle.path == fresh.path and handle.generation == fresh.generation and not handle.closed:
            self._leases.handed_over(fresh, handle)
            handle.trade_places(fresh)
            self._opens.note(handle)
            self._opens.note(fresh)
        self.close(fresh)

    async def _make(self, request: CreateRequest, path: str, rest: Sequence[Request]) -> tuple[Open, list[Answer]]:
        """Make something by a CREATE and requests on what it opens, which are given as related ones.

        Return the open and the answers to the latter, whatever their status. One round trip, or two on a share that
        keeps opens for good, where each can be repeated.
        """
        if self.persists(await self._pool.ready()):
            handle = await self._open_alone(request, path, writable=True)
            try:
                chain = [_on(handle, follower) for follower in rest]
                return handle, (await self._pool.call(chain, handle=handle, repeat=Repeat.REPLAY))[1]
            except BaseException:
                self.close(handle)
                raise
        session, answers = await self._pool.call([request, *rest], repeat=Repeat.UNIQUE)
        return self._opened(request, answers[0], path, session, writable=True), answers[1:]

    async def _once(self, chain: Sequence[Request], done: Callable[[], Awaitable[bool]]) -> list[Answer] | None:
        """Send a chain until it is done, once; raise the first error in it. None: it was done, but the answer is lost.

        `done` tells so by a look at the server, or raises ConnectionLost where nobody can tell.
        """
        for _ in self._pool.attempts():
            try:
                return (await self._chain(chain))[1]
            except ConnectionLost as error:
                if error.sent and await done():
                    return None
        raise unknown()

    async def _found(self, path: str) -> FileAttributes | None:
        """Return the attributes of what has a name, a link itself rather than what is behind it; one round trip."""
        request = self._create(path, STAT_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        try:
            _, answers = await self._chain([request, self._query(), CLOSE_RELATED], repeat=Repeat.SAFE)
        except StatusError as error:
            if error.status in GONE:
                return None
            raise unknown() from error
        return self._told(answers[1])

    async def _anew(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Do what may be done twice, from the start if it is lost with the handle that it uses."""
        for _ in self._pool.attempts():
            try:
                return await verb()
            except ConnectionLost as error:
                lost = error
        raise lost


def without_asking(request: CreateRequest) -> CreateRequest:
    """Return a CREATE that does not ask to be remembered."""
    contexts = [one for one in request.contexts if one.name not in (DURABLE_HANDLE, DURABLE_HANDLE_V2)]
    return replace(request, contexts=contexts)


def _carries_locks(holder: object) -> bool:
    """Whether a holder of a lease is an open that has been chosen to carry locks."""
    return isinstance(holder, Open) and holder.ledger is not None


def _on(handle: Open, request: Any) -> Request:
    """Return a related request as one on a handle."""
    made: Request = replace(request, file_id=handle.file_id)
    return made


def unknown() -> ConnectionLost:
    """Return what befalls those of whose request nobody knows whether it was carried out."""
    return ConnectionLost("the connection was lost before the answer, and nobody knows what was done")
