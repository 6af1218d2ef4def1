"""Every span can be sent, stored, read, shown and exported, whatever values its fields have."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headrace.cli.spans.span_details import shown
from headrace.cli.spans.span_export import export
from headrace.cli.spans.span_table import Table
from headrace.settings.settings import SinkConfig
from headrace.spans.reading import exported_span as spans_record
from headrace.spans.span import COUNTS, TIMES, Span, SpanContent, bounded, decode_span, encode_content, encode_span
from headrace.spans.span_database import COLUMNS, SCHEMA, StoredSpan, from_row, open_for_reading, to_row
from headrace.spans.value_bounds import LAST_TIME, MOST, encodable
from headrace_engine.spans.sinks import http_json, jsonl
from headrace_engine.spans.sinks.answer_policy import Delivered, ServerAnswer
from headrace_engine.spans.sinks.content_policy import without_content
from headrace_engine.spans.sinks.encoding import encoded
from headrace_engine.spans.sinks.otlp import OtlpSink
from headrace_engine.spans.sinks.unsent_spans import MAX_BATCH_BYTES, _within
from tests.engine.spans.span_examples import chat_with_tools, stored
from tests.extreme_spans import CONTENTS, COSTS, SPANS
from tests.hostile_values import steering
from tests.repetition import repeated

INSERT = f"INSERT INTO spans ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
FEW = settings(max_examples=repeated(20, 60), deadline=None, suppress_health_check=list(HealthCheck))


def whole(span: Span, content: SpanContent | None) -> Span:
    """Return a span with content that a worker could have encoded, if any could."""
    try:
        return span if content is None else msgspec.structs.replace(span, content=encode_content(content))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return span


@FEW
@given(SPANS, CONTENTS)
def test_every_span_crosses_to_the_collector(span: Span, content: SpanContent) -> None:
    arrived = decode_span(encode_span(whole(span, content)))

    assert all(0 <= getattr(arrived.usage, name) <= MOST for name in COUNTS)
    assert all(0 <= (getattr(arrived, name) or 0.0) <= LAST_TIME for name in TIMES)
    assert bounded(arrived) is arrived


@FEW
@given(SPANS, CONTENTS, COSTS)
def test_every_span_that_is_stored_is_shown_by_every_command(
    span: Span, content: SpanContent, cost: float | None
) -> None:
    row = to_row(decode_span(encode_span(whole(span, content))), cost)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        connection.row_factory = sqlite3.Row
        connection.execute(INSERT, row)
        read = from_row(connection.execute("SELECT * FROM spans").fetchone())

    out = io.StringIO()
    json.loads(spans_record.line(read))
    json.loads(json.dumps(spans_record.record(read), allow_nan=False))
    lines = [*shown(read, out), Table(120, out).line(read, 1.8e9), Table(20, out).line(read, 1.8e9), *_cells(read)]
    assert steering("\n".join(lines)) == set()


def _cells(read: StoredSpan) -> list[str]:
    return [str(value) for name, value in spans_record.flat(read).items() if name.endswith("_at")]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_every_span_is_exported(form: Any, tmp_path: Path) -> None:
    found: list[StoredSpan] = []

    @FEW
    @given(SPANS, CONTENTS, COSTS)
    def collect(span: Span, content: SpanContent, cost: float | None) -> None:
        found.append(StoredSpan(1, decode_span(encode_span(whole(span, content))), cost))

    collect()
    assert export(found, form, tmp_path / "out") == len(found)


ENCODERS: dict[str, Callable[[StoredSpan], object]] = {
    "jsonl": lambda stored: json.loads(jsonl.line(stored)),
    "http": lambda stored: json.loads(http_json._encode(http_json.payload(stored))),
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "never bounded"])
def test_every_span_can_be_encoded_for_a_file_and_for_an_api(kind: str, is_stored: bool) -> None:
    @FEW
    @given(SPANS, CONTENTS, COSTS)
    def check(span: Span, content: SpanContent, cost: float | None) -> None:
        given = whole(span, content)
        one = StoredSpan(1, decode_span(encode_span(given)) if is_stored else given, cost)
        taken, aside = encoded([stored(chat_with_tools()), one, stored(chat_with_tools())], ENCODERS[kind])
        assert ([index for index, _ in taken], aside) == ([0, 1, 2], ())
        assert b"\n" not in jsonl.line(one).rstrip(b"\n") if is_stored else True

    check()


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "never bounded"])
@pytest.mark.parametrize("has_content", [True, False], ids=["content", "no content"])
def test_every_span_can_be_encoded_for_opentelemetry(
    is_stored: bool, has_content: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = OtlpSink(SinkConfig(type="otlp", url="http://127.0.0.1:1", content=True), {})
    bodies: list[bytes] = []

    def post(body: bytes, *_: object) -> ServerAnswer:
        bodies.append(body)
        return ServerAnswer(200)

    monkeypatch.setattr(sink._post, "send", post)

    @FEW
    @given(SPANS, CONTENTS, COSTS)
    def check(span: Span, content: SpanContent, cost: float | None) -> None:
        given = whole(msgspec.structs.replace(span, traceparent=None), content)
        one = StoredSpan(1, decode_span(encode_span(given)) if is_stored else given, cost)
        bodies.clear()
        assert sink.send([one if has_content else without_content(one), stored(chat_with_tools())], 1) == Delivered(2)
        (found, _) = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans[0].scope_spans[0].spans
        assert (len(found.span_id), len(found.trace_id)) == (8, 16)
        assert any(found.span_id)
        assert any(found.trace_id)
        assert len(found.parent_span_id) in (0, 8)

    check()
    sink.close()


def test_a_value_that_cannot_be_encoded_becomes_the_nearest_possible_value() -> None:
    assert encodable({"a": [2**70, float("inf"), "x\ud800"], 1: object()}) == {
        "a": [MOST, 1.7e308, "x\ufffd"],
        "1": "object",
    }


def test_a_damaged_letter_hides_neither_the_row_nor_the_file(tmp_path: Path) -> None:
    path = tmp_path / "spans-2026-11-23.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        connection.execute(INSERT, to_row(chat_with_tools(), None))
        connection.execute("UPDATE spans SET error = CAST(x'ff61' AS TEXT)")
        connection.commit()
    with closing(open_for_reading(path)) as connection:
        assert from_row(connection.execute("SELECT * FROM spans").fetchone()).span.error == "\ufffda"


def test_a_batch_counts_all_that_may_be_large() -> None:
    large = [
        msgspec.structs.replace(chat_with_tools(), content=b"", **{name: value})
        for name, value in [
            ("error", "x" * 3_000_000),
            ("tags", ["x" * 3_000_000]),
            ("parameters", {"a": ["x" * 3_000_000]}),
        ]
    ]

    assert [len(list(_within([stored(span), stored(span)], MAX_BATCH_BYTES))) for span in large] == [1, 1, 1]
