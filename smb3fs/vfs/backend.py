"""What the verbs need from the layer below: the file verbs of a share, as `smb3fs.share.share.Share` has them.

Two promises beyond the signatures. A verb puts its first request into the queue before it gives way for the first
time, so requests leave in the order in which the verbs were called. And a verb whose caller is cancelled closes what
the server opens for it all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from smb3fs.handles.attributes import Basics, FileAttributes
from smb3fs.handles.ledger import Piece, Step
from smb3fs.handles.opens import Open
from smb3fs.share.files import VolumeSpace
from smb3fs.share.metadata import Attached
from smb3fs.wire.codec import Buffer
from smb3fs.wire.ea import ExtendedAttribute
from smb3fs.wire.reparse import SymbolicLink
from smb3fs.wire.sid import Sid


class Pages(Protocol):
    """The listing of one directory: the pages that have arrived so far."""

    pages: list[memoryview]
    complete: bool
    # Whether a page is a chain of PosixDirectoryEntry rather than DirectoryEntry.
    posix: bool

    async def next_page(self) -> bool:
        """Fetch another page; False when there is none."""

    def take(self) -> Open | None:
        """Give the directory's handle away, if all entries have come under a lease of its that still holds."""

    def close(self) -> None:
        """Close the directory's handle; nobody waits for it."""


class ShareVerbs(Protocol):
    """The file verbs. Paths are relative to the root of the mount, components joined by a backslash."""

    async def lookup(self, path: str, /) -> FileAttributes:
        """Return the attributes of what is at `path`."""

    def attributes_ahead(
        self,
        path: str,
        told: Callable[[FileAttributes | None], None],
        handle: Open | None = None,
        /,
        *,
        hurry: bool = True,
    ) -> bool:
        """Ask for the attributes of a directory that nobody waits for yet; False if that cannot be now.

        Without `hurry` it goes with the next request, behind that, or in a moment.

        It is asked by its handle, if there is one. `told` is called once, with None if there are none to be had.
        """

    async def open(self, path: str, /, *, read: bool, write: bool, expect: int | None, head: int = 0) -> Open:
        """Open an existing file; ESTALE, and nothing changed, if its file id is not `expect`.

        The handle's `head` is up to as many of the file's first bytes, or None.
        """

    async def create(
        self, path: str, /, *, read: bool, write: bool, exclusive: bool, readonly_attribute: bool, mode: int
    ) -> Open:
        """Create a file, or open the one that is there unless `exclusive`; never truncates."""

    async def read_link(self, path: str, /, expect: int | None) -> SymbolicLink | bytes:
        """Return where the link at `path` leads; EINVAL for what is none."""

    async def make_link(self, path: str, target: SymbolicLink, /) -> FileAttributes:
        """Make a symbolic link; EPERM where the server has none."""

    async def make_link_file(self, path: str, target: bytes, /) -> FileAttributes:
        """Make a symbolic link in Minshall and French's notation."""

    async def make_special(self, path: str, mode: int, rdev: int, /) -> FileAttributes:
        """Make a pipe, socket or device; EPERM where the server has none."""

    async def link(self, path: str, new: str, /, expect: int | None) -> FileAttributes:
        """Give the file at `path`, if its file id is `expect`, a second name."""

    async def attributes(self, handle: Open, /) -> FileAttributes:
        """Return the attributes of an open file."""

    async def read(self, handle: Open, offset: int, size: int, /) -> memoryview:
        """Return `size` bytes from `offset`; fewer only at the end of the file."""

    def read_ahead(
        self, handle: Open, offset: int, size: int, came: Callable[[memoryview | None], None], least: int = 0, /
    ) -> int:
        """Ask for bytes that nobody waits for yet; return for how many, 0 if that cannot be now.

        `came` is called once, with the data or None: see `share.data`.
        """

    def open_ahead(self, path: str, expect: int | None, head: int, came: Callable[[Open | None], None], /) -> bool:
        """Ask for an open for reading that nobody waits for yet; False if that cannot be now.

        `came` is called once, with the handle or None: see `share.files`.
        """

    async def write(
        self,
        handle: Open,
        offset: int,
        data: Buffer,
        /,
        *,
        spread: bool = False,
        check: Callable[[], None] | None = None,
    ) -> int:
        """Write all of `data` at `offset`; if that fails, the first bytes of it were written, with `spread` any.

        `check` raises what forbids it whenever something is about to be sent.
        """

    async def flush(self, handle: Open, /) -> None:
        """Have the server put what was written onto its disk."""

    async def copy(self, source: Open, offset: int, target: Open, target_offset: int, size: int, /) -> int:
        """Have the server copy up to `size` bytes; EOPNOTSUPP or EXDEV, and nothing done, where it does not."""

    async def seek(self, handle: Open, offset: int, /, *, hole: bool) -> int:
        """Return where the next data or hole begins; ENXIO at the end."""

    async def punch(self, handle: Open, offset: int, end: int, /) -> None:
        """Make a hole; EOPNOTSUPP where there can be none."""

    async def zero(self, handle: Open, offset: int, end: int, /, *, keep_size: bool) -> None:
        """Make zeros of a range, and the file longer if it takes that."""

    async def allocate(self, handle: Open, offset: int, end: int, /, *, keep_size: bool) -> None:
        """Have space for a range; EOPNOTSUPP where the server does not promise it."""

    def close(self, handle: Open, /, *, hurry: bool = True) -> None:
        """Queue the CLOSE of a handle; nobody waits for its answer.

        Where there is no `hurry`, since the handle could only read, other opens for reading may overtake it.
        """

    def usable(self, handle: Open, /) -> bool:
        """Whether a handle still stands for something on the server."""

    def keeps_locks(self, handle: Open, /) -> bool:
        """Whether what is locked through a handle stays so if the handle outlives its connection."""

    async def open_for_locks(self, path: str, /, *, expect: int | None) -> Open:
        """Open a file to read and write, by a handle that keeps locks."""

    async def change_locks(self, handle: Open, steps: Sequence[Step], /) -> Sequence[int]:
        """Lock and unlock ranges, step by step in one round trip; the status of each, and of none it is not known."""

    async def wait_for_lock(self, handle: Open, piece: Piece, /) -> bool:
        """Wait until a range is locked; False if the wait was given up. True may come to one who was cancelled."""

    async def is_lockable(self, handle: Open, pieces: Sequence[Piece], /) -> bool:
        """Whether ranges could be locked just now."""

    async def truncate(self, handle: Open, size: int, /) -> FileAttributes:
        """Set the size of an open file."""

    async def truncate_path(self, path: str, size: int, /, expect: int | None) -> FileAttributes:
        """Set the size of the file at `path`, if its file id is `expect`."""

    async def set_basic(self, path: str, wish: Basics, /, *, expect: int | None) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits by path."""

    async def set_basic_open(self, handle: Open, wish: Basics, /) -> FileAttributes:
        """Set times and FILE_ATTRIBUTE bits of an open file."""

    async def write_and_set(
        self, handle: Open, offset: int, data: Buffer, wish: Basics, /, *, check: Callable[[], None] | None = None
    ) -> FileAttributes | None:
        """Write as `write` does, then set these in the same exchange; None if all is written, and they are not set."""

    async def extended_attributes(self, path: str, expect: int | None, /) -> Sequence[ExtendedAttribute]:
        """Return the extended attributes of the file with the id `expect`."""

    async def attached(self, path: str, expect: int | None, /) -> Attached:
        """Return all extended attributes and streams of the file with the id `expect`."""

    async def set_extended_attribute(
        self, path: str, name: bytes, value: bytes, /, *, expect: int | None, exists: bool | None = None
    ) -> None:
        """Set an attribute, or remove it by an empty value; EEXIST or ENODATA where that is not as `exists` says."""

    async def security(self, path: str, parts: int, expect: int | None, /) -> bytes:
        """Return parts of the security descriptor of the file with the id `expect`."""

    async def set_security(self, path: str, parts: int, descriptor: bytes, /, *, expect: int | None) -> None:
        """Set parts of the security descriptor of the file with the id `expect`."""

    async def read_stream(self, path: str, name: str, expect: int | None, /) -> bytes:
        """Return what is in a stream of a file: ENODATA if it has none of that name, E2BIG if it is too large."""

    async def write_stream(
        self, path: str, name: str, value: bytes, /, *, expect: int | None, exists: bool | None = None
    ) -> None:
        """Put a value into a stream of a file; EEXIST or ENODATA where it is not as `exists` says."""

    async def remove_stream(self, path: str, name: str, expect: int | None, /) -> None:
        """Remove a stream of a file; ENODATA if it has none of that name."""

    async def make_directory(self, path: str, mode: int, /) -> FileAttributes:
        """Create a directory."""

    async def remove_file(self, path: str, /, *, expect: int | None = None, born: int | None = None) -> None:
        """Delete a file, read-only or not.

        By its file id and time of birth it is known again where the connection is lost meanwhile.
        """

    async def keeps_others_out(self, path: str, /, *, expect: int | None = None) -> bool:
        """Whether the server would wait long before it replaces a file, and not to rename it. Waits for nothing."""

    async def remove_later(self, path: str, /, *, expect: int | None = None) -> bool:
        """Have the file with an id removed some time, by a name that nobody else knows; False if nobody sees to it.

        It waits for nothing.
        """

    async def make_lasting(self, path: str, /, *, expect: int | None = None) -> None:
        """Have all that is open of a file, which is about to lose its name, outlive its connection, if that can be."""

    async def hold_aside(self, path: str, aside: str, /, *, expect: int | None = None) -> bool:
        """Have an open file removed with its last close, by a name `aside` that it has or is about to get.

        False if nobody sees to it, or need not. Else `settle_aside` is to be called. It waits for nothing.
        """

    async def settle_aside(self, aside: str, /, *, there: bool) -> None:
        """Tell that a file has the name that is held for it, or may have it; or has not. It waits for nothing."""

    async def clear_aside(self, path: str, /) -> None:
        """Have what is in a directory, seen by nobody, and to be removed, removed now as far as the server lets us."""

    async def remove_directory(self, path: str, /, *, expect: int | None = None, born: int | None = None) -> None:
        """Delete an empty directory, known again likewise."""

    async def rename(
        self, old: str, new: str, /, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        """Rename what is known again likewise; without `replace` an existing `new` is EEXIST."""

    async def set_owned(
        self, path: str, /, *, expect: int | None, mode: int | None, owner: Sid | None, group: Sid | None
    ) -> FileAttributes:
        """Set permission bits, owner and group (None: leave), with the POSIX extensions; EPERM if that cannot be."""

    async def rename_point(
        self, old: str, new: str, /, *, replace: bool, expect: int | None = None, born: int | None = None
    ) -> None:
        """Rename what is a link or special file."""

    async def list_directory(self, path: str, /, expect: int | None, *, lease: bool = False) -> Pages:
        """Begin a listing, with a lease on the directory if asked; returns when the first page has arrived."""

    async def space(self) -> VolumeSpace:
        """Return the size of the share and what is free of it."""
