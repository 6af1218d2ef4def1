"""The circuit breaker: opens when half of the runs fail, lets single probes go, and closes when one is answered."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_engine.limits.breaker import COOLDOWN, MAX_COOLDOWN, Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(Random(1).uniform)
    for _ in range(5):
        breaker.failed(now, is_probe=False)
    return breaker


def test_four_failures_are_too_few() -> None:
    breaker = Breaker(Random(1).uniform)
    for _ in range(4):
        breaker.failed(0.0, is_probe=False)
    assert breaker.word == "closed"
    assert breaker.until(0.0) is None


def test_fewer_than_half_leave_it_closed() -> None:
    breaker = Breaker(Random(1).uniform)
    for _ in range(50):
        breaker.succeeded(0.0, is_probe=False)
        breaker.succeeded(0.0, is_probe=False)
        breaker.failed(0.0, is_probe=False)
    assert breaker.is_closed


def test_failures_that_come_before_the_answers_of_slow_runs_do_not_open_it() -> None:
    breaker = Breaker(Random(1).uniform)
    for _ in range(100):
        breaker.enter(0.0)
    for _ in range(40):
        breaker.failed(0.5, is_probe=False)
    assert breaker.is_closed
    for _ in range(10):
        breaker.failed(0.5, is_probe=False)
    assert not breaker.is_closed


def test_old_failures_do_not_count() -> None:
    breaker = Breaker(Random(1).uniform)
    for second in range(0, 100, 3):
        breaker.failed(float(second), is_probe=False)
    assert breaker.is_closed


def test_it_opens_for_about_five_seconds_then_one_probe_goes_and_its_success_closes_it() -> None:
    breaker = opened()
    until = breaker.until(0.0)
    assert until is not None
    assert 4.0 <= until <= 6.0
    words = [breaker.word]

    assert breaker.until(until) is None
    assert breaker.enter(until)
    words.append(breaker.word)
    assert breaker.until(until) is not None

    assert breaker.succeeded(until + 0.5, is_probe=True)
    assert [*words, breaker.word] == ["open", "half-open", "closed"]
    assert not breaker.enter(until + 0.5)


def test_each_failed_probe_doubles_the_cooldown_up_to_a_minute() -> None:
    breaker, now = opened(), 0.0
    for expected in (5, 10, 20, 40, 60, 60):
        until = breaker.until(now)
        assert until is not None
        assert 0.8 * expected <= until - now <= 1.2 * expected
        now = until
        assert breaker.enter(now)
        breaker.failed(now, is_probe=True)


def test_a_probe_that_is_lost_makes_room_for_another_one_at_once() -> None:
    breaker = opened()
    breaker.enter(10.0)
    breaker.lost(11.0)
    assert breaker.until(11.0) is None


def test_a_probe_without_an_answer_holds_the_others_for_one_cooldown() -> None:
    breaker = opened()
    breaker.enter(10.0)
    until = breaker.until(10.0)
    assert until is not None
    assert until <= 10.0 + 1.2 * COOLDOWN


def test_the_answer_of_a_run_from_before_does_not_close_it() -> None:
    breaker = opened()
    assert not breaker.succeeded(1.0, is_probe=False)
    assert breaker.word == "open"


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.random = Random(7)
        self.breaker = Breaker(self.random.uniform)
        # Runs that go on: whether each is a probe.
        self.running: list[bool] = []
        # When runs ended that were no probes, and whether they failed.
        self.outcomes: list[tuple[float, bool]] = []

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 8))
    def runs_come(self, count: int) -> None:
        for _ in range(count):
            if self.breaker.until(self.now) is not None:
                break
            is_closed = self.breaker.is_closed
            is_probe = self.breaker.enter(self.now)
            assert is_probe is not is_closed
            self.running.append(is_probe)
            assert not is_probe or self.breaker.until(self.now) is not None

    @precondition(lambda self: self.running)
    @rule(data=st.data(), is_failure=st.booleans())
    def a_run_ends(self, data: st.DataObject, is_failure: bool) -> None:
        is_probe = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        was_closed = self.breaker.is_closed
        if was_closed:
            self.outcomes.append((self.now, is_failure))
        if is_failure:
            self.breaker.failed(self.now, is_probe=is_probe)
            assert was_closed or not self.breaker.is_closed
        else:
            closed = self.breaker.succeeded(self.now, is_probe=is_probe)
            assert closed is (is_probe and not was_closed)
            if closed:
                self.outcomes.clear()
        if was_closed and not self.breaker.is_closed:
            for seconds in (10.0, 10.5):
                recent = [failed for at, failed in self.outcomes if at >= self.now - seconds]
                if len(recent) >= 5 and sum(recent) >= len(recent) / 2:
                    break
            else:
                raise AssertionError("it opened without reason")

    @precondition(lambda self: any(self.running))
    @rule()
    def a_probe_is_lost(self) -> None:
        self.running.remove(True)
        was_closed = self.breaker.is_closed
        self.breaker.lost(self.now)
        assert was_closed or self.breaker.until(self.now) is None

    @rule()
    def new_broker(self) -> None:
        new = Breaker(self.random.uniform)
        new.restore(self.breaker.state(), self.now)
        assert new.until(self.now) == self.breaker.until(self.now)
        assert new.is_closed is self.breaker.is_closed
        self.running.clear()
        self.outcomes.clear()
        self.breaker = new

    @invariant()
    def it_never_holds_for_longer_than_a_minute_and_its_jitter(self) -> None:
        until = self.breaker.until(self.now)
        assert until is None or self.now < until <= self.now + 1.2 * MAX_COOLDOWN


BreakerMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
TestBreaker = BreakerMachine.TestCase
