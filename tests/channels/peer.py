"""A scripted server in memory, built from the same wire code, and the channel to it.

The peer keeps the books that a server keeps: which message ids and credits the client may use, whether what must be
signed or sealed is. A breach is noted in `violations`, which `linked` finds empty when the channel has ended.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
import trio.testing
from memory_transport import MemoryTransport

from smb3fs.channels.channel import Channel
from smb3fs.connection import Answer, Exchange, SessionSecurity
from smb3fs.crypto import NonceCounter, Sealer, Signer, Unsealer, make_signer
from smb3fs.errors import ConnectionLost, Smb3fsError, Status
from smb3fs.trace import Trace
from smb3fs.wire.codec import Buffer, pad8
from smb3fs.wire.control import CancelRequest, EchoRequest, EchoResponse, ErrorResponse
from smb3fs.wire.create import CreateRequest, CreateResponse, FileId
from smb3fs.wire.header import (
    FLAG_ASYNC,
    FLAG_RELATED,
    FLAG_RESPONSE,
    FLAG_SIGNED,
    HEADER_SIZE,
    Command,
    Header,
    Request,
    TransformHeader,
    is_transform,
    split_compound,
)
from smb3fs.wire.io import CloseRequest, CloseResponse, FlushRequest, ReadRequest, WriteRequest
from smb3fs.wire.ioctl import IoctlRequest
from smb3fs.wire.lease import Break, LeaseBreakAcknowledgment
from smb3fs.wire.lock import LockRequest
from smb3fs.wire.negotiate import Cipher, NegotiateRequest, SigningAlgorithm
from smb3fs.wire.query import QueryDirectoryRequest, QueryInfoRequest, SetInfoRequest
from smb3fs.wire.session import LogoffRequest, SessionSetupRequest
from smb3fs.wire.tree import TreeConnectRequest, TreeDisconnectRequest

REQUESTS: Final[dict[int, Any]] = {
    request.command: request
    for request in (
        NegotiateRequest,
        SessionSetupRequest,
        LogoffRequest,
        TreeConnectRequest,
        TreeDisconnectRequest,
        CreateRequest,
        CloseRequest,
        FlushRequest,
        ReadRequest,
        WriteRequest,
        LockRequest,
        IoctlRequest,
        QueryDirectoryRequest,
        QueryInfoRequest,
        SetInfoRequest,
        EchoRequest,
        CancelRequest,
        LeaseBreakAcknowledgment,
    )
}

SESSION_ID: Final = 0x5E55_1000_0000_0001
TREE_ID: Final = 0x77
SIGNING_KEY: Final = bytes(range(16))
TO_SERVER: Final = bytes(range(16, 48))
TO_CLIENT: Final = bytes(range(48, 80))


def trio_test(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a clock that jumps as soon as everybody sleeps, so that hours cost nothing."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(functools.partial(function, *args, **kwargs), clock=clock)

    return wrapper


def real_time_test(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test that waits for threads or sockets, which a jumping clock would outrun."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            with trio.fail_after(20):
                await function(*args, **kwargs)

        trio.run(bounded)

    return wrapper


@dataclass(slots=True)
class Keys:
    """Both ends of a session's protection."""

    client: SessionSecurity
    signer: Signer
    sealer: Sealer
    unsealer: Unsealer


def make_keys(
    signing: int = SigningAlgorithm.AES_GMAC, cipher: int = Cipher.AES_128_GCM, *, seal_everything: bool = False
) -> Keys:
    """Return protection with fixed keys, of each end its own objects."""
    size = 16 if cipher in (Cipher.AES_128_CCM, Cipher.AES_128_GCM) else 32
    to_server, to_client = TO_SERVER[:size], TO_CLIENT[:size]
    client = SessionSecurity(
        SESSION_ID,
        make_signer(signing, SIGNING_KEY),
        Sealer(cipher, to_server, NonceCounter()),
        Unsealer(cipher, to_client),
        seal_everything,
    )
    return Keys(
        client,
        make_signer(signing, SIGNING_KEY),
        Sealer(cipher, to_client, NonceCounter()),
        Unsealer(cipher, to_server),
    )


@dataclass(slots=True, eq=False)
class Element:
    """One request as the peer received it."""

    header: Header
    pdu: memoryview
    request: Any
    message: Message

    @property
    def command(self) -> int:
        return self.header.command


@dataclass(slots=True, eq=False)
class Message:
    """One message as the peer received it."""

    elements: list[Element] = field(default_factory=list)
    sealed: bool = False

    @property
    def commands(self) -> list[str]:
        return [Command(element.command).name for element in self.elements]


@dataclass(slots=True)
class Reply:
    """One answer before it is protected and joined with others."""

    header: Header
    body: Buffer


class Peer:
    """A server that does what the test says: by hand, or by `handler` for each message that arrives."""

    def __init__(self, keys: Keys | None = None) -> None:
        self.keys = keys
        self.transport = MemoryTransport(self._arrived)
        self.messages: list[Message] = []
        self.cancels: list[Element] = []
        self.handler: Callable[[Message], None] | None = None
        self.grant: Callable[[Header], int] = lambda header: header.credits
        self.violations: list[str] = []
        self.credits = 1
        self.next_id = 0
        self._looked_at = 0

    # -- from the client

    def _arrived(self, raw: bytes) -> None:
        """Take in one message, as a server checks it."""
        message = Message()
        data = memoryview(bytearray(raw))
        if is_transform(data):
            assert self.keys is not None, "sealed without keys"
            if TransformHeader.parse(data).session_id != SESSION_ID:
                self.violations.append("sealed for another session")
            data = self.keys.unsealer.unseal(data)
            message.sealed = True
        for pdu in split_compound(data):
            header = Header.parse(pdu)
            self._check(header, pdu, message)
            message.elements.append(Element(header, pdu, REQUESTS[header.command].parse(pdu), message))
        if message.elements[0].command == Command.CANCEL:
            self.cancels += message.elements
        else:
            self.messages.append(message)
        if self.handler is not None:
            self.handler(message)

    def _check(self, header: Header, pdu: memoryview, message: Message) -> None:
        """Note what a server would not put up with."""
        cancel = header.command == Command.CANCEL
        if header.flags & FLAG_RESPONSE:
            self.violations.append("a request with the flag of a response")
        if header.flags & FLAG_SIGNED:
            assert self.keys is not None, "signed without keys"
            if message.sealed:
                self.violations.append("signed inside of a sealed message")
            elif not self.keys.signer.verify(
                pdu, header.signature, header.message_id, is_cancel=cancel, from_server=False
            ):
                self.violations.append(f"wrong signature of {Command(header.command).name}")
        elif header.session_id == SESSION_ID and self.keys is not None and not message.sealed:
            self.violations.append(f"{Command(header.command).name} is neither signed nor sealed")
        if bool(header.flags & FLAG_RELATED) != bool(message.elements):
            self.violations.append("the flag RELATED stands where it should not, or does not where it should")
        if cancel:
            return
        charge = max(header.credit_charge, 1)
        if header.message_id != self.next_id:
            self.violations.append(f"message id {header.message_id} in place of {self.next_id}")
        self.next_id += charge
        self.credits -= charge
        if self.credits < 0:
            self.violations.append(f"{-self.credits} more credits used than granted")

    def take(self) -> Message:
        """Return the next message that the test has not looked at; there must be one."""
        assert self._looked_at < len(self.messages), "the client has sent nothing more"
        self._looked_at += 1
        return self.messages[self._looked_at - 1]

    @property
    def unseen(self) -> list[Message]:
        """The messages that the test has not looked at."""
        return self.messages[self._looked_at :]

    # -- to the client

    def reply(
        self, element: Element, body: Buffer | None = None, status: int = Status.SUCCESS, *, credits: int | None = None
    ) -> Reply:
        """Make the final answer to one request: a body, or the error that goes with the status."""
        if body is None:
            body = ErrorResponse().encode()
        header = Header(
            element.command,
            element.header.message_id,
            status,
            element.header.credit_charge,
            self.grant(element.header) if credits is None else credits,
            FLAG_RESPONSE | element.header.flags & FLAG_RELATED,
            element.header.tree_id,
            element.header.session_id,
        )
        return Reply(header, body)

    def pending(self, element: Element, async_id: int, *, credits: int = 0) -> Reply:
        """Make the interim answer: it will take some time, and `async_id` names it until then."""
        reply = self.reply(element, status=Status.PENDING, credits=credits)
        reply.header.flags |= FLAG_ASYNC
        reply.header.async_id = async_id
        return reply

    def frame(self, *replies: Reply, sealed: bool = False, protect: bool = True) -> bytes:
        """Join answers into one message, each signed, or all sealed together."""
        message = bytearray()
        for reply in replies:
            element = bytearray(HEADER_SIZE) + reply.body
            last = reply is replies[-1]
            if not last:
                element += bytes(pad8(len(element)) - len(element))
            sign = protect and not sealed and self.keys is not None and bool(reply.header.session_id)
            sign = sign and reply.header.status != Status.PENDING
            if sign:
                reply.header.flags |= FLAG_SIGNED
            element[:HEADER_SIZE] = reply.header.encode(0 if last else len(element))
            if sign:
                assert self.keys is not None
                element[48:64] = self.keys.signer.sign([element], reply.header.message_id, from_server=True)
            message += element
        if sealed:
            assert self.keys is not None
            return b"".join(self.keys.sealer.seal([message], SESSION_ID))
        return bytes(message)

    def send(self, *replies: Reply, sealed: bool | None = None, protect: bool = True) -> None:
        """Send answers as one message, sealed if the requests were."""
        self.credits += sum(reply.header.credits for reply in replies)
        self.transport.put(self.frame(*replies, sealed=bool(sealed), protect=protect))

    def answer(
        self, message: Message, *bodies: Buffer | None, statuses: Sequence[int] | None = None, apart: bool = False
    ) -> None:
        """Answer all of a message: success with the bodies given, or the statuses; in one frame or each in its own."""
        elements = message.elements
        given = [*bodies, *[None] * (len(elements) - len(bodies))]
        replies = []
        for index, element in enumerate(elements):
            status = statuses[index] if statuses is not None else Status.SUCCESS
            body = given[index]
            replies.append(self.reply(element, plain_body(element) if body is None and not status else body, status))
        if apart:
            for reply in replies:
                self.send(reply, sealed=message.sealed)
        else:
            self.send(*replies, sealed=message.sealed)

    def obey(self, message: Message) -> None:
        """Be a handler that answers everything with success."""
        if message.elements[0].command != Command.CANCEL:
            self.answer(message)


def plain_body(element: Element) -> bytes:
    """Return the body of a success that says nothing of interest."""
    match element.command:
        case Command.ECHO:
            return EchoResponse().encode()
        case Command.CREATE:
            return created(FileId(1, 2))
        case Command.CLOSE:
            return CloseResponse().encode()
        case _:
            return EchoResponse().encode()  # enough for whoever looks only at the status


def created(file_id: FileId, action: int = 1) -> bytes:
    """Return the body of an answer to CREATE."""
    return CreateResponse(0, 0, action, 0, 0, 0, 0, 0, 0, 0x80, file_id).encode()


@dataclass(slots=True)
class Link:
    """A channel that runs, and what it told its owner."""

    channel: Channel
    peer: Peer
    trace: Trace
    losses: list[Smb3fsError]
    nursery: trio.Nursery
    breaks: list[Break] = field(default_factory=list)
    lost: trio.Event = field(default_factory=trio.Event)

    def exchange(self, *requests: Request, seal: bool = False, urgent: bool = False) -> Exchange:
        session = self.peer.keys.client if self.peer.keys else None
        return Exchange(requests, tree_id=TREE_ID, session=session, seal=seal, urgent=urgent)

    def call(self, *requests: Request, seal: bool = False, urgent: bool = False) -> Call:
        """Have a task of its own call with these requests; they leave as soon as the test waits for something."""
        return Call(self.nursery, self.channel.call, self.exchange(*requests, seal=seal, urgent=urgent))

    def see_through(self, *requests: Request) -> Call:
        """Do the same for one that has to know what became of it."""
        return Call(self.nursery, self.channel.see_through, self.exchange(*requests))


@asynccontextmanager
async def linked(
    peer: Peer, *, timeout: float = 30, echo_interval: float = 60, credits: int | None = 512
) -> AsyncIterator[Link]:
    """Run a channel to `peer`; with `credits`, it has these and multi-credit requests, as after a login."""
    trace, losses, lost = Trace(), list[Smb3fsError](), trio.Event()

    def on_lost(_: Channel, error: Smb3fsError) -> None:
        losses.append(error)
        lost.set()

    breaks: list[Break] = []
    channel = Channel(
        peer.transport,
        trace,
        timeout=timeout,
        echo_interval=echo_interval,
        on_lost=on_lost,
        on_break=lambda _, told: breaks.append(told),
    )
    if peer.keys is not None:
        channel.connection.session = peer.keys.client
    async with trio.open_nursery() as nursery:
        link = Link(channel, peer, trace, losses, nursery, breaks, lost)
        nursery.start_soon(channel.run)
        if credits is not None:
            channel.connection.negotiated(large_mtu=True)
            fetch_credits(channel, peer, credits)
        await settle()
        yield link
        nursery.cancel_scope.cancel()
    assert not peer.violations


def fetch_credits(channel: Channel, peer: Peer, credits: int) -> None:
    """Have the client own `credits` credits, as after a login."""
    channel.connection.credits.grant(credits - 1, settled=0)
    peer.credits += credits - 1


async def settle() -> None:
    """Let everybody run until nobody can."""
    await trio.testing.wait_all_tasks_blocked()


class Call:
    """A call of a channel in a task of its own, with what came of it."""

    def __init__(
        self, nursery: trio.Nursery, send: Callable[[Exchange], Awaitable[list[Answer]]], exchange: Exchange
    ) -> None:
        self.exchange = exchange
        self.answers: list[Answer] | None = None
        self.errors: list[BaseException] = []
        self.cancelled = False
        self.scope = trio.CancelScope()
        nursery.start_soon(self._run, send)

    async def _run(self, send: Callable[[Exchange], Awaitable[list[Answer]]]) -> None:
        with self.scope:
            try:
                self.answers = await send(self.exchange)
            except Smb3fsError as error:
                self.errors.append(error)
        self.cancelled = self.scope.cancelled_caught

    @property
    def statuses(self) -> list[int]:
        assert self.answers is not None, f"no answers: {self.errors or 'still waiting'}"
        return [answer.status for answer in self.answers]

    @property
    def lost(self) -> bool:
        """Whether it ended with one ConnectionLost, and nothing else."""
        return self.answers is None and [type(error) for error in self.errors] == [ConnectionLost]

    @property
    def waiting(self) -> bool:
        return self.answers is None and not self.errors and not self.cancelled
