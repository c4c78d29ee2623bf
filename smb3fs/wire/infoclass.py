"""Information classes of files and file systems ([MS-FSCC] 2.4, 2.5): the data of QUERY_INFO and SET_INFO.

Times are FILETIMEs as they stand in the packet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.wire.codec import Buffer, from_utf16, slice_checked, unpack_at, utf16


class InformationClass(IntEnum):
    """The classes of `InfoType.FILE`, and of listings ([MS-FSCC] 2.4)."""

    FILE_BASIC = 4
    FILE_STANDARD = 5
    FILE_INTERNAL = 6
    FILE_RENAME = 10
    FILE_LINK = 11
    FILE_DISPOSITION = 13
    FILE_FULL_EA = 15
    FILE_ALL = 18
    FILE_ALLOCATION = 19
    FILE_END_OF_FILE = 20
    FILE_STREAM = 22
    FILE_NETWORK_OPEN = 34
    FILE_ATTRIBUTE_TAG = 35
    FILE_ID_FULL_DIRECTORY = 38


class FsInformationClass(IntEnum):
    """The classes of `InfoType.FILESYSTEM` ([MS-FSCC] 2.5)."""

    FS_VOLUME = 1
    FS_ATTRIBUTE = 5
    FS_FULL_SIZE = 7


# What a time of FileBasicInformation says in SET_INFO when it is no time ([MS-FSCC] 2.4.7).
LEAVE_TIME: Final = 0
STOP_UPDATING_TIME: Final = 2**64 - 1

# [MS-FSCC] 2.4.7: CreationTime, LastAccessTime, LastWriteTime, ChangeTime, FileAttributes, Reserved
_BASIC: Final = Struct("<QQQQI4x")


@dataclass(slots=True)
class FileBasicInformation:
    """Times and attributes; in SET_INFO a time may be `LEAVE_TIME` or `STOP_UPDATING_TIME`, attributes 0 are left."""

    information_class: ClassVar[int] = InformationClass.FILE_BASIC

    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    file_attributes: int

    def encode(self) -> bytes:
        """Return the information."""
        return _BASIC.pack(
            self.creation_time, self.last_access_time, self.last_write_time, self.change_time, self.file_attributes
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_BASIC, data, 0))


# [MS-FSCC] 2.4.47: AllocationSize, EndOfFile, NumberOfLinks, DeletePending, Directory, Reserved
_STANDARD: Final = Struct("<QQI??2x")


@dataclass(slots=True)
class FileStandardInformation:
    """Sizes, links, and whether it is a directory."""

    information_class: ClassVar[int] = InformationClass.FILE_STANDARD

    allocation_size: int
    end_of_file: int
    number_of_links: int
    delete_pending: bool
    directory: bool

    def encode(self) -> bytes:
        """Return the information."""
        return _STANDARD.pack(
            self.allocation_size, self.end_of_file, self.number_of_links, self.delete_pending, self.directory
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_STANDARD, data, 0))


# [MS-FSCC] 2.4.27: IndexNumber
_INTERNAL: Final = Struct("<Q")


@dataclass(slots=True)
class FileInternalInformation:
    """The number of the file on its volume."""

    information_class: ClassVar[int] = InformationClass.FILE_INTERNAL

    index_number: int

    def encode(self) -> bytes:
        """Return the information."""
        return _INTERNAL.pack(self.index_number)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_INTERNAL, data, 0))


def _name_behind(data: Buffer, start: int, length: int) -> str:
    """Return the name at `start`, or as much of it as the buffer that we offered had room for."""
    end = min(start + length, len(data))
    return from_utf16(data[start : end - (end - start) % 2])


# [MS-FSCC] 2.4.2: the fields of FileBasicInformation, FileStandardInformation and FileInternalInformation; EaSize,
# AccessFlags, CurrentByteOffset, Mode, AlignmentRequirement, FileNameLength
_ALL: Final = Struct("<QQQQI4x QQI??2x Q IIQIII")


@dataclass(slots=True)
class FileAllInformation:
    """Everything about an open; the name is cut where the answer was (STATUS_BUFFER_OVERFLOW)."""

    information_class: ClassVar[int] = InformationClass.FILE_ALL

    basic: FileBasicInformation
    standard: FileStandardInformation
    index_number: int
    ea_size: int = 0
    access_flags: int = field(default=0, kw_only=True)
    current_byte_offset: int = field(default=0, kw_only=True)
    mode: int = field(default=0, kw_only=True)
    alignment_requirement: int = field(default=0, kw_only=True)
    name: str = ""

    def encode(self) -> bytes:
        """Return the information."""
        name = utf16(self.name)
        basic, standard = self.basic, self.standard
        fixed = _ALL.pack(
            basic.creation_time,
            basic.last_access_time,
            basic.last_write_time,
            basic.change_time,
            basic.file_attributes,
            standard.allocation_size,
            standard.end_of_file,
            standard.number_of_links,
            standard.delete_pending,
            standard.directory,
            self.index_number,
            self.ea_size,
            self.access_flags,
            self.current_byte_offset,
            self.mode,
            self.alignment_requirement,
            len(name),
        )
        return fixed + name

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        fields = unpack_at(_ALL, data, 0)
        index_number, ea_size, access_flags, current_byte_offset, mode, alignment_requirement, name_length = fields[10:]
        return cls(
            FileBasicInformation(*fields[:5]),
            FileStandardInformation(*fields[5:10]),
            index_number,
            ea_size,
            _name_behind(data, _ALL.size, name_length),
            access_flags=access_flags,
            current_byte_offset=current_byte_offset,
            mode=mode,
            alignment_requirement=alignment_requirement,
        )


# [MS-FSCC] 2.4.34: CreationTime, LastAccessTime, LastWriteTime, ChangeTime, AllocationSize, EndOfFile,
# FileAttributes, Reserved
_NETWORK_OPEN: Final = Struct("<QQQQQQI4x")


@dataclass(slots=True)
class FileNetworkOpenInformation:
    """What a CREATE answers, asked again."""

    information_class: ClassVar[int] = InformationClass.FILE_NETWORK_OPEN

    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    allocation_size: int
    end_of_file: int
    file_attributes: int

    def encode(self) -> bytes:
        """Return the information."""
        return _NETWORK_OPEN.pack(
            self.creation_time,
            self.last_access_time,
            self.last_write_time,
            self.change_time,
            self.allocation_size,
            self.end_of_file,
            self.file_attributes,
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_NETWORK_OPEN, data, 0))


# [MS-FSCC] 2.4.6: FileAttributes, ReparseTag
_ATTRIBUTE_TAG: Final = Struct("<II")


@dataclass(slots=True)
class FileAttributeTagInformation:
    """Attributes, and the kind of reparse point where they say that it is one."""

    information_class: ClassVar[int] = InformationClass.FILE_ATTRIBUTE_TAG

    file_attributes: int
    reparse_tag: int

    def encode(self) -> bytes:
        """Return the information."""
        return _ATTRIBUTE_TAG.pack(self.file_attributes, self.reparse_tag)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_ATTRIBUTE_TAG, data, 0))


# [MS-FSCC] 2.4.42.2: ReplaceIfExists, Reserved, RootDirectory, FileNameLength
_RENAME: Final = Struct("<?7xQI")
# Padded to at least this size, which a name of one letter does not reach ([MS-FSCC] 2.4.42.2, Padding).
_RENAME_MINIMUM: Final = 24


@dataclass(slots=True)
class FileRenameInformation:
    """The new name, given relative to the share; RootDirectory is always 0 in SMB2."""

    information_class: ClassVar[int] = InformationClass.FILE_RENAME

    replace: bool
    name: str

    def encode(self) -> bytes:
        """Return the information."""
        name = utf16(self.name)
        return (_RENAME.pack(self.replace, 0, len(name)) + name).ljust(_RENAME_MINIMUM, b"\0")

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        replace, _root_directory, length = unpack_at(_RENAME, data, 0)
        return cls(replace, from_utf16(slice_checked(memoryview(data), _RENAME.size, length)))


@dataclass(slots=True)
class FileLinkInformation:
    """A second name for the file, given relative to the share ([MS-FSCC] 2.4.27.2); laid out as a new name is."""

    information_class: ClassVar[int] = InformationClass.FILE_LINK

    replace: bool
    name: str

    def encode(self) -> bytes:
        """Return the information."""
        return FileRenameInformation(self.replace, self.name).encode()

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        rename = FileRenameInformation.parse(data)
        return cls(rename.replace, rename.name)


_DISPOSITION: Final = Struct("<?")  # [MS-FSCC] 2.4.11: DeletePending


@dataclass(slots=True)
class FileDispositionInformation:
    """Whether the file goes away with its last handle."""

    information_class: ClassVar[int] = InformationClass.FILE_DISPOSITION

    delete: bool

    def encode(self) -> bytes:
        """Return the information."""
        return _DISPOSITION.pack(self.delete)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_DISPOSITION, data, 0))


# [MS-FSCC] 2.4.14: EndOfFile; 2.4.4: AllocationSize
_END_OF_FILE: Final = Struct("<Q")


@dataclass(slots=True)
class FileEndOfFileInformation:
    """The size that the file gets."""

    information_class: ClassVar[int] = InformationClass.FILE_END_OF_FILE

    end_of_file: int

    def encode(self) -> bytes:
        """Return the information."""
        return _END_OF_FILE.pack(self.end_of_file)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_END_OF_FILE, data, 0))


@dataclass(slots=True)
class FileAllocationInformation:
    """The space that the file gets ([MS-FSCC] 2.4.4); what is behind it is cut off."""

    information_class: ClassVar[int] = InformationClass.FILE_ALLOCATION

    allocation_size: int

    def encode(self) -> bytes:
        """Return the information."""
        return _END_OF_FILE.pack(self.allocation_size)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_END_OF_FILE, data, 0))


# [MS-FSCC] 2.5.4: TotalAllocationUnits, CallerAvailableAllocationUnits, ActualAvailableAllocationUnits,
# SectorsPerAllocationUnit, BytesPerSector
_FULL_SIZE: Final = Struct("<QQQII")


@dataclass(slots=True)
class FileFsFullSizeInformation:
    """The space of the volume, for the user (a quota may hide some of it) and in truth."""

    information_class: ClassVar[int] = FsInformationClass.FS_FULL_SIZE

    total_units: int
    caller_available_units: int
    actual_available_units: int
    sectors_per_unit: int
    bytes_per_sector: int

    def encode(self) -> bytes:
        """Return the information."""
        return _FULL_SIZE.pack(
            self.total_units,
            self.caller_available_units,
            self.actual_available_units,
            self.sectors_per_unit,
            self.bytes_per_sector,
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        return cls(*unpack_at(_FULL_SIZE, data, 0))


# [MS-FSCC] 2.5.1: FileSystemAttributes, MaximumComponentNameLength, FileSystemNameLength
_FS_ATTRIBUTE: Final = Struct("<III")
# ... and of the attributes the one that says whether names in two spellings may be two files.
FILE_CASE_SENSITIVE_SEARCH: Final = 0x00000001
FILE_NAMED_STREAMS: Final = 0x00040000
# ... and the one that says whether files may have their blocks in common (FSCTL_DUPLICATE_EXTENTS_TO_FILE).
FILE_SUPPORTS_BLOCK_REFCOUNTING: Final = 0x08000000


@dataclass(slots=True)
class FileFsAttributeInformation:
    """What the file system can do, the longest name it takes, and what it calls itself."""

    information_class: ClassVar[int] = FsInformationClass.FS_ATTRIBUTE

    attributes: int
    max_name_length: int
    name: str

    def encode(self) -> bytes:
        """Return the information."""
        name = utf16(self.name)
        return _FS_ATTRIBUTE.pack(self.attributes, self.max_name_length, len(name)) + name

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        attributes, max_name_length, length = unpack_at(_FS_ATTRIBUTE, data, 0)
        return cls(attributes, max_name_length, _name_behind(data, _FS_ATTRIBUTE.size, length))


# [MS-FSCC] 2.5.9: VolumeCreationTime, VolumeSerialNumber, VolumeLabelLength, SupportsObjects, Reserved
_FS_VOLUME: Final = Struct("<QII?x")


@dataclass(slots=True)
class FileFsVolumeInformation:
    """The volume's birth, number and label."""

    information_class: ClassVar[int] = FsInformationClass.FS_VOLUME

    creation_time: int
    serial_number: int
    supports_objects: bool
    label: str

    def encode(self) -> bytes:
        """Return the information."""
        label = utf16(self.label)
        return _FS_VOLUME.pack(self.creation_time, self.serial_number, len(label), self.supports_objects) + label

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information."""
        creation_time, serial_number, length, supports_objects = unpack_at(_FS_VOLUME, data, 0)
        label = _name_behind(data, _FS_VOLUME.size, length)
        return cls(creation_time, serial_number, supports_objects, label)
