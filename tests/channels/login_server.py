"""A peer that really negotiates and really does NTLM, so that both ends come to the same keys or do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import spnego
import spnego.exceptions
from peer import SESSION_ID, Element, Keys, Message, Peer, Reply

from smb3fs.channels.mechanisms import Login
from smb3fs.channels.negotiation import Policy
from smb3fs.connection import SessionSecurity
from smb3fs.crypto import NonceCounter, PreauthHash, Sealer, Unsealer, derive_keys, make_signer
from smb3fs.errors import Status
from smb3fs.identity import ClientIdentity
from smb3fs.wire.create import FileId
from smb3fs.wire.header import FLAG_SIGNED, Command
from smb3fs.wire.ioctl import FSCTL_VALIDATE_NEGOTIATE_INFO, IoctlResponse, ValidateNegotiateResponse
from smb3fs.wire.negotiate import (
    Capability,
    Cipher,
    Dialect,
    Encryption,
    HashAlgorithm,
    NegotiateContext,
    NegotiateResponse,
    PreauthIntegrity,
    Signing,
    SigningAlgorithm,
)
from smb3fs.wire.ntlm import NtlmAuthenticate, NtlmChallenge, NtlmFlag, NtlmNegotiate
from smb3fs.wire.session import SESSION_SETUP_BINDING, SessionFlag, SessionSetupRequest, SessionSetupResponse
from smb3fs.wire.tree import ShareType, TreeConnectResponse

USER: Final = Login("alice", "DOM", "s3cret")
UNC: Final = "\\\\server\\share"
MIB: Final = 1 << 20
ALL_DIALECTS: Final = (Dialect.SMB_3_0, Dialect.SMB_3_0_2, Dialect.SMB_3_1_1)
POLICY: Final = Policy(
    "server", ClientIdentity(b"G" * 16), ALL_DIALECTS, (Cipher.AES_128_GCM, Cipher.AES_128_CCM), seal=False
)
OLD_DIALECTS: Final = (Dialect.SMB_2_0_2, Dialect.SMB_2_1)
OLD_TOO: Final = replace(POLICY, dialects=(*OLD_DIALECTS, *ALL_DIALECTS))


@dataclass(slots=True)
class Behaviour:
    """What the server is like, and what is wrong with it."""

    dialect: int = Dialect.SMB_3_1_1
    cipher: int | None = Cipher.AES_128_GCM
    signing: int = SigningAlgorithm.AES_GMAC
    session_flags: int = 0
    share_type: int = ShareType.DISK
    share_flags: int = 0
    tree_status: int = Status.SUCCESS
    setup_status: int | None = None
    """Answer SESSION_SETUP with this, and no token."""
    token: Callable[[int, bytes], bytes] = lambda _leg, token: token
    """What becomes of the server's token on its way, by the number of the leg."""
    early_success: bool = False
    alter_final: Callable[[bytearray], None] | None = None
    forget_negotiation: bool = False
    """Confirm another negotiation than there was."""
    negotiate_hint: bool = True
    hint: bytes | None = None
    """What the answer to NEGOTIATE lists in place of what this server can."""
    anonymous: bool = False
    """Let in whoever says to be nobody."""
    capabilities: int = 0
    """What it can do beside what follows from the rest."""
    known_sessions: tuple[int, ...] = ()
    """Sessions of another connection that it has still, and to which no channel can be bound."""
    bindings: list[int] = field(default_factory=list)
    renewal_unsigned: bool = False
    renewals: int = 0
    seen_setups: list[SessionSetupRequest] = field(default_factory=list)
    trees: list[str] = field(default_factory=list)


def mechanism() -> spnego.ContextProxy:
    """The server's end of a login; its passwords are in the file that NTLM_USER_FILE names."""
    return spnego.server(
        hostname="server",
        service="cifs",
        protocol="negotiate",
        options=spnego.NegotiateOptions.use_negotiate | spnego.NegotiateOptions.use_ntlm,
    )


class LoginServer(Peer):
    """Negotiates, lets users in, connects trees; after that `obey`s, or does what `inside` says."""

    def __init__(self, behaviour: Behaviour | None = None, inside: Callable[[Message], None] | None = None) -> None:
        super().__init__()
        self.like = behaviour or Behaviour()
        self.handler = self._serve
        self.grant = lambda header: min(header.credits, 512)
        self._inside = inside or self.obey
        self._preauth = PreauthHash()
        self._mechanism = mechanism()
        self._leg = 0
        self._again: spnego.ContextProxy | None = None

    def _serve(self, message: Message) -> None:
        """Answer one message."""
        element = message.elements[0]
        match element.command:
            case Command.NEGOTIATE:
                self._negotiate(element)
            case Command.SESSION_SETUP:
                self._session_setup(element)
            case Command.TREE_CONNECT:
                self._tree_connect(element)
            case Command.IOCTL if element.request.ctl_code == FSCTL_VALIDATE_NEGOTIATE_INFO:
                self._confirm(element)
            case _:
                self._inside(message)

    @property
    def _capabilities(self) -> int:
        sealing = self.like.cipher is not None and Dialect.SMB_3_0 <= self.like.dialect < Dialect.SMB_3_1_1
        return Capability.LARGE_MTU | self.like.capabilities | (Capability.ENCRYPTION if sealing else 0)

    def _negotiate(self, element: Element) -> None:
        contexts: list[NegotiateContext] = [
            PreauthIntegrity([HashAlgorithm.SHA_512], os.urandom(32)),
            Encryption([self.like.cipher or 0]),
            Signing([self.like.signing]),
        ]
        hint = self._mechanism.step() if self.like.negotiate_hint else b""
        hint = hint if self.like.hint is None else self.like.hint
        told = NegotiateResponse(
            1, self.like.dialect, b"S" * 16, self._capabilities, MIB, MIB, MIB, 0, self.like.token(0, hint or b"")
        )
        told.contexts = contexts if self.like.dialect == Dialect.SMB_3_1_1 else []
        self._hashed(element, self.reply(element, told.encode()))

    def _session_setup(self, element: Element) -> None:
        if self.keys is not None and element.header.session_id == SESSION_ID:
            self._renew(element)
            return
        if element.request.flags & SESSION_SETUP_BINDING:
            session_id = element.header.session_id
            self.like.bindings.append(session_id)
            known = session_id in self.like.known_sessions
            status = Status.INVALID_PARAMETER if known else Status.USER_SESSION_DELETED
            self.send(self.reply(element, status=status))
            return
        if self.like.anonymous:
            self._let_nobody_in(element)
            return
        self._leg += 1
        self.like.seen_setups.append(element.request)
        if self.like.setup_status is not None:
            self.send(self.reply(element, status=self.like.setup_status))
            return
        try:
            token = self._mechanism.step(element.request.security_buffer) or b""
        except spnego.exceptions.SpnegoError:
            self.send(self.reply(element, status=Status.LOGON_FAILURE))
            return
        token = self.like.token(self._leg, token)
        done = self._mechanism.complete or self.like.early_success
        if done and self.like.session_flags & SessionFlag.IS_GUEST:
            token = b""
        reply = self.reply(element, SessionSetupResponse(self.like.session_flags if done else 0, token).encode())
        reply.header.session_id = SESSION_ID
        if not done:
            reply.header.status = Status.MORE_PROCESSING_REQUIRED
            self._hashed(element, reply)
            return
        self._preauth.update([element.pdu])
        self._take_keys()
        frame = bytearray(self.frame(reply))
        assert reply.header.flags & FLAG_SIGNED or self.keys is None
        if self.like.alter_final is not None:
            self.like.alter_final(frame)
        self.credits += reply.header.credits
        self.transport.put(bytes(frame))

    def _renew(self, element: Element) -> None:
        """Let the user in again: a run of its own, in which the keys stay."""
        assert element.header.flags & FLAG_SIGNED
        assert not element.message.sealed
        if self._again is None:
            self._again = mechanism()
        try:
            token = self._again.step(element.request.security_buffer) or b""
        except spnego.exceptions.SpnegoError:
            self._again = None
            self.send(self.reply(element, status=Status.LOGON_FAILURE))
            return
        done = self._again.complete
        reply = self.reply(element, SessionSetupResponse(self.like.session_flags if done else 0, token).encode())
        reply.header.session_id = SESSION_ID
        if not done:
            reply.header.status = Status.MORE_PROCESSING_REQUIRED
            self.transport.put(self.frame(reply))
            self.credits += reply.header.credits
            return
        self._again = None
        self.like.renewals += 1
        frame = bytearray(self.frame(reply))
        if self.like.renewal_unsigned:
            frame[16] &= ~FLAG_SIGNED
            frame[48:64] = bytes(16)
        self.credits += reply.header.credits
        self.transport.put(bytes(frame))

    def _let_nobody_in(self, element: Element) -> None:
        """Do the server's part of an anonymous login."""
        self._leg += 1
        self.like.seen_setups.append(element.request)
        if self._leg == 1:
            NtlmNegotiate.parse(memoryview(element.request.security_buffer))
            token, flags, status = NtlmChallenge(0x1, b"challeng").encode(), 0, Status.MORE_PROCESSING_REQUIRED
        else:
            said = NtlmAuthenticate.parse(memoryview(element.request.security_buffer))
            assert said.flags & NtlmFlag.ANONYMOUS
            assert said.lm_response == b"\0"
            token, flags, status = b"", self.like.session_flags, Status.SUCCESS
        reply = self.reply(element, SessionSetupResponse(flags, token).encode())
        reply.header.session_id = SESSION_ID
        reply.header.status = status
        self.transport.put(self.frame(reply))
        self.credits += reply.header.credits

    def _hashed(self, element: Element, reply: Reply) -> None:
        """Send an answer that the hash of the negotiation counts in, with its request."""
        self._preauth.update([element.pdu])
        frame = self.frame(reply)
        self._preauth.update([frame])
        self.credits += reply.header.credits
        self.transport.put(frame)

    def _take_keys(self) -> None:
        """Derive the session's keys."""
        if not self._mechanism.complete:
            return
        like = self.like
        if like.dialect == Dialect.SMB_3_1_1:
            signing = like.signing
        elif like.dialect >= Dialect.SMB_3_0:
            signing = SigningAlgorithm.AES_CMAC
        else:
            signing = SigningAlgorithm.HMAC_SHA256
        keys = derive_keys(like.dialect, self._mechanism.session_key, self._preauth.value, like.cipher)
        cipher = like.cipher or Cipher.AES_128_CCM
        signer = make_signer(signing, keys.signing)
        self.keys = Keys(
            SessionSecurity(SESSION_ID, signer),  # the client's end is elsewhere
            signer,
            Sealer(cipher, keys.server_to_client or bytes(16), NonceCounter()),  # SMB 2 has no keys for it
            Unsealer(cipher, keys.client_to_server or bytes(16)),
        )

    def _tree_connect(self, element: Element) -> None:
        self.like.trees.append(element.request.path)
        body = TreeConnectResponse(self.like.share_type, self.like.share_flags, 0, 0x1F01FF).encode()
        reply = self.reply(element, body if not self.like.tree_status else None, self.like.tree_status)
        reply.header.tree_id = 0x33
        self.send(reply, sealed=element.message.sealed)

    def _confirm(self, element: Element) -> None:
        told = ValidateNegotiateResponse(self._capabilities, b"S" * 16, 1, self.like.dialect)
        if self.like.forget_negotiation:
            told.dialect = Dialect.SMB_3_1_1
        body = IoctlResponse(FSCTL_VALIDATE_NEGOTIATE_INFO, FileId(2**64 - 1, 2**64 - 1), told.encode()).encode()
        self.send(self.reply(element, body), sealed=element.message.sealed)
