"""Embeddings: a run like any other, whose answer is vectors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import Client, InvalidRequestError, RateLimitError, RunEmbeddingResult
from headrace.testing import Script, SimulatedProvider

MODELS = ["text-embedding-3-small", "openai-responses/text-embedding-3-small", "gemini-embedding-001"]


@pytest.mark.parametrize("model", MODELS)
def test_each_text_has_its_vector_in_the_order_of_the_texts(client: Client, model: str) -> None:
    texts = [f"text number {number}" for number in range(10)]

    result = client.run_embedding(model=model, input=texts, dimensions=8)
    alone = client.run_embedding(model=model, input=texts[7], dimensions=8)

    assert isinstance(result, RunEmbeddingResult)
    assert [len(vector) for vector in result.embeddings] == [8] * 10
    assert alone.embeddings == [pytest.approx(result.embeddings[7])]
    assert result.span_id.startswith("sp_")
    assert result.attempts == 1


def test_embeddings_of_openai_say_what_they_used(client: Client) -> None:
    usage = client.run_embedding(model=MODELS[0], input="four words of text").usage

    assert (usage.source, usage.output_tokens) == ("provider", 0)
    assert usage.input_tokens == usage.total_tokens > 0


def test_embeddings_from_asyncio(client: Client) -> None:
    async def main() -> list[RunEmbeddingResult]:
        calls = [client.arun_embedding(model=MODELS[0], input=f"text {number}") for number in range(20)]
        return await asyncio.gather(*calls)

    assert len({tuple(result.embeddings[0]) for result in asyncio.run(main())}) == 20


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("input", {"model": MODELS[0]}),
        ("input", {"model": MODELS[0], "input": []}),
        ("input", {"model": MODELS[0], "input": ["", "x"]}),
        ("input", {"model": MODELS[0], "input": 5}),
        ("dimensions", {"model": MODELS[0], "input": "x", "dimensions": 0}),
        ("messages", {"model": MODELS[0], "input": "x", "messages": []}),
        ("model", {"model": "mystery", "input": "x"}),
    ],
)
def test_a_wrong_argument_is_named(client: Client, argument: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        client.run_embedding(**arguments)

    assert error.value.argument == argument


def test_a_provider_without_embeddings_is_refused_before_anything_is_sent(
    client: Client, provider: SimulatedProvider
) -> None:
    with pytest.raises(InvalidRequestError, match=r"^model: anthropic has no embeddings; use a model"):
        client.run_embedding(model="claude-sonnet-4-6", input="x")

    assert provider.requests() == []


@pytest.mark.parametrize("model", MODELS)
def test_errors_are_those_of_the_provider(client: Client, provider: SimulatedProvider, model: str) -> None:
    provider.enqueue(Script(status=429, headers={"retry-after": "3"}))

    with pytest.raises(RateLimitError) as error:
        client.run_embedding(model=model, input="x")

    assert error.value.status_code == 429
