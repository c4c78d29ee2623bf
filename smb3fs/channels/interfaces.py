"""This machine's own interfaces: their addresses from netifaces, their speed and state from the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any, Final, TypeAlias

from smb3fs.errors import MountError

SYSTEM: Final = Path("/sys/class/net")
MEGABIT: Final = 1_000_000

Network: TypeAlias = IPv4Interface | IPv6Interface


@dataclass(slots=True, frozen=True)
class OwnAddress:
    """One address of this machine, with its network; `speed` in bits a second, 0 where the kernel knows none."""

    interface: str
    network: Network
    speed: int = 0
    up: bool = True


def own_addresses(system: Path = SYSTEM) -> list[OwnAddress]:
    """Return the addresses of this machine, as they are just now."""
    try:
        import netifaces  # a mount of one connection needs none of it
    except ImportError as error:
        raise MountError(f"several connections need the package netifaces-plus: {error}") from None

    found = []
    for interface in netifaces.interfaces():
        with suppress(ValueError):  # it went away in between
            told = netifaces.ifaddresses(interface)
            networks = [*_networks(told.get(netifaces.AF_INET, ())), *_networks(told.get(netifaces.AF_INET6, ()))]
            for network in networks:
                found.append(OwnAddress(interface, network, _speed(system / interface), _is_up(system / interface)))
    return found


def _networks(told: Iterable[Mapping[str, Any]]) -> Iterator[Network]:
    """Yield the addresses that netifaces tells of one interface and family."""
    for row in told:
        # An IPv6 address may carry its scope, and its mask has the length of the prefix behind a slash.
        address, length = row["addr"].partition("%")[0], row.get("netmask", "").rpartition("/")[2]
        with suppress(ValueError):
            yield ip_interface(f"{address}/{length}" if length else address)


def _speed(place: Path) -> int:
    """Return the speed of a link; drivers say -1, or fail, where they know none."""
    try:
        return max(0, int((place / "speed").read_text())) * MEGABIT
    except (OSError, ValueError):
        return 0


def _is_up(place: Path) -> bool:
    """Whether an interface carries traffic; one that cannot tell is taken to (tunnels, the loopback)."""
    try:
        return (place / "operstate").read_text().strip() in ("up", "unknown")
    except OSError:
        return False
