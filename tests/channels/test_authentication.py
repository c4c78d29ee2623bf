"""The login against a server that does NTLM itself: the keys agree, and whatever is not in order is refused."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
import trio
from login_server import ALL_DIALECTS, OLD_DIALECTS, OLD_TOO, POLICY, UNC, USER, Behaviour, LoginServer
from peer import linked, real_time_test

from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import Policy
from smb3fs.channels.session import Session, establish
from smb3fs.errors import AuthenticationError, SecurityError, Smb3fsError, Status, StatusError
from smb3fs.wire.control import EchoRequest
from smb3fs.wire.header import FLAG_SIGNED
from smb3fs.wire.negotiate import Capability, Cipher, Dialect, SigningAlgorithm
from smb3fs.wire.session import SessionFlag
from smb3fs.wire.tree import ShareFlag, ShareType

pytestmark = pytest.mark.usefixtures("users")

dialects = pytest.mark.parametrize("dialect", ALL_DIALECTS, ids=lambda value: value.name)


async def log_in(
    like: Behaviour, *, policy: Policy = POLICY, login: Login = USER, use: Callable[[Session], object] | None = None
) -> tuple[Session, LoginServer]:
    """Make a session, use it for one request and end it."""
    server = LoginServer(like)
    async with linked(server, credits=None) as link:
        session = await establish(link.channel, policy, login, UNC, previous_session_id=77)
        (answer,) = await session.call([EchoRequest()])
        assert answer.status == 0
        assert answer.protected
        if use is not None:
            use(session)
        await session.end()
        assert link.losses == []
    return session, server


@dialects
@pytest.mark.parametrize("signing", list(SigningAlgorithm), ids=lambda value: value.name)
@real_time_test
async def test_both_ends_come_to_the_same_signing_key(dialect: int, signing: int) -> None:
    session, server = await log_in(Behaviour(dialect, signing=signing))
    assert server.messages[-1].commands == ["LOGOFF"]
    assert server.messages[-2].commands == ["TREE_DISCONNECT"]
    for message in server.messages[-4:]:
        assert message.elements[0].header.flags & FLAG_SIGNED
    assert session.agreed.signing == (signing if dialect == Dialect.SMB_3_1_1 else SigningAlgorithm.AES_CMAC)
    assert server.like.trees == [UNC]
    assert [setup.previous_session_id for setup in server.like.seen_setups] == [77, 77]
    # Only what the server must confirm is asked about again.
    assert sum(m.commands == ["IOCTL"] for m in server.messages) == (dialect != Dialect.SMB_3_1_1)


@pytest.mark.parametrize("alone", [False, True], ids=["beside 3.x", "alone"])
@pytest.mark.parametrize("dialect", OLD_DIALECTS, ids=lambda value: value.name)
@real_time_test
async def test_smb_2_signs_with_the_session_key(dialect: int, alone: bool) -> None:
    policy = dataclasses.replace(OLD_TOO, dialects=(dialect,)) if alone else OLD_TOO
    session, server = await log_in(Behaviour(dialect, None), policy=policy)
    assert session.agreed.signing == SigningAlgorithm.HMAC_SHA256
    assert session.security.sealer is None
    # Where 3.x was offered, the server has to confirm under signature that 2.x was its own choice.
    assert sum(message.commands == ["IOCTL"] for message in server.messages) == (not alone)
    charges = {element.header.credit_charge for message in server.messages for element in message.elements}
    # The field has no meaning yet in 2.0.2; NEGOTIATE comes before anybody knows.
    assert charges <= ({0} if dialect == Dialect.SMB_2_0_2 else {0, 1})


@pytest.mark.parametrize("dialect", OLD_DIALECTS, ids=lambda value: value.name)
@real_time_test
async def test_a_downgrade_to_smb_2_comes_to_light(dialect: int) -> None:
    """Somebody in between took 3.x out of the offer: the server remembers that and says so, signed."""
    text = await refused(Behaviour(dialect, None, forget_negotiation=True), SecurityError, policy=OLD_TOO)
    assert "changed the negotiation" in text


@pytest.mark.parametrize("dialect", OLD_DIALECTS, ids=lambda value: value.name)
@real_time_test
async def test_smb_2_cannot_encrypt(dialect: int) -> None:
    policy = dataclasses.replace(OLD_TOO, seal=True)
    assert "SMB 2" in await refused(Behaviour(dialect, None), SecurityError, policy=policy)
    flags = int(SessionFlag.ENCRYPT_DATA)
    assert "encryption" in await refused(Behaviour(dialect, None, session_flags=flags), SecurityError, policy=OLD_TOO)
    share = int(ShareFlag.ENCRYPT_DATA)
    assert "encryption" in await refused(Behaviour(dialect, None, share_flags=share), SecurityError, policy=OLD_TOO)


@dialects
@pytest.mark.parametrize("by", ["session", "share", "policy"])
@real_time_test
async def test_and_to_the_same_ciphers(dialect: int, by: str) -> None:
    like = Behaviour(dialect, Cipher.AES_128_GCM if dialect == Dialect.SMB_3_1_1 else Cipher.AES_128_CCM)
    if by == "session":
        like.session_flags = SessionFlag.ENCRYPT_DATA
    if by == "share":
        like.share_flags = ShareFlag.ENCRYPT_DATA
    _, server = await log_in(like, policy=dataclasses.replace(POLICY, seal=by == "policy"))
    echo = next(message for message in server.messages if message.commands == ["ECHO"])
    assert echo.sealed
    tree_connect = next(message for message in server.messages if message.commands == ["TREE_CONNECT"])
    assert tree_connect.sealed == (by != "share")


@pytest.mark.parametrize("cipher", list(Cipher), ids=lambda value: value.name)
@real_time_test
async def test_with_every_cipher(cipher: int) -> None:
    policy = dataclasses.replace(POLICY, ciphers=tuple(Cipher), seal=True)
    session, _ = await log_in(Behaviour(cipher=cipher), policy=policy)
    assert session.agreed.cipher == cipher


@real_time_test
async def test_without_a_hint_in_the_negotiation() -> None:
    await log_in(Behaviour(negotiate_hint=False))


# -- refusals


async def attempt(like: Behaviour, *, policy: Policy = POLICY, login: Login = USER) -> Smb3fsError | None:
    """Try to log in and return what went wrong; anything but an error of ours fails the test."""
    async with linked(LoginServer(like), credits=None) as link:
        try:
            with trio.fail_after(5):
                await establish(link.channel, policy, login, UNC)
        except Smb3fsError as error:
            return error
    return None


async def refused(like: Behaviour, kind: type[Smb3fsError], *, policy: Policy = POLICY, login: Login = USER) -> str:
    """Try to log in, and return the text of the error that must come of it."""
    error = await attempt(like, policy=policy, login=login)
    assert isinstance(error, kind), repr(error)
    return str(error)


@dialects
@real_time_test
async def test_a_wrong_password(dialect: int) -> None:
    text = await refused(Behaviour(dialect), StatusError, login=Login("alice", "DOM", "wrong"))
    assert "STATUS_LOGON_FAILURE" in text


@real_time_test
async def test_an_unknown_user() -> None:
    await refused(Behaviour(), StatusError, login=Login("bob", "DOM", "s3cret"))


@pytest.mark.parametrize("status", [Status.ACCESS_DENIED, Status.ACCOUNT_LOCKED_OUT, Status.PASSWORD_EXPIRED])
@real_time_test
async def test_a_refusal_before_anything(status: Status) -> None:
    assert status.name in await refused(Behaviour(setup_status=status), StatusError)


@dialects
@pytest.mark.parametrize("flag", [SessionFlag.IS_GUEST, SessionFlag.IS_NULL])
@real_time_test
async def test_a_guest_session(dialect: int, flag: int) -> None:
    assert "guest" in await refused(Behaviour(dialect, session_flags=flag), SecurityError)


@dialects
@pytest.mark.parametrize("position", [16, 40, 48, 63, 66, -1])
@real_time_test
async def test_a_last_word_that_somebody_altered(dialect: int, position: int) -> None:
    # In the flags, the session id, the signature, the session flags and the token.
    def alter(frame: bytearray) -> None:
        frame[position] ^= 0x80 if position == 16 else 0x04

    with_key = Behaviour(dialect, cipher=Cipher.AES_128_CCM, alter_final=alter)
    assert await attempt(with_key) is not None


@dialects
@real_time_test
async def test_a_last_word_that_is_not_signed(dialect: int) -> None:
    def strip(frame: bytearray) -> None:
        frame[16] &= ~FLAG_SIGNED
        frame[48:64] = bytes(16)

    assert "not signed" in await refused(Behaviour(dialect, alter_final=strip), SecurityError)


@real_time_test
async def test_a_negotiation_that_somebody_altered() -> None:
    """The man in the middle takes GMAC out of the answer: the hash at the two ends differs, and so do the keys."""

    class Middle(LoginServer):
        def send_altered(self, message: bytes) -> None:
            if len(self.messages) == 1:
                message = message.replace(b"\x01\x00\x02\x00", b"\x01\x00\x01\x00")
            self._put(message)

    server = Middle()
    server._put = server.transport.put  # type: ignore[attr-defined]
    server.transport.put = server.send_altered  # type: ignore[method-assign]
    async with linked(server, credits=None) as link:
        with pytest.raises(SecurityError):
            await establish(link.channel, POLICY, USER, UNC)


@pytest.mark.parametrize("dialect", [Dialect.SMB_3_0, Dialect.SMB_3_0_2])
@real_time_test
async def test_a_confirmation_of_another_negotiation(dialect: int) -> None:
    assert "changed" in await refused(Behaviour(dialect, forget_negotiation=True), SecurityError)


@real_time_test
async def test_a_server_that_demands_a_cipher_it_has_not() -> None:
    no_cipher = Behaviour(cipher=None, session_flags=SessionFlag.ENCRYPT_DATA)
    assert "demands encryption" in await refused(no_cipher, SecurityError)
    no_cipher = Behaviour(cipher=None, share_flags=ShareFlag.ENCRYPT_DATA)
    assert "demands encryption" in await refused(no_cipher, SecurityError)


@pytest.mark.parametrize("status", [Status.BAD_NETWORK_NAME, Status.ACCESS_DENIED])
@real_time_test
async def test_a_share_that_is_not_there(status: Status) -> None:
    assert "TREE_CONNECT" in await refused(Behaviour(tree_status=status), StatusError)


@real_time_test
async def test_the_kind_of_share_is_told() -> None:
    session, _ = await log_in(Behaviour(share_type=ShareType.PIPE))
    assert session.tree.share_type == ShareType.PIPE
    assert (session.tree.tree_id, session.tree.maximal_access) == (0x33, 0x1F01FF)


# -- nonsense


@dialects
@real_time_test
async def test_success_before_the_server_proved_anything(dialect: int) -> None:
    assert "not signed" in await refused(Behaviour(dialect, early_success=True), SecurityError)


@real_time_test
async def test_success_without_any_token() -> None:
    like = Behaviour(early_success=True, token=lambda leg, token: b"" if leg else token)
    assert "proved" in await refused(like, SecurityError)


@real_time_test
async def test_a_server_that_always_wants_more() -> None:
    like = Behaviour(token=lambda leg, token: b"" if leg else token)
    with trio.fail_after(5):
        await refused(like, AuthenticationError)
    assert len(like.seen_setups) == 1


def damaged(rnd: random.Random, token: bytes) -> bytes:
    """Return a token with some bytes of it changed, lost or added."""
    result = bytearray(token)
    for _ in range(rnd.randint(1, 3)):
        position = rnd.randrange(len(result) + 1)
        match rnd.randrange(3):
            case 0:
                result[position:] = b""
            case 1:
                result[position:position] = rnd.randbytes(3)
            case 2:
                result[position : position + 1] = rnd.randbytes(1)
    return bytes(result)


@real_time_test
async def test_damaged_tokens_are_a_failed_login_and_nothing_else() -> None:
    """What the mechanism's parser raises must not reach anybody who does not expect it."""
    failures = set()
    for seed in range(90):
        rnd = random.Random(seed)
        target = seed % 3

        def damage(leg: int, token: bytes, target: int = target, rnd: random.Random = rnd) -> bytes:
            return damaged(rnd, token) if leg == target else token

        failures.add(type(await attempt(Behaviour(token=damage))))
    assert AuthenticationError in failures


@real_time_test
async def test_nor_are_tokens_of_pure_noise() -> None:
    for seed in range(60):
        rnd = random.Random(seed)
        noise = rnd.choice([b"", b"NTLMSSP\0\x02\0\0\0", b"\x60", b"\xa1", b"\xa1\x82"]) + rnd.randbytes(2 * seed + 1)

        def replace(leg: int, token: bytes, target: int = seed % 3, noise: bytes = noise) -> bytes:
            return noise if leg == target else token

        await attempt(Behaviour(token=replace))


def test_the_password_is_in_no_representation() -> None:
    assert "s3cret" not in repr(USER)
    assert "s3cret" not in str(USER)


@pytest.mark.parametrize(("domain", "principal"), [("DOM", "DOM\\alice"), ("", "alice")])
def test_how_a_user_is_named(domain: str, principal: str) -> None:
    assert Login("alice", domain, "x").principal == principal


@pytest.mark.parametrize("name", ["\udcff", "a" * 300, "\0", "@", "\\", "a\\b\\c"])
@real_time_test
async def test_a_name_that_the_mechanism_does_not_take_is_a_failed_login(name: str) -> None:
    assert await attempt(Behaviour(), login=Login(name, "", "x")) is not None


@pytest.mark.parametrize(
    ("capabilities", "known", "asked", "stood", "hears"),
    [
        (Capability.PERSISTENT_HANDLES, (77,), [77], True, True),
        (Capability.PERSISTENT_HANDLES, (), [77], False, False),
        (0, (77,), [], False, True),
    ],
)
@real_time_test
async def test_where_opens_are_kept_for_good_it_is_noticed_that_the_session_before_still_stands(
    capabilities: int, known: tuple[int, ...], asked: list[int], stood: bool, hears: bool
) -> None:
    """Other servers cannot be asked, and may tell that one what is meant for this."""
    like = Behaviour(capabilities=capabilities, known_sessions=known)
    session, _ = await log_in(like)
    assert like.bindings == asked
    assert (session.before_stood, session.before_hears) == (stood, hears)
