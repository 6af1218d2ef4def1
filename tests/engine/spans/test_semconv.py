"""What a span looks like in OpenTelemetry: golden files, compared with the message that is sent.

``python -m tests.engine.spans.test_semconv`` writes the files anew; read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtelSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from headrace.spans.span import Rank, SpanContent, encode_content
from headrace.spans.span_database import StoredSpan
from headrace.types import AudioPart, FilePart, ImagePart, Message, Tool
from headrace_engine.spans.sinks.content_policy import without_content
from headrace_engine.spans.sinks.genai_messages import input_messages, output_messages, tool_definitions
from headrace_engine.spans.sinks.otel_ids import ids_of
from headrace_engine.spans.sinks.otlp import export_request, otlp_span, rejected_spans, traces_url
from headrace_engine.spans.sinks.semconv import Version, describe
from tests.engine.spans.span_examples import EXAMPLES, attempt, span, stored, unsampled

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: dict[str, tuple[StoredSpan, Version]] = {
    **{name: (without_content(stored(example)), "current") for name, example in EXAMPLES.items()},
    "chat_with_tools.content": (stored(EXAMPLES["chat_with_tools"]), "current"),
    "chat_with_tools.content.1.41": (stored(EXAMPLES["chat_with_tools"]), "1.41"),
    "aborted.content": (stored(EXAMPLES["aborted"]), "current"),
    "failed.content": (stored(EXAMPLES["failed"]), "current"),
    "embedding.content": (stored(EXAMPLES["embedding"]), "current"),
}


def plain(value: AnyValue) -> Any:
    """Return a value as Python has it, JSON text decoded."""
    match value.WhichOneof("value"):
        case "array_value":
            return [plain(one) for one in value.array_value.values]
        case "string_value" if value.string_value.startswith("[{"):
            return {"json": json.loads(value.string_value)}
        case field:
            return getattr(value, str(field))


def readable(otel: OtelSpan) -> dict[str, Any]:
    return {
        "name": otel.name,
        "trace_id": otel.trace_id.hex(),
        "span_id": otel.span_id.hex(),
        "parent_span_id": otel.parent_span_id.hex(),
        "kind": OtelSpan.SpanKind.Name(otel.kind),
        "start": otel.start_time_unix_nano,
        "end": otel.end_time_unix_nano,
        "status": [Status.StatusCode.Name(otel.status.code), otel.status.message],
        "attributes": {one.key: plain(one.value) for one in otel.attributes},
        "events": [
            {
                "name": event.name,
                "time": event.time_unix_nano,
                "attributes": {one.key: plain(one.value) for one in event.attributes},
            }
            for event in otel.events
        ],
    }


def exported(example: StoredSpan, version: Version) -> dict[str, Any]:
    span = otlp_span(ids_of(example.span), describe(example, version))
    request = export_request([span], "shop", version)
    return readable(type(request).FromString(request.SerializeToString()).resource_spans[0].scope_spans[0].spans[0])


def text(exported: dict[str, Any]) -> str:
    return json.dumps(exported, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_span_looks_as_it_did(name: str) -> None:
    # As text, since 40 and 40.0, or 1 and true, are the same to Python and not to a receiver.
    assert text(exported(*CASES[name])) == (GOLDEN / f"{name}.json").read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)


def asked(provider: str, wire_format: str, telemetry_provider: str) -> StoredSpan:
    """Return the span of a run that was sent to ``provider`` in a wire format."""
    said = attempt(1, wire_format=wire_format, telemetry_provider=telemetry_provider)
    messages = [Message("system", "Be brief."), Message("user", "Hi")]
    return stored(span(1, provider=provider, attempts=[said], content=encode_content(SpanContent(messages=messages))))


@pytest.mark.parametrize(
    ("provider", "wire_format", "telemetry_provider", "name", "operation"),
    [
        ("our-gateway", "google", "gcp.gemini", "gcp.gemini", "generate_content"),
        ("our-gateway", "anthropic", "anthropic", "anthropic", "chat"),
        ("our-gateway", "openai-responses", "openai", "openai", "chat"),
        ("our-gateway", "ollama-chat", "ollama", "ollama", "chat"),
        ("google", "openai-chat", "openai", "openai", "chat"),
        ("google", "google", "gcp.gemini", "gcp.gemini", "generate_content"),
        ("groq", "openai-chat", "openai", "groq", "chat"),
        ("xai", "openai-chat", "openai", "x_ai", "chat"),
        ("azure", "openai-chat", "openai", "azure.ai.openai", "chat"),
        ("azure", "openai-responses", "openai", "azure.ai.openai", "chat"),
        ("azure", "anthropic", "anthropic", "anthropic", "chat"),
        ("openai", "openai-chat", "openai", "openai", "chat"),
        ("openai", "openai-responses", "openai", "openai", "chat"),
        ("openai-chat", "openai-chat", "openai", "openai", "chat"),
    ],
)
def test_a_span_is_described_by_its_wire_format_and_not_by_the_name_of_its_provider(
    provider: str, wire_format: str, telemetry_provider: str, name: str, operation: str
) -> None:
    attributes = describe(asked(provider, wire_format, telemetry_provider), "current").attributes

    assert attributes["gen_ai.provider.name"] == name
    assert attributes["gen_ai.operation.name"] == operation
    assert attributes["headrace.provider"] == provider
    assert ("gen_ai.system_instructions" in attributes) == (name in ("anthropic", "gcp.gemini"))


@pytest.mark.parametrize(
    ("provider", "name", "operation"),
    [("google", "gcp.gemini", "generate_content"), ("our-gateway", "our-gateway", "chat"), ("xai", "x_ai", "chat")],
)
def test_a_span_from_an_older_version_is_described_by_the_name_of_its_provider(
    provider: str, name: str, operation: str
) -> None:
    attributes = describe(asked(provider, "", ""), "current").attributes

    assert attributes["gen_ai.provider.name"] == name
    assert attributes["gen_ai.operation.name"] == operation


def test_a_retry_without_a_wire_format_leaves_the_earlier_one() -> None:
    lost = attempt(1, number=2, outcome="lost")
    told = attempt(1, wire_format="google", telemetry_provider="gcp.gemini")

    attributes = describe(stored(span(1, provider="our-gateway", attempts=[told, lost])), "current").attributes

    assert attributes["gen_ai.provider.name"] == "gcp.gemini"


@pytest.mark.parametrize("name", EXAMPLES)
def test_content_is_sent_only_with_permission(name: str) -> None:
    attributes = exported(without_content(stored(EXAMPLES[name])), "current")["attributes"]

    assert not [key for key in attributes if "messages" in key or "instructions" in key or "definitions" in key]


def test_a_request_says_whose_spans_they_are() -> None:
    request = export_request([], "shop", "1.41")
    resource_spans = request.resource_spans[0]

    assert [(one.key, plain(one.value)) for one in resource_spans.resource.attributes] == [("service.name", "shop")]
    assert resource_spans.scope_spans[0].scope.name == "headrace"
    assert resource_spans.scope_spans[0].schema_url == "https://opentelemetry.io/schemas/1.41.0"


def test_ids_are_exact_and_the_same_each_time() -> None:
    own = ids_of(span(0xABC, trace_id="tr_0123456789abcdef", parent_span_id="sp_fedcba9876543210"))

    assert own.span.hex() == "0000000000000abc"
    assert own.trace.hex() == "00000000000000000123456789abcdef"
    assert own.parent.hex() == "fedcba9876543210"


def test_a_span_is_a_child_of_the_callers_own_span() -> None:
    ids = ids_of(EXAMPLES["with_traceparent"])

    assert ids.trace.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert ids.parent.hex() == "b7ad6b7169203331"
    assert ids.is_sampled
    assert not ids_of(unsampled()).is_sampled


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{'0' * 16}-01", "00-AB-CD-01"])
def test_a_broken_traceparent_is_ignored(traceparent: str) -> None:
    assert ids_of(span(1, traceparent=traceparent)) == ids_of(span(1))


def test_a_run_without_a_known_trace_is_a_trace_of_its_own() -> None:
    ids = ids_of(EXAMPLES["lost"])

    assert EXAMPLES["lost"].rank is Rank.STUB
    assert ids.trace.hex() == "00000000000000000000000000000004"
    assert ids.parent == b""


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://host/otel/v1/traces", "https://host/otel/v1/traces"),
        ("https://host/otel/v1/traces/", "https://host/otel/v1/traces"),
        ("https://host/api/v0.2/traces", "https://host/api/v0.2/traces"),
        ("https://host/otel?key=1", "https://host/otel/v1/traces?key=1"),
    ],
)
def test_traces_go_below_the_collectors_address(given: str, url: str) -> None:
    assert traces_url(given) == url


@given(st.binary(max_size=200))
def test_no_answer_to_an_export_is_an_error(body: bytes) -> None:
    rejected, words = rejected_spans(body)

    assert rejected >= 0
    assert isinstance(words, str)


if __name__ == "__main__":
    for name, case in CASES.items():
        (GOLDEN / f"{name}.json").write_text(text(exported(*case)))


def test_a_tool_of_the_provider_s_own_is_described_by_its_settings() -> None:
    tools = [Tool("f", "does f", {"type": "object"}), Tool("", type="web_search", extra={"max_uses": 2})]

    assert tool_definitions(tools) == [
        {"type": "function", "name": "f", "description": "does f", "parameters": {"type": "object"}},
        {"type": "web_search", "name": "web_search", "max_uses": 2},
    ]


def test_audio_and_files_have_the_conventions_forms() -> None:
    asked = Message(
        "user",
        [
            AudioPart("QQ==", "audio/wav"),
            FilePart("a.pdf", "application/pdf", "QQ=="),
            FilePart(url="https://x.test/a.mp4", media_type="video/mp4"),
            FilePart(file_id="file_1"),
            FilePart("a.txt", text="words"),
        ],
    )
    made = SpanContent(media=[ImagePart(data="QQ==", media_type="image/png")])

    assert input_messages(SpanContent(), [asked])[0]["parts"] == [
        {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "QQ=="},
        {"type": "blob", "modality": "document", "mime_type": "application/pdf", "content": "QQ=="},
        {"type": "uri", "modality": "video", "mime_type": "video/mp4", "uri": "https://x.test/a.mp4"},
        {"type": "file", "modality": "document", "file_id": "file_1"},
        {"type": "text", "content": "words"},
    ]
    assert output_messages(made, "stop")[0]["parts"] == [
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "QQ=="}
    ]


def test_the_attempts_of_a_fallback_and_of_a_hedge_say_so_and_do_not_name_the_span() -> None:
    failed = attempt(
        1, number=1, provider="our-gateway", model="m-1", wire_format="google", telemetry_provider="gcp.gemini"
    )
    answered = attempt(1, number=2, worker="w2", wire_format="openai-chat", telemetry_provider="openai")
    beaten = attempt(1, number=3, worker="w3", outcome="beaten", is_hedge=True)
    told = span(1, provider="groq", attempts=[failed, answered, beaten], queue_reason="limit")

    described = describe(stored(told), "current")
    assert described.attributes["gen_ai.provider.name"] == "groq"
    assert described.attributes["headrace.worker"] == "w2"
    assert described.attributes["headrace.queue_reason"] == "limit"
    names = [
        (event.attributes.get("headrace.attempt.provider"), event.attributes.get("headrace.attempt.is_hedge"))
        for event in described.events
    ]
    assert names == [("our-gateway", None), (None, None), (None, True)]
