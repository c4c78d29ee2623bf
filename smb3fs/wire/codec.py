"""What every message needs: bounded slices, UTF-16LE names, padding and FILETIME ([MS-SMB2] 2.2, [MS-DTYP] 2.3.3)."""

from __future__ import annotations

import struct
from codecs import utf_16_le_decode, utf_16_le_encode
from typing import Any, Final

from smb3fs.errors import WireError

Buffer = bytes | bytearray | memoryview

# 100 ns intervals from 1601-01-01, where FILETIME begins, to 1970-01-01 ([MS-DTYP] 2.3.3).
EPOCH_AS_FILETIME: Final = 116_444_736_000_000_000
# The largest FILETIME that a server takes for a time: the values above are negative in the signed field that file
# systems store, and -1 and -2 are orders rather than times ([MS-FSCC] 2.4.7).
MAX_FILETIME: Final = 2**63 - 1


def unpack_at(layout: struct.Struct, buffer: Buffer, offset: int) -> tuple[Any, ...]:
    """Return the fields that `layout` names at `offset`, or raise `WireError` where the buffer ends before them."""
    try:
        return layout.unpack_from(buffer, offset)
    except struct.error:
        raise WireError(f"{layout.size} bytes at offset {offset} do not fit in {len(buffer)}") from None


def slice_checked(pdu: memoryview, offset: int, length: int, floor: int = 0) -> memoryview:
    """Return `length` bytes at `offset`, which must lie between `floor` and the end of `pdu`.

    An empty part is accepted at any offset: servers write 0, the place where it would be, or anything else.
    """
    if not length:
        return pdu[:0]
    end = offset + length
    if offset < floor or end > len(pdu):
        raise WireError(f"{length} bytes at offset {offset} are outside of {floor}..{len(pdu)}")
    return pdu[offset:end]


def utf16(text: str) -> bytes:
    """Encode a name; lone surrogates, which file names may hold, pass as they are."""
    return utf_16_le_encode(text, "surrogatepass")[0]


def from_utf16(data: Buffer) -> str:
    """Decode a name; lone surrogates, which file names may hold, pass as they are."""
    try:
        # str(data, "utf-16-le", ...) looks the codec up and takes three times as long; every name listed comes here.
        return utf_16_le_decode(data, "surrogatepass", True)[0]
    except UnicodeDecodeError:
        raise WireError(f"{len(data)} bytes are no UTF-16") from None


def pad8(n: int) -> int:
    """Return the smallest multiple of 8 that is not below `n`."""
    return (n + 7) & ~7


def filetime_to_ns(filetime: int) -> int:
    """Return nanoseconds since 1970 for a FILETIME; what is no time becomes 0, which says "not set"."""
    return (filetime - EPOCH_AS_FILETIME) * 100 if 0 < filetime <= MAX_FILETIME else 0


def ns_to_filetime(ns: int) -> int:
    """Return the FILETIME of nanoseconds since 1970, kept within what a server takes for a time; 0 stays 0."""
    return min(max(ns // 100 + EPOCH_AS_FILETIME, 1), MAX_FILETIME) if ns else 0
