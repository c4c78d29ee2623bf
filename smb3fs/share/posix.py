"""The SMB3 POSIX extensions on a share: whether they are used, and the verbs that exist through them alone.

Every CREATE of a mount that uses them carries their context, or the server would take its path for one of Windows'.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.channels.session import Session
from smb3fs.errors import Smb3fsError, Status, StatusError
from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.opens import Open
from smb3fs.share.chains import CLOSE_RELATED, QUERY_INTERNAL, STAT_ACCESS, internal_id
from smb3fs.share.files import Files, VolumeSpace
from smb3fs.wire.codec import Buffer
from smb3fs.wire.create import RELATED_FILE_ID, AccessMask, CreateOptions, CreateResponse
from smb3fs.wire.header import Request
from smb3fs.wire.posix import PERMISSIONS, POSIX_GUID, FileFsPosixInformation
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse, SetInfoRequest
from smb3fs.wire.security import Ace, AceType, Acl, Control, SecurityDescriptor, SecurityInformation
from smb3fs.wire.sid import Sid, of_mode

QUERY_SPACE: Final = QueryInfoRequest(
    RELATED_FILE_ID, InfoType.FILESYSTEM, FileFsPosixInformation.information_class, 64
)


class Posix(Files):
    """What the extensions add."""

    @property
    def posix(self) -> bool:
        """Whether the extensions are in use."""
        return self._posix

    async def use_posix(self, prefix: str) -> bool:
        """Use the extensions from now on if the server has them on this share; one round trip where it offers them.

        `prefix` is the mount's root as Linux writes it: below the share, with slashes.
        """
        session = await self._pool.ready()
        # What moves the names of a share behind a DFS link knows Windows' paths alone.
        if not session.agreed.posix or session.placement is not None:
            return False
        before = self._prefix, self._separator
        self._posix, self._prefix, self._separator = True, prefix, "/"
        if not await self._answers_in_posix():
            self._posix, (self._prefix, self._separator) = False, before
        return self._posix

    async def _answers_in_posix(self) -> bool:
        """Whether the server has taken the mount's root for what the extensions say that it is."""
        chain: list[Request] = [self._create("", STAT_ACCESS), self._query(), QUERY_INTERNAL, CLOSE_RELATED]
        session, answers = await self._pool.call(chain, repeat=Repeat.SAFE)
        self._close_leftover(answers, session)
        if any(answer.status != Status.SUCCESS for answer in answers):
            return False
        contexts = CreateResponse.parse(answers[0].pdu).contexts
        # A share may have them switched off, and an open knows the file's number by other means than a listing.
        return any(context.name == POSIX_GUID for context in contexts) and self._told(
            answers[1]
        ).file_id == internal_id(answers[2])

    def suits(self, session: Session) -> bool:
        """Whether a session speaks as this mount does, which is settled when it is mounted."""
        return not self._posix or (session.agreed.posix and session.placement is None)

    async def space(self) -> VolumeSpace:
        """Return the size of the share and what is free of it."""
        if not self._posix:
            return await super().space()
        chain: list[Request] = [self._create("", STAT_ACCESS), QUERY_SPACE, CLOSE_RELATED]
        _, answers = await self._chain(chain, repeat=Repeat.SAFE)
        told = FileFsPosixInformation.parse(QueryInfoResponse.parse(answers[1].pdu).data)
        return VolumeSpace(
            told.block_size,
            told.total_blocks,
            told.blocks_available,
            told.user_blocks_available,
            files=told.total_file_nodes,
            files_free=told.free_file_nodes,
        )

    async def attributes(self, handle: Open) -> FileAttributes:
        """Return the attributes of an open file; one round trip more where its open is not one of the extensions."""
        return await self._owned(handle, await super().attributes(handle))

    async def _owned(self, handle: Open, told: FileAttributes) -> FileAttributes:
        """Add what an open cannot tell that is none of the extensions', though they are in use, from its name.

        Such are those that carry locks, and those that Samba has given back after a loss.
        """
        if not self._posix or told.owned is not None:
            return told
        found = await self._found(handle.path)
        owned = found.owned if found is not None and found.file_id == told.file_id else handle.seen.owned
        return told if owned is None else told.with_owned(owned)

    async def truncate(self, handle: Open, size: int) -> FileAttributes:
        """Set the size of an open file and return its attributes.

        Samba up to 4.25 sets nothing of a file that has no name any more. A byte of zero makes it longer all the same;
        to make it shorter there is no way.
        """
        try:
            return await self._owned(handle, await super().truncate(handle, size))
        except StatusError as error:
            if not self._posix or error.status != Status.OBJECT_NAME_NOT_FOUND:
                raise
        told = await self.attributes(handle)
        if size > told.size:
            await self.write(handle, size - 1, b"\0")
            told = await self.attributes(handle)
        if size != told.size:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return told

    async def set_basic_open(self, handle: Open, wish: Basics) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits of an open file; EOPNOTSUPP where Samba does not, see `truncate`."""
        try:
            return await self._owned(handle, await super().set_basic_open(handle, wish))
        except StatusError as error:
            if not self._posix or error.status != Status.OBJECT_NAME_NOT_FOUND:
                raise
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error

    async def write_and_set(
        self, handle: Open, offset: int, data: Buffer, wish: Basics, *, check: Callable[[], None] | None = None
    ) -> FileAttributes | None:
        """Write, then set times and bits; None if they are not set, or not all that they are with is known."""
        told = await super().write_and_set(handle, offset, data, wish, check=check)
        if told is None:
            return None
        try:
            return await self._owned(handle, told)
        except (OSError, Smb3fsError):  # what was written has arrived whatever else fails
            return None

    async def set_owned(
        self, path: str, *, expect: int | None, mode: int | None, owner: Sid | None, group: Sid | None
    ) -> FileAttributes:
        """Set permission bits, owner and group (None: leave) of the file with the id `expect`; two round trips.

        EPERM if the server does not let us, or keeps less of the mode than it was told; it has the old one then.
        """
        access = int(AccessMask.READ_ATTRIBUTES | AccessMask.SYNCHRONIZE)
        access |= AccessMask.WRITE_DAC if mode is not None else 0
        access |= AccessMask.WRITE_OWNER if owner is not None or group is not None else 0
        try:
            handle = await self._expected(path, access, CreateOptions.OPEN_REPARSE_POINT, expect)
            try:
                told = await self._set_owned(handle, mode, owner, group)
            finally:
                self.close(handle)
        except StatusError as error:
            if error.status == Status.ACCESS_DENIED:  # POSIX has the other errno for those who own nothing here
                raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from error
            raise
        return await self.recognised(path, told)

    async def _set_owned(self, handle: Open, mode: int | None, owner: Sid | None, group: Sid | None) -> FileAttributes:
        """Do it through a handle."""
        had = handle.attributes_at_open.owned
        before = None if had is None else had.mode & PERMISSIONS
        chain: list[Request] = []
        if owner is not None or group is not None:
            chain.append(_set_owner(handle, owner, group))
        if mode is not None and (mode != before or chain):
            chain.append(_set_mode(handle, mode))
        query = self._query(handle)
        told = self._told((await self._on(handle, [*chain, query], Repeat.REPLAY))[-1], query)
        assert told.owned is not None  # noqa: S101 (the extensions are in use)
        # Samba sets no more than 0777 of it; who asks for more must know.
        if mode is not None and mode & ~told.owned.mode & PERMISSIONS:
            if before is not None:
                await self._on(handle, [_set_mode(handle, before)], Repeat.REPLAY)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return told


def _set_mode(handle: Open, mode: int) -> SetInfoRequest:
    """Build the request for permission bits: an access list of one entry, whose trustee they are."""
    dacl = Acl([Ace.of(AceType.ACCESS_ALLOWED, of_mode(mode & PERMISSIONS), 0)])
    descriptor = SecurityDescriptor(Control.SELF_RELATIVE | Control.DACL_PRESENT, dacl=dacl)
    return SetInfoRequest(handle.file_id, InfoType.SECURITY, 0, descriptor.encode(), SecurityInformation.DACL)


def _set_owner(handle: Open, owner: Sid | None, group: Sid | None) -> SetInfoRequest:
    """Build the request for owner and group."""
    parts = SecurityInformation(0)
    if owner is not None:
        parts |= SecurityInformation.OWNER
    if group is not None:
        parts |= SecurityInformation.GROUP
    descriptor = SecurityDescriptor(Control.SELF_RELATIVE, owner, group)
    return SetInfoRequest(handle.file_id, InfoType.SECURITY, 0, descriptor.encode(), int(parts))
