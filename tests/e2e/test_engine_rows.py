"""The rows of a batch job on a real engine: each row ends once, with its own result or its own error."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from typing import Any

import pytest

from headrace import (
    Client,
    InvalidRequestError,
    OutputValidationError,
    PoisonRunError,
    RunEmbeddingResult,
    RunError,
    RunLocalResult,
    RunTimeoutError,
)
from headrace.batch.engine_rows import EngineRows
from headrace.batch.row import FinishedRow, Row
from headrace.batch.row_runs import RowRunsState
from headrace.testing import SimulatedProvider
from tests.conftest import simulate
from tests.waiting import busyness, wait_until


@pytest.fixture
def rows(client: Client) -> Callable[..., EngineRows]:
    def make(**shared: Any) -> EngineRows:
        return client._row_runs({"priority": "batch", "provider_api_key": f"sk-{secrets.token_hex(8)}", **shared})

    return make


def chat(number: int, text: str = "Hello", **arguments: Any) -> Row:
    given = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **arguments}
    return Row(number, f"row-{number}", "chat", "openai", given, b"")


def taken(rows: EngineRows, count: int) -> dict[int, FinishedRow]:
    """Return the next ``count`` rows that end, by number."""
    found: dict[int, FinishedRow] = {}
    while len(found) < count:
        ended = rows.take(10 * busyness())
        assert ended, f"only {sorted(found)} have ended"
        for row in ended:
            assert row.row.number not in found
            found[row.row.number] = row
    return found


def test_each_row_gets_its_own_answer(rows: Callable[..., EngineRows], provider: SimulatedProvider) -> None:
    running = rows()
    running.start([chat(number, custom_options=simulate(text=f"answer {number}")) for number in range(100)])
    found = taken(running, 100)

    results = {number: row.result for number, row in found.items()}
    assert all(isinstance(result, RunLocalResult) for result in results.values())
    assert {number: getattr(result, "text", "") for number, result in results.items()} == {
        number: f"answer {number}" for number in range(100)
    }
    assert len(provider.requests()) == 100
    assert running.take(60) == []  # nothing is under way: it does not wait
    assert running.state == RowRunsState()


def test_a_wrong_row_ends_with_its_error_and_the_others_run(
    rows: Callable[..., EngineRows], provider: SimulatedProvider
) -> None:
    running = rows(max_retries=0)
    running.start(
        [
            chat(1),
            chat(2, temperature="hot"),
            chat(3, temprature=1),
            chat(4, model="no-such-model-anywhere"),
            chat(5, custom_options=simulate(status=400)),
            Row(6, "row-6", "embeddings", "openai", {"model": "text-embedding-3-small", "input": ["a", "b"]}, b""),
        ]
    )
    found = {number: row.result for number, row in taken(running, 6).items()}

    assert isinstance(found[1], RunLocalResult)
    assert [getattr(found[number], "argument", None) for number in (2, 3, 4)] == ["temperature", "temprature", "model"]
    assert all(isinstance(found[number], InvalidRequestError) for number in (2, 3, 4, 5))
    assert isinstance(found[6], RunEmbeddingResult)
    assert len(found[6].embeddings) == 2
    assert len(provider.requests()) == 3


def test_a_failed_row_is_tried_again_and_an_answer_is_read_into_its_type(
    rows: Callable[..., EngineRows], provider: SimulatedProvider
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    failures = [{"status": status, "headers": {"retry-after-ms": "1"}} for status in (503, 429)]
    running = rows(max_retries=2)
    running.start(
        [
            chat(1, custom_options=simulate(text="late", failures=failures)),
            chat(2, response_type=schema, custom_options=simulate(text='{"n": 3}')),
            chat(3, response_type=schema, custom_options=simulate(text='{"n": "x"}')),
        ]
    )
    found = {number: row.result for number, row in taken(running, 3).items()}

    assert isinstance(found[1], RunLocalResult)
    assert (found[1].text, found[1].attempts) == ("late", 3)
    assert isinstance(found[2], RunLocalResult)
    assert found[2].parsed == {"n": 3}
    assert isinstance(found[3], OutputValidationError)
    assert running.state == RowRunsState(rate_limited=1)
    assert len(provider.requests()) == 5


def test_an_abort_ends_all_rows_and_closes_their_connections(
    rows: Callable[..., EngineRows], provider: SimulatedProvider
) -> None:
    running = rows()
    running.start([chat(number, custom_options=simulate(stall_after=0)) for number in range(5)])
    provider.wait_until(lambda requests: len(requests) == 5)
    assert running.state == RowRunsState(running=5)
    running.abort()
    found = taken(running, 5)

    assert all(type(row.result) is RunError for row in found.values())
    provider.wait_until(lambda requests: all(request.outcome == "closed_by_client" for request in requests))


def test_a_row_ends_at_its_timeout(rows: Callable[..., EngineRows], provider: SimulatedProvider) -> None:
    running = rows(timeout_ms=100)
    running.start([chat(1, custom_options=simulate(stall_after=0))])

    assert isinstance(taken(running, 1)[1].result, RunTimeoutError)
    assert len(provider.requests()) == 1


def test_rows_of_a_worker_that_dies_run_again_and_a_row_that_kills_workers_does_not(
    rows: Callable[..., EngineRows], client: Client, provider: SimulatedProvider
) -> None:
    running = rows()
    running.start([chat(1, custom_options=simulate(stall_after=0))])
    for attempt in (1, 2):
        provider.wait_until(lambda requests: len(requests) == attempt)  # noqa: B023 - it is called at once
        worker = next(worker for worker in client.status().workers if worker.runs)
        os.kill(worker.pid, signal.SIGKILL)

    assert isinstance(taken(running, 1)[1].result, PoisonRunError)


def test_rows_go_on_when_the_broker_dies_and_those_that_wait_are_run_once(
    rows: Callable[..., EngineRows], client: Client, provider: SimulatedProvider
) -> None:
    running = rows()
    running.start([chat(number, custom_options=simulate(first_token_delay=0.5)) for number in range(20)])
    provider.wait_until(lambda requests: len(requests) == 20)
    broker = next(process for process in client.status().processes if process.name == "broker")
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    running.start([chat(number) for number in range(20, 60)])
    found = taken(running, 60)

    assert all(isinstance(row.result, RunLocalResult) for row in found.values())
    assert len(provider.requests()) == 60


def test_rows_wait_for_the_limits_of_their_provider_and_say_so(
    rows: Callable[..., EngineRows], provider: SimulatedProvider
) -> None:
    running = rows(max_retries=5)
    failures = [{"status": 429, "headers": {"retry-after-ms": "1000"}}]
    running.start([chat(1, custom_options=simulate(text="x", failures=failures))])
    wait_until(lambda: running.state.rate_limited == 1, 10, "the answer 429")
    running.start([chat(number) for number in range(2, 20)])
    found = taken(running, 19)

    assert all(isinstance(row.result, RunLocalResult) for row in found.values())
    reasons = {row.result.queue_reason for row in found.values() if isinstance(row.result, RunLocalResult)}
    assert "blocked" in reasons
    assert len(provider.requests()) == 20
