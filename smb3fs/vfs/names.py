"""File names between the kernel (bytes) and the server (UTF-16, with characters that Windows reserves).

What SMB cannot hold is mapped into Unicode's private range as Apple's Services for Macintosh did it, which is what
the Linux client calls `mapposix` and macOS uses too: U+F001 to U+F01F for the control characters, U+F020 to U+F027 for
the seven reserved ones and the backslash, U+F028 and U+F029 for a space or a period at the end of a name.

Lone UTF-16 surrogates, which Windows allows in names, travel to the kernel as three bytes each (WTF-8) and back.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter
from enum import Enum
from typing import Final

from smb3fs.trace import Trace

log = logging.getLogger(__name__)

# [MS-FSCC] 2.1.5.2: the longest component, in UTF-16 units.
NAME_MAX: Final = 255

_PRIVATE: Final = {chr(code): chr(0xF000 + code) for code in range(1, 0x20)} | dict(
    zip('"*:<>?\\|', map(chr, range(0xF020, 0xF028)), strict=True)
)
_FINAL: Final = {" ": "\uf028", ".": "\uf029"}
_TO_SERVER: Final = str.maketrans(_PRIVATE)
_TO_KERNEL: Final = str.maketrans({private: char for char, private in (_PRIVATE | _FINAL).items()})

# A character that cannot go to the server as it is; a private one among them would come back as another.
_SPECIAL: Final = re.compile(r'["*:<>?\\|\x00-\x1f/]|[ .]\Z|[\uf001-\uf029]|[\ud800-\udfff]')
_UNSENDABLE: Final = re.compile(r"[\uf001-\uf029]|[\ud800-\udbff][\udc00-\udfff]")
_MAPPED: Final = re.compile(r"[\uf001-\uf029]")
_HOSTILE: Final = re.compile(r"[/\x00]")


def to_server(name: bytes) -> str:
    """Return the server's name for one of the kernel's, or raise OSError: EILSEQ, ENAMETOOLONG, EINVAL."""
    try:
        text = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise _refusal(errno.EILSEQ) from None
    if len(text) > NAME_MAX or (len(text) * 2 > NAME_MAX and _units(text) > NAME_MAX):
        raise _refusal(errno.ENAMETOOLONG)
    if not _SPECIAL.search(text):
        if not text:
            raise _refusal(errno.EINVAL)
        return text
    if text in (".", "..") or _HOSTILE.search(text):
        raise _refusal(errno.EINVAL)
    if _UNSENDABLE.search(text):
        # A pair of surrogates in six bytes, or a private character: it would come back as another name.
        raise _refusal(errno.EILSEQ)
    text = text.translate(_TO_SERVER)
    return text[:-1] + _FINAL.get(text[-1], text[-1])


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


class ServerNames:
    """The way of names from the server to the kernel, and the count of those that were dropped on it."""

    def __init__(self, trace: Trace) -> None:
        self.dropped: Counter[Hostile] = Counter()
        self._trace = trace

    @staticmethod
    def to_kernel(name: str) -> bytes | Hostile:
        """Return the kernel's name for one of the server's, or why there is none."""
        text = name.translate(_TO_KERNEL) if _MAPPED.search(name) else name
        return hostility(text) or text.encode("utf-8", "surrogatepass")

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
