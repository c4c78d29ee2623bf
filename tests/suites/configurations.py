"""The ways in which the suites mount a share."""

from __future__ import annotations

from typing import Final, NamedTuple

from lab.server import Samba


class Configuration(NamedTuple):
    """One way to mount, and what it takes."""

    name: str
    options: tuple[str, ...]
    symlinks: bool = False

    def lacks(self, samba: Samba) -> str:
        """Why this server cannot serve it; empty when it can."""
        return ""


# Owners and modes are the mount's, names are one whatever their case: SMB as every server speaks it.
PLAIN: Final = Configuration("plain", ())
# The same through the driver that speaks to /dev/fuse itself, with symbolic links in files, for servers without.
LINKED: Final = Configuration("linked", ("fuse=native", "mfsymlinks"), symlinks=True)
CONFIGURATIONS: Final = (PLAIN, LINKED)
