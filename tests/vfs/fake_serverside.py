"""What the share in memory does to data by itself."""

from __future__ import annotations

import errno
import os
from typing import Any

from smb3fs.handles.opens import Open

BLOCK = 4096


class FakeServerSide:
    """The verbs, on nodes with `data`, whose blocks of zeros are holes. `copy_at_most` bounds one copy."""

    copy_at_most = 1 << 30
    generation: int

    async def exchange(self, call: str) -> None:
        raise NotImplementedError

    def _node(self, handle: Open) -> Any:
        raise NotImplementedError

    def _resize(self, node: Any, size: int) -> Any:
        raise NotImplementedError

    def check_locks(self, handle: Open, start: int, end: int, *, write: bool) -> None:
        raise NotImplementedError

    def tick(self) -> int:
        raise NotImplementedError

    async def copy(self, source: Open, offset: int, target: Open, target_offset: int, size: int) -> int:
        await self.exchange("copy")
        taken = bytes(self._node(source).data[offset : offset + min(size, self.copy_at_most)])
        given, end = self._node(target), target_offset + len(taken)
        self.check_locks(source, offset, offset + len(taken), write=False)
        self.check_locks(target, target_offset, end, write=True)
        if end > len(given.data):
            given.data += bytes(end - len(given.data))
        given.data[target_offset:end] = taken
        given.modified = given.changed = self.tick()
        return len(taken)

    async def seek(self, handle: Open, offset: int, *, hole: bool) -> int:
        await self.exchange("seek")
        data = self._node(handle).data
        inside = offset < len(data)
        while offset < len(data):
            rest = offset // BLOCK * BLOCK + BLOCK
            if any(data[offset:rest]) != hole:
                return offset
            offset = rest
        if hole and inside:
            return len(data)
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    async def punch(self, handle: Open, offset: int, end: int) -> None:
        await self.exchange("punch")
        self._zero(handle, offset, end)

    async def zero(self, handle: Open, offset: int, end: int, *, keep_size: bool) -> None:
        await self.exchange("zero")
        self._zero(handle, offset, end)
        node = self._node(handle)
        if not keep_size and end > len(node.data):
            self._resize(node, end)

    def _zero(self, handle: Open, offset: int, end: int) -> None:
        node = self._node(handle)
        self.check_locks(handle, offset, end, write=True)
        end = min(end, len(node.data))
        node.data[offset:end] = bytes(max(0, end - offset))
        node.modified = node.changed = self.tick()

    async def allocate(self, handle: Open, offset: int, end: int, *, keep_size: bool) -> None:
        await self.exchange("allocate")
        node = self._node(handle)
        if not keep_size and end > len(node.data):
            self._resize(node, end)
