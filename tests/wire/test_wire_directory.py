"""Pages of a listing: the chain of entries."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_records import ENTRY

from smb3fs.errors import WireError
from smb3fs.wire.codec import utf16
from smb3fs.wire.directory import DirectoryEntry, encode_page, entry_offsets, replace_file_ids
from smb3fs.wire.posix import PosixCreated, PosixDirectoryEntry, replace_posix_file_ids
from smb3fs.wire.sid import Sid

FIXED = 80  # [MS-FSCC] 2.4.24, up to FileName


def entry(name: str, file_id: int = 1) -> DirectoryEntry:
    """An entry of which only the name matters."""
    return DirectoryEntry(name, file_id, 0x20, 5, 8, 1, 2, 3, 4, 0)


def with_value(page: bytes, offset: int, value: int) -> memoryview:
    """The page with another 32-bit value at `offset`."""
    changed = bytearray(page)
    struct.pack_into("<I", changed, offset, value)
    return memoryview(changed)


def test_by_the_byte() -> None:
    """Laid out from the table of [MS-FSCC] 2.4.24."""
    first = DirectoryEntry("abc", 0x1234, 0x20, 0x55, 0x66, 0x11, 0x22, 0x33, 0x44, 0x77, 0x88)
    page = encode_page([first, entry("d")])
    assert page[:88] == bytes.fromhex(
        "58000000 88000000 1100000000000000 2200000000000000 3300000000000000 4400000000000000"
        "5500000000000000 6600000000000000 20000000 06000000 77000000 00000000 3412000000000000 610062006300 0000"
    )
    assert list(entry_offsets(memoryview(page))) == [0, 88]
    assert len(page) == 88 + FIXED + 2


@given(entries=st.lists(ENTRY, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_page_comes_back_as_it_went(entries: list[DirectoryEntry]) -> None:
    page = memoryview(encode_page(entries))
    offsets = entry_offsets(page)
    assert all(offset % 8 == 0 for offset in offsets)
    assert [DirectoryEntry.parse_at(page, offset) for offset in offsets] == entries
    assert [DirectoryEntry.name_at(page, offset) for offset in offsets] == [utf16(entry.name) for entry in entries]


@given(entries=st.lists(ENTRY, min_size=1, max_size=3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_the_walk_accepts_can_be_read(entries: list[DirectoryEntry], data: st.DataObject) -> None:
    """Whatever the bytes: an offset that was given out leads to an entry, or to a name of half a unit."""
    page = bytearray(encode_page(entries))
    for position in data.draw(st.lists(st.integers(0, len(page) - 1), max_size=6)):
        page[position] = data.draw(st.sampled_from([0, 1, 8, 0x50, 0x58, 0xFF]))
    view = memoryview(page)[: data.draw(st.integers(0, len(page)))]
    try:
        offsets = entry_offsets(view)
    except WireError:
        return
    assert sorted(set(offsets)) == list(offsets)
    for offset in offsets:
        (name_length,) = struct.unpack_from("<I", view, offset + 60)
        assert len(DirectoryEntry.name_at(view, offset)) == name_length
        if name_length % 2:
            with pytest.raises(WireError, match="no UTF-16"):
                DirectoryEntry.parse_at(view, offset)
        else:
            assert len(DirectoryEntry.parse_at(view, offset).name) <= name_length // 2


@given(junk=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_walking_random_bytes_does_no_more_than_raise(junk: bytes) -> None:
    try:
        offsets = entry_offsets(memoryview(junk))
    except WireError:
        return
    assert all(offset + FIXED <= len(junk) for offset in offsets)


def test_an_empty_page() -> None:
    assert list(entry_offsets(memoryview(b""))) == []
    assert encode_page([]) == b""


@pytest.mark.parametrize("step", [1, 8, FIXED - 8, FIXED, 84, 2**32 - 1])
def test_the_next_entry_begins_behind_this_one_and_inside(step: int) -> None:
    page = encode_page([entry("abc"), entry("d")])
    with pytest.raises(WireError):
        entry_offsets(with_value(page, 0, step))


def test_the_end_of_the_page_ends_the_chain() -> None:
    """The last entry may hold its own size in place of 0 ([MS-FSCC] 2.4.24, note)."""
    page = encode_page([entry("abcd")])
    assert list(entry_offsets(with_value(page, 0, len(page)))) == [0]


@pytest.mark.parametrize("length", [8, 2**32 - 1])
def test_a_name_stays_inside(length: int) -> None:
    page = with_value(encode_page([entry("abc")]), 60, length)
    with pytest.raises(WireError):
        entry_offsets(page)
    with pytest.raises(WireError):
        DirectoryEntry.parse_at(page, 0)


@pytest.mark.parametrize("name", ["..", "", "a/b", "nul\0", "CON", "\ud800"])
def test_names_are_not_judged_here(name: str) -> None:
    page = memoryview(encode_page([entry(name)]))
    assert DirectoryEntry.parse_at(page, 0).name == name


def test_file_ids_are_changed_where_they_stand() -> None:
    """Nothing else of a page changes, in either of its forms."""
    entries = [DirectoryEntry(f"name-{number}", number, 0x80, 1, 2, 3, 4, 5, 6, 7) for number in range(3)]
    page = bytearray(encode_page(entries))
    replace_file_ids(page, lambda file_id: file_id + 100)
    told = [DirectoryEntry.parse_at(memoryview(page), offset) for offset in entry_offsets(memoryview(page))]
    assert told == [replace(entry, file_id=entry.file_id + 100) for entry in entries]
    owned = PosixCreated(1, 0, 0o644, Sid(22, (1, 1000)), Sid(22, (2, 1000)))
    before = PosixDirectoryEntry("name", 7, 0x80, 5, 6, 1, 2, 3, 4, 8, owned)
    page = bytearray(before.encode())
    replace_posix_file_ids(page, lambda file_id: file_id ^ 2**63)
    after = PosixDirectoryEntry.parse_at(memoryview(page), 0)
    assert after == replace(before, file_id=7 ^ 2**63)
