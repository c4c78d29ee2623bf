"""Security identifiers: their text, their limits, and what they say about Unix accounts."""

from __future__ import annotations

import pytest

from smb3fs.errors import WireError
from smb3fs.wire import sid
from smb3fs.wire.sid import Sid


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("S-1-0-0", "0101000000000000 00000000"),
        ("S-1-5-32-544", "0102000000000005 20000000 20020000"),
        ("S-1-22-1-1000", "0102000000000016 01000000 e8030000"),
        ("S-1-0x100000000001-7", "0101100000000001 07000000"),
        ("S-1-5", "0100000000000005"),
    ],
)
def test_text_and_bytes_say_the_same(text: str, data: str) -> None:
    made = Sid.from_text(text)
    assert made.encode() == bytes.fromhex(data)
    assert Sid.parse(bytes.fromhex(data)) == made
    assert str(made) == text
    assert made.size == len(made.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S-1",
        "S-2-5-1",
        "S-1-5-",
        "S-1-5-x",
        "S-1-5-4294967296",
        "S-1-281474976710656",
        "S-1-5" + "-1" * 16,
        "S-1-٥",
    ],
)
def test_what_is_no_sid(text: str) -> None:
    with pytest.raises(ValueError, match="no SID"):
        Sid.from_text(text)


@pytest.mark.parametrize(
    "data", ["", "01", "0201000000000000 00000000", "0110000000000000" + "00000000" * 16, "01020000000000050000"]
)
def test_bytes_that_are_no_sid(data: str) -> None:
    with pytest.raises(WireError):
        Sid.parse(bytes.fromhex(data))


def test_a_sid_is_read_where_it_stands() -> None:
    data = b"\xff" * 3 + Sid(5, (18,)).encode() + Sid(5, (32, 544)).encode()
    first = Sid.parse_at(data, 3)
    assert str(first) == "S-1-5-18"
    assert str(Sid.parse_at(data, 3 + first.size)) == "S-1-5-32-544"


def test_unix_accounts() -> None:
    assert sid.unix_user(Sid.from_text("S-1-22-1-1000")) == 1000
    assert sid.unix_group(Sid.from_text("S-1-22-2-100")) == 100
    assert sid.unix_user(Sid.from_text("S-1-5-88-1-1000")) == 1000
    assert sid.unix_group(Sid.from_text("S-1-5-88-2-100")) == 100
    assert sid.unix_user(sid.of_unix_user(7)) == 7
    assert sid.unix_group(sid.of_unix_group(8)) == 8
    assert sid.mode_of(sid.of_mode(0o640)) == 0o640
    for other in ("S-1-0-0", "S-1-5-21-1-2-3-1000", "S-1-22-3-1", "S-1-22-1", "S-1-22-1-1-1", "S-1-5-88-1-1-1"):
        told = Sid.from_text(other)
        assert (sid.unix_user(told), sid.unix_group(told), sid.mode_of(told)) == (None, None, None)
    assert sid.unix_group(sid.of_unix_user(7)) is None
    assert sid.unix_user(sid.of_unix_group(7)) is None
