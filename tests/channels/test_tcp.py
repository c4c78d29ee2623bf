"""The TCP transport over real sockets: framing however the bytes fall, limits, closing."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import real_time_test, settle

from smb3fs.channels.tcp import LIMIT_BEFORE_NEGOTIATE, MAX_FRAME, STAGING_SIZE, TcpTransport
from smb3fs.errors import ConnectionLost, WireError

SMALLEST = 52  # a transform header


@contextmanager
def pair(buffer: int | None = None) -> Iterator[tuple[TcpTransport, socket.socket]]:
    """A transport, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    if buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    theirs.settimeout(10)
    transport = TcpTransport(ours)
    with theirs:
        try:
            yield transport, theirs
        finally:
            transport.close()


def framed(*messages: bytes) -> bytes:
    """What a peer puts on the wire."""
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def message(size: int, seed: int = 0) -> bytes:
    """A message that is like no other."""
    return random.Random(seed * 1_000_003 + size).randbytes(size)


# -- receiving


@real_time_test
async def test_a_message_that_is_cut_anywhere_is_put_together() -> None:
    expected = [message(SMALLEST), message(60, 1), message(77, 2)]
    stream = framed(*expected)
    for cut in range(1, len(stream)):
        with pair() as (transport, peer):
            peer.send(stream[:cut])
            received = []

            async def reader(transport: TcpTransport = transport, received: list[bytes] = received) -> None:
                received.extend([bytes(await transport.receive()) for _ in expected])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await settle()
                peer.send(stream[cut:])
            assert received == expected


@real_time_test
async def test_what_is_closed_is_not_waited_for() -> None:
    """Not even once: trio would remember it, and refuse the next transport that does so."""
    for _ in range(3):
        with pair() as (transport, peer):
            peer.send(framed(message(SMALLEST)))
            await transport.receive()
            transport.close()
            with pytest.raises(ConnectionLost):
                await transport.receive()


@real_time_test
async def test_byte_by_byte() -> None:
    expected = [message(SMALLEST), message(100, 1)]
    with pair() as (transport, peer):

        async def writer() -> None:
            for byte in framed(*expected):
                peer.send(bytes([byte]))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            for each in expected:
                assert bytes(await transport.receive()) == each


@real_time_test
async def test_many_messages_in_one_segment() -> None:
    expected = [message(SMALLEST + index % 60, index) for index in range(2000)]
    with pair() as (transport, peer):
        peer.setblocking(False)
        stream = memoryview(framed(*expected))

        async def writer() -> None:
            rest = stream
            while rest:
                await trio.lowlevel.wait_writable(peer)
                rest = rest[peer.send(rest) :]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            for each in expected:
                assert bytes(await transport.receive()) == each


# Sizes around which the staging buffer is exactly full, lacks one byte of a length, or ends inside of one.
edges = st.one_of(
    st.integers(SMALLEST, 200),
    st.integers(STAGING_SIZE - 12, STAGING_SIZE + 12),
    st.integers(STAGING_SIZE // 2 - 8, STAGING_SIZE // 2 + 8),
    st.integers(2 * STAGING_SIZE - 12, 2 * STAGING_SIZE + 12),
    st.sampled_from([100_000, LIMIT_BEFORE_NEGOTIATE]),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(edges, min_size=1, max_size=8), st.integers(0, 1 << 32), st.booleans())
def test_messages_of_all_sizes_in_segments_of_all_sizes(sizes: list[int], seed: int, fragmented: bool) -> None:
    rnd = random.Random(seed)
    expected = [message(size, index) for index, size in enumerate(sizes)]
    stream = framed(*expected)

    @real_time_test
    async def check() -> None:
        with pair() as (transport, peer):
            peer.setblocking(False)

            async def writer() -> None:
                rest = memoryview(stream)
                while rest:
                    count = rnd.choice([1, 3, 4, 5, 100, 4096, STAGING_SIZE - 1, STAGING_SIZE, STAGING_SIZE + 1])
                    try:
                        rest = rest[peer.send(rest[:count] if fragmented else rest) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(peer)
                    if rnd.random() < 0.5:
                        await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer)
                for each in expected:
                    received = await transport.receive()
                    assert not received.readonly
                    assert received == each

    check()


@real_time_test
async def test_a_message_belongs_to_its_receiver_alone() -> None:
    with pair() as (transport, peer):
        peer.send(framed(message(60, 1), message(60, 2)))
        first = await transport.receive()
        await transport.receive()
        peer.send(framed(message(60, 3)))
        await transport.receive()
        assert first == message(60, 1)


@pytest.mark.parametrize(
    "announced", [0, 1, SMALLEST - 1, LIMIT_BEFORE_NEGOTIATE + 1, MAX_FRAME, MAX_FRAME + 1, 2**32 - 1]
)
@real_time_test
async def test_a_length_beyond_reason_is_refused_before_anything_is_allocated(announced: int) -> None:
    with pair() as (transport, peer):
        peer.send(struct.pack(">I", announced))
        with pytest.raises(WireError):
            await transport.receive()


@real_time_test
async def test_the_limit_can_be_raised_but_not_beyond_a_frame() -> None:
    with pair() as (transport, peer):
        transport.limit = 1 << 30
        peer.send(struct.pack(">I", MAX_FRAME + 1))
        with pytest.raises(WireError):
            await transport.receive()
    with pair() as (transport, peer):
        transport.limit = 200_000
        peer.setblocking(False)
        async with trio.open_nursery() as nursery:

            async def writer() -> None:
                rest = memoryview(framed(message(200_000)))
                while rest:
                    await trio.lowlevel.wait_writable(peer)
                    rest = rest[peer.send(rest) :]

            nursery.start_soon(writer)
            assert await transport.receive() == message(200_000)


@pytest.mark.parametrize("sent", [0, 1, 3, 4, 10, 4 + SMALLEST - 1])
@real_time_test
async def test_the_end_inside_of_a_message_is_the_end(sent: int) -> None:
    with pair() as (transport, peer):
        peer.send(framed(message(SMALLEST))[:sent])
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionLost):
            await transport.receive()


# -- sending


@real_time_test
async def test_a_small_message_is_sent_at_once() -> None:
    with pair() as (transport, peer):
        assert transport.send_now([b"abc", bytearray(b""), memoryview(b"defg")]) == []
        assert peer.recv(100) == b"\0\0\0\x07abcdefg"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=6), st.integers(0, 1 << 32))
def test_a_message_of_many_buffers_arrives_whole_through_a_narrow_socket(sizes: list[int], seed: int) -> None:
    buffers = [message(size, seed + index) for index, size in enumerate(sizes)]

    @real_time_test
    async def check() -> None:
        with pair(4096) as (transport, peer):
            peer.setblocking(False)
            arrived = bytearray()
            total = 4 + sum(sizes)

            async def reader() -> None:
                while len(arrived) < total:
                    await trio.lowlevel.wait_readable(peer)
                    arrived.extend(peer.recv(50_000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                rest = transport.send_now(buffers)
                if rest:
                    await transport.send_rest(rest)
            assert arrived == framed(b"".join(buffers))

    check()


@real_time_test
async def test_more_buffers_than_one_call_takes() -> None:
    with pair() as (transport, peer):
        assert transport.send_now([b"ab"] * 3000) == []
        data = b""
        while len(data) < 6004:
            data += peer.recv(10_000)
        assert data == framed(b"ab" * 3000)


@real_time_test
async def test_buffers_are_left_as_they_are() -> None:
    with pair(4096) as (transport, _):
        data = bytearray(message(1_000_000))
        buffers = [b"head", data]
        rest = transport.send_now(buffers)
        assert buffers == [b"head", data]
        assert bytes(rest[-1]) == data[-len(rest[-1]) :]
        assert data == message(1_000_000)


@real_time_test
async def test_a_message_that_does_not_fit_into_a_frame_is_the_callers_fault() -> None:
    with pair() as (transport, _), pytest.raises(ValueError, match="frame"):
        transport.send_now([bytes(MAX_FRAME + 1)])


@real_time_test
async def test_sending_to_nobody() -> None:
    with pair() as (transport, peer):
        peer.close()
        with pytest.raises(ConnectionLost):
            transport.send_now([b"x"])


# -- closing


@real_time_test
async def test_closing_wakes_who_receives_and_who_sends() -> None:
    with pair(4096) as (transport, _):
        rest = transport.send_now([bytes(1_000_000)])
        lost = []

        async def waits(way: str) -> None:
            with pytest.raises(ConnectionLost):
                await (transport.receive() if way == "receive" else transport.send_rest(rest))
            lost.append(way)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, "receive")
            nursery.start_soon(waits, "send")
            await settle()
            transport.close()
            transport.close()
        assert sorted(lost) == ["receive", "send"]
        with pytest.raises(ConnectionLost):
            await transport.receive()
        with pytest.raises(ConnectionLost):
            transport.send_now([b"x"])
        with pytest.raises(ConnectionLost):
            await transport.send_rest([b"x"])


@real_time_test
async def test_a_reset_is_a_loss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = TcpTransport(socket.create_connection(server.getsockname()))
        peer, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionLost, match="reset"):
            await transport.receive()
        transport.close()
