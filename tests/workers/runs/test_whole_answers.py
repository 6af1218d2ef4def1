"""A success holds everything that the provider sent; an odd answer that cannot be read is an error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from headrace.types import (
    IncompleteToolCall,
    Message,
    ReasoningDelta,
    RefusalDelta,
    RunLocalResult,
    ToolCall,
    ToolCallDelta,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.workers.providers.example_answers import STREAMED
from tests.workers.providers.result_of_bytes import FORMATS, Failure, heard_of, of_body, of_stream, sse

DONE = b"[DONE]"
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def success(result: RunLocalResult | Failure) -> RunLocalResult:
    assert isinstance(result, RunLocalResult), result
    return result


def failure(result: RunLocalResult | Failure) -> Failure:
    assert isinstance(result, Failure), result
    assert result.kind == "provider_protocol"
    assert result.status_code == 200
    return result


def choice(message: Any = None, finish: Any = "stop", index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": message, "finish_reason": finish} | more


def piece(delta: Any, finish: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish} | more]}


def call(arguments: Any, name: str = "f", call_id: str = "c") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(*choices: Any, **options: Any) -> RunLocalResult | Failure:
    return of_body("openai-chat", {"choices": [*choices], "usage": USAGE}, **options)


def chat_stream(*pieces: Any, **options: Any) -> RunLocalResult | Failure:
    return of_stream("openai-chat", sse(*pieces), **options)


# Several choices.


def test_text_in_one_choice_and_calls_in_another_are_one_answer() -> None:
    calls = [choice({"tool_calls": [call("{}", call_id=name)]}, "tool_calls", index=1) for name in ("a", "b")]

    for choices in ([choice({"content": "x"}), *calls], [*calls, choice({"content": "x"})]):
        result = success(chat(*choices))
        assert (result.text, [made.id for made in result.tool_calls]) == ("x", ["a", "b"])
        assert result.finish_reason == "tool_calls"
        assert [part.id for part in result.message.tool_calls] == ["a", "b"]


def test_a_stream_in_two_choices_is_one_answer() -> None:
    first = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]}
    then = {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}
    pieces = [piece({"content": "x"}), piece(first, index=1), piece(then, index=1), piece({}, "tool_calls", index=1)]

    for end in ([piece({}, "stop"), DONE], [piece({}, "stop")], [DONE], []):
        result = success(chat_stream(*pieces, *end))
        assert (result.text, result.tool_calls) == ("x", [ToolCall("a", "f", {"x": 1})])
        assert result.finish_reason == "tool_calls"


def test_the_same_call_in_two_choices_is_one_call() -> None:
    twice = [choice({"content": "x", "tool_calls": [call("{}")]}), choice({"tool_calls": [call("{}")]}, index=1)]
    assert len(success(chat(*twice)).tool_calls) == 1


def test_the_first_of_several_alternatives_is_the_result() -> None:
    both = [choice({"content": "no", "tool_calls": [call("{}")]}, index=1), choice({"content": "yes"})]
    assert (success(chat(*both)).text, success(chat(*both)).tool_calls) == ("yes", [])

    wanted = [choice({"content": "yes"}), choice({"tool_calls": [call("{}")]}, "tool_calls", index=1)]
    assert success(chat(*wanted, n=2)).tool_calls == []

    google: dict[str, Any] = {"candidates": [{"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}]}
    google["candidates"].append({"index": 1, "content": {"parts": [{"functionCall": {"name": "f"}}]}})
    assert success(of_body("google", google, generationConfig={"candidateCount": 2})).tool_calls == []
    assert success(of_body("google", google)).tool_calls == [ToolCall("call_0", "f", {})]


def test_text_in_a_second_choice_without_a_finish_reason_is_an_error() -> None:
    found = failure(chat_stream(piece({"content": "x"}), piece({"content": "y"}, index=1), piece({}, "stop"), DONE))
    assert found.partial_text == "x"


# Calls in other forms.


def test_the_old_function_call_is_a_call() -> None:
    function = {"name": "f", "arguments": '{"x": 1}'}
    assert success(chat(choice({"content": None, "function_call": function}, "function_call"))).tool_calls == [
        ToolCall("call_0", "f", {"x": 1})
    ]
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ": 1}"}]
    streamed = success(chat_stream(*(piece({"function_call": part}) for part in pieces), piece({}, "function_call")))
    assert streamed.tool_calls == [ToolCall("call_0", "f", {"x": 1})]
    assert streamed.finish_reason == "tool_calls"
    both = choice({"function_call": function, "tool_calls": [call('{"x": 1}')]}, "tool_calls")
    assert len(success(chat(both)).tool_calls) == 1


def test_the_input_of_a_custom_tool_is_an_argument_and_goes_back_unchanged() -> None:
    text = 'say "hi"\n\U0001f44b'
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": text}}
    whole = success(chat(choice({"tool_calls": [custom]}, "tool_calls")))
    start = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}
    rest = [{"index": 0, "custom": {"input": part}} for part in (text[:5], text[5:])]
    deltas = [piece({"tool_calls": [part]}) for part in (start, *rest)]
    streamed = success(chat_stream(*deltas, piece({}, "tool_calls"), DONE))

    for result in (whole, streamed):
        assert result.tool_calls == [ToolCall("c", "f", {"input": text})]
        request = RunRequest(provider="openai", model="m", messages=[result.message], stream=False)
        settings = ProviderSettings(name="openai", api="openai-chat", base_url="http://x")
        body = json.loads(WIRE_FORMATS["openai-chat"].api.build_request(request, settings, None).body)
        assert body["messages"][0]["tool_calls"] == [custom]

    cut = success(chat_stream(*deltas, piece({}, "length"), DONE))
    assert [made.id for made in cut.incomplete_tool_calls] == ["c"]
    assert cut.tool_calls == []


def test_a_name_in_pieces_is_put_together() -> None:
    pieces = [{"index": 0, "id": "c", "function": {"name": "get_"}}, {"index": 0, "function": {"name": "weather"}}]
    result = success(chat_stream(*(piece({"tool_calls": [part]}) for part in pieces), piece({}, "tool_calls")))
    assert result.tool_calls == [ToolCall("c", "get_weather", {})]


def test_a_call_may_be_flat_and_without_a_list() -> None:
    flat = {"id": "c", "name": "f", "arguments": {"x": 1}}
    for calls in (flat, [flat]):
        result = success(chat(choice({"tool_calls": calls}, "tool_calls")))
        assert result.tool_calls == [ToolCall("c", "f", {"x": 1})]


# Announced calls that are missing, and answers that cannot be read.

ANTHROPIC = {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "tool_use"}


@pytest.mark.parametrize(
    "result",
    [
        chat(choice({"content": "x"}, "tool_calls")),
        chat_stream(piece({"content": "x"}), piece({}, "tool_calls"), DONE),
        chat(choice({"content": "x", "tool_calls": [call("{}", name="")]}, "tool_calls")),
        chat_stream(piece({"content": "x"}), piece({"tool_calls": [call("{}", name="")]}, "tool_calls"), DONE),
        of_body("anthropic", ANTHROPIC),
        of_body("anthropic", ANTHROPIC | {"content": [*ANTHROPIC["content"], {"type": "tool_use", "id": "c"}]}),
        of_body("google", {"candidates": [{"content": {"parts": [{"text": "x"}, {"functionCall": {"args": {"x": 1}}}]},
                                           "finishReason": "STOP"}]}),
        of_body("openai-responses", {"output": [
            {"type": "message", "content": [{"type": "output_text", "text": "x"}]},
            {"type": "function_call", "call_id": "c", "arguments": "{}"},
        ]}),
    ],
)  # fmt: skip
def test_an_answer_that_announces_a_call_without_having_one_is_an_error(result: RunLocalResult | Failure) -> None:
    assert failure(result).partial_text == "x"


@pytest.mark.parametrize("content", [3, {"value": "y"}, ["x", 3], [{"type": "news", "text": "y"}], [{"text": 3}]])
def test_content_that_cannot_be_read_is_an_error(content: Any) -> None:
    failure(chat(choice({"content": content})))
    failure(chat_stream(piece({"content": content}), piece({}, "stop"), DONE))
    failure(of_body("anthropic", {"content": content, "stop_reason": "end_turn"}))
    failure(of_body("openai-responses", {"output": [{"type": "message", "content": content}]}))
    failure(of_body("google", {"candidates": [{"content": {"parts": [{"text": content}]}, "finishReason": "STOP"}]}))


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "reference", "ids": [1]}])
def test_an_empty_part_is_ignored(part: Any) -> None:
    assert success(chat(choice({"content": [{"type": "text", "text": "x"}, part]}))).text == "x"


def test_parts_of_content_say_text_thinking_and_refusal() -> None:
    content = [
        {"type": "thinking", "thinking": "why"},
        {"type": "output_text", "text": "x"},
        {"type": "refusal", "refusal": "no"},
        "y",
    ]
    result = success(chat(choice({"content": content})))
    assert (result.text, result.reasoning, result.refusal) == ("xy", "why", "no")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_read_under_each_of_its_names(field: str) -> None:
    for result in (
        chat(choice({"content": "x", field: "why"})),
        chat_stream(piece({field: "why"}), piece({"content": "x"}, "stop")),
    ):
        assert (success(result).text, success(result).reasoning) == ("x", "why")


def test_an_unknown_event_of_a_gateway_is_ignored_and_a_chunk_without_choices_is_not() -> None:
    own = [{"object": "tool.result", "content": "no"}, {"type": "status", "content": "no"}]
    assert success(chat_stream(*own, piece({"content": "x"}, "stop"), *own)).text == "x"
    failure(chat_stream({"object": "chat.completion.chunk", "message": {"content": "y"}}, piece({}, "stop")))


def test_a_call_in_a_field_of_another_format_is_an_error() -> None:
    parts = [{"text": "x"}, {"function_call": {"name": "f", "args": {}}}]
    found = failure(of_body("google", {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}))
    assert found.partial_text == "x"
    failure(chat_stream(piece({"functionCall": {"name": "f"}}), piece({}, "stop")))


def test_the_words_of_audio_are_text() -> None:
    assert success(chat(choice({"content": None, "audio": {"id": "a", "data": "", "transcript": "x"}}))).text == "x"
    pieces = [piece({"audio": {"transcript": words}}) for words in ("x", "y")]
    assert success(chat_stream(*pieces, piece({}, "stop"))).text == "xy"


def test_a_whole_message_at_the_end_of_a_stream_adds_what_is_missing() -> None:
    end = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    for pieces in ([], ["Hel"], ["Hel", "lo"]):
        assert success(chat_stream(*(piece({"content": text}) for text in pieces), end)).text == "Hello"
    failure(chat_stream(piece({"content": "Help"}), end))


def test_a_message_so_far_beside_each_piece_adds_nothing() -> None:
    so_far = [
        piece({"content": text}, message={"content": whole}) for text, whole in (("Hel", "Hel"), ("lo", "Hello!"))
    ]
    assert success(chat_stream(*so_far, piece({}, "stop", message={"content": "Hi"}))).text == "Hello!"


def test_a_whole_response_that_differs_from_its_pieces_is_an_error() -> None:
    def play(*deltas: str, whole: str) -> RunLocalResult | Failure:
        item = {"type": "message", "content": [{"type": "output_text", "text": whole}]}
        end = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
        return of_stream(
            "openai-responses", sse(*({"type": "response.output_text.delta", "delta": text} for text in deltas), end)
        )

    assert success(play("Hel", "lo", whole="Hello")).text == "Hello"
    assert success(play("Hel", whole="Hello")).text == "Hello"
    assert failure(play("Hel", "o", whole="Hello")).partial_text == "Helo"


def test_pieces_of_an_input_without_its_tool_are_an_error() -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"x"'}}
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "x"}}
    end = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    failure(of_stream("anthropic", sse(delta, *end)))
    assert failure(of_stream("anthropic", sse(start, delta, *end))).partial_text == "x"


def test_a_whole_answer_in_place_of_a_stream_becomes_events() -> None:
    message = {"content": "x", "reasoning": "why", "refusal": "no", "tool_calls": [call("{}")]}
    body = json.dumps({"choices": [choice(message, "tool_calls")]}).encode()
    heard = heard_of("openai-chat", [body], content_type="application/json", stream=True)
    assert heard.events == [ReasoningDelta("why"), "x", RefusalDelta("no"), ToolCallDelta(0, "c", "f", "{}")]


# Ends.


@pytest.mark.parametrize("word", [None, "", "null", "NULL", "none", " ", 7, True, [], {}])
def test_a_finish_reason_that_means_no_end_does_not_count(word: Any) -> None:
    assert failure(chat_stream(piece({"content": "x"}, word))).partial_text == "x"
    google = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": word}]}
    assert failure(of_stream("google", sse(google))).partial_text == "x"
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    stopped = {"type": "message_delta", "delta": {"stop_reason": word}}
    assert failure(of_stream("anthropic", sse(text, stopped))).partial_text == "x"


def test_a_finish_reason_that_means_no_end_may_come_before_the_end() -> None:
    assert success(chat_stream(piece({"content": "x"}, "null"), piece({}, "stop"))).provider_finish_reason == "stop"
    assert success(chat_stream(piece({"content": "x"}, "null"), DONE)).provider_finish_reason is None


def test_a_body_is_whole_without_a_finish_reason() -> None:
    for word in (None, "null", ""):
        result = success(chat(choice({"content": "x"}, word)))
        assert (result.finish_reason, result.provider_finish_reason) == ("stop", None)


CHAT_WORDS = {
    "stop": "stop", "eos_token": "stop", "length": "max_tokens", "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens", "model_length": "max_tokens", "model_context_window_exceeded": "max_tokens",
    "content_filter": "content_filter", "safety": "content_filter", "SAFETY": "content_filter",
    "sensitive": "content_filter", "refusal": "content_filter", "error": "error", "network_error": "error",
    "insufficient_system_resource": "error", "abort": "error", "malformed_function_call": "error",
}  # fmt: skip
CALL_WORDS = ("tool_calls", "tool_use", "function_call", "stop")
GOOGLE_WORDS = {
    "STOP": "stop", "NEWS": "stop", "MAX_TOKENS": "max_tokens", "CONTINUATION": "max_tokens", "SAFETY": "content_filter",
    "RECITATION": "content_filter", "LANGUAGE": "content_filter", "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter", "SPII": "content_filter", "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter", "IMAGE_SAFETY": "content_filter", "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter", "OTHER": "error", "IMAGE_OTHER": "error", "NO_IMAGE": "error",
    "MALFORMED_FUNCTION_CALL": "error", "MALFORMED_RESPONSE": "error", "MISSING_THOUGHT_SIGNATURE": "error",
    "PUP_LIMITED_DISABLED": "error", "TOO_MANY_TOOL_CALLS": "error", "UNEXPECTED_TOOL_CALL": "error",
}  # fmt: skip
ANTHROPIC_WORDS = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "news": "stop", "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens", "refusal": "content_filter",
}  # fmt: skip


@pytest.mark.parametrize(("word", "reason"), CHAT_WORDS.items())
def test_each_finish_reason_of_chat_completions_has_its_meaning(word: str, reason: str) -> None:
    for result in (chat(choice({"content": "x"}, word)), chat_stream(piece({"content": "x"}), piece({}, word))):
        assert (success(result).finish_reason, success(result).provider_finish_reason) == (reason, word)


@pytest.mark.parametrize("word", CALL_WORDS)
def test_calls_with_each_of_their_finish_reasons_are_tool_calls(word: str) -> None:
    assert success(chat(choice({"tool_calls": [call("{}")]}, word))).finish_reason == "tool_calls"


@pytest.mark.parametrize(("word", "reason"), GOOGLE_WORDS.items())
def test_each_finish_reason_of_google_has_its_meaning(word: str, reason: str) -> None:
    body = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": word}]}
    for result in (of_body("google", body), of_stream("google", sse(body))):
        assert (success(result).finish_reason, success(result).provider_finish_reason) == (reason, word)


@pytest.mark.parametrize(
    ("number", "word"), [(1, "STOP"), (2, "MAX_TOKENS"), (3, "SAFETY"), (4, "RECITATION"), (5, "OTHER")]
)
def test_a_finish_reason_of_google_may_be_a_number(number: int, word: str) -> None:
    """Vertex answers like this if the request has ``enum-encoding=int``."""
    chunk = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": number}]}
    for result in (of_stream("google", sse(chunk)), of_body("google", chunk)):
        assert not isinstance(result, Failure), result
        assert (result.text, result.provider_finish_reason) == ("x", word)
        assert result.finish_reason == GOOGLE_WORDS[word]


@pytest.mark.parametrize("number", [0, -1, 6, 7, 99, 1.0, True])
def test_a_number_without_one_meaning_at_google_is_not_an_end(number: Any) -> None:
    result = of_stream("google", sse({"candidates": [{"content": {"parts": []}, "finishReason": number}]}))
    assert isinstance(result, Failure), result


def test_the_reason_why_a_prompt_was_blocked_may_be_a_number() -> None:
    result = of_body("google", {"promptFeedback": {"blockReason": 1}, "usageMetadata": {"promptTokenCount": 3}})
    assert not isinstance(result, Failure), result
    assert (result.finish_reason, result.provider_finish_reason) == ("content_filter", "SAFETY")


@pytest.mark.parametrize("api", FORMATS)
def test_a_stream_without_blank_lines_is_whole_or_an_error(api: str) -> None:
    lines = [b"data: " + json.dumps(event).encode() + b"\n" for event in STREAMED[api]]

    result = of_stream(api, b"".join(lines))
    assert not isinstance(result, Failure), result
    assert (result.text, [call.name for call in result.tool_calls]) == ("Hello", ["look"])

    cut = of_stream(api, b"".join(lines[:2]))
    assert isinstance(cut, Failure), cut


def test_an_error_in_a_field_named_error_is_the_providers_error() -> None:
    piece = {"choices": [{"delta": {"content": "half"}}]}
    result = of_stream("openai-chat", sse(piece) + b'error: {"error":{"message":"no room","code":500}}\n\n')
    assert isinstance(result, Failure), result
    assert (result.reason, result.partial_text) == ("no room", "half")


@pytest.mark.parametrize(("word", "reason"), ANTHROPIC_WORDS.items())
def test_each_stop_reason_of_anthropic_has_its_meaning(word: str, reason: str) -> None:
    body = {"content": [{"type": "text", "text": "x"}], "stop_reason": word}
    stopped = {"type": "message_delta", "delta": {"stop_reason": word}}
    for result in (of_body("anthropic", body), of_stream("anthropic", sse(stopped))):
        assert (success(result).finish_reason, success(result).provider_finish_reason) == (reason, word)


@pytest.mark.parametrize(
    ("status", "reason", "finish"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "max_tokens"),
        ("incomplete", "max_tool_calls", "max_tokens"),
        ("incomplete", "content_filter", "content_filter"),
        ("incomplete", "steered", "stop"),
        ("incomplete", None, "max_tokens"),
    ],
)
def test_each_end_of_a_response_has_its_meaning(status: str, reason: str | None, finish: str) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "x"}]}
    body = {"status": status, "incomplete_details": reason and {"reason": reason}, "output": [item]}
    for result in (
        of_body("openai-responses", body),
        of_stream("openai-responses", sse({"type": f"response.{status}", "response": body})),
    ):
        assert (success(result).finish_reason, success(result).provider_finish_reason) == (finish, reason or status)


@pytest.mark.parametrize("native", ["length", "MAX_TOKENS", "max_output_tokens", "max_tokens"])
def test_an_unfinished_call_is_incomplete_even_if_the_gateway_says_otherwise(native: str) -> None:
    calls = [call("{}", call_id="a"), call('{"x": "y', call_id="b")]
    whole = chat(choice({"tool_calls": calls}, "tool_calls", native_finish_reason=native))
    streamed = chat_stream(
        *(piece({"tool_calls": [made | {"index": at}]}) for at, made in enumerate(calls)),
        piece({}, "tool_calls", native_finish_reason=native),
        DONE,
    )
    for result in map(success, (whole, streamed)):
        assert (result.finish_reason, result.provider_finish_reason) == ("max_tokens", "tool_calls")
        assert result.tool_calls == [ToolCall("a", "f", {})]
        assert result.incomplete_tool_calls == [IncompleteToolCall("b", "f", '{"x": "y')]


def test_a_filtered_answer_may_have_no_message() -> None:
    result = success(chat({"index": 0, "finish_reason": "content_filter", "content_filter_results": {}}))
    assert (result.text, result.finish_reason, result.message) == ("", "content_filter", Message("assistant", ""))
    assert result.usage.total_tokens == 4
    failure(chat({"index": 0, "finish_reason": "stop"}))

    refused = success(of_body("anthropic", {"content": None, "stop_reason": "refusal"}))
    assert (refused.text, refused.finish_reason) == ("", "content_filter")
    filtered = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": None}
    assert success(of_body("openai-responses", filtered)).finish_reason == "content_filter"


# Arguments.


def bodies_with_arguments(text: str) -> list[tuple[str, Any]]:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": text}
    return [
        ("openai-chat", {"choices": [choice({"tool_calls": [call(text)]}, "tool_calls")]}),
        ("openai-responses", {"output": [item]}),
        (
            "anthropic",
            {"content": [{"type": "tool_use", "id": "c", "name": "f", "input": text}], "stop_reason": "tool_use"},
        ),
    ]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("null", {}),
        (" null\n", {}),
        ("", {}),
        ('{"x": 1e400}', {"x": math.inf}),
        ('{"x": "\\ud83d"}', {"x": "\ufffd"}),
        ('{"x": "\\ud83d\\udc4b"}', {"x": "\U0001f44b"}),
    ],
)
def test_arguments_that_json_allows_are_read(text: str, arguments: dict[str, Any]) -> None:
    for api, body in bodies_with_arguments(text):
        assert [made.arguments for made in success(of_body(api, body)).tool_calls] == [arguments]


@pytest.mark.parametrize(
    ("args", "arguments"),
    [(b"null", {}), (b'{"x":1e400}', {"x": math.inf}), (b'{"x":"\\ud83d"}', {"x": "\ufffd"})],
)
def test_arguments_that_come_as_an_object_are_read(args: bytes, arguments: dict[str, Any]) -> None:
    google = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":%s}}]},"finishReason":"STOP"}]}'
    anthropic = b'{"content":[{"type":"tool_use","id":"c","name":"f","input":%s}],"stop_reason":"tool_use"}'
    for result in (of_body("google", google % args), of_body("anthropic", anthropic % args)):
        assert [made.arguments for made in success(result).tool_calls] == [arguments]


# Other facts.


@pytest.mark.parametrize("api", FORMATS)
def test_an_empty_answer_has_an_empty_message(api: str) -> None:
    bodies: dict[str, Any] = {
        "openai-chat": {"choices": [choice({"content": None})]},
        "openai-responses": {"output": []},
        "anthropic": {"content": [], "stop_reason": "end_turn"},
        "google": {"candidates": [{"content": {}, "finishReason": "STOP"}]},
    }
    assert success(of_body(api, bodies[api])).message == Message("assistant", "")


def test_reasoning_details_of_different_ids_stay_apart() -> None:
    details = [
        {"type": "reasoning.text", "index": 0, "id": call_id, "text": text}
        for call_id, text in (("a", "x"), ("a", "y"), ("b", "z"), (None, "w"))
    ]
    result = success(chat_stream(*(piece({"reasoning_details": [one]}) for one in details), piece({}, "stop")))
    part = result.message.content[0]
    assert not isinstance(part, str)
    kept = (getattr(part, "provider_data", None) or {})["reasoning_details"]
    assert [(one["id"], one["text"]) for one in kept] == [("a", "xy"), ("b", "zw")]


def test_the_response_has_the_providers_id() -> None:
    request = RunRequest(provider="p", model="m", messages=[], stream=False)
    body = {"id": "msg_1", "content": [], "stop_reason": "end_turn"}
    assert WIRE_FORMATS["anthropic"].api.read_body(request, json.dumps(body).encode()).response_id == "msg_1"
    mapper = WIRE_FORMATS["anthropic"].api.open_stream(request)
    mapper.feed("", json.dumps({"type": "message_start", "message": {"id": "msg_2"}}).encode(), [])
    assert mapper.response_id == "msg_2"
