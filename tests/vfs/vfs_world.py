"""A filesystem on a share in memory, and the verbs with names and paths for the tests to call."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from fake_share import FakeShare
from vfs_settings import Options

from smb3fs.trace import Trace
from smb3fs.vfs.attributes import Entry
from smb3fs.vfs.operations import Vfs
from smb3fs.vfs.wall import settle

ROOT = 1


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a clock that jumps to the next deadline when nothing else is left to do."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        trio.run(functools.partial(test, *args, **named), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


@contextmanager
def fails(number: int) -> Iterator[None]:
    """Expect an OSError with that errno."""
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


class World:
    """A Vfs and its share. Paths of the methods here have slashes, and are walked as the kernel would."""

    def __init__(self, share: FakeShare | None = None, **options: Any) -> None:
        self.share = share or FakeShare()
        self.trace = Trace()
        self.vfs = Vfs(self.share, Options(**options), self.trace)
        self.vfs.set_root(self.share.root.told())

    @property
    def state(self):  # type: ignore[no-untyped-def]
        return self.vfs.state

    async def look(self, path: str) -> Entry:
        """Look up each component of a path."""
        number, entry = ROOT, None
        for part in path.split("/"):
            entry = await settle(self.vfs.lookup(number, os.fsencode(part)))
            number = entry.attr.ino
        assert entry is not None
        return entry

    async def number(self, path: str) -> int:
        """The inode number of a path."""
        return (await self.look(path)).attr.ino if path else ROOT

    async def at(self, path: str) -> tuple[int, bytes]:
        """The directory of a path and the last component."""
        above, _, name = path.rpartition("/")
        return await self.number(above), os.fsencode(name)

    async def stat(self, number: int) -> Entry:
        return await settle(self.vfs.getattr(number))

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file that exists."""
        return (await settle(self.vfs.open(await self.number(path), flags))).fh

    async def create(self, path: str, flags: int = os.O_RDWR, mode: int = 0o644) -> tuple[int, Entry]:
        """Create a file."""
        opened, entry = await settle(self.vfs.create(*await self.at(path), mode, flags))
        return opened.fh, entry

    async def read(self, fh: int, offset: int = 0, size: int = 1 << 20) -> bytes:
        read = await settle(self.vfs.read(fh, offset, size))
        return b"".join(read) if isinstance(read, tuple) else bytes(read)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return await settle(self.vfs.write(fh, offset, data))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        """Rename, having looked up both names as the kernel does."""
        for path in (old, new):
            try:
                await self.look(path)
            except FileNotFoundError:
                if path == old:
                    raise
        await settle(self.vfs.rename(*await self.at(old), *await self.at(new), flags))

    async def unlink(self, path: str) -> None:
        await self.look(path)
        await settle(self.vfs.unlink(*await self.at(path)))

    async def listing(self, path: str = "", *, room: int = 7) -> list[str]:
        """List a directory through a kernel's buffer with room for so many entries, without `.` and `..`."""
        fh = await settle(self.vfs.opendir(await self.number(path)))
        try:
            return [name for name, _, _ in await self.rest(fh, room=room) if name not in (".", "..")]
        finally:
            await settle(self.vfs.releasedir(fh))

    async def some(self, fh: int, cookie: int, *, room: int = 7) -> list[tuple[str, int, Entry]]:
        """One readdir into a buffer of that size."""
        taken: list[tuple[str, int, Entry]] = []
        for entry in await settle(self.vfs.readdir(fh, cookie)):
            if len(taken) == room:
                break
            if entry.counted:
                self.vfs.remember(entry)
            taken.append((os.fsdecode(entry.name), entry.next_cookie, entry.entry))
        return taken

    async def rest(self, fh: int, cookie: int = 0, *, room: int = 7) -> list[tuple[str, int, Entry]]:
        """All entries from a position on: (name, position behind it, attributes)."""
        found: list[tuple[str, int, Entry]] = []
        while part := await self.some(fh, cookie, room=room):
            found += part
            cookie = part[-1][1]
        return found
