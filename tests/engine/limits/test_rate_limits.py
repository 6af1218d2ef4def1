"""The rate limits of one pool: all or nothing over all kinds, reserved at the grant, settled at the end."""

from __future__ import annotations

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.messages import SaidLimit
from headrace_engine.limits.rate_limits import RateLimits
from headrace_engine.limits.token_estimates import cost_of


def test_without_any_limit_everything_may_go() -> None:
    limits = RateLimits()

    assert not limits.is_known
    assert limits.wait(cost_of(10**9, 10**9), "batch", 5.0) is None
    assert limits.share_left(5.0) == 1.0


def test_a_limit_of_headers_counts_at_once() -> None:
    limits = RateLimits()
    reservation = limits.take(cost_of(10, 10), 100.0)

    limits.said([SaidLimit("requests", 600, 0, 60.0)], reservation, 100.5)

    assert limits.is_known
    until = limits.wait(cost_of(10, 10), "interactive", 100.5)
    assert until is not None
    assert until > 100.5
    assert limits.levels(100.5)[0].left == 0


def test_state_goes_through_plain_objects() -> None:
    settings = LimitConfig(requests_per_minute=20, tokens_per_minute=10_000)
    limits = RateLimits(settings, 100.0)
    for _ in range(7):
        limits.take(cost_of(10, 10), 100.0)

    copy = RateLimits.from_state(limits.to_state(101.0), settings, 101.0)

    assert copy.levels(101.0) == limits.levels(101.0)
    assert copy.wait(cost_of(1, 1), "interactive", 101.0) is None
