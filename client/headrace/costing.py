"""What a run cost, by the model that was asked for, else by the one that answered."""

from __future__ import annotations

from headrace.prices import PriceTable
from headrace.types import Usage


def run_cost(prices: PriceTable, provider: str, asked: str, answered: str, usage: Usage) -> float | None:
    """Return a run's cost in US dollars, ``None`` where neither name has a price."""
    cost = prices.cost(provider, asked, usage)
    return prices.cost(provider, answered, usage) if cost is None and answered and answered != asked else cost
