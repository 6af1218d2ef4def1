"""``headrace status`` shows the state of an engine's spans. Tests with a real engine are in test_cli."""

from __future__ import annotations

import json

import msgspec
import pytest

from headrace.cli import status_command
from headrace.wire.engine_status import SinkStatus, SpanStatus
from headrace.wire.messages import Status

FINE = SpanStatus("/var/lib/headrace/0", stored=1204, waiting=3, untraced=2, age=0.4)


def engine(spans: SpanStatus | None) -> Status:
    return Status(1, "0.1.0", 61.0, 1, 0, 0, 7, 0, [], [], spans)


def shown(spans: SpanStatus | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines below the workers."""
    status_command._show("ipc:///run/engine", engine(spans))
    return capsys.readouterr().out.partition("LAST SEEN\n")[2].strip("\n").splitlines()


def test_spans_that_are_kept_are_counted_and_located(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(FINE, capsys) == ["  spans: 1204 stored, 3 waiting, 2 untraced; in /var/lib/headrace/0"]


def test_spans_that_are_not_kept_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(None, capsys) == ["  spans: off"]


def test_lost_spans_are_counted_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    full = msgspec.structs.replace(
        FINE,
        state="disk full",
        error="database or disk is full",
        recovered=9,
        untraced=0,
        dropped={"spool_full": 12, "memory_full": 1},
        age=31.0,
    )

    assert shown(full, capsys) == [
        "  spans: 1204 stored, 3 waiting, 9 recovered from processes that died; in /var/lib/headrace/0",
        "  disk full: database or disk is full",
        "  dropped: 1 memory_full, 12 spool_full",
        "  the collector's last report is 31 s old",
    ]


def test_each_sink_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    sinks = [SinkStatus("phoenix", "ok", 1200, 4), SinkStatus("tracia", "retrying", 0, 1204, 3, "429\nslow down")]

    assert shown(msgspec.structs.replace(FINE, sinks=sinks), capsys)[1:] == [
        "",
        "  SINK     STATE     DELIVERED  PENDING  FAILED  ERROR",
        "  phoenix  ok        1200       4        0",
        "  tracia   retrying  0          1204     3       429 slow down",
    ]


def test_json_has_all_of_it() -> None:
    with_sink = msgspec.structs.replace(FINE, sinks=[SinkStatus("phoenix", "ok", 5)])

    fields = json.loads(json.dumps(msgspec.to_builtins(status_command._fields(engine(with_sink)))))

    assert (fields["spans"]["stored"], fields["spans"]["sinks"][0]["delivered"]) == (1204, 5)
    assert json.loads(json.dumps(msgspec.to_builtins(status_command._fields(engine(None)))))["spans"] is None
