"""One span of every kind, for tests of sinks and of the store."""

from __future__ import annotations

from typing import Any

from headrace.spans.span import ContentToolCall, Rank, Span, SpanAttempt, SpanContent, encode_content
from headrace.spans.span_database import StoredSpan
from headrace.types import ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCallPart, Usage

START = 1_795_000_000.25
TRACE = "tr_00000000000000a1"
PARENT = "sp_0000000000000001"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

WEATHER = Tool("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


def span(number: int, **fields: Any) -> Span:
    """Return a finished chat run, but for ``fields``."""
    given: dict[str, Any] = {
        "span_id": f"sp_{number:016x}",
        "rank": Rank.WORKER,
        "provider": "openai",
        "model": "gpt-4o",
        "trace_id": TRACE,
        "streamed": True,
        "status": "ok",
        "response_model": "gpt-4o-2024-08-06",
        "response_id": f"chatcmpl-{number}",
        "finish_reason": "stop",
        "provider_finish_reason": "stop",
        "started_at": START + number,
        "ended_at": START + number + 1.5,
        "duration_seconds": 1.5,
        "queue_seconds": 0.125,
        "first_chunk_seconds": 0.5,
        "usage": Usage(100, 20, 120, source="provider"),
        "attempts": [attempt(number)],
    }
    return Span(**given | fields)


def attempt(run: int, **fields: Any) -> SpanAttempt:
    given: dict[str, Any] = {
        "number": 1,
        "worker": "w1",
        "started_at": START + run + 0.125,
        "headers_at": START + run + 0.25,
        "first_chunk_at": START + run + 0.5,
        "ended_at": START + run + 1.5,
        "status_code": 200,
        "request_id": f"req_{run}",
        "outcome": "ok",
    }
    return SpanAttempt(**given | fields)


def chat_with_tools() -> Span:
    return span(
        1,
        finish_reason="tool_calls",
        provider_finish_reason="tool_calls",
        usage=Usage(100, 20, 120, 40, 10, 5, "provider"),
        tags=["shop", "night"],
        user_id="user-1",
        session_id="session-1",
        parameters={
            "temperature": 1,
            "max_output_tokens": 200,
            "top_p": 0.5,
            "top_k": 40,
            "frequency_penalty": 0.5,
            "presence_penalty": -1,
            "seed": 7,
            "metadata": {"team": "private"},
            "service_tier": "flex",
            "stop_sequences": ["END"],
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema"},
            "custom_options": ["seed"],
        },
        content=encode_content(
            SpanContent(
                messages=[
                    Message("system", "Be brief."),
                    Message("user", [TextPart("What is this?"), ImagePart(url="https://example.com/a.png")]),
                    Message("user", [ImagePart(url="data:image/png;base64,AAAA")]),
                    Message("assistant", [ReasoningPart("Hm."), ToolCallPart("call_1", "weather", {"city": "Bern"})]),
                    Message("tool", "sunny", tool_call_id="call_1", tool_name="weather"),
                ],
                tools=[WEATHER],
                reasoning="They want more.",
                text="Let me see.",
                tool_calls=[ContentToolCall("call_2", "weather", '{"city": "Basel"}')],
            )
        ),
    )


def aborted() -> Span:
    return span(
        2,
        parent_span_id=PARENT,
        provider="anthropic",
        model="claude-sonnet-5",
        response_model="claude-sonnet-5",
        status="aborted",
        error_type="client_lost",
        finish_reason=None,
        provider_finish_reason=None,
        usage=Usage(12, 3, 15, source="partial"),
        attempts=[attempt(2, outcome="aborted", maybe_billed=True)],
        content=encode_content(
            SpanContent(
                messages=[Message("system", "Be brief."), Message("user", "Tell a story.")],
                text="Once",
                tool_calls=[ContentToolCall("call_3", "weather", '{"ci')],
            )
        ),
    )


def failed() -> Span:
    return span(
        3,
        parent_span_id=PARENT,
        streamed=False,
        status="error",
        error_type="RateLimitError",
        error="429: slow down",
        response_model="",
        response_id=None,
        finish_reason=None,
        provider_finish_reason=None,
        first_chunk_seconds=None,
        usage=Usage(),
        attempts=[
            attempt(3, outcome="lost", worker="w2", headers_at=None, first_chunk_at=None, status_code=None),
            attempt(3, number=2, outcome="rate_limit", reason="429: slow down", status_code=429, first_chunk_at=None),
        ],
        content=encode_content(SpanContent(messages=[Message("user", "Hello")])),
    )


def lost() -> Span:
    return span(
        4,
        rank=Rank.STUB,
        trace_id="",
        status="error",
        error_type="lost",
        response_model="",
        response_id=None,
        finish_reason=None,
        provider_finish_reason=None,
        duration_seconds=0.0,
        queue_seconds=0.0,
        first_chunk_seconds=None,
        usage=Usage(),
        attempts=[],
    )


def embedding() -> Span:
    return span(
        5,
        kind="embedding",
        provider="google",
        model="gemini-embedding-001",
        response_model="",
        streamed=False,
        response_id=None,
        finish_reason=None,
        provider_finish_reason=None,
        first_chunk_seconds=None,
        usage=Usage(9, 0, 9, source="provider"),
        parameters={"dimensions": 256},
        content=encode_content(SpanContent(inputs=["one", "two"])),
    )


def with_traceparent() -> Span:
    return span(6, traceparent=TRACEPARENT, parent_span_id=PARENT, content_note="policy")


def unsampled() -> Span:
    return span(7, traceparent=TRACEPARENT[:-2] + "00")


EXAMPLES = {
    "chat_with_tools": chat_with_tools(),
    "aborted": aborted(),
    "failed": failed(),
    "lost": lost(),
    "embedding": embedding(),
    "with_traceparent": with_traceparent(),
}
"""All that are exported."""


def stored(span: Span, seq: int = 1) -> StoredSpan:
    return StoredSpan(seq, span, 0.00125 if span.rank is Rank.WORKER else None)
