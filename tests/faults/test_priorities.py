"""Which waiting run goes next: interactive runs before batch runs, which keep a slice; clients in turn, whatever they ask for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from headrace.testing import Arrival
from tests.faults.flows import LimitedEngine, kinds_of, limited_engine
from tests.faults.harness import percentile
from tests.faults.limited_load import Flow
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(180)

BATCH_RUNS = 1000
SLOTS = 20
CLIENTS = 10
PROVIDER_TIME = 0.05
ANSWER = {"text": "yes", "first_token_delay": PROVIDER_TIME}
BATCH, CHAT, CROWD = (f"gpt-4o-{number}" for number in (2001, 2002, 2003))
"""Versions of one model: they share its limits, and can be told apart in the provider's log."""
CONFIG = f"""
[limits.few]
max_concurrency = {SLOTS}
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[LimitedEngine]:
    with limited_engine(CONFIG, names=("few",), workers=1) as running:
        yield running


def version(number: int) -> str:
    """Return the version of the model that one client asks for."""
    return f"gpt-4o-{1000 + number}"


def few(name: str, **fields: object) -> Flow:
    return Flow(**{"name": name, "provider": "few", "key": "sk-few", "script": ANSWER, **fields})  # type: ignore[arg-type]


@pytest.mark.tries(3)
def test_interactive_runs_pass_a_thousand_batch_runs_which_keep_their_slice(engine: LimitedEngine) -> None:
    batch = few("batch", streams=BATCH_RUNS, model=BATCH, arguments={"priority": "batch"})
    with engine.programs(2) as programs:
        programs.begin(batch, only=0)
        wait_until(lambda: engine.status().waiting > BATCH_RUNS / 2, 30.0, "waiting batch runs")
        programs.begin(few("interactive", streams=2, runs=repeated(40, 200), model=CHAT), only=1)
        wait_until(lambda: _count(engine, CHAT) >= 40, 60.0, "the interactive runs")
        assert engine.status().waiting > 0, "there were batch runs all the time"
        # Now more interactive runs than there is room for.
        programs.begin(few("crowd", streams=200, model=CROWD), only=1)
        wait_until(lambda: _count(engine, CROWD) >= 200, 60.0, "a crowd of interactive runs")
        crowded = _last(engine.provider.arrivals(), 200)
        seen = programs.stop()

    waits = [run.queue_ms / 1000 for run in seen["interactive"]]
    print(f"added wait of interactive runs: p50 {percentile(waits, 0.5):.3f} s, p99 {percentile(waits, 0.99):.3f} s")
    assert percentile(waits, 0.99) < 0.1 * busyness()
    share = sum(arrival.model == BATCH for arrival in crowded) / len(crowded)
    assert 0.08 <= share <= 0.2, f"batch had {share:.0%}"
    assert kinds_of(seen["interactive"]) == kinds_of(seen["crowd"]) == {"done"}


def _count(engine: LimitedEngine, model: str) -> int:
    return sum(arrival.model == model for arrival in engine.provider.arrivals())


def _last(arrivals: Sequence[Arrival], count: int) -> Sequence[Arrival]:
    return sorted(arrivals, key=lambda arrival: arrival.at)[-count:]


@pytest.mark.tries(CLIENTS)
def test_ten_clients_with_unequal_demand_get_equal_shares(engine: LimitedEngine) -> None:
    with engine.programs(CLIENTS) as programs:
        for number in range(CLIENTS):
            programs.begin(few("one of ten", streams=10 * (number + 1), model=version(number)), only=number)
        wait_until(lambda: all(_count(engine, version(number)) for number in range(CLIENTS)), 60.0, "all clients")
        began = time.monotonic()
        each = repeated(40, 200)
        wait_until(lambda: len(_since(engine, began)) >= each * CLIENTS, 60.0, f"{each} runs of each client")
        arrivals = _since(engine, began)
        seen = programs.stop()

    shares = [sum(arrival.model == version(number) for arrival in arrivals) for number in range(CLIENTS)]
    print(f"runs of ten clients: {shares}")
    assert max(shares) <= 1.1 * min(shares)
    assert kinds_of(seen["one of ten"]) == {"done"}


def _since(engine: LimitedEngine, moment: float) -> list[Arrival]:
    return [arrival for arrival in engine.provider.arrivals() if arrival.at >= moment]
