"""The lease table: what the server lets us keep of each file, and what it takes back ([MS-SMB2] 3.2.1.5, 3.2.5.19.2).

Theory of operation
-------------------
A lease is known to the server by a key of ours, and belongs to one file under one name: all opens of it under that name
carry the same key, since a second one would break the first. What is asked of this table is a lease for a CREATE that
is about to be sent; so the key is known here before the server can speak of it, even if the break of a lease overtakes
the answer that grants it. The lease lives as long as an open, or a CREATE on its way, holds it.

`state` is what may be relied on: R to keep what was read, W to keep what is to be written, H to keep the handle open.
In version 2 every change of it has a number, the epoch: 16 bits that wrap, so it is their signed difference that says
which of two words of the server is the later one. It decides when something is given; what is taken is taken whatever
its number, for to have less than we might costs a round trip, to believe in more costs the truth. Version 1 has no
epoch: an answer gives what it says, less what breaks took while it was on its way.

    what comes                        epoch          what the state becomes
    --------------------------------  -------------  ---------------------------------------------------------------
    answer to a CREATE, the first     any            what is granted, less what breaks took that came before it
    ... with BREAK_IN_PROGRESS, and   any            NONE, acknowledged at once: that break went to a connection that
        no break came before it                      is gone, with a CREATE that is repeated or an open made anew
    answer                            later          what is granted; if more has changed than this answer tells,
                                                     NONE in between: what was kept so far is worthless
    answer with BREAK_IN_PROGRESS     later          what both have: the server tells the old state, and a break is
                                                     on its way or waits for our acknowledgement
    answer                            same           what both have
    answer                            earlier        no change: a break has overtaken it
    break                             any            what both have
    the connection is lost            none           NONE, and the key is kept; the next answer is like the first one
    the open is claimed back          same           what is granted, and what was kept meanwhile is true still
    the open is claimed back          other          what is granted, as if for the first time
    ... with BREAK_IN_PROGRESS        any            NONE, acknowledged at once: that break may not come again
    asked about, a channel being lost later          what there is, NONE in between: what was kept is worthless
    ... with BREAK_IN_PROGRESS        later          as if that break had come, down to NONE
    the last open is closed           none           NONE, and the lease is gone unless a CREATE is on its way: to its
                                                     answer an epoch that is the same is as good as a later one

A break is acknowledged if it says so, also one of a lease that is gone or one that comes again: the server may have
sent it anew on another channel, and others wait until it is answered. It breaks in steps: RWH to RH to NONE takes two
breaks and two acknowledgements.

Names: Samba holds a lease to the name under which it was granted, and follows renames that it does itself. So a rename
of ours is followed here (`renamed`). A second name of a file has a key, hence a lease, of its own, and the two break
each other's W; the server answers INVALID_PARAMETER where we are wrong about a name, and then a new key is taken.

Who caches what a lease permits subscribes, and is told of every change after it has been made, so that nobody believes
in what is lost from then on. What then has to be done before a break is acknowledged is registered apart
(`before_acknowledging`), and waited for by `handles.breaks`. Nothing here waits, or knows of a connection.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from smb3fs.handles.lease import NONE, RWH, Holder, Lease, Reason, later_by
from smb3fs.handles.lease_names import LeaseNames
from smb3fs.wire.create import CreateContext
from smb3fs.wire.lease import (
    ACK_REQUIRED,
    LEASE_CONTEXT,
    NO_KEY,
    LeaseBreakAcknowledgment,
    LeaseBreakNotification,
    LeaseContext,
    LeaseContextV2,
    LeaseFlag,
    parse_lease,
)

# As an int: arithmetic with enum's flags costs microseconds.
BREAKING: Final = int(LeaseFlag.BREAK_IN_PROGRESS)
KEY_SIZE: Final = 16
# How many leases are kept at most that nobody has open.
MOST_HELD_ON: Final = 1000

Subscriber = Callable[[Lease, int, int, Reason], None]
# Does what a break makes necessary, given the lease, its state before and after; returns what is left to wait for.
Preparation = Callable[[Lease, int, int], Awaitable[None] | None]


class LeaseTable:
    """The leases of one line; `version` is that of the contexts that the server understands, 0 for none."""

    def __init__(self, *, wanted: bool = True) -> None:
        """Make an empty table; where leases are not `wanted`, none is ever asked for."""
        self._wanted = wanted
        self._version = 0
        self._live = False
        self.guards_names = False
        """Whether the server takes H back when another client removes or renames the file."""
        self._by_key: dict[bytes, Lease] = {}
        self._names = LeaseNames()
        self._subscribers: list[Subscriber] = []
        self._preparations: list[Preparation] = []
        self._held_on: set[Lease] = set()
        self.cut_numbers: set[int] = set()
        """The numbers of files of which a CREATE may be half done at the server for ever."""
        self._secret = os.urandom(KEY_SIZE)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._by_key.values()))

    @property
    def asks(self) -> bool:
        """Whether leases are asked for."""
        return self._wanted and self._version > 0

    def speak(self, version: int, *, guards_names: bool = False) -> None:
        """Use contexts of this version from now on, in a new session.

        Where H `guards_names` the server takes it back when another client removes or renames the file.
        """
        self._version, self._live, self.guards_names = version, True, guards_names

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have every change of a lease told: the lease, its state before and after, and why."""
        self._subscribers.append(subscriber)

    def before_acknowledging(self, preparation: Preparation) -> None:
        """Have something done between the news of a break, when all subscribers know, and its acknowledgement.

        It is called at once. What it returns is awaited, but not for ever; requests that it posts go ahead of the
        acknowledgement.
        """
        self._preparations.append(preparation)

    def counts(self) -> Counter[int]:
        """Return how many leases on files there are in each state."""
        return Counter(lease.state for lease in self._by_key.values() if not lease.directory)

    def directories(self) -> int:
        """Return how many leases on directories there are that permit anything."""
        return sum(lease.directory and lease.state != NONE for lease in self._by_key.values())

    def lease_of(self, key: bytes) -> Lease | None:
        """Return the lease with a key."""
        return self._by_key.get(key)

    # -- names

    def find(self, path: str, file_id: int | None = None) -> Lease | None:
        """Return the lease on the file at a path, if there is one; another spelling is found by the file's number."""
        return self._names.find(path, file_id)

    def make(self, path: str, parent: str, file_id: int | None = None) -> Lease:
        """Make a lease with a new key for the file at a path in the directory `parent`; `file_id` if it is known."""
        lease = Lease(os.urandom(KEY_SIZE), path, self.directory_key(parent), file_id or 0)
        self._by_key[lease.key] = lease
        self._names.enter(lease)
        return lease

    def of_directory(self, path: str, parent: str) -> Lease | None:
        """Return the lease on a directory in the directory `parent`, made if need be; None if its key is taken."""
        key = self.directory_key(path)
        lease = self._by_key.get(key)
        if lease is None:
            lease = Lease(key, path, self.directory_key(parent) if path else NO_KEY, directory=True)
            self._by_key[key] = lease
            self._names.enter(lease)
        return lease if lease.path == path else None

    def naming_parent(self, parent: str) -> CreateContext | None:
        """Build the context by which a CREATE that needs no lease says in which directory it changes something.

        It asks for nothing, under a key of its own. None where we have no lease on that directory to be broken.
        """
        return self.naming(self.directory_key(parent))

    def naming(self, key: bytes) -> CreateContext | None:
        """Build the same for the directory whose lease has a key."""
        if key not in self._by_key:
            return None
        told = LeaseContextV2(os.urandom(KEY_SIZE), NONE, int(LeaseFlag.PARENT_LEASE_KEY_SET), key)
        return CreateContext(LEASE_CONTEXT, told.encode())

    def directory_key(self, path: str) -> bytes:
        """Return the key for a lease on a directory, which every CREATE in it names.

        A child may be open long before anybody wants the lease on its directory; so that it is not our own change
        then that breaks that lease, the key follows from the name.
        """
        return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=KEY_SIZE).digest()

    def renamed(self, old: str, new: str) -> None:
        """Follow a file that has been given another name, and forget the name of the one that it replaced."""
        lease = self.find(old)
        self.removed(new)
        if lease is not None:
            self._names.leave(lease)
            lease.path = new
            self._names.enter(lease)

    def removed(self, path: str) -> None:
        """Forget the name of a file: whoever opens that name next opens another file."""
        lease = self.find(path)
        if lease is not None:
            self._names.leave(lease)
            if lease in self._held_on:
                self._drop_unused(lease)

    def nameless(self, lease: Lease) -> None:
        """Forget the name of a lease that has another one at the server: who opens the file next asks for another."""
        self._names.leave(lease)

    # -- asking

    def hold_on(self, asked: Sequence[CreateContext], *, cut: bool = False) -> None:
        """Keep the lease that a CREATE has asked for as long as its file has its name, whoever closes it.

        For `cut` see `Lease`.
        """
        told = dict(asked).get(LEASE_CONTEXT)
        lease = self._by_key.get(told[:KEY_SIZE]) if told is not None else None
        if lease is not None:
            lease.cut = lease.cut or cut
            self._note_cut(lease)
            self.hold_on_to(lease)

    def _note_cut(self, lease: Lease) -> None:
        """Note the number of a file of which a CREATE may be half done."""
        if lease.cut and lease.file_id and len(self.cut_numbers) < MOST_HELD_ON:
            self.cut_numbers.add(lease.file_id)

    def hold_on_to(self, lease: Lease) -> None:
        """Keep a lease as long as its file has its name, or take it up again: the server may let in its key alone."""
        if len(self._held_on) >= MOST_HELD_ON:
            return
        if lease.key not in self._by_key:
            if self.find(lease.path) is not None:
                return
            lease.known, lease.kept, lease.early = False, NONE, None
            self._by_key[lease.key] = lease
            self._names.enter(lease)
        self._held_on.add(lease)

    def context(self, lease: Lease, wish: int) -> CreateContext:
        """Build the context by which a CREATE asks for `wish`, or, with the lease's own state, names the key alone."""
        if self._version == 1:
            return CreateContext(LEASE_CONTEXT, LeaseContext(lease.key, wish).encode())
        flags = int(LeaseFlag.PARENT_LEASE_KEY_SET) if lease.parent_key != NO_KEY else 0
        told = LeaseContextV2(lease.key, wish, flags, lease.parent_key, lease.epoch)
        return CreateContext(LEASE_CONTEXT, told.encode())

    @contextmanager
    def asking(self, lease: Lease) -> Iterator[None]:
        """Keep a lease for as long as a CREATE that asks for it is on its way and its answer is taken in."""
        lease.asked += 1
        try:
            yield
        finally:
            lease.asked -= 1
            if not lease.asked and lease.known:
                lease.early = None
            self._drop_unused(lease)

    def granted(
        self, handle: Holder, asked: Sequence[CreateContext], told: Mapping[bytes, bytes], file_id: int
    ) -> LeaseBreakAcknowledgment | None:
        """Take in what the answer to a CREATE tells, and have the open hold its lease, if it was granted one.

        `asked` are the contexts of the request, `told` those of the answer; `file_id` is the number of the file, 0 if
        it is not known. A lease on a file of another number is not believed in. Return what is to be sent for the
        answer, if anything: others wait for the end of a break that was sent to a connection that is gone.
        """
        if LEASE_CONTEXT not in told:
            return None
        answer = parse_lease(told[LEASE_CONTEXT])
        lease = self._by_key.get(answer.key)
        if lease is None or dict(asked).get(LEASE_CONTEXT, b"")[:KEY_SIZE] != lease.key:
            return None
        if file_id and lease.file_id and file_id != lease.file_id:
            return None
        lease.file_id = lease.file_id or file_id
        self._note_cut(lease)
        lease.guards_name, lease.numbered = self.guards_names, isinstance(answer, LeaseContextV2)
        held = bool(lease.opens)
        handle.lease = lease
        lease.opens.add(handle)
        if self._live:
            unheard = not lease.known and lease.early is None
            self._hear(lease, answer, held=held)
            if unheard and answer.flags & BREAKING:
                return self._give_up(lease)
        elif isinstance(answer, LeaseContextV2):  # it came at the last moment, and can only be claimed
            lease.kept, lease.epoch = answer.state, answer.epoch
        return None

    def _give_up(self, lease: Lease) -> LeaseBreakAcknowledgment:
        """Give a lease back of whose break we have not heard how much it takes; return what is to be sent for it."""
        self._change(lease, NONE, Reason.BROKEN)
        return LeaseBreakAcknowledgment(lease.key, NONE)

    def _hear(self, lease: Lease, told: LeaseContext | LeaseContextV2, *, held: bool) -> None:
        """Take in what an answer says of a lease, which other opens have `held` until now or not."""
        epoch = told.epoch if isinstance(told, LeaseContextV2) else lease.epoch
        early = lease.early
        if not lease.known:
            state = told.state
            if early is not None:
                epoch, state = max(early[0], epoch, key=lambda one: later_by(one, epoch)), state & early[1]
            lease.known, lease.epoch = True, epoch
            self._change(lease, state, Reason.GRANTED)
            return
        if isinstance(told, LeaseContext):
            self._change(lease, told.state if early is None else told.state & early[1], Reason.GRANTED)
            return
        newer, breaking = later_by(epoch, lease.epoch), bool(told.flags & BREAKING)
        if newer < 0:
            return
        state = lease.state & told.state if breaking or (held and not newer) else told.state
        lease.epoch = epoch
        # One change cannot leave it as it was; a break that has begun is the one that did.
        if newer > 1 or (newer and not breaking and state == lease.state):
            self._change(lease, NONE, Reason.MISSED)
        self._change(lease, state, Reason.GRANTED)

    def released(self, handle: Holder) -> None:
        """Take notice that an open is closed, or lost, so that it holds its lease no more; twice is as once."""
        lease = handle.lease
        if lease is None or handle not in lease.opens:
            return
        lease.opens.discard(handle)
        if not lease.opens:
            self._change(lease, NONE, Reason.RELEASED)
        self._drop_unused(lease)

    def handed_over(self, fresh: Holder, handle: Holder) -> None:
        """Have an open hold the lease of another one that takes its place on the server, in place of its own."""
        if fresh.lease is not handle.lease:
            self.released(handle)
            handle.lease = fresh.lease
        if fresh.lease is not None:
            fresh.lease.opens.add(handle)
        self.released(fresh)

    def _drop_unused(self, lease: Lease) -> None:
        """Forget a lease that nobody holds, as the server does."""
        if lease.opens or lease.asked or (lease in self._held_on and self.find(lease.path) is lease):
            return
        self._held_on.discard(lease)
        self._by_key.pop(lease.key, None)
        self._names.leave(lease)

    # -- taking back

    def broken(self, told: LeaseBreakNotification) -> LeaseBreakAcknowledgment | None:
        """Take in a break, and return what is to be sent for it, if anything, when `prepared` is done."""
        lease = self._by_key.get(told.key)
        answer = LeaseBreakAcknowledgment(told.key, told.new_state if lease is not None else NONE)
        if lease is not None:
            self._break(lease, told)
        return answer if told.flags & ACK_REQUIRED else None

    def told(self, lease: Lease, answer: LeaseContext | LeaseContextV2) -> None:
        """Take in what the answer to a CREATE says of a lease, whose open is closed again."""
        if self._live and lease.known and answer.key == lease.key:
            self._hear(lease, answer, held=bool(lease.opens))

    def compared(self, lease: Lease, told: LeaseContext | LeaseContextV2) -> LeaseBreakNotification | bool | None:
        """Take in what the server has of a lease whose breaks may not have reached us.

        Return the break that is under way there and that we have not heard of, True if it has changed otherwise, None
        if all is as it was or a break that we have heard of is being worked on.
        """
        if isinstance(told, LeaseContextV2):
            newer = later_by(told.epoch, lease.epoch)
        else:
            newer = int(bool(lease.state & ~told.state) or bool(told.flags & BREAKING and told.state == lease.state))
        if newer <= 0 or not lease.known:
            return None
        epoch = told.epoch if isinstance(told, LeaseContextV2) else lease.epoch
        if told.flags & BREAKING:
            return LeaseBreakNotification(epoch, ACK_REQUIRED, lease.key, told.state, NONE)
        lease.epoch = epoch
        # What was kept meanwhile was kept wrongly, whatever there is again.
        self._change(lease, NONE, Reason.MISSED)
        self._change(lease, told.state, Reason.GRANTED)
        return True

    def prepare(self, key: bytes, old: int) -> list[Awaitable[None]]:
        """Begin what is to be done now that a lease has broken from `old`; return what is left to wait for."""
        lease = self._by_key.get(key)
        if lease is None or not old & ~lease.state:
            return []
        begun = (prepare(lease, old, lease.state) for prepare in self._preparations)
        return [rest for rest in begun if rest is not None]

    def _break(self, lease: Lease, told: LeaseBreakNotification) -> None:
        """Take in the break of a lease that we have, or may have."""
        numbered = self._version > 1
        epoch = told.new_epoch if numbered else lease.epoch
        if not lease.known or (lease.asked and not numbered):
            latest, left = lease.early or (epoch, RWH)
            lease.early = epoch if later_by(epoch, latest) > 0 else latest, left & told.new_state
        if lease.known:
            lease.epoch = epoch if later_by(epoch, lease.epoch) > 0 else lease.epoch
            self._change(lease, lease.state & told.new_state, Reason.BROKEN)

    # -- losing and claiming

    def suspended(self) -> None:
        """Give up all states: the connection is lost, and what others do is not told us any more. Keys are kept."""
        self._live = False
        for lease in self:
            if lease.known:
                lease.known, lease.kept = False, lease.state
            lease.early = None
            self._change(lease, NONE, Reason.SUSPENDED)

    def claims(self, handle: Holder) -> Sequence[CreateContext]:
        """Return the context that the claim of an open must carry: one if it has a lease, else none."""
        return () if handle.lease is None else (self.context(handle.lease, handle.lease.kept),)

    def regranted(self, handle: Holder, contexts: Sequence[CreateContext]) -> LeaseBreakAcknowledgment | None:
        """Take in the contexts of the answer to the claim of an open; return what is to be sent for it, if anything.

        A break that was under way when the connection was lost is perhaps not sent again, while others wait for its
        end. How much is to be given up we have not heard, so it is all.
        """
        lease, told = handle.lease, dict(contexts).get(LEASE_CONTEXT)
        if lease is None or told is None or handle not in lease.opens:
            return None
        answer = parse_lease(told)
        if answer.key != lease.key:
            return None
        breaking = bool(answer.flags & BREAKING)
        unchanged = (
            not lease.known
            and lease.early is None
            and isinstance(answer, LeaseContextV2)
            and answer.epoch == lease.epoch
            and not lease.kept & ~answer.state
        )
        if unchanged and not breaking:
            lease.known = True
            self._change(lease, answer.state, Reason.CLAIMED)
        else:
            self._hear(lease, answer, held=True)
        lease.early = None
        return self._give_up(lease) if breaking else None

    def _change(self, lease: Lease, state: int, reason: Reason) -> None:
        """Give a lease another state, and tell."""
        old, lease.state = lease.state, state
        lease.losses += bool(old & ~state)
        if old != state:
            for subscriber in self._subscribers:
                subscriber(lease, old, state, reason)
