"""What is done again after a loss: everything that changes something happens exactly once, or its caller is told.

In each test a message of the verb, the n-th, is lost with the connection: the request before the server has seen it,
or the answer after it was carried out.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from lasting_server import LastingServer, Memory
from peer import Message, settle, trio_test
from stage import Stage, staged, usual_tree
from tree_server import Tree
from world import agreed

from smb3fs.channels.session import Session
from smb3fs.errors import ConnectionLost, Status, StatusError, errno_of
from smb3fs.handles.attributes import Basics
from smb3fs.handles.forsaken import Forsaken
from smb3fs.handles.ledger import Ledger, Piece, Step
from smb3fs.handles.opens import Durability, Open
from smb3fs.share.share import Share
from smb3fs.wire.create import CreateRequest
from smb3fs.wire.durable import DURABLE_HANDLE_V2, DurableHandleRequestV2
from smb3fs.wire.negotiate import Capability
from smb3fs.wire.reparse import SymbolicLink
from smb3fs.wire.tree import ShareCapability

LOST = pytest.mark.parametrize("lost", ["request", "answer"])


class Losing:
    """A share on a server that loses one message."""

    def __init__(self, stage: Stage, memory: Memory) -> None:
        self.stage = stage
        self.memory = memory

    @property
    def share(self) -> Share:
        return self.stage.share

    @property
    def tree(self) -> Tree:
        return self.stage.tree

    def lose(self, what: str, command: str = "", *, number: int = 1) -> None:
        """Lose the n-th message from now on that has the command in it; forget what was done until now."""
        self.memory.executed.clear()
        self.memory.flags.clear()
        left = [number]

        def decide(message: Message) -> str:
            if command and command not in message.commands:
                return ""
            left[0] -= 1
            return what if left[0] == 0 else ""

        self.memory.lose = decide

    def done(self, *but: str) -> list[str]:
        """What the server has done since, without what is meant by `but`."""
        return [what for what in self.memory.executed if what not in but]


@asynccontextmanager
async def losing(*, available: bool = True, keeps: bool = True) -> AsyncIterator[Losing]:
    """Bring it up; with `available` the share keeps opens for good."""
    memory = Memory(keeps=keeps)
    capabilities = Capability.PERSISTENT_HANDLES if available else 0
    sizes = replace(agreed(), capabilities=agreed().capabilities | capabilities)
    async with staged(usual_tree(), sizes=sizes, serve=lambda tree: LastingServer(tree, memory)) as stage:
        connect = stage.world._connect

        async def connected(previous: int) -> Session:
            session = await connect(previous)
            if available:
                session.tree.capabilities |= ShareCapability.CONTINUOUS_AVAILABILITY
            session.channel.connection.negotiated(large_mtu=True, client=stage.world.client)
            return session

        stage.world.recovery._connect = connected
        assert stage.world.pool.session is not None
        if available:
            stage.world.pool.session.tree.capabilities |= ShareCapability.CONTINUOUS_AVAILABILITY
        stage.world.pool.session.channel.connection.negotiated(large_mtu=True, client=stage.world.client)
        yield Losing(stage, memory)


async def opened(made: Losing, path: str = "f") -> Open:
    """Open a file for reading and writing."""
    handle = await made.share.open(path, read=True, write=True, expect=None)
    assert handle.durability == (Durability.PERSISTENT if made.memory.keeps else Durability.NONE)
    return handle


# -- on an open


@LOST
@pytest.mark.parametrize("busy", [0, 3])
@trio_test
async def test_a_write_is_repeated_on_the_claimed_open(lost: str, busy: int) -> None:
    """Also while the server still works on the first one ([MS-SMB2] 3.3.5.2.10)."""
    async with losing() as made:
        handle = await opened(made)
        made.lose(lost, "WRITE")
        made.memory.busy = busy
        assert await made.share.write(handle, 2, b"NEW") == 3
        assert bytes(made.tree.nodes["f"].data) == b"coNEWnts of f"
        assert not handle.in_doubt
        *writes, last = [flags for flags in made.memory.flags if flags[0] == "WRITE"]
        assert last == ("WRITE", 1, True)
        assert len(writes) == busy + (lost == "answer")


@pytest.mark.parametrize("size", [3, 100])
@LOST
@trio_test
async def test_so_are_other_changes_of_it(lost: str, size: int) -> None:
    async with losing() as made:
        handle = await opened(made)
        made.lose(lost, "SET_INFO")
        assert (await made.share.truncate(handle, size)).size == size
        made.lose(lost, "SET_INFO")
        told = await made.share.set_basic_open(handle, Basics(modified=1_700_000_000 * 10**9))
        assert told.modified == 1_700_000_000 * 10**9
        made.lose(lost)
        await made.share.flush(handle)
        made.lose(lost)
        assert len(await made.share.read(handle, 0, 200)) == size
        assert not handle.in_doubt


@LOST
@trio_test
async def test_so_is_a_write_with_times_behind_it(lost: str) -> None:
    async with losing() as made:
        handle = await opened(made)
        made.lose(lost, "WRITE")
        told = await made.share.write_and_set(handle, 2, b"NEW", Basics(modified=1_700_000_000 * 10**9))
        assert told is not None
        assert told.modified == 1_700_000_000 * 10**9
        assert bytes(made.tree.nodes["f"].data) == b"coNEWnts of f"
        assert not handle.in_doubt


@LOST
@trio_test
async def test_what_was_sent_on_an_open_that_is_not_kept_is_in_doubt(lost: str) -> None:
    async with losing(keeps=False) as made:
        handle = await opened(made)
        made.lose(lost, "WRITE")
        with pytest.raises(ConnectionLost):
            await made.share.write(handle, 0, b"NEW")
        assert handle.in_doubt
        assert handle.lost


@trio_test
async def test_what_was_never_sent_is_sent_on_an_open_that_was_reopened() -> None:
    async with losing(keeps=False) as made:
        handle = await opened(made)
        made.stage.server.transport.hang_up()
        await settle()
        with trio.fail_after(20):
            assert await made.share.write(handle, 0, b"NEW") == 3
        assert bytes(made.tree.nodes["f"].data[:3]) == b"NEW"


@LOST
@trio_test
async def test_the_sequence_counts_losses_with_requests_outstanding_alone(lost: str) -> None:
    async with losing() as made:
        handle = await opened(made)
        made.stage.server.transport.hang_up()
        await trio.sleep(3)
        assert made.stage.world.client.sequence == 0
        for number in (1, 2):
            made.lose(lost, "WRITE")
            await made.share.write(handle, 0, b"x")
            assert made.stage.world.client.sequence == number
        # What comes after a repetition is none, and all commands carry the number.
        await made.share.attributes(handle)
        assert made.memory.flags[-1] == ("QUERY_INFO", 2, False)


# -- locks

HERE, AFTER = Piece(0, 10, exclusive=True), Piece(10, 20, exclusive=True)


@LOST
@trio_test
async def test_locks_are_taken_and_given_up_once(lost: str) -> None:
    async with losing() as made:
        handle = await opened(made)
        for step, held in ((Step([HERE]), [(0, 10)]), (Step([HERE], unlocks=True), []), (Step([HERE]), [(0, 10)])):
            made.lose(lost, "LOCK")
            assert await made.share.change_locks(handle, [step]) == [Status.SUCCESS]
            assert made.memory.locks[handle.file_id.persistent] == held
            # What was locked is unlocked and locked once more, since others may have had it between its two answers.
            assert made.done() == ["LOCK"] * (3 if held else 1)


@pytest.mark.parametrize("now", ["nobody", "somebody"])
@trio_test
async def test_who_had_locks_that_others_have_had_since_is_told(now: str) -> None:
    """Samba gives what a lost connection had locked to whoever has the file open and asks for it."""
    async with losing() as made:
        handle, another = await opened(made), await opened(made)
        for one in (handle, another):
            one.ledger = Ledger()
        assert await made.share.change_locks(handle, [Step([HERE])]) == [Status.SUCCESS]
        assert await made.share.change_locks(another, [Step([AFTER])]) == [Status.SUCCESS]
        handle.ledger.add([HERE])
        another.ledger.add([AFTER])
        made.memory.locks[handle.file_id.persistent].clear()
        made.memory.foreign = [(0, 10)] * (now == "somebody")
        made.stage.server.transport.hang_up()
        await trio.sleep(3)
        assert "without its locks" in handle.lost
        assert made.stage.world.recovery.tally.robbed == 1
        assert not another.lost
        assert made.memory.locks == {another.file_id.persistent: [(10, 10)]}
        with pytest.raises(ConnectionLost):
            await made.share.write(handle, 0, b"x")


@trio_test
async def test_what_is_being_unlocked_at_a_loss_need_not_be_there() -> None:
    async with losing() as made:
        handle = await opened(made)
        handle.ledger = Ledger()
        handle.ledger.add([HERE])
        handle.ledger.leaving = [HERE]
        made.stage.server.transport.hang_up()
        await trio.sleep(3)
        assert not handle.lost


@trio_test
async def test_a_granted_lock_that_was_taken_before_its_answer_came_through_is_none() -> None:
    async with losing() as made:
        handle = await opened(made)
        made.lose("answer", "LOCK")
        made.memory.give_away = True
        assert await made.share.change_locks(handle, [Step([HERE])]) == [Status.LOCK_NOT_GRANTED]
        assert made.memory.locks[handle.file_id.persistent] == []


@pytest.mark.parametrize("others", [False, True])
@trio_test
async def test_a_lock_that_the_server_has_granted_and_forgotten_is_ours(others: bool) -> None:
    """Its process was killed before the answer came through: what refuses the repetition is our own lock, or is not."""
    async with losing() as made:
        handle = await opened(made)
        made.memory.forgets = True
        made.lose("answer", "LOCK")
        if others:
            made.memory.give_away, made.memory.theirs = True, [(0, 10)]
        told = await made.share.change_locks(handle, [Step([HERE])])
        assert told == [Status.LOCK_NOT_GRANTED if others else Status.SUCCESS]
        assert made.memory.locks[handle.file_id.persistent] == ([] if others else [(0, 10)])
        if not others:
            assert await made.share.change_locks(handle, [Step([HERE], unlocks=True)]) == [Status.SUCCESS]
            assert made.memory.locks[handle.file_id.persistent] == []


@pytest.mark.parametrize("forgets", [False, True])
@LOST
@trio_test
async def test_who_waits_for_a_lock_does_not_wait_for_his_own(lost: str, forgets: bool) -> None:
    async with losing() as made:
        handle = await opened(made)
        made.memory.forgets = forgets
        made.lose(lost, "LOCK")
        with trio.fail_after(20):
            assert await made.share.wait_for_lock(handle, HERE)
        assert made.memory.locks[handle.file_id.persistent] == [(0, 10)]
        made.memory.foreign = [(10, 10)]
        made.lose("request", "LOCK")
        with trio.fail_after(20):
            assert not await made.share.wait_for_lock(handle, AFTER), "somebody has it: it has to be asked for anew"
        assert made.memory.locks[handle.file_id.persistent] == [(0, 10)]


@pytest.mark.parametrize("forgets", [False, True])
@LOST
@trio_test
async def test_a_proof_of_a_lock_that_is_lost_itself_is_made_again(lost: str, forgets: bool) -> None:
    """The next loss comes while the one before is being got over."""
    async with losing() as made:
        handle = await opened(made)
        made.memory.forgets = forgets
        losses = ["answer", "", lost]  # the request, its repetition, the proof

        def decide(message: Message) -> str:
            return losses.pop(0) if losses and "LOCK" in message.commands else ""

        made.memory.lose = decide
        assert await made.share.change_locks(handle, [Step([HERE])]) == [Status.SUCCESS]
        assert not losses
        assert made.memory.locks[handle.file_id.persistent] == [(0, 10)]
        assert not handle.in_doubt


@trio_test
async def test_a_file_that_is_kept_for_somebody_is_waited_for() -> None:
    """Of whoever has lost the connection to a share that keeps opens, while others are told FILE_NOT_AVAILABLE."""
    async with losing() as made:
        made.memory.unavailable = 7
        with trio.fail_after(30):
            await made.share.create("new", read=True, write=True, exclusive=True)
            made.memory.unavailable = 7
            await made.share.lookup("f")
        assert made.memory.unavailable == 0
        assert "new" in made.tree.nodes


@trio_test
async def test_one_that_is_made_and_put_off_all_the_same_may_be_ours() -> None:
    """Samba makes a file before it finds that its number is kept for another one: EEXIST would not be true."""
    async with losing() as made:
        made.memory.unavailable, made.memory.makes_unavailable = 1, True
        with pytest.raises(ConnectionLost):
            await made.share.create("new", read=True, write=True, exclusive=True)
        made.memory.makes_unavailable = False
        with pytest.raises(StatusError) as error:
            await made.share.create("new", read=True, write=True, exclusive=True)
        assert error.value.status == Status.OBJECT_NAME_COLLISION


@pytest.mark.parametrize("keeps", [True, False])
@trio_test
async def test_one_that_waits_at_the_server_and_finds_its_name_taken_may_be_ours(keeps: bool) -> None:
    """The same, told by an interim answer; where nothing is kept for good there is no reason to doubt what is said."""
    async with losing(available=keeps) as made:
        made.memory.stumbles = True
        with pytest.raises(ConnectionLost if keeps else StatusError):
            await made.share.create("new", read=True, write=True, exclusive=True)


@pytest.mark.parametrize("why", ["", "kept for good", "directories are leased"])
@trio_test
async def test_what_carries_locks_that_others_may_hold_too_ends_with_its_connection(why: str) -> None:
    """Samba before 4.23 miscounts what it refuses to durable opens; it leases no directories, keeps none for good."""
    async with losing(available=why == "kept for good") as made:
        session = made.stage.world.pool.session
        assert session is not None
        if why == "directories are leased":
            session.agreed.capabilities |= Capability.DIRECTORY_LEASING
        handle = await made.share.open("f", read=True, write=True, expect=None)
        assert handle.durability == (Durability.PERSISTENT if why == "kept for good" else Durability.DURABLE_V2)
        assert made.share.keeps_locks(handle) == bool(why)
        carrier = await made.share.open_for_locks("f", expect=None)
        assert carrier.durability == (handle.durability if why else Durability.NONE)
        assert made.share.keeps_locks(carrier)


@trio_test
async def test_no_two_locks_in_a_row_have_the_same_number() -> None:
    async with losing() as made:
        handle = await opened(made)
        for _ in range(40):
            for unlocks in (False, True):
                assert await made.share.change_locks(handle, [Step([HERE], unlocks=unlocks)]) == [Status.SUCCESS]
                assert made.memory.locks[handle.file_id.persistent] == ([] if unlocks else [(0, 10)])


@trio_test
async def test_a_lock_on_an_open_that_is_not_kept_is_not_sent_twice() -> None:
    async with losing(keeps=False) as made:
        handle = await opened(made)
        made.lose("answer", "LOCK")
        with pytest.raises(ConnectionLost):
            await made.share.change_locks(handle, [Step([HERE])])
        assert made.done() == ["LOCK"]


# -- CREATE


async def exclusive(share: Share) -> Open:
    """Create a file that is not there."""
    return await share.create("new", read=True, write=True, exclusive=True)


@LOST
@trio_test
async def test_an_exclusive_create_is_recognised(lost: str) -> None:
    async with losing() as made:
        made.lose(lost)
        handle = await exclusive(made.share)
        assert handle.created
        assert made.done() == ["CREATE new"]
        await made.share.write(handle, 0, b"mine")
        made.share.close(handle)
        await made.stage.nothing_open()
        assert not made.memory.kept
        # A server that would have kept it says that it has not; only then the flag is left out.
        assert made.memory.statuses == ([Status.FILE_NOT_AVAILABLE] if lost == "request" else [])


@trio_test
async def test_the_flag_comes_back_if_the_first_one_was_under_way() -> None:
    async with losing() as made:
        made.lose("answer")
        late = [2]

        def decide(message: Message) -> int | None:
            """Say twice that it is not known yet."""
            late[0] -= 1
            return Status.FILE_NOT_AVAILABLE if late[0] >= 0 else None

        make = made.stage.world._make_peer

        def busy() -> LastingServer:
            server = make()
            assert isinstance(server, LastingServer)
            server.refuse = lambda message, _: decide(message) if message.commands == ["CREATE"] else None
            return server

        made.stage.world._make_peer = busy
        handle = await exclusive(made.share)
        assert handle.created
        assert made.done() == ["CREATE new"]


@trio_test
async def test_a_name_that_is_taken_at_the_repetition_may_be_taken_by_us() -> None:
    async with losing(available=False, keeps=False) as made:
        made.lose("answer")
        with pytest.raises(ConnectionLost):
            await exclusive(made.share)
        made.lose("request")
        with pytest.raises(ConnectionLost):
            await exclusive(made.share)
        made.lose("never")
        with pytest.raises(StatusError):
            await exclusive(made.share)


@LOST
@pytest.mark.parametrize("available", [True, False])
@trio_test
async def test_opening_leaves_nothing_open_on_the_server(available: bool, lost: str) -> None:
    async with losing(available=available) as made:
        made.lose(lost)
        handle = await made.share.open("f", read=True, write=False, expect=None, head=5)
        made.share.close(handle)
        made.lose(lost)
        handle = await made.share.create("f", read=True, write=True, exclusive=False)
        made.share.close(handle)
        await made.stage.nothing_open()
        assert not made.memory.kept


@trio_test
async def test_each_create_has_a_guid_of_its_own_and_asks_for_good_where_that_is_promised() -> None:
    for available in (True, False):
        async with losing(available=available) as made:
            asked = []
            for _ in range(3):
                handle = (
                    await opened(made) if available else await made.share.open("f", read=True, write=True, expect=None)
                )
                asked.append(DurableHandleRequestV2.parse(dict(handle.request.contexts)[DURABLE_HANDLE_V2]))
                assert handle.create_guid == asked[-1].create_guid
                made.share.close(handle)
            assert len({request.create_guid for request in asked}) == 3
            assert {request.flags for request in asked} == ({2} if available else {0})


@pytest.mark.parametrize("verb", ["directory", "link"])
@LOST
@trio_test
async def test_what_is_made_is_made_once(verb: str, lost: str) -> None:
    def make(share: Share) -> Awaitable[object]:
        if verb == "directory":
            return share.make_directory("new")
        return share.make_link("new", SymbolicLink("f", "f", relative=True))

    for available in (False,) if verb == "directory" else (True, False):
        async with losing(available=available, keeps=available) as made:
            made.lose(lost)
            if lost == "answer" and not available:
                with pytest.raises(ConnectionLost):
                    await make(made.share)
            else:
                await make(made.share)
            assert made.done("CLOSE", "IOCTL") == ["CREATE new"]
            await made.stage.nothing_open()
            assert not made.memory.kept


# What a directory that is made on a share that keeps opens for good takes, and where it may be lost.
ON_THE_WAY = pytest.mark.parametrize("command", ["CREATE", "SET_INFO"])


@ON_THE_WAY
@LOST
@trio_test
async def test_a_directory_is_made_once_even_if_the_server_knows_no_create_again(lost: str, command: str) -> None:
    async with losing(keeps=False) as made:
        before = set(made.tree.nodes)
        made.lose(lost, command)
        told = await made.share.make_directory("new", 0o700)
        assert set(made.tree.nodes) == before | {"new"}
        assert told.file_id == made.tree.nodes["new"].number
        assert made.done("CLOSE")[1:] == ["SET_INFO"]
        await made.stage.nothing_open()


@trio_test
async def test_a_directory_costs_a_round_trip_more_where_opens_are_kept_for_good() -> None:
    for available in (True, False):
        async with losing(available=available) as made:
            with made.stage.costs(2 if available else 1):
                told = await made.share.make_directory("new")
            assert told.is_directory
            assert not made.memory.kept
            await made.stage.nothing_open()


@ON_THE_WAY
@LOST
@trio_test
async def test_whose_a_directory_is_shows_after_a_loss(lost: str, command: str) -> None:
    """Another client makes one of that name meanwhile: ours is not made, or if it was there before, it is."""
    async with losing(keeps=False) as made:
        before = set(made.tree.nodes)
        made.lose(lost, command)
        lose, ours = made.memory.lose, (lost, command) == ("answer", "SET_INFO")

        def decide(message: Message) -> str:
            what = lose(message)
            if what and not ours:
                made.tree.add("new", directory=True)
            return what

        made.memory.lose = decide
        if ours:
            await made.share.make_directory("new")
        else:
            with pytest.raises(StatusError) as refused:
                await made.share.make_directory("new")
            assert errno_of(refused.value) == errno.EEXIST
        assert set(made.tree.nodes) == before | {"new"}
        await made.stage.nothing_open()


@trio_test
async def test_who_finds_another_directory_where_his_own_may_have_been_is_told_that_nobody_knows() -> None:
    """It may have been renamed or removed since."""
    async with losing(keeps=False) as made:
        made.lose("answer", "SET_INFO")
        lose, theirs = made.memory.lose, 0

        def decide(message: Message) -> str:
            nonlocal theirs
            if "new" in made.tree.nodes and not theirs:
                theirs = made.tree.add("new", directory=True).number
            return lose(message)

        made.memory.lose = decide
        with pytest.raises(ConnectionLost):
            await made.share.make_directory("new")
        assert made.tree.nodes["new"].number == theirs


# -- whoever has asked for it is gone


@pytest.mark.parametrize("between", [False, True])
@LOST
@trio_test
async def test_what_was_opened_for_somebody_who_is_gone_is_closed(
    lost: str, between: bool, expect_log: Callable[[str], None]
) -> None:
    """Whether he has gone before the loss or between two sessions; nothing is made for him that late."""
    if between:
        expect_log("reconnecting failed")
    async with losing() as made:
        world, forsaken = made.stage.world, Forsaken()
        world.pool.forsake = forsaken.note
        before = world.pool.session
        assert isinstance(before, Session)
        made.lose(lost if between else f"no {lost}", "CREATE")
        world.script = [ConnectionLost("away")] * 3 if between else []
        with trio.move_on_after(0.05) as scope:
            await made.share.create("new", read=True, write=True, exclusive=True)
        assert scope.cancelled_caught
        assert len(made.memory.kept) == (lost == "answer")
        if not between:
            made.stage.server.transport.hang_up()
            await settle()
            for exchange in before.channel.left:
                if exchange.forsaken:
                    forsaken.note(exchange.requests)
        await trio.sleep(5)
        assert len(forsaken) == 1
        assert isinstance(world.pool.session, Session)
        await forsaken.close(world.pool.session)
        await settle()
        assert not made.memory.kept
        assert ("new" in made.tree.nodes) == (lost == "answer")
        assert len(forsaken) == 0
        await made.stage.nothing_open()


@trio_test
async def test_what_is_repeated_by_whoever_waits_for_it_is_not_closed() -> None:
    """Neither if its sending has broken the connection, when nobody waits for the answer yet."""
    async with losing() as made:
        before = made.stage.world.pool.session
        assert isinstance(before, Session)

        def breaks(*_: object) -> None:
            raise ConnectionLost("sending failed")

        before.channel.transport.send_now = breaks  # type: ignore[method-assign, assignment]
        handle = await opened(made)
        assert not any(exchange.forsaken for exchange in before.channel.left)
        assert await made.share.write(handle, 0, b"NEW") == 3


# -- names


def known(made: Losing, path: str) -> dict[str, int | None]:
    """By what a file is known again."""
    return {"expect": made.tree.nodes[path].number, "born": None}


Verb = Callable[[Losing], Awaitable[object]]


async def rename(made: Losing) -> None:
    await made.share.rename("f", "g", replace=True, **known(made, "f"))


async def unlink(made: Losing) -> None:
    await made.share.remove_file("f", **known(made, "f"))


async def rmdir(made: Losing) -> None:
    await made.share.remove_directory("empty", **known(made, "empty"))


async def link(made: Losing) -> None:
    assert (await made.share.link("f", "g", made.tree.nodes["f"].number)).links == 2


CHANGES = {rename: ({"f"}, {"g"}), unlink: ({"f"}, set()), rmdir: ({"empty"}, set()), link: (set(), {"g"})}


@pytest.mark.parametrize("available", [True, False])
@pytest.mark.parametrize("verb", CHANGES, ids=lambda verb: verb.__name__)
@LOST
@trio_test
async def test_names_change_once(lost: str, verb: Verb, available: bool) -> None:
    async with losing(available=available, keeps=available) as made:
        before, (gone, came) = set(made.tree.nodes), CHANGES[verb]  # type: ignore[index]
        made.lose(lost)
        await verb(made)
        assert set(made.tree.nodes) == before - gone | came
        assert made.done("CLOSE") == ["SET_INFO"]
        await made.stage.nothing_open()


def replaced(made: Losing) -> None:
    """Another client puts another file there."""
    made.tree.add("f", b"another's")
    made.tree.add("empty", directory=True)
    made.tree.add("g", b"another's")


@pytest.mark.parametrize("verb", CHANGES, ids=lambda verb: verb.__name__)
@trio_test
async def test_what_another_client_has_put_there_meanwhile_is_not_touched(verb: Verb) -> None:
    async with losing() as made:
        made.lose("answer")
        lose = made.memory.lose

        def decide(message: Message) -> str:
            what = lose(message)
            if not what and made.memory.executed.count("SET_INFO") and "theirs" not in made.tree.nodes:
                made.tree.add("theirs")
                replaced(made)
            return what

        made.memory.lose = decide
        with pytest.raises(ConnectionLost):
            await verb(made)
        assert made.done("CLOSE") == ["SET_INFO"]
        assert bytes(made.tree.nodes["g"].data) == b"another's"


@LOST
@trio_test
async def test_who_does_not_know_the_file_is_told_that_nobody_knows(lost: str) -> None:
    async with losing() as made:
        made.lose(lost)
        with pytest.raises(ConnectionLost):
            await made.share.rename("f", "g", replace=True)
        assert ("g" in made.tree.nodes) == (lost == "answer")


@LOST
@trio_test
async def test_changes_by_path_are_made_again_from_the_start(lost: str) -> None:
    async with losing() as made:
        expect = made.tree.nodes["f"].number
        for number in (1, 2):
            made.lose(lost, number=number)
            assert (await made.share.truncate_path("f", 4, expect)).size == 4
            made.lose(lost, number=number)
            assert (await made.share.set_basic("f", Basics(modified=10**18), expect=expect)).modified == 10**18
        await made.stage.nothing_open()


@LOST
@trio_test
async def test_a_close_that_was_lost_is_made_good(lost: str) -> None:
    async with losing() as made:
        handle = await opened(made)
        made.lose(lost, "CLOSE")
        made.share.close(handle)
        await trio.sleep(5)
        assert not made.memory.kept
        await made.stage.nothing_open()


@trio_test
async def test_what_is_renamed_while_it_is_kept_open_is_opened_anew_under_its_name() -> None:
    """Nothing else is: not what carries locks, and not what the server would not keep."""
    async with losing() as made:
        handle, locking, other = [await opened(made) for _ in range(3)]
        other.durability = Durability.DURABLE_V2
        locking.ledger = Ledger()
        ids = [tuple(one.file_id) for one in (handle, locking, other)]
        await made.share.rename("f", "g", replace=False)
        assert [tuple(one.file_id) == before for one, before in zip((handle, locking, other), ids, strict=True)] == [
            False,
            True,
            True,
        ]
        assert (handle.path, handle.request.name) == ("g", "g")
        assert await made.share.write(handle, 0, b"NEW") == 3
        await settle()
        assert len(made.memory.kept) == 3
        made.share.close(handle)
        await settle()
        assert len(made.memory.kept) == 2


@LOST
@trio_test
async def test_a_loss_on_that_way_leaves_nothing_more_open(lost: str, expect_log: Callable[[str], None]) -> None:
    """This server, as Samba, does not give the first open back under the new name: it is opened by its name."""
    expect_log("serves the connection before")
    async with losing() as made:
        handle = await opened(made)
        made.lose(lost, "CREATE", number=2)
        await made.share.rename("f", "g", replace=False)
        await trio.sleep(5)
        assert [kept.path for kept, _, _ in made.memory.kept.values()] == ["f", "g"]
        assert await made.share.read(handle, 0, 8) == b"contents"
        made.share.close(handle)
        await settle()
        assert [kept.path for kept, _, _ in made.memory.kept.values()] == ["f"]


@pytest.mark.parametrize("write", [False, True])
@trio_test
async def test_a_create_that_the_server_takes_for_under_way_for_ever_is_asked_for_as_another_one(write: bool) -> None:
    """Its process was killed in the middle of it, and its note about that is still there."""
    async with losing() as made:
        stuck: list[bytes] = []
        make = made.stage.world._make_peer

        def refusing() -> LastingServer:
            server = make()
            assert isinstance(server, LastingServer)

            def refuse(message: Message, index: int) -> int | None:
                asked = _guid_of(message, index)
                return Status.FILE_NOT_AVAILABLE if asked and asked in stuck else None

            server.refuse = refuse
            return server

        def lose(message: Message) -> str:
            asked = _guid_of(message, 0)
            if stuck or not asked:
                return ""
            stuck.append(asked)
            return "request"

        made.stage.world._make_peer = refusing
        made.memory.lose = lose
        began = trio.current_time()
        handle = await made.share.open("f", read=True, write=write, expect=None)
        assert trio.current_time() - began < 5
        assert stuck
        assert handle.durability == Durability.PERSISTENT
        assert handle.create_guid not in stuck
        made.share.close(handle)
        await made.stage.nothing_open()


def _guid_of(message: Message, index: int) -> bytes:
    """The CreateGuid in an element of a message, b"" for none."""
    request = message.elements[index].request
    asked = dict(request.contexts).get(DURABLE_HANDLE_V2) if isinstance(request, CreateRequest) else None
    return DurableHandleRequestV2.parse(asked).create_guid if asked is not None else b""
