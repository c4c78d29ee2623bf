"""What a file may hold when some of the operations on it have failed.

An operation that succeeded was done. One that failed was done, was not done, or was done in part: POSIX says no more.
So a file has bytes that are certain, and for each failed operation other bytes that may stand in their place, until an
operation that succeeds settles the matter. What was settled stays so: an old request that the server carries out late
is a wrong byte.

Where writes are gathered, one that succeeded is done once fsync or close says so, and is like one that failed if that
says that something was lost. Until then it is to be seen by whoever has the file open, or nothing is.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CHUNK: Final = 4096


class Doubt(NamedTuple):
    """Bytes that may be in the file from `start` on, each or not."""

    start: int
    data: bytes

    def without(self, start: int, end: int) -> list[Doubt]:
        """What is left of it outside of a range."""
        before = Doubt(self.start, self.data[: max(0, start - self.start)])
        after = Doubt(max(self.start, end), self.data[max(0, end - self.start) :])
        return [part for part in (before, after) if part.data]


class Content:
    """The possible contents of one file."""

    def __init__(self) -> None:
        self.sure = bytearray()
        self.doubts: list[Doubt] = []
        self.sizes: list[tuple[int, int]] = [(0, 0)]
        """The sizes that it may have, as ranges that include both ends."""

    @property
    def size(self) -> int:
        """The largest size that it may have."""
        return max(high for _, high in self.sizes)

    def written(self, start: int, data: bytes) -> None:
        """A write has succeeded; one of nothing changes nothing."""
        if not data:
            return
        end = start + len(data)
        self._reach(end)
        self.sure[start:end] = data
        self.doubts = [part for doubt in self.doubts for part in doubt.without(start, end)]
        self.sizes = sorted({(max(low, end), max(high, end)) for low, high in self.sizes})

    def perhaps_written(self, start: int, data: bytes) -> None:
        """A write has failed: any of its bytes may be there, and any size on the way to its end."""
        if not data:
            return
        end = start + len(data)
        self.doubts.append(Doubt(start, bytes(data)))
        self.sizes = sorted({(low, max(high, end)) for low, high in self.sizes})

    def truncated(self, size: int) -> None:
        """A truncation has succeeded."""
        self._reach(size)
        del self.sure[size:]
        self.doubts = [
            part for doubt in self.doubts for part in doubt.without(size, size + len(doubt.data) + doubt.start)
        ]
        self.sizes = [(size, size)]

    def perhaps_truncated(self, size: int) -> None:
        """A truncation has failed: what lies behind may be zeros, should the file grow again."""
        if size < self.size:
            self.doubts.append(Doubt(size, bytes(self.size - size)))
        self.sizes = sorted({*self.sizes, (size, size)})

    def settle(self, *, arrived: bool) -> None:
        """Whether everything has arrived was told by fsync or close, which is known already of each write by itself."""

    def become(self, other: Content) -> None:
        """Have what another one may have."""
        self.sure, self.doubts, self.sizes = other.sure[:], other.doubts[:], other.sizes[:]

    def fault(self, data: bytes, start: int = 0, wanted: int | None = None) -> str:
        """What is wrong with these bytes, read from `start` (`wanted` bytes, or all); empty when they may be."""
        ends = [
            (low, high) if wanted is None else (min(low, start + wanted), min(high, start + wanted))
            for low, high in self.sizes
        ]
        if not any(max(low, start) <= start + len(data) <= max(high, start) for low, high in ends):
            return f"{len(data)} bytes from {start} on, and the end may be at {ends}"
        for at in range(0, len(data), CHUNK):
            part = data[at : at + CHUNK]
            if part != self._expected(start + at, len(part)):
                wrong = [place for place, byte in enumerate(part, start + at) if not self._may_be(place, byte)]
                if wrong:
                    shown = self._shown(data, wrong[0] - start)
                    return f"{len(wrong)} or more wrong bytes, the first at {wrong[0]}: {shown}"
        return ""

    def _reach(self, size: int) -> None:
        """Fill with zeros up to a size."""
        self.sure.extend(bytes(max(0, size - len(self.sure))))

    def _expected(self, start: int, length: int) -> bytes:
        """The bytes that are there if nothing failed took place."""
        return bytes(self.sure[start : start + length]).ljust(length, b"\0")

    def _may_be(self, place: int, byte: int) -> bool:
        """Whether a byte is explained."""
        if byte == (self.sure[place] if place < len(self.sure) else 0):
            return True
        return any(
            doubt.start <= place < doubt.start + len(doubt.data) and doubt.data[place - doubt.start] == byte
            for doubt in self.doubts
        )

    def _shown(self, data: bytes, at: int) -> str:
        """A few bytes around the first wrong one, and what belongs there."""
        return f"{data[at : at + 16].hex()} instead of {self._expected(at, 16).hex()}"


class GatheredContent(Content):
    """The possible contents of a file whose writes are gathered."""

    def __init__(self) -> None:
        super().__init__()
        self._otherwise = Content()

    def written(self, start: int, data: bytes) -> None:
        """A write has succeeded, as far as it says."""
        super().written(start, data)
        self._otherwise.perhaps_written(start, data)

    def perhaps_written(self, start: int, data: bytes) -> None:
        """A write has failed."""
        super().perhaps_written(start, data)
        self._otherwise.perhaps_written(start, data)

    def truncated(self, size: int) -> None:
        """A truncation has succeeded."""
        super().truncated(size)
        self._otherwise.truncated(size)

    def perhaps_truncated(self, size: int) -> None:
        """A truncation has failed."""
        super().perhaps_truncated(size)
        self._otherwise.perhaps_truncated(size)

    def settle(self, *, arrived: bool) -> None:
        """Whether everything has arrived was told by fsync or close."""
        if arrived:
            self._otherwise.become(self)
        else:
            self.become(self._otherwise)
