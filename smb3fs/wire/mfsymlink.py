"""Minshall and French's symbolic links: files of 1,067 bytes that say of themselves that they are links.

Apple's and Linux' clients and Samba's tools know them; to a server they are files like any other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer

# Magic, length of the target in bytes, its MD5 sum, each on a line; then the target, and blanks up to the size.
_HEAD: Final = re.compile(rb"XSym\n([0-9]{4})\n([0-9a-f]{32})\n")
_HEAD_SIZE: Final = 5 + 5 + 33
# The longest target.
TARGET_MAX: Final = 1024
SIZE: Final = _HEAD_SIZE + TARGET_MAX


@dataclass(slots=True)
class MfSymlink:
    """The content of such a file."""

    target: bytes

    def encode(self) -> bytes:
        """Return the content of the file."""
        head = f"XSym\n{len(self.target):04d}\n{_md5(self.target)}\n".encode()
        end = b"\n" if len(self.target) < TARGET_MAX else b""
        return (head + self.target + end).ljust(SIZE, b" ")

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the content of a file, which may be anything else."""
        head = _HEAD.match(data)
        if head is None or len(data) != SIZE or int(head[1]) > TARGET_MAX:
            raise WireError("not the head of a link, or not its size")
        target = bytes(memoryview(data)[_HEAD_SIZE : _HEAD_SIZE + int(head[1])])
        if _md5(target) != head[2].decode():
            raise WireError("the target has another checksum")
        return cls(target)


def _md5(target: bytes) -> str:
    """Return the checksum that tells a link from a file that happens to begin like one."""
    return hashlib.md5(target, usedforsecurity=False).hexdigest()
