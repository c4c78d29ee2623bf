"""What a server last said about one file, in units that the rest of the program uses."""

from __future__ import annotations

from typing import Final, NamedTuple

from smb3fs.wire.codec import filetime_to_ns
from smb3fs.wire.create import CreateResponse, FileAttribute
from smb3fs.wire.infoclass import FileAllInformation

# As an int: arithmetic with enum's flags costs microseconds.
DIRECTORY: Final = int(FileAttribute.DIRECTORY)


class FileAttributes(NamedTuple):
    """One file or directory: sizes in bytes, times in ns since the epoch (0 = the server keeps none).

    `file_id` is the server's 64-bit number of the file on its volume, 0 where it has none; `attributes` holds the
    FILE_ATTRIBUTE bits ([MS-FSCC] 2.6).
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

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return bool(self.attributes & DIRECTORY)

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
