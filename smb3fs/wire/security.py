"""Security descriptors: owner, group, and the lists of what is permitted and what audited ([MS-DTYP] 2.4.4 and on)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, NamedTuple, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, slice_checked, unpack_at
from smb3fs.wire.sid import Sid


class SecurityInformation(IntFlag):
    """Which parts of a descriptor are asked for or set ([MS-SMB2] 2.2.37, AdditionalInformation)."""

    OWNER = 0x00000001
    GROUP = 0x00000002
    DACL = 0x00000004
    SACL = 0x00000008


class Control(IntFlag):
    """What a descriptor has, and where it is from ([MS-DTYP] 2.4.6, Control)."""

    OWNER_DEFAULTED = 0x0001
    GROUP_DEFAULTED = 0x0002
    DACL_PRESENT = 0x0004
    DACL_DEFAULTED = 0x0008
    SACL_PRESENT = 0x0010
    SACL_DEFAULTED = 0x0020
    DACL_AUTO_INHERIT_REQUIRED = 0x0100
    SACL_AUTO_INHERIT_REQUIRED = 0x0200
    DACL_AUTO_INHERITED = 0x0400
    SACL_AUTO_INHERITED = 0x0800
    DACL_PROTECTED = 0x1000
    SACL_PROTECTED = 0x2000
    SELF_RELATIVE = 0x8000


class AceType(IntEnum):
    """The kinds of entries whose trustee follows the mask ([MS-DTYP] 2.4.4.1)."""

    ACCESS_ALLOWED = 0x00
    ACCESS_DENIED = 0x01
    SYSTEM_AUDIT = 0x02


_TYPES: Final = frozenset(AceType)

# [MS-DTYP] 2.4.4.1: AceType, AceFlags, AceSize; every kind goes on with a mask (2.4.4.2 and following)
_ACE: Final = Struct("<BBHI")


class Ace(NamedTuple):
    """One entry of a list. What follows the mask depends on the type, and is kept as it is."""

    ace_type: int
    flags: int
    mask: int
    rest: bytes

    @property
    def trustee(self) -> Sid | None:
        """Who the entry is about; None for a type that is not in `AceType`. Raises WireError."""
        return Sid.parse(self.rest) if self.ace_type in _TYPES else None

    def encode(self) -> bytes:
        """Return the entry."""
        return _ACE.pack(self.ace_type, self.flags, _ACE.size + len(self.rest), self.mask) + self.rest

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the entry that `data` begins with."""
        ace_type, flags, size, mask = unpack_at(_ACE, data, 0)
        if size < _ACE.size:
            raise WireError(f"an access control entry of {size} bytes")
        return cls(ace_type, flags, mask, bytes(slice_checked(memoryview(data), _ACE.size, size - _ACE.size)))

    @classmethod
    def of(cls, ace_type: AceType, trustee: Sid, mask: int, flags: int = 0) -> Self:
        """Make an entry of one of the types that have a trustee and nothing else."""
        return cls(ace_type, flags, mask, trustee.encode())


# [MS-DTYP] 2.4.5: AclRevision, Sbz1, AclSize, AceCount, Sbz2
_ACL: Final = Struct("<BBHHH")
# [MS-DTYP] 2.4.5: ACL_REVISION, the one of lists on files
ACL_REVISION: Final = 2


@dataclass(slots=True)
class Acl:
    """A list of entries, in the order in which they are looked at. An empty one lets nobody in."""

    aces: Sequence[Ace] = ()
    revision: int = ACL_REVISION

    def encode(self) -> bytes:
        """Return the list."""
        entries = b"".join(ace.encode() for ace in self.aces)
        return _ACL.pack(self.revision, 0, _ACL.size + len(entries), len(self.aces), 0) + entries

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the list that `data` begins with."""
        revision, _, size, count, _ = unpack_at(_ACL, data, 0)
        if size < _ACL.size:
            raise WireError(f"an access control list of {size} bytes")
        rest = slice_checked(memoryview(data), _ACL.size, size - _ACL.size)
        aces: list[Ace] = []
        for _ in range(count):
            ace = Ace.parse(rest)
            aces.append(ace)
            rest = rest[_ACE.size + len(ace.rest) :]
        return cls(aces, revision)


# [MS-DTYP] 2.4.6: Revision, Sbz1, Control, OffsetOwner, OffsetGroup, OffsetSacl, OffsetDacl
_DESCRIPTOR: Final = Struct("<BBHIIII")
REVISION: Final = 1


@dataclass(slots=True)
class SecurityDescriptor:
    """A self-relative descriptor. A list that `control` calls present and that is None lets everybody do everything."""

    control: int
    owner: Sid | None = None
    group: Sid | None = None
    sacl: Acl | None = None
    dacl: Acl | None = None
    resource_manager: int = 0

    def encode(self) -> bytes:
        """Return the descriptor."""
        offsets: list[int] = []
        body = b""
        for part in (self.owner, self.group, self.sacl, self.dacl):
            offsets.append(_DESCRIPTOR.size + len(body) if part is not None else 0)
            body += part.encode() if part is not None else b""
            body += bytes(-len(body) % 4)
        return _DESCRIPTOR.pack(REVISION, self.resource_manager, self.control, *offsets) + body

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the descriptor that `data` begins with."""
        revision, resource_manager, control, owner, group, sacl, dacl = unpack_at(_DESCRIPTOR, data, 0)
        if revision != REVISION or not control & Control.SELF_RELATIVE:
            raise WireError(f"a security descriptor of revision {revision} with control 0x{control:04x}")

        def part(offset: int) -> memoryview:
            if not _DESCRIPTOR.size <= offset <= len(data):
                raise WireError(f"a part of a security descriptor at {offset} of {len(data)} bytes")
            return memoryview(data)[offset:]

        return cls(
            control,
            Sid.parse(part(owner)) if owner else None,
            Sid.parse(part(group)) if group else None,
            Acl.parse(part(sacl)) if sacl and control & Control.SACL_PRESENT else None,
            Acl.parse(part(dacl)) if dacl and control & Control.DACL_PRESENT else None,
            resource_manager,
        )
