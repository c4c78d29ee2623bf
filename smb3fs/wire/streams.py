"""The data streams of a file: FileStreamInformation ([MS-FSCC] 2.4.49), and how their names are written (2.1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, from_utf16, pad8, slice_checked, unpack_at, utf16
from smb3fs.wire.infoclass import InformationClass

# [MS-FSCC] 2.4.49: NextEntryOffset, StreamNameLength, StreamSize, StreamAllocationSize
_ENTRY: Final = Struct("<IIQQ")
# [MS-FSCC] 2.1.4: the type of the streams that hold data; a file's contents are the one without a name.
DATA_TYPE: Final = "$DATA"
# [MS-FSCC] 2.1.5.3: what the name of a stream cannot contain.
_FORBIDDEN: Final = frozenset("\\/:\0")


class Stream(NamedTuple):
    """One stream, under its name in full: `:NAME:$DATA`."""

    full_name: str
    size: int
    allocation_size: int = 0

    @property
    def name(self) -> str:
        """The name of an alternate data stream; empty for the file's contents and for streams of other types."""
        before, _, rest = self.full_name.partition(":")
        name, _, kind = rest.partition(":")
        return name if not before and kind == DATA_TYPE else ""


def stream_path(path: str, name: str) -> str:
    """Return the path by which a CREATE opens an alternate data stream; raises ValueError for what is not its name.

    The type is spelled out: a path with no name in front of it means the contents of the file.
    """
    if not name or _FORBIDDEN & set(name):
        raise ValueError(f"{name!r} is no name of a stream")
    return f"{path}:{name}:{DATA_TYPE}"


@dataclass(slots=True)
class FileStreamInformation:
    """All streams of a file, its contents among them; a directory may have none."""

    information_class: ClassVar[int] = InformationClass.FILE_STREAM

    streams: Sequence[Stream]

    def encode(self) -> bytes:
        """Return the information."""
        chain = bytearray()
        for number, (full_name, size, allocation_size) in enumerate(self.streams, 1):
            name = utf16(full_name)
            step = pad8(_ENTRY.size + len(name)) if number < len(self.streams) else 0
            chain += (_ENTRY.pack(step, len(name), size, allocation_size) + name).ljust(step, b"\0")
        return bytes(chain)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the information; no bytes at all are no streams."""
        chain = memoryview(data)
        streams: list[Stream] = []
        while len(chain):
            step, length, size, allocation_size = unpack_at(_ENTRY, chain, 0)
            name = from_utf16(slice_checked(chain, _ENTRY.size, length))
            streams.append(Stream(name, size, allocation_size))
            if not step:
                break
            if step < _ENTRY.size + length or step > len(chain):
                raise WireError(f"NextEntryOffset {step} of a stream, {len(chain)} bytes before the end")
            chain = chain[step:]
        return cls(streams)
