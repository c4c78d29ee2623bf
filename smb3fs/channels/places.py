r"""Directories on servers, as DFS names them, and where the paths of a mount lie on the one that a session is about.

The share verbs know one path for the root of the mount, that of the source. Where a DFS link led elsewhere, or leads to
another target after a failover, a session puts each request into its own place when it is sent, so that nothing above
has to know. On a share that is a DFS namespace the name in a CREATE is the whole path, server\share\directory, and the
header says so ([MS-SMB2] 2.2.13); the new name of a rename is not ([MS-FSCC] 2.4.42).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import utf16
from smb3fs.wire.create import CreateRequest
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import FileRenameInformation
from smb3fs.wire.query import InfoType, SetInfoRequest

# The longest path whose length in bytes the 16-bit field of a CREATE can express, in UTF-16 units ([MS-SMB2] 2.2.13).
PATH_MAX: Final = 0x7FFF


@dataclass(frozen=True, slots=True)
class Place:
    r"""A directory of a share on a server; `path` has its components joined by a backslash, and may be empty."""

    server: str
    share: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read \server\share\path with one or two backslashes in front, as a server sends it."""
        server, _, rest = text.lstrip("\\").partition("\\")
        share, _, path = rest.partition("\\")
        components = [part for part in path.split("\\") if part]
        if not server or not share or {".", ".."} & {server, share, *components} or not text.isprintable():
            raise WireError(f"the server refers to {text!r:.200}, which is no place on a server")
        if "/" in text:
            raise WireError(f"the server refers to a name with a slash in it: {text!r:.200}")
        return cls(server, share, "\\".join(components))

    @property
    def unc(self) -> str:
        r"""The share, as \\server\share."""
        return f"\\\\{self.server}\\{self.share}"

    @property
    def full(self) -> str:
        r"""The whole path, as \server\share\path."""
        return "\\" + "\\".join(part for part in (self.server, self.share, self.path) if part)

    @property
    def key(self) -> str:
        """What two spellings of one place have in common."""
        return self.full.lower()

    def below(self, rest: str) -> Place:
        """Return the place that many components further down."""
        return replace(self, path="\\".join(part for part in (self.path, rest) if part))

    def __str__(self) -> str:
        """Write it as a source of a mount."""
        return "/" + self.full.replace("\\", "/")


@dataclass(frozen=True, slots=True)
class Placement:
    """How the requests of the share verbs are changed for a session that is not where the source says.

    `asked` is the directory that the verbs put in front of each path, `root` the one that stands for it here, and
    `namespace` what comes in front of a name in CREATE, or nothing.
    """

    asked: str
    root: str
    namespace: str = ""

    def place(self, request: Request) -> Request:
        """Return a request with its names in their place."""
        if isinstance(request, CreateRequest):
            name = self._name(request.name)
            return replace(request, name=_checked(f"{self.namespace}\\{name}".strip("\\")))
        if isinstance(request, SetInfoRequest) and _names_a_file(request):
            info = FileRenameInformation.parse(request.data)
            return replace(request, data=replace(info, name=_checked(self._name(info.name))).encode())
        return request

    def _name(self, name: str) -> str:
        """Return the name in this tree of a name in the tree that the verbs have in mind."""
        if self.asked:
            below = f"{self.asked}\\"
            if name != self.asked and not name.startswith(below):
                raise ValueError("a name outside of the mount")
            name = name[len(below) :]
        return "\\".join(part for part in (self.root, name) if part)


def _names_a_file(request: SetInfoRequest) -> bool:
    """Whether a SET_INFO carries a path: renames do, and links, which are laid out alike ([MS-FSCC] 2.4.28, 2.4.42)."""
    return request.info_type == InfoType.FILE and request.information_class in NAMING


def _checked(name: str) -> str:
    """Return a name, unless it is too long to be sent."""
    if len(name) > PATH_MAX // 2 and len(utf16(name)) > 2 * PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


# [MS-FSCC] 2.4: FileRenameInformation, FileLinkInformation
NAMING: Final = (10, 11)
