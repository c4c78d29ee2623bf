"""The protocol state of one connection, without I/O: requests become buffers, received messages become events.

Theory of operation ([MS-SMB2] 3.2.1.2, 3.2.4.1, 3.2.5.1). An `Exchange` is one message that we send: one request, or a
chain of related ones. It stays a value until `prepare` finds credits for all of it; only then are message ids taken,
the requests encoded, signed or sealed. From that moment every element waits in the pending table under its message id
until its final answer is in; an interim answer (STATUS_PENDING) only tells the id by which it can be cancelled. When
the last element is answered, the exchange comes out as a `Completed` event. Nothing here waits, reads a clock or knows
a socket; whoever owns the transport calls `prepare` and `receive` and does with the results what they say.

An error that escapes `receive` means that the connection cannot be trusted any more and must be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from smb3fs.credits import CreditAccount
from smb3fs.crypto import PreauthHash, Sealer, Signer, Unsealer
from smb3fs.errors import SecurityError, Status, WireError
from smb3fs.identity import ClientIdentity
from smb3fs.wire.codec import Buffer, pad8
from smb3fs.wire.control import CancelRequest
from smb3fs.wire.header import (
    FLAG_ASYNC,
    FLAG_DFS,
    FLAG_RELATED,
    FLAG_REPLAY,
    FLAG_RESPONSE,
    FLAG_SIGNED,
    HEADER_SIZE,
    UNSOLICITED_MESSAGE_ID,
    Command,
    Header,
    Request,
    TransformHeader,
    is_transform,
    split_compound,
)

# Where the 16 bytes of the signature stand in a header ([MS-SMB2] 2.2.1.2).
SIGNATURE: Final = slice(48, 64)
# Bytes that one credit pays for in a multi-credit request ([MS-SMB2] 3.2.4.1.5).
CREDIT_UNIT: Final = 65536

# A server that no longer knows the session, the tree or the file says so before it reaches the stage at which it
# signs; Samba then sends the request's flags and signature back, so that it looks like a wrong signature. Whoever
# rejects these never recovers from a server's restart; whoever forges them can only make us reconnect or fail one
# call, as anyone who can send a TCP reset can.
UNSIGNED_STATUSES: Final = frozenset(
    {
        Status.USER_SESSION_DELETED,
        Status.NETWORK_NAME_DELETED,
        Status.NETWORK_SESSION_EXPIRED,
        Status.FILE_CLOSED,
        Status.INVALID_PARAMETER,
    }
)


@dataclass(slots=True, eq=False)
class SessionSecurity:
    """What protects the messages of a session on one connection: the channel's signer, the session's seals.

    A session of a guest, who has no key, has neither.
    """

    session_id: int
    signer: Signer | None = None
    sealer: Sealer | None = None
    unsealer: Unsealer | None = None
    seal_everything: bool = False


@dataclass(slots=True)
class Answer:
    """The final answer to one request: its header and the whole element, header included.

    `protected` tells whether a signature or the encryption proves that it comes from the server.
    """

    header: Header
    pdu: memoryview
    protected: bool

    @property
    def status(self) -> int:
        """The NTSTATUS of the answer."""
        return self.header.status


@dataclass(slots=True, eq=False)
class Exchange:
    """One message to be sent, and the answers to its requests as they arrive.

    A chain of several requests is always a related one: each acts on the file that the first one opened. `in_namespace`
    says that the name in a CREATE is a whole DFS path, `replay` that the server may have carried it out before,
    `forsaken` that whoever waited for it has gone since it was sent. `done` is called when the answers are in and
    nobody waits for them; so is `ahead`, with the answers, and with None if the connection ends without them. `signer`
    signs what belongs to no session on this connection yet: the requests that bind the connection to one, whose last
    answer is signed with a key that only comes of it.
    """

    requests: Sequence[Request]
    tree_id: int = 0
    session: SessionSecurity | None = None
    seal: bool = False
    urgent: bool = False
    in_namespace: bool = False
    replay: bool = False
    waited: bool = True
    forsaken: bool = False
    done: Callable[[], None] | None = None
    ahead: Callable[[Sequence[Answer | None] | None], None] | None = None
    session_id: int = 0
    preauth: PreauthHash | None = None
    signer: Signer | None = None
    charges: list[int] = field(default_factory=list)
    message_ids: list[int] = field(default_factory=list)
    async_ids: dict[int, int] = field(default_factory=dict)
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0

    @property
    def sent(self) -> bool:
        """Whether message ids have been taken, so that the server may act on it."""
        return bool(self.message_ids)

    @property
    def put_off(self) -> bool:
        """Whether the server has said of a request that it takes time, and not answered it since.

        It may not heed a CANCEL: Samba does not for what travels in a chain. And Samba 4.17 sometimes forgets a CREATE
        that waited for a lease of another client: it is taken up again, comes to no end, and nothing answers it then.
        """
        return any(
            answer is None and message_id in self.async_ids
            for message_id, answer in zip(self.message_ids, self.answers, strict=True)
        )

    @property
    def commands(self) -> list[str]:
        """The names of its commands."""
        return [request.command.name for request in self.requests]

    @property
    def sealed(self) -> bool:
        """Whether it travels encrypted."""
        return self.seal or (self.session is not None and self.session.seal_everything)


@dataclass(slots=True)
class Completed:
    """Every request of the exchange has its final answer."""

    exchange: Exchange


@dataclass(slots=True)
class Unsolicited:
    """A message that answers no request: an oplock or lease break."""

    header: Header
    pdu: memoryview


Event = Completed | Unsolicited


class Connection:
    """Message ids, credits, pending requests and protection of one connection."""

    def __init__(self) -> None:
        self.credits = CreditAccount()
        self.preauth = PreauthHash()
        self.large_mtu = False
        # Whose channel sequence the requests carry; None where the server knows nothing of repeated requests.
        self.client: ClientIdentity | None = None
        self.session: SessionSecurity | None = None
        self._pending: dict[int, tuple[Exchange, int]] = {}
        # How many of them have an interim answer, so that their final one may take as long as it likes.
        self._put_off = 0

    @property
    def pending(self) -> int:
        """How many requests wait for their final answer."""
        return len(self._pending)

    @property
    def awaited(self) -> int:
        """How many of them the server has not even said to be working on."""
        return len(self._pending) - self._put_off

    def negotiated(self, *, large_mtu: bool, client: ClientIdentity | None = None) -> None:
        """Take over what NEGOTIATE agreed: whether a request may cost several credits, and carries a sequence."""
        self.large_mtu = large_mtu
        self.client = client

    def lost(self) -> None:
        """Count the loss of the connection if it leaves the server with something to do on a file."""
        if self.client is not None and any(exchange.tree_id for exchange, _ in self._pending.values()):
            self.client.step()

    def exchanges(self) -> list[Exchange]:
        """Return what waits for an answer, each exchange once, in the order of sending."""
        return list(dict.fromkeys(exchange for exchange, _ in self._pending.values()))

    def charge(self, request: Request) -> int:
        """Return the credits that a request costs ([MS-SMB2] 3.2.4.1.5)."""
        if not self.large_mtu:
            return 1
        return 1 + max(request.credit_size - 1, 0) // CREDIT_UNIT

    def affords(self, requests: Sequence[Request]) -> bool:
        """Whether a chain can be sent some time: one that costs more than the server's whole window never can."""
        return sum(map(self.charge, requests)) <= self.credits.window

    def prepare(self, exchange: Exchange) -> list[Buffer] | None:
        """Encode an exchange for sending; None as long as the credits do not suffice for all of it."""
        charges = [self.charge(request) for request in exchange.requests]
        first_ids = self.credits.try_take_chain(charges, urgent=exchange.urgent)
        if first_ids is None:
            return None
        exchange.charges = charges
        exchange.message_ids = first_ids
        exchange.answers = [None] * len(first_ids)
        exchange.missing = len(first_ids)
        for index, message_id in enumerate(first_ids):
            self._pending[message_id] = (exchange, index)
        buffers = self._encode(exchange, charges)
        if exchange.preauth is not None:
            exchange.preauth.update(buffers)
        return buffers

    def _encode(self, exchange: Exchange, charges: Sequence[int]) -> list[Buffer]:
        """Encode, and sign or seal, all elements of an exchange."""
        session, sealed = exchange.session, exchange.sealed
        session_id = session.session_id if session is not None else exchange.session_id
        signer = session.signer if session is not None and not sealed else exchange.signer
        sequence = self.client.sequence if self.client is not None else 0
        replay = FLAG_REPLAY if exchange.replay and self.client is not None else 0
        buffers: list[Buffer] = []
        last = len(charges) - 1
        for index, (request, charge) in enumerate(zip(exchange.requests, charges, strict=True)):
            body, payload = request.encode(), request.payload
            size = HEADER_SIZE + len(body) + len(payload)
            padding = pad8(size) - size if index < last else 0
            header = Header(
                request.command,
                exchange.message_ids[index],
                sequence,
                credit_charge=charge if self.large_mtu else 0,
                credits=self.credits.request_amount(charge),
                flags=(FLAG_RELATED if index else 0) | replay,
                # A related element may leave these to the first (all ones), which not every server understands.
                tree_id=exchange.tree_id,
                session_id=session_id,
            )
            if exchange.in_namespace and request.command == Command.CREATE:
                header.flags |= FLAG_DFS
            if signer is not None:
                header.flags |= FLAG_SIGNED
            element: list[Buffer] = [bytearray(header.encode(size + padding if index < last else 0) + body)]
            if len(payload):
                element.append(payload)
            if padding:
                element.append(bytes(padding))
            if signer is not None:
                signature = signer.sign(element, header.message_id)
                head = element[0]
                assert isinstance(head, bytearray)  # noqa: S101 (for the type checker: it was made above)
                head[SIGNATURE] = signature
            buffers += element
        if sealed:
            if session is None or session.sealer is None:
                raise SecurityError("the connection has no key to encrypt with")
            return session.sealer.seal(buffers, session.session_id)
        return buffers

    def cancel(self, exchange: Exchange) -> list[list[Buffer]]:
        """Return a CANCEL message for every request of the exchange that has no final answer ([MS-SMB2] 3.2.4.24).

        A CANCEL takes no credit, is not answered, and carries the request's own message id.
        """
        messages = []
        for index, message_id in enumerate(exchange.message_ids):
            if exchange.answers[index] is None:
                messages.append(self._cancel_one(exchange, message_id))
        return messages

    def _cancel_one(self, exchange: Exchange, message_id: int) -> list[Buffer]:
        """Encode one CANCEL."""
        session = exchange.session
        async_id = exchange.async_ids.get(message_id)
        header = Header(
            Command.CANCEL,
            message_id,
            flags=FLAG_ASYNC if async_id is not None else 0,
            async_id=async_id or 0,
            tree_id=exchange.tree_id if async_id is None else 0,
            session_id=session.session_id if session is not None else exchange.session_id,
        )
        if session is None or session.signer is None:
            return [header.encode() + CancelRequest().encode()]
        if exchange.sealed and session.sealer is not None:
            return session.sealer.seal([header.encode() + CancelRequest().encode()], session.session_id)
        header.flags |= FLAG_SIGNED
        message = bytearray(header.encode() + CancelRequest().encode())
        message[SIGNATURE] = session.signer.sign([message], message_id, is_cancel=True)
        return [message]

    def receive(self, message: memoryview) -> list[Event]:
        """Take in one received message; `message` must be writable if it may be encrypted, since it is opened in place.

        Raises WireError or SecurityError, after either of which the connection must be closed.
        """
        sealed_by: int | None = None
        if is_transform(message):
            sealed_by = TransformHeader.parse(message).session_id
            session = self.session
            if session is None or session.unsealer is None or session.session_id != sealed_by:
                raise SecurityError("the server encrypted a message for a session that is not ours")
            message = session.unsealer.unseal(message)
        events: list[Event] = []
        for pdu in split_compound(message):
            event = self._receive_one(pdu, sealed_by)
            if event is not None:
                events.append(event)
        return events

    def _receive_one(self, pdu: memoryview, sealed_by: int | None) -> Event | None:
        """Take in one element of a received message."""
        header = Header.parse(pdu)
        if not header.flags & FLAG_RESPONSE:
            raise WireError("the server sent a request")
        if header.message_id == UNSOLICITED_MESSAGE_ID:
            return Unsolicited(header, pdu)
        entry = self._pending.get(header.message_id)
        if entry is None:
            raise WireError(f"the server answered message {header.message_id}, which does not wait for an answer")
        exchange, index = entry
        if header.command != exchange.requests[index].command:
            raise WireError(f"the server answered {exchange.commands[index]} with command {header.command}")
        if header.status == Status.PENDING and header.flags & FLAG_ASYNC:
            self._put_off += header.message_id not in exchange.async_ids
            exchange.async_ids[header.message_id] = header.async_id
            self.credits.grant(header.credits, settled=0)
            return None
        protected = self._check_protection(header, pdu, exchange, sealed_by)
        self.credits.grant(header.credits, settled=exchange.charges[index])
        del self._pending[header.message_id]
        self._put_off -= header.message_id in exchange.async_ids
        exchange.answers[index] = Answer(header, pdu, protected)
        exchange.missing -= 1
        if exchange.preauth is not None and (
            header.command == Command.NEGOTIATE or header.status == Status.MORE_PROCESSING_REQUIRED
        ):
            exchange.preauth.update([pdu])
        return Completed(exchange) if exchange.missing == 0 else None

    @staticmethod
    def _check_protection(header: Header, pdu: memoryview, exchange: Exchange, sealed_by: int | None) -> bool:
        """Return whether the answer is protected as its request was ([MS-SMB2] 3.2.5.1.1, 3.2.5.1.3).

        Raises SecurityError for an unprotected one, unless it is such as a server sends before it can protect it.
        """
        session = exchange.session
        if session is None:  # NEGOTIATE and SESSION_SETUP: checked by whoever authenticates, once there is a key
            return False
        if session.signer is None:  # a guest's session: whoever asked for it has been told what it is worth
            return False
        if sealed_by is not None:
            if sealed_by != session.session_id:
                raise SecurityError("an answer was encrypted for another session")
            return True
        wrong = "is not encrypted" if exchange.sealed else "is not signed"
        if not exchange.sealed and header.flags & FLAG_SIGNED:
            if session.signer.verify(pdu, header.signature, header.message_id):
                return True
            wrong = "has a wrong signature"
        if header.status in UNSIGNED_STATUSES or _goes_on(header):
            return False
        raise SecurityError(f"an answer to {Command(header.command).name} {wrong}")


def _goes_on(header: Header) -> bool:
    """Whether it is a word in the renewal of a session that is not the last good one; only that must be signed."""
    return header.command == Command.SESSION_SETUP and header.status != Status.SUCCESS
