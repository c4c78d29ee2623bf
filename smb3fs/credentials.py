"""Where a user name, a password and a domain come from, and which source wins.

A login is put together from partial ones, each source filling only what the sources before it left open:

1. the options `username=`, `password=`, `domain=`
2. the credentials file, in the format of mount.cifs
3. the option `user=NAME` (mount(8) appends it with the local name of an unprivileged caller, so it must not win)
4. the environment: `USER`, `PASSWD`, `PASSWD_FD`, `PASSWD_FILE`
5. a question at the terminal, for the password alone

No text that leaves this module in an exception or a note contains a password.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from smb3fs.errors import MountError, OptionError

# The limits of mount.cifs 7.6 for a user name, a domain and a password, in characters.
MAX_USERNAME: Final = 256
MAX_DOMAIN: Final = 256
MAX_PASSWORD: Final = 512
# The longest line that mount.cifs 7.6 reads from a credentials file.
MAX_LINE: Final = 4096
# A credentials file has four lines; one that is larger than this is some other file.
MAX_FILE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """A complete login. The password may be empty; the domain may be, and is for `user@REALM`."""

    username: str
    password: str = field(repr=False)
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A login as far as one source states it; None where the source is silent."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    domain: str | None = None

    def over(self, weaker: Login) -> Login:
        """Fill what this source leaves open from a weaker one."""
        return Login(
            weaker.username if self.username is None else self.username,
            weaker.password if self.password is None else self.password,
            weaker.domain if self.domain is None else self.domain,
        )


def split_username(text: str) -> Login:
    r"""Take `DOMAIN\user%password` apart (`DOMAIN/user` likewise); `user@REALM` stays one name.

    The password begins after the first `%`, so it may contain the separators of the rest.
    """
    name, percent, password = text.partition("%")
    domain: str | None = None
    for separator in "\\/":
        if separator in name:
            domain, _, name = name.partition(separator)
            break
    return Login(name, password if percent else None, domain)


def read_credentials_file(path: str) -> tuple[Login, list[str]]:
    """Read a file of `key=value` lines as mount.cifs does; return the login and remarks for the log."""
    data, mode = _read_file(path)
    notes = []
    if mode & 0o077:
        notes.append(f"credentials file {path} can be read by others than its owner; chmod 600 it")
    # A byte order mark and the CR of CRLF are leavings of an editor, never part of a key or a password.
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MountError(f"credentials file {path} is not UTF-8 text; save it as UTF-8") from None
    username = Login()
    password: str | None = None
    domain: str | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        if len(raw) > MAX_LINE:
            raise MountError(f"line {number} of credentials file {path} is longer than {MAX_LINE} characters")
        line = raw.removesuffix("\r").lstrip(" \t")
        key, equals, value = line.partition("=")
        key = key.rstrip(" \t").lower()
        if not line or line.startswith("#"):
            continue
        if equals and key in ("user", "username"):
            username = split_username(value)
        elif equals and key in ("pass", "password"):
            password = value
        elif equals and key.startswith("dom"):
            domain = value
        elif equals and key in ("pass2", "password2"):
            notes.append(f"the second password in {path} is not used: this version does not rotate passwords")
        else:
            notes.append(f"line {number} of credentials file {path} is not understood and has no effect")
    login = Login(
        username.username or None,
        username.password if password is None else password,
        username.domain if domain is None else domain,
    )
    return login, notes


def from_environment(login: Login, environment: Mapping[str, str], cwd: str) -> Login:
    """Fill what `login` leaves open from `USER`, and from `PASSWD`, `PASSWD_FD` or `PASSWD_FILE`.

    `USER` may carry a domain and a `%password` too; they belong to that name and to no other.
    """
    if login.username is None and environment.get("USER"):
        login = login.over(split_username(environment["USER"]))
    if login.password is not None:
        return login
    password: str | None = None
    if "PASSWD" in environment:
        password = environment["PASSWD"]
    elif "PASSWD_FD" in environment:
        password = _password_from_descriptor(environment["PASSWD_FD"])
    elif "PASSWD_FILE" in environment:
        password = _password_from_file(os.path.join(cwd, environment["PASSWD_FILE"]))
    return login.over(Login(password=password))


def complete(login: Login, share: str, ask_password: Callable[[str], str] | None) -> Credentials:
    """Turn the login into credentials for `share`; ask for a missing password where somebody is there to answer."""
    if not login.username:
        raise OptionError("no user name is given: use credentials=FILE or username=NAME")
    password = login.password
    if password is None:
        if ask_password is None:
            raise MountError(
                f"no password is given for username={login.username}, and standard input is no terminal to ask at; "
                "use credentials=FILE"
            )
        password = ask_password(f"Password for {login.username} on {share}: ")
    domain = login.domain or ""
    for name, value, limit in (
        ("user name", login.username, MAX_USERNAME),
        ("password", password, MAX_PASSWORD),
        ("domain", domain, MAX_DOMAIN),
    ):
        if len(value) > limit:
            raise OptionError(f"the {name} is longer than {limit} characters")
        if "\0" in value:
            raise OptionError(f"the {name} contains a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise OptionError(f"the {name} is not UTF-8 text")
    return Credentials(login.username, password, domain)


def _read_file(path: str) -> tuple[bytes, int]:
    """Return the content and the mode of a small file; a pipe is read until its writer has closed it."""
    try:
        # Without O_NONBLOCK the open of a FIFO that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise MountError(f"credentials file {path} is not a regular file; name one in credentials=")
            os.set_blocking(descriptor, True)
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise MountError(
            f"credentials file {path} cannot be read ({error.strerror}); correct credentials= or the file's mode"
        ) from None
    if len(data) > MAX_FILE:
        raise MountError(f"credentials file {path} is larger than {MAX_FILE} bytes; credentials= names the wrong file")
    # What a pipe's mode says about other readers is nothing.
    return data, stat.S_IMODE(mode) if stat.S_ISREG(mode) else 0


def _password_from_file(path: str) -> str:
    """Return the first line of the file that `PASSWD_FILE` names."""
    try:
        with open(path, "rb") as file:
            return _first_line(file.readline(MAX_LINE + 1))
    except OSError as error:
        raise MountError(
            f"the password file {path} cannot be read ({error.strerror}); correct PASSWD_FILE in the environment"
        ) from None
    except UnicodeDecodeError:
        raise MountError(
            f"the password file {path} is not UTF-8 text; correct PASSWD_FILE in the environment"
        ) from None


def _password_from_descriptor(number: str) -> str:
    """Return the first line that comes out of the descriptor that `PASSWD_FD` names."""
    try:
        with open(int(number), "rb") as file:
            return _first_line(file.readline(MAX_LINE + 1))
    except (OSError, ValueError):
        # ValueError is also what int() and an undecodable line raise, the latter with the bytes in its text.
        raise MountError(
            "no password can be read from the descriptor that PASSWD_FD in the environment names"
        ) from None


def _first_line(line: bytes) -> str:
    """Return `line` without its end."""
    return line.decode().removesuffix("\n").removesuffix("\r")
