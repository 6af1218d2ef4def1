"""In how many rounds a target of the benchmark is met."""

from __future__ import annotations

from bench.summary import Result
from bench.targets import TARGETS, Verdict, verdicts
from tests.bench.rounds_of_works import measured


def verdict_on(title: str, results: list[Result]) -> Verdict:
    return next(verdict for verdict in verdicts(results) if verdict.target.title == title)


def test_each_round_is_held_against_the_target() -> None:
    results = []
    for number, cpu in enumerate((1.4, 1.5, 1.6)):
        results += [
            measured("floor", "W1", 1.0, number=number),
            measured("headrace", "W1", cpu, number=number),
        ]

    verdict = verdict_on("W1", results)

    assert verdict.met == 2
    assert [verdict.target.word(value) for value in verdict.figures] == ["1.40", "1.50", "1.60"]


def test_streams_held_must_not_be_fewer() -> None:
    results = [measured("floor", "W2", 1.0), measured("headrace", "W2", 1.0, held=499)]

    assert verdict_on("W2 held", results).met == 0
    assert verdict_on("W2 held", results).target.wanted == "≥ 500 streams"


def test_the_first_chunk_is_held_against_the_floors() -> None:
    results = [
        measured("floor", "W2L", 1.0, first=(3.0, 4.0)),
        measured("headrace", "W2L", 1.0, first=(3.5, 8.0)),
    ]

    assert verdict_on("time to first chunk added in W2L, p50", results).figures == [0.5]
    assert verdict_on("time to first chunk added in W2L, p50", results).met == 1
    assert verdict_on("time to first chunk added in W2L, p99", results).met == 0


def test_a_round_without_a_floor_has_no_verdict() -> None:
    assert verdicts([measured("headrace", "W1", 1.0), measured("floor", "W1", 1.0, number=1)]) == []


def test_the_targets_are_those_that_the_project_has_set() -> None:
    assert {target.title: target.bound for target in TARGETS} == {
        "W1": 1.5,
        "W1b": 2.2,
        "W2": 1.8,
        "W2 held": 500,
        "W2 latency p99": 5,
        "W2M": 2.4,
        "W2L": 3,
        "W3": 5,
        "W4": 12,
        "W2 in 500 threads": 3,
        "time to first chunk added in W2L, p50": 1,
        "time to first chunk added in W2L, p99": 3,
    }
