"""``headrace status`` shows the state of an engine's spans. Tests with a real engine are in test_cli."""

from __future__ import annotations

import json

import msgspec
import pytest

from headrace.cli import status_command
from headrace.wire.engine_status import LevelStatus, PoolStatus, SinkStatus, SpanStatus, SpendingStatus
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


# Limits.

POOL = PoolStatus(
    "openai",
    "gpt-4o",
    levels=[LevelStatus("requests", 600, 12), LevelStatus("input_tokens", 30_000, 9_000, "headers")],
    running=3,
    waiting=40,
    granted_total=700,
    retries_total=2,
)


def test_limits_are_shown_with_what_is_left_and_what_runs_wait_for(capsys: pytest.CaptureFixture[str]) -> None:
    blocked = msgspec.structs.replace(
        POOL, model="o3", key="ab12cd34", blocked_for=1.25, concurrency=8, breaker="half-open", rate_limited_total=5
    )
    refused = PoolStatus("openai", "*", "99ffee00", out_of_rotation="401")
    status = msgspec.structs.replace(
        engine(None),
        waiting=43,
        pools=[POOL, blocked, refused],
        spending=[SpendingStatus("team", 3.25, 10.0), SpendingStatus("tests", 1.0, 1.0)],
        waiting_for={"workers": 1, "limit": 40, "blocked": 2},
        budget="redis does not answer",
    )

    status_command._show("ipc:///run/engine", status)

    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "  waiting: 40 for a limit, 2 because the provider asked for a pause, 1 for a worker"
    assert lines[lines.index("") + 3 :] == [
        "  POOL           KEY       STATE                                 RUNS    WAITING"
        "  LEFT IN THIS MINUTE                             429  RETRIES",
        "  openai/gpt-4o            ok                                    3       40     "
        "  12 of 600 requests, 9000 of 30000 input tokens  0    2",
        "  openai/o3      ab12cd34  breaker half-open, blocked for 1.2 s  3 of 8  40     "
        "  12 of 600 requests, 9000 of 30000 input tokens  5    2",
        "  openai/*       99ffee00  out of rotation: 401                  0       0                   "
        "                                     0    0",
        "",
        "  SPENDING LIMIT  STATE    SPENT TODAY  OF",
        "  team            ok       $3.2500      $10.00",
        "  tests           reached  $1.0000      $1.00",
        "",
        "  limits shared with other engines: the store cannot be used, so this engine uses its own part; redis does not answer",
        "",
        "  spans: off",
    ]


def test_nothing_is_shown_of_limits_while_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    status_command._show("ipc:///run/engine", engine(None))

    out = capsys.readouterr().out
    assert not any(word in out for word in ("POOL", "SPENDING", "waiting:", "shared"))


def test_json_has_the_limits() -> None:
    status = msgspec.structs.replace(engine(None), pools=[POOL], waiting_for={"limit": 40})

    fields = json.loads(json.dumps(msgspec.to_builtins(status_command._fields(status))))

    assert fields["pools"][0]["levels"][1] == {
        "kind": "input_tokens",
        "limit": 30_000,
        "left": 9_000,
        "source": "headers",
    }
    assert (fields["waiting_for"], fields["spending"], fields["budget"]) == ({"limit": 40}, [], "")


def test_json_has_all_of_it() -> None:
    with_sink = msgspec.structs.replace(FINE, sinks=[SinkStatus("phoenix", "ok", 5)])

    fields = json.loads(json.dumps(msgspec.to_builtins(status_command._fields(engine(with_sink)))))

    assert (fields["spans"]["stored"], fields["spans"]["sinks"][0]["delivered"]) == (1204, 5)
    assert json.loads(json.dumps(msgspec.to_builtins(status_command._fields(engine(None)))))["spans"] is None
