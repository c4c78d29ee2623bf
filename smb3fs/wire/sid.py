"""Security identifiers, and what the well-known ones among them stand for on Unix ([MS-DTYP] 2.4.2)."""

from __future__ import annotations

import re
from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, unpack_at

# [MS-DTYP] 2.4.2.2: Revision, SubAuthorityCount, IdentifierAuthority (big-endian, in two parts)
_FIXED: Final = Struct(">BBHI")
REVISION: Final = 1
# [MS-DTYP] 2.4.2.2: SID_MAX_SUB_AUTHORITIES
MOST_SUB_AUTHORITIES: Final = 15
_U32: Final = 2**32

# [MS-DTYP] 2.4.2.1. Decimal, and hexadecimal only for an authority that does not fit in 32 bits.
_TEXT: Final = re.compile(r"[Ss]-1-(0[xX][0-9a-fA-F]{1,12}|[0-9]{1,15})((?:-[0-9]{1,10})*)", re.ASCII)


class Sid(NamedTuple):
    """One security identifier; `str()` gives S-1-AUTHORITY-SUB-AUTHORITIES."""

    authority: int
    sub_authorities: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the form that people write."""
        authority = f"{self.authority}" if self.authority < _U32 else f"0x{self.authority:012X}"
        return "-".join(("S", f"{REVISION}", authority, *map(str, self.sub_authorities)))

    @property
    def size(self) -> int:
        """The number of bytes that `encode` gives."""
        return _FIXED.size + 4 * len(self.sub_authorities)

    def encode(self) -> bytes:
        """Return the identifier as it stands in a packet."""
        high, low = divmod(self.authority, _U32)
        count = len(self.sub_authorities)
        return _FIXED.pack(REVISION, count, high, low) + Struct(f"<{count}I").pack(*self.sub_authorities)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the identifier that `data` begins with."""
        return cls.parse_at(data, 0)

    @classmethod
    def parse_at(cls, data: Buffer, offset: int) -> Self:
        """Read the identifier at `offset`; `size` tells where it ends."""
        revision, count, high, low = unpack_at(_FIXED, data, offset)
        if revision != REVISION or count > MOST_SUB_AUTHORITIES:
            raise WireError(f"a SID of revision {revision} with {count} subauthorities")
        return cls(high * _U32 + low, unpack_at(Struct(f"<{count}I"), data, offset + _FIXED.size))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the form that people write; raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no SID")
        authority = int(match[1], 0) if match[1][:2] in ("0x", "0X") else int(match[1])
        subs = tuple(int(part) for part in match[2].split("-")[1:])
        if authority >= 2**48 or len(subs) > MOST_SUB_AUTHORITIES or any(sub >= _U32 for sub in subs):
            raise ValueError(f"{text!r} is no SID")
        return cls(authority, subs)


# What stands for nobody: servers put it where they know no owner.
NULL: Final = Sid(0, (0,))
EVERYONE: Final = Sid(1, (0,))

# Samba's, for accounts of the Unix machine that no Windows account is mapped to: the number follows.
_UNIX_USER: Final = Sid(22, (1,))
_UNIX_GROUP: Final = Sid(22, (2,))
# Those of Windows' NFS server: an owner, a group, and a mode as the trustee of an access control entry.
_NFS_USER: Final = Sid(5, (88, 1))
_NFS_GROUP: Final = Sid(5, (88, 2))
_NFS_MODE: Final = Sid(5, (88, 3))


def _below(sid: Sid, *parents: Sid) -> int | None:
    """Return the number that a SID adds to one of the parents; None if it is below none of them."""
    if sid.sub_authorities and Sid(sid.authority, sid.sub_authorities[:-1]) in parents:
        return sid.sub_authorities[-1]
    return None


def unix_user(sid: Sid) -> int | None:
    """Return the number of the Unix user that a SID is made of; None for any other SID."""
    return _below(sid, _UNIX_USER, _NFS_USER)


def unix_group(sid: Sid) -> int | None:
    """Return the number of the Unix group that a SID is made of; None for any other SID."""
    return _below(sid, _UNIX_GROUP, _NFS_GROUP)


def of_unix_user(uid: int) -> Sid:
    """Return the SID of a Unix user that no Windows account is mapped to."""
    return Sid(_UNIX_USER.authority, (*_UNIX_USER.sub_authorities, uid))


def of_unix_group(gid: int) -> Sid:
    """Return the SID of a Unix group that no Windows account is mapped to."""
    return Sid(_UNIX_GROUP.authority, (*_UNIX_GROUP.sub_authorities, gid))


def of_mode(mode: int) -> Sid:
    """Return the trustee of the one entry of an access control list that sets a mode."""
    return Sid(_NFS_MODE.authority, (*_NFS_MODE.sub_authorities, mode))


def mode_of(sid: Sid) -> int | None:
    """Return the mode that a trustee stands for; None for any other SID."""
    return _below(sid, _NFS_MODE)
