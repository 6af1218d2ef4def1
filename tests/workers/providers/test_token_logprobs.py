"""Log probabilities that a run asked for are in its result: one for each token, streamed and whole, in all forms of the APIs."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.types import RunLocalResult, TokenLogprob, TopLogprob
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.answer_limits import MAX_ELEMENTS, MAX_LOGPROB_ENTRIES, MAX_LOGPROBS, elements_in
from headrace_workers.providers.shared.request_parts import wants_logprobs
from tests.cases import each
from tests.repetition import repeated
from tests.waiting import cpu_slack
from tests.workers import corpus
from tests.workers.providers.result_of_bytes import Failure, of_body, of_stream, sse

HEL = {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]}
LO = {"token": "lo", "logprob": -1.25, "bytes": [108, 111]}
TOP = {"token": "Hey", "logprob": -2, "bytes": None}
CONTENT = [{**HEL, "top_logprobs": [HEL, TOP]}, {**LO, "top_logprobs": []}]
ITEM = {"type": "message", "content": [{"type": "output_text", "text": "Hello", "logprobs": CONTENT}]}
CHOSEN = [{"token": "Hel", "tokenId": 5, "logProbability": -0.5}, {"token": "lo", "logProbability": -1.25}]
TOPS = [{"candidates": [CHOSEN[0], {"token": "Hey", "logProbability": -2.0}]}, {}]

WHOLE: dict[str, Any] = {
    "openai-chat": {
        "choices": [
            {
                "message": {"content": "Hello"},
                "logprobs": {"content": CONTENT, "refusal": None},
                "finish_reason": "stop",
            }
        ]
    },
    "openai-responses": {"status": "completed", "output": [ITEM]},
    "google": {
        "candidates": [
            {
                "content": {"parts": [{"text": "Hello"}]},
                "finishReason": "STOP",
                "logprobsResult": {"chosenCandidates": CHOSEN, "topCandidates": TOPS},
            }
        ]
    },
}


def chat(text: str, logprobs: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs, **more}]}


def candidate(text: str, place: int, **more: Any) -> dict[str, Any]:
    said = {"chosenCandidates": CHOSEN[place : place + 1], "topCandidates": TOPS[place : place + 1]}
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "logprobsResult": said, **more}]}


DELTAS = [
    {"type": "response.output_text.delta", "delta": "Hel", "logprobs": CONTENT[:1]},
    {"type": "response.output_text.delta", "delta": "lo", "logprobs": CONTENT[1:]},
]
STREAMED: dict[str, list[dict[str, Any]]] = {
    "openai-chat": [
        chat("", {"content": [], "refusal": None}),
        chat("Hel", {"content": CONTENT[:1], "refusal": None}),
        chat("lo", {"content": CONTENT[1:], "refusal": None}, finish_reason="stop"),
    ],
    "openai-responses": [
        *DELTAS,
        {"type": "response.output_text.done", "text": "Hello", "logprobs": CONTENT},
        {"type": "response.content_part.done", "part": ITEM["content"][0]},
        {"type": "response.output_item.done", "item": ITEM},
        {"type": "response.completed", "response": WHOLE["openai-responses"]},
    ],
    "google": [candidate("Hel", 0), candidate("lo", 1, finishReason="STOP")],
}
APIS = tuple(WHOLE)


def seen(result: RunLocalResult | Failure) -> Any:
    """Return the log probabilities without the bytes, which Google does not send."""
    assert isinstance(result, RunLocalResult), result
    assert result.logprobs is not None
    return [(one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs]) for one in result.logprobs]


EXPECTED = [("Hel", -0.5, [("Hel", -0.5), ("Hey", -2.0)]), ("lo", -1.25, [])]


@each("api", APIS)
def test_each_token_has_its_probability_and_the_alternatives(api: str) -> None:
    assert seen(of_body(api, WHOLE[api], logprobs=True)) == EXPECTED
    assert seen(of_stream(api, sse(*STREAMED[api]), logprobs=True)) == EXPECTED
    assert seen(of_stream(api, sse(WHOLE[api]), logprobs=True)) == EXPECTED


@each("api", APIS)
def test_a_run_that_did_not_ask_for_probabilities_has_none(api: str) -> None:
    for result in (of_body(api, WHOLE[api]), of_stream(api, sse(*STREAMED[api]))):
        assert isinstance(result, RunLocalResult)
        assert result.logprobs is None


@each(
    ("api", "options"),
    [
        ("openai-chat", {"logprobs": True}),
        ("openai-responses", {"include": ["message.output_text.logprobs"]}),
        ("google", {"generationConfig": {"responseLogprobs": True}}),
    ],
)
def test_a_run_may_ask_for_them_in_the_words_of_its_provider(api: str, options: dict[str, Any]) -> None:
    request = RunRequest(provider="p", model="m", messages=[], stream=True, custom_options=options)
    assert wants_logprobs(request)
    assert not wants_logprobs(msgspec.structs.replace(request, custom_options={"include": ["x"], "logprobs": 0}))
    assert not wants_logprobs(msgspec.structs.replace(request, custom_options={}))
    if api != "openai-chat":  # whose word is that of the argument
        assert seen(of_body(api, WHOLE[api], **options)) == EXPECTED


def test_a_token_keeps_its_bytes() -> None:
    result = of_body("openai-chat", WHOLE["openai-chat"], logprobs=True)
    assert isinstance(result, RunLocalResult)
    assert result.logprobs == [
        TokenLogprob("Hel", -0.5, [72, 101, 108], [TopLogprob("Hel", -0.5, [72, 101, 108]), TopLogprob("Hey", -2.0)]),
        TokenLogprob("lo", -1.25, [108, 111]),
    ]
    assert RunLocalResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@each(
    "events",
    [
        [*DELTAS, {"type": "response.completed", "response": {"output": [{"type": "message", "content": []}]}}],
        [*DELTAS, {"type": "response.output_item.done", "item": ITEM}, {"type": "response.completed", "response": {}}],
        [{"type": "response.output_item.done", "item": ITEM}, {"type": "response.completed", "response": {}}],
    ],
)
def test_what_only_a_part_of_the_events_has_is_not_lost_and_not_doubled(events: list[dict[str, Any]]) -> None:
    assert seen(of_stream("openai-responses", sse(*events), logprobs=True)) == EXPECTED


def test_the_tokens_of_a_refusal_and_not_those_of_other_choices_are_told() -> None:
    refused = {
        "message": {"refusal": "Hello"},
        "logprobs": {"content": None, "refusal": CONTENT},
        "finish_reason": "stop",
    }
    other = {"index": 1, "message": {"content": "x"}, "logprobs": {"content": CONTENT}, "finish_reason": "stop"}
    assert seen(of_body("openai-chat", {"choices": [refused, other]}, logprobs=True, n=2)) == EXPECTED


def test_the_older_form_in_columns_is_read() -> None:
    columns = {
        "tokens": ["Hel", "lo"],
        "token_logprobs": [-0.5, -1.25],
        "top_logprobs": [{"Hel": -0.5, "Hey": -2}, None],
        "text_offset": [0, 3],
    }
    body = {"choices": [{"message": {"content": "Hello"}, "logprobs": columns, "finish_reason": "stop"}]}
    assert seen(of_body("openai-chat", body, logprobs=True)) == EXPECTED
    nothing = dict.fromkeys(columns)
    body = {"choices": [{"message": {"content": "Hello"}, "logprobs": nothing, "finish_reason": "stop"}]}
    result = of_body("openai-chat", body, logprobs=True)
    assert isinstance(result, RunLocalResult)
    assert result.logprobs is None


@each(
    ("entry", "expected"),
    [
        ('{"token": "a", "logprob": -Infinity}', ("a", -math.inf, [])),
        ('{"token": "a\\ud83d", "logprob": -1, "top_logprobs": null}', ("a\ufffd", -1.0, [])),
        ('{"token": "a", "logprob": -1, "bytes": [300], "top_logprobs": []}', ("a", -1.0, [])),
        ('{"token": "a", "logprob": -1e-400}', ("a", 0.0, [])),
        ('{"token": null, "logprob": 0}', ("", 0.0, [])),
    ],
)
def test_odd_values_are_read_as_far_as_they_have_a_meaning(entry: str, expected: Any) -> None:
    body = b'{"choices":[{"message":{"content":"a"},"logprobs":{"content":[%b]},"finish_reason":"stop"}]}'
    assert seen(of_body("openai-chat", body % entry.encode(), logprobs=True)) == [expected]
    columns = b'{"choices":[{"message":{"content":"a"},"logprobs":{"tokens":["a"],"token_logprobs":[-Infinity]}}]}'
    assert seen(of_body("openai-chat", columns, logprobs=True)) == [("a", -math.inf, [])]


@each(
    "said",
    [
        {"content": [{"token": "a", "logprob": None}]},
        {"content": [{"token": "a", "logprob": "x"}]},
        {"content": [{"token": {}, "logprob": -1, "x": 1}, 5]},
        {"content": "all"},
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [None]},
        5,
    ],
)
def test_probabilities_that_cannot_be_read_are_an_error(said: Any) -> None:
    body = {"choices": [{"message": {"content": "a"}, "logprobs": said, "finish_reason": "stop"}]}
    result = of_body("openai-chat", body, logprobs=True)
    assert isinstance(result, Failure)
    assert (result.kind, result.partial_text) == ("provider_protocol", "a")


_KEYS = ["token", "logprob", "bytes", "top_logprobs", "content", "refusal", "tokens", "token_logprobs"]
_KEYS += ["chosenCandidates", "topCandidates", "candidates", "logProbability", "x"]
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "\ud800", "🌊"])
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=repeated(60, 2000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said=_ANYTHING, api=st.sampled_from(APIS), is_streamed=st.booleans())
def test_whatever_stands_in_their_place_is_read_or_is_an_error_of_the_provider(
    said: Any, api: str, is_streamed: bool
) -> None:
    body = json.loads(json.dumps(WHOLE[api]))
    match api:
        case "openai-chat":
            body["choices"][0]["logprobs"] = said
        case "openai-responses":
            body["output"][0]["content"][0]["logprobs"] = said
        case _:
            body["candidates"][0]["logprobsResult"] = said
    if is_streamed:
        event = {"type": "response.completed", "response": body} if api == "openai-responses" else body
        result = of_stream(api, sse(event), logprobs=True)
    else:
        result = of_body(api, body, logprobs=True)
    if isinstance(result, Failure):
        assert (result.kind, result.partial_text) == ("provider_protocol", "Hello")
    else:
        assert result.text == "Hello"


MANY = 800


def long_answer(api: str, tokens: int) -> bytes:
    """Return a whole answer with 20 alternatives for each token."""
    entry = {"token": 'He["\\', "logprob": -0.31725305318832397, "bytes": [72, 101, 91, 34, 92]}
    content = [{**entry, "top_logprobs": [entry] * 20}] * tokens
    body = json.loads(json.dumps(WHOLE[api]))
    match api:
        case "openai-chat":
            body["choices"][0]["logprobs"]["content"] = content
        case "openai-responses":
            body["output"][0]["content"][0]["logprobs"] = content
        case _:
            one = {"token": "He[", "tokenId": 4711, "logProbability": -0.3}
            said = {"chosenCandidates": [one] * tokens, "topCandidates": [{"candidates": [one] * 20}] * tokens}
            body["candidates"][0]["logprobsResult"] = said
    return json.dumps(body).encode()


@pytest.mark.parametrize("api", APIS)
def test_a_long_answer_has_all_probabilities_although_its_json_is_too_heavy_to_decode(api: str) -> None:
    count = 2 * MANY
    body = long_answer(api, count)
    assert elements_in(body) > MAX_ELEMENTS
    streamed = [DELTAS[0], DELTAS[1]] if api == "openai-responses" else []
    end = (
        {"type": "response.completed", "response": json.loads(body)} if api == "openai-responses" else json.loads(body)
    )
    for result in (of_body(api, body, logprobs=True), of_stream(api, sse(*streamed, end), logprobs=True)):
        assert isinstance(result, RunLocalResult), result
        assert result.text == "Hello"
        assert result.logprobs is not None
        assert [len(one.top_logprobs) for one in result.logprobs] == [20] * count


HEAVY = {
    "many": b"[%b]" % b",".join([b'{"token":"","logprob":0}'] * (MAX_LOGPROB_ENTRIES + 1)),
    "bytes": b'[{"token":"%b","logprob":0}]' % (b"a" * MAX_LOGPROBS),
    "numbers": b"[%b]" % b",".join([b'{"token":"","logprob":-1e-308}'] * 10_000),
    "nested": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("heavy", HEAVY)
def test_too_many_or_costly_probabilities_end_the_run_soon(heavy: str) -> None:
    body = b'{"choices":[{"message":{"content":"a"},"logprobs":{"content":%b},"finish_reason":"stop"}]}'
    start = time.process_time()
    result = of_body("openai-chat", body % HEAVY[heavy], logprobs=True)
    assert time.process_time() - start < 1.0 * cpu_slack()
    assert isinstance(result, Failure)
    assert result.kind == "provider_protocol"


@corpus.needs_recordings
def test_recorded_probabilities_are_read() -> None:
    streamed = corpus.load("openai-chat--openai--logprobs--84f1f0")
    assert seen(of_stream("openai-chat", streamed.body, logprobs=True)) == [
        ("Foo", -0.0025094282, []),
        ("!", -0.26638845, []),
    ]
    empty = of_stream("openai-chat", corpus.load("openai-chat--openrouter--think-logprobs--724198").body, logprobs=True)
    assert isinstance(empty, RunLocalResult)
    assert empty.logprobs is None
    doubled = corpus.load("openai-responses--local--tools-think--2024a3")
    result = of_stream("openai-responses", doubled.body, logprobs=True)
    assert isinstance(result, RunLocalResult)
    assert result.logprobs is not None
    assert "".join(one.token for one in result.logprobs) == result.text
