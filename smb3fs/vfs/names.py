"""File names between the kernel (bytes) and the server (UTF-16, with characters that Windows reserves).

What SMB cannot hold is mapped into Unicode's private range, in one of the two ways that the Linux client has, or not at
all; which one the mount option says:

mapposix    as Services for Macintosh did it, and macOS does: U+F001 to U+F01F for the control characters, U+F020 to
            U+F027 for the seven reserved ones and the backslash, U+F028 and U+F029 for a space or a period at the end
mapchars    as Services for Unix did it: U+F000 plus the character, for six of the reserved ones
nomapchars  not at all
posix       a server with the POSIX extensions has all names that Linux has, and its paths have slashes

A name that cannot be sent is EINVAL; one that would come back as another is EILSEQ. Nothing else is touched: letters
keep their case, and composed and decomposed characters stay as they are. Lone UTF-16 surrogates, which Windows allows
in names, travel to the kernel as three bytes each (WTF-8) and back.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from smb3fs.errors import MountError
from smb3fs.trace import Trace

log = logging.getLogger(__name__)

# [MS-FSCC] 2.1.5.2: the longest component, in UTF-16 units.
NAME_MAX: Final = 255

_RESERVED: Final = r'"*:<>?\\|\x00-\x1f/'
_FINALS: Final = r"[ .]\Z"
_SURROGATES: Final = r"[\ud800-\udfff]"
# Two surrogates that belong together, in three bytes each: they would come back as the one character in four bytes.
_PAIR: Final = r"[\ud800-\udbff][\udc00-\udfff]"
_HOSTILE: Final = re.compile(r"[/\x00]")

_SFM: Final = {chr(code): chr(0xF000 + code) for code in range(1, 0x20)} | dict(
    zip('"*:<>?\\|', map(chr, range(0xF020, 0xF028)), strict=True)
)
_SFM_FINAL: Final = {" ": "\uf028", ".": "\uf029"}
_SFU: Final = {char: chr(0xF000 + ord(char)) for char in "*:<>?|"}


class NameMapping(Enum):
    """What becomes of the characters that SMB cannot hold; the values are the mount options."""

    MAPPOSIX = "mapposix"
    MAPCHARS = "mapchars"
    NOMAPCHARS = "nomapchars"
    POSIX = "posix"


class _Rules(NamedTuple):
    """One way to map names. A name without a `special` part is the same on both sides."""

    special: re.Pattern[str]
    # What no name for the server has, and what would come back as another name.
    forbidden: re.Pattern[str]
    ambiguous: re.Pattern[str]
    to_server: Mapping[int, str]
    to_kernel: Mapping[int, str]
    # The same for the last character alone.
    final_to_server: Mapping[str, str]
    final_to_kernel: Mapping[str, str]
    mapped: re.Pattern[str] | None
    separator: str


def _rules(mapping: NameMapping) -> _Rules:
    """Return the rules of a mapping."""
    table: Mapping[str, str] = {}
    final: Mapping[str, str] = {}
    special = forbidden = r"[/\x00]" if mapping is NameMapping.POSIX else f"[{_RESERVED}]|{_FINALS}"
    if mapping is NameMapping.MAPPOSIX:
        table, final, forbidden = _SFM, _SFM_FINAL, r"[/\x00]"
    elif mapping is NameMapping.MAPCHARS:
        table, forbidden = _SFU, rf'["\\\x00-\x1f/]|{_FINALS}'
    private = [f"[{''.join(table.values())}]"] if table else []
    private += [f"[{''.join(final.values())}]\\Z"] if final else []
    return _Rules(
        special=re.compile("|".join((special, *private, _SURROGATES))),
        forbidden=re.compile(forbidden),
        ambiguous=re.compile("|".join((*private, _PAIR))),
        to_server=str.maketrans(dict(table)),
        to_kernel=str.maketrans({mapped: char for char, mapped in table.items()}),
        final_to_server=final,
        final_to_kernel={mapped: char for char, mapped in final.items()},
        mapped=re.compile("|".join(private)) if private else None,
        separator="/" if mapping is NameMapping.POSIX else "\\",
    )


class Hostile(Enum):
    """Why a name that the server sent is kept from the kernel, for which it would be something else than a name."""

    EMPTY = "an empty name"
    DOTS = "a name that is . or .."
    SEPARATOR = "a name with / or NUL in it"
    LONG = "a name of more than 255 UTF-16 units"
    UNDECODABLE = "a name that is no UTF-16"


def hostility(name: str) -> Hostile | None:
    """Return what is wrong with a kernel's name of text; None for a usable one."""
    if not name:
        return Hostile.EMPTY
    if name in (".", ".."):
        return Hostile.DOTS
    if _HOSTILE.search(name):
        return Hostile.SEPARATOR
    if len(name) * 2 > NAME_MAX and _units(name) > NAME_MAX:
        return Hostile.LONG
    return None


class Names:
    """The way of names between the kernel and the server, and the count of those that were dropped on it."""

    def __init__(self, mapping: NameMapping, trace: Trace) -> None:
        self.mapping = mapping
        self.dropped: Counter[Hostile] = Counter()
        self._rules = _rules(mapping)
        # What stands between the names in a path on the server, and so in no name.
        self.separator = self._rules.separator
        self._trace = trace

    def to_server(self, name: bytes) -> str:
        """Return the server's name for one of the kernel's, or raise OSError: EILSEQ, ENAMETOOLONG, EINVAL."""
        rules = self._rules
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise _refusal(errno.EILSEQ) from None
        if len(text) > NAME_MAX or (len(text) * 2 > NAME_MAX and _units(text) > NAME_MAX):
            raise _refusal(errno.ENAMETOOLONG)
        if text in ("", ".", ".."):
            raise _refusal(errno.EINVAL)
        if not rules.special.search(text):
            return text
        if rules.forbidden.search(text):
            raise _refusal(errno.EINVAL)
        if rules.ambiguous.search(text):
            raise _refusal(errno.EILSEQ)
        text = text.translate(rules.to_server)
        return text[:-1] + rules.final_to_server.get(text[-1], text[-1])

    def path_to_server(self, path: str) -> str:
        """Return the server's path for one of names joined by a backslash; raises MountError."""
        try:
            return self.separator.join(self.to_server(name.encode()) for name in path.split("\\") if name)
        except (OSError, UnicodeEncodeError):
            raise MountError(
                f"the server can have no directory {path}: a name in it is too long, or has a character that "
                f"{self.mapping.value} has no place for"
            ) from None

    def to_kernel(self, name: str) -> bytes | Hostile:
        """Return the kernel's name for one of the server's, or why there is none."""
        # Nearly every name that is listed is of this kind, and every one of them comes through here.
        if name.isascii() and 2 < len(name) <= NAME_MAX and "/" not in name and "\0" not in name:
            return name.encode()
        rules = self._rules
        if rules.mapped is not None and rules.mapped.search(name):
            name = name.translate(rules.to_kernel)
            name = name[:-1] + rules.final_to_kernel.get(name[-1], name[-1])
        return hostility(name) or name.encode("utf-8", "surrogatepass")

    def drop(self, reason: Hostile, name: str) -> None:
        """Count a name that is not shown, and tell of the first of its kind."""
        self.dropped[reason] += 1
        self._trace.dropped_names += 1
        if self.dropped[reason] == 1:
            log.warning("the server lists %s, which is not shown: %.80r", reason.value, name)


def _units(text: str) -> int:
    """Return the length in UTF-16 units."""
    return len(text) + sum(char > "\uffff" for char in text)


def _refusal(number: int) -> OSError:
    """Return the error for a name that cannot go to the server."""
    return OSError(number, os.strerror(number))
