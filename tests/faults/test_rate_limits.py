"""Limits hold for all programs of an engine together: what the provider admits is used, and hardly anything is refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from headrace.testing import Arrival
from tests.faults.flows import (
    LimitedEngine,
    kinds_of,
    limited_engine,
    most_within,
    refused_share,
    times_of,
)
from tests.faults.harness import percentile
from tests.faults.limited_load import Flow, SeenRun
from tests.repetition import is_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(240)

PROGRAMS = repeated(4, 8)
STREAMS = 50
PER_MINUTE = 600
LOWERED = 300
TOKENS = 30_000
MINUTE = 60.0
SECONDS = repeated(5.0, 90.0)
"""How long the load lasts. Only the long form fills whole minutes; the short one looks at the pace."""
BURST = PER_MINUTE // 5
ANSWER = {"repeat": 20, "first_token_delay": 0.1}
CONFIG = f"""
[limits.configured]
requests_per_minute = {PER_MINUTE}
tokens_per_minute = {TOKENS}

[limits.lowered]
requests_per_minute = {PER_MINUTE}

[limits.killed]
requests_per_minute = 120
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[LimitedEngine]:
    names = ("configured", "lowered", "learned", "asked_to_wait", "other", "killed", "free")
    with limited_engine(CONFIG, names=names) as running:
        yield running


@pytest.mark.tries(3)
def test_eight_programs_share_a_limit_that_is_configured_lowered_or_learned(engine: LimitedEngine) -> None:
    provider = engine.provider
    for name in ("configured", "lowered", "learned"):
        # The engine knows the first limit from its settings alone, the last one from headers alone.
        provider.limit(
            requests_per_minute=PER_MINUTE,
            tokens_per_minute=TOKENS,
            key=f"sk-{name}",
            headers=name != "configured",
        )
    flows = [
        Flow(name=name, provider=name, key=f"sk-{name}", streams=STREAMS, script=ANSWER)
        for name in ("configured", "lowered", "learned")
    ]
    with engine.programs(PROGRAMS) as programs:
        # The start of so many programs keeps requests on their way for longer than the second that the limits allow for.
        programs.begin(Flow(name="start", provider="free", streams=4, runs=4))
        programs.finish()
        programs.begin(*flows)
        began = engine.wait_for(1, "sk-learned")[0].at
        engine.wait_until_monotonic(began + SECONDS * 0.4)
        provider.limit(requests_per_minute=LOWERED, tokens_per_minute=TOKENS, key="sk-lowered")
        lowered_at = time.monotonic()
        engine.wait_until_monotonic(began + SECONDS)
        seen = programs.stop()
    ended = time.monotonic()

    for flow in flows:
        arrivals = engine.arrivals(flow.key)
        assert refused_share(arrivals) < 0.01, flow.name
        assert kinds_of(seen[flow.name]) == {"done"}, flow.name
        assert most_within(times_of(arrivals), MINUTE) <= PER_MINUTE + _refused(arrivals), flow.name
        assert _tokens_within(arrivals, MINUTE) <= TOKENS, flow.name
        _report(flow.name, arrivals, ended)
    # At first there is nothing to learn from: one request of each stream goes.
    _check_pace(engine.arrivals("sk-configured"), PER_MINUTE, BURST, ended)
    _check_pace(engine.arrivals("sk-learned"), PER_MINUTE, BURST + PROGRAMS * STREAMS, ended)
    after = [arrival for arrival in engine.arrivals("sk-lowered") if arrival.at > lowered_at + 1.0]
    _check_pace(after, LOWERED, LOWERED // 5, ended)
    if is_long():
        _check_use(engine.arrivals("sk-configured"), PER_MINUTE, ended)
        _check_use(engine.arrivals("sk-learned"), PER_MINUTE, ended)


def _refused(arrivals: Sequence[Arrival]) -> int:
    return sum(arrival.status == 429 for arrival in arrivals)


def _tokens_within(arrivals: Sequence[Arrival], window: float) -> int:
    return max(
        sum(arrival.tokens for arrival in arrivals if first.at <= arrival.at < first.at + window) for first in arrivals
    )


def _check_pace(arrivals: Sequence[Arrival], limit: int, burst: int, ended: float) -> None:
    """No stretch of time has more than the burst and its share of the limit; while runs wait, hardly less than the share.

    A request comes up to a second after its grant, later on a busy machine: so a stretch may have those of the second before it.
    """
    times = times_of(arrivals)
    late = 1.0 * busyness()
    for seconds in (0.5, 1.0, 2.0, 5.0, 20.0):
        assert most_within(times, seconds) <= burst + limit / MINUTE * (seconds + late)
    stretch = min(ended - times[0], repeated(SECONDS, MINUTE) - 1.0)
    assert len([at for at in times if at < times[0] + stretch]) >= min(0.95 * limit / MINUTE * stretch, 0.95 * limit)


def _check_use(arrivals: Sequence[Arrival], limit: int, ended: float) -> None:
    """Of what the provider would have taken, at least 95 % were sent."""
    admitted = [arrival for arrival in arrivals if arrival.status == 200]
    assert len(admitted) >= 0.95 * limit / MINUTE * (ended - admitted[0].at)


def _report(name: str, arrivals: Sequence[Arrival], ended: float) -> None:
    times = times_of(arrivals)
    print(
        f"{name}: {len(times)} requests in {ended - times[0]:.0f} s, {_refused(arrivals)} refused, "
        f"fullest minute {most_within(times, MINUTE)} requests and {_tokens_within(arrivals, MINUTE)} tokens"
    )


@pytest.mark.tries(3)
def test_after_a_429_the_pool_keeps_silent_as_long_as_told_and_then_begins_without_a_burst(
    engine: LimitedEngine,
) -> None:
    wait = 2.0
    asked = Flow(name="asked", provider="asked_to_wait", key="sk-asked", streams=20, script={"first_token_delay": 0.05})
    other = Flow(name="other", provider="other", key="sk-other", streams=5, script={"first_token_delay": 0.05})
    engine.provider.limit(requests_per_minute=3000, key=asked.key)
    with engine.programs(1) as programs:
        programs.begin(asked, other)
        engine.wait_for(200, "sk-asked")
        with engine.client() as client:
            refusal = {"status": 429, "headers": {"retry-after": str(int(wait))}}
            result = client.run_local(
                provider="asked_to_wait",
                model="gpt-4o",
                messages="Hello",
                provider_api_key="sk-asked",
                custom_options={"simulate": {"text": "at last", "failures": [refusal]}},
            )
        [refused] = [arrival for arrival in engine.arrivals("sk-asked") if arrival.status == 429]
        told = (refused.ended_at or refused.at) + 0.1 * busyness()  # what was on its way
        silence = (told, refused.at + wait)
        after = wait_until(
            lambda: found if len(found := _between(engine, "sk-asked", silence[1], 1e12)) >= 60 else None, 30.0
        )
        seen = programs.stop()

    assert result.text == "at last"
    assert result.queue_reason == "blocked"
    assert _between(engine, "sk-asked", *silence) == []
    mean = len(after) / ((after[-1] - after[0]) / 0.1)
    assert most_within(after, 0.1) <= max(2 * mean, 2) * busyness(), f"{mean:.1f} on average"
    others = _between(engine, "sk-other", refused.at, after[-1])
    assert len(others) >= 0.5 * (after[-1] - refused.at) / 0.1 / busyness()
    assert {run.queue_reason for run in seen["other"]} == {""}
    assert kinds_of(seen["asked"]) == kinds_of(seen["other"]) == {"done"}
    print(f"{len(after)} requests in the {after[-1] - after[0]:.2f} s after a silence of {wait} s")


def _between(engine: LimitedEngine, key: str, start: float, end: float) -> list[float]:
    return [at for at in times_of(engine.arrivals(key)) if start <= at < end]


@pytest.mark.tries(3)
def test_a_killed_broker_takes_no_limit_with_it(engine: LimitedEngine) -> None:
    flow = Flow(name="killed", provider="killed", key="sk-killed", streams=30, script={"first_token_delay": 0.1})
    burst, rate = 24, 2.0
    with engine.programs(1) as programs:
        programs.begin(flow)
        first = engine.wait_for(burst + 2, "sk-killed")[0].at
        for kill in range(repeated(1, 3)):
            os.kill(engine.pid("broker"), signal.SIGKILL)
            count = len(engine.arrivals("sk-killed"))
            engine.wait_for(count + repeated(4, 8), "sk-killed")
            now = time.monotonic()
            times = times_of(engine.arrivals("sk-killed"))
            # What has begun and ended within half a second may be forgotten at each death.
            assert len(times) <= burst + rate * (now - first) + (kill + 1) * (rate * 0.5 + 1) + 1
        seen = programs.stop()

    assert kinds_of(seen["killed"]) == {"done"}


@pytest.mark.tries(3)
def test_where_nothing_is_configured_and_told_nothing_is_held(engine: LimitedEngine) -> None:
    with engine.programs(1) as programs:
        programs.begin(Flow(name="free", provider="free", key="sk-free", streams=50, runs=300, script={"repeat": 3}))
        seen: list[SeenRun] = programs.finish()["free"]

    assert kinds_of(seen) == {"done"}
    assert {run.queue_reason for run in seen} == {""}
    assert percentile([run.queue_ms for run in seen], 0.5) < 20 * busyness()
    assert engine.pools("free") == []
