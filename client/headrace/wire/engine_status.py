"""The parts of an engine's status: its workers, its processes, its spans and its sinks."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.wire.bounds import Count, Counts, Name, Small

Long = Annotated[str, Meta(max_length=64 * 1024)]


class WorkerStatus(msgspec.Struct, frozen=True, gc=False):
    """One worker as the broker sees it. ``last_seen``: seconds since its last heartbeat."""

    name: str
    pid: int
    state: str
    runs: int
    last_seen: float


class ProcessStatus(msgspec.Struct, frozen=True, gc=False):
    """One process as the supervisor sees it. ``has_served``: this broker, or an earlier one, has heard of it.

    ``started`` is when the kernel started it, in ticks; 0: not known. Together with the pid it tells a process from all
    others.
    """

    name: Name
    pid: Small | None
    state: Name
    restarts: Count
    reason: Long = ""
    epoch: Count = 0
    has_served: bool = False
    started: Count = 0


UNUSABLE = "failed"
"""State of a sink that cannot work as it is configured or installed.

It takes no spans until the engine is started again.
"""


class SinkStatus(msgspec.Struct, frozen=True, gc=False):
    """One sink: how many spans it has taken, wait for it, and were given up. ``state`` is ok, retrying, open or failed.

    ``aside``: spans that were given up, also before the engine's start, and are in the store with the reason.
    """

    name: Name
    state: Name
    delivered: Count = 0
    pending: Count = 0
    failed: Count = 0
    error: Long = ""
    aside: Count = 0


class SpanStatus(msgspec.Struct, frozen=True, gc=False):
    """What became of spans since the collector's start.

    ``dropped`` counts by reason. ``untraced``: runs that wanted no span.
    """

    directory: Long
    state: Name = "ok"
    stored: Count = 0
    recovered: Count = 0
    waiting: Count = 0
    untraced: Count = 0
    dropped: Counts = {}
    error: Long = ""
    sinks: Annotated[list[SinkStatus], Meta(max_length=1000)] = []
    age: float = 0.0
    """Seconds since the collector's report."""
