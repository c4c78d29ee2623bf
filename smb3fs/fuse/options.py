"""The mount options that the kernel is told, whichever driver tells it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol


class FuseOptions(Protocol):
    """The mount options that the kernel is told, by the names that they have in `MountOptions`."""

    @property
    def fsname(self) -> str:
        """What mount(8) shows as the source."""

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed."""

    @property
    def allow_other(self) -> bool:
        """Whether users other than the one who mounted may enter."""

    @property
    def noperm(self) -> bool:
        """Whether the kernel leaves permissions to the server."""

    @property
    def kernel_flags(self) -> Sequence[str]:
        """The flags of mount(2), in mount(8)'s words."""

    @property
    def rasize(self) -> int:
        """How far the kernel reads ahead, in bytes."""


def mount_options(options: FuseOptions, fsname: str) -> set[str]:
    """Return what libfuse and fusermount3 are told with -o; `fsname` is the source as who is told wants it escaped."""
    words = {f"fsname={fsname}", "subtype=smb3fs", *options.kernel_flags}
    if options.read_only:
        words.add("ro")
    if options.allow_other:
        words.add("allow_other")
    if not options.noperm:
        words.add("default_permissions")
    return words


def escaped_for_libfuse(value: str) -> str:
    """Write a value so that libfuse reads it back: in ASCII, and with a backslash before what it splits at."""
    return "".join(
        f"\\{byte:03o}" if byte > 0x7E or byte < 0x21 else f"\\{byte:c}" if byte in b"\\," else f"{byte:c}"
        for byte in os.fsencode(value)
    )
