"""A way to the server that takes time: a proxy in a process of its own, which passes all on a while after it came."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from types import TracebackType
from typing import Final, Self

SMB_PORT: Final = 445
# What is taken from a socket at a time, and how much may be on its way in each direction.
PIECE: Final = 1 << 20
MOST_PIECES: Final = 256


class Delay:
    """Passes connections on to a server, half of the delay there and half of it back."""

    def __init__(self, server: str, seconds: float) -> None:
        """`seconds` is what it adds to the way there and back."""
        self.address = "127.0.0.1"
        listener = socket.create_server((self.address, 0))
        # Else an answer waits for the acknowledgement of the one before, 40 ms at the worst, which no server's does.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = listener.getsockname()[1]
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_serve, args=(listener, server, seconds / 2), daemon=True)
        self._listener = listener

    def __enter__(self) -> Self:
        self._process.start()
        self._listener.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()


def _serve(listener: socket.socket, server: str, seconds: float) -> None:
    """Take connections until the end of the process."""
    asyncio.run(_accept(listener, server, seconds))


async def _accept(listener: socket.socket, server: str, seconds: float) -> None:
    """Take connections."""

    async def connected(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection(server, SMB_PORT, limit=PIECE)
        await asyncio.gather(_pass(near_in, far_out, seconds), _pass(far_in, near_out, seconds))

    async with await asyncio.start_server(connected, sock=listener, limit=PIECE) as serving:
        await serving.serve_forever()


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, each piece so many seconds after it has come; then close."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_PIECES)

    async def take() -> None:
        piece = b" "
        while piece:
            piece = await source.read(PIECE)
            await under_way.put((loop.time() + seconds, piece))

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            sink.write(piece)
            await sink.drain()
    sink.close()
