"""FUSE_INIT: what is taken of that which the kernel offers, and why."""

from __future__ import annotations

import mmap
from typing import Final

from smb3fs.errors import MountError
from smb3fs.fuse.device import MAX_DATA
from smb3fs.fuse.kernel import CONGESTION_THRESHOLD, MAX_BACKGROUND
from smb3fs.wire import fuse_session as session
from smb3fs.wire.fuse_session import InitIn, InitOut

WANTED: Final = (
    # Reads ahead are sent together, and direct reads and writes in parts at the same time.
    session.ASYNC_READ
    | session.ASYNC_DIO
    # O_TRUNC comes with OPEN; without it the kernel sends a SETATTR of its own.
    | session.ATOMIC_O_TRUNC
    # Requests of 1 MiB.
    | session.BIG_WRITES
    | session.MAX_PAGES
    # Pages are dropped when a file's size or time of change differ: the way to live without a lease.
    | session.AUTO_INVAL_DATA
    # Attributes come with a listing.
    | session.DO_READDIRPLUS
    # Lookups and listings of one directory run at the same time; it is what a far server needs most.
    | session.PARALLEL_DIROPS
    # An aborted connection is told from one that was unmounted.
    | session.ABORT_ERROR
    # The target of a symbolic link is asked for once.
    | session.CACHE_SYMLINKS
    # Bits for set-user-id are the server's to clear, as the mode is its to keep; else each write would be preceded by
    # a question for security.capability.
    | session.HANDLE_KILLPRIV_V2
    | session.INIT_EXT
    # A name may be made to be asked for again without being taken apart.
    | session.HAS_EXPIRE_ONLY
    # Shared mappings of files that bypass the page cache, from Linux 6.6 on.
    | session.DIRECT_IO_ALLOW_MMAP
)
# Not taken:
# - READDIRPLUS_AUTO: the kernel would leave the attributes out where nobody has asked for them lately, and then look up
#   one by one the names that are removed or renamed; the server sends them with every listing anyway.
# - WRITEBACK_CACHE: the kernel would trust its own sizes and times over the server's.
# - EXPLICIT_INVAL_DATA: for those who are told of every change, which takes a lease; it excludes AUTO_INVAL_DATA.
# - DONT_MASK, POSIX_ACL: the umask is the kernel's to apply.
# - EXPORT_SUPPORT: file handles for NFS would outlive our inode numbers.
# - POSIX_LOCKS, FLOCK_LOCKS: where locks stay on this machine, the kernel keeps them.


def agree(told: InitIn, *, locks: bool) -> InitOut:
    """Answer the kernel's greeting; `locks` says whether locks are ours to keep."""
    if told.major != session.MAJOR or told.minor < session.MINOR_AT_LEAST:
        raise MountError(
            f"the kernel speaks FUSE {told.major}.{told.minor}, and smb3fs needs {session.MAJOR}."
            f"{session.MINOR_AT_LEAST} (Linux 5.4); -o fuse=pyfuse3 works with older ones"
        )
    wanted = WANTED | (session.POSIX_LOCKS | session.FLOCK_LOCKS if locks else 0)
    return InitOut(
        session.MAJOR,
        min(told.minor, session.MINOR),
        told.max_readahead,
        told.flags & wanted,
        MAX_BACKGROUND,
        CONGESTION_THRESHOLD,
        MAX_DATA,
        100,  # nanoseconds: the unit of a FILETIME
        MAX_DATA // mmap.PAGESIZE,
    )
