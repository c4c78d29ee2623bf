"""What a channel needs of a transport: whole messages out, whole messages in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from smb3fs.wire.codec import Buffer


class Traffic(NamedTuple):
    """What has gone over a way: bytes that came in, and those of ours that the peer has; how often ours got lost.

    `round_trip` is that of the way itself, without the server's work, in seconds; 0 if it is not known.
    """

    received: int = 0
    sent: int = 0
    repeated: int = 0
    round_trip: float = 0.0


class Transport(Protocol):
    """A way to the server that carries messages, not bytes; framing is its own affair.

    Every method that waits raises ConnectionLost when the way has ended and WireError when the peer breaks the framing.
    """

    limit: int
    """The largest message that is accepted from the peer, in bytes; a longer one is a WireError before it is read."""

    def send_now(self, *messages: Sequence[Buffer]) -> list[Buffer]:
        """Send what fits without waiting and return what is left of the messages, which `send_rest` must be given."""
        ...

    async def send_rest(self, buffers: Sequence[Buffer]) -> None:
        """Send the remainder of what `send_now` began."""
        ...

    async def receive(self) -> memoryview:
        """Return the next message in a writable buffer that belongs to the caller."""
        ...

    def close(self) -> None:
        """Give the way up at once; whoever waits in another method gets ConnectionLost."""
        ...

    def reset(self) -> None:
        """Do as `close` does, also after that, and see to it that nothing more of what was sent reaches the peer."""
        ...

    def progress(self) -> int:
        """Return a number that grows whenever bytes come in, or the peer acknowledges some of ours."""
        ...

    def traffic(self) -> Traffic:
        """Return what has gone over it, all zero after its end."""
        ...

    @property
    def ends(self) -> tuple[str, str]:
        """The addresses of this end and of the other, without ports."""
        ...

    @property
    def description(self) -> str:
        """Both ends, for a person."""
        ...
