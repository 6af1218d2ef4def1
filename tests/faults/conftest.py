"""What tests of faults share: one engine for programs that hurt only their own client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.testing import SimulatedProvider
from tests.e2e.engines import running_engine


@pytest.fixture(scope="session")
def engine(session_provider: SimulatedProvider) -> Iterator[str]:
    """Run an engine as a service for all tests of this test process; yield its address."""
    with running_engine(session_provider) as address:
        yield address
