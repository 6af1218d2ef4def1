"""An attribute of ``openai`` or ``litellm`` says what to use with Headrace."""

from __future__ import annotations

import asyncio
import copy
import pickle
import pydoc
from typing import Any

import pytest

import headrace
from headrace import AsyncToolStream, Client, Message, RunLocalResult, RunToolsResult, ToolCall, ToolStream, Usage
from headrace.async_streams import AsyncLocalStream, AsyncResultFuture
from headrace.runs.result_future import ResultFuture
from headrace.streams import LocalStream
from headrace.text.foreign_attributes import _ADVICE
from headrace.tool_loop.tool_stream import _ToolResultFuture
from tests.cases import each
from tests.client.runs.deliveries import FakeRun

RESULT = RunLocalResult(
    text="Hello", span_id="sp_1", trace_id="tr_1", latency_ms=1.0, usage=Usage(1, 2, 3), cost=None, provider="openai",
    model="gpt-4o", tool_calls=[], incomplete_tool_calls=[], finish_reason="stop", provider_finish_reason="stop",
    message=Message("assistant", "Hello"), reasoning="", refusal=None, attempts=1,
)  # fmt: skip
OWNERS = [
    Client, LocalStream, AsyncLocalStream, ToolStream, AsyncToolStream, ResultFuture, AsyncResultFuture, _ToolResultFuture,
    RunLocalResult, RunToolsResult, Usage, ToolCall, Message,
]  # fmt: skip
SAID = [
    (RESULT, "choices", "the text is result.text"),
    (RESULT, "output_text", "use text"),
    (RESULT, "model_dump", r"use to_dict\(\)"),
    (RESULT.usage, "prompt_tokens", "use input_tokens"),
    (RESULT.usage, "completion_tokens", "use output_tokens"),
    (RESULT.message, "model_dump_json", r"use to_dict\(\)"),
    (ToolCall("c", "f", {}), "function", "name and arguments are fields of the call itself"),
    (Client(), "chat", r"use client\.run_local\(model=…, messages=…\)"),
    (Client(), "acompletion", r"use await client\.arun_local"),
    (Client(), "embeddings", r"use client\.run_embedding"),
]


@each(("owner", "name", "words"), SAID)
def test_an_attribute_of_another_library_says_what_to_use(owner: Any, name: str, words: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{type(owner).__name__}' object has no attribute '{name}': .*{words}"):
        getattr(owner, name)


def test_a_field_of_the_result_is_not_looked_for_in_vain_at_the_stream() -> None:
    run = FakeRun()
    stream: Any = LocalStream(run.delivery)
    with pytest.raises(AttributeError, match=r"stream\.result\.result\(\)\.text"):
        stream.text  # noqa: B018 - the error is the point
    with pytest.raises(AttributeError, match=r"use abort\(\)"):
        stream.close()
    with pytest.raises(AttributeError, match=r"is a future: use stream\.result\.result\(\)\.usage"):
        stream.result.usage  # noqa: B018
    run.ends()
    assert stream.result.result().text == ""


def test_in_asyncio_the_result_is_awaited() -> None:
    async def main() -> None:
        run = FakeRun()
        stream: Any = AsyncLocalStream(run.delivery)
        with pytest.raises(AttributeError, match=r"use \(await stream\.result\)\.text"):
            stream.result.text  # noqa: B018
        run.ends()
        assert (await stream.result).text == ""

    asyncio.run(main())


def test_the_package_says_that_there_is_one_client() -> None:
    package: Any = headrace
    with pytest.raises(AttributeError, match=r"use headrace\.Client; it has run_local, and arun_local for asyncio"):
        package.AsyncClient  # noqa: B018
    with pytest.raises(AttributeError, match=r"make a headrace\.Client\(\)"):
        package.completion  # noqa: B018
    with pytest.raises(AttributeError, match=r"^module 'headrace' has no attribute 'tolo'$"):
        package.tolo  # noqa: B018


def test_no_advice_is_about_an_attribute_or_a_class_that_does_not_need_it() -> None:
    kinds = {kind for owner in OWNERS for kind in owner.__mro__ if kind.__name__ in _ADVICE}
    assert {kind.__name__ for kind in kinds} == _ADVICE.keys(), "a class has another name now"
    for owner in OWNERS:
        for kind in owner.__mro__:
            advised = _ADVICE.get(kind.__name__, {})
            assert [name for name in advised if not repr(getattr(owner, name)).startswith("(not here: ")] == []


def test_an_object_does_not_list_them_and_help_says_what_to_use() -> None:
    assert {"choices", "model_dump", "id"} & {*dir(RESULT)} == set()
    assert {"text", "usage", "to_dict"} < {*dir(RESULT)}
    assert not hasattr(RESULT, "choices")
    assert "prompt_tokens = (not here: use input_tokens)" in pydoc.plain(pydoc.render_doc(Usage))


def test_a_subclass_may_have_such_an_attribute() -> None:
    class Chatting(Client):
        def chat(self) -> str:
            return "hello"

    assert Chatting().chat() == "hello"


def test_attributes_that_exist_are_read_without_python_code() -> None:
    """``__getattr__`` would make each of them five times as slow."""
    assert [owner for owner in OWNERS if hasattr(owner, "__getattr__")] == []


def test_other_attributes_are_missing_as_python_says_it_and_copies_are_not_disturbed() -> None:
    owners: list[Any] = [RESULT, RESULT.message, Client()]
    for owner in owners:
        with pytest.raises(AttributeError, match=r"has no attribute 'txet'$") as caught:
            owner.txet  # noqa: B018
        assert (caught.value.name, caught.value.obj) == ("txet", owner)  # Python guesses a misspelt name by them
        assert not hasattr(owner, "__missing__")
        assert type(pickle.loads(pickle.dumps(owner))) is type(copy.deepcopy(owner)) is type(owner)
