"""run_tools and arun_tools: functions are called, answered, timed, aborted and cancelled, on all four wire formats."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pydantic
import pytest

import headrace
from headrace import (
    Client,
    ForkedStreamError,
    ImagePart,
    InvalidRequestError,
    OutputValidationError,
    RateLimitError,
    RunTimeoutError,
    StreamConsumedError,
    TextDelta,
    TextPart,
    ToolCallReturned,
    ToolCallStarted,
    TurnEnded,
    TurnStarted,
)
from headrace.process.own_process import own_process
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import PROVIDERS, WAYS
from tests.e2e.spans_of_runs import stored_span
from tests.e2e.tool_runs import calling, run_tools, statuses, tool_texts
from tests.repetition import only_long
from tests.waiting import busyness, wait_until

SHORT: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO}
FORCED = ("'tool_choice': 'required'", "'type': 'any'", "'mode': 'ANY'")
caller = contextvars.ContextVar("caller", default="nobody")


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: clear"


async def get_time(city: str) -> dict[str, str]:
    """Get the time in a city."""
    await asyncio.sleep(0)
    return {"city": city, "time": "12:00"}


class Gate:
    """A tool that hangs until the test is over, and says how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self._opened = threading.Event()

    def hang(self) -> str:
        self.calls += 1
        self._opened.wait(60)
        return "late"

    async def hang_async(self) -> str:
        self.calls += 1
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "never"

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.mark.parametrize("name", PROVIDERS)
def test_parallel_calls_are_answered_in_their_order_in_every_way(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    for way in WAYS:
        provider.enqueue(
            calling(("get_weather", {"city": "Oslo"}), ("get_time", {"city": "Bergen"}), text="I look."),
            Script(text="All clear."),
        )
        result = run_tools(client, name, way, [get_weather, get_time])

        assert (result.text, result.stopped, result.finish_reason) == ("All clear.", None, "stop"), way
        assert tool_texts(result) == ["Oslo: clear", '{"city":"Bergen","time":"12:00"}']
        assert [message.role for message in result.messages] == ["user", "assistant", "tool", "tool", "assistant"]
        assert [turn.text for turn in result.turns] == ["I look.", "All clear."]
        assert result.usage.output_tokens == sum(turn.usage.output_tokens for turn in result.turns)
        assert {turn.trace_id for turn in result.turns} == {result.trace_id}
    assert statuses(provider) == {200}


def meeting(everyone: threading.Barrier, together: asyncio.Event) -> list[Any]:
    """Return two tools. Calls of each return when all of its calls are running."""

    def meet(who: str) -> str:
        everyone.wait()
        return who

    async def meet_async(who: str) -> str:
        if who == "first":
            await together.wait()
        together.set()
        return who

    return [meet, meet_async]


def test_calls_of_one_turn_run_at_the_same_time(client: Client, provider: SimulatedProvider) -> None:
    for way in ("sync", "async"):
        everyone = threading.Barrier(3, timeout=30)
        together = asyncio.Event()
        threads = [("meet", {"who": who}) for who in "abc"]
        tasks = [("meet_async", {"who": who}) for who in ("first", "last")]
        provider.enqueue(calling(*threads, *tasks))
        result = run_tools(client, "openai", way, meeting(everyone, together), max_turns=1)

        assert tool_texts(result) == ["a", "b", "c", "first", "last"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_twenty_turns_go_on_with_every_signature_as_it_came(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    steps = [calling(("get_weather", {"city": f"city {step}"}), reasoning=f"thought {step}") for step in range(19)]
    provider.enqueue(*steps, Script(text="Done.", reasoning="at last"))

    result = run_tools(client, name, "sync streamed", [get_weather], max_turns=20)

    assert (result.text, len(result.turns), result.stopped) == ("Done.", 20, None)
    assert statuses(provider) == {200}, "a changed or missing signature is refused"
    assert len(result.messages) == 1 + 19 * 2 + 1
    assert result.messages[1::2] == [turn.message for turn in result.turns]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_wrong_with_a_call_is_told_to_the_model(way: str, client: Client, provider: SimulatedProvider) -> None:
    def fail() -> str:
        raise ValueError("no such city")

    def picture() -> bytes:
        return b"\x89PNG"

    provider.enqueue(
        calling(("fail", {}), ("picture", {}), ("get_wether", {"city": "a"}), ("get_weather", {"town": "a"})),
        Script(text="Sorry."),
    )
    result = run_tools(client, "openai", way, [get_weather, fail, picture])

    assert result.text == "Sorry."
    assert tool_texts(result) == [
        "Error: ValueError: no such city",
        "Error: the tool returned bytes, which a model cannot read: return a str, or a part such as headrace.ImagePart.from_file(data)",
        "Error: there is no tool 'get_wether'; the tools are: get_weather, fail, picture",
        "Error: town: there is no such argument; city: is missing. get_weather takes: city",
    ]


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def draw(what: str) -> list[TextPart | ImagePart]:
    """Draw a picture."""
    return [TextPart(what), ImagePart.from_file(base64.b64decode(PIXEL))]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_picture_that_a_function_returns_is_shown_to_the_model_where_the_provider_takes_it(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(calling(("draw", {"what": "a dot"})), Script(text="Nice."))
    assert run_tools(client, name, "sync", [draw]).text == "Nice."
    assert PIXEL in str(provider.requests()[-1].body)


def test_a_picture_that_a_provider_does_not_take_from_a_function_is_refused_by_its_place(
    client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(calling(("draw", {"what": "a dot"})))
    with pytest.raises(InvalidRequestError, match=r"^messages\[2\]"):
        client.run_tools(model="openai-chat/gpt-4o", messages=HELLO, tools=[draw])


class NotAllowedError(Exception):
    pass


@pytest.mark.parametrize("way", WAYS)
def test_an_error_that_a_tool_declares_ends_everything(way: str, client: Client, provider: SimulatedProvider) -> None:
    @headrace.tool(raises=NotAllowedError)
    def pay() -> str:
        raise NotAllowedError

    def leave() -> str:
        raise KeyboardInterrupt

    for tool, error in ((pay, NotAllowedError), (leave, KeyboardInterrupt)):
        if way.startswith("async") and tool is leave:
            continue  # the event loop itself ends with it
        provider.enqueue(calling((tool.__name__, {})))
        with pytest.raises(error):
            run_tools(client, "openai", way, [tool])


def test_a_function_that_takes_too_long_is_given_up_and_the_model_goes_on(
    client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    tools = [headrace.tool(timeout=0.05, name=each.__name__)(each) for each in (gate.hang, gate.hang_async)]
    for way in WAYS:
        provider.enqueue(calling(("hang", {}), ("hang_async", {})), Script(text="Never mind."))
        result = run_tools(client, "openai", way, tools)

        assert result.text == "Never mind."
        assert tool_texts(result) == ["Error: the tool has not returned within 0.05 s"] * 2
    wait_until(lambda: gate.cancelled == len(WAYS), what="the end of each async call")


def short_time() -> int:
    """Return milliseconds in which one turn ends, also on a busy machine."""
    return int(600 * busyness())


@pytest.mark.parametrize("way", ["sync", "async streamed", *only_long("sync streamed", "async")])
def test_the_time_for_everything_counts_for_functions_too(
    way: str, client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    limit = short_time()
    provider.enqueue(calling(("hang_async", {}), text="I wait."))
    with pytest.raises(RunTimeoutError, match=r"s \(total timeout\); .* not returned: hang_async") as caught:
        run_tools(client, "openai", way, [gate.hang_async], timeout_ms=limit)

    assert (caught.value.clock, caught.value.limit, caught.value.partial_text) == ("total", limit / 1000, "I wait.")
    wait_until(lambda: gate.cancelled == 1, what="the cancellation")


@pytest.mark.parametrize("way", ["sync streamed", "async", *only_long("sync", "async streamed")])
def test_a_later_turn_that_runs_out_of_time_names_the_time_for_everything(
    way: str, client: Client, provider: SimulatedProvider
) -> None:
    limit = short_time()
    provider.enqueue(calling(("get_weather", {"city": "Oslo"})), Script(first_token_delay=600))
    with pytest.raises(RunTimeoutError, match=r"s \(total timeout\); this is turn 2") as caught:
        run_tools(client, "openai", way, [get_weather], timeout_ms=limit)
    assert (caught.value.clock, caught.value.limit) == ("total", limit / 1000)


def test_an_abort_ends_the_wait_for_a_thread_that_hangs(
    client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"}), ("hang", {})))
    stream = client.run_tools(stream=True, tools=[gate.hang, get_weather], **SHORT)
    events: list[Any] = []
    for event in stream.events():
        events.append(event)
        if isinstance(event, ToolCallReturned):
            wait_until(lambda: gate.calls == 1, what="the call that hangs")
            stream.abort()
            stream.abort()
    result = stream.result.result(30)

    assert (result.stopped, result.aborted, len(result.turns)) == ("aborted", True, 1)
    assert tool_texts(result) == ["Oslo: clear", "Error: the program aborted before this call had a result"]
    assert isinstance(events[-1], ToolCallReturned)


def test_an_abort_cancels_an_async_function_in_either_form(
    client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    async def main() -> headrace.RunToolsResult[Any]:
        stream: headrace.AsyncToolStream[Any] = await client.arun_tools(stream=True, tools=[gate.hang_async], **SHORT)
        async for event in stream.events():
            if isinstance(event, ToolCallStarted):
                await asyncio.to_thread(wait_until, lambda: gate.calls == 1)
                threading.Thread(target=stream.abort).start()
        return await stream.result

    provider.enqueue(calling(("hang_async", {})))
    assert asyncio.run(main()).stopped == "aborted"

    provider.enqueue(calling(("hang_async", {})))
    stream = client.run_tools(stream=True, tools=[gate.hang_async], **SHORT)
    wait_until(lambda: gate.calls == 2, what="the call")
    stream.abort()
    assert stream.result.result(30).stopped == "aborted"
    wait_until(lambda: gate.cancelled == 2, what="both cancellations")


def test_an_abort_while_the_model_answers_closes_its_connection_and_keeps_the_text(
    client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(chunks=["Hel", "lo"], stall_after=1))
    with client.run_tools(stream=True, tools=[get_weather], **SHORT) as stream:
        assert next(iter(stream)) == "Hel"
    result = stream.result.result(30)

    assert (result.text, result.stopped) == ("Hel", "aborted")
    provider.wait_until(lambda records: records[-1].outcome == "closed_by_client")


def test_a_function_may_abort_the_conversation_that_called_it(client: Client, provider: SimulatedProvider) -> None:
    streams: list[headrace.ToolStream[Any]] = []
    ready = threading.Event()

    def stop() -> str:
        ready.wait(30)
        streams[0].abort()
        return "stopped"

    provider.enqueue(calling(("stop", {})))
    streams.append(client.run_tools(stream=True, tools=[stop], **SHORT))
    ready.set()
    assert streams[0].result.result(30).stopped == "aborted"


@pytest.mark.parametrize("is_streaming", [False, True])
def test_cancelling_the_task_ends_the_functions_and_waits_for_them(
    is_streaming: bool, client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    async def wait() -> Any:
        if not is_streaming:
            return await client.arun_tools(tools=[gate.hang_async], **SHORT)
        stream = await client.arun_tools(stream=True, tools=[gate.hang_async], **SHORT)
        return await stream.result

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.to_thread(wait_until, lambda: gate.calls == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: gate.cancelled == 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    provider.enqueue(calling(("hang_async", {})))
    asyncio.run(main())


@pytest.mark.parametrize("form", ["whole", "result", "iteration"])
def test_cancelling_the_task_aborts_the_models_run(form: str, client: Client, provider: SimulatedProvider) -> None:
    async def wait() -> None:
        if form == "whole":
            await client.arun_tools(tools=[get_weather], **SHORT)
            return
        stream = await client.arun_tools(stream=True, tools=[get_weather], **SHORT)
        if form == "result":
            await stream.result
        else:
            async for _ in stream:
                pass

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.to_thread(provider.wait_until, lambda records: len(records) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(provider.wait_until, lambda records: records[0].outcome == "closed_by_client")

    provider.enqueue(Script(first_token_delay=600))
    asyncio.run(main())


def test_a_stream_that_is_dropped_is_aborted_unless_its_result_was_asked_for(
    client: Client, provider: SimulatedProvider, gate: Gate
) -> None:
    provider.enqueue(Script(chunks=["Hel", "lo"], stall_after=1))
    stream = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    assert next(iter(stream)) == "Hel"
    del stream
    gc.collect()
    provider.wait_until(lambda records: records[-1].outcome == "closed_by_client")

    provider.enqueue(calling(("get_weather", {"city": "Oslo"})), Script(text="Clear."))
    result = client.run_tools(stream=True, tools=[get_weather], **SHORT).result
    gc.collect()
    assert result.result(30).text == "Clear."


def test_closing_an_iterator_aborts_and_a_break_alone_does_not(client: Client, provider: SimulatedProvider) -> None:
    async def close_async() -> headrace.RunToolsResult[Any]:
        stream: headrace.AsyncToolStream[Any] = await client.arun_tools(stream=True, tools=[get_weather], **SHORT)
        texts = aiter(stream)
        assert await anext(texts) == "Hel"
        await texts.aclose()  # type: ignore[attr-defined]
        return await stream.result

    provider.enqueue(*[Script(chunks=["Hel", "lo"], stall_after=1)] * 2, Script(chunks=["Hel", "lo"]))
    stream = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    texts = iter(stream)
    assert next(texts) == "Hel"
    texts.close()
    assert list(texts) == []
    assert stream.result.result(30).stopped == "aborted"
    assert asyncio.run(close_async()).stopped == "aborted"

    kept = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    for _ in kept:
        break
    gc.collect()
    assert kept.result.result(30).text == "Hello"


def test_an_async_stream_that_is_dropped_is_aborted(client: Client, provider: SimulatedProvider) -> None:
    async def main() -> None:
        stream = await client.arun_tools(stream=True, tools=[get_weather], **SHORT)
        async for text in stream:
            assert text == "Hel"
            break
        del stream
        gc.collect()
        await asyncio.to_thread(provider.wait_until, lambda records: records[-1].outcome == "closed_by_client")

    provider.enqueue(Script(chunks=["Hel", "lo"], stall_after=1))
    asyncio.run(main())


def test_a_stream_tells_turns_and_calls_beside_the_models_events(client: Client, provider: SimulatedProvider) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"}), text="I look."), Script(text="Clear."))
    stream = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    events = list(stream.events())

    own = [event for event in events if isinstance(event, (TurnStarted, TurnEnded, ToolCallStarted, ToolCallReturned))]
    assert [(type(event), event.turn) for event in own] == [
        (TurnStarted, 1),
        (ToolCallStarted, 1),
        (ToolCallReturned, 1),
        (TurnEnded, 1),
        (TurnStarted, 2),
        (TurnEnded, 2),
    ]
    assert isinstance(own[0], TurnStarted)
    assert own[0].span_id == stream.span_id
    assert isinstance(own[2], ToolCallReturned)
    assert (own[2].call.arguments, own[2].content, own[2].error) == ({"city": "Oslo"}, "Oslo: clear", None)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "I look.Clear."
    assert stream.messages == stream.result.result().messages
    with pytest.raises(StreamConsumedError):
        iter(stream)


def test_text_of_all_turns_is_iterated_in_either_form(client: Client, provider: SimulatedProvider) -> None:
    async def texts() -> str:
        stream = await client.arun_tools(stream=True, tools=[get_weather], **SHORT)
        await stream.started()
        return "".join([text async for text in stream])

    turns = (calling(("get_weather", {"city": "Oslo"}), text="I look. "), Script(text="Clear."))
    provider.enqueue(*turns)
    assert asyncio.run(texts()) == "I look. Clear."
    provider.enqueue(*turns)
    assert "".join(client.run_tools(stream=True, tools=[get_weather], **SHORT)) == "I look. Clear."


def test_an_error_of_a_later_turn_is_raised_and_the_history_is_there_to_go_on_with(
    client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"})), Script(status=429))
    stream = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    stream.started(30)
    with pytest.raises(RateLimitError):
        list(stream)
    with pytest.raises(RateLimitError):
        stream.result.result(30)

    assert [message.role for message in stream.messages] == ["user", "assistant", "tool"]
    provider.enqueue(Script(text="Clear."))
    assert client.run_tools(**SHORT | {"messages": stream.messages}, tools=[get_weather]).text == "Clear."


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_conversation_that_reached_its_limit_goes_on_with_its_messages(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(*[calling(("get_weather", {"city": str(step)})) for step in range(2)], Script(text="Clear."))
    stopped = run_tools(client, name, "sync", [get_weather], max_turns=2)

    assert (stopped.stopped, stopped.finish_reason, len(stopped.turns)) == ("max_turns", "tool_calls", 2)
    assert tool_texts(stopped) == ["0: clear", "1: clear"]
    whole = run_tools(client, name, "sync", [get_weather], messages=stopped.messages)
    assert (whole.text, whole.stopped, statuses(provider)) == ("Clear.", None, {200})


def test_calls_of_a_tool_without_a_function_are_left_to_the_caller(client: Client, provider: SimulatedProvider) -> None:
    ask = {"name": "ask_human", "parameters": {"type": "object", "properties": {}}}
    provider.enqueue(calling(("get_weather", {"city": "Oslo"}), ("ask_human", {})), Script(text="Thanks."))
    open_calls = run_tools(client, "openai", "sync", [get_weather, ask])

    assert open_calls.stopped == "unanswered_calls"
    human = {"role": "tool", "tool_call_id": open_calls.tool_calls[1].id, "content": "yes"}
    assert (
        run_tools(client, "openai", "sync", [get_weather, ask], messages=[*open_calls.messages, human]).text
        == "Thanks."
    )


def test_an_approval_that_openai_asks_for_is_left_to_the_caller(client: Client, provider: SimulatedProvider) -> None:
    mcp = {"type": "mcp", "server_label": "s", "server_url": "https://s", "require_approval": "always"}
    request = {"type": "mcp_approval_request", "server_label": "s", "name": "f", "arguments": "{}"}
    provider.enqueue(calling(("get_weather", {"city": "Oslo"}), server_steps=[request], text=""))
    asked = run_tools(client, "openai-responses", "sync", [get_weather, mcp])

    assert (asked.stopped, tool_texts(asked)) == ("unanswered_calls", ["Oslo: clear"])
    assert len(asked.turns) == 1


def test_tools_of_the_provider_stand_beside_functions_in_paused_and_mixed_turns(
    client: Client, provider: SimulatedProvider
) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
    found = {"type": "web_search_result", "url": "https://x", "title": "X", "page_age": None}
    done = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}
    second = use | {"id": "srvtoolu_2"}, done | {"tool_use_id": "srvtoolu_2"}
    provider.enqueue(
        Script(server_steps=[use, done], text="", finish_reason="pause_turn"),
        calling(("get_weather", {"city": "Oslo"}), server_steps=[second[0]], text=""),
        Script(server_steps=[second[1]], text="Clear, they say too."),
    )
    result = run_tools(client, "anthropic", "sync", [search, get_weather])

    assert (result.text, len(result.turns), result.stopped) == ("Clear, they say too.", 3, None)
    assert statuses(provider) == {200}
    last = provider.requests()[-1].body["messages"][-1]
    assert (last["role"], [block["type"] for block in last["content"]]) == ("user", ["tool_result"])


def test_all_turns_are_one_trace_below_the_first(client: Client, provider: SimulatedProvider) -> None:
    provider.enqueue(*[calling(("get_weather", {"city": "Oslo"}))] * 2, Script(text="Clear."))
    given = {"trace_id": f"tr_{os.urandom(8).hex()}", "span_id": f"sp_{os.urandom(8).hex()}"}
    result = run_tools(client, "openai", "sync", [get_weather], tags=["a"], user_id="u", session_id="s", **given)
    client.flush()

    spans = [stored_span(Path(os.environ["HEADRACE_DATA"]), turn.span_id).span for turn in result.turns]
    assert [span.trace_id for span in spans] == [given["trace_id"]] * 3
    assert [span.parent_span_id for span in spans] == [None, given["span_id"], given["span_id"]]
    assert {(tuple(span.tags), span.user_id, span.session_id) for span in spans} == {(("a",), "u", "s")}


@pytest.mark.parametrize("way", WAYS)
def test_a_function_sees_the_context_of_the_caller(way: str, client: Client, provider: SimulatedProvider) -> None:
    def who() -> str:
        return caller.get()

    async def who_async() -> str:
        return caller.get()

    provider.enqueue(calling(("who", {}), ("who_async", {})))
    token = caller.set("Ada")
    try:
        result = run_tools(client, "openai", way, [who, who_async], max_turns=1)
    finally:
        caller.reset(token)
    assert tool_texts(result) == ["Ada", "Ada"]


def test_async_functions_of_a_program_without_a_loop_share_one_loop(
    client: Client, provider: SimulatedProvider
) -> None:
    loops: set[int] = set()

    async def note() -> str:
        loops.add(id(asyncio.get_running_loop()))
        return "noted"

    def forwarded() -> Any:
        return note()

    for _ in range(2):
        provider.enqueue(calling(("note", {}), ("forwarded", {})))
        assert tool_texts(run_tools(client, "openai", "sync", [note, forwarded], max_turns=1)) == ["noted", "noted"]
    assert len(loops) == 1


def test_many_threads_run_conversations_of_one_client(client: Client, provider: SimulatedProvider) -> None:
    script = {"text": "Clear.", "tool_calls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]}
    texts: list[str] = []

    def converse() -> None:
        result = client.run_tools(**SHORT, tools=[get_weather], custom_options={"simulate": script})
        texts.append(f"{result.text} {tool_texts(result)}")

    threads = [threading.Thread(target=converse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == ["Clear. ['Oslo: clear']"] * 8


def test_a_stream_belongs_to_the_process_that_made_it(
    client: Client, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.enqueue(Script(text="Clear."))
    stream = client.run_tools(stream=True, tools=[get_weather], **SHORT)
    stream.result.result(30)
    with monkeypatch.context() as patch:
        patch.setattr(own_process, "pid", -1)
        for use in (lambda: stream.result, stream.events, stream.abort, lambda: iter(stream)):
            with pytest.raises(ForkedStreamError):
                use()
    assert list(stream) == ["Clear."]


def test_a_forked_child_has_conversations_of_its_own(client: Client, provider: SimulatedProvider) -> None:
    script = {"text": "Clear.", "tool_calls": [{"name": "get_time", "arguments": {"city": "Oslo"}}]}
    given: Any = {**SHORT, "tools": [get_time], "custom_options": {"simulate": script}}
    before = client.run_tools(**given)
    inherited = client.run_tools(stream=True, **given)
    pid = os.fork()
    if pid == 0:
        try:
            with pytest.raises(ForkedStreamError):
                inherited.abort()
            del inherited
            os._exit(0 if tool_texts(client.run_tools(**given)) == tool_texts(before) else 3)
        except BaseException:  # noqa: BLE001 - whatever it is, the child must end by itself
            os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert inherited.result.result(30).text == "Clear."


def test_functions_are_told_to_the_model_by_run_local_too(client: Client, provider: SimulatedProvider) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"})))
    result = client.run_local(**SHORT, tools=[get_weather], tool_choice={"tool": "get_weather"})

    assert [call.name for call in result.tool_calls] == ["get_weather"]
    [told] = provider.requests()[-1].body["tools"]
    assert told["function"]["description"] == "Get the weather of a city."


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_choice_that_forces_a_call_counts_for_the_first_turn(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"})), Script(text="Clear."))
    run_tools(client, name, "sync", [get_weather], tool_choice="required")

    forced = [any(word in str(record.body) for word in FORCED) for record in provider.requests()]
    assert forced == [True, False]
    assert statuses(provider) == {200}


class Place(pydantic.BaseModel):
    city: str
    days: int = 3


class Answer(msgspec.Struct):
    sky: str


@headrace.tool(strict=True)
def plan(place: Place, weights: dict[str, float], mode: Literal["fast", "slow"] = "fast") -> str:
    """Plan a trip."""
    return f"{place.city} {place.days} {weights} {mode}"


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_strict_tool_and_a_type_for_the_answer_go_together(
    name: str, client: Client, provider: SimulatedProvider
) -> None:
    call = {"place": {"city": "Oslo", "days": None}, "weights": [{"key": "rain", "value": 1}], "mode": None}
    provider.enqueue(calling(("plan", call)), Script(text='{"sky": "blue"}'))
    result = run_tools(client, name, "async streamed", [plan], response_type=Answer)

    assert result.parsed == Answer("blue")
    assert result.turns[0].parsed is None
    assert tool_texts(result) == ["Oslo 3 {'rain': 1.0} fast"]
    assert statuses(provider) == {200}


@pytest.mark.parametrize("way", WAYS)
def test_a_last_answer_that_does_not_fit_its_type_is_an_error(
    way: str, client: Client, provider: SimulatedProvider
) -> None:
    provider.enqueue(calling(("get_weather", {"city": "Oslo"})), Script(text='{"sky": 5}'))
    with pytest.raises(OutputValidationError, match="sky"):
        run_tools(client, "openai", way, [get_weather], response_type=Answer)


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_argument_is_refused_before_the_model_is_asked(
    way: str, client: Client, provider: SimulatedProvider
) -> None:
    def untyped(city):  # type: ignore[no-untyped-def]
        return city

    cases: list[dict[str, Any]] = [
        {"tools": [untyped]},
        {"max_turns": 0},
        {"temperature": 9},
        {"max_tokens": 5},
        {"messages": []},
    ]
    for wrong in cases:
        with pytest.raises(InvalidRequestError):
            run_tools(client, "openai", way, **{"tools": [get_weather]} | wrong)
    assert provider.requests() == []
