"""/dev/fuse: one read is one request, one write is one answer.

The buffers. A request is read into a buffer that the next one is read into as well, once the first is answered or its
record holds copies of all that it needs; names and values are copied, they are short. Only the data of a WRITE stays
where the kernel has put it, for as long as anybody holds a view of it: the message to the server is made of it, and may
outlive the call that it came with. So its buffer changes hands (`keep`), and is used again only when there is no view
of it left (`smb3fs.buffers`).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from smb3fs.buffers import SpareBuffers
from smb3fs.fuse.replies import Reply, failure
from smb3fs.wire.codec import Buffer
from smb3fs.wire.fuse import IN_SHORT, MAX_ERRNO, OUT_HEADER
from smb3fs.wire.fuse_session import InvalInode, Notify, Store

log = logging.getLogger(__name__)

# The largest data of one request: what the kernel allows without being told otherwise (fs.fuse.max_pages_limit).
MAX_DATA: Final = 1 << 20
# ... and what stands before them; the kernel wants 4096 at least for a request that carries none.
MAX_FIXED: Final = 4096
# Data of this size are copied, which costs less than to part with a buffer.
COPIED: Final = 32 << 10
# Buffers that are kept for reuse.
SPARE: Final = 8

# How the device says that the mount is no more: unmounted, or aborted (FUSE_ABORT_ERROR).
GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})


class Buffers:
    """Where requests are read to."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._spare = SpareBuffers(SPARE)
        self.view = self._spare.take(size)

    def keep(self, length: int) -> memoryview:
        """Return the request of that length for as long as it takes; the next one is read to some other place."""
        if length <= COPIED:
            return memoryview(bytes(self.view[:length]))
        kept = self.view[:length]
        self.view = self._spare.take(self._size)
        return kept


class Device:
    """The connection to the kernel of one mount."""

    def __init__(self, descriptor: int, size: int = MAX_DATA + MAX_FIXED) -> None:
        """`descriptor` is the device's, not blocking; it stays the caller's to close."""
        self.descriptor = descriptor
        self.buffers = Buffers(size)

    def read(self) -> int:
        """Read a request into the buffers and return its length; 0 when there is none now.

        Raises ConnectionAbortedError when the mount is no more.
        """
        while True:
            try:
                return os.readv(self.descriptor, (self.buffers.view,))
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno in GONE:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "the mount has ended") from None
                # ENOENT: whoever asked has given up before we have read it.
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    raise

    def answer(self, reply: Reply) -> None:
        """Give an answer to the kernel."""
        try:
            if isinstance(reply, tuple):
                os.writev(self.descriptor, reply)
            else:
                os.write(self.descriptor, reply)
        except OSError as error:
            # ENOENT: the request has been aborted. Nobody waits for this answer any more.
            if error.errno != errno.ENOENT and error.errno not in GONE:
                log.error("the kernel refuses an answer: %s", error.strerror)

    def fail(self, unique: int, number: int | None) -> None:
        """Give an errno to the kernel."""
        self.answer(failure(unique, number if number and 0 < number <= MAX_ERRNO else errno.EIO))

    def store(self, ino: int, data: Buffer) -> bool:
        """Give the kernel the first bytes of a file to keep as pages; whether it has taken them.

        The kernel locks these pages, so the file must be one of which no READ is under way: that would hold them until
        it is answered from here. Where they go beyond the size that the kernel knows, it asks for attributes anew;
        where they end short of it, it does not take the last of them for whole, and reads.
        """
        body = Store(ino, 0, len(data)).encode()
        header = OUT_HEADER.pack(OUT_HEADER.size + len(body) + len(data), Notify.STORE, 0)
        try:
            os.writev(self.descriptor, (header, body, data))
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in GONE:
                log.warning("the kernel refuses pages: %s", error.strerror)
            return False
        return True

    def forget_attributes(self, ino: int) -> None:
        """Have the kernel ask for the attributes of a file that it is opening before it uses them again.

        No pages are dropped, so there is nothing of ours that it could wait for.
        """
        body = InvalInode(ino, -1, 0).encode()
        try:
            os.write(self.descriptor, OUT_HEADER.pack(OUT_HEADER.size + len(body), Notify.INVAL_INODE, 0) + body)
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in GONE:
                log.warning("the kernel refuses to ask for attributes: %s", error.strerror)

    def refuse(self) -> None:
        """Refuse whatever the kernel asks now: this mount is about to end."""
        try:
            while self.read():
                self.fail(IN_SHORT.unpack_from(self.buffers.view)[1], errno.ENOTCONN)
        except ConnectionAbortedError:
            return
