"""What the broker knows of the engine's processes and spans.

What was reported last, and nothing before the first report.
"""

from __future__ import annotations

from headrace.wire.engine_status import ProcessStatus, SpanStatus
from headrace_engine.broker.engine_reports import EngineReports

COLLECTOR = ProcessStatus("collector", 5, "running", 0)
OFF = ProcessStatus("collector", None, "off", 0, "must be 700")
SERVING = ProcessStatus("w1", 6, "running", 0, epoch=1, has_served=True)
STARTING = ProcessStatus("w2", 7, "running", 0, epoch=2)
RESTARTED = ProcessStatus("w3", 8, "running", 1, epoch=3)
ENDED = ProcessStatus("w4", None, "waiting", 2, "signal 9")


def reported(*processes: ProcessStatus) -> EngineReports:
    reports = EngineReports()
    reports.processes_reported(list(processes), set())
    return reports


def test_spans_are_stored_unless_the_supervisor_says_that_they_are_not() -> None:
    assert EngineReports().keeps_spans
    assert reported(COLLECTOR).keeps_spans
    assert not reported(OFF, SERVING).keeps_spans
    assert not reported(SERVING).keeps_spans


def test_a_worker_is_starting_until_it_has_served_and_a_second_start_does_not_count() -> None:
    assert reported(SERVING, STARTING).is_worker_starting
    assert not reported(SERVING, RESTARTED, ENDED).is_worker_starting


def test_workers_that_run_are_known_by_their_epochs_and_those_that_ended_by_their_reasons() -> None:
    reports = reported(COLLECTOR, SERVING, STARTING, ENDED)

    assert reports.running_workers() == {1: True, 2: False}
    assert list(reports.failed_workers()) == ["w4 ended with signal 9"]
    assert (reports.worker_name(2), reports.worker_name(9)) == ("w2", "")


def test_the_status_of_spans_says_how_old_it_is() -> None:
    reports = reported(COLLECTOR)
    assert reports.span_status(1.0) is None

    reports.spans_reported(SpanStatus("/data", stored=3), 1.0)

    assert reports.span_status(3.5) == SpanStatus("/data", stored=3, age=2.5)
