"""Another client of the server, that does with locks what no mount would: the share's verbs on a session of its own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import trio
from lab.server import Samba

from smb3fs.errors import Status
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Open
from smb3fs.mount import Mount
from smb3fs.options import parse_mount_options
from smb3fs.share.share import Share

T = TypeVar("T")


class Adversary:
    """A session, in a thread of its own; the tests call from theirs."""

    def __init__(self, samba: Samba, share: str = "share") -> None:
        self._options = parse_mount_options(
            samba.source(share),
            f"credentials={samba.credentials}",
            environment={},
            cwd="/",
            is_root=True,
            uid=0,
            gid=0,
        )
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._token: trio.lowlevel.TrioToken | None = None
        self._over: trio.Event | None = None
        self.share: Share | None = None

    def _run(self) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                mount = Mount(self._options, "/nowhere", nursery)
                await mount.start()
                self.share, self._over = mount.line.share, trio.Event()
                self._token = trio.lowlevel.current_trio_token()
                self._started.set()
                await self._over.wait()
                await mount.end()
                nursery.cancel_scope.cancel()

        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 (handed to the test's thread)
            self._failure = error
        finally:
            self._started.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        assert self._over is not None
        trio.from_thread.run_sync(self._over.set, trio_token=self._token)
        self._thread.join(20)

    def call(self, verb: Callable[[Share], Awaitable[T]]) -> T:
        """Do something with the share."""

        async def do() -> T:
            assert self.share is not None
            with trio.fail_after(20):
                return await verb(self.share)

        return trio.from_thread.run(do, trio_token=self._token)

    def open(self, path: str, *, read: bool = True, write: bool = True) -> Open:
        """Open a file."""
        return self.call(lambda share: share.open(path, read=read, write=write, expect=None))

    def make(self, path: str, data: bytes) -> None:
        """Make a file."""

        async def make(share: Share) -> None:
            handle = await share.create(path, read=True, write=True, exclusive=True)
            await share.write(handle, 0, data)
            share.close(handle)
            await share.lookup("")

        self.call(make)

    def close(self, handle: Open) -> None:
        """Close it, and have the server answer something, so that it has been done."""

        async def close(share: Share) -> None:
            share.close(handle)
            await share.lookup("")

        self.call(close)

    def lock(self, handle: Open, start: int, end: int, *, exclusive: bool = True) -> bool:
        """Try to lock a range."""
        (status,) = self.steps(handle, Step([Piece(start, end, exclusive)]))
        return status == Status.SUCCESS

    def unlock(self, handle: Open, start: int, end: int) -> bool:
        """Unlock a range."""
        (status,) = self.steps(handle, Step([Piece(start, end, False)], unlocks=True))
        return status == Status.SUCCESS

    def steps(self, handle: Open, *steps: Step) -> list[int]:
        """Take steps in one message."""
        return self.call(lambda share: share.change_locks(handle, steps))

    def can_lock(self, handle: Open, start: int, end: int, *, exclusive: bool = True) -> bool:
        """Whether a range could be locked."""
        return self.call(lambda share: share.is_lockable(handle, [Piece(start, end, exclusive)]))
