"""Verbs about names: what makes, removes and moves them."""

from __future__ import annotations

from typing import Final

from smb3fs.errors import Status, StatusError
from smb3fs.handles.attributes import KIND_OF_TAG, FileAttributes
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DELETE_ACCESS,
    STAT_ACCESS,
    Chains,
    basic_information,
    raise_first,
    set_info,
)
from smb3fs.wire.create import (
    RELATED_FILE_ID,
    AccessMask,
    CreateOptions,
    Disposition,
    FileAttribute,
)
from smb3fs.wire.header import Request
from smb3fs.wire.infoclass import (
    FileAttributeTagInformation,
    FileDispositionInformation,
    FileRenameInformation,
)
from smb3fs.wire.query import InfoType, QueryInfoRequest, QueryInfoResponse

QUERY_TAG: Final = QueryInfoRequest(RELATED_FILE_ID, InfoType.FILE, FileAttributeTagInformation.information_class, 8)


class Names(Chains):
    """What changes which names there are."""

    async def make_directory(self, path: str, mode: int = 0o777) -> FileAttributes:
        """Create a directory and return its attributes; one round trip. `mode` is for servers that keep one."""
        options = CreateOptions.DIRECTORY_FILE
        request = self._create(path, STAT_ACCESS, disposition=Disposition.CREATE, options=options, mode=mode)
        request.file_attributes = FileAttribute.DIRECTORY
        _, answers = await self._chain([request, self._query(), CLOSE_RELATED])
        return self._told(answers[1])

    async def remove_file(self, path: str) -> None:
        """Delete a file, read-only or not (as POSIX has it); the name goes, never what a link behind it points to."""
        options = CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))
        try:
            await self._chain([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])
        except StatusError as error:
            if error.status == Status.FILE_IS_A_DIRECTORY and await self._remove_directory_link(path):
                return
            if error.status != Status.CANNOT_DELETE:
                raise
            writable = set_info(basic_information(None, None, None, FileAttribute.NORMAL))
            request = self._create(path, DELETE_ACCESS | AccessMask.WRITE_ATTRIBUTES, options=options)
            await self._chain([request, writable, delete, CLOSE_RELATED])

    async def _remove_directory_link(self, path: str) -> bool:
        """Delete one of Windows' links to directories, which are directories there; False for a real directory."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        request = self._create(path, DELETE_ACCESS, options=options)
        chain: list[Request] = [request, QUERY_TAG]
        session, answers = await self._pool.call(chain)
        handle = self._opened(request, answers[0], path, session)
        try:
            raise_first(chain[1:], answers[1:])
            told = FileAttributeTagInformation.parse(QueryInfoResponse.parse(answers[1].pdu).data)
            if not told.file_attributes & FileAttribute.REPARSE_POINT or told.reparse_tag not in KIND_OF_TAG:
                return False
            await self._on(handle, [set_info(FileDispositionInformation(delete=True), handle)])
        finally:
            self.close(handle)
        return True

    async def remove_directory(self, path: str) -> None:
        """Delete an empty directory; one round trip."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))
        await self._chain([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])

    async def rename(self, old: str, new: str, *, replace: bool) -> None:
        """Rename a file or directory; without `replace` an existing `new` is EEXIST. One round trip."""
        rename = set_info(FileRenameInformation(replace, self._full(new)))
        request = self._create(old, DELETE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
        await self._chain([request, rename, CLOSE_RELATED])
        self._moved(old, new)
