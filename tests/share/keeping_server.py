"""A tree server that keeps opens for those who lose their connection, and gives them back to whoever claims them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tree_server import Handle, Tree, TreeServer

from smb3fs.errors import Status, StatusError
from smb3fs.handles.opens import Durability, Open
from smb3fs.wire.create import CreateAction, CreateRequest, FileId
from smb3fs.wire.durable import (
    DURABLE_HANDLE_RECONNECT,
    DURABLE_HANDLE_RECONNECT_V2,
    PERSISTENT,
    DurableHandleReconnect,
    DurableHandleReconnectV2,
)
from smb3fs.wire.lease import LEASE_CONTEXT


@dataclass
class Desk:
    """What the server keeps beyond its sessions, and what was claimed at it."""

    kept: dict[int, tuple[Handle, bytes, bool]] = field(default_factory=dict)
    """By the persistent half of the id: the open, its CreateGuid, and whether it is persistent."""
    claims: list[CreateRequest] = field(default_factory=list)
    refuse: Callable[[CreateRequest], int | None] = lambda _: None
    """A status by which a claim is refused in place of being looked at."""

    def keep(self, server: KeepingServer, handle: Open, durability: Durability = Durability.DURABLE_V2) -> None:
        """Let both sides believe that an open was granted with a durability."""
        handle.durability = durability
        handle.create_guid = bytes([len(self.kept) % 251 + 1]) * 16 if durability > Durability.DURABLE else b""
        there = server.handles[FileId(*handle.file_id)]
        self.kept[handle.file_id.persistent] = (there, handle.create_guid, durability == Durability.PERSISTENT)


class KeepingServer(TreeServer):
    """One session with it."""

    def __init__(self, tree: Tree, desk: Desk) -> None:
        super().__init__(tree)
        self.desk = desk

    def _create(self, request: CreateRequest) -> FileId:
        claims = {DURABLE_HANDLE_RECONNECT, DURABLE_HANDLE_RECONNECT_V2}
        data = next((context.data for context in request.contexts if context.name in claims), None)
        if data is None:
            return super()._create(request)
        self.desk.claims.append(request)
        assert {context.name for context in request.contexts} - claims <= {LEASE_CONTEXT}
        status = self.desk.refuse(request)
        if status is not None:
            raise StatusError(status, "CREATE")
        if request.contexts[0].name == DURABLE_HANDLE_RECONNECT:
            file_id, guid, persistent = DurableHandleReconnect.parse(data).file_id, b"", False
        else:
            assert len(data) == 36
            claim = DurableHandleReconnectV2.parse(data)
            file_id, guid, persistent = claim.file_id, claim.create_guid, claim.flags == PERSISTENT
        kept = self.desk.kept.get(file_id.persistent)
        if kept is None or kept[1:] != (guid, persistent) or kept[0].path != request.name:
            raise StatusError(Status.OBJECT_NAME_NOT_FOUND, "CREATE")
        self._action = CreateAction.OPENED
        given = FileId(file_id.persistent, 0xBACC + next(self._ids))
        self.handles[given] = kept[0]
        return given
