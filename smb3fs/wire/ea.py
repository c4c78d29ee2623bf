"""Extended attributes of a file: FileFullEaInformation ([MS-FSCC] 2.4.15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, slice_checked, unpack_at
from smb3fs.wire.infoclass import InformationClass

# [MS-FSCC] 2.4.15: NextEntryOffset, Flags, EaNameLength, EaValueLength
_ENTRY: Final = Struct("<IBBH")
# What the two length fields can express.
NAME_MAX: Final = 0xFF
VALUE_MAX: Final = 0xFFFF


class ExtendedAttribute(NamedTuple):
    """One attribute. Names are 8-bit, and the same in either case of letters; in SET_INFO an empty value removes it."""

    name: bytes
    value: bytes
    flags: int = 0

    def is_called(self, name: bytes) -> bool:
        """Whether this is the attribute of that name."""
        return self.name.upper() == name.upper()


@dataclass(slots=True)
class FileFullEaInformation:
    """The attributes of a file, or those of them that are to be set."""

    information_class: ClassVar[int] = InformationClass.FILE_FULL_EA

    attributes: Sequence[ExtendedAttribute]

    def encode(self) -> bytes:
        """Return the information."""
        chain = bytearray()
        for number, (name, value, flags) in enumerate(self.attributes, 1):
            size = _ENTRY.size + len(name) + 1 + len(value)
            step = (size + 3) & ~3 if number < len(self.attributes) else 0
            entry = _ENTRY.pack(step, flags, len(name), len(value)) + name + b"\0" + value
            chain += entry.ljust(step, b"\0")
        return bytes(chain)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information; no bytes at all are no attributes."""
        chain = memoryview(data)
        attributes: list[ExtendedAttribute] = []
        while len(chain):
            step, flags, name_length, value_length = unpack_at(_ENTRY, chain, 0)
            size = _ENTRY.size + name_length + 1 + value_length
            body = slice_checked(chain, _ENTRY.size, size - _ENTRY.size)
            attributes.append(ExtendedAttribute(bytes(body[:name_length]), bytes(body[name_length + 1 :]), flags))
            if not step:
                break
            if step < size or step > len(chain):
                raise WireError(f"NextEntryOffset {step} of an attribute of {size} bytes, {len(chain)} before the end")
            chain = chain[step:]
        return cls(attributes)
