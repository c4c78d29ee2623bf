"""The journal: what a daemon that takes the place of a killed one has to know to close what that has left open.

Theory of operation. A persistent handle outlives the process that opened it: until its time is up, nobody else may have
what it has locked. To close it one has to claim it, by what only its owner knows: the ClientGuid, the session before,
the file id and the CreateGuid, the name, the key of the lease ([MS-SMB2] 3.3.5.9.12). So that is kept in a file, for
persistent handles alone: where the server promises none there is no file until a name has to be written down.

The file is a mark and then frames: the length of the payload and its CRC-32, each of 4 bytes, then the payload, whose
first byte says what it is.

    I   who we are: ClientGuid (16), channel sequence (2), session id (8); the last one counts
    O   an open under a number (8), all of it; replaces what had the number before
    N   a second name that a file has been given for a claim (`handles.renamed`), under a number (8): its id (8)
    R   a name of a file that is to be removed, even if it is the last one, likewise; now, or with its last close here
    C   the open under a number is closed, or the name is taken away

Frames are appended. Whatever byte the writer stops at, those before are read and the one that was cut is not. When the
file has grown far beyond what it says, and with every new session, it is written anew beside itself and renamed over.
It is not synced: it must outlive the process, not the machine, whose end it would seldom precede by less than the
server's patience. Who writes it holds a lock on it, so that nobody takes a living daemon's place. Locks are not in it:
they go with their open.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import zlib
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from smb3fs.errors import WireError
from smb3fs.wire.codec import from_utf16, unpack_at, utf16
from smb3fs.wire.create import FileId

log = logging.getLogger(__name__)

MARK: Final = b"smb3fs\0\1"  # the last byte is the version
# What a file may have at most to be read: room for some hundred thousand opens.
MAX_SIZE: Final = 32 << 20
# Below this size it is not worth the trouble to write the file anew, and then at so many times what it had to say.
SMALL: Final = 256 << 10
OUT_OF_DATE: Final = 4

_FRAME: Final = Struct("<II")  # length of the payload, CRC-32 of it
_IDENTITY: Final = Struct("<c16sHQ")
# Kind, number, FileId (two halves), CreateGuid, DesiredAccess, ShareAccess, CreateOptions, lengths of name and lease
_OPEN: Final = Struct("<cQQQ16sIIIIH")
# Kind, number, id of the file; the name follows
_NAME: Final = Struct("<cQQ")
_CLOSED: Final = Struct("<cQ")


@dataclass(slots=True, frozen=True)
class Identity:
    """Who a daemon was to the server: ClientGuid (16 bytes), channel sequence, id of its last session."""

    guid: bytes
    sequence: int
    session_id: int

    def encode(self) -> bytes:
        """Return the payload of a frame."""
        return _IDENTITY.pack(b"I", self.guid, self.sequence, self.session_id)


@dataclass(slots=True, frozen=True)
class LeftOpen:
    """What it takes to claim an open; `name` is relative to the share, `lease` the context's data, b"" for no lease."""

    file_id: FileId
    create_guid: bytes
    name: str
    desired_access: int
    share_access: int
    create_options: int
    lease: bytes = b""

    def encode(self, number: int) -> bytes:
        """Return the payload of a frame."""
        name = utf16(self.name)
        return (
            _OPEN.pack(
                b"O",
                number,
                *self.file_id,
                self.create_guid,
                self.desired_access,
                self.share_access,
                self.create_options,
                len(name),
                len(self.lease),
            )
            + name
            + self.lease
        )


@dataclass(slots=True, frozen=True)
class LeftName:
    """A name, relative to the share, that is to be taken away if it leads to the file of that number.

    If it is the file's `last` one the file goes with it.
    """

    name: str
    file_id: int
    last: bool = False

    def encode(self, number: int) -> bytes:
        """Return the payload of a frame."""
        return _NAME.pack(b"R" if self.last else b"N", number, self.file_id) + utf16(self.name)


@dataclass(slots=True)
class Left:
    """What a daemon has left: who it was, its opens and the names it has made, each by a number of its own."""

    identity: Identity | None = None
    opens: dict[int, LeftOpen] = field(default_factory=dict)
    names: dict[int, LeftName] = field(default_factory=dict)

    def take_in(self, payload: bytes) -> None:
        """Take in one payload; raises WireError for what is none."""
        kind = payload[:1]
        if kind == b"I" and len(payload) == _IDENTITY.size:
            self.identity = Identity(*_IDENTITY.unpack(payload)[1:])
        elif kind == b"C" and len(payload) == _CLOSED.size:
            number = _CLOSED.unpack(payload)[1]
            self.opens.pop(number, None)
            self.names.pop(number, None)
        elif kind in (b"N", b"R"):
            _, number, file_id = unpack_at(_NAME, payload, 0)
            self.names[number] = LeftName(from_utf16(payload[_NAME.size :]), file_id, kind == b"R")
        elif kind == b"O":
            _, number, persistent, volatile, guid, access, share, options, name, lease = unpack_at(_OPEN, payload, 0)
            if len(payload) != _OPEN.size + name + lease:
                raise WireError("an open of the wrong length")
            end = _OPEN.size + name
            self.opens[number] = LeftOpen(
                FileId(persistent, volatile),
                guid,
                from_utf16(payload[_OPEN.size : end]),
                access,
                share,
                options,
                payload[end:],
            )
        else:
            raise WireError("a record of no known kind")


def frame(payload: bytes) -> bytes:
    """Return a payload as it stands in the file."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def read(data: bytes) -> tuple[Left, int]:
    """Return what a file says up to the first frame that makes no sense, and where that begins; 0 for no journal."""
    left = Left()
    if not data.startswith(MARK):
        return left, 0
    end = len(MARK)
    while len(data) - end >= _FRAME.size:
        length, checksum = _FRAME.unpack_from(data, end)
        payload = data[end + _FRAME.size : end + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            break
        try:
            left.take_in(payload)
        except WireError:
            break
        end += _FRAME.size + length
    return left, end


class Journal:
    """The journal of one line. What goes wrong with it is logged once, and costs the journal, never the mount."""

    def __init__(self, path: str, prepare: Callable[[], None]) -> None:
        """`prepare` makes the directory of the file, or checks that it is ours alone; raises OSError."""
        self._path = path
        self._prepare = prepare
        self._descriptor = -1
        self._given_up = False
        self._size = 0
        self._limit = SMALL
        self._identity = b""
        self._frames: dict[int, bytes] = {}
        self._numbers: dict[Hashable, int] = {}
        self._next = 1

    def __len__(self) -> int:
        """Return how many opens and names it knows."""
        return len(self._frames)

    # -- taking over

    def take_over(self) -> Left:
        """Read what a daemon before this one has left; from then on it is ours, unless that one is alive."""
        if not os.path.lexists(self._path):
            return Left()
        try:
            if not self._hold(create=False):
                return Left()
            data = self._content()
        except OSError as error:
            self._give_up(f"cannot be read: {error}")
            return Left()
        left, end = read(data)
        if end < len(data):
            log.warning("%s makes sense for %d of its %d bytes; the rest is not used", self._path, end, len(data))
        self._frames = {number: frame(opened.encode(number)) for number, opened in left.opens.items()}
        self._frames |= {number: frame(name.encode(number)) for number, name in left.names.items()}
        self._next = max(self._frames, default=0) + 1
        return left

    def _hold(self, *, create: bool) -> bool:
        """Open the file and lock it; False if there is none, or if it is a living daemon's. Raises OSError."""
        self._prepare()
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
        while not self._given_up:
            try:
                descriptor = os.open(self._path, flags, 0o600)
            except FileNotFoundError:
                return False
            try:
                self._check_ours(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its owner may have put another in its place, or removed it, between the two calls.
                current = os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
            except BlockingIOError:
                os.close(descriptor)
                self._give_up("belongs to another daemon, which is alive")
            except FileNotFoundError:
                os.close(descriptor)
            except OSError:
                os.close(descriptor)
                raise
            else:
                if current:
                    self._descriptor = descriptor
                    return True
                os.close(descriptor)
        return False

    @staticmethod
    def _check_ours(descriptor: int) -> None:
        """Raise PermissionError for a file that somebody else may have written."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "the file is not ours alone")

    def _content(self) -> bytes:
        """Return the whole file; raises OSError."""
        size = os.fstat(self._descriptor).st_size
        if size > MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return os.pread(self._descriptor, size, 0)

    # -- writing

    def identify(self, identity: Identity) -> None:
        """Note who we are in a new session on a server that keeps opens for good; the file is made if there is none."""
        self._identity = frame(identity.encode())
        if self._given_up:
            return
        try:
            if self._descriptor >= 0 or self._hold(create=True):
                self._write_anew()
        except OSError as error:
            self._give_up(f"cannot be written: {error}")

    def begin(self) -> bool:
        """Make the file if there is none, since something has to be written down; False if there will be none."""
        try:
            if self._descriptor < 0 and not self._given_up and self._hold(create=True):
                self._write_anew()
        except OSError as error:
            self._give_up(f"cannot be written: {error}")
        return self._descriptor >= 0

    def keep(self, key: Hashable, left: LeftOpen | LeftName) -> None:
        """Note an open as it is now, or a name; `key` stands for it from now on."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._next
            self._next += 1
        self._frames[number] = written = frame(left.encode(number))
        self._append(written)

    def drop(self, key: Hashable) -> None:
        """Note that the server has an open or a name no more; nothing is noted of one that was not kept."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self.drop_left(number)

    def drop_left(self, number: int) -> None:
        """Note that the server has an open or a name no more that another daemon had left."""
        if self._frames.pop(number, None) is not None:
            self._append(frame(_CLOSED.pack(b"C", number)))

    def _append(self, written: bytes) -> None:
        """Write one frame."""
        if self._descriptor < 0:
            return
        try:
            if self._size > self._limit:
                self._write_anew()
            else:
                self._write(self._descriptor, written)
        except OSError as error:
            self._give_up(f"cannot be written: {error}")

    def _write(self, descriptor: int, data: bytes) -> None:
        """Write behind what there is, or raise OSError: nothing may be written behind half a frame."""
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(data)

    def _write_anew(self) -> None:
        """Put a file in the place of this one that says the same."""
        beside = self._path + ".new"
        with suppress(FileNotFoundError):
            os.unlink(beside)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = 0
            self._write(descriptor, b"".join((MARK, self._identity, *self._frames.values())))
            self._limit = max(SMALL, OUT_OF_DATE * self._size)
            os.rename(beside, self._path)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(beside)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor

    # -- ending

    def end(self, *, heard: bool) -> None:
        """Let go of the file. It is removed if the server has `heard` our farewell, or nothing was open."""
        if self._descriptor >= 0 and (heard or not self._frames):
            with suppress(OSError):
                os.unlink(self._path)
        self._close()

    def _give_up(self, why: str) -> None:
        """Do without from now on."""
        log.warning("journal of open files %s %s; what a killed daemon leaves open is not closed", self._path, why)
        self._given_up = True
        self._close()

    def _close(self) -> None:
        """Close the file, which unlocks it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
