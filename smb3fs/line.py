"""What carries requests to one place, wired: the session's supply, what is open there, and the share on top."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Final

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.connector import Connector
from smb3fs.channels.logins import Logins
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.channels.siblings import Siblings
from smb3fs.errors import ConnectionLost, Smb3fsError, WireError
from smb3fs.handles.breaks import Breaks
from smb3fs.handles.claims import Claims
from smb3fs.handles.forsaken import Forsaken
from smb3fs.handles.journal import Identity, Journal
from smb3fs.handles.lease import Lease, Reason
from smb3fs.handles.leftovers import close_leftovers
from smb3fs.handles.opens import OpenTable
from smb3fs.handles.renamed import SecondNames
from smb3fs.identity import ClientIdentity
from smb3fs.recovery import Recovery
from smb3fs.share.regaining import HANDLE, READ
from smb3fs.share.share import Share
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateRequest
from smb3fs.wire.header import Request
from smb3fs.wire.lease import Break, LeaseBreakAcknowledgment, LeaseBreakNotification, OplockBreakNotification
from smb3fs.wire.negotiate import Capability

log = logging.getLogger(__name__)

# How long the server may take to hear our farewell; what it did not hear it forgets with the connection.
FAREWELL: Final = 5.0
# Seconds between two attempts to remove what somebody stands in the way of: first, and at most.
FIRST_REMOVAL: Final = 2.0
LAST_REMOVAL: Final = 60.0
# Seconds from one look for lost breaks to the next: as long as the server believes in the channel that is lost it may
# send further ones there.
LOOKS: Final = (0.3, 0.7, 2.0, 7.0, 0.0)
# The same where the server may serve the connection before as well: it tells that one first.
OFTEN: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 1.0, 1.5, 5.0, 0.0)
# How many times as long as a look has taken it rests at least.
REST: Final = 3
# Seconds from the break of H to the first attempt to have it back, and to each further one.
REGAINING: Final = (0.01, 0.1, 1.0, 5.0)
# Seconds from the loss of a channel to the first look for what the server has opened behind a repetition, and to each
# further one: it hears what was on its way when the process that reads it has done with something else, such as a break
# that nobody acknowledges (35 s), or when a relay lets it through.
HEARD: Final = (5.0, 20.0, 60.0)


class Line:
    """What carries requests to one place: a pool with the session, what keeps it supplied, and the share on top."""

    def __init__(
        self,
        pool: Pool,
        share: Share,
        opens: OpenTable,
        journal: Journal,
        logins: Logins,
        timeout: float,
        trace: Trace,
        nursery: trio.Nursery,
        *,
        gathers: bool = False,
        unlisted: set[str] | None = None,
    ) -> None:
        """`nursery` is for what has to be waited for before a break is acknowledged; the last two: see `GivenNames`."""
        self.pool = pool
        self.share = share
        self.opens = opens
        self.inherited = Counter[str]()
        self._journal = journal
        self._patience = timeout / 3
        self._forsaken = Forsaken()
        pool.forsake = self._forsaken.note
        self._names = SecondNames(journal, opens.leases, gathers=gathers, opens=opens, unlisted=unlisted)
        share.second_names = self._names
        claims = Claims(opens, share.reopen, patience=timeout / 3, second_names=self._names)
        self.client = ClientIdentity()
        self.recovery = Recovery(pool, self._connect, self._renew, self._rotated, claims, trace)
        self.connector: Connector | None = None
        self.siblings: Siblings | None = None
        self._trace = trace
        self._breaks = Breaks(opens.leases, nursery.start_soon, trace)
        self._nursery = nursery
        # Set by the loss of a channel since the last look for breaks began, and whether such looks are being taken.
        self._parted = trio.Event()
        self._looking = False
        self._pauses: Sequence[float] = LOOKS
        self.recovery.parted = self._parted_with
        self.recovery.doubled = lambda _: self._begin_to_look(OFTEN)
        opens.leases.subscribe(self._lease_changed)
        self._regaining: set[Lease] = set()
        self._session: Session | None = None
        # Acknowledgements for breaks on a channel whose session is still being made.
        self._owed: list[tuple[Channel, LeaseBreakAcknowledgment]] = []
        self._logins = logins
        self._tried = logins.version

    async def start(self) -> None:
        """Make the first session, and close what a daemon that was killed has left; raises what prevents the former."""
        left = self._journal.take_over()
        if left.identity is not None:
            self.client.resume(left.identity.guid, left.identity.sequence)
        self.inherited["left"] = len(left.opens)
        await self.recovery.start(left.identity.session_id if left.identity is not None else 0)
        session = self.pool.session
        self._names.inherit(left.names)
        if not (left.opens or left.names) or session is None:
            return
        self.inherited = await close_leftovers(session, left.opens, self._journal.drop_left, self._patience)
        self._trace.event(time.time(), f"open files of a daemon that was killed: {_inheritance_told(self.inherited)}")
        await self._take_names_away(session)
        if self.pool.session is None:  # that was not the mount's fault
            await self.recovery.start(session.security.session_id)

    async def run(self) -> None:
        """Keep the pool supplied with a session, and that with channels, for as long as the line is there."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.recovery.run)
            nursery.start_soon(self._make_good)
            nursery.start_soon(self._remove_later)
            nursery.start_soon(self._remove_closed, nursery)
            if self.siblings is not None:
                nursery.start_soon(self.siblings.run)

    def lost(self, channel: Channel, error: Smb3fsError) -> None:
        """Take notice that a channel has ended, and of what was asked on it that nobody waits for."""
        for exchange in channel.left:
            if exchange.forsaken:
                self._forsaken.note(exchange.requests)
        self.recovery.lost(channel, error)

    async def _make_good(self) -> None:
        """Close, after each recovery, what nobody knows of, and open anew what was given back by a name of before."""
        while not self.pool.closed:
            if self.pool.session is None or not len(self._forsaken):
                await self.pool.changed()
            session = self.pool.session
            if session is None:
                continue
            try:
                await self._forsaken.close(session)
            except (ConnectionLost, WireError) as error:
                session.fail(error)
            else:
                await self.share.open_given_back()

    async def _remove_later(self) -> None:
        """Try to take away the names that are left, ever more seldom: somebody stands in the way."""
        pause = FIRST_REMOVAL
        while not self.pool.closed:
            await self._names.any_later()
            await trio.sleep(pause)
            pause = min(2 * pause, LAST_REMOVAL)
            for _ in range(len(self._names)):
                session = self.pool.session
                if session is None:
                    break
                with trio.move_on_after(FAREWELL):
                    try:
                        await self._names.take_one_away(session)
                    except (ConnectionLost, WireError) as error:
                        session.fail(error)
            pause = FIRST_REMOVAL if not len(self._names) else pause

    async def _remove_closed(self, nursery: trio.Nursery) -> None:
        """Remove what was set aside until its last close, one beside the other, as soon as it is closed."""
        while not self.pool.closed:
            nursery.start_soon(self._remove_released, await self._names.next_released())

    async def _remove_released(self, name: str) -> None:
        """Try to take away one such name; what fails is left to those who try again."""
        session = self.pool.session
        if session is None:
            return
        with trio.move_on_after(FAREWELL):
            try:
                await self._names.take_released_away(session, name)
            except (ConnectionLost, WireError) as error:
                session.fail(error)

    async def _take_names_away(self, session: Session, *, held: bool = False) -> None:
        """Take away the names that are left, with `held` those of open files too, for so long as it may take."""
        if not (len(self._names) or (held and self._names.held)):
            return
        with trio.move_on_after(FAREWELL):
            try:
                await self._names.take_away(session, held=held)
            except (ConnectionLost, WireError) as error:
                session.fail(error)

    async def _connect(self, previous_session_id: int) -> Session:
        """Make a session; for Recovery, which exists before the connector does."""
        assert self.connector is not None  # noqa: S101 (whoever makes a line gives it one)
        left = self.inherited["left"]
        # What a CREATE without an answer has opened can only be found by the ClientGuid as well, so the table decides.
        self.client.renew(len(self.opens) + left, keeps=self.opens.keeps or left > 0)
        try:
            session = await self.connector.connect(previous_session_id)
        finally:
            self._tried = self._logins.version
        if not self.share.suits(session):
            error = ConnectionLost("the server has no POSIX extensions any more, which this mount uses")
            session.fail(error)
            raise error
        self._session = session
        # Servers that have directory leases (Samba from 4.22 on, Windows) look at names as at contents.
        guards_names = bool(session.agreed.capabilities & Capability.DIRECTORY_LEASING)
        self.opens.leases.speak(session.agreed.lease_version, guards_names=guards_names)
        owed, self._owed = self._owed, []
        for channel, answer in owed:
            self._acknowledge(channel, answer)
        if self.share.persists(session):
            # The servers to which links lead number sessions as they like.
            home = session.place is None or self.connector.is_home(session.place)
            session_id = session.security.session_id if home else 0
            self._journal.identify(Identity(self.client.guid, self.client.sequence, session_id))
        return session

    def broken(self, channel: Channel, told: Break) -> None:
        """Take in that the server takes something back; it is told that it can have it when we are done with it."""
        if isinstance(told, OplockBreakNotification):
            self._trace.event(time.time(), "the server sent an oplock break that nobody asked for")
            return
        self._breaks.take(told, lambda answer: self._acknowledge(channel, answer))

    def _acknowledge(self, channel: Channel, answer: LeaseBreakAcknowledgment) -> None:
        """Acknowledge a break on the channel on which it came, as soon as there is a session on it.

        What comes of one whose channel is lost meanwhile is seen when the open is claimed or made anew.
        """
        # It may come while what was open is being claimed, in a session that no other traffic flows in yet.
        if self._session is not None and self._session.has(channel):
            self._session.post([answer])
        elif channel.error is None:
            self._owed.append((channel, answer))

    def _parted_with(self, session: Session) -> None:
        """Take notice that a channel is lost of a session that goes on, and perhaps breaks with it."""
        self._nursery.start_soon(self._close_late, session)
        self._begin_to_look(LOOKS)

    def _begin_to_look(self, pauses: Sequence[float]) -> None:
        """Look for breaks that have gone, or may go, to a connection that is lost, with these pauses between."""
        self._pauses = pauses
        self._parted.set()
        if not self._looking:
            self._looking = True
            self._nursery.start_soon(self._look_for_breaks)

    async def _look_for_breaks(self) -> None:
        """Find the breaks that were lost, again and again until the server has noticed the loss as well."""
        again = True
        try:
            while again:
                self._parted = trio.Event()
                again = await self._look_a_few_times(self._parted)
        finally:
            self._looking = False

    async def _look_a_few_times(self, parted: trio.Event) -> bool:
        """Do so until another channel is lost (True), all that is to be done is done, or the session is.

        If anything was found it is to be done once more: who believes in a relay may do so for hours.
        """
        session, again = self.pool.session, False
        for pause in self._pauses:
            if session is None or session is not self.pool.session:
                return parted.is_set()  # what is open is claimed, or gone
            began = trio.current_time()
            found = await self.share.look_for_breaks(session, partial(self._found, session))
            pause = max(pause, REST * (trio.current_time() - began))  # noqa: PLW2901
            if found:
                again = True
                self._trace.event(time.time(), f"a lost connection has taken breaks of {found} leases along")
            with trio.move_on_after(pause):
                await parted.wait()
                return True
        return again or parted.is_set()

    def _lease_changed(self, lease: Lease, old: int, new: int, reason: Reason) -> None:
        """Have H back that was taken alone, if there is something open that is kept by it.

        With R it goes when others write, and will go again.
        """
        session = self.pool.session
        if reason is not Reason.BROKEN or not old & ~new & HANDLE or not new & READ:
            return
        if session is None or lease in self._regaining:
            return
        if self.share.needs_h(lease, session.generation):
            self._regaining.add(lease)
            self._nursery.start_soon(self._regain, session, lease)

    async def _regain(self, session: Session, lease: Lease) -> None:
        """Ask for it when the break is over, and whoever has brought it about is through."""
        try:
            for pause in REGAINING:
                await trio.sleep(pause)
                if session is not self.pool.session or not self.share.needs_h(lease, session.generation):
                    return
                await self._unwatched(session, self.share.regain(session, lease))
        finally:
            self._regaining.discard(lease)

    async def _close_late(self, session: Session) -> None:
        """Close what the server may have opened behind a repetition, when it has had time to hear of it.

        By then it may know of nothing, and hear of it yet, so that it is asked again.
        """
        lost: list[CreateRequest] = []
        for pause in HEARD:
            await trio.sleep(pause)
            lost = lost or self._lost_creates(session)
            if session is not self.pool.session or not lost:
                return
            await self._unwatched(session, self.share.close_late(session, lost))

    def _lost_creates(self, session: Session) -> list[CreateRequest]:
        """Take over what was lost with a channel of a session, and leave what belongs to others that are not over."""
        late, others = self.pool.lost_creates, deque[tuple[Session, Request]]()
        lost = []
        while late:
            of, request = late.popleft()
            if of is session and isinstance(request, CreateRequest):
                lost.append(request)
            elif of is self.pool.session:
                others.append((of, request))
        late.extend(others)
        return lost

    @staticmethod
    async def _unwatched(session: Session, doing: Awaitable[None]) -> None:
        """Do what nobody waits for: an answer that makes no sense ends the session, and not the mount."""
        try:
            await doing
        except (ConnectionLost, WireError) as error:
            session.fail(error)
        except (Smb3fsError, OSError) as error:
            log.info("what was to be done behind the scenes is not done: %s", error)

    def _found(self, session: Session, told: LeaseBreakNotification) -> None:
        """Take in a break that the server has told of by another way."""
        self._breaks.take(told, lambda answer: session.post([answer]))

    async def _renew(self, session: Session) -> None:
        """Renew a session; for Recovery likewise."""
        assert self.connector is not None  # noqa: S101
        try:
            await self.connector.renew(session)
        finally:
            self._tried = self._logins.version

    async def _rotated(self) -> bool:
        """Whether there is a login that this line has not tried; another line may have read it."""
        return await self._logins.newer_than(self._tried)

    async def end(self) -> None:
        """Take leave of the server, so that nothing of us is left there."""
        session, heard = self.pool.session, False
        self.pool.close()
        if session is not None:
            await self._take_names_away(session, held=True)
            with trio.move_on_after(FAREWELL):
                try:
                    await session.end()
                    heard = True
                except (Smb3fsError, OSError) as error:
                    log.info("the server did not hear the farewell: %s", error)
        # What is left is for the next daemon.
        self._journal.end(heard=heard and not (len(self._names) or self._names.held))


def _inheritance_told(counts: Mapping[str, int]) -> str:
    """Return what became of what a killed daemon had left."""
    return f"{counts['closed']} claimed and closed, {counts['gone']} were there no more, {counts['left']} are left"
