"""What is promised of the public status of an engine: it has all that the broker says, in plain words."""

from __future__ import annotations

from pathlib import Path

from headrace.connections.public_status import public_status, status_without_engine
from headrace.status import EngineStatus, ProcessState, SinkState, SpanState, WorkerState
from headrace.wire.engine_status import ProcessStatus, SinkStatus, SpanStatus, WorkerStatus
from headrace.wire.messages import Status


def test_it_has_all_that_the_broker_says() -> None:
    sink = SinkStatus("phoenix", "retrying", 5, 4, 3, "slow down", 2)
    spans = SpanStatus("/data/0", "disk full", 9, 8, 7, 6, {"spool_full": 1}, "no room", [sink], 0.5)
    worker, process = WorkerStatus("w1", 12, "ok", 3, 0.25), ProcessStatus("w1", 12, "running", 1, "signal 9", 77, True)
    message = Status(11, "0.1.0", 61.0, 2, 3, 4, 70, 1, [worker], [process], spans)

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
