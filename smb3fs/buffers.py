"""Large buffers that are used again: memory fresh from the kernel costs more than what is done with the bytes in it.

Theory of operation. The C library gives large blocks back to the kernel as soon as they are free, and gets them page by
page again, each cleared: a quarter of what reading a file costs this process. So whoever fills a large buffer takes it
from here. A bytearray knows itself whether anybody looks at it: it refuses to change its size as long as there is a
memoryview of it, or of a part of it. So nobody has to give anything back, nor can forget to, or do it too early.
"""

from __future__ import annotations

from typing import Final

# Sizes are rounded up to a multiple of this, so that what is asked for next will fit.
STEP: Final = 64 << 10


class SpareBuffers:
    """A few buffers, those used last at the end; each free for use again when the last view of it is gone."""

    def __init__(self, most: int) -> None:
        """`most` are kept for use again; what is in use beyond that is given back to the C library afterwards."""
        self._most = most
        self._buffers: list[bytearray] = []

    def __len__(self) -> int:
        return len(self._buffers)

    def take(self, size: int) -> memoryview:
        """Return a view of `size` bytes that nobody else looks at; what is in them is left over from earlier."""
        buffers = self._buffers
        # What was used last is most likely in the processor's cache still.
        for index in range(len(buffers) - 1, -1, -1):
            buffer = buffers[index]
            if size <= len(buffer) <= 2 * size + STEP and not _is_viewed(buffer):
                del buffers[index]
                break
        else:
            buffer = bytearray(-(-size // STEP) * STEP)
            if len(buffers) >= self._most:
                del buffers[0]
        buffers.append(buffer)
        return memoryview(buffer)[:size]


def _is_viewed(buffer: bytearray) -> bool:
    """Whether there is a memoryview of a buffer, or of a part of it."""
    try:
        last = buffer.pop()
    except BufferError:
        return True
    buffer.append(last)
    return False
