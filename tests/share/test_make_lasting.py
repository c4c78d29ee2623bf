"""What is open for reading alone is asked to be kept when its file is about to lose its name, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from peer import trio_test
from stage import Stage, staged
from test_share_leases import LeasingServer

from smb3fs.errors import Status, StatusError
from smb3fs.handles.journal import Journal
from smb3fs.handles.ledger import Ledger
from smb3fs.handles.opens import Durability, Open
from smb3fs.handles.renamed import SecondNames
from smb3fs.wire.create import CreateContext, CreateRequest, CreateResponse, FileId
from smb3fs.wire.durable import DURABLE_HANDLE_V2, DurableHandleResponseV2
from smb3fs.wire.lease import LeaseState


class PromisingServer(LeasingServer):
    """Promises to keep what has H and asks for it, as Samba does."""

    promises = True
    refuses = 0

    def _create(self, request: CreateRequest) -> FileId:
        """Refuse so many, if the test says so."""
        if self.refuses:
            self.refuses -= 1
            raise StatusError(Status.SHARING_VIOLATION, "CREATE")
        return super()._create(request)

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        """Put the promise on the answer."""
        told = CreateResponse.parse(memoryview(bytes(64) + super()._created(file_id, request)))
        lease = self.asked[-1][1]
        if self.promises and DURABLE_HANDLE_V2 in dict(request.contexts) and lease and lease.state & LeaseState.HANDLE:
            told.contexts.append(CreateContext(DURABLE_HANDLE_V2, DurableHandleResponseV2(60_000, 0).encode()))
        return told.encode()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[tuple[Stage, PromisingServer, Open]]:
    """A share on which `f` is open for reading alone."""
    async with staged(serve=PromisingServer, leases=True) as stage:
        server = stage.server
        assert isinstance(server, PromisingServer)
        stage.opens.leases.speak(2)
        journal = Journal(str(path / "journal"), lambda: None)
        stage.share.second_names = SecondNames(journal, stage.opens.leases, opens=stage.opens)
        handle = await stage.share.open("f", read=True, write=False, expect=None, head=100)
        assert handle.durability == Durability.NONE
        yield stage, server, handle


@trio_test
async def test_it_is_opened_anew_with_the_same_lease_and_stays_what_it_is(tmp_path: Path) -> None:
    async with reading(tmp_path) as (stage, server, handle):
        number, lease, before = handle.attributes_at_open.file_id, handle.lease, tuple(handle.file_id)
        with stage.costs(1, unwaited=1):
            await stage.share.make_lasting("f", expect=number)
        assert handle.durability == Durability.DURABLE_V2
        assert (handle.lease, handle.attributes_at_open.file_id) == (lease, number)
        assert tuple(handle.file_id) != before
        assert len(server.open_handles) == len(stage.opens) == 1
        assert await stage.share.read(handle, 0, 100) == b"contents of f"
        assert await stage.share.hold_aside("f", ".smb3fs-00", expect=number)
        with stage.costs(0):
            await stage.share.make_lasting("f", expect=number)
        await stage.share.settle_aside(".smb3fs-00", there=False)
        stage.share.close(handle)
        await stage.nothing_open()


@trio_test
async def test_each_open_of_it_is_and_no_other(tmp_path: Path) -> None:
    async with reading(tmp_path) as (stage, _, handle):
        again = await stage.share.open("f", read=True, write=False, expect=None, head=100)
        other = await stage.share.open("d\\1", read=True, write=False, expect=None, head=100)
        await stage.share.make_lasting("f", expect=handle.attributes_at_open.file_id)
        assert (again.durability, handle.durability) == (Durability.DURABLE_V2, Durability.DURABLE_V2)
        assert other.durability == Durability.NONE


@pytest.mark.parametrize("why", ["no promise", "no number", "carries locks", "no lease", "nobody removes it"])
@trio_test
async def test_where_it_is_of_no_use_nothing_is_asked(tmp_path: Path, why: str) -> None:
    async with reading(tmp_path) as (stage, _, handle):
        number: int | None = handle.attributes_at_open.file_id
        if why == "no promise":
            stage.opens.keeps = False
        elif why == "no number":
            number = None
        elif why == "carries locks":
            handle.ledger = Ledger()
        elif why == "no lease":
            handle.lease = None
        else:
            stage.share.second_names = None
        with stage.costs(0):
            await stage.share.make_lasting("f", expect=number)
        assert handle.durability == Durability.NONE


@pytest.mark.parametrize("refused", [False, True])
@trio_test
async def test_what_the_server_does_not_promise_is_as_good_as_before(tmp_path: Path, refused: bool) -> None:
    async with reading(tmp_path) as (stage, server, handle):
        server.promises, server.refuses = False, int(refused)
        await stage.share.make_lasting("f", expect=handle.attributes_at_open.file_id)
        assert handle.durability == Durability.NONE
        assert await stage.share.read(handle, 0, 100) == b"contents of f"
        assert len(server.open_handles) == len(stage.opens) == 1
