"""Directories are kept while their leases hold, within bounds, and closed before a break of them is acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing
from peer import trio_test

from smb3fs.cache import directories
from smb3fs.cache.directories import DirectoryCache
from smb3fs.handles.breaks import Breaks
from smb3fs.handles.lease import RH, Lease
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import Open
from smb3fs.trace import Trace
from smb3fs.wire.create import CreateContext
from smb3fs.wire.lease import ACK_REQUIRED, LEASE_CONTEXT, LeaseBreakNotification, LeaseContextV2, parse_lease


class Holder:
    """An open."""

    lease: Lease | None = None


class World:
    """A cache, and what is said to the server and the kernel, in its order."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.log: list[Any] = []
        self.told = trio.Event()
        self.leases = LeaseTable()
        self.leases.speak(2)
        self.breaks = Breaks(self.leases, nursery.start_soon, Trace())
        self.cache: DirectoryCache[str] = DirectoryCache(self.leases, self._close)
        self.cache.on_drop = self._drop

    def _close(self, handle: Open) -> None:
        self.log.append("close")
        self.leases.released(handle)

    def _drop(self, cached: directories.CachedDirectory[str]) -> trio.Event:
        self.log.append(f"forget {cached.known}")
        return self.told

    def keep(self, number: int, path: str, entries: int = 10) -> Lease:
        """Keep a directory."""
        lease, holder = self.leases.of_directory(path, ""), Holder()
        assert lease is not None
        with self.leases.asking(lease):
            told = LeaseContextV2(lease.key, RH, epoch=1).encode()
            self.leases.granted(holder, [CreateContext(LEASE_CONTEXT, told)], {LEASE_CONTEXT: told}, 0)
        self.cache.keep(number, cast(Open, holder), path, entries)
        return lease

    def take(self, lease: Lease, new: int = 0) -> None:
        """Break a lease."""
        told = LeaseBreakNotification(2, ACK_REQUIRED, lease.key, lease.state, new)
        self.breaks.take(told, lambda answer: self.log.append("acknowledge"))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Make one."""
    async with trio.open_nursery() as nursery:
        yield World(nursery)


@trio_test
async def test_a_break_ends_it_at_once_and_is_acknowledged_when_the_kernel_knows() -> None:
    async with world() as it:
        lease = it.keep(5, "d")
        assert it.cache.get(5) == "d"
        it.take(lease)
        assert it.cache.get(5) is None
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == ["forget d"]
        it.told.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.log == ["forget d", "close", "acknowledge"]
        assert it.cache.breaks == 1
        assert (len(it.cache), it.cache.entries) == (0, 0)


@trio_test
async def test_a_kernel_that_does_not_answer_holds_up_nobody_for_long(expect_log: Callable[[str], None]) -> None:
    expect_log("was not brought to an end within 1 s")
    async with world() as it:
        it.take(it.keep(5, "d"), new=1)
        await trio.sleep(2)
        assert it.log == ["forget d", "close", "acknowledge"]


@trio_test
async def test_the_loss_of_the_connection_ends_all() -> None:
    async with world() as it:
        it.keep(5, "d")
        it.keep(6, "e")
        it.leases.suspended()
        assert len(it.cache) == 0
        assert sorted(it.log) == ["close", "close", "forget d", "forget e"]
        assert it.cache.breaks == 0
        assert len(it.leases) == 0


@trio_test
async def test_what_was_used_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MOST_DIRECTORIES", 2)
    async with world() as it:
        it.keep(5, "d")
        it.keep(6, "e")
        it.cache.used(5)
        it.keep(7, "f")
        assert [cached.known for cached in it.cache] == ["d", "f"]
        monkeypatch.setattr(directories, "MOST_ENTRIES", 15)
        it.keep(8, "g")
        assert [cached.known for cached in it.cache] == ["g"]
        assert it.cache.entries == 10


@trio_test
async def test_what_breaks_again_and_again_is_left_alone() -> None:
    async with world() as it:
        it.told.set()
        pauses = []
        for _ in range(4):
            it.take(it.keep(5, "d"))
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            while not it.cache.wants(5):  # noqa: ASYNC110 (it is about time)
                await trio.sleep(0.05)
            pauses.append(trio.current_time() - began)
        assert pauses[0] == 0
        assert pauses == sorted(pauses)
        assert pauses[3] > 2 * pauses[1] > 0
        lease = it.keep(5, "d")
        await trio.sleep(directories.SHORT + 1)
        it.take(lease)
        assert it.cache.wants(5)
        await trio.testing.wait_all_tasks_blocked()


@trio_test
async def test_who_changes_something_names_the_directory_that_is_kept() -> None:
    async with world() as it:
        assert it.leases.naming_parent("d") is None
        lease = it.keep(5, "d")
        context = it.leases.naming_parent("d")
        assert context is not None
        told = parse_lease(context.data)
        assert isinstance(told, LeaseContextV2)
        assert (told.state, told.parent_key) == (0, lease.key)
        assert told.key != lease.key
        assert it.leases.counts() == {}
