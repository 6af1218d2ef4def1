"""A day of traffic on a virtual clock: quiet hours and bursts, limits that are known, learned and lowered, outages, lost keys.

The providers count what reaches them. The gates are real; so is everything behind them.
"""

from __future__ import annotations

from bisect import bisect_right
from random import Random

import pytest

from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import ProviderConfig, Settings
from headrace_engine.limits.gate import Priority
from tests.engine.limits.day_host import Host
from tests.engine.limits.day_providers import DAY, MINUTE, Provider
from tests.repetition import repeated

HOUR = 3600.0
SCALE = repeated(1.0, 3.0)
"""How much traffic there is."""
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")


def providers() -> dict[str, Provider]:
    return {
        provider.name: provider
        for provider in (
            Provider("configured", "gpt-4o", [(0.0, 60)], tells_limits=True),
            Provider("told", "claude-sonnet-4", [(0.0, 120), (12 * HOUR, 60)], tells_limits=True),
            Provider("untold", "gemini-2.5-pro", [(0.0, 60)]),
            Provider("grudging", "grok-4", [(0.0, 60)], tells_retry_after=False),
            Provider("failing", "llama-3.3-70b", outages=[(6 * HOUR, 6 * HOUR + 600), (15 * HOUR, 15 * HOUR + 30)]),
            Provider("flaky", "command-r", failing_share=0.35),
            Provider("narrow", "qwen-3", concurrency=20),
            Provider(
                "several", "mistral-large", [(0.0, 30)], tells_limits=True, refused_keys={"b": (9 * HOUR, 13 * HOUR)}
            ),
        )
    }


def traffic(host: Host, provider: Provider, random: Random) -> None:
    """Single runs all day, more by day than by night, and a burst in each second hour."""
    now = 0.0
    while now < DAY:
        is_day = 8 * HOUR < now < 20 * HOUR
        now += random.expovariate((0.012 if is_day else 0.002) * SCALE)
        host.at(now, lambda: host.submit(provider, "interactive"))
    for hour in range(0, 24, 2):
        begin = hour * HOUR + random.uniform(0, HOUR)
        for _ in range(int(random.randint(20, 120) * SCALE)):
            host.at(begin + random.uniform(0, 3), lambda: host.submit(provider, random.choice(PRIORITIES)))
    if provider.failing_share:
        # More runs than the retry budget has room for.
        for _ in range(1500):
            host.at(20 * HOUR + random.uniform(0, 3), lambda: host.submit(provider, "interactive"))
    # And in the middle of the first outage.
    for _ in range(20):
        host.at(6 * HOUR + 120 + random.uniform(0, 60), lambda: host.submit(provider, "interactive"))


@pytest.mark.parametrize("seed", range(repeated(1, 8)))
def test_a_day(seed: int) -> None:
    random = Random(seed)
    keys = {"several": ["a", "b", "c"], "configured": ["k"]}
    settings = Settings(
        providers={
            name: ProviderConfig(api="openai-chat", base_url=f"https://{name}.example.com") for name in providers()
        },
        limits={"configured/gpt-4o": LimitConfig(requests_per_minute=60)},
    )
    host, all_providers = Host(settings, random, keys), providers()
    for provider in all_providers.values():
        traffic(host, provider, random)
    for hour in (3.0, 6.05, 11.0, 18.5):
        host.at(hour * HOUR, host.restart_broker)
    host.at(14 * HOUR, lambda: host.gates.reloaded())  # noqa: PLW0108 - the gates of that hour
    host.go_on()

    no_window_was_above_the_limit(all_providers)
    nobody_was_stuck(host, all_providers)
    retries_stayed_within_their_budget(host)

    # An outage is met by few runs: those on their way, and single probes.
    assert all_providers["failing"].in_outage <= 150
    # The key that was refused was met once, by those on their way, and came back.
    assert [key for _, key in host.facts] == ["b"]
    assert all_providers["several"].statuses[401] <= 10
    received = all_providers["several"].received["b"]
    assert bisect_right(received, 13 * HOUR) - bisect_right(received, 9 * HOUR) <= 10
    assert len(received) - bisect_right(received, 14 * HOUR) > 20


def no_window_was_above_the_limit(all_providers: dict[str, Provider]) -> None:
    configured, told, several = (all_providers[name] for name in ("configured", "told", "several"))
    assert configured.largest_minute("k") <= 60
    assert configured.statuses[429] == 0
    # The first burst of the day may come before anything is known.
    assert told.largest_minute("", HOUR * 4, 12 * HOUR) <= 120
    assert told.largest_minute("", 13 * HOUR) <= 60
    for key in "abc":
        assert several.largest_minute(key, 4 * HOUR) <= 30
    for provider in (told, several):
        assert provider.statuses[429] <= 0.02 * provider.statuses.total()


def nobody_was_stuck(host: Host, all_providers: dict[str, Provider]) -> None:
    assert host.waiting == 0
    assert not host.running
    for name in all_providers:
        runs = sum(count for (of, _), count in host.outcomes.items() if of == name)
        assert host.outcomes[name, "finished"] >= 0.7 * runs, (name, host.outcomes)
        # The outage, the longest cooldown of the breaker, and the queue behind it.
        assert host.longest_wait[name] <= (5 + 10 * SCALE) * MINUTE, name
        # All is well at the end of the day: the next run goes at once.
    host.now += 2 * HOUR
    for provider in all_providers.values():
        provider.failing_share = 0.0
        before = provider.statuses[200]
        host.submit(provider, "batch")
        host.at(host.now, lambda: None)
        host.go_on()
        assert provider.statuses[200] == before + 1


def retries_stayed_within_their_budget(host: Host) -> None:
    for name, retries in host.retries.items():
        firsts = host.firsts[name]
        for index, at in enumerate(retries):
            recent = index + 1 - bisect_right(retries, at - 10)
            recent_firsts = bisect_right(firsts, at) - bisect_right(firsts, at - 10)
            assert recent <= 100 + 0.2 * recent_firsts
