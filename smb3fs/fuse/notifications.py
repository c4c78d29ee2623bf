"""Telling the kernel that what it remembers is no longer true, without ever waiting for ourselves.

Theory of operation. A notification is a write(2) to the device that the kernel works off before it returns, and for
that it may need what a request of its own holds: the pages of a READ that is under way, the lock of a directory in
which something is being created. That request ends only when we answer it. So a notification must never be written
where answers come from:

- notifications are written by one thread that does nothing else; the loop hands them over and goes on;
- the loop never waits for that thread, and of the verbs only those about locks do, which no notification waits for:
  they hold neither pages nor directories, and nothing that the kernel does to drop a page or a name waits for a lock;
- so whatever the thread waits for in the kernel is answered by the loop in its own time, each call within the mount's
  `timeout`, and the thread goes on. Its write holds nothing that the loop needs: the interpreter's lock is given up
  during write(2), and the device takes answers while a notification is being worked off.

The one exception are pages for the cache (`Device.store`), which must reach the kernel ahead of the answer that they
belong to: the loop writes them, and only for a file that has never been open here, so no request holds pages of it.

One notification that waits holds up those behind it, no longer than the call that it waits for. What is said twice
while it waits is said once, so that no more can be waiting than there are files and names that the kernel knows.

The end comes in the same order: while the thread is in a write, the device stays open, which the write would keep it
anyway, and whatever the kernel still asks is refused, so that nothing the write waits for stays unanswered.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import trio

from smb3fs.wire.fuse import OUT_HEADER
from smb3fs.wire.fuse_session import EXPIRE_ONLY, Delete, InvalEntry, InvalInode, Notify

log = logging.getLogger(__name__)

# How long the end waits for a write that is under way, in seconds, and how often it looks.
PATIENCE: Final = 10.0
LOOK_AGAIN: Final = 0.01
# The kernel does not know the file or name (any more), or the mount is gone: there is nothing to forget.
HARMLESS: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ECONNABORTED, errno.ENOTDIR, errno.ENOTCONN})


class Notifications:
    """What the kernel is to be told, and the thread that tells it. The thread begins with the first of them."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is the device's."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        # In the order in which they came, with those who wait for it; a dict because each is said once.
        self._waiting: dict[tuple[Notify, bytes], list[Callable[[], object]]] = {}
        # What is to be said for a directory as a whole, by the notification that stands in the order for it.
        self._directories: dict[bytes, tuple[Sequence[int], Sequence[tuple[int, bytes]]]] = {}
        self._thread: threading.Thread | None = None
        self._ended = False

    def inval_inode(self, ino: int, *, pages: bool) -> None:
        """Have the attributes of a file forgotten, and its pages too if asked."""
        self._put(Notify.INVAL_INODE, InvalInode(ino, 0 if pages else -1, 0).encode())

    async def pages_dropped(self, ino: int, names: Iterable[tuple[int, bytes]]) -> None:
        """Have the attributes and pages of a file forgotten, and names asked for again; wait until all that is done."""
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        for parent, name in names:
            self.inval_entry(parent, name, expire_only=True)
        self._put(Notify.INVAL_INODE, InvalInode(ino, 0, 0).encode(), tell)
        await done.wait()

    def directory_changed(self, ino: int, children: Sequence[int], names: Sequence[tuple[int, bytes]]) -> trio.Event:
        """Have a directory's listing and attributes forgotten, those of its children too, and names asked for again.

        The event is set when all that is done. It is one thing to the loop, however many children there are.
        """
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        body = InvalInode(ino, 0, 0).encode()
        with self._changed:
            before = self._directories.get(body, ((), ()))
            self._directories[body] = ((*before[0], *children), (*before[1], *names))
        self._put(Notify.INVAL_INODE, body, tell)
        return done

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> None:
        """Have a name forgotten; with `expire_only` it is merely asked for again before it is used."""
        self._put(Notify.INVAL_ENTRY, InvalEntry(parent, name, EXPIRE_ONLY if expire_only else 0).encode())

    def delete(self, parent: int, child: int, name: bytes) -> None:
        """Say that somebody else has removed a file, so that who watches the directory hears of it."""
        self._put(Notify.DELETE, Delete(parent, child, name).encode())

    def _put(self, kind: Notify, body: bytes, tell: Callable[[], object] | None = None) -> None:
        """Hand a notification to the thread, which calls `tell` when it is done."""
        with self._changed:
            if self._ended:
                if tell is not None:
                    tell()
                return
            waiting = self._waiting.get((kind, body), [])
            if tell is not None:
                # It goes to the end: who waits for it waits for all that was said before.
                self._waiting.pop((kind, body), None)
                waiting.append(tell)
            self._waiting[kind, body] = waiting
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="smb3fs-notifications", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        """Write what there is to write, until the end."""
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ended:
                        return
                    self._changed.wait()
                kind, body = next(iter(self._waiting))
                waiting = self._waiting.pop((kind, body))
                children, names = self._directories.pop(body, ((), ())) if kind is Notify.INVAL_INODE else ((), ())
            self._write(kind, body)
            # Attributes first: with them the kernel finds out for itself that a name stands for something else now.
            for child in children:
                self._write(Notify.INVAL_INODE, InvalInode(child, -1, 0).encode())
            for parent, name in names:
                self._write(Notify.INVAL_ENTRY, InvalEntry(parent, name, EXPIRE_ONLY).encode())
            for tell in waiting:
                tell()

    def _write(self, kind: Notify, body: bytes) -> None:
        """Write one notification."""
        message = OUT_HEADER.pack(OUT_HEADER.size + len(body), kind, 0) + body
        try:
            os.write(self._descriptor, message)
        except OSError as error:
            if error.errno not in HARMLESS:
                log.warning("the kernel refuses a notification: %s", error.strerror)

    def end(self, refuse: Callable[[], None]) -> None:
        """Tell the kernel no more, before the device is closed; `refuse` refuses what the kernel asks meanwhile."""
        with self._changed:
            self._ended = True
            for waiting in self._waiting.values():
                for tell in waiting:
                    tell()
            self._waiting.clear()
            self._directories.clear()
            self._changed.notify()
        if self._thread is None:
            return
        limit = time.monotonic() + PATIENCE
        while self._thread.is_alive() and time.monotonic() < limit:
            refuse()
            self._thread.join(LOOK_AGAIN)
