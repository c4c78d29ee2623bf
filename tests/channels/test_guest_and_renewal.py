"""Sessions without a key, which only those get who asked for one, and sessions that are renewed."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from login_server import ALL_DIALECTS, POLICY, UNC, USER, Behaviour, LoginServer
from peer import linked, real_time_test

from smb3fs.channels.authentication import authenticate_again
from smb3fs.channels.mechanisms import NOBODY, Login
from smb3fs.channels.session import establish
from smb3fs.errors import AuthenticationError, SecurityError, Smb3fsError, Status, StatusError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import FLAG_SIGNED
from smb3fs.wire.negotiate import Dialect
from smb3fs.wire.session import SessionFlag
from smb3fs.wire.tree import ShareFlag

pytestmark = pytest.mark.usefixtures("users")

dialects = pytest.mark.parametrize("dialect", ALL_DIALECTS, ids=lambda value: value.name)
ANYBODY = Login("", "", "", NOBODY)
GUEST = dataclasses.replace(USER, guest=True)


# -- without a key


@dialects
@pytest.mark.parametrize("flags", [SessionFlag.IS_NULL, SessionFlag.IS_GUEST | SessionFlag.IS_NULL, 0])
@real_time_test
async def test_nobody_is_let_in_and_nothing_is_signed(dialect: int, flags: int) -> None:
    like = Behaviour(dialect, anonymous=True, session_flags=flags)
    async with linked(LoginServer(like), credits=None) as link:
        session = await establish(link.channel, POLICY, ANYBODY, UNC)
        (answer,) = await session.call([EchoRequest()])
        assert answer.status == 0
        assert not answer.protected
        await session.end()
        assert not any(message.elements[0].header.flags & FLAG_SIGNED for message in link.peer.messages)
        # A confirmation of the negotiation that nobody signs would confirm nothing.
        assert not any(message.commands == ["IOCTL"] for message in link.peer.messages)


@dialects
@real_time_test
async def test_a_guest_with_a_password_that_is_right_is_none(dialect: int) -> None:
    async with linked(LoginServer(Behaviour(dialect)), credits=None) as link:
        session = await establish(link.channel, POLICY, GUEST, UNC)
        (answer,) = await session.call([EchoRequest()])
        assert answer.protected
        await session.end()


@dialects
@real_time_test
async def test_a_guest_who_asked_to_be_one(dialect: int) -> None:
    server = LoginServer(Behaviour(dialect, session_flags=SessionFlag.IS_GUEST))
    server._take_keys = lambda: None  # type: ignore[method-assign]
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, POLICY, GUEST, UNC)
        (answer,) = await session.call([EchoRequest()])
        assert not answer.protected
        await session.end()


async def refused(like: Behaviour, kind: type[Smb3fsError], login: Login, *, seal: bool = False) -> str:
    """Try to log in, and return the text of the error that must come of it."""
    async with linked(LoginServer(like), credits=None) as link:
        with pytest.raises(kind) as caught, trio.fail_after(5):
            await establish(link.channel, dataclasses.replace(POLICY, seal=seal), login, UNC)
    return str(caught.value)


@real_time_test
async def test_nothing_can_be_encrypted_for_nobody() -> None:
    nobody = Behaviour(anonymous=True, session_flags=SessionFlag.IS_NULL)
    assert "no key" in await refused(nobody, SecurityError, ANYBODY, seal=True)
    demanding = dataclasses.replace(nobody, share_flags=ShareFlag.ENCRYPT_DATA)
    assert "no key" in await refused(demanding, SecurityError, ANYBODY)
    sealed = dataclasses.replace(nobody, session_flags=SessionFlag.IS_NULL | SessionFlag.ENCRYPT_DATA)
    assert "no key" in await refused(sealed, SecurityError, ANYBODY)


# -- what the server says that it takes

NTLM_ID = bytes.fromhex("060a2b06010401823702020a")
KERBEROS_ID = bytes.fromhex("06092a864882f712010202")


@real_time_test
async def test_a_login_that_is_not_offered_is_not_tried() -> None:
    like = Behaviour(hint=b"junk" + KERBEROS_ID)
    assert "sec=krb5" in await refused(like, AuthenticationError, USER)
    ticket = dataclasses.replace(USER, security="krb5")
    assert "sec=ntlmssp" in await refused(Behaviour(hint=NTLM_ID), AuthenticationError, ticket)
    assert like.seen_setups == []


# -- renewal


@dialects
@pytest.mark.parametrize("flags", [0, SessionFlag.ENCRYPT_DATA], ids=["signed", "sealed"])
@real_time_test
async def test_a_renewed_session_has_the_keys_that_it_had(dialect: int, flags: int) -> None:
    cipher = Behaviour().cipher if dialect == Dialect.SMB_3_1_1 else POLICY.ciphers[1]
    like = Behaviour(dialect, cipher, session_flags=flags)
    async with linked(LoginServer(like), credits=None) as link:
        session = await establish(link.channel, POLICY, USER, UNC)
        for round_ in (1, 2):
            await authenticate_again(link.channel, POLICY, USER, session.security)
            assert like.renewals == round_
            (answer,) = await session.call([EchoRequest()])
            assert answer.protected
        assert session.security.seal_everything == bool(flags)
        await session.end()
        assert link.losses == []


@real_time_test
async def test_what_goes_wrong_with_a_renewal() -> None:
    like = Behaviour()
    async with linked(LoginServer(like), credits=None) as link:
        session = await establish(link.channel, POLICY, USER, UNC)
        with pytest.raises(StatusError) as caught:
            await authenticate_again(link.channel, POLICY, Login("alice", "DOM", "wrong"), session.security)
        assert caught.value.status == Status.LOGON_FAILURE
        like.session_flags = SessionFlag.IS_GUEST
        with pytest.raises(SecurityError, match="guest"):
            await authenticate_again(link.channel, POLICY, USER, session.security)
        like.session_flags = 0
        await authenticate_again(link.channel, POLICY, USER, session.security)
        (answer,) = await session.call([EchoRequest()])
        assert answer.protected


@real_time_test
async def test_a_renewal_that_nobody_signed_ends_the_connection() -> None:
    like = Behaviour(renewal_unsigned=True)
    async with linked(LoginServer(like), credits=None) as link:
        session = await establish(link.channel, POLICY, USER, UNC)
        with pytest.raises(Smb3fsError):
            await authenticate_again(link.channel, POLICY, USER, session.security)
        assert isinstance(link.losses[0], SecurityError)
