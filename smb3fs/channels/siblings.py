"""The further channels of a session: found, bound, watched and brought back, all in the background.

Theory of operation. A session begins with one channel and is never waited for on account of another one. While it
lives, two things go on beside it: it is watched (`watching.py`), and it grows. The server is asked for its addresses
(`discovery.py`), these are paired with ours, and of what could be connected a plan is made (`pairing.py`). What is
missing of that is bound.

- What cannot be reached is tried again, soon if it has been there before and ever more slowly otherwise, and at once
  when a link of ours changes. What the server refuses is not tried again for ten minutes: every attempt is a login.
- A channel that was lost is missing, and so comes back. The server is asked again for its addresses then.
- Where none of the best class can be connected, the plan is made of the next one, and the best is tried all the same;
  when it is back, what is too much of the lower class goes.
- A channel of a lower class than the best one that lives stands by: nothing is sent on it while there is a better one.
- A server that says that it has no addresses for several channels, just now, has one.

A channel that is to go is not cut off: nothing more is sent on it, and it is closed when all is answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from smb3fs.channels.changes import tell_changes
from smb3fs.channels.channel import Channel
from smb3fs.channels.discovery import ASK_INTERVAL, Offers, takes_several
from smb3fs.channels.interfaces import OwnAddress
from smb3fs.channels.pairing import MOST_EACH, Choice, Pair, Path, Plan, apart, paths, plan
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.channels.watching import give_up_unplugged, watch
from smb3fs.errors import (
    AuthenticationError,
    ConnectionLost,
    DeadlineExceeded,
    Smb3fsError,
    Status,
    StatusError,
)
from smb3fs.trace import Trace
from smb3fs.wire.interfaces import Address

# Seconds between two looks at what is missing.
LOOK_INTERVAL: Final = 0.5
# Seconds between two attempts at a pair: the first pause, the longest one where it has been there before, the longest
# one otherwise, and that after a refusal.
FIRST_PAUSE: Final = 1.0
LONGEST_FAMILIAR: Final = 2.0
LONGEST_PAUSE: Final = 60.0
REFUSED_PAUSE: Final = ASK_INTERVAL
# A class that none is better than.
BEST: Final = (True, 1 << 64)


class Siblings:
    """Keeps the channels of a line's session at the number that is wanted."""

    def __init__(
        self,
        pool: Pool,
        bind: Callable[[Session, Pair], Awaitable[Channel]],
        own: Callable[[], list[OwnAddress]],
        most: int,
        choice: Choice,
        trace: Trace,
    ) -> None:
        """`bind` makes one more channel; `own` tells this machine's addresses, of which `choice` says what is used.

        `most` is how many channels the session may have.
        """
        self.paths: dict[Channel, Path] = {}
        """What is known of the way that a channel takes."""
        self.returns: Counter[Pair] = Counter()
        self.failures: Counter[Pair] = Counter()
        self._pool = pool
        self._bind = bind
        self._own = own
        self._most = most
        self._choice = choice
        self._trace = trace
        self._mine: list[OwnAddress] = []
        # The best path to each of the server's interfaces, and which of these an address belongs to.
        self._ranked: list[Path] = []
        self._listed: dict[Address, Path] = {}
        # Of pairs of which the last attempt has failed: how many in a row have, and when the next one is due.
        self._rows: Counter[Pair] = Counter()
        self._not_before: dict[Pair, float] = {}
        self._refused: set[Pair] = set()
        self._trying: Counter[Pair] = Counter()
        # Pairs that have been connected since the mount began, and how many channels of each are gone for now.
        self._familiar: set[Pair] = set()
        self._lost: Counter[Pair] = Counter()
        self._leaving: set[Channel] = set()
        self._stirred = trio.Event()
        self._stale = True

    async def run(self) -> None:
        """Look after one session after the other, until the pool is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_changes, self.stir)
            await self._look_after_sessions()
            nursery.cancel_scope.cancel()

    async def _look_after_sessions(self) -> None:
        """Do so, being told of changes."""
        plain: Session | None = None
        while not self._pool.closed:
            session = self._pool.session
            if session is not None and takes_several(session):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.grow, session)
                    nursery.start_soon(watch, session, self._pool.look_after_late_reads)
                    while self._pool.session is session:
                        await self._pool.changed()
                    nursery.cancel_scope.cancel()
            else:
                if session is not None and session is not plain and not self._choice.apart:
                    plain = session
                    self._trace.event(time.time(), "one connection: the server, the dialect or the login takes no more")
                await self._pool.changed()

    def told(self, channel: Channel) -> tuple[Path | None, int, int]:
        """Return what is known of a channel's way, how often it could not be made and how often it came back."""
        path = self.paths.get(channel)
        return (None, 0, 0) if path is None else (path, self.failures[path.pair], self.returns[path.pair])

    def stir(self) -> None:
        """Take notice that something about this machine's links has changed: what could not be reached may be now."""
        self._stale = True
        for pair in self._not_before.keys() - self._refused:
            del self._not_before[pair]
        self._stirred.set()

    async def grow(self, session: Session) -> None:
        """Have the channels that are wanted, as long as the session lives."""
        offers = Offers(self._trace)
        self._not_before.clear()
        self._refused.clear()
        self._trying.clear()
        known: set[Channel] = set()
        async with trio.open_nursery() as nursery:
            while True:
                self._stirred = trio.Event()
                if known - set(session.channels):
                    self._stale = True
                    offers.again()
                if offers.due and not self._pool.expired:
                    await offers.ask(session)
                    self._stale = True
                if self._stale:
                    await self._look_around(session, offers)
                made = self._arrange(session, offers)
                missing = self._missing(session, made) if not self._pool.expired else ()
                for path in missing if missing and session.takes_another() else ():
                    self._trying[path.pair] += 1
                    nursery.start_soon(self._try, session, path, offers)
                known = set(session.channels)
                with trio.move_on_after(self._pause(session, offers)):
                    await self._stirred.wait()

    def _pause(self, session: Session, offers: Offers) -> float:
        """Return for how many seconds there is nothing to look at, unless a link of ours changes."""
        due = [offers.due_in, *(moment - trio.current_time() for moment in self._not_before.values())]
        quiet = len(session.channels) == 1 and not self._trying.total() and offers.interfaces is not None
        return max(LOOK_INTERVAL, min(due)) if quiet and not self._stale else LOOK_INTERVAL

    async def _look_around(self, session: Session, offers: Offers) -> None:
        """Look at this machine's addresses, and pair them with the server's."""
        self._stale = False
        try:
            self._mine = await trio.to_thread.run_sync(self._own)
        except (Smb3fsError, OSError) as error:
            self._trace.error(time.time(), f"this machine's interfaces are not known: {error}")
            return
        give_up_unplugged(session, {one.network.ip for one in self._mine if one.up})
        offered = offers.interfaces or ()
        self._ranked = paths(self._mine, offered, self._choice)
        by_index = {path.server_index: path for path in self._ranked}
        self._listed = {one.address: by_index[one.index] for one in offered if one.index in by_index}

    def _arrange(self, session: Session, offers: Offers) -> Plan:
        """Say which channels are used and which stand by or go; return the plan by which that is so."""
        if offers.interfaces is None:
            return Plan()
        self._note_losses(session)
        there = {path.pair for path in self.paths.values()}
        hopeless = [pair for pair, row in self._rows.items() if row and pair not in there]
        ranked, each = self._ranked, MOST_EACH
        if self._choice.apart:
            ranked, each = apart(ranked, {path.server_index for path in self.paths.values()}), 1
        made = plan(ranked, self._most, mixed=self._choice.mixed, each=each, hopeless=hopeless)
        barred = {channel for channel in session.channels if self._is_barred(channel)}
        if len(barred) == len(session.channels):
            barred.clear()
        kinds = {one: self.paths[one].kind for one in session.channels if one in self.paths and one not in barred}
        best = max(kinds.values(), default=BEST)
        self._let_go(session, made, barred, none_offered=not offers.interfaces)
        for channel, lane in session.lanes.items():
            is_lower = kinds.get(channel, BEST) < best and not self._choice.mixed
            standby = is_lower or channel in self._leaving
            if standby != lane.standby:
                lane.standby = standby
                what = "stands by, as there are better ones" if standby else "is in use again"
                self._trace.event(time.time(), f"channel {channel.transport.description} {what}")
        return made

    def _note_losses(self, session: Session) -> None:
        """Keep account of the channels that there are, and of those that are gone."""
        for channel in self.paths.keys() - set(session.channels):
            self._lost[self.paths.pop(channel).pair] += channel not in self._leaving
        self._leaving &= set(session.channels)
        for channel in session.channels:
            path = self._listed.get(channel.ends[1]) if channel.ends[1] is not None else None
            if channel not in self.paths and path is not None:
                self.paths[channel] = path
                self._familiar.add(path.pair)
                self._rows[path.pair] = 0
                self._lost -= Counter([path.pair])

    def _is_barred(self, channel: Channel) -> bool:
        """Whether a channel goes by an address of ours that is not to be used."""
        return any(one.network.ip == channel.ends[0] and not self._choice.permits(one) for one in self._mine)

    def _let_go(self, session: Session, made: Plan, barred: set[Channel], *, none_offered: bool) -> None:
        """Part with channels that are too many, or not to be there, as soon as nothing is under way on them."""
        _, spare = self._compared(session, made)
        spare = [channel for channel in spare if channel not in barred]
        # The worst first, and of equals the latest.
        spare.sort(key=lambda one: (self._kind(one), -session.channels.index(one)))
        most = 1 if none_offered else self._most
        self._leaving = barred | set(spare[: max(0, len(session.channels) - len(barred) - most)])
        for channel in tuple(self._leaving):
            if not channel.in_flight and not channel.short_of_credits and len(session.channels) > 1:
                why = "the server has no addresses for several" if none_offered else "others are better"
                channel.fail(ConnectionLost(f"it is not wanted any more, as {why}"))

    def _kind(self, channel: Channel) -> tuple[bool, int]:
        """Return the class of a channel; what leads to an address that the server does not list is as good as any."""
        return self.paths[channel].kind if channel in self.paths else BEST

    def _compared(self, session: Session, made: Plan) -> tuple[list[Path], list[Channel]]:
        """Return what of a plan is missing, and the channels that are not in it."""
        spare = list(session.channels)
        missing = []
        for path in made.wanted:
            index = path.server_index
            there = [one for one in spare if one in self.paths and self.paths[one].server_index == index]
            if there:
                spare.remove(there[0])
            else:
                missing.append(path)
        return missing, spare

    def _missing(self, session: Session, made: Plan) -> list[Path]:
        """Return what to connect to now: what is missing, and what would be better than all there is."""
        missing, _ = self._compared(session, made)
        trying = self._trying.copy()
        room = self._most - len(session.channels) - trying.total()
        now, found = trio.current_time(), []
        for path in [*made.better, *missing]:
            pair, better = path.pair, path in made.better
            if self._not_before.get(pair, 0.0) > now or (room <= 0 and not better):
                continue
            if trying[pair]:
                trying[pair] -= 1
            else:
                found.append(path)
                room -= not better
        return found

    async def _try(self, session: Session, path: Path, offers: Offers) -> None:
        """Bind one more channel, or take note that it is not possible now."""
        pair = path.pair
        try:
            channel = await self._bind(session, pair)
        except (Smb3fsError, OSError) as error:
            self._failed(pair, error)
            return
        finally:
            self._trying[pair] -= 1
        again = "is back" if self._lost[pair] else "added"
        self.returns[pair] += self._lost[pair] > 0
        self._lost -= Counter([pair])
        self._familiar.add(pair)
        self._rows[pair] = 0
        self.paths[channel] = path
        what = f"channel {channel.transport.description} {again}: {path.speed / 1e6:,.0f} Mbit/s"
        self._trace.event(time.time(), f"{what}; the session has {len(session.channels)}")
        self._arrange(session, offers)

    def _failed(self, pair: Pair, error: Smb3fsError | OSError) -> None:
        """Take note of an attempt that failed."""
        self.failures[pair] += 1
        if not self._rows[pair]:
            # Where nobody has asked for it, it is no error that a server lists what cannot be reached from here.
            tell = self._trace.event if self._choice.apart and pair not in self._familiar else self._trace.error
            tell(time.time(), f"no channel {_told(pair)}: {error}")
        longest = LONGEST_FAMILIAR if pair in self._familiar else LONGEST_PAUSE
        pause = min(FIRST_PAUSE * (1 << min(self._rows[pair], 10)), longest)
        if _is_refusal(error):
            pause = REFUSED_PAUSE
            self._refused.add(pair)
        self._rows[pair] += 1
        self._not_before[pair] = trio.current_time() + pause
        self._stale = True


def _is_refusal(error: Smb3fsError | OSError) -> bool:
    """Whether it was said that there is to be no such channel; that may be a login which counts as a wrong one."""
    if isinstance(error, AuthenticationError):
        return error.refused
    if isinstance(error, StatusError):
        return error.status != Status.NETWORK_SESSION_EXPIRED
    return isinstance(error, Smb3fsError) and not isinstance(error, ConnectionLost | DeadlineExceeded)


def _told(pair: Pair) -> str:
    """Return a pair for a person."""
    return f"from {pair.source} to {pair.target}" if pair.source is not None else f"to {pair.target}"
