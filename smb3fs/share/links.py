"""Verbs about what is neither file nor directory: symbolic links, pipes, sockets, devices; and second names of files.

Links and special files are reparse points, in one of several notations, or files in Minshall and French's. A CREATE
stops at a reparse point unless it asks for the point itself. It is asked for without that first, since some servers
follow links by themselves, and it is the same file then that their listings show.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final, TypeVar

from smb3fs.channels.pool import Repeat
from smb3fs.connection import Answer
from smb3fs.errors import Status, StatusError, WireError
from smb3fs.handles.attributes import KIND_OF_TAG, REPARSE_POINT, FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DELETE_ACCESS,
    QUERY_INTERNAL,
    READ_ACCESS,
    STAT_ACCESS,
    check_expected,
    raise_first,
    set_info,
)
from smb3fs.share.opening import Opening, unknown
from smb3fs.wire import mfsymlink
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateContext,
    CreateOptions,
    CreateResponse,
    Disposition,
)
from smb3fs.wire.create_contexts import QUERY_ON_DISK_ID, DiskId
from smb3fs.wire.ea import FileFullEaInformation
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import FileDispositionInformation, FileLinkInformation, FileRenameInformation
from smb3fs.wire.io import ReadRequest, ReadResponse, WriteRequest
from smb3fs.wire.ioctl import IoctlRequest, IoctlResponse
from smb3fs.wire.mfsymlink import MfSymlink
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse
from smb3fs.wire.reparse import (
    FSCTL_GET_REPARSE_POINT,
    FSCTL_SET_REPARSE_POINT,
    MAXIMUM_SIZE,
    LxSymlink,
    NfsSpecialFile,
    NfsType,
    ReparsePoint,
    ReparseTag,
    SymbolicLink,
)

T = TypeVar("T")

# Where a CREATE stops that did not ask for a reparse point.
AT_REPARSE_POINT: Final = frozenset({Status.STOPPED_ON_SYMLINK, Status.IO_REPARSE_TAG_NOT_HANDLED})
# What a server says that does not do what was asked for; Samba before 4.18 has the first for reparse points.
NOT_HERE: Final = frozenset(
    {
        Status.NOT_A_REPARSE_POINT,
        Status.NOT_SUPPORTED,
        Status.NOT_IMPLEMENTED,
        Status.INVALID_DEVICE_REQUEST,
        Status.INVALID_INFO_CLASS,
    }
)
MAKE_ACCESS: Final = int(
    AccessMask.WRITE_DATA
    | AccessMask.READ_ATTRIBUTES
    | AccessMask.WRITE_ATTRIBUTES
    | AccessMask.DELETE
    | AccessMask.SYNCHRONIZE
)
GET_POINT: Final = IoctlRequest(FSCTL_GET_REPARSE_POINT, RELATED_FILE_ID, b"", MAXIMUM_SIZE)
NFS_TYPES: Final[dict[int, int]] = {
    stat.S_IFLNK: NfsType.LNK,
    stat.S_IFCHR: NfsType.CHR,
    stat.S_IFBLK: NfsType.BLK,
    stat.S_IFIFO: NfsType.FIFO,
    stat.S_IFSOCK: NfsType.SOCK,
}
KIND_OF_NFS_TYPE: Final[dict[int, int]] = {type_: kind for kind, type_ in NFS_TYPES.items()}
DEVICES: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK})
# Where the Windows Subsystem for Linux keeps the number of a device, in two halves.
LX_DEVICE: Final = b"$LXDEV"
WSL_DEVICE: Final = Struct("<II")
QUERY_ATTRIBUTES: Final = QueryInfoRequest(
    RELATED_FILE_ID, InfoType.FILE, FileFullEaInformation.information_class, 64 * 1024
)
# The halves of a device number as FUSE carries it.
MAJOR_MAX: Final = 2**12 - 1
MINOR_MAX: Final = 2**20 - 1


class Links(Opening):
    """What is neither file nor directory, and what has several names."""

    async def at_point(self, call: Callable[[int], Awaitable[T]]) -> T:
        """Do something with the options of a CREATE that gets at a file, or at a reparse point where there is one."""
        if self._posix:  # the server follows no links
            return await call(CreateOptions.OPEN_REPARSE_POINT)
        try:
            return await call(0)
        except StatusError as error:
            if error.status not in AT_REPARSE_POINT:
                raise
        return await call(CreateOptions.OPEN_REPARSE_POINT)

    async def _expected(self, path: str, access: int, options: int, expect: int | None) -> Open:
        """Open what is at a path if it has the id `expect`; one round trip."""
        request = self._create(path, access, options=options)
        chain: list[Request] = [request, QUERY_INTERNAL]
        session, answers = await self._send(chain, repeat=Repeat.SAFE)
        handle = self._opened(request, answers[0], path, session)
        try:
            raise_first(chain[1:], answers[1:])
            self._check_id(expect, answers[1])
        except BaseException:
            self.close(handle)
            raise
        return handle

    # -- looking

    async def lookup(self, path: str) -> FileAttributes:
        """Return a file's attributes; one round trip, and another one for a link or special file."""
        try:
            _, answers = await self._chain(self._look(path), repeat=Repeat.SAFE)
        except StatusError as error:
            if error.status not in AT_REPARSE_POINT or self._posix:
                raise
            return await self._look_at_point(path)
        return await self.recognised(path, self._told(answers[1]), resolved=not self._posix)

    def _look(self, path: str) -> list[Request]:
        """Build the chain that asks for the attributes of what is at a path."""
        options = CreateOptions.OPEN_REPARSE_POINT if self._posix else 0
        return [self._create(path, STAT_ACCESS, options=options), self._query(), CLOSE_RELATED]

    def attributes_ahead(
        self,
        path: str,
        told: Callable[[FileAttributes | None], None],
        handle: Open | None = None,
        *,
        hurry: bool = True,
    ) -> bool:
        """Ask for the attributes of a directory that nobody waits for yet, by its handle if there is one.

        False says that this is not the time for it. Otherwise `told` is called once, with the attributes, or with None
        if there are none to be had: who needs them then finds out why.
        """
        session = self._pool.session
        if session is None:
            return False
        query = self._query(handle)
        opens = handle is None and not self._posix and self._numbers_at_open
        chain: list[Request] = [query]
        if opens:
            chain = [self._create(path, STAT_ACCESS, contexts=(CreateContext(QUERY_ON_DISK_ID),)), CLOSE_RELATED]
        elif handle is None:
            chain = self._look(path)

        def came(answers: Sequence[Answer | None] | None) -> None:
            attributes, full = None, [answer for answer in answers or () if answer is not None]
            # What makes no sense is reported by whoever asks for it in earnest.
            with suppress(StatusError, WireError):
                if len(full) == len(chain):
                    raise_first(chain, full)
                    if opens:
                        attributes = self._told_at_open(full[0])
                    else:
                        attributes = self._told(full[1 if handle is None else 0], query)
            told(attributes)

        return self._pool.ask_ahead(chain, session if handle is None else handle, came, hurry=hurry)

    def _told_at_open(self, answer: Answer) -> FileAttributes | None:
        """Read the attributes of a directory from the answer to its CREATE, which has all but its links.

        None if it has no number: then the next one is asked for it.
        """
        told = CreateResponse.parse(answer.pdu)
        number = next((DiskId.parse(one.data).file_id for one in told.contexts if one.name == QUERY_ON_DISK_ID), 0)
        self._numbers_at_open = bool(number)
        return FileAttributes.from_create(told, number, links=1) if number else None

    async def recognised(self, path: str, told: FileAttributes, *, resolved: bool = False) -> FileAttributes:
        """Return the attributes that a handle has told, with those of a link or special file where it is one.

        What is `resolved` is no reparse point of the kinds that concern us: the server has opened what is behind it.
        """
        if told.owned is not None:
            points = stat.S_ISLNK(told.kind) or stat.S_ISCHR(told.kind) or stat.S_ISBLK(told.kind)
        else:
            points = bool(told.attributes & REPARSE_POINT) and not resolved
        if points:
            return await self._look_at_point(path)
        if self._mfsymlinks and told.size == mfsymlink.SIZE and stat.S_ISREG(told.kind):
            return await self._look_into(path, told)
        return told

    async def _look_at_point(self, path: str) -> FileAttributes:
        """Return the attributes of a reparse point; one round trip."""
        request = self._create(path, STAT_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        chain: list[Request] = [request, self._query(), GET_POINT, CLOSE_RELATED]
        session, answers = await self._pool.call(chain, repeat=Repeat.SAFE)
        try:
            raise_first((chain[0], chain[1], chain[3]), (answers[0], answers[1], answers[3]))
        except StatusError:
            self._close_leftover(answers, session)
            raise
        told = self._told(answers[1])
        if answers[2].status != Status.SUCCESS:
            return told
        told = _described(told, answers[2])
        if told.special in DEVICES and not told.rdev:
            return told._replace(rdev=await self._device(path))
        return told

    async def _device(self, path: str) -> int:
        """Return the number of a device of WSL, which is in an extended attribute; 0 if it is not; one round trip."""
        access = int(AccessMask.READ_EA | AccessMask.READ_ATTRIBUTES)
        request = self._create(path, access, options=CreateOptions.OPEN_REPARSE_POINT)
        chain: list[Request] = [request, QUERY_ATTRIBUTES, CLOSE_RELATED]
        try:
            _, answers = await self._chain(chain, repeat=Repeat.SAFE)
            data = FileFullEaInformation.parse(QueryInfoResponse.parse(answers[1].pdu).data)
        except (StatusError, WireError):
            return 0
        value = next((attribute.value for attribute in data.attributes if attribute.is_called(LX_DEVICE)), b"")
        major, minor = WSL_DEVICE.unpack(value) if len(value) == WSL_DEVICE.size else (0, 0)
        return _device_number(major, minor)

    async def _look_into(self, path: str, told: FileAttributes) -> FileAttributes:
        """Return the attributes of what is a file or, by its content, a link; one round trip."""
        chain: list[Request] = [
            self._create(path, READ_ACCESS, options=CreateOptions.NON_DIRECTORY_FILE),
            self._query(),
            ReadRequest(RELATED_FILE_ID, 0, mfsymlink.SIZE),
            CLOSE_RELATED,
        ]
        try:
            _, answers = await self._chain(chain, repeat=Repeat.SAFE)
        except StatusError:
            return told  # whoever may not read it need not know
        told = self._told(answers[1])
        try:
            target = MfSymlink.parse(ReadResponse.parse(answers[2].pdu).data).target
        except WireError:
            return told
        return told._replace(special=stat.S_IFLNK, target=target) if told.size == mfsymlink.SIZE else told

    async def read_link(self, path: str, expect: int | None) -> SymbolicLink | bytes:
        """Return where the link with the id `expect` leads; EINVAL for what is none."""
        if self._mfsymlinks:
            read = ReadRequest(RELATED_FILE_ID, 0, mfsymlink.SIZE + 1)
            chain: list[Request] = [self._create(path, READ_ACCESS), QUERY_INTERNAL, read, CLOSE_RELATED]
            try:
                _, answers = await self._chain(chain, repeat=Repeat.SAFE)
            except StatusError as error:
                if error.status not in AT_REPARSE_POINT:
                    raise
            else:
                self._check_id(expect, answers[1])
                try:
                    return MfSymlink.parse(ReadResponse.parse(answers[2].pdu).data).target
                except WireError:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        request = self._create(path, STAT_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        points: list[Request] = [request, QUERY_INTERNAL, GET_POINT, CLOSE_RELATED]
        _, answers = await self._chain(points, repeat=Repeat.SAFE)
        self._check_id(expect, answers[1])
        target = _explained(ReparsePoint.parse(IoctlResponse.parse(answers[2].pdu).output))[1]
        if target is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return target

    # -- making

    async def make_link(self, path: str, target: SymbolicLink) -> FileAttributes:
        """Make a symbolic link as a reparse point; EPERM where the server has none."""
        told = await self._make_point(path, ReparsePoint(target.tag, target.encode()), 0o777)
        return told._replace(special=stat.S_IFLNK, target=target)

    async def make_special(self, path: str, mode: int, rdev: int) -> FileAttributes:
        """Make a pipe, socket or device as a reparse point; EPERM where the server has none."""
        data = NfsSpecialFile(NFS_TYPES[stat.S_IFMT(mode)], "", os.major(rdev), os.minor(rdev))
        told = await self._make_point(path, ReparsePoint(data.tag, data.encode()), stat.S_IMODE(mode))
        return told._replace(special=stat.S_IFMT(mode), rdev=rdev)

    async def _make_point(self, path: str, point: ReparsePoint, mode: int) -> FileAttributes:
        """Make a reparse point; one round trip. What a server made and cannot turn into one is removed."""
        if self._no_points:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        options = CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        set_point = IoctlRequest(FSCTL_SET_REPARSE_POINT, RELATED_FILE_ID, point.encode(), 0)
        request = self._create(path, MAKE_ACCESS, disposition=Disposition.CREATE, options=options, mode=mode)
        chain: list[Request] = [set_point, self._query()]
        handle, answers = await self._make(request, path, chain)
        try:
            raise_first(chain, answers)
        except StatusError as error:
            await self._take_back(handle)
            if error.status in NOT_HERE:
                self._no_points = True
                raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from error
            raise
        self.close(handle)
        return self._told(answers[1])

    async def make_link_file(self, path: str, target: bytes) -> FileAttributes:
        """Make a symbolic link in Minshall and French's notation; one round trip."""
        options = CreateOptions.NON_DIRECTORY_FILE
        write = WriteRequest(RELATED_FILE_ID, 0, memoryview(MfSymlink(target).encode()))
        request = self._create(path, MAKE_ACCESS, disposition=Disposition.CREATE, options=options, mode=0o666)
        chain: list[Request] = [write, self._query()]
        handle, answers = await self._make(request, path, chain)
        try:
            raise_first(chain, answers)
        except StatusError:
            await self._take_back(handle)
            raise
        self.close(handle)
        return self._told(answers[1])._replace(special=stat.S_IFLNK, target=target)

    async def _take_back(self, handle: Open) -> None:
        """Remove a file that was made in vain, through the handle that made it."""
        try:
            await self._on(handle, [set_info(FileDispositionInformation(delete=True), handle)], Repeat.REPLAY)
        finally:
            self.close(handle)

    async def rename_point(
        self, old: str, new: str, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        """Rename what is probably a reparse point, and see that it still is one; two round trips.

        Samba up to 4.25 forgets at a rename that the file is a reparse point, though it keeps the point itself.
        """
        rename = FileRenameInformation(replace, self._full(new))
        request = self._create(old, MAKE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        session, answers = await self._send([request, GET_POINT])
        if answers[0].status != Status.SUCCESS:
            # Whoever may not write to it may rename it all the same, and a link on the server's own disk stays one.
            request = self._create(old, DELETE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
            await self._chain([request, set_info(rename), CLOSE_RELATED])
            self._moved(old, new)
            return
        handle = self._opened(request, answers[0], old, session)
        try:
            chain: list[Request] = [set_info(rename, handle)]
            if answers[1].status == Status.SUCCESS:
                point = IoctlResponse.parse(answers[1].pdu).output
                chain.append(IoctlRequest(FSCTL_SET_REPARSE_POINT, handle.file_id, point, 0))
            _, answers = await self._pool.call(chain, handle=handle)
            raise_first(chain[:1], answers[:1])
            self._moved(old, new)
        finally:
            self.close(handle)

    async def link(self, path: str, new: str, expect: int | None) -> FileAttributes:
        """Give the file with the id `expect` a second name and return its attributes; one round trip."""
        link = set_info(FileLinkInformation(replace=False, name=self._full(new)))

        found: list[FileAttributes] = []

        async def linked() -> bool:
            """Whether the name is there, and the file's: what else has it was there before, or nobody knows."""
            there = await self._found(new)
            if there is None:
                return False
            if expect is None or there.file_id != expect:
                raise unknown()
            found.append(there)
            return True

        async def link_it(options: int) -> FileAttributes:
            request = self._create(path, STAT_ACCESS, options=options)
            answers = await self._once([request, link, self._query(), CLOSE_RELATED], linked)
            return self._told(answers[2]) if answers is not None else found[-1]

        try:
            told = await self.at_point(link_it)
        except StatusError as error:
            if error.command == "SET_INFO" and error.status in NOT_HERE:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from error
            raise
        try:
            check_expected(expect, told.file_id)
        except OSError:
            # Another file has come to stand there: it is not the one that should get a name.
            delete = set_info(FileDispositionInformation(delete=True))
            options = CreateOptions.OPEN_REPARSE_POINT
            access = AccessMask.DELETE | AccessMask.READ_ATTRIBUTES
            await self._chain([self._create(new, access, options=options), delete, CLOSE_RELATED])
            raise
        return await self.recognised(new, told)


def _device_number(major: int, minor: int) -> int:
    """Return a device number, 0 for one that Linux does not have."""
    return os.makedev(major, minor) if major <= MAJOR_MAX and minor <= MINOR_MAX else 0


def _described(told: FileAttributes, answer: Answer) -> FileAttributes:
    """Add to the attributes of a reparse point what the point says; what makes no sense adds no more than a type."""
    try:
        point = ReparsePoint.parse(IoctlResponse.parse(answer.pdu).output)
    except WireError:
        return told
    try:
        kind, target, rdev = _explained(point)
    except WireError:
        return told._replace(special=KIND_OF_TAG.get(point.tag, 0))
    return told._replace(special=kind, target=target, rdev=rdev) if kind else told


def _explained(point: ReparsePoint) -> tuple[int, SymbolicLink | bytes | None, int]:
    """Return the type bits of a reparse point (0 for those of files and directories), its target, its device."""
    match point.tag:
        case ReparseTag.SYMLINK:
            return stat.S_IFLNK, SymbolicLink.parse(point.data), 0
        case ReparseTag.LX_SYMLINK:
            return stat.S_IFLNK, LxSymlink.parse(point.data).target, 0
        case ReparseTag.NFS:
            special = NfsSpecialFile.parse(point.data)
            kind = KIND_OF_NFS_TYPE.get(special.type, 0)
            target = special.target.encode("utf-8", "surrogatepass") if kind == stat.S_IFLNK else None
            return kind, target, _device_number(special.major, special.minor)
        case _:
            return KIND_OF_TAG.get(point.tag, 0), None, 0
