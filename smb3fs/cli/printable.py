"""Text that may have come from a server, made fit for a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: object) -> str:
    """Return a text on one line, with escapes such as \\x1b for whatever is no character to be seen.

    So a name cannot move the cursor, change colours, reverse the direction of the line or begin another one; the bytes
    of a path that are no UTF-8 become escapes too, so that the text can be encoded.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in plain)


def width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut(text: str, columns: int) -> str:
    """Return as much of a printable text as fits into so many columns."""
    if text.isascii():
        return text[: max(columns, 0)]
    used = 0
    for place, one in enumerate(text):
        used += _columns(one)
        if used > columns:
            return text[:place]
    return text


def _columns(one: str) -> int:
    """Return how many columns a character takes."""
    if unicodedata.combining(one):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1
