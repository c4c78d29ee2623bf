"""What the options say about the login, put together with what the file, the environment and the terminal say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from smb3fs import credentials
from smb3fs.credentials import Login, LoginSource
from smb3fs.errors import OptionError
from smb3fs.option_values import user_id

# The name that servers have for somebody without one.
GUEST: Final = "guest"


def login(
    settings: dict[str, Any],
    notes: list[str],
    warnings: list[str],
    environment: Mapping[str, str],
    cwd: str,
    ask: Callable[[Login], Login],
) -> Mapping[str, Any]:
    """Take out of `settings` what the options say about the login; return it with what the other sources say."""
    named = credentials.split_username(settings.pop("username")) if "username" in settings else Login()
    stated = Login(
        password=settings.pop("password", None),
        domain=settings.pop("domain", None),
        password2=settings.pop("password2", None) or None,
    ).over(named)
    user = credentials.split_username(settings.pop("user")) if "user" in settings else Login()
    path, from_file = None, Login()
    if "credentials_file" in settings:
        path = os.path.join(cwd, settings.pop("credentials_file"))
        from_file, remarks = credentials.read_credentials_file(path)
        warnings += remarks
        if not os.path.isfile(path):  # what came out of a pipe comes once
            path, stated, from_file = None, stated.over(from_file), Login()
    _check_security(settings, notes, environment, cwd)
    known = stated.over(from_file)
    security = settings.get("security", "ntlmssp")
    rest = Login()
    if security == "none":
        if known != Login():
            notes.append("sec=none logs in as nobody: the user name and the password are not used")
        stated, path, known = Login(), None, Login()
    elif security == "ntlmssp":
        rest = _rest(known, user, settings.get("guest", False), notes, environment, cwd, ask)
    # With Kerberos a local name is no principal, and nobody is asked for a password: there may be tickets.
    source = LoginSource(stated, path, rest, needs_name=security == "ntlmssp")
    return {
        "login_source": source,
        "credentials": credentials.checked(known.over(rest), needs_name=source.needs_name),
    }


def _rest(
    login: Login,
    user: Login,
    guest: bool,
    notes: list[str],
    environment: Mapping[str, str],
    cwd: str,
    ask: Callable[[Login], Login],
) -> Login:
    """Return what a login by NTLM still lacks, from `user=`, the environment and the terminal."""
    if user.username is not None and login.username is not None:
        if login.username != user.username:
            notes.append(f"option user={user.username} is not used: the login is that of {login.username}")
        user = Login()
    if guest:
        return user.over(Login(GUEST, ""))
    rest = user.over(credentials.from_environment(login.over(user), environment, cwd))
    return rest.over(ask(login.over(rest)))


def _check_security(settings: dict[str, Any], notes: list[str], environment: Mapping[str, str], cwd: str) -> None:
    """Refuse ways to log in that exclude each other, and say which option has no meaning."""
    security = settings.get("security", "ntlmssp")
    if security == "krb5" and settings.get("guest"):
        raise OptionError(
            "option guest excludes sec=krb5, which lets nobody in without a ticket; leave one of them out"
        )
    if settings.get("seal") and (settings.get("guest") or security == "none"):
        raise OptionError("option seal excludes guest and sec=none: a session of nobody's has no key to encrypt with")
    if "keytab" in settings:
        if security != "krb5":
            raise OptionError("option keytab is for Kerberos; add sec=krb5 or leave it out")
        settings["keytab"] = os.path.join(cwd, settings["keytab"])
    if security == "krb5":
        settings["sudo_uid"] = _sudo_uid(environment)
    elif "cruid" in settings:
        notes.append("option cruid changes nothing without sec=krb5")


def _sudo_uid(environment: Mapping[str, str]) -> int | None:
    """Return the user who called sudo."""
    try:
        return user_id(environment["SUDO_UID"])
    except (KeyError, ValueError):
        return None
