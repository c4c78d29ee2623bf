"""The driver that speaks to /dev/fuse itself: the life of a mount, from mount(2) to the last answer."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

import trio

from smb3fs.errors import MountError
from smb3fs.fuse import callers, kernel, mounting
from smb3fs.fuse.device import MAX_DATA, Device
from smb3fs.fuse.dispatch import Row, put, table_of
from smb3fs.fuse.negotiation import agree
from smb3fs.fuse.notifications import Notifications
from smb3fs.fuse.options import FuseOptions
from smb3fs.fuse.replies import Reply, data, nothing
from smb3fs.fuse.workers import Workers
from smb3fs.vfs.operations import Vfs
from smb3fs.wire.fuse import Nothing, Opcode
from smb3fs.wire.fuse_session import InitIn, InitOut

log = logging.getLogger(__name__)


class NativeDriver:
    """One mount."""

    def __init__(self) -> None:
        self.agreed: InitOut | None = None
        self.notifications: Notifications | None = None
        self.workers: Workers | None = None
        self._refusal: MountError | None = None
        self._locks = False
        self._greeted = trio.Event()

    async def serve(self, vfs: Vfs, target: str, options: FuseOptions, ready: Callable[[], None]) -> None:
        """Mount, call `ready` once the kernel can use the mount, and serve it until it is unmounted.

        `target` is an absolute path. It ends by umount(8), by `terminate`, or by cancellation; nothing is mounted
        afterwards.
        """
        descriptor = mounting.mount(target, options)
        number = None
        try:
            number = mounting.device_number(target)
            await self._serve(descriptor, vfs, target, options, ready)
        finally:
            if self.notifications is not None:
                self.notifications.end(Device(descriptor).refuse)
            # Before the unmount, which might wait for us if it finds something to write back.
            os.close(descriptor)
            mounting.unmount(target, number)
        if self._refusal is not None:
            raise self._refusal

    async def _serve(
        self, descriptor: int, vfs: Vfs, target: str, options: FuseOptions, ready: Callable[[], None]
    ) -> None:
        """Serve what the device says until the mount is no more."""
        table = table_of(vfs, MAX_DATA)
        put(
            table, Opcode.INIT, Row(InitIn.parse, lambda _node, told, _thread: self._greet(told), self._answer_greeting)
        )
        put(table, Opcode.DESTROY, Row(Nothing.parse, lambda *_: None, nothing))
        self.notifications = notifications = Notifications(descriptor)
        device = Device(descriptor)
        vfs.attach(
            notifications.inval_entry,
            callers.is_respelling,
            notifications.pages_dropped,
            device.store,
            notifications.directory_changed,
            device.forget_attributes,
            callers.are_one,
        )
        self._locks = vfs.server_locks
        async with trio.open_nursery() as nursery:
            self.workers = workers = Workers(device, table, nursery)
            nursery.start_soon(self._announce, target, options, ready)
            workers.start()
            await workers.over.wait()
            nursery.cancel_scope.cancel()

    def _greet(self, told: InitIn) -> InitOut:
        """Answer FUSE_INIT."""
        try:
            self.agreed = agree(told, locks=self._locks)
        except MountError as error:
            self._refusal = error
            self.terminate()
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO)) from error
        return self.agreed

    def _answer_greeting(self, unique: int, request: object, agreed: InitOut) -> Reply:
        """Write the answer to FUSE_INIT; once the kernel has it, the mount can be used."""
        self._greeted.set()
        return data(unique, request, agreed.encode())

    async def _announce(self, target: str, options: FuseOptions, ready: Callable[[], None]) -> None:
        """Once the kernel has our answer to its greeting, by which it sets its read-ahead, set that and report."""
        await self._greeted.wait()
        await trio.to_thread.run_sync(kernel.tune, target, options.rasize)
        ready()

    def terminate(self) -> None:
        """End `serve`: requests under way are still answered, then the mount is taken down."""
        if self.workers is not None:
            self.workers.stop()
