"""Recorded Responses streams have the same result as with the official SDK, however the network split them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_responses.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each
from tests.workers import corpus

EXPECTATION_IS_WRONG: dict[str, tuple[set[str], str]] = {
    "openai-responses--bedrock--text--ed5e04": (
        {"usage"},
        "the body says 43 cache_write_tokens, the expectation null",
    ),
    "openai-responses--openai--text--0d0862": (
        {"finish_reason", "usage", "model"},
        "the body lacks its last blank line, so the SDK never sees response.completed, which it holds",
    ),
    "openai-responses--xai--text--2fbc3b": (
        {"tool_calls"},
        "the call is xAI's own search, answered by xAI itself: only its item looks like that of a caller's custom tool",
    ),
}

pytestmark = corpus.needs_recordings


def usage(said: dict[str, Any]) -> tuple[int, ...]:
    names = ("input", "output", "total", "cached", "cache_write", "reasoning")
    return tuple(said[name] or 0 for name in names)


def finish_word(expected: dict[str, Any]) -> str | None:
    word: str | None = expected["incomplete_reason"] or expected["finish_reason"]
    return word


def is_cut(case: corpus.Recording) -> bool:
    ends = (b"response.completed", b"response.incomplete", b"response.failed", b"[DONE]")
    return not any(end in case.body for end in ends)


READING = corpus.Comparison(api=API, usage=usage, is_cut=is_cut, finish_word=finish_word, wrong=EXPECTATION_IS_WRONG)


@pytest.mark.parametrize("name", corpus.case_names("openai.responses"))
def test_a_recorded_response_has_the_same_result_as_with_the_official_sdk(name: str) -> None:
    corpus.check(READING, name)


OPENAI = ProviderSettings(name="openai-responses", api="openai-responses", base_url="https://api.openai.com/v1")


def items_of(body: bytes) -> list[dict[str, Any]]:
    """Return the output of a completed response."""
    events = [json.loads(data) for _, data in SSEParser().feed(body) if data.startswith(b"{")]
    ends = [event["response"] for event in events if event.get("type") == "response.completed"]
    return ends[-1].get("output") or [] if ends else []


@each("name", corpus.case_names("openai.responses"))
def test_the_items_of_a_recorded_response_are_sent_back_unchanged_and_in_order(name: str) -> None:
    case = corpus.load(name)
    items = items_of(case.body)
    is_readable = all(item.get("encrypted_content") for item in items if item["type"] == "reasoning")
    kinds = {item["type"] for item in items}
    if not is_readable or "shell_call_output" in kinds or kinds <= {"message", "function_call"}:
        return  # what was not stored cannot go back; text and calls alone need no item of their own
    completion = corpus.replay(READING, [case.body]).completion
    assert completion is not None
    assert completion.message is not None
    calls = [Message("tool", "x", call.id) for call in completion.message.tool_calls]
    history = [Message("user", "hi"), completion.message, *calls, Message("user", "go on")]
    run = RunRequest(provider="openai-responses", model="gpt-5", messages=history, stream=True)
    sent = json.loads(API.build_request(run, OPENAI, None).body)["input"]
    assert sent[1 : 1 + len(items)] == items
