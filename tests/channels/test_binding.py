"""Another channel for a session: what both ends sign with, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from login_server import POLICY, UNC, USER, Behaviour, LoginServer, mechanism
from peer import Element, Link, Message, Reply, linked, real_time_test, settle

from smb3fs import crypto
from smb3fs.channels import binding_ids
from smb3fs.channels.authentication import bind
from smb3fs.channels.discovery import takes_several
from smb3fs.channels.negotiation import negotiate
from smb3fs.channels.session import Session, establish, join
from smb3fs.connection import Exchange
from smb3fs.errors import ConnectionLost, SecurityError, Smb3fsError, StatusError
from smb3fs.wire.codec import Buffer
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import FLAG_SIGNED, Command, Header
from smb3fs.wire.negotiate import Capability, Cipher, Dialect, SigningAlgorithm
from smb3fs.wire.session import SESSION_SETUP_BINDING, SessionFlag

SEVERAL = dataclasses.replace(POLICY, several=True)

pytestmark = pytest.mark.usefixtures("users")


class BindingServer(LoginServer):
    """The other end of a further channel, which knows the session that is on the first one.

    A session of the connection's own may come before that.
    """

    def __init__(self, first: LoginServer, like: Behaviour) -> None:
        super().__init__(like, self._end)
        self._first = first
        self._negotiated = self._preauth
        self._wrong = like
        self._right = dataclasses.replace(like, alter_final=None, session_flags=0, setup_status=None)
        self._binds = False
        self.bound = 0
        self.own = 0

    def _negotiate(self, element: Element) -> None:
        super()._negotiate(element)
        self._negotiated = self._preauth.copy()

    def _end(self, message: Message) -> None:
        """End the connection's own session, and answer anything else."""
        self.obey(message)
        if message.elements[0].command == Command.LOGOFF:
            self.keys, self._mechanism, self._leg = None, mechanism(), 0
            self._mechanism.step()
            self._preauth = self._negotiated.copy()

    def _check(self, header: Header, pdu: memoryview, message: Message) -> None:
        if header.command == Command.SESSION_SETUP and header.flags & FLAG_SIGNED:
            assert self._first.keys is not None
            signer = self._first.keys.signer
            assert signer.verify(pdu, header.signature, header.message_id, from_server=False)
            header = dataclasses.replace(header, flags=header.flags & ~FLAG_SIGNED, session_id=0)
        super()._check(header, pdu, message)

    def _session_setup(self, element: Element) -> None:
        self._binds = bool(element.request.flags & SESSION_SETUP_BINDING)
        self.bound += self._binds
        self.own += not self._binds
        element.request.flags = 0
        # What is wrong with this server is so when it binds.
        self.like = self._wrong if self._binds else self._right
        super()._session_setup(element)

    def _hashed(self, element: Element, reply: Reply) -> None:
        # All of a binding but the last word is signed with the session's key.
        own, self.keys = self.keys, self._first.keys if self._binds else self.keys
        super()._hashed(element, reply)
        self.keys = own


def like(**changes: object) -> Behaviour:
    return dataclasses.replace(Behaviour(capabilities=Capability.MULTI_CHANNEL), **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def binding(
    first: Behaviour | None = None, second: Behaviour | None = None
) -> AsyncIterator[tuple[Session, Link, BindingServer]]:
    """A session on one channel, and another channel that is connected."""
    server = LoginServer(first or like())
    other = BindingServer(server, second or first or like())
    async with linked(server, credits=None) as link, linked(other, credits=None) as another:
        yield await establish(link.channel, SEVERAL, USER, UNC), another, other


@pytest.mark.parametrize("dialect", [Dialect.SMB_3_0, Dialect.SMB_3_0_2, Dialect.SMB_3_1_1], ids=lambda one: one.name)
@pytest.mark.parametrize("signing", list(SigningAlgorithm), ids=lambda one: one.name)
@real_time_test
async def test_a_channel_has_a_key_of_its_own_and_the_sessions_ciphers(dialect: int, signing: int) -> None:
    async with binding(like(dialect=dialect, signing=signing)) as (session, link, server):
        await join(session, link.channel, POLICY, USER)
        assert server.bound == 2
        # A session of the connection's own is needed for the one thing alone.
        assert server.own == (2 if (dialect, signing) == (Dialect.SMB_3_1_1, SigningAlgorithm.AES_GMAC) else 0)
        assert session.channels[1:] == [link.channel]
        bound, own = link.channel.connection.session, session.security
        assert bound is not None
        assert bound.session_id == own.session_id
        # One counter of nonces for the one key that all channels encrypt with.
        assert (bound.sealer, bound.unsealer) == (own.sealer, own.unsealer)
        assert bound.signer is not own.signer
        session.channels.reverse()
        (answer,) = await session.call([EchoRequest()], urgent=True)
        assert answer.protected
        # Whatever the client offered is what the session speaks.
        offer = server.messages[0].elements[0].request
        assert offer.dialects == [dialect]


def flip(frame: bytearray) -> None:
    """Change the signature of what the server says last."""
    frame[48] ^= 1


def unsign(frame: bytearray) -> None:
    """Take the flag and the signature away."""
    frame[16] &= ~FLAG_SIGNED
    frame[48:64] = bytes(16)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (like(alter_final=flip), SecurityError),
        (like(alter_final=unsign), SecurityError),
        (like(dialect=Dialect.SMB_3_0_2), SecurityError),
        (like(cipher=Cipher.AES_128_CCM), SecurityError),
        (like(signing=SigningAlgorithm.AES_CMAC), SecurityError),
        (like(capabilities=0x10), SecurityError),
        (like(session_flags=SessionFlag.IS_GUEST), SecurityError),
        (like(setup_status=0xC0000203), StatusError),
    ],
    ids=["altered", "unsigned", "dialect", "cipher", "signing", "another server", "guest", "refused"],
)
@real_time_test
async def test_what_is_not_in_order_is_refused(second: Behaviour, error: type[Smb3fsError]) -> None:
    async with binding(second=second) as (session, link, _):
        with pytest.raises(error):
            await join(session, link.channel, POLICY, USER)
        assert link.channel not in session.channels


@real_time_test
async def test_a_guests_session_has_one_channel() -> None:
    async with binding() as (session, link, _):
        session.security.signer = None
        with pytest.raises(SecurityError):
            await join(session, link.channel, POLICY, USER)


@pytest.fixture
def nonces(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[bytes, int, bool, bool], set[bytes]]:
    """What either end has signed, or checked, by GMAC under each key and nonce."""
    seen: dict[tuple[bytes, int, bool, bool], set[bytes]] = {}
    sign = crypto._AesGmac.sign

    def noted(
        self: crypto._AesGmac,
        buffers: Sequence[Buffer],
        message_id: int,
        *,
        is_cancel: bool = False,
        from_server: bool = False,
    ) -> bytes:
        message = b"".join(buffers)
        seen.setdefault((self._algorithm.key, message_id, is_cancel, from_server), set()).add(message)
        return sign(self, buffers, message_id, is_cancel=is_cancel, from_server=from_server)

    monkeypatch.setattr(crypto._AesGmac, "sign", noted)
    return seen


Nonces = dict[tuple[bytes, int, bool, bool], set[bytes]]


def repeated(nonces: Nonces) -> list[int]:
    """The message ids under which two messages were signed by one key."""
    return [message_id for (_, message_id, _, _), messages in nonces.items() if len(messages) > 1]


@real_time_test
async def test_no_nonce_is_used_twice_however_many_channels_come_and_go(nonces: Nonces) -> None:
    server = LoginServer(like())
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(linked(server, credits=None))
        session = await establish(link.channel, SEVERAL, USER, UNC)
        for number in range(6):
            other = BindingServer(server, like())
            another = await stack.enter_async_context(linked(other, credits=None))
            await join(session, another.channel, POLICY, USER)
            for channel in session.channels:
                for _ in range(10):
                    echo = Exchange([EchoRequest()], session=channel.connection.session, urgent=True)
                    assert (await channel.call(echo))[0].protected
            assert other.bound == 2
            assert other.violations == []
            if number % 2:  # each second one is lost
                another.channel.fail(ConnectionLost("lost"))
                session.channels.remove(another.channel)
        assert server.violations == []
    # The first word of each binding and its answer, the second one, and what else there was.
    assert len(nonces) > 6 * (3 + 2 * 10)
    assert repeated(nonces) == []


@real_time_test
async def test_without_ids_set_apart_they_would_repeat(nonces: Nonces) -> None:
    server = LoginServer(like())
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, SEVERAL, USER, UNC)
        for _ in range(2):
            async with linked(BindingServer(server, like()), credits=None) as another:
                policy = POLICY.of_session(session.agreed)
                agreed = await negotiate(another.channel, policy)
                await bind(another.channel, policy, agreed, USER, session.security)
    assert set(repeated(nonces)) == {1, 2}


@real_time_test
async def test_when_they_are_used_up_nothing_more_is_bound(nonces: Nonces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_ids, "BINDINGS", 1)
    server = LoginServer(like())
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, SEVERAL, USER, UNC)
        for bound in (2, 0):
            other = BindingServer(server, like())
            async with linked(other, credits=None) as another:
                with (
                    contextlib.nullcontext()
                    if bound
                    else pytest.raises(SecurityError, match="no connection can be added")
                ):
                    await join(session, another.channel, POLICY, USER)
                assert other.bound == bound
                if not bound:  # nor is there a login that would be in vain
                    assert [message.elements[0].command for message in other.messages] == [Command.NEGOTIATE]
    assert repeated(nonces) == []


@pytest.mark.parametrize("credits", [1, 2])
@real_time_test
async def test_a_server_with_few_credits_is_left_with_one_channel(nonces: Nonces, credits: int) -> None:
    server = LoginServer(like())
    server.grant = lambda header: max(header.credit_charge, 1) if server.credits >= credits else credits
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, SEVERAL, USER, UNC)
        assert not takes_several(session)
        async with linked(BindingServer(server, like()), credits=None) as another:
            with pytest.raises(SecurityError):
                await join(session, another.channel, POLICY, USER)
        (answer,) = await session.call([EchoRequest()], urgent=True)
        assert answer.protected
    assert repeated(nonces) == []


@real_time_test
async def test_ids_are_set_apart_when_another_channel_is_to_come_and_not_before(
    nonces: Nonces,
) -> None:
    server = LoginServer(like())
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, POLICY, USER, UNC)
        assert session.binding_ids is None
        assert takes_several(session)
        async with linked(BindingServer(server, like()), credits=None) as another:
            # Nothing may be signed by the session's key under ids that nobody has set apart.
            with pytest.raises(SecurityError):
                await join(session, another.channel, POLICY, USER)
        for _ in range(200):
            await session.call([EchoRequest()], urgent=True)
        assert session.takes_another()
        for _ in range(2):
            async with linked(BindingServer(server, like()), credits=None) as another:
                await join(session, another.channel, POLICY, USER)
                assert another.channel in session.channels
                await session.call([EchoRequest()], urgent=True)
                session.channels.remove(another.channel)
        assert session.takes_another()
        session.binding_ids = deque()
        assert not session.takes_another()
    assert repeated(nonces) == []


@real_time_test
async def test_nothing_is_set_apart_where_there_is_to_be_one_channel() -> None:
    for policy, capabilities in ((POLICY, Capability.MULTI_CHANNEL), (SEVERAL, Capability.DFS)):
        server = LoginServer(like(capabilities=capabilities))
        async with linked(server, credits=None) as link:
            session = await establish(link.channel, policy, USER, UNC)
            await settle()
            assert not session.binding_ids
            assert not any(message.elements[0].command == Command.ECHO for message in server.messages)
