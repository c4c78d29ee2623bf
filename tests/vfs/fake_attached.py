"""What is attached to the files of a share in memory: extended attributes, streams, a security descriptor."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from smb3fs.share.metadata import Attached
from smb3fs.wire.ea import ExtendedAttribute
from smb3fs.wire.streams import Stream


class FakeAttached:
    """The verbs, on nodes that have `extended`, `streams` and `descriptor`."""

    async def exchange(self, call: str) -> None:
        raise NotImplementedError

    def find(self, path: str) -> Any:
        raise NotImplementedError

    def _expected(self, path: str, expect: int | None) -> Any:
        node = self.find(path)
        if expect is not None and expect != node.file_id:
            raise OSError(116, "stale")
        return node

    async def extended_attributes(self, path: str, expect: int | None) -> Sequence[ExtendedAttribute]:
        await self.exchange("extended_attributes")
        return [ExtendedAttribute(*item) for item in self._expected(path, expect).extended.items()]

    async def attached(self, path: str, expect: int | None) -> Attached:
        await self.exchange("attached")
        node = self._expected(path, expect)
        return Attached(
            [ExtendedAttribute(*item) for item in node.extended.items()],
            [
                Stream("::$DATA", len(node.data)),
                *(Stream(f":{name}:$DATA", len(at)) for name, at in node.streams.items()),
            ],
        )

    async def set_extended_attribute(
        self, path: str, name: bytes, value: bytes, *, expect: int | None, exists: bool | None = None
    ) -> None:
        await self.exchange("set_extended_attribute")
        kept = self._expected(path, expect).extended
        if exists is not None and (name in kept) != exists:
            raise OSError(errno.ENODATA if exists else errno.EEXIST, "not as it should be")
        kept.pop(name, None)
        if value:
            kept[name] = value

    async def security(self, path: str, parts: int, expect: int | None) -> bytes:
        await self.exchange(f"security {parts}")
        return self._expected(path, expect).descriptor

    async def set_security(self, path: str, parts: int, descriptor: bytes, *, expect: int | None) -> None:
        await self.exchange(f"set_security {parts}")
        self._expected(path, expect).descriptor = descriptor

    async def read_stream(self, path: str, name: str, expect: int | None) -> bytes:
        await self.exchange("read_stream")
        streams = self._expected(path, expect).streams
        if name not in streams:
            raise OSError(errno.ENODATA, "no such stream")
        return streams[name]

    async def write_stream(
        self, path: str, name: str, value: bytes, *, expect: int | None, exists: bool | None = None
    ) -> None:
        await self.exchange("write_stream")
        streams = self._expected(path, expect).streams
        if exists is not None and (name in streams) != exists:
            raise OSError(errno.ENODATA if exists else errno.EEXIST, "not as it should be")
        streams[name] = value

    async def remove_stream(self, path: str, name: str, expect: int | None) -> None:
        await self.exchange("remove_stream")
        if self._expected(path, expect).streams.pop(name, None) is None:
            raise OSError(errno.ENODATA, "no such stream")
