"""The published example of reading a file, [MS-SMB2] 4.5: its fields, laid out here by hand from section 2.2.

The specification lists field values rather than bytes; the bytes below are put together from its tables of offsets.
"""

from __future__ import annotations

from typing import Any

import pytest

from smb3fs.wire.create import AccessMask, CreateAction, CreateRequest, CreateResponse, Disposition, FileId, OplockLevel
from smb3fs.wire.header import FLAG_RESPONSE, Command, Header
from smb3fs.wire.io import CloseRequest, CloseResponse, ReadRequest, ReadResponse

FILE = FileId(17, 0xFFFFFFFF00000009)
FILE_BYTES = "1100000000000000 09000000ffffffff"


def header_bytes(command: int, message_id: int, credits_: int, flags: int) -> bytes:
    """The header of every message of the example: tree 5, session 0x40000000011, not signed."""
    return bytes.fromhex(
        "fe534d42 4000 0000 00000000"
        f"{command:02x}00 {credits_:02x}00 {flags:02x}000000 00000000"
        f"{message_id:02x}00000000000000 00000000 05000000 1100000000040000"
        "00000000000000000000000000000000"
    )


EXAMPLES: list[tuple[Header, Any, bytes]] = [
    (
        Header(Command.CREATE, 10, credits=111, tree_id=5, session_id=0x40000000011),
        CreateRequest(
            "testfile.txt",
            AccessMask.READ_DATA
            | AccessMask.READ_EA
            | AccessMask.READ_ATTRIBUTES
            | AccessMask.READ_CONTROL
            | AccessMask.SYNCHRONIZE,
            Disposition.OPEN,
            create_options=0x60,
            file_attributes=0x80,
            share_access=3,
            oplock_level=OplockLevel.BATCH,
            contexts=[],
        ),
        header_bytes(5, 10, 111, 0)
        + bytes.fromhex(
            "3900 00 09 02000000 0000000000000000 0000000000000000 89001200 80000000 03000000 01000000 60000000"
            "7800 1800 00000000 00000000"
        )
        + "testfile.txt".encode("utf-16-le"),
    ),
    (
        Header(Command.CREATE, 10, credits=1, flags=FLAG_RESPONSE, tree_id=5, session_id=0x40000000011),
        CreateResponse(
            OplockLevel.BATCH,
            9,
            CreateAction.OPENED,
            0x1C6A6C24D51DF20,
            0x1C6A6C2500DB360,
            0x1C6A6C2500DB360,
            0x1C6A6C2500DB360,
            104,
            98,
            0x20,
            FILE,
        ),
        header_bytes(5, 10, 1, 1)
        + bytes.fromhex(
            "5900 09 09 01000000 20df514dc2a6c601 60b30d50c2a6c601 60b30d50c2a6c601 60b30d50c2a6c601"
            f"6800000000000000 6200000000000000 20000000 00000000 {FILE_BYTES} 00000000 00000000"
        ),
    ),
    (
        Header(Command.READ, 11, credits=111, tree_id=5, session_id=0x40000000011),
        ReadRequest(FILE, 0, 98),
        header_bytes(8, 11, 111, 0)
        + bytes.fromhex(f"3100 50 00 62000000 0000000000000000 {FILE_BYTES} 00000000 00000000 00000000 0000 0000 00"),
    ),
    (
        Header(Command.READ, 11, credits=1, flags=FLAG_RESPONSE, tree_id=5, session_id=0x40000000011),
        ReadResponse(memoryview(bytes(range(98)))),
        header_bytes(8, 11, 1, 1) + bytes.fromhex("1100 50 00 62000000 00000000 00000000") + bytes(range(98)),
    ),
    (
        Header(Command.CLOSE, 12, credits=111, tree_id=5, session_id=0x40000000011),
        CloseRequest(FileId(9, 0xFFFFFFFF00000001), flags=1),
        header_bytes(6, 12, 111, 0) + bytes.fromhex("1800 0100 00000000 0900000000000000 01000000ffffffff"),
    ),
    (
        Header(Command.CLOSE, 12, credits=1, flags=FLAG_RESPONSE, tree_id=5, session_id=0x40000000011),
        CloseResponse(
            1, 0x1C6A6C1CC0B9280, 0x1C6A6C259FE5140, 0x1C6A6C24D51DF20, 0x1C6A6C24D51DF20, 0, 0, file_attributes=0x10
        ),
        header_bytes(6, 12, 1, 1)
        + bytes.fromhex(
            "3c00 0100 00000000 80920bccc1a6c601 4051fe59c2a6c601 20df514dc2a6c601 20df514dc2a6c601"
            "0000000000000000 0000000000000000 10000000"
        ),
    ),
]


@pytest.mark.parametrize(
    ("header", "record", "message"), EXAMPLES, ids=[type(record).__name__ for _, record, _ in EXAMPLES]
)
def test_reading_a_file(header: Header, record: Any, message: bytes) -> None:
    assert header.encode() + record.encode() == message
    assert Header.parse(memoryview(message)) == header
    assert type(record).parse(memoryview(message)) == record
