"""A tree server that copies, knows holes, and promises space, with the habits of several servers."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from peer import Message
from tree_server import Handle, Tree, TreeServer

from smb3fs.errors import Status, StatusError
from smb3fs.wire.create import AccessMask, FileAttribute, FileId
from smb3fs.wire.header import Command
from smb3fs.wire.infoclass import (
    FileAllInformation,
    FileAllocationInformation,
    FileFsAttributeInformation,
    FileFsFullSizeInformation,
)
from smb3fs.wire.ioctl import IoctlResponse
from smb3fs.wire.lock import LockResponse
from smb3fs.wire.query import InfoType, QueryInfoResponse, SetInfoResponse
from smb3fs.wire.serverside import (
    FSCTL_DUPLICATE_EXTENTS_TO_FILE,
    FSCTL_QUERY_ALLOCATED_RANGES,
    FSCTL_SET_SPARSE,
    FSCTL_SET_ZERO_DATA,
    FSCTL_SRV_COPYCHUNK_WRITE,
    FSCTL_SRV_REQUEST_RESUME_KEY,
    RANGE_SIZE,
    AllocatedRange,
    CopyChunks,
    CopyChunksDone,
    DuplicateExtents,
    ResumeKey,
    SetSparse,
    ZeroData,
)


@contextmanager
def fails(number: int) -> Iterator[None]:
    """Expect an OSError with that errno."""
    with pytest.raises(OSError, match=r"^.Errno") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def refusal(status: int, ctl_code: int, file_id: FileId, output: bytes) -> StatusError:
    """An error status that comes with the control's answer all the same."""
    error = StatusError(status, "IOCTL")
    error.args = (*error.args, IoctlResponse(ctl_code, file_id, output).encode())
    return error


class ServerSideServer(TreeServer):
    """Serves a tree; `holding` keeps back the answers to copies."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.limits = CopyChunksDone(256, 1 << 20, 16 << 20)
        self.copies: list[list[int]] = []
        """The lengths of the chunks of each copy that was asked for."""
        self.copy_status: list[int] = []
        """What becomes of the copies, one after the other; success when it is used up."""
        self.volume = 3
        """What the volume can do."""
        self.cluster = 4096
        self.clones: list[tuple[int, int, int]] = []
        """Source offset, target offset and length of each request to share extents."""
        self.clone_status: list[int] = []
        """What becomes of these, one after the other; success when it is used up."""
        self.copied_short = 0
        """How many bytes less than asked for each copy claims."""
        self.held: list[Message] | None = None
        self.controls: list[int] = []
        self.ranges: dict[str, list[AllocatedRange]] = {}
        self.most_ranges = 1000
        self.all_or_none = False
        self.no_ranges = 0
        """The status by which ranges are refused."""
        self.allocates = True
        self.allocation: dict[str, int] = {}
        self.locked: list[Any] = []
        self.lock_status = Status.SUCCESS

    def serve(self, message: Message) -> None:
        """Carry a message out, unless copies are held."""
        request = message.elements[0].request
        if self.held is not None and getattr(request, "ctl_code", 0) == FSCTL_SRV_COPYCHUNK_WRITE:
            self.held.append(message)
            return
        super().serve(message)

    def release(self) -> None:
        """Carry out what was held, and hold nothing any more."""
        held, self.held = self.held or [], None
        for message in held:
            super().serve(message)

    def _do_ioctl(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        self.controls.append(request.ctl_code)
        match request.ctl_code:
            case code if code == FSCTL_SRV_REQUEST_RESUME_KEY:
                self._need(handle, AccessMask.READ_DATA)
                output = ResumeKey(file_id.persistent.to_bytes(24, "little")).encode()
            case code if code == FSCTL_SRV_COPYCHUNK_WRITE:
                output = self._copy(CopyChunks.parse(request.input), handle, file_id)
            case code if code == FSCTL_DUPLICATE_EXTENTS_TO_FILE:
                self._clone(DuplicateExtents.parse(request.input), handle)
                output = b""
            case code if code == FSCTL_QUERY_ALLOCATED_RANGES:
                output = self._ranges(AllocatedRange.parse(request.input), handle, file_id, request.max_output)
            case code if code == FSCTL_SET_SPARSE:
                assert SetSparse.parse(request.input).sparse
                handle.node.attributes |= FileAttribute.SPARSE_FILE
                output = b""
            case code if code == FSCTL_SET_ZERO_DATA:
                self._need(handle, AccessMask.WRITE_DATA)
                zeros, data = ZeroData.parse(request.input), handle.node.data
                end = min(zeros.end, len(data))
                data[zeros.offset : end] = bytes(max(0, end - zeros.offset))
                output = b""
            case _:
                return super()._do_ioctl(request, handle, file_id)
        return IoctlResponse(request.ctl_code, file_id, output).encode()

    def _copy(self, copy: CopyChunks, target: Handle, file_id: FileId) -> bytes:
        self._need(target, AccessMask.WRITE_DATA)
        lengths = [chunk.length for chunk in copy.chunks]
        self.copies.append(lengths)
        limits = self.limits
        if len(lengths) > limits.chunks or max(lengths) > limits.chunk_bytes or sum(lengths) > limits.total_bytes:
            raise refusal(Status.INVALID_PARAMETER, FSCTL_SRV_COPYCHUNK_WRITE, file_id, limits.encode())
        if self.copy_status and (status := self.copy_status.pop(0)):
            raise StatusError(status, "IOCTL")
        source = self.handles[FileId(int.from_bytes(copy.source_key, "little"), 0xF00D)].node.data
        for chunk in copy.chunks:
            if chunk.source_offset + chunk.length > len(source):
                raise StatusError(Status.INVALID_VIEW_SIZE, "IOCTL")
            data, end = target.node.data, chunk.target_offset + chunk.length
            if len(data) < end:
                data.extend(bytes(end - len(data)))
            data[chunk.target_offset : end] = source[chunk.source_offset : chunk.source_offset + chunk.length]
        return CopyChunksDone(len(lengths), 0, sum(lengths) - self.copied_short).encode()

    def _clone(self, asked: DuplicateExtents, target: Handle) -> None:
        """As smbd does: no word about what is behind the target's end, which is left out."""
        self._need(target, AccessMask.WRITE_DATA)
        place, to, length = asked.source_offset, asked.target_offset, asked.length
        self.clones.append((place, to, length))
        if self.clone_status and (status := self.clone_status.pop(0)):
            raise StatusError(status, "IOCTL")
        source, data = self.handles[FileId(*asked.source)].node.data, target.node.data
        if place + length > len(source):
            raise StatusError(Status.NOT_SUPPORTED, "IOCTL")
        if place % self.cluster or to % self.cluster or length % self.cluster:
            raise StatusError(Status.INVALID_PARAMETER, "IOCTL")
        length = max(0, min(length, len(data) - to))
        data[to : to + length] = source[place : place + length]

    def _ranges(self, asked: AllocatedRange, handle: Handle, file_id: FileId, room: int) -> bytes:
        if self.no_ranges:
            raise StatusError(self.no_ranges, "IOCTL")
        end = min(asked.offset + asked.length, len(handle.node.data))
        found = [
            AllocatedRange(
                max(one.offset, asked.offset), min(one.offset + one.length, end) - max(one.offset, asked.offset)
            )
            for one in self.ranges.get(handle.path, [AllocatedRange(0, len(handle.node.data))])
            if one.offset < end and one.offset + one.length > asked.offset
        ]
        most = min(self.most_ranges, room // RANGE_SIZE)
        output = b"".join(one.encode() for one in found[:most])
        if len(found) > most:
            if self.all_or_none:
                raise StatusError(Status.BUFFER_TOO_SMALL, "IOCTL")
            raise refusal(Status.BUFFER_OVERFLOW, FSCTL_QUERY_ALLOCATED_RANGES, file_id, output)
        return output

    def _do_lock(self, request: Any, _handle: Handle, _id: FileId) -> bytes:
        if self.lock_status:
            raise StatusError(self.lock_status, "LOCK")
        self.locked.append(request.elements)
        return LockResponse().encode()

    def _do_set_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.information_class == FileAllocationInformation.information_class:
            size = FileAllocationInformation.parse(request.data).allocation_size
            del handle.node.data[size:]
            if self.allocates:
                self.allocation[handle.path] = size
            return SetInfoResponse().encode()
        return super()._do_set_info(request, handle, file_id)

    def _do_query_info(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if request.info_type == InfoType.FILESYSTEM:
            if request.information_class == FileFsAttributeInformation.information_class:
                return QueryInfoResponse(
                    memoryview(FileFsAttributeInformation(self.volume, 255, "FS").encode())
                ).encode()
            space = FileFsFullSizeInformation(1000, 300, 400, self.cluster // 512, 512)
            return QueryInfoResponse(memoryview(space.encode())).encode()
        body = super()._do_query_info(request, handle, file_id)
        if request.information_class == FileAllInformation.information_class and handle.path in self.allocation:
            told = FileAllInformation.parse(memoryview(body[8:]))
            told.standard.allocation_size = self.allocation[handle.path]
            body = QueryInfoResponse(memoryview(told.encode())).encode()
        return body


def commands(server: TreeServer) -> list[str]:
    """The commands that have come, but for those that open and close."""
    return [
        Command(element.command).name
        for message in server.messages
        for element in message.elements
        if element.command not in (Command.CREATE, Command.CLOSE)
    ]
