"""Previous versions of a share: their listing, and the times that name them ([MS-SMB2] 2.2.32.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import MAX_FILETIME, Buffer, from_utf16, slice_checked, unpack_at, utf16

FSCTL_SRV_ENUMERATE_SNAPSHOTS: Final = 0x00144064  # [MS-SMB2] 2.2.31, CtlCode
# How many intervals of a FILETIME are a second, which is as fine as a token is.
SECOND: Final = 10_000_000

# [MS-SMB2] 2.2.32.2: NumberOfSnapShots, NumberOfSnapShotsReturned, SnapShotArraySize
_ARRAY: Final = Struct("<III")
_FORM: Final = "@GMT-%Y.%m.%d-%H.%M.%S"
_SHAPE: Final = re.compile(r"@GMT-[0-9]{4}(\.[0-9]{2}){2}-[0-9]{2}(\.[0-9]{2}){2}")
_BEGINNING: Final = datetime(1601, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class SnapshotArray:
    """The tokens of the versions that exist; none of `total`, but the bytes that they need, where there was no room."""

    total: int
    tokens: Sequence[str]
    needed: int = 0

    def encode(self) -> bytes:
        """Return the control's output."""
        array = utf16("".join(f"{token}\0" for token in self.tokens) + "\0") if self.tokens else b""
        return _ARRAY.pack(self.total, len(self.tokens), len(array) or self.needed) + array

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's output."""
        total, returned, size = unpack_at(_ARRAY, data, 0)
        if not returned:
            return cls(total, [], size)
        tokens = from_utf16(slice_checked(memoryview(data), _ARRAY.size, size)).split("\0")[:returned]
        if len(tokens) < returned or "" in tokens:
            raise WireError(f"{returned} snapshots were promised, and not all are there")
        return cls(total, tokens)


def token_time(token: str) -> int | None:
    """Return the FILETIME that a token @GMT-YYYY.MM.DD-HH.MM.SS names; None for any other text."""
    if not _SHAPE.fullmatch(token):
        return None
    try:
        moment = datetime.strptime(token, _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _BEGINNING) // timedelta(seconds=1) * SECOND


def snapshot_time(text: str) -> int | None:
    """Return the FILETIME of a token or of a decimal number; None for what is neither, or no time of a file system."""
    filetime = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else token_time(text)
    return filetime if filetime is not None and 0 < filetime <= MAX_FILETIME else None


def time_token(filetime: int) -> str:
    """Return the token of the second in which a FILETIME lies, which must be before the year 10000."""
    return (_BEGINNING + timedelta(seconds=filetime // SECOND)).strftime(_FORM)
