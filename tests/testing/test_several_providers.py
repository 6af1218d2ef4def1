"""Several simulated providers in one program.

A run goes to the provider that the environment names when the run begins.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from headrace import AsyncLocalStream, Client
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


def asked(provider: SimulatedProvider, text: str) -> str:
    """Ask a provider without an engine."""
    provider.enqueue(Script(text=text))
    body = {"model": "gpt-4o", "messages": HELLO}
    headers = {"authorization": f"Bearer {provider.api_key}"}
    answer = httpx.post(f"{provider.base_url}/chat/completions", json=body, headers=headers, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("process", [False, True])
def test_threads_may_have_a_provider_each_at_the_same_time(process: bool) -> None:
    count = 2 if process else 8
    together = threading.Barrier(count, timeout=60)

    def own(text: str) -> tuple[str, int]:
        with SimulatedProvider(process=process) as provider:
            together.wait()
            return asked(provider, text), len(provider.requests())

    with ThreadPoolExecutor(count) as pool:
        texts = [f"text {number}" for number in range(count)]
        assert list(pool.map(own, texts)) == [(text, 1) for text in texts]


def test_providers_are_used_inside_one_running_event_loop_at_the_same_time(client: Client) -> None:
    async def begun(provider: SimulatedProvider, text: str) -> AsyncLocalStream:
        provider.enqueue(Script(text=text))
        with provider.in_environment():
            return await client.arun_local(model="gpt-4o", messages=HELLO, stream=True)

    async def main() -> list[str]:
        with SimulatedProvider() as first, SimulatedProvider() as second:
            streams = [await begun(first, "first"), await begun(second, "second")]
            texts = [(await stream.result).text for stream in streams]
            await asyncio.to_thread(first.wait_until, lambda records: len(records) == 1)
            return texts

    assert asyncio.run(main()) == ["first", "second"]


def test_the_environment_is_as_before_after_the_block(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "a-real-key")
    monkeypatch.delenv("GEMINI_API_KEY")
    before = dict(os.environ)

    with SimulatedProvider() as provider, provider.in_environment():
        assert [said(client, provider, model, model) for model in MODELS] == MODELS

    assert dict(os.environ) == before


def test_a_closed_provider_says_that_it_is_closed() -> None:
    provider = SimulatedProvider()
    provider.close()
    provider.close()

    with pytest.raises(ValueError, match="this SimulatedProvider is closed; make a new one"):
        provider.requests()


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_provider_that_nobody_refers_to_any_more_still_answers() -> None:
    provider = SimulatedProvider()
    base_url = provider.base_url
    provider.requests()
    server = provider._server
    del provider
    gc.collect()

    try:
        assert httpx.get(f"{base_url}/none").status_code == 404
    finally:
        server.close()


_FORKING = """
import os, sys
from headrace.testing import SimulatedProvider
provider = SimulatedProvider(process=True)
provider.requests()
ready, told = os.pipe()
child = os.fork()
if child == 0:
    found = provider.requests()
    os.write(told, str(len(found)).encode())
    os.read(0, 1)  # goes on while its parent closes the provider
    os._exit(0)
print(os.read(ready, 1).decode(), len(provider.requests()))
provider.close()
print("closed", flush=True)
os.read(0, 1)
os.waitpid(child, 0)
"""


def test_a_forked_child_asks_on_a_connection_of_its_own_and_does_not_keep_a_provider_from_closing() -> None:
    with subprocess.Popen([sys.executable, "-c", _FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert [program.stdout.readline(), program.stdout.readline()] == [b"0 0\n", b"closed\n"]
        program.communicate(b"xx", timeout=60)

    assert program.returncode == 0
