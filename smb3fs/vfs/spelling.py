"""The several spellings of one name: where the server takes no notice of case, and by which the kernel knows a file.

The kernel keeps a name under each spelling by which it was looked up, for as long as the entry's timeout says. Where
two spellings are one file, a change under one of them must reach what the kernel holds under the others:

- Of a file that is known here by several spellings in one directory none is given a timeout from then on, so that each
  use of it asks again; and when one of them is removed or renamed, the others are forgotten here and in the kernel.
- A name that was not found is never kept by the kernel, so what is created needs no such care.
- A listing that is held keeps the server's spelling; what was changed under another one counts as changed in it.

Whether a server folds case it does not say: Samba and Windows claim FILE_CASE_SENSITIVE_SEARCH whether they do or not.
So all of this goes by what is seen, and where nothing is folded it costs nothing. Two spellings are taken for one name
when they are the same but for case and for how accents are composed, or when one may be an 8.3 name; if that is
mistaken, the kernel asks once more than it had to, and nothing else happens.

A change of case alone is a rename that the kernel would not pass on if both spellings were one file to it, so for this
one purpose the new spelling is denied; `vfs.searching` has that, and what follows.

With the option `nocase` a name that is not there is looked for in another spelling, by listing the directory.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Self

from smb3fs.vfs.inodes import Inode

# [MS-FSCC] 2.1.5.2.1: eight characters and three, and made up by the server if there is a ~ in them.
_SHORT: Final = re.compile(r"[^.~]{1,7}~[^.~]{1,6}(\.[^.]{1,3})?\Z")
_LONGEST_SHORT: Final = 12
# Among keys, what stands for every name.
_ANY: Final = ""


def key(name: str) -> str:
    """Return what all spellings of a name have in common."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def is_short(name: str) -> bool:
    """Whether a name may be the one that the server has made up for a longer one."""
    return "~" in name and len(name) <= _LONGEST_SHORT and _SHORT.match(name) is not None


def others(inode: Inode, parent: Inode, name: str) -> list[str]:
    """Return the other spellings of a name by which a file is known in a directory."""
    found = [other for directory, other in inode.links if directory is parent and other != name]
    if not found:
        return found
    wanted, short = key(name), is_short(name)
    return [other for other in found if short or is_short(other) or key(other) == wanted]


class Changes:
    """Names in one directory that were changed in whatever spelling."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, name: str) -> bool:
        return bool(self._keys) and (_ANY in self._keys or key(name) in self._keys)

    def __ior__(self, other: Changes) -> Self:
        self._keys |= other._keys
        return self

    def add(self, name: str) -> None:
        """Note a change; one under a made-up name may be one of anything."""
        self._keys.add(_ANY if is_short(name) else key(name))
