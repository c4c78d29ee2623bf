"""Which of our addresses to connect with which of the server's ([MS-SMB2] 3.2.4.20.10).

Pairs are ranked by what both ends can do: receive-side scaling, speed, and whether they share a network, in this order.
Only the best class is used of which any can be connected, all pairs that are alike in the first two: a slower link
would hold up what is spread over both. It is one pair for each of the server's interfaces, for which that of our
addresses counts that is nearest, and of these each is used once if there are enough. One pair of the next class stands
by, as soon as all of the best have a connection. Then an interface that scales takes further ones. Whoever asks for it
(`Choice.mixed`) has all classes used as one.

What cannot be connected to is left out: addresses of a link without its scope, the loopback's, multicast, and those of
a family that we have no address of. An address may be listed twice, once for RDMA; over TCP both are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Final, NamedTuple

from smb3fs.channels.interfaces import OwnAddress
from smb3fs.wire.interfaces import Address, InterfaceCapability, NetworkInterface

# What an interface is taken for whose speed nobody knows, in bits a second.
USUAL_SPEED: Final = 1_000_000_000
# How many connections an interface takes that spreads them over its queues; as Windows has it.
MOST_EACH: Final = 4
RSS: Final = int(InterfaceCapability.RSS)


class Pair(NamedTuple):
    """Both ends of a connection to be made; without `source` the kernel chooses ours."""

    source: Address | None
    target: Address


@dataclass(slots=True, frozen=True)
class Path:
    """A pair with what is known of it; `speed` in bits a second."""

    pair: Pair
    server_index: int
    interface: str
    rss: bool
    speed: int
    near: bool

    @property
    def kind(self) -> tuple[bool, int]:
        """What paths that are used together have in common; the better one is the larger."""
        return (self.rss, self.speed)


@dataclass(slots=True, frozen=True)
class Choice:
    """What a mount wants of this machine's ends: one address alone, or interfaces by their names, or none of some.

    Names may be patterns, as the shell has them. `mixed` says that links of unlike speed carry data together, `apart`
    that only connections are wanted which have nothing in common, by interfaces of ours that are in the same networks.
    """

    source: Address | None = None
    interfaces: Sequence[str] = ()
    excluded: Sequence[str] = ()
    mixed: bool = False
    apart: bool = False

    @property
    def named(self) -> bool:
        """Whether interfaces are chosen by their names."""
        return bool(self.interfaces or self.excluded)

    def permits(self, own: OwnAddress) -> bool:
        """Whether one of our addresses may be used."""
        if self.interfaces and not any(fnmatchcase(own.interface, name) for name in self.interfaces):
            return False
        return self.source in (None, own.network.ip) and not any(
            fnmatchcase(own.interface, name) for name in self.excluded
        )


@dataclass(slots=True, frozen=True)
class Plan:
    """The connections to have: of the class that is used, with one that stands by, and those to be had if possible."""

    used: Sequence[Path] = ()
    wanted: Sequence[Path] = ()
    better: Sequence[Path] = ()
    """Those of better classes, of which none can be connected at present."""


ANY: Final = Choice()


def paths(own: Iterable[OwnAddress], offered: Iterable[NetworkInterface], choice: Choice = ANY) -> list[Path]:
    """Return all that could be connected, the best first, one for each of the server's interfaces.

    Those of the best class come first, and among them what differs in both interfaces from those before.
    """
    mine = [one for one in own if one.up and _usable(one.network.ip)]
    candidates = [path for interface in _distinct(offered) for path in _to(interface, mine, choice)]
    candidates.sort(key=lambda path: (not path.rss, -path.speed, not path.near))
    chosen: list[Path] = []
    servers: set[int] = set()
    used: Counter[str] = Counter()
    while candidates:
        best = candidates[0].kind, candidates[0].near
        # Of equals the one whose end here is used least.
        path = min((one for one in candidates if (one.kind, one.near) == best), key=lambda one: used[one.interface])
        chosen.append(path)
        servers.add(path.server_index)
        used[path.interface] += 1
        candidates = [one for one in candidates if one.server_index not in servers]
    return chosen


def apart(ranked: Iterable[Path], there: Collection[int]) -> list[Path]:
    """Return of what could be connected what has nothing in common: one for each of our interfaces, and known to be so.

    `there` are the server's interfaces to which there is a connection; of equals these come first.
    """
    chosen: dict[str, Path] = {}
    for path in ranked:
        known = chosen.setdefault(path.interface, path) if path.near else path
        if path.near and path.kind == known.kind and known.server_index not in there and path.server_index in there:
            chosen[path.interface] = path
    return sorted(chosen.values(), key=lambda path: path.kind, reverse=True)


def plan(
    ranked: Sequence[Path], most: int, *, mixed: bool = False, each: int = MOST_EACH, hopeless: Collection[Pair] = ()
) -> Plan:
    """Return which connections to have of what could be connected, the best first, at most so many.

    Those to one interface, `each` of them at most, follow those to all others. `hopeless` are pairs of which the last
    attempt has failed.
    """
    if not ranked:
        return Plan()
    classes = [ranked] if mixed else [list(alike) for _, alike in groupby(ranked, lambda one: one.kind)]
    hopeful = (number for number, alike in enumerate(classes) if any(path.pair not in hopeless for path in alike))
    chosen = next(hopeful, 0)
    used = classes[chosen]
    worse = [path for alike in classes[chosen + 1 :] for path in alike if path.pair not in hopeless]
    wanted = [*used, *worse[:1], *[path for path in used if path.rss] * (each - 1)]
    return Plan(used, wanted[:most], [path for alike in classes[:chosen] for path in alike])


def _to(interface: NetworkInterface, own: Sequence[OwnAddress], choice: Choice) -> list[Path]:
    """Return the paths to one address of the server: from its own network, or else whichever way the kernel goes.

    Where interfaces are chosen by name, it goes from an address of theirs. What is near one that is not to be used the
    kernel would go to by that one, whatever address it goes from.
    """
    family = [one for one in own if one.network.version == interface.address.version]
    near = [one for one in family if interface.address in one.network.network]
    if near and not any(map(choice.permits, near)):
        return []
    family, near = list(filter(choice.permits, family)), list(filter(choice.permits, near))
    rss = bool(interface.capability & RSS)
    theirs = interface.speed or USUAL_SPEED
    if near or choice.named:
        return [
            Path(
                Pair(one.network.ip, interface.address),
                interface.index,
                one.interface,
                rss,
                min(theirs, one.speed or theirs),
                near=bool(near),
            )
            for one in near or family
        ]
    if not family:
        return []
    speed = min(theirs, max(one.speed for one in family) or theirs)
    return [Path(Pair(None, interface.address), interface.index, "", rss, speed, near=False)]


def _distinct(offered: Iterable[NetworkInterface]) -> list[NetworkInterface]:
    """Return what can be connected to, each address once: as the best that it is listed as."""
    best: dict[Address, NetworkInterface] = {}
    for interface in offered:
        known = best.get(interface.address)
        if _usable(interface.address) and (known is None or _rank(interface) > _rank(known)):
            best[interface.address] = interface
    return list(best.values())


def _rank(interface: NetworkInterface) -> tuple[int, int]:
    """Return by what two entries of one address are compared."""
    return (interface.capability & RSS, interface.speed)


def _usable(address: Address) -> bool:
    """Whether somebody else can connect to it as it stands there."""
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
