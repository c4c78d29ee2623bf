"""SMB2 over TCP: four bytes of length in front of each message ([MS-SMB2] 2.1).

The socket is tried before it is waited for: under load the data are there already, and a wait costs more than the call
(measured: 64 KiB steps at 3.0 GB/s against 2.4 with trio's own socket). Small messages share one staging buffer, so
that a burst of answers costs one system call; the body of a large one is received straight into the buffer that the
caller keeps, and is not copied again on its way to the kernel.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from smb3fs.buffers import SpareBuffers
from smb3fs.channels.transport import Traffic
from smb3fs.errors import ConnectionLost, WireError
from smb3fs.wire.codec import Buffer
from smb3fs.wire.header import HEADER_SIZE

FRAME: Final = struct.Struct(">I")
# The frame's length field has 24 bits; the byte above them is zero ([MS-SMB2] 2.1).
MAX_FRAME: Final = 0xFFFFFF
STAGING_SIZE: Final = 32 * 1024
# Messages beyond this size are received into memory that is used again, and so many such buffers are kept for that.
LARGE: Final = 64 * 1024
SPARE: Final = 16
# How many unsent bytes the kernel may hold before the socket stops being writable: enough for a 1 MiB write.
NOT_SENT_LOW_WATER: Final = 1024 * 1024
# `tcpi_retransmits` and `tcpi_unacked` of struct tcp_info (linux/tcp.h): how often what was not acknowledged has been
# sent again, and how many segments that are. Those of a moment ago are always among them.
UNHEARD: Final = struct.Struct("=2xB21xI")
# `tcpi_rtt` (microseconds, smoothed), `tcpi_total_retrans`, `tcpi_bytes_acked` and `tcpi_bytes_received` of it.
TRAFFIC: Final = struct.Struct("=68xI28xI16xQQ")
# struct linger: closing takes no time, and is a reset.
NO_LINGER: Final = struct.pack("ii", 1, 0)
# Linux takes at most 1024 buffers in one call (UIO_MAXIOV).
MAX_VECTORS: Final = 1024
# Linux 6.15 and later, linux/tcp.h: how far apart retransmissions get, at least 1000 milliseconds. Without it they come
# ever more slowly while packets vanish, and an outage of four seconds is noticed to be over after seven.
TCP_RTO_MAX_MS: Final = 44
LONGEST_RETRANSMISSION_MS: Final = 1000
# How long the kernel repeats what nobody acknowledges: longer than any server keeps what was open. Whether a connection
# is dead, its channel finds out sooner; one that the kernel has dropped could not be reset any more when the link is
# back, and the server would go on to believe in it.
KERNEL_PATIENCE_MS: Final = 20 * 60 * 1000
# Answers before NEGOTIATE has agreed on sizes are small; a longer one is nonsense.
LIMIT_BEFORE_NEGOTIATE: Final = 128 * 1024


class TcpTransport:
    """One TCP connection that carries SMB2 messages."""

    def __init__(
        self,
        sock: socket.socket,
        abandon: Callable[[socket.socket], None] | None = None,
        before_reset: Callable[[socket.socket], None] | None = None,
    ) -> None:
        """`abandon` takes the socket over if the server cannot be told at present that it is closed.

        `before_reset` is told of one that is about to be reset, of which the server may not learn either.
        """
        sock.setblocking(False)
        self._socket = sock
        self._abandon = abandon
        self._before_reset = before_reset
        self._description = _describe(sock)
        self._ends = _ends(sock)
        self._staging = memoryview(bytearray(STAGING_SIZE))
        self._large = SpareBuffers(SPARE)
        self._start = 0
        self._end = 0
        self._closed = False
        self._drained = False
        self.limit = LIMIT_BEFORE_NEGOTIATE

    @property
    def description(self) -> str:
        """Both ends of the connection."""
        return self._description

    def send_now(self, *messages: Sequence[Buffer]) -> list[Buffer]:
        """Send messages as far as the socket takes them, by one system call if it can be, and return the rest."""
        frames: list[Buffer] = []
        for buffers in messages:
            size = sum(map(len, buffers))
            if size > MAX_FRAME:
                raise ValueError(f"a message of {size} bytes does not fit into a frame")
            frames += (FRAME.pack(size), *buffers)
        return self._send(frames)

    def _send(self, buffers: list[Buffer]) -> list[Buffer]:
        """Send what the socket takes now; return what it did not."""
        if self._closed:
            raise ConnectionLost("the connection is closed")
        while buffers:
            try:
                sent = self._socket.sendmsg(buffers[:MAX_VECTORS])
            except BlockingIOError:
                return buffers
            except OSError as error:
                raise ConnectionLost(f"sending failed: {error.strerror}") from error
            buffers = _behind(buffers, sent)
        return []

    async def send_rest(self, buffers: Sequence[Buffer]) -> None:
        """Send the remainder of a message, waiting for the socket as often as needed."""
        rest = list(buffers)
        while rest:
            await self._wait(trio.lowlevel.wait_writable)
            rest = self._send(rest)

    async def receive(self) -> memoryview:
        """Return the next message."""
        try:
            return await self._receive()
        except ConnectionLost:
            # What a session is made of goes with the collector's next long round, and that may be hours away.
            self._staging, self._large = memoryview(b""), SpareBuffers(0)
            self._start = self._end = 0
            raise

    async def _receive(self) -> memoryview:
        """Do so."""
        while self._end - self._start < FRAME.size:
            await self._fill()
        (size,) = FRAME.unpack_from(self._staging, self._start)
        if size < HEADER_SIZE - 12 or size > min(self.limit, MAX_FRAME):
            raise WireError(f"the peer announced a message of {size} bytes")
        self._start += FRAME.size
        message = self._large.take(size) if size > LARGE else memoryview(bytearray(size))
        have = min(size, self._end - self._start)
        message[:have] = self._staging[self._start : self._start + have]
        self._start += have
        while have < size:
            have += await self._receive_into(message[have:])
        return message

    async def _fill(self) -> None:
        """Add at least one byte to the staging buffer."""
        if self._start == self._end:
            self._start = self._end = 0
        elif STAGING_SIZE - self._end < FRAME.size:
            left = bytes(self._staging[self._start : self._end])
            self._staging[: len(left)] = left
            self._start, self._end = 0, len(left)
        self._end += await self._receive_into(self._staging[self._end :])

    async def _receive_into(self, target: memoryview) -> int:
        """Receive at least one byte into `target`."""
        if self._drained:
            await self._wait(trio.lowlevel.wait_readable)
        while True:
            if self._closed:
                raise ConnectionLost("the connection is closed")
            try:
                count = self._socket.recv_into(target)
            except BlockingIOError:
                await self._wait(trio.lowlevel.wait_readable)
                continue
            except OSError as error:
                raise ConnectionLost(f"receiving failed: {error.strerror}") from error
            if count == 0:
                raise ConnectionLost("the server closed the connection")
            # Less than there was room for: the next attempt would most likely find nothing.
            self._drained = count < len(target)
            return count

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        """Wait for the socket in one direction."""
        if self._closed:
            # Of a descriptor that is gone trio would remember that somebody waits for it, and refuse the next one.
            raise ConnectionLost("the connection is closed")
        try:
            await wait(self._socket)
        except (trio.ClosedResourceError, ValueError, OSError) as error:
            raise ConnectionLost("the connection is closed") from error

    def reset(self) -> None:
        """End the connection, also one that was given up, and drop what the kernel holds of it."""
        self._abandon = None
        if self._before_reset is not None:
            self._before_reset(self._socket)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        if self._closed:
            self._socket.close()
        self.close()

    def progress(self) -> int:
        """Return how many bytes have come in and how many of ours the peer's kernel has."""
        traffic = self.traffic()
        return traffic.received + traffic.sent

    def traffic(self) -> Traffic:
        """Return what the kernel has counted of the connection."""
        try:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TRAFFIC.size)
            round_trip, repeated, sent, received = TRAFFIC.unpack(told)
        except (OSError, struct.error):
            return Traffic()
        return Traffic(received, sent, repeated, round_trip / 1e6)

    @property
    def ends(self) -> tuple[str, str]:
        """The addresses of this end and of the other."""
        return self._ends

    def close(self) -> None:
        """Close the socket and wake whoever waits for it."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            if self._abandon is not None and _is_unheard(self._socket):
                self._abandon(self._socket)
            else:
                self._socket.close()


def _is_unheard(sock: socket.socket) -> bool:
    """Whether something was sent, and sent again, of which the other end has not said that it came."""
    try:
        return all(UNHEARD.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNHEARD.size)))
    except (OSError, struct.error):
        return False


def _behind(buffers: list[Buffer], sent: int) -> list[Buffer]:
    """Return what follows the first `sent` bytes of a list of buffers, without copying."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[index + 1 :]]
        sent -= len(buffer)
    return []


def _describe(sock: socket.socket) -> str:
    """Return "local -> remote" of a connected socket."""
    try:
        (local, port), (remote, remote_port) = sock.getsockname()[:2], sock.getpeername()[:2]
    except (OSError, ValueError):
        return "unnamed"
    return f"{local}:{port} -> {remote}:{remote_port}"


def _ends(sock: socket.socket) -> tuple[str, str]:
    """Return the addresses of a connected socket without their ports, empty where it has none."""
    try:
        return sock.getsockname()[0], sock.getpeername()[0]
    except (OSError, IndexError):
        return "", ""


def tune(sock: trio.socket.SocketType) -> None:
    """Set the options that every connection of ours wants."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, KERNEL_PATIENCE_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with suppress(OSError):  # an older kernel
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, LONGEST_RETRANSMISSION_MS)
