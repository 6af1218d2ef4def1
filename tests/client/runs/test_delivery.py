"""What a delivery promises to the reader of a run: all events, one result, in time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.errors import EngineUnavailableError, RunError, RunTimeoutError
from headrace.runs.delivery import RunHandle
from headrace.runs.result_future import ResultFuture
from headrace.runs.task_alarm import TasksToWake
from headrace.types import RunEvent, RunLocalResult
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS, Aborted
from tests.client.runs.deliveries import FakeRun
from tests.waiting import busyness, wait_until


def result_of(run: FakeRun) -> RunLocalResult:
    result = run.delivery.see_result()
    assert isinstance(result, RunLocalResult)
    return result


def test_events_are_taken_once_and_in_order() -> None:
    run = FakeRun()
    run.says("a", "b")
    assert run.delivery.take() == ["a", "b"]
    run.says("c")

    assert run.delivery.take() == ["c"]
    assert run.delivery.take() == []


def test_credit_is_asked_for_before_the_window_is_used_up() -> None:
    for count, asked in ((WINDOW_EVENTS * 3 // 4 - 1, 0), (WINDOW_EVENTS * 3 // 4, 1)):
        run = FakeRun()
        run.says(*["x"] * count)
        run.delivery.take()
        assert run.connection.credits == asked


def test_credit_that_is_given_when_events_arrive_is_not_asked_for() -> None:
    run = FakeRun()
    for _ in range(2 * WINDOW_EVENTS):
        run.says("x")
        run.delivery.take()

    assert run.connection.credits == 0


def test_credit_counts_characters_too() -> None:
    run = FakeRun()
    run.says("x" * (WINDOW_CHARACTERS * 3 // 4))
    run.delivery.take()

    assert run.connection.credits == 1


def test_an_abort_before_the_result_was_seen_counts() -> None:
    run = FakeRun()
    run.says("all")
    run.ends()

    run.delivery.abort()

    assert getattr(run.delivery.see_result(), "aborted", None) is True
    assert result_of(run).text == "all"


def test_an_abort_after_the_result_was_seen_changes_nothing_and_stops_nothing() -> None:
    run = FakeRun()
    run.says("all")
    run.ends()
    seen = run.delivery.see_result()

    run.delivery.abort()

    assert run.delivery.see_result() is seen
    assert getattr(seen, "aborted", None) is False
    assert (run.delivery.outcome.is_aborted, run.connection.aborts) == (False, 0)


def test_an_abort_is_asked_for_once() -> None:
    run = FakeRun()
    run.delivery.abort()
    run.delivery.abort()

    assert run.connection.aborts == 1


def test_dropping_the_last_handle_aborts_a_run_that_has_not_ended() -> None:
    running, over = FakeRun(), FakeRun()
    over.ends()
    interests = [RunHandle(running.delivery), RunHandle(over.delivery)]
    interests.clear()
    gc.collect()

    assert (running.connection.aborts, over.connection.aborts) == (1, 0)


def test_a_reader_that_waits_takes_no_processor_time() -> None:
    run = FakeRun()
    used: list[float] = []

    def read() -> None:
        before = time.thread_time()
        run.delivery.wait()
        used.append(time.thread_time() - before)

    reader = threading.Thread(target=read)
    reader.start()
    threading.Event().wait(2.2)  # the waiting is what is measured
    run.says("x")
    reader.join(60)

    assert used[0] < 0.05


@pytest.mark.parametrize("what", ["says", "ends", "abort"])
def test_a_thread_wakes_for_events_for_the_end_and_for_an_abort(what: str) -> None:
    run = FakeRun()
    reader = threading.Thread(target=run.delivery.wait)
    reader.start()
    wait_until(lambda: run.delivery._waiter is not None, 5.0, "a reader that waits")

    {"says": lambda: run.says("x"), "ends": run.ends, "abort": run.delivery.abort}[what]()
    began = time.monotonic()
    reader.join(60)

    assert time.monotonic() - began < 0.5 * busyness()


def test_a_reader_finds_events_though_the_io_thread_does_not_wake_it() -> None:
    run = FakeRun()
    reader = threading.Thread(target=run.delivery.wait)
    reader.start()
    wait_until(lambda: run.delivery._waiter is not None, 5.0, "a reader that waits")
    run.delivery.session.events.append("x")

    reader.join(1.0 + 4.0 * busyness())
    assert not reader.is_alive()


def test_a_thread_that_waits_ends_the_run_at_its_bound() -> None:
    """The total timeout and 5 s, from the moment when the run was asked for."""
    run = FakeRun(total_timeout=2.0, started=6.5)
    run.says("half")
    began = time.monotonic()

    error = ResultFuture[RunLocalResult](run.delivery, RunHandle(run.delivery)).exception(30)

    assert isinstance(error, RunTimeoutError)
    assert (error.clock, error.limit, error.partial_text) == ("total", 2.0, "half")
    assert 0.4 < time.monotonic() - began < 1.5 + busyness()
    assert run.connection.aborts == 1


def test_a_run_is_not_ended_before_its_bound() -> None:
    run = FakeRun(total_timeout=2.0)
    assert run.delivery.bound == pytest.approx(run.delivery.started_at + 7.0)

    run.delivery.look(run.delivery.bound - 0.001)
    assert not run.delivery.outcome.has_ended
    run.delivery.look(run.delivery.bound)
    assert run.delivery.outcome.has_ended


def test_a_run_that_was_given_up_keeps_its_first_error() -> None:
    run = FakeRun()
    error = EngineUnavailableError("nowhere", "gone")
    run.delivery.give_up(error)
    run.says("late")
    run.ends()
    run.delivery.give_up(RunError("sp", "another"))

    assert run.delivery.see_result() is error
    assert run.connection.aborts == 1


def test_a_run_that_has_ended_is_not_given_up() -> None:
    run = FakeRun()
    run.says("all")
    run.ends()
    run.delivery.give_up(EngineUnavailableError("nowhere", "gone"))

    assert result_of(run).text == "all"
    assert run.connection.aborts == 0


def test_a_run_that_was_given_up_is_not_aborted_though_its_worker_is_told_to_stop() -> None:
    """The session then ends as stopped; its caller did not abort, and gets the error."""
    run = FakeRun()
    error = EngineUnavailableError("nowhere", "gone")
    run.delivery.give_up(error)
    run.delivery.session.stop(0.0)
    run.delivery.session.due(1.0)

    assert isinstance(run.delivery.session.ending, Aborted)
    assert run.delivery.see_result() is error


def test_a_task_wakes_for_events_for_the_end_and_for_an_abort() -> None:
    async def main() -> None:
        for act in ("says", "ends", "abort"):
            run = FakeRun()
            loop = asyncio.get_running_loop()
            waiting = asyncio.ensure_future(run.delivery.wait_async(loop))
            await asyncio.sleep(0)
            to_wake = TasksToWake()
            if act == "abort":
                run.delivery.abort()
            else:
                run.delivery.session.events.append("x")
                run.delivery.arrived(to_wake)
                assert list(to_wake.futures) == [loop]
                to_wake.futures[loop][0].set_result(None)
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_a_future_that_the_program_has_resolved_does_not_keep_others_waiting() -> None:
    run = FakeRun()
    first = ResultFuture[RunLocalResult](run.delivery, RunHandle(run.delivery))
    second = ResultFuture[RunLocalResult](run.delivery, RunHandle(run.delivery))
    first.set_exception(ValueError("of its holder"))
    run.ends()

    assert second.result(0).text == ""


def test_a_run_whose_lock_is_held_ends_once_it_is_free() -> None:
    run = FakeRun()
    future = ResultFuture[RunLocalResult](run.delivery, RunHandle(run.delivery))
    with run.delivery._lock:
        ending = threading.Thread(target=run.ends)
        ending.start()
        ending.join(30)
        assert not ending.is_alive()
        assert not run.delivery.outcome.has_ended

    assert future.result(30).text == ""


class DeliveryMachine(RuleBasedStateMachine):
    """A worker that sends, a reader, a caller that may abort, and a watchdog that may give the run up: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.run = FakeRun()
        self.said: list[RunEvent] = []
        self.taken: list[RunEvent] = []
        self.has_ended = False
        self.seen: object = None
        self.future: ResultFuture[RunLocalResult] | None = None

    @precondition(lambda self: not self.has_ended)
    @rule(events=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
    def the_worker_sends(self, events: list[RunEvent]) -> None:
        self.run.says(*events)
        self.said += events

    @precondition(lambda self: not self.has_ended)
    @rule()
    def the_worker_ends(self) -> None:
        self.run.ends()
        self.has_ended = True

    @precondition(lambda self: not self.has_ended)
    @rule()
    def the_run_is_given_up(self) -> None:
        self.run.delivery.give_up(EngineUnavailableError("nowhere", "gone"))
        self.has_ended = True

    @rule()
    def the_reader_takes(self) -> None:
        self.taken += self.run.delivery.take()

    @rule()
    def the_caller_aborts(self) -> None:
        self.run.delivery.abort()

    @precondition(lambda self: self.future is None)
    @rule()
    def the_caller_asks_for_the_result(self) -> None:
        self.future = ResultFuture(self.run.delivery, RunHandle(self.run.delivery))

    @precondition(lambda self: self.has_ended)
    @rule()
    def the_caller_looks(self) -> None:
        result = self.run.delivery.see_result()
        assert self.seen is None or result is self.seen
        self.seen = result

    @invariant()
    def the_reader_gets_each_event_once_and_in_order(self) -> None:
        assert self.taken == self.said[: len(self.taken)]

    @invariant()
    def a_future_resolves_at_the_end_with_what_the_caller_sees(self) -> None:
        if self.future is None:
            return
        assert self.future.done() == self.has_ended
        if self.has_ended:
            result = self.run.delivery.see_result()
            assert result is (self.future.exception(0) or self.future.result(0))

    @invariant()
    def the_worker_is_told_once_at_most_by_the_caller_and_once_by_giving_up(self) -> None:
        assert self.run.connection.aborts <= 2

    @invariant()
    def a_result_has_all_text_that_arrived(self) -> None:
        if isinstance(self.seen, RunLocalResult):
            assert self.seen.text == "".join(event for event in self.said if isinstance(event, str))
            assert getattr(self.seen, "aborted", None) is self.run.delivery.outcome.is_aborted


TestDeliveryMachine = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(stateful_step_count=20, deadline=None)
