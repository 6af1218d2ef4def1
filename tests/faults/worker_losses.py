"""For tests of lost workers: how late callers learned of the loss, and whether all other runs ended well."""

from __future__ import annotations

from collections import Counter

from tests.faults.harness import FaultyEngine, percentile
from tests.waiting import busyness

LOST_WITHIN = 0.25
"""Seconds from a worker's death to its callers' errors, p99."""
_ENDS = ("done", "aborted", "WorkerLostError", "PoisonRunError")


def report(what: str, delays: list[float], engine: FaultyEngine) -> None:
    kinds = dict(Counter(outcome.kind for outcome in engine.outcomes()))
    p50, p99 = percentile(delays, 0.5) * 1000, percentile(delays, 0.99) * 1000
    most = max(delays) * 1000
    print(
        f"{what}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {most:.0f} ms of {len(delays)}; {kinds}; busy {busyness():.1f}"
    )


def check_others(engine: FaultyEngine) -> None:
    """Runs end well, or with the loss of their worker, and not otherwise."""
    bad = [outcome for outcome in engine.outcomes() if outcome.kind not in _ENDS]
    assert not bad, [f"{outcome.kind}: {outcome.reason}" for outcome in bad[:5]]
