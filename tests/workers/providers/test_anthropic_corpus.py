"""Recorded Messages responses have the same result as with the official SDK, however the network split them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each
from tests.workers import corpus

EXPECTATION_IS_WRONG: dict[str, tuple[set[str], str]] = {
    "anthropic-messages--anthropic--refusal--ce5bb8": (
        {"refusal"},
        "the body says in stop_details why the model refuses; the expectation looks for no words of refusal",
    ),
}

pytestmark = corpus.needs_recordings


def usage(said: dict[str, Any]) -> tuple[int, ...]:
    count = {name: value or 0 for name, value in said.items()}
    # The SDK's input tokens are without the cache; headrace's are all input tokens.
    total_input = count["input"] + count["cached"] + count["cache_write"]
    totals = (total_input, count["output"], total_input + count["output"])
    return (*totals, count["cached"], count["cache_write"], count["reasoning"])


def is_cut(case: corpus.Recording) -> bool:
    return b'"message_stop"' not in case.body and not case.expected["finish_reason"]


READING = corpus.Comparison(api=API, usage=usage, is_cut=is_cut, wrong=EXPECTATION_IS_WRONG)


@pytest.mark.parametrize("name", corpus.case_names("anthropic.messages"))
def test_a_recorded_response_has_the_same_result_as_with_the_official_sdk(name: str) -> None:
    corpus.check(READING, name)


OPAQUE = re.compile(rb'"(?:signature|data|encrypted_content|encrypted_index)":\s*("(?:[^"\\]|\\.)+")')
SETTINGS = ProviderSettings(name="anthropic", api="anthropic", base_url="http://127.0.0.1")


@each("name", corpus.case_names("anthropic.messages"))
def test_opaque_data_of_a_recorded_response_is_sent_back_unchanged(name: str) -> None:
    case = corpus.load(name)
    secrets = {json.loads(secret) for secret in OPAQUE.findall(case.body)}
    outcome = corpus.replay(READING, [case.body]) if case.status == 200 else None
    if outcome is None or outcome.completion is None or outcome.completion.message is None:
        assert secrets == set()
        return
    message = outcome.completion.message
    assert message.text == outcome.text
    messages = [Message("user", "hi"), message]
    messages += [Message("tool", "x", tool_call_id=call.id) for call in message.tool_calls]
    messages.append(Message("user", "go on"))
    request = RunRequest(provider="anthropic", model="claude-sonnet-5", messages=messages, stream=True)
    sent = API.build_request(request, SETTINGS, None).body
    assert {json.loads(secret) for secret in OPAQUE.findall(sent)} == secrets
