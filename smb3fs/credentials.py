"""Where a user name, a password and a domain come from, and which source wins.

A login is put together from partial ones, each source filling only what the sources before it left open:

1. the options `username=`, `password=`, `domain=`
2. the credentials file, in the format of mount.cifs
3. the option `user=NAME` (mount(8) appends it with the local name of an unprivileged caller, so it must not win)
4. the environment: `USER`, `PASSWD`, `PASSWD_FD`, `PASSWD_FILE`, and the last three with `PASSWD2` for the second one
5. a question at the terminal, for the password alone

The file is read again while the mount lives (`LoginSource`), so that passwords can change without an unmount; the other
sources are as they were. No text that leaves this module in an exception or a note contains a password.
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
    """A complete login. The password may be empty; the domain may be, and is for `user@REALM`.

    A second password is one that the server may have come to expect, or not yet.
    """

    username: str
    password: str = field(repr=False)
    domain: str = ""
    password2: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """A login as far as one source states it; None where the source is silent."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    domain: str | None = None
    password2: str | None = field(default=None, repr=False)

    def over(self, weaker: Login) -> Login:
        """Fill what this source leaves open from a weaker one."""
        return Login(
            weaker.username if self.username is None else self.username,
            weaker.password if self.password is None else self.password,
            weaker.domain if self.domain is None else self.domain,
            weaker.password2 if self.password2 is None else self.password2,
        )


@dataclass(frozen=True, slots=True)
class LoginSource:
    """What a login is made of, so that it can be made again when the file has changed."""

    stated: Login = Login()
    path: str | None = None
    rest: Login = Login()
    needs_name: bool = True

    def read(self) -> tuple[Credentials, list[str]]:
        """Make the login, with remarks for the log; a password that nobody gave is empty."""
        login = self.stated
        notes: list[str] = []
        if self.path is not None:
            from_file, notes = read_credentials_file(self.path)
            login = login.over(from_file)
        return checked(login.over(self.rest), needs_name=self.needs_name), notes

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None where there is no file that could be looked at."""
        if self.path is None:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


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
    password2: str | None = None
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
            password2 = value
        else:
            notes.append(f"line {number} of credentials file {path} is not understood and has no effect")
    login = Login(
        username.username or None,
        username.password if password is None else password,
        username.domain if domain is None else domain,
        # An empty one is a line that a script left unfilled, not a password that somebody has.
        password2 or None,
    )
    return login, notes


def from_environment(login: Login, environment: Mapping[str, str], cwd: str) -> Login:
    """Fill what `login` leaves open from `USER`, and from `PASSWD`, `PASSWD_FD` or `PASSWD_FILE`.

    `USER` may carry a domain and a `%password` too; they belong to that name and to no other.
    """
    if login.username is None and environment.get("USER"):
        login = login.over(split_username(environment["USER"]))
    return login.over(
        Login(
            password=_secret("PASSWD", environment, cwd) if login.password is None else None,
            password2=_secret("PASSWD2", environment, cwd) or None if login.password2 is None else None,
        )
    )


def _secret(name: str, environment: Mapping[str, str], cwd: str) -> str | None:
    """Return a password from the variable `name`, or from where `name`_FD or `name`_FILE say that it is."""
    if name in environment:
        return environment[name]
    if f"{name}_FD" in environment:
        return _password_from_descriptor(environment[f"{name}_FD"], f"{name}_FD")
    if f"{name}_FILE" in environment:
        return _password_from_file(os.path.join(cwd, environment[f"{name}_FILE"]), f"{name}_FILE")
    return None


def ask_for_missing(login: Login, share: str, ask_password: Callable[[str], str] | None) -> Login:
    """Return what has to be added to a login for `share`: a password, where somebody is there to give it."""
    if not login.username:
        raise OptionError("no user name is given: use credentials=FILE or username=NAME")
    if login.password is not None:
        return Login()
    if ask_password is None:
        raise MountError(
            f"no password is given for username={login.username}, and standard input is no terminal to ask at; "
            "use credentials=FILE"
        )
    return Login(password=ask_password(f"Password for {login.username} on {share}: "))


def checked(login: Login, *, needs_name: bool = True) -> Credentials:
    """Turn a login into credentials, or raise what is wrong with it."""
    if needs_name and not login.username:
        raise OptionError("no user name is given: use credentials=FILE or username=NAME")
    for name, value, limit in (
        ("user name", login.username, MAX_USERNAME),
        ("password", login.password, MAX_PASSWORD),
        ("second password", login.password2, MAX_PASSWORD),
        ("domain", login.domain, MAX_DOMAIN),
    ):
        if value is None:
            continue
        if len(value) > limit:
            raise OptionError(f"the {name} is longer than {limit} characters")
        if "\0" in value:
            raise OptionError(f"the {name} contains a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise OptionError(f"the {name} is not UTF-8 text")
    return Credentials(login.username or "", login.password or "", login.domain or "", login.password2)


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


def _password_from_file(path: str, variable: str) -> str:
    """Return the first line of the file that an environment variable names."""
    try:
        with open(path, "rb") as file:
            return _first_line(file.readline(MAX_LINE + 1))
    except OSError as error:
        raise MountError(
            f"the password file {path} cannot be read ({error.strerror}); correct {variable} in the environment"
        ) from None
    except UnicodeDecodeError:
        raise MountError(f"the password file {path} is not UTF-8 text; correct {variable} in the environment") from None


def _password_from_descriptor(number: str, variable: str) -> str:
    """Return the first line that comes out of the descriptor that an environment variable names."""
    try:
        with open(int(number), "rb") as file:
            return _first_line(file.readline(MAX_LINE + 1))
    except (OSError, ValueError):
        # ValueError is also what int() and an undecodable line raise, the latter with the bytes in its text.
        raise MountError(
            f"no password can be read from the descriptor that {variable} in the environment names"
        ) from None


def _first_line(line: bytes) -> str:
    """Return `line` without its end."""
    return line.decode().removesuffix("\n").removesuffix("\r")
