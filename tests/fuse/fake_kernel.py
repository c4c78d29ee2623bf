"""The kernel's end of a FUSE device, played by a test over a pair of sockets that keep messages apart."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from smb3fs.fuse.device import Device
from smb3fs.fuse.dispatch import table_of
from smb3fs.fuse.workers import Workers
from smb3fs.vfs.attributes import Attr, Entry
from smb3fs.wire.fuse import IN_HEADER, OUT_HEADER, InHeader, Name, Opcode, OutHeader
from smb3fs.wire.fuse_session import InterruptIn


class Answer(NamedTuple):
    """What came back: the request's number, an errno or 0, and the body."""

    unique: int
    error: int
    message: memoryview


class Verbs:
    """Verbs that do what a test tells them: names say how a lookup goes."""

    server_locks = True

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.threads: list[int] = []
        self.forgotten: Counter[int] = Counter()
        self.gate = trio.Event()
        self.cancelled: list[bytes] = []
        self.written: list[Any] = []
        self.number = 100

    def _entry(self) -> Entry:
        self.number += 1
        return Entry(Attr(self.number, 0o100644, 1, 0, 0, 5, 1, 4096, 1, 2, 3, 4), 1.5, 2.25)

    def lookup(self, parent: int, name: bytes, thread: int) -> Any:
        if name == b"mistake":
            raise RuntimeError("a mistake")
        if name == b"odd errno":
            raise OSError(9999, "nothing that the kernel takes")
        if name == b"absent":
            raise FileNotFoundError(2, "absent")
        self.threads.append(thread)
        return self._wait(name) if name.startswith(b"wait") else self._entry()

    async def _wait(self, name: bytes) -> Entry:
        self.begun.append(name)
        if name == b"wait for nothing":
            return self._entry()
        if name == b"wait and fail":
            raise PermissionError(13, "no")
        if name == b"wait and err":
            raise RuntimeError("a mistake")
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled.append(name)
            raise
        return self._entry()

    def forget(self, pairs: Any) -> None:
        for node, count in pairs:
            self.forgotten[node] += count

    def write(self, fh: int, offset: int, data: Any, thread: int = 0) -> Any:
        self.written.append(data)
        return self._written(data) if offset else len(data)

    async def _written(self, data: Any) -> int:
        await self.gate.wait()
        return len(data)

    def remember(self, entry: object) -> None:
        """Only to be there."""


class Kernel:
    """The other end."""

    def __init__(self, end: socket.socket, verbs: Verbs, workers: Workers) -> None:
        self._end = end
        self.verbs = verbs
        self.workers = workers
        self._unique = 0

    def send(self, opcode: int, body: bytes = b"", node: int = 1, thread: int = 7) -> int:
        """Ask; returns the request's number."""
        self._unique += 2
        head = InHeader(IN_HEADER.size + len(body), opcode, self._unique, node, 0, 0, thread)
        self._end.send(head.encode() + body)
        return self._unique

    def look(self, name: bytes, **fields: Any) -> int:
        return self.send(Opcode.LOOKUP, Name(name).encode(), **fields)

    def interrupt(self, unique: int) -> None:
        self.send(Opcode.INTERRUPT, InterruptIn(unique).encode(), node=0)

    def received(self) -> list[Answer]:
        """All answers that have come."""
        found = []
        while True:
            try:
                message = memoryview(self._end.recv(1 << 20))
            except BlockingIOError:
                return found
            head = OutHeader.parse(message)
            assert head.length == len(message)
            assert len(message) == OUT_HEADER.size or not head.error
            found.append(Answer(head.unique, -head.error, message))

    async def settle(self) -> list[Answer]:
        """Let everybody do what can be done, and return the answers that came."""
        await trio.testing.wait_all_tasks_blocked(0.002)
        return self.received()

    async def errors(self) -> dict[int, int]:
        """The same as errno by request."""
        return {answer.unique: answer.error for answer in await self.settle()}


@asynccontextmanager
async def kernel() -> AsyncIterator[Kernel]:
    """A kernel with workers at the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for one in (ours, theirs):
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        verbs = Verbs()
        async with trio.open_nursery() as nursery:
            workers = Workers(Device(theirs.fileno()), table_of(verbs, 4096), nursery)  # type: ignore[arg-type]
            workers.start()
            yield Kernel(ours, verbs, workers)
            nursery.cancel_scope.cancel()
