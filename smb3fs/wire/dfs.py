"""DFS referrals: where a path of a namespace really leads ([MS-DFSC] 2.2.2 to 2.2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from struct import Struct
from typing import Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, from_utf16, slice_checked, unpack_at, utf16

FSCTL_DFS_GET_REFERRALS: Final = 0x00060194  # [MS-SMB2] 2.2.31, CtlCode
# The newest layout of a referral that is asked for; a server answers in that or an older one.
NEWEST_REFERRAL: Final = 4
# Bounds of our own: no namespace has as many targets for one path, and no path is as long.
MAX_REFERRALS: Final = 256
MAX_NAME: Final = 4096


class ReferralHeaderFlag(IntFlag):
    """What kind of servers the referrals name ([MS-DFSC] 2.2.4, ReferralHeaderFlags)."""

    REFERRAL_SERVERS = 0x1
    STORAGE_SERVERS = 0x2
    TARGET_FAILBACK = 0x4


class ReferralFlag(IntFlag):
    """What one referral is ([MS-DFSC] 2.2.5.3 and 2.2.5.4, ReferralEntryFlags)."""

    NAME_LIST = 0x2
    TARGET_SET_BOUNDARY = 0x4


# [MS-DFSC] 2.2.2: MaxReferralLevel
_REQUEST: Final = Struct("<H")
# [MS-DFSC] 2.2.4: PathConsumed, NumberOfReferrals, ReferralHeaderFlags
_RESPONSE: Final = Struct("<HHI")
# [MS-DFSC] 2.2.5.1, what all versions begin with: VersionNumber, Size, ServerType, ReferralEntryFlags
_ENTRY: Final = Struct("<HHHH")
# [MS-DFSC] 2.2.5.2, version 2: Proximity, TimeToLive, DFSPathOffset, DFSAlternatePathOffset, NetworkAddressOffset
_V2: Final = Struct("<IIHHH")
# [MS-DFSC] 2.2.5.3, versions 3 and 4: TimeToLive, DFSPathOffset, DFSAlternatePathOffset, NetworkAddressOffset;
# ServiceSiteGuid, which is zero, follows
_V3: Final = Struct("<IHHH")
# ... or for a list of names: TimeToLive, SpecialNameOffset, NumberOfExpandedNames, ExpandedNameOffset
_SITE: Final = bytes(16)


@dataclass(slots=True)
class ReferralRequest:
    r"""The input of `FSCTL_DFS_GET_REFERRALS`: where does `path`, written \server\share\directory, lead?"""

    path: str
    max_level: int = NEWEST_REFERRAL

    def encode(self) -> bytes:
        """Return the control's input."""
        return _REQUEST.pack(self.max_level) + _terminated(self.path)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's input."""
        (max_level,) = unpack_at(_REQUEST, data, 0)
        return cls(_text(memoryview(data), _REQUEST.size), max_level)


@dataclass(slots=True)
class Referral:
    """One target: `path` is the part of the namespace that it stands for; `ttl` is in seconds.

    Version 1 has no more than the target.
    """

    version: int
    server_type: int
    flags: int
    target: str
    ttl: int = 0
    path: str = ""
    alternate_path: str = ""
    proximity: int = 0


@dataclass(slots=True)
class NameListReferral:
    """A domain and its controllers, or the domains that there are ([MS-DFSC] 2.2.5.3.2)."""

    version: int
    server_type: int
    flags: int
    ttl: int
    name: str
    servers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ReferralResponse:
    """The output of `FSCTL_DFS_GET_REFERRALS`; the first `path_consumed` bytes of the path are what it stands for."""

    path_consumed: int
    flags: int
    referrals: list[Referral | NameListReferral] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the control's output: the entries, and behind them their names."""
        sizes = [_size(referral) for referral in self.referrals]
        names = bytearray()
        entries = bytearray()
        total = sum(sizes)
        for referral, size in zip(self.referrals, sizes, strict=True):
            entries += _encode_entry(referral, size, names, total - len(entries))
        return _RESPONSE.pack(self.path_consumed, len(self.referrals), self.flags) + bytes(entries + names)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the control's output."""
        view = memoryview(data)
        path_consumed, count, flags = unpack_at(_RESPONSE, view, 0)
        if count > MAX_REFERRALS:
            raise WireError(f"{count} referrals for one path")
        referrals: list[Referral | NameListReferral] = []
        position = _RESPONSE.size
        for _ in range(count):
            version, size, server_type, entry_flags = unpack_at(_ENTRY, view, position)
            if size < _ENTRY.size:
                raise WireError(f"a referral of {size} bytes")
            entry = view[position:]
            slice_checked(entry, 0, size)
            referrals.append(_parse_entry(entry, version, size, server_type, entry_flags))
            position += size
        return cls(path_consumed, flags, referrals)


def _size(referral: Referral | NameListReferral) -> int:
    """Return the Size field of a referral."""
    if referral.version == 1 and isinstance(referral, Referral):
        return _ENTRY.size + len(_terminated(referral.target))
    if referral.version == 2:
        return _ENTRY.size + _V2.size
    return _ENTRY.size + _V3.size + len(_SITE)


def _encode_entry(referral: Referral | NameListReferral, size: int, names: bytearray, distance: int) -> bytes:
    """Return one entry, and add its names to those that lie `distance` bytes behind its beginning."""

    def add(name: str) -> int:
        offset = distance + len(names)
        names.extend(_terminated(name))
        return offset

    fixed = _ENTRY.pack(referral.version, size, referral.server_type, referral.flags)
    if isinstance(referral, NameListReferral):
        name = add(referral.name)
        servers = [add(server) for server in referral.servers]
        return fixed + _V3.pack(referral.ttl, name, len(servers), servers[0] if servers else 0) + _SITE
    if referral.version == 1:
        return fixed + _terminated(referral.target)
    offsets = (add(referral.path), add(referral.alternate_path), add(referral.target))
    if referral.version == 2:
        return fixed + _V2.pack(referral.proximity, referral.ttl, *offsets)
    return fixed + _V3.pack(referral.ttl, *offsets) + _SITE


def _parse_entry(
    entry: memoryview, version: int, size: int, server_type: int, flags: int
) -> Referral | NameListReferral:
    """Read one entry; its names may lie anywhere behind its beginning."""
    if version == 1:
        return Referral(version, server_type, flags, _text(entry[:size], _ENTRY.size))
    if version == 2:
        proximity, ttl, *offsets = unpack_at(_V2, entry, _ENTRY.size)
    elif version in (3, 4):
        proximity = 0
        ttl, *offsets = unpack_at(_V3, entry, _ENTRY.size)
        if flags & ReferralFlag.NAME_LIST:
            return NameListReferral(version, server_type, flags, ttl, *_name_list(entry, offsets))
    else:
        raise WireError(f"a referral of version {version}")
    path, alternate_path, target = (_text(entry, offset) for offset in offsets)
    return Referral(version, server_type, flags, target, ttl, path, alternate_path, proximity)


def _name_list(entry: memoryview, fields: Sequence[int]) -> tuple[str, list[str]]:
    """Read the names of a `NameListReferral`: the first one, and those that follow each other elsewhere."""
    name_offset, count, offset = fields
    if count > MAX_REFERRALS:
        raise WireError(f"{count} names in one referral")
    names = []
    for _ in range(count):
        name = _text(entry, offset)
        offset += 2 * (len(utf16(name)) // 2 + 1)
        names.append(name)
    return _text(entry, name_offset), names


def _terminated(text: str) -> bytes:
    """Encode a name with the NUL at its end."""
    return utf16(text) + b"\0\0"


def _text(view: memoryview, offset: int) -> str:
    """Read a name up to its NUL."""
    if offset > len(view):
        raise WireError(f"a name at offset {offset} of {len(view)} bytes")
    units = bytes(view[offset : offset + 2 * MAX_NAME + 2])
    for end in range(0, len(units) - 1, 2):
        if not units[end] and not units[end + 1]:
            return from_utf16(units[:end])
    raise WireError("a name without an end, or too long")
