"""How many tokens a run reserves, before its answer is known."""

from __future__ import annotations

import pytest

from headrace.wire.messages import TokenCounts
from headrace_engine.limits.token_estimates import (
    DEFAULT_OUTPUT,
    TokenEstimates,
    cost_of,
    counted_tokens,
    counts_whole_output,
)


def test_before_the_first_answer_a_default_is_reserved() -> None:
    estimates = TokenEstimates()

    assert estimates.cost(100, 0, whole_output=False) == cost_of(100, DEFAULT_OUTPUT)
    assert estimates.cost(100, 20, whole_output=False) == cost_of(100, 20)


def test_most_past_answers_were_not_longer_than_what_is_reserved() -> None:
    estimates = TokenEstimates()
    for length in range(1, 201):
        estimates.learn(100, 100, length)

    assert 175 <= estimates.likely_output <= 185


def test_among_many_runs_each_reserves_little_more_than_the_mean() -> None:
    estimates = TokenEstimates()
    for length in range(1, 201):
        estimates.learn(100, 100, length)

    alone = estimates.cost(0, 0, whole_output=False).output_tokens
    few = estimates.cost(0, 0, whole_output=False, running=9).output_tokens
    many = estimates.cost(0, 0, whole_output=False, running=10_000).output_tokens

    assert alone == few == estimates.likely_output
    assert 95 <= many <= 105


@pytest.mark.parametrize(("api", "reserved"), [("openai-chat", 4096), ("anthropic", DEFAULT_OUTPUT)])
def test_where_the_provider_counts_the_callers_limit_all_of_it_is_reserved(api: str, reserved: int) -> None:
    cost = TokenEstimates().cost(100, 4096, whole_output=counts_whole_output(api))

    assert cost == cost_of(100, reserved)


def test_the_estimate_of_input_learns_from_what_providers_count() -> None:
    estimates = TokenEstimates()
    for _ in range(50):
        estimates.learn(100, 150, 10)

    assert estimates.cost(1000, 0, whole_output=False).input_tokens == pytest.approx(1500, abs=5)


def test_absurd_figures_correct_the_estimate_only_so_far() -> None:
    estimates = TokenEstimates()
    estimates.learn(1, 10**12, 10)

    assert estimates.cost(100, 0, whole_output=False).input_tokens == 1000


def test_anthropic_does_not_count_input_from_its_cache() -> None:
    tokens = TokenCounts(100, 20, cached_input_tokens=80)

    assert counted_tokens(tokens, "anthropic") == (20, 20)
    assert counted_tokens(tokens, "openai-chat") == (100, 20)


def test_what_was_learned_goes_to_the_next_broker() -> None:
    estimates = TokenEstimates()
    for length in range(1, 60):
        estimates.learn(100, 130, length)

    copy = TokenEstimates.from_state(estimates.to_state())

    assert copy.input_ratio == estimates.input_ratio
    assert abs(copy.likely_output - estimates.likely_output) <= 8
