"""What is done: operations as values, and the bytes that they write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

LEFT: Final = "left"
RIGHT: Final = "right"
SMBCLIENT: Final = "smbclient"
DISK: Final = "disk"
"""A process on the server's own disk: what it does breaks no lease."""

FAULT: Final = "fault"
"""Nobody: what happens to the links and the server in the middle of a history."""

PAGE: Final = 4096
TOKEN: Final = re.compile(rb"(\d{6}):")

# What only asks, and may be asked again until the answer is as it must be. Everything else changes something when it
# succeeds, and may be repeated only after it has failed.
ASKING: Final = frozenset({"get", "read", "map_read", "size", "stat", "list", "fsync"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, or a few that belong together; `number` also stamps the bytes that it writes."""

    number: int
    side: str
    verb: str
    arguments: tuple[Any, ...] = ()

    def __str__(self) -> str:
        words = ", ".join(repr(argument) for argument in self.arguments)
        return f"{self.number:4d} {self.side:9s} {self.verb}({words})"


def content(number: int, size: int) -> bytes:
    """The bytes that operation `number` writes: its number over and over."""
    token = b"%06d:" % number
    return (token * (size // len(token) + 1))[:size]


def described(data: bytes, at: int) -> str:
    """Whose bytes are at a place, in words."""
    if at >= len(data):
        return "the end"
    if data[at] == 0:
        return "zeros"
    found = [match for match in TOKEN.finditer(data, max(0, at - 6), at + 13) if match.start() <= at + 6]
    return f"bytes of {int(found[0][1])}" if found else repr(data[at : at + 8])


def difference(seen: Any, expected: Any) -> str:
    """Where what was seen first differs from what was expected, in a few words."""
    if not (isinstance(seen, bytes) and isinstance(expected, bytes)):
        return f"{seen!r} in place of {expected!r}"
    pairs = enumerate(zip(seen, expected, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(seen), len(expected)))
    lengths = "" if len(seen) == len(expected) else f"{len(seen)} bytes in place of {len(expected)}, and "
    return f"{lengths}at {at} {described(seen, at)} in place of {described(expected, at)}"


def listed(operations: Sequence[object]) -> str:
    """A history that people can read."""
    return "\n".join(f"  {operation}" for operation in operations)
