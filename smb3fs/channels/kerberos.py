"""Logins by Kerberos: where the tickets are, and a sentence for each way in which there are none.

The libraries for it are an extra, so they are imported where they are used. All of this may wait for a KDC or a disk
and belongs into a thread.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import spnego
import spnego.exceptions

from smb3fs.channels import ccache
from smb3fs.errors import AuthenticationError

INSTALL: Final = (
    "sec=krb5 needs the Python packages gssapi and krb5, and {missing} is not installed: "
    "pip install 'smb3fs[kerberos]' (it needs the headers of MIT Kerberos: libkrb5-dev)"
)


@dataclass(slots=True, frozen=True)
class Tickets:
    """Where tickets come from: a keytab, the cache of user `cruid`, or that of the process.

    `fallback` is the user on whose behalf sudo runs: asked when there is nothing in the process's own cache.
    """

    keytab: str | None = None
    cruid: int | None = None
    fallback: int | None = None


KERBEROS_5: Final = "1.2.840.113554.1.2.2"


class NoTicket(Exception):  # noqa: N818 (it is no error while there is another place to look)
    """A cache has no ticket that is of use; the text completes "no login by Kerberos: "."""


def missing_package() -> str | None:
    """Return the name of a package that Kerberos lacks here."""
    for name in ("gssapi", "krb5"):
        try:
            __import__(name)
        except (ImportError, OSError):  # the latter where the C library is not the one it was built with
            return name
    return None


def client(server_name: str, username: str, domain: str, password: str, tickets: Tickets) -> Any:
    """Return the client's end of a login by Kerberos, its first ticket in hand."""
    missing = missing_package()
    if missing is not None:
        raise AuthenticationError(INSTALL.format(missing=missing))
    principal = principal_of(username, domain)
    try:
        name = _cache(principal, password, tickets)
        made = spnego.client(
            spnego.KerberosCCache(name, principal),
            hostname=server_name,
            service="cifs",
            protocol="negotiate",
            options=spnego.NegotiateOptions.use_negotiate,
        )
    except NoTicket as error:
        raise AuthenticationError(f"no login by Kerberos: {error}") from None
    return Explained(made, server_name)


class Explained:
    """A mechanism whose failures are sentences."""

    def __init__(self, mechanism: spnego.ContextProxy, server_name: str) -> None:
        self._mechanism = mechanism
        self._server_name = server_name

    @property
    def complete(self) -> bool:
        """Whether both sides have proved who they are."""
        return self._mechanism.complete

    @property
    def session_key(self) -> bytes:
        """What the session's keys are derived from."""
        return self._mechanism.session_key

    def step(self, token: bytes | None = None) -> bytes | None:
        """Take the server's word and return ours."""
        try:
            return self._mechanism.step(token)
        except spnego.exceptions.SpnegoError as error:
            if isinstance(error, spnego.exceptions.ContextExpiredError):
                sentence = "the ticket expired while it was used; run kinit again (GSS_S_CONTEXT_EXPIRED)"
            else:
                sentence = explain(error, self._server_name) or _words(error)
            raise AuthenticationError(f"no login by Kerberos: {sentence}") from None


def principal_of(username: str, domain: str) -> str | None:
    """Return the principal that a user name stands for; None where any will do.

    A domain with a dot in it is a realm in small letters; one without is a NetBIOS name and says nothing of the realm.
    """
    if not username or "@" in username:
        return username or None
    return f"{username}@{domain.upper()}" if "." in domain else username


def _cache(principal: str | None, password: str, tickets: Tickets) -> str:
    """Return the name of a cache with a ticket-granting ticket in it."""
    if tickets.keytab is not None:
        return _from_keytab(principal, tickets.keytab)
    if password:
        return _from_password(principal, password)
    first: NoTicket | None = None
    for place, own in _places(tickets):
        try:
            _check(place, principal, own=own)
        except NoTicket as error:
            first = first or error
        else:
            return place
    raise first or NoTicket("there is no ticket cache; run kinit")


def _places(tickets: Tickets) -> Iterator[tuple[str, bool]]:
    """The names of the caches to look at, in their order, and whether each is that of the process itself."""
    import krb5

    if tickets.cruid is None:
        name = krb5.cc_default_name(krb5.init_context())
        if name:
            yield name.decode(errors="surrogateescape"), True
    user = tickets.fallback if tickets.cruid is None else tickets.cruid
    if user is not None:
        for place in ccache.of_user(user):
            yield place, False


def _check(place: str, principal: str | None, *, own: bool) -> None:
    """Raise NoTicket unless the cache has a valid ticket, or can be given one from the default client keytab."""
    import gssapi

    _check_file(place)
    # The client keytab that the library knows by itself is that of the user who mounts, and of nobody else.
    store = {b"ccache": os.fsencode(place)} | ({} if own else {b"client_keytab": b"MEMORY:none"})
    try:
        credentials = gssapi.Credentials(
            name=gssapi.Name(principal, gssapi.NameType.user) if principal else None,
            usage="initiate",
            mechs=[gssapi.OID.from_int_seq(KERBEROS_5)],
            store=store,
        )
        lifetime = credentials.lifetime
    except gssapi.exceptions.ExpiredCredentialsError:
        raise NoTicket(_sentence(EXPIRED_CODE, place)) from None
    except gssapi.exceptions.GSSError as error:
        raise NoTicket(_sentence(_code(error), place) or f"{_words(error)} ({place})") from None
    if lifetime is not None and lifetime <= 0:
        raise NoTicket(_sentence(EXPIRED_CODE, place))


def _check_file(place: str) -> None:
    """Refuse a cache in a place where everybody may write that is not its owner's: it would be somebody's bait."""
    kind, colon, path = place.partition(":")
    if colon and kind != "FILE":
        return
    path = path if colon else place
    try:
        status = os.lstat(path)
    except OSError:
        return  # what is not there is told by whoever opens it
    if not stat.S_ISREG(status.st_mode):
        raise NoTicket(f"the ticket cache {path} is not a regular file; KRB5CCNAME or cruid= name another one")
    user = ccache.user_in(path)
    if user is not None and status.st_uid not in (user, 0):
        raise NoTicket(f"the ticket cache {path} does not belong to user {user}; remove it and run kinit as that user")


def _from_keytab(principal: str | None, path: str) -> str:
    """Return a cache in memory with a ticket that the keytab brought."""
    import krb5

    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise NoTicket(f"the keytab {path} cannot be read ({error.strerror}); correct keytab= or its mode") from None
    context = krb5.init_context()
    try:
        keytab = krb5.kt_resolve(context, os.fsencode(f"FILE:{path}"))
        if principal is None:
            entry = next(iter(keytab), None)
            if entry is None:
                raise NoTicket(f"the keytab {path} is empty; keytab= names another one")
            client = copy.copy(entry.principal)  # the entry's own goes with the entry
        else:
            client = krb5.parse_name_flags(context, principal.encode())
        options = krb5.get_init_creds_opt_alloc(context)
        return _keep(context, krb5.get_init_creds_keytab(context, client, options, keytab=keytab))
    except krb5.Krb5Error as error:
        raise NoTicket(_sentence(error.err_code, f"the keytab {path}") or f"{path}: {_words(error)}") from None


def _from_password(principal: str | None, password: str) -> str:
    """Return a cache in memory with a ticket that the password brought."""
    import krb5

    if principal is None:
        raise NoTicket("a password alone names nobody; give username=NAME, or no password, so that tickets count")
    context = krb5.init_context()
    try:
        client = krb5.parse_name_flags(context, principal.encode())
        options = krb5.get_init_creds_opt_alloc(context)
        krb5.get_init_creds_opt_set_canonicalize(options, True)
        return _keep(context, krb5.get_init_creds_password(context, client, options, password=password.encode()))
    except krb5.Krb5Error as error:
        if error.err_code in WRONG_PASSWORD:
            raise AuthenticationError(
                f"no login by Kerberos: {_sentence(error.err_code, principal)}", refused=True
            ) from None
        raise NoTicket(_sentence(error.err_code, principal) or f"{principal}: {_words(error)}") from None


def _keep(context: Any, ticket: Any) -> str:
    """Return the name of a new cache in memory with the ticket in it."""
    import krb5

    place = krb5.cc_new_unique(context, b"MEMORY")
    krb5.cc_initialize(context, place, ticket.client)
    krb5.cc_store_cred(context, place, ticket)
    return f"MEMORY:{(place.name or b'').decode()}"


# What goes wrong, by com_err's number of it: its name, and the sentence. MIT Kerberos has them in
# lib/krb5/error_tables/krb5_err.et and lib/gssapi/krb5/gssapi_err_krb5.et.
EXPIRED_CODE: Final = -1765328352
EXPIRED: Final = (
    "the ticket in {place} has expired, or will sooner than the KDC likes; run kinit again, or let keytab= renew it"
)
WRONG_PASSWORD: Final = frozenset({-1765328360, -1765328353, -1765328366, -1765328361})
_KRB5: Final[dict[int, tuple[str, str]]] = {
    -1765328189: (
        "KRB5_FCC_NOFILE",
        "there is no ticket cache {place}; run kinit, or name whose tickets count with cruid= or KRB5CCNAME",
    ),
    -1765328243: ("KRB5_CC_NOTFOUND", "the cache {place} has no ticket of use; run kinit"),
    -1765328242: ("KRB5_CC_END", "the cache {place} has no ticket of use; run kinit"),
    -1765328185: ("KRB5_CC_FORMAT", "{place} is no ticket cache, or a damaged one; run kinit"),
    39756032: (
        "KG_CCACHE_NOMATCH",
        "the tickets in {place} are not those of username=; leave that out, or run kinit for that name",
    ),
    39756034: ("KG_TGT_MISSING", "the cache {place} has no ticket of use; run kinit"),
    39756044: ("KG_EMPTY_CCACHE", "the cache {place} is empty; run kinit"),
    EXPIRED_CODE: ("KRB5KRB_AP_ERR_TKT_EXPIRED", EXPIRED),
    -1765328347: (
        "KRB5KRB_AP_ERR_SKEW",
        "the clocks of this machine, of the KDC or of the server differ by more than a few minutes; set them right "
        "(timedatectl), no option changes this",
    ),
    -1765328378: ("KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN", "the KDC knows no {place}; check username= and domain="),
    -1765328377: (
        "KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN",
        "the KDC knows no service cifs/{server}: name the server in the source as the domain does, by its full DNS "
        "name and not by its address (ip= names the address)",
    ),
    -1765328360: (
        "KRB5KDC_ERR_PREAUTH_FAILED",
        "the KDC refuses the password of {place}; check the credentials file",
    ),
    -1765328353: (
        "KRB5KRB_AP_ERR_BAD_INTEGRITY",
        "the KDC refuses the password of {place}; check the credentials file",
    ),
    -1765328366: (
        "KRB5KDC_ERR_CLIENT_REVOKED",
        "the account of {place} is disabled or locked; its administrator can tell, or use another username=",
    ),
    -1765328361: (
        "KRB5KDC_ERR_KEY_EXP",
        "the password of {place} has expired; change it and write the new one into the credentials file",
    ),
    -1765328228: ("KRB5_KDC_UNREACH", "no KDC of the realm answers; check the network and krb5.conf"),
    -1765328230: (
        "KRB5_REALM_UNKNOWN",
        "neither krb5.conf nor the DNS names a KDC of the realm; correct krb5.conf, or domain=",
    ),
    -1765328164: (
        "KRB5_REALM_CANT_RESOLVE",
        "the names of the realm's KDCs do not resolve; correct krb5.conf or the DNS",
    ),
    -1765328160: (
        "KRB5_CONFIG_NODEFREALM",
        "krb5.conf names no default realm; add one, or name it in domain= or username=NAME@REALM",
    ),
    -1765328203: (
        "KRB5_KT_NOTFOUND",
        "{place} has no key of this user; username= names another one, klist -k lists what it has",
    ),
    -1765328370: (
        "KRB5KDC_ERR_ETYPE_NOSUPP",
        "the KDC offers none of the kinds of encryption that this machine permits; see krb5.conf",
    ),
    errno.EACCES: ("EACCES", "{place} may not be read; correct its mode, or name another one with cruid="),
    errno.ENOENT: ("ENOENT", "{place} does not exist; run kinit, or correct keytab="),
}


def explain(error: BaseException, server_name: str, place: str = "the ticket cache") -> str | None:
    """Return what went wrong in a step of the login; None where nobody foresaw it."""
    inner: BaseException | None = error
    while inner is not None:
        sentence = _sentence(_code(inner), place, server_name)
        if sentence is not None:
            return sentence
        inner = getattr(inner, "base_error", None)
    return None


def _code(error: BaseException) -> int | None:
    """Return com_err's number of an error of either library, which GSSAPI tells without a sign."""
    number: int | None = getattr(error, "min_code", getattr(error, "err_code", None))
    if number is None:
        return None
    return number - 2**32 if number >= 2**31 else number


def _sentence(code: int | None, place: str, server_name: str = "the server") -> str | None:
    """Return the sentence about an error."""
    if code not in _KRB5:
        return None
    name, sentence = _KRB5[code]
    return f"{sentence.format(place=place, server=server_name)} ({name})"


def _words(error: BaseException) -> str:
    """Return the library's own words, in one line."""
    return " ".join(str(error).split())
