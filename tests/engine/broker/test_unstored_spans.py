"""Runs whose spans are not stored are counted, whether the run or the supervisor's report comes first."""

from __future__ import annotations

from headrace.wire.engine_status import ProcessStatus
from headrace_engine.broker.unstored_spans import NOT_KEPT, UnstoredSpans

OFF = [ProcessStatus("collector", None, "off", 0, "must be 700")]
ON = [ProcessStatus("collector", 7, "running", 0, "")]


def dropped(unstored: UnstoredSpans) -> dict[str, int]:
    status = unstored.status(None)
    return {} if status is None else status.dropped


def test_a_run_before_the_supervisors_first_report_is_counted_too() -> None:
    unstored = UnstoredSpans()
    unstored.granted(1)
    assert unstored.count == 0

    unstored.reported(OFF, {1})
    assert dropped(unstored) == {NOT_KEPT: 1}
    unstored.granted(1)
    unstored.reported(OFF, {1})
    assert dropped(unstored) == {NOT_KEPT: 2}


def test_while_spans_are_stored_no_run_is_counted() -> None:
    unstored = UnstoredSpans()
    unstored.granted(1)
    unstored.reported(ON, {1})
    unstored.granted(1)
    unstored.reported(OFF, {1})

    assert unstored.count == 0


def test_runs_on_workers_that_were_started_without_a_place_for_spans_are_counted() -> None:
    unstored = UnstoredSpans()
    unstored.reported(OFF, {1})
    unstored.reported(ON, {1})
    unstored.granted(1)
    unstored.granted(2)

    assert unstored.count == 1
