"""H is had back by which something that is open outlives its connection."""

from __future__ import annotations

import pytest
import trio
from peer import settle, trio_test
from test_line import a_line
from test_share_leases import LeasingServer, leasing

from smb3fs.errors import Status
from smb3fs.handles.lease import NONE, RH, RWH, Lease
from smb3fs.handles.opens import Durability, Open
from smb3fs.line import REGAINING
from smb3fs.wire.create import CreateRequest
from smb3fs.wire.lease import ACK_REQUIRED, LeaseBreakNotification

R = 1


def broken(server: LeasingServer, lease: Lease, state: int = R) -> LeaseBreakNotification:
    """Have the server take a lease back, all but `state`; its break."""
    granted = server.leases[lease.key]
    granted.state, granted.epoch = state, granted.epoch + 1
    return LeaseBreakNotification(granted.epoch, ACK_REQUIRED, lease.key, RWH, state)


@pytest.mark.parametrize(("write", "wish"), [(True, RWH), (False, RH)])
@trio_test
async def test_the_lease_rises_when_the_file_is_opened_with_its_key(write: bool, wish: int) -> None:
    async with leasing() as (stage, server, leases):
        handle = await stage.share.open("f", read=True, write=write, expect=None)
        handle.durability, lease, session = Durability.DURABLE_V2, handle.lease, stage.world.pool.session
        assert lease is not None
        assert session is not None
        leases.broken(broken(server, lease))
        assert (lease.state, stage.share.needs_h(lease, session.generation)) == (R, True)
        with stage.costs(1):
            await stage.share.regain(session, lease)
        assert (lease.state, stage.share.needs_h(lease, session.generation)) == (wish, False)
        assert handle.lease is lease
        assert server.open_handles == ["f"]
        stage.share.close(handle)
        await stage.nothing_open()


@trio_test
async def test_under_another_name_at_the_server_another_key_is_taken() -> None:
    async with leasing() as (stage, server, leases):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        handle.durability, lease, session = Durability.DURABLE_V2, handle.lease, stage.world.pool.session
        assert lease is not None
        assert session is not None
        leases.broken(broken(server, lease))
        server.leases[lease.key].path = "set-aside"
        await stage.share.regain(session, lease)
        await settle()
        assert handle.lease is not None
        assert handle.lease is not lease
        assert handle.lease.state == RWH
        assert server.open_handles == ["f"]
        assert await stage.share.read(handle, 0, 8) == b"contents"
        stage.share.close(handle)
        await stage.nothing_open()
        assert len(leases) == 0


@pytest.mark.parametrize("status", [Status.OBJECT_NAME_NOT_FOUND, Status.SHARING_VIOLATION])
@trio_test
async def test_where_it_cannot_be_had_all_stays_as_it_is(status: Status) -> None:
    async with leasing() as (stage, server, leases):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        handle.durability, lease, session = Durability.DURABLE_V2, handle.lease, stage.world.pool.session
        assert lease is not None
        assert session is not None
        leases.broken(broken(server, lease))
        server.refuse = lambda message, index: (
            status if isinstance(message.elements[index].request, CreateRequest) else None
        )
        await stage.share.regain(session, lease)
        assert (handle.lease, lease.state, server.open_handles) == (lease, R, ["f"])


@pytest.mark.parametrize(
    ("durability", "left", "asked"),
    [
        (Durability.DURABLE_V2, R, len(REGAINING)),
        (Durability.DURABLE, R, len(REGAINING)),
        (Durability.DURABLE_V2, NONE, 0),  # others write
        (Durability.DURABLE_V2, RH, 0),  # nothing of H was taken
        (Durability.NONE, R, 0),
        (Durability.PERSISTENT, R, 0),
    ],
)
@trio_test
async def test_it_is_asked_for_a_few_times_where_something_is_kept_by_it(
    monkeypatch: pytest.MonkeyPatch, durability: Durability, left: int, asked: int
) -> None:
    async with leasing() as (stage, server, leases), trio.open_nursery() as nursery:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        handle.durability = durability
        lease, session = handle.lease, stage.world.pool.session
        assert lease is not None
        assert session is not None
        line = a_line(nursery)
        line.pool.attach(session)
        leases.subscribe(line._lease_changed)
        times: list[float] = []

        async def regain(of: object, what: object) -> None:
            assert (of, what) == (session, lease)
            times.append(trio.current_time())
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(line.share, "regain", regain)
        leases.broken(broken(server, lease, left))
        leases.broken(LeaseBreakNotification(server.leases[lease.key].epoch, ACK_REQUIRED, lease.key, RWH, left))
        await trio.sleep(20)
        assert len(times) == asked
        assert not line._regaining
        assert isinstance(handle, Open)
