"""Sections of docs/bench.md that are written apart from the main report, which leaves them as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LEASES: Final = "## On a server with directory leases"
FLOOR: Final = "## The least that small files take"
COPIES: Final = "## Copies by the server"
INODES: Final = "## Memory of what is known"
LINKS: Final = "## Several links"
# The headings of sections that the main report does not write.
OTHERS: Final = (INODES, LEASES, FLOOR, COPIES, LINKS)


def section_of(document: str, heading: str) -> str:
    """Return a section with its heading, up to the next one of its level; nothing if it is not there."""
    lines = document.splitlines()
    if heading not in lines:
        return ""
    start = lines.index(heading)
    end = next((n for n in range(start + 1, len(lines)) if lines[n].startswith("## ")), len(lines))
    return "\n".join(lines[start:end]).strip()


def with_section(document: str, section: str) -> str:
    """Return a document in which a section stands in the place of the one with its heading, or at the end."""
    old = section_of(document, section.splitlines()[0])
    section = section.strip()
    return document.replace(old, section) if old else f"{document.rstrip()}\n\n{section}\n"


def put_section(path: Path, section: str) -> None:
    """Put a section into a document, which is made if there is none."""
    path.write_text(with_section(path.read_text() if path.exists() else "", section).lstrip())


def with_others(document: str, before: str) -> str:
    """Return a new main report with the sections that others have written into the one before."""
    for heading in OTHERS:
        if section := section_of(before, heading):
            document = with_section(document, section)
    return document
