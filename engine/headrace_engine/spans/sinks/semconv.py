"""Describes a span by OpenTelemetry's GenAI semantic conventions: one table of attribute names and values. Pure.

The conventions are in development, and names still change. The table also has each name of release 1.41, the last one before the
conventions moved to their own repository. Facts without a name there begin with ``headrace.``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from headrace.settings.provider_table import BUILT_IN
from headrace.spans.span import BEATEN, Span, SpanAttempt, content_of
from headrace.spans.span_database import StoredSpan
from headrace.spans.value_bounds import real
from headrace.types import Message
from headrace_engine.spans.sinks import genai_messages as messages

SEMCONV_VERSION = "0.1.0"
"""Version of https://github.com/open-telemetry/semantic-conventions-genai."""
SCHEMA_URL = {"current": "", "1.41": "https://opentelemetry.io/schemas/1.41.0"}

Version = Literal["current", "1.41"]
Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]

PROVIDER_NAME = {
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "xai": "x_ai",
}
"""Headrace's name of a provider → the conventions' name, if they differ."""
_SERVICES = {name: (api,) for name, (api, _, _) in BUILT_IN.items()} | {
    "azure": ("openai-chat", "openai-responses"),
    "moonshot": ("openai-chat",),
}
"""Providers that are services of their own: provider → the wire formats that the service has."""
_GEMINI = PROVIDER_NAME["google"]
FINISH_REASON = {"max_tokens": "length", "tool_calls": "tool_call"}

_SAME = "the same"
_TAKES_INSTRUCTIONS_APART = frozenset({"anthropic", _GEMINI})


class OtelEvent(msgspec.Struct, frozen=True):
    """An event within a span."""

    name: str
    time: float
    attributes: Attributes


class DescribedSpan(msgspec.Struct, frozen=True):
    """A span by the conventions, without its ids. Times are seconds since 1970."""

    name: str
    start: float
    end: float
    is_error: bool
    message: str
    attributes: Attributes
    events: list[OtelEvent]


def describe(stored: StoredSpan, version: Version) -> DescribedSpan:
    """Return a span's attributes and events by the conventions."""
    facts = _Facts(stored, version)
    attributes: Attributes = {}
    for row in _TABLE:
        name = row.name if version == "current" else row.was
        if name is not None and (value := row.value(facts)) is not None:
            attributes[name] = value
    span = stored.span
    # The wall clock can jump between the two times. The measured duration is exact.
    end = span.started_at + span.duration_seconds if span.duration_seconds else max(span.ended_at, span.started_at)
    return DescribedSpan(
        name=f"{facts.operation} {span.model}".rstrip(),
        start=span.started_at,
        end=end,
        is_error=span.status == "error",
        message=span.error or "",
        attributes=attributes,
        events=[_attempt(attempt) for attempt in span.attempts],
    )


class _Facts:
    """A span, and values that several rows of the table use."""

    def __init__(self, stored: StoredSpan, version: Version) -> None:
        self.span: Span = stored.span
        self.cost = stored.cost
        self.version = version
        self.usage = stored.span.usage
        self.is_embedding = self.span.kind == "embedding"
        self.provider_name = _provider_name(self.span)
        self.content = content_of(self.span)
        self.instructions, self.conversation = self._messages()

    @property
    def operation(self) -> str:
        if self.is_embedding:
            return "embeddings"
        return "generate_content" if self.provider_name == _GEMINI else "chat"

    @property
    def finish_reason(self) -> str | None:
        """Why the generation ended; ``error`` if it failed or was aborted."""
        if self.is_embedding:
            return None
        if self.span.status != "ok":
            return "error"
        reason = self.span.finish_reason
        return None if reason is None else FINISH_REASON.get(reason, reason)

    def _messages(self) -> tuple[list[Message], list[Message]]:
        if self.provider_name in _TAKES_INSTRUCTIONS_APART:
            return messages.split_instructions(self.content.messages)
        return [], self.content.messages


def _provider_name(span: Span) -> str:
    """Return the value of ``gen_ai.provider.name``.

    The conventions use this name to tell how the other attributes are meant, so it follows the wire format. A service that
    Headrace knows (``groq``) keeps its own name while it is asked in its own format. A span without a format is described by
    the name of its provider: it is older, or no worker wrote it.
    """
    own = (attempt for attempt in reversed(span.attempts) if attempt.wire_format and not attempt.provider)
    attempt = next(own, None)
    if attempt is None or attempt.wire_format in _SERVICES.get(span.provider, ()):
        return PROVIDER_NAME.get(span.provider, span.provider)
    return attempt.telemetry_provider or span.provider


class _Attribute(msgspec.Struct, frozen=True):
    """An attribute: its name, its name in release 1.41 (None: it had none), and a function that returns its value."""

    name: str
    was: str | None
    value: Callable[[_Facts], Value | None]


def _row(name: str, value: Callable[[_Facts], Value | None], was: str | None = _SAME) -> _Attribute:
    return _Attribute(name, name if was == _SAME else was, value)


def _integer(name: str) -> Callable[[_Facts], int | None]:
    def value(facts: _Facts) -> int | None:
        given = facts.span.parameters.get(name)
        return given if isinstance(given, int) and not isinstance(given, bool) else None

    return value


def _double(name: str) -> Callable[[_Facts], float | None]:
    def value(facts: _Facts) -> float | None:
        given = facts.span.parameters.get(name)
        return real(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else None

    return value


def _word(name: str) -> Callable[[_Facts], str | None]:
    def value(facts: _Facts) -> str | None:
        given = facts.span.parameters.get(name)
        return given if isinstance(given, str) else None

    return value


def _openai_tier(facts: _Facts) -> str | None:
    return _word("service_tier")(facts) if facts.provider_name == "openai" else None


def _stop_sequences(facts: _Facts) -> list[str] | None:
    given = facts.span.parameters.get("stop_sequences")
    return [str(one) for one in given] if isinstance(given, list) and given else None


def _output_type(facts: _Facts) -> str | None:
    given = facts.span.parameters.get("response_format")
    return "json" if isinstance(given, dict) and str(given.get("type", "")).startswith("json") else None


def _known(tokens: int, facts: _Facts) -> int | None:
    """Return a count of tokens; None if nothing is known: zero would be wrong."""
    return None if facts.usage.source == "none" else tokens


def _output_tokens(facts: _Facts) -> int | None:
    return None if facts.is_embedding else _known(facts.usage.output_tokens, facts)


def _json(value: list[Any]) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


def _output_messages(facts: _Facts) -> str | None:
    reason = None if facts.version == "current" else facts.finish_reason or ""
    return _json(messages.output_messages(facts.content, reason))


def _last_worker(facts: _Facts) -> str | None:
    """Return the worker of the attempt that counts: the last one that was not beaten by another."""
    workers = (one.worker for one in reversed(facts.span.attempts) if one.worker and one.outcome != BEATEN)
    return next(workers, None)


_TABLE = (
    _row("gen_ai.operation.name", lambda facts: facts.operation),
    _row("gen_ai.provider.name", lambda facts: facts.provider_name),
    _row("error.type", lambda facts: (facts.span.error_type or "_OTHER") if facts.span.status == "error" else None),
    _row("gen_ai.conversation.id", lambda facts: facts.span.session_id),
    _row("gen_ai.output.type", _output_type),
    _row("gen_ai.request.model", lambda facts: facts.span.model or None),
    _row("gen_ai.request.stream", lambda facts: facts.span.streamed or None),
    _row("gen_ai.request.max_tokens", _integer("max_output_tokens")),
    _row("gen_ai.request.temperature", _double("temperature")),
    _row("gen_ai.request.top_p", _double("top_p")),
    _row("gen_ai.request.top_k", _double("top_k")),
    _row("gen_ai.request.frequency_penalty", _double("frequency_penalty")),
    _row("gen_ai.request.presence_penalty", _double("presence_penalty")),
    _row("gen_ai.request.seed", _integer("seed")),
    _row("gen_ai.request.stop_sequences", _stop_sequences),
    _row("gen_ai.request.reasoning.level", _word("reasoning_effort"), was=None),
    _row("openai.request.service_tier", _openai_tier),
    _row("gen_ai.embeddings.dimension.count", _integer("dimensions")),
    _row("gen_ai.response.id", lambda facts: facts.span.response_id),
    _row("gen_ai.response.model", lambda facts: facts.span.response_model or None),
    _row("gen_ai.response.finish_reasons", lambda facts: [facts.finish_reason] if facts.finish_reason else None),
    _row("gen_ai.response.time_to_first_chunk", lambda facts: facts.span.first_chunk_seconds),
    _row("gen_ai.usage.input_tokens", lambda facts: _known(facts.usage.input_tokens, facts)),
    _row("gen_ai.usage.output_tokens", _output_tokens),
    _row("gen_ai.usage.cache_read.input_tokens", lambda facts: facts.usage.cached_input_tokens or None),
    _row(
        "gen_ai.usage.cache_write.input_tokens",
        lambda facts: facts.usage.cache_write_tokens or None,
        was="gen_ai.usage.cache_creation.input_tokens",
    ),
    _row("gen_ai.usage.reasoning.output_tokens", lambda facts: facts.usage.reasoning_tokens or None),
    _row("gen_ai.system_instructions", lambda facts: _json(messages.system_instructions(facts.instructions))),
    _row("gen_ai.input.messages", lambda facts: _json(messages.input_messages(facts.content, facts.conversation))),
    _row("gen_ai.output.messages", _output_messages),
    _row("gen_ai.tool.definitions", lambda facts: _json(messages.tool_definitions(facts.content.tools))),
    _row("headrace.provider", lambda facts: facts.span.provider or None),
    _row("headrace.span_id", lambda facts: facts.span.span_id),
    _row("headrace.trace_id", lambda facts: facts.span.trace_id or None),
    _row("headrace.parent_span_id", lambda facts: facts.span.parent_span_id),
    _row("headrace.recorded_by", lambda facts: facts.span.rank.name.lower()),
    _row("headrace.attempts", lambda facts: len(facts.span.attempts)),
    _row("headrace.worker", _last_worker),
    _row("headrace.aborted", lambda facts: facts.span.status == "aborted" or None),
    _row("headrace.abort_reason", lambda facts: facts.span.error_type if facts.span.status == "aborted" else None),
    _row("headrace.queue_wait", lambda facts: facts.span.queue_seconds),
    _row("headrace.queue_reason", lambda facts: facts.span.queue_reason or None),
    _row("headrace.usage.source", lambda facts: facts.usage.source),
    _row("headrace.cost", lambda facts: facts.cost),
    _row("headrace.provider_finish_reason", lambda facts: facts.span.provider_finish_reason),
    _row("headrace.content_note", lambda facts: facts.span.content_note or None),
    _row("headrace.tags", lambda facts: list(facts.span.tags) or None),
    _row("headrace.user_id", lambda facts: facts.span.user_id),
)


def _attempt(attempt: SpanAttempt) -> OtelEvent:
    """Return an attempt as an event at the time of its start. Durations are in seconds."""
    facts: dict[str, Value | None] = {
        "headrace.attempt.number": attempt.number,
        "headrace.attempt.worker": attempt.worker or None,
        "headrace.attempt.provider": attempt.provider or None,
        "headrace.attempt.model": attempt.model or None,
        "headrace.attempt.is_hedge": attempt.is_hedge or None,
        "headrace.attempt.outcome": attempt.outcome,
        "headrace.attempt.reason": attempt.reason or None,
        "headrace.attempt.duration": _since(attempt, attempt.ended_at),
        "headrace.attempt.time_to_headers": _since(attempt, attempt.headers_at),
        "headrace.attempt.time_to_first_chunk": _since(attempt, attempt.first_chunk_at),
        "headrace.attempt.request_id": attempt.request_id,
        "headrace.attempt.maybe_billed": attempt.maybe_billed or None,
        "http.response.status_code": attempt.status_code,
    }
    given = {name: value for name, value in facts.items() if value is not None}
    return OtelEvent("headrace.attempt", attempt.started_at, given)


def _since(attempt: SpanAttempt, time: float | None) -> float | None:
    return None if time is None else round(max(time - attempt.started_at, 0.0), 6)
