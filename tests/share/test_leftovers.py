"""What the journal of a killed daemon says is open is claimed and closed, and whatever happens the mount goes on."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from keeping_server import Desk, KeepingServer
from peer import settle, trio_test
from stage import Stage, staged

from smb3fs.channels.session import Session
from smb3fs.errors import Status
from smb3fs.handles.journal import LeftOpen
from smb3fs.handles.leftovers import close_leftovers
from smb3fs.handles.opens import Durability
from smb3fs.wire.create import FileId
from smb3fs.wire.lease import LEASE_CONTEXT


async def leave(stage: Stage, desk: Desk, count: int) -> dict[int, LeftOpen]:
    """Have the server keep so many opens that nobody here knows of any more; the session of later is another one."""
    left = {}
    for number in range(count):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        server = stage.server
        assert isinstance(server, KeepingServer)
        desk.keep(server, handle, Durability.PERSISTENT)
        left[number] = LeftOpen(FileId(*handle.file_id), handle.create_guid, "f", handle.request.desired_access, 7, 0)
        stage.opens.forget(handle)
    stage.server.transport.hang_up()
    await trio.sleep(5)
    return left


async def close(stage: Stage, left: dict[int, LeftOpen], patience: float = 2) -> tuple[Counter[str], list[int]]:
    """Close all that was left; what became of it, and which numbers were struck out."""
    session = stage.world.pool.session
    assert isinstance(session, Session)
    struck: list[int] = []
    counts = await close_leftovers(session, left, struck.append, patience)
    return counts, sorted(struck)


@trio_test
async def test_what_was_left_is_claimed_and_closed() -> None:
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk)) as stage:
        left = await leave(stage, desk, 5)
        assert await close(stage, left) == (Counter(closed=5, gone=0, left=0), [0, 1, 2, 3, 4])
        assert len(desk.claims) == 5
        await stage.nothing_open()


@trio_test
async def test_the_lease_is_named_by_those_who_had_one() -> None:
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk)) as stage:
        left = await leave(stage, desk, 2)
        left[1] = LeftOpen(left[1].file_id, left[1].create_guid, "f", 1, 7, 0, bytes(52))
        await close(stage, left)
        names = {tuple(context.name for context in claim.contexts)[1:] for claim in desk.claims}
        assert names == {(), (LEASE_CONTEXT,)}


@trio_test
async def test_what_the_server_has_no_more_is_struck_out_as_well() -> None:
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk)) as stage:
        left = await leave(stage, desk, 3)
        del desk.kept[left[1].file_id.persistent]
        assert await close(stage, left) == (Counter(closed=2, gone=1, left=0), [0, 1, 2])


@pytest.mark.parametrize("status", [Status.FILE_NOT_AVAILABLE, Status.INSUFFICIENT_RESOURCES])
@trio_test
async def test_a_server_that_is_never_ready_costs_so_much_time_and_no_more(status: Status) -> None:
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk)) as stage:
        left = await leave(stage, desk, 2)
        desk.refuse = lambda claim: (
            status if claim.contexts[0].data[:8] == left[0].file_id[0].to_bytes(8, "little") else None
        )
        before = trio.current_time()
        assert await close(stage, left) == (Counter(closed=1, gone=0, left=1), [1])
        assert trio.current_time() - before == pytest.approx(2)  # trio's clock of the test
        assert await stage.share.root()


@trio_test
async def test_a_session_that_dies_of_it_leaves_the_rest() -> None:
    desk = Desk()
    async with staged(serve=lambda tree: KeepingServer(tree, desk)) as stage:
        left = await leave(stage, desk, 3)

        def refuse(_: object) -> int | None:
            if len(desk.claims) == 1:
                return None
            stage.server.transport.hang_up()
            return Status.USER_SESSION_DELETED

        desk.refuse = refuse
        counts, struck = await close(stage, left)
        assert (counts["gone"], counts["left"]) == (0, 3 - len(struck))
        assert counts["left"] >= 2
        await settle()
