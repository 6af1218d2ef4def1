"""What an outcome promises.

It is decided once, an abort counts until the result was seen, and the result never changes.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.answers.assembly import ResultFacts
from headrace.errors import EngineUnavailableError, HeadraceError, ProviderProtocolError, RunError, WorkerLostError
from headrace.pricing.prices import Price, PriceTable
from headrace.runs.endings import Ending
from headrace.runs.outcome import ResultOrError, RunOutcome
from headrace.runs.run_plan import RunPlan
from headrace.types import Message, RunEmbeddingResult, RunEvent, RunLocalResult, StreamResult, Usage
from headrace.wire.messages import Aborted, Finished, ToolCallText
from tests.repetition import repeated

SPAN = "sp_0123456789abcdef"
USAGE = Usage(1, 2, 3, source="provider")
FACTS = ResultFacts(SPAN, "tr_1", "openai", "gpt-4o", 12.0, 1)
EVENTS: list[RunEvent] = ["Hel", "lo"]
LOST = WorkerLostError(SPAN, "gone", "Hello")


def plan(*, streams: bool = True) -> RunPlan:
    return RunPlan(SPAN, "openai", "gpt-4o", b"", streams)


def finished(**changes: Any) -> Finished:
    facts: dict[str, Any] = {"usage": USAGE, "tool_calls": [], "model": "gpt-4o"}
    return Finished(SPAN, 1, 2, 5, "stop", "stop", **facts | changes)


def ended(ending: Ending | None) -> RunOutcome:
    outcome = RunOutcome()
    outcome.end(ending)
    return outcome


def seen(outcome: RunOutcome, *, streams: bool = True) -> ResultOrError:
    return outcome.see(plan(streams=streams), FACTS, EVENTS)


# What the caller gets.


def test_a_finished_stream_is_a_result_with_its_text() -> None:
    result = seen(ended(finished()))

    assert isinstance(result, StreamResult)
    assert (result.text, result.aborted, result.usage) == ("Hello", False, USAGE)


def test_a_result_says_which_wire_format_answered_also_where_an_abort_came_late() -> None:
    late = ended(finished(wire_format="openai-responses"))
    late.abort()

    for outcome in (ended(finished(wire_format="openai-responses")), late):
        result = seen(outcome)
        assert isinstance(result, StreamResult)
        assert result.wire_format == "openai-responses"


def test_a_run_without_a_stream_has_a_result_that_knows_no_abort() -> None:
    result = seen(ended(finished()), streams=False)

    assert type(result) is RunLocalResult


def test_an_embedding_is_a_result_with_its_vectors() -> None:
    result = seen(ended(finished(vectors=[[0.5]])), streams=False)

    assert isinstance(result, RunEmbeddingResult)
    assert result.embeddings == [[0.5]]


def test_an_error_is_what_the_caller_gets() -> None:
    assert seen(ended(LOST)) is LOST


def test_a_tool_call_with_broken_arguments_is_an_error_with_the_text() -> None:
    result = seen(ended(finished(tool_calls=[ToolCallText("c1", "look", "{")])))

    assert isinstance(result, ProviderProtocolError)
    assert result.partial_text == "Hello"


def test_the_error_of_a_broken_tool_call_without_a_stream_has_the_text_of_the_message() -> None:
    answer = finished(tool_calls=[ToolCallText("c1", "look", "{")], message=Message("assistant", "Hello"))
    result = ended(answer).see(plan(streams=False), FACTS, [])

    assert isinstance(result, ProviderProtocolError)
    assert (result.partial_text, result.status_code) == ("Hello", 200)


def test_a_result_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> RunLocalResult:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("headrace.runs.outcome.finished_result", fail)
    result = seen(ended(finished()))

    assert isinstance(result, RunError)
    assert (result.partial_text, "a fault of ours" in result.reason) == ("Hello", True)


def test_a_result_has_its_cost_and_an_error_has_none() -> None:
    prices = PriceTable({"gpt-4o": Price(input=1.0, output=10.0)})
    result = ended(finished()).see(plan(), FACTS, EVENTS, prices)

    assert isinstance(result, StreamResult)
    assert result.cost == pytest.approx((1 * 1.0 + 2 * 10.0) / 1e6)
    assert ended(LOST).see(plan(), FACTS, EVENTS, prices) is LOST


# What an abort changes.


@pytest.mark.parametrize("ending", [finished(), Aborted(SPAN, 1, 2, USAGE), LOST, None], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("is_first", [True, False], ids=["abort first", "end first"])
def test_an_abort_that_counts_wins_over_every_ending(ending: Ending | None, is_first: bool) -> None:
    outcome = RunOutcome() if is_first else ended(ending)
    assert outcome.abort()
    if is_first:
        outcome.end(ending)
    result = seen(outcome)

    assert isinstance(result, StreamResult)
    assert (result.aborted, result.text, result.finish_reason) == (True, "Hello", None)


@pytest.mark.parametrize("ending", [finished(), Aborted(SPAN, 1, 2, USAGE)], ids=["finished", "aborted"])
def test_an_aborted_run_has_the_usage_of_its_workers_last_message(ending: Ending) -> None:
    outcome = ended(ending)
    outcome.abort()
    result = seen(outcome)

    assert isinstance(result, StreamResult)
    assert result.usage == USAGE


def test_an_abort_of_a_run_that_was_given_up_wins_too() -> None:
    outcome = RunOutcome()
    outcome.give_up(LOST)
    outcome.abort()
    outcome.end(None)

    assert getattr(seen(outcome), "aborted", None) is True


def test_an_aborted_run_without_a_stream_has_no_partial_result() -> None:
    outcome = ended(finished())
    outcome.abort()

    assert isinstance(seen(outcome, streams=False), EngineUnavailableError)


def test_an_abort_after_the_result_was_seen_changes_nothing() -> None:
    outcome = ended(finished())
    result = seen(outcome)

    assert not outcome.abort()
    assert not outcome.is_aborted
    assert seen(outcome) is result


def test_dropping_a_run_that_has_ended_is_no_abort_and_dropping_one_that_runs_is() -> None:
    running, over = RunOutcome(), ended(finished())

    assert (running.abandon(), over.abandon()) == (True, False)
    assert (running.is_aborted, over.is_aborted) == (True, False)


def test_a_worker_may_end_a_run_as_aborted_without_being_told() -> None:
    outcome = ended(Aborted(SPAN, 1, 2, USAGE))

    assert getattr(seen(outcome), "aborted", None) is True
    assert outcome.counts_as_aborted(outcome.ending)


# A run that is given up.


def test_a_run_that_was_given_up_keeps_its_error_though_its_session_then_stops_the_worker() -> None:
    """The caller did not abort: the session's ending must not look as if it had."""
    outcome = RunOutcome()
    assert outcome.give_up(LOST)
    outcome.end(Aborted(SPAN, 1, 2, USAGE))

    assert seen(outcome) is LOST


def test_a_run_that_has_ended_is_not_given_up() -> None:
    outcome = ended(finished())

    assert not outcome.give_up(LOST)
    assert not outcome.is_given_up
    assert isinstance(seen(outcome), StreamResult)


ENDINGS = st.sampled_from([finished(), Aborted(SPAN, 1, 2, USAGE), LOST, EngineUnavailableError("x", "gone"), None])


class OutcomeMachine(RuleBasedStateMachine):
    """All that can happen to a run, in any order, any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome = RunOutcome()
        self.decided: list[Ending | None] = []
        self.result: ResultOrError | None = None
        self.aborted_in_time = False

    @rule()
    def the_caller_aborts(self) -> None:
        has_changed = self.outcome.abort()
        assert has_changed == (self.result is None and not self.aborted_in_time)
        self.aborted_in_time |= has_changed

    @rule()
    def nobody_holds_the_run(self) -> None:
        has_changed = self.outcome.abandon()
        assert has_changed == (not self.decided and not self.aborted_in_time)
        self.aborted_in_time |= has_changed

    @rule(error=st.sampled_from([LOST, EngineUnavailableError("x", "gone")]))
    def the_run_is_given_up(self, error: HeadraceError) -> None:
        if self.outcome.give_up(error):
            assert self.outcome.end(None)
            self.decided.append(error)

    @rule(ending=ENDINGS)
    def the_session_ends(self, ending: Ending | None) -> None:
        if self.outcome.end(ending):
            self.decided.append(ending)

    @precondition(lambda self: self.decided)
    @rule()
    def the_caller_looks(self) -> None:
        result = seen(self.outcome)
        assert self.result is None or result is self.result
        self.result = result

    @invariant()
    def the_ending_is_decided_once(self) -> None:
        assert len(self.decided) == self.outcome.has_ended
        assert self.outcome.ending is (self.decided[0] if self.decided else None)

    @invariant()
    def the_result_is_aborted_if_the_caller_said_so_in_time(self) -> None:
        assert self.outcome.is_aborted == self.aborted_in_time
        if self.result is None:
            return
        is_wanted = self.aborted_in_time or isinstance(self.decided[0], Aborted)
        assert getattr(self.result, "aborted", False) == is_wanted
        if not is_wanted and isinstance(self.decided[0], HeadraceError):
            assert self.result is self.decided[0]


TestOutcomeMachine = OutcomeMachine.TestCase
TestOutcomeMachine.settings = settings(max_examples=repeated(30, 100), stateful_step_count=12, deadline=None)


@given(ENDINGS, ENDINGS)
def test_the_first_of_two_endings_stays(first: Ending | None, second: Ending | None) -> None:
    outcome = RunOutcome()

    assert (outcome.end(first), outcome.end(second)) == (True, False)
    assert outcome.ending is first
