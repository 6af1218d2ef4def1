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


class LevelStatus(msgspec.Struct, frozen=True, gc=False):
    """One limit of a pool: how much of it is left now. ``source``: ``settings``, ``headers`` or ``both``."""

    kind: Name
    limit: Count
    left: Count
    source: Name = "settings"


class PoolStatus(msgspec.Struct, frozen=True, gc=False):
    """One pool: the runs of one key and one model family at one provider, which share the provider's limits.

    ``key``: the first digits of the key's hash; empty if all runs use the engine's only key. ``blocked_for``: seconds
    until the next request may leave, as the provider asked. ``concurrency``: runs at once that are allowed now (None:
    any number). ``breaker``: closed, open or half-open. The totals count since the broker's start.
    """

    provider: Name
    model: Name
    key: Name = ""
    levels: Annotated[list[LevelStatus], Meta(max_length=64)] = []
    running: Count = 0
    waiting: Count = 0
    blocked_for: float = 0.0
    concurrency: Count | None = None
    breaker: Name = "closed"
    rate_limited_total: Count = 0
    retries_total: Count = 0
    granted_total: Count = 0
    out_of_rotation: Name = ""
    """Why the key gets no runs: ``401`` if the provider refused it; empty if it does."""


class SpendingStatus(msgspec.Struct, frozen=True, gc=False):
    """One spending limit: dollars spent today, and the most that may be spent in a day."""

    name: Name
    spent: float
    max_cost: float
