"""A tree server whose files have extended attributes, streams and security descriptors, and that keeps old versions."""

from __future__ import annotations

from itertools import count
from typing import Any

from tree_server import Handle, Node, Tree, TreeServer

from smb3fs.errors import Status, StatusError
from smb3fs.wire.create import AccessMask, CreateRequest, Disposition, FileId
from smb3fs.wire.create_contexts import TIMEWARP_TOKEN, TimewarpToken
from smb3fs.wire.ea import ExtendedAttribute, FileFullEaInformation
from smb3fs.wire.ioctl import IoctlResponse
from smb3fs.wire.query import InfoType, QueryInfoResponse, SetInfoResponse
from smb3fs.wire.security import Control, SecurityDescriptor, SecurityInformation
from smb3fs.wire.snapshots import FSCTL_SRV_ENUMERATE_SNAPSHOTS, SnapshotArray
from smb3fs.wire.streams import FileStreamInformation, Stream


class AttachedServer(TreeServer):
    """Keeps what is attached to files in their nodes, and answers for it."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.without: set[int] = set()
        """Information classes that the file system does not know."""
        self.keeps_streams = True
        self.privileged = True
        self.own_numbers = False
        """Whether streams have file ids of their own."""
        self.tokens = ["@GMT-2024.01.01-00.00.00", "@GMT-2025.06.01-12.30.00"]
        self.timewarps: list[int | None] = []
        self.touched: list[str] = []
        """Paths of streams that were created."""
        self._stream_numbers = count(9000)

    def _create(self, request: CreateRequest) -> FileId:
        warps = [context.data for context in request.contexts if context.name == TIMEWARP_TOKEN]
        self.timewarps.append(TimewarpToken.parse(warps[0]).timestamp if warps else None)
        if request.desired_access & AccessMask.ACCESS_SYSTEM_SECURITY and not self.privileged:
            raise StatusError(Status.PRIVILEGE_NOT_HELD, "CREATE")
        path, colon, rest = request.name.partition(":")
        if not colon:
            return super()._create(request)
        if not self.keeps_streams:
            raise StatusError(Status.OBJECT_NAME_INVALID, "CREATE")
        name, kind = rest.split(":")
        assert kind == "$DATA"
        assert name
        file = self.tree.nodes.get(path)
        if file is None:
            raise StatusError(Status.OBJECT_NAME_NOT_FOUND, "CREATE")
        known = file.streams
        if name not in known:
            if request.disposition == Disposition.OPEN:
                raise StatusError(Status.OBJECT_NAME_NOT_FOUND, "CREATE")
            known[name] = Node(next(self._stream_numbers) if self.own_numbers else file.number)
            self.touched.append(request.name)
        elif request.disposition == Disposition.CREATE:
            raise StatusError(Status.OBJECT_NAME_COLLISION, "CREATE")
        self._action = 1
        file_id = FileId(next(self._ids), 0xF00D)
        self.handles[file_id] = Handle(known[name], request.name, request.desired_access)
        return file_id

    def _do_close(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if handle.delete and ":" in handle.path:
            path, name, _ = handle.path.split(":")
            del self.tree.nodes[path].streams[name]
            handle.delete = False
        return super()._do_close(request, handle, file_id)

    def _do_query_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        node = handle.node
        if request.info_type == InfoType.SECURITY:
            self._need(handle, AccessMask.READ_CONTROL)
            data = _parts(node.descriptor, request.additional).encode()
        elif request.information_class in self.without:
            raise StatusError(Status.INVALID_INFO_CLASS, "QUERY_INFO")
        elif request.information_class == FileFullEaInformation.information_class:
            self._need(handle, AccessMask.READ_EA)
            if not node.extended:
                raise StatusError(Status.NO_EAS_ON_FILE, "QUERY_INFO")
            data = FileFullEaInformation([ExtendedAttribute(*item) for item in node.extended.items()]).encode()
        elif request.information_class == FileStreamInformation.information_class:
            data = FileStreamInformation(
                [
                    Stream("::$DATA", len(node.data)),
                    *(Stream(f":{name}:$DATA", len(stream.data)) for name, stream in node.streams.items()),
                ]
            ).encode()
        else:
            return super()._do_query_info(request, handle, file_id)
        if len(data) > request.output_length:
            raise StatusError(Status.BUFFER_OVERFLOW, "QUERY_INFO")
        return QueryInfoResponse(memoryview(data)).encode()

    def _do_set_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.info_type == InfoType.SECURITY:
            told, kept = SecurityDescriptor.parse(request.data), handle.node.descriptor
            if request.additional & SecurityInformation.OWNER:
                self._need(handle, AccessMask.WRITE_OWNER)
                kept.owner = told.owner
            if request.additional & SecurityInformation.DACL:
                self._need(handle, AccessMask.WRITE_DAC)
                kept.dacl = told.dacl
            if request.additional & SecurityInformation.SACL:
                self._need(handle, AccessMask.ACCESS_SYSTEM_SECURITY)
                kept.sacl = told.sacl
                kept.control |= Control.SACL_PRESENT
            return SetInfoResponse().encode()
        if request.information_class == FileFullEaInformation.information_class:
            self._need(handle, AccessMask.WRITE_EA)
            known = handle.node.extended
            for attribute in FileFullEaInformation.parse(request.data).attributes:
                name = next((name for name in known if attribute.is_called(name)), attribute.name)
                known.pop(name, None)
                if attribute.value:
                    known[name] = attribute.value
            return SetInfoResponse().encode()
        return super()._do_set_info(request, handle, file_id)

    def _do_ioctl(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.ctl_code != FSCTL_SRV_ENUMERATE_SNAPSHOTS:
            return super()._do_ioctl(request, handle, file_id)
        if not self.tokens:
            raise StatusError(Status.INVALID_DEVICE_REQUEST, "IOCTL")
        output = SnapshotArray(len(self.tokens), self.tokens).encode()
        if len(output) > request.max_output:
            output = SnapshotArray(len(self.tokens), [], len(output)).encode()
        return IoctlResponse(request.ctl_code, file_id, output).encode()


def _parts(full: SecurityDescriptor, parts: int) -> SecurityDescriptor:
    """Return the parts of a descriptor that are asked for."""
    return SecurityDescriptor(
        full.control,
        full.owner if parts & SecurityInformation.OWNER else None,
        full.group if parts & SecurityInformation.GROUP else None,
        full.sacl if parts & SecurityInformation.SACL else None,
        full.dacl if parts & SecurityInformation.DACL else None,
    )
