"""The simulated batch API of Anthropic, as the official client uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.testing import Script, SimulatedProvider
from tests.testing.sdks import Sdk

anthropic = Sdk("anthropic")


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.clear()
    shared.recover()
    return shared


@pytest.fixture(scope="module")
def shared_batches(shared: SimulatedProvider) -> Iterator[Any]:
    url = f"http://127.0.0.1:{shared.port}"
    with anthropic.Anthropic(base_url=url, api_key=shared.api_key, max_retries=0) as client:
        yield client.messages.batches


@pytest.fixture
def batches(provider: SimulatedProvider, shared_batches: Any) -> Any:
    return shared_batches


def message_row(number: int, **params: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}]
    return {
        "custom_id": f"row-{number}",
        "params": {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": messages} | params,
    }


def results(batches: Any, batch_id: str) -> list[tuple[str, str]]:
    return [(line.custom_id, line.result.type) for line in batches.results(batch_id)]


def test_requests_succeed_or_fail_each_alone(provider: SimulatedProvider, batches: Any) -> None:
    provider.enqueue(Script(text="one"), Script(status=529), Script(reset=True))
    rows = [*(message_row(number) for number in range(3)), message_row(3, stream=True), message_row(4, max_tokens=0)]

    batch = batches.create(requests=rows)
    assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 5, None)
    batch = batches.retrieve(batch.id)

    assert (batch.processing_status, batch.ended_at is not None) == ("ended", True)
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 4)
    lines = list(batches.results(batch.id))
    assert [line.custom_id for line in lines] == [f"row-{number}" for number in (4, 3, 2, 1, 0)]
    assert lines[4].result.message.content[0].text == "one"
    kinds = [line.result.error.error.type for line in lines[:4]]
    assert kinds == ["invalid_request_error", "invalid_request_error", "api_error", "overloaded_error"]
    logged = [record.custom_id for record in provider.requests() if record.batch_id == batch.id]
    assert logged == [f"row-{number}" for number in range(5)]


def test_a_cancelled_batch_keeps_what_was_done(provider: SimulatedProvider, batches: Any) -> None:
    provider.batches.pace(None)
    batch = batches.create(requests=[message_row(number) for number in range(3)])
    provider.batches.advance(1)
    with pytest.raises(anthropic.AnthropicError):
        batches.results(batch.id)

    assert batches.cancel(batch.id).processing_status == "canceling"
    provider.batches.advance()

    assert results(batches, batch.id) == [("row-2", "canceled"), ("row-1", "canceled"), ("row-0", "succeeded")]
    assert batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)


def test_a_batch_that_expires_keeps_what_was_done(provider: SimulatedProvider, batches: Any) -> None:
    provider.batches.pace(None)
    batch = batches.create(requests=[message_row(number) for number in range(2)])
    provider.batches.advance(1)
    with pytest.raises(anthropic.BadRequestError):
        batches.delete(batch.id)

    provider.batches.end(batch.id, "expired")

    assert results(batches, batch.id) == [("row-1", "expired"), ("row-0", "succeeded")]


def test_a_batch_with_bad_ids_is_refused(batches: Any) -> None:
    for rows, word in [
        ([], "requests"),
        ([message_row(1), message_row(1)], "requests.1.custom_id"),
        ([message_row(1) | {"custom_id": "with space"}], "requests.0.custom_id"),
        ([{"custom_id": "row-1"}], "requests.0.params"),
    ]:
        with pytest.raises(anthropic.BadRequestError, match=word):
            batches.create(requests=rows)


def test_batches_are_listed_in_pages(batches: Any) -> None:
    ids = [batches.create(requests=[message_row(1)]).id for _ in range(3)]

    page = batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == ([ids[2], ids[1]], True)
    assert batches.list(limit=1, after_id=ids[1]).data[0].id == ids[0]
    assert [batch.id for batch in batches.list(limit=5, before_id=ids[1]).data] == [ids[2]]
