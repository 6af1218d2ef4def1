"""Reads what a checker needs: the histories of an engine's processes, and the provider's log of the same time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.process.history import HistoryEvent
from headrace.testing.shared.request_log import RequestRecord

decode_event = msgspec.json.Decoder(HistoryEvent).decode
_SPAN_ID = re.compile(r"sp_[0-9a-f]{16}")


class ProcessHistory(msgspec.Struct, frozen=True):
    """What one process wrote, in its order. ``role`` is client, broker, worker, supervisor, caller or harness."""

    role: str
    pid: int
    epoch: int
    events: list[HistoryEvent]


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the simulated provider got for a run. ``ended_at`` is None while it is open."""

    span_id: str
    arrived_at: float
    ended_at: float | None
    is_complete: bool
    sent_text: str


class Violation(msgspec.Struct, frozen=True):
    """A promise that was not kept."""

    name: str
    span_id: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.span_id} {self.detail}"


def read_histories(directory: Path) -> list[ProcessHistory]:
    """Return the histories in a directory. A line that a process's death left unfinished is no line."""
    histories = []
    for path in sorted(directory.glob("*-*-*.jsonl")):
        role, pid, epoch = path.stem.split("-")
        lines = path.read_bytes().split(b"\n")[:-1]
        histories.append(ProcessHistory(role, int(pid), int(epoch), [decode_event(line) for line in lines]))
    return histories


def provider_calls(records: Iterable[RequestRecord]) -> Iterator[ProviderCall]:
    """Yield the calls of runs whose prompt holds their span id, as the harness's all do."""
    for record in records:
        found = _SPAN_ID.search(json.dumps(record.body))
        if found is not None:
            yield ProviderCall(
                span_id=found.group(),
                arrived_at=record.arrived_at,
                ended_at=record.ended_at,
                is_complete=record.outcome == "complete",
                sent_text=record.sent_text,
            )
