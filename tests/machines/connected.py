"""A connection with a peer behind it and a test in between."""

from __future__ import annotations

from collections.abc import Sequence

from peer import TREE_ID, Keys, Message, Peer, Reply

from smb3fs.connection import Answer, Completed, Connection, Event, Exchange
from smb3fs.wire.control import EchoResponse
from smb3fs.wire.create import FileId
from smb3fs.wire.header import Request
from smb3fs.wire.io import FlushRequest

FILE = FileId(7, 8)


class Wire:
    """A connection and a peer, with the test in between."""

    def __init__(self, keys: Keys | None = None, *, credits: int = 512, large_mtu: bool = True) -> None:
        self.connection = Connection()
        self.peer = Peer(keys)
        self.connection.session = keys.client if keys else None
        self.connection.negotiated(large_mtu=large_mtu)
        self.connection.credits.grant(credits - 1, settled=0)
        self.peer.credits = credits
        self.session = keys.client if keys else None

    def exchange(self, *requests: Request, seal: bool = False) -> Exchange:
        return Exchange(requests, tree_id=TREE_ID, session=self.session, seal=seal)

    def send(self, exchange: Exchange) -> Message:
        """Have an exchange arrive at the peer."""
        buffers = self.connection.prepare(exchange)
        assert buffers is not None, "too few credits"
        return self.arrive(buffers)

    def arrive(self, buffers: Sequence[bytes | bytearray | memoryview]) -> Message:
        """Have a message arrive at the peer, which must find nothing to object to."""
        self.peer.transport.send_now(list(buffers))
        assert not self.peer.violations
        return self.peer.take()

    def receive(self, frame: bytes) -> list[Event]:
        return self.connection.receive(memoryview(bytearray(frame)))

    def back(self, *replies: Reply, sealed: bool = False, protect: bool = True) -> list[Event]:
        """Have answers arrive at the client."""
        return self.receive(self.peer.frame(*replies, sealed=sealed, protect=protect))

    def ask(self, request: Request | None = None, *, seal: bool = False) -> tuple[Exchange, Reply]:
        """Send one request and return it with the peer's success, not yet delivered."""
        exchange = self.exchange(request or FlushRequest(FILE), seal=seal)
        message = self.send(exchange)
        return exchange, self.peer.reply(message.elements[0], EchoResponse().encode())


def finished(events: list[Event]) -> list[Exchange]:
    """The exchanges that some events complete."""
    return [event.exchange for event in events if isinstance(event, Completed)]


def answers(exchange: Exchange) -> list[Answer]:
    """The answers of an exchange that has all of them."""
    return [answer for answer in exchange.answers if answer is not None]
