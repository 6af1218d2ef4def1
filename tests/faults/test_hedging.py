"""A second attempt beside a late first one: late first chunks get rare, and requests hardly more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.flows import LimitedEngine, kinds_of, limited_engine
from tests.faults.harness import percentile
from tests.faults.limited_load import Flow, SeenRun
from tests.repetition import repeated
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

LATE = repeated(2.5, 5.0)
RUNS = repeated(300, 1000)
HEDGE_AFTER = 150


@pytest.fixture(scope="module")
def engine() -> Iterator[LimitedEngine]:
    with limited_engine(names=("hedged", "plain"), workers=1) as running:
        yield running


@pytest.mark.tries(3)
def test_with_hedges_the_slowest_first_chunks_are_five_times_as_fast_at_five_percent_more_requests(
    engine: LimitedEngine,
) -> None:
    # The headers of the first answer make the pool known, so that all runs count for the share that may have hedges.
    engine.provider.limit(requests_per_minute=1_000_000)
    engine.provider.delay_first_chunks(1 / 20, LATE, key="sk-plain")
    # Each 20th run here too: the provider counts the second attempts as well.
    engine.provider.delay_first_chunks(1 / 21, LATE, key="sk-hedged")
    script = {"repeat": 3, "first_token_delay": 0.03}
    plain = Flow(name="plain", provider="plain", key="sk-plain", streams=20, runs=RUNS, script=script)
    hedged = Flow(
        name="hedged",
        provider="hedged",
        key="sk-hedged",
        streams=20,
        runs=RUNS,
        script=script,
        arguments={"hedge_after_ms": HEDGE_AFTER},
    )
    with engine.programs(1) as programs:
        programs.begin(Flow(name="first", provider="hedged", key="sk-hedged", runs=1))
        programs.finish()
        programs.begin(plain, hedged)
        seen = programs.finish()

    assert kinds_of(seen["plain"]) == kinds_of(seen["hedged"]) == {"done"}
    slow, fast = (percentile(_first_chunks(seen[name]), 0.99) for name in ("plain", "hedged"))
    requests = engine.arrivals("sk-hedged")
    print(f"p99 to the first chunk: {slow:.2f} s, hedged {fast:.2f} s; {len(requests)} requests for {RUNS} runs")
    assert slow >= 5 * fast
    assert RUNS < len(requests) - 1 <= 1.05 * RUNS
    wait_until(
        lambda: all(arrival.outcome != "open" for arrival in engine.arrivals("sk-hedged")), 10.0, "no open answer"
    )
    assert {arrival.outcome for arrival in engine.arrivals("sk-hedged")} == {"complete", "closed_by_client"}


def _first_chunks(seen: list[SeenRun]) -> list[float]:
    return [run.first_at - run.began_at for run in seen if run.first_at is not None]
