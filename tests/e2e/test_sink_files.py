"""Promises of the sink that appends to a file."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from pathlib import Path

import msgspec

from headrace.settings.settings import SinkConfig
from headrace.spans.reading import exported_span as spans_record
from headrace_engine.spans.sinks.answer_policy import Delivered, Retry
from headrace_engine.spans.sinks.jsonl import JsonLinesSink
from tests.e2e.sink_runs import Start, ids, only, runs
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import EXAMPLES, span, stored
from tests.waiting import wait_until


def test_a_file_gets_a_line_for_each_span_as_an_export_writes_it(
    slot: SlotWriter, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "below" / "spans.jsonl"
    slot.write(EXAMPLES.values())
    sinks = start(file=SinkConfig(type="jsonl", path=str(path), content=True))
    wait_until(lambda: only(sinks).delivered == len(EXAMPLES))

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    expected = [spans_record.record(msgspec.structs.replace(stored(one), cost=None)) for one in EXAMPLES.values()]
    assert lines == json.loads(msgspec.json.encode(expected))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_waited_out(slot: SlotWriter, start: Start) -> None:
    slot.write(runs(5))
    sinks = start(file=SinkConfig(type="jsonl", path="/dev/full"))

    wait_until(lambda: only(sinks).error == "No space left on device")
    assert only(sinks).state in ("retrying", "open")
    assert only(sinks).failed == 0


def test_no_line_is_cut_when_a_disk_fills_up(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    sink = JsonLinesSink(SinkConfig(type="jsonl", path=str(path)))
    spans = [stored(one) for one in runs(100)]
    assert sink.send(spans[:50], 1) == Delivered(50)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        assert isinstance(sink.send(spans[50:], 1), Retry)
        assert path.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sink.send(spans[50:], 2) == Delivered(50)

    assert [json.loads(line)["span_id"] for line in path.read_text().splitlines()] == ids(runs(100))


def test_a_line_that_a_killed_writer_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"span_id": "sp_0')
    sink = JsonLinesSink(SinkConfig(type="jsonl", path=str(path)))

    assert sink.send([stored(span(1))], 1) == Delivered(1)

    assert json.loads(path.read_text().splitlines()[1])["span_id"] == span(1).span_id


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    sink = JsonLinesSink(SinkConfig(type="jsonl", path=str(path)))
    sink.send([stored(span(1))], 1)
    os.rename(path, tmp_path / "spans.jsonl.1")
    sink.send([stored(span(2))], 1)

    assert len(path.read_text().splitlines()) == 1
