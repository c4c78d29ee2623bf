"""The further channels of a session: found, bound, watched and brought back, all in the background.

Theory of operation. A session begins with one channel and is never waited for on account of another one. While it
lives, two things go on beside it:

- It grows. The server is asked for its addresses, these are paired with ours (`pairing.py`), and what is missing of the
  wanted pairs is bound. What cannot be reached is tried again, soon if it has been there before and ever more slowly
  otherwise; what the server refuses is not tried again before it is next asked for its addresses, since every attempt
  is a login. A channel that was lost is missing, and so comes back.
- It is watched. A channel with requests outstanding on which nothing arrives for a second is asked whether it is there,
  and so are its siblings. If it is silent for two seconds, and one of them has answered since, it is the path that is
  dead and not the server: the channel is given up, and its requests move. If all are silent the server may merely be
  busy; then the longer bound decides that each channel has by itself. A large message on a slow link is no silence, but
  a few bytes are: where packets are lost in one direction alone, those of the other one go on trickling.

A channel of a lower class than the best one that lives stands by: nothing is sent on it while there is a better one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.discovery import interfaces_of, takes_several
from smb3fs.channels.interfaces import OwnAddress
from smb3fs.channels.pairing import Pair, Path, best_class, paths, wanted
from smb3fs.channels.pool import Pool
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, DeadlineExceeded, Smb3fsError
from smb3fs.trace import Trace
from smb3fs.wire.interfaces import Address

# Seconds between two questions for the server's addresses; as Linux and Windows have it.
ASK_INTERVAL: Final = 600.0
# Seconds between two looks at what is missing, and at what is silent.
LOOK_INTERVAL: Final = 0.5
WATCH_INTERVAL: Final = 0.25
# Seconds of silence after which a channel is asked, and after which it is given up.
ASKED_AFTER: Final = 1.0
SILENT_AFTER: Final = 2.0
# Seconds between two attempts at a pair: the first pause, the longest one where it has been there before, and the
# longest one otherwise.
FIRST_PAUSE: Final = 1.0
# Bytes that show that a path is alive which has brought no answer.
SIGN_OF_LIFE: Final = 64 * 1024
LONGEST_FAMILIAR: Final = 2.0
LONGEST_PAUSE: Final = 60.0


@dataclass(slots=True)
class Pulse:
    """Since when a channel is silent, and how many bytes it had moved by then."""

    moved: int
    since: float


class Siblings:
    """Keeps the channels of a line's session at the number that is wanted."""

    def __init__(
        self,
        pool: Pool,
        bind: Callable[[Session, Pair], Awaitable[Channel]],
        own: Callable[[], list[OwnAddress]],
        most: int,
        source: Address | None,
        trace: Trace,
    ) -> None:
        """`bind` makes one more channel; `own` tells this machine's addresses, of which only `source` is used if given.

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
        self._source = source
        self._trace = trace
        self._not_before: dict[Pair, float] = {}
        self._rows: Counter[Pair] = Counter()
        # How many channels of each pair were lost and are not back.
        self._lost: Counter[Pair] = Counter()

    async def run(self) -> None:
        """Look after one session after the other, until the pool is closed."""
        plain: Session | None = None
        while not self._pool.closed:
            session = self._pool.session
            if session is not None and takes_several(session):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._grow, session)
                    nursery.start_soon(self._watch, session)
                    while self._pool.session is session:
                        await self._pool.changed()
                    nursery.cancel_scope.cancel()
            else:
                if session is not None and session is not plain:
                    plain = session
                    self._trace.event(time.time(), "one connection: the server, the dialect or the login takes no more")
                await self._pool.changed()

    def told(self, channel: Channel) -> tuple[Path | None, int, int]:
        """Return what is known of a channel's way, how often it could not be made and how often it came back."""
        path = self.paths.get(channel)
        return (None, 0, 0) if path is None else (path, self.failures[path.pair], self.returns[path.pair])

    async def _grow(self, session: Session) -> None:
        """Add what is missing, as long as the session lives."""
        self._not_before.clear()
        self._rows.clear()
        self._lost.clear()
        self.paths.clear()
        while True:
            ranked: list[Path] = []
            try:
                own = await trio.to_thread.run_sync(self._own)
                ranked = paths(own, await interfaces_of(session), self._source)
            except (Smb3fsError, OSError) as error:
                self._trace.error(time.time(), f"the server's interfaces are not known: {error}")
            with trio.move_on_after(ASK_INTERVAL):
                while ranked:
                    self._rank(session, ranked)
                    async with trio.open_nursery() as nursery:
                        for pair in self._missing(session, ranked):
                            nursery.start_soon(self._try, session, pair, ranked)
                    await trio.sleep(LOOK_INTERVAL)
                await trio.sleep_forever()

    def _rank(self, session: Session, ranked: list[Path]) -> None:
        """Have the channels of a lower class stand by while one of the best class lives."""
        for channel in self.paths.keys() - set(session.channels):
            self._lost[self.paths.pop(channel).pair] += 1
        best = {path.pair.target for path in best_class(ranked)}
        listed = {path.pair.target: path for path in ranked}
        lower = []
        for channel in session.channels:
            _, target = _ends(channel)
            if target in listed:
                self.paths.setdefault(channel, listed[target])
            lower.append(target in listed and target not in best)
        for channel, is_lower in zip(session.channels, lower, strict=True):
            lane, standby = session.lanes.get(channel), is_lower and not all(lower)
            if lane is not None and lane.standby != standby:
                lane.standby = standby
                what = "stands by, as there are better ones" if standby else "is in use again"
                self._trace.event(time.time(), f"channel {channel.transport.description} {what}")

    def _missing(self, session: Session, ranked: list[Path]) -> list[Pair]:
        """Return the wanted pairs that have no channel and may be tried now."""
        have = Counter(_ends(channel) for channel in session.channels)
        missing = []
        for pair in wanted(ranked, self._most):
            end = next((end for end in have if end[1] == pair.target and pair.source in (None, end[0])), None)
            if end is None:
                end = next((end for end in have if end[1] == pair.target), None)
            if end is None:
                missing.append(pair)
            else:
                have -= Counter([end])
        now = trio.current_time()
        room = self._most - len(session.channels)
        return [pair for pair in missing if self._not_before.get(pair, 0.0) <= now][: max(room, 0)]

    async def _try(self, session: Session, pair: Pair, ranked: list[Path]) -> None:
        """Bind one more channel, or take note that it is not possible now."""
        try:
            channel = await self._bind(session, pair)
        except (Smb3fsError, OSError) as error:
            self.failures[pair] += 1
            refused = isinstance(error, Smb3fsError) and not isinstance(error, ConnectionLost | DeadlineExceeded)
            longest = LONGEST_FAMILIAR if pair in self._lost else LONGEST_PAUSE
            pause = ASK_INTERVAL if refused else min(FIRST_PAUSE * (1 << min(self._rows[pair], 10)), longest)
            if not self._rows[pair]:
                self._trace.error(time.time(), f"no channel {_told(pair)}: {error}")
            self._rows[pair] += 1
            self._not_before[pair] = trio.current_time() + pause
            return
        self._rows[pair] = 0
        self.returns[pair] += pair in self._lost
        path = next(path for path in ranked if path.pair == pair)
        self.paths[channel] = path
        self._rank(session, ranked)
        again = "is back" if pair in self._lost else "added"
        self._lost -= Counter([pair])
        what = f"channel {channel.transport.description} {again}: {path.speed / 1e6:,.0f} Mbit/s"
        self._trace.event(time.time(), f"{what}; the session has {len(session.channels)}")

    async def _watch(self, session: Session) -> None:
        """Give up channels that are silent while others answer."""
        pulses: dict[Channel, Pulse] = {}
        while True:
            await trio.sleep(WATCH_INTERVAL)
            if len(session.channels) == 1:
                pulses.clear()
                continue
            pulses = {channel: _felt(channel, pulses.get(channel)) for channel in session.channels}
            self._judge(pulses)

    @staticmethod
    def _judge(pulses: dict[Channel, Pulse]) -> None:
        """Ask around where a channel is silent, and give it up if that is so for too long and others answer."""
        now = trio.current_time()
        silent = [channel for channel, pulse in pulses.items() if now - pulse.since >= ASKED_AFTER]
        if not silent:
            return
        for channel in pulses:
            channel.ask()
        for channel in silent:
            since = pulses[channel].since
            if now - since < SILENT_AFTER:
                continue
            if any(other is not channel and other.last_received > since + ASKED_AFTER for other in pulses):
                channel.fail(ConnectionLost(f"no answer for {now - since:.1f} s, while the session's others answer"))


def _felt(channel: Channel, before: Pulse | None) -> Pulse:
    """Return how a channel is now; what waits for nothing is not silent."""
    now, moved = trio.current_time(), channel.transport.progress()
    if before is None or not channel.connection.awaited or moved - before.moved >= SIGN_OF_LIFE:
        return Pulse(moved, now)
    return Pulse(moved, channel.last_received) if channel.last_received > before.since else before


def _ends(channel: Channel) -> tuple[Address | None, Address | None]:
    """Return the addresses of a channel's both ends."""
    local, remote = channel.transport.ends
    return _address(local), _address(remote)


def _address(text: str) -> Address | None:
    """Return an address, None for what is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _told(pair: Pair) -> str:
    """Return a pair for a person."""
    return f"from {pair.source} to {pair.target}" if pair.source is not None else f"to {pair.target}"
