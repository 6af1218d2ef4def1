"""Promises of Google's mapper that the recordings do not show: signatures, calls in pieces, continuations, errors."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.types import (
    Message,
    ReasoningDelta,
    ReasoningPart,
    RunEvent,
    TextPart,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.google.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from tests.repetition import repeated

STOP: dict[str, Any] = {"candidates": [{"finishReason": "STOP"}]}
KEYS = ["candidates", "content", "parts", "text", "thought", "thoughtSignature", "functionCall", "name", "args", "id"]
KEYS += ["partialArgs", "jsonPath", "stringValue", "willContinue", "finishReason", "continuationToken", "index"]
KEYS += ["usageMetadata", "promptTokenCount", "promptFeedback", "blockReason", "error", "responseId", "details"]


def request(*, stream: bool = True, **fields: Any) -> RunRequest:
    return RunRequest(provider="google", model="m", messages=[Message("user", "hi")], stream=stream, **fields)


def chunk(
    *parts: Any, finish: Any = None, usage: Any = None, token: str | None = None, **fields: Any
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    if token is not None:
        candidate["continuationToken"] = token
    return {"candidates": [candidate]} | ({"usageMetadata": usage} if usage else {}) | fields


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"text": said, **fields}


def call(**fields: Any) -> dict[str, Any]:
    return chunk({"functionCall": fields})


def pieces(*args: dict[str, Any], goes_on: bool = True) -> dict[str, Any]:
    return call(partialArgs=list(args), **({"willContinue": True} if goes_on else {}))


def play(*data: dict[str, Any] | bytes, stream: bool = True, name: str = "") -> tuple[list[RunEvent], Completion]:
    mapper = API.open_stream(request(stream=stream))
    events: list[RunEvent] = []
    for item in data:
        mapper.feed(name, item if isinstance(item, bytes) else json.dumps(item).encode(), events)
    return events, mapper.finish()


def failure_of(*data: dict[str, Any] | bytes, name: str = "") -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        play(*data, name=name)
    return caught.value.failure


def test_text_arrives_as_bare_strings_and_the_end_of_the_body_ends_the_stream() -> None:
    mapper = API.open_stream(request())
    events: list[RunEvent] = []
    for item in (chunk(text("")), chunk(text("a"), text("b"), modelVersion="gemini"), chunk(text("c"), finish="STOP")):
        mapper.feed("", json.dumps(item).encode(), events)
    assert events == ["a", "b", "c"]
    assert not mapper.is_complete
    assert mapper.finish() == Completion(
        finish_reason="stop", provider_finish_reason="STOP", usage=Usage(), tool_calls=[], model="gemini"
    )


def test_usage_is_the_last_and_output_includes_thoughts() -> None:
    first = {"promptTokenCount": 5, "totalTokenCount": 5, "cachedContentTokenCount": 4}
    last = first | {"candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 10}
    events, whole = play(chunk(text("a"), usage=first), chunk(text("b"), usage=first), chunk(finish="STOP", usage=last))
    final = Usage(5, 5, 10, 4, reasoning_tokens=3, source="provider")
    assert events == ["a", UsageUpdate(Usage(5, 0, 5, 4, source="partial")), "b", UsageUpdate(final)]
    assert whole.usage == final


def test_usage_before_the_finish_reason_becomes_final_with_it_and_empty_usage_changes_nothing() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 1, "toolUsePromptTokenCount": 9, "totalTokenCount": None}
    _, whole = play(chunk(text("a"), usage=usage), chunk(finish="STOP", usage={"trafficType": "ON_DEMAND"}))
    assert whole.usage == Usage(5, 1, 15, source="provider")


def test_thoughts_are_reasoning() -> None:
    events, whole = play(chunk(text("why", thought=True)), chunk(text("so")), STOP)
    assert events == [ReasoningDelta("why"), "so"]
    assert whole.message is None


def test_each_signature_stays_on_its_part() -> None:
    events, whole = play(
        chunk(text("w", thought=True)),
        chunk(text("hy", thought=True)),
        chunk(text("", thought=True, thoughtSignature="s0+/=")),
        chunk(text("a"), text("b")),
        chunk(text("c", thoughtSignature="s1")),
        chunk(text("d")),
        chunk({"functionCall": {"name": "f", "args": {"x": 1.0}}, "thoughtSignature": "s2"}),
        chunk({"functionCall": {"name": "g", "id": "own"}}),
        chunk(text("", thoughtSignature="s3"), finish="STOP"),
    )
    assert [event for event in events if isinstance(event, str)] == ["a", "b", "c", "d"]
    assert whole.message == Message(
        "assistant",
        [
            ReasoningPart("why"),
            ReasoningPart("", {"api": "google", "thoughtSignature": "s0+/="}),
            TextPart("ab"),
            TextPart("c", {"api": "google", "thoughtSignature": "s1"}),
            TextPart("d"),
            ToolCallPart("call_0", "f", {"x": 1.0}, {"api": "google", "thoughtSignature": "s2"}),
            ToolCallPart("own", "g", {}, {"api": "google", "id": "own"}),
            TextPart("", {"api": "google", "thoughtSignature": "s3"}),
        ],
    )
    assert whole.tool_calls == [ToolCallText("call_0", "f", '{"x": 1.0}'), ToolCallText("own", "g", "{}")]


def test_a_run_without_streaming_gets_the_whole_message() -> None:
    _, whole = play(chunk(text("a")), chunk(text("b")), STOP, stream=False)
    assert whole.message == Message("assistant", "ab")
    _, whole = play(chunk(text("why", thought=True)), chunk(text("b")), STOP, stream=False)
    assert whole.message == Message("assistant", [ReasoningPart("why"), TextPart("b")])


def test_calls_keep_their_arguments_unchanged() -> None:
    events, whole = play(
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"n": 1.50, "big": 12345678901234567890123}}}'
        b',{"functionCall":{"name":"f","args":null,"id":""}}]},"finishReason":"STOP"}]}'
    )
    assert events == [
        ToolCallDelta(0, "call_0", "f", '{"n": 1.50, "big": 12345678901234567890123}'),
        ToolCallDelta(1, "call_1", "f", "{}"),
    ]
    assert whole.finish_reason == "tool_calls"
    assert whole.provider_finish_reason == "STOP"


def calls_of(*data: dict[str, Any]) -> list[ToolCallText]:
    events, whole = play(*data)
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    for index, done in enumerate(whole.tool_calls):
        own = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.arguments for delta in own) == done.arguments
        assert (own[0].id, own[0].name) == (done.id, done.name)
    return whole.tool_calls


def test_a_call_in_pieces_is_joined_by_paths_in_any_order() -> None:
    assert calls_of(
        call(name="f", willContinue=True),
        pieces({"jsonPath": "$.a", "stringValue": "x", "willContinue": True}),
        pieces({"jsonPath": "$.a", "stringValue": "y", "willContinue": True}, {"jsonPath": "$.a", "stringValue": ""}),
        pieces({"jsonPath": "$.l[0].n", "numberValue": 2}, {"jsonPath": "$.l[1]['k.\\'q']", "boolValue": False}),
        pieces({"jsonPath": '$["b"]', "nullValue": "NULL_VALUE"}, {"jsonPath": "$.l[0].m", "stringValue": "z"}),
        call(),
        call(name="f", willContinue=True),
        pieces({"jsonPath": "$.a", "stringValue": "last"}, goes_on=False),
        call(name="g", args={"y": 1}),
        STOP,
    ) == [
        ToolCallText("call_0", "f", '{"a":"xy","l":[{"n":2,"m":"z"},{"k.\'q":false}],"b":null}'),
        ToolCallText("call_1", "f", '{"a":"last"}'),
        ToolCallText("call_2", "g", '{"y": 1}'),
    ]


def test_a_call_in_pieces_may_repeat_its_name_and_start_with_arguments() -> None:
    one = {"jsonPath": "$.a", "stringValue": "x"}
    assert calls_of(
        call(name="f", args={"z": 1}, partialArgs=[one], willContinue=True),
        call(name="f", partialArgs=[one | {"jsonPath": "$.b"}], willContinue=True),
        call(name="f", willContinue=True),
        STOP,
    ) == [ToolCallText("call_0", "f", '{"z":1,"a":"x","b":"x"}'), ToolCallText("call_1", "f", "{}")]


@pytest.mark.parametrize("value", [{"stringValue": 'a"}', "willContinue": True}, {"numberValue": 1}])
def test_a_call_that_is_cut_has_arguments_that_are_no_json(value: dict[str, Any]) -> None:
    cut = call(name="f", willContinue=True), pieces({"jsonPath": "$.l[0]"} | value), chunk(finish="MAX_TOKENS")
    (done,) = calls_of(*cut)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(done.arguments)
    assert play(*cut)[1].finish_reason == "max_tokens"


@pytest.mark.parametrize("path", ["", "a", "$", "$.", "$[0]", "$.a[", "$.a[5000]", "$" + ".a" * 100, "$.a[*]"])
def test_an_argument_at_an_unreadable_place_is_not_dropped_silently(path: str) -> None:
    failure = failure_of(call(name="f", willContinue=True), pieces({"jsonPath": path, "numberValue": 1}), STOP)
    assert failure.kind == "provider_protocol"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("CONTINUATION", "max_tokens"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_a_finish_reason_keeps_the_providers_word(word: str, reason: str) -> None:
    _, whole = play(chunk(text("a"), finish="FINISH_REASON_UNSPECIFIED"), chunk(finish=word))
    assert (whole.finish_reason, whole.provider_finish_reason) == (reason, word)


def test_the_finish_reason_of_a_cut_answer_with_calls_is_kept() -> None:
    assert play(call(name="f"), chunk(finish="SAFETY"))[1].finish_reason == "content_filter"


def test_a_blocked_prompt_is_a_filtered_answer() -> None:
    events, whole = play(
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}}
    )
    assert (whole.finish_reason, whole.provider_finish_reason) == ("content_filter", "PROHIBITED_CONTENT")
    assert whole.usage == Usage(4, 0, 4, source="provider")
    assert len(events) == 1


def test_only_the_first_candidate_is_the_answer() -> None:
    other = {"index": 1, "content": {"parts": [text("no"), {"functionCall": {"name": "f"}}]}, "finishReason": "SAFETY"}
    events, whole = play({"candidates": [other]}, chunk(text("yes")), STOP, {"candidates": [other]})
    assert events == ["yes"]
    assert whole.finish_reason == "stop"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        [],
        {"candidates": None},
        {"candidates": [None]},
        {"candidates": [{}]},
        {
            "candidates": [{"content": None, "finishReason": "", "index": None}],
            "usageMetadata": {"promptTokenCount": "x"},
        },
        {"candidates": [{"content": {}, "groundingMetadata": {"groundingChunks": []}}], "error": None},
        chunk(None, {}, {"executableCode": None, "inlineData": None}),
        chunk({"text": None, "thought": None, "thoughtSignature": "", "functionCall": None}, {"functionCall": {}}),
        {"promptFeedback": {"safetyRatings": []}},
        b"",
        b"null",
        b"[DONE]",
    ],
)
def test_an_event_without_content_does_no_harm(odd: Any) -> None:
    events, whole = play(odd, chunk(text("x")), STOP)
    assert events == ["x"]
    assert whole.tool_calls == []
    assert whole.message is None


def test_json_with_small_mistakes_is_read() -> None:
    start = b'{"candidates":[{"avgLogprobs":NaN,"content":{"parts":[{"text":"'
    events, _ = play(start + b'a"}]}}]}', start + b'\\ud83d"}]}}]}', start + b'\xff"}]}}]}', STOP)
    assert events == ["a", "\ud83d", "\ufffd"]


def test_an_array_of_responses_is_read_in_its_order() -> None:
    body = json.dumps([chunk(text("a")), chunk(text("b"), finish="STOP")]).encode()
    assert play(body)[0] == ["a", "b"]
    for form in (body, json.dumps(chunk(text("ab"), finish="STOP")).encode()):
        assert API.read_body(request(stream=False), form).message == Message("assistant", "ab")


def test_events_without_their_content_type_are_read() -> None:
    body = b": note\r\n\r\n" + b"".join(
        b"data: %b\r\n\r\n" % json.dumps(item).encode() for item in (chunk(text("a")), chunk(text("b"), finish="STOP"))
    )
    assert API.read_body(request(stream=False), body).message == Message("assistant", "ab")
    with pytest.raises(ProviderFailedError, match="a server-sent event is larger"):
        API.read_body(request(stream=False), b"data: " + b"x" * (33 << 20))


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b'[{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}]', "provider_unavailable", "m"),
        (
            b"<title>Login</title>",
            "provider_protocol",
            "the response is not a Gemini response but an HTML page (Login)",
        ),
        (b"", "provider_protocol", "the response is not a Gemini response but an empty body"),
        (b"{}", "provider_protocol", "the stream ended without finish reason"),
        (b'{"candidates": 3}', "provider_protocol", 'the response is not a Gemini response but {"candidates": 3}'),
    ],
)
def test_a_body_that_is_no_answer_fails(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        API.read_body(request(stream=False), body)
    assert (caught.value.failure.kind, caught.value.failure.reason) == (kind, reason)


def test_a_stream_without_finish_reason_was_cut() -> None:
    failure = failure_of(chunk(text("x")))
    assert (failure.kind, failure.reason) == ("provider_protocol", "the stream ended without finish reason")


def test_an_unreadable_event_ends_a_stream_unless_the_answer_is_complete() -> None:
    assert failure_of(b'{"candidates":[{"con').kind == "provider_protocol"
    assert failure_of(b'{"candidates":3}').kind == "provider_protocol"
    assert play(STOP, b'{"candidates":[],"usa')[1].finish_reason == "stop"


ERROR = {"code": 503, "message": "m", "status": "UNAVAILABLE"}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ERROR, "provider_unavailable", "UNAVAILABLE"),
        (ERROR | {"code": 429, "status": "RESOURCE_EXHAUSTED"}, "rate_limit", "RESOURCE_EXHAUSTED"),
        (ERROR | {"code": 401, "status": "UNAUTHENTICATED"}, "authentication", "UNAUTHENTICATED"),
        (ERROR | {"code": 400, "status": "INVALID_ARGUMENT"}, "invalid_request", "INVALID_ARGUMENT"),
        ({"code": 500, "message": "m"}, "provider_unavailable", "500"),
        ({"message": "m"}, "provider_unavailable", None),
        ("m", "provider_unavailable", None),
    ],
)
def test_an_error_in_a_stream_is_classified_by_its_words(error: Any, kind: str, code: str | None) -> None:
    for form in ({"error": error}, [{"error": error}]):
        failure = failure_of(chunk(text("x")), json.dumps(form).encode())
        assert (failure.kind, failure.reason, failure.code) == (kind, "m", code)
        assert failure.status_code is None


@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_an_error_in_a_stream_without_a_data_field_is_found(size: int) -> None:
    body = b"data: " + json.dumps(chunk(text("x"))).encode() + b"\r\n\r\n"
    body += json.dumps([{"error": ERROR | {"message": "over } loaded"}}], indent=2).replace("\n", "\r\n").encode()
    parser = SSEParser()
    reads = [body[at : at + size] for at in range(0, len(body), size)]
    (_, answer), (_, error) = [event for read in reads for event in parser.feed(read)] + parser.finish()
    mapper, events = API.open_stream(request()), list[RunEvent]()
    mapper.feed("", answer, events)
    with pytest.raises(ProviderFailedError) as caught:
        mapper.feed("", error, events)
    assert events == ["x"]
    assert (caught.value.failure.kind, caught.value.failure.reason) == ("provider_unavailable", "over } loaded")


def test_an_event_named_error_is_one() -> None:
    assert failure_of({"message": "m"}, name="error").reason == "m"


# Continuations.


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output}


@pytest.mark.parametrize("ids", [("r1", "r2"), (None, None), ("r", "r")])
def test_a_continued_answer_is_one_answer_with_the_usage_of_all_requests(ids: tuple[str | None, str | None]) -> None:
    mapper, events = API.open_stream(request()), list[RunEvent]()

    def feed(item: dict[str, Any], response: str | None) -> None:
        mapper.feed("", json.dumps(item | {"responseId": response}).encode(), events)

    feed(chunk(text("a"), usage=usage(9, 1)), ids[0])
    feed(chunk(text("b"), finish="CONTINUATION", token="t1", usage=usage(9, 2)), ids[0])
    feed({"usageMetadata": usage(9, 3)}, ids[0])
    assert mapper.continuation == "t1"
    feed(chunk(text("c"), usage=usage(10, 1)), ids[1])
    assert mapper.continuation is None
    assert mapper.usage == Usage(19, 4, 23, source="partial")
    feed(chunk(text("d"), finish="STOP", usage=usage(10, 2)), ids[1])
    assert mapper.continuation is None
    whole = mapper.finish()
    assert [event for event in events if isinstance(event, str)] == ["a", "b", "c", "d"]
    assert (whole.finish_reason, whole.provider_finish_reason) == ("stop", "STOP")
    assert whole.usage == Usage(19, 5, 24, source="provider")


def test_a_repeated_continuation_token_is_not_followed() -> None:
    mapper = API.open_stream(request())
    for response in ("r1", "r2"):
        item = chunk(text("a"), finish="CONTINUATION", token="t", responseId=response)
        mapper.feed("", json.dumps(item).encode(), [])
    assert mapper.continuation is None
    assert mapper.finish().finish_reason == "max_tokens"


def test_a_checkpoint_token_is_void_after_more_content() -> None:
    mapper = API.open_stream(request())
    mapper.feed("", json.dumps(chunk(text("a"), token="t", usage=usage(1, 1), responseId="r")).encode(), [])
    assert mapper.continuation == "t"
    mapper.feed("", json.dumps(chunk(text("b"), finish="STOP", usage=usage(1, 2), responseId="r")).encode(), [])
    assert mapper.continuation is None
    assert mapper.finish().usage == Usage(1, 2, 3, source="provider")


def test_a_call_may_continue_in_the_next_response() -> None:
    assert calls_of(
        call(name="f", willContinue=True),
        chunk(finish="CONTINUATION", token="t"),
        pieces({"jsonPath": "$.a", "stringValue": "x"}, goes_on=False),
        STOP,
    ) == [ToolCallText("call_0", "f", '{"a":"x"}')]


# Errors by status.


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"status": "INVALID_ARGUMENT", "message": "bad"}, "invalid_request"),
        (
            400,
            {"status": "INVALID_ARGUMENT", "message": "API key not valid. Please pass a valid API key."},
            "authentication",
        ),
        (
            400,
            {"status": "INVALID_ARGUMENT", "message": "m", "details": [{"reason": "API_KEY_INVALID"}]},
            "authentication",
        ),
        (403, {"status": "PERMISSION_DENIED", "message": "m"}, "authentication"),
        (404, {"status": "NOT_FOUND", "message": "m"}, "invalid_request"),
        (429, {"status": "RESOURCE_EXHAUSTED", "message": "m"}, "rate_limit"),
        (503, {"status": "UNAVAILABLE", "message": "m"}, "provider_unavailable"),
        (504, {"status": "DEADLINE_EXCEEDED", "message": "m"}, "provider_unavailable"),
        (500, {}, "provider_unavailable"),
        (413, {}, "invalid_request"),
    ],
)
def test_a_status_is_classified(status: int, error: dict[str, Any], kind: str) -> None:
    for form in ({"error": error}, [{"error": error}]):
        failure = API.read_error(status, {}, json.dumps(form).encode())
        assert (failure.kind, failure.status_code, failure.code) == (kind, status, error.get("status"))


def test_the_wait_is_read_from_the_header_or_the_details() -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "r7"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
    ]
    body = json.dumps({"error": {"status": "RESOURCE_EXHAUSTED", "message": "m", "details": details}}).encode()
    assert API.read_error(429, {}, body).retry_after == 35.5
    assert API.read_error(429, {}, body).request_id == "r7"
    assert API.read_error(429, {"retry-after": "2"}, body).retry_after == 2
    assert API.read_error(429, {}, body.replace(b"34.5s", b"soon")).retry_after is None


@pytest.mark.parametrize("body", [b"", b"<title>Bad Gateway</title>", b"[]", b"[[]]", b"3", b'{"error": []}', b"\xff"])
def test_an_error_body_without_an_error_object_is_an_error(body: bytes) -> None:
    failure = API.read_error(502, {}, body)
    assert failure.kind == "provider_unavailable"
    assert failure.reason


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["a", "$.a", "$.a[0].b", "STOP", "CONTINUATION", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=repeated(50, 500), deadline=None)
@given(st.lists(json_values, max_size=3), json_values, json_values)
def test_no_json_breaks_the_mapper(parts: list[Any], called: Any, whole: Any) -> None:
    items: list[Any] = [chunk(*parts), chunk({"functionCall": called}), {"candidates": [whole]}, whole, STOP]
    for item in items:
        with suppress(ProviderFailedError):
            play(json.dumps(item).encode(), chunk(finish="CONTINUATION", token="t"), json.dumps(item).encode(), STOP)
        body = json.dumps(item).encode()
        with suppress(ProviderFailedError):
            API.read_body(request(stream=False), body)
        API.read_error(500, {}, body)


@pytest.mark.parametrize(
    "silent",
    [
        {"text": ""},
        {"text": "", "thoughtSignature": "s"},
        {"thoughtSignature": "s"},
        {"executableCode": {"code": "1", "language": "PYTHON"}},
    ],
)
def test_a_part_without_text_beside_text_is_no_error(silent: dict[str, Any]) -> None:
    for parts in ([silent, {"text": "x"}], [{"text": "x"}, silent]):
        assert play(chunk(*parts), STOP)[0] == ["x"]
