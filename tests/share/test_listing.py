"""Listings: a small directory in one round trip, a large one page by page, and none that lacks a page unnoticed."""

from __future__ import annotations

import errno

import pytest
import trio
from peer import Message, settle, trio_test
from stage import Stage, staged
from tree_server import Tree
from world import agreed

from smb3fs.errors import ConnectionLost, Status, StatusError, WireError, errno_of
from smb3fs.share.listing import FIRST_AHEAD, MOST_AHEAD, Listing
from smb3fs.wire.directory import DirectoryEntry, entry_offsets


def names(listing: Listing) -> list[str]:
    """The names in all pages."""
    return [DirectoryEntry.parse_at(page, offset).name for page in listing.pages for offset in entry_offsets(page)]


def large_tree(count: int) -> tuple[Tree, list[str]]:
    """A tree with one directory of so many files, and what its listing holds."""
    tree = Tree()
    tree.add("d", directory=True)
    files = [f"file-{number:05}" for number in range(count)]
    for file in files:
        tree.add(f"d\\{file}")
    return tree, [".", "..", *files]


async def rest_of(listing: Listing) -> None:
    """Fetch what is missing."""
    while await listing.next_page():
        pass


@pytest.mark.parametrize("apart", [False, True], ids=["one frame", "a frame each"])
@trio_test
async def test_a_small_directory_takes_one_round_trip(apart: bool) -> None:
    async with staged() as stage:
        stage.server.apart = apart
        with stage.costs(1, unwaited=1):
            listing = await stage.share.list_directory("d", None)
            assert listing.complete
            assert not await listing.next_page()
            await settle()
        assert names(listing) == [".", "..", "0", "1", "2", "3", "4"]
        await stage.nothing_open()
        listing.close()
        await stage.nothing_open()


@trio_test
async def test_an_empty_one_too() -> None:
    async with staged() as stage:
        with stage.costs(1, unwaited=1):
            assert names(await stage.share.list_directory("empty", None)) == [".", ".."]
        with stage.costs(1, unwaited=1):
            assert len(names(await stage.share.list_directory("", None))) == 6


@pytest.mark.parametrize("answer", [Status.NO_SUCH_FILE, Status.NO_MORE_FILES])
@trio_test
async def test_a_directory_of_nothing_at_all(answer: Status) -> None:
    async with staged() as stage:
        stage.server.refuse = lambda message, index: answer if message.commands[index] == "QUERY_DIRECTORY" else None
        listing = await stage.share.list_directory("empty", None)
        assert listing.complete
        assert listing.pages == []
        await stage.nothing_open()


@pytest.mark.parametrize("count", [0, 1, 499, 600, 1500, 3000])
@trio_test
async def test_the_pages_of_a_large_one_are_asked_for_ahead(count: int) -> None:
    tree, expected = large_tree(count)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        trips = stage.world.trace.round_trips
        listing = await stage.share.list_directory("d", None)
        await rest_of(listing)
        assert names(listing) == expected
        pages = len(listing.pages)
        assert stage.world.trace.round_trips - trips == 1
        asked = sum(message.commands == ["QUERY_DIRECTORY"] for message in stage.server.messages)
        assert max(pages - 1, 0) <= asked + 1 <= pages + MOST_AHEAD
        assert max(map(len, listing.pages)) <= 65536
        assert listing.complete
        await stage.nothing_open()


@trio_test
async def test_it_can_be_given_up_in_between() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        listing = await stage.share.list_directory("d", None)
        assert await listing.next_page()
        assert len(stage.opens) == 1
        listing.close()
        listing.close()
        await stage.nothing_open()
        assert len(listing.pages) == 3


@trio_test
async def test_what_is_no_directory() -> None:
    async with staged() as stage:
        for path, number in (("f", errno.ENOTDIR), ("absent", errno.ENOENT)):
            with pytest.raises(StatusError) as error:
                await stage.share.list_directory(path, None)
            assert errno_of(error.value) == number
        await stage.nothing_open()


@trio_test
async def test_it_asks_for_no_more_than_the_server_gives_at_once_and_credits_allow() -> None:
    async with staged(sizes=agreed(transact=1 << 23), credits=4) as stage:
        await stage.share.list_directory("d", None)
        (message,) = stage.server.messages[:1]
        assert message.elements[2].request.output_length == 65536


def keep_pages_back(stage: Stage) -> list[Message]:
    """Let the server keep its answers to what is asked for behind the first compound; returns where it keeps them."""
    kept: list[Message] = []

    def handle(message: Message) -> None:
        if message.commands == ["QUERY_DIRECTORY"]:
            kept.append(message)
        else:
            stage.server.serve(message)

    stage.server.handler = handle
    return kept


async def next_page_of(stage: Stage, listing: Listing) -> tuple[trio.CancelScope, list[BaseException]]:
    """Ask for the next page in a task of its own, and let it wait."""
    scope, errors = trio.CancelScope(), list[BaseException]()

    async def ask() -> None:
        with scope:
            try:
                await listing.next_page()
            except (OSError, ConnectionLost, StatusError, WireError) as error:
                errors.append(error)

    stage.world.nursery.start_soon(ask)
    await settle()
    return scope, errors


@trio_test
async def test_little_is_asked_for_in_vain() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        kept = keep_pages_back(stage)
        listing = await stage.share.list_directory("d", None)
        await settle()
        assert len(kept) == FIRST_AHEAD
        listing.close()
        for message in kept:
            stage.server.serve(message)
        await stage.nothing_open()


@pytest.mark.parametrize("count", [600, 1100, 1500, 3000])
@trio_test
async def test_a_server_may_work_on_several_pages_at_once_and_find_the_end_before_the_last_page(count: int) -> None:
    """Of requests that are on their way together, a later one may be given the page, an earlier one the end."""
    tree, expected = large_tree(count)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        kept = keep_pages_back(stage)
        listing = await stage.share.list_directory("d", None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest_of, listing)
            for _ in range(20):
                await settle()
                for message in reversed(kept):
                    stage.server.serve(message)
                kept.clear()
        assert sorted(names(listing)) == sorted(expected)
        await stage.nothing_open()


@trio_test
async def test_a_page_that_nobody_took_is_not_skipped() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        kept = keep_pages_back(stage)
        listing = await stage.share.list_directory("d", None)
        scope, _ = await next_page_of(stage, listing)
        scope.cancel()
        await settle()
        stage.server.handler = stage.server.serve
        for message in kept:
            stage.server.serve(message)
        await settle()
        with pytest.raises(OSError) as error:
            await listing.next_page()
        assert error.value.errno == errno.EIO
        listing.close()
        await stage.nothing_open()


@trio_test
async def test_a_loss_in_between_ends_it() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        keep_pages_back(stage)
        listing = await stage.share.list_directory("d", None)
        _, errors = await next_page_of(stage, listing)
        stage.server.transport.hang_up()
        await settle()
        assert [errno_of(error) for error in errors] == [errno.EIO]
        with pytest.raises((OSError, ConnectionLost)) as error:
            await listing.next_page()
        assert errno_of(error.value) == errno.EIO
        listing.close()
        await stage.nothing_open()


@trio_test
async def test_an_error_in_between_is_told() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        alone = ["QUERY_DIRECTORY"]
        stage.server.refuse = lambda message, _: Status.INSUFFICIENT_RESOURCES if message.commands == alone else None
        listing = await stage.share.list_directory("d", None)
        with pytest.raises(StatusError):
            await listing.next_page()
        stage.server.refuse = lambda _message, _index: None
        listing.close()
        await stage.nothing_open()


@trio_test
async def test_a_page_that_makes_no_sense_is_told() -> None:
    tree, _ = large_tree(3000)
    async with staged(tree, sizes=agreed(transact=65536)) as stage:
        alone = ["QUERY_DIRECTORY"]
        stage.server.distort = lambda element, body: body[:6] if element.message.commands == alone else body
        listing = await stage.share.list_directory("d", None)
        with pytest.raises(WireError):
            await listing.next_page()
        listing.close()
        await stage.nothing_open()
