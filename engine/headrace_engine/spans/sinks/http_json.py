"""The sink for span APIs that take JSON: ``POST /api/v1/spans``, one span in each request, at most four requests at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from headrace.settings.settings import SinkConfig
from headrace.spans.span import Span, SpanContent, content_of
from headrace.spans.span_database import StoredSpan
from headrace.spans.value_bounds import seconds
from headrace_engine.spans.sinks.answer_policy import ServerAnswer, Undeliverable, Verdict, joined_verdict, verdict_on
from headrace_engine.spans.sinks.encoding import encoded
from headrace_engine.spans.sinks.genai_messages import parsed
from headrace_engine.spans.sinks.http_post import HttpPost

CONCURRENCY = 4
_PATH = "/api/v1/spans"
_encode = msgspec.json.Encoder().encode


class HttpJsonSink:
    """Sends spans one by one. The server uses their ids as its own."""

    def __init__(self, config: SinkConfig, environ: Mapping[str, str]) -> None:
        """Raises SinkUnusableError."""
        self.batch_size = min(config.batch_size, CONCURRENCY)
        base = config.url.rstrip("/")
        url = base if base.endswith(_PATH) else base + _PATH
        self._post = HttpPost(url, config, environ, "application/json")
        self._executor = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="sink-post")

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:
        """Send spans. Return the verdict on the batch: see :func:`joined_verdict`."""
        whole, unencodable = encoded(spans, lambda stored: _encode(payload(stored)))
        answers = self._executor.map(partial(self._send, tries=tries), [body for _, body in whole])
        verdicts = dict(zip((index for index, _ in whole), answers, strict=True))
        verdicts |= {each.index: Undeliverable(each.reason) for each in unencodable}
        return joined_verdict([verdicts[index] for index in range(len(spans))])

    def close(self) -> None:
        """Close the connections."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._post.close()

    def _send(self, body: bytes, tries: int) -> Verdict:
        answer = self._post.send(body)
        return (
            verdict_on(answer, 1, tries, time.time(), self._post.mask) if isinstance(answer, ServerAnswer) else answer
        )


def payload(stored: StoredSpan) -> dict[str, Any]:
    """Return a span in the API's fields. Facts without a field are left out, unless a tag can say them."""
    span, usage = stored.span, stored.span.usage
    content = content_of(span)
    fields = {
        "spanId": span.span_id,
        "traceId": span.trace_id or None,
        "parentSpanId": span.parent_span_id,
        "spanKind": "EMBEDDING" if span.kind == "embedding" else "LLM",
        "model": span.model,
        "provider": span.provider,
        "input": _input(content),
        "output": content.text or content.refusal,
        # The API has no word for an aborted run. A lost run is an error.
        "status": "ERROR" if span.status == "error" else "SUCCESS",
        "error": (span.error or span.error_type) if span.status == "error" else None,
        "latencyMs": round(seconds(span.duration_seconds) * 1000),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "tags": _tags(span) or None,
        "userId": span.user_id,
        "sessionId": span.session_id,
        "temperature": span.parameters.get("temperature"),
        "maxOutputTokens": span.parameters.get("max_output_tokens"),
        "topP": span.parameters.get("top_p"),
        "tools": msgspec.to_builtins(content.tools) or None,
        "toolCalls": [
            {"id": call.id, "name": call.name, "arguments": parsed(call.arguments)} for call in content.tool_calls
        ]
        or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _input(content: SpanContent) -> dict[str, Any]:
    messages: dict[str, Any] = {"messages": msgspec.to_builtins(content.messages)}
    return messages | {"inputs": content.inputs} if content.inputs else messages


def _tags(span: Span) -> list[str]:
    tags = list(span.tags)
    if span.status == "aborted":
        tags.append("aborted")
    if span.usage.source in ("estimated", "partial"):
        tags.append(f"usage_{span.usage.source}")
    return tags
