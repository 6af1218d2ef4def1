"""Large answers for tests, how a run reads them, and how long it may take."""

from __future__ import annotations

import json
from typing import Any

from tests.workers.runs.driven import Driven

JSON = {"content-type": "application/json"}
CHEAP = 0.5
"""Seconds of CPU that one turn of a worker's loop may take."""


def list_of(item: bytes, count: int) -> bytes:
    return b"[" + (item + b",") * (count - 1) + item + b"]"


def data(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events)


def read(run: Driven, piece: bytes) -> Any:
    """Read a piece and send all messages; return the last one."""
    run.core.received(piece, 0.0)
    messages, _ = run.core.take(0.0)
    return messages[-1] if messages else None


def refused(run: Driven) -> str:
    assert (run.failure.kind, run.failure.code) == ("provider_protocol", "answer_too_large")
    return run.failure.reason
