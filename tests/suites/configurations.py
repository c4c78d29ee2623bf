"""The ways in which the suites mount a share."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, NamedTuple

from lab.server import Samba


class Configuration(NamedTuple):
    """One way to mount, and what it takes."""

    name: str
    options: tuple[str, ...]
    symlinks: bool = False
    # The Samba that it takes; from 4.23 on the POSIX extensions are offered by default.
    since: tuple[int, int] = (4, 0)
    # A module of Python that has to be there.
    module: str = ""

    def lacks(self, samba: Samba) -> str:
        """Why this server, or this machine, cannot serve it; empty when it can."""
        if self.module and find_spec(self.module) is None:
            return f"{self.module} is not installed"
        version = samba.version()
        major, minor = version.split()[1].split(".")[:2]
        return "" if (int(major), int(minor)) >= self.since else f"{version} is too old for this"


# Owners and modes are the mount's, names are one whatever their case: SMB as every server speaks it.
PLAIN: Final = Configuration("plain", ("noposix",))
# The same through the other driver, with symbolic links in files, for servers that keep none.
LINKED: Final = Configuration("linked", ("fuse=pyfuse3", "mfsymlinks", "noposix"), symlinks=True, module="pyfuse3")
# The server has owners and modes, and names are what they are.
POSIX: Final = Configuration("posix", ("posix",), symlinks=True, since=(4, 23))
CONFIGURATIONS: Final = (PLAIN, LINKED, POSIX)
