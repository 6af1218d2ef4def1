"""The simulated batch API of Gemini, as the official client uses it: files, inline requests, embeddings."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headrace.testing import Script, SimulatedProvider
from tests.testing.sdks import Sdk

genai = Sdk("google.genai")
errors = Sdk("google.genai.errors")

MODEL = "gemini-3-pro"


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
def shared_client(shared: SimulatedProvider) -> Iterator[Any]:
    with shared.in_environment():
        client = genai.Client()
    yield client
    client.close()


@pytest.fixture
def client(provider: SimulatedProvider, shared_client: Any) -> Any:
    return shared_client


def content(text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def upload(client: Any, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    data = io.BytesIO("\n".join(lines).encode())
    file = client.files.upload(file=data, config={"display_name": "in", "mime_type": "application/jsonl"})
    return str(file.name)


def create(client: Any, rows: list[Any]) -> Any:
    return client.batches.create(model=MODEL, src=upload(client, rows), config={"display_name": "job"})


def lines_of(client: Any, batch: Any) -> list[Any]:
    data = client.files.download(file=batch.dest.file_name)
    return [json.loads(line) for line in data.decode().splitlines()]


def test_a_batch_of_a_file_is_answered_in_another_order(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="one"), Script(status=503))
    rows = [{"key": f"row-{number}", "request": content(f"question {number}")} for number in range(2)]
    rows.append({"key": "row-2", "request": {"generation_config": {"temperature": 9}} | content("hi")})

    batch = create(client, rows)
    assert (batch.state.name, batch.display_name) == ("JOB_STATE_PENDING", "job")
    batch = client.batches.get(name=batch.name)

    assert (batch.state.name, batch.done, batch.model) == ("JOB_STATE_SUCCEEDED", True, f"models/{MODEL}")
    lines = lines_of(client, batch)
    assert [line["key"] for line in lines] == ["row-2", "row-1", "row-0"]
    assert [line.get("error", {}).get("code") for line in lines] == [3, 14, None]
    answer = genai.types.GenerateContentResponse.model_validate(lines[2]["response"])
    assert answer.text == "one"
    logged = [record for record in provider.requests() if record.batch_id == batch.name]
    assert [(record.custom_id, record.model, record.status) for record in logged] == [
        ("row-0", MODEL, 200), ("row-1", MODEL, 503), ("row-2", MODEL, 400),
    ]  # fmt: skip


def test_inline_requests_are_answered_in_their_order_with_their_metadata(
    provider: SimulatedProvider, client: Any
) -> None:
    provider.enqueue(Script(text="one"), Script(status=400), Script(text="three"))
    rows = [content(f"question {number}") | {"metadata": {"id": str(number)}} for number in range(3)]

    batch = client.batches.create(model=MODEL, src=rows, config={"display_name": "inline"})
    batch = client.batches.get(name=batch.name)

    answers = batch.dest.inlined_responses
    assert [answer.metadata["id"] for answer in answers] == ["0", "1", "2"]
    assert [answer.response.text if answer.response else None for answer in answers] == ["one", None, "three"]
    assert answers[1].error.code == 3
    listed = next(iter(client.batches.list(config={"page_size": 1})))
    assert (listed.name, listed.dest) == (batch.name, None)


def test_embeddings_are_answered_in_batches_too(provider: SimulatedProvider, client: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK calls it experimental
        batch = client.batches.create_embeddings(
            model="gemini-embedding-001",
            src={"inlined_requests": {"contents": ["a", "b"], "config": {"output_dimensionality": 8}}},
            config={"display_name": "vectors"},
        )
    batch = client.batches.get(name=batch.name)

    answers = batch.dest.inlined_embed_content_responses
    assert [len(answer.response.embedding.values) for answer in answers] == [8, 8]


def test_a_batch_goes_through_its_states(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(None)
    rows = [{"key": str(number), "request": content("hi")} for number in range(3)]
    names = [create(client, rows).name for _ in range(4)]
    provider.batches.advance(1)
    assert [client.batches.get(name=name).state.name for name in names] == ["JOB_STATE_RUNNING"] * 4

    provider.batches.end(names[0], "expired")
    provider.batches.end(names[1], "partial")
    provider.batches.end(names[2], "failed")
    client.batches.cancel(name=names[3])
    provider.batches.advance()

    batches = [client.batches.get(name=name) for name in names]
    assert [batch.state.name for batch in batches] == [
        "JOB_STATE_EXPIRED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED",
    ]  # fmt: skip
    assert batches[0].dest is batches[2].dest is None
    assert [[line["key"] for line in lines_of(client, batches[place])] for place in (1, 3)] == [["0"], ["0"]]
    client.batches.delete(name=names[0])
    with pytest.raises(errors.ClientError):
        client.batches.get(name=names[0])


def test_a_bad_file_fails_the_batch(provider: SimulatedProvider, client: Any) -> None:
    batch = create(client, [{"key": "1", "request": content("hi")}, "{no json"])

    url = f"http://127.0.0.1:{provider.port}/v1beta/{batch.name}"
    operation = httpx.get(url, headers={"x-goog-api-key": provider.api_key}).json()
    assert (operation["done"], operation["metadata"]["state"]) == (True, "BATCH_STATE_FAILED")
    assert "Line 2" in operation["error"]["message"]
    with pytest.raises(errors.ClientError, match="no file"):
        client.batches.create(model=MODEL, src="files/unknown", config={"display_name": "job"})
    name = upload(client, [{"key": "1", "request": content("hi")}])
    with pytest.raises(errors.ClientError, match="generated"):
        client.files.download(file=name)


def test_a_large_file_comes_in_pieces(client: Any) -> None:
    rows = [{"key": str(number), "request": content("x" * 1_000_000)} for number in range(9)]

    name = upload(client, rows)

    assert int(client.files.get(name=name).size_bytes) > 8 * 1024 * 1024
