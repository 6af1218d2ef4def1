"""The table of docs/guides/known-calls.md: each call of Headrace works, and gives what the call of ``openai`` gives."""

from __future__ import annotations

import ast
import asyncio
import base64
import inspect
import json
import re
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import headrace
from headrace import Client
from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from tests.conftest import HELLO, ROOT

_PAGE = ROOT / "docs" / "guides" / "known-calls.md"
_ROW = re.compile(r"^\| (?P<task>[A-Z][^|]*) \| `(?P<known>[^|]+)` \| `(?P<ours>[^|]+)` \|$", re.MULTILINE)
_CAUGHT = re.compile(r"except (?P<error>[\w.]+) as error: (?P<value>.+)")
ROWS = [match.groups() for match in _ROW.finditer(_PAGE.read_text("utf-8"))]
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Invoice(BaseModel):
    """The model of the table."""

    number: int
    article: str


def book(number: int, article: str) -> None:
    """Book an invoice. The function of the table."""


SCRIPTS: dict[str, Script] = {
    "Fill a pydantic model": Script(text='{"number": 17, "article": "belt"}'),
    "Fill a pydantic model, Responses": Script(text='{"number": 17, "article": "belt"}'),
    "Ask for JSON": Script(text="{}"),
    "Read a call's arguments": Script(tool_calls=[ScriptedToolCall("get_weather", {"city": "Oslo"})]),
    "Read the reasoning": Script(reasoning="The user says hello.", text="Hello"),
    "Catch a rate limit": Script(status=429, headers={"retry-after": "7"}),
    "Catch a wrong key": Script(status=401),
}
"""What the provider answers in rows that need more than its own answer."""
EXPECTED: dict[str, Any] = {
    "Read the reasoning": "The user says hello.",
    "Test without a provider": "Hi",
}
"""The values of rows with a call of ``litellm``, which is not installed for tests. The others need only be true."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the table names."""
    made = tmp_path_factory.mktemp("files")
    (made / "a.png").write_bytes(_png())
    (made / "a.pdf").write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
    sound = b"\0\0" * 80
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data" + struct.pack("<I", len(sound))
    (made / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(head) + len(sound)) + head + sound)
    return made


def _png() -> bytes:
    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = zlib.compress(b"\0\xff\xff\xff")
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", pixel) + piece(b"IEND", b"")


@pytest.fixture
def shared(provider: SimulatedProvider, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that both columns use."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VLLM_BASE_URL", provider.environment["OPENAI_BASE_URL"])
    return {
        "asyncio": asyncio,
        "base64": base64,
        "json": json,
        "Path": Path,
        "messages": HELLO,
        "tools": _TOOLS,
        "Invoice": Invoice,
        "book": book,
        "provider": provider,
        "Script": Script,
    }


def value_of(code: str, names: dict[str, Any]) -> Any:
    """Run the statements of a cell, and return the value of the last one."""
    tree = ast.parse(code)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    tree.body[-1] = ast.Assign([ast.Name("value", ast.Store())], last.value)
    program = compile(ast.fix_missing_locations(tree), code, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if program.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(program, names)
            if "aclient" in names:
                await names["aclient"].close()

        asyncio.run(main())
    else:
        exec(program, names)
    return names["value"]


def given(code: str, call: str, names: dict[str, Any]) -> Any:
    """Return the value of a cell. A cell ``except …`` is about the error that the plain call raises."""
    caught = _CAUGHT.fullmatch(code)
    if caught is None:
        return value_of(code, names)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the next line names its type
        value_of(f"{call}()", names)
    assert type(raised.value) is value_of(caught["error"], names)
    return value_of(caught["value"], names | {"error": raised.value})


def known_value(code: str, names: dict[str, Any]) -> Any:
    """Return the value of a cell of ``openai``."""
    synchronous = openai.OpenAI(max_retries=0)
    # One client for each event loop: its connections belong to the loop.
    asynchronous = openai.AsyncOpenAI(max_retries=0)
    made: dict[str, Any] = {"client": synchronous, "aclient": asynchronous, "openai": openai}
    made["ask"] = partial(synchronous.chat.completions.create, model="gpt-4o", messages=names["messages"])
    made["aask"] = partial(asynchronous.chat.completions.create, model="gpt-4o", messages=names["messages"])
    with synchronous:
        return given(code, "ask", names | made)


def our_value(code: str, names: dict[str, Any], client: Client) -> Any:
    """Return the value of a cell of Headrace."""
    made: dict[str, Any] = {name: getattr(headrace, name) for name in headrace.__all__}
    made |= {"client": client, "headrace": headrace}
    made["run"] = partial(client.run_local, model="gpt-4o", messages=names["messages"])
    made["arun"] = partial(client.arun_local, model="gpt-4o", messages=names["messages"])
    return given(code, "run", names | made)


@pytest.mark.parametrize(("task", "known", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_a_known_call_has_its_equal_in_headrace(
    task: str, known: str, ours: str, shared: dict[str, Any], client: Client, provider: SimulatedProvider
) -> None:
    is_run = not known.startswith("litellm.")
    if (script := SCRIPTS.get(task)) is not None:
        provider.enqueue(*[script] * (2 if is_run else 1))

    value = our_value(ours, dict(shared), client)

    if is_run:
        assert value == known_value(known, dict(shared))
    else:
        assert value == EXPECTED.get(task, value)
        assert value
    if script is None or script.status == 200:
        assert {record.status for record in provider.requests()} == {200}


def test_the_table_has_forty_rows_and_more() -> None:
    assert len(ROWS) >= 40
    assert len({task for task, _, _ in ROWS}) == len(ROWS)
    assert {*SCRIPTS, *EXPECTED} <= {task for task, _, _ in ROWS}
