"""What may become of a session's requests when one of its channels is lost and the others go on.

With a whole session the server gives up what it had to do for it; with one channel it does not. What it was asked on
the lost channel it may still do, at any later time. So a session outlives a channel only if that does no harm:

- what looks, or closes, can be done twice, whenever;
- a change to what is open is told from its repetition by the channel sequence, which grows with the loss: the server
  refuses a change that comes late, and puts a repetition off while the first one is under way ([MS-SMB2] 3.3.5.2.10);
- a CREATE with a CreateGuid is found again by it, as long as somebody is there to ask for it ([MS-SMB2] 3.3.5.9.10);
- a LOCK is so if it has a sequence.

Any other change by name, a rename for one, might be done after all when the name stands for something else. For these
there is the barrier (`recovery.py`): the session is given up, and the server with it gives up what it was asked.
"""

from __future__ import annotations

from typing import Final

from smb3fs.connection import Exchange
from smb3fs.wire.create import CreateOptions, CreateRequest, Disposition
from smb3fs.wire.durable import DURABLE_HANDLE_V2
from smb3fs.wire.header import Command
from smb3fs.wire.lock import LockRequest

# What nobody has waited for, and is done again on another channel.
TIDYING: Final = frozenset({Command.CLOSE, Command.OPLOCK_BREAK})
# What may follow a CREATE that only looks.
LOOKING: Final = frozenset(
    {Command.CREATE, Command.CLOSE, Command.READ, Command.QUERY_INFO, Command.QUERY_DIRECTORY, Command.ECHO}
)


def is_tidying(exchange: Exchange) -> bool:
    """Whether an exchange that nobody has waited for has to be done all the same."""
    return not exchange.waited and all(request.command in TIDYING for request in exchange.requests)


def parts(exchange: Exchange, *, awaited: bool) -> bool:
    """Whether the session may outlive the loss of the channel on which this was not answered.

    `awaited` tells whether somebody has waited for it to the last.
    """
    commands = [request.command for request in exchange.requests]
    if not exchange.waited and exchange.ahead is None:
        return is_tidying(exchange) or commands == [Command.ECHO]
    if not exchange.sent:
        return True
    first = exchange.requests[0]
    if isinstance(first, CreateRequest):
        if len(commands) == 1:
            return awaited and any(context.name == DURABLE_HANDLE_V2 for context in first.contexts)
        deletes = first.create_options & CreateOptions.DELETE_ON_CLOSE
        looks = first.disposition == Disposition.OPEN and Command.CLOSE in commands and not deletes
        return looks and LOOKING.issuperset(commands)
    return all(
        not isinstance(request, LockRequest) or (awaited and request.sequence != 0) for request in exchange.requests
    )
