"""A name that a file has until its last close here: it goes then, and not before; or by the next daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from peer import Reply, settle, trio_test
from stage import Stage, staged

from smb3fs.channels.session import Session
from smb3fs.errors import Status
from smb3fs.handles.hidden_names import MOST_STRUCK, PREFIX
from smb3fs.handles.journal import Journal, LeftName, read
from smb3fs.handles.opens import Durability, Open
from smb3fs.handles.renamed import SecondNames
from smb3fs.wire.create import AccessMask, CreateRequest, FileAttribute
from smb3fs.wire.infoclass import FileDispositionInformation
from smb3fs.wire.query import SetInfoRequest

NAME = f"{PREFIX}00"


class Holding:
    """A share with a journal, and what is to be removed from it."""

    def __init__(self, stage: Stage, path: Path) -> None:
        self.stage = stage
        self.path = path / "journal"
        self.unlisted: set[str] = set()
        self.journal = Journal(str(self.path), lambda: None)
        self.names = SecondNames(self.journal, stage.opens.leases, opens=stage.opens, unlisted=self.unlisted)
        stage.share.second_names = self.names

    @property
    def session(self) -> Session:
        """The session."""
        session = self.stage.world.pool.session
        assert isinstance(session, Session)
        return session

    async def open(self, path: str = "f") -> Open:
        """Open a file so that the server would give it back."""
        handle = await self.stage.share.open(path, read=True, write=False, expect=None)
        handle.durability = Durability.DURABLE_V2
        return handle

    def number(self, path: str) -> int:
        """The number of a file."""
        return self.stage.tree.nodes[path].number

    async def aside(self, path: str = "f", name: str = NAME) -> None:
        """Set a file aside."""
        number = self.number(path)
        assert await self.stage.share.hold_aside(path, name, expect=number)
        await self.stage.share.rename(path, name, replace=False, expect=number)
        await self.stage.share.settle_aside(name, there=True)

    def written(self) -> set[LeftName]:
        """What a next daemon would find."""
        return set(read(self.path.read_bytes())[0].names.values())

    async def released(self) -> None:
        """Do what is done for a name that has been let go."""
        with trio.fail_after(1):
            await self.names.take_released_away(self.session, await self.names.next_released())

    async def nothing_released(self) -> bool:
        """Whether none has been."""
        with trio.move_on_after(1):
            await self.names.next_released()
            return False
        return True


@asynccontextmanager
async def holding(path: Path) -> AsyncIterator[Holding]:
    """Bring it up."""
    async with staged() as stage:
        yield Holding(stage, path)


@trio_test
async def test_it_goes_with_the_last_close(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        first, second = await made.open(), await made.open()
        number = made.number("f")
        assert not made.path.exists()
        await made.aside()
        assert made.written() == {LeftName(NAME, number, last=True)}
        assert made.unlisted == {NAME}
        assert (len(made.names), made.names.held) == (0, 1)
        made.stage.share.close(first)
        await made.names.take_away(made.session)
        await made.names.take_one_away(made.session)
        assert NAME in made.stage.tree.nodes
        assert await made.nothing_released()
        assert await made.stage.share.read(second, 0, 8) == b"contents"
        made.stage.share.close(second)
        assert (len(made.names), made.names.held) == (1, 0)
        await made.released()
        assert NAME not in made.stage.tree.nodes
        assert (len(made.names), made.names.held, made.written()) == (0, 0, set())
        assert made.unlisted == {NAME}, "a listing may have been made before"
        await made.stage.nothing_open()


@trio_test
async def test_not_before_it_has_got_that_name(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        handle = await made.open()
        assert await made.stage.share.hold_aside("f", NAME, expect=made.number("f"))
        made.stage.share.close(handle)
        assert await made.nothing_released()
        await made.stage.share.rename("f", NAME, replace=False)
        await made.stage.share.settle_aside(NAME, there=True)
        await made.released()
        assert NAME not in made.stage.tree.nodes


@trio_test
async def test_what_has_not_got_it_is_left_alone(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        handle = await made.open()
        assert await made.stage.share.hold_aside("f", NAME, expect=made.number("f"))
        assert made.written()
        await made.stage.share.settle_aside(NAME, there=False)
        assert (made.written(), made.names.held) == (set(), 0)
        made.stage.share.close(handle)
        assert await made.nothing_released()
        assert "f" in made.stage.tree.nodes


@trio_test
async def test_where_it_is_of_no_use_it_is_not_done(tmp_path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("is another's")
    async with holding(tmp_path) as made:
        share, number = made.stage.share, made.number("f")
        assert not await share.hold_aside("f", NAME, expect=number), "nobody has it open"
        handle = await made.open()
        assert not await share.hold_aside("f", NAME, expect=None), "it cannot be known again"
        assert not await share.hold_aside("d", NAME, expect=number), "it is open by another name"
        handle.durability = Durability.NONE
        assert not await share.hold_aside("f", NAME, expect=number), "it ends with its connection"
        handle.durability = Durability.DURABLE
        made.journal._give_up("is another's")
        assert not await share.hold_aside("f", NAME, expect=number), "nobody would remove it if we are killed"
        share.second_names = None
        assert not await share.hold_aside("f", NAME, expect=number)
        assert not made.path.exists()
        share.close(handle)


@trio_test
async def test_the_next_daemon_removes_it_and_no_other_file(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        tree = made.stage.tree
        tree.add("other", b"another")
        handles = [await made.open("f"), await made.open("other")]
        await made.aside("f")
        await made.aside("other", f"{PREFIX}01")
        tree.nodes[f"{PREFIX}01"] = tree.add("third", b"it has come there since")
        made.journal._close()  # as the kernel does for those it kills
        second = Journal(str(made.path), lambda: None)
        heir = SecondNames(second, made.stage.opens.leases)
        heir.inherit(second.take_over().names)
        assert len(heir) == 2
        for handle in handles:
            made.stage.share.close(handle)
        await heir.take_away(made.session)
        assert NAME not in tree.nodes
        assert tree.nodes[f"{PREFIX}01"] is tree.nodes["third"]
        assert (len(heir), len(second)) == (0, 0)


@trio_test
async def test_it_follows_what_is_renamed(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        tree, share = made.stage.tree, made.stage.share
        handle = await made.open("d\\1")
        number = made.number("d\\1")
        await made.aside("d\\1", f"d\\{NAME}")
        for old, new in ((f"d\\{NAME}", NAME), (NAME, f"d\\{NAME}")):
            await share.rename(old, new, replace=False)
            assert made.written() == {LeftName(new, number, last=True)}
            assert made.unlisted == {NAME}
        tree.add("e", directory=True)
        share._moved("d", "e")
        assert made.written() == {LeftName(f"e\\{NAME}", number, last=True)}
        assert made.names.held == 1
        tree.nodes[f"e\\{NAME}"] = tree.nodes.pop(f"d\\{NAME}")
        share.close(handle)
        await made.released()
        assert f"e\\{NAME}" not in tree.nodes


@trio_test
async def test_a_directory_is_cleared_of_what_is_to_go_and_of_nothing_else(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        share, tree = made.stage.share, made.stage.tree
        one, two, top = await made.open("d\\1"), await made.open("d\\2"), await made.open("f")
        await made.aside("d\\1", f"d\\{NAME}")
        await made.aside("d\\2", f"d\\{PREFIX}02")
        await made.aside("f", f"{PREFIX}03")
        with made.stage.costs(0):
            await share.clear_aside("d")
        for handle in (one, top):
            share.close(handle)
        await share.clear_aside("d")
        assert {name for name in tree.nodes if PREFIX in name} == {f"d\\{PREFIX}02", f"{PREFIX}03"}
        share.close(two)


@trio_test
async def test_all_goes_at_the_end(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        handle = await made.open()
        await made.aside()
        await made.names.take_away(made.session, held=True)
        assert (len(made.names), made.names.held) == (0, 0)
        made.stage.share.close(handle)
        assert NAME not in made.stage.tree.nodes


@trio_test
async def test_one_that_is_read_only_goes_too(tmp_path: Path) -> None:
    """As POSIX has it; Windows' servers and Samba refuse to delete it as it is."""
    async with holding(tmp_path) as made:
        node = made.stage.tree.nodes["protected"]
        asked: list[int] = []

        def refuse(message: object, index: int) -> int | None:
            request = message.elements[index].request  # type: ignore[attr-defined]
            if isinstance(request, CreateRequest) and request.desired_access & AccessMask.DELETE:
                asked.append(request.desired_access)
            deletes = isinstance(request, SetInfoRequest) and (
                request.information_class == FileDispositionInformation.information_class
            )
            return Status.CANNOT_DELETE if deletes and node.attributes & FileAttribute.READONLY else None

        handle = await made.open("protected")
        await made.aside("protected")
        asked.clear()
        made.stage.server.refuse = refuse
        made.stage.share.close(handle)
        await made.released()
        assert [bool(access & AccessMask.WRITE_ATTRIBUTES) for access in asked] == [False, True]
        assert NAME not in made.stage.tree.nodes
        assert not made.names


@trio_test
async def test_names_that_are_gone_are_not_remembered_for_ever(tmp_path: Path) -> None:
    async with holding(tmp_path) as made:
        for number in range(MOST_STRUCK + 5):
            made.names.remove_later(f"{PREFIX}{number}", 1, None)
            made.names.settle(f"{PREFIX}{number}", there=False)
        assert made.unlisted == {f"{PREFIX}{number}" for number in range(5, MOST_STRUCK + 5)}


@asynccontextmanager
async def late_answer(made: Holding) -> AsyncIterator[None]:
    """Have the first answer of the server come at the end of the block."""
    server, late = made.stage.server, list[Callable[[], None]]()
    send = server.send

    def hold_back(*replies: Reply, sealed: bool | None = None) -> None:
        sending = partial(send, *replies, sealed=sealed)
        if late:
            sending()
        else:
            late.append(sending)

    server.send = hold_back  # type: ignore[method-assign]
    try:
        yield
    finally:
        server.send = send  # type: ignore[method-assign]
        late[0]()


@trio_test
async def test_a_directory_is_not_clear_while_somebody_else_takes_a_name_away(tmp_path: Path) -> None:
    """Each of two who open a name to delete it keeps it there until he has closed it."""
    async with holding(tmp_path) as made, trio.open_nursery() as nursery:
        made.stage.server.lingering = True
        handle, left = await made.open("d\\1"), list[str]()
        await made.aside("d\\1", f"d\\{NAME}")
        made.stage.share.close(handle)
        await settle()

        async def clear() -> None:
            await made.stage.share.clear_aside("d")
            left.extend(name for name in made.stage.tree.nodes if PREFIX in name)

        async with late_answer(made):
            nursery.start_soon(made.released)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(clear)
            await trio.testing.wait_all_tasks_blocked()
            assert f"d\\{NAME}" in made.stage.tree.nodes
        await trio.testing.wait_all_tasks_blocked()
        assert left == []
        assert f"d\\{NAME}" not in made.stage.tree.nodes
        assert made.written() == set()


@pytest.mark.parametrize("moved", [f"d\\{NAME}", "d"], ids=["itself", "its directory"])
@trio_test
async def test_one_that_is_closed_while_it_is_renamed_goes_by_its_new_name(moved: str, tmp_path: Path) -> None:
    async with holding(tmp_path) as made, trio.open_nursery() as nursery:
        tree, share = made.stage.tree, made.stage.share
        handle = await made.open("d\\1")
        await made.aside("d\\1", f"d\\{NAME}")
        async with late_answer(made):
            nursery.start_soon(partial(share.rename, moved, "e", replace=False))
            await trio.testing.wait_all_tasks_blocked()
            if moved == "d":
                tree.nodes[f"e\\{NAME}"] = tree.nodes.pop(f"d\\{NAME}")
            share.close(handle)
            assert await made.nothing_released()
            await made.names.take_away(made.session)
        await made.released()
        assert not [name for name in tree.nodes if (name == "e" and not tree.nodes[name].directory) or PREFIX in name]
        assert (len(made.names), made.names.held, made.written()) == (0, 0, set())


@trio_test
async def test_nothing_is_renamed_that_is_being_taken_away(tmp_path: Path) -> None:
    async with holding(tmp_path) as made, trio.open_nursery() as nursery:
        tree, share = made.stage.tree, made.stage.share
        handle = await made.open("d\\1")
        await made.aside("d\\1", f"d\\{NAME}")
        share.close(handle)
        await settle()
        async with late_answer(made):
            nursery.start_soon(made.released)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(partial(share.rename, "d", "e", replace=False))
            await trio.testing.wait_all_tasks_blocked()
            assert "e" not in tree.nodes
        await trio.testing.wait_all_tasks_blocked()
        assert "e" in tree.nodes
        assert not [name for name in tree.nodes if PREFIX in name]


@trio_test
async def test_one_that_somebody_else_has_open_is_looked_after_until_it_is_gone(tmp_path: Path) -> None:
    """A server that is restarted may have forgotten that it was to be deleted."""
    async with holding(tmp_path) as made:
        handle = await made.open()
        await made.aside()
        made.stage.server.refuse = lambda message, _: (
            Status.DELETE_PENDING if isinstance(message.elements[0].request, CreateRequest) else None
        )
        made.stage.share.close(handle)
        await made.released()
        assert len(made.names) == len(made.written()) == 1
        made.stage.server.refuse = lambda _message, _index: None
        await made.names.take_one_away(made.session)
        assert NAME not in made.stage.tree.nodes
        assert made.written() == set()
