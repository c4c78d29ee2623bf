"""Verbs about names: what makes, removes and moves them."""

from __future__ import annotations

from smb3fs.errors import Status, StatusError
from smb3fs.handles.attributes import FileAttributes
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DELETE_ACCESS,
    QUERY_ALL,
    STAT_ACCESS,
    Chains,
    all_information,
    basic_information,
    set_info,
)
from smb3fs.wire.create import (
    AccessMask,
    CreateOptions,
    Disposition,
    FileAttribute,
)
from smb3fs.wire.infoclass import (
    FileDispositionInformation,
    FileRenameInformation,
)


class Names(Chains):
    """What changes which names there are."""

    async def make_directory(self, path: str) -> FileAttributes:
        """Create a directory and return its attributes; one round trip."""
        request = self._create(path, STAT_ACCESS, disposition=Disposition.CREATE, options=CreateOptions.DIRECTORY_FILE)
        request.file_attributes = FileAttribute.DIRECTORY
        _, answers = await self._chain([request, QUERY_ALL, CLOSE_RELATED])
        return all_information(answers[1])

    async def remove_file(self, path: str) -> None:
        """Delete a file, read-only or not (as POSIX has it); the name goes, never what a link behind it points to."""
        options = CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))
        try:
            await self._chain([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])
        except StatusError as error:
            if error.status != Status.CANNOT_DELETE:
                raise
            writable = set_info(basic_information(None, None, None, FileAttribute.NORMAL))
            request = self._create(path, DELETE_ACCESS | AccessMask.WRITE_ATTRIBUTES, options=options)
            await self._chain([request, writable, delete, CLOSE_RELATED])

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
