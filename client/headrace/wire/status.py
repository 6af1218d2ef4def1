"""What an engine says of itself: its workers, its processes, its spans."""

from __future__ import annotations

import msgspec


class WorkerStatus(msgspec.Struct, frozen=True, gc=False):
    """One worker as the broker sees it; ``last_seen`` in seconds before now."""

    name: str
    pid: int
    state: str
    runs: int
    last_seen: float


class ProcessStatus(msgspec.Struct, frozen=True, gc=False):
    """One process as the supervisor sees it. ``has_served`` says that a broker has heard of it, perhaps one before this one.

    ``started`` is when the kernel started it, in its own ticks; with the pid it tells a process from all others. 0: not known.
    """

    name: str
    pid: int | None
    state: str
    restarts: int
    reason: str = ""
    epoch: int = 0
    has_served: bool = False
    started: int = 0


UNUSABLE = "failed"
"""State of a sink that cannot work as it is configured or installed: it takes nothing until the engine is started anew."""


class SinkStatus(msgspec.Struct, frozen=True, gc=False):
    """One sink: spans it has taken, spans that wait for it, spans given up; ``state`` is ok, retrying, open or failed.

    ``aside`` of those given up, also before the engine's start, lie in the store, marked with the reason.
    """

    name: str
    state: str
    delivered: int = 0
    pending: int = 0
    failed: int = 0
    error: str = ""
    aside: int = 0


class SpanStatus(msgspec.Struct, frozen=True, gc=False):
    """What became of spans since the collector's start. ``dropped`` counts by reason; ``untraced`` runs wanted no span."""

    directory: str
    state: str = "ok"
    stored: int = 0
    recovered: int = 0
    waiting: int = 0
    untraced: int = 0
    dropped: dict[str, int] = {}
    error: str = ""
    sinks: list[SinkStatus] = []
    age: float = 0.0
    """Seconds since the collector said so."""
