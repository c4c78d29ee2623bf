"""NEGOTIATE: what both ends can do, and the proof that nobody in between changed it ([MS-SMB2] 3.2.4.2.2, 3.2.5.2)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from smb3fs.channels.channel import Channel
from smb3fs.connection import CREDIT_UNIT, Answer, Exchange, SessionSecurity
from smb3fs.errors import SecurityError, Status, StatusError
from smb3fs.identity import ClientIdentity
from smb3fs.wire.create import FileId
from smb3fs.wire.header import RELATED_ID64
from smb3fs.wire.ioctl import (
    FSCTL_VALIDATE_NEGOTIATE_INFO,
    IoctlRequest,
    IoctlResponse,
    ValidateNegotiateRequest,
    ValidateNegotiateResponse,
)
from smb3fs.wire.negotiate import (
    SIGNING_ENABLED,
    SIGNING_REQUIRED,
    Capability,
    Cipher,
    Dialect,
    Encryption,
    HashAlgorithm,
    NegotiateContext,
    NegotiateRequest,
    NegotiateResponse,
    NetName,
    PosixExtensions,
    PreauthIntegrity,
    Signing,
    SigningAlgorithm,
)
from smb3fs.wire.posix import POSIX_GUID

# A signature that costs little comes first: GMAC runs at 23 GB/s a core, CMAC at 1.3.
SIGNING_ALGORITHMS: Final = (SigningAlgorithm.AES_GMAC, SigningAlgorithm.AES_CMAC, SigningAlgorithm.HMAC_SHA256)
# We sign or seal whatever a session carries, whether the server asks for it or not.
SECURITY_MODE: Final = SIGNING_ENABLED | SIGNING_REQUIRED
# Below this a connection is of no use, and the specification has us end it ([MS-SMB2] 3.2.5.2).
SMALLEST_MAXIMUM: Final = 65536
# The bits that have a use here; a server grants the other features only to a client that offers them.
CAPABILITIES: Final = (
    Capability.DFS
    | Capability.LARGE_MTU
    | Capability.MULTI_CHANNEL
    | Capability.PERSISTENT_HANDLES
    | Capability.DIRECTORY_LEASING
    | Capability.ENCRYPTION
)
# What can be offered, the oldest first. The wildcard is no dialect: it belongs to the SMB 1 way of negotiating.
DIALECTS: Final = tuple(dialect for dialect in Dialect if dialect != Dialect.WILDCARD)
NO_GUID: Final = bytes(16)
# An NTSTATUS by which a server that has no such FSCTL answers; it must be signed to be believed.
NO_VALIDATION: Final = frozenset({Status.NOT_SUPPORTED, Status.INVALID_DEVICE_REQUEST, Status.FILE_CLOSED})
ANY_FILE: Final = FileId(RELATED_ID64, RELATED_ID64)


@dataclass(slots=True, frozen=True)
class Policy:
    """What a mount offers and accepts: dialects and ciphers in order of preference, and whether it must encrypt."""

    server_name: str
    client: ClientIdentity
    dialects: tuple[int, ...]
    ciphers: tuple[int, ...]
    seal: bool
    # Whether the SMB3 POSIX extensions are offered.
    posix: bool = False
    # Whether the session is to have several channels wherever that is possible.
    several: bool = False
    # The signatures that are offered, in order of preference.
    signing: tuple[int, ...] = SIGNING_ALGORITHMS

    def of_session(self, agreed: Negotiated) -> Policy:
        """Return the policy for another channel of a session, which speaks as the first one does."""
        ciphers = self.ciphers if agreed.cipher is None else (agreed.cipher,)
        return replace(self, dialects=(agreed.dialect,), ciphers=ciphers, signing=(agreed.signing,))


@dataclass(slots=True)
class Negotiated:
    """What NEGOTIATE agreed; `cipher` is None where the two ends have none in common."""

    dialect: int
    capabilities: int
    server_guid: bytes
    security_mode: int
    signing: int
    cipher: int | None
    max_transact: int
    max_read: int
    max_write: int
    security_buffer: bytes
    # Whether the server has taken the offer of the SMB3 POSIX extensions.
    posix: bool = False

    @property
    def lease_version(self) -> int:
        """The version of the contexts by which leases are asked for; 0 where the server has none."""
        if not self.capabilities & Capability.LEASING or self.dialect < Dialect.SMB_2_1:
            return 0
        return 2 if self.dialect >= Dialect.SMB_3_0 else 1

    @property
    def large_mtu(self) -> bool:
        """Whether a request may cost several credits, hence be about more than 64 KiB; 2.0.2 knows no such thing."""
        return self.dialect > Dialect.SMB_2_0_2 and bool(self.capabilities & Capability.LARGE_MTU)

    @property
    def knows_replay(self) -> bool:
        """Whether requests carry a channel sequence, and a flag when they are repeated.

        All servers of SMB 3 know the fields; one with neither of the capabilities for it takes no notice.
        """
        return self.dialect >= Dialect.SMB_3_0


def negotiate_request(policy: Policy) -> NegotiateRequest:
    """Build the NEGOTIATE of a mount; fields that the offered dialects do not have yet are zero."""
    contexts: list[NegotiateContext] = []
    if Dialect.SMB_3_1_1 in policy.dialects:
        contexts = [
            PreauthIntegrity([HashAlgorithm.SHA_512], os.urandom(32)),
            Encryption(list(policy.ciphers)),
            Signing(list(policy.signing)),
            NetName(policy.server_name),
        ]
        if policy.posix:
            contexts.append(PosixExtensions(POSIX_GUID))
    newest = max(policy.dialects)
    return NegotiateRequest(
        list(policy.dialects),
        SECURITY_MODE,
        CAPABILITIES if newest >= Dialect.SMB_3_0 else 0,
        policy.client.guid if newest > Dialect.SMB_2_0_2 else NO_GUID,
        contexts,
    )


async def negotiate(channel: Channel, policy: Policy) -> Negotiated:
    """Agree with the server on a dialect and its algorithms, within the limits of `policy`."""
    exchange = Exchange([negotiate_request(policy)], preauth=channel.connection.preauth)
    (answer,) = await channel.call(exchange)
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, "NEGOTIATE")
    agreed = accept(NegotiateResponse.parse(answer.pdu), policy)
    channel.connection.negotiated(large_mtu=agreed.large_mtu, client=policy.client if agreed.knows_replay else None)
    # The longest answer is one to a READ, or to a chain with the first two pages of a listing.
    channel.transport.limit = max(2 * agreed.max_transact, agreed.max_read) + SMALLEST_MAXIMUM
    return agreed


def accept(answer: NegotiateResponse, policy: Policy) -> Negotiated:
    """Check an answer to NEGOTIATE against what was offered; raises SecurityError for anything that was not."""
    if answer.dialect not in policy.dialects:
        raise SecurityError(f"the server chose dialect 0x{answer.dialect:04x}, which was not offered")
    if min(answer.max_transact, answer.max_read, answer.max_write) < SMALLEST_MAXIMUM:
        raise SecurityError("the server allows less than 64 KiB a request, which the specification forbids")
    signing: int = SigningAlgorithm.AES_CMAC
    cipher: int | None = None
    if answer.dialect == Dialect.SMB_3_1_1:
        cipher, signing = _accept_contexts(answer, policy)
    elif answer.dialect < Dialect.SMB_3_0:
        signing = SigningAlgorithm.HMAC_SHA256
        if policy.seal:
            raise SecurityError("encryption is required here, and the server speaks only SMB 2, which has none")
    elif answer.capabilities & Capability.ENCRYPTION and Cipher.AES_128_CCM in policy.ciphers:
        cipher = Cipher.AES_128_CCM
    if policy.seal and cipher is None:
        raise SecurityError("encryption is required here, and the server offers none of the ciphers that were proposed")
    agreed = Negotiated(
        answer.dialect,
        answer.capabilities,
        bytes(answer.server_guid),
        answer.security_mode,
        signing,
        cipher,
        answer.max_transact,
        answer.max_read,
        answer.max_write,
        bytes(answer.security_buffer),
        policy.posix and PosixExtensions(POSIX_GUID) in answer.contexts,
    )
    if not agreed.large_mtu:  # one credit is the limit then, whatever the sizes say ([MS-SMB2] 3.2.4.1.5)
        agreed.max_transact = agreed.max_read = agreed.max_write = CREDIT_UNIT
    return agreed


def _accept_contexts(answer: NegotiateResponse, policy: Policy) -> tuple[int | None, int]:
    """Return cipher and signing algorithm of an SMB 3.1.1 answer."""
    preauth = [context for context in answer.contexts if isinstance(context, PreauthIntegrity)]
    if len(preauth) != 1 or preauth[0].hash_algorithms != [HashAlgorithm.SHA_512]:
        raise SecurityError("the server did not agree to protect the negotiation with SHA-512")
    cipher: int | None = None
    signing: int = SigningAlgorithm.AES_CMAC
    for context in answer.contexts:
        if isinstance(context, Encryption):
            chosen = _one_of(context.ciphers, (*policy.ciphers, 0), "cipher")
            cipher = chosen or None  # 0: no cipher in common
        elif isinstance(context, Signing):
            signing = _one_of(context.algorithms, policy.signing, "signing algorithm")
    return cipher, signing


def _one_of(chosen: Sequence[int], offered: Sequence[int], what: str) -> int:
    """Return the one value that the server chose, which must have been offered."""
    if len(chosen) != 1 or chosen[0] not in offered:
        raise SecurityError(f"the server chose a {what} that was not offered")
    return chosen[0]


async def validate(
    channel: Channel, policy: Policy, agreed: Negotiated, session: SessionSecurity, tree_id: int, *, seal: bool
) -> None:
    """Have the server repeat, signed, what NEGOTIATE agreed unsigned ([MS-SMB2] 3.2.5.5).

    It counts for 2.x too where 3.x was offered: somebody in between may have made one of the other. SMB 3.1.1 needs
    none of this, since its keys depend on every byte of the negotiation; nor does an offer of 2.x alone, which has
    nothing to lose, and which boxes answer that never heard of this control.
    """
    if agreed.dialect == Dialect.SMB_3_1_1 or max(policy.dialects) < Dialect.SMB_3_0:
        return
    if session.signer is None:  # a guest's session could not tell a true answer from another one
        return
    told = negotiate_request(policy)
    offer = ValidateNegotiateRequest(told.capabilities, told.client_guid, told.security_mode, told.dialects)
    request = IoctlRequest(FSCTL_VALIDATE_NEGOTIATE_INFO, ANY_FILE, offer.encode(), 24)
    (answer,) = await channel.call(Exchange([request], tree_id=tree_id, session=session, seal=seal))
    check_validation(answer, agreed)


def check_validation(answer: Answer, agreed: Negotiated) -> None:
    """Raise SecurityError unless the repeated answer says what the first one said."""
    if not answer.protected:
        raise SecurityError("the server's confirmation of the negotiation is neither signed nor encrypted")
    if answer.status in NO_VALIDATION:
        return
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, "FSCTL_VALIDATE_NEGOTIATE_INFO")
    told = ValidateNegotiateResponse.parse(memoryview(IoctlResponse.parse(answer.pdu).output))
    if (told.dialect, told.capabilities, bytes(told.server_guid), told.security_mode) != (
        agreed.dialect,
        agreed.capabilities,
        agreed.server_guid,
        agreed.security_mode,
    ):
        raise SecurityError("somebody changed the negotiation on its way: the server remembers another one")
