"""The open table: every handle that this mount has on the server ([MS-SMB2] 3.2.1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smb3fs.handles.attributes import FileAttributes
from smb3fs.wire.create import FileId


@dataclass(slots=True, eq=False)
class Open:
    """One open on the server.

    `file_id` is valid only in the session of the same `generation`; `path` is relative to the root of the mount.
    `created` tells whether the CREATE made the file rather than found it. `head` is what the file began with at that
    moment, if it was asked for and could be read.
    """

    path: str
    file_id: FileId
    generation: int
    attributes_at_open: FileAttributes
    writable: bool = False
    created: bool = False
    head: memoryview | None = None
    closed: bool = False


class OpenTable:
    """The opens of one mount that have not been closed."""

    def __init__(self) -> None:
        self._opens: set[Open] = set()

    def __len__(self) -> int:
        return len(self._opens)

    def __iter__(self) -> Iterator[Open]:
        return iter(tuple(self._opens))

    def add(self, handle: Open) -> None:
        """Enter a handle that the server has granted."""
        self._opens.add(handle)

    def remove(self, handle: Open) -> bool:
        """Take a handle out before its CLOSE is sent; False when that was done before."""
        if handle.closed:
            return False
        handle.closed = True
        self._opens.discard(handle)
        return True
