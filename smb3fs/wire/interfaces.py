"""FSCTL_QUERY_NETWORK_INTERFACE_INFO: the addresses at which a server can be reached ([MS-SMB2] 2.2.32.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, Self, TypeAlias

from smb3fs.errors import WireError
from smb3fs.wire.codec import Buffer, pad8, unpack_at

FSCTL_QUERY_NETWORK_INTERFACE_INFO: Final = 0x001401FC  # [MS-SMB2] 2.2.31, CtlCode

# Windows' numbers of the address families, whatever the server runs on ([MS-SMB2] 2.2.32.5.1).
IPV4: Final = 0x0002
IPV6: Final = 0x0017
# A bound of our own: a server with more addresses than this gains nothing by the rest.
MAX_INTERFACES: Final = 256

Address: TypeAlias = IPv4Address | IPv6Address


class InterfaceCapability(IntFlag):
    """What an interface can do ([MS-SMB2] 2.2.32.5)."""

    RSS = 1
    RDMA = 2


# Next, IfIndex, Capability, Reserved, LinkSpeed (bits a second); then SockAddr_Storage, 128 bytes
_ENTRY: Final = Struct("<IIIIQ")
_NEXT: Final = Struct("<I")
_STORAGE: Final = 128
_FAMILY: Final = Struct("<H")
# [MS-SMB2] 2.2.32.5.1.1: Family, Port, IPv4Address, Reserved
_SOCKADDR_IN: Final = Struct("<HH4s8x")
# [MS-SMB2] 2.2.32.5.1.2: Family, Port, FlowInfo, IPv6Address, ScopeId
_SOCKADDR_IN6: Final = Struct("<HHI16sI")


@dataclass(slots=True, frozen=True)
class NetworkInterface:
    """One address of one interface; `speed` in bits a second. The port and the scope are zero by definition."""

    index: int
    capability: int
    speed: int
    address: Address

    def encode(self) -> bytes:
        """Return the entry without its link to the next one, whose field is zero."""
        packed = self.address.packed
        if isinstance(self.address, IPv4Address):
            sockaddr = _SOCKADDR_IN.pack(IPV4, 0, packed)
        else:
            sockaddr = _SOCKADDR_IN6.pack(IPV6, 0, 0, packed, 0)
        return _ENTRY.pack(0, self.index, self.capability, 0, self.speed) + sockaddr.ljust(_STORAGE, b"\0")

    @classmethod
    def parse(cls, data: Buffer, start: int) -> Self | None:
        """Read the entry at `start`; None for one of a family that is neither IPv4 nor IPv6."""
        _next, index, capability, _reserved, speed = unpack_at(_ENTRY, data, start)
        place = start + _ENTRY.size
        (family,) = unpack_at(_FAMILY, data, place)
        address: Address
        if family == IPV4:
            address = IPv4Address(unpack_at(_SOCKADDR_IN, data, place)[2])
        elif family == IPV6:
            address = IPv6Address(unpack_at(_SOCKADDR_IN6, data, place)[3])
        else:
            return None
        return cls(index, capability, speed, address)


def encode_interfaces(interfaces: Sequence[NetworkInterface]) -> bytes:
    """Return the control's output."""
    step = _NEXT.pack(pad8(_ENTRY.size + _STORAGE))
    entries = [interface.encode() for interface in interfaces]
    return b"".join([*(step + entry[_NEXT.size :] for entry in entries[:-1]), *entries[-1:]])


def parse_interfaces(data: Buffer) -> list[NetworkInterface]:
    """Read the control's output; what follows the last entry is padding, of which some servers send too much."""
    found: list[NetworkInterface] = []
    start = 0
    for _ in range(MAX_INTERFACES):
        if not data:
            return found
        (step,) = unpack_at(_NEXT, data, start)
        interface = NetworkInterface.parse(data, start)
        if interface is not None:
            found.append(interface)
        if not step:
            return found
        if step < _ENTRY.size or step % 8:
            raise WireError(f"the next interface is {step} bytes away")
        start += step
    raise WireError(f"a list of more than {MAX_INTERFACES} interfaces")
