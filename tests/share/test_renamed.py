"""What was renamed while it was open is claimed by its old name, which the file has for no longer than that takes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from keeping_server import Desk, KeepingServer
from peer import Message, trio_test
from stage import Stage, staged
from tree_server import Handle

from smb3fs.channels.session import Session
from smb3fs.errors import Status, StatusError
from smb3fs.handles.claims import Claims
from smb3fs.handles.given_names import ANY
from smb3fs.handles.hidden_names import PREFIX
from smb3fs.handles.journal import Identity, Journal, LeftName, read
from smb3fs.handles.lease import RH, RWH
from smb3fs.handles.opens import Durability, Open
from smb3fs.handles.renamed import SecondNames
from smb3fs.wire.create import AccessMask, CreateContext, CreateRequest, FileId
from smb3fs.wire.durable import DURABLE_HANDLE_RECONNECT_V2
from smb3fs.wire.infoclass import FileDispositionInformation, FileLinkInformation, FileRenameInformation
from smb3fs.wire.lease import LEASE_CONTEXT, parse_lease
from smb3fs.wire.query import SetInfoRequest

ExpectLog = Callable[[str], None]
# What is logged where all claims are refused, and where a session dies on the way.
UNGIVEN = "serves the connection before"
DIED = "reconnecting failed"
SECOND_NAME = FileLinkInformation.information_class
ASIDE_NAME = FileRenameInformation.information_class
REMOVAL = FileDispositionInformation.information_class


@dataclass
class Records(Desk):
    """What such a server keeps: of each open the name by which it was made."""

    names: dict[int, str] = field(default_factory=dict)
    kill: Callable[[KeepingServer, SetInfoRequest | CreateRequest], str] = lambda _server, _request: ""
    """Whether the connection ends "before" a request is carried out, or "after"; "" for neither."""


class RecordingServer(KeepingServer):
    """Gives an open back by the name by which it was made, if that leads to the file; and renames for anybody."""

    desk: Records

    def __init__(self, tree: Any, desk: Records) -> None:
        super().__init__(tree, desk)
        self.handler = self.receive

    def receive(self, message: Message) -> None:
        """End the connection where the test says so."""
        requests = [element.request for element in message.elements]
        killed = [self.desk.kill(self, one) for one in requests if isinstance(one, SetInfoRequest | CreateRequest)]
        if "before" not in killed:
            if "after" in killed:
                self.send = lambda *_replies, **_how: None  # type: ignore[method-assign]
            self.serve(message)
        if any(killed):
            self.transport.hang_up()

    def _create(self, request: CreateRequest) -> FileId:
        for number, name in self.desk.names.items():
            kept, guid, persistent = self.desk.kept[number]
            there = request.name == name and self.tree.nodes.get(name) is kept.node
            self.desk.kept[number] = Handle(kept.node, name if there else "?", kept.access), guid, persistent
        return super()._create(request)

    def granted(self, request: CreateRequest) -> Sequence[CreateContext]:
        """Give the lease back with what is claimed."""
        names = [context.name for context in request.contexts]
        return request.contexts[1:] if names == [DURABLE_HANDLE_RECONNECT_V2, LEASE_CONTEXT] else ()

    def _do_set_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.information_class == ASIDE_NAME:
            handle.access |= AccessMask.DELETE
        return super()._do_set_info(request, handle, file_id)

    def _do_close(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if handle.delete:
            handle.node.links -= 1
        return super()._do_close(request, handle, file_id)


class Renamed:
    """A share with an open file that was renamed, as it is known to nobody but us."""

    def __init__(self, stage: Stage, desk: Records) -> None:
        self.stage, self.desk = stage, desk

    async def file(self, lease: int = RWH) -> Open:
        """Open "f", with a lease, and have it renamed to "g" without our opening it anew."""
        handle = await self.stage.share.open("f", read=True, write=True, expect=None)
        server = self.stage.server
        assert isinstance(server, RecordingServer)
        self.desk.keep(server, handle, Durability.PERSISTENT)
        self.desk.names[handle.file_id.persistent] = "f"
        handle.lease = self.stage.opens.leases.make("f", "")
        handle.lease.opens.add(handle)
        handle.lease.kept = lease
        self.stage.tree.nodes["g"] = self.stage.tree.nodes.pop("f")
        self.stage.opens.leases.renamed("f", "g")
        self.stage.opens.moved(("f", "f"), ("g", "g"), "\\")
        handle.kept_as, handle.ledger = "f", None
        return handle

    async def anew(self, handle: Open) -> Open:
        """Open the file under the name that it has now, with the same lease."""
        fresh = await self.stage.share.open("g", read=True, write=True, expect=None)
        server = self.stage.server
        assert isinstance(server, RecordingServer)
        self.desk.keep(server, fresh, Durability.PERSISTENT)
        self.desk.names[fresh.file_id.persistent] = "g"
        assert handle.lease is not None
        fresh.lease = handle.lease
        fresh.lease.opens.add(fresh)
        return fresh

    async def lose(self) -> None:
        """Lose the connection, and wait."""
        self.stage.server.transport.hang_up()
        await trio.sleep(5)

    @property
    def names(self) -> set[str]:
        """What the server has at the root that is no directory."""
        return {name for name, node in self.stage.tree.nodes.items() if "\\" not in name and not node.directory}

    @property
    def tally(self) -> tuple[int, int]:
        """How many opens were claimed, and lost."""
        tally = self.stage.world.recovery.tally
        return tally.claimed, tally.lost


@asynccontextmanager
async def renamed(*, gathers: bool = False) -> AsyncIterator[Renamed]:
    """Bring it up; with `gathers` for a mount that gathers writes."""
    desk = Records()
    async with staged(serve=lambda tree: RecordingServer(tree, desk)) as stage:
        claims = stage.world.kept.claims
        assert isinstance(claims, Claims)
        claims._names = SecondNames(None, stage.opens.leases, gathers=gathers)
        yield Renamed(stage, desk)


@pytest.mark.parametrize("gathers", [False, True])
@trio_test
async def test_it_goes_on_and_has_one_name_afterwards(gathers: bool) -> None:
    async with renamed(gathers=gathers) as made:
        handle = await made.file()
        await made.lose()
        assert made.tally == (1, 0)
        assert [claim.name for claim in made.desk.claims] == ["g", "f"]
        assert made.names == {"g", "protected"}
        assert made.stage.tree.nodes["g"].links == 1
        assert await made.stage.share.read(handle, 0, 8) == b"contents"


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("gathers", [False, True])
@trio_test
async def test_what_is_closed_at_the_loss_is_not_left_to_be_in_everybodys_way(gathers: bool, carried_out: bool) -> None:
    """Nobody knows whether its CLOSE was heard: if not, it is found by its old name alone, and closed."""
    async with renamed(gathers=gathers) as made:
        handle = await made.file()
        fresh = await made.anew(handle)
        number = handle.file_id.persistent
        made.stage.server.transport.hang_up()
        made.stage.share.close(handle)
        if carried_out:
            del made.desk.kept[number], made.desk.names[number]
        await trio.sleep(5)
        assert sorted(claim.name for claim in made.desk.claims) == ["f", "g", "g"]
        assert made.names == {"g", "protected"}
        assert made.stage.tree.nodes["g"].links == 1
        server = made.stage.server
        assert isinstance(server, RecordingServer)
        assert [id_.persistent for id_ in server.handles] == [fresh.file_id.persistent]
        assert await made.stage.share.read(fresh, 0, 8) == b"contents"
        assert list(made.stage.opens.of_earlier_sessions(0)) == [fresh], "the other is remembered"


@trio_test
async def test_no_name_is_given_to_what_nobody_has_open_any_more() -> None:
    """Nothing would keep others from it; but whatever we do with the file lets the server see the key that it wants."""
    async with renamed() as made:
        handle = await made.file()
        lease = handle.lease
        made.stage.server.transport.hang_up()
        made.stage.share.close(handle)
        await trio.sleep(5)
        assert [claim.name for claim in made.desk.claims] == ["g"]
        assert made.stage.opens.leases.find("g") is lease
        made.stage.opens.leases.removed("g")
        assert made.stage.opens.leases.find("g") is None
        assert len(made.stage.opens.leases) == 0


@pytest.mark.parametrize("lease", [0, RH])
@trio_test
async def test_it_is_lost_where_others_may_have_made_a_file_of_that_name(lease: int, expect_log: ExpectLog) -> None:
    expect_log(UNGIVEN)
    async with renamed() as made:
        handle = await made.file(lease)
        made.stage.tree.nodes["g"].touch()
        await made.lose()
        assert made.tally == (0, 1)
        assert handle.lost
        assert made.names == {"g", "protected"}


@trio_test
async def test_it_is_lost_where_another_file_has_the_name_by_now(expect_log: ExpectLog) -> None:
    expect_log(UNGIVEN)
    async with renamed() as made:
        handle = await made.file()
        made.stage.tree.nodes["g"].touch()
        made.stage.tree.add("f", b"another")
        await made.lose()
        assert handle.lost
        assert made.names == {"f", "g", "protected"}
        assert made.stage.tree.nodes["f"].data == b"another"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("step", "gathers"),
    [(SECOND_NAME, False), ("claim", False), (REMOVAL, False), (ASIDE_NAME, True), (REMOVAL, True)],
)
@trio_test
async def test_whenever_the_session_dies_the_next_one_claims_it_and_takes_the_name_away(
    step: int | str, gathers: bool, when: str, expect_log: ExpectLog
) -> None:
    expect_log(DIED)
    async with renamed(gathers=gathers) as made:
        handle = await made.file()
        killed = []

        def kill(_: KeepingServer, request: SetInfoRequest | CreateRequest) -> str:
            if isinstance(request, SetInfoRequest):
                hit = request.information_class == step
            else:
                hit = step == "claim" and request.name == "f" and len(request.contexts) == 2
            if not hit or killed:
                return ""
            killed.append(request)
            return when

        made.desk.kill = kill
        await made.lose()
        assert len(killed) == 1
        assert made.tally == (1, 0)
        assert made.names == {"g", "protected"}
        assert made.stage.tree.nodes["g"].links == 1
        assert await made.stage.share.read(handle, 0, 8) == b"contents"


@pytest.mark.parametrize("gathers", [False, True])
@trio_test
async def test_a_rename_whose_answer_is_lost_is_not_done_again(gathers: bool) -> None:
    """The file has its old name once more for the claim; by the time that whoever renames looks for it that is gone."""
    async with renamed(gathers=gathers) as made:
        share, tree = made.stage.share, made.stage.tree
        claims = made.stage.world.kept.claims
        assert isinstance(claims, Claims)
        share.second_names = claims._names
        handle, number = await share.open("f", read=True, write=True, expect=None), tree.nodes["f"].number
        server = made.stage.server
        assert isinstance(server, RecordingServer)
        made.desk.keep(server, handle, Durability.PERSISTENT)
        made.desk.names[handle.file_id.persistent] = "f"
        handle.lease = made.stage.opens.leases.make("f", "")
        handle.lease.opens.add(handle)
        handle.lease.kept = RWH
        renames = list[str]()

        def kill(server: KeepingServer, request: SetInfoRequest | CreateRequest) -> str:
            if isinstance(request, SetInfoRequest) and request.information_class == ASIDE_NAME:
                name = FileRenameInformation.parse(request.data).name
                renames.extend([name] * (not name.startswith(PREFIX)))
                return "after" * (renames == ["g"] and name == "g")
            return ""

        made.desk.kill = kill
        await share.rename("f", "g", replace=True, expect=number)
        assert renames == ["g"]
        assert made.tally == (1, 0)
        assert made.names == {"g", "protected"}
        assert tree.nodes["g"].links == 1
        assert await share.read(handle, 0, 8) == b"contents"


@trio_test
async def test_a_name_that_is_another_files_by_now_is_left_alone(expect_log: ExpectLog) -> None:
    expect_log(UNGIVEN)
    async with renamed() as made:
        await made.file()
        refused: list[str] = []

        def kill(_: KeepingServer, request: SetInfoRequest | CreateRequest) -> str:
            if isinstance(request, SetInfoRequest) and request.information_class == SECOND_NAME and not refused:
                refused.append("f")
                made.stage.tree.add("f", b"another")  # whoever makes it is first
            return ""

        made.desk.kill = kill
        await made.lose()
        assert refused
        assert made.tally[0] == 0
        assert made.stage.tree.nodes["f"].data == b"another"


def journal(path: Path) -> Journal:
    """A journal that a daemon keeps."""
    return Journal(str(path / "j"), lambda: None)


@trio_test
async def test_a_daemon_takes_away_what_one_before_it_has_left(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.identify(Identity(b"G" * 16, 1, 2))
    async with renamed() as made:
        tree = made.stage.tree
        node, other = tree.nodes["f"], tree.nodes["protected"]
        node.links = 3
        aside = f"{PREFIX}00"
        tree.nodes.update({"old": node, aside: node})
        for name in ("old", aside, "protected", "gone"):
            first.keep(("name", name), LeftName(name, node.number))
        first._close()  # as the kernel does for those it kills
        second = journal(tmp_path)
        names = SecondNames(second, made.stage.opens.leases)
        left = second.take_over()
        assert {one.name for one in left.names.values()} == {"old", aside, "protected", "gone"}
        names.inherit(left.names)
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        await names.take_away(session)
        assert made.names == {"f", "protected"}
        assert tree.nodes["protected"] is other
        assert (len(names), len(second)) == (0, 0)
        assert read((tmp_path / "j").read_bytes())[0].names == {}
        await made.stage.nothing_open()


@trio_test
async def test_the_last_name_of_a_file_is_never_removed() -> None:
    async with renamed() as made:
        node = made.stage.tree.nodes["f"]
        names = SecondNames(None, made.stage.opens.leases)
        names.inherit({1: LeftName("f", node.number)})
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        await names.take_away(session)
        assert made.names == {"f", "protected"}
        assert len(names) == 0


@trio_test
async def test_a_file_that_was_to_be_removed_goes_with_its_last_name_and_no_other_file_does(tmp_path: Path) -> None:
    """Whoever tries it: this daemon, or the next one."""
    async with renamed() as made:
        tree, journalled = made.stage.tree, journal(tmp_path)
        journalled.identify(Identity(b"G" * 16, 1, 2))
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        share = made.stage.share
        assert not await share.remove_later("f", expect=1), "nobody sees to it"
        share.second_names = names = SecondNames(journalled, made.stage.opens.leases)
        tree.add("another", b"another")
        for name, number in (("f", tree.nodes["f"].number), ("protected", tree.nodes["another"].number), ("gone", 9)):
            assert await share.remove_later(name, expect=number)
        with trio.fail_after(1):
            await names.any_later()
        assert set(read((tmp_path / "j").read_bytes())[0].names.values()) == {
            LeftName("f", tree.nodes["f"].number, last=True),
            LeftName("protected", tree.nodes["another"].number, last=True),
            LeftName("gone", 9, last=True),
        }
        journalled._close()
        second = journal(tmp_path)
        heir = SecondNames(second, made.stage.opens.leases)
        heir.inherit(second.take_over().names)
        for _ in range(len(heir)):
            await heir.take_one_away(session)
        assert made.names == {"protected", "another"}
        assert (len(heir), len(second)) == (0, 0)
        with trio.move_on_after(1) as scope:
            await heir.any_later()
        assert scope.cancelled_caught


@pytest.mark.parametrize("way", ["done", "killed before it is there", "killed", "refused"])
@trio_test
async def test_what_is_made_under_a_name_of_ours_is_left_by_nobody(tmp_path: Path, way: str) -> None:
    async with renamed() as made:
        tree, journalled = made.stage.tree, journal(tmp_path)
        journalled.identify(Identity(b"G" * 16, 1, 2))
        names = SecondNames(journalled, made.stage.opens.leases)
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        name = f"{PREFIX}00"
        with suppress(StatusError), names.making(name):
            assert set(read((tmp_path / "j").read_bytes())[0].names.values()) == {LeftName(name, ANY, last=True)}
            await names.take_away(session)  # what a recovery does meanwhile
            if way != "killed before it is there":
                tree.add(name, directory=True)
            if way.startswith("killed"):
                left = read((tmp_path / "j").read_bytes())[0].names
                names = SecondNames(None, made.stage.opens.leases)
                names.inherit(left)
            elif way == "refused":
                raise StatusError(Status.OBJECT_NAME_COLLISION, "SET_INFO")
            else:
                tree.nodes["new"] = tree.nodes.pop(name)
        assert len(names) == (way != "done")
        await names.take_away(session)
        assert name not in tree.nodes
        assert len(names) == 0
        assert len(journalled) == 0
        await made.stage.nothing_open()


@pytest.mark.parametrize("replaced", [False, True])
@trio_test
async def test_a_number_that_stands_in_everybodys_way_is_kept_from_other_files(replaced: bool) -> None:
    """A CREATE ended with its process: whoever opens the file, or another one of its number, is put off."""
    async with renamed() as made:
        tree, share, leases = made.stage.tree, made.stage.share, made.stage.opens.leases
        assert isinstance(made.stage.server, RecordingServer)
        tree.add("other", b"another")
        made.stage.server.refuse = lambda message, index: (
            Status.SHARING_VIOLATION
            if stuck
            and isinstance(request := message.elements[index].request, CreateRequest)
            and request.name.startswith(PREFIX)
            and request.desired_access & AccessMask.DELETE
            else None
        )
        stuck, number = [True], tree.nodes["f"].number
        share.second_names = names = SecondNames(None, leases)
        lease = leases.make("f", "", number)
        leases.hold_on([leases.context(lease, RWH)], cut=True)
        if replaced:
            await share.rename("other", "f", replace=True)
        else:
            await share.remove_file("f", expect=number)
            await share.remove_file("other", expect=tree.nodes["other"].number)
        (aside,) = made.names - {"f", "protected"}
        assert aside.startswith(PREFIX)
        assert tree.nodes[aside].number == number
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        await names.take_one_away(session)
        assert aside in made.names, "the server does not let us"
        stuck.clear()
        await names.take_one_away(session)
        assert aside not in made.names
        assert not names


@trio_test
async def test_what_keeps_others_out_is_renamed_by_the_key_that_is_let_in() -> None:
    async with renamed() as made:
        tree, share, leases = made.stage.tree, made.stage.share, made.stage.opens.leases
        assert isinstance(made.stage.server, RecordingServer)
        number = tree.nodes["f"].number
        lease = leases.make("f", "", number)
        leases.hold_on([leases.context(lease, RWH)])
        assert not await share.keeps_others_out("f", expect=number)
        leases.hold_on([leases.context(lease, RWH)], cut=True)
        assert await share.keeps_others_out("f", expect=number)
        assert not await share.keeps_others_out("protected", expect=tree.nodes["protected"].number)
        keys: list[bytes] = []

        def note(message: Message, index: int) -> None:
            request = message.elements[index].request
            if isinstance(request, CreateRequest) and request.desired_access & AccessMask.DELETE:
                keys.append(parse_lease(dict(request.contexts)[LEASE_CONTEXT]).key)

        made.stage.server.refuse = note
        await share.rename("f", "aside", replace=False)
        await share.remove_file("aside", expect=number)
        assert keys == [lease.key, lease.key]


@trio_test
async def test_names_that_are_left_have_their_turns() -> None:
    async with renamed() as made:
        made.stage.share.second_names = names = SecondNames(None, made.stage.opens.leases)
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        for name in ("f", "protected"):
            await made.stage.share.remove_later(name, expect=made.stage.tree.nodes[name].number)
        tried: list[str] = []

        async def take_away(_: Session, name: str) -> None:
            tried.append(name)

        names._take_away = take_away  # type: ignore[method-assign]
        for _ in range(3):
            await names.take_one_away(session)
        assert tried == ["f", "protected", "f"]


@trio_test
async def test_a_name_that_outlasts_a_recovery_keeps_no_other_one_waiting() -> None:
    """While traffic waits for it; somebody tries it again when none does."""
    async with renamed() as made:
        made.stage.share.second_names = names = SecondNames(None, made.stage.opens.leases)
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        for name in ("f", "protected"):
            await made.stage.share.remove_later(name, expect=made.stage.tree.nodes[name].number)
        tried: list[str] = []

        async def take_away(_: Session, name: str) -> None:
            tried.append(name)
            await trio.sleep(1 if name == "protected" else math.inf if len(tried) < 4 else 0)

        names._take_away = take_away  # type: ignore[method-assign]
        over = []
        for _ in range(3):
            with trio.move_on_after(2) as scope:
                await names.take_away(session, hurry=True)
            over.append(scope.cancelled_caught)
        assert (tried, over) == (["f", "protected", "protected"], [True, False, False])
        await names.take_one_away(session)
        assert tried[3:] == ["f"]


@trio_test
async def test_what_the_server_may_never_let_us_remove_keeps_no_traffic_waiting() -> None:
    """Where a CREATE was cut it comes last, and gets a moment; what is there for its number alone is not tried."""
    async with renamed() as made:
        leases = made.stage.opens.leases
        made.stage.share.second_names = names = SecondNames(None, leases)
        session = made.stage.world.pool.session
        assert isinstance(session, Session)
        number = made.stage.tree.nodes["f"].number
        lease = leases.make("f", "", number)
        leases.hold_on([leases.context(lease, RWH)], cut=True)
        for name in ("f", "protected"):
            await made.stage.share.remove_later(name, expect=made.stage.tree.nodes[name].number)
        await names.keep_number(session, "f", "", number)
        tried: list[str] = []

        async def take_away(_: Session, name: str) -> None:
            tried.append(name)
            if name != "protected":
                await trio.sleep_forever()

        names._take_away = take_away  # type: ignore[method-assign]
        for _ in range(2):
            with trio.move_on_after(2) as scope:
                await names.take_away(session, hurry=True)
            assert not scope.cancelled_caught
        assert tried == ["protected", "f", "protected"]
        assert len(names) == 3, "they are tried when nobody waits"


@trio_test
async def test_what_the_server_does_not_let_us_remove_is_kept_in_mind(expect_log: ExpectLog) -> None:
    expect_log("cannot be removed")
    async with renamed(gathers=True) as made:
        await made.file()

        def refuse(message: Message, index: int) -> int | None:
            request = message.elements[index].request
            deletes = isinstance(request, CreateRequest) and request.name.startswith(PREFIX)
            return Status.SHARING_VIOLATION if deletes and not allowed else None

        allowed: list[bool] = []
        make = made.stage.world._make_peer

        def refusing() -> Any:
            server = make()
            assert isinstance(server, RecordingServer)
            server.refuse = refuse
            return server

        made.stage.world._make_peer = refusing
        await made.lose()
        assert made.tally == (1, 0)
        assert len([name for name in made.names if name.startswith(PREFIX)]) == 1
        allowed.append(True)
        await made.lose()
        assert made.names == {"g", "protected"}


@pytest.mark.parametrize(("refused", "cut"), [(False, False), (True, False), (True, True)])
@trio_test
async def test_what_is_being_opened_anew_at_the_loss_is_not_opened_anew_a_second_time_beside_that(
    refused: bool, cut: bool
) -> None:
    """Both at a time, one under the old lease and one under another, made smbd 4.25.1 die.

    If the first is refused, since the lease has lost its name by the claim, it is done again under another: but where
    the server lets in the first lease's key alone, another one would wait for as long as the open is kept.
    """
    async with renamed() as made:
        handle = await made.file()
        share, leases = made.stage.share, made.stage.opens.leases
        under_way, go_on, done = trio.Event(), trio.Event(), list[bool]()

        async def exchange(of: Open) -> None:
            done.append(leases.find(of.path) is of.lease)
            if not go_on.is_set():
                under_way.set()
                await go_on.wait()
                if cut and of.lease is not None:
                    leases.hold_on([leases.context(of.lease, RWH)], cut=True)
                if refused:
                    raise StatusError(Status.INVALID_PARAMETER, "CREATE")

        share._exchange = exchange  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(share._open_renamed, "g")
            await under_way.wait()
            assert handle.lease is not None
            leases.nameless(handle.lease)
            await share.open_given_back()
            assert done == [True]
            go_on.set()
        assert done == ([True, False] if refused and not cut else [True])
        await share.open_given_back()
        assert done[-1:] == [cut], "it may be done later"
