"""The count of runs whose spans nobody keeps: whatever the broker hears first, the supervisor's word or a run."""

from __future__ import annotations

from headrace.wire.engine_status import ProcessStatus
from headrace_engine.broker.unkept_spans import NOT_KEPT, Unkept

OFF = [ProcessStatus("collector", None, "off", 0, "must be 700")]
ON = [ProcessStatus("collector", 7, "running", 0, "")]


def dropped(unkept: Unkept) -> dict[str, int]:
    status = unkept.status(None)
    return {} if status is None else status.dropped


def test_a_run_before_the_supervisors_first_word_is_counted_too() -> None:
    unkept = Unkept()
    unkept.granted(1)
    assert unkept.count == 0

    unkept.reported(OFF, {1})
    assert dropped(unkept) == {NOT_KEPT: 1}
    unkept.granted(1)
    unkept.reported(OFF, {1})
    assert dropped(unkept) == {NOT_KEPT: 2}


def test_where_spans_are_kept_no_run_is_counted() -> None:
    unkept = Unkept()
    unkept.granted(1)
    unkept.reported(ON, {1})
    unkept.granted(1)
    unkept.reported(OFF, {1})

    assert unkept.count == 0


def test_workers_from_before_are_counted_until_they_are_replaced() -> None:
    unkept = Unkept()
    unkept.reported(OFF, {1})
    unkept.reported(ON, {1})
    unkept.granted(1)
    unkept.granted(2)

    assert unkept.count == 1
