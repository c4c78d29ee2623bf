"""Another channel for a session: what both ends sign with, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from login_server import POLICY, UNC, USER, Behaviour, LoginServer
from peer import Element, Link, Message, linked, real_time_test

from smb3fs.channels.session import Session, establish, join
from smb3fs.errors import SecurityError, Smb3fsError, StatusError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import FLAG_SIGNED, Command, Header
from smb3fs.wire.negotiate import Cipher, Dialect, SigningAlgorithm
from smb3fs.wire.session import SESSION_SETUP_BINDING, SessionFlag

pytestmark = pytest.mark.usefixtures("users")


class BindingServer(LoginServer):
    """The other end of a further channel, which knows the session that is on the first one."""

    def __init__(self, first: LoginServer, like: Behaviour) -> None:
        super().__init__(like)
        self._first = first
        self.bound = 0

    def _check(self, header: Header, pdu: memoryview, message: Message) -> None:
        if header.command == Command.SESSION_SETUP:
            assert self._first.keys is not None
            assert header.flags & FLAG_SIGNED
            signer = self._first.keys.signer
            assert signer.verify(pdu, header.signature, header.message_id, from_server=False)
            header = dataclasses.replace(header, flags=header.flags & ~FLAG_SIGNED, session_id=0)
        super()._check(header, pdu, message)

    def _session_setup(self, element: Element) -> None:
        assert element.request.flags & SESSION_SETUP_BINDING
        self.bound += 1
        element.request.flags = 0
        super()._session_setup(element)


def like(**changes: object) -> Behaviour:
    return dataclasses.replace(Behaviour(), **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def binding(
    first: Behaviour | None = None, second: Behaviour | None = None
) -> AsyncIterator[tuple[Session, Link, BindingServer]]:
    """A session on one channel, and another channel that is connected."""
    server = LoginServer(first or Behaviour())
    other = BindingServer(server, second or first or Behaviour())
    async with linked(server, credits=None) as link, linked(other, credits=None) as another:
        yield await establish(link.channel, POLICY, USER, UNC), another, other


@pytest.mark.parametrize("dialect", [Dialect.SMB_3_0, Dialect.SMB_3_0_2, Dialect.SMB_3_1_1], ids=lambda one: one.name)
@pytest.mark.parametrize("signing", [SigningAlgorithm.AES_CMAC, SigningAlgorithm.HMAC_SHA256], ids=lambda one: one.name)
@real_time_test
async def test_a_channel_has_a_key_of_its_own_and_the_sessions_ciphers(dialect: int, signing: int) -> None:
    async with binding(like(dialect=dialect, signing=signing)) as (session, link, server):
        await join(session, link.channel, POLICY, USER)
        assert server.bound == 2
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
