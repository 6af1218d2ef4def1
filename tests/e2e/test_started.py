"""``stream.started()`` on a real engine, with all wire formats: early, without loss, and with the run's error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from headrace import Client, LocalStream, RateLimitError, StreamResult
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO

MODELS = ["gpt-4o", "openai-responses/gpt-5", "claude-sonnet-4-6", "gemini-2.5-flash"]
every_format = pytest.mark.parametrize("model", MODELS)


def begin(client: Client, model: str) -> LocalStream[None]:
    return client.run_local(model=model, messages=HELLO, stream=True)


@every_format
def test_it_returns_while_the_answer_goes_on_and_consumes_nothing(
    model: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(repeat=4, stall_after=2))
    with begin(client, model) as stream:
        stream.started(timeout=60)

        assert provider.requests()[0].outcome == "open"
        text = iter(stream)
        assert next(text) + next(text) == "0 1 "
        stream.started()


@every_format
def test_a_refusal_is_raised_and_iteration_raises_the_same(
    model: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(status=429, headers={"retry-after": "7"}))
    stream = begin(client, model)
    with pytest.raises(RateLimitError) as caught:
        stream.started()
    assert caught.value.retry_after == 7.0
    for use in (stream.result.result, lambda: list(stream)):
        with pytest.raises(RateLimitError) as again:
            use()
        assert again.value is caught.value


def a_refusal(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(refusal="No."))


def reasoning(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(reasoning="Let me think.", text=""))


@pytest.mark.parametrize("answer", [a_refusal, reasoning])
def test_an_answer_without_text_has_started_too(
    answer: Callable[[SimulatedProvider], None], client: Client, provider: SimulatedProvider
) -> None:
    answer(provider)
    stream = begin(client, "openai-responses/gpt-5")
    stream.started()

    assert list(stream) == []


def test_more_events_than_a_window_arrive_after_a_long_wait_with_started_alone(
    client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(repeat=500))
    stream = begin(client, "gpt-4o")
    for _ in range(3):
        stream.started()

    assert "".join(stream) == "".join(f"{number} " for number in range(500))


def test_tasks_may_wait_for_one_stream_beside_its_reader(client: Client, provider: SimulatedProvider) -> None:
    async def main() -> StreamResult:
        stream = await client.arun_local(model="gpt-4o", messages=HELLO, stream=True)

        async def read() -> str:
            return "".join([text async for text in stream])

        text, *_ = await asyncio.gather(read(), stream.started(), stream.started(60))
        result = await stream.result
        assert result.text == text
        return result

    provider.enqueue(Script(repeat=50, first_token_delay=0.1))
    assert asyncio.run(main()).usage.output_tokens > 0


def test_a_task_that_is_cancelled_while_it_waits_ends_its_run(client: Client, provider: SimulatedProvider) -> None:
    async def main() -> StreamResult:
        stream = await client.arun_local(model="gpt-4o", messages=HELLO, stream=True)
        with pytest.raises(TimeoutError):
            await stream.started(0.05)
        waiting = asyncio.create_task(stream.started())
        await asyncio.to_thread(provider.wait_until, lambda records: records and records[0].outcome == "open")
        waiting.cancel()
        return await stream.result

    provider.enqueue(Script(silent=True))
    assert asyncio.run(main()).aborted
    provider.wait_until(lambda records: records[0].outcome == "closed_by_client")
