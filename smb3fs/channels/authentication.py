"""SESSION_SETUP: the login, and the keys that come out of it ([MS-SMB2] 3.2.4.2.3, 3.2.5.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.mechanisms import KERBEROS, NOBODY, NTLM, Login, Mechanism, mechanism
from smb3fs.channels.negotiation import SECURITY_MODE, Negotiated, Policy
from smb3fs.connection import Answer, Exchange, SessionSecurity
from smb3fs.crypto import NonceCounter, PreauthHash, Sealer, Unsealer, derive_keys, make_signer
from smb3fs.errors import AuthenticationError, SecurityError, Smb3fsError, Status, StatusError
from smb3fs.wire.header import FLAG_SIGNED
from smb3fs.wire.negotiate import SIGNING_ENABLED, Capability, Dialect
from smb3fs.wire.session import SESSION_SETUP_BINDING, SessionFlag, SessionSetupRequest, SessionSetupResponse

# Sessions in which nobody has proved anything, so that there is no key.
NO_KEY: Final = SessionFlag.IS_GUEST | SessionFlag.IS_NULL
# What a server lists in its answer to NEGOTIATE ([RFC 4178] 4.1): the encoded identifiers of NTLM and of Kerberos, the
# latter also in Windows 2000's spelling.
NTLM_ID: Final = bytes.fromhex("060a2b06010401823702020a")
KERBEROS_IDS: Final = (bytes.fromhex("06092a864886f712010202"), bytes.fromhex("06092a864882f712010202"))
Result = TypeVar("Result")


async def authenticate(
    channel: Channel, policy: Policy, agreed: Negotiated, login: Login, previous_session_id: int = 0
) -> SessionSecurity:
    """Log in on a negotiated channel and return the session's protection, which the channel uses from then on.

    `previous_session_id` names a session of ours that the server may drop. Raises StatusError with the server's
    refusal, SecurityError for a guest session that nobody asked for or a wrong signature, AuthenticationError where
    our side cannot go on.
    """
    _check_offer(agreed.security_buffer, policy.server_name, login)
    preauth = channel.connection.preauth.copy()

    def ask(token: bytes, session_id: int) -> Exchange:
        return Exchange([_request(token, login, previous_session_id)], session_id=session_id, preauth=preauth)

    proof, answer, told = await _converse(channel, policy.server_name, login, ask)
    session_id = answer.header.session_id
    if told.session_flags & NO_KEY or login.security == NOBODY:
        session = _without_key(session_id, policy, told.session_flags)
    elif not proof.complete:
        raise SecurityError("the server ended the login before it proved that it knows the password")
    else:
        session = _protect(agreed, policy, preauth, session_id, proof.session_key, told.session_flags)
        if not _is_signed(answer, session):
            raise SecurityError("the server's last word in the login is not signed with the session's key")
    channel.connection.session = session
    return session


async def bind(
    channel: Channel,
    policy: Policy,
    agreed: Negotiated,
    login: Login,
    session: SessionSecurity,
    ids: range | None = None,
) -> SessionSecurity:
    """Log in on another channel of a session ([MS-SMB2] 3.2.4.2.3.2); return what protects the session there.

    What is encrypted has the session's keys, and its one counter of nonces; what is signed has a key of the channel's
    own. Until it has, the session's signs, where it must be under these message `ids`. Raises what `authenticate`
    raises.
    """
    if session.signer is None:
        raise SecurityError("the session of a guest has one channel")
    preauth = channel.connection.preauth.copy()
    request = partial(
        SessionSetupRequest, flags=SESSION_SETUP_BINDING, security_mode=SECURITY_MODE, capabilities=Capability.DFS
    )

    def ask(token: bytes, _: int) -> Exchange:
        if ids is not None and channel.connection.credits.next_id not in ids:
            raise SecurityError("the login takes more messages than may be signed with the session's key")
        return Exchange([request(token)], session_id=session.session_id, preauth=preauth, signer=session.signer)

    proof, answer, told = await _converse(channel, policy.server_name, login, ask)
    if told.session_flags & NO_KEY or not proof.complete:
        raise SecurityError("the server bound a channel without a proof that it knows the password")
    if answer.header.session_id != session.session_id:
        raise SecurityError("the server bound a channel to another session")
    context = preauth.value if agreed.dialect == Dialect.SMB_3_1_1 else b""
    keys = derive_keys(agreed.dialect, proof.session_key, context, agreed.cipher)
    bound = replace(session, signer=make_signer(agreed.signing, keys.signing))
    if not _is_signed(answer, bound):
        raise SecurityError("the server's last word in the login is not signed with the channel's key")
    channel.connection.session = bound
    return bound


async def stands(channel: Channel, session_id: int) -> bool:
    """Whether the server, or that process of it which serves this channel, has a session of ours still.

    It is asked to bind the channel to the session, and in a way that it has to refuse: unsigned and without a token. If
    there is no such session that is what it says ([MS-SMB2] 3.3.5.5). One round trip; nothing changes by it.
    """
    request = SessionSetupRequest(b"", flags=SESSION_SETUP_BINDING, security_mode=SECURITY_MODE)
    (answer,) = await channel.call(
        Exchange([request], session_id=session_id, preauth=channel.connection.preauth.copy())
    )
    return answer.status != Status.USER_SESSION_DELETED


async def authenticate_again(channel: Channel, policy: Policy, login: Login, session: SessionSecurity) -> None:
    """Renew a session that has expired: its opens, trees and keys stay ([MS-SMB2] 3.2.5.3.2).

    Raises what `authenticate` raises; the session is as expired as before then.
    """
    # SESSION_SETUP is signed, even where everything else in the session is encrypted ([MS-SMB2] 3.2.4.1.8).
    signed = replace(session, seal_everything=False)

    def ask(token: bytes, _: int) -> Exchange:
        return Exchange([_request(token, login, 0)], session=signed, urgent=True)

    proof, answer, told = await _converse(channel, policy.server_name, login, ask)
    if told.session_flags & NO_KEY:
        raise SecurityError("the server renewed the session as that of a guest")
    if not proof.complete or not answer.protected:
        raise SecurityError("the server renewed the session without a proof that it knows the password")


def _request(token: bytes, login: Login, previous_session_id: int) -> SessionSetupRequest:
    """Build one leg; where no key will come of it, signatures are not demanded."""
    return SessionSetupRequest(
        token,
        security_mode=SIGNING_ENABLED if login.accepts_guest else SECURITY_MODE,
        capabilities=Capability.DFS,
        previous_session_id=previous_session_id,
    )


async def _converse(
    channel: Channel, server_name: str, login: Login, ask: Callable[[bytes, int], Exchange]
) -> tuple[Mechanism, Answer, SessionSetupResponse]:
    """Let the mechanism talk to the server until that is satisfied; return it with the server's last word."""
    proof = await _in_thread(partial(mechanism, server_name, login))
    token = await _step(proof, None)
    session_id = 0
    while True:
        (answer,) = await channel.call(ask(token or b"", session_id))
        if answer.status not in (Status.SUCCESS, Status.MORE_PROCESSING_REQUIRED):
            raise StatusError(answer.status, "SESSION_SETUP")
        session_id = answer.header.session_id
        told = SessionSetupResponse.parse(answer.pdu)
        if told.session_flags & NO_KEY and not login.accepts_guest:
            raise SecurityError(
                "the server let us in as a guest, whose traffic nothing protects; guest is not accepted"
            )
        more = told.security_buffer and not proof.complete
        token = await _step(proof, told.security_buffer) if more else None
        if answer.status == Status.SUCCESS:
            return proof, answer, told
        if not token:
            raise AuthenticationError("the server asks for more than this login has to say")


async def _step(proof: Mechanism, token: bytes | None) -> bytes | None:
    """Take one step of the login."""
    try:
        return await _in_thread(partial(proof.step, token))
    except Smb3fsError:
        raise
    except Exception as error:  # a token of nonsense raises whatever its parser ran into, KeyError for one
        raise AuthenticationError(f"the server's part of the login makes no sense: {error}") from error


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Work where waiting for a KDC holds nobody up; a caller whose time is over leaves it behind."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _check_offer(hint: bytes, server_name: str, login: Login) -> None:
    """Spare the server a login of a kind that it says it does not take."""
    has_ntlm, has_kerberos = NTLM_ID in hint, any(name in hint for name in KERBEROS_IDS)
    if login.security == KERBEROS and has_ntlm and not has_kerberos:
        raise AuthenticationError(
            f"no login by Kerberos: {server_name} does not offer it, as a member of no domain; use sec=ntlmssp"
        )
    if login.security == NTLM and has_kerberos and not has_ntlm:
        raise AuthenticationError(f"{server_name} takes no login by NTLM, only by Kerberos; use sec=krb5")


def _is_signed(answer: Answer, session: SessionSecurity) -> bool:
    """Whether the server's last word carries the signature of the session that it begins."""
    return (
        bool(answer.header.flags & FLAG_SIGNED)
        and session.signer is not None
        and session.signer.verify(answer.pdu, answer.header.signature, answer.header.message_id)
    )


def _without_key(session_id: int, policy: Policy, flags: int) -> SessionSecurity:
    """Return the protection of a guest's session: none ([MS-SMB2] 3.2.5.3.1)."""
    if policy.seal or flags & SessionFlag.ENCRYPT_DATA:
        raise SecurityError("encryption is required, which a guest or anonymous session has no key for")
    return SessionSecurity(session_id)


def _protect(
    agreed: Negotiated, policy: Policy, preauth: PreauthHash, session_id: int, session_key: bytes, flags: int
) -> SessionSecurity:
    """Derive the session's keys and decide what is sealed."""
    wants_sealing = policy.seal or bool(flags & SessionFlag.ENCRYPT_DATA)
    if wants_sealing and agreed.cipher is None:
        raise SecurityError("the server demands encryption, but none of the ciphers offered to it suits it")
    context = preauth.value if agreed.dialect == Dialect.SMB_3_1_1 else b""
    keys = derive_keys(agreed.dialect, session_key, context, agreed.cipher)
    session = SessionSecurity(session_id, make_signer(agreed.signing, keys.signing))
    if agreed.cipher is not None:
        session.sealer = Sealer(agreed.cipher, keys.client_to_server, NonceCounter())
        session.unsealer = Unsealer(agreed.cipher, keys.server_to_client)
    session.seal_everything = wants_sealing
    return session
