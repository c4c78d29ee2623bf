"""The two drivers, and what a mount needs of either. Why there are two: docs/decisions/0006-two-fuse-drivers.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from smb3fs.errors import MountError
from smb3fs.fuse.native_driver import NativeDriver
from smb3fs.fuse.options import FuseOptions
from smb3fs.vfs.operations import Vfs


class Driver(Protocol):
    """What connects the verbs of one mount to the kernel."""

    async def serve(self, vfs: Vfs, target: str, options: FuseOptions, ready: Callable[[], None]) -> None:
        """Mount, call `ready` once the kernel can use the mount, and serve it until it is unmounted.

        It ends by umount(8), by `terminate`, or by cancellation; nothing is mounted afterwards.
        """

    def terminate(self) -> None:
        """End `serve`: requests under way are still answered, then the mount is taken down."""


def driver_named(name: str) -> Driver:
    """Return the driver that `-o fuse=` names, or raise MountError where it is not installed."""
    if name == "native":
        return NativeDriver()
    try:
        from smb3fs.fuse import pyfuse3_driver
    except ImportError as error:
        raise MountError(
            f"option fuse=pyfuse3 needs pyfuse3, which cannot be loaded ({error}); install it "
            "(pip install 'smb3fs[pyfuse3]', which takes a compiler and libfuse3's headers) or leave the option out"
        ) from error
    return pyfuse3_driver
