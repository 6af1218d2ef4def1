"""What tests of faults share: one engine for programs that hurt only their own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import SimulatedProvider
from tests.e2e.engines import running_engine


@pytest.fixture(scope="session")
def engine(session_provider: SimulatedProvider) -> Iterator[str]:
    """Run an engine as a service for all tests of this test process; yield its address."""
    with running_engine(session_provider) as address:
        yield address


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as slow: each starts an engine, or programs."""
    folder = f"{Path(__file__).parent}/"
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.slow)
