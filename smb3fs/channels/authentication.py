"""SESSION_SETUP: the login, and the keys that come out of it ([MS-SMB2] 3.2.4.2.3, 3.2.5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import spnego
import spnego.exceptions
import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.negotiation import CAPABILITIES, SECURITY_MODE, Negotiated, Policy
from smb3fs.connection import Exchange, SessionSecurity
from smb3fs.crypto import NonceCounter, PreauthHash, Sealer, Unsealer, derive_keys, make_signer
from smb3fs.errors import AuthenticationError, SecurityError, Status, StatusError
from smb3fs.wire.header import FLAG_SIGNED
from smb3fs.wire.negotiate import Capability, Dialect
from smb3fs.wire.session import SessionFlag, SessionSetupRequest, SessionSetupResponse


@dataclass(slots=True, frozen=True)
class Login:
    """Who logs in. The password never appears in a representation of this object."""

    username: str
    domain: str
    password: str = field(repr=False)

    @property
    def principal(self) -> str:
        """The name in the form that the security mechanism takes."""
        return f"{self.domain}\\{self.username}" if self.domain else self.username


async def authenticate(
    channel: Channel, policy: Policy, agreed: Negotiated, login: Login, previous_session_id: int = 0
) -> SessionSecurity:
    """Log in on a negotiated channel and return the session's protection, which the channel uses from then on.

    `previous_session_id` names a session of ours that the server may drop. Raises StatusError with the server's
    refusal, SecurityError for a guest session or a wrong signature, AuthenticationError where our side cannot go on.
    """
    mechanism = _mechanism(policy, login)
    preauth = channel.connection.preauth.copy()
    token = await _step(mechanism, agreed.security_buffer or None)
    session_id = 0
    while True:
        request = SessionSetupRequest(
            token or b"",
            security_mode=SECURITY_MODE,
            capabilities=CAPABILITIES & ~Capability.ENCRYPTION,
            previous_session_id=previous_session_id,
        )
        exchange = Exchange([request], session_id=session_id, preauth=preauth)
        (answer,) = await channel.call(exchange)
        if answer.status not in (Status.SUCCESS, Status.MORE_PROCESSING_REQUIRED):
            raise StatusError(answer.status, "SESSION_SETUP")
        session_id = answer.header.session_id
        told = SessionSetupResponse.parse(answer.pdu)
        if told.session_flags & (SessionFlag.IS_GUEST | SessionFlag.IS_NULL):
            raise SecurityError(
                "the server let us in as a guest, whose traffic nothing protects; guest is not accepted"
            )
        token = await _step(mechanism, told.security_buffer) if told.security_buffer else None
        if answer.status == Status.SUCCESS:
            break
        if not token:
            raise AuthenticationError("the server asks for more than this login has to say")
    if not mechanism.complete:
        raise SecurityError("the server ended the login before it proved that it knows the password")
    session = _protect(agreed, policy, preauth, session_id, mechanism.session_key, told.session_flags)
    if not answer.header.flags & FLAG_SIGNED or not session.signer.verify(
        answer.pdu, answer.header.signature, answer.header.message_id
    ):
        raise SecurityError("the server's last word in the login is not signed with the session's key")
    channel.connection.session = session
    return session


def _mechanism(policy: Policy, login: Login) -> spnego.ContextProxy:
    """Return the security mechanism: NTLM inside SPNEGO."""
    try:
        return spnego.client(
            login.principal,
            login.password,
            hostname=policy.server_name,
            service="cifs",
            protocol="negotiate",
            options=spnego.NegotiateOptions.use_negotiate | spnego.NegotiateOptions.use_ntlm,
        )
    except (spnego.exceptions.SpnegoError, ValueError) as error:
        raise AuthenticationError(f"the login as {login.principal} cannot begin: {error}") from error


async def _step(mechanism: spnego.ContextProxy, token: bytes | None) -> bytes | None:
    """Take one step of the login in a thread, since a mechanism may compute or ask other servers."""
    try:
        return await trio.to_thread.run_sync(mechanism.step, token)
    except Exception as error:  # a token of nonsense raises whatever its parser ran into, KeyError for one
        raise AuthenticationError(f"the server's part of the login makes no sense: {error}") from error


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
