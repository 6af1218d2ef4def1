"""A run tells whether another attempt may succeed, and whether the provider may bill this one. Usage that comes before any
content waits for it, so that a run that is cut before its first content has sent nothing.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import UsageUpdate
from headrace.wire.messages import Failed
from headrace_workers.runs.run_commands import Command
from tests.workers.runs.driven import DONE, JSON, SSE, Driven, delta, stop, text, usage

ANSWER = json.dumps({
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}).encode()  # fmt: skip


def anthropic(**event: Any) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


MESSAGE_START = anthropic(
    type="message_start", message={"model": "m-1", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
)


def facts(failure: Failed) -> tuple[str, bool, bool, int]:
    assert not failure.is_final
    return failure.kind, failure.may_retry, failure.maybe_billed, failure.sequence


@pytest.mark.parametrize(
    ("stage", "may_retry", "maybe_billed"),
    [
        ("settings", False, False),
        ("connect", True, False),
        ("send", True, False),
        ("read", True, True),
        ("unreadable", False, True),
    ],
)
def test_a_connection_that_fails_before_the_response_may_be_tried_again(
    stage: str, may_retry: bool, maybe_billed: bool
) -> None:
    run = Driven()
    run.fail(stage)

    kind = "invalid_request" if stage == "settings" else "provider_unavailable"
    assert facts(run.failure) == (kind, may_retry, maybe_billed, 0)
    assert run.core.for_span().maybe_billed == maybe_billed


@pytest.mark.parametrize(("stage", "may_retry"), [("read", True), ("unreadable", False)])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("sent", [b"", b": ping\n\n", delta(role="assistant"), text("half"), text("half") + b"data: {"])
def test_a_cut_stream_may_be_tried_again(stage: str, may_retry: bool, stream: bool, sent: bytes) -> None:
    run = Driven(stream=stream).respond()
    run.receive(sent)
    run.fail(stage)

    sequence = 1 if stream and sent.startswith(text("half")) else 0
    assert facts(run.failure) == ("provider_protocol", may_retry, True, sequence)


@pytest.mark.parametrize("sent", [b"", b": ping\n\n", delta(role="assistant"), text("half"), text("half") + b"data: {"])
def test_a_stream_that_ends_without_its_end_was_cut(sent: bytes) -> None:
    run = Driven().respond(headers=SSE)
    run.receive(sent)
    run.complete()

    assert facts(run.failure) == ("provider_protocol", True, True, 1 if sent.startswith(text("half")) else 0)


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "anthropic", "google"])
@pytest.mark.parametrize("body", [b"", b": ping\n\n", b'data: {"a'])
def test_an_empty_stream_was_cut_in_each_wire_format(api: str, body: bytes) -> None:
    run = Driven(api=api).respond()
    run.receive(body)
    run.complete()

    assert facts(run.failure) == ("provider_protocol", True, True, 0)


@pytest.mark.parametrize("length", [0, 1, 20, 60, len(ANSWER) - 1])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_whole_answer_that_is_cut_may_be_tried_again(length: int, is_told: bool) -> None:
    run = Driven(stream=False).respond(headers=JSON)
    run.receive(ANSWER[:length])
    if is_told:
        run.fail("read")
    else:
        run.complete()

    assert facts(run.failure) == ("provider_protocol", True, True, 0)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"choices": []}'),
        (JSON, b'{"choices": 7}'),
        (JSON, b"{nonsense}"),
        (JSON, b"<html><title>Sign in</title></html>"),
        (JSON, ANSWER + b"}"),
        (SSE, b"data: {nonsense}\n\n"),
        (SSE, b"data: [1, 2]\n\n" + DONE),
        (SSE, stop("tool_calls") + DONE),
    ],
)
def test_nonsense_is_not_tried_again(headers: dict[str, str], body: bytes) -> None:
    run = Driven(stream=headers is SSE).respond(headers=headers)
    run.receive(body)
    run.complete()

    assert facts(run.failure)[:2] == ("provider_protocol", False)


def test_a_connect_timeout_may_be_tried_again_and_the_other_timeouts_may_not() -> None:
    run = Driven(connect=1.0)
    run.due(1.0)
    assert facts(run.failure) == ("timeout", True, False, 0)

    run = Driven(first_chunk=1.0)
    run.core.clocks.connected()
    run.due(1.0)
    assert facts(run.failure) == ("timeout", False, True, 0)

    run = Driven(idle=1.0).respond()
    run.receive(text("half"))
    run.due(1.0)
    assert facts(run.failure) == ("timeout", False, True, 1)


@pytest.mark.parametrize(("status", "may_retry"), [(503, True), (429, True), (400, False)])
@pytest.mark.parametrize("body", [b"", b'{"error": {"mess', b'{"error": {"message": "m"}}'])
def test_the_class_of_an_error_response_is_in_the_terminal_message(status: int, may_retry: bool, body: bytes) -> None:
    for end in (Driven.complete, lambda run: run.fail("read")):
        run = Driven().respond(status, JSON)
        run.receive(body)
        end(run)
        assert (run.failure.status_code, run.failure.may_retry, run.failure.maybe_billed) == (status, may_retry, False)


def test_a_quota_that_is_used_up_is_final_in_the_terminal_message() -> None:
    run = Driven().respond()
    run.receive(b'data: {"error": {"type": "insufficient_quota", "message": "m"}}\n\n')

    assert (run.failure.may_retry, run.failure.is_final, run.failure.kind) == (False, True, "rate_limit")


# Usage before the first content.


@pytest.mark.parametrize("end", ["read", "completed", "error", "timeout"])
def test_usage_before_the_first_content_is_not_sent_if_the_run_then_fails(end: str) -> None:
    run = Driven(api="anthropic", first_chunk=1.0).respond()
    assert run.receive(MESSAGE_START) == ()
    run.credit(10, 10)
    run.take()
    assert run.sent == []

    match end:
        case "read":
            run.fail("read")
        case "completed":
            run.complete()
        case "error":
            run.receive(anthropic(type="error", error={"type": "overloaded_error", "message": "m"}))
        case _:
            run.due(1.0)
    assert run.sent == []
    assert (run.failure.sequence, run.failure.usage.input_tokens) == (0, 7)
    assert run.failure.may_retry == (end != "timeout")


def test_usage_before_the_first_content_leaves_with_it_at_once() -> None:
    run = Driven(api="anthropic").respond()
    run.receive(MESSAGE_START)

    delta_of_text = {"type": "text_delta", "text": "Hel"}
    run.receive(anthropic(type="content_block_start", index=0, content_block={"type": "text", "text": ""}))
    commands = run.receive(anthropic(type="content_block_delta", index=0, delta=delta_of_text))
    assert commands == (Command.SEND,)
    assert isinstance(run.sent[0], UsageUpdate)
    assert run.sent[1:] == ["Hel"]


def test_usage_without_any_content_is_in_the_result() -> None:
    run = Driven().respond()
    run.receive(usage(3), usage(4))
    run.receive(usage(5))
    assert run.sent == []

    run.receive(stop(), DONE)
    assert run.finished.usage.input_tokens == 5
    assert run.finished.sequence == len(run.sent)


def test_an_abort_before_the_first_content_tells_the_usage() -> None:
    run = Driven(api="anthropic").respond()
    run.receive(MESSAGE_START)
    run.abort()

    assert (run.aborted.sequence, run.aborted.usage.input_tokens) == (0, 7)
