"""The open table: every handle that this mount has on the server ([MS-SMB2] 3.2.1.6)."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, NamedTuple

from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.journal import Journal, LeftOpen
from smb3fs.handles.lease import Lease
from smb3fs.handles.leases import LeaseTable
from smb3fs.handles.ledger import Ledger
from smb3fs.handles.lock_sequence import LockSequence
from smb3fs.handles.timers import Timers
from smb3fs.wire.create import CreateRequest, FileId, HeldFileId
from smb3fs.wire.durable import (
    DURABLE_HANDLE,
    DURABLE_HANDLE_V2,
    PERSISTENT,
    DurableHandleRequestV2,
    DurableHandleResponseV2,
)
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
HANDLE: Final = int(LeaseState.HANDLE)
# So many are told of that were lost: those of several losses, without a flapping link letting the daemon grow.
REMEMBERED_LOST: Final = 200


class Durability(IntEnum):
    """What the server has promised about an open whose connection is lost ([MS-SMB2] 3.3.5.9.6, 3.3.5.9.10)."""

    NONE = 0
    DURABLE = 1
    DURABLE_V2 = 2
    PERSISTENT = 3


@dataclass(slots=True, eq=False)
class Open:
    """One open on the server.

    `file_id` is valid only in the session of the same `generation`; a claim after a loss changes both in their place.
    `path` is relative to the root of the mount; `request` is the CREATE that made the open, and `create_guid` the 16
    bytes by which the server knows it again, none where it was not asked to. `ledger` is there if it has been chosen to
    carry locks, `lease` if the server has granted one. `created` tells whether the CREATE made the file rather than
    found it, `posix` whether the server counts the open among those of the POSIX extensions. `head` is what the file
    began with at that moment, if it was asked for and could be read; `seen` the server's last answer about the file.
    `doubts` counts the changes of which nobody knows what became; `lost` why the open is gone for good, "" while it is
    not. `kept_as` is the name in the server's record of it, where the file was renamed since, and `moving_to` the one
    that it may have while nobody knows whether it was renamed, each as in `request`. `asked_at` is when the open was
    asked for, in seconds of trio's clock, -inf if it is not known, and `asked_after` what its user had counted by then
    of what makes its attributes old. `timers` are those that losses have left at the server.
    """

    path: str
    file_id: HeldFileId
    generation: int
    attributes_at_open: FileAttributes
    request: CreateRequest
    writable: bool = False
    created: bool = False
    posix: bool = False
    head: memoryview | None = None
    closed: bool = False
    create_guid: bytes = b""
    durability: Durability = Durability.NONE
    doubts: int = 0
    lost: str = ""
    kept_as: str = ""
    moving_to: str = ""
    users: int = 1
    ledger: Ledger | None = None
    lease: Lease | None = None
    asked_at: float = -math.inf
    asked_after: tuple[int, int] = (0, 0)
    lock_sequence: LockSequence = field(init=False, default_factory=LockSequence)
    timers: Timers = field(init=False, default_factory=Timers)
    seen: FileAttributes = field(init=False)

    @property
    def in_doubt(self) -> bool:
        """Whether a change was sent of which nobody knows whether it was carried out."""
        return self.doubts > 0

    def __post_init__(self) -> None:
        """Take what the CREATE told for the last answer."""
        self.seen = self.attributes_at_open

    def trade_places(self, other: Open) -> None:
        """Stand for what another open of the same session stands for on the server, and that one for this one's."""
        mine, others = self.file_id, other.file_id
        mine.persistent, others.persistent = others.persistent, mine.persistent
        mine.volatile, others.volatile = others.volatile, mine.volatile
        self.request, other.request = other.request, self.request
        self.create_guid, other.create_guid = other.create_guid, self.create_guid
        self.durability, other.durability = other.durability, self.durability
        self.posix, other.posix = other.posix, self.posix
        self.kept_as, other.kept_as = other.kept_as, self.kept_as
        self.lock_sequence, other.lock_sequence = other.lock_sequence, self.lock_sequence
        self.timers, other.timers = other.timers, self.timers

    def note_change(self) -> None:
        """Note that we have changed the contents: what the server has now nobody has told; see `handles.claims`."""
        self.seen = self.seen._replace(modified=0, changed=0)


def promised(request: CreateRequest, granted: Mapping[bytes, bytes]) -> tuple[bytes, Durability]:
    """Return the CreateGuid of a CREATE, b"" where it has none, and what the contexts of its answer promise."""
    asked = dict(request.contexts)
    if DURABLE_HANDLE_V2 not in asked:
        return b"", Durability.DURABLE if DURABLE_HANDLE in granted else Durability.NONE
    guid = DurableHandleRequestV2.parse(asked[DURABLE_HANDLE_V2]).create_guid
    if DURABLE_HANDLE_V2 not in granted:
        return guid, Durability.NONE
    persistent = DurableHandleResponseV2.parse(granted[DURABLE_HANDLE_V2]).flags & PERSISTENT
    return guid, Durability.PERSISTENT if persistent else Durability.DURABLE_V2


def kept_for(granted: Mapping[bytes, bytes]) -> float:
    """Return for how many seconds an open is kept by the answer to its CREATE, 0 if that does not say."""
    if DURABLE_HANDLE_V2 not in granted:
        return 0.0
    return DurableHandleResponseV2.parse(granted[DURABLE_HANDLE_V2]).timeout / 1000


class LostOpen(NamedTuple):
    """Something that did not outlive a loss: since when (seconds since the epoch), of which file, and why."""

    time: float
    path: str
    file_id: int
    why: str


class OpenTable:
    """The opens of one line to a server that have not been closed; with them their leases go."""

    def __init__(self, leases: LeaseTable | None = None, journal: Journal | None = None) -> None:
        """Make an empty table, for opens whose leases are in another one; `journal` is told of persistent ones."""
        self.leases = leases if leases is not None else LeaseTable(wanted=False)
        self._journal = journal
        self._opens: set[Open] = set()
        # Closed here, but nobody knows yet whether the server has heard of it, which would keep them after a loss.
        self._leaving: set[Open] = set()
        self.keeps = True
        """Whether the server keeps what is open after a loss, unless it has shown that it does not."""
        self._kept_any = False
        self.lost: deque[LostOpen] = deque(maxlen=REMEMBERED_LOST)
        """The last that were lost while somebody used them."""
        self.on_closed: Callable[[Open], None] = lambda handle: None
        """Is told of each handle that nobody here uses any more."""

    def __len__(self) -> int:
        return len(self._opens)

    def __iter__(self) -> Iterator[Open]:
        return iter(tuple(self._opens))

    def add(self, handle: Open) -> None:
        """Enter a handle that the server has granted, with its lease."""
        self._opens.add(handle)
        self.note(handle)
        self._kept_any = self._kept_any or bool(handle.durability)
        lease = handle.lease
        # With H there is no reason to refuse it but that the server never does so ([MS-SMB2] 3.3.5.9.10).
        refused = bool(handle.create_guid and not handle.durability and lease is not None and lease.state & HANDLE)
        self.keeps = self._kept_any or (self.keeps and not refused)

    def note(self, handle: Open) -> None:
        """Write down what a persistent handle is claimed by, for a daemon that comes after this one."""
        if self._journal is None or handle.lost:
            return
        if handle.durability != Durability.PERSISTENT:
            self._journal.drop(handle)
            return
        request, lease = handle.request, handle.lease
        told = b"" if lease is None else self.leases.context(lease, lease.state).data
        self._journal.keep(
            handle,
            LeftOpen(
                FileId(*handle.file_id),
                handle.create_guid,
                request.name,
                request.desired_access,
                request.share_access,
                request.create_options,
                bytes(told),
            ),
        )

    def _unnote(self, handle: Open) -> None:
        """Strike out a handle that the server has no more."""
        if self._journal is not None:
            self._journal.drop(handle)

    def remove(self, handle: Open) -> bool:
        """Take a handle out before its CLOSE is sent; False when that was done before, or somebody else still uses it.

        One that outlives its connection is remembered until `forget` says that the CLOSE was answered.
        """
        if handle.closed:
            return False
        handle.users -= 1
        if handle.users:
            return False
        handle.closed = True
        self._opens.discard(handle)
        self.leases.released(handle)
        if handle.durability and not handle.lost:
            self._leaving.add(handle)
        self.on_closed(handle)
        return True

    def forget(self, handle: Open) -> None:
        """Take a handle out of which the server has nothing any more."""
        used = handle in self._opens
        handle.closed = True
        self._opens.discard(handle)
        self.leases.released(handle)
        self._leaving.discard(handle)
        self._unnote(handle)
        if used:
            self.on_closed(handle)

    def lose(self, handle: Open, why: str) -> None:
        """Give up a handle that stands for nothing on the server any more, whose user has not closed it yet."""
        handle.lost = why
        self.lost.append(LostOpen(time.time(), handle.path, handle.seen.file_id, why))
        self.leases.released(handle)
        self._unnote(handle)

    def of_earlier_sessions(self, generation: int) -> list[Open]:
        """Return what is to be brought over into the session of that number, closed handles included."""
        return [
            handle for handle in (*self._opens, *self._leaving) if handle.generation != generation and not handle.lost
        ]

    def moved(self, old: tuple[str, str], new: tuple[str, str], separator: str) -> None:
        """Take notice that a file or directory has another name, by which the server wants its opens claimed.

        Each name is given as in `Open.path` and as in its request.
        """
        below = old[0] + separator
        for handle in (*self._opens, *self._leaving):
            if handle.path == old[0] or handle.path.startswith(below):
                handle.path = new[0] + handle.path[len(old[0]) :]
                if handle.durability == Durability.PERSISTENT:
                    handle.kept_as = handle.kept_as or handle.request.name
                handle.request = replace(handle.request, name=new[1] + handle.request.name[len(old[1]) :])
                self.note(handle)

    @contextmanager
    def moving(self, path: str, new: str) -> Iterator[None]:
        """Note that a file may have the name `new`, as in a request, until it is known whether it does."""
        handles = [handle for handle in (*self._opens, *self._leaving) if handle.path == path]
        for handle in handles:
            handle.moving_to = new
        try:
            yield
        finally:
            for handle in handles:
                handle.moving_to = ""

    def below(self, path: str, separator: str) -> list[Open]:
        """Return the opens that have a path, or one below it."""
        start = path + separator
        return [handle for handle in self._opens if handle.path == path or handle.path.startswith(start)]

    def durabilities(self) -> Counter[Durability]:
        """Return how many handles there are of each durability."""
        return Counter(handle.durability for handle in self._opens)
