"""The sink for OpenTelemetry: sends spans by OTLP over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from headrace.settings.settings import SinkConfig
from headrace.spans import value_bounds as span_bounds
from headrace.spans.span_database import StoredSpan
from headrace.version import VERSION
from headrace_engine.spans.sinks.answer_policy import (
    Delivered,
    ServerAnswer,
    SpanSetAside,
    Undeliverable,
    Verdict,
    excerpt,
    verdict_on,
)
from headrace_engine.spans.sinks.encoding import encoded
from headrace_engine.spans.sinks.http_post import HttpPost
from headrace_engine.spans.sinks.otel_ids import OtelIds, ids_of
from headrace_engine.spans.sinks.semconv import SCHEMA_URL, Attributes, DescribedSpan, Value, describe
from headrace_engine.spans.sinks.sink import SinkUnusableError

try:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
except ImportError:
    HAS_PROTOBUF = False
else:
    HAS_PROTOBUF = True

if TYPE_CHECKING:
    from headrace_engine.spans.sinks.semconv import Version

_TRACES_PATH = "/v1/traces"
_LAST_NANOSECOND = 2**64 - 1


class OtlpSink:
    """Sends batches to an OpenTelemetry collector, or to any server that takes the same requests."""

    def __init__(self, config: SinkConfig, environ: Mapping[str, str]) -> None:
        """Raises SinkUnusableError."""
        if not HAS_PROTOBUF:
            raise SinkUnusableError("needs a package that is not installed: pip install 'headrace[otlp]'")
        self.batch_size = config.batch_size
        self._config = config
        self._post = HttpPost(traces_url(config.url), config, environ, "application/x-protobuf")

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:
        """Send the spans of sampled traces. Spans that cannot be encoded, or that are refused alone, are set aside."""
        whole, unencodable = encoded(spans, self._encoded)
        sampled = [(index, one) for index, one in whole if one is not None]
        skipped = len(whole) - len(sampled)
        if not sampled:
            return _dealt_with(spans, skipped, unencodable)
        body = export_request([one for _, one in sampled], self._config.service_name, self._config.semconv)
        verdict = self._posted(body.SerializeToString(), len(sampled), tries)
        match verdict:
            case Undeliverable():
                refused = [SpanSetAside(index, verdict.reason) for index, _ in sampled]
                return _dealt_with(spans, skipped, (*unencodable, *refused))
            case Delivered():
                return _dealt_with(spans, skipped, unencodable, verdict.rejected, verdict.reason)
            case _:
                return verdict

    def _encoded(self, stored: StoredSpan) -> Span | None:
        ids = ids_of(stored.span)
        return otlp_span(ids, describe(stored, self._config.semconv)) if ids.is_sampled else None

    def _posted(self, body: bytes, count: int, tries: int) -> Verdict:
        if self._config.compression == "gzip":
            answer = self._post.send(gzip.compress(body, compresslevel=5), {"Content-Encoding": "gzip"})
        else:
            answer = self._post.send(body)
        if not isinstance(answer, ServerAnswer):
            return answer
        verdict = verdict_on(answer, count, tries, time.time(), self._post.mask)
        if not isinstance(verdict, Delivered):
            return verdict
        rejected, words = rejected_spans(answer.body)
        reason = excerpt(words, self._post.mask)
        # The answer does not say which spans it refuses. If it refuses as many as were sent, it is all of them.
        return Undeliverable(reason) if rejected >= count else Delivered(count, rejected, reason=reason)

    def close(self) -> None:
        """Close the connection."""
        self._post.close()


def traces_url(url: str) -> str:
    """Return the URL for traces: ``url`` itself if it ends with ``/traces``, else ``/v1/traces`` below it."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith("/traces") else path + _TRACES_PATH))


def export_request(spans: Sequence[Span], service_name: str, version: Version) -> ExportTraceServiceRequest:
    """Return spans as one OTLP request."""
    scope = InstrumentationScope(name="headrace", version=VERSION)
    scope_spans = ScopeSpans(scope=scope, schema_url=SCHEMA_URL[version], spans=spans)
    resource = Resource(attributes=_key_values({"service.name": service_name}))
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope_spans])])


def _dealt_with(
    spans: Sequence[StoredSpan], skipped: int, aside: tuple[SpanSetAside, ...], rejected: int = 0, reason: str = ""
) -> Delivered:
    """Return that all spans are done. ``rejected``: spans that were refused, in addition to those that are set aside."""
    reason = reason or (aside[-1].reason if aside else "")
    return Delivered(len(spans), rejected + len(aside), skipped, reason, aside)


def otlp_span(ids: OtelIds, described: DescribedSpan) -> Span:
    """Return a span as OpenTelemetry's message."""
    status = Status(code=Status.STATUS_CODE_ERROR, message=described.message) if described.is_error else Status()
    return Span(
        trace_id=ids.trace,
        span_id=ids.span,
        parent_span_id=ids.parent,
        name=described.name,
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=_nanoseconds(described.start),
        end_time_unix_nano=_nanoseconds(described.end),
        attributes=_key_values(described.attributes),
        events=[
            Span.Event(
                name=event.name, time_unix_nano=_nanoseconds(event.time), attributes=_key_values(event.attributes)
            )
            for event in described.events
        ],
        status=status,
    )


def _nanoseconds(seconds: float) -> int:
    """Return nanoseconds, exact to the microsecond, as a float of today's times is. The largest value is in the year 2554."""
    return min(round(span_bounds.seconds(seconds) * 1e6) * 1000, _LAST_NANOSECOND)


def _key_values(attributes: Mapping[str, Value] | Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in attributes.items()]


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():  # before int: a bool is an int too
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=span_bounds.integer(value))
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_any_value(one) for one in value]))


def rejected_spans(body: bytes) -> tuple[int, str]:
    """Return how many spans a successful answer refuses, and its reason."""
    response = ExportTraceServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return 0, ""  # many receivers answer something else; the status says that the spans were taken
    partial = response.partial_success
    return max(partial.rejected_spans, 0), partial.error_message
