"""A run that was alone on a worker which hung at work is not tried again; in all other cases no run is found."""

from __future__ import annotations

import pytest

from headrace.errors import PoisonRunError
from headrace.wire.messages import Refuse
from headrace.wire.typed_errors import refusal_error
from headrace_engine.broker.hanging_runs import WORKED, HangingRuns


def after_a_hang(runs: list[str], before: float | None, after: float | None) -> HangingRuns:
    hanging = HangingRuns()
    hanging.suspected(7, before)
    hanging.hung(7, after, runs)
    return hanging


def test_the_only_run_of_a_worker_that_hung_at_work_is_not_tried_again() -> None:
    hanging = after_a_hang(["a"], 10.0, 12.5)

    reason = hanging.reason("a", is_retry=True)
    assert reason is not None
    assert "2.5 s of processor time" in reason
    assert hanging.reason("b", is_retry=True) is None


def test_a_first_attempt_is_another_run_with_the_same_id() -> None:
    assert after_a_hang(["a"], 10.0, 12.5).reason("a", is_retry=False) is None


@pytest.mark.parametrize(
    ("runs", "before", "after"),
    [
        (["a", "b"], 10.0, 12.5),
        ([], 10.0, 12.5),
        (["a"], 10.0, 10.0 + WORKED / 2),
        (["a"], None, 12.5),
        (["a"], 10.0, None),
    ],
    ids=["two runs", "none", "stopped", "not known before", "not known after"],
)
def test_no_run_is_found_where_it_is_not_certain(runs: list[str], before: float | None, after: float | None) -> None:
    hanging = after_a_hang(runs, before, after)

    assert hanging.reason("a", is_retry=True) is None


def test_no_run_is_found_where_the_worker_was_never_suspected() -> None:
    hanging = HangingRuns()
    hanging.hung(7, 100.0, ["a"])

    assert hanging.reason("a", is_retry=True) is None


def test_no_more_than_a_thousand_are_remembered() -> None:
    hanging = HangingRuns()
    for epoch in range(1500):
        hanging.suspected(epoch, 0.0)
        hanging.hung(epoch, 2.0, [f"sp_{epoch}"])

    assert hanging.reason("sp_0", is_retry=True) is None
    assert hanging.reason("sp_1499", is_retry=True) is not None


def test_the_caller_gets_the_error_for_it() -> None:
    error = refusal_error("sp_1", Refuse("sp_1", 2, "poison", "its worker hung"))

    assert isinstance(error, PoisonRunError)
    assert "its worker hung" in str(error)
