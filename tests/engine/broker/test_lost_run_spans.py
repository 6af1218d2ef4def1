"""The broker stores a span of each run whose worker or client went away."""

from __future__ import annotations

import pytest

from headrace.spans.span import CLIENT_LOST, LOST, Rank
from headrace.wire.messages import Acquire, Hold, Release
from headrace_engine.broker.admission import Admission
from headrace_engine.broker.leases import UnfinishedRun
from headrace_engine.broker.lost_run_spans import lost_run_spans

ANN = b"ann"
BOB = b"bob"


@pytest.fixture
def admission() -> Admission:
    """Ann has runs on both workers and one that waits; Bob has one."""
    made = Admission(max_runs_per_worker=2, max_waiting_runs=10)
    for epoch in (1, 2):
        made.worker_joined(f"w{epoch}", f"ipc://w{epoch}", epoch)
    for client, span_id in ((ANN, "a"), (ANN, "b"), (BOB, "c"), (ANN, "d"), (ANN, "waits")):
        made.acquired(client, Acquire(span_id, 1, "openai", "m", is_traced=span_id != "d"), 100.0)
    return made


def test_the_unfinished_runs_of_a_worker_have_a_lease_on_it(admission: Admission) -> None:
    assert admission.unfinished_on(1) == [
        UnfinishedRun("a", 1, "openai", "m", "w1", 100.0),
        UnfinishedRun("c", 1, "openai", "m", "w1", 100.0),
    ]
    assert [run.span_id for run in admission.unfinished_on(2)] == ["b"], "d wants no span"
    assert admission.unfinished_on(3) == []


def test_the_unfinished_runs_of_a_client_have_a_lease(admission: Admission) -> None:
    assert [run.span_id for run in admission.unfinished_of(ANN)] == ["a", "b"]
    admission.released(ANN, Release("a", 1), 100.0)
    assert [run.span_id for run in admission.unfinished_of(ANN)] == ["b", "waits"], (
        "the lease of a went to the run that waited"
    )
    assert admission.unfinished_of(b"nobody") == []


def test_of_a_lease_of_an_earlier_broker_the_broker_stores_a_span_if_the_client_tells_its_question(
    admission: Admission,
) -> None:
    question = Acquire("told", 1, "openai", "m")
    admission.held(BOB, Hold("untold", 1, 1), 101.0)
    admission.held(BOB, Hold("told", 1, 1, question), 102.0)
    admission.held(BOB, Hold("other", 2, 1, question), 102.0)

    assert [run.span_id for run in admission.unfinished_of(BOB)] == ["c", "told"]
    assert admission.is_traced("told")
    assert admission.unfinished_of(BOB)[1].asked_at == 102.0


@pytest.mark.parametrize("error_type", [LOST, CLIENT_LOST])
def test_the_span_says_what_the_broker_knows(admission: Admission, error_type: str) -> None:
    (span,) = lost_run_spans(admission.unfinished_of(BOB), error_type, "why", 103.0, 1000.0)

    assert (span.span_id, span.rank, span.provider, span.model) == ("c", Rank.STUB, "openai", "m")
    assert (span.status, span.error_type, span.error) == ("error", error_type, "why")
    assert (span.started_at, span.ended_at, span.duration_seconds) == (997.0, 1000.0, 3.0)
    (attempt,) = span.attempts
    assert (attempt.number, attempt.worker, attempt.started_at, attempt.ended_at) == (1, "w1", 997.0, None)
