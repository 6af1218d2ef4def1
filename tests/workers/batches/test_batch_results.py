"""The results of batches, as each API words them: answers, errors, rows that were not run, ids of others, and nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from headrace.text.secret_mask import NO_SECRETS
from headrace.types import Message
from headrace.wire.batch_messages import BatchProblem, ProviderAnswer
from headrace.wire.messages import Failed, Finished
from headrace.wire.run_request import RunRequest
from headrace_workers.batches import anthropic_batches, google_batches, openai_batches
from headrace_workers.batches.answer_reading import read_answer
from headrace_workers.batches.batch_api import request_id, row_of_id
from headrace_workers.batches.batch_http import BatchCallError
from headrace_workers.providers.anthropic.api import API as ANTHROPIC
from headrace_workers.providers.google.api import API as GOOGLE
from headrace_workers.providers.openai_chat.api import API as CHAT
from headrace_workers.providers.openai_responses.api import API as RESPONSES

REQUEST = RunRequest(provider="p", model="m", messages=[Message(role="user", content="hi")], stream=False)
TOKEN = "0123456789abcdef"
CHAT_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "yes"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
GENERATED = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "yes"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4},
    "modelVersion": "gemini-2.5-flash",
}


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def read(answer: ProviderAnswer | None, api: Any, request: RunRequest = REQUEST) -> Finished | Failed:
    assert answer is not None
    assert answer.outcome == "answered"
    return read_answer(answer, request, api, "some-format", "sp_1", NO_SECRETS)


def text_of(end: Finished | Failed) -> str:
    assert isinstance(end, Finished), end
    assert end.message is not None
    return end.message.text


def outcome(action: Callable[[], ProviderAnswer | None]) -> object:
    try:
        return action()
    except BatchCallError as error:
        return error.failure.kind


def test_an_id_says_its_row_and_whose_it_is() -> None:
    assert row_of_id(request_id(TOKEN, 17), TOKEN) == (17, 0)
    assert row_of_id(request_id(TOKEN, 17, 3, is_one_of_many=True), TOKEN) == (17, 3)
    for foreign in (request_id("another", 17), f"{TOKEN}-x", TOKEN, "", None, 17):
        assert row_of_id(foreign, TOKEN) is None


def test_openai_answers_are_read_from_output_and_error_files() -> None:
    custom_id = request_id(TOKEN, 7)
    response = {"status_code": 200, "request_id": "req_1", "body": CHAT_ANSWER}
    answer = openai_batches.answer_in(line(id="b", custom_id=custom_id, response=response, error=None), TOKEN)
    assert text_of(read(answer, CHAT)) == "yes"

    refused = {"status_code": 400, "request_id": "req_2", "body": {"error": {"message": "too long", "code": "long"}}}
    failed = read(openai_batches.answer_in(line(custom_id=custom_id, response=refused, error=None), TOKEN), CHAT)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status_code, failed.request_id) == ("invalid_request", 400, "req_2")

    for word in ("expired", "cancelled"):
        error = {"code": f"batch_{word}", "message": "not run"}
        answer = openai_batches.answer_in(line(custom_id=custom_id, response=None, error=error), TOKEN)
        assert answer is not None
        assert (answer.number, answer.outcome) == (7, word)
    error = {"code": "server_error", "message": "it broke"}
    failed = read(openai_batches.answer_in(line(custom_id=custom_id, response=None, error=error), TOKEN), CHAT)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.may_retry) == ("provider_unavailable", True)
    assert openai_batches.answer_in(line(custom_id="mine", response=response), TOKEN) is None


def test_openai_says_why_it_refused_a_file() -> None:
    errors = {"data": [{"code": "invalid_json_line", "line": 3, "message": "bad", "param": "body"}, {"message": 1}]}
    polled = openai_batches.polled({"id": "b", "status": "failed", "errors": errors, "output_file_id": None})
    assert polled.end == "failed"
    assert polled.problems[0] == BatchProblem("bad", "invalid_json_line", 3, "body")
    assert polled.problems[1].line is None


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling", "a_new_word"])
def test_a_batch_with_any_other_status_goes_on(status: str) -> None:
    assert openai_batches.polled({"status": status}).end == ""
    assert google_batches.polled({"metadata": {"state": f"BATCH_STATE_{status.upper()}"}}).end == ""


def test_anthropic_results_have_four_kinds() -> None:
    custom_id = request_id(TOKEN, 7)
    succeeded = anthropic_batches.answer_in(
        line(custom_id=custom_id, result={"type": "succeeded", "message": MESSAGE}), TOKEN
    )
    assert text_of(read(succeeded, ANTHROPIC)) == "yes"
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "req_1"}
    errored = anthropic_batches.answer_in(line(custom_id=custom_id, result={"type": "errored", "error": error}), TOKEN)
    failed = read(errored, ANTHROPIC)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status_code) == ("provider_unavailable", 529)
    for word, ours in (("expired", "expired"), ("canceled", "cancelled")):
        answer = anthropic_batches.answer_in(line(custom_id=custom_id, result={"type": word}), TOKEN)
        assert answer is not None
        assert (answer.number, answer.outcome) == (7, ours)


def test_google_results_are_responses_or_errors() -> None:
    api = google_batches.GoogleBatches()
    answer = google_batches._answer(google_batches._decode(line(key="k", response=GENERATED)), (7, 0))
    assert text_of(read(answer, GOOGLE)) == "yes"
    for fields in ({"error": {"code": 8, "message": "full"}}, {"code": 8, "message": "full"}):
        failed = read(google_batches._answer(google_batches._decode(line(key="k", **fields)), (7, 0)), GOOGLE)
        assert isinstance(failed, Failed)
        assert (failed.kind, failed.status_code, failed.code) == ("rate_limit", 429, "RESOURCE_EXHAUSTED")
    cancelled = google_batches._answer(google_batches._decode(line(error={"code": 1, "message": "stop"})), (7, 0))
    assert cancelled == ProviderAnswer(7, outcome="cancelled")
    assert api.joined([ProviderAnswer(7)]) == ProviderAnswer(7)


def test_google_tells_states_in_two_ways_and_counts_as_texts() -> None:
    polled = google_batches.polled(
        {
            "metadata": {
                "state": "JOB_STATE_PARTIALLY_SUCCEEDED",
                "batchStats": {"requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1"},
                "output": {"responsesFile": "files/batch-1"},
            }
        }
    )
    assert (polled.end, polled.done, polled.failed, polled.results) == ("completed", 2, 1, ["files/batch-1"])
    inline = google_batches.polled(
        {
            "metadata": {"state": "BATCH_STATE_SUCCEEDED"},
            "response": {"inlinedResponses": {"inlinedResponses": []}},
        }
    )
    assert (inline.end, inline.results) == ("completed", ["inline"])
    failed = google_batches.polled(
        {"metadata": {"state": "BATCH_STATE_FAILED"}, "error": {"code": 3, "message": "bad"}}
    )
    assert failed.problems == [BatchProblem("bad", "INVALID_ARGUMENT")]


def test_the_vectors_of_a_row_are_joined_in_the_order_of_its_texts() -> None:
    api = google_batches.GoogleEmbeddingBatches()
    answers = [
        ProviderAnswer(7, 1, body=line(embedding={"values": [2.0]}, tokenCount="3")),
        ProviderAnswer(7, 0, body=line(embedding={"values": [1.0]}, tokenCount=2)),
    ]
    joined = api.joined(answers)
    assert json.loads(joined.body)["embeddings"] == [{"values": [1.0]}, {"values": [2.0]}]
    assert json.loads(joined.body)["usageMetadata"]["totalTokenCount"] == 5
    one_failed = [answers[0], ProviderAnswer(7, 0, status_code=500, body=b"{}")]
    assert api.joined(one_failed).status_code == 500


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b'{"result": 1}', b"{", b"\xff\xfe", b'{"response": 7}'])
def test_nonsense_in_results_is_an_error_and_no_answer(garbage: bytes) -> None:
    for read_line in (openai_batches.answer_in, anthropic_batches.answer_in):
        assert outcome(lambda: read_line(garbage, TOKEN)) in {None, "provider_protocol"}  # noqa: B023 - called at once


def test_a_background_run_that_failed_or_was_cut_reads_as_a_live_one() -> None:
    failed = {
        "id": "resp_1",
        "status": "failed",
        "output": [],
        "error": {"code": "server_error", "message": "it broke"},
    }
    end = read(ProviderAnswer(7, body=line(**failed)), RESPONSES)
    assert isinstance(end, Failed)
    assert "it broke" in end.reason
    cut = {
        "id": "resp_2",
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "incomplete",
                "content": [{"type": "output_text", "text": "half", "annotations": []}],
            }
        ],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    }
    end = read(ProviderAnswer(7, body=line(**cut)), RESPONSES)
    assert text_of(end) == "half"
    assert isinstance(end, Finished)
    assert end.finish_reason == "max_tokens"


def test_an_answer_that_is_no_answer_is_an_error() -> None:
    for body in (b"", b"null", b"{}", b"<html>"):
        end = read(ProviderAnswer(7, body=body), CHAT)
        assert isinstance(end, Failed)
        assert end.kind == "provider_protocol"
