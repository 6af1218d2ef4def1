"""The budgets of retries and of hedges, over any window of time."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from headrace_engine.limits.hedge_budget import HedgeBudget
from headrace_engine.limits.retry_budget import RetryBudget


def test_a_pool_with_few_runs_may_retry_all_of_them() -> None:
    budget = RetryBudget()
    for second in range(100):
        budget.first(float(second))
        assert budget.take(second + 0.5)
        assert budget.take(second + 0.7)


def test_a_pool_whose_runs_all_fail_sends_at_most_a_fifth_more_and_ten_in_a_second() -> None:
    budget, retries = RetryBudget(), 0
    for step in range(60_000):
        now = step / 1000
        budget.first(now)
        retries += budget.take(now) + budget.take(now)
    assert retries <= 0.2 * 60_000 + 10 * 60 + 100
    assert retries >= 0.18 * 60_000


def test_the_first_hedge_is_allowed_and_then_each_twentieth() -> None:
    budget, hedges = HedgeBudget(), 0
    for step in range(200):
        budget.first(step * 10.0)
        hedges += budget.take(step * 10.0)
    assert hedges == 10


def test_at_most_five_percent_are_hedged() -> None:
    budget, hedges = HedgeBudget(), 0
    for step in range(10_000):
        budget.first(step / 100)
        hedges += budget.take(step / 100)
    assert 480 <= hedges <= 501


class BudgetsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.retry_budget = RetryBudget()
        self.hedge_budget = HedgeBudget()
        self.firsts: list[float] = []
        self.retries: list[float] = []
        self.hedges: list[float] = []

    def within(self, times: list[float], seconds: float) -> int:
        return len(times) - bisect_right(times, self.now - seconds)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 300))
    def first_attempts(self, count: int) -> None:
        for _ in range(count):
            self.retry_budget.first(self.now)
            self.hedge_budget.first(self.now)
            self.firsts.append(self.now)

    @rule(count=st.integers(1, 150))
    def retries_come(self, count: int) -> None:
        for _ in range(count):
            if self.retry_budget.take(self.now):
                self.retries.append(self.now)
                assert self.within(self.retries, 10) <= 100 + 0.2 * self.within(self.firsts, 10)
            else:
                assert self.within(self.retries, 10.6) + 1 > 100 + 0.2 * self.within(self.firsts, 9.4)

    @rule(count=st.integers(1, 10))
    def hedges_come(self, count: int) -> None:
        for _ in range(count):
            if self.hedge_budget.take(self.now):
                self.hedges.append(self.now)
                assert len(self.hedges) <= 1 + 0.05 * len(self.firsts)
                before = self.hedges[-2] if len(self.hedges) > 1 else float("-inf")
                assert (
                    self.within(self.hedges, 60) <= 0.05 * self.within(self.firsts, 60)
                    or before == float("-inf")
                    or sum(at >= before for at in self.firsts) >= 20
                )


BudgetsMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestBudgets = BudgetsMachine.TestCase
