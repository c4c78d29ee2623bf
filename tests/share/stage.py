"""A share on a tree server, with everything between them, and the count of round trips."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from attached_server import AttachedServer
from peer import settle
from tree_server import Node, Tree, TreeServer
from world import World, agreed, world

from smb3fs.channels.negotiation import Negotiated
from smb3fs.handles.claims import Claims
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.opens import OpenTable
from smb3fs.share.share import Share
from smb3fs.wire.create import FileAttribute


class Stage:
    """A share and what it stands on."""

    def __init__(self, world: World, tree: Tree, share: Share, opens: OpenTable) -> None:
        self.world = world
        self.tree = tree
        self.share = share
        self.opens = opens

    @property
    def server(self) -> TreeServer:
        """The server of the newest session."""
        server = self.world.peer
        assert isinstance(server, TreeServer)
        return server

    @contextmanager
    def costs(self, round_trips: int, unwaited: int = 0) -> Iterator[None]:
        """What happens inside takes so many round trips, and so many messages that nobody waits for."""
        trace = self.world.trace
        before = trace.round_trips, trace.unwaited
        yield
        assert (trace.round_trips - before[0], trace.unwaited - before[1]) == (round_trips, unwaited)

    async def nothing_open(self) -> None:
        """Neither the server nor the table has a handle left."""
        await settle()
        assert self.server.open_handles == []
        assert len(self.opens) == 0


def usual_tree() -> Tree:
    """A file with an attribute and a stream, a read-only one, a full and an empty directory."""
    tree = Tree()
    file = tree.add("f", b"contents of f")
    file.extended[b"one"] = b"1"
    file.streams["s"] = Node(file.number, data=bytearray(b"in the stream"))
    tree.add("protected", b"x", attributes=FileAttribute.READONLY)
    tree.add("empty", directory=True)
    tree.add("d", directory=True)
    for number in range(5):
        tree.add(f"d\\{number}", bytes(number))
    return tree


@asynccontextmanager
async def staged(
    tree: Tree | None = None,
    *,
    prefix: str = "",
    sizes: Negotiated | None = None,
    credits: int = 512,
    recover: bool = True,
    serve: Callable[[Tree], TreeServer] = AttachedServer,
    snapshot: int | None = None,
    leases: bool = False,
) -> AsyncIterator[Stage]:
    """Bring a share up on a tree; with `leases` it asks for some."""
    tree = tree or usual_tree()
    async with world(lambda: serve(tree), sizes=sizes or agreed(), credits=credits, recover=recover) as made:
        opens = OpenTable(LeaseTable(wanted=leases))
        share = Share(made.pool, opens, made.trace, prefix=prefix, snapshot=snapshot)
        made.kept.claims = Claims(opens, share.reopen, patience=10)
        yield Stage(made, tree, share, opens)
