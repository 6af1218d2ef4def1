"""Spending limits: which runs they are about, what is counted, and that a day never costs more than it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.pricing.prices import Price, PriceTable
from headrace.settings.limit_settings import SpendingConfig
from headrace.wire.accounts import short_hash
from headrace.wire.messages import Acquire, Release, TokenCounts
from headrace_engine.broker.spending_store import SpendingStore
from headrace_engine.limits.spending import BILLIONTHS, Charge, Spender, SpendingLimits
from headrace_engine.limits.token_estimates import DEFAULT_OUTPUT

PRICES = PriceTable({"mine/large": Price(input=1.0, output=2.0), "mine/cheap": Price(input=0.001)})
NOON = 1_764_417_600.0
"""On 2025-11-29."""
HALF_A_DAY = 12 * 3600.0


def spending(unpriced: list[tuple[str, str]] | None = None, **tables: dict[str, Any]) -> SpendingLimits:
    """Return limits whose clock begins at noon."""
    said = unpriced if unpriced is not None else []
    given = msgspec.convert(tables, dict[str, SpendingConfig])
    return SpendingLimits(given, PRICES, lambda now: NOON + now, lambda *model: said.append(model))


def ask(model: str = "large", user: str = "", *tags: str, tokens: int = 1000, output: int = 1000) -> Acquire:
    return Acquire(
        "sp_0000000000000001",
        1,
        "mine",
        model,
        user=short_hash(user),
        tags=[short_hash(tag) for tag in tags],
        input_tokens=tokens,
        max_output_tokens=output,
    )


def release(tokens: TokenCounts | None = None, outcome: str = "finished", **more: Any) -> Release:
    return Release("sp_0000000000000001", 1, outcome, tokens, **more)


def spend(limits: SpendingLimits, dollars: float, question: Acquire | None = None, now: float = 0.0) -> None:
    """Let a run cost so many dollars. Estimates learn nothing from it."""
    charge = limits.granted(question or ask(), now)
    limits.ended(charge, release(TokenCounts(round(dollars * 1_000_000), 0, 0, "partial")), now)


def spent(limits: SpendingLimits, now: float = 0.0) -> dict[str, float]:
    return {status.name: status.spent for status in limits.status(now)}


def test_a_run_that_may_cost_more_than_is_left_is_refused_until_the_next_day() -> None:
    limits = spending(daily={"max_cost": 5})
    spend(limits, 4.9995)
    refusal = limits.refusal(ask(), 0.0)

    assert refusal is not None
    kind, reason, retry_after = refusal
    assert kind == "over_budget"
    assert reason == (
        "[spending.daily] allows $5.00 a day (UTC): $5.00 is spent, and this run may cost $0.002; "
        "the next day begins in 12 h 0 min"
    )
    assert retry_after == HALF_A_DAY
    assert limits.refusal(ask(), HALF_A_DAY) is None
    assert spent(limits, HALF_A_DAY) == {"daily": 0.0}


def test_what_running_runs_may_cost_is_reserved_and_given_back() -> None:
    limits = spending(daily={"max_cost": 0.003})
    first = limits.granted(ask(), 0.0)
    refusal = limits.refusal(ask(), 0.0)

    assert refusal is not None
    assert "$0.00 is spent, runs that are running may cost $0.002, and this run may cost $0.002" in refusal[1]
    assert refusal[2] == 1.0, "it helps to ask again soon"
    limits.ended(first, release(None, "rate_limit"), 0.0)
    assert limits.refusal(ask(), 0.0) is None


def test_a_run_that_alone_may_cost_more_than_a_day_has_no_time_to_ask_again() -> None:
    refusal = spending(daily={"max_cost": 0.001}).refusal(ask(), 0.0)
    assert refusal is not None
    assert refusal[2] is None


@pytest.mark.parametrize(
    ("table", "question", "is_about"),
    [
        ({}, ask(), True),
        ({"provider": "mine"}, ask(), True),
        ({"provider": "openai"}, ask(), False),
        ({"model": "large"}, ask("large-2025-08-07"), True),
        ({"model": "large-2025-08-07"}, ask("large"), False),
        ({"model": "mine/large"}, ask(), True),
        ({"model": "lar*"}, ask(), True),
        ({"model": "cheap"}, ask(), False),
        ({"user_id": "ann"}, ask("large", "ann"), True),
        ({"user_id": "ann"}, ask("large", "bob"), False),
        ({"user_id": "ann"}, ask(), False),
        ({"user_id": "*"}, ask("large", "bob"), True),
        ({"user_id": "*"}, ask(), False),
        ({"tag": "batch"}, ask("large", "", "night", "batch"), True),
        ({"tag": "batch"}, ask("large", "", "night"), False),
        ({"tag": "batch", "user_id": "ann"}, ask("large", "ann"), False),
    ],
)
def test_a_table_is_about_the_runs_that_fit_all_that_it_names(
    table: dict[str, Any], question: Acquire, is_about: bool
) -> None:
    limits = spending(one={"max_cost": 1.0, **table})
    assert (limits.granted(question, 0.0) is not None) == is_about
    limits.told("2025-11-29", {("one", ""): 2 * BILLIONTHS, ("one", question.user): 2 * BILLIONTHS})
    assert (limits.refusal(question, 0.0) is not None) == is_about


def test_each_user_has_the_amount_for_itself() -> None:
    limits = spending(users={"max_cost": 1.0, "user_id": "*"}, all={"max_cost": 100.0})
    spend(limits, 1.0, ask("large", "ann"))
    spend(limits, 0.5, ask("large", "bob"))

    assert limits.refusal(ask("large", "ann"), 0.0) is not None
    assert limits.refusal(ask("large", "bob"), 0.0) is None
    assert spent(limits) == {"users": 1.0, "all": 1.5}


@pytest.mark.parametrize(
    ("ended", "cost"),
    [
        (release(TokenCounts(2000, 500, 0, "provider")), 0.003),
        (release(TokenCounts(2000, 500, 0, "estimated"), "aborted"), 0.003),
        (release(TokenCounts(2000, 500, 0, "partial"), "timeout", clock="idle"), 0.003),
        (release(None, "finished"), 0.002),
        (release(None, "worker_lost"), 0.002),
        (None, 0.002),
        (release(None, "timeout", clock="first_chunk"), 0.002),
        (release(None, "timeout", clock="connect"), 0.0),
        (release(None, "rate_limit", status_code=429), 0.0),
        (release(None, "provider_unavailable", status_code=503), 0.0),
        (release(None, "authentication"), 0.0),
    ],
)
def test_a_run_costs_what_its_tokens_cost_else_its_estimate_if_it_may_be_billed(
    ended: Release | None, cost: float
) -> None:
    limits = spending(daily={"max_cost": 5.0})
    limits.ended(limits.granted(ask(), 0.0), ended, 0.0)
    assert spent(limits) == {"daily": cost}


def test_a_run_counts_for_the_day_on_which_it_was_granted() -> None:
    limits = spending(daily={"max_cost": 5.0})
    charge = limits.granted(ask(), 0.0)
    limits.ended(charge, release(TokenCounts(1_000_000, 0, 0, "provider")), HALF_A_DAY)

    assert spent(limits, HALF_A_DAY) == {"daily": 0.0}
    assert limits.unsaved() == {("2025-11-29", "daily", ""): BILLIONTHS}


def test_a_model_without_a_price_counts_as_free_and_is_told_once() -> None:
    said: list[tuple[str, str]] = []
    limits = spending(said, daily={"max_cost": 1.0})
    for _ in range(3):
        spend(limits, 100.0, ask("unheard-of"))

    assert said == [("mine", "unheard-of")]
    assert spent(limits) == {"daily": 0.0}
    spend(limits, 1.0)
    assert limits.refusal(ask("unheard-of"), 0.0) is not None, "the money is used up"


def test_estimates_learn_from_what_runs_have_used() -> None:
    limits = spending(daily={"max_cost": 100.0})
    before = limits.granted(ask(output=0), 0.0)
    for _ in range(20):
        limits.ended(limits.granted(ask(output=0), 0.0), release(TokenCounts(2000, 100, 0, "provider")), 0.0)
    after = limits.granted(ask(output=0), 0.0)

    assert before is not None
    assert after is not None
    assert before.amount == (1000 + 2 * DEFAULT_OUTPUT) * 1000
    assert after.amount == (2000 + 2 * 100) * 1000


def test_a_mistake_in_token_counts_does_not_overflow_what_the_store_can_keep(tmp_path: Path) -> None:
    limits = spending(daily={"max_cost": 1_000_000_000})
    for _ in range(5):
        charge = limits.granted(ask(tokens=2**63 - 1, output=2**63 - 1), 0.0)
        limits.ended(charge, release(TokenCounts(2**63 - 1, 2**63 - 1, 0, "provider")), 0.0)

    amounts = limits.unsaved()
    assert amounts is not None
    assert set(amounts.values()) == {5 * 1_000_000 * BILLIONTHS}
    store = SpendingStore(tmp_path)
    assert set(store.exchange(amounts, "2025-11-29").values()) == set(amounts.values())
    store.close()


def test_settings_that_are_read_again_count_at_once_and_what_was_spent_stays() -> None:
    limits = spending(daily={"max_cost": 1.0})
    spend(limits, 1.0)
    assert limits.refusal(ask(), 0.0) is not None
    limits.configure({"daily": SpendingConfig(max_cost=2.0)}, PRICES)

    assert limits.refusal(ask(), 0.0) is None
    assert spent(limits) == {"daily": 1.0}
    limits.configure({}, PRICES)
    assert limits.granted(ask(), 0.0) is None


# The store.


def test_what_is_not_stored_counts_until_the_store_tells_it() -> None:
    limits = spending(daily={"max_cost": 5.0})
    assert limits.unsaved() is None
    spend(limits, 1.0)
    handed = limits.unsaved()
    spend(limits, 2.0)

    assert handed == {("2025-11-29", "daily", ""): BILLIONTHS}
    assert limits.unsaved() is None, "the first amounts are not answered yet"
    limits.told("2025-11-29", {("daily", ""): 0})
    assert spent(limits) == {"daily": 3.0}
    limits.saved()
    limits.told("2025-11-29", {("daily", ""): BILLIONTHS + BILLIONTHS // 2})
    assert spent(limits) == {"daily": 3.5}, "another engine has spent half a dollar"
    assert limits.unsaved() == {("2025-11-29", "daily", ""): 2 * BILLIONTHS}
    limits.failed()
    assert spent(limits) == {"daily": 3.5}
    spend(limits, 1.0)
    assert limits.unsaved() == {("2025-11-29", "daily", ""): 3 * BILLIONTHS}


MOST = 50_000_000
"""Billionths of a dollar that a day of the machine below may cost."""


class SpendingMachine(RuleBasedStateMachine):
    """Runs that cost more or less than their estimates, a store that fails, and days that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = spending(
            daily={"max_cost": MOST / BILLIONTHS}, users={"max_cost": MOST / BILLIONTHS / 2, "user_id": "*"}
        )
        self.running: list[tuple[Charge, int]] = []
        self.real: dict[tuple[str, str, str], int] = {}
        self.allowed: dict[tuple[str, str, str], int] = {}
        self.store: dict[tuple[str, str, str], int] = {}
        self.handed: dict[tuple[str, str, str], int] | None = None

    @rule(user=st.sampled_from("ab"), tokens=st.integers(0, 5000), more=st.integers(0, 3000))
    def ask(self, user: str, tokens: int, more: int) -> None:
        question = ask("large", user, tokens=tokens, output=500)
        if self.limits.refusal(question, self.now) is None:
            charge = self.limits.granted(question, self.now)
            assert charge is not None
            self.running.append((charge, tokens + more))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        charge, tokens = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.limits.ended(charge, release(TokenCounts(tokens, 100, 0, "provider")), self.now)
        cost = (tokens + 200) * 1000
        for spender in charge.spenders:
            key = (charge.day, *spender)
            self.real[key] = self.real.get(key, 0) + cost
            self.allowed[key] = self.allowed.get(key, 0) + max(cost - charge.amount, 0)

    @rule(hours=st.integers(1, 10))
    def time_passes(self, hours: int) -> None:
        self.now += hours * 3600

    @rule()
    def give_to_the_store(self) -> None:
        if self.handed is None and (amounts := self.limits.unsaved()) is not None:
            self.handed = dict(amounts)

    @precondition(lambda self: self.handed is not None)
    @rule(is_stored=st.booleans())
    def store_answers(self, is_stored: bool) -> None:
        assert self.handed is not None
        if is_stored:
            for key, amount in self.handed.items():
                self.store[key] = self.store.get(key, 0) + amount
            self.limits.saved()
            day = max(key[0] for key in self.store)
            totals: dict[Spender, int] = {key[1:]: amount for key, amount in self.store.items() if key[0] == day}
            self.limits.told(day, totals)
        else:
            self.limits.failed()
        self.handed = None

    @invariant()
    def no_day_costs_more_than_it_may_beyond_what_runs_cost_more_than_estimated(self) -> None:
        for (day, label, user), cost in self.real.items():
            most = MOST if label == "daily" else MOST // 2
            assert cost <= most + self.allowed[day, label, user]

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        unsaved = self.limits.not_handed()
        for key, cost in self.real.items():
            assert cost == self.store.get(key, 0) + (self.handed or {}).get(key, 0) + unsaved.get(key, 0)


TestSpending = SpendingMachine.TestCase
TestSpending.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
