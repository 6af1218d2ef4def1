"""A pool after a 429: nothing goes while it is blocked, and nothing bursts afterwards."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_engine.limits.blocking import MAX_BACKOFF, MIN_RATE, Blocking


def blocked(retry_after: float | None = 2.0, seed: int = 1) -> Blocking:
    blocking = Blocking(Random(seed).uniform)
    blocking.refused(retry_after, went_at=0.0, known_rate=None, now=10.0)
    return blocking


def released(blocking: Blocking, count: int, now: float, lateness: Random) -> list[float]:
    """Return when runs go, if so many wait and the broker acts up to 5 ms after each time that it is told."""
    times: list[float] = []
    while len(times) < count:
        until = blocking.until(now)
        if until is not None:
            assert until > now
            now = until + lateness.uniform(0, 0.005)
        else:
            blocking.enter(now)
            times.append(now)
    return times


def largest_window(times: list[float], seconds: float) -> int:
    largest = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        largest = max(largest, last - first + 1)
    return largest


def test_nothing_is_held_back_before_the_first_refusal() -> None:
    blocking = Blocking(Random(1).uniform)
    assert len(set(released(blocking, 1000, 5.0, Random(1)))) == 1


def test_the_pool_waits_as_long_as_the_provider_asks_and_little_longer() -> None:
    until = blocked(2.0).until(10.0)
    assert until is not None
    assert 12.0 <= until <= 12.1


@pytest.mark.parametrize(("ages", "rate"), [([0.05] * 20, 20.0), ([30.0] * 120, 2.0), ([0.0] * 5, 5.0), ([100.0], 1.0)])
def test_a_pool_that_nobody_knew_is_released_as_fast_as_its_runs_went(ages: list[float], rate: float) -> None:
    blocking = Blocking(Random(1).uniform)
    for age in ages:
        blocking.resume(10.0, 10.0 - age)

    blocking.refused(2.0, went_at=9.0, known_rate=None, now=10.0)

    # Runs that went within the last ten seconds are counted too; those here count as such.
    assert blocking.rate(10.0) == pytest.approx(max(rate, len(ages) / 10, MIN_RATE))


def test_an_absurd_wait_is_cut_to_two_minutes() -> None:
    until = blocked(1e9).until(10.0)
    assert until is not None
    assert 130.0 <= until <= 136.0


def test_a_wait_of_nothing_is_none() -> None:
    for retry_after in (None, 0.0, -5.0):
        until = blocked(retry_after).until(10.0)
        assert until is None or until <= 10.5


def test_a_shorter_wait_does_not_shorten_a_longer_one() -> None:
    blocking = blocked(30.0)
    blocking.refused(1.0, went_at=9.0, known_rate=None, now=10.5)
    assert blocking.blocked_for(10.5) >= 29.5


def test_the_refusals_of_one_moment_are_one_step_of_the_backoff() -> None:
    blocking = Blocking(Random(3).uniform)
    for step in range(100):
        blocking.refused(None, went_at=9.0, known_rate=None, now=10.0 + step / 1000)
    assert blocking.blocked_for(10.1) <= 0.5


def test_backoffs_in_a_row_grow_up_to_a_minute_and_a_success_ends_the_row() -> None:
    blocking, now, waits = Blocking(Random(3).uniform), 0.0, []
    for _ in range(30):
        blocking.refused(None, went_at=now, known_rate=None, now=now)
        waits.append(blocking.blocked_for(now))
        now += waits[-1] + 1.0
    assert all(wait <= min(MAX_BACKOFF, 0.5 * 2**step) for step, wait in enumerate(waits))
    assert max(waits) > MAX_BACKOFF / 2

    blocking.succeeded(now)
    blocking.refused(None, went_at=now, known_rate=None, now=now)
    assert blocking.blocked_for(now) <= 0.5


def test_the_expected_wait_knows_that_the_release_grows() -> None:
    assert Blocking(Random(1).uniform).expected_wait(1000, 10.0) == 0.0
    blocking = blocked()
    assert 2.0 <= blocking.expected_wait(0, 10.0) <= 2.1
    expected = blocking.expected_wait(1000, 10.0)
    times = released(blocking, 1001, 10.0, Random(1))
    assert times[-1] - 10.0 == pytest.approx(expected, rel=0.1)
    now = times[500]
    assert blocking.expected_wait(500, times[-1]) < expected - (now - 10.0)


def test_the_release_is_over_when_no_run_waits() -> None:
    blocking = blocked(2.0)
    released(blocking, 3, 10.0, Random(1))
    released(blocking, 1, 60.0, Random(1))
    assert blocking.rate(60.0) is None
    assert len(set(released(blocking, 100, 60.0, Random(1)))) == 1


def test_a_refusal_during_the_release_slows_it_down() -> None:
    blocking = Blocking(Random(1).uniform)
    for step in range(1000):
        blocking.enter(step / 100)
    blocking.refused(1.0, went_at=9.9, known_rate=None, now=10.0)
    assert blocking.rate(10.0) == 100.0

    went = released(blocking, 10, 10.0, Random(1))
    for at in went:
        blocking.refused(1.0, went_at=at, known_rate=None, now=12.0)
    rate = blocking.rate(12.0)
    assert rate is not None
    assert 70.0 <= rate <= 80.0


def test_a_new_broker_goes_on_with_the_block_and_with_the_release() -> None:
    blocking = blocked(2.0)
    new = Blocking(Random(1).uniform)
    new.restore(blocking.state(11.0), 11.0)
    assert new.until(11.0) == blocking.until(11.0)
    assert new.rate(15.0) == blocking.rate(15.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    retry_after=st.floats(0.1, 20),
    before=st.integers(0, 500),
    known_rate=st.none() | st.floats(0.1, 100),
    waiting=st.integers(5, 300),
)
def test_no_run_goes_during_the_block_and_no_window_after_it_has_twice_the_mean(
    seed: int, retry_after: float, before: int, known_rate: float | None, waiting: int
) -> None:
    blocking = Blocking(Random(seed).uniform)
    for step in range(before):
        blocking.enter(10.0 * step / before)
    blocking.refused(retry_after, went_at=9.0, known_rate=known_rate, now=10.0)
    # Those that were on their way are refused too.
    blocking.refused(retry_after, went_at=9.5, known_rate=known_rate, now=10.05)

    times = released(blocking, waiting, 10.05, Random(seed))
    assert times[0] >= 10.05 + retry_after
    assert times[0] <= 10.05 + retry_after * 1.05 + 0.01
    mean = 0.1 * (waiting - 1) / (times[-1] - times[0])
    # Two runs are the least that a window can have more than one.
    assert largest_window(times, 0.1) <= max(2, ceil(2 * mean))
