"""The timer acts at the earliest deadline that it was told of, and once for each deadline."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from headrace_engine.broker.deadline_timer import DeadlineTimer


class TimerLoop:
    """A loop with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, len(self._timers), action))

    def run_until(self, end: float) -> None:
        while self._timers and self._timers[0][0] <= end:
            self.now, _, action = heapq.heappop(self._timers)
            action()
        self.now = end

    def call(self, action: Callable[[], None]) -> None:
        raise NotImplementedError

    def call_soon(self, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def at_turn_end(self, action: Callable[[], None]) -> None:
        raise NotImplementedError

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def remove_writer(self, fd: int) -> None:
        raise NotImplementedError

    def remove_reader(self, fd: int) -> None:
        raise NotImplementedError


class Acts:
    """A timer, and the times at which it acted."""

    def __init__(self) -> None:
        self.loop = TimerLoop()
        self.times: list[float] = []
        self.timer = DeadlineTimer(self.loop, lambda: self.times.append(self.loop.now))


@pytest.fixture
def acts() -> Acts:
    return Acts()


def test_without_a_deadline_nothing_is_done(acts: Acts) -> None:
    acts.timer.set(None)
    acts.loop.run_until(1e6)

    assert acts.times == []
    assert acts.timer.at is None


def test_a_deadline_is_acted_upon_at_its_time_and_once(acts: Acts) -> None:
    acts.timer.set(2.5)
    acts.timer.set(2.5)
    acts.loop.run_until(10.0)

    assert acts.times == [2.5]
    assert acts.timer.at is None


def test_an_earlier_deadline_replaces_the_one_that_is_set(acts: Acts) -> None:
    acts.timer.set(5.0)
    acts.timer.set(2.0)
    assert acts.timer.at == 2.0
    acts.loop.run_until(10.0)

    assert acts.times == [2.0]


def test_a_deadline_that_moves_later_costs_one_early_look(acts: Acts) -> None:
    acts.timer.set(2.0)
    acts.timer.set(3.0)
    acts.loop.run_until(2.0)
    assert acts.times == [2.0]

    acts.timer.set(3.0)
    acts.loop.run_until(10.0)
    assert acts.times == [2.0, 3.0]
