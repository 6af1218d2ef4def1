"""Several simulated providers in one program.

A run goes to the provider that the environment names when the run begins.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from headrace import Client
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO

MODELS = ["gpt-4o", "openai-responses/gpt-5", "claude-sonnet-4-6", "gemini-2.5-flash"]


@pytest.fixture(autouse=True)
def environment(provider: SimulatedProvider) -> Iterator[None]:
    """Undo the line of the documentation's examples: ``os.environ.update(provider.environment)``."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def said(client: Client, provider: SimulatedProvider, text: str, model: str = "gpt-4o") -> str:
    provider.enqueue(Script(text=text))
    return client.run_local(model=model, messages=HELLO).text


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("process", [False, True])
def test_runs_go_to_the_provider_that_the_environment_names_last(
    model: str, process: bool, client: Client, provider: SimulatedProvider
) -> None:
    assert said(client, provider, "zero", model) == "zero"
    for text in ("first", "second"):
        with SimulatedProvider(process=process) as another:
            os.environ.update(another.environment)

            assert said(client, another, text, model) == text
            assert len(another.requests()) == 1


def test_runs_go_to_the_inner_of_two_nested_providers(client: Client) -> None:
    with SimulatedProvider() as outer:
        os.environ.update(outer.environment)
        assert said(client, outer, "outer") == "outer"
        with SimulatedProvider() as inner:
            os.environ.update(inner.environment)
            assert said(client, inner, "inner") == "inner"
        os.environ.update(outer.environment)

        assert said(client, outer, "outer again") == "outer again"
        assert len(outer.requests()) == 2


def test_a_stream_stays_with_the_provider_that_it_began_with(client: Client) -> None:
    with SimulatedProvider(Script(repeat=50, pace=0.01)) as first, SimulatedProvider(Script(text="second")) as second:
        os.environ.update(first.environment)
        stream = client.run_local(model="gpt-4o", messages=HELLO, stream=True)
        next(chunks := iter(stream))
        os.environ.update(second.environment)

        assert client.run_local(model="gpt-4o", messages=HELLO).text == "second"
        assert len(list(chunks)) == 49


def test_each_client_may_have_its_own_provider() -> None:
    for text in ("first", "second"):
        with SimulatedProvider() as provider, Client() as own:
            os.environ.update(provider.environment)
            assert said(own, provider, text) == text


def test_two_clients_at_once_use_the_provider_in_the_environment(client: Client) -> None:
    with SimulatedProvider() as first, SimulatedProvider() as second, Client() as other:
        for own, provider in ((client, first), (other, second), (client, second), (other, first)):
            os.environ.update(provider.environment)
            assert said(own, provider, "here") == "here"
        assert [len(first.requests()), len(second.requests())] == [2, 2]


def test_runs_of_asyncio_go_to_the_provider_in_the_environment(client: Client) -> None:
    async def main() -> list[str]:
        texts = []
        for text in ("first", "second"):
            with SimulatedProvider() as provider:
                os.environ.update(provider.environment)
                provider.enqueue(Script(text=text))
                stream = await client.arun_local(model="gpt-4o", messages=HELLO, stream=True)
                texts.append("".join([chunk async for chunk in stream]))
        return texts

    assert asyncio.run(main()) == ["first", "second"]


def test_embeddings_go_to_the_provider_in_the_environment(client: Client) -> None:
    with SimulatedProvider() as another:
        os.environ.update(another.environment)

        client.run_embedding(model="text-embedding-3-small", input="Hello")

        assert [record.path for record in another.requests()] == ["/v1/embeddings"]
