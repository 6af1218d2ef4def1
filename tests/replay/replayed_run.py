"""Runs one recording through client, engine and worker, and returns the outcome in the form that the corpus compares."""

from __future__ import annotations

import json
from typing import Any

from headrace import (
    AuthenticationError,
    Client,
    HeadraceError,
    InvalidRequestError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitError,
    ReasoningDelta,
    RefusalDelta,
    RunLocalResult,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from headrace.wire.messages import FailureKind, ToolCallText
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure
from tests.workers import corpus

_TIMEOUT_MS = 300_000
_KINDS: dict[type[HeadraceError], FailureKind] = {
    AuthenticationError: "authentication",
    InvalidRequestError: "invalid_request",
    ProviderProtocolError: "provider_protocol",
    ProviderUnavailableError: "provider_unavailable",
    RateLimitError: "rate_limit",
}


async def outcome_of(client: Client, case: corpus.Recording, provider: str, cut: str) -> corpus.AnswerOutcome:
    """Run a recording; what the recorded request streamed is streamed here."""
    arguments: dict[str, Any] = {
        "provider": provider,
        "model": "recorded",
        "messages": [{"role": "user", "content": "Say it again."}],
        # A key of its own: a recorded 429 holds up no other recording. The error of the first attempt is compared.
        "provider_api_key": f"{case.name}/{cut}",
        "max_retries": 0,
        "timeout_ms": _TIMEOUT_MS,
        "idle_timeout_ms": _TIMEOUT_MS,
        "custom_options": {"replay": {"case": case.name, "cut": cut}},
    }
    events: list[StreamEvent] = []
    try:
        if not _streams(case):
            return _completed(await client.arun_local(**arguments), events)
        stream = await client.arun_local(**arguments, stream=True)
        async for event in stream.events():
            events.append(event)  # noqa: PERF401 - what came before an error is kept
        return _completed(await stream.result, events)
    except (InvalidRequestError, ProviderError) as error:
        return _failed(error, events)


def _streams(case: corpus.Recording) -> bool:
    request = json.loads((corpus.WIRE / case.name / "request.json").read_text())
    body = request["body"] if isinstance(request["body"], dict) else {}
    return case.status == 200 or bool(body.get("stream")) or "streamGenerateContent" in request["path"]


def _completed(result: RunLocalResult, events: list[StreamEvent]) -> corpus.AnswerOutcome:
    """Return a success. The result and the events must say the same; a body that was no stream gives no events but text."""
    made = [ToolCallText(call.id, call.name, json.dumps(call.arguments)) for call in result.tool_calls]
    made += [ToolCallText(call.id, call.name, call.arguments) for call in result.incomplete_tool_calls]
    calls = _calls(events) or [(call.id, call.name, call.arguments) for call in made]
    for call in result.tool_calls:
        (arguments,) = (arguments for call_id, _, arguments in calls if call_id == call.id)
        assert call.arguments == json.loads(arguments or "{}")
    if events:
        assert result.text == _text(events)
        assert result.reasoning == _reasoning(events) or not _reasoning(events)
    assert result.message.text == result.text
    completion = Completion(
        finish_reason=result.finish_reason,
        provider_finish_reason=result.provider_finish_reason,
        usage=result.usage,
        tool_calls=made,
        model=result.model,
    )
    return corpus.AnswerOutcome(
        result.text, result.reasoning, result.refusal or "", calls, result.usage, completion, failure=None
    )


def _failed(error: InvalidRequestError | ProviderError, events: list[StreamEvent]) -> corpus.AnswerOutcome:
    """Return a failure; what had come by then must be in it."""
    if isinstance(error, ProviderError):
        assert error.partial_text == _text(events)
    assert not isinstance(error, InvalidRequestError) or error.argument is None, error
    failure = ProviderFailure(_KINDS[type(error)], error.reason, error.status_code, error.request_id, error.code)
    refusal = "".join(event.text for event in events if isinstance(event, RefusalDelta))
    return corpus.AnswerOutcome(_text(events), _reasoning(events), refusal, _calls(events), Usage(), None, failure)


def _text(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _reasoning(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def _calls(events: list[StreamEvent]) -> list[corpus.Call]:
    return corpus.assemble([event for event in events if isinstance(event, ToolCallDelta)])
