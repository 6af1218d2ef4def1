"""Recorded Responses API streams give what the official SDK makes of them, however the network split them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_workers.providers.openai_responses import API
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


def is_cut(case: corpus.Case) -> bool:
    ends = (b"response.completed", b"response.incomplete", b"response.failed", b"[DONE]")
    return not any(end in case.body for end in ends)


READING = corpus.Reading(api=API, usage=usage, is_cut=is_cut, finish_word=finish_word, wrong=EXPECTATION_IS_WRONG)


@pytest.mark.parametrize("name", corpus.case_names("openai.responses"))
def test_a_recorded_response_gives_what_the_official_sdk_makes_of_it(name: str) -> None:
    corpus.check(READING, name)
