"""Makes the public status of an engine from the broker's message. Pure."""

from __future__ import annotations

from pathlib import Path

from headrace.settings.settings import EMBEDDED
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
from headrace.wire.engine_status import PoolStatus, ProcessStatus, SinkStatus, SpanStatus
from headrace.wire.messages import Status

_NOT_STARTED = "it has not started yet; the first run starts it"


def public_status(address: str, status: Status) -> EngineStatus:
    """Return the status of a running engine."""
    return EngineStatus(
        address=address,
        is_running=True,
        reason="",
        version=status.version,
        broker_pid=status.pid,
        uptime=status.uptime,
        clients=status.clients,
        runs=status.leases,
        waiting=status.waiting,
        admitted=status.granted_total,
        refused=status.refused_total,
        workers=[
            WorkerState(name=found.name, pid=found.pid, state=found.state, runs=found.runs, last_seen=found.last_seen)
            for found in status.workers
        ],
        processes=[_process(found) for found in status.processes],
        spans=_spans(status.spans) if status.spans is not None else None,
        waiting_for=dict(status.waiting_for),
        pools=[_pool(found) for found in status.pools],
        spending=[
            SpendingState(name=found.name, spent=found.spent, max_cost=found.max_cost) for found in status.spending
        ],
        budget=status.budget,
    )


def status_without_engine(*, has_started: bool, log: Path | None) -> EngineStatus:
    """Return the status of a program's own engine that does not run.

    ``has_started``: there was one. ``log`` is its log, if that was kept.
    """
    reason = "it has ended, and the next run starts another" if has_started else _NOT_STARTED
    if log is not None:
        reason = f"{reason}; its log is {log}"
    return EngineStatus(address=EMBEDDED, is_running=False, reason=reason)


def _process(found: ProcessStatus) -> ProcessState:
    return ProcessState(
        name=found.name, pid=found.pid, state=found.state, restarts=found.restarts, last_end=found.reason
    )


def _pool(found: PoolStatus) -> PoolState:
    return PoolState(
        provider=found.provider,
        model=found.model,
        key=found.key,
        limits=[
            LimitState(kind=level.kind, limit=level.limit, left=level.left, source=level.source)
            for level in found.levels
        ],
        running=found.running,
        waiting=found.waiting,
        blocked_for=found.blocked_for,
        concurrency=found.concurrency,
        breaker=found.breaker,
        rate_limited=found.rate_limited_total,
        retries=found.retries_total,
        admitted=found.granted_total,
        out_of_rotation=found.out_of_rotation,
    )


def _spans(found: SpanStatus) -> SpanState:
    return SpanState(
        directory=found.directory,
        state=found.state,
        stored=found.stored,
        waiting=found.waiting,
        recovered=found.recovered,
        untraced=found.untraced,
        dropped=dict(found.dropped),
        error=found.error,
        age=found.age,
        sinks=[_sink(sink) for sink in found.sinks],
    )


def _sink(found: SinkStatus) -> SinkState:
    return SinkState(
        name=found.name,
        state=found.state,
        delivered=found.delivered,
        pending=found.pending,
        failed=found.failed,
        set_aside=found.aside,
        error=found.error,
    )
