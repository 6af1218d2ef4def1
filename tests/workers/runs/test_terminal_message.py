"""The terminal message says how the run ended, how much was sent, and the best known usage."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart, Usage
from headrace.wire.messages import Aborted, Failed, Finished, ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.sse import EventTooLargeError
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from headrace_workers.runs.terminal_message import (
    TerminalFacts,
    prompt_characters,
    sendable_end,
    terminal_message,
    unfinished_usage,
    unreadable,
    with_status,
)
from headrace_workers.runs.timeouts import Expired

USAGE = Usage(3, 4, 7, source="partial")
TOLD = TerminalFacts(
    span_id="sp_1",
    attempt=2,
    sequence=5,
    text_length=11,
    usage=USAGE,
    request_id="req_head",
    unsent_text="unsent",
    wire_format="google",
)


def completion(**fields: Any) -> Completion:
    given: dict[str, Any] = {
        "finish_reason": "stop",
        "provider_finish_reason": "STOP",
        "usage": Usage(1, 2, 3, source="provider"),
        "tool_calls": [],
        "model": "m-1",
    }
    return Completion(**given | fields)


def request(*messages: str | list[Part]) -> RunRequest:
    return RunRequest(provider="p", model="m", messages=[Message("user", content) for content in messages], stream=True)


# The message of each ending.


def test_a_completion_becomes_a_finished_message_with_all_its_fields() -> None:
    call, message = ToolCallText("c1", "f", "{}"), Message("assistant", "Hi")
    ended = completion(tool_calls=[call], message=message, refusal="no", vectors=[[1.0]])

    assert terminal_message(ended, TOLD) == Finished(
        span_id="sp_1",
        attempt=2,
        sequence=5,
        text_length=11,
        finish_reason="stop",
        provider_finish_reason="STOP",
        usage=Usage(1, 2, 3, source="provider"),
        tool_calls=[call],
        model="m-1",
        message=message,
        refusal="no",
        vectors=[[1.0]],
        wire_format="google",
    )


def test_a_failure_becomes_a_failed_message_with_the_unsent_text() -> None:
    ended = ProviderFailure("rate_limit", "slow down", 429, "req_body", "limit", 2.5, may_retry=True)
    told = msgspec.structs.replace(TOLD, maybe_billed=True)

    assert terminal_message(ended, told) == Failed(
        span_id="sp_1",
        attempt=2,
        sequence=5,
        kind="rate_limit",
        reason="slow down",
        usage=USAGE,
        status_code=429,
        request_id="req_body",
        code="limit",
        retry_after=2.5,
        partial_text="unsent",
        may_retry=True,
        maybe_billed=True,
    )


@pytest.mark.parametrize("clock", ["connect", "first_chunk", "idle", "total", "reader"])
def test_only_a_connection_that_took_too_long_may_be_tried_again(clock: str) -> None:
    told = terminal_message(Expired(clock, 1.0), TOLD)

    assert isinstance(told, Failed)
    assert (told.may_retry, told.is_final) == (clock == "connect", False)


def test_a_failure_without_a_request_id_gets_that_of_the_response() -> None:
    told = terminal_message(ProviderFailure("provider_protocol", "garbage"), TOLD)

    assert isinstance(told, Failed)
    assert told.request_id == "req_head"


def test_an_expired_clock_becomes_a_failed_message_with_its_name_and_limit() -> None:
    assert terminal_message(Expired("idle", 1.5), TOLD) == Failed(
        span_id="sp_1",
        attempt=2,
        sequence=5,
        kind="timeout",
        reason="the provider was silent for 1.5 s (idle timeout)",
        usage=USAGE,
        clock="idle",
        limit=1.5,
        partial_text="unsent",
    )


def test_an_abort_becomes_an_aborted_message_with_its_usage() -> None:
    assert terminal_message(Usage(9, 9, 18), TOLD) == Aborted("sp_1", 2, 5, Usage(9, 9, 18), "google")


# The usage of an unfinished run.


@pytest.mark.parametrize(
    ("messages", "characters"),
    [
        ([], 0),
        (["twelve chars"], 12),
        (["one", "three"], 8),
        ([[TextPart("four"), TextPart("more")]], 8),
        ([[ImagePart(url="https://x/y.png")]], 15),
        ([[ImagePart(data="aaaa", media_type="image/png")]], 0),
        ([[TextPart("four"), ImagePart(url="https://x"), TextPart("!")], "and"], 17),
        ([[ReasoningPart("thought"), ToolCallPart("c1", "f", {"a": 1}), TextPart("said")]], 4),
    ],
)
def test_a_prompt_is_as_long_as_its_texts_and_the_addresses_of_its_images(
    messages: list[str | list[Part]], characters: int
) -> None:
    assert prompt_characters(request(*messages)) == characters


@pytest.mark.parametrize(
    ("prompt", "text", "tokens"),
    [(0, 0, (0, 0, 0)), (4, 0, (1, 0, 1)), (7, 8, (1, 2, 3)), (8, 7, (2, 1, 3)), (40, 20, (10, 5, 15))],
)
def test_unknown_usage_is_estimated_at_four_characters_a_token(
    prompt: int, text: int, tokens: tuple[int, int, int]
) -> None:
    assert unfinished_usage(Usage(), prompt, text) == Usage(*tokens, source="estimated")


@pytest.mark.parametrize("source", ["partial", "provider"])
def test_usage_of_the_provider_stays_and_is_partial(source: Any) -> None:
    known = Usage(1, 2, 3, cached_input_tokens=1, source=source)

    assert unfinished_usage(known, 400, 400) == Usage(1, 2, 3, cached_input_tokens=1, source="partial")


# Answers that cannot be sent, and responses that cannot be read.


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_an_answer_that_is_too_deep_is_a_failure_with_its_status() -> None:
    message = Message("assistant", [TextPart("Hi", {"x": deep(200)})])

    failure = sendable_end(completion(message=message), 201)
    assert isinstance(failure, ProviderFailure)
    assert (failure.kind, failure.status_code) == ("provider_protocol", 201)
    assert failure.reason == "the message holds data that is nested deeper than 200 levels"
    unknown = sendable_end(completion(message=message), 0)
    assert isinstance(unknown, ProviderFailure)
    assert unknown.status_code is None


def test_an_answer_of_two_hundred_levels_is_passed_on() -> None:
    ended = completion(message=Message("assistant", [TextPart("Hi", {"x": deep(199)})]))

    assert sendable_end(ended, 200) == ended


def test_an_incomplete_answer_is_a_failure_with_its_status() -> None:
    failure = sendable_end(completion(finish_reason="tool_calls", message=Message("assistant", "Hi")), 201)

    assert isinstance(failure, ProviderFailure)
    assert (failure.kind, failure.status_code) == ("provider_protocol", 201)


def test_an_answer_without_a_message_is_passed_on_as_it_is() -> None:
    assert sendable_end(completion(vectors=[[0.5]]), 200) == completion(vectors=[[0.5]])


@pytest.mark.parametrize(("status", "told"), [(200, 200), (206, 206), (0, None)])
def test_an_unreadable_response_is_a_failure_with_its_status(status: int, told: int | None) -> None:
    assert unreadable(RecursionError("x"), status) == ProviderFailure(
        "provider_protocol", "the response is nested too deeply", told
    )
    too_large = unreadable(EventTooLargeError(16), status)
    assert too_large.reason.startswith("a server-sent event is larger than 16 bytes")
    assert (too_large.kind, too_large.status_code, too_large.code) == ("provider_protocol", told, "answer_too_large")


def test_the_failure_of_a_mapper_is_the_failure_of_the_run() -> None:
    failure = ProviderFailure("rate_limit", "slow down", retry_after=3.0)

    assert unreadable(ProviderFailedError(failure), 200) is failure


def test_only_a_protocol_failure_gets_the_status_of_its_response() -> None:
    broken = ProviderFailure("provider_protocol", "garbage")
    assert with_status(broken, 200).status_code == 200
    assert with_status(broken, 0) is broken
    known = ProviderFailure("provider_protocol", "garbage", 302)
    assert with_status(known, 200) is known
    refused = ProviderFailure("rate_limit", "slow down")
    assert with_status(refused, 200) is refused
