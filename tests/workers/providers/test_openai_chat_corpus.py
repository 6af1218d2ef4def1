"""Recorded Chat Completions responses have the same result as with the official SDK, however the network split them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_workers.providers.openai_chat.api import API
from tests.workers import corpus

EXPECTATION_IS_WRONG: dict[str, tuple[set[str], str]] = {
    "openai-chat--mistral--text--82c5d0": (
        {"text", "reasoning"},
        "the SDK drops content in parts: of the text 144 it keeps 44, of the thinking nothing",
    ),
    "openai-chat--mistral--text--9365bf": ({"reasoning"}, "the SDK drops content in parts, here all of the thinking"),
}

pytestmark = corpus.needs_recordings


def usage(said: dict[str, Any]) -> tuple[int, ...]:
    names = ("input", "output", "total", "cached", "cache_write", "reasoning")
    count = {name: said[name] or 0 for name in names}
    if count["total"] == count["input"] + count["output"] + count["reasoning"]:
        count["output"] += count["reasoning"]  # headrace's output includes reasoning
    return tuple(count[name] for name in names)


def is_cut(case: corpus.Recording) -> bool:
    return b"[DONE]" not in case.body and not case.expected["finish_reason"]


READING = corpus.Comparison(api=API, usage=usage, is_cut=is_cut, wrong=EXPECTATION_IS_WRONG)


@pytest.mark.parametrize("name", corpus.case_names("openai.chat"))
def test_a_recorded_response_has_the_same_result_as_with_the_official_sdk(name: str) -> None:
    corpus.check(READING, name)
