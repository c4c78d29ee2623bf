"""Which of a session's channels are dead, though nobody has said so.

A channel with requests outstanding on which nothing arrives for a second is asked whether it is there, and so are its
siblings. If it is silent for two seconds, and one of them has answered since, it is the path that is dead and not the
server: the channel is given up, and its requests move. If all are silent the server may merely be busy; then the longer
bound decides that each channel has by itself. A large message on a slow link is no silence, but a few bytes are: where
packets are lost in one direction alone, those of the other one go on trickling.

A channel whose link of ours is down is given up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import trio

from smb3fs.channels.channel import SIGN_OF_LIFE, Channel
from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost
from smb3fs.wire.interfaces import Address

# Seconds between two looks.
INTERVAL: Final = 0.25
# Seconds of silence after which a channel is asked, and after which it is given up.
ASKED_AFTER: Final = 1.0
SILENT_AFTER: Final = 2.0


@dataclass(slots=True)
class Pulse:
    """Since when a channel is silent, and how many bytes it had moved by then."""

    moved: int
    since: float


async def watch(session: Session, look: Callable[[], None] = lambda: None) -> None:
    """Give up channels that are silent while others answer; `look` is for what else has to be seen to as often."""
    pulses: dict[Channel, Pulse] = {}
    while True:
        await trio.sleep(INTERVAL)
        if len(session.channels) == 1:
            pulses.clear()
            continue
        look()
        pulses = {channel: _felt(channel, pulses.get(channel)) for channel in session.channels}
        _judge(pulses)


def give_up_unplugged(session: Session, up: Collection[Address]) -> None:
    """Give up channels whose address of ours is on no link that is up, where there are others."""
    ours = {channel: channel.ends[0] for channel in session.channels}
    down = [channel for channel, address in ours.items() if address is not None and address not in up]
    if len(down) < len(ours):
        for channel in down:
            channel.fail(ConnectionLost("this machine's end of its link is down"))


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
