"""The ways in which the suites mount a share."""

from __future__ import annotations

from typing import Final, NamedTuple

from lab.server import Samba


class Configuration(NamedTuple):
    """One way to mount, and what it takes."""

    name: str
    options: tuple[str, ...]
    symlinks: bool = False
    # The Samba that it takes; from 4.23 on the POSIX extensions are offered by default.
    since: tuple[int, int] = (4, 0)

    def lacks(self, samba: Samba) -> str:
        """Why this server cannot serve it; empty when it can."""
        version = samba.version()
        major, minor = version.split()[1].split(".")[:2]
        return "" if (int(major), int(minor)) >= self.since else f"{version} is too old for this"


# Owners and modes are the mount's, names are one whatever their case: SMB as every server speaks it.
PLAIN: Final = Configuration("plain", ("noposix",))
# The same through the driver that speaks to /dev/fuse itself, with symbolic links in files, for servers without.
LINKED: Final = Configuration("linked", ("fuse=native", "mfsymlinks", "noposix"), symlinks=True)
# The server has owners and modes, and names are what they are.
POSIX: Final = Configuration("posix", ("posix",), symlinks=True, since=(4, 23))
CONFIGURATIONS: Final = (PLAIN, LINKED, POSIX)
