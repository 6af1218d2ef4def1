"""Until when runs may wait: the earliest first, and nothing is kept of runs that no longer wait."""

from __future__ import annotations

from headrace.wire.messages import Acquire
from headrace_engine.broker.wait_deadlines import WaitDeadlines
from headrace_engine.broker.waiting_run import WaitingRun


def run(span_id: str, since: float = 0.0) -> WaitingRun:
    return WaitingRun(b"ann", Acquire(span_id, 1, "openai", "m"), since)


def test_the_earliest_deadline_of_a_run_that_waits_is_the_next() -> None:
    waiting = {name: run(name, 1.0) for name in ("a", "b", "c")}
    deadlines = WaitDeadlines(lambda run: run.span_id in waiting)
    assert deadlines.next() is None
    for name, seconds in (("a", 5.0), ("b", 2.0), ("c", 3.0)):
        deadlines.add(waiting[name], seconds, len(waiting))

    assert deadlines.next() == 3.0
    del waiting["b"]
    assert deadlines.next() == 4.0
    assert [found.span_id for found in deadlines.due(6.0)] == ["c", "a"]
    assert deadlines.next() is None


def test_what_is_kept_does_not_grow_with_the_runs_that_have_waited() -> None:
    looked_at = 0
    waiting: set[str] = set()

    def is_waiting(run: WaitingRun) -> bool:
        nonlocal looked_at
        looked_at += 1
        return run.span_id in waiting

    deadlines = WaitDeadlines(is_waiting)
    waiting.add("first")
    deadlines.add(run("first"), 1.0, 1)
    for number in range(10_000):
        deadlines.add(run(str(number)), 100.0 + number, 1)

    before = looked_at
    assert [found.span_id for found in deadlines.due(1e9)] == ["first"]
    assert looked_at - before < 200
    assert looked_at < 20_000
