"""The credit account: what the server is owed, whatever it grants, and who may use the last credits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smb3fs.credits import MAX_WINDOW, CreditAccount

charges = st.integers(1, 300)


class Account(RuleBasedStateMachine):
    """Random requests against a server that keeps its own book and grants whatever it likes."""

    @initialize(reserve=st.integers(0, 40), aim=st.integers(1, 100_000))
    def connect(self, reserve: int, aim: int) -> None:
        self.reserve = reserve
        self.account = CreditAccount(reserve=reserve, target=aim)
        self.granted = 1  # by the server's book, without our clamp
        self.taken: list[int] = []  # every id that was taken, in order
        self.waiting: list[int] = []  # charges of requests without a final answer

    def took(self, costs: list[int], urgent: bool) -> bool:
        """Try to send, and check every promise of the answer."""
        account, before = self.account, self.account.available
        idle = account.in_flight == 0
        ids = account.try_take_chain(costs, urgent=urgent)
        if ids is None:
            assert account.available == before
            # Who may use everything is refused only what is not there.
            assert sum(costs) > before - (0 if urgent or idle else min(self.reserve, account.window // 2))
            return False
        for first, cost in zip(ids, costs, strict=True):
            assert first == len(self.taken)  # contiguous, in order, none skipped, none twice
            self.taken.extend(range(first, first + cost))
        assert account.available == before - sum(costs)
        if not urgent and not idle:
            assert account.available >= min(self.reserve, account.window // 2)
        self.waiting += costs
        return True

    @rule(cost=charges, urgent=st.booleans())
    def one(self, cost: int, urgent: bool) -> None:
        self.took([cost], urgent)

    @rule(costs=st.lists(charges, min_size=1, max_size=5), urgent=st.booleans())
    def chain(self, costs: list[int], urgent: bool) -> None:
        self.took(costs, urgent)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), credits=st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF)))
    def answer(self, data: st.DataObject, credits: int) -> None:
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        self.granted += credits
        self.account.grant(credits, settled=self.waiting.pop(index))

    @precondition(lambda self: self.waiting)
    @rule(credits=st.integers(0, 0xFFFF))
    def interim_answer(self, credits: int) -> None:
        self.granted += credits
        self.account.grant(credits, settled=0)

    @precondition(lambda self: self.waiting)
    @rule()
    def an_honest_server_answers_everything(self) -> None:
        window = self.account.window
        for cost in self.waiting:
            amount = self.account.request_amount(cost)
            self.granted += amount
            self.account.grant(amount, settled=cost)
        self.waiting.clear()
        assert self.account.window >= window  # asking for the charge at least, it never lost any

    @rule(cost=charges)
    def a_request_asks_for_its_charge_at_least(self, cost: int) -> None:
        assert cost <= self.account.request_amount(cost) <= MAX_WINDOW

    @precondition(lambda self: not self.waiting and self.account.window)
    @rule(data=st.data())
    def an_idle_connection_takes_what_fits_the_window(self, data: st.DataObject) -> None:
        cost = data.draw(st.integers(1, self.account.window))
        assert self.took([cost], urgent=False)

    @invariant()
    def figures_agree(self) -> None:
        account = self.account
        assert account.available >= 0
        assert account.in_flight == sum(self.waiting)
        assert account.window == account.available + account.in_flight <= MAX_WINDOW
        assert len(self.taken) + account.available <= self.granted  # never more than the server gave


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def opened(credits: int, reserve: int) -> CreditAccount:
    """An account with `credits` credits, nothing in flight."""
    account = CreditAccount(reserve=reserve)
    assert account.try_take(1) == 0
    account.grant(credits, settled=1)
    return account


def test_a_connection_begins_with_one_credit_and_message_id_0() -> None:
    account = CreditAccount()
    assert (account.available, account.in_flight, account.window) == (1, 0, 1)
    assert account.try_take(1) == 0
    assert account.try_take(1, urgent=True) is None
    account.grant(2, settled=1)
    assert [account.try_take(1), account.try_take(1, urgent=True)] == [1, 2]


def test_a_charge_of_n_takes_n_ids() -> None:
    account = opened(100, reserve=0)
    assert account.try_take(16) == 1
    assert account.try_take_chain([1, 4, 1]) == [17, 18, 22]
    assert account.try_take(1) == 23
    assert (account.available, account.in_flight) == (77, 23)


def test_ordinary_requests_leave_the_reserve_to_urgent_ones() -> None:
    account = opened(20, reserve=8)
    ordinary = 0
    while account.try_take(1) is not None:
        ordinary += 1
    assert (ordinary, account.available) == (12, 8)
    assert all(account.try_take(1, urgent=True) is not None for _ in range(8))
    assert account.try_take(1, urgent=True) is None


def test_the_reserve_is_at_most_half_of_a_small_window() -> None:
    account = opened(4, reserve=8)
    assert [account.try_take(1) for _ in range(3)] == [1, 2, None]
    assert [account.try_take(1, urgent=True) for _ in range(3)] == [3, 4, None]


@given(st.integers(2, 200), st.integers(1, 40), st.lists(st.integers(1, 40), max_size=50))
def test_ordinary_requests_of_one_credit_never_starve_an_urgent_one(
    window: int, reserve: int, costs: list[int]
) -> None:
    account = opened(window, reserve)
    assert account.try_take(1) is not None  # from here on something is in flight
    for cost in costs:
        account.try_take(cost)
    assert account.try_take(1, urgent=True) is not None


def test_a_chain_is_taken_whole_or_not_at_all() -> None:
    account = opened(4, reserve=0)
    assert account.try_take_chain([1, 3, 1]) is None
    assert account.available == 4
    assert account.try_take_chain([1, 3]) == [1, 2]


def test_what_is_larger_than_the_window_less_the_reserve_waits_for_an_idle_connection() -> None:
    account = opened(16, reserve=8)
    assert account.try_take(1) == 1
    assert account.try_take(16) is None
    account.grant(1, settled=1)
    assert account.try_take(16) == 2


def test_an_interim_answer_grants_and_settles_nothing() -> None:
    account = opened(1, reserve=0)
    account.try_take(1)
    account.grant(3, settled=0)
    assert (account.available, account.in_flight) == (3, 1)
    account.grant(0, settled=1)
    assert (account.available, account.in_flight) == (3, 0)


def test_a_server_that_grants_absurd_amounts_gets_no_further_than_the_largest_window() -> None:
    account = CreditAccount()
    account.try_take(1)
    for _ in range(100):
        account.grant(0xFFFF, settled=0)
    assert (account.available, account.window) == (MAX_WINDOW - 1, MAX_WINDOW)
    assert account.request_amount(16) == 16


def test_asking_leads_to_the_target_and_not_beyond() -> None:
    account = CreditAccount(target=512)
    taken = account.try_take(1)
    assert taken == 0
    assert account.request_amount(1) == 1 + 511
    account.grant(1 + 400, settled=1)
    assert account.request_amount(16) == 16 + 111
    account.try_take(16)
    account.grant(16 + 111, settled=16)
    assert account.window == 512
    assert account.request_amount(16) == 16
    assert CreditAccount(target=10**9).request_amount(0xFFFF) == 0xFFFF


def test_a_limit_is_kept_although_the_server_gives_more_than_it_is_asked_for() -> None:
    account = CreditAccount()
    account.limit(20)
    assert account.try_take(1) == 0
    assert account.request_amount(1) == 20
    account.grant(20, settled=1)
    for _ in range(50):
        assert account.try_take(16) is not None
        amount = account.request_amount(16)
        account.grant(16 + amount - 1, settled=16)  # as Samba does
        assert account.window <= 20 + 15
    account.limit(60000)  # there is no way back up
    assert account.request_amount(1) <= 20


@pytest.mark.parametrize("costs", [[], [0], [1, 0], [-1, 5]])
def test_a_charge_is_at_least_one(costs: list[int]) -> None:
    with pytest.raises(ValueError, match="no charges"):
        CreditAccount().try_take_chain(costs)


@pytest.mark.parametrize("settled", [-1, 2])
def test_only_what_is_in_flight_can_be_settled(settled: int) -> None:
    account = CreditAccount()
    account.try_take(1)
    with pytest.raises(ValueError, match="1 are in flight"):
        account.grant(1, settled=settled)
