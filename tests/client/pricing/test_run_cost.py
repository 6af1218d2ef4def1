"""Which model's price a run has: that of the model that was asked for, else of the one that answered, else none."""

from __future__ import annotations

import pytest

from headrace.pricing.prices import Price, PriceTable, run_cost
from headrace.types import Usage

TABLE = PriceTable({"asked": Price(input=1.0), "answered": Price(input=2.0), "free": Price(input=0.0)})
MILLION = Usage(1_000_000, 0, 1_000_000, source="provider")


@pytest.mark.parametrize(
    ("asked", "answered", "cost"),
    [
        ("asked", "answered", 1.0),
        ("asked", "", 1.0),
        ("unknown", "answered", 2.0),
        ("unknown", "unknown", None),
        ("unknown", "", None),
        ("unknown", "unknown too", None),
        ("free", "answered", 0.0),
    ],
)
def test_the_model_that_was_asked_for_comes_first(asked: str, answered: str, cost: float | None) -> None:
    assert run_cost(TABLE, "our", asked, answered, MILLION) == cost
