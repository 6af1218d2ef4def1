"""Every example of the specification runs as written, given ``client``.

The examples are read from the specification in place (beside the folder of recorded streams) and are skipped where it is
absent. The only thing replaced is its placeholder for "the same tools again".
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from headrace import Client, LocalStream, RunLocalResult, StreamResult
from headrace.testing import SimulatedProvider
from tests.conftest import ROOT

SPECIFICATION = (
    Path(os.environ.get("HEADRACE_WIRE") or ROOT.parent / "shared" / "wire").resolve().parent
    / "spec"
    / "streaming-api.txt"
)
PLACEHOLDER = "tools=[...],"
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def section(title: str) -> list[str]:
    if not SPECIFICATION.is_file():
        pytest.skip(f"the specification is not at {SPECIFICATION}; set HEADRACE_WIRE to the folder beside it")
    lines = SPECIFICATION.read_text(encoding="utf-8").splitlines()
    headings = [number for number, line in enumerate(lines) if line.strip() == title]
    assert headings, f"the specification has no section {title!r}"
    return lines[headings[0] + 1 :]


def example(title: str) -> str:
    """Return the first longest run of lines under a heading that is a Python program of more than one statement."""
    lines = section(title)
    for start in range(len(lines)):
        for end in range(min(start + 60, len(lines)), start + 1, -1):
            source = "\n".join(lines[start:end])
            if is_program(source):
                return source
    raise AssertionError(f"no example under {title!r}")


def is_program(source: str) -> bool:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))


def compiled(source: str) -> CodeType:
    code: CodeType = compile(source, "specification", "exec", flags=FLAGS)
    return code


def run(source: str, namespace: dict[str, Any]) -> None:
    code = compiled(source)
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, namespace)

        asyncio.run(main())
    else:
        exec(code, namespace)


@pytest.fixture
def namespace(client: Client) -> dict[str, Any]:
    return {
        "__name__": "example",
        "RunLocalResult": RunLocalResult,
        "client": client,
        "get_weather": lambda location: {"location": location, "sky": "clear"},
        "json": json,
    }


def test_basic_streaming(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(example("Basic Streaming"), namespace)

    result: StreamResult = namespace["stream"].result.result()
    printed = capsys.readouterr().out
    assert printed.startswith(f"Span: {namespace['stream'].span_id}\n{result.text}")
    assert printed.endswith(f"Tokens used: {result.usage.total_tokens}\n")
    assert result.usage.total_tokens > 0


def test_the_interface_is_the_documented_one(client: Client) -> None:
    tree = ast.parse(example_class("LocalStream Interface"))
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    attributes = {ast.unparse(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
    names = methods | attributes

    assert names == {"span_id", "trace_id", "__iter__", "result", "abort"}
    assert all(hasattr(LocalStream, name) for name in names)


def example_class(title: str) -> str:
    lines = section(title)
    start = next(number for number, line in enumerate(lines) if line.startswith("class "))
    end = next(number for number in range(start + 1, len(lines)) if lines[number] and not lines[number].startswith(" "))
    return "\n".join(lines[start:end])


def test_stream_result(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(example("Basic Streaming"), namespace)

    run(example("StreamResult"), namespace)

    assert isinstance(namespace["stream_result"], StreamResult)
    assert "Tokens: " in capsys.readouterr().out


def test_async_streaming(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(example("Async Streaming"), namespace)

    assert capsys.readouterr().out.endswith(f"Tokens used: {namespace['result'].usage.total_tokens}\n")


def test_aborting_a_stream(
    namespace: dict[str, Any], provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    run(example("Aborting a Stream"), namespace)

    assert capsys.readouterr().out.endswith("\nAborted: True\n")
    assert namespace["result"].aborted
    assert namespace["char_count"] > 500


def test_streaming_with_tool_calls(
    namespace: dict[str, Any], provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    source = example("Streaming with Tool Calls")
    assert source.count(PLACEHOLDER) == 1
    keywords = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg == "tools"]
    tools = max((ast.unparse(keyword.value) for keyword in keywords), key=len)
    source = source.replace(PLACEHOLDER, f"tools={tools},")

    run(source, namespace)

    assert namespace["result"].finish_reason == "tool_calls"
    assert namespace["tool_call"].arguments == {"location": "Tokyo"}
    assert "clear" in capsys.readouterr().out
    assert [record.status for record in provider.requests()] == [200, 200]


@pytest.fixture
def django_view(namespace: dict[str, Any]) -> Iterator[Any]:
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for tests only", DEBUG=True)
        django.setup()
    run(example("Example: HTTP Streaming Response"), namespace)
    urlpatterns.append(_path(namespace["stream_view"]))
    yield namespace["stream_view"]
    urlpatterns.clear()


urlpatterns: list[Any] = []


def _path(view: Any) -> Any:
    from django.urls import path

    return path("stream", view)


def test_http_streaming_response_in_django(django_view: Any, provider: SimulatedProvider) -> None:
    from django.test import Client as Browser

    response: Any = Browser().post("/stream", {"message": "Tell me about the mill."})

    text = b"".join(response.streaming_content).decode()
    assert response["content-type"] == "text/plain"
    assert text == provider.requests()[0].sent_text
    assert "mill" in text


def test_a_browser_that_leaves_aborts_the_run(django_view: Any, provider: SimulatedProvider) -> None:
    """What a server does when its client disconnects: it closes the response."""
    from django.test import RequestFactory

    from headrace.testing import Script

    provider.enqueue(Script(repeat=1_000_000, pace=0.01))
    response = django_view(RequestFactory().post("/stream", {"message": "Go on for ever."}))
    next(iter(response.streaming_content))

    response.close()
    del response

    provider.wait_until(lambda records: records[-1].outcome == "closed_by_client")


# The same examples in their asyncio form, which the specification leaves to the reader.


def test_aborting_an_async_stream(client: Client, provider: SimulatedProvider) -> None:
    async def main() -> StreamResult:
        stream = await client.arun_local(
            model="gpt-4o", messages=[{"role": "user", "content": "Write a very long essay..."}], stream=True
        )
        count = 0
        async for chunk in stream:
            count += len(chunk)
            if count > 500:
                stream.abort()
                break
        return await stream.result

    assert asyncio.run(main()).aborted


def test_an_async_conversation_with_a_tool(client: Client, provider: SimulatedProvider) -> None:
    question = {"role": "user", "content": "What is the weather in Tokyo?"}
    schema = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
    tools = [{"name": "get_weather", "description": "Get current weather for a location", "parameters": schema}]

    async def main() -> str:
        stream = await client.arun_local(model="gpt-4o", messages=[question], stream=True, tools=tools)
        result = await stream.result
        call = result.tool_calls[0]
        answer = {"role": "tool", "tool_call_id": call.id, "tool_name": call.name, "content": json.dumps("clear")}
        follow_up = await client.arun_local(
            model="gpt-4o", messages=[question, result.message, answer], stream=True, tools=tools
        )
        return "".join([chunk async for chunk in follow_up])

    assert "clear" in asyncio.run(main())
    assert [record.status for record in provider.requests()] == [200, 200]
