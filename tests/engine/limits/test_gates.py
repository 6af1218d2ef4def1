"""The gates of an engine: which runs share limits, what makes a pool, and what a new broker knows of it."""

from __future__ import annotations

from random import Random

from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.accounts import account_of, short_hash
from headrace.wire.messages import Acquire, Release, ResponseReport, SaidLimit, TokenCounts
from headrace_engine.limits.gate import Gates, KeyRefused, Refusal, Ticket
from headrace_engine.limits.gates import MAX_LEARNED, MAX_POOLS, MAX_TOLD, PoolGates
from headrace_engine.limits.key_spread import ANY_KEY
from headrace_engine.limits.pool import CROWDED_AFTER, IDLE_AFTER, TOLD_FOR

BASE_URL = "https://api.example.com/v1"
PROVIDERS = {"openai": ProviderConfig(api="openai-chat", base_url=BASE_URL)}
COUNTER = iter(range(10**9))


def asked(model: str = "gpt-4o", provider: str = "openai", **fields: object) -> Acquire:
    return Acquire(f"r{next(COUNTER)}", 1, provider, model, **fields)  # type: ignore[arg-type]


def gates_of(limits: dict[str, LimitConfig] | None = None, **fields: object) -> PoolGates:
    settings = Settings(providers=PROVIDERS, limits=limits or {}, **fields)  # type: ignore[arg-type]
    return PoolGates(settings, Random(1).uniform)


def failed(question: Acquire, status: int | None = None, outcome: str = "provider_unavailable") -> Release:
    return Release(question.span_id, question.attempt, outcome, status_code=status)


def enter(gates: Gates, question: Acquire, now: float) -> Ticket:
    """Let a run go that may go."""
    gate = gates.gate_of(question)
    assert gate is not None
    assert gate.wait(question.priority, question, now) is None
    return gate.enter(question, now)


def fail_unlearned(gates: Gates, question: Acquire, release: Release, now: float) -> Ticket:
    """A run without a ticket fails, and that makes its pool."""
    assert gates.learns_from(question, release, now)
    ticket = gates.adopt(question, "", now)
    assert ticket is not None
    ticket.gate.leave(ticket, release, now)
    return ticket


def test_nothing_is_looked_at_until_something_is_known() -> None:
    gates: Gates = gates_of()
    question = asked()
    generation = gates.generation
    assert gates.gate_of(question) is None
    assert gates.refusal(question, 0.0) is None
    assert not gates.learns_from(question, Release(question.span_id, 1, "finished"), 0.0)
    assert not gates.learns_from(question, failed(question, 400, "invalid_request"), 0.0)
    assert not gates.learns_from(question, ResponseReport(question.span_id, 1, 200), 0.0)
    assert gates.adopt(question, "", 0.0) is None
    assert gates.generation == generation
    assert gates.pools({}, 0.0) == []
    assert gates.state(0.0) is None


def test_a_first_429_blocks_its_pool_and_no_other_one() -> None:
    gates = gates_of()
    question = asked()
    generation = gates.generation
    release = Release(question.span_id, 1, "rate_limit", status_code=429, retry_after=2.0)
    ticket = fail_unlearned(gates, question, release, 10.0)

    assert gates.generation != generation
    wait = ticket.gate.wait("interactive", asked(), 10.0)
    assert wait is not None
    assert wait.word == "blocked"
    assert wait.until is not None
    assert 12.0 <= wait.until <= 12.1
    assert gates.gate_of(asked("gpt-4o-2024-08-06")) is ticket.gate
    assert gates.gate_of(asked("gpt-4.1")) is None
    assert gates.gate_of(asked(account=account_of("another", None))) is None


def test_a_quota_that_is_used_up_makes_no_pool() -> None:
    gates = gates_of()
    question = asked()
    assert not gates.learns_from(
        question, Release(question.span_id, 1, "rate_limit", status_code=429, is_final=True), 0.0
    )


def test_headers_of_a_first_response_make_a_pool() -> None:
    gates = gates_of()
    question = asked()
    report = ResponseReport(question.span_id, 1, 200, [SaidLimit("requests", 600, 0, 6.0)])
    assert gates.learns_from(question, report, 10.0)
    ticket = gates.adopt(question, "", 10.0)
    assert ticket is not None
    ticket.gate.answered(ticket, report, 10.0)
    wait = ticket.gate.wait("interactive", asked(), 10.0)
    assert wait is not None
    assert wait.word == "limit"


def test_a_limit_for_a_day_of_which_nothing_is_left_blocks_its_pool() -> None:
    gates = gates_of()
    question = asked()
    report = ResponseReport(question.span_id, 1, 200, [SaidLimit("requests", None, 0, 30.0)])
    assert gates.learns_from(question, report, 10.0)
    ticket = gates.adopt(question, "", 10.0)
    assert ticket is not None
    ticket.gate.answered(ticket, report, 10.0)

    wait = ticket.gate.wait("interactive", asked(), 39.0)
    assert wait is not None
    assert wait.word == "blocked"
    assert wait.until is not None
    assert 40.0 <= wait.until <= 42.0


def test_the_limits_of_provider_and_model_must_both_have_room() -> None:
    limits = {
        "openai": LimitConfig(max_concurrency=3),
        "openai/gpt-4o*": LimitConfig(max_concurrency=5),
        "openai/gpt-4o": LimitConfig(max_concurrency=2),
    }
    gates = gates_of(limits)
    first, second = enter(gates, asked(), 0.0), enter(gates, asked(), 0.0)
    wait = first.gate.wait("interactive", asked(), 0.0)
    assert wait is not None
    assert (wait.word, wait.until) == ("limit", None)

    other = enter(gates, asked("gpt-4.1"), 0.0)
    assert other.gate.wait("interactive", asked("gpt-4.1"), 0.0) is not None
    second.gate.leave(second, None, 0.0)
    assert other.gate.wait("interactive", asked("gpt-4.1"), 0.0) is None


def test_limits_in_the_table_of_the_provider_count_too() -> None:
    providers = {"openai": ProviderConfig(api="openai-chat", base_url=BASE_URL, max_concurrency=1)}
    gates = PoolGates(Settings(providers=providers), Random(1).uniform)
    ticket = enter(gates, asked(), 0.0)
    assert ticket.gate.wait("interactive", asked(), 0.0) is not None


def test_the_same_key_given_by_a_caller_and_held_by_the_engine_is_one_pool() -> None:
    gates = gates_of({"openai": LimitConfig(requests_per_minute=600)})
    gates.keys_told(1, {"openai": [short_hash("sk-1")]}, 0.0)
    gate = gates.gate_of(asked())
    assert gate is not None
    assert gates.gate_of(asked(account=account_of("sk-1", None))) is gate
    assert gates.gate_of(asked(account=account_of("sk-1", BASE_URL + "/"))) is gate
    assert gates.gate_of(asked(account=account_of(None, BASE_URL))) is gate
    assert gates.gate_of(asked(account=account_of("sk-2", None))) is not gate
    assert gates.gate_of(asked(account=account_of(None, "https://proxy.example.com"))) is not gate
    assert gates.pools({}, 0.0)[0].key == ""


def test_what_was_counted_before_the_engines_key_was_known_stays_counted() -> None:
    gates = gates_of({"openai": LimitConfig(max_concurrency=1)})
    ticket = enter(gates, asked(), 0.0)
    generation = gates.generation
    gates.keys_told(1, {"openai": [short_hash("sk-1")]}, 0.0)
    assert gates.generation != generation
    assert gates.gate_of(asked(account=account_of("sk-1", None))) is ticket.gate
    assert gates.gate_of(asked()) is ticket.gate
    assert ticket.gate.wait("interactive", asked(), 0.0) is not None


def test_runs_are_spread_over_several_keys_and_each_key_has_the_limit() -> None:
    gates = gates_of({"openai": LimitConfig(max_concurrency=2)})
    gates.keys_told(1, {"openai": ["a" * 16, "b" * 16]}, 0.0)
    tickets = [enter(gates, asked(), 0.0) for _ in range(4)]
    assert sorted(ticket.key for ticket in tickets) == ["a" * 16] * 2 + ["b" * 16] * 2

    gate = gates.gate_of(asked())
    assert gate is not None
    assert gate.wait("interactive", asked(), 0.0) is not None
    tickets[0].gate.leave(tickets[0], None, 1.0)
    assert gate.enter(asked(), 1.0).key == tickets[0].key


def test_a_key_that_the_provider_refuses_gets_no_more_runs_until_the_settings_are_read_again() -> None:
    gates = gates_of()
    gates.keys_told(1, {"openai": ["a" * 16, "b" * 16]}, 0.0)
    question = asked()
    ticket = enter(gates, question, 0.0)
    ticket.gate.leave(ticket, failed(question, 401, "authentication"), 0.0)

    assert gates.facts() == [KeyRefused("openai", ticket.key, left=1)]
    assert gates.facts() == []
    assert ticket.key not in {enter(gates, asked(), 1.0).key for _ in range(10)}
    assert [pool.out_of_rotation for pool in gates.pools({}, 1.0) if ticket.key.startswith(pool.key)] == ["401"]

    gates.reloaded()
    assert ticket.key in {enter(gates, asked(), 2.0).key for _ in range(20)}


def test_another_key_is_used_while_one_is_blocked() -> None:
    gates = gates_of()
    gates.keys_told(1, {"openai": ["a" * 16, "b" * 16]}, 0.0)
    question = asked()
    ticket = enter(gates, question, 0.0)
    release = Release(question.span_id, 1, "rate_limit", status_code=429, retry_after=30.0)
    ticket.gate.leave(ticket, release, 0.0)
    assert ticket.key not in {enter(gates, asked(), 1.0).key for _ in range(10)}


def test_an_overload_of_a_pool_that_nobody_knew_counts_the_runs_that_go_on() -> None:
    gates = gates_of()
    running = [asked() for _ in range(20)]
    release = failed(running[0], 529)
    assert gates.learns_from(running[0], release, 0.0)
    tickets = [gates.adopt(question, "", 0.0) for question in running]
    assert tickets[0] is not None
    tickets[0].gate.leave(tickets[0], release, 0.0)
    assert gates.pools({}, 0.0)[0].concurrency == 14


def test_after_five_failures_runs_wait_for_a_probe_whose_head_is_reported() -> None:
    gates = gates_of()
    fail_unlearned(gates, first := asked(), failed(first, 503), 0.0)
    for _ in range(4):
        question = asked()
        ticket = enter(gates, question, 0.0)
        assert ticket.reports
        ticket.gate.leave(ticket, failed(question, 503), 0.0)
    gate = gates.gate_of(asked())
    assert gate is not None
    wait = gate.wait("interactive", asked(), 0.0)
    assert wait is not None
    assert wait.word == "breaker"
    assert gate.expected_wait(asked(), 0, 0.0) >= 4.0

    probe = enter(gates, asked(), 6.0)
    assert probe.reports
    assert gate.wait("interactive", asked(), 6.0) is not None
    gate.answered(probe, ResponseReport("r", 1, 200), 6.5)
    assert gate.wait("interactive", asked(), 6.5) is None


def test_a_retry_without_budget_is_refused_and_a_first_attempt_is_not() -> None:
    gates = gates_of()
    retry = asked(is_provider_retry=True)
    refusals = [gates.refusal(retry, 0.0) for _ in range(101)]
    assert refusals[:100] == [None] * 100
    assert refusals[100] is not None
    assert refusals[100][0] == "no_retry"
    assert gates.refusal(asked(), 0.0) is None


def test_a_hedge_is_refused_without_budget_and_while_the_pool_is_blocked_or_nearly_full() -> None:
    gates = gates_of()
    hedge = asked(is_hedge=True)
    assert gates.refusal(hedge, 0.0) is None
    again = gates.refusal(hedge, 0.0)
    assert again is not None
    assert again[0] == "no_hedge"

    for _ in range(100):
        question = asked()
        ticket = enter(gates, question, 1.0)
        ticket.gate.leave(ticket, Release(question.span_id, 1, "finished"), 1.0)
    assert gates.refusal(hedge, 2.0) is None
    question = asked()
    ticket = enter(gates, question, 2.0)
    ticket.gate.leave(ticket, Release(question.span_id, 1, "rate_limit", status_code=429, retry_after=1.0), 2.0)
    assert gates.refusal(hedge, 2.0) is not None


def test_a_run_without_an_answer_from_its_client_or_worker_leaves_its_place() -> None:
    gates = gates_of({"openai": LimitConfig(max_concurrency=1)})
    for _ in range(3):
        ticket = enter(gates, asked(), 0.0)
        ticket.gate.leave(ticket, None, 0.0)


def test_real_tokens_replace_the_estimate() -> None:
    gates = gates_of({"openai/gpt-4o": LimitConfig(tokens_per_minute=10_000)})
    question = asked(input_tokens=1000, max_output_tokens=1000)
    ticket = enter(gates, question, 0.0)
    assert gates.pools({}, 0.0)[0].levels[0].left == 8000
    ticket.gate.leave(ticket, Release(question.span_id, 1, "finished", TokenCounts(900, 100, source="provider")), 1.0)
    assert gates.pools({}, 1.0)[0].levels[0].left == 9000


def test_a_new_broker_knows_what_was_used_what_is_blocked_and_which_key_is_refused() -> None:
    limits = {"openai": LimitConfig(requests_per_minute=10)}
    gates = gates_of(limits)
    gates.keys_told(1, {"openai": [short_hash("sk-1")]}, 0.0)
    questions = [asked() for _ in range(8)]
    tickets = [enter(gates, question, 1.0) for question in questions]
    blocked = Release(questions[0].span_id, 1, "rate_limit", status_code=429, retry_after=30.0)
    tickets[0].gate.leave(tickets[0], blocked, 1.0)
    state = gates.state(1.0)
    assert state is not None
    assert not gates.is_changed
    assert gates.state(1.5) is None

    new = gates_of(limits)
    new.restore(state, 2.0)
    for question in questions[1:]:
        assert new.adopt(question, "", 2.0) is not None
    assert new.pools({}, 2.0)[0].running == 7
    assert new.pools({}, 2.0)[0].levels[0].left == 2
    gate = new.gate_of(asked(account=account_of("sk-1", None)))
    assert gate is not None
    wait = gate.wait("interactive", asked(), 2.0)
    assert wait is not None
    assert wait.word == "blocked"


def test_a_run_that_the_state_does_not_know_of_is_counted_by_the_new_broker() -> None:
    limits = {"openai": LimitConfig(requests_per_minute=60)}
    old = gates_of(limits)
    enter(old, asked(), 0.0)
    state = old.state(0.5)
    assert state is not None
    new = gates_of(limits)
    new.restore(state, 1.0)

    new.adopt(asked(), "", 1.5, went_at=0.4)  # the state knows of it
    new.adopt(asked(), "", 1.5, went_at=0.7)
    new.adopt(asked(), "", 1.5, went_at=1.2)  # this broker has granted it

    assert [level.left for pool in new.pools({}, 1.5) for level in pool.levels] == [58]


def test_a_pool_that_nobody_uses_is_forgotten_and_nothing_is_looked_at_again() -> None:
    gates = gates_of()
    fail_unlearned(gates, first := asked(), failed(first, 503), 0.0)
    assert gates.gate_of(asked()) is not None
    assert gates.refusal(asked(), IDLE_AFTER / 2) is None
    assert gates.gate_of(asked()) is not None
    assert gates.refusal(asked(), IDLE_AFTER + 1.0) is None
    assert gates.gate_of(asked()) is None
    assert gates.pools({}, IDLE_AFTER + 1.0) == []


def test_what_headers_said_is_kept_for_a_day_without_runs() -> None:
    gates = gates_of()
    question = asked()
    report = ResponseReport(question.span_id, 1, 200, [SaidLimit("requests", 600, 599, 1.0)])
    assert gates.learns_from(question, report, 0.0)
    ticket = gates.adopt(question, "", 0.0)
    assert ticket is not None
    ticket.gate.answered(ticket, report, 0.0)
    ticket.gate.leave(ticket, Release(question.span_id, 1, "finished"), 1.0)

    gates.refusal(asked(), TOLD_FOR / 2)
    assert gates.pools({}, TOLD_FOR / 2)[0].levels[0].limit == 600
    gates.refusal(asked(), TOLD_FOR + 2.0)
    assert gates.pools({}, TOLD_FOR + 2.0) == []


def test_a_run_that_goes_on_keeps_its_pool() -> None:
    gates = gates_of()
    fail_unlearned(gates, first := asked(), failed(first, 503), 0.0)
    ticket = enter(gates, asked(), 0.0)
    gates.refusal(asked(), 2 * IDLE_AFTER)
    assert gates.gate_of(asked()) is ticket.gate


def test_at_most_so_many_pools_are_learned() -> None:
    gates = gates_of()
    for number in range(MAX_LEARNED + 10):
        question = asked(f"model-x{number}")
        assert gates.learns_from(question, failed(question, 503), 0.0) is (number < MAX_LEARNED)
    assert len(gates.pools({}, 0.0)) == MAX_LEARNED


class CountedMoney:
    """A spending limit of a number of runs."""

    def __init__(self, runs: int) -> None:
        self.left = runs
        self.ended_runs: list[tuple[object, Release | None]] = []

    def refusal(self, question: Acquire, now: float) -> Refusal | None:  # noqa: ARG002 - see Spending
        return None if self.left > 0 else ("over_budget", "no money", None)

    def granted(self, question: Acquire, now: float) -> object:  # noqa: ARG002
        self.left -= 1
        return question.span_id

    def ended(self, charge: object, release: Release | None, now: float) -> None:  # noqa: ARG002
        self.ended_runs.append((charge, release))


def test_money_is_counted_for_every_run() -> None:
    money = CountedMoney(2)
    gates = PoolGates(Settings(providers=PROVIDERS), Random(1).uniform, money)
    one, other = asked(), asked("another", provider="unknown")
    assert gates.refusal(one, 0.0) is None
    tickets = [enter(gates, one, 0.0), enter(gates, other, 0.0)]
    refusal = gates.refusal(asked(), 0.0)
    assert refusal is not None
    assert refusal[0] == "over_budget"

    release = Release(one.span_id, 1, "finished")
    tickets[0].gate.leave(tickets[0], release, 1.0)
    tickets[1].gate.leave(tickets[1], None, 1.0)
    assert money.ended_runs == [(one.span_id, release), (other.span_id, None)]


def test_new_limits_count_at_once_and_what_was_used_stays_counted() -> None:
    table = LimitConfig(requests_per_minute=20, max_concurrency=30)
    gates = gates_of({"openai": table, "openai/gpt-4o": LimitConfig(requests_per_minute=1000)})
    for number in range(10):
        enter(gates, asked(), float(number))
    (account, pool) = gates.pools({}, 10.0)
    assert [(level.limit, level.left) for level in account.levels] == [(20, 10)]
    generation = gates.generation

    wider = {"openai": LimitConfig(requests_per_minute=100), "openai/gpt-4o": LimitConfig(max_concurrency=10)}
    gates.configure(Settings(providers=PROVIDERS, limits=wider), 10.0)

    assert gates.generation != generation
    (account, pool) = gates.pools({}, 10.0)
    assert [(level.limit, level.left) for level in account.levels] == [(100, 90)]
    assert (pool.levels, pool.concurrency, pool.running) == ([], 10, 10)
    question = asked()
    gate = gates.gate_of(question)
    assert gate is not None
    assert gate.wait("interactive", question, 10.0) is not None, "ten runs go on"

    gates.configure(Settings(providers=PROVIDERS), 11.0)
    assert gate.wait("interactive", question, 11.0) is None
    assert gates.gate_of(asked("gpt-4.1")) is None


def test_limits_that_are_new_hold_up_runs_that_nothing_limited() -> None:
    gates = gates_of()
    assert gates.gate_of(asked()) is None

    gates.configure(Settings(providers=PROVIDERS, limits={"openai": LimitConfig(max_concurrency=1)}), 0.0)
    enter(gates, asked(), 0.0)
    question = asked()
    gate = gates.gate_of(question)
    assert gate is not None
    assert gate.wait("interactive", question, 0.0) is not None


def test_a_caller_that_names_its_key_as_the_engine_names_any_of_several_has_the_engines_own_pool() -> None:
    gates = gates_of({"openai": LimitConfig(max_concurrency=3)})
    question = asked(account=f"{ANY_KEY}@")
    assert gates.gate_of(question) is gates.gate_of(asked())
    enter(gates, question, 0.0)


def test_a_ring_that_loses_its_last_key_lets_runs_go_on() -> None:
    gates = gates_of()
    gates.keys_told(1, {"openai": ["a", "b"]}, 0.0)
    before = gates.gate_of(asked())
    assert before is not None
    gates.keys_told(1, {"openai": []}, 0.0)

    assert before.expected_wait(asked(), 10, 0.0) == 0.0
    assert before.wait("interactive", asked(), 0.0) is None
    ticket = before.enter(asked(), 0.0)
    ticket.gate.leave(ticket, None, 0.0)


def test_a_held_lease_with_a_key_that_nobody_has_makes_no_pool_for_it() -> None:
    gates = gates_of()
    gates.keys_told(1, {"openai": ["a", "b"]}, 0.0)
    for number in range(10):
        assert gates.adopt(asked(), f"key{number}", 0.0) is not None
    assert {pool.key for pool in gates.pools({}, 0.0)} <= {"any", "a", "b"}


def test_there_are_so_many_pools_in_all_and_an_idle_one_makes_place() -> None:
    gates = gates_of({"openai": LimitConfig(requests_per_minute=6000)})
    for number in range(MAX_POOLS):
        question = asked(account=f"key{number}@")
        assert gates.refusal(question, 0.0) is None
        ticket = enter(gates, question, 0.0)
        ticket.gate.leave(ticket, None, 0.0)
    refused = gates.refusal(asked(account="one more@"), 10.0)
    assert refused is not None
    assert refused[0] == "queue_full"
    assert gates.gate_of(asked(account="one more@")) is None
    assert gates.refusal(asked(account="key7@"), 10.0) is None, "has its pool"
    assert gates.refusal(asked(provider="other"), 10.0) is None, "needs none"
    assert len(gates.pools({}, 10.0)) <= 2 * MAX_TOLD

    assert gates.refusal(asked(account="one more@"), CROWDED_AFTER) is None
    assert gates.gate_of(asked(account="one more@")) is not None


def test_nothing_is_kept_of_a_provider_that_no_run_asks_for() -> None:
    gates = gates_of()
    sizes = []
    for turn in range(2):
        for number in range(100):
            question = asked(provider=f"provider{turn}-{number}")
            fail_unlearned(gates, question, failed(question, 503), turn * 2000.0)
        gates.refusal(asked(provider=f"provider{turn}-0"), turn * 2000.0 + IDLE_AFTER)
        sizes.append(len(gates._rings))
    assert sizes == [0, 0]


def test_thousands_of_providers_with_keys_are_told_at_once() -> None:
    gates = gates_of()
    generation = gates.generation
    gates.keys_told(1, {f"provider{number}": ["a", "b"] for number in range(3000)}, 0.0)
    assert gates.generation == generation + 1, "runs are regrouped once"
