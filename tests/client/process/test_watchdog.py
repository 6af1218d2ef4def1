"""What the watchdog promises: each run is looked at by its bound, and nobody wakes for nothing."""

from __future__ import annotations

import threading
import time

from headrace.process.watchdog import LOOK_AFTER, Alarm, Watchdog
from tests.client.runs.deliveries import FakeRun
from tests.waiting import wait_until


def test_a_run_is_ended_at_its_bound_and_others_are_left() -> None:
    late, early = FakeRun(total_timeout=2.0, started=8.0), FakeRun(total_timeout=2.0)
    watchdog = Watchdog(lambda: [late.delivery, early.delivery])
    watchdog.look(time.monotonic())

    assert (late.delivery.outcome.has_ended, early.delivery.outcome.has_ended) == (True, False)


def test_the_next_look_is_at_the_next_bound_and_there_is_none_without_runs() -> None:
    run = FakeRun(total_timeout=2.0)
    watchdog = Watchdog(lambda: [run.delivery])

    assert watchdog.look(run.delivery.bound - 0.25) == 0.25
    assert watchdog.look(run.delivery.bound - 5.0) == LOOK_AFTER
    assert Watchdog(list).look(0.0) is None


def test_an_idle_thread_wakes_for_a_new_run() -> None:
    runs: list[FakeRun] = []
    watchdog = Watchdog(lambda: [run.delivery for run in runs])
    watchdog.start()
    watchdog.start()
    runs.append(FakeRun(total_timeout=0.5, started=5.4))
    watchdog.run_added()

    wait_until(lambda: runs[0].delivery.outcome.has_ended, 5.0, "the end of a run")
    assert sum(thread.name == "headrace-watchdog" for thread in threading.enumerate()) >= 1
    watchdog.stop()


def test_an_alarm_that_was_woken_before_wakes_the_next_thread_once() -> None:
    alarm = Alarm()
    alarm.wake()
    alarm.wake()

    assert alarm.wait(0)
    assert not alarm.wait(0.01)
