"""Every example of README.md and of the pages in docs/ works: Python runs, settings load, commands are understood."""

from __future__ import annotations

import ast
import asyncio
import base64
import inspect
import json
import os
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from headrace import Client, InvalidRequestError
from headrace.cli.main import command_parser
from headrace.ray import EngineStage
from headrace.settings.settings import Settings
from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from headrace.testing.recording.recorded_exchange import (
    RecordedExchange,
    RecordedRequest,
    RecordedResponse,
    write_recording,
)
from tests.conftest import HELLO, ROOT
from tests.documentation import CodeBlock, code_blocks

PROGRAMS = [block for block in code_blocks("python") if not block.is_web_view and not block.needs_ray]
WEATHER_CALLS = [
    ScriptedToolCall("get_weather", {"location": "Tokyo"}),
    ScriptedToolCall("get_weather", {"location": "Oslo"}),
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, provider: SimulatedProvider) -> None:
    """Undo what an example does to the environment."""
    for name in provider.environment:
        monkeypatch.setenv(name, os.environ[name])


@pytest.fixture
def namespace(client: Client, environment: None) -> dict[str, Any]:
    """What the examples take for granted."""
    return {
        "__name__": "example",
        "client": client,
        "messages": HELLO,
        "os": os,
        "enough": bool,
        "get_weather": get_weather,
        "Invoice": Invoice,
    }


class Invoice(pydantic.BaseModel):
    """A type of the examples of structured output."""

    number: str
    lines: list[str]


def get_weather(location: str) -> str:
    """Get the weather of a place."""
    return f"{location}: clear"


FILES = {
    "photo.png": b"\x89PNG\r\n\x1a\n" + bytes(16),
    "report.pdf": b"%PDF-1.7\n",
    "rows.csv": b"a,b\n1,2\n",
    "question.wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(16),
}
"""The files that the examples read."""


def with_files(folder: Path) -> Path:
    """Return the folder with the files that the examples read."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def run(block: CodeBlock, namespace: dict[str, Any]) -> None:
    """Run an example; one with ``await`` in a loop of its own."""
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, namespace)

        asyncio.run(main())
    else:
        exec(code, namespace)


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_python_example_runs_and_is_refused_by_no_provider(
    block: CodeBlock,
    namespace: dict[str, Any],
    client: Client,
    provider: SimulatedProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "from_file(" in block.text or "to_bytes()" in block.text:
        monkeypatch.chdir(with_files(tmp_path))
    if "path=" in block.text:
        monkeypatch.chdir(tmp_path)
    if "result.images" in block.text:
        provider.enqueue(Script(text="Here.", images=[base64.b64encode(FILES["photo.png"]).decode()]))
    if "result.audio" in block.text:
        provider.enqueue(Script(text="Hello.", audio=base64.b64encode(b"\1\2" * 100).decode()))
    if "response_format" in block.text:
        provider.enqueue(Script(text='{"city": "Oslo", "population": 700000}'))
    if "stream." in block.text and "stream = " not in block.text:
        namespace["stream"] = client.run_local(model="gpt-4o", messages=HELLO, stream=True)
    if "replay(" in block.text:
        _record_hello(tmp_path / "recordings")
        monkeypatch.chdir(tmp_path)

    run(block, namespace)

    if namespace["client"] is not client:
        namespace["client"].close()
    assert {record.status for record in provider.requests()} <= {200}


def _record_hello(folder: Path) -> None:
    """Write the recording that the guide plays."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}
    said = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    request = RecordedRequest("POST", "api.openai.com", "/v1/chat/completions", body=body)
    response = RecordedResponse(200, [("content-type", "application/json")])
    answer = json.dumps({"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [said]}).encode()
    write_recording(folder, RecordedExchange("0001-openai-chat-gpt-4o", request, response, [answer]), {})


def test_there_are_python_examples() -> None:
    assert len(PROGRAMS) > 15
    assert len([block for block in code_blocks("python") if block.is_web_view]) == 3


def test_the_stage_of_a_ray_example_takes_its_arguments() -> None:
    [block] = [block for block in code_blocks("python") if block.needs_ray]
    [arguments] = [
        ast.literal_eval(keyword.value)
        for keyword in ast.walk(ast.parse(block.text))
        if isinstance(keyword, ast.keyword) and keyword.arg == "fn_constructor_kwargs"
    ]

    inspect.signature(EngineStage).bind(**arguments)


@pytest.mark.parametrize("model", ["gpt-4o", "openai-responses/gpt-5", "claude-sonnet-4-6", "gemini-2.5-flash"])
def test_the_tool_loop_that_people_copy_answers_parallel_calls(
    model: str, namespace: dict[str, Any], provider: SimulatedProvider
) -> None:
    calls = [ScriptedToolCall("look_up", {"city": city}) for city in ("Tokyo", "Oslo")]
    provider.enqueue(Script(tool_calls=calls), Script(tool_calls=calls[:1]), Script(text="It is clear in both."))
    [block] = [block for block in PROGRAMS if "run_with_functions(" in block.text]

    run(msgspec.structs.replace(block, text=block.text.replace('"gpt-4o"', f'"{model}"')), namespace)

    assert namespace["result"].text == "It is clear in both."
    assert [record.status for record in provider.requests()] == [200, 200, 200]
    assert str(provider.requests()[-1].body).count("Tokyo: clear") == 2


@pytest.mark.parametrize("model", ["gpt-4o", "openai-responses/gpt-5", "claude-sonnet-4-6", "gemini-2.5-flash"])
@pytest.mark.parametrize("mistake", ["repeated message", "unanswered call"])
def test_the_simulated_provider_refuses_a_conversation_that_the_real_one_refuses(
    model: str, mistake: str, client: Client, provider: SimulatedProvider
) -> None:
    tools = [{"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}]
    provider.enqueue(Script(tool_calls=WEATHER_CALLS))
    result = client.run_local(model=model, messages=HELLO, tools=tools)
    first, second = (
        {"role": "tool", "tool_call_id": call.id, "tool_name": call.name, "content": "clear"}
        for call in result.tool_calls
    )
    said = result.message
    wrong: list[Any] = {"repeated message": [said, first, said, second], "unanswered call": [said, first]}[mistake]

    with pytest.raises(InvalidRequestError, match="HTTP 400"):
        client.run_local(model=model, messages=[*HELLO, *wrong], tools=tools)


@pytest.mark.parametrize("block", code_blocks("toml"), ids=str)
def test_settings_load(block: CodeBlock) -> None:
    msgspec.toml.decode(block.text, type=Settings)


def commands() -> Iterator[str]:
    """Yield each command of the pages: all lines of a block ``sh``, and the lines after ``$`` of a block ``console``."""
    for block in code_blocks("sh"):
        yield from (line for line in block.text.splitlines() if line and not line.startswith("#"))
    for block in code_blocks("console"):
        yield from (line[2:] for line in block.text.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("command", sorted({*commands()}))
def test_a_command_exists_and_understands_its_options(command: str) -> None:
    words = shlex.split(command, comments=True)
    for end in ("|", "<", ">"):  # what the shell does with it
        words = words[: words.index(end)] if end in words else words
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    match words:
        case ["headrace", *arguments]:
            assert callable(command_parser().parse_args(arguments).command)
        case [script, *options] if script.startswith("./scripts/"):
            assert os.access(ROOT / script, os.X_OK)
            assert_known(script, options)
        case ["pip", "install", "."]:
            assert (ROOT / "pyproject.toml").exists()
        case ["python", "-m", module, *_]:
            assert find_spec(module) is not None
        case ["python", program] if program.endswith(".py"):
            assert program == "program.py", "the reader's own program"
        case ["uvicorn" | "gunicorn", *_]:
            assert any(command in block.text for block in code_blocks("sh") if block.file == WEB), command
        case _:
            pytest.fail(f"no test knows this program: {command}")


WEB = "docs/guides/web-servers.md"
"""Its commands are run by tests/e2e/test_web.py."""


def assert_known(script: str, options: list[str]) -> None:
    """Look for each option of a script in the script, and in the program that it starts."""
    text = (ROOT / script).read_text()
    for module in re.findall(r"-m (?:exec )?([a-z_.]+)", text):
        path = ROOT / f"{module.replace('.', '/')}.py"
        package = ROOT / module.replace(".", "/") / "__main__.py"
        text += "".join(found.read_text() for found in (path, package) if found.exists())
    for option in options:
        assert not option.startswith("--") or option in text, f"{script} does not know {option}"


def test_each_code_block_says_its_language() -> None:
    assert [str(block) for block in code_blocks("")] == []
