"""Records are lines that programs written for OpenAI's Batch API can read, from whatever provider the answer came."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response, ToolChoiceFunction

from headrace.batch.records.record_facts import CODES
from headrace.batch.records.record_lines import error_code, failure_line, success_line
from headrace.batch.records.record_reading import read_head, read_result
from headrace.batch.row import BadRow, FinishedRow, Row, RowForm, RowKind
from headrace.errors import (
    BatchInputError,
    ConfigurationError,
    HeadraceError,
    InvalidRequestError,
    OutputValidationError,
    RateLimitError,
)
from headrace.failed_attempt import FailedAttempt
from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    IncompleteToolCall,
    Message,
    Part,
    ReasoningPart,
    RunEmbeddingResult,
    RunLocalResult,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallPart,
    TopLogprob,
    Usage,
)
from tests.cases import each
from tests.client.test_errors import EXAMPLES
from tests.hostile_values import EVIL

NOW = 1_790_000_000.5
SPAN = "sp_0123456789abcdef"


def row(form: RowForm = "openai", kind: RowKind = "chat", arguments: dict[str, Any] | None = None) -> Row:
    return Row(7, "r1", kind, form, {"model": "gpt-4o", "messages": "x"} | (arguments or {}), bytes(16))


def result(text: str = "Hello", **fields: Any) -> RunLocalResult:
    usual: dict[str, Any] = {
        "text": text,
        "span_id": SPAN,
        "trace_id": "tr_0123456789abcdef",
        "latency_ms": 12.5,
        "usage": Usage(10, 20, 30, 4, 0, 5, source="provider"),
        "cost": 0.25,
        "provider": "anthropic",
        "model": "claude-sonnet-5",
        "tool_calls": [],
        "incomplete_tool_calls": [],
        "finish_reason": "stop",
        "provider_finish_reason": "end_turn",
        "message": Message("assistant", text),
        "reasoning": "",
        "refusal": None,
        "attempts": 2,
        "wire_format": "anthropic",
    }
    return RunLocalResult(**(usual | fields))


def vectors(**fields: Any) -> RunEmbeddingResult:
    usual: dict[str, Any] = {
        "embeddings": [[0.5, -1.0], [2.0, 0.25]],
        "span_id": SPAN,
        "trace_id": "tr_0123456789abcdef",
        "latency_ms": 12.5,
        "usage": Usage(3, 0, 3, source="provider"),
        "cost": None,
        "provider": "google",
        "model": "gemini-embedding-001",
        "attempts": 1,
    }
    return RunEmbeddingResult(**(usual | fields))


def record(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return dict(msgspec.json.decode(line))


def ids_of(answer: RunLocalResult) -> list[str]:
    return [call.id for call in answer.tool_calls] + [call.id for call in answer.incomplete_tool_calls]


CALL = ToolCall("call_1", "weather", {"city": "Bern"})
CALLING = result(
    "",
    tool_calls=[CALL],
    finish_reason="tool_calls",
    message=Message("assistant", [ToolCallPart("call_1", "weather", {"city": "Bern"})]),
)
LOGPROBS = [TokenLogprob("Hel", -0.5, [72], [TopLogprob("Hel", -0.5), TopLogprob("Hal", -2.0, [1])])]
IMAGE = ImagePart(data="aGk=", media_type="image/png")
RESULTS = {
    "plain": result(),
    "empty": result(""),
    "unicode": result("é 世界 \u2028 \x00"),
    "evil": result(EVIL),
    "calls": CALLING,
    "cut call": result("a", incomplete_tool_calls=[IncompleteToolCall("c", "f", '{"a')], finish_reason="max_tokens"),
    "cut off": result(finish_reason="max_tokens"),
    "filtered": result("", finish_reason="content_filter"),
    "error": result(finish_reason="error"),
    "refused": result("", refusal="I cannot"),
    "reasoned": result(reasoning="Hm", message=Message("assistant", [ReasoningPart("Hm"), TextPart("Hello")])),
    "no usage": result(usage=Usage(), cost=None),
    "logprobs": result(logprobs=LOGPROBS),
    "refused with logprobs": result("", refusal="No", logprobs=LOGPROBS),
    "waited": result(queue_ms=7.5, queue_reason="limit"),
    "image": result("", message=Message("assistant", [IMAGE])),
}


# The bodies of OpenAI's form.


@each(("name", "answer"), RESULTS.items())
def test_the_sdk_of_openai_reads_a_chat_record(name: str, answer: RunLocalResult) -> None:
    read = record(success_line(FinishedRow(row(), answer), NOW))

    assert read.keys() == {"id", "custom_id", "response", "error", "headrace"}
    assert (read["custom_id"], read["error"], read["response"]["status_code"]) == ("r1", None, 200)
    body = ChatCompletion.model_validate(read["response"]["body"], strict=True)
    (choice,) = body.choices
    assert (choice.message.content or "", choice.message.refusal) == (answer.text, answer.refusal)
    assert [call.id for call in choice.message.tool_calls or []] == ids_of(answer)
    assert (body.model, body.created) == (answer.model, int(NOW))


@each(("name", "answer"), RESULTS.items())
def test_the_sdk_of_openai_reads_a_responses_record(name: str, answer: RunLocalResult) -> None:
    read = record(success_line(FinishedRow(row(kind="responses"), answer), NOW))
    body = Response.model_validate(read["response"]["body"])

    assert body.output_text == answer.text
    is_whole = answer.finish_reason in {"stop", "tool_calls"}
    assert body.status == ("completed" if is_whole else "incomplete")
    assert (body.incomplete_details is None) == is_whole
    calls = [item for item in body.output if item.type == "function_call"]
    assert [call.call_id for call in calls] == ids_of(answer)


def test_the_figures_of_a_chat_record_are_those_of_the_run() -> None:
    read = record(success_line(FinishedRow(row(), result()), NOW))
    usage = ChatCompletion.model_validate(read["response"]["body"]).usage

    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 20, 30)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 5
    assert (read["headrace"]["provider"], read["headrace"]["cost"], read["headrace"]["line"]) == ("anthropic", 0.25, 7)


def test_calls_have_their_arguments_as_text() -> None:
    read = record(success_line(FinishedRow(row(), CALLING), NOW))["response"]["body"]["choices"][0]

    assert read["finish_reason"] == "tool_calls"
    assert read["message"]["content"] is None
    assert read["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
    ]


def test_images_and_audio_and_files_are_in_a_chat_record() -> None:
    parts: list[Part] = [
        IMAGE,
        AudioPart(data="aGk=", media_type="audio/wav", transcript="Hi", provider_data={"audio": {"id": "au_1"}}),
        FilePart(file_id="f1"),
    ]
    read = record(success_line(FinishedRow(row(), result("", message=Message("assistant", parts))), NOW))
    body = ChatCompletion.model_validate(read["response"]["body"])
    message = read["response"]["body"]["choices"][0]["message"]

    assert body.choices[0].message.audio is not None
    assert body.choices[0].message.audio.id == "au_1"
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    assert message["files"] == [{"type": "file", "file_id": "f1"}]


def test_items_that_came_from_the_responses_api_are_written_as_they_came() -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{ }"},
    ]
    kept = [{"api": "openai-responses", "item": item} for item in items]
    message = Message(
        "assistant", [ReasoningPart("", kept[0]), TextPart("Hello", kept[1]), ToolCallPart("call_1", "f", {}, kept[2])]
    )
    answer = result(message=message, tool_calls=[ToolCall("call_1", "f", {})])
    body = record(success_line(FinishedRow(row(kind="responses"), answer), NOW))["response"]["body"]

    assert body["output"] == items
    Response.model_validate(body)


def test_a_responses_record_repeats_what_the_row_asked_for() -> None:
    arguments = {
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        "tool_choice": {"tool": "f"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "metadata": {"a": "b"},
    }
    finished = FinishedRow(row(kind="responses", arguments=arguments), result())
    body = Response.model_validate(record(success_line(finished, NOW))["response"]["body"])

    assert (body.temperature, body.metadata, body.parallel_tool_calls) == (0.5, {"a": "b"}, False)
    assert isinstance(body.tool_choice, ToolChoiceFunction)
    assert body.tool_choice.name == "f"


@each("packed", [False, True])
def test_the_sdk_of_openai_reads_vectors(packed: bool) -> None:
    options = {"custom_options": {"encoding_format": "base64"}} if packed else {}
    line = success_line(FinishedRow(row(kind="embeddings", arguments=options), vectors()), NOW)
    body = record(line)["response"]["body"]

    if packed:
        assert all(isinstance(item["embedding"], str) for item in body["data"])
    else:
        read = CreateEmbeddingResponse.model_validate(body)
        assert [item.embedding for item in read.data] == [[0.5, -1.0], [2.0, 0.25]]
        assert read.usage.prompt_tokens == 3
    assert read_result(line) == vectors()


def test_rows_that_share_a_run_have_records_with_ids_of_their_own() -> None:
    rows = [Row(number, f"r{number}", "chat", "openai", {}, bytes(16)) for number in (1, 2)]

    assert len({record(success_line(FinishedRow(each_row, result()), NOW))["id"] for each_row in rows}) == 2


# Short records.


def test_a_short_record_has_the_answer_and_its_figures() -> None:
    read = record(success_line(FinishedRow(row("short"), result()), NOW))

    assert read == {
        "id": "r1",
        "text": "Hello",
        "finish_reason": "stop",
        "provider": "anthropic",
        "model": "claude-sonnet-5",
        "usage": {
            "input_tokens": 10,
            "output_tokens": 20,
            "total_tokens": 30,
            "cached_input_tokens": 4,
            "reasoning_tokens": 5,
            "source": "provider",
        },
        "cost": 0.25,
        "latency_ms": 12.5,
        "attempts": 2,
        "line": 7,
        "span_id": SPAN,
        "trace_id": "tr_0123456789abcdef",
        "provider_finish_reason": "end_turn",
        "wire_format": "anthropic",
    }


class Colour(enum.Enum):
    RED = "red"


class Invoice(pydantic.BaseModel):
    total: float
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Point:
    x: int


class NoJson:
    """An object of the program's own, which no encoder knows."""


@each(
    ("parsed", "written"),
    [
        ({"a": 1}, {"a": 1}),
        (Invoice(total=1.5), {"total": 1.5, "colour": "red"}),
        ([Point(3), Invoice(total=2)], [{"x": 3}, {"total": 2.0, "colour": "red"}]),
        (Colour.RED, "red"),
    ],
)
def test_a_parsed_answer_is_in_the_record_in_plain_types(parsed: Any, written: Any) -> None:
    assert record(success_line(FinishedRow(row("short"), result(parsed=parsed)), NOW))["parsed"] == written


def test_an_object_without_a_form_in_json_costs_no_record() -> None:
    read = record(success_line(FinishedRow(row("table"), result('{"a": 1}', parsed=NoJson())), NOW))

    assert read["text"] == '{"a": 1}'
    assert "parsed" not in read


# Failures.


@each("error", EXAMPLES)
def test_each_error_is_in_a_record_and_can_be_read_back(error: HeadraceError) -> None:
    for form in ("openai", "short", "table"):
        line = failure_line(row(form), error)
        read = record(line)
        head = read_head(line)

        assert head is not None
        assert (head.id, head.number, head.error_code) == ("r1", 7, error_code(error))
        assert read["error"]["code"] == error_code(error)
        assert read["error"]["message"]
        back = read_result(line)
        assert isinstance(back, HeadraceError)
        if type(error) in CODES and not isinstance(error, ConfigurationError):
            assert type(back) is type(error)
            assert back.args == error.args or not error.args or "partial" in str(error.args)


def test_a_failure_of_a_provider_is_an_http_answer_in_openai_s_form() -> None:
    error = RateLimitError(SPAN, "slow down", "", "openai", 429, "req_7", "rate_limit_exceeded", 1.5)
    error.attempts = (
        FailedAttempt(number=1, provider="openai", model="gpt-4o", error="RateLimitError", reason="slow down"),
    )
    line = failure_line(row(), error)
    read = record(line)

    assert read["response"] == {
        "status_code": 429,
        "request_id": "req_7",
        "body": {"error": {"message": "slow down", "type": "rate_limit", "param": None, "code": "rate_limit_exceeded"}},
    }
    assert read["error"] == {"code": "rate_limit", "message": "slow down"}
    assert read["headrace"]["retry_after"] == 1.5
    back = read_result(line)
    assert isinstance(back, RateLimitError)
    assert back.attempts == error.attempts


def test_a_failure_without_an_answer_has_no_response() -> None:
    read = record(failure_line(row(), InvalidRequestError("takes a number", "temperature")))

    assert read["response"] is None
    assert read["error"] == {"code": "invalid_request", "message": "temperature: takes a number"}
    assert (read["headrace"]["argument"], read["headrace"]["line"]) == ("temperature", 7)


@each("form", ["openai", "short"])
def test_a_bad_row_is_told_with_its_line(form: RowForm) -> None:
    line = failure_line(BadRow(9, "line-9", "is no JSON", None, form))
    read, head = record(line), read_head(line)

    assert read["custom_id" if form == "openai" else "id"] == "line-9"
    assert read["error"]["code"] == "bad_row"
    assert head is not None
    assert (head.id, head.number, head.is_failure) == ("line-9", 9, True)
    assert isinstance(read_result(line), InvalidRequestError)


def test_what_an_answer_that_does_not_fit_has_cost_is_known() -> None:
    error = OutputValidationError(SPAN, "no int", '{"a": "b"}', "$.a", Usage(1, 2, 3), 0.5)
    for form in ("openai", "short"):
        head = read_head(failure_line(row(form), error))
        assert head is not None
        assert (head.cost, head.input_tokens, head.output_tokens) == (0.5, 1, 2)


def test_a_name_that_is_not_utf_8_costs_no_record() -> None:
    bad = BadRow(1, "line-1", "there is no such column", "\udce9")

    assert record(failure_line(bad))["error"]["argument"] == "?"


def test_a_record_needs_what_it_records() -> None:
    with pytest.raises(TypeError, match="failure_line"):
        success_line(FinishedRow(row(), HeadraceError("x")), NOW)
    with pytest.raises(TypeError, match="needs the error"):
        failure_line(row())


# Reading back.


@each(("name", "answer"), RESULTS.items())
def test_a_short_record_says_the_whole_result(name: str, answer: RunLocalResult) -> None:
    line = success_line(FinishedRow(row("short"), answer), NOW)

    assert read_result(line) == answer


@each(("name", "answer"), RESULTS.items())
def test_a_record_of_openai_s_form_says_what_it_has_keys_for(name: str, answer: RunLocalResult) -> None:
    for kind in ("chat", "responses"):
        back = read_result(success_line(FinishedRow(row(kind=kind), answer), NOW))

        assert isinstance(back, RunLocalResult)
        same = {name: getattr(answer, name) for name in answer.__struct_fields__}
        read = {name: getattr(back, name) for name in back.__struct_fields__}
        for field in ("message", "logprobs"):
            del same[field], read[field]
        assert read == same
        assert [token.token for token in back.logprobs or ()] == [token.token for token in answer.logprobs or ()]
        assert back.message.text == answer.text


def test_the_head_of_an_answer_has_its_figures() -> None:
    for form in ("openai", "short"):
        head = read_head(success_line(FinishedRow(row(form), result()), NOW))
        assert head is not None
        assert (head.id, head.number, head.error_code) == ("r1", 7, "")
        assert (head.cost, head.input_tokens, head.output_tokens) == (0.25, 10, 20)


def test_a_line_that_openai_s_batch_api_wrote_has_a_head() -> None:
    line = b'{"id": "batch_req_1", "custom_id": "r1", "response": {"status_code": 200, "body": {}}, "error": null}\n'
    failed = b'{"id": "b", "custom_id": "r1", "response": {"status_code": 429, "body": {}}, "error": null}\n'
    expired = b'{"id": "b", "custom_id": "r1", "response": null, "error": {"code": "batch_expired", "message": "m"}}\n'

    assert [head and (head.id, head.number, head.error_code) for head in map(read_head, (line, failed, expired))] == [
        ("r1", 0, ""),
        ("r1", 0, "failed"),
        ("r1", 0, "batch_expired"),
    ]


@given(st.binary(max_size=40) | st.integers(0, 500))
def test_a_torn_line_has_no_head_and_is_no_result(given_line: bytes | int) -> None:
    line = given_line if isinstance(given_line, bytes) else success_line(FinishedRow(row(), result()), NOW)[:given_line]

    assert read_head(line) is None or b"id" in line
    with pytest.raises(BatchInputError):
        read_result(line)
