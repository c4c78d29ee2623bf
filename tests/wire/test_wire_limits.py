"""Where parsers are strict (what points outside of the message) and where they are not (what is only untidy)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smb3fs.errors import WireError
from smb3fs.wire.codec import (
    EPOCH_AS_FILETIME,
    MAX_FILETIME,
    filetime_to_ns,
    from_utf16,
    ns_to_filetime,
    pad8,
    slice_checked,
    utf16,
)
from smb3fs.wire.control import ErrorResponse
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, FileId, encode_contexts, parse_contexts
from smb3fs.wire.header import HEADER_SIZE, Command, Header
from smb3fs.wire.infoclass import FileDispositionInformation, FileRenameInformation, FileStandardInformation
from smb3fs.wire.io import ReadResponse
from smb3fs.wire.ioctl import IoctlResponse
from smb3fs.wire.negotiate import Encryption, NegotiateResponse, PreauthIntegrity, UnknownContext
from smb3fs.wire.query import QueryInfoRequest, QueryInfoResponse
from smb3fs.wire.session import SessionSetupResponse

HEADER = Header(Command.ECHO, 1).encode()
FILE = FileId(3, 4)


def patched(body: bytes, layout: str, offset: int, value: int) -> memoryview:
    """A message whose body has another value at `offset`."""
    changed = bytearray(HEADER + body)
    struct.pack_into(layout, changed, HEADER_SIZE + offset, value)
    return memoryview(changed)


def test_data_are_views_of_the_message() -> None:
    message = bytearray(HEADER + ReadResponse(memoryview(b"some data")).encode())
    data = ReadResponse.parse(memoryview(message)).data
    message[-1] = ord("!")
    assert data == b"some dat!"


@pytest.mark.parametrize("offset", [0, 4, 64, 79, 82, 255])
def test_read_data_lie_behind_the_fixed_part_and_inside(offset: int) -> None:
    """An offset into the header would pass the header off as the contents of a file."""
    body = ReadResponse(memoryview(b"contents")).encode()
    assert ReadResponse.parse(patched(body, "<B", 2, 80)).data == b"contents"
    with pytest.raises(WireError):
        ReadResponse.parse(patched(body, "<B", 2, offset))
    with pytest.raises(WireError):
        ReadResponse.parse(patched(body, "<I", 4, 2**32 - 1))


@pytest.mark.parametrize("offset", [0, 72, 80, 0xFFFF])
def test_an_empty_part_may_stand_anywhere(offset: int) -> None:
    empty = memoryview(b"")
    assert QueryInfoResponse.parse(patched(QueryInfoResponse(empty).encode(), "<H", 2, offset)).data == b""
    assert ReadResponse.parse(patched(ReadResponse(empty).encode(), "<B", 2, offset & 0xFF)).data == b""
    setup = patched(SessionSetupResponse(0, b"").encode(), "<H", 4, offset)
    assert SessionSetupResponse.parse(setup).security_buffer == b""
    ioctl = patched(IoctlResponse(1, FILE, b"").encode(), "<I", 32, offset)
    assert IoctlResponse.parse(ioctl).output == b""
    request = patched(QueryInfoRequest(FILE, 1, 4, 40).encode(), "<H", 8, offset)
    assert QueryInfoRequest.parse(request).input == b""


def test_the_byte_that_an_odd_structure_size_counts_may_be_missing() -> None:
    assert ErrorResponse().encode() == bytes.fromhex("0900 00 00 00000000 00")
    assert ErrorResponse.parse(memoryview(HEADER + ErrorResponse().encode()[:8])) == ErrorResponse()
    older = NegotiateResponse(1, 0x0302, bytes(16), 0, 65536, 65536, 65536, 0, b"")
    assert len(older.encode()) == 64
    assert NegotiateResponse.parse(memoryview(HEADER + older.encode())) == older


@pytest.mark.parametrize("wrong", [0, 8, 10, 88, 90])
def test_the_structure_size_is_the_one_of_the_message(wrong: int) -> None:
    with pytest.raises(WireError, match="StructureSize"):
        ErrorResponse.parse(patched(ErrorResponse().encode(), "<H", 0, wrong))


def negotiated(*contexts: PreauthIntegrity | Encryption | UnknownContext) -> NegotiateResponse:
    """An answer that chooses 3.1.1."""
    return NegotiateResponse(1, 0x0311, bytes(16), 0, 65536, 65536, 65536, 0, b"spnego", list(contexts))


def test_negotiate_contexts() -> None:
    """Any order, unknown ones too; the last one padded or not."""
    response = negotiated(UnknownContext(0x7FFF, b"\x93\xad"), Encryption([0]), PreauthIntegrity([1], b"salt"))
    message = HEADER + response.encode()
    assert NegotiateResponse.parse(memoryview(message)) == response
    assert len(message) % 8
    assert NegotiateResponse.parse(memoryview(message.ljust(pad8(len(message)), b"\0"))) == response


def test_a_negotiate_context_ends_with_the_message() -> None:
    message = HEADER + negotiated(Encryption([2]), Encryption([2])).encode()
    for cut in range(1, 12):
        with pytest.raises(WireError):
            NegotiateResponse.parse(memoryview(message)[:-cut])
    with pytest.raises(WireError):
        NegotiateResponse.parse(patched(negotiated(Encryption([2])).encode(), "<H", 6, 0xFFFF))


def test_counts_inside_of_a_negotiate_context() -> None:
    for data in (b"", b"\x01", b"\x02\0\x01\0", b"\xff\xff"):
        with pytest.raises(WireError):
            Encryption.parse(memoryview(data))
    for data in (b"\x01\0\0", b"\x02\0\0\0\x01\0", b"\x01\0\x05\0\x01\0salt"):
        with pytest.raises(WireError):
            PreauthIntegrity.parse(memoryview(data))


def test_create_contexts_by_the_byte() -> None:
    """[MS-SMB2] 2.2.13.2: names and data at multiples of 8, Next 0 in the last one, no padding behind it."""
    chain = encode_contexts([CreateContext(b"QFid"), CreateContext(b"MxAc", b"12345678")])
    assert chain == bytes.fromhex(
        "18000000 1000 0400 0000 0000 00000000 51466964 00000000"
        "00000000 1000 0400 0000 1800 08000000 4d784163 00000000 3132333435363738"
    )
    assert parse_contexts(memoryview(chain)) == [CreateContext(b"QFid"), CreateContext(b"MxAc", b"12345678")]


@pytest.mark.parametrize("step", [1, 8, 15, 2**32 - 1, 0x31])
def test_a_create_context_leads_forward_and_inside(step: int) -> None:
    chain = bytearray(encode_contexts([CreateContext(b"QFid"), CreateContext(b"MxAc", b"12345678")]))
    struct.pack_into("<I", chain, 0, step)
    with pytest.raises(WireError):
        parse_contexts(memoryview(chain))


def test_the_root_of_the_share_with_contexts() -> None:
    """An empty name: its offset is still where the buffer begins, and the contexts take its place."""
    body = CreateRequest("", 0x80, 1, contexts=[CreateContext(b"QFid")]).encode()
    assert struct.unpack_from("<HHII", body, 44) == (120, 0, 120, 20)
    assert len(CreateRequest("", 0x80, 1).encode()) == 57
    assert CreateRequest.parse(memoryview(HEADER + body)).contexts == [CreateContext(b"QFid")]


def test_create_contexts_of_a_response_stay_inside() -> None:
    response = CreateResponse(0, 0, 1, 1, 2, 3, 4, 5, 6, 32, FILE, [CreateContext(b"QFid", bytes(32))])
    body = response.encode()
    for offset, value in ((80, 64), (80, 2**32 - 1), (84, len(body)), (84, 2**32 - 1)):
        with pytest.raises(WireError):
            CreateResponse.parse(patched(body, "<I", offset, value))


def test_names_of_any_units() -> None:
    assert utf16("ä\U0001f600") == bytes.fromhex("e400 3dd8 00de")
    assert from_utf16(bytes.fromhex("00dc 00d8")) == "\udc00\ud800"
    assert utf16("\udc00\ud800") == bytes.fromhex("00dc 00d8")
    with pytest.raises(WireError, match="3 bytes are no UTF-16"):
        from_utf16(b"abc")


def test_slices() -> None:
    pdu = memoryview(b"0123456789")
    assert slice_checked(pdu, 4, 6) == b"456789"
    assert slice_checked(pdu, 99, 0) == b""
    for offset, length, floor in ((4, 7, 0), (10, 1, 0), (3, 2, 4), (2**32, 2**32, 0)):
        with pytest.raises(WireError):
            slice_checked(pdu, offset, length, floor)


def test_padding() -> None:
    assert [pad8(n) for n in (0, 1, 7, 8, 9)] == [0, 8, 8, 8, 16]


def test_times() -> None:
    assert filetime_to_ns(0) == ns_to_filetime(0) == 0
    # A CreationTime of [MS-SMB2] 4.5: 2006-07-13 21:21:27.7715232 UTC.
    assert filetime_to_ns(0x1C6A6C24D51DF20) == 1_152_825_687_771_523_200
    assert filetime_to_ns(EPOCH_AS_FILETIME + 1) == 100
    assert ns_to_filetime(-100) == EPOCH_AS_FILETIME - 1
    assert ns_to_filetime(199) == EPOCH_AS_FILETIME + 1
    # Before 1601 and beyond the year 30828 there is no FILETIME; 0 and negative numbers would be orders.
    assert ns_to_filetime(-(10**30)) == 1
    assert ns_to_filetime(10**30) == MAX_FILETIME
    for order in (2**63, 2**64 - 1, 2**64 - 2):
        assert filetime_to_ns(order) == 0


@given(filetime=st.integers(1, MAX_FILETIME).filter(lambda filetime: filetime != EPOCH_AS_FILETIME))
@settings(max_examples=100, deadline=None)
def test_a_time_comes_back_as_it_went(filetime: int) -> None:
    assert ns_to_filetime(filetime_to_ns(filetime)) == filetime


def test_booleans_are_any_byte_but_zero() -> None:
    assert FileDispositionInformation.parse(b"\x80") == FileDispositionInformation(True)
    parsed = FileStandardInformation.parse(bytes(20) + b"\xff\x02\0\0")
    assert (parsed.delete_pending, parsed.directory) == (True, True)


def test_a_short_new_name_is_padded() -> None:
    """[MS-FSCC] 2.4.42.2: at least 24 bytes."""
    assert FileRenameInformation(True, "b").encode() == bytes.fromhex(
        "01 00000000000000 0000000000000000 02000000 6200 0000"
    )
    assert FileRenameInformation.parse(FileRenameInformation(True, "b").encode()).name == "b"
    with pytest.raises(WireError):
        FileRenameInformation.parse(FileRenameInformation(True, "long name").encode()[:-1])
