"""A server that never grants more than a handful of credits: every verb works, if only request by request."""

from __future__ import annotations

import pytest
import trio
from peer import settle, trio_test
from stage import Stage, staged, usual_tree
from test_share_failures import VERBS, give_back
from world import agreed

from smb3fs.errors import Smb3fsError, Status, StatusError

verbs = pytest.mark.parametrize("name", VERBS)
windows = pytest.mark.parametrize("window", [1, 2, 3, 4])


async def stingy(stage: Stage) -> None:
    """Have the server give back what a request was charged, and no more."""
    stage.server.grant = lambda header: max(header.credit_charge, 1)


@windows
@verbs
@trio_test
async def test_every_verb(name: str, window: int) -> None:
    tree = usual_tree()
    tree.add("long", directory=True)
    for number in range(350):
        tree.add(f"long\\{number:0250}")
    async with staged(tree, credits=window, sizes=agreed(transact=65536)) as stage:
        await stingy(stage)
        with trio.fail_after(20):
            result = await VERBS[name](stage.share)
        assert all(len(message.elements) <= window for message in stage.server.messages)
        give_back(stage, result)
        await stage.nothing_open()


@windows
@trio_test
async def test_the_whole_directory_is_listed(window: int) -> None:
    tree = usual_tree()
    names = {f"{number:0250}" for number in range(700)}
    tree.add("long", directory=True)
    for name in names:
        tree.add(f"long\\{name}")
    async with staged(tree, credits=window, sizes=agreed(transact=65536)) as stage:
        await stingy(stage)
        with trio.fail_after(20):
            listing = await stage.share.list_directory("long", None)
            while await listing.next_page():
                pass
        pages = b"".join(bytes(page) for page in listing.pages)
        assert all(name.encode("utf-16-le") in pages for name in names)
        await stage.nothing_open()


@trio_test
async def test_what_cannot_be_opened_fails_by_the_reason_why() -> None:
    async with staged(credits=1) as stage:
        await stingy(stage)
        with pytest.raises(StatusError) as error:
            await stage.share.lookup("nothing here")
        assert (error.value.command, error.value.status) == ("CREATE", Status.OBJECT_NAME_NOT_FOUND)
        assert [message.commands for message in stage.server.messages] == [["CREATE"]]


@pytest.mark.parametrize("answered", [0, 1, 2])
@trio_test
async def test_a_caller_that_gives_up_leaves_nothing_open(answered: int) -> None:
    async with staged(credits=1) as stage:
        await stingy(stage)
        server = stage.server
        obey, held = server.handler, []

        def handler(message: object) -> None:
            if len(server.messages) <= answered or held:
                obey(message)  # type: ignore[arg-type]
            else:
                held.append(message)

        server.handler = handler
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                try:
                    await stage.share.lookup("f")
                except Smb3fsError as error:
                    raise AssertionError from error

            nursery.start_soon(look)
            await settle()
            nursery.cancel_scope.cancel()
        for message in held:
            obey(message)
        await stage.nothing_open()
