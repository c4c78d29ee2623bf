"""Verbs about names: what makes, removes and moves them."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Final

from smb3fs.channels.pool import Repeat
from smb3fs.errors import ConnectionLost, Status, StatusError, WireError
from smb3fs.handles.attributes import KIND_OF_TAG, Basics, FileAttributes
from smb3fs.handles.hidden_names import hidden_name
from smb3fs.share.chains import (
    CLOSE_RELATED,
    DELETE_ACCESS,
    POSIX_ALONE,
    STAT_ACCESS,
    basic_information,
    raise_first,
    set_info,
)
from smb3fs.share.opening import Opening, unknown
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


class Names(Opening):
    """What changes which names there are.

    A chain that is lost on the way may have been carried out. By the time that there is another session the server has
    ended the old one, and does nothing for it any more; so a look at the names tells, if it finds the file itself,
    known by the number `expect` and its time of birth `born` (None: not known, and the caller gets ConnectionLost).
    """

    async def make_directory(self, path: str, mode: int = 0o777) -> FileAttributes:
        """Create a directory and return its attributes; one round trip, or two on a share that keeps opens for good.

        `mode` is for servers that keep one.
        """
        if self.persists(await self._pool.ready()):
            return await self._make_provably(path, mode)
        request = self._create(
            path, STAT_ACCESS, disposition=Disposition.CREATE, options=CreateOptions.DIRECTORY_FILE, mode=mode
        )
        request.file_attributes = FileAttribute.DIRECTORY
        _, answers = await self._chain([request, self._query(), CLOSE_RELATED], repeat=Repeat.UNIQUE)
        return self._told(answers[1])

    async def _make_provably(self, path: str, mode: int) -> FileAttributes:
        """Create a directory under a name that nobody else knows, and rename it: so whose it is shows after any loss.

        A server knows no CREATE of a directory again whose process was killed over it, and grants no lease by which it
        could (decision 0050). Two round trips.
        """
        aside = hidden_name(path.rpartition(self._separator)[0], self._separator)
        rename = FileRenameInformation(False, self._full(path))
        with self.second_names.making(self._full(aside)) if self.second_names is not None else nullcontext():
            request = self._create(
                aside,
                DELETE_ACCESS,
                disposition=Disposition.OPEN_IF,
                options=CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT,
                mode=mode,
            )
            request.file_attributes = FileAttribute.DIRECTORY
            chain: list[Request] = [request, self._query()]
            session, answers = await self._send(chain, repeat=Repeat.SAFE)
            handle = self._opened(request, answers[0], aside, session)
            try:
                raise_first(chain, answers)
                made, query = self._told(answers[1]), self._query(handle)
            except BaseException:
                self.close(handle)
                raise
            try:
                answers = await self._and_close(handle, [set_info(rename, handle), query])
                return self._told(answers[1], query)
            except ConnectionLost:
                return await self._name_made(aside, path, made)
            except StatusError:
                await self._remove_made(aside)
                raise

    async def _name_made(self, aside: str, path: str, made: FileAttributes) -> FileAttributes:
        """Rename what was made aside to its name, unless that has been done; return its attributes."""

        async def named() -> bool:
            if _is(await self._found(path), made.file_id, made.created):
                return True
            if _is(await self._found(aside), made.file_id, made.created):
                return False
            raise unknown()

        if not await named():
            request = self._create(aside, DELETE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)
            rename = set_info(FileRenameInformation(False, self._full(path)))
            try:
                await self._once([request, rename, CLOSE_RELATED], named)
            except StatusError:
                await self._remove_made(aside)
                raise
        return await self._found(path) or made

    async def _remove_made(self, aside: str) -> None:
        """Remove what was made aside and has not got its name; what is not removed now is so later."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))
        with suppress(StatusError, ConnectionLost):
            await self._chain([self._create(aside, DELETE_ACCESS, options=options), delete, CLOSE_RELATED])

    async def remove_file(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        """Delete a file, read-only or not (as POSIX has it); the name goes, never what a link behind it points to."""
        await self._keep_number(path, expect)
        await self._remove_file(path, expect, born)
        self._leases.removed(path)

    async def _remove_file(self, path: str, expect: int | None, born: int | None) -> None:
        """Do it."""
        options = CreateOptions.NON_DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))

        async def removed() -> bool:
            return await self._is_gone(path, expect, born)

        try:
            await self._once([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED], removed)
        except StatusError as error:
            if error.status == Status.FILE_IS_A_DIRECTORY and await self._remove_directory_link(path):
                return
            if error.status != Status.CANNOT_DELETE:
                raise
            writable = set_info(basic_information(Basics(attributes=FileAttribute.NORMAL)))
            request = self._create(path, DELETE_ACCESS | AccessMask.WRITE_ATTRIBUTES, options=options)
            await self._once([request, writable, delete, CLOSE_RELATED], removed)

    async def keeps_others_out(self, path: str, *, expect: int | None = None) -> bool:
        """Whether a CREATE of a file may be half done, so that the server has others wait for a process that is gone.

        Not so for the key of the lease, under the name that it has. This waits for nothing.
        """
        lease = self._leases.find(path, expect)
        return lease is not None and lease.cut

    async def remove_later(self, path: str, *, expect: int | None = None) -> bool:
        """Have a file removed when the server lets us, by a name that nobody else knows; False if nobody sees to it.

        It does not wait for anything, so that whoever is cancelled can ask for it.
        """
        if self.second_names is None or expect is None:
            return False
        self.second_names.remove_later(self._full(path), expect, self._leases.find(path))
        return True

    async def make_lasting(self, path: str, *, expect: int | None = None) -> None:
        """Have all that is open of a file outlive its connection, as far as the server lets us.

        What is open for reading alone was not asked to be kept, since it can be opened anew by its name. That is to be
        called before the file loses it. One round trip for each open that is not kept.
        """
        if self.second_names is None or expect is None or not (self._leases.asks and self._opens.keeps):
            return
        if self._posix and POSIX_ALONE.search(self._full(path)):
            return
        for handle in self._opens:
            if handle.path != path or handle.durability or handle.lost or handle.closed:
                continue
            # Without a lease nothing is kept, and what carries locks might lose them.
            if handle.lease is not None and handle.ledger is None:
                await self._follow(handle)

    async def hold_aside(self, path: str, aside: str, *, expect: int | None = None) -> bool:
        """Have a file that is open here removed with its last close, by a name `aside` that it has or is about to get.

        False if that would be of no use, since what is open of it ends with its connection, or if nobody sees to it.
        Else `settle_aside` is to be called. Neither waits for anything.
        """
        if self.second_names is None or expect is None:
            return False
        full = self._full(aside)
        # What takes names away does so without the extensions.
        if self._posix and POSIX_ALONE.search(full):
            return False
        if not any(one.path == path and one.durability and not one.lost for one in self._opens):
            return False
        parent_key = self._leases.directory_key(aside.rpartition(self._separator)[0])
        return self.second_names.hold(full, expect, self._leases.find(path, expect), parent_key)

    async def settle_aside(self, aside: str, *, there: bool) -> None:
        """Take notice that a file has the name that is held for it, or may have it; or that it has not."""
        if self.second_names is not None:
            self.second_names.settle(self._full(aside), there=there)

    async def clear_aside(self, path: str) -> None:
        """Have what nobody sees in a directory, and is to be removed, removed now; two round trips each."""
        if self.second_names is None or not len(self.second_names):
            return
        session = await self._pool.ready()
        try:
            await self.second_names.take_away_in(session, self._full(path))
        except (ConnectionLost, WireError) as error:
            session.fail(error)

    async def _remove_directory_link(self, path: str) -> bool:
        """Delete one of Windows' links to directories, which are directories there; False for a real directory."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        request = self._create(path, DELETE_ACCESS, options=options)
        chain: list[Request] = [request, QUERY_TAG]
        session, answers = await self._send(chain, repeat=Repeat.SAFE)
        handle = self._opened(request, answers[0], path, session)
        try:
            raise_first(chain[1:], answers[1:])
            told = FileAttributeTagInformation.parse(QueryInfoResponse.parse(answers[1].pdu).data)
            if not told.file_attributes & FileAttribute.REPARSE_POINT or told.reparse_tag not in KIND_OF_TAG:
                return False
            await self._on(handle, [set_info(FileDispositionInformation(delete=True), handle)], Repeat.NEVER)
        finally:
            self.close(handle)
        return True

    async def remove_directory(self, path: str, *, expect: int | None = None, born: int | None = None) -> None:
        """Delete an empty directory; one round trip."""
        options = CreateOptions.DIRECTORY_FILE | CreateOptions.OPEN_REPARSE_POINT
        delete = set_info(FileDispositionInformation(delete=True))

        async def removed() -> bool:
            return await self._is_gone(path, expect, born)

        await self._once([self._create(path, DELETE_ACCESS, options=options), delete, CLOSE_RELATED], removed)

    async def rename(
        self, old: str, new: str, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        """Rename a file or directory; without `replace` an existing `new` is EEXIST. One round trip.

        Two where the server first waits for what others have to give back.
        """
        rename = set_info(FileRenameInformation(replace, self._full(new)))
        request = self._create(old, DELETE_ACCESS, options=CreateOptions.OPEN_REPARSE_POINT)

        async def renamed() -> bool:
            source, target = await self._found(old), await self._found(new)
            if _is(source, expect, born):
                return False  # of two names of one file, rename(2) keeps both: then it may be done again
            if _is(target, expect, born):
                return True
            raise unknown()

        if replace:
            await self._keep_number(new, None)
        if self.second_names is not None:
            await self.second_names.stand_still(self._full(old))
        still = nullcontext() if self.second_names is None else self.second_names.moving(self._full(old))
        with still, self._opens.moving(old, self._full(new)):
            try:
                await self._once([request, rename, CLOSE_RELATED], renamed)
            except StatusError as error:
                if error.status != Status.INTERNAL_ERROR:
                    raise
                # Before a server renames what others have open, it has them give back their handle leases. Samba 4.17
                # does not wait for that in the middle of a chain, and renames nothing; at the end of one it does wait.
                await self._once([request, rename], renamed)
            self._moved(old, new)
        await self._open_renamed(new)

    async def _keep_number(self, path: str, expect: int | None) -> None:
        """Keep the number of a file that loses a name from being given to another one, if that could not be opened.

        What the end of its process has left of a CREATE at Samba 4.25 stands in everybody's way who opens a file of
        that number and does not come with the key of this lease (decision 0044). As far as the server lets us: to be
        without is no worse than the file is now.
        """
        lease = self._leases.find(path)
        number = expect or (lease.file_id if lease is not None else 0)
        if number not in self._leases.cut_numbers or self.second_names is None:
            return
        self._leases.cut_numbers.discard(number)
        session = await self._pool.ready()
        try:
            await self.second_names.keep_number(session, self._full(path), self._full(""), number)
        except (ConnectionLost, WireError) as error:
            session.fail(error)

    async def _is_gone(self, path: str, expect: int | None, born: int | None) -> bool:
        """Whether a name is gone, by whomever; ConnectionLost if what has it may be another file."""
        found = await self._found(path)
        if found is not None and not _is(found, expect, born):
            raise unknown()
        return found is None


def _is(told: FileAttributes | None, expect: int | None, born: int | None) -> bool:
    """Whether a file is the expected one; a number alone may have been given to another file by now."""
    return told is not None and expect is not None and told.file_id == expect and born in (None, told.created)
