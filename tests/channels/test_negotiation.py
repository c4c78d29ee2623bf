"""NEGOTIATE: what is offered, what is accepted of the answer, and how a changed negotiation comes to light."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import Link, Message, Peer, linked, make_keys, real_time_test, settle, trio_test

from smb3fs.channels.negotiation import (
    CAPABILITIES,
    DIALECTS,
    SECURITY_MODE,
    Negotiated,
    Policy,
    accept,
    negotiate,
    negotiate_request,
    validate,
)
from smb3fs.errors import ConnectionLost, SecurityError, Status, StatusError, WireError
from smb3fs.identity import ClientIdentity
from smb3fs.wire.codec import Buffer
from smb3fs.wire.create import FileId
from smb3fs.wire.ioctl import IoctlResponse, ValidateNegotiateRequest, ValidateNegotiateResponse
from smb3fs.wire.negotiate import (
    Capability,
    Cipher,
    Dialect,
    Encryption,
    HashAlgorithm,
    NegotiateContext,
    NegotiateRequest,
    NegotiateResponse,
    PosixExtensions,
    PreauthIntegrity,
    Signing,
    SigningAlgorithm,
    UnknownContext,
)
from smb3fs.wire.posix import POSIX_GUID

ALL = (Dialect.SMB_3_0, Dialect.SMB_3_0_2, Dialect.SMB_3_1_1)
POLICY = Policy("server", ClientIdentity(b"G" * 16), ALL, (Cipher.AES_128_GCM, Cipher.AES_128_CCM), seal=False)
PREAUTH = PreauthIntegrity([HashAlgorithm.SHA_512], b"salt")
MIB = 1 << 20


def answer(*contexts: NegotiateContext, **changes: object) -> NegotiateResponse:
    """An answer that is in order but for the changes."""
    usual = NegotiateResponse(
        3, Dialect.SMB_3_1_1, b"S" * 16, Capability.LARGE_MTU, MIB, MIB, MIB, 1, b"token", list(contexts) or [PREAUTH]
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


class TestRequest:
    def test_it_offers_what_the_policy_has_in_its_order(self) -> None:
        request = negotiate_request(POLICY)
        assert request.dialects == list(ALL)
        assert request.client_guid == POLICY.client.guid
        kinds = {type(context).__name__: context for context in request.contexts}
        assert kinds.keys() == {"PreauthIntegrity", "Encryption", "Signing", "NetName"}
        encryption = kinds["Encryption"]
        assert isinstance(encryption, Encryption)
        assert encryption.ciphers == [Cipher.AES_128_GCM, Cipher.AES_128_CCM]
        # Samba answers with a cipher only to a client that has the capability as well.
        assert request.capabilities & Capability.ENCRYPTION

    def test_without_311_there_are_no_contexts(self) -> None:
        policy = dataclasses.replace(POLICY, dialects=(Dialect.SMB_3_0,))
        assert negotiate_request(policy).contexts == []

    def test_fields_that_the_dialects_do_not_have_yet_are_zero(self) -> None:
        old = negotiate_request(dataclasses.replace(POLICY, dialects=(Dialect.SMB_2_0_2, Dialect.SMB_2_1)))
        assert (old.capabilities, old.client_guid, old.contexts) == (0, POLICY.client.guid, [])
        older = negotiate_request(dataclasses.replace(POLICY, dialects=(Dialect.SMB_2_0_2,)))
        assert (older.capabilities, older.client_guid, older.contexts) == (0, bytes(16), [])

    def test_the_posix_extensions_are_offered_where_the_policy_says_so(self) -> None:
        offered = negotiate_request(dataclasses.replace(POLICY, posix=True))
        assert offered.contexts[-1] == PosixExtensions(POSIX_GUID)
        old = negotiate_request(dataclasses.replace(POLICY, posix=True, dialects=(Dialect.SMB_3_0,)))
        assert old.contexts == []

    def test_the_wildcard_is_never_offered(self) -> None:
        assert DIALECTS == (0x202, 0x210, 0x300, 0x302, 0x311)

    def test_the_salt_is_new_each_time(self) -> None:
        salts = {next(c.salt for c in negotiate_request(POLICY).contexts if isinstance(c, PreauthIntegrity))}
        salts.add(next(c.salt for c in negotiate_request(POLICY).contexts if isinstance(c, PreauthIntegrity)))
        assert len(salts) == 2


class TestAccept:
    def test_a_full_answer(self) -> None:
        agreed = accept(answer(PREAUTH, Encryption([Cipher.AES_128_CCM]), Signing([SigningAlgorithm.AES_GMAC])), POLICY)
        assert (agreed.dialect, agreed.cipher, agreed.signing) == (0x311, Cipher.AES_128_CCM, SigningAlgorithm.AES_GMAC)
        assert (agreed.max_transact, agreed.max_read, agreed.max_write) == (MIB, MIB, MIB)

    def test_contexts_that_are_absent_mean_cmac_and_no_cipher(self) -> None:
        agreed = accept(answer(PREAUTH), POLICY)
        assert (agreed.cipher, agreed.signing) == (None, SigningAlgorithm.AES_CMAC)

    def test_unknown_contexts_are_passed_over(self) -> None:
        assert accept(answer(UnknownContext(0x100, b"?" * 16), PREAUTH), POLICY).dialect == Dialect.SMB_3_1_1

    def test_the_posix_extensions_are_agreed_by_who_offered_them_alone(self) -> None:
        policy = dataclasses.replace(POLICY, posix=True)
        assert accept(answer(PREAUTH, PosixExtensions(POSIX_GUID)), policy).posix
        assert not accept(answer(PREAUTH), policy).posix
        assert not accept(answer(PREAUTH, PosixExtensions(b"?" * 16)), policy).posix
        assert not accept(answer(PREAUTH, PosixExtensions(POSIX_GUID)), POLICY).posix

    def test_cipher_0_says_that_there_is_none_in_common(self) -> None:
        assert accept(answer(PREAUTH, Encryption([0])), POLICY).cipher is None

    @pytest.mark.parametrize("dialect", [Dialect.SMB_3_0, Dialect.SMB_3_0_2])
    @pytest.mark.parametrize("capable", [False, True])
    def test_30_knows_one_cipher_and_one_signature(self, dialect: int, capable: bool) -> None:
        capabilities = Capability.LARGE_MTU | (Capability.ENCRYPTION if capable else 0)
        agreed = accept(answer(dialect=dialect, capabilities=capabilities, contexts=[]), POLICY)
        assert agreed.cipher == (Cipher.AES_128_CCM if capable else None)
        assert agreed.signing == SigningAlgorithm.AES_CMAC

    def test_30_without_ccm_in_the_policy_has_no_cipher(self) -> None:
        policy = dataclasses.replace(POLICY, ciphers=(Cipher.AES_128_GCM,))
        told = answer(dialect=Dialect.SMB_3_0, capabilities=Capability.ENCRYPTION, contexts=[])
        assert accept(told, policy).cipher is None

    @pytest.mark.parametrize("dialect", [0x202, 0x210, 0x2FF, 0x302, 0x312, 0])
    def test_a_dialect_that_was_not_offered_is_refused(self, dialect: int) -> None:
        policy = dataclasses.replace(POLICY, dialects=(Dialect.SMB_3_0, Dialect.SMB_3_1_1))
        with pytest.raises(SecurityError, match="not offered"):
            accept(answer(dialect=dialect), policy)

    @pytest.mark.parametrize(
        "contexts",
        [
            [Encryption([Cipher.AES_128_GCM])],
            [PREAUTH, PREAUTH],
            [PreauthIntegrity([], b"")],
            [PreauthIntegrity([2], b"salt")],
            [PreauthIntegrity([1, 2], b"salt")],
            [PREAUTH, Encryption([Cipher.AES_256_GCM])],
            [PREAUTH, Encryption([])],
            [PREAUTH, Encryption([Cipher.AES_128_GCM, Cipher.AES_128_CCM])],
            [PREAUTH, Signing([])],
            [PREAUTH, Signing([3])],
            [PREAUTH, Signing([SigningAlgorithm.AES_CMAC, SigningAlgorithm.AES_GMAC])],
        ],
        ids=repr,
    )
    def test_contexts_that_choose_nothing_or_something_else_are_refused(self, contexts: list[NegotiateContext]) -> None:
        with pytest.raises(SecurityError):
            accept(answer(*contexts), POLICY)

    @pytest.mark.parametrize("what", ["max_transact", "max_read", "max_write"])
    def test_sizes_below_64_kib_are_refused(self, what: str) -> None:
        accept(answer(**{what: 65536}), POLICY)
        with pytest.raises(SecurityError):
            accept(answer(**{what: 65535}), POLICY)

    def test_without_large_mtu_a_request_has_64_kib(self) -> None:
        agreed = accept(answer(capabilities=0), POLICY)
        assert (agreed.max_transact, agreed.max_read, agreed.max_write) == (65536, 65536, 65536)

    def test_202_has_no_requests_beyond_64_kib_whatever_the_server_says(self) -> None:
        policy = dataclasses.replace(POLICY, dialects=DIALECTS)
        agreed = accept(answer(dialect=Dialect.SMB_2_0_2, contexts=[]), policy)
        assert (agreed.max_transact, agreed.max_read, agreed.max_write) == (65536, 65536, 65536)
        assert not agreed.large_mtu
        agreed = accept(answer(dialect=Dialect.SMB_2_1, contexts=[]), policy)
        assert (agreed.max_transact, agreed.large_mtu, agreed.signing) == (MIB, True, SigningAlgorithm.HMAC_SHA256)

    @pytest.mark.parametrize(
        "told",
        [
            answer(),
            answer(PREAUTH, Encryption([0])),
            answer(dialect=Dialect.SMB_3_0, contexts=[]),
            answer(dialect=Dialect.SMB_3_0_2, contexts=[], capabilities=Capability.LARGE_MTU),
        ],
    )
    def test_where_sealing_is_required_a_cipher_is(self, told: NegotiateResponse) -> None:
        with pytest.raises(SecurityError, match="encryption is required"):
            accept(told, dataclasses.replace(POLICY, seal=True))

    @given(st.binary(max_size=200))
    def test_no_answer_does_anything_but_fail(self, body: bytes) -> None:
        for start in (b"", answer().encode()[: len(body)]):
            pdu = memoryview(bytes(64) + start + body)
            try:
                told = NegotiateResponse.parse(pdu)
                agreed = accept(told, POLICY)
            except (WireError, SecurityError):
                continue
            assert agreed.dialect in POLICY.dialects


@trio_test
async def test_the_channel_learns_what_was_agreed() -> None:
    peer = Peer()
    async with linked(peer, credits=None) as link:
        agreed: list[Negotiated] = []

        async def client() -> None:
            agreed.append(await negotiate(link.channel, POLICY))

        link.nursery.start_soon(client)
        await settle()
        peer.answer(peer.take(), answer(max_transact=MIB, max_read=MIB).encode())
        await settle()
        assert agreed[0].dialect == Dialect.SMB_3_1_1
        assert link.channel.connection.large_mtu
        # A listing asks for two pages in one chain, and an encrypted answer has a header more.
        assert peer.transport.limit >= 2 * MIB + 1000


@trio_test
async def test_a_refused_negotiation_is_a_status() -> None:
    peer = Peer()
    peer.handler = lambda message: peer.answer(message, statuses=[Status.NOT_SUPPORTED])
    async with linked(peer, credits=None) as link:
        with pytest.raises(StatusError) as error:
            await negotiate(link.channel, POLICY)
        assert error.value.command == "NEGOTIATE"


# -- the confirmation of a 3.0 negotiation


AGREED = Negotiated(
    Dialect.SMB_3_0_2, Capability.LARGE_MTU, b"S" * 16, 3, SigningAlgorithm.AES_CMAC, None, MIB, MIB, MIB, b""
)
CONFIRMED = ValidateNegotiateResponse(Capability.LARGE_MTU, b"S" * 16, 3, Dialect.SMB_3_0_2)


def confirmation(told: ValidateNegotiateResponse) -> Buffer:
    """The body of a server's confirmation."""
    return IoctlResponse(0x00140204, FileId(2**64 - 1, 2**64 - 1), told.encode()).encode()


async def validated(
    link: Link, body: Buffer | None, status: int = 0, *, seal: bool = False, protect: bool = True, sealed: bool = False
) -> None:
    """Ask for the confirmation and get this answer."""
    peer = link.peer

    def handler(message: Message) -> None:
        peer.send(peer.reply(message.elements[0], body, status), protect=protect, sealed=sealed)

    peer.handler = handler
    assert peer.keys is not None
    await validate(link.channel, POLICY, AGREED, peer.keys.client, 7, seal=seal)


@pytest.mark.parametrize("seal", [False, True], ids=["signed", "sealed"])
@trio_test
async def test_a_confirmed_negotiation_passes(seal: bool) -> None:
    async with linked(Peer(make_keys(SigningAlgorithm.AES_CMAC))) as link:
        await validated(link, confirmation(CONFIRMED), seal=seal, sealed=seal)
        (element,) = link.peer.take().elements
        told = ValidateNegotiateRequest.parse(element.request.input)
        # Word for word what NEGOTIATE said, or the server ends the connection ([MS-SMB2] 3.3.5.15.12).
        said = negotiate_request(POLICY)
        assert isinstance(said, NegotiateRequest)
        assert told == ValidateNegotiateRequest(
            said.capabilities, said.client_guid, said.security_mode, list(said.dialects)
        )
        assert (told.capabilities, told.security_mode) == (CAPABILITIES, SECURITY_MODE)


@pytest.mark.parametrize(
    "changes",
    [
        {"dialect": Dialect.SMB_3_1_1},
        {"capabilities": Capability.LARGE_MTU | Capability.ENCRYPTION},
        {"server_guid": b"X" * 16},
        {"security_mode": 1},
    ],
    ids=repr,
)
@trio_test
async def test_a_changed_negotiation_comes_to_light(changes: dict[str, object]) -> None:
    async with linked(Peer(make_keys())) as link:
        with pytest.raises(SecurityError):
            await validated(link, confirmation(dataclasses.replace(CONFIRMED, **changes)))  # type: ignore[arg-type]


NOT_KNOWN = [Status.NOT_SUPPORTED, Status.INVALID_DEVICE_REQUEST, Status.FILE_CLOSED]


@pytest.mark.parametrize("status", NOT_KNOWN, ids=lambda status: status.name)
@pytest.mark.parametrize("seal", [False, True], ids=["signed", "sealed"])
@trio_test
async def test_a_server_that_does_not_know_it_must_say_so_in_earnest(status: Status, seal: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        await validated(link, None, status, seal=seal, sealed=seal)


@pytest.mark.parametrize("status", NOT_KNOWN, ids=lambda status: status.name)
@pytest.mark.parametrize("seal", [False, True], ids=["signed", "sealed"])
@trio_test
async def test_and_nobody_else_can_say_it(status: Status, seal: bool) -> None:
    async with linked(Peer(make_keys())) as link:
        with pytest.raises((SecurityError, ConnectionLost)) as error:
            await validated(link, None, status, seal=seal, protect=False)
        # FILE_CLOSED may come unprotected and does not end the channel; it must not count as a confirmation.
        assert isinstance(error.value, SecurityError) or isinstance(error.value.__cause__, SecurityError)


@trio_test
async def test_another_refusal_is_a_refusal() -> None:
    async with linked(Peer(make_keys())) as link:
        with pytest.raises(StatusError):
            await validated(link, None, Status.ACCESS_DENIED)


@trio_test
async def test_a_confirmation_cut_short_is_nonsense() -> None:
    async with linked(Peer(make_keys())) as link:
        with pytest.raises(WireError):
            await validated(link, IoctlResponse(0x00140204, FileId(0, 0), CONFIRMED.encode()[:-1]).encode())


@real_time_test
async def test_311_asks_for_none() -> None:
    async with linked(Peer(make_keys())) as link:
        agreed = dataclasses.replace(AGREED, dialect=Dialect.SMB_3_1_1)
        assert link.peer.keys is not None
        await validate(link.channel, POLICY, agreed, link.peer.keys.client, 7, seal=False)
        assert link.peer.messages == []
