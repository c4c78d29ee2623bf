"""The further channels of a session: which there are, which stand by, and what becomes of them when things change."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface

import pytest
import trio
from peer import Peer, fetch_credits, make_keys, real_time_test, settle, trio_test
from test_pool import Asked
from test_several_channels import LOOK
from world import World, world

from smb3fs.channels import changes, discovery
from smb3fs.channels.channel import Channel
from smb3fs.channels.discovery import ASK_INTERVAL, SOONEST, interfaces_of
from smb3fs.channels.interfaces import OwnAddress
from smb3fs.channels.pairing import Choice, Pair, Plan
from smb3fs.channels.pool import Repeat
from smb3fs.channels.session import Session
from smb3fs.channels.siblings import REFUSED_PAUSE, Siblings
from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, WireError
from smb3fs.wire.interfaces import NetworkInterface

G = 1_000_000_000
# How long it takes at most until something is tried again that has been there before, and more.
SOON = 10.0


def own(number: int, *, up: bool = True) -> OwnAddress:
    """Our address on a link."""
    return OwnAddress(f"link{number}", ip_interface(f"10.0.{number}.1/24"), 0, up)


def offered(number: int, speed: int = G) -> NetworkInterface:
    """The server's address on a link; a connection is all that it takes."""
    return NetworkInterface(number, 0, speed, ip_address(f"10.0.{number}.9"))


@dataclass
class Growing:
    """A session whose first channel goes by link 1, and what there is around it."""

    world: World
    session: Session
    siblings: Siblings
    offers: list[NetworkInterface] | Smb3fsError
    mine: list[OwnAddress] = field(default_factory=lambda: [own(1), own(2), own(3)])
    dead: dict[int, Smb3fsError | OSError] = field(default_factory=dict)
    """Links by which no channel comes into being, and why."""
    asked: int = 0
    attempts: list[int] = field(default_factory=list)

    @property
    def used(self) -> list[int]:
        """The links by which data go."""
        lanes = self.session.lanes
        return sorted(
            _link(channel) for channel in self.session.channels if channel not in lanes or not lanes[channel].standby
        )

    @property
    def standby(self) -> list[int]:
        """The links of which a channel stands by."""
        return sorted(_link(channel) for channel, lane in self.session.lanes.items() if lane.standby)

    def lose(self, link: int) -> None:
        """End the channel of a link, which cannot be connected any more."""
        self.dead[link] = OSError(errno.EHOSTUNREACH, "unreachable")
        next(channel for channel in self.session.channels if _link(channel) == link).fail(ConnectionLost("by the test"))

    async def interfaces(self, session: Session) -> list[NetworkInterface]:
        """What the server answers."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if isinstance(self.offers, Smb3fsError):
            raise self.offers
        return list(self.offers)

    async def bind(self, session: Session, pair: Pair) -> Channel:
        """Make one more channel."""
        await trio.lowlevel.checkpoint()
        link = int(str(pair.target).split(".")[2])
        self.attempts.append(link)
        if link in self.dead:
            raise self.dead[link]
        channel = self._channel(link)
        session.add(channel)
        return channel

    def _channel(self, link: int) -> Channel:
        """A channel by a link, whose peer answers everything."""
        peer = Peer(make_keys())
        assert peer.keys is not None
        peer.handler = peer.obey
        peer.transport.ends = f"10.0.{link}.1", f"10.0.{link}.9"
        lost = self.world.recovery.lost
        channel = Channel(peer.transport, self.world.trace, timeout=30, echo_interval=60, on_lost=lost)
        channel.connection.session = peer.keys.client
        channel.connection.negotiated(large_mtu=True, client=self.world.client)
        fetch_credits(channel, peer, 512)
        self.world.peers.append(peer)
        self.world.nursery.start_soon(channel.run)
        return channel

    def texts(self, word: str) -> list[str]:
        """The events with a word."""
        return [event.text for event in (*self.world.trace.events, *self.world.trace.errors) if word in event.text]


def _link(channel: Channel) -> int:
    """The number of a channel's link."""
    return int(str(channel.ends[1]).split(".")[2])


@asynccontextmanager
async def growing(
    monkeypatch: pytest.MonkeyPatch,
    offers: Sequence[NetworkInterface] | Smb3fsError,
    most: int = 2,
    choice: Choice = Choice(),  # noqa: B008 (it cannot be changed)
    dead: Sequence[int] = (),
) -> AsyncIterator[Growing]:
    def first() -> Peer:
        peer = Peer(make_keys())
        peer.handler = peer.obey
        peer.transport.ends = "10.0.1.1", "10.0.1.9"
        return peer

    async with world(first) as made:
        session = made.pool.session
        assert session is not None
        around: Growing

        async def bind(session: Session, pair: Pair) -> Channel:
            return await around.bind(session, pair)

        siblings = Siblings(made.pool, bind, lambda: around.mine, most, choice, made.trace)
        around = Growing(made, session, siblings, offers if isinstance(offers, Smb3fsError) else list(offers))
        around.dead = {link: OSError(errno.EHOSTUNREACH, "unreachable") for link in dead}
        monkeypatch.setattr(discovery, "interfaces_of", around.interfaces)

        async def at_once(function: object) -> object:
            await trio.lowlevel.checkpoint()
            return function()  # type: ignore[operator]

        monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(siblings.grow, session)
            await trio.sleep(0.1)
            yield around
            nursery.cancel_scope.cancel()


@trio_test
async def test_the_faster_link_is_used_and_the_other_one_stands_by(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("no channel from 10.0.2.1")
    async with growing(monkeypatch, [offered(1), offered(2, 10 * G)]) as made:
        assert (made.used, made.standby) == ([2], [1])
        made.lose(2)
        await settle()
        assert made.session.lives
        await trio.sleep(SOON)
        assert (made.used, made.standby) == ([1], [])
        made.dead.clear()
        await trio.sleep(SOON)
        assert (made.used, made.standby) == ([2], [1])
        assert len(made.texts("is back")) == 1
        assert len(made.texts("stands by")) == 2


@trio_test
async def test_one_of_the_slower_ones_is_there_to_stand_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async with growing(monkeypatch, [offered(1, 10 * G), offered(2), offered(3)]) as made:
        assert (made.used, made.standby) == ([1], [2])


@trio_test
async def test_where_the_best_cannot_be_connected_all_of_the_next_class_are_used_until_it_can(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("no channel from 10.0.3.1")
    async with growing(monkeypatch, [offered(1), offered(2), offered(3, 10 * G)], dead=[3]) as made:
        await trio.sleep(SOON)
        assert (made.used, made.standby) == ([1, 2], [])
        made.dead.clear()
        made.siblings.stir()
        await trio.sleep(SOON)
        # No more than two: one of the others has gone, with nothing lost.
        assert (made.used, made.standby) == ([3], [1])
        assert len(made.texts("not wanted any more")) == 1
        assert made.world.pool.generation == 1


@trio_test
async def test_an_address_that_has_moved_to_another_node_of_a_cluster_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    # A cluster lists the node's own addresses and the movable one by which it was asked (Samba).
    expect_log("no channel from 10.0.1.1")
    async with growing(monkeypatch, [offered(1), offered(2)], most=4) as made:
        assert made.used == [1, 2]
        made.lose(1)
        # It is another node's now, where the session is not known; this one lists it no more.
        made.dead[1] = StatusError(Status.REQUEST_NOT_ACCEPTED, "SESSION_SETUP")
        made.offers = [offered(2)]
        await trio.sleep(20)
        assert (made.used, made.attempts.count(1)) == ([2], 1)
        assert made.world.pool.generation == 1
        # When it is back, it is used again.
        made.dead.clear()
        made.offers = [offered(1), offered(2)]
        await trio.sleep(2 * ASK_INTERVAL)
        assert made.used == [1, 2]


APART = Choice(apart=True)


@trio_test
async def test_where_nothing_is_said_each_link_has_one_connection(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    # It has been there before: that it is gone is worth telling.
    expect_log("no channel from 10.0.2.1")
    scaling = [NetworkInterface(number, 1, G, ip_address(f"10.0.{number}.9")) for number in (1, 2, 3)]
    async with growing(monkeypatch, scaling, most=4, choice=APART) as made:
        await trio.sleep(1)
        assert (made.used, made.standby) == ([1, 2, 3], [])
        assert sorted(made.attempts) == [2, 3]
        made.lose(2)
        await trio.sleep(SOON)
        made.dead.clear()
        await trio.sleep(SOON)
        assert made.used == [1, 2, 3]
        assert made.world.pool.generation == 1


@trio_test
async def test_where_there_is_one_link_nothing_is_tried_and_nothing_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = NetworkInterface(1, 1, G, ip_address("10.0.1.9"))
    other = NetworkInterface(2, 1, G, ip_address("10.0.1.8"))
    async with growing(monkeypatch, [scaling, other], most=4, choice=APART) as made:
        looks: list[float] = []
        arrange = made.siblings._arrange

        def counted(session: Session, offers: discovery.Offers) -> Plan:
            looks.append(trio.current_time())
            return arrange(session, offers)

        monkeypatch.setattr(made.siblings, "_arrange", counted)
        await trio.sleep(500)
        assert (made.attempts, made.asked) == ([], 1)
        assert len(looks) <= 2
        assert made.session.binding_ids is None
        # Unless something changes here.
        made.offers = [scaling, NetworkInterface(2, 1, G, ip_address("10.0.2.9"))]
        made.mine.append(own(4))
        made.siblings.stir()
        await trio.sleep(200)
        assert (made.asked, made.used) == (2, [1, 2])


@trio_test
async def test_what_cannot_be_reached_is_no_error_where_nobody_has_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with growing(monkeypatch, [offered(1), offered(2)], most=4, choice=APART, dead=[2]) as made:
        await trio.sleep(5)
        assert made.used == [1]
        assert made.texts("no channel from 10.0.2.1")
        assert not made.world.trace.errors


@trio_test
async def test_links_of_any_speed_are_used_together_if_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with growing(monkeypatch, [offered(1), offered(2, 3 * G)], choice=Choice(mixed=True)) as made:
        assert (made.used, made.standby) == ([1, 2], [])


@trio_test
async def test_a_link_that_is_not_to_be_used_is_left_when_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with growing(monkeypatch, [offered(1), offered(2)], choice=Choice(excluded=("link1",))) as made:
        await trio.sleep(1)
        assert (made.used, made.standby) == ([2], [])
        assert 1 not in made.attempts


@trio_test
async def test_the_server_is_asked_again_every_ten_minutes_and_when_a_channel_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with growing(monkeypatch, [offered(1), offered(2)]) as made:
        await trio.sleep(ASK_INTERVAL - 1)
        assert made.asked == 1
        await trio.sleep(2)
        assert made.asked == 2
        await trio.sleep(SOONEST)
        made.offers = [offered(1), offered(3)]
        made.lose(2)
        await trio.sleep(1)
        assert (made.asked, made.used) == (3, [1, 3])


@trio_test
async def test_a_question_that_is_not_answered_is_asked_again_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("interfaces are not known")
    async with growing(monkeypatch, StatusError(Status.ACCESS_DENIED, "IOCTL")) as made:
        await trio.sleep(100)
        assert 4 <= made.asked <= 8
        assert len(made.texts("interfaces are not known")) == 1
        made.offers = [offered(1), offered(2)]
        await trio.sleep(100)
        assert made.used == [1, 2]


@trio_test
async def test_a_server_that_has_no_addresses_just_now_has_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with growing(monkeypatch, [offered(1), offered(2), offered(3)], most=3) as made:
        assert made.used == [1, 2, 3]
        busy = next(peer for peer in made.world.peers if peer.transport.ends[1] == "10.0.2.9")
        busy.handler = None
        for channel, lane in made.session.lanes.items():
            if _link(channel) != 2:
                lane.begin(1 << 20, 0.0)
        call = Asked(made.world, LOOK, repeat=Repeat.SAFE)
        await trio.sleep(SOONEST)
        made.offers = []
        made.lose(3)
        await trio.sleep(1)
        # What is under way is not cut off.
        assert sorted(map(_link, made.session.channels)) == [1, 2]
        assert call.waiting
        busy.answer(busy.take())
        busy.handler = busy.obey
        await trio.sleep(1)
        assert (made.used, call.statuses, made.world.pool.generation) == ([1], [0, 0], 1)
        made.offers = [offered(1), offered(2)]
        await trio.sleep(ASK_INTERVAL)
        assert made.used == [1, 2]


@trio_test
async def test_a_refusal_is_a_login_and_not_repeated_soon(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("no channel from 10.0.2.1")
    async with growing(monkeypatch, [offered(1), offered(2)]) as made:
        made.lose(2)
        made.dead[2] = StatusError(Status.LOGON_FAILURE, "SESSION_SETUP")
        await trio.sleep(1)
        made.attempts.clear()
        await trio.sleep(REFUSED_PAUSE - 5)
        made.siblings.stir()
        assert made.attempts == []
        # While the session has expired nothing is refused for good, and nothing is tried.
        made.dead[2] = StatusError(Status.NETWORK_SESSION_EXPIRED, "SESSION_SETUP")
        await trio.sleep(10)
        assert len(made.attempts) > 1
        made.world.pool.expired = True
        made.attempts.clear()
        await trio.sleep(10)
        assert made.attempts == []
        made.dead.clear()
        made.world.pool.expired = False
        await trio.sleep(SOON)
        assert made.used == [1, 2]


@trio_test
async def test_a_channel_whose_link_is_down_here_is_given_up_at_once(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("no channel to 10.0.1.9")
    async with growing(monkeypatch, [offered(1), offered(2)]) as made:
        made.dead[1] = OSError(errno.ENETUNREACH, "unreachable")
        made.mine = [own(1, up=False), own(2), own(3)]
        made.siblings.stir()
        await trio.sleep(0.1)
        assert made.used == [2]
        assert made.session.lives
        # The last one is kept, whatever seems to be.
        made.mine = []
        made.siblings.stir()
        await trio.sleep(SOON)
        assert made.used == [2]
        made.mine = [own(1), own(2)]
        made.dead.clear()
        made.siblings.stir()
        await trio.sleep(0.1)
        assert made.used == [1, 2]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (Status.NOT_SUPPORTED, None),
        (Status.NOT_IMPLEMENTED, None),
        (Status.INVALID_DEVICE_REQUEST, None),
        (Status.ACCESS_DENIED, StatusError),
        (Status.NETWORK_SESSION_EXPIRED, StatusError),
        (Status.SUCCESS, WireError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@trio_test
async def test_what_answers_to_the_question_mean(status: Status, outcome: type[Smb3fsError] | None) -> None:
    async with world(lambda: Peer(make_keys())) as made:
        session = made.pool.session
        assert session is not None
        answers: list[object] = []

        async def ask() -> None:
            try:
                answers.append(await interfaces_of(session))
            except Smb3fsError as error:
                answers.append(type(error))

        made.nursery.start_soon(ask)
        await settle()
        made.peer.answer(made.peer.take(), statuses=[status])
        await settle()
        assert answers == [[] if outcome is None else outcome]


@real_time_test
async def test_changes_that_come_together_are_told_once_and_lost_messages_are_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    told = 0
    changed = trio.Event()

    def tell() -> None:
        nonlocal told, changed
        told += 1
        changed.set()

    monkeypatch.setattr(changes, "open_kernel", lambda: ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.tell_changes, tell)
        for round_ in (1, 2):
            for _ in range(20):
                kernel.send(b"news")
            await changed.wait()
            changed = trio.Event()
            assert told == round_
        nursery.cancel_scope.cancel()
    kernel.close()


@real_time_test
async def test_the_kernel_is_listened_to() -> None:
    with changes.open_kernel() as kernel:
        assert kernel.family == socket.AF_NETLINK
        assert kernel.getsockname()[1] == changes.GROUPS
