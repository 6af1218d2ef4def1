"""Whom a worker's hang is blamed on: the one run that it had, where its process worked; nobody where that is not so."""

from __future__ import annotations

import pytest

from headrace.errors import PoisonRunError
from headrace.wire.messages import Refuse
from headrace.wire.typed_errors import refusal_error
from headrace_engine.broker.hang_blame import WORKED, Blame


def blamed(runs: list[str], before: float | None, after: float | None) -> Blame:
    blame = Blame()
    blame.suspected(7, before)
    blame.hung(7, after, runs)
    return blame


def test_the_only_run_of_a_worker_that_worked_is_not_tried_again() -> None:
    blame = blamed(["a"], 10.0, 12.5)

    reason = blame.reason("a", 2)
    assert reason is not None
    assert "2.5 s of processor time" in reason
    assert blame.reason("b", 2) is None


def test_a_first_attempt_is_another_run_of_that_name() -> None:
    assert blamed(["a"], 10.0, 12.5).reason("a", 1) is None


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
def test_nobody_is_blamed_where_it_is_not_certain(runs: list[str], before: float | None, after: float | None) -> None:
    blame = blamed(runs, before, after)

    assert blame.reason("a", 2) is None


def test_a_hang_without_suspicion_blames_nobody() -> None:
    blame = Blame()
    blame.hung(7, 100.0, ["a"])

    assert blame.reason("a", 2) is None


def test_no_more_than_a_thousand_are_remembered() -> None:
    blame = Blame()
    for epoch in range(1500):
        blame.suspected(epoch, 0.0)
        blame.hung(epoch, 2.0, [f"sp_{epoch}"])

    assert blame.reason("sp_0", 2) is None
    assert blame.reason("sp_1499", 2) is not None


def test_the_caller_gets_the_error_for_it() -> None:
    error = refusal_error("sp_1", Refuse("sp_1", 2, "poison", "its worker hung"))

    assert isinstance(error, PoisonRunError)
    assert "its worker hung" in str(error)
