"""What a delivery promises to threads and tasks that wait for the first event of a run: nobody is missed or disturbed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.errors import EngineUnavailableError
from headrace.types import ReasoningDelta, RunEvent, Usage, UsageUpdate
from tests.client.runs.deliveries import SPAN, FakeRun
from tests.waiting import wait_until


@pytest.mark.parametrize("what", ["text", "reasoning", "usage", "end", "abort", "given up"])
def test_every_thread_that_waits_wakes_for_any_event_for_the_end_and_for_an_abort(what: str) -> None:
    run = FakeRun()
    acts: dict[str, Callable[[], None]] = {
        "text": lambda: run.says("x"),
        "reasoning": lambda: run.says(ReasoningDelta("I think.")),
        "usage": lambda: run.says(UsageUpdate(Usage(1, 0, 1, source="provider"))),
        "end": run.ends,
        "abort": run.delivery.abort,
        "given up": lambda: run.delivery.give_up(EngineUnavailableError("nowhere", "gone")),
    }
    threads = [threading.Thread(target=run.delivery.wait_for_start, args=[limit]) for limit in (None, None, 3600.0)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(run.delivery._start_waiters or ()) == 3, 5.0, "three threads that wait")

    acts[what]()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert run.delivery._start_waiters in (None, [])


def test_a_thread_that_waits_for_the_start_does_not_take_the_wake_up_of_the_reader() -> None:
    run = FakeRun()
    reader = threading.Thread(target=run.delivery.wait)
    starting = threading.Thread(target=run.delivery.wait_for_start, args=[None])
    reader.start()
    starting.start()
    wait_until(lambda: run.delivery._waiter and run.delivery._start_waiters, 5.0, "a reader and a thread that wait")

    run.says("x")
    reader.join(60)
    starting.join(60)

    assert not any(thread.is_alive() for thread in (reader, starting))
    assert run.delivery.take() == ["x"]


def test_a_thread_that_gave_up_waiting_leaves_nothing_behind() -> None:
    run = FakeRun()
    with pytest.raises(TimeoutError, match=f"run {SPAN}: nothing came from the model in time; the run goes on"):
        run.delivery.wait_for_start(0.01)

    assert run.delivery._start_waiters in (None, [])
    assert run.connection.aborts == 0


def test_a_thread_finds_the_first_event_though_the_io_thread_does_not_wake_it() -> None:
    run = FakeRun()
    starting = threading.Thread(target=run.delivery.wait_for_start, args=[None])
    starting.start()
    wait_until(lambda: run.delivery._start_waiters, 5.0, "a thread that waits")
    run.delivery.session.events.append("x")

    starting.join(60)
    assert not starting.is_alive()


class StartMachine(RuleBasedStateMachine):
    """Tasks that wait for the start, a reader, a worker and a caller that may abort: in any order, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.run = FakeRun()
        self.loop = asyncio.new_event_loop()
        self.starting: list[asyncio.Task[None]] = []
        self.reading: asyncio.Task[None] | None = None
        self.said: list[RunEvent] = []
        self.taken: list[RunEvent] = []
        self.has_ended = False
        self.is_aborted = False

    @rule()
    def a_task_waits_for_the_start(self) -> None:
        self.starting.append(self.loop.create_task(self.run.delivery.wait_for_start_async(self.loop, None)))

    @precondition(lambda self: self.reading is None)
    @rule()
    def the_reader_waits(self) -> None:
        self.reading = self.loop.create_task(self.run.delivery.wait_async(self.loop))

    @precondition(lambda self: any(not task.done() for task in self.starting))
    @rule(data=st.data())
    def a_task_that_waits_is_cancelled(self, data: st.DataObject) -> None:
        waiting = [task for task in self.starting if not task.done()]
        task = data.draw(st.sampled_from(waiting))
        task.cancel()
        self.starting.remove(task)

    @precondition(lambda self: not self.has_ended)
    @rule(events=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
    def the_worker_sends(self, events: list[RunEvent]) -> None:
        self.run.says(*events)
        self.said += events

    @precondition(lambda self: not self.has_ended)
    @rule()
    def a_message_of_another_attempt_arrives(self) -> None:
        self.run.says("late", attempt=2)

    @precondition(lambda self: not self.has_ended)
    @rule()
    def the_worker_ends(self) -> None:
        self.run.ends()
        self.has_ended = True

    @rule()
    def the_caller_aborts(self) -> None:
        self.run.delivery.abort()
        self.is_aborted = True

    @rule()
    def the_reader_takes(self) -> None:
        self.taken += self.run.delivery.take()

    @invariant()
    def all_tasks_go_on_once_the_run_has_started_and_none_before(self) -> None:
        self.let_tasks_run()
        has_started = bool(self.said) or self.has_ended or self.is_aborted
        assert [task.done() for task in self.starting] == [has_started] * len(self.starting)
        assert len(self.run.delivery._start_waiters or ()) == (0 if has_started else len(self.starting))

    @invariant()
    def the_reader_goes_on_when_there_is_something_new(self) -> None:
        if self.reading is not None and self.reading.done():
            self.reading.result()
            self.reading = None
        elif self.reading is not None:
            assert len(self.said) == len(self.taken)
            assert not self.has_ended
            assert not self.is_aborted

    @invariant()
    def waiting_takes_nothing(self) -> None:
        assert self.run.delivery.credit.taken == len(self.taken)
        assert self.taken == self.said[: len(self.taken)]

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.let_tasks_run()
        self.loop.close()

    def let_tasks_run(self) -> None:
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))


TestStartMachine = StartMachine.TestCase
TestStartMachine.settings = settings(stateful_step_count=15, deadline=None)
