"""LOCK ([MS-SMB2] 2.2.26, 2.2.27)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, slice_checked
from smb3fs.wire.create import FileId, FileReference
from smb3fs.wire.header import HEADER_SIZE, Command, EmptyBody, unpack_body

# [MS-SMB2] 2.2.26: StructureSize (which counts one element), LockCount, LockSequenceNumber and LockSequenceIndex,
# FileId (two halves)
_REQUEST: Final = Struct("<HHIQQ")
# [MS-SMB2] 2.2.26.1: Offset, Length, Flags, Reserved
_ELEMENT: Final = Struct("<QQII")
_ELEMENTS: Final = HEADER_SIZE + _REQUEST.size

# 2.2.26.1, Flags
SHARED_LOCK: Final = 0x01
EXCLUSIVE_LOCK: Final = 0x02
UNLOCK: Final = 0x04
FAIL_IMMEDIATELY: Final = 0x10


class LockElement(NamedTuple):
    """One range of bytes and what is to become of it."""

    offset: int
    length: int
    flags: int


@dataclass(slots=True)
class LockRequest:
    """Locks ranges of an open file, or unlocks them; all of them or none.

    `sequence` tells a repetition from a new request; 0 says that there is none.
    """

    command: ClassVar[Command] = Command.LOCK
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0

    file_id: FileReference
    elements: Sequence[LockElement]
    sequence: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        fixed = _REQUEST.pack(48, len(self.elements), self.sequence, *self.file_id)
        return b"".join((fixed, *(_ELEMENT.pack(*element, 0) for element in self.elements)))

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a request, beginning at its header."""
        _, count, sequence, persistent, volatile = unpack_body(_REQUEST, pdu, 48)
        if not count:
            raise WireError("a LOCK without a range")
        data = slice_checked(pdu, _ELEMENTS, count * _ELEMENT.size)
        elements = [LockElement(*fields[:3]) for fields in _ELEMENT.iter_unpack(data)]
        return cls(FileId(persistent, volatile), elements, sequence)


@dataclass(slots=True)
class LockResponse(EmptyBody):
    """It is done ([MS-SMB2] 2.2.27)."""
