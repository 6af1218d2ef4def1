"""Recorded Gemini responses have the same result as with the official SDK, however the network split them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.google.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each
from tests.workers import corpus

_PIECES = "the SDK leaves function calls in pieces: each piece is a call, without name or arguments"
_NO_STREAM = "the SDK takes no array of responses where it asked for events; it finds nothing in it"
_EVERYTHING = {"text", "tool_calls", "usage", "finish_reason", "model"}

EXPECTATION_IS_WRONG: dict[str, tuple[set[str], str]] = {
    "google-generate--google--partools--61dd04": ({"tool_calls"}, _PIECES),
    "google-generate--google--partools--f1255c": ({"tool_calls"}, _PIECES),
    "google-generate--google--jsonarray--66c608": (_EVERYTHING, _NO_STREAM),
    "google-generate--google--jsonarray--a178f6": (_EVERYTHING, _NO_STREAM),
    "google-generate--vertex--jsonarray--43fd77": (_EVERYTHING, _NO_STREAM),
}

pytestmark = corpus.needs_recordings


def usage(said: dict[str, Any]) -> tuple[int, ...]:
    count = {name: said[name] or 0 for name in ("input", "output", "total", "cached", "cache_write", "reasoning")}
    count["output"] += count["reasoning"]  # Google counts thoughts apart
    count["total"] = count["total"] or count["input"] + count["output"]
    return tuple(count.values())


def is_cut(case: corpus.Recording) -> bool:
    return b"finishReason" not in case.body and b"blockReason" not in case.body


def error_code(error: dict[str, Any]) -> Any:
    return error["type"]  # the code is the status again


READING = corpus.Comparison(api=API, usage=usage, is_cut=is_cut, error_code=error_code, wrong=EXPECTATION_IS_WRONG)


@pytest.mark.parametrize("name", corpus.case_names("google.generate"))
def test_a_recorded_response_has_the_same_result_as_with_the_official_sdk(name: str) -> None:
    corpus.check(READING, name)


def outcome(name: str) -> corpus.AnswerOutcome:
    case = corpus.load(name)
    outcomes = [corpus.outcome_of(READING, case, reads) for reads in corpus.chunkings(case)]
    assert all(other == outcomes[0] for other in outcomes)
    return outcomes[0]


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        (
            "google-generate--google--partools--61dd04",
            [("getWeather", {"location": "Boston"}), ("getWeather", {"location": "San Francisco"})],
        ),
        (
            "google-generate--google--partools--f1255c",
            [
                (
                    "writeItems",
                    {
                        "operations": [
                            {
                                "action": "add",
                                "description": "Fresh red apple",
                                "itemid": "apple_001",
                                "price": 0.5,
                            },
                            {
                                "action": "add",
                                "description": "Ripe yellow banana",
                                "itemid": "banana_001",
                                "price": 0.3,
                            },
                        ]
                    },
                )
            ],
        ),
    ],
)
def test_recorded_calls_in_pieces_are_joined(name: str, calls: list[Any]) -> None:
    got = outcome(name)
    assert [(call[1], json.loads(call[2])) for call in got.calls] == calls
    assert got.completion is not None
    assert got.completion.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("name", "text", "calls", "total"),
    [
        ("google-generate--google--jsonarray--66c608", "", [("call_0", "pelican_name_generator", "{}")], 118),
        ("google-generate--google--jsonarray--a178f6", "How about Charles and Sammy?", [], 143),
        ("google-generate--vertex--jsonarray--43fd77", "Hello from the silicon dream!", [], 963),
    ],
)
def test_recorded_arrays_are_read_whole(name: str, text: str, calls: list[corpus.Call], total: int) -> None:
    got = outcome(name)
    assert (got.text, got.calls, got.usage.total_tokens) == (text, calls, total)
    # The result is the same without the content type, and in a run that streams.
    assert corpus.replay(READING, [corpus.load(name).body]).text == text


OWN_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


@each("name", corpus.case_names("google.generate"))
def test_parts_of_googles_server_tools_in_a_recorded_response_are_sent_back_unchanged(name: str) -> None:
    case = corpus.load(name)
    own: list[Any] = []
    for _, data in SSEParser().feed(case.body) if case.body.startswith(b"data:") else ():
        for candidate in (json.loads(data) if data.startswith(b"{") else {}).get("candidates") or ():
            parts = (candidate.get("content") or {}).get("parts") or ()
            own += [part for part in parts if any(kind in part for kind in OWN_PARTS)]
    if not own:
        return
    completion = corpus.replay(READING, [case.body]).completion
    assert completion is not None
    assert completion.message is not None
    history = [Message("user", "hi"), completion.message, Message("user", "go on")]
    run = RunRequest(provider="google", model="gemini-3-pro", messages=history, stream=True)
    settings = ProviderSettings(name="google", api="google", base_url="https://x")
    model = json.loads(API.build_request(run, settings, None).body)["contents"][1]
    assert [part for part in model["parts"] if any(kind in part for kind in OWN_PARTS)] == own
