"""Uses the public API as users do, for type checkers. Never run: `scripts/check` checks its types."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, assert_type

import msgspec
import pydantic

import headrace
from headrace import (
    AsyncBatchResults,
    AsyncLocalStream,
    AsyncToolStream,
    AudioPart,
    AudioPartDict,
    BatchProgress,
    BatchResult,
    BatchResults,
    Client,
    FilePart,
    FilePartDict,
    ImagePart,
    ImagePartDict,
    LocalStream,
    Message,
    MessageDict,
    OutputValidationError,
    RunArguments,
    RunEmbeddingResult,
    RunLocalResult,
    RunToolsResult,
    StreamResult,
    TextPart,
    TextPartDict,
    TokenLogprob,
    ToolCallDict,
    ToolRunEvent,
    ToolStream,
    TopLogprob,
    Usage,
)

client = Client()
MESSAGES = [{"role": "user", "content": "Hello"}]


def sync(is_streaming: bool) -> None:
    stream = client.run_local(model="gpt-4o", messages=MESSAGES, stream=True)
    assert_type(stream, LocalStream[None])
    assert_type(stream.result, concurrent.futures.Future[StreamResult[None]])
    assert_type(stream.result.result().aborted, bool)
    stream.started(timeout=5)
    for chunk in stream:
        assert_type(chunk, str)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES), RunLocalResult[None])
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, stream=False).text, str)
    either = client.run_local(model="gpt-4o", messages=MESSAGES, stream=is_streaming)
    assert_type(either, LocalStream[None] | RunLocalResult[None])
    assert_type(client.status().workers[0].runs, int)
    assert_type(client.engine_log, Path | None)
    assert_type(client.run_embedding(model="text-embedding-3-small", input="x"), RunEmbeddingResult)
    client.run_local(model="gpt-4o", messages=MESSAGES, temprature=1)  # type: ignore[call-overload]


async def from_asyncio() -> None:
    stream = await client.arun_local(model="gpt-4o", messages=MESSAGES, stream=True, tags=["a"])
    assert_type(stream, AsyncLocalStream[None])
    assert_type(stream.result, asyncio.Future[StreamResult[None]])
    await stream.started()
    async for chunk in stream:
        assert_type(chunk, str)
    assert_type(await client.arun_local(model="gpt-4o", messages=MESSAGES), RunLocalResult[None])


# Many rows.


def many_rows() -> None:
    rows = [{"prompt": "Hello", "temperature": 0}, {"messages": MESSAGES}]
    for result in client.batch(rows, model="gpt-4o", path="out.jsonl", ordered=True, dedupe=True, max_cost=5.0):
        assert_type(result, BatchResult[None])
        assert_type(result.text, str)
        assert_type(result.error, headrace.HeadraceError | None)
        assert_type(result.result, RunLocalResult[None] | RunEmbeddingResult | None)
    assert_type(client.batch(Path("in.jsonl"), response_type=Invoice), BatchResults[Invoice])
    with client.map(["a", "b"], model="gpt-4o", response_type=Invoice) as results:
        assert_type(next(results).parsed, Invoice)
        assert_type(results.progress(), BatchProgress | None)
    assert_type(
        client.map((str(number) for number in range(3)), model="gpt-4o", system="Be brief."), BatchResults[None]
    )
    assert_type(client.map(["a"], response_type={"type": "object"}), BatchResults[Any])
    assert_type(client.batch_frame({"a": 1}, prompt="{a}", into="answer"), dict[str, int])
    client.map(["a"], model="gpt-4o", ordered=False)  # type: ignore[call-overload]
    client.batch(["a"], model="gpt-4o", temprature=1)  # type: ignore[call-overload]


async def many_rows_from_asyncio(prompts: AsyncIterator[str]) -> None:
    async for result in client.abatch(prompts, model="gpt-4o"):
        assert_type(result, BatchResult[None])
    async with client.amap(["a", "b"], response_type=Invoice) as results:
        assert_type(results, AsyncBatchResults[Invoice])
        assert_type((await anext(results)).parsed, Invoice)


# Tools as functions.


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return city


@headrace.tool
def price(item: str) -> float:
    return float(len(item))


@headrace.tool(name="sell", strict=True, timeout=5, raises=ValueError)
async def sell(item: str, count: int = 1) -> str:
    return item * count


class Shop:
    @headrace.tool(name="open_shop")
    def open(self, name: str) -> bool:
        return bool(name)


def tools_are_functions(is_streaming: bool) -> None:
    assert_type(price("tea"), float)
    assert_type(Shop().open("a"), bool)
    search = {"type": "web_search"}
    result = client.run_tools(model="gpt-4o", messages="x", tools=[get_weather, sell, Shop().open, search], max_turns=3)
    assert_type(result, RunToolsResult[None])
    assert_type(result.messages, list[Message])
    assert_type(client.run_tools(model="gpt-4o", messages="x", tools=[price], response_type=Order).parsed, Order)
    stream = client.run_tools(model="gpt-4o", messages="x", tools=[price], stream=True, response_type=Bill)
    assert_type(stream, ToolStream[Bill])
    assert_type(stream.result, concurrent.futures.Future[RunToolsResult[Bill]])
    for text in stream:
        assert_type(text, str)
    for event in stream.events():
        assert_type(event, ToolRunEvent)
    either = client.run_tools(model="gpt-4o", messages="x", tools=[price], stream=is_streaming)
    assert_type(either, ToolStream[None] | RunToolsResult[None])
    client.run_local(model="gpt-4o", messages="x", tools=[get_weather, sell])


async def tools_are_functions_in_asyncio() -> None:
    assert_type(await sell("tea"), str)
    stream = await client.arun_tools(model="gpt-4o", messages="x", tools=[price], stream=True)
    assert_type(stream, AsyncToolStream[None])
    assert_type((await stream.result).turns, list[RunLocalResult])
    async for text in stream:
        assert_type(text, str)
    result = await client.arun_tools(model="gpt-4o", messages="x", tools=[sell], response_type=Order)
    assert_type(result, RunToolsResult[Order])


# The type of the answer: classes are known to the checker; unions and JSON schemas are not.


class Invoice(TypedDict):
    total: float


@dataclass
class Line:
    price: float


class Order(msgspec.Struct):
    lines: list[Line]


class Bill(pydantic.BaseModel):
    number: int


def answers(is_streaming: bool) -> None:
    result = client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Bill)
    assert_type(result, RunLocalResult[Bill])
    assert_type(result.parsed.number, int)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Order).parsed, Order)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Line, stream=False).parsed, Line)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Invoice).parsed, Invoice)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=list[Order]).parsed, list[Order])
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Order | None).parsed, Any)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type={"type": "object"}).parsed, Any)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, response_type=None).parsed, None)
    stream = client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Order, stream=True)
    assert_type(stream, LocalStream[Order])
    assert_type(stream.result, concurrent.futures.Future[StreamResult[Order]])
    for value in stream.partials():
        assert_type(value, Any)
    either = client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Order, stream=is_streaming)
    assert_type(either, LocalStream[Order] | RunLocalResult[Order])
    unknown = client.run_local(model="gpt-4o", messages=MESSAGES, response_type=Order | None, stream=is_streaming)
    assert_type(unknown, LocalStream[Any] | RunLocalResult[Any])
    plain: RunLocalResult = result
    wide: RunLocalResult[object] = result
    assert_type(plain.parsed, Any)
    print(wide.parsed)


async def answers_from_asyncio() -> None:
    result = await client.arun_local(model="gpt-4o", messages=MESSAGES, response_type=Order)
    assert_type(result, RunLocalResult[Order])
    stream = await client.arun_local(model="gpt-4o", messages=MESSAGES, response_type=Order, stream=True)
    assert_type(stream, AsyncLocalStream[Order])
    assert_type((await stream.result).parsed, Order)
    schema = await client.arun_local(model="gpt-4o", messages=MESSAGES, response_type={"type": "object"}, stream=True)
    assert_type(schema, AsyncLocalStream[Any])


def failed(error: OutputValidationError) -> None:
    assert_type(error.text, str)
    assert_type(error.path, str)
    assert_type(error.usage, Usage | None)


# Messages: a literal, a variable that the checker gives a type, dicts and messages together, the result of another library.


def literals(result: RunLocalResult) -> None:
    client.run_local(model="gpt-4o", messages="Hello")
    client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    client.run_local(model="gpt-4o", messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
    client.run_local(
        model="gpt-4o",
        messages=[
            {"role": "user", "content": [TextPart("What is it?"), {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": None, "tool_calls": result.tool_calls},
            *({"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in result.tool_calls),
        ],
    )
    client.run_local(model="gpt-4o", messages=[3])  # type: ignore[list-item]


def variables(dicts: list[dict[str, Any]], objects: list[dict[str, object]], result: RunLocalResult) -> None:
    client.run_local(model="gpt-4o", messages=[*MESSAGES, result.message])
    client.run_local(model="gpt-4o", messages=[*MESSAGES, result.message, {"role": "user", "content": "Go on"}])
    client.run_local(model="gpt-4o", messages=dicts)
    client.run_local(model="gpt-4o", messages=objects)
    client.run_local(model="gpt-4o", messages=json.loads("[]"))
    MESSAGES.append(result.message.to_dict())
    history = [Message("user", "Hello")]
    history.append(result.message)
    client.run_local(model="gpt-4o", messages=history)
    client.run_local(model="gpt-4o", messages=tuple(history))


def declared(result: RunLocalResult) -> None:
    history: list[Message | MessageDict] = [{"role": "user", "content": "Hello"}]
    history.append(result.message)
    history.append({"role": "user", "content": "Go on"})
    client.run_local(model="gpt-4o", messages=history)
    dicts: list[MessageDict] = [{"role": "user", "content": "Hello"}]
    client.run_local(model="gpt-4o", messages=dicts)
    client.run_local(model="gpt-4o", messages=[*dicts, result.message])
    parts: list[TextPartDict | ImagePartDict] = [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]
    client.run_local(model="gpt-4o", messages=[{"role": "user", "content": parts}])
    files: list[FilePartDict | AudioPartDict] = [{"type": "file", "text": "a,b", "name": "a.csv"}]
    client.run_local(model="gpt-4o", messages=[{"role": "user", "content": files}])
    call: ToolCallDict = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    client.run_local(model="gpt-4o", messages=[{"role": "assistant", "tool_calls": [call]}])
    wrong: MessageDict = {"role": "robot", "content": ""}  # type: ignore[typeddict-item]
    client.run_local(model="gpt-4o", messages=[wrong])


def ask(**arguments: Unpack[RunArguments]) -> str:
    """Wrap ``run_local`` with all its arguments."""
    return client.run_local(**arguments).text


def wrapped() -> None:
    assert_type(ask(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], temperature=0.5), str)
    ask(model="gpt-4o", messages=MESSAGES, temprature=1)  # type: ignore[call-arg]
    ask(messages=MESSAGES)  # type: ignore[call-arg]


def as_dicts(result: RunLocalResult, vectors: RunEmbeddingResult) -> None:
    assert_type(result.to_dict(), dict[str, Any])
    assert_type(vectors.to_dict(), dict[str, Any])
    assert_type(Message.from_dict(result.message.to_dict()), Message)
    history: list[Message | MessageDict] = [{"role": "user", "content": "Hello"}, result.message]
    assert_type([Message.from_dict(item) for item in history], list[Message])
    assert_type(TextPart.from_dict({"type": "text", "text": "a"}), TextPart)


def media() -> None:
    photo = ImagePart.from_file(Path("photo.png"))
    assert_type(photo, ImagePart)
    with open("report.pdf", "rb") as file:
        report = FilePart.from_file(file, name="report.pdf")
    assert_type(report.to_bytes(), bytes)
    speech = AudioPart.from_file(b"RIFF", "audio/wav")
    result = client.run_local(
        model="gpt-4o",
        messages=[
            {"role": "user", "content": [photo, report, speech, "What is in these?"]},
            {
                "role": "user",
                "content": [{"type": "file", "name": "a.pdf", "data": b"", "media_type": "application/pdf"}],
            },
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}]},
        ],
    )
    assert_type(result.images, list[ImagePart])
    assert_type(result.audio, list[AudioPart])
    assert_type(result.files, list[FilePart])
    ImagePart.from_file(5)  # type: ignore[arg-type]


def options() -> None:
    result = client.run_local(
        model="gpt-4o",
        messages="Hello",
        seed=7,
        top_k=40,
        frequency_penalty=0.5,
        presence_penalty=-1,
        logprobs=True,
        top_logprobs=2,
        parallel_tool_calls=False,
        metadata={"team": "a"},
        service_tier="flex",
        verbosity="low",
    )
    assert_type(result.logprobs, list[TokenLogprob] | None)
    for token in result.logprobs or ():
        assert_type(token.logprob, float)
        assert_type(token.bytes, list[int] | None)
        assert_type(token.top_logprobs, list[TopLogprob])
    client.run_local(model="gpt-4o", messages=b"Hello")  # type: ignore[arg-type]
    client.run_local(model="gpt-4o", messages="Hello", verbosity="short")  # type: ignore[call-overload]
    Client(api_key="sk-1")  # type: ignore[arg-type]
