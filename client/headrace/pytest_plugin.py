"""pytest's fixtures ``headrace_provider`` and ``headrace_client``. Imports the rest of Headrace when a test asks for one.

pytest finds this module by its entry point, ``headrace``. So each start of pytest imports it: it must stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.testing.provider import SimulatedProvider


@pytest.fixture
def headrace_provider() -> Iterator[SimulatedProvider]:
    """Return a simulated model provider. While the test runs, all runs of this process go to it, and need no key."""
    from headrace.testing.provider import SimulatedProvider

    with SimulatedProvider() as provider, provider.in_environment():
        yield provider


@pytest.fixture
def headrace_client(headrace_provider: SimulatedProvider, _headrace_keeper: Client) -> Iterator[Client]:  # noqa: ARG001
    """Return a client whose runs go to ``headrace_provider``. It is closed after the test.

    The tests of one pytest process share one engine, which starts with the first run and ends with the session. Its
    spans go to a temporary directory.
    """
    from headrace.client import Client
    from headrace.errors import EngineUnavailableError

    with Client() as client:
        try:
            yield client
        finally:
            with suppress(EngineUnavailableError):  # then the next test starts an engine
                _headrace_keeper.flush(0)  # a client that has asked something keeps the engine that runs


@pytest.fixture(scope="session")
def _headrace_keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client that keeps the engine of this process between tests, because an engine takes a second to start."""
    from headrace.client import Client

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HEADRACE_ENGINE", raising=False)
        patch.setenv("HEADRACE_DATA", str(tmp_path_factory.mktemp("headrace-data")))
        with Client() as keeper:
            yield keeper
