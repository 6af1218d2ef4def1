"""Makes span databases for tests, like those of a collector: one call makes one file in one slot."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headrace.spans.data_directory import file_name
from headrace.spans.span import ContentToolCall, Rank, Span, SpanAttempt, SpanContent, encode_content
from headrace.spans.span_database import COLUMNS, SCHEMA, to_row
from headrace.types import ImagePart, Message, TextPart, Tool, ToolCallPart, Usage

NOON = 1_773_489_600.0  # 2026-03-14 12:00 UTC

_INSERT = f"INSERT INTO spans ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_numbers = itertools.count(1)
_open: list[Database] = []


class Database:
    """A database that a test writes to. It stays open, like that of an engine."""

    def __init__(self, directory: Path, slot: int = 0, day: str = "2026-03-14", number: int = 0) -> None:
        folder = directory / str(slot)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / file_name(day, number)
        self._connection = sqlite3.connect(self.path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.executescript(SCHEMA)
        _open.append(self)

    def add(self, *spans: Span, cost: float | None = None) -> None:
        """Store spans, all at the same cost."""
        self.add_all((span, cost) for span in spans)

    def add_all(self, spans: Iterable[tuple[Span, float | None]]) -> None:
        """Store spans with their costs, in one transaction."""
        with self._connection:
            self._connection.executemany(_INSERT, (to_row(span, cost) for span, cost in spans))

    def replace(self, span: Span, cost: float | None = None) -> None:
        """Replace a stored span, as a span of higher rank does."""
        with self._connection:
            self._connection.execute("DELETE FROM spans WHERE span_id = ?", [span.span_id])
            self._connection.execute(_INSERT, to_row(span, cost))

    def execute(self, statement: str) -> None:
        """Change the database in a way that no engine does."""
        with self._connection:
            self._connection.execute(statement)

    def close(self) -> None:
        """Close the database, as an ending engine does. May be called twice."""
        self._connection.close()


def close_all() -> None:
    """Close every database that is open."""
    while _open:
        _open.pop().close()


def content(question: str = "Hello?", text: str = "Hello.", **others: Any) -> bytes:
    """Return a span's content: a question and its answer."""
    messages = others.pop("messages", [Message("user", question)])
    return encode_content(SpanContent(messages=messages, text=text, **others))


def span(**fields: Any) -> Span:
    """Return the span of a successful run, with the given fields."""
    number = next(_numbers)
    usual: dict[str, Any] = {
        "span_id": f"sp_{number:016x}",
        "rank": Rank.WORKER,
        "provider": "openai",
        "model": "gpt-4o",
        "trace_id": f"tr_{number:016x}",
        "streamed": True,
        "status": "ok",
        "finish_reason": "stop",
        "started_at": NOON + number / 1000,
        "ended_at": NOON + number / 1000 + 1.25,
        "duration_seconds": 1.25,
        "first_chunk_seconds": 0.31,
        "usage": Usage(25, 40, 65, source="provider"),
        "content": content(),
    }
    return Span(**usual | fields)


def tool_run() -> Span:
    """Return a span with all fields that can be shown."""
    image = ImagePart(data="A" * 4096, media_type="image/png")
    return span(
        span_id="sp_3f2a91c04b7e5d10",
        trace_id="tr_00c0ffee00c0ffee",
        parent_span_id="sp_0000000000000abc",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        response_model="gpt-4o-2024-08-06",
        response_id="chatcmpl-1",
        provider_finish_reason="tool_calls",
        finish_reason="tool_calls",
        started_at=NOON,
        queue_seconds=0.004,
        usage=Usage(25, 40, 65, cached_input_tokens=12, reasoning_tokens=8, source="provider"),
        tags=["demo", "weather"],
        user_id="user-7",
        session_id="chat-1",
        parameters={"temperature": 0.2},
        attempts=[
            SpanAttempt(1, "w1", NOON, NOON + 0.1, outcome="worker_failed", reason="killed", maybe_billed=True),
            SpanAttempt(2, "w2", NOON + 0.1, NOON + 1.25, NOON + 0.28, NOON + 0.31, 200, "req_1", "finished"),
        ],
        content=content(
            messages=[
                Message("system", "Be brief."),
                Message("user", [TextPart("Is it warmer\nthan in Rome?"), image]),
                Message("assistant", [ToolCallPart("call_1", "get_weather", {"location": "Rome"})]),
                Message("tool", '{"temperature": 21}', tool_call_id="call_1", tool_name="get_weather"),
            ],
            text="Let me look.",
            reasoning="I need Tokyo's weather too.",
            tools=[Tool("get_weather")],
            tool_calls=[ContentToolCall("call_2", "get_weather", '{"location": "Tokyo"}')],
        ),
    )
