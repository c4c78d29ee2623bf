"""How a login proves who it is: by NTLM, by Kerberos, or as nobody; a mount has exactly one of them.

What is asked for by name is never replaced: a login by Kerberos has no NTLM in it to fall back to, and the other way
round. NTLM and nobody's login go bare, Kerberos goes in SPNEGO's clothes; servers take both ([MS-SMB2] 3.3.5.5.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import spnego
import spnego.exceptions

from smb3fs.channels import kerberos
from smb3fs.errors import AuthenticationError
from smb3fs.wire.ntlm import NtlmAuthenticate, NtlmChallenge, NtlmFlag, NtlmNegotiate

NTLM: Final = "ntlmssp"
KERBEROS: Final = "krb5"
NOBODY: Final = "none"


@dataclass(slots=True, frozen=True)
class Login:
    """Who logs in, and how. The password never appears in a representation of this object."""

    username: str
    domain: str
    password: str = field(repr=False)
    security: str = NTLM
    guest: bool = False
    """Whether a session that proves nothing about either end is what was asked for."""
    tickets: kerberos.Tickets | None = None
    servers_domain: bool = False
    """Whether a name without a domain is one of the domain that the server names."""

    @property
    def principal(self) -> str:
        """The name in the form that NTLM takes."""
        return f"{self.domain}\\{self.username}" if self.domain else self.username

    @property
    def accepts_guest(self) -> bool:
        """Whether a session without a key is accepted."""
        return self.guest or self.security == NOBODY


class Mechanism(Protocol):
    """One run of a login."""

    @property
    def complete(self) -> bool:
        """Whether this side is satisfied."""

    @property
    def session_key(self) -> bytes:
        """What the session's keys are derived from."""

    def step(self, token: bytes | None = None) -> bytes | None:
        """Take the server's word and return ours; may ask other servers, so it belongs into a thread."""


def mechanism(server_name: str, login: Login) -> Mechanism:
    """Return the mechanism of a login; may ask a KDC, so it belongs into a thread."""
    if login.security == NOBODY:
        return Nobody()
    if login.security == KERBEROS:
        made: Mechanism = kerberos.client(
            server_name, login.username, login.domain, login.password, login.tickets or kerberos.Tickets()
        )
        return made
    if login.servers_domain and not login.domain:
        return ServersDomain(lambda domain: _ntlm(server_name, replace(login, domain=domain)))
    return _ntlm(server_name, login)


def _ntlm(server_name: str, login: Login) -> Mechanism:
    """Return a login by NTLM."""
    try:
        return spnego.client(
            # A bare string would be taken for a hash if it looked like one.
            spnego.Password(login.principal, login.password),
            hostname=server_name,
            service="cifs",
            protocol="ntlm",
            options=spnego.NegotiateOptions.use_ntlm,
        )
    except (spnego.exceptions.SpnegoError, ValueError) as error:
        raise AuthenticationError(f"the login as {login.principal} cannot begin: {error}") from error


class ServersDomain:
    """NTLM by a user of the domain that the server names, which is known only once it has answered."""

    def __init__(self, begin: Callable[[str], Mechanism]) -> None:
        self._begin = begin
        self._login = begin("")

    @property
    def complete(self) -> bool:
        """Whether this side is satisfied."""
        return self._login.complete

    @property
    def session_key(self) -> bytes:
        """What the session's keys are derived from."""
        return self._login.session_key

    def step(self, token: bytes | None = None) -> bytes | None:
        """Return the next message; the first one says nothing of the user, so it is the same for any domain."""
        if token is not None and not self._login.complete:
            self._login = self._begin(NtlmChallenge.parse(memoryview(token)).domain)
            self._login.step(None)
        return self._login.step(token)


class Nobody:
    """The anonymous login of NTLM ([MS-NLMP] 3.2.5.1.2): no name, no proof, hence no key."""

    session_key: Final = b""

    def __init__(self) -> None:
        self._say: Callable[[bytes | None], bytes] | None = self._negotiate

    @property
    def complete(self) -> bool:
        """Whether all is said."""
        return self._say is None

    def step(self, token: bytes | None = None) -> bytes | None:
        """Return the next of the two messages."""
        return self._say(token) if self._say is not None else None

    def _negotiate(self, _: bytes | None) -> bytes:
        """Say what this side can do."""
        self._say = self._authenticate
        return NtlmNegotiate(
            NtlmFlag.UNICODE
            | NtlmFlag.REQUEST_TARGET
            | NtlmFlag.NTLM
            | NtlmFlag.ALWAYS_SIGN
            | NtlmFlag.EXTENDED_SESSION_SECURITY
            | NtlmFlag.KEY_128
            | NtlmFlag.KEY_56
        ).encode()

    def _authenticate(self, token: bytes | None) -> bytes:
        """Say that nobody is here, in the terms that the server chose."""
        self._say = None
        challenge = NtlmChallenge.parse(memoryview(token or b""))
        return NtlmAuthenticate(challenge.flags | NtlmFlag.ANONYMOUS).encode()
