"""An answer is whole as a stream and in one piece, whatever the request asked for and the content type says."""

from __future__ import annotations

import json
import time
from itertools import product

import pytest

from headrace.answers.assembly import ResultFacts, finished_result
from headrace.types import RunLocalResult, ToolCall, Usage
from headrace_workers.providers.shared.answer_limits import MAX_BODY
from headrace_workers.runs.body_kind import BodyKind
from headrace_workers.runs.response_body import Response
from tests.cases import case
from tests.workers.providers.example_answers import APIS, STREAMED, events, whole
from tests.workers.runs.driven import Driven

LABELS = [
    "text/event-stream",
    "application/json",
    "text/html",
    "text/plain; charset=utf-8",
    "",
    "\xff;",
    "application/x-ndjson",
]
STARTS = [
    b"",
    b"\xef\xbb\xbf",
    b": ping\n\n",
    b":\n\n",
    b"\n\r\n \n",
    b"\xef\xbb\xbf\n\n",
    b"\n\n\xef\xbb\xbf",
    b"retry: 3000\n\n",
    b"id: 7\n",
    b"id\n",
    b"retry:1\n",
]
SIZES = [1, 7, 1 << 20]
every_api = pytest.mark.parametrize("api", APIS)
stream_or_not = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def result_of(run: Driven) -> RunLocalResult:
    """Return the caller's result."""
    facts = ResultFacts("sp_1", "tr_1", "p", "m", 1.0, 1)
    return finished_result(facts, run.sent, run.finished, aborted=False if run.core.request.stream else None)


def read(api: str, body: bytes, *, stream: bool, label: str = "", status: int = 200, size: int = 1 << 20) -> Driven:
    run = Driven(api=api, stream=stream).respond(status, {"content-type": label} if label else {})
    for start in range(0, len(body), size):
        run.receive(body[start : start + size])
    run.complete()
    return run


def check(run: Driven) -> None:
    result = result_of(run)

    assert result.text == "Hello"
    assert result.tool_calls == [ToolCall("c1", "look", {"at": 1})]
    assert result.finish_reason == "tool_calls"
    assert (result.usage.input_tokens, result.usage.output_tokens) == (3, 4)
    assert result.message.text == "Hello"
    assert not isinstance(result.message.content, str), "the call is in the message that is sent back"


@every_api
@stream_or_not
def test_events_are_read_as_events_whatever_the_request_and_the_content_type_say(api: str, stream: bool) -> None:
    for label, size in product(LABELS, SIZES):
        with case(label, size):
            check(read(api, b"".join(events(api)), stream=stream, label=label, size=size))


@every_api
@stream_or_not
def test_a_whole_body_is_read_as_one_whatever_the_request_and_the_content_type_say(api: str, stream: bool) -> None:
    for label, size in product(LABELS, SIZES):
        with case(label, size):
            check(read(api, whole(api), stream=stream, label=label, size=size))


@every_api
@stream_or_not
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_blanks_and_comments_at_the_start_of_a_stream_change_nothing(api: str, stream: bool, end: bytes) -> None:
    stream_of_events = b"".join(events(api)).replace(b"\n", end)

    labels = ["application/json", "text/event-stream", ""]
    for start, label, size in product(STARTS, labels, (1, 1 << 20)):
        with case(start, label, size):
            check(read(api, start + stream_of_events, stream=stream, label=label, size=size))


@every_api
@stream_or_not
def test_blanks_and_byte_order_marks_at_the_start_of_a_body_change_nothing(api: str, stream: bool) -> None:
    for start in (b"\xef\xbb\xbf", b"\n \t", b"\xef\xbb\xbf\r\n", b"\n\xef\xbb\xbf"):
        with case(start):
            check(read(api, start + whole(api) + b"\n", stream=stream, label="application/json"))


@every_api
@stream_or_not
def test_a_whole_answer_in_a_single_event_is_an_answer(api: str, stream: bool) -> None:
    befores = (b"data: ", b": ping\n\ndata: ", b"")
    afters = (b"\n\n", b"\n\ndata: [DONE]\n\n")
    for before, after, size in product(befores, afters, (1, 1 << 20)):
        with case(before, after, size):
            check(read(api, before + whole(api) + after, stream=stream, label="text/event-stream", size=size))


@every_api
@stream_or_not
def test_json_over_many_lines_is_one_value(api: str, stream: bool) -> None:
    body = json.dumps(json.loads(whole(api)), indent=2).encode()

    check(read(api, body, stream=stream, label="text/event-stream", size=50))


@every_api
@stream_or_not
def test_a_line_of_json_for_each_event_is_a_stream(api: str, stream: bool) -> None:
    body = b"".join(json.dumps(event).encode() + b"\n" for event in STREAMED[api])

    labels = ["application/x-ndjson", "application/json", "text/event-stream"]
    for label, size in product(labels, (1, 1 << 20)):
        with case(label, size):
            check(read(api, body, stream=stream, label=label, size=size))


def test_lines_of_json_are_sent_on_as_they_arrive() -> None:
    run = Driven().respond(headers={"content-type": "application/x-ndjson"})
    for event in STREAMED["openai-chat"][:2]:
        run.receive(json.dumps(event).encode() + b"\n")

    assert run.text == "Hello"


@stream_or_not
def test_a_stream_of_one_line_is_no_whole_answer_without_text(stream: bool) -> None:
    event = {"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}

    run = read("openai-chat", json.dumps(event).encode() + b"\n", stream=stream, label="application/json")

    assert result_of(run).text == "Hello"


@stream_or_not
@pytest.mark.parametrize("label", ["application/json", "text/event-stream"])
def test_an_array_as_google_sends_it_without_alt_sse_is_an_answer(stream: bool, label: str) -> None:
    body = b"[" + b"\n,\n".join(json.dumps(event).encode() for event in STREAMED["google"]) + b"\n]"

    for size in (1, 1 << 20):
        check(read("google", body, stream=stream, label=label, size=size))


@every_api
@stream_or_not
def test_an_answer_is_read_with_every_success_status(api: str, stream: bool) -> None:
    for status in (200, 201, 202, 203, 206, 226, 299):
        with case(status):
            check(read(api, b"".join(events(api)), stream=stream, status=status))
            check(read(api, whole(api), stream=stream, status=status))


@every_api
@stream_or_not
def test_an_answer_without_content_is_no_success(api: str, stream: bool) -> None:
    label = "text/event-stream" if stream else "application/json"
    for status, body in product((200, 202, 204, 205), (b"", b"\n", b"\xef\xbb\xbf", b": ping\n\n")):
        with case(status, body):
            run = read(api, body, stream=stream, status=status, label=label)

            assert (run.failure.kind, run.failure.status_code) == ("provider_protocol", status)


@pytest.mark.parametrize("api", ["openai-responses", "anthropic", "google"])
@stream_or_not
def test_only_the_end_marker_of_a_stream_is_no_answer(api: str, stream: bool) -> None:
    """Chat Completions is an exception: real services send only the end marker for an empty answer."""
    run = read(api, b"data: [DONE]\n\n", stream=stream, label="text/event-stream")

    assert run.failure.kind == "provider_protocol"


@every_api
@stream_or_not
def test_a_web_page_is_no_answer(api: str, stream: bool) -> None:
    for label, body in product(LABELS, (b"<html>", b"<!doctype html>\n<title>Sign in</title>", b"\n<html>")):
        with case(label, body):
            run = read(api, body, stream=stream, label=label)

            assert (run.failure.kind, run.failure.status_code) == ("provider_protocol", 200)
            assert "HTML" in run.failure.reason


@every_api
@stream_or_not
def test_an_error_is_read_in_every_form(api: str, stream: bool) -> None:
    error = b'{"type": "error", "error": {"type": "overloaded_error", "message": "too much to do"}}'
    forms = (error, error + b"\n", b"data: " + error + b"\n\n", b"event: error\ndata: " + error + b"\n\n")
    for label, body, size in product(LABELS, forms, (1, 1 << 20)):
        with case(label, body, size):
            run = read(api, body, stream=stream, label=label, size=size)

            assert (run.failure.kind, run.failure.reason) == ("provider_unavailable", "too much to do")


def test_an_error_at_the_start_of_a_stream_is_reported_at_once() -> None:
    run = Driven().respond()
    run.receive(b'{"error": {"message": "too much to do", "code": "overloaded"}}\n')

    assert run.failure.reason == "too much to do"


def test_a_stream_of_json_lines_is_sent_on_from_its_first_line() -> None:
    run = Driven().respond(headers={"content-type": "application/x-ndjson"})

    run.receive(b'{"choices": [{"delta": {"content": "Hel"}}]}\n')
    assert run.sent == ["Hel"]
    run.receive(b'{"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}\n')
    run.complete()

    assert run.sent == ["Hel", "lo"]
    assert run.finished.finish_reason == "stop"


@every_api
def test_a_cut_stream_that_was_not_requested_fails_with_its_text(api: str) -> None:
    run = Driven(api=api, stream=False).respond()
    run.receive(*events(api)[:-2] if api != "openai-chat" else events(api)[:2])
    run.complete()

    assert run.failure.kind == "provider_protocol"
    assert run.failure.partial_text.startswith("Hel")


def test_a_stream_that_was_not_requested_has_the_limit_of_a_whole_answer() -> None:
    piece = b'data: {"choices": [{"delta": {"content": "x"}}], "obfuscation": "' + b"x" * (1 << 20) + b'"}\n\n'
    run = Driven(stream=False).respond()
    for _ in range(MAX_BODY // len(piece)):
        assert run.receive(piece) == ()
    run.receive(piece)

    assert run.failure.kind == "provider_protocol"
    assert run.failure.code == "answer_too_large"
    assert "32 MiB" in run.failure.reason


def test_a_stream_that_was_not_requested_keeps_its_usage() -> None:
    run = read("openai-chat", b"".join(events("openai-chat")), stream=False)

    assert run.finished.usage == Usage(3, 4, 7, source="provider")


@pytest.mark.parametrize("rest", [b'{"a":1}', b'{"a":1}}', b'{"a":1}\n{"a":2}\n', b"data: x\n\n", b"<html>", b"words"])
@pytest.mark.parametrize("label", ["application/json", "text/event-stream"])
def test_the_kind_of_a_body_does_not_depend_on_its_splits(rest: bytes, label: str) -> None:
    def read(*pieces: bytes) -> tuple[BodyKind, bytes]:
        response = Response()
        response.began(200, {"content-type": label}, 0.0, is_streamed=True)
        for piece in pieces:
            response.add(piece)
        response.ended()
        return response.kind, response.take_body()

    for start in (*STARTS, b"\n\xef\xbb\xbf", b"\xef\xbb\xbf\n\xef\xbb\xbf \n"):
        body = start + rest
        assert {read(body[:place], body[place:]) for place in range(len(body))} == {read(body)}, body


def test_long_blanks_at_the_start_of_a_body_take_linear_time() -> None:
    """A server that sends only blanks must not stop a worker's other runs.

    To remove them one by one would take minutes.
    """
    response = Response()
    response.began(200, {"content-type": "application/json"}, 0.0, is_streamed=False)
    began = time.process_time()
    response.add(b"\n\xef\xbb\xbf" * 250_000)

    assert time.process_time() - began < 2.0
    assert response.kind is BodyKind.UNDECIDED
    assert response.body == b""
