"""Where another user's Kerberos tickets are: the name of a cache, made as krb5.conf(5) says for that user.

The library can say it for the user it runs as, but a mount runs as root and takes the tickets of somebody else.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from typing import Final

DEFAULT: Final = "FILE:/tmp/krb5cc_%{uid}"
CONFIGURATION: Final = "/etc/krb5.conf"
# krb5.conf(5): a configuration may include others; this deep, they go in a circle.
DEEPEST: Final = 8
# The names of files that `includedir` takes ([krb5.conf(5)]).
_INCLUDED: Final = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf")


def of_user(uid: int) -> list[str]:
    """Return the names of the caches in which a user's tickets may be, the likeliest first."""
    template = default_template() or DEFAULT
    names = [_filled(template, uid)]
    # A collection of KCM's is that of the caller unless it is named.
    if names[0] in ("KCM:", "KCM"):
        names = [f"KCM:{uid}"]
    usual = _filled(DEFAULT, uid)
    return names if usual in names else [*names, usual]


def user_in(path: str) -> int | None:
    """Return the user in whose name a cache lies in /tmp."""
    match = re.fullmatch(r"/tmp/krb5cc_([0-9]+)", path)  # noqa: S108 (Kerberos chose that place)
    return int(match[1]) if match else None


def default_template() -> str | None:
    """Return `default_ccache_name` of krb5.conf."""
    for path in os.environ.get("KRB5_CONFIG", CONFIGURATION).split(":"):
        for section, name, value in _relations(path, 0):
            if section == "libdefaults" and name == "default_ccache_name":
                return value
    return None


def _relations(path: str, depth: int) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of the lines at the top of each section; what cannot be read has none."""
    if depth > DEEPEST:
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    section = ""
    nested = 0
    for raw in lines:
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        directive, _, argument = line.partition(" ")
        if directive in ("include", "includedir") and not nested:
            for included in _files(directive, argument.strip()):
                yield from _relations(included, depth + 1)
        elif line.startswith("[") and "]" in line:
            section = line[1 : line.index("]")].strip()
        elif line.startswith("}"):
            nested -= 1
        else:
            name, _, value = line.partition("=")
            if value.strip() == "{":
                nested += 1
            elif not nested:
                yield section, name.strip().removesuffix("*"), value.strip().strip('"')


def _files(directive: str, argument: str) -> list[str]:
    """The files that a directive includes."""
    if directive == "include":
        return [argument]
    try:
        return [os.path.join(argument, name) for name in sorted(os.listdir(argument)) if _INCLUDED.fullmatch(name)]
    except OSError:
        return []


def _filled(template: str, uid: int) -> str:
    """Put a user into a template ([krb5.conf(5)], parameter expansion)."""

    def value(match: re.Match[str]) -> str:
        match match[1].lower():
            case "uid" | "euid" | "userid":
                return str(uid)
            case "username":
                return _name(uid)
            case "temp":
                return "/tmp"  # noqa: S108 (what krb5.conf(5) says)
            case "null":
                return ""
            case _:
                return match[0]

    return re.sub(r"%\{([A-Za-z_]+)\}", value, template)


def _name(uid: int) -> str:
    """The user's name, or number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
