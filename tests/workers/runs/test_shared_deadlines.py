"""Runs that share a timer: each is told when its own time is over, and an ended one never."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from headrace_workers.runs.shared_deadlines import MAX_GROUPS, SharedDeadlines, early_delay


class FakeLoop:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, callback))

    def go_to(self, now: float) -> None:
        self.now = now
        due = [callback for when, callback in self.timers if when <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for callback in due:
            callback()


class TimedRun:
    def __init__(self) -> None:
        self.over_at: float | None = None
        self.loop: FakeLoop | None = None

    def time_is_over(self) -> None:
        assert self.loop is not None
        self.over_at = self.loop.now


def runs_of(loop: FakeLoop, count: int) -> list[TimedRun]:
    runs = [TimedRun() for _ in range(count)]
    for run in runs:
        run.loop = loop
    return runs


def test_each_run_is_told_when_its_time_is_over() -> None:
    loop = FakeLoop()
    deadlines = SharedDeadlines(loop, lambda: loop.now)
    runs = runs_of(loop, 3)
    for began, run in enumerate(runs):
        loop.go_to(began)
        deadlines.add(run, began, 10.0)
    for now in (9.9, 10.1, 10.9, 11.1, 13.0):
        loop.go_to(now)
    assert [run.over_at for run in runs] == [10.1, 11.1, 13.0]
    assert loop.timers == []


def test_many_runs_have_one_timer_and_an_ended_one_is_not_told() -> None:
    loop = FakeLoop()
    deadlines = SharedDeadlines(loop, lambda: loop.now)
    runs = runs_of(loop, 100)
    removes = [deadlines.add(run, 0.0, 10.0) for run in runs]
    for run, remove in zip(runs[:99], removes, strict=False):
        assert remove is not None
        remove(run, None)
    assert len(loop.timers) == 1
    loop.go_to(11.0)
    assert [run.over_at for run in runs] == [None] * 99 + [11.0]


def test_other_limits_have_their_own_order() -> None:
    loop = FakeLoop()
    deadlines = SharedDeadlines(loop, lambda: loop.now)
    long, short, later = runs_of(loop, 3)
    deadlines.add(long, 0.0, 100.0)
    deadlines.add(short, 0.0, 1.0)
    loop.go_to(2.0)
    assert (short.over_at, long.over_at) == (2.0, None)
    deadlines.add(later, 2.0, 1.0)
    loop.go_to(3.5)
    loop.go_to(101.0)
    assert (later.over_at, long.over_at) == (3.5, 101.0)


def test_runs_that_each_have_another_limit_leave_few_timers_behind() -> None:
    loop = FakeLoop()
    deadlines = SharedDeadlines(loop, lambda: loop.now)
    runs = runs_of(loop, 1000)
    for number, run in enumerate(runs):
        if (remove := deadlines.add(run, 0.0, 60.0 + number)) is not None:
            remove(run, None)
    assert len(loop.timers) == MAX_GROUPS
    loop.go_to(100.0)
    assert deadlines.add(runs[-1], 100.0, 5.0) is not None
    assert all(run.over_at is None for run in runs)


@pytest.mark.parametrize(
    ("delay", "early"),
    [(0.0, None), (0.99, None), (1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (30.0, 16.0), (600.0, 512.0), (1e9, 2048.0), (math.inf, 2048.0)],
)  # fmt: skip
def test_a_run_looks_at_its_clocks_early_at_a_time_that_many_runs_share(delay: float, early: float | None) -> None:
    assert early_delay(delay) == early


def test_all_lengths_of_early_delays_have_a_group() -> None:
    assert len({early_delay(2.0**power) for power in range(64)}) <= MAX_GROUPS
