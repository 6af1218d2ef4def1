"""What several rounds of the benchmark say together."""

from __future__ import annotations

import pytest

from bench.contestants.headrace_clients import joined
from bench.summary import Result, Spread, summaries
from tests.bench.rounds_of_works import measured


def test_a_ratio_compares_with_the_floor_of_the_same_round() -> None:
    results = [
        measured("floor", "W1", 2.0),
        measured("headrace", "W1", 3.0),
        measured("floor", "W1", 4.0, number=1),
        measured("headrace", "W1", 8.0, number=1),
        measured("headrace", "W1", 9.0, number=2),  # the floor has failed in this round
    ]

    summary = summaries(results)["headrace", "W1"]

    assert summary.ratios == [1.5, 2.0]
    assert summary.micro() == pytest.approx(8.0)
    assert summary.over_rounds(Result.total_cpu) == Spread(8e-6, 3e-6, 9e-6)


def test_a_round_that_failed_is_told_and_not_counted() -> None:
    results = [
        Result("headrace", "W2", fault="it said '' where 'warm' was due"),
        measured("headrace", "W2", 3.0, number=1),
    ]

    found = summaries([*results, Result("httpx", "W2", fault="killed")])

    assert found["headrace", "W2"].fault == "it said '' where 'warm' was due"
    assert len(found["headrace", "W2"].rounds) == 1
    assert found["httpx", "W2"].rounds == []


def test_wrong_answers_are_counted() -> None:
    summary = summaries([measured("httpx", "W2", 1.0, faults=3), measured("httpx", "W2", 1.0, number=1)])["httpx", "W2"]

    assert summary.faults == 3
    assert summary.fault == "wrong text"


def test_cpu_is_told_by_process() -> None:
    summary = summaries([measured("headrace", "W3", {"client": 2.0, "workers": 5.0})])["headrace", "W3"]

    assert summary.roles() == ["client", "workers"]
    assert summary.micro("workers") == pytest.approx(5.0)
    assert summary.micro() == pytest.approx(7.0)


def test_the_curve_has_the_median_of_the_rounds_at_each_share() -> None:
    rounds = [measured("floor", "W2L", 1.0, p99=p99, number=number) for number, p99 in enumerate((1.0, 2.0, 9.0))]

    assert summaries(rounds)["floor", "W2L"].curve()[-1] == 2.0


def test_clients_of_one_engine_are_joined_with_the_times_of_the_slowest() -> None:
    fast, slow = (measured("headrace", "W2", 1.0, held=250, p99=p99, first=(p99, p99)).reading for p99 in (1.0, 4.0))
    assert fast is not None
    assert slow is not None

    both = joined([fast, slow])

    assert both.held == 500
    assert both.chunks == 2_000_000
    assert both.latency == [2.0, 4.0]
    assert both.first == [4.0, 4.0]
