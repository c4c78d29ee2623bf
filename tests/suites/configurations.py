"""The ways in which the suites mount a share."""

from __future__ import annotations

from typing import Final, NamedTuple

from lab.server import Samba


class Configuration(NamedTuple):
    """One way to mount, and what it takes."""

    name: str
    options: tuple[str, ...]

    def lacks(self, samba: Samba) -> str:
        """Why this server cannot serve it; empty when it can."""
        return ""


# Owners, modes and kinds of files are the mount's, names are one whatever their case: SMB as every server speaks it.
PLAIN: Final = Configuration("plain", ())
CONFIGURATIONS: Final = (PLAIN,)
