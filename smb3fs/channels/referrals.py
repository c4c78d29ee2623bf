r"""Asking a server where a path of a DFS namespace leads, and remembering it ([MS-DFSC] 3.1.4, 3.1.5.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from smb3fs.channels.channel import Channel
from smb3fs.channels.places import Place
from smb3fs.connection import CREDIT_UNIT, Exchange, SessionSecurity
from smb3fs.errors import Status, StatusError, WireError
from smb3fs.wire.create import RELATED_FILE_ID
from smb3fs.wire.dfs import FSCTL_DFS_GET_REFERRALS, Referral, ReferralRequest, ReferralResponse
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.tree import TreeConnectRequest, TreeDisconnectRequest

# The largest answer that is asked for: what one credit pays for.
LARGEST_ANSWER: Final = CREDIT_UNIT
# Bounds of our own on what a server may have us do: how many targets of a link are tried, and how long one is believed.
MAX_TARGETS: Final = 16
LONGEST_TTL: Final = 86_400
# Layouts before the third may leave it out, and a server may say 0, which would mean to ask with each call.
SHORTEST_TTL: Final = 30


@dataclass(slots=True, eq=False)
class Link:
    """A part of a namespace and its targets in the order in which to try them, until `expires` on trio's clock."""

    place: Place
    targets: list[Place]
    expires: float = 0.0

    @property
    def expired(self) -> bool:
        """Whether the server is to be asked again."""
        return trio.current_time() >= self.expires

    def resolve(self, place: Place) -> list[Place]:
        """Return where a place at or below the link may be found."""
        rest = place.path[len(self.place.path) :].lstrip("\\")
        return [target.below(rest) for target in self.targets]

    def prefer(self, target: Place, place: Place) -> None:
        """Try the target first by which a place was reached, as long as the link is believed."""
        found = self.resolve(place).index(target)
        self.targets.insert(0, self.targets.pop(found))

    def covers(self, place: Place) -> bool:
        """Whether a place is the link, or below it."""
        return place.key == self.place.key or place.key.startswith(f"{self.place.key}\\")

    def __str__(self) -> str:
        """Name the targets as sources of mounts."""
        return " and ".join(str(target) for target in self.targets)


@dataclass(slots=True)
class ReferralCache:
    """The links that are known."""

    links: dict[str, Link] = field(default_factory=dict)

    def add(self, link: Link) -> None:
        """Remember a link in the place of what was known of it."""
        self.links[link.place.key] = link

    def find(self, place: Place) -> Link | None:
        """Return the deepest link that a place goes through."""
        found = [link for link in self.links.values() if link.covers(place)]
        return max(found, key=lambda link: len(link.place.path), default=None)


async def connect_pipes(channel: Channel, security: SessionSecurity, server: str) -> int:
    """Connect to the share that referrals are asked from, and return the id of the tree."""
    request = TreeConnectRequest(f"\\\\{server}\\IPC$")
    (answer,) = await channel.call(Exchange([request], session=security))
    if answer.status != Status.SUCCESS:
        raise StatusError(answer.status, "TREE_CONNECT")
    return answer.header.tree_id


async def ask(channel: Channel, security: SessionSecurity, tree_id: int, place: Place) -> Link | None:
    """Return the link that a place goes through, None where the server knows of none."""
    input_ = ReferralRequest(place.full).encode()
    request = IoctlRequest(FSCTL_DFS_GET_REFERRALS, RELATED_FILE_ID, input_, LARGEST_ANSWER)
    (answer,) = await channel.call(Exchange([request], tree_id=tree_id, session=security))
    channel.post(Exchange([TreeDisconnectRequest()], tree_id=tree_id, session=security, urgent=True))
    if answer.status != Status.SUCCESS:
        return None
    if not answer.protected and security.signer is not None:
        raise WireError("a referral that is neither signed nor encrypted")
    return read_link(place, ReferralResponse.parse(IoctlResponse.parse(answer.pdu).output))


def read_link(place: Place, told: ReferralResponse) -> Link | None:
    """Return what an answer says of a place; None where it names no target."""
    referrals = [referral for referral in told.referrals if isinstance(referral, Referral)][:MAX_TARGETS]
    targets = _distinct(Place.parse(referral.target) for referral in referrals)
    if not targets:
        return None
    length = told.path_consumed // 2
    consumed, rest = place.full[:length], place.full[length:]
    if told.path_consumed != 2 * len(consumed) or not (consumed.endswith("\\") or rest[:1] in ("", "\\")):
        raise WireError(
            f"the server refers for {told.path_consumed} bytes of {place.full!r:.200}, in the middle of a name"
        )
    ttl = min(max((referral.ttl for referral in referrals), default=0), LONGEST_TTL)
    return Link(Place.parse(consumed), targets, trio.current_time() + max(ttl, SHORTEST_TTL))


def _distinct(places: Iterable[Place]) -> list[Place]:
    """Return each place once, in the order of their first coming."""
    return list({place.key: place for place in places}.values())
