"""What the server does to data by itself: copies, holes, zeros ([MS-SMB2] 2.2.31.1, 2.2.32.1, [MS-FSCC] 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, unpack_at
from smb3fs.wire.create import FileId, FileReference

# [MS-SMB2] 2.2.31, CtlCode
FSCTL_SRV_REQUEST_RESUME_KEY: Final = 0x00140078
FSCTL_SRV_COPYCHUNK_WRITE: Final = 0x001480F2
# [MS-FSCC] 2.3
FSCTL_SET_SPARSE: Final = 0x000900C4
FSCTL_SET_ZERO_DATA: Final = 0x000980C8
FSCTL_QUERY_ALLOCATED_RANGES: Final = 0x000940CF
FSCTL_DUPLICATE_EXTENTS_TO_FILE: Final = 0x00098344

# [MS-SMB2] 2.2.32.3: ResumeKey, ContextLength, Context (which is not used)
_RESUME_KEY: Final = Struct("<24sII")
RESUME_KEY_ROOM: Final = _RESUME_KEY.size
KEY_SIZE: Final = 24


@dataclass(slots=True)
class ResumeKey:
    """The output of `FSCTL_SRV_REQUEST_RESUME_KEY`: 24 bytes by which an open file is named as a source."""

    key: bytes

    def encode(self) -> bytes:
        """Return the control's output."""
        return _RESUME_KEY.pack(self.key, 0, 0)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's output; not every server sends the context that is not used."""
        if len(data) < KEY_SIZE:
            raise WireError(f"a resume key of {len(data)} bytes")
        return cls(bytes(data[:KEY_SIZE]))


# [MS-SMB2] 2.2.31.1: SourceKey, ChunkCount, Reserved
_COPY: Final = Struct("<24sI4x")
# [MS-SMB2] 2.2.31.1.1: SourceOffset, TargetOffset, Length, Reserved
_CHUNK: Final = Struct("<QQI4x")


class Chunk(NamedTuple):
    """A part of a copy, in bytes."""

    source_offset: int
    target_offset: int
    length: int


@dataclass(slots=True)
class CopyChunks:
    """The input of `FSCTL_SRV_COPYCHUNK_WRITE`: what is to be copied from the file that a key stands for."""

    source_key: bytes
    chunks: Sequence[Chunk]

    def encode(self) -> bytes:
        """Return the control's input."""
        return _COPY.pack(self.source_key, len(self.chunks)) + b"".join(_CHUNK.pack(*chunk) for chunk in self.chunks)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input."""
        key, count = unpack_at(_COPY, data, 0)
        if _COPY.size + count * _CHUNK.size > len(data):
            raise WireError(f"{count} chunks do not fit in {len(data)} bytes")
        return cls(key, [Chunk(*unpack_at(_CHUNK, data, _COPY.size + n * _CHUNK.size)) for n in range(count)])


# [MS-SMB2] 2.2.32.1: ChunksWritten, ChunkBytesWritten, TotalBytesWritten
_COPIED: Final = Struct("<III")
COPIED_SIZE: Final = _COPIED.size


class CopyChunksDone(NamedTuple):
    """The output of the same: what was copied. With STATUS_INVALID_PARAMETER it is the most that may be asked for."""

    chunks: int
    chunk_bytes: int
    total_bytes: int

    def encode(self) -> bytes:
        """Return the control's output."""
        return _COPIED.pack(*self)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's output."""
        return cls._make(unpack_at(_COPIED, data, 0))


# [MS-FSCC] 2.3.7.2: SourceFileID (two halves), SourceFileOffset, TargetFileOffset, ByteCount
_DUPLICATE: Final = Struct("<QQQQQ")


@dataclass(slots=True)
class DuplicateExtents:
    """The input of `FSCTL_DUPLICATE_EXTENTS_TO_FILE`: `length` bytes of `source` are to be in the target as well.

    Offsets and the length are whole clusters, but for a length that reaches to the end of the source.
    """

    source: FileReference
    source_offset: int
    target_offset: int
    length: int

    def encode(self) -> bytes:
        """Return the control's input."""
        return _DUPLICATE.pack(*self.source, self.source_offset, self.target_offset, self.length)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input."""
        persistent, volatile, source_offset, target_offset, length = unpack_at(_DUPLICATE, data, 0)
        return cls(FileId(persistent, volatile), source_offset, target_offset, length)


_SPARSE: Final = Struct("<?")  # [MS-FSCC] 2.3.64: SetSparse


@dataclass(slots=True)
class SetSparse:
    """The input of `FSCTL_SET_SPARSE`: whether a file may have holes."""

    sparse: bool

    def encode(self) -> bytes:
        """Return the control's input."""
        return _SPARSE.pack(self.sparse)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input; nothing stands for yes."""
        return cls(*unpack_at(_SPARSE, data, 0)) if data else cls(True)


# [MS-FSCC] 2.3.71: FileOffset, BeyondFinalZero
_ZERO: Final = Struct("<QQ")


class ZeroData(NamedTuple):
    """The input of `FSCTL_SET_ZERO_DATA`: bytes from `offset` to before `end` become zeros."""

    offset: int
    end: int

    def encode(self) -> bytes:
        """Return the control's input."""
        return _ZERO.pack(*self)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input."""
        return cls._make(unpack_at(_ZERO, data, 0))


# [MS-FSCC] 2.3.48: FileOffset, Length
_RANGE: Final = Struct("<QQ")
RANGE_SIZE: Final = _RANGE.size


class AllocatedRange(NamedTuple):
    """A part of a file: what `FSCTL_QUERY_ALLOCATED_RANGES` asks about, and each one that its answer names."""

    offset: int
    length: int

    def encode(self) -> bytes:
        """Return the control's input, or an element of its output."""
        return _RANGE.pack(*self)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input, or the first element of its output."""
        return cls._make(unpack_at(_RANGE, data, 0))


def allocated_ranges(data: Buffer) -> list[AllocatedRange]:
    """Read the output of `FSCTL_QUERY_ALLOCATED_RANGES` ([MS-FSCC] 2.3.49); raises WireError for half an element."""
    if len(data) % RANGE_SIZE:
        raise WireError(f"{len(data)} bytes are no whole number of ranges")
    return [AllocatedRange._make(fields) for fields in _RANGE.iter_unpack(data)]
