"""``headrace spans show``: shows one span for a person to read: the conversation, then the facts.

Pure: returns lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TextIO

from headrace.cli.shared.terminal import bold, dim, one_line, red
from headrace.cli.spans.span_figures import dollars, local_time, milliseconds
from headrace.spans.span import Span, SpanAttempt, SpanContent, content_of
from headrace.spans.span_database import StoredSpan
from headrace.spans.stored_media import NOT_KEPT
from headrace.text.escaping import escaped
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart

_INDENT = "  "
_KIB = 1024
_USAGE_NOTES = {
    "provider": "as the provider counted",
    "partial": "as the provider last counted before the end",
    "estimated": "estimated from the length of the text",
}


_WAITED_FOR = {
    "": "for a worker",
    "workers": "for a worker",
    "share": "for this program's share of the workers",
    "limit": "for room in a limit",
    "blocked": "because the provider asked for a pause",
    "breaker": "because the provider failed too often",
}
"""What a run waited for, by the word for it."""


def shown(stored: StoredSpan, out: TextIO, aside: Mapping[str, str] = {}) -> Iterator[str]:
    """Yield the lines that show a span on ``out``. ``aside``: sink → why it has set this span aside."""
    span, content = stored.span, content_of(stored.span)
    status = red(span.status, out) if span.status == "error" else one_line(span.status)
    yield f"{bold(one_line(span.span_id), out)}  {status}  {one_line(f'{span.provider}/{span.model}')}"
    yield from _conversation(content, out)
    if span.content_note or not span.content:
        yield from ("", dim(f"no content: {one_line(span.content_note) or 'none was kept'}", out))
    yield from ("", bold("facts", out))
    facts = [(name, value) for name, value in _facts(stored, content) if value]
    width = max(len(name) for name, _ in facts)
    yield from (f"{_INDENT}{dim(name.ljust(width), out)}  {one_line(value)}" for name, value in facts)
    if aside:
        yield from ("", bold("set aside by sinks", out))
        yield from (f"{_INDENT}{red(one_line(f'{sink}: {reason}'), out)}" for sink, reason in aside.items())
    if span.attempts:
        yield from ("", bold("attempts", out))
        yield from (f"{_INDENT}{one_line(_attempt(attempt))}" for attempt in span.attempts)


def _conversation(content: SpanContent, out: TextIO) -> Iterator[str]:
    for message in content.messages:
        yield from _block(_heading(message), _message_text(message), out)
    for number, text in enumerate(content.inputs, 1):
        yield from _block(f"input {number}", text, out)
    yield from _block("reasoning", content.reasoning, out)
    answer = [content.text, content.refusal or "", *(f"→ {c.name}({c.arguments})  {c.id}" for c in content.tool_calls)]
    answer += map(_part, content.media)
    heading = "refusal" if content.refusal and not content.text else "answer"
    yield from _block(heading, "\n".join(text for text in answer if text), out)


def _block(heading: str, text: str, out: TextIO) -> Iterator[str]:
    if text:
        yield from ("", bold(one_line(heading), out))
        yield from (_INDENT + line if line else "" for line in escaped(text).split("\n"))


def _heading(message: Message) -> str:
    if message.role != "tool":
        return message.role
    return f"tool {message.tool_name or ''} {message.tool_call_id or ''}"


def _message_text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(text for part in message.content if (text := _part(part)))


def _part(part: Part) -> str:
    match part:
        case TextPart():
            return part.text
        case ReasoningPart():
            return f"(reasoning) {part.text}" if part.text else ""
        case ToolCallPart():
            return f"→ {part.name}({json.dumps(part.arguments, ensure_ascii=False)})  {part.id}"
        case ImagePart():
            return _media("image", part)
        case AudioPart():
            return _media("audio", part)
        case FilePart():
            return _media(f"file {part.name}" if part.name else "file", part) + (f"\n{part.text}" if part.text else "")


def _media(what: str, part: ImagePart | AudioPart | FilePart) -> str:
    if part.url:
        return f"({what} {part.url})"
    if not isinstance(part, AudioPart) and part.file_id:
        return f"({what} {part.file_id})"
    return f"({what} {part.media_type or ''}, {_size(part)})"


def _size(part: ImagePart | AudioPart | FilePart) -> str:
    if isinstance(part, FilePart) and part.text is not None:
        return f"{len(part.text)} characters"
    data = part.data or ""
    return data if data.startswith(NOT_KEPT) else f"{len(data) * 3 // 4 // _KIB} KiB"


def _facts(stored: StoredSpan, content: SpanContent) -> Iterator[tuple[str, str]]:
    span = stored.span
    reason = ": ".join(text for text in (span.error_type, span.error) if text)
    yield "error" if span.status == "error" else "why", reason
    yield "finish reason", _finish_reason(span)
    yield "model", _model(span)
    yield "usage", _usage(span)
    yield "cost", "" if stored.cost is None else f"${dollars(stored.cost)}"
    yield "started", _time(span.started_at)
    yield "time", _timings(span)
    yield "trace", " ".join(filter(None, [span.trace_id, span.parent_span_id and f"below {span.parent_span_id}"]))
    yield "traceparent", span.traceparent or ""
    yield "user", span.user_id or ""
    yield "session", span.session_id or ""
    yield "tags", ", ".join(span.tags)
    yield "parameters", ", ".join(f"{key}={json.dumps(value)}" for key, value in span.parameters.items())
    yield "tools", ", ".join(tool.name or tool.type for tool in content.tools)
    yield "response id", span.response_id or ""


def _finish_reason(span: Span) -> str:
    said, own = span.finish_reason or "", span.provider_finish_reason
    return f"{said} (in the provider's words: {own})" if own and own != said else said


def _model(span: Span) -> str:
    if span.response_model and span.response_model != span.model:
        return f"{span.response_model}, requested as {span.model}"
    return span.model


def _usage(span: Span) -> str:
    usage = span.usage
    if usage.source == "none":
        return "unknown"
    into = [f"{usage.cached_input_tokens} cached"] if usage.cached_input_tokens else []
    into += [f"{usage.cache_write_tokens} written to the cache"] if usage.cache_write_tokens else []
    reasoning = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
    detail = f" ({', '.join(into)})" if into else ""
    tokens = f"{usage.input_tokens} tokens in{detail}, {usage.output_tokens} out{reasoning}"
    return f"{tokens}; {_USAGE_NOTES.get(usage.source, usage.source)}"


def _timings(span: Span) -> str:
    facts = [f"{milliseconds(span.duration_seconds)} ms"]
    if span.first_chunk_seconds is not None:
        facts.append(f"first chunk after {milliseconds(span.first_chunk_seconds)} ms")
    if span.queue_seconds:
        what = _WAITED_FOR.get(span.queue_reason, f"for {span.queue_reason}")
        if len(span.attempts) <= 1:
            facts.append(f"{milliseconds(span.queue_seconds)} ms waiting {what}")
        else:
            # The time of the earlier attempts is in it.
            facts.append(f"{milliseconds(span.queue_seconds)} ms until its last attempt")
            facts += [f"waited last {what}"] if span.queue_reason else []
    return ", ".join([*facts, "streamed" if span.streamed else "not streamed"])


def _attempt(attempt: SpanAttempt) -> str:
    facts = [attempt.outcome]
    facts += [f"HTTP {attempt.status_code}"] if attempt.status_code is not None else []
    for name, moment in [("headers", attempt.headers_at), ("first chunk", attempt.first_chunk_at)]:
        if moment is not None:
            facts.append(f"{name} after {milliseconds(moment - attempt.started_at)} ms")
    if attempt.ended_at is not None:
        facts.append(f"ended after {milliseconds(attempt.ended_at - attempt.started_at)} ms")
    facts += [f"request {attempt.request_id}"] if attempt.request_id else []
    facts += [attempt.reason] if attempt.reason else []
    facts += ["may have been billed"] if attempt.maybe_billed else []
    where = f" {attempt.worker}" if attempt.worker else ""
    where += f" at {attempt.provider}/{attempt.model}" if attempt.provider or attempt.model else ""
    where += " (hedge)" if attempt.is_hedge else ""
    return f"{attempt.number}.{where}{':' if where else ''} {', '.join(facts)}"


def _time(seconds: float) -> str:
    return local_time(seconds).isoformat(sep=" ", timespec="milliseconds")
