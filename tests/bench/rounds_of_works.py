"""Rounds of the benchmark as tests need them."""

from __future__ import annotations

from bench.summary import Result
from bench.works import CURVE_SHARES, Reading


def measured(
    contestant: str,
    work: str,
    cpu: float | dict[str, float],
    *,
    number: int = 0,
    held: int = 500,
    p99: float = 1.0,
    first: tuple[float, float] = (1.0, 2.0),
    kilobytes: float = 0.0,
    faults: int = 0,
) -> Result:
    """Return a round of 1,000,000 chunks in ten seconds, so that a second of CPU is a microsecond a chunk."""
    reading = Reading(
        seconds=10.0,
        chunks=1_000_000,
        deltas=1_000_000,
        complete=held,
        held=held,
        first=list(first),
        latency=[p99 / 2, p99],
        latency_curve=[p99 * share for share in CURVE_SHARES],
        faults=faults,
        fault="wrong text" if faults else "",
    )
    return Result(
        contestant,
        work,
        cpu=cpu if isinstance(cpu, dict) else {"client": cpu},
        memory={"client": kilobytes * held},
        reading=reading,
        number=number,
        provider_cpu=5.0,
    )
