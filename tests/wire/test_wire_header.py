"""Headers, compounds, the transform header, and what a channel asks of a request."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.errors import WireError
from smb3fs.wire.control import CancelRequest, EchoRequest
from smb3fs.wire.create import CreateRequest, FileId
from smb3fs.wire.header import (
    FLAG_ASYNC,
    FLAG_RELATED,
    HEADER_SIZE,
    MAX_COMPOUND,
    Command,
    Header,
    Request,
    TransformHeader,
    is_transform,
    split_compound,
)
from smb3fs.wire.io import CloseRequest, FlushRequest, ReadRequest, WriteRequest
from smb3fs.wire.ioctl import IoctlRequest
from smb3fs.wire.negotiate import NegotiateRequest
from smb3fs.wire.query import QueryDirectoryRequest, QueryInfoRequest, SetInfoRequest
from smb3fs.wire.session import LogoffRequest, SessionSetupRequest
from smb3fs.wire.tree import TreeConnectRequest, TreeDisconnectRequest

FILE = FileId(3, 4)


def compound(*bodies: bytes) -> bytes:
    """Messages one behind the other, each padded to a multiple of 8 except the last."""
    message = b""
    for number, body in enumerate(bodies, 1):
        padded = body if number == len(bodies) else body.ljust(-(-len(body) // 8) * 8, b"\0")
        header = Header(Command.ECHO, number, flags=FLAG_RELATED if number > 1 else 0)
        message += header.encode(0 if number == len(bodies) else HEADER_SIZE + len(padded)) + padded
    return message


def with_next(message: bytes, offset: int, value: int) -> memoryview:
    """The message with another NextCommand in the header at `offset`."""
    changed = bytearray(message)
    struct.pack_into("<I", changed, offset + 20, value)
    return memoryview(changed)


def test_async_id_takes_the_place_of_the_tree() -> None:
    header = Header(Command.READ, 7, flags=FLAG_ASYNC, async_id=0x1122334455667788)
    data = header.encode()
    assert data[32:40] == bytes.fromhex("8877665544332211")
    assert Header.parse(memoryview(data)) == header
    data = Header(Command.READ, 7, tree_id=0x11223344).encode()
    assert data[32:40] == bytes.fromhex("00000000 44332211")


@pytest.mark.parametrize("offset", [0, 3, 4, 5])
def test_what_is_no_header(offset: int) -> None:
    data = bytearray(Header(Command.ECHO, 0).encode())
    data[offset] ^= 0x20
    with pytest.raises(WireError, match="not an SMB2 header"):
        Header.parse(memoryview(data))


@given(bodies=st.lists(st.binary(max_size=20), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_compound_comes_apart_with_its_padding(bodies: list[bytes]) -> None:
    message = compound(*bodies)
    elements = split_compound(memoryview(message))
    assert b"".join(elements) == message
    assert [Header.parse(element).message_id for element in elements] == list(range(1, len(bodies) + 1))
    for element, body in zip(elements, bodies, strict=True):
        assert bytes(element[HEADER_SIZE : HEADER_SIZE + len(body)]) == body


@pytest.mark.parametrize("step", [1, 8, 56, 63, 65, 68, 144 + 8, 2**32 - 8])
def test_next_command_that_leads_nowhere(step: int) -> None:
    message = compound(bytes(8), bytes(8))
    with pytest.raises(WireError, match=f"NextCommand {step} with 144 bytes left"):
        split_compound(with_next(message, 0, step))


def test_next_command_to_the_very_end() -> None:
    """No header is left behind it, however well it is aligned."""
    message = compound(bytes(8))
    with pytest.raises(WireError, match="too few"):
        split_compound(with_next(message, 0, len(message)))


def test_every_cut_of_a_compound_is_noticed_or_harmless() -> None:
    message = compound(bytes(9), bytes(16), bytes(5))
    for length in range(len(message) - 5):
        with pytest.raises(WireError):
            split_compound(memoryview(message)[:length])
    assert len(split_compound(memoryview(message)[:-5])) == 3


def test_a_compound_has_an_end() -> None:
    assert len(split_compound(memoryview(compound(*[b""] * MAX_COMPOUND)))) == MAX_COMPOUND
    with pytest.raises(WireError, match="more than"):
        split_compound(memoryview(compound(*[b""] * (MAX_COMPOUND + 1))))


@given(junk=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_splitting_random_bytes_does_no_more_than_raise(junk: bytes) -> None:
    for message in (junk, b"\xfeSMB" + junk):
        try:
            elements = split_compound(memoryview(message))
        except WireError:
            continue
        assert b"".join(elements) == message


def test_transform_header() -> None:
    """Laid out from the table of [MS-SMB2] 2.2.41."""
    header = TransformHeader(0x1122334455667788, 0x0A0B0C0D, bytes(range(16)), bytes(range(16, 32)))
    data = header.encode()
    assert data == bytes.fromhex(
        "fd534d42 101112131415161718191a1b1c1d1e1f 000102030405060708090a0b0c0d0e0f 0d0c0b0a 0000 0100 8877665544332211"
    )
    assert len(data) == TransformHeader.SIZE == 52
    assert header.associated_data == data[20:]
    assert len(header.associated_data) == 32
    assert is_transform(memoryview(data + b"sealed"))
    assert not is_transform(memoryview(Header(Command.ECHO, 0).encode()))
    assert not is_transform(memoryview(b"\xfdSM"))
    with pytest.raises(WireError, match="not a transform header"):
        TransformHeader.parse(memoryview(b"\xfe" + data[1:]))


REQUESTS: list[tuple[Request, Command, int]] = [
    (NegotiateRequest([0x0311], 1, 0, bytes(16)), Command.NEGOTIATE, 0),
    (SessionSetupRequest(b"token"), Command.SESSION_SETUP, 0),
    (LogoffRequest(), Command.LOGOFF, 0),
    (TreeConnectRequest(r"\\server\share"), Command.TREE_CONNECT, 0),
    (TreeDisconnectRequest(), Command.TREE_DISCONNECT, 0),
    (CreateRequest("name", 1, 1), Command.CREATE, 0),
    (CloseRequest(FILE), Command.CLOSE, 0),
    (FlushRequest(FILE), Command.FLUSH, 0),
    (ReadRequest(FILE, 0, 65537), Command.READ, 65537),
    (WriteRequest(FILE, 0, bytearray(70000)), Command.WRITE, 70000),
    (IoctlRequest(1, FILE, b"four", 24), Command.IOCTL, 24),
    (IoctlRequest(1, FILE, b"four", 0), Command.IOCTL, 4),
    (CancelRequest(), Command.CANCEL, 0),
    (EchoRequest(), Command.ECHO, 0),
    (QueryDirectoryRequest(FILE, 38, 1 << 20), Command.QUERY_DIRECTORY, 1 << 20),
    (QueryInfoRequest(FILE, 1, 18, 4096), Command.QUERY_INFO, 4096),
    (QueryInfoRequest(FILE, 1, 18, 2, input=b"four"), Command.QUERY_INFO, 4),
    (SetInfoRequest(FILE, 1, 4, bytes(40)), Command.SET_INFO, 40),
]


@pytest.mark.parametrize(
    ("request_", "command", "size"), REQUESTS, ids=[f"{type(request).__name__}-{size}" for request, _, size in REQUESTS]
)
def test_what_a_channel_asks_of_a_request(request_: Request, command: Command, size: int) -> None:
    assert request_.command is command
    assert request_.credit_size == size
    if isinstance(request_, WriteRequest):
        assert request_.payload is request_.data  # the data are sent from where they lie
        assert len(request_.encode()) == 48
    else:
        assert request_.payload == b""
