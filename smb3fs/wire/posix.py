"""The SMB3 POSIX extensions: owners and modes as Unix has them (the draft "SMB3 POSIX Extensions", Samba's smb3posix).

Nothing in these layouts is aligned. A mode is no `st_mode`: its permission bits are, and the file's type is a small
number above them.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, from_utf16, pad8, slice_checked, unpack_at, utf16
from smb3fs.wire.sid import Sid

# The name of the create context, and the content of the negotiate context that offers and accepts the extensions.
POSIX_GUID: Final = bytes.fromhex("93AD25509CB411E7B42383DE968BCD7C")

PERMISSIONS: Final = 0o7777
# The types of a mode on the wire, in bits 12 to 14.
_TYPES: Final = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)
_TYPE_SHIFT: Final = 12
_TYPE_MASK: Final = 0x7


def mode_from_wire(mode: int) -> int:
    """Return the `st_mode` of a mode on the wire; a type that does not exist is a regular file."""
    type_ = mode >> _TYPE_SHIFT & _TYPE_MASK
    return (_TYPES[type_] if type_ < len(_TYPES) else stat.S_IFREG) | mode & PERMISSIONS


def mode_to_wire(mode: int) -> int:
    """Return the mode on the wire of an `st_mode`."""
    type_ = stat.S_IFMT(mode)
    return (_TYPES.index(type_) if type_ in _TYPES else 0) << _TYPE_SHIFT | mode & PERMISSIONS


_MODE: Final = Struct("<I")


@dataclass(slots=True)
class PosixCreate:
    """The data of the create context in a request: the permission bits of a file that is made."""

    mode: int

    def encode(self) -> bytes:
        """Return the context's data."""
        return _MODE.pack(self.mode)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls(*unpack_at(_MODE, data, 0))


# nlink, reparse_tag, mode; the SIDs of owner and group follow.
_OWNED: Final = Struct("<III")


@dataclass(slots=True)
class PosixCreated:
    """The data of the create context in a response, which ends every other record here too; `mode` as on the wire."""

    links: int
    reparse_tag: int
    mode: int
    owner: Sid
    group: Sid

    @property
    def size(self) -> int:
        """The number of bytes that `encode` gives."""
        return _OWNED.size + self.owner.size + self.group.size

    def encode(self) -> bytes:
        """Return the context's data."""
        return _OWNED.pack(self.links, self.reparse_tag, self.mode) + self.owner.encode() + self.group.encode()

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        return cls.parse_at(data, 0)

    @classmethod
    def parse_at(cls, data: Buffer, offset: int) -> Self:
        """Read the data at `offset`; `size` tells where it ends."""
        links, reparse_tag, mode = unpack_at(_OWNED, data, offset)
        owner = Sid.parse_at(data, offset + _OWNED.size)
        return cls(links, reparse_tag, mode, owner, Sid.parse_at(data, offset + _OWNED.size + owner.size))


# CreationTime, LastAccessTime, LastWriteTime, ChangeTime, EndOfFile, AllocationSize, DosAttributes, Inode, DeviceId,
# Reserved
_INFORMATION: Final = Struct("<QQQQQQIQI4x")
# Inode alone, and where it stands
_INODE: Final = Struct("<Q")
_INODE_OFFSET: Final = 52


@dataclass(slots=True)
class FilePosixInformation:
    """All that stat(2) tells, of an open that was made with the create context."""

    information_class: ClassVar[int] = 100

    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    end_of_file: int
    allocation_size: int
    file_attributes: int
    inode: int
    device: int
    owned: PosixCreated

    @property
    def size(self) -> int:
        """The number of bytes that `encode` gives."""
        return _INFORMATION.size + self.owned.size

    def encode(self) -> bytes:
        """Return the information."""
        return (
            _INFORMATION.pack(
                self.creation_time,
                self.last_access_time,
                self.last_write_time,
                self.change_time,
                self.end_of_file,
                self.allocation_size,
                self.file_attributes,
                self.inode,
                self.device,
            )
            + self.owned.encode()
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls.parse_at(data, 0)

    @classmethod
    def parse_at(cls, data: Buffer, offset: int) -> Self:
        """Read the information at `offset`; `size` tells where it ends."""
        (
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            end_of_file,
            allocation_size,
            file_attributes,
            inode,
            device,
        ) = unpack_at(_INFORMATION, data, offset)
        return cls(
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            end_of_file,
            allocation_size,
            file_attributes,
            inode,
            device,
            PosixCreated.parse_at(data, offset + _INFORMATION.size),
        )


# NextEntryOffset, and a field that says nothing
_NEXT: Final = Struct("<II")
_LENGTH: Final = Struct("<I")


@dataclass(slots=True)
class PosixDirectoryEntry:
    """One name in a directory, with all that stat(2) tells of what it stands for."""

    name: str
    file_id: int
    file_attributes: int
    end_of_file: int
    allocation_size: int
    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    device: int
    owned: PosixCreated

    @property
    def reparse_tag(self) -> int:
        """The kind of reparse point of an entry that is one."""
        return self.owned.reparse_tag

    def encode(self) -> bytes:
        """Return the entry as the last one of a page."""
        name = utf16(self.name)
        information = _INFORMATION.pack(
            self.creation_time,
            self.last_access_time,
            self.last_write_time,
            self.change_time,
            self.end_of_file,
            self.allocation_size,
            self.file_attributes,
            self.file_id,
            self.device,
        )
        return _NEXT.pack(0, 0) + information + self.owned.encode() + _LENGTH.pack(len(name)) + name

    @classmethod
    def parse_at(cls, page: memoryview, offset: int) -> Self:
        """Read the entry at `offset`, which `posix_entry_offsets` gave."""
        (
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            end_of_file,
            allocation_size,
            file_attributes,
            inode,
            device,
        ) = unpack_at(_INFORMATION, page, offset + _NEXT.size)
        start = offset + _NEXT.size + _INFORMATION.size
        owned = PosixCreated.parse_at(page, start)
        start += owned.size
        (length,) = unpack_at(_LENGTH, page, start)
        return cls(
            from_utf16(slice_checked(page, start + _LENGTH.size, length)),
            inode,
            file_attributes,
            end_of_file,
            allocation_size,
            creation_time,
            last_access_time,
            last_write_time,
            change_time,
            device,
            owned,
        )

    @classmethod
    def name_at(cls, page: memoryview, offset: int) -> bytes:
        """Read the name, as UTF-16, of the entry at `offset`, which `posix_entry_offsets` gave."""
        return utf16(cls.parse_at(page, offset).name)


def encode_posix_page(entries: Sequence[PosixDirectoryEntry]) -> bytes:
    """Return the entries as one page."""
    page = bytearray()
    last = 0
    for entry in entries:
        start = pad8(len(page))
        if start:
            page += bytes(start - len(page))
            _LENGTH.pack_into(page, last, start - last)
        page += entry.encode()
        last = start
    return bytes(page)


# What an entry has at least: two SIDs without subauthorities, and an empty name.
_SMALLEST: Final = _NEXT.size + _INFORMATION.size + _OWNED.size + 2 * 8 + _LENGTH.size


def replace_posix_file_ids(page: bytearray, change: Callable[[int], int]) -> None:
    """Change the Inode of every entry of a page in its place."""
    for offset in posix_entry_offsets(memoryview(page)):
        place = offset + _NEXT.size + _INODE_OFFSET
        _INODE.pack_into(page, place, change(*_INODE.unpack_from(page, place)))


def posix_entry_offsets(page: memoryview) -> array[int]:
    """Return where each entry of a page begins; what is in it `parse_at` checks."""
    offsets = array("L")
    offset, end = 0, len(page)
    while offset < end:
        (step,) = unpack_at(_LENGTH, page, offset)
        if offset + _SMALLEST > end:
            raise WireError(f"an entry at offset {offset} of a page of {end}")
        offsets.append(offset)
        if not step:
            break
        if step < _SMALLEST or step > end - offset:
            raise WireError(f"NextEntryOffset {step} of an entry, {end - offset} before the end")
        offset += step
    return offsets


# OptimalTransferSize, BlockSize, TotalBlocks, BlocksAvail, UserBlocksAvail, TotalFileNodes, FreeFileNodes,
# FileSysIdentifier
_FS: Final = Struct("<IIQQQQQQ")


@dataclass(slots=True)
class FileFsPosixInformation:
    """All that statvfs(3) tells."""

    information_class: ClassVar[int] = 100

    optimal_transfer_size: int
    block_size: int
    total_blocks: int
    blocks_available: int
    user_blocks_available: int
    total_file_nodes: int
    free_file_nodes: int
    identifier: int

    def encode(self) -> bytes:
        """Return the information."""
        return _FS.pack(
            self.optimal_transfer_size,
            self.block_size,
            self.total_blocks,
            self.blocks_available,
            self.user_blocks_available,
            self.total_file_nodes,
            self.free_file_nodes,
            self.identifier,
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_FS, data, 0))
