"""The limits in ``headrace status`` as texts: pools, what runs wait for, spending limits and the shared budget. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.wire.engine_status import PoolStatus, SpendingStatus

POOL_HEAD = ["POOL", "KEY", "STATE", "RUNS", "WAITING", "LEFT IN THIS MINUTE", "429", "RETRIES"]
SPENDING_HEAD = ["SPENDING LIMIT", "STATE", "SPENT TODAY", "OF"]

_WAITS = {
    "workers": "for a worker",
    "share": "for their client's share of the workers",
    "limit": "for a limit",
    "blocked": "because the provider asked for a pause",
    "breaker": "because the provider fails",
}


def pool_row(pool: PoolStatus) -> list[str]:
    """Return the cells of a pool below ``POOL_HEAD``. The state is ``ok`` while nothing holds its runs up."""
    runs = str(pool.running) if pool.concurrency is None else f"{pool.running} of {pool.concurrency}"
    levels = [f"{level.left} of {level.limit} {level.kind.replace('_', ' ')}" for level in pool.levels]
    return [
        f"{pool.provider}/{pool.model}",
        pool.key,
        _state(pool),
        runs,
        str(pool.waiting),
        ", ".join(levels),
        str(pool.rate_limited_total),
        str(pool.retries_total),
    ]


def _state(pool: PoolStatus) -> str:
    states = [f"out of rotation: {pool.out_of_rotation}"] if pool.out_of_rotation else []
    states += [f"breaker {pool.breaker}"] if pool.breaker != "closed" else []
    states += [f"blocked for {pool.blocked_for:.1f} s"] if pool.blocked_for > 0 else []
    return ", ".join(states) or "ok"


def spending_row(limit: SpendingStatus) -> list[str]:
    """Return the cells of a spending limit below ``SPENDING_HEAD``."""
    state = "ok" if limit.spent < limit.max_cost else "reached"
    return [limit.name, state, f"${limit.spent:,.4f}", f"${limit.max_cost:,.2f}"]


def shown_waits(waiting_for: Mapping[str, int]) -> Sequence[str]:
    """Return what runs wait for, the most runs first, such as ``30 for a limit``."""
    counts = sorted(waiting_for.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count} {_WAITS.get(word, word)}" for word, count in counts if count]
