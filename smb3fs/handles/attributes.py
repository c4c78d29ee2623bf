"""What a server last said about one file, in units that the rest of the program uses."""

from __future__ import annotations

import stat
from typing import Final, NamedTuple

from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.create import CreateResponse, FileAttribute
from smb3fs.wire.infoclass import FileAllInformation
from smb3fs.wire.posix import FilePosixInformation, PosixCreated, mode_from_wire
from smb3fs.wire.reparse import ReparseTag, SymbolicLink

# As ints: arithmetic with enum's flags costs microseconds.
DIRECTORY: Final = int(FileAttribute.DIRECTORY)
REPARSE_POINT: Final = int(FileAttribute.REPARSE_POINT)

# What a tag alone says of a file's type. Those of Windows' NFS server have it in their data, hence 0.
KIND_OF_TAG: Final[dict[int, int]] = {
    ReparseTag.SYMLINK: stat.S_IFLNK,
    ReparseTag.LX_SYMLINK: stat.S_IFLNK,
    ReparseTag.AF_UNIX: stat.S_IFSOCK,
    ReparseTag.LX_FIFO: stat.S_IFIFO,
    ReparseTag.LX_CHR: stat.S_IFCHR,
    ReparseTag.LX_BLK: stat.S_IFBLK,
    ReparseTag.NFS: 0,
}


def plain_kind(attributes: int) -> int:
    """Return the type bits of what is a file or a directory."""
    return stat.S_IFDIR if attributes & DIRECTORY else stat.S_IFREG


def kind_of(attributes: int, tag: int, owned: PosixCreated | None = None) -> int:
    """Return the type bits that attributes, reparse tag and POSIX extensions tell; 0: all but a directory."""
    if owned is not None and not stat.S_ISREG(kind := stat.S_IFMT(mode_from_wire(owned.mode))):
        return kind
    if attributes & REPARSE_POINT and tag in KIND_OF_TAG:
        return KIND_OF_TAG[tag]
    # Older servers tell no type in the mode.
    return plain_kind(attributes)


class FileAttributes(NamedTuple):
    """One file or directory: sizes in bytes, times in ns since the epoch (0 = the server keeps none).

    `file_id` is the server's 64-bit number of the file on its volume, 0 where it has none; `attributes` holds the
    FILE_ATTRIBUTE bits ([MS-FSCC] 2.6). `special` has the type bits of what is neither file nor directory, `target`
    where a link leads: bytes as symlink(2) was given them, or in Windows' notation. `owned` is there where the server
    speaks the POSIX extensions.
    """

    file_id: int
    attributes: int
    size: int
    allocation: int
    links: int
    created: int
    accessed: int
    modified: int
    changed: int
    special: int = 0
    target: SymbolicLink | bytes | None = None
    rdev: int = 0
    owned: PosixCreated | None = None

    @property
    def kind(self) -> int:
        """The type bits of its mode."""
        return self.special or plain_kind(self.attributes)

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.kind == stat.S_IFDIR

    def with_owned(self, owned: PosixCreated) -> FileAttributes:
        """Add what the POSIX extensions tell."""
        kind = kind_of(self.attributes, owned.reparse_tag, owned)
        return self._replace(links=owned.links, special=kind, owned=owned)

    @classmethod
    def from_create(cls, answer: CreateResponse, file_id: int, links: int) -> FileAttributes:
        """Build from the answer to a CREATE, which holds all but the file's number and its links."""
        return cls(
            file_id,
            answer.file_attributes,
            answer.end_of_file,
            answer.allocation_size,
            links,
            filetime_to_ns(answer.creation_time),
            filetime_to_ns(answer.last_access_time),
            filetime_to_ns(answer.last_write_time),
            filetime_to_ns(answer.change_time),
        )

    @classmethod
    def from_all_information(cls, info: FileAllInformation) -> FileAttributes:
        """Build from FileAllInformation ([MS-FSCC] 2.4.2)."""
        basic, standard = info.basic, info.standard
        return cls(
            info.index_number,
            basic.file_attributes,
            standard.end_of_file,
            standard.allocation_size,
            standard.number_of_links,
            filetime_to_ns(basic.creation_time),
            filetime_to_ns(basic.last_access_time),
            filetime_to_ns(basic.last_write_time),
            filetime_to_ns(basic.change_time),
        )

    @classmethod
    def from_posix(cls, info: FilePosixInformation) -> FileAttributes:
        """Build from the POSIX extensions' information."""
        return cls(
            info.inode,
            info.file_attributes,
            info.end_of_file,
            info.allocation_size,
            info.owned.links,
            filetime_to_ns(info.creation_time),
            filetime_to_ns(info.last_access_time),
            filetime_to_ns(info.last_write_time),
            filetime_to_ns(info.change_time),
        ).with_owned(info.owned)


class Basics(NamedTuple):
    """What is to be set of a file: times in ns since the epoch (None: left), FILE_ATTRIBUTE bits (0: left)."""

    created: int | None = None
    accessed: int | None = None
    modified: int | None = None
    attributes: int = 0

    @property
    def times(self) -> tuple[int | None, int | None, int | None]:
        """The times, in the order of the wire."""
        return self.created, self.accessed, self.modified
