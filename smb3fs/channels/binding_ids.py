"""Message ids that are set apart for binding further channels to a session which signs with AES-GMAC.

Theory of operation. GMAC takes the message id for its nonce, and one that is used twice under a key gives that key away
([MS-SMB2] 3.1.4.1). Once a channel is bound it has a key of its own. But the messages by which it is bound are signed
with the key of the session, which is that of the first channel ([MS-SMB2] 3.2.4.1.1): by us all of them, by the server
all but the last. Each new connection counts from 0, so that they would bear the ids of the binding before, and also
those of the first channel.

So a range of ids is set apart on the first channel, before anything else is sent there: one ECHO is charged as many
credits, which are as many ids, of which its signature takes the first. On no channel is anything signed by the
session's key with the others. A new connection is brought to the next four of them before it is bound. It has to have
the credits for that, and these come with a login: so a session of its own is begun there, the ids in front are spent by
an ECHO in it, and it is ended. When all are used up, nothing more can be bound to the session.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from smb3fs.channels.channel import Channel
from smb3fs.connection import CREDIT_UNIT, Exchange, SessionSecurity
from smb3fs.errors import SecurityError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.session import LogoffRequest

# How many ids a binding may take: NTLM's takes two, Kerberos' one or two.
EACH: Final = 4
# How many bindings a session is good for, if the server grants the credits.
BINDINGS: Final = 512


def set_apart(channel: Channel, security: SessionSecurity) -> deque[range]:
    """Set ids apart on a session's first channel, and return them, as many at a time as one binding takes.

    Nobody waits for it. There are none where the server grants few credits, or takes one for whatever is asked.
    """
    credits = channel.connection.credits
    count = min(EACH * BINDINGS, credits.available // 2)
    echo = Exchange([EchoRequest((count + 1) * CREDIT_UNIT)], session=security, urgent=True)
    if count < EACH or channel.connection.charge(echo.requests[0]) <= count:
        return deque()
    channel.post(echo)
    if not echo.sent:
        return deque()
    first = echo.message_ids[0] + 1
    return deque(range(start, start + EACH) for start in range(first, first + count - EACH + 1, EACH))


def next_for(channel: Channel, bindings: deque[range]) -> range:
    """Return the ids for one binding: the next ones that a connection has not come past yet."""
    while bindings:
        # One more goes before them.
        if channel.connection.credits.next_id < (ids := bindings.popleft()).start:
            return ids
    raise used_up()


def used_up() -> SecurityError:
    """Return what is told where nothing more can be bound."""
    return SecurityError(
        "no connection can be added to this session any more; the next one, after a loss, can grow again"
    )


async def lead_to(channel: Channel, ids: range, own: SessionSecurity) -> None:
    """Spend the ids in front of those of a binding, in a session of the connection's own, and end that."""
    credits = channel.connection.credits
    while (missing := ids.start - 1 - credits.next_id) > 0:
        charge = min(missing, credits.available)
        await channel.call(Exchange([EchoRequest(charge * CREDIT_UNIT)], session=own, urgent=True))
    await channel.call(Exchange([LogoffRequest()], session=own, urgent=True))
    channel.connection.session = None
    if credits.next_id != ids.start:
        raise SecurityError("something else was sent while a channel was made ready")
