"""Fixtures for tests of the worker: the two event loops that its HTTP client runs on, without proxy settings."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.workers.http.http_servers import PROXY_VARIABLES, Run


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    chosen: Run = request.param
    return chosen
