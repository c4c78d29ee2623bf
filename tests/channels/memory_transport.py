"""The Transport that leads to a peer in memory, with every mishap that a transport can have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from smb3fs.channels.transport import Traffic
from smb3fs.errors import ConnectionLost, WireError
from smb3fs.wire.codec import Buffer


class MemoryTransport:
    """The Transport that leads to a peer, with every mishap that a transport can have."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.limit = 1 << 24
        self.room: int | None = None
        """How many bytes the way to the peer takes at present; None: any number."""
        self.ends = "", ""
        """The addresses of this end and of the other, where these matter."""
        self.closed = self.was_reset = False
        self.sends = self.receives = 0
        self.fail_send: int | None = None
        self.fail_receive: int | None = None
        self._deliver = deliver
        self._partial = bytearray()
        self._sizes: list[int] = []
        self._room_made = trio.Event()
        self._inbox: deque[bytes] = deque()
        self._arrival = trio.Event()

    @property
    def description(self) -> str:
        return "memory"

    def send_now(self, *messages: Sequence[Buffer]) -> list[Buffer]:
        assert not self._sizes, "a message was begun before the one before it was finished"
        self._count_send()
        self._sizes = [sum(map(len, buffers)) for buffers in messages]
        return self._take([buffer for buffers in messages for buffer in buffers])

    async def send_rest(self, buffers: Sequence[Buffer]) -> None:
        rest = list(buffers)
        assert sum(map(len, rest)) == sum(self._sizes) - len(self._partial), "the rest is not what was left"
        while rest:
            while self.room == 0 and not self.closed:
                self._room_made = trio.Event()
                await self._room_made.wait()
            await trio.lowlevel.checkpoint()
            self._count_send()
            rest = self._take(rest)

    def _count_send(self) -> None:
        self.sends += 1
        if self.closed or self.sends == self.fail_send:
            raise ConnectionLost("sending failed")

    def _take(self, buffers: list[Buffer]) -> list[Buffer]:
        """Take what there is room for; the messages that are complete reach the peer."""
        while buffers and self.room != 0:
            count = len(buffers[0]) if self.room is None else min(self.room, len(buffers[0]))
            self._partial += memoryview(buffers[0])[:count]
            if self.room is not None:
                self.room -= count
            if count < len(buffers[0]):
                buffers[0] = memoryview(buffers[0])[count:]
            else:
                del buffers[0]
        while self._sizes and len(self._partial) >= self._sizes[0]:
            size = self._sizes.pop(0)
            message = bytes(self._partial[:size])
            del self._partial[:size]
            self._deliver(message)
        return buffers

    def make_room(self, size: int | None) -> None:
        """Let the way to the peer take `size` more bytes, or any number."""
        self.room = size
        self._room_made.set()

    def put(self, message: bytes) -> None:
        """Have the peer's message arrive."""
        self._inbox.append(message)
        self._arrival.set()

    async def receive(self) -> memoryview:
        # As with a socket, what is there already is returned without letting others run.
        while not self._inbox:
            if self.closed:
                raise ConnectionLost("closed")
            self._arrival = trio.Event()
            await self._arrival.wait()
        self.receives += 1
        if self.closed or self.receives == self.fail_receive:
            raise ConnectionLost("receiving failed")
        message = self._inbox.popleft()
        if len(message) > self.limit:
            raise WireError("longer than the limit")
        return memoryview(bytearray(message))

    def progress(self) -> int:
        return self.receives

    def traffic(self) -> Traffic:
        return Traffic()

    def reset(self) -> None:
        # What was closed before the kernel goes on to send, unless it had found out that nothing arrives.
        self.was_reset = self.was_reset or not self.closed
        self.close()

    def close(self) -> None:
        self.closed = True
        self._arrival.set()
        self._room_made.set()

    def hang_up(self) -> None:
        """The peer ends the connection behind what it has sent."""
        self.fail_receive = self.receives + len(self._inbox) + 1
        self.put(b"")
