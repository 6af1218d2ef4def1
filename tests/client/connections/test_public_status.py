"""What is promised of the public status of an engine: it has all that the broker says, in plain words."""

from __future__ import annotations

from pathlib import Path

from headrace.connections.public_status import public_status, status_without_engine
from headrace.status import (
    EngineStatus,
    LimitState,
    PoolState,
    ProcessState,
    SinkState,
    SpanState,
    SpendingState,
    WorkerState,
)
from headrace.wire.engine_status import (
    LevelStatus,
    PoolStatus,
    ProcessStatus,
    SinkStatus,
    SpanStatus,
    SpendingStatus,
    WorkerStatus,
)
from headrace.wire.messages import Status


def test_it_has_all_that_the_broker_says() -> None:
    sink = SinkStatus("phoenix", "retrying", 5, 4, 3, "slow down", 2)
    spans = SpanStatus("/data/0", "disk full", 9, 8, 7, 6, {"spool_full": 1}, "no room", [sink], 0.5)
    worker, process = WorkerStatus("w1", 12, "ok", 3, 0.25), ProcessStatus("w1", 12, "running", 1, "signal 9", 77, True)
    level = LevelStatus("tokens", 30_000, 12_000, "headers")
    pool = PoolStatus("openai", "gpt-4o", "ab12", [level], 3, 4, 1.5, 8, "half-open", 5, 6, 70, "401")
    limits = [pool], [SpendingStatus("team", 0.5, 10.0)], {"blocked": 4}, "no answer"
    message = Status(11, "0.1.0", 61.0, 2, 3, 4, 70, 1, [worker], [process], spans, *limits)

    status = public_status("ipc:///run/engine", message)

    assert status == EngineStatus(
        address="ipc:///run/engine",
        is_running=True,
        reason="",
        version="0.1.0",
        broker_pid=11,
        uptime=61.0,
        clients=2,
        runs=3,
        waiting=4,
        admitted=70,
        refused=1,
        workers=[WorkerState(name="w1", pid=12, state="ok", runs=3, last_seen=0.25)],
        processes=[ProcessState(name="w1", pid=12, state="running", restarts=1, last_end="signal 9")],
        waiting_for={"blocked": 4},
        pools=[
            PoolState(
                provider="openai",
                model="gpt-4o",
                key="ab12",
                limits=[LimitState(kind="tokens", limit=30_000, left=12_000, source="headers")],
                running=3,
                waiting=4,
                blocked_for=1.5,
                concurrency=8,
                breaker="half-open",
                rate_limited=5,
                retries=6,
                admitted=70,
                out_of_rotation="401",
            )
        ],
        spending=[SpendingState(name="team", spent=0.5, max_cost=10.0)],
        budget="no answer",
        spans=SpanState(
            directory="/data/0",
            state="disk full",
            stored=9,
            waiting=7,
            recovered=8,
            untraced=6,
            dropped={"spool_full": 1},
            error="no room",
            age=0.5,
            sinks=[
                SinkState(
                    name="phoenix", state="retrying", delivered=5, pending=4, failed=3, set_aside=2, error="slow down"
                )
            ],
        ),
    )


def test_an_engine_that_does_not_run_has_a_reason_and_nothing_else() -> None:
    before = status_without_engine(has_started=False, log=None)
    after = status_without_engine(has_started=True, log=Path("/data/logs/a.log"))
    without_log = status_without_engine(has_started=True, log=None)

    assert before == EngineStatus(
        address="embedded", is_running=False, reason="it has not started yet; the first run starts it"
    )
    assert after.reason == "it has ended, and the next run starts another; its log is /data/logs/a.log"
    assert without_log.reason == "it has ended, and the next run starts another"
