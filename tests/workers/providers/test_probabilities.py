"""Log probabilities of long answers are skipped: they are hundreds of thousands of values, which no mapper reads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from headrace.wire.messages import Finished
from headrace_workers.providers.shared.answer_limits import MAX_ELEMENTS, MIB, LimitError, elements_in
from headrace_workers.providers.shared.probabilities import weighed
from tests.waiting import cpu_slack
from tests.workers.runs.driven import JSON, Driven

TOKENS = 800
CHEAP = 0.5


def entry() -> dict[str, Any]:
    return {"token": 'He["\\', "logprob": -0.31725305318832397, "bytes": [72, 101, 91, 34, 92]}


PROBABLE = [{**entry(), "top_logprobs": [entry()] * 20}] * TOKENS
CHOSEN = {"candidates": [{"token": "He[", "tokenId": 4711, "logProbability": -0.3}] * 20}
ITEM = {
    "type": "message",
    "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": PROBABLE}],
}
DONE = {"status": "completed", "output": [ITEM]}
WHOLE: dict[str, Any] = {
    "openai-chat": {
        "choices": [
            {"message": {"content": "Hi"}, "logprobs": {"content": PROBABLE, "refusal": None}, "finish_reason": "stop"}
        ]
    },
    "openai-responses": DONE,
    "google": {
        "candidates": [
            {
                "content": {"parts": [{"text": "Hi"}]},
                "finishReason": "STOP",
                "logprobsResult": {"topCandidates": [CHOSEN] * 2 * TOKENS},
            }
        ]
    },
}


@pytest.mark.parametrize("api", WHOLE)
def test_a_whole_answer_with_twenty_alternatives_for_each_token_is_read(api: str) -> None:
    body = json.dumps(WHOLE[api], separators=(",\n ", " : ")).encode()
    assert elements_in(body) > MAX_ELEMENTS
    run = Driven(api=api, stream=False).respond(headers=JSON)
    run.receive(body)
    run.complete()

    assert isinstance(run.terminal, Finished)
    assert run.terminal.message is not None
    assert run.terminal.message.text == "Hi"


def test_events_that_repeat_the_probabilities_of_a_whole_response_are_read() -> None:
    part = ITEM["content"][0]
    events = [
        {"type": "response.output_text.delta", "delta": "Hi", "logprobs": PROBABLE[:1]},
        {"type": "response.output_text.done", "text": "Hi", "logprobs": PROBABLE},
        {"type": "response.content_part.done", "part": part},
        {"type": "response.output_item.done", "item": ITEM},
        {"type": "response.completed", "response": DONE},
    ]
    run = Driven(api="openai-responses").respond()
    for event in events:
        run.receive(b"data: " + json.dumps(event).encode() + b"\n\n")

    assert isinstance(run.terminal, Finished)
    assert run.text == "Hi"


def test_a_whole_response_that_was_not_streamed_is_recognised_as_whole() -> None:
    run = Driven(stream=False).respond(headers=JSON)
    run.receive(json.dumps(WHOLE["openai-chat"]).encode())

    assert run.core._answer.holds_whole()


MANY = b"[" + b"[]," * 3 * MIB + b"[]]"


@pytest.mark.parametrize(
    "heavy",
    [
        b'{"choices":[{"message":{"content":%b},"logprobs":[]}]}' % MANY,
        b'{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"logprobs":%b}}}]}}]}' % MANY,
        b'{"content":[{"type":"tool_use","input":{"logprobs":%b}}]}' % MANY,
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"logprobs":%b}}}]}}]}' % MANY,
        b'{"output":[{"content":[{"x":"logprobs"},%b]}]}' % MANY,
        b'{"logprobs":%b,"x":%b}' % (MANY, MANY),
        b'{"choices":[%b]}' % (b'{"logprobs":{}},' * 1_500_000 + b"{}"),
        b'{"logprobs":' + b"[" * 8 * MIB,
    ],
    ids=["content", "arguments", "input", "args", "text", "beside", "choices", "nesting"],
)
def test_only_log_probabilities_are_left_out(heavy: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(LimitError):
        weighed(heavy)
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_log_probabilities_at_many_places_take_linear_time() -> None:
    """A search for each of them in the 20 MiB after the choices would find nothing, and take very long."""
    item = b'{"content":[{"logprobs":[' + b"1," * 700 + b"1]}]}"
    choice = b'{"logprobs":[' + b"2," * 700 + b"2]}"
    output = b'"output":[' + b",".join([item] * 4000) + b"]"
    heavy = b'{%b,"choices":[%b],"x":"%b"}' % (output, choice, b"x" * 20 * MIB)
    began = time.thread_time()
    with pytest.raises(LimitError):
        weighed(heavy)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "value",
    [b"[" + b"1e308," * 4 * MIB + b"1]", b"[" + b"[]," * 9 * MIB + b"1]"],
    ids=["numbers", "lists"],
)
def test_log_probabilities_are_skipped_in_little_time(value: bytes) -> None:
    body = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop","logprobs":%b}]}' % value
    run = Driven(stream=False).respond(headers=JSON)
    began = time.thread_time()
    run.receive(body)
    run.complete()

    assert run.terminal is not None
    assert time.thread_time() - began < 2 * CHEAP * cpu_slack()  # read in one piece, here
