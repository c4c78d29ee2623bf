"""A mount of a share in memory, whose loop runs in a thread of its own."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from fake_share import FakeShare
from vfs_settings import Options

from smb3fs.fuse.drivers import driver_named
from smb3fs.trace import Trace
from smb3fs.vfs.operations import Vfs

# From the kernel's linux/mount.h: nosuid, nodev, and a remount, which empties the mount's dentry cache.
REMOUNT = 2 | 4 | 32


def empty_dentry_cache(path: Path) -> None:
    """Have the kernel forget the names that it keeps for no reason but speed; needs root.

    By mount(2) as it was: through the newer calls, which mount(8) prefers, FUSE refuses a remount.
    """
    library = ctypes.CDLL(None, use_errno=True)
    assert library.mount(None, os.fsencode(path), None, ctypes.c_ulong(REMOUNT), None) == 0, ctypes.get_errno()


class Mounted:
    """A share in memory, mounted until `end`."""

    def __init__(self, driver: str, path: Path, share: FakeShare | None = None, **options: Any) -> None:
        self.path = path
        self.share = share or FakeShare()
        self.driver = driver_named(driver)
        self.options = Options(**{"uid": os.getuid(), "gid": os.getgid(), "timeout": 5.0, **options})
        self.vfs = Vfs(self.share, self.options, Trace())
        self.vfs.set_root(self.share.root.told())
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self.token: trio.lowlevel.TrioToken | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.ready.wait(10)
        if self.failure is not None:
            self.thread.join()
            raise self.failure

    def _run(self) -> None:
        async def main() -> None:
            self.token = trio.lowlevel.current_trio_token()
            await self.driver.serve(self.vfs, str(self.path), self.options, self.ready.set)

        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 (handed to the test's thread)
            self.failure = error
        finally:
            self.ready.set()

    def call(self, function: Callable[[], object]) -> None:
        """Call something in the loop's thread, and return when it is done."""
        assert self.token is not None
        trio.from_thread.run_sync(function, trio_token=self.token)

    def end(self) -> None:
        """Unmount, if that has not happened, and see that the driver has ended well."""
        if self.thread.is_alive():
            self.call(self.driver.terminate)
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert not mounted(self.path)
        if self.failure is not None:
            raise self.failure


def mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()
