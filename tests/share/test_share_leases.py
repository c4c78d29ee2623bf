"""Which lease each CREATE of the share carries, and what becomes of one that the server refuses for its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from attached_server import AttachedServer
from peer import trio_test
from stage import Stage, staged

from smb3fs.errors import Status, StatusError
from smb3fs.handles.lease import NONE, RH, RWH
from smb3fs.handles.leases import LeaseTable
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, FileId, OplockLevel
from smb3fs.wire.lease import ACK_REQUIRED, LEASE_CONTEXT, LeaseBreakNotification, LeaseContextV2


@dataclass
class Granted:
    """A lease as the server has it."""

    path: str
    state: int
    epoch: int = 1


class LeasingServer(AttachedServer):
    """Grants what it is asked for, but no key to two names, as Samba does."""

    asked: list[tuple[str, LeaseContextV2 | None]]
    leases: dict[bytes, Granted]

    def _create(self, request: CreateRequest) -> FileId:
        """Refuse the key of another name before anything else."""
        if not hasattr(self, "asked"):
            self.asked, self.leases = [], {}
        data = dict(request.contexts).get(LEASE_CONTEXT)
        assert (data is not None) == (request.oplock_level == OplockLevel.LEASE)
        lease = LeaseContextV2.parse(data) if data is not None else None
        self.asked.append((request.name, lease))
        if lease is not None and self.leases.get(lease.key, Granted(request.name, 0)).path != request.name:
            raise StatusError(Status.INVALID_PARAMETER, "CREATE")
        return super()._create(request)

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        """Put the lease on the answer."""
        told = CreateResponse.parse(memoryview(bytes(64) + super()._created(file_id, request)))
        lease = self.asked[-1][1]
        if lease is not None:
            granted = self.leases.setdefault(lease.key, Granted(request.name, lease.state))
            if granted.state | lease.state != granted.state:
                granted.state, granted.epoch = granted.state | lease.state, granted.epoch + 1
            answer = LeaseContextV2(lease.key, granted.state, epoch=granted.epoch)
            told.oplock_level = OplockLevel.LEASE
            told.contexts.append(CreateContext(LEASE_CONTEXT, answer.encode()))
        return told.encode()


@asynccontextmanager
async def leasing() -> AsyncIterator[tuple[Stage, LeasingServer, LeaseTable]]:
    """A share that asks for leases."""
    async with staged(serve=LeasingServer, leases=True) as stage:
        server = stage.server
        assert isinstance(server, LeasingServer)
        leases = stage.opens.leases
        leases.speak(2)
        yield stage, server, leases


@trio_test
async def test_opens_of_one_file_have_one_key_and_raise_its_lease() -> None:
    async with leasing() as (stage, server, leases):
        reader = await stage.share.open("f", read=True, write=False, expect=None)
        assert reader.lease is not None
        assert reader.lease.state == RH
        writer = await stage.share.open("f", read=False, write=True, expect=None)
        assert writer.lease is reader.lease
        assert [lease and (lease.key, lease.state) for _, lease in server.asked] == [
            (reader.lease.key, RH),
            (reader.lease.key, RWH),
        ]
        assert reader.lease.state == RWH
        stage.share.close(reader)
        stage.share.close(writer)
        assert len(leases) == 0
        await stage.nothing_open()


@trio_test
async def test_the_directory_is_named_by_a_key_of_its_own() -> None:
    async with leasing() as (stage, server, leases):
        for path in ("d\\0", "d\\1", "f"):
            stage.share.close(await stage.share.open(path, read=True, write=False, expect=None))
        parents = [lease.parent_key for _, lease in server.asked if lease is not None]
        assert parents == [leases.directory_key("d"), leases.directory_key("d"), leases.directory_key("")]


@trio_test
async def test_what_is_done_by_path_carries_the_key_and_asks_for_no_more_than_there_is() -> None:
    async with leasing() as (stage, server, leases):
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        lease = handle.lease
        assert lease is not None
        leases.broken(LeaseBreakNotification(2, ACK_REQUIRED, lease.key, RWH, RH))
        server.leases[lease.key].state, server.leases[lease.key].epoch = RH, 2
        await stage.share.rename("f", "g", replace=False)
        server.leases[lease.key].path = "g"
        await stage.share.remove_file("g")
        assert [(name, asked and (asked.key, asked.state)) for name, asked in server.asked[1:]] == [
            ("f", (lease.key, RH)),
            ("g", (lease.key, RH)),
        ]
        # The name is free: whoever makes a file of that name gets another lease.
        made = await stage.share.create("g", read=False, write=True, exclusive=True)
        assert made.lease is not None
        assert made.lease is not lease
        # Looking at a file breaks nothing, and names nobody.
        await stage.share.lookup("g")
        assert server.asked[-1] == ("g", None)


@trio_test
async def test_a_key_that_is_refused_is_no_error_for_anybody() -> None:
    async with leasing() as (stage, server, leases):
        handle = await stage.share.open("f", read=True, write=False, expect=None)
        assert handle.lease is not None
        # Somebody moves the file away and puts another one in its place.
        server.leases[handle.lease.key].path = "elsewhere"
        other = await stage.share.open("f", read=True, write=False, expect=None)
        assert other.lease is not None
        assert other.lease is not handle.lease
        server.leases[other.lease.key].path = "elsewhere"
        await stage.share.rename("f", "g", replace=False)
        assert [asked is None for _, asked in server.asked[-2:]] == [False, True]
        assert (handle.lease.state, other.lease.state, len(leases)) == (RH, RH, 2)


@trio_test
async def test_a_server_that_takes_no_lease_at_all_opens_all_the_same() -> None:
    async with leasing() as (stage, server, leases):

        def refuse(message: object, index: int) -> int | None:
            request = message.elements[index].request  # type: ignore[attr-defined]
            leased = isinstance(request, CreateRequest) and request.oplock_level == OplockLevel.LEASE
            return int(Status.INVALID_PARAMETER) if leased else None

        server.refuse = refuse
        handle = await stage.share.open("f", read=True, write=False, expect=None)
        assert (handle.lease, len(leases)) == (None, 0)
        stage.share.close(handle)
        await stage.nothing_open()


@pytest.mark.parametrize("version", [0, 2])
@trio_test
async def test_where_none_are_wanted_or_had_none_are_asked_for(version: int) -> None:
    async with staged(serve=LeasingServer, leases=version == 0) as stage:
        stage.opens.leases.speak(version)
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        server = stage.server
        assert isinstance(server, LeasingServer)
        assert (handle.lease, server.asked) == (None, [("f", None)])


@trio_test
async def test_a_lease_that_is_broken_while_the_open_is_on_its_way_is_granted_no_more() -> None:
    async with leasing() as (stage, server, leases):

        def break_first(_element: object, body: bytes) -> bytes:
            (lease,) = leases
            leases.broken(LeaseBreakNotification(2, 0, lease.key, RWH, NONE))
            return body

        server.distort = break_first
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        assert handle.lease is not None
        assert handle.lease.state == NONE
