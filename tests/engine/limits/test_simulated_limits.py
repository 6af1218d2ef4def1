"""The rate limits against providers that count in three ways: by the last minute, by fixed minutes, and by a bucket."""

from __future__ import annotations

from random import Random

import pytest

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.messages import LimitKind
from headrace_engine.limits.gate import Priority
from headrace_engine.limits.rate_limits import RateLimits
from headrace_engine.limits.sliding_window import MEAN_WINDOW
from tests.engine.limits.simulated_limits import Bucket, FixedWindow, Provider, StrictWindow, Traffic

START = 1000.0
RPM = 600
TPM = 100_000

each_provider = pytest.mark.parametrize("kind", [StrictWindow, FixedWindow, Bucket])


def tokens(random: Random) -> tuple[int, int]:
    return random.randint(50, 150), int(min(random.lognormvariate(5.5, 0.7), 2000))


def use(traffic: Traffic, since: float = 100.0, until: float = 100.0 + 5 * MEAN_WINDOW) -> tuple[float, float]:
    """Return how many requests and tokens the provider took in a minute, over some whole windows."""
    requests, taken = traffic.taken(START + since, START + until)
    minutes = (until - since) / 60
    return requests / minutes, taken / minutes


@each_provider
@pytest.mark.parametrize(("priority", "least"), [("interactive", 0.97), ("batch", 0.96)])
def test_the_settings_limit_is_used_and_never_exceeded(
    kind: type[StrictWindow], priority: Priority, least: float
) -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=RPM), START)
    traffic = Traffic(limits, {"requests": kind(RPM)}, says=False, priority=priority)

    traffic.run(420)

    assert traffic.refused() == 0
    assert traffic.fullest_minute()[0] <= RPM
    assert use(traffic)[0] >= least * RPM


@each_provider
def test_the_token_limit_of_the_settings_is_used_and_hardly_exceeded(kind: type[StrictWindow]) -> None:
    limits = RateLimits(LimitConfig(tokens_per_minute=TPM), START)
    traffic = Traffic(limits, {"tokens": kind(TPM)}, says=False, tokens=tokens)

    traffic.run(420)

    assert traffic.refused() < 0.01
    assert traffic.fullest_minute()[1] <= 1.02 * TPM
    assert use(traffic)[1] >= 0.94 * TPM


@each_provider
@pytest.mark.parametrize("first_chunk", [(0.3, 2.0), (2.0, 20.0)])
def test_the_limit_is_learned_from_headers_alone(kind: type[StrictWindow], first_chunk: tuple[float, float]) -> None:
    traffic = Traffic(RateLimits(now=START), {"requests": kind(RPM)}, first_chunk=first_chunk)

    traffic.run(420)

    assert traffic.refused() < 0.01
    assert traffic.refused(START + 60) == 0
    assert use(traffic)[0] >= 0.95 * RPM


@each_provider
def test_limits_of_requests_and_tokens_are_learned_together(kind: type[StrictWindow]) -> None:
    providers: dict[LimitKind, Provider] = {"requests": kind(RPM), "tokens": kind(3 * TPM)}
    traffic = Traffic(RateLimits(now=START), providers, tokens=tokens, concurrency=200)

    traffic.run(420)

    assert traffic.refused() < 0.01
    assert use(traffic)[0] >= 0.95 * RPM


@each_provider
def test_a_limit_that_the_provider_lowers_half_way_is_kept(kind: type[StrictWindow]) -> None:
    provider = kind(RPM)
    traffic = Traffic(RateLimits(now=START), {"requests": provider})

    def lower() -> None:
        provider.limit = RPM // 2

    traffic.at(START + 200, lower)
    traffic.run(420)

    assert traffic.refused() < 0.01
    assert traffic.refused(START + 230) < 0.005
    assert 0.95 * RPM / 2 <= use(traffic, 290.0, 290.0 + 2 * MEAN_WINDOW)[0] <= 1.01 * RPM / 2


@each_provider
@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_other_programs_with_the_same_key_get_their_part(kind: type[StrictWindow], rate: float) -> None:
    traffic = Traffic(RateLimits(now=START), {"requests": kind(RPM)}, first_chunk=(1.0, 4.0))
    traffic.others(lambda _: rate)

    traffic.run(420)

    left = RPM - rate * 60
    assert traffic.refused() < 0.03
    assert use(traffic)[0] >= 0.8 * left


def test_after_a_restart_of_the_broker_no_minute_has_more_than_the_limit() -> None:
    settings = LimitConfig(requests_per_minute=RPM)
    traffic = Traffic(RateLimits(settings, START), {"requests": StrictWindow(RPM)}, says=False)

    def restart() -> None:
        traffic.limits = RateLimits.from_state(traffic.limits.to_state(traffic.now), settings, traffic.now)

    for second in (20, 70, 95, 200):
        traffic.at(START + second, restart)
    traffic.run(300)

    assert traffic.refused() == 0
    assert traffic.fullest_minute()[0] <= RPM


@pytest.mark.parametrize("part", [0.1, 0.3])
def test_interactive_runs_do_not_wait_behind_batch_runs(part: float) -> None:
    limits = RateLimits(LimitConfig(requests_per_minute=RPM), START)
    traffic = Traffic(limits, {"requests": StrictWindow(RPM)}, says=False, priority="batch", concurrency=2000)
    traffic.interactive(part * RPM / 60)

    traffic.run(420)

    waits = sorted(traffic.waits)
    assert waits[int(len(waits) * 0.99)] < 0.1
    assert use(traffic)[0] >= 0.96 * RPM
