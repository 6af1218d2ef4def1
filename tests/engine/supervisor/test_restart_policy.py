"""The restart policy: at once after a long life, later and later in a crash loop, never if it never ran."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_engine.supervisor.restart_policy import (
    FIRST_DELAY,
    MAX_DELAY,
    MAX_FAILED_STARTS,
    SHORT_LIFE,
    CannotStart,
    RestartPolicy,
    StartAt,
)


def lived(policy: RestartPolicy, seconds: float, now: float) -> StartAt | CannotStart:
    policy.started(now)
    return policy.exited("signal 9", now + seconds)


def test_a_process_that_had_served_for_long_is_started_again_at_once() -> None:
    policy = RestartPolicy("worker-1")

    assert lived(policy, SHORT_LIFE, 100.0) == StartAt(100.0 + SHORT_LIFE)
    assert policy.restarts == 1


def test_a_process_that_never_lives_is_given_up() -> None:
    policy = RestartPolicy("worker-1")

    assert lived(policy, 0.5, 0.0) == StartAt(0.5 + FIRST_DELAY)
    assert lived(policy, 0.5, 1.0) == StartAt(1.5 + 2 * FIRST_DELAY)
    decision = lived(policy, 0.5, 2.0)
    assert isinstance(decision, CannotStart)
    for word in ("worker-1", str(MAX_FAILED_STARTS), "signal 9"):
        assert word in decision.reason


def test_a_process_that_lived_once_is_never_given_up() -> None:
    policy = RestartPolicy("worker-1")
    lived(policy, 60.0, 0.0)

    delays = []
    for _ in range(20):
        decision = lived(policy, 0.0, 1000.0)
        assert isinstance(decision, StartAt)
        delays.append(decision.when - 1000.0)

    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(FIRST_DELAY)
    assert delays[-1] == MAX_DELAY


def test_a_crash_loop_may_go_on_for_days() -> None:
    policy = RestartPolicy("worker-1")
    lived(policy, 60.0, 0.0)

    for _ in range(10_000):
        assert isinstance(lived(policy, 0.0, 0.0), StartAt)

    assert lived(policy, 0.0, 0.0) == StartAt(MAX_DELAY)


def test_a_long_life_ends_a_crash_loop() -> None:
    policy = RestartPolicy("worker-1")
    lived(policy, 60.0, 0.0)
    for _ in range(5):
        lived(policy, 0.0, 100.0)
    lived(policy, 60.0, 200.0)

    assert lived(policy, 0.0, 300.0) == StartAt(300.0 + FIRST_DELAY)


@settings(deadline=None)
@given(lives=st.lists(st.floats(0, 10), max_size=20))
def test_no_start_is_further_away_than_the_longest_delay(lives: list[float]) -> None:
    policy = RestartPolicy("worker-1")
    now = 0.0
    for life in lives:
        decision = lived(policy, life, now)
        now += life
        if isinstance(decision, CannotStart):
            return
        assert now <= decision.when <= now + MAX_DELAY
        now = decision.when

    assert policy.restarts == len(lives)


def test_a_process_that_the_engine_can_run_without_is_started_again_and_again() -> None:
    policy = RestartPolicy("collector", gives_up=False)
    now = 100.0
    for _ in range(20):
        policy.started(now)
        decision = policy.exited("exit status 2", now + 0.1)
        assert isinstance(decision, StartAt)
        assert 0 < decision.when - now <= MAX_DELAY + 0.1
        now = decision.when


def test_the_figures_are_those_that_were_decided() -> None:
    assert (SHORT_LIFE, FIRST_DELAY, MAX_DELAY, MAX_FAILED_STARTS) == (2.0, 0.1, 5.0, 3)


def test_a_process_that_lived_just_too_short_has_failed() -> None:
    policy = RestartPolicy("worker-1")

    assert lived(policy, 1.9, 0.0) == StartAt(1.9 + FIRST_DELAY)
    assert lived(policy, 2.0, 10.0) == StartAt(12.0)
