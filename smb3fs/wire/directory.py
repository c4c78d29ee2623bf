"""A page of a directory listing: FileIdFullDirectoryInformation ([MS-FSCC] 2.4.24)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import from_utf16, pad8, unpack_at, utf16
from smb3fs.wire.create import FileAttribute

# [MS-FSCC] 2.4.24: NextEntryOffset, FileIndex, CreationTime, LastAccessTime, LastWriteTime, ChangeTime, EndOfFile,
# AllocationSize, FileAttributes, FileNameLength, EaSize, Reserved, FileId
_ENTRY: Final = Struct("<IIQQQQQQIIIIQ")
_NEXT: Final = Struct("<I")
# NextEntryOffset and FileNameLength alone
_CHAIN: Final = Struct("<I56xI")
# FileId alone, CreationTime likewise; FileAttributes and EaSize, which holds the tag of a reparse point
_FILE_ID: Final = Struct("<Q")
_POINT: Final = Struct("<56xI4xI")


@dataclass(slots=True)
class DirectoryEntry:
    """One name in a directory, with the attributes of what it stands for; whether the name is usable is not asked."""

    name: str
    file_id: int
    file_attributes: int
    end_of_file: int
    allocation_size: int
    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    ea_size: int
    file_index: int = 0
    # What the POSIX extensions tell and this kind of page does not.
    owned: ClassVar[None] = None

    @property
    def reparse_tag(self) -> int:
        """The kind of reparse point of an entry that is one: EaSize holds it then."""
        return self.ea_size

    def encode(self) -> bytes:
        """Return the entry as the last one of a page."""
        name = utf16(self.name)
        return (
            _ENTRY.pack(
                0,
                self.file_index,
                self.creation_time,
                self.last_access_time,
                self.last_write_time,
                self.change_time,
                self.end_of_file,
                self.allocation_size,
                self.file_attributes,
                len(name),
                self.ea_size,
                0,
                self.file_id,
            )
            + name
        )

    @classmethod
    def parse_at(cls, page: memoryview, offset: int) -> Self:
        """Read the entry at `offset`, which `entry_offsets` gave."""
        (
            _next_entry_offset,
            file_index,
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            end_of_file,
            allocation_size,
            file_attributes,
            name_length,
            ea_size,
            _reserved,
            file_id,
        ) = unpack_at(_ENTRY, page, offset)
        start = offset + _ENTRY.size
        end = start + name_length
        if end > len(page):
            raise WireError(f"a name of {name_length} bytes at offset {start} of a page of {len(page)}")
        return cls(
            from_utf16(page[start:end]),
            file_id,
            file_attributes,
            end_of_file,
            allocation_size,
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            ea_size,
            file_index,
        )

    @staticmethod
    def name_at(page: memoryview, offset: int) -> bytes:
        """Read no more than the name, as UTF-16, of the entry at `offset`, which `entry_offsets` gave."""
        _, length = _CHAIN.unpack_from(page, offset)
        start = offset + _ENTRY.size
        return bytes(page[start : start + length])


def replace_file_ids(page: bytearray, change: Callable[[int], int]) -> None:
    """Change the FileId of every entry of a page in its place."""
    for offset in entry_offsets(memoryview(page)):
        place = offset + _ENTRY.size - _FILE_ID.size
        _FILE_ID.pack_into(page, place, change(*_FILE_ID.unpack_from(page, place)))


def erase_identity(page: bytearray, tag: int) -> None:
    """Take FileId and CreationTime from the entries of a page that are reparse points with this tag."""
    for offset in entry_offsets(memoryview(page)):
        attributes, ea_size = _POINT.unpack_from(page, offset)
        if attributes & FileAttribute.REPARSE_POINT and ea_size == tag:
            _FILE_ID.pack_into(page, offset + _ENTRY.size - _FILE_ID.size, 0)
            _FILE_ID.pack_into(page, offset + _NEXT.size * 2, 0)


def encode_page(entries: Sequence[DirectoryEntry]) -> bytes:
    """Return the entries as one page."""
    page = bytearray()
    last = 0
    for entry in entries:
        start = pad8(len(page))
        if start:
            page += bytes(start - len(page))
            _NEXT.pack_into(page, last, start - last)
        page += entry.encode()
        last = start
    return bytes(page)


def entry_offsets(page: memoryview) -> array[int]:
    """Return where each entry of a page begins; every one of them, with its name, lies inside of the page."""
    offsets = array("L")
    offset, end = 0, len(page)
    while offset < end:
        step, name_length = unpack_at(_CHAIN, page, offset)
        size = _ENTRY.size + name_length
        if offset + size > end:
            raise WireError(f"an entry of {size} bytes at offset {offset} of a page of {end}")
        offsets.append(offset)
        if not step:
            break
        if step < size or step > end - offset:
            raise WireError(f"NextEntryOffset {step} of an entry of {size} bytes, {end - offset} before the end")
        offset += step
    return offsets
