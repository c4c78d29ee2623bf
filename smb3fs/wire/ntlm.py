"""NTLM messages of a login as nobody ([MS-NLMP] 2.2.1.1 to 2.2.1.3); a login as somebody leaves them to a library."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import Any, Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import from_utf16, slice_checked

SIGNATURE: Final = b"NTLMSSP\0"


class NtlmFlag(IntFlag):
    """What the two ends agree on ([MS-NLMP] 2.2.2.5), as far as it has a use here."""

    UNICODE = 0x00000001
    REQUEST_TARGET = 0x00000004
    NTLM = 0x00000200
    ANONYMOUS = 0x00000800
    ALWAYS_SIGN = 0x00008000
    EXTENDED_SESSION_SECURITY = 0x00080000
    KEY_128 = 0x20000000
    KEY_56 = 0x80000000


# [MS-NLMP] 2.2.1.1: Signature, MessageType, NegotiateFlags, DomainNameFields, WorkstationFields
_NEGOTIATE: Final = Struct("<8sII8s8s")


@dataclass(slots=True)
class NtlmNegotiate:
    """The first word of a client, without the names that it may carry."""

    flags: int

    def encode(self) -> bytes:
        """Return the message."""
        return _NEGOTIATE.pack(SIGNATURE, 1, self.flags, bytes(8), bytes(8))

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a message."""
        flags, *_ = _open(_NEGOTIATE, message, 1)
        return cls(flags)


# [MS-NLMP] 2.2.1.2: Signature, MessageType, TargetNameFields, NegotiateFlags, ServerChallenge, Reserved,
# TargetInfoFields
_CHALLENGE: Final = Struct("<8sIHHII8s8sHHI")
# [MS-NLMP] 2.2.2.1: AvId, AvLen; and the two that matter here, the end and the domain's NetBIOS name
_AV_PAIR: Final = Struct("<HH")
AV_EOL: Final = 0
AV_NB_DOMAIN_NAME: Final = 2


@dataclass(slots=True)
class NtlmChallenge:
    """The server's answer, without what only somebody with a password has to read."""

    flags: int
    challenge: bytes
    # The AV_PAIRs by which the server tells about itself ([MS-NLMP] 2.2.2.1).
    target_info: bytes = b""

    def encode(self) -> bytes:
        """Return the message."""
        size, length = _CHALLENGE.size, len(self.target_info)
        fields = (0, 0, size, self.flags, self.challenge, bytes(8), length, length, size)
        return _CHALLENGE.pack(SIGNATURE, 2, *fields) + self.target_info

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a message."""
        *_, flags, challenge, _reserved, length, _maximum, offset = _open(_CHALLENGE, message, 2)
        info = slice_checked(message, offset, length, _CHALLENGE.size) if length else b""
        return cls(flags, challenge, bytes(info))

    @property
    def domain(self) -> str:
        """The NetBIOS name of the server's domain, of a server without one its own; empty if it does not tell."""
        place = 0
        while place + _AV_PAIR.size <= len(self.target_info):
            kind, length = _AV_PAIR.unpack_from(self.target_info, place)
            place += _AV_PAIR.size
            if kind == AV_NB_DOMAIN_NAME:
                return from_utf16(slice_checked(memoryview(self.target_info), place, length, 0))
            if kind == AV_EOL:
                break
            place += length
        return ""


# [MS-NLMP] 2.2.1.3: Signature, MessageType, then length, maximum and offset of LmChallengeResponse,
# NtChallengeResponse, DomainName, UserName, Workstation and EncryptedRandomSessionKey, then NegotiateFlags
_AUTHENTICATE: Final = Struct("<8sI" + "HHI" * 6 + "I")


@dataclass(slots=True)
class NtlmAuthenticate:
    """The client's proof; nobody has none, which is told by one zero byte ([MS-NLMP] 3.2.5.1.2)."""

    flags: int
    lm_response: bytes = b"\0"

    def encode(self) -> bytes:
        """Return the message, whose other fields are empty."""
        end = _AUTHENTICATE.size + len(self.lm_response)
        empty = (0, 0, end)
        lm = (len(self.lm_response), len(self.lm_response), _AUTHENTICATE.size)
        return _AUTHENTICATE.pack(SIGNATURE, 3, *lm, *empty * 5, self.flags) + self.lm_response

    @classmethod
    def parse(cls, message: memoryview) -> Self:
        """Read a message."""
        length, _maximum, offset, *_, flags = _open(_AUTHENTICATE, message, 3)
        return cls(flags, bytes(slice_checked(message, offset, length, _AUTHENTICATE.size)))


def _open(layout: Struct, message: memoryview, kind: int) -> tuple[Any, ...]:
    """Return the fields behind the message's signature and type, which must be right."""
    if len(message) < layout.size:
        raise WireError("an NTLM message is cut short")
    signature, told, *fields = layout.unpack_from(message)
    if signature != SIGNATURE or told != kind:
        raise WireError("a message of NTLM is none, or not the one whose turn it is")
    return tuple(fields)
