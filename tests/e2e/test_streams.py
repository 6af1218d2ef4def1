"""Streams and results, from the client to the simulated provider and back, through real processes."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future, as_completed, wait
from typing import Any

import pytest

from headrace import (
    AsyncLocalStream,
    Client,
    LocalStream,
    ReasoningDelta,
    RunLocalResult,
    StreamConsumedError,
    StreamResult,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate

MODEL = "gpt-4o"
WEATHER: dict[str, Any] = {"name": "get_weather", "arguments": {"location": "Tokyo"}}
TOOL = {
    "name": "get_weather",
    "description": "Get current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}


def stream(client: Client, **script: Any) -> LocalStream:
    return client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=simulate(**script))


def test_text_arrives_in_the_pieces_that_the_provider_sent(client: Client) -> None:
    chunks = ["One ", "two, ", "três ", "- 四 ", "🌊"]

    assert list(stream(client, chunks=chunks)) == chunks


def test_ids_are_there_before_any_chunk(client: Client) -> None:
    waiting = stream(client, first_token_delay=30)

    assert waiting.span_id.startswith("sp_")
    assert waiting.trace_id.startswith("tr_")
    assert repr(waiting) == f"<LocalStream {waiting.span_id}>"


def test_given_ids_are_kept(client: Client) -> None:
    running = client.run_local(
        model=MODEL, messages=HELLO, stream=True, span_id="sp_00112233445566ff", trace_id="tr_0123456789abcdef"
    )

    assert running.result.result().span_id == "sp_00112233445566ff"
    assert running.result.result().trace_id == "tr_0123456789abcdef"


def test_the_result_says_what_the_stream_came_to(client: Client) -> None:
    running = stream(client, chunks=["Hello ", "world"], usage={"prompt_tokens": 7, "completion_tokens": 2})
    text = "".join(running)

    result = running.result.result()

    assert isinstance(result, StreamResult)
    assert isinstance(running.result, Future)
    assert (result.text, text) == ("Hello world", "Hello world")
    assert result.usage == Usage(input_tokens=7, output_tokens=2, total_tokens=9, source="provider")
    assert (result.finish_reason, result.provider_finish_reason) == ("stop", "stop")
    assert (result.provider, result.model, result.attempts) == ("openai", MODEL, 1)
    assert not result.aborted
    assert result.message.content == "Hello world"
    assert result.latency_ms > 0


def test_without_streaming_the_result_comes_at_once(client: Client, provider: SimulatedProvider) -> None:
    result = client.run_local(model=MODEL, messages=HELLO, custom_options=simulate(text="Hello world"))

    assert type(result) is RunLocalResult
    assert result.text == "Hello world"
    assert result.message.content == "Hello world"
    assert result.usage.source == "provider"
    assert "stream" not in (provider.requests()[0].body or {})


def test_a_result_resolves_whether_or_not_anyone_iterates(client: Client) -> None:
    assert stream(client, repeat=1000).result.result().text == "".join(f"{number} " for number in range(1000))


def test_text_can_still_be_iterated_after_the_result(client: Client) -> None:
    running = stream(client, repeat=300)
    result = running.result.result()

    assert "".join(running) == result.text


@pytest.mark.slow
def test_a_thousand_streams_that_nobody_iterates_all_resolve(client: Client) -> None:
    streams = [stream(client, repeat=100) for _ in range(1000)]
    expected = "".join(f"{number} " for number in range(100))

    assert all(running.result.result().text == expected for running in streams)


def test_results_work_with_wait_and_as_completed(client: Client) -> None:
    streams = [stream(client, repeat=10) for _ in range(5)]
    futures = [running.result for running in streams]

    done, pending = wait(futures, timeout=90)

    assert (len(done), len(pending)) == (5, 0)
    assert len(list(as_completed(futures))) == 5


def test_a_result_that_is_held_alone_keeps_its_run_going(client: Client) -> None:
    future = stream(client, repeat=20, pace=0.01).result
    gc.collect()

    assert not future.result().aborted


def test_a_callback_is_called_though_nobody_holds_its_stream(client: Client) -> None:
    called = threading.Event()
    texts: list[str] = []

    def remember(future: Future[StreamResult]) -> None:
        texts.append(future.result().text)
        called.set()

    stream(client, repeat=20, pace=0.01).result.add_done_callback(remember)
    gc.collect()

    assert called.wait(60)
    assert texts == ["".join(f"{number} " for number in range(20))]


def test_a_stream_is_iterated_once(client: Client) -> None:
    running = stream(client, repeat=3)
    list(running)

    with pytest.raises(StreamConsumedError, match="iterated already"):
        iter(running)
    with pytest.raises(StreamConsumedError):
        running.events()


def test_events_are_typed(client: Client) -> None:
    running = stream(client, reasoning="I think.", chunks=["Hel", "lo"])

    events = list(running.events())

    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "I think."
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert running.result.result().reasoning == "I think."


def test_a_refusal_is_told_apart_from_text(client: Client) -> None:
    result = stream(client, refusal="I cannot help with that.").result.result()

    assert (result.text, result.refusal) == ("", "I cannot help with that.")
    assert result.finish_reason == "content_filter"


def test_tool_calls_arrive_with_their_arguments(client: Client) -> None:
    running = client.run_local(
        model=MODEL, messages=HELLO, stream=True, tools=[TOOL], custom_options=simulate(tool_calls=[WEATHER, WEATHER])
    )
    deltas = [event for event in running.events() if isinstance(event, ToolCallDelta)]
    result = running.result.result()

    assert result.finish_reason == "tool_calls"
    assert [call.name for call in result.tool_calls] == ["get_weather", "get_weather"]
    assert [call.arguments for call in result.tool_calls] == [{"location": "Tokyo"}] * 2
    assert {delta.index for delta in deltas} == {0, 1}
    assert [part.id for part in result.message.tool_calls] == [call.id for call in result.tool_calls]


def test_the_message_of_a_tool_call_can_be_sent_back(client: Client, provider: SimulatedProvider) -> None:
    """The simulated provider refuses a turn whose calls and answers do not match."""
    first = client.run_local(model=MODEL, messages=HELLO, tools=[TOOL], custom_options=simulate(tool_calls=[WEATHER]))
    call = first.tool_calls[0]
    answer = {"role": "tool", "tool_call_id": call.id, "tool_name": call.name, "content": "sunny"}

    second = client.run_local(
        model=MODEL,
        messages=[*HELLO, first.message, answer],
        tools=[TOOL],
        custom_options=simulate(text="It is sunny."),
    )

    assert second.text == "It is sunny."


def test_a_call_cut_by_the_token_limit_is_kept_apart(client: Client) -> None:
    result = client.run_local(
        model=MODEL,
        messages=HELLO,
        stream=True,
        tools=[TOOL],
        custom_options=simulate(
            tool_calls=[{"name": "get_weather", "arguments": '{"location": "To'}], finish_reason="length"
        ),
    ).result.result()

    assert result.finish_reason == "max_tokens"
    assert result.tool_calls == []
    assert [call.arguments for call in result.incomplete_tool_calls] == ['{"location": "To']


def test_a_large_stream_arrives_whole(client: Client) -> None:
    chunks = ["x" * 50_000 + str(number) for number in range(40)]

    assert "".join(stream(client, chunks=chunks)) == "".join(chunks)


def test_a_slow_reader_loses_nothing(client: Client, provider: SimulatedProvider) -> None:
    """Credit stops the worker, and the worker stops the provider, until the reader goes on."""
    chunks = [f"{number:06d}" + "x" * 2000 for number in range(2000)]
    running = iter(running_stream := stream(client, chunks=chunks))
    first = next(running)
    provider.wait_until(lambda records: records[-1].chunks_sent > 0)

    assert provider.requests()[-1].chunks_sent < len(chunks)
    assert first + "".join(running) == "".join(chunks)
    assert not running_stream.result.result().aborted


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_bytes_may_be_split_anywhere(client: Client, size: int) -> None:
    text = "Grüße, 世界 - " * 5

    assert "".join(stream(client, text=text, split_bytes=size)) == text


def test_comments_and_a_missing_last_newline_change_nothing(client: Client) -> None:
    assert "".join(stream(client, text="All is well.", comments=True, no_final_newline=True)) == "All is well."


# asyncio.


async def async_stream(client: Client, **script: Any) -> AsyncLocalStream:
    return await client.arun_local(model=MODEL, messages=HELLO, stream=True, custom_options=simulate(**script))


def test_async_streams_have_the_same_interface(client: Client) -> None:
    async def main() -> None:
        running = await async_stream(client, repeat=500)
        assert running.span_id.startswith("sp_")

        chunks = [chunk async for chunk in running]
        result = await running.result

        assert "".join(chunks) == "".join(f"{number} " for number in range(500))
        assert isinstance(running.result, asyncio.Future)
        assert isinstance(result, StreamResult)
        assert result.text == "".join(chunks)
        with pytest.raises(StreamConsumedError):
            aiter(running)

    asyncio.run(main())


def test_async_results_resolve_without_iteration(client: Client) -> None:
    async def main() -> list[StreamResult]:
        streams = [await async_stream(client, repeat=100) for _ in range(100)]
        return [await running.result for running in streams]

    assert {len(result.text) for result in asyncio.run(main())} == {sum(len(f"{number} ") for number in range(100))}


def test_async_events_are_typed(client: Client) -> None:
    async def main() -> list[str]:
        running = await async_stream(client, chunks=["a", "b"])
        return [event.text async for event in running.events() if isinstance(event, TextDelta)]

    assert asyncio.run(main()) == ["a", "b"]


def test_async_without_streaming(client: Client) -> None:
    async def main() -> RunLocalResult:
        return await client.arun_local(model=MODEL, messages=HELLO, custom_options=simulate(text="Hi"))

    assert asyncio.run(main()).text == "Hi"


def test_an_async_result_held_by_its_waiter_alone_keeps_its_run_going(client: Client) -> None:
    async def main() -> bool:
        future = (await async_stream(client, repeat=20, pace=0.01)).result
        gc.collect()
        return (await future).aborted

    assert asyncio.run(main()) is False


def test_many_async_streams_share_a_loop(client: Client) -> None:
    async def read(number: int) -> str:
        running = await async_stream(client, chunks=[f"{number}-{piece} " for piece in range(50)], pace=0.002)
        return "".join([chunk async for chunk in running])

    async def main() -> list[str]:
        return await asyncio.gather(*(read(number) for number in range(100)))

    assert asyncio.run(main()) == ["".join(f"{number}-{piece} " for piece in range(50)) for number in range(100)]
