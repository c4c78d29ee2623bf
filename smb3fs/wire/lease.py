"""Leases and oplocks: the create context by which a lease is asked for and granted, and their breaks.

[MS-SMB2] 2.2.13.2.8, 2.2.13.2.10 and 2.2.14.2.10, 2.2.14.2.11 for the context, 2.2.23 to 2.2.25 for the breaks. All of
the latter are messages of one command, OPLOCK_BREAK, and told apart by their StructureSize.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final, Self

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, unpack_at
from smb3fs.wire.create import FileId
from smb3fs.wire.header import HEADER_SIZE, Command, unpack_body

LEASE_CONTEXT: Final = b"RqLs"  # [MS-SMB2] 2.2.13.2


class LeaseState(IntFlag):
    """What a lease permits: to keep what was read, the handle, and what is still to be written (2.2.13.2.8)."""

    NONE = 0
    READ = 1
    HANDLE = 2
    WRITE = 4


class LeaseFlag(IntFlag):
    """LeaseFlags of the context (2.2.13.2.10, 2.2.14.2.10)."""

    BREAK_IN_PROGRESS = 0x02
    PARENT_LEASE_KEY_SET = 0x04


# [MS-SMB2] 2.2.23.2, Flags: the server waits for an acknowledgement.
ACK_REQUIRED: Final = 0x01
NO_KEY: Final = bytes(16)

# 2.2.13.2.8: LeaseKey, LeaseState, LeaseFlags, LeaseDuration
_LEASE: Final = Struct("<16sIIQ")
# 2.2.13.2.10: the same, and ParentLeaseKey, Epoch, Reserved
_LEASE_V2: Final = Struct("<16sIIQ16sHH")


@dataclass(slots=True)
class LeaseContext:
    """The context of version 1, of SMB 2.1: a lease that is asked for, or what of it is granted."""

    key: bytes
    state: int
    flags: int = 0

    def encode(self) -> bytes:
        """Return the context's data."""
        return _LEASE.pack(self.key, self.state, self.flags, 0)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        key, state, flags, _duration = unpack_at(_LEASE, data, 0)
        return cls(key, state, flags)


@dataclass(slots=True)
class LeaseContextV2:
    """The context of version 2, of SMB 3.x; in it changes of the state are numbered by `epoch`, 16 bits.

    `parent_key` is the key of the lease on the file's directory, valid with LeaseFlag.PARENT_LEASE_KEY_SET.
    """

    key: bytes
    state: int
    flags: int = 0
    parent_key: bytes = NO_KEY
    epoch: int = 0

    def encode(self) -> bytes:
        """Return the context's data."""
        return _LEASE_V2.pack(self.key, self.state, self.flags, 0, self.parent_key, self.epoch, 0)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the context's data."""
        key, state, flags, _duration, parent_key, epoch, _reserved = unpack_at(_LEASE_V2, data, 0)
        return cls(key, state, flags, parent_key, epoch)


def parse_lease(data: Buffer) -> LeaseContext | LeaseContextV2:
    """Read the context's data in the version that its length tells."""
    return (LeaseContextV2 if len(data) >= _LEASE_V2.size else LeaseContext).parse(data)


# 2.2.23.2: StructureSize, NewEpoch, Flags, LeaseKey, CurrentLeaseState, NewLeaseState, BreakReason, AccessMaskHint,
# ShareMaskHint
_LEASE_BREAK: Final = Struct("<HHI16sIIIII")


@dataclass(slots=True)
class LeaseBreakNotification:
    """The server takes a lease back, wholly or in part; until a break with ACK_REQUIRED is acknowledged others wait."""

    new_epoch: int
    flags: int
    key: bytes
    current_state: int
    new_state: int
    break_reason: int = 0
    access_mask_hint: int = 0
    share_mask_hint: int = 0

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LEASE_BREAK.pack(
            44,
            self.new_epoch,
            self.flags,
            self.key,
            self.current_state,
            self.new_state,
            self.break_reason,
            self.access_mask_hint,
            self.share_mask_hint,
        )

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a notification, beginning at its header."""
        _, epoch, flags, key, current, new, reason, access, share = unpack_body(_LEASE_BREAK, pdu, 44)
        return cls(epoch, flags, key, current, new, reason, access, share)


# 2.2.24.2 and 2.2.25.2: StructureSize, Reserved, Flags, LeaseKey, LeaseState, LeaseDuration
_LEASE_ANSWER: Final = Struct("<HHI16sIQ")


@dataclass(slots=True)
class _LeaseBreakAnswer:
    """What the acknowledgement of a lease break and the response to that have in common: all of it."""

    key: bytes
    state: int

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _LEASE_ANSWER.pack(36, 0, 0, self.key, self.state, 0)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a message, beginning at its header."""
        _, _reserved, _flags, key, state, _duration = unpack_body(_LEASE_ANSWER, pdu, 36)
        return cls(key, state)


class LeaseBreakAcknowledgment(_LeaseBreakAnswer):
    """Gives back what a break has asked for: `state` is what the client goes on with (2.2.24.2)."""

    command: ClassVar[Command] = Command.OPLOCK_BREAK
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0


class LeaseBreakResponse(_LeaseBreakAnswer):
    """The acknowledgement has arrived (2.2.25.2)."""


# 2.2.23.1, 2.2.24.1 and 2.2.25.1: StructureSize, OplockLevel, Reserved, Reserved2, FileId (two halves)
_OPLOCK_BREAK: Final = Struct("<HBBIQQ")


@dataclass(slots=True)
class _OplockBreak:
    """What the three messages about the break of an oplock have in common: all of it."""

    oplock_level: int
    file_id: FileId

    def encode(self) -> bytes:
        """Return the body that follows the header."""
        return _OPLOCK_BREAK.pack(24, self.oplock_level, 0, 0, *self.file_id)

    @classmethod
    def parse(cls, pdu: memoryview) -> Self:
        """Read a message, beginning at its header."""
        _, level, _reserved, _reserved2, persistent, volatile = unpack_body(_OPLOCK_BREAK, pdu, 24)
        return cls(level, FileId(persistent, volatile))


class OplockBreakNotification(_OplockBreak):
    """The server takes an oplock back, down to `oplock_level` (2.2.23.1)."""


class OplockBreakAcknowledgment(_OplockBreak):
    """Gives an oplock back, down to `oplock_level` (2.2.24.1)."""

    command: ClassVar[Command] = Command.OPLOCK_BREAK
    payload: ClassVar[Buffer] = b""
    credit_size: ClassVar[int] = 0


class OplockBreakResponse(_OplockBreak):
    """The acknowledgement has arrived (2.2.25.1)."""


Break = LeaseBreakNotification | OplockBreakNotification

_STRUCTURE_SIZE: Final = Struct("<H")


def parse_break(pdu: memoryview) -> Break:
    """Read what a server sends unasked, beginning at its header, as the kind of break that its size tells."""
    (size,) = unpack_at(_STRUCTURE_SIZE, pdu, HEADER_SIZE)
    if size == 44:
        return LeaseBreakNotification.parse(pdu)
    if size == 24:
        return OplockBreakNotification.parse(pdu)
    raise WireError(f"StructureSize {size} is that of no break")
