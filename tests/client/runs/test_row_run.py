"""Runs of a batch job hand themselves over once, together with others, and end in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from headrace.errors import EngineUnavailableError, HeadraceError, RunError, RunTimeoutError
from headrace.pricing.prices import PriceTable
from headrace.runs.open_runs import OpenRun
from headrace.runs.row_run import EndedRuns, RowRun
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.runs.task_alarm import TasksToWake
from headrace.types import Message, RunLocalResult, Usage
from headrace.wire.messages import Finished, Grant, Status
from tests.waiting import wait_until

PRICES = PriceTable()


class FakeConnection:
    """In place of a connection. The test calls what is due later."""

    def __init__(self) -> None:
        self.aborted: list[str] = []
        self.later: list[Callable[[], None]] = []

    def post_abort(self, run: OpenRun, /) -> None:
        self.aborted.append(run.span_id)

    def post_withdraw(self, runs: Sequence[OpenRun], error: HeadraceError, /) -> None:
        """No test withdraws a run here."""

    def post_status(self, answer: Callable[[Status | HeadraceError], None], /) -> None:
        """No test asks for the status here."""

    def post_later(self, _: float, action: Callable[[], None], /) -> None:
        self.later.append(action)


def ended_runs() -> tuple[EndedRuns, FakeConnection]:
    ended, connection = EndedRuns(), FakeConnection()
    ended.use(connection)
    return ended, connection


def running(ended: EndedRuns, name: str = "sp_1", started: float = 0.0, timeout: float | None = None) -> RowRun:
    """Return a run that is on a worker; ``started``: how many seconds ago."""
    session = Session(RunPlan(name, "openai", "gpt-4o", b"", streams=False, total_timeout=timeout))
    session.start(0.0)
    session.granted(Grant(name, 1, "w1", "ipc://w1", 7), 0.0)
    return RowRun(session, "tr_1", time.monotonic() - started, 1, ended)


def finish(run: RowRun) -> None:
    """Be the I/O thread that gets the answer."""
    usage = Usage(1, 2, 3, source="provider")
    answer = Message(role="assistant", content="yes")
    run.session.ended(7, Finished(run.span_id, 1, 0, 0, "stop", "stop", usage, [], "gpt-4o", answer), 0.0)
    run.ended(time.monotonic(), TasksToWake())


def test_a_run_that_ends_has_its_result_and_is_handed_over_once() -> None:
    ended, _ = ended_runs()
    run = running(ended)
    finish(run)
    run.ended(time.monotonic(), TasksToWake())
    run.give_up(RunError("sp_1", "too late"))

    assert ended.take() == [run]
    assert ended.take() == []
    result = run.result(PRICES)
    assert isinstance(result, RunLocalResult)
    assert (result.text, result.span_id, result.trace_id) == ("yes", "sp_1", "tr_1")
    assert result.cost is not None


def test_a_run_that_is_given_up_has_its_error_whatever_comes_later() -> None:
    ended, connection = ended_runs()
    run = running(ended)
    run.give_up(RunError("sp_1", "stopped"))
    finish(run)

    assert ended.take() == [run]
    assert str(run.result(PRICES)) == "run sp_1: stopped"
    assert connection.aborted == ["sp_1"]


def test_a_run_ends_at_its_bound_where_its_i_o_thread_does_not_say_so() -> None:
    ended, _ = ended_runs()
    run = running(ended, started=10.0, timeout=8.0)
    run.look(time.monotonic())
    assert ended.take() == []
    run.limit(4.0)
    run.look(time.monotonic())

    assert ended.take() == [run]
    assert isinstance(run.result(PRICES), RunTimeoutError)


def test_a_run_whose_client_was_closed_says_so() -> None:
    ended, connection = ended_runs()
    run = running(ended)
    run.abandon()
    run.session.stop(0.0, "close")
    run.ended(time.monotonic(), TasksToWake())

    assert isinstance(run.result(PRICES), EngineUnavailableError)
    assert connection.aborted == ["sp_1"]


def test_the_job_is_woken_when_as_many_have_ended_as_it_waits_for() -> None:
    ended, connection = ended_runs()
    runs = [running(ended, f"sp_{number}") for number in range(3)]
    waiting = threading.Thread(target=lambda: ended.wait(3, 60.0))
    waiting.start()
    wait_until(lambda: ended._alarm is not None, 10.0, "the waiting thread")
    for run in runs:
        finish(run)
    waiting.join(60)

    assert not waiting.is_alive()
    assert ended.take() == runs
    assert len(connection.later) <= 1


def test_the_job_is_woken_for_fewer_after_a_moment() -> None:
    ended, connection = ended_runs()
    waiting = threading.Thread(target=lambda: ended.wait(3, 60.0))
    waiting.start()
    wait_until(lambda: ended._alarm is not None, 10.0, "the waiting thread")
    finish(running(ended))
    for action in connection.later:
        action()
    waiting.join(60)

    assert not waiting.is_alive()
    assert len(ended) == 1


def test_nobody_waits_longer_than_asked() -> None:
    ended, _ = ended_runs()
    ended.wait(1, 0.0)
    finish(running(ended))
    ended.wait(1, 60.0)

    assert len(ended.take()) == 1
