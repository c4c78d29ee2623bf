"""The part of the share in memory that is about locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from mandatory_locks import MandatoryLocks

from smb3fs.errors import Status, StatusError
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Open


class FakeLocks:
    """The verbs. Who waits looks again whenever something is unlocked; a wait that is cancelled says so by False."""

    generation: int

    def __init__(self) -> None:
        self.locks: dict[Any, MandatoryLocks] = {}
        self.unlocked = trio.Event()
        self.waiting: list[Piece] = []
        self.keeping = True
        """Whether a handle that somebody has opened for other things may carry locks."""

    async def exchange(self, call: str) -> None:
        raise NotImplementedError

    def _node(self, handle: Open) -> Any:
        raise NotImplementedError

    def usable(self, handle: Open) -> bool:
        return not handle.closed and handle.generation == self.generation

    def keeps_locks(self, handle: Open) -> bool:
        return self.keeping

    def locks_of(self, node: Any) -> MandatoryLocks:
        """The locks of a file."""
        return self.locks.setdefault(node, MandatoryLocks())

    def note_unlocked(self) -> None:
        """Have those who wait look again."""
        unlocked, self.unlocked = self.unlocked, trio.Event()
        unlocked.set()

    def check_locks(self, handle: Open, start: int, end: int, *, write: bool) -> None:
        """Refuse what a lock is in the way of."""
        if start < end and not self.locks_of(self._node(handle)).allows(handle, start, end, write=write):
            raise StatusError(Status.FILE_LOCK_CONFLICT, "WRITE" if write else "READ")

    def drop_locks(self, handle: Open) -> None:
        """A handle is closed."""
        for locks in self.locks.values():
            locks.close(handle)
        self.note_unlocked()

    async def change_locks(self, handle: Open, steps: Sequence[Step]) -> list[int]:
        with trio.CancelScope(shield=True):
            await self.exchange("lock")
        locks = self.locks_of(self._node(handle))
        refusal = {True: Status.RANGE_NOT_LOCKED, False: Status.LOCK_NOT_GRANTED}
        statuses = [Status.SUCCESS if locks.take(handle, step) else refusal[step.unlocks] for step in steps]
        if any(step.unlocks for step in steps):
            self.note_unlocked()
        return [int(status) for status in statuses]

    async def wait_for_lock(self, handle: Open, piece: Piece) -> bool:
        self.waiting.append(piece)
        try:
            await self.exchange("wait_for_lock")
            while not self.locks_of(self._node(handle)).take(handle, Step([piece])):
                await self.unlocked.wait()
        except trio.Cancelled:
            return False
        finally:
            self.waiting.remove(piece)
        return True

    async def is_lockable(self, handle: Open, pieces: Sequence[Piece]) -> bool:
        await self.exchange("is_lockable")
        locks = self.locks_of(self._node(handle))
        granted = locks.take(handle, Step(pieces))
        if granted:
            locks.take(handle, Step(pieces, unlocks=True))
        return granted
