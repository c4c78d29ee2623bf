"""What was open when a session was lost: claimed, opened anew, or lost, and never anything in between."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from keeping_server import Desk, KeepingServer
from peer import Message, settle, trio_test
from stage import Stage, staged, usual_tree
from tree_server import Node

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, errno_of
from smb3fs.handles.claim_order import in_order
from smb3fs.handles.lease import RWH
from smb3fs.handles.ledger import Ledger, Piece
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.listing import Listing
from smb3fs.wire.create import CreateContext, CreateOptions, CreateRequest
from smb3fs.wire.header import Command
from smb3fs.wire.infoclass import FileAllInformation
from smb3fs.wire.lease import LeaseBreakAcknowledgment
from smb3fs.wire.posix import POSIX_GUID, FilePosixInformation
from smb3fs.wire.query import QueryInfoRequest

ExpectLog = Callable[[str], None]

# What is logged where all claims are refused.
UNGIVEN = "serves the connection before"
KINDS = (Durability.DURABLE, Durability.DURABLE_V2, Durability.PERSISTENT)


class Kept:
    """A share on a server that keeps opens."""

    def __init__(self, stage: Stage, desk: Desk) -> None:
        self.stage = stage
        self.desk = desk

    @property
    def server(self) -> KeepingServer:
        server = self.stage.server
        assert isinstance(server, KeepingServer)
        return server

    @property
    def tally(self) -> tuple[int, int, int]:
        """How many opens were claimed, reopened, lost."""
        tally = self.stage.world.recovery.tally
        return tally.claimed, tally.reopened, tally.lost

    def serve_by(self, serve: Callable[[KeepingServer, Message], None]) -> None:
        """Have the messages of later sessions served by the test."""
        make = self.stage.world._make_peer

        def spoiled() -> KeepingServer:
            server = make()
            assert isinstance(server, KeepingServer)
            server.handler = lambda message: serve(server, message)
            return server

        self.stage.world._make_peer = spoiled

    async def open(self, path: str = "f", durability: Durability = Durability.NONE, *, write: bool = True) -> Open:
        """Open a file; both sides believe in the durability."""
        handle = await self.stage.share.open(path, read=True, write=write, expect=None)
        if durability:
            self.desk.keep(self.server, handle, durability)
        return handle

    async def lose(self, seconds: float = 5) -> None:
        """Lose the connection, and wait."""
        self.stage.server.transport.hang_up()
        await trio.sleep(seconds)


@asynccontextmanager
async def keeping(*, credits: int = 512) -> AsyncIterator[Kept]:
    """Bring it up."""
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk), credits=credits) as stage:
        yield Kept(stage, desk)


@pytest.mark.parametrize("durability", KINDS)
@trio_test
async def test_what_the_server_has_kept_goes_on_under_another_id(durability: Durability) -> None:
    async with keeping() as kept:
        handle = await kept.open("f", durability)
        before = tuple(handle.file_id)
        kept.stage.tree.nodes["f"].touch()  # no business of ours: the server has kept the open
        await kept.lose()
        assert kept.tally == (1, 0, 0)
        assert handle.file_id.persistent == before[0]
        assert handle.file_id.volatile != before[1]
        assert handle.generation == kept.stage.world.pool.generation == 2
        assert await kept.stage.share.read(handle, 0, 8) == b"contents"
        (claim,) = kept.desk.claims
        assert (claim.name, len(claim.contexts)) == ("f", 1)
        await kept.lose()
        assert kept.tally == (2, 0, 0)
        kept.stage.share.close(handle)
        await kept.stage.nothing_open()


@trio_test
async def test_a_thousand_handles_are_claimed_side_by_side_on_few_credits() -> None:
    async with keeping(credits=20) as kept:
        handles = [await kept.open("f", Durability.DURABLE_V2, write=False) for _ in range(1000)]
        await kept.lose(0)
        await settle()
        assert kept.tally == (1000, 0, 0)
        assert {handle.generation for handle in handles} == {2}
        assert max(len(message.elements) for message in kept.server.messages) == 1


@pytest.mark.parametrize("status", [Status.FILE_NOT_AVAILABLE, Status.INSUFFICIENT_RESOURCES])
@trio_test
async def test_a_server_that_is_not_ready_is_asked_again(status: Status) -> None:
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        kept.desk.refuse = lambda _: status if len(kept.desk.claims) < 5 else None
        await kept.lose(0.05)
        assert kept.stage.world.pool.session is None
        await trio.sleep(5)
        assert len(kept.desk.claims) == 5
        assert kept.tally == (1, 0, 0)
        assert not handle.lost


@pytest.mark.parametrize("answers", [True, False])
@trio_test
async def test_one_that_never_is_holds_the_others_up_for_a_while_only(answers: bool) -> None:
    """Whether it says so again and again, or nothing at all."""
    async with keeping() as kept:
        stuck = await kept.open("f", Durability.PERSISTENT)
        other = await kept.open("protected", Durability.PERSISTENT, write=False)

        def serve(server: KeepingServer, message: Message) -> None:
            request = message.elements[0].request
            if isinstance(request, CreateRequest) and request.name == "f":
                if not answers:
                    server.send(server.pending(message.elements[0], 77))
                    return
                server.answer(message, statuses=[Status.FILE_NOT_AVAILABLE])
                return
            server.serve(message)

        kept.serve_by(serve)
        await kept.lose(20)
        assert kept.tally == (1, 0, 1)
        assert stuck.lost
        assert not other.lost
        assert kept.stage.world.pool.generation == 2


@pytest.mark.parametrize("status", [Status.USER_SESSION_DELETED, Status.NETWORK_NAME_DELETED])
@trio_test
async def test_if_the_session_dies_on_the_way_all_of_it_begins_again(status: Status, expect_log: ExpectLog) -> None:
    expect_log("no longer knows the new session")
    async with keeping() as kept:
        handles = [await kept.open(f"d\\{number}", Durability.DURABLE_V2) for number in range(5)]
        kept.desk.refuse = lambda _: status if len(kept.desk.claims) == 3 else None
        await kept.lose()
        assert len(kept.stage.world.peers) == 3
        names = [claim.name for claim in kept.desk.claims]
        assert len(names) >= 8
        assert {*names[-5:]} == {f"d\\{number}" for number in range(5)}
        assert kept.tally == (5, 0, 0)
        assert {handle.generation for handle in handles} == {kept.stage.world.pool.generation} == {3}
        for handle in handles:
            await kept.stage.share.attributes(handle)


@trio_test
async def test_so_it_does_when_the_link_breaks_on_the_way_each_time_a_little_later(expect_log: ExpectLog) -> None:
    expect_log("reconnecting failed")
    async with keeping() as kept:
        handles = [await kept.open(f"d\\{number}", Durability.DURABLE_V2) for number in range(5)]

        def serve(server: KeepingServer, message: Message) -> None:
            if len(server.messages) == len(kept.stage.world.peers) - 1 < 4:
                server.transport.hang_up()
                server.handler = lambda _: None
                return
            server.serve(message)

        kept.serve_by(serve)
        await kept.lose()
        assert kept.tally == (5, 0, 0)
        assert len(kept.stage.world.peers) == 5
        assert not any(handle.lost for handle in handles)


REFUSED = Status.OBJECT_NAME_NOT_FOUND


def touched(node: Node, _: Open) -> None:
    node.touch()


def longer(node: Node, _: Open) -> None:
    node.data += b"!"


def replaced(node: Node, _: Open) -> None:
    node.number += 1


def in_doubt(_: Node, handle: Open) -> None:
    handle.doubts = 1


def locked(_: Node, handle: Open) -> None:
    handle.ledger = Ledger()
    handle.ledger.add([Piece(0, 1, False)])


def to_be_deleted(_: Node, handle: Open) -> None:
    handle.request.create_options |= CreateOptions.DELETE_ON_CLOSE


def of_unknown_age(_: Node, handle: Open) -> None:
    handle.seen = handle.seen._replace(changed=0)


def nothing(_: Node, __: Open) -> None:
    return


def once_locked(_: Node, handle: Open) -> None:
    handle.ledger = Ledger()


def read_meanwhile(node: Node, _: Open) -> None:
    node.times[1] += 1


@pytest.mark.parametrize("durability", [Durability.NONE, Durability.DURABLE_V2])
@pytest.mark.parametrize(
    ("circumstance", "goes_on"),
    [
        (touched, False),
        (longer, False),
        (replaced, False),
        (in_doubt, False),
        (locked, False),
        (to_be_deleted, False),
        (of_unknown_age, False),
        (nothing, True),
        (once_locked, True),
        (read_meanwhile, True),
    ],
)
@trio_test
async def test_what_was_not_kept_is_opened_anew_if_it_is_provably_the_same(
    durability: Durability, circumstance: Callable[[Node, Open], None], goes_on: bool, expect_log: ExpectLog
) -> None:
    if durability:
        expect_log(UNGIVEN)
    async with keeping() as kept:
        handle = await kept.open("f", durability)
        kept.desk.refuse = lambda _: REFUSED
        circumstance(kept.stage.tree.nodes["f"], handle)
        await kept.lose()
        assert kept.tally == (0, int(goes_on), int(not goes_on))
        assert kept.stage.share.usable(handle) == goes_on
        if goes_on:
            assert await kept.stage.share.read(handle, 0, 8) == b"contents"
            assert kept.server.open_handles == ["f"]
            assert handle.durability == Durability.NONE
        else:
            with kept.stage.costs(0), pytest.raises(ConnectionLost) as error:
                await kept.stage.share.read(handle, 0, 8)
            assert errno_of(error.value) == errno.EIO
        kept.stage.share.close(handle)
        await kept.stage.nothing_open()


@pytest.mark.parametrize(("pieces", "goes_on"), [([Piece(0, 1, True)], False), ([], True)])
@trio_test
async def test_an_open_that_locked_by_other_rules_than_it_is_given_back_with_is_closed(
    pieces: list[Piece], goes_on: bool
) -> None:
    """So is that of the POSIX extensions: nobody could unlock what it has locked."""
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        handle.request.contexts = (*handle.request.contexts, CreateContext(POSIX_GUID, bytes(4)))
        handle.ledger = Ledger()
        handle.ledger.add(pieces)
        await kept.lose()
        assert len(kept.desk.claims) == 1
        assert kept.tally == (0, int(goes_on), int(not goes_on))
        assert kept.server.open_handles == ["f"] * goes_on
        kept.stage.share.close(handle)
        await kept.stage.nothing_open()


@pytest.mark.parametrize(
    ("durability", "stood", "seconds", "sessions", "lost"),
    [
        (Durability.PERSISTENT, True, 1, 9, 0),
        (Durability.PERSISTENT, True, 20, 21, 1),
        # A process that is about to end may have forgotten the session before what was open in it.
        (Durability.PERSISTENT, False, 1, 9, 0),
        (Durability.PERSISTENT, False, 20, 11, 1),
        (Durability.DURABLE_V2, False, 0.3, 4, 0),
        (Durability.DURABLE_V2, False, 20, 6, 1),
    ],
)
@trio_test
async def test_a_server_that_serves_the_lost_connection_still_is_given_time(
    durability: Durability, stood: bool, seconds: float, sessions: int, lost: int, expect_log: ExpectLog
) -> None:
    """Only a session that is made when it has come to an end with that can claim anything."""
    expect_log(UNGIVEN)
    async with keeping() as kept:
        handle = await kept.open("f", durability)
        handle.doubts = 1
        connect, until = kept.stage.world.recovery._connect, trio.current_time() + seconds

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            # The login ends that session, so that later ones do not find it.
            session.before_stood = session.before_hears = stood and len(kept.stage.world.peers) == 2
            return session

        kept.stage.world.recovery._connect = connected
        told: list[int] = []
        kept.stage.world.recovery.doubled = lambda session: told.append(session.generation)
        kept.desk.refuse = lambda _: REFUSED if trio.current_time() < until else None
        await kept.lose(15)
        assert kept.tally == (1 - lost, 0, lost)
        assert len(kept.stage.world.peers) == sessions
        assert bool(handle.lost) == bool(lost)
        # Its breaks may go to that connection still, whichever session is the one that lasts.
        assert told == ([sessions] if stood else [])


@pytest.mark.parametrize(("durability", "sessions"), [(Durability.DURABLE_V2, 5), (Durability.PERSISTENT, 19)])
@trio_test
async def test_once_it_has_given_something_back_the_next_loss_is_another_one(
    durability: Durability, sessions: int, expect_log: ExpectLog
) -> None:
    """What is lost with its process is not waited for since an earlier loss was one to be patient about.

    What was promised for good is: that comes back.
    """
    expect_log(UNGIVEN)
    async with keeping() as kept:
        handle = await kept.open("f", durability)
        handle.doubts = 1
        connect = kept.stage.world.recovery._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            session.before_stood = len(kept.stage.world.peers) == 2
            return session

        kept.stage.world.recovery._connect = connected
        await kept.lose(1)
        assert kept.tally == (1, 0, 0)
        kept.desk.refuse = lambda _: REFUSED
        before = len(kept.stage.world.peers)
        await kept.lose(20)
        assert kept.tally == (1, 0, 1)
        assert len(kept.stage.world.peers) - before == sessions


@trio_test
async def test_a_server_that_is_not_ready_is_asked_for_little(expect_log: ExpectLog) -> None:
    """Samba forgets, when an earlier loss is a minute old, what it has refused to give back."""
    expect_log(UNGIVEN)
    async with keeping() as kept:
        names = ["f", "protected", "d\\1", "d\\2", "d\\3"]
        handles = [await kept.open(name, Durability.PERSISTENT, write=name == "f") for name in names]
        handles[1].doubts = 1
        until = trio.current_time() + 1
        kept.desk.refuse = lambda _: REFUSED if trio.current_time() < until else None
        await kept.lose()
        assert kept.tally == (5, 0, 0)
        assert all(handle.lost == "" for handle in handles)
        # Two of those that nobody would miss, again and again; the others once each, when it is ready.
        asked = [request.name for request in kept.desk.claims]
        assert len(asked) > 8
        assert sorted(asked[-5:]) == sorted(names)
        assert set(asked[:-5]) == {"d\\1", "d\\2"}


@trio_test
async def test_it_is_asked_first_for_what_nobody_else_can_have_changed(expect_log: ExpectLog) -> None:
    """What others change may not be opened anew by its name, should the server forget it over its refusal."""
    expect_log(UNGIVEN)
    async with keeping() as kept:
        names = ["f", "d\\1", "d\\2", "d\\3"]
        handles = [await kept.open(name, Durability.PERSISTENT) for name in names]
        for handle in handles[2:]:
            handle.lease = kept.stage.opens.leases.make(handle.path, "d")
            handle.lease.state = RWH
            handle.lease.opens.add(handle)
        until = trio.current_time() + 1
        kept.desk.refuse = lambda _: REFUSED if trio.current_time() < until else None
        await kept.lose()
        assert {request.name for request in kept.desk.claims[:-4]} == {"d\\2", "d\\3"}
        assert kept.tally == (4, 0, 0)


@pytest.mark.parametrize(("pause", "asked"), [(57, {"e\\1", "e\\2"}), (30, {"d\\1", "d\\2"}), (80, {"d\\1", "d\\2"})])
@trio_test
async def test_it_is_asked_first_for_what_it_cannot_forget_over_it(
    pause: float, asked: set[str], expect_log: ExpectLog
) -> None:
    """A timer that a loss has left a minute before deletes what is refused: one open, and no younger one."""
    expect_log(UNGIVEN)
    async with keeping() as kept:
        for name in ("d\\1", "d\\2", "d\\3"):
            await kept.open(name, Durability.PERSISTENT, write=False)
        await kept.lose(pause)
        assert kept.tally == (3, 0, 0)
        tree = kept.stage.tree
        tree.add("e", directory=True)
        for name in ("e\\1", "e\\2"):
            tree.add(name, b"younger")
            (await kept.open(name, Durability.PERSISTENT)).doubts = 1  # as for the rest others would do better
        until, before = trio.current_time() + 1, len(kept.desk.claims)
        kept.desk.refuse = lambda _: REFUSED if trio.current_time() < until else None
        await kept.lose()
        assert kept.tally == (8, 0, 0)
        assert {request.name for request in kept.desk.claims[before:-5]} == asked


@trio_test
async def test_those_that_are_asked_for_first_may_be_the_ones_that_are_gone(expect_log: ExpectLog) -> None:
    """Samba has forgotten just these two: the others, too, are asked for before the server's time is over."""
    expect_log(UNGIVEN)
    async with keeping() as kept:
        names = ["f", "protected", "d\\1", "d\\2", "d\\3"]
        handles = [await kept.open(name, Durability.PERSISTENT, write=name == "f") for name in names]
        connect = kept.stage.world.recovery._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            session.before_stood = True
            return session

        kept.stage.world.recovery._connect = connected
        kept.desk.refuse = lambda request: REFUSED if request.name in ("d\\1", "d\\2") else None
        await kept.lose(5)
        assert kept.tally == (3, 2, 0)
        assert all(handle.lost == "" for handle in handles)


@trio_test
async def test_one_that_is_gone_does_not_keep_the_others_waiting() -> None:
    async with keeping() as kept:
        names = ["d\\1", "d\\2", "d\\3", "d\\4"]
        handles = [await kept.open(name, Durability.PERSISTENT, write=False) for name in names]
        kept.desk.refuse = lambda request: REFUSED if request.name == "d\\1" else None
        await kept.lose()
        assert kept.tally == (3, 1, 0)
        assert len(kept.stage.world.peers) == 2
        for handle in handles:
            kept.stage.share.close(handle)
        await kept.stage.nothing_open()


@trio_test
async def test_a_server_that_is_never_ready_is_asked_for_all_in_the_end(expect_log: ExpectLog) -> None:
    expect_log(UNGIVEN)
    async with keeping() as kept:
        names = ["f", "protected", "d\\1", "d\\2"]
        for name in names:
            await kept.open(name, Durability.PERSISTENT, write=False)
        kept.desk.refuse = lambda _: REFUSED
        await kept.lose(20)
        assert kept.tally == (0, 4, 0)
        assert {request.name for request in kept.desk.claims} == set(names)


@trio_test
async def test_attributes_are_asked_for_as_the_open_understands_it_when_they_are() -> None:
    """Samba gives an open of the POSIX extensions back as one without them, and others trade places."""
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        handle.posix = True
        asked: list[int] = []

        def serve(server: KeepingServer, message: Message) -> None:
            request = message.elements[0].request
            if isinstance(request, QueryInfoRequest):
                asked.append(request.information_class)
                if len(asked) == 1:
                    server.transport.hang_up()
                    return
            server.serve(message)

        kept.serve_by(serve)
        first = kept.server
        first.handler = lambda message: serve(first, message)
        assert (await kept.stage.share.attributes(handle)).size == handle.attributes_at_open.size
        assert asked == [FilePosixInformation.information_class, FileAllInformation.information_class]
        assert kept.tally == (1, 0, 0)


@trio_test
async def test_what_has_been_closed_may_be_gone() -> None:
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        kept.desk.refuse = lambda _: REFUSED
        kept.stage.server.transport.hang_up()
        kept.stage.share.close(handle)
        await trio.sleep(5)
        assert (kept.tally, len(kept.stage.world.peers)) == ((0, 0, 0), 2)


@pytest.mark.parametrize("durability", KINDS)
@trio_test
async def test_breaks_that_were_under_way_at_the_loss_are_ended_before_the_claims(durability: Durability) -> None:
    """Whoever waits for them goes on, and Samba does not die of the claim; there need not be any."""
    async with keeping() as kept:
        handles = [await kept.open(name, durability, write=False) for name in ("f", "protected")]
        lease = kept.stage.opens.leases.make("f", "")
        handles[0].lease = lease
        lease.opens.add(handles[0])
        heard: list[object] = []

        def serve(server: KeepingServer, message: Message) -> None:
            element = message.elements[0]
            if element.command == Command.OPLOCK_BREAK:
                heard.append(LeaseBreakAcknowledgment.parse(element.pdu))
            if isinstance(element.request, CreateRequest):
                heard.append(element.request.name)
            server.serve(message)

        kept.serve_by(serve)
        await kept.lose()
        assert heard[heard.index("f") - 1] == LeaseBreakAcknowledgment(lease.key, 0)
        assert sorted(name for name in heard if isinstance(name, str)) == ["f", "protected"]
        assert len(heard) == 3
        assert kept.tally == (2, 0, 0)


@trio_test
async def test_what_cannot_wait_is_claimed_first_and_what_shares_a_lease_together() -> None:
    """Each break is ended once, right ahead of the first claim under its lease."""
    async with keeping() as kept:
        leases = kept.stage.opens.leases
        handles = []
        for number, name in enumerate(("a", "b", "c", "a", "b", "c", "a", "b", "c")):
            kept.stage.tree.add(f"d\\{number}", b"contents")
            handle = await kept.open(f"d\\{number}", Durability.DURABLE_V2)
            handle.lease = leases.find(name) or leases.make(name, "")
            handle.lease.opens.add(handle)
            handles.append(handle)
        handles[4].ledger = Ledger()
        handles[4].ledger.add([Piece(0, 10, True)])
        assert [in_order(handles)[0], {*in_order(handles)[1:3]}] == [handles[4], {handles[1], handles[7]}]
        handles[4].ledger = None
        handles[8].note_change()
        kept.stage.share.close(handles[1])
        heard: list[str] = []
        names = {lease.key: lease.path for lease in leases}

        def serve(server: KeepingServer, message: Message) -> None:
            element = message.elements[0]
            if element.command == Command.OPLOCK_BREAK:
                heard.append(names[LeaseBreakAcknowledgment.parse(element.pdu).key])
            if isinstance(element.request, CreateRequest):
                heard.append(element.request.name[2:])
            server.serve(message)

        kept.serve_by(serve)
        await kept.lose()
        assert heard[:2] == ["c", "8"]
        assert sorted(heard[2:4]) == ["2", "5"]
        second = max(heard.index("a"), heard.index("b"))
        together = [[heard[4], *sorted(heard[5:second])], [heard[second], *sorted(heard[second + 1 :])]]
        assert sorted(together) == [["a", "0", "3", "6"], ["b", "4", "7"]]


@trio_test
async def test_breaks_are_ended_where_the_answer_to_a_create_is_lost() -> None:
    """Its repetition is a claim to the server; but what something is known of is left alone."""
    async with keeping() as kept:
        leases = kept.stage.opens.leases
        asked, held, unused = (leases.make(name, "") for name in ("asked", "held", "unused"))
        handle = await kept.open("f", Durability.DURABLE_V2)
        handle.lease = held
        held.opens.add(handle)
        heard: list[bytes] = []

        def serve(server: KeepingServer, message: Message) -> None:
            element = message.elements[0]
            if element.command == Command.OPLOCK_BREAK:
                heard.append(LeaseBreakAcknowledgment.parse(element.pdu).key)
            server.serve(message)

        kept.serve_by(serve)
        with leases.asking(asked), leases.asking(held):
            await kept.lose()
        assert heard == [held.key, asked.key]
        assert unused.key not in heard


@pytest.mark.parametrize("durability", [Durability.DURABLE_V2, Durability.PERSISTENT])
@trio_test
async def test_what_is_refused_while_the_process_before_comes_to_its_end_is_claimed_again(
    durability: Durability,
) -> None:
    """Between one claim and the other: what is given back at the same time shows that it has."""
    async with keeping() as kept:
        handles = [await kept.open(name, durability, write=False) for name in ("f", "protected")]
        closed = await kept.open("f", durability)
        kept.stage.opens.remove(closed)
        if durability == Durability.DURABLE_V2:  # with W nobody else can have had it open
            handles[0].lease = kept.stage.opens.leases.make("f", "")
            handles[0].lease.opens.add(handles[0])
            handles[0].lease.kept = RWH
        seen: list[str] = []

        def refuse(request: CreateRequest) -> int | None:
            seen.append(request.name)
            return Status.OBJECT_NAME_NOT_FOUND if request.name == "f" and seen.count("f") <= 4 else None

        kept.desk.refuse = refuse
        await kept.lose()
        assert kept.tally == (3, 0, 0)
        assert (seen.count("f"), seen.count("protected")) == (6, 1)
        for handle in handles:
            kept.stage.share.close(handle)
        await kept.stage.nothing_open()


@trio_test
async def test_one_that_gives_something_back_has_come_to_an_end_with_it() -> None:
    async with keeping() as kept:
        handles = [await kept.open(name, Durability.PERSISTENT, write=False) for name in ("f", "protected")]
        connect = kept.stage.world.recovery._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            session.before_stood = True
            return session

        kept.stage.world.recovery._connect = connected
        handles[0].doubts = 1
        kept.desk.refuse = lambda request: REFUSED if request.name == "f" else None
        await kept.lose()
        assert kept.tally == (1, 0, 1)
        assert len(kept.stage.world.peers) == 2


@trio_test
async def test_what_we_wrote_is_not_taken_on_trust() -> None:
    async with keeping() as kept:
        handle = await kept.open("f")
        await kept.stage.share.write(handle, 0, b"C")
        await kept.lose()
        assert kept.tally == (0, 0, 1)
        again = await kept.open("f")
        await kept.stage.share.write(again, 0, b"C")
        await kept.stage.share.attributes(again)  # this tells what the file is like after it
        await kept.lose()
        assert kept.tally == (0, 1, 1)
        assert not again.lost
        assert handle.lost


@trio_test
async def test_a_file_that_is_gone_is_not_made_anew() -> None:
    async with keeping() as kept:
        handle = await kept.stage.share.create("new", read=True, write=True, exclusive=False)
        await kept.stage.share.attributes(handle)
        del kept.stage.tree.nodes["new"]
        await kept.lose()
        assert kept.tally == (0, 0, 1)
        assert "new" not in kept.stage.tree.nodes


async def all_of(listing: Listing) -> None:
    """Fetch the rest."""
    while await listing.next_page():
        pass


@trio_test
async def test_a_listing_that_was_under_way_is_not_continued_from_its_beginning() -> None:
    async with keeping() as kept:
        kept.server.entry_limit = 1
        listing = await kept.stage.share.list_directory("d", None)
        assert not listing.complete
        await kept.lose()
        assert kept.tally == (0, 0, 1)
        pages = len(listing.pages)
        with pytest.raises(ConnectionLost):
            await all_of(listing)
        assert len(listing.pages) == pages


@trio_test
async def test_what_is_closed_while_the_server_is_away_is_claimed_to_be_closed() -> None:
    """Otherwise it would be in everybody's way until the server gives up waiting."""
    async with keeping() as kept:
        durable = await kept.open("f", Durability.PERSISTENT)
        plain = await kept.open("protected", write=False)
        other = await kept.open("d\\0", Durability.PERSISTENT)
        # Closed while the connection is there, but the server never sees it.
        kept.server.handler = lambda _: None
        kept.stage.share.close(other)
        await settle()
        kept.server.transport.hang_up()
        kept.stage.share.close(durable)
        kept.stage.share.close(plain)
        assert len(kept.stage.opens) == 0
        await trio.sleep(5)
        assert {claim.name for claim in kept.desk.claims} == {"f", "d\\0"}
        assert kept.server.open_handles == []
        await kept.lose()
        assert len(kept.desk.claims) == 2


@trio_test
async def test_a_close_that_was_answered_is_not_claimed() -> None:
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        kept.stage.share.close(handle)
        await kept.lose()
        assert kept.desk.claims == []


@trio_test
async def test_what_was_renamed_is_claimed_by_its_new_name() -> None:
    async with keeping() as kept:
        below = await kept.open("d\\0", Durability.PERSISTENT)
        file = await kept.open("f", Durability.NONE)
        await kept.stage.share.rename("d", "e", replace=False)
        await kept.stage.share.rename("f", "g", replace=False)
        kept.desk.refuse = lambda _: None
        kept.desk.kept[below.file_id.persistent][0].path = "e\\0"
        await kept.lose()
        assert [claim.name for claim in kept.desk.claims] == ["e\\0"]
        assert (below.path, file.path) == ("e\\0", "g")
        assert kept.tally == (1, 1, 0)


@trio_test
async def test_caches_stop_at_the_loss_and_nothing_flows_before_the_claims_are_settled() -> None:
    async with keeping() as kept:
        handle = await kept.open("f", Durability.PERSISTENT)
        kept.desk.refuse = lambda _: Status.FILE_NOT_AVAILABLE if trio.current_time() < 3 else None
        kept.stage.server.transport.hang_up()
        await settle()
        assert kept.stage.world.kept.suspensions == 1
        asked = []

        async def ask() -> None:
            asked.append(await kept.stage.share.lookup("f"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(2)
            assert asked == []
            assert {element.command for message in kept.server.messages for element in message.elements} == {
                Command.CREATE
            }
        assert len(asked) == 1
        assert kept.stage.world.kept.reclaims == [2]
        assert not handle.lost


def test_the_tree_has_what_these_tests_open() -> None:
    assert {"f", "protected", "d\\0"} <= set(usual_tree().nodes)
