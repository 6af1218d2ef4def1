"""The rate limits of one pool: all or nothing over all kinds, reserved at the grant, settled at the end."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.messages import SaidLimit
from headrace_engine.limits.gate import Priority
from headrace_engine.limits.rate_limits import RateLimits, Reservation
from headrace_engine.limits.token_estimates import Cost, cost_of

START = 1000.0
ONE = cost_of(10, 10)

steps = st.lists(
    st.tuples(
        st.floats(0.0, 30.0),  # seconds until the next runs come
        st.integers(1, 30),  # runs
        st.integers(0, 400),  # tokens of each
        st.floats(0.0, 1.0),  # seconds from the grant to the provider
        st.sampled_from(["interactive", "batch"]),
    ),
    max_size=25,
)


def fullest_minute(arrivals: list[tuple[float, int]]) -> int:
    return max(sum(amount for at, amount in arrivals if start <= at < start + 60) for start, _ in arrivals)


@given(steps, st.integers(1, 100), st.integers(400, 5000))
def test_no_minute_at_the_provider_has_more_than_the_limits(
    story: list[tuple[float, int, int, float, Priority]], requests: int, tokens: int
) -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=requests, tokens_per_minute=tokens), START)
    now = START
    arrivals: list[tuple[float, Cost]] = []
    for passed, runs, size, delay, priority in story:
        now += passed
        cost = cost_of(size // 2, size - size // 2)
        for _ in range(runs):
            if limits.wait(cost, priority, now) is None:
                limits.take(cost, now)
                arrivals.append((now + delay * 0.999, cost))

    for index, limit in enumerate((requests, tokens)):
        assert not arrivals or fullest_minute([(at, cost[index]) for at, cost in arrivals]) <= limit


@given(steps, st.integers(1, 100), st.integers(1, 2000), st.integers(0, 400))
def test_a_run_may_go_at_the_time_that_it_was_told(
    story: list[tuple[float, int, int, float, Priority]], requests: int, tokens: int, said: int
) -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=requests, tokens_per_minute=tokens), START)
    now = START
    for number, (passed, runs, size, _, priority) in enumerate(story):
        now += passed
        cost = cost_of(0, size)
        reservation = [limits.take(cost, now) for _ in range(runs)][-1]
        if number % 3 == 1:
            limits.said([SaidLimit("tokens", 400, said, 30.0)], reservation, now, is_refused=bool(said % 2))
        until = limits.wait(cost, priority, now)
        waits = 0
        while until is not None:
            assert until > now
            waits += 1
            now = until
            until = limits.wait(cost, priority, now)
        assert waits <= 3  # a wait may be too short by what the bucket and the window cannot know of each other
        limits.take(cost, now)


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 100), st.integers(0, 300), st.booleans()), max_size=40))
def test_settled_runs_count_with_what_they_really_took(story: list[tuple[float, int, int, bool]]) -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=1_000_000), START)
    now = START
    runs: list[tuple[float, Reservation, int]] = []
    for passed, reserved, real, is_refused in story:
        now += passed
        reservation = limits.take(cost_of(0, reserved), now)
        runs.append((now, reservation, 0 if is_refused else real))
        if is_refused:
            limits.refund_tokens(reservation, now)
        else:
            limits.settle(reservation, 0, real * 2, now)  # a first figure, which the last one replaces
            limits.settle(reservation, 0, real, now)
    used = 1_000_000 - limits.levels(now)[0].left

    assert sum(real for at, _, real in runs if at > now - 61) <= used
    assert used <= sum(real for at, _, real in runs if at > now - 61.25)


def test_without_any_limit_everything_may_go() -> None:
    limits = RateLimits()

    assert not limits.is_known
    assert limits.wait(cost_of(10**9, 10**9), "batch", 5.0) is None
    assert limits.share_left(5.0) == 1.0
    assert limits.expected_wait(10**6, ONE, 5.0) == 0.0
    assert limits.rate_per_second() is None


def test_a_run_waits_for_the_scarcest_of_all_limits_and_takes_nothing_until_all_have_room() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=100, output_tokens_per_minute=1000), START)
    limits.take(cost_of(0, 1000), START)
    before = limits.levels(START)

    assert limits.wait(cost_of(500, 0), "interactive", START) == pytest.approx(START + 48, abs=0.1)
    assert limits.levels(START) == before


def test_a_run_that_is_larger_than_the_whole_limit_goes_alone() -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=1000), START)
    large = cost_of(5000, 5000)

    assert limits.wait(large, "interactive", START) is None
    limits.take(large, START)
    until = limits.wait(large, "interactive", START)
    assert until is not None
    assert limits.wait(large, "interactive", until) is None
    assert until >= START + 61


def test_a_limit_of_headers_counts_at_once() -> None:
    limits = RateLimits()
    reservation = limits.take(ONE, 100.0)

    limits.said([SaidLimit("requests", 600, 0, 60.0)], reservation, 100.5)

    assert limits.is_known
    until = limits.wait(ONE, "interactive", 100.5)
    assert until is not None
    assert until > 100.5
    assert limits.levels(100.5)[0].left == 0


def test_what_others_used_does_not_count_for_the_limit_of_the_settings() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=100), START)
    reservation = limits.take(ONE, START)

    limits.said([SaidLimit("requests", 1000, 500, 30.0)], reservation, START)

    assert limits.levels(START)[0].left == 99
    assert limits.levels(START)[0].source == "both"
    assert limits.wait(ONE, "interactive", START) is None


def test_headers_cannot_raise_the_limit_of_the_settings_but_lower_it() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=100), START)
    limits.said([SaidLimit("requests", 1000, 1000, 0.0)], limits.take(ONE, START), START)
    assert limits.levels(START)[0].limit == 100

    limits.said([SaidLimit("requests", 50, 50, 0.0)], limits.take(ONE, START), START)

    assert limits.levels(START)[0].limit == 50
    assert limits.rate_per_second() == pytest.approx(50 / 60)


def test_headers_are_forgotten_after_ten_minutes_of_runs_without_any() -> None:
    limits = RateLimits()
    limits.said([SaidLimit("requests", 10, 0, 30.0)], None, START)
    limits.forget_old(START + 2000)
    assert limits.is_known  # no run has asked

    limits.take(ONE, START + 2000)
    limits.forget_old(START + 2599)
    assert limits.is_known
    limits.take(ONE, START + 2601)
    limits.forget_old(START + 2601)
    assert not limits.is_known


def test_a_response_to_an_earlier_run_says_nothing_new() -> None:
    limits = RateLimits()
    limits.said([SaidLimit("requests", 100, 100, 0.0)], None, START)
    early, late = limits.take(ONE, START), limits.take(ONE, START)

    limits.said([SaidLimit("requests", 50, 20, 30.0)], late, START + 1)
    limits.said([SaidLimit("requests", 100, 98, 1.0)], early, START + 2)

    assert limits.levels(START + 2)[0].limit == 50
    assert limits.levels(START + 2)[0].left <= 20


def test_of_two_limits_of_one_kind_the_scarcer_counts() -> None:
    limits = RateLimits()

    limits.said([SaidLimit("requests", 14400, 9000, 3600.0), SaidLimit("requests", 30, 3, 50.0)], None, START)

    assert [(level.limit, level.left) for level in limits.levels(START)] == [(30, 3)]


def test_settings_may_change_and_what_was_used_stays_counted() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=100), START)
    for _ in range(10):
        limits.take(ONE, START)

    limits.configure(LimitConfig(requests_per_minute=40, tokens_per_minute=1000), START + 1)
    assert [(level.kind, level.left) for level in limits.levels(START + 1)] == [("requests", 30), ("tokens", 1000)]
    limits.configure(LimitConfig(requests_per_minute=40), START + 1, share=0.25)
    assert [(level.limit, level.left) for level in limits.levels(START + 1)] == [(10, 0)]
    limits.configure(None, START + 1)
    assert not limits.is_known


def test_the_expected_wait_behind_others() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=600), START)

    assert limits.expected_wait(10, ONE, START) == 0.0
    assert limits.expected_wait(600, ONE, START) == pytest.approx(49, abs=3)
    assert limits.expected_wait(6000, ONE, START) == pytest.approx(605, abs=15)


def test_a_large_run_behind_small_ones_does_not_take_them_for_large() -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=60_000), START)
    for _ in range(10):
        limits.take(cost_of(5, 5), START)

    assert limits.expected_wait(100, cost_of(1000, 10_000), START) < 15
    assert limits.expected_wait(10_000, ONE, START) > 80


@pytest.mark.parametrize("tokens", [601, 10**9, 2**63 - 1])
def test_a_run_that_is_larger_than_a_limit_holds_up_the_next_one_for_a_minute(tokens: int) -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=600), START)
    limits.said([SaidLimit("tokens", 600, 600, 1.0)], None, START)
    large = cost_of(tokens, tokens)
    assert limits.wait(large, "interactive", START) is None
    reservation = limits.take(large, START)
    limits.settle(reservation, 2**63 - 1, 2**63 - 1, START + 1)
    msgspec.msgpack.encode(limits.to_state(START + 1))

    wait = limits.wait(ONE, "interactive", START + 1)
    assert wait is not None
    assert wait <= START + 62
    assert limits.wait(ONE, "interactive", START + 62) is None


def test_runs_that_use_far_more_than_they_reserved_hold_up_others_for_a_minute() -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=6000), START)
    reservations = [limits.take(ONE, START) for _ in range(20)]
    for reservation in reservations:
        limits.settle(reservation, 0, 6000, START + 1)

    wait = limits.wait(ONE, "interactive", START + 1)
    assert wait is not None
    assert START + 55 <= wait <= START + 63
    assert limits.wait(ONE, "interactive", START + 63) is None


def test_the_end_of_a_run_that_reserved_too_much_frees_no_place_of_another_run() -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=1000), START)
    limits.take(cost_of(200, 100), START)
    large = limits.take(cost_of(10, 10**9), START)
    limits.settle(large, 10, 90, START)

    assert [level.left for level in limits.levels(START)] == [600]


def test_a_first_burst_before_the_limit_was_known_is_not_taken_for_others() -> None:
    limits = RateLimits()
    limits.said([SaidLimit("requests", 600, 480, 60.0)], None, START)
    for left in range(479, -1, -1):
        now = START + (480 - left) / 10
        limits.said([SaidLimit("requests", 600, left, 60.0)], limits.take(ONE, now), now)

    assert limits.wait(ONE, "interactive", START + 50) == pytest.approx(START + 61, abs=0.5)
    for number in range(20):  # 120 are free again, and leave at twice the rate
        assert limits.wait(ONE, "interactive", START + 62 + number / 10) is None
        limits.take(ONE, START + 62 + number / 10)


def test_who_asks_for_the_expected_wait_holds_nobody_up() -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=100), START)
    for number in range(100):
        limits.take(ONE, START + number / 2)
    assert limits.wait(ONE, "interactive", START + 60) == pytest.approx(START + 61, abs=0.3)

    assert limits.expected_wait(90, ONE, START + 60) > 30

    for number in range(3):
        assert limits.wait(ONE, "interactive", START + 62 + number) is None
        limits.take(ONE, START + 62 + number)
        limits.expected_wait(90, ONE, START + 62 + number)


def test_a_429_makes_bursts_smaller_only_where_a_limit_had_room() -> None:
    roomy = RateLimits(LimitConfig(requests_per_minute=600), START)
    full = RateLimits(LimitConfig(requests_per_minute=600), START)
    for _ in range(500):
        full.take(ONE, START)

    roomy.refused(START)
    full.refused(START)

    assert roomy.expected_wait(100, ONE, START) > 0.0
    fresh = RateLimits(LimitConfig(requests_per_minute=600), START)
    assert fresh.expected_wait(100, ONE, START) == 0.0
    assert full.expected_wait(0, ONE, START + 200) == full.expected_wait(100, ONE, START + 200) == 0.0


odd_numbers = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.sampled_from([0, 1, -1, 10**12, 10**12 + 1]))
odd_seconds = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -1.0, 1e300]))
odd_headers = st.builds(SaidLimit, st.sampled_from(["requests", "tokens"]), odd_numbers, odd_numbers, odd_seconds)


@given(st.lists(st.tuples(odd_headers, st.booleans()), max_size=20))
def test_headers_that_lie_never_stop_a_pool(headers: list[tuple[SaidLimit, bool]]) -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=600), START)
    now = START
    for said, is_known in headers:
        limits.said([said], limits.take(ONE, now) if is_known else None, now, is_refused=is_known)
        until = limits.wait(ONE, "batch", now)
        assert until is None or math.isfinite(until)
        now = until or now
        msgspec.json.encode(limits.to_state(now))

    waited = 0
    limits.forget_old(now + 601)
    while (until := limits.wait(ONE, "interactive", now + 601)) is not None and waited < 3:
        now, waited = until - 601, waited + 1
    assert waited < 3


@pytest.mark.parametrize(
    "said",
    [
        SaidLimit("requests", 0, 0, 1.0),
        SaidLimit("requests", 10**13, 5, 1.0),
        SaidLimit("requests", 10, 11, 1.0),
        SaidLimit("requests", 10, 5, 1e9),
        SaidLimit("requests", 10, 5, math.nan),
        SaidLimit("requests", -1, None, None),
    ],
)
def test_a_lie_is_counted_and_ignored(said: SaidLimit) -> None:
    limits = RateLimits()

    limits.said([said], None, START)

    assert limits.lies == 1
    assert not limits.is_known


def test_state_goes_through_plain_objects() -> None:
    settings = LimitConfig(requests_per_minute=20, tokens_per_minute=10_000)
    limits = RateLimits(settings, 100.0)
    reservation = [limits.take(cost_of(10, 10), 100.0) for _ in range(7)][-1]
    limits.said([SaidLimit("input_tokens", 1000, 500, 30.0)], reservation, 100.0)

    state = msgspec.json.decode(msgspec.json.encode(limits.to_state(101.0)))
    copy = RateLimits.from_state(state, settings, 101.0)

    assert copy.levels(101.0) == limits.levels(101.0)
    assert copy.wait(cost_of(1, 1), "interactive", 101.0) is None
    assert copy.wait(cost_of(600, 0), "interactive", 101.0) is not None


def test_state_that_is_something_else_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        RateLimits.from_state([{"kind": "requests", "limit": "many"}], None, START)
