"""Under mixed load and random faults nothing grows with what has been done: memory, descriptors, threads."""

from __future__ import annotations

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.soak import soak
from tests.repetition import long_test

SECONDS = 120.0


@long_test
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 180)
def test_nothing_grows_while_everything_dies_now_and_then(provider: SimulatedProvider) -> None:
    """Two minutes of what ``scripts/soak`` does for ten; every run is checked, and nothing is left at the end."""
    report = soak(provider, SECONDS)

    print(report.text())
    assert report.violations() == []
    assert {series.name for series in report.series} >= {"supervisor", "w1", "client"}
