"""A tree server with the SMB3 POSIX extensions: what was opened with their context has modes and owners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from attached_server import AttachedServer
from tree_server import Handle, Node, Tree

from smb3fs.errors import Status, StatusError
from smb3fs.wire.create import AccessMask, CreateContext, CreateRequest, CreateResponse, FileId
from smb3fs.wire.header import Command
from smb3fs.wire.posix import (
    POSIX_GUID,
    FileFsPosixInformation,
    FilePosixInformation,
    PosixCreate,
    PosixCreated,
    PosixDirectoryEntry,
    encode_posix_page,
    mode_to_wire,
)
from smb3fs.wire.query import RESTART_SCANS, InfoType, QueryDirectoryResponse, QueryInfoResponse, SetInfoResponse
from smb3fs.wire.reparse import ReparsePoint
from smb3fs.wire.security import SecurityDescriptor, SecurityInformation
from smb3fs.wire.sid import Sid, mode_of

OWNER: Final = Sid.from_text("S-1-5-21-1-2-3-1000")
GROUP: Final = Sid.from_text("S-1-22-2-100")


class PosixServer(AttachedServer):
    """Serves a tree whose paths have slashes to those who say so; `tree.nodes` has backslashes all the same."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.switched_off = False
        """For this share, though it was negotiated."""
        self.owned: dict[Node, PosixCreated] = {}
        self.opened_posix: set[FileId] = set()
        self.kept_of_modes = 0o777
        """What a chmod can set, as with Samba."""

    def _owned(self, node: Node) -> PosixCreated:
        made = self.owned.setdefault(node, PosixCreated(node.links, 0, 0o644, OWNER, GROUP))
        tag = ReparsePoint.parse(node.point).tag if node.point is not None else 0
        kind = 0o040000 if node.directory else 0o100000
        return replace(made, links=node.links, reparse_tag=tag, mode=mode_to_wire(kind | made.mode))

    def _create(self, request: CreateRequest) -> FileId:
        contexts = {context.name: context.data for context in request.contexts}
        if POSIX_GUID not in contexts or self.switched_off:
            return super()._create(request)
        known = set(self.tree.nodes.values())
        file_id = super()._create(replace(request, name=request.name.replace("/", "\\")))
        self.opened_posix.add(file_id)
        node = self.handles[file_id].node
        if node not in known:
            mode = PosixCreate.parse(contexts[POSIX_GUID]).mode
            self.owned[node] = PosixCreated(1, 0, mode, OWNER, GROUP)
        return file_id

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        body = super()._created(file_id, request)
        if file_id not in self.opened_posix:
            return body
        told = CreateResponse.parse(memoryview(bytes(64) + body))
        told.contexts.append(CreateContext(POSIX_GUID, self._owned(self.handles[file_id].node).encode()))
        return told.encode()

    def _information(self, node: Node) -> FilePosixInformation:
        size = len(node.data)
        return FilePosixInformation(*node.times, size, size, node.attributes, node.number, 7, self._owned(node))

    def _do_query_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.information_class != FilePosixInformation.information_class:
            return super()._do_query_info(request, handle, file_id)
        if file_id not in self.opened_posix:
            raise StatusError(Status.INVALID_INFO_CLASS, "QUERY_INFO")
        if request.info_type == InfoType.FILESYSTEM:
            data = FileFsPosixInformation(4096, 4096, 1000, 400, 300, 90, 80, 1).encode()
        else:
            data = self._information(handle.node).encode()
        return QueryInfoResponse(memoryview(data)).encode()

    def _do_set_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.info_type != InfoType.SECURITY:
            if file_id in self.opened_posix and request.information_class in (10, 11):
                request = replace(request, data=request.data.replace("/".encode("utf-16-le"), "\\".encode("utf-16-le")))
            return super()._do_set_info(request, handle, file_id)
        descriptor = SecurityDescriptor.parse(request.data)
        owned = self._owned(handle.node)
        owned = replace(owned, mode=owned.mode & 0o7777)
        if request.additional & SecurityInformation.DACL:
            self._need(handle, AccessMask.WRITE_DAC)
            assert descriptor.dacl is not None
            (ace,) = descriptor.dacl.aces
            assert ace.trustee is not None
            mode = mode_of(ace.trustee)
            assert mode is not None
            owned = replace(owned, mode=mode & self.kept_of_modes)
        if request.additional & (SecurityInformation.OWNER | SecurityInformation.GROUP):
            self._need(handle, AccessMask.WRITE_OWNER)
            owned = replace(owned, owner=descriptor.owner or owned.owner, group=descriptor.group or owned.group)
        self.owned[handle.node] = owned
        return SetInfoResponse().encode()

    def _do_query_directory(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if file_id not in self.opened_posix:
            return super()._do_query_directory(request, handle, file_id)
        assert request.information_class == FilePosixInformation.information_class
        if handle.listing is None or request.flags & RESTART_SCANS:
            handle.listing = [".", "..", *self.tree.children(handle.path)]
        names, handle.listing = handle.listing[: self.entry_limit], handle.listing[self.entry_limit or 10**6 :]
        if not names:
            raise StatusError(Status.NO_MORE_FILES, Command.QUERY_DIRECTORY.name)
        page = []
        for name in names:
            path = handle.path if name in (".", "..") else "\\".join(filter(None, (handle.path, name)))
            node = self.tree.nodes[path]
            size = len(node.data)
            page.append(
                PosixDirectoryEntry(name, node.number, node.attributes, size, size, *node.times, 7, self._owned(node))
            )
        return QueryDirectoryResponse(memoryview(encode_posix_page(page))).encode()
