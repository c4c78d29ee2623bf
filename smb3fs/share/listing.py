"""The listing of one directory, page by page, from one handle ([MS-SMB2] 3.2.4.17).

A server makes a page from thousands of files, and a client makes thousands of inodes of it: they work at the same time
if the pages are not large and are asked for ahead. Up to a mebibyte is asked for ahead of the reader, by a window
that begins with two pages and doubles with each page that is taken, so that little is asked for in vain.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from smb3fs.channels.pool import Pool
from smb3fs.connection import Answer, Exchange
from smb3fs.errors import Status, StatusError
from smb3fs.handles.lease import RH
from smb3fs.handles.opens import Open
from smb3fs.wire.create import RELATED_FILE_ID, FileReference
from smb3fs.wire.header import Command, Request
from smb3fs.wire.infoclass import InformationClass
from smb3fs.wire.posix import FilePosixInformation
from smb3fs.wire.query import RESTART_SCANS, QueryDirectoryRequest, QueryDirectoryResponse

# What one page may hold: some 500 entries, of which smbd makes in 15 ms what we read in 8.
PAGE_SIZE: Final = 64 * 1024
# Listings and queries for one file have the same number.
POSIX_CLASS: Final = FilePosixInformation.information_class
# How many pages may be asked for ahead: a mebibyte for each round trip, however long that takes.
FIRST_AHEAD: Final = 2
MOST_AHEAD: Final = 16
# The end of a listing; a server may also say that nothing matched at all.
AT_END: Final = frozenset({Status.NO_MORE_FILES, Status.NO_SUCH_FILE})


class Listing:
    """The pages of a directory that have arrived; `complete` when the server had no more.

    A page is a chain of FileIdFullDirectoryInformation ([MS-FSCC] 2.4.18), as wire/directory.py reads it, or of the
    POSIX extensions' entries, as wire/posix.py does.
    """

    def __init__(self, pool: Pool, page_size: int, *, posix: bool = False) -> None:
        self._page_size = page_size
        self.posix = posix
        self.pages: list[memoryview] = []
        self.complete = False
        self.begun = False
        self.on_close: Callable[[], None] | None = None
        self._torn = False
        self._pool = pool
        self._handle: Open | None = None
        # What the lease on the directory had been through when the listing began.
        self._losses = 0
        self._ahead: deque[Exchange] = deque()
        self._window = FIRST_AHEAD

    def first_requests(self) -> list[Request]:
        """Return what follows the CREATE in its compound: the first page, and the one after it.

        For a directory of up to one page the second says that this was all, which saves the round trip to ask.
        """
        return [self._query(RELATED_FILE_ID, RESTART_SCANS), self._query(RELATED_FILE_ID)]

    def begin(self, handle: Open, answers: Sequence[Answer]) -> None:
        """Take in the answers to the first requests, which have gone to `handle`."""
        self._handle = handle
        self._losses = handle.lease.losses if handle.lease is not None else 0
        for answer in answers:
            self._take(answer)
        self._ask_ahead()
        self.begun = True

    async def next_page(self) -> bool:
        """Fetch another page; False when there is none."""
        handle = self._handle
        if self.complete or handle is None:
            return False
        if self._torn:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        # The server goes on whether its answer is taken or not: a page that did not come is missing for good.
        self._torn = True
        self._ask_ahead()
        answers = await self._pool.collect(self._ahead.popleft(), handle)
        self._window = min(self._window * 2, MOST_AHEAD)
        ended = answers[0].status in AT_END
        while ended and self._ahead:
            # A server that works on several requests at once may have given the last page to a later one than the end.
            answers += await self._pool.collect(self._ahead.popleft(), handle)
        pages = len(self.pages)
        for answer in sorted(answers, key=lambda answer: answer.status in AT_END):
            self._take(answer)
        self._torn = False
        if ended and not self.leased:
            self.close()
        self._ask_ahead()
        return len(self.pages) > pages

    def _ask_ahead(self) -> None:
        """Ask for as many pages ahead as the window allows."""
        handle = self._handle
        while handle is not None and not self.complete and len(self._ahead) < self._window:
            self._ahead.append(self._pool.begin([self._query(handle.file_id)], handle))

    def _take(self, answer: Answer) -> None:
        """Add one answer's page, unless the listing has ended."""
        if self.complete:
            return
        if answer.status in AT_END:
            self.complete = True
        elif answer.status != Status.SUCCESS:
            raise StatusError(answer.status, Command.QUERY_DIRECTORY.name)
        else:
            self.pages.append(memoryview(QueryDirectoryResponse.parse(answer.pdu).data))

    @property
    def leased(self) -> bool:
        """Whether what has come was read under a lease that has held ever since."""
        lease = self._handle.lease if self._handle is not None else None
        return lease is not None and lease.state & RH == RH and lease.losses == self._losses

    def take(self) -> Open | None:
        """Give the directory's handle away, with its lease, if all entries have come under that; else None."""
        if not self.complete or not self.leased or self.on_close is None:
            return None
        self.on_close = None
        return self._handle

    def close(self) -> None:
        """Close the directory's handle if it is still open; the pages stay."""
        if self.on_close is not None:
            self.on_close()
            self.on_close = None

    def _query(self, file_id: FileReference, flags: int = 0) -> QueryDirectoryRequest:
        """Build the request for one page."""
        information_class = POSIX_CLASS if self.posix else InformationClass.FILE_ID_FULL_DIRECTORY
        return QueryDirectoryRequest(file_id, information_class, self._page_size, flags=flags)
