"""Whatever goes wrong, wherever in a chain: the caller learns of it, and no handle stays open on the server."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from peer import Element, Message, settle, trio_test
from stage import Stage, staged, usual_tree
from tree_server import Tree, TreeServer, usual_descriptor
from world import agreed

from smb3fs.errors import ConnectionLost, Smb3fsError, Status, StatusError, WireError
from smb3fs.handles.attributes import Basics
from smb3fs.handles.opens import Open
from smb3fs.share.listing import Listing
from smb3fs.share.share import Share
from smb3fs.wire.header import Command
from smb3fs.wire.io import ReadResponse, WriteResponse
from smb3fs.wire.reparse import SymbolicLink

Verb = Callable[[Share], Awaitable[object]]


async def on_handle(share: Share, use: Callable[[Open], Awaitable[object]]) -> object:
    """Use a handle and close it, as the layer above does, whatever happens."""
    handle = await share.open("f", read=True, write=True, expect=None)
    try:
        return await use(handle)
    finally:
        share.close(handle)


async def whole_listing(share: Share, path: str) -> object:
    """List a directory to its end."""
    listing = await share.list_directory(path, None)
    try:
        while await listing.next_page():
            pass
    finally:
        listing.close()
    return listing


VERBS: dict[str, Verb] = {
    "lookup": lambda share: share.lookup("f"),
    "space": lambda share: share.space(),
    "open": lambda share: share.open("f", read=True, write=True, expect=None),
    "open with head": lambda share: share.open("f", read=True, write=False, expect=None, head=100),
    "create": lambda share: share.create("new", read=True, write=True, exclusive=True),
    "create existing": lambda share: share.create("f", read=True, write=True, exclusive=False),
    "read": lambda share: on_handle(share, lambda handle: share.read(handle, 0, 100)),
    "write": lambda share: on_handle(share, lambda handle: share.write(handle, 0, b"data")),
    "flush": lambda share: on_handle(share, share.flush),
    "attributes": lambda share: on_handle(share, share.attributes),
    "truncate": lambda share: on_handle(share, lambda handle: share.truncate(handle, 3)),
    "set_basic_open": lambda share: on_handle(share, lambda handle: share.set_basic_open(handle, Basics(modified=1))),
    "truncate_path": lambda share: share.truncate_path("f", 3, None),
    "set_basic": lambda share: share.set_basic("f", Basics(modified=1), expect=None),
    "extended_attributes": lambda share: share.extended_attributes("f", None),
    "attached": lambda share: share.attached("f", None),
    "set_extended_attribute": lambda share: share.set_extended_attribute("f", b"new", b"1", expect=None),
    "replace_attribute": lambda share: share.set_extended_attribute("f", b"one", b"2", expect=None, exists=True),
    "security": lambda share: share.security("f", 7, None),
    "set_security": lambda share: share.set_security("f", 5, usual_descriptor().encode(), expect=None),
    "read_stream": lambda share: share.read_stream("f", "s", None),
    "write_stream": lambda share: share.write_stream("f", "s", b"new", expect=None),
    "create_stream": lambda share: share.write_stream("f", "new", b"new", expect=None, exists=False),
    "remove_stream": lambda share: share.remove_stream("f", "s", None),
    "snapshots": lambda share: share.snapshots(),
    "make_directory": lambda share: share.make_directory("new"),
    "remove_file": lambda share: share.remove_file("f"),
    "remove_file read-only": lambda share: share.remove_file("protected"),
    "remove_directory": lambda share: share.remove_directory("empty"),
    "rename": lambda share: share.rename("f", "g", replace=False),
    "list": lambda share: whole_listing(share, "d"),
    "make_link": lambda share: share.make_link("link", SymbolicLink("f", "f", True)),
    "make_link_file": lambda share: share.make_link_file("link", b"f"),
    "make_special": lambda share: share.make_special("fifo", 0o010644, 0),
    "link": lambda share: share.link("f", "second", None),
    "list long": lambda share: whole_listing(share, "long"),
}
verbs = pytest.mark.parametrize("name", VERBS)


def stage_for(name: str) -> Any:
    """A stage for a verb; a long listing has several pages on it."""
    tree = usual_tree()
    if name == "list long":
        tree.add("long", directory=True)
        for number in range(220):
            tree.add(f"long\\{number:0250}")
    return staged(tree, sizes=agreed(transact=65536))


def give_back(stage: Stage, result: object) -> None:
    """Close what a verb has left to its caller."""
    if isinstance(result, Open):
        stage.share.close(result)
    if isinstance(result, Listing):
        result.close()


async def attempt(stage: Stage, name: str) -> tuple[object, Exception | None]:
    """Do a verb; only errors of ours may come of it."""
    try:
        return await VERBS[name](stage.share), None
    except (Smb3fsError, OSError) as error:
        return None, error


async def messages_of(name: str, *, strict: bool = False) -> list[list[str]]:
    """The messages of a verb when all goes well."""
    async with stage_for(name) as stage:
        stage.server.strict = strict
        result, error = await attempt(stage, name)
        assert error is None
        give_back(stage, result)
        await stage.nothing_open()
        return [message.commands for message in stage.server.messages]


# -- an element that is refused


def tolerated(name: str, number: int, commands: list[str], index: int) -> bool:
    """Whether the verb may succeed although this element was refused."""
    command = commands[index]
    if name == "remove_file read-only" and number == 0 and command == "CLOSE":
        return True  # the deletion in front of it was refused for another reason, and is tried in another way
    if commands == ["CLOSE"]:
        return True  # nobody waits for it
    if command == "CLOSE" and commands[0] == "SET_INFO":
        return True  # what was to be done is done; the handle is closed another time
    if command == "CLOSE" and name in ("extended_attributes", "attached", "security", "read_stream"):
        return True  # what was asked for is known; the handle is closed another time
    return name == "open with head" and command == "READ"


@pytest.mark.parametrize("apart", [False, True], ids=["one frame", "a frame each"])
@pytest.mark.parametrize("strict", [False, True], ids=["the rest goes on", "the rest fails too"])
@verbs
@trio_test
async def test_every_element_of_every_chain_refused(name: str, strict: bool, apart: bool) -> None:
    chains = await messages_of(name, strict=strict)
    for number, commands in enumerate(chains):
        for index in range(len(commands)):
            async with stage_for(name) as stage:
                server = stage.server
                server.apart, server.strict = apart, strict

                def refuse(
                    message: Message, at: int, server: TreeServer = server, number: int = number, index: int = index
                ) -> int | None:
                    hit = server.messages[number : number + 1] == [message] and at == index
                    return Status.INSUFFICIENT_RESOURCES if hit else None

                server.refuse = refuse
                result, error = await attempt(stage, name)
                where = f"{name}, message {number} {commands}, element {index}"
                if commands == ["CLOSE"]:
                    # A CLOSE that fails although nothing is wrong with it: nobody can do anything about that.
                    continue
                if not tolerated(name, number, commands, index):
                    assert isinstance(error, StatusError), where
                    assert error.status == Status.INSUFFICIENT_RESOURCES, where
                    assert error.command == commands[index], where
                give_back(stage, result)
                await settle()
                assert server.open_handles == [], where
                assert len(stage.opens) == 0, where


# -- an answer that makes no sense


@verbs
@trio_test
async def test_every_answer_of_every_chain_cut_short_or_damaged(name: str) -> None:
    chains = await messages_of(name)
    rnd = random.Random(name)
    for number, commands in enumerate(chains):
        for index, command in enumerate(commands):
            for damage in range(6):
                async with stage_for(name) as stage:
                    server = stage.server

                    def distort(
                        element: Element,
                        body: bytes,
                        server: TreeServer = server,
                        number: int = number,
                        index: int = index,
                        damage: int = damage,
                    ) -> bytes:
                        message = element.message
                        if server.messages[number : number + 1] != [message] or message.elements[index] is not element:
                            return body
                        if damage < 4:
                            return body[: [0, 3, len(body) // 2, max(len(body) - 1, 0)][damage]] or b"\0"
                        position = rnd.randrange(len(body))
                        return body[:position] + rnd.choice([b"\xff\xff\xff\xff", b"\0\0"]) + body[position + 4 :]

                    server.distort = distort
                    with trio.fail_after(3600):
                        result, _ = await attempt(stage, name)
                    give_back(stage, result)
                    await settle()
                    if command != "CREATE":  # whose answer names the handle
                        assert server.open_handles == [], f"{name}, message {number} {commands}, element {index}"


def replacing(command: Command, replacement: bytes) -> Callable[[Element, bytes], bytes]:
    """Answer a command with this."""
    return lambda element, body: replacement if element.command == command else body


@trio_test
async def test_more_data_than_was_asked_for() -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=False, expect=None)
        stage.server.distort = replacing(Command.READ, ReadResponse(memoryview(bytes(11))).encode())
        with pytest.raises(WireError):
            await stage.share.read(handle, 0, 10)
        with pytest.raises(WireError):
            await stage.share.open("f", read=True, write=False, expect=None, head=10)
        assert await stage.share.read(handle, 0, 11) == bytes(11)
        stage.share.close(handle)
        await stage.nothing_open()


@pytest.mark.parametrize("count", [0, 11, 2**32 - 1])
@trio_test
async def test_a_write_that_wrote_nothing_or_more_than_it_was_given(count: int) -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        stage.server.distort = replacing(Command.WRITE, WriteResponse(count).encode())
        with trio.fail_after(10), pytest.raises(WireError):
            await stage.share.write(handle, 0, b"ten bytes.")


@trio_test
async def test_a_read_that_returns_nothing_ends() -> None:
    async with staged(sizes=agreed(read=65536)) as stage:
        stage.tree.nodes["f"].data[:] = bytes(200_000)
        handle = await stage.share.open("f", read=True, write=False, expect=None)
        reads = [0]

        def empty_from_the_second(element: Element, body: bytes) -> bytes:
            if element.command != Command.READ:
                return body
            reads[0] += 1
            return body if reads[0] == 1 else ReadResponse(memoryview(b"")).encode()

        stage.server.distort = empty_from_the_second
        with trio.fail_after(10):
            assert len(await stage.share.read(handle, 0, 200_000)) == 65536


# -- a caller that gives up


@pytest.mark.parametrize("late", ["carried out", "cancelled"])
@verbs
@trio_test
async def test_a_caller_that_gives_up_while_any_of_its_messages_is_under_way(name: str, late: str) -> None:
    chains = await messages_of(name)
    for number in range(len(chains)):
        async with stage_for(name) as stage:
            server = stage.server
            scope = trio.CancelScope()
            held: list[Message] = []

            def hold(
                message: Message,
                server: TreeServer = server,
                number: int = number,
                held: list[Message] = held,
                scope: trio.CancelScope = scope,
            ) -> None:
                if server.messages[number : number + 1] == [message]:
                    held.append(message)
                    scope.cancel()
                else:
                    server.serve(message)

            server.handler = hold
            result = None
            with scope:
                result, _ = await attempt(stage, name)
            give_back(stage, result)
            await settle()
            server.handler = server.serve
            assert held, f"{name}: message {number} was not sent"
            if late == "cancelled" and chains[number] != ["CLOSE"]:
                server.refuse = lambda _message, _index: Status.CANCELLED
            server.serve(held[0])
            server.refuse = lambda _message, _index: None
            await settle()
            assert server.open_handles == [], f"{name}: message {number} {chains[number]}"
            assert len(stage.opens) == 0, f"{name}: message {number} {chains[number]}"


# -- a link that breaks

# What looks may look again; what changes something may not be done twice.
LOOKS = {"extended_attributes", "attached", "security", "read_stream", "snapshots"}
REPEATED = {"lookup", "space", "open", "open with head", "list", *LOOKS}
# What takes several messages that change something, so that an error may come in between.
STEPWISE = {"write_stream", "rename_point", "remove_file read-only"}


def state(tree: Tree) -> dict[str, tuple[object, ...]]:
    """What is under which name, but for the numbers that new files get and the times of changes."""
    return {
        path: (
            node.directory,
            bytes(node.data),
            node.attributes,
            node.times[:3],
            node.links,
            dict(node.extended),
            {name: bytes(stream.data) for name, stream in node.streams.items()},
            node.descriptor.encode(),
            node.point,
        )
        for path, node in tree.nodes.items()
    }


@pytest.mark.parametrize("way", ["send", "receive"])
@verbs
@trio_test
async def test_a_link_that_breaks_at_any_moment(name: str, way: str) -> None:
    chains = await messages_of(name)
    async with stage_for(name) as stage:
        before = state(stage.tree)
        await attempt(stage, name)
        done = state(stage.tree)
    for number in range(1, len(chains) + 1):
        async with stage_for(name) as stage:
            setattr(stage.server.transport, f"fail_{way}", number)
            first = stage.server
            result, error = await attempt(stage, name)
            # A CLOSE that nobody waits for may be what breaks it, and then all went well.
            where = f"{name}: {way} {number} of {chains}"
            if name in REPEATED:
                assert error is None, where
            else:
                assert error is None or isinstance(error, ConnectionLost), where
            give_back(stage, result)
            await trio.sleep(2)
            assert stage.world.pool.session is not None
            if error is None:
                assert state(stage.tree) == done, where
            elif name not in STEPWISE:
                assert state(stage.tree) in (before, done), where
            if stage.server is not first:
                assert stage.server.open_handles == [], where
            assert len(stage.opens) == 0, where


@trio_test
async def test_file_ids_of_an_old_session_are_never_used_in_a_new_one() -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        listing = await stage.share.list_directory("d", None)
        old = handle.file_id
        away = stage.tree.nodes.pop("f")
        stage.server.transport.hang_up()
        await settle()
        stage.tree.nodes["f"] = away
        fresh = await stage.share.open("f", read=True, write=True, expect=None)
        assert tuple(fresh.file_id) == tuple(old) == (1, 0xF00D)  # the new server gives the same number again
        stage.share.close(handle)
        listing.close()
        await settle()
        assert stage.server.open_handles == ["f"]
        assert await stage.share.read(fresh, 0, 3) == b"con"
        stage.share.close(fresh)
        await stage.nothing_open()


@pytest.mark.parametrize("apart", [False, True])
@trio_test
async def test_a_rename_that_the_server_puts_off_is_asked_for_at_the_end_of_a_chain(apart: bool) -> None:
    async with staged() as stage:
        number = stage.tree.nodes["f"].number
        stage.server.apart = apart

        def only_last(message: Message, index: int) -> int | None:
            late = message.elements[index].command == Command.SET_INFO and index + 1 < len(message.elements)
            return int(Status.INTERNAL_ERROR) if late else None

        stage.server.refuse = only_last
        with stage.costs(2, unwaited=1):
            await stage.share.rename("f", "g", replace=False)
        assert (stage.tree.nodes["g"].number, "f" in stage.tree.nodes) == (number, False)
        await stage.nothing_open()
        # What is refused there as well stays refused, and is not asked for a third time.
        stage.server.refuse = lambda message, index: (
            int(Status.INTERNAL_ERROR) if message.elements[index].command == Command.SET_INFO else None
        )
        with stage.costs(2, unwaited=1), pytest.raises(StatusError) as error:
            await stage.share.rename("g", "f", replace=False)
        assert (error.value.status, error.value.command) == (Status.INTERNAL_ERROR, "SET_INFO")
        await stage.nothing_open()
