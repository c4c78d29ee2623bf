"""The lease table: every state with every input, and a model server whose messages arrive in any order and twice."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smb3fs.handles.lease import NONE, RH, RWH, Lease, Reason, later_by
from smb3fs.handles.leases import LeaseTable
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

R, H, W = 1, 2, 4
RW = R | W
STATES = (NONE, R, RH, RW, RWH)
# Where an epoch wraps; the differences are what counts.
HERE = 0xFFFF


def table(version: int = 2) -> LeaseTable:
    """A table of a mount that asks for leases."""
    made = LeaseTable()
    made.speak(version)
    return made


def answer(lease: Lease, state: int, epoch: int, flags: int = 0, *, version: int = 2) -> LeaseContext | LeaseContextV2:
    """What the server says of a lease in its answer to a CREATE."""
    if version == 1:
        return LeaseContext(lease.key, state, flags)
    return LeaseContextV2(lease.key, state, flags, NO_KEY, epoch & 0xFFFF)


@dataclass(eq=False)
class Handle:
    """An open."""

    lease: Lease | None = None


def grant(leases: LeaseTable, lease: Lease, told: LeaseContext | LeaseContextV2, file_id: int = 0) -> Handle:
    """Take in the answer to a CREATE that asked for a lease; the open that it made."""
    return heard(leases, lease, told, file_id)[0]


def heard(
    leases: LeaseTable, lease: Lease, told: LeaseContext | LeaseContextV2, file_id: int = 0
) -> tuple[Handle, LeaseBreakAcknowledgment | None]:
    """Do as `grant` does, and tell what is to be sent for the answer as well."""
    handle = Handle()
    asked = [CreateContext(LEASE_CONTEXT, LeaseContext(lease.key, RWH).encode())]
    return handle, leases.granted(handle, asked, {LEASE_CONTEXT: told.encode()}, file_id)


def claim(leases: LeaseTable, lease: Lease, told: LeaseContext | LeaseContextV2) -> LeaseBreakAcknowledgment | None:
    """Take in the answer to the claim of an open that holds a lease; what is to be sent for it."""
    (handle, *_) = lease.opens
    return leases.regranted(handle, [CreateContext(LEASE_CONTEXT, told.encode())])


def a_break(lease: Lease, state: int, epoch: int, *, ack: bool = True) -> LeaseBreakNotification:
    """The break of a lease."""
    return LeaseBreakNotification(epoch & 0xFFFF, ACK_REQUIRED if ack else 0, lease.key, RWH, state)


def held(leases: LeaseTable, state: int, epoch: int = HERE, *, version: int = 2) -> Lease:
    """A lease that was granted."""
    lease = leases.make("f", "")
    with leases.asking(lease):
        grant(leases, lease, answer(lease, state, epoch, version=version))
    return lease


class Told:
    """A subscriber that remembers."""

    def __init__(self, leases: LeaseTable) -> None:
        self.events: list[tuple[int, int, Reason]] = []
        leases.subscribe(lambda _lease, old, new, reason: self.events.append((old, new, reason)))


def test_epochs_are_compared_by_their_signed_difference() -> None:
    assert [later_by(a, b) for a, b in ((1, 0), (0, 1), (0, 0xFFFF), (0xFFFF, 0), (0x7FFF, 0), (0x8000, 0))] == [
        1,
        -1,
        1,
        -1,
        0x7FFF,
        -0x8000,
    ]


# -- every state with every input

BY = (-2, -1, 0, 1, 2)


@pytest.mark.parametrize("version", [1, 2])
def test_the_first_answer_gives_what_it_says_less_what_breaks_took(version: int) -> None:
    for granted, broken, by in product(STATES, (None, *STATES), BY):
        leases = table(version)
        lease = leases.make("f", "")
        with leases.asking(lease):
            if broken is not None:
                acknowledged = leases.broken(a_break(lease, broken, HERE + by))
                assert acknowledged == LeaseBreakAcknowledgment(lease.key, broken)
                assert lease.state == NONE
            grant(leases, lease, answer(lease, granted, HERE, version=version))
        assert lease.state == (granted if broken is None else granted & broken)


def test_a_later_answer_counts_as_far_as_it_is_later() -> None:
    for before, after, by, breaking in product(STATES, STATES, BY, (0, LeaseFlag.BREAK_IN_PROGRESS)):
        leases = table()
        lease, told = held(leases, before), Told(leases)
        with leases.asking(lease):
            grant(leases, lease, answer(lease, after, HERE + by, breaking))
        if by < 0:
            expected = before
        elif by == 0 or breaking:
            expected = before & after
        else:
            expected = after
        assert lease.state == expected
        missed = by > 1 or (by == 1 and before == after and not breaking)
        assert [event for event in told.events if event[2] is Reason.MISSED] == (
            [(before, NONE, Reason.MISSED)] if missed and before else []
        )
        assert lease.epoch == (HERE + max(by, 0)) & 0xFFFF


def test_an_answer_without_an_epoch_gives_what_breaks_left_of_it() -> None:
    for before, after, broken in product(STATES, STATES, (None, *STATES)):
        leases = table(1)
        lease = held(leases, before, version=1)
        with leases.asking(lease):
            if broken is not None:
                leases.broken(a_break(lease, broken, 0))
            grant(leases, lease, answer(lease, after, 0, version=1))
        assert lease.state == (after if broken is None else after & broken)
        # It is of this CREATE alone that the break took something.
        with leases.asking(lease):
            grant(leases, lease, answer(lease, after, 0, version=1))
        assert lease.state == after


@pytest.mark.parametrize("version", [1, 2])
def test_a_break_takes_whatever_its_number_and_is_acknowledged_as_often_as_it_comes(version: int) -> None:
    for before, after, by, ack in product(STATES, STATES, BY, (True, False)):
        leases = table(version)
        lease, told = held(leases, before, version=version), Told(leases)
        for _ in range(2):
            acknowledged = leases.broken(a_break(lease, after, HERE + by, ack=ack))
            assert acknowledged == (LeaseBreakAcknowledgment(lease.key, after) if ack else None)
            assert lease.state == before & after
        assert told.events == ([(before, before & after, Reason.BROKEN)] if before & after != before else [])


def test_a_lease_breaks_in_steps_and_rises_again() -> None:
    leases = table()
    lease, told = held(leases, RWH), Told(leases)
    for number, state in enumerate((RH, R, NONE), 1):
        leases.broken(a_break(lease, state, HERE + number))
    with leases.asking(lease):
        grant(leases, lease, answer(lease, RWH, HERE + 4))
    assert [(old, new) for old, new, _ in told.events] == [(RWH, RH), (RH, R), (R, NONE), (NONE, RWH)]
    assert lease.epoch == 3


def test_the_break_of_a_lease_that_is_not_known_gives_everything_back() -> None:
    leases = table()
    unknown = Lease(bytes(16), "f")
    assert leases.broken(a_break(unknown, RH, 1)) == LeaseBreakAcknowledgment(unknown.key, NONE)
    assert leases.broken(a_break(unknown, RH, 1, ack=False)) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_loss_suspends_and_a_claim_gives_back(version: int) -> None:
    for before, after, by, broken in product(STATES, STATES, BY, (None, *STATES)):
        leases = table(version)
        lease, told = held(leases, before, version=version), Told(leases)
        leases.suspended()
        assert lease.state == NONE
        leases.suspended()  # the connection for the claim was lost as well
        leases.speak(version)
        if broken is not None:
            leases.broken(a_break(lease, broken, HERE + by + 1))
        claim(leases, lease, answer(lease, after, HERE + by, version=version))
        assert lease.state == (after if broken is None else after & broken)
        claimed = version == 2 and by == 0 and broken is None and not before & ~after
        assert [event[2] for event in told.events if event[0] == NONE] == (
            [Reason.CLAIMED if claimed else Reason.GRANTED] if lease.state else []
        )
        # Another open of the same file is claimed as well, and says the same.
        claim(leases, lease, answer(lease, after, HERE + by, version=version))
        assert not lease.state & ~after


@pytest.mark.parametrize(
    ("told", "epoch", "flags", "left", "comes"),
    [
        (RH, 0, 0, RH, None),  # nothing has happened
        (NONE, 1, 0, NONE, True),  # R is taken without waiting for a word
        (RH, 2, 0, RH, True),  # taken, and granted again
        (RH, 1, 2, RH, "break"),  # others wait
        (RH, 0, 2, RH, None),  # we have heard of it, and are at work
        (NONE, -1, 0, RH, None),  # an answer that something has overtaken
    ],
)
def test_what_the_server_has_is_compared(told: int, epoch: int, flags: int, left: int, comes: object) -> None:
    leases, seen = table(), []
    lease = leases.make("f", "")
    grant(leases, lease, answer(lease, RH, HERE))
    leases.subscribe(lambda _lease, old, new, reason: seen.append((old, new, reason)))
    found = leases.compared(lease, answer(lease, told, HERE + epoch, flags))
    if comes == "break":
        expected = LeaseBreakNotification((HERE + epoch) & 0xFFFF, ACK_REQUIRED, lease.key, told, NONE)
        assert found == expected
    else:
        assert found is comes
    assert lease.state == left
    assert [reason for _, _, reason in seen][:1] == ([Reason.MISSED] if comes is True else [])
    assert lease.epoch == (HERE + (epoch if comes is True else 0)) & 0xFFFF


@pytest.mark.parametrize(
    ("told", "flags", "left", "comes"),
    [(RH, 0, RH, None), (NONE, 0, NONE, True), (RH, 2, RH, "break"), (RWH, 2, RH, None)],
)
def test_without_an_epoch_only_what_is_less_shows(told: int, flags: int, left: int, comes: object) -> None:
    leases = table(1)
    lease = leases.make("f", "")
    grant(leases, lease, answer(lease, RH, 0, version=1))
    found = leases.compared(lease, answer(lease, told, 0, flags, version=1))
    assert (found is comes) == (comes != "break")
    assert isinstance(found, LeaseBreakNotification) == (comes == "break")
    assert lease.state == left


def test_what_is_granted_at_the_last_moment_can_only_be_claimed() -> None:
    leases = table()
    lease = leases.make("f", "")
    with leases.asking(lease):
        leases.suspended()
        grant(leases, lease, answer(lease, RWH, 5))
    assert lease.state == NONE
    leases.speak(2)
    (handle,) = lease.opens
    (asked,) = leases.claims(handle)
    assert parse_lease(asked.data).key == lease.key
    claim(leases, lease, answer(lease, RWH, 5))
    assert (lease.state, lease.epoch) == (RWH, 5)
    assert leases.claims(Handle()) == ()


def test_an_open_that_takes_the_place_of_another_one_takes_its_lease_over() -> None:
    leases = table()
    lease = held(leases, RWH)
    (old,) = lease.opens
    leases.suspended()
    leases.speak(2)
    fresh = grant(leases, lease, answer(lease, RH, 7))
    leases.handed_over(fresh, old)
    assert (lease.opens, lease.state) == ({old}, RH)
    leases.handed_over(Handle(), old)
    assert (old.lease, len(leases)) == (None, 0)


@pytest.mark.parametrize("epoch", [5, 6, 9])
def test_a_break_that_was_lost_with_the_connection_is_acknowledged_with_the_claim(epoch: int) -> None:
    leases = table()
    lease = held(leases, RWH)
    leases.suspended()
    leases.speak(2)
    told = LeaseContextV2(lease.key, RWH, LeaseFlag.BREAK_IN_PROGRESS, epoch=epoch)
    assert claim(leases, lease, told) == LeaseBreakAcknowledgment(lease.key, NONE)
    assert lease.state == NONE
    # The break comes after all: others wait for nothing any more, and the server thinks nothing of another word.
    assert leases.broken(a_break(lease, NONE, epoch + 1)) is not None
    assert claim(leases, lease, LeaseContextV2(lease.key, NONE, epoch=epoch + 1)) is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("epoch", [HERE, HERE + 1, HERE + 4])
def test_a_break_that_was_lost_with_the_connection_is_acknowledged_with_an_open_made_anew(
    epoch: int, version: int
) -> None:
    leases = table(version)
    lease = held(leases, RWH, version=version)
    leases.suspended()
    leases.speak(version)
    breaking = answer(lease, RWH, epoch, LeaseFlag.BREAK_IN_PROGRESS, version=version)
    assert heard(leases, lease, breaking)[1] == LeaseBreakAcknowledgment(lease.key, NONE)
    assert lease.state == NONE
    # Once is enough, however many opens there are.
    assert heard(leases, lease, breaking)[1] is None
    assert heard(leases, lease, answer(lease, R, epoch + 1, version=version))[1] is None
    assert lease.state == R


def test_a_break_that_has_come_is_not_acknowledged_by_an_answer() -> None:
    for granted in (True, False):
        leases = table()
        lease = held(leases, RWH) if granted else leases.make("f", "")
        with leases.asking(lease):
            assert leases.broken(a_break(lease, RH, HERE + 1)) is not None
            breaking = answer(lease, RWH, HERE + 1, LeaseFlag.BREAK_IN_PROGRESS)
            assert heard(leases, lease, breaking)[1] is None
            assert lease.state == RH


def test_a_claim_that_says_nothing_of_a_lease_has_none() -> None:
    leases = table()
    lease = held(leases, RWH)
    leases.suspended()
    (handle,) = lease.opens
    leases.regranted(handle, [])
    leases.regranted(handle, [CreateContext(LEASE_CONTEXT, LeaseContextV2(bytes(16), RWH).encode())])
    assert lease.state == NONE


def test_the_next_open_after_a_loss_is_like_the_first() -> None:
    leases = table()
    lease = held(leases, RWH)
    leases.suspended()
    leases.speak(2)
    with leases.asking(lease):
        grant(leases, lease, answer(lease, RH, HERE - 7))
    assert (lease.state, lease.epoch) == (RH, HERE - 7)


# -- names, keys and numbers


def test_a_lease_lives_as_long_as_an_open_or_a_create_holds_it() -> None:
    leases = table()
    lease, told = held(leases, RWH), Told(leases)
    (handle,) = lease.opens
    assert leases.find("f") is lease
    with leases.asking(lease):
        leases.released(handle)
        leases.released(handle)
        # The server may have forgotten it with its last open, and number the next one anew.
        assert (lease.state, leases.find("f")) == (NONE, lease)
        newer = grant(leases, lease, answer(lease, R, HERE))
    assert (lease.state, lease.opens) == (R, {newer})
    leases.released(newer)
    assert (len(leases), leases.find("f")) == (0, None)
    assert [reason for _, _, reason in told.events] == [Reason.RELEASED, Reason.GRANTED, Reason.RELEASED]
    with suppress(ValueError), leases.asking(leases.make("g", "")):
        raise ValueError
    assert len(leases) == 0


def test_a_file_is_found_by_its_name_and_by_its_number_in_other_spellings() -> None:
    leases = table()
    lease = leases.make("D\\File", "D", 7)
    assert leases.find("D\\File") is lease
    assert leases.find("D\\File", 7) is lease
    assert leases.find("d\\fILE", 7) is lease
    assert leases.find("d\\fILE") is None  # it may be another file
    assert leases.find("D\\File", 8) is None  # and this is one
    assert leases.find("D\\Other", 7) is None  # a second name has a lease of its own
    unknown = leases.make("new", "")
    assert leases.find("new", 8) is unknown  # it is being created: whoever looked it up meanwhile knows its number


def test_names_are_followed() -> None:
    leases = table()
    moved, replaced = leases.make("a", ""), leases.make("b", "")
    leases.renamed("a", "b")
    assert (leases.find("a"), leases.find("b"), moved.path) == (None, moved, "b")
    leases.renamed("no such", "b")  # somebody else's file has come to be there
    assert leases.find("b") is None
    newer = leases.make("b", "")
    leases.removed("b")
    assert leases.find("b") is None
    # Their breaks are known all the same.
    assert len(leases) == 3
    assert {lease.key for lease in leases} == {moved.key, replaced.key, newer.key}


def test_an_answer_about_another_file_or_key_gives_no_lease() -> None:
    leases = table()
    lease = leases.make("f", "", 7)
    with leases.asking(lease):
        other = leases.make("g", "", 7)
        refused = [
            grant(leases, lease, answer(lease, RWH, 1), file_id=8),
            grant(leases, lease, LeaseContextV2(bytes(16), RWH), file_id=7),
            grant(leases, lease, answer(other, RWH, 1), file_id=7),  # ours, but not what was asked for
        ]
        leases.granted(without := Handle(), [], {}, 7)
        assert [handle.lease for handle in (*refused, without)] == [None] * 4
        assert (lease.state, lease.opens) == (NONE, set())
        assert grant(leases, lease, answer(lease, RWH, 1), file_id=7).lease is lease


def test_contexts_carry_the_keys_of_file_and_directory_and_the_epoch() -> None:
    leases = table()
    lease = leases.make("d\\f", "d")
    context = leases.context(lease, RWH)
    parent = leases.directory_key("d")
    assert context.name == LEASE_CONTEXT
    assert parse_lease(context.data) == LeaseContextV2(lease.key, RWH, LeaseFlag.PARENT_LEASE_KEY_SET, parent, 0)
    assert parent == leases.directory_key("d") != leases.directory_key("e")
    assert parent != table().directory_key("d")
    leases.speak(1)
    assert parse_lease(leases.context(lease, RH).data) == LeaseContext(lease.key, RH)


def test_a_table_asks_where_the_server_has_leases_and_the_mount_wants_them() -> None:
    assert [(wanted, version) for wanted in (True, False) for version in (0, 1, 2) if _asks(wanted, version)] == [
        (True, 1),
        (True, 2),
    ]


def _asks(wanted: bool, version: int) -> bool:
    leases = LeaseTable(wanted=wanted)
    leases.speak(version)
    return leases.asks


def test_leases_are_counted_by_state() -> None:
    leases = table()
    for state in (R, RWH, RWH):
        held(leases, state)
    assert leases.counts() == {R: 1, RWH: 2}


# -- a server whose messages arrive in any order, and twice


@dataclass(eq=False)
class Asked:
    """A CREATE on its way."""

    scope: AbstractContextManager[None]
    epoch: int
    processed: bool = False


@dataclass
class Server:
    """One lease as the server has it, the file's contents, and what is on its way to us."""

    state: int = NONE
    epoch: int = 0
    opens: int = 0
    breaking_to: int | None = None
    contents: int = 0
    on_the_way: list[tuple[Any, Asked | None]] = field(default_factory=list)


class Disorder(RuleBasedStateMachine):
    """What is cached under R is what the file has, once everything that was sent has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = table()
        self.lease = self.leases.make("f", "")
        self.kept_alive = self.leases.asking(self.lease)
        self.kept_alive.__enter__()
        self.server = Server(epoch=0xFFFD)
        self.cached: int | None = None
        self.requests: list[Asked | str] = []
        self.handles: list[Handle] = []
        self.leases.subscribe(self.on_change)

    def on_change(self, _lease: Lease, _old: int, new: int, reason: Reason) -> None:
        if not new & R or reason is Reason.MISSED:
            self.cached = None

    @rule()
    def read(self) -> None:
        """Read the file, and keep it if we may."""
        if self.lease.state & R and self.cached is None:
            self.cached = self.server.contents

    @rule()
    def ask(self) -> None:
        """Send a CREATE."""
        scope = self.leases.asking(self.lease)
        scope.__enter__()
        self.requests.append(Asked(scope, self.lease.epoch))

    @precondition(lambda self: self.handles)
    @rule()
    def close(self) -> None:
        """Send a CLOSE."""
        self.leases.released(self.handles.pop())
        self.requests.append("close")

    @precondition(lambda self: self.requests)
    @rule(wish=st.sampled_from((R, RH, RWH)))
    def serve(self, wish: int) -> None:
        """Have the server carry out the next request; `wish` is what it may grant just now."""
        server, request = self.server, self.requests.pop(0)
        if isinstance(request, str):
            server.opens -= 1
            if not server.opens:
                server.state, server.breaking_to = NONE, None
            return
        if not server.opens:
            server.epoch, server.state = (request.epoch + 1) & 0xFFFF, wish
        elif server.breaking_to is None and not server.state & ~wish and server.state != wish:
            server.epoch, server.state = (server.epoch + 1) & 0xFFFF, wish
        server.opens += 1
        flags = LeaseFlag.BREAK_IN_PROGRESS if server.breaking_to is not None else 0
        server.on_the_way.append((answer(self.lease, server.state, server.epoch, flags), request))

    @precondition(lambda self: self.server.state and self.server.breaking_to is None)
    @rule(data=st.data())
    def conflict(self, data: st.DataObject) -> None:
        """Have another client want what our lease does not leave it."""
        server = self.server
        to = data.draw(
            st.sampled_from([state for state in STATES if state != server.state and not state & ~server.state])
        )
        server.epoch = (server.epoch + 1) & 0xFFFF
        waits = bool(server.state & (W | H))
        server.on_the_way.append((a_break(self.lease, to, server.epoch, ack=waits), None))
        if waits:
            server.breaking_to = to
        else:
            server.state = to

    @precondition(lambda self: not self.server.state)
    @rule()
    def write(self) -> None:
        """Have another client write."""
        self.server.contents += 1

    @precondition(lambda self: self.server.on_the_way)
    @rule(data=st.data(), twice=st.booleans())
    def deliver(self, data: st.DataObject, twice: bool) -> None:
        """Have one message arrive; a break may come again later."""
        server = self.server
        message, asked = server.on_the_way.pop(data.draw(st.integers(0, len(server.on_the_way) - 1)))
        if asked is not None:
            handle, acknowledged = heard(self.leases, self.lease, message)
            self.handles.append(handle)
            asked.scope.__exit__(None, None, None)
        else:
            if twice:
                server.on_the_way.append((message, None))
            acknowledged = self.leases.broken(message)
        if acknowledged is not None and server.breaking_to is not None and not acknowledged.state & ~server.breaking_to:
            server.state, server.breaking_to = acknowledged.state, None

    @invariant()
    def what_is_cached_is_true(self) -> None:
        if not self.server.on_the_way and not self.requests:
            assert not self.lease.state & ~self.server.state
            assert self.cached is None or self.cached == self.server.contents


Disorder.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestDisorder = Disorder.TestCase
