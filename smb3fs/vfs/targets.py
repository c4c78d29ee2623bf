r"""Where symbolic links lead, between the kernel (text with slashes) and the server (Windows' notation, among others).

A relative target has its components mapped as names are, and backslashes between them. An absolute one means nothing to
a server, and is kept as it is, as Samba does; but for `symlinkroot` (/mnt): below it stand Windows' drives by their
letters, so that /mnt/c/dir and \??\C:\dir are the same. What comes from the server is text that somebody wrote: it is
handed to the kernel, which follows it or not, and used for nothing else.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from smb3fs.vfs.names import Names
from smb3fs.wire.reparse import MAXIMUM_SIZE, SymbolicLink

# An absolute path among the NT kernel's names: a drive, or a server and share.
_DRIVE: Final = re.compile(r"\\\?\?\\([A-Za-z]):(?:\\(.*))?", re.DOTALL)
_UNC: Final = re.compile(r"\\\?\?\\UNC\\(.*)", re.DOTALL | re.IGNORECASE)
_SEPARATOR: Final = re.compile(r"[\\/]")
# What SymbolicLink needs around its two texts ([MS-FSCC] 2.1.2.4).
_OVERHEAD: Final = 20
_UNCHANGED: Final = frozenset({"", ".", ".."})


class Targets:
    """The translation for one mount."""

    def __init__(self, names: Names, root: str, *, posix: bool) -> None:
        """`root` is where drives are; with `posix` the server has targets as Linux writes them."""
        self._names = names
        self._root = root.rstrip("/")
        self._posix = posix

    def to_kernel(self, target: SymbolicLink | bytes) -> bytes:
        """Return what readlink(2) shows; EIO for what cannot be a target."""
        text = target if isinstance(target, bytes) else self._shown(target).encode("utf-8", "surrogatepass")
        if not text or b"\0" in text:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return text

    def length(self, target: SymbolicLink | bytes) -> int:
        """Return the size of a link for stat(2)."""
        try:
            return len(self.to_kernel(target))
        except OSError:
            return 0

    def _shown(self, link: SymbolicLink) -> str:
        """Return a target in Linux' notation."""
        text = link.substitute_name
        if self._posix:
            return text
        prefix = ""
        if not link.relative:
            if drive := _DRIVE.fullmatch(text):
                prefix, text = f"{self._root}/{drive[1].lower()}", drive[2] or ""
                prefix += "/" if text else ""
            elif unc := _UNC.fullmatch(text):
                prefix, text = "//", unc[1]
        return prefix + "/".join(map(self._component_shown, _SEPARATOR.split(text)))

    def _component_shown(self, component: str) -> str:
        """Return a component in Linux' notation; what is no name is no less part of the text."""
        name = self._names.to_kernel(component)
        return name.decode("utf-8", "surrogatepass") if isinstance(name, bytes) else component

    def to_server(self, target: bytes) -> SymbolicLink:
        """Return a link for the server; raises EILSEQ, EINVAL or ENAMETOOLONG for what it cannot hold."""
        try:
            text = target.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ)) from None
        relative = not text.startswith("/")
        if not self._posix:
            drive = re.fullmatch(rf"{re.escape(self._root)}/([A-Za-z])(/.*)?", text, re.DOTALL)
            head, rest = (f"\\??\\{drive[1].upper()}:", drive[2] or "") if drive else ("", text)
            separator = "\\" if relative or drive else "/"
            text = head + separator.join(map(self._component_sent, rest.split("/")))
        link = SymbolicLink(text, text, relative)
        if len(link.encode()) > MAXIMUM_SIZE - _OVERHEAD:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return link

    def _component_sent(self, component: str) -> str:
        """Return a component as the server has names."""
        if component in _UNCHANGED:
            return component
        return self._names.to_server(component.encode("utf-8", "surrogatepass"))
