"""A small tree of files behind the scripted peer: enough of a server for every verb of the share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from peer import Element, Message, Peer, Reply, make_keys

from smb3fs.errors import Status, StatusError
from smb3fs.wire.codec import utf16
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateAction,
    CreateContext,
    CreateOptions,
    CreateRequest,
    CreateResponse,
    Disposition,
    FileAttribute,
    FileId,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID, DiskId
from smb3fs.wire.directory import DirectoryEntry, encode_page
from smb3fs.wire.header import Command
from smb3fs.wire.infoclass import (
    FileAllInformation,
    FileAttributeTagInformation,
    FileBasicInformation,
    FileDispositionInformation,
    FileEndOfFileInformation,
    FileFsAttributeInformation,
    FileFsFullSizeInformation,
    FileInternalInformation,
    FileLinkInformation,
    FileRenameInformation,
    FileStandardInformation,
)
from smb3fs.wire.io import CloseResponse, FlushResponse, ReadResponse, WriteResponse
from smb3fs.wire.ioctl import IoctlResponse
from smb3fs.wire.query import RESTART_SCANS, InfoType, QueryDirectoryResponse, QueryInfoResponse, SetInfoResponse
from smb3fs.wire.reparse import FSCTL_GET_REPARSE_POINT, FSCTL_SET_REPARSE_POINT, ReparsePoint, ReparseTag
from smb3fs.wire.security import Ace, AceType, Acl, Control, SecurityDescriptor
from smb3fs.wire.sid import EVERYONE

DAY: Final = 864_000_000_000  # in FILETIME's 100 ns
BIRTH: Final = 152_000 * DAY  # a day in 2017


def usual_descriptor() -> SecurityDescriptor:
    """Everybody's, and everybody may do everything."""
    control = Control.SELF_RELATIVE | Control.DACL_PRESENT
    return SecurityDescriptor(
        control, EVERYONE, EVERYONE, None, Acl([Ace.of(AceType.ACCESS_ALLOWED, EVERYONE, 0x1F01FF)])
    )


@dataclass(slots=True, eq=False)
class Node:
    """A file or directory."""

    number: int
    directory: bool = False
    data: bytearray = field(default_factory=bytearray)
    attributes: int = FileAttribute.NORMAL
    times: list[int] = field(default_factory=lambda: [BIRTH, BIRTH + 1, BIRTH + 2, BIRTH + 3])
    links: int = 1
    # What is attached to it, for `attached_server`.
    extended: dict[bytes, bytes] = field(default_factory=dict)
    streams: dict[str, Node] = field(default_factory=dict)
    descriptor: SecurityDescriptor = field(default_factory=usual_descriptor)
    point: bytes | None = None
    """What FSCTL_SET_REPARSE_POINT has set."""

    def touch(self) -> None:
        """Let it look as if somebody else had changed it."""
        self.times[2] += DAY
        self.times[3] += DAY


@dataclass(slots=True, eq=False)
class Handle:
    """An open."""

    node: Node
    path: str
    access: int
    delete: bool = False
    listing: list[str] | None = None


class Tree:
    """The files, which outlive the sessions to them. The root is ""."""

    def __init__(self) -> None:
        self._numbers = count(1000)
        self.nodes: dict[str, Node] = {}
        self.add("", directory=True)

    def add(self, path: str, data: bytes = b"", *, directory: bool = False, attributes: int = 0) -> Node:
        """Put a file or directory there."""
        node = Node(next(self._numbers), directory, bytearray(data))
        node.attributes = attributes or (FileAttribute.DIRECTORY if directory else FileAttribute.NORMAL)
        self.nodes[path] = node
        return node

    def children(self, path: str) -> list[str]:
        """The names in a directory, in their order."""
        prefix = f"{path}\\" if path else ""
        return sorted(
            name[len(prefix) :]
            for name in self.nodes
            if name and name.startswith(prefix) and "\\" not in name[len(prefix) :]
        )


class TreeServer(Peer):
    """Serves a tree, and fails where and how the test says."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(make_keys())
        self.tree = tree
        self.handles: dict[FileId, Handle] = {}
        self.handler = self.serve
        self.apart = False
        """Answer the elements of a chain in frames of their own."""
        self.strict = False
        """After an element that failed, fail the rest of its chain too, and do not even close."""
        self.disk_ids = True
        self.no_points = False
        self.no_hard_links = False
        self.refuse: Callable[[Message, int], int | None] = lambda _message, _index: None
        """A status by which an element is refused without being carried out."""
        self.distort: Callable[[Element, bytes], bytes] = lambda _element, body: body
        """What becomes of a body on its way."""
        self.entry_limit: int | None = None
        self.lingering = False
        """A name that is deleted goes with the last open of it, and not with the one that deletes it."""
        self._ids = count(1)

    @property
    def open_handles(self) -> list[str]:
        """The paths that are open."""
        return [handle.path for handle in self.handles.values()]

    def serve(self, message: Message) -> None:
        """Carry out a message and answer it."""
        if message.elements[0].command == Command.OPLOCK_BREAK:  # nothing is ever broken here
            self.send(self.reply(message.elements[0], status=Status.UNSUCCESSFUL))
            return
        if message.elements[0].command == Command.CANCEL:
            return
        replies: list[Reply] = []
        current: FileId | None = None
        failed = 0
        for index, element in enumerate(message.elements):
            request = element.request
            file_id = getattr(request, "file_id", None)
            if file_id is not None and file_id != RELATED_FILE_ID:
                current = file_id
            status, body = self.refuse(message, index), b""
            if failed and (self.strict or current is None):
                status = failed
            if status is None:
                try:
                    if isinstance(request, CreateRequest):
                        current = self._create(request)
                        body = self._created(current, request)
                    else:
                        assert current is not None or element.command == Command.ECHO
                        body = self._do(element, current)
                    status = Status.SUCCESS
                except StatusError as error:
                    status = error.status
                    body = error.args[1] if len(error.args) > 1 else b""
            if status not in (Status.SUCCESS, Status.BUFFER_OVERFLOW):
                failed = status
            distorted = self.distort(element, body) if body else None
            replies.append(self.reply(element, distorted, status))
        if self.apart:
            for reply in replies:
                self.send(reply, sealed=message.sealed)
        else:
            self.send(*replies, sealed=message.sealed)

    # -- CREATE

    def _create(self, request: CreateRequest) -> FileId:
        """Open or create."""
        nodes, path = self.tree.nodes, request.name
        parent = nodes.get(path.rpartition("\\")[0])
        if parent is None or not parent.directory:
            raise StatusError(Status.OBJECT_PATH_NOT_FOUND, "CREATE")
        node = nodes.get(path)
        if node is None:
            if request.disposition == Disposition.OPEN:
                raise StatusError(Status.OBJECT_NAME_NOT_FOUND, "CREATE")
            directory = bool(request.create_options & CreateOptions.DIRECTORY_FILE)
            node = self.tree.add(path, directory=directory, attributes=request.file_attributes)
            self._action = CreateAction.CREATED
        else:
            if request.disposition == Disposition.CREATE:
                raise StatusError(Status.OBJECT_NAME_COLLISION, "CREATE")
            if request.create_options & CreateOptions.DIRECTORY_FILE and not node.directory:
                raise StatusError(Status.NOT_A_DIRECTORY, "CREATE")
            if request.create_options & CreateOptions.NON_DIRECTORY_FILE and node.directory:
                raise StatusError(Status.FILE_IS_A_DIRECTORY, "CREATE")
            self._action = CreateAction.OPENED
            is_point = node.point is not None and node.attributes & FileAttribute.REPARSE_POINT
            if is_point and not request.create_options & CreateOptions.OPEN_REPARSE_POINT:
                assert node.point is not None
                symlink = ReparsePoint.parse(node.point).tag == ReparseTag.SYMLINK
                raise StatusError(Status.STOPPED_ON_SYMLINK if symlink else Status.IO_REPARSE_TAG_NOT_HANDLED, "CREATE")
        file_id = FileId(next(self._ids), 0xF00D)
        self.handles[file_id] = Handle(node, path, request.desired_access)
        return file_id

    def granted(self, request: CreateRequest) -> Sequence[CreateContext]:
        """What the answer to a CREATE grants by contexts."""
        del request
        return ()

    def _created(self, file_id: FileId, request: CreateRequest) -> bytes:
        """The answer to CREATE."""
        node = self.handles[file_id].node
        contexts = list(self.granted(request))
        if self.disk_ids and any(context.name == QUERY_ON_DISK_ID for context in request.contexts):
            contexts.append(CreateContext(QUERY_ON_DISK_ID, DiskId(node.number, 1).encode()))
        size = len(node.data)
        return CreateResponse(0, 0, self._action, *node.times, size, size, node.attributes, file_id, contexts).encode()

    # -- the rest

    def _do(self, element: Element, file_id: FileId | None) -> bytes:
        """Carry out a request on a handle."""
        if element.command == Command.ECHO:
            return FlushResponse().encode()
        assert file_id is not None
        handle = self.handles.get(file_id)
        if handle is None:
            raise StatusError(Status.FILE_CLOSED, "")
        return getattr(self, f"_do_{Command(element.command).name.lower()}")(element.request, handle, file_id)  # type: ignore[no-any-return]

    def _do_close(self, _: Any, handle: Handle, file_id: FileId) -> bytes:
        del self.handles[file_id]
        others = [other for other in self.handles.values() if self.lingering and other.path == handle.path]
        if handle.delete and not others:
            self.tree.nodes.pop(handle.path, None)
        for other in others:
            other.delete = other.delete or handle.delete
        return CloseResponse().encode()

    def _do_flush(self, _: Any, _handle: Handle, _id: FileId) -> bytes:
        return FlushResponse().encode()

    def _do_read(self, request: Any, handle: Handle, _: FileId) -> bytes:
        self._need(handle, AccessMask.READ_DATA)
        data = bytes(handle.node.data[request.offset : request.offset + request.length])
        if not data:
            raise StatusError(Status.END_OF_FILE, "READ")
        return ReadResponse(memoryview(data)).encode()

    def _do_write(self, request: Any, handle: Handle, _: FileId) -> bytes:
        self._need(handle, AccessMask.WRITE_DATA)
        data, end = handle.node.data, request.offset + len(request.data)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[request.offset : end] = request.data
        return WriteResponse(len(request.data)).encode()

    def _do_ioctl(self, request: Any, handle: Handle, file_id: FileId) -> bytes:
        if self.no_points:
            raise StatusError(Status.NOT_A_REPARSE_POINT, "IOCTL")
        if request.ctl_code == FSCTL_SET_REPARSE_POINT:
            self._need(handle, AccessMask.WRITE_DATA | AccessMask.WRITE_ATTRIBUTES)
            handle.node.point = request.input
            handle.node.attributes |= FileAttribute.REPARSE_POINT
            return IoctlResponse(request.ctl_code, file_id, b"").encode()
        assert request.ctl_code == FSCTL_GET_REPARSE_POINT
        if handle.node.point is None or not handle.node.attributes & FileAttribute.REPARSE_POINT:
            raise StatusError(Status.NOT_A_REPARSE_POINT, "IOCTL")
        return IoctlResponse(request.ctl_code, file_id, handle.node.point).encode()

    def _do_query_info(self, request: Any, handle: Handle, _: FileId) -> bytes:
        node = handle.node
        match request.information_class:
            case FileInternalInformation.information_class:
                data = FileInternalInformation(node.number).encode()
            case FileAllInformation.information_class:
                data = FileAllInformation(
                    FileBasicInformation(*node.times, node.attributes),
                    FileStandardInformation(len(node.data), len(node.data), node.links, handle.delete, node.directory),
                    node.number,
                    name=f"\\share\\{handle.path}",
                ).encode()
            case FileFsAttributeInformation.information_class if request.info_type == InfoType.FILESYSTEM:
                data = FileFsAttributeInformation(3, 255, "NTFS").encode()
            case FileAttributeTagInformation.information_class:
                tag = ReparsePoint.parse(node.point).tag if node.point is not None else 0
                data = FileAttributeTagInformation(node.attributes, tag).encode()
            case FileFsFullSizeInformation.information_class:
                data = FileFsFullSizeInformation(1000, 300, 400, 8, 512).encode()
            case other:
                raise AssertionError(f"class {other}")
        if len(data) > request.output_length:
            error = StatusError(Status.BUFFER_OVERFLOW, "QUERY_INFO")
            error.args = (*error.args, QueryInfoResponse(memoryview(data[: request.output_length])).encode())
            raise error
        return QueryInfoResponse(memoryview(data)).encode()

    def _do_set_info(self, request: Any, handle: Handle, _: FileId) -> bytes:
        node = handle.node
        match request.information_class:
            case FileBasicInformation.information_class:
                self._need(handle, AccessMask.WRITE_ATTRIBUTES)
                basic = FileBasicInformation.parse(request.data)
                told = (basic.creation_time, basic.last_access_time, basic.last_write_time, basic.change_time)
                node.times = [new or old for new, old in zip(told, node.times, strict=True)]
                node.attributes = basic.file_attributes or node.attributes
            case FileEndOfFileInformation.information_class:
                self._need(handle, AccessMask.WRITE_DATA)
                size = FileEndOfFileInformation.parse(request.data).end_of_file
                node.data[:] = bytes(node.data[:size]).ljust(size, b"\0")
            case FileDispositionInformation.information_class:
                self._need(handle, AccessMask.DELETE)
                if node.attributes & FileAttribute.READONLY:
                    raise StatusError(Status.CANNOT_DELETE, "SET_INFO")
                if node.directory and self.tree.children(handle.path):
                    raise StatusError(Status.DIRECTORY_NOT_EMPTY, "SET_INFO")
                handle.delete = FileDispositionInformation.parse(request.data).delete
            case FileRenameInformation.information_class:
                self._need(handle, AccessMask.DELETE)
                rename = FileRenameInformation.parse(request.data)
                if rename.name in self.tree.nodes and not rename.replace:
                    raise StatusError(Status.OBJECT_NAME_COLLISION, "SET_INFO")
                self.tree.nodes[rename.name] = self.tree.nodes.pop(handle.path)
                handle.path = rename.name
                node.attributes &= ~FileAttribute.REPARSE_POINT  # as Samba does
            case FileLinkInformation.information_class:
                link = FileLinkInformation.parse(request.data)
                if self.no_hard_links:
                    raise StatusError(Status.NOT_SUPPORTED, "SET_INFO")
                if link.name in self.tree.nodes:
                    raise StatusError(Status.OBJECT_NAME_COLLISION, "SET_INFO")
                self.tree.nodes[link.name] = node
                node.links += 1
            case other:
                raise AssertionError(f"class {other}")
        return SetInfoResponse().encode()

    def _do_query_directory(self, request: Any, handle: Handle, _: FileId) -> bytes:
        if not handle.node.directory:
            raise StatusError(Status.INVALID_PARAMETER, "QUERY_DIRECTORY")
        if handle.listing is None or request.flags & RESTART_SCANS:
            handle.listing = [".", "..", *self.tree.children(handle.path)]
        page: list[DirectoryEntry] = []
        room = request.output_length
        while handle.listing and len(page) != self.entry_limit:
            name = handle.listing[0]
            room -= 80 + len(utf16(name)) + 8
            if room < 0:
                break
            handle.listing.pop(0)
            path = handle.path if name in (".", "..") else "\\".join(filter(None, (handle.path, name)))
            node = self.tree.nodes[path]
            size = len(node.data)
            page.append(DirectoryEntry(name, node.number, node.attributes, size, size, *node.times, 0))
        if not page:
            raise StatusError(Status.NO_MORE_FILES, "QUERY_DIRECTORY")
        return QueryDirectoryResponse(memoryview(encode_page(page))).encode()

    @staticmethod
    def _need(handle: Handle, access: int) -> None:
        """Refuse what the handle was not opened for."""
        if not handle.access & access:
            raise StatusError(Status.ACCESS_DENIED, "")
