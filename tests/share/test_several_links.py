"""What a share does otherwise where there are several links to its server."""

from __future__ import annotations

import pytest
import trio
from peer import settle, trio_test
from stage import Stage, staged

from smb3fs.channels.session import Session
from smb3fs.errors import Status, StatusError
from smb3fs.wire.durable import DURABLE_HANDLE_V2
from smb3fs.wire.header import Command

MIB = 1 << 20


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every session go by three links, of which the second one carries half as much as the others."""

    def divide(_: Session, size: int) -> list[tuple[None, int]]:
        return [(None, 2 * size // 5), (None, size // 5), (None, size - 2 * size // 5 - size // 5)]

    monkeypatch.setattr(Session, "divide", divide)
    monkeypatch.setattr(Session, "redundant", property(lambda _: True))


def writes(stage: Stage) -> list[tuple[int, int]]:
    """What the server was sent by WRITE: offsets and sizes."""
    elements = [element for message in stage.server.messages for element in message.elements]
    found = [element.request for element in elements if element.command == Command.WRITE]
    return sorted((request.offset, len(request.data)) for request in found)


@pytest.mark.parametrize(
    ("size", "spread", "starts"), [(MIB, True, [0, 419430, 629145]), (MIB, False, [0])], ids=["three", "in order"]
)
@pytest.mark.usefixtures("links")
@trio_test
async def test_a_write_is_split_among_the_links(size: int, spread: bool, starts: list[int]) -> None:
    data = bytes(number % 251 for number in range(size))
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        with stage.costs(len(starts)):
            assert await stage.share.write(handle, 5, data, spread=spread) == size
        assert bytes(stage.tree.nodes["f"].data[5:]) == data
        assert [offset - 5 for offset, _ in writes(stage)] == starts
        stage.share.close(handle)
        await stage.nothing_open()


@pytest.mark.usefixtures("links")
@trio_test
async def test_the_parts_are_under_way_together_and_one_that_fails_fails_the_write() -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=True, expect=None)
        server, failed = stage.server, []
        server.handler = None

        async def write() -> None:
            with pytest.raises(StatusError) as caught:
                await stage.share.write(handle, 0, bytes(MIB), spread=True)
            failed.append(caught.value.status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await settle()
            assert len(writes(stage)) == 3
            waiting = list(server.unseen)[-3:]
            server.serve(waiting[0])
            server.answer(waiting[1], statuses=[Status.DISK_FULL])
            server.serve(waiting[2])
        assert failed == [Status.DISK_FULL]


@pytest.mark.usefixtures("links")
@trio_test
async def test_an_open_is_recognised_when_it_is_repeated() -> None:
    async with staged() as stage:
        handle = await stage.share.open("f", read=True, write=False, expect=None, head=4096)
        message = stage.server.messages[-1]
        assert message.commands == ["CREATE"]
        assert any(context.name == DURABLE_HANDLE_V2 for context in message.elements[0].request.contexts)
        assert bytes(await stage.share.read(handle, 0, 100)) == b"contents of f"
        stage.share.close(handle)
        await stage.nothing_open()
