"""Hedges on a real engine: the faster of two attempts answers, and the other one is stopped."""

from __future__ import annotations

import secrets
import time
from typing import Any

import pytest

from headrace import Client
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO


@pytest.fixture
def given() -> dict[str, Any]:
    """Arguments of a run with a key of its own: each key may have its first hedge."""
    return {"model": "gpt-4o", "messages": HELLO, "provider_api_key": f"sk-{secrets.token_hex(8)}"}


@pytest.mark.parametrize("stream", [True, False])
def test_a_second_attempt_answers_where_the_first_one_says_nothing(
    client: Client, provider: SimulatedProvider, given: dict[str, Any], stream: bool
) -> None:
    provider.enqueue(Script(silent=True))
    provider.enqueue(Script(text="from the hedge"))
    began = time.monotonic()
    if stream:
        found = client.run_local(**given, stream=True, hedge_after_ms=50)
        assert "".join(found) == "from the hedge"
        result: Any = found.result.result()
    else:
        result = client.run_local(**given, hedge_after_ms=50)

    assert (result.text, result.attempts) == ("from the hedge", 2)
    assert time.monotonic() - began < 60
    requests = provider.wait_until(lambda requests: all(request.outcome != "open" for request in requests))
    assert len(requests) == 2


def test_the_first_attempt_answers_where_it_is_faster(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    provider.enqueue(Script(text="from the first", first_token_delay=0.3))
    provider.enqueue(Script(silent=True))
    stream = client.run_local(**given, stream=True, hedge_after_ms=50)

    assert "".join(stream) == "from the first"
    requests = provider.wait_until(
        lambda requests: len(requests) == 2 and all(request.outcome != "open" for request in requests)
    )
    assert len(requests) == 2


def test_an_abort_stops_both_attempts(client: Client, provider: SimulatedProvider, given: dict[str, Any]) -> None:
    provider.enqueue(Script(silent=True))
    provider.enqueue(Script(silent=True))
    stream = client.run_local(**given, stream=True, hedge_after_ms=50)
    provider.wait_until(lambda requests: len(requests) == 2)
    stream.abort()

    assert stream.result.result(timeout=60).aborted
    provider.wait_until(lambda requests: all(request.outcome != "open" for request in requests))
