"""The results of ``bench.scale``, as they are kept in ``bench/results/scale.json``."""

from __future__ import annotations

import msgspec

from bench.kept_results import Machine


class HeldStreams(msgspec.Struct, frozen=True, kw_only=True):
    """Streams that were open at the same time for a while. ``cpu`` and ``idle`` are shares of a processor by role."""

    streams: int
    clients: int
    workers: int
    pace: float
    """Seconds between two chunks of a stream."""
    open_seconds: float
    """From the first call until each stream had its first chunk."""
    first_p99: float
    """Seconds from a call to its first chunk, p99."""
    held: int
    """Streams that were open at the end of the time."""
    complete: int
    """Streams that ended with all their chunks, in order."""
    faults: dict[str, int]
    seconds: float
    chunks: int
    """Chunks that arrived in these seconds."""
    deltas: int
    latency_p50: float
    """Seconds from the provider's write to the reader."""
    latency_p99: float
    latency_max: float
    idle: dict[str, float]
    """Before the streams began, with all clients connected."""
    cpu: dict[str, float]
    open_cpu: dict[str, float]
    """Seconds of CPU of opening all streams."""
    memory: dict[str, float]
    """KB by which the processes grew while the streams were opened."""
    descriptors: dict[str, int]
    """Open descriptors: the most of one process of each role."""

    @property
    def rate(self) -> float:
        """Chunks a second."""
        return self.chunks / self.seconds

    def per_chunk(self, role: str) -> float:
        """Return the seconds of CPU for each chunk of the processes of a role; the share that they use when idle is included."""
        return self.cpu.get(role, 0.0) / max(self.rate, 1e-9)


class ClientStorm(msgspec.Struct, frozen=True, kw_only=True):
    """Client processes that began at the same moment, held streams, and were killed at once."""

    clients: int
    storm_seconds: float
    """Until the last of them had the answer to its first call."""
    storm_cpu: dict[str, float]
    """Seconds of CPU by role."""
    storm_memory: dict[str, float]
    """KB by which the processes grew while the clients connected."""
    streams: HeldStreams
    runs_gone: float
    """Seconds from the kill until the engine had no run of them."""
    connections_gone: float
    """Seconds from the kill until no connection to the provider was open."""
    peers_gone: float
    """Seconds from the kill until broker and workers had as few descriptors as before the clients came."""
    slowest_call: float
    """Seconds of the slowest call that another client made from the kill until then."""


class CallCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Calls without a stream: seconds of CPU for each call by role."""

    workers: int
    calls: int
    seconds: float
    cpu: dict[str, float]


class FullEngine(msgspec.Struct, frozen=True, kw_only=True):
    """More streams than an engine can hold at once: what happens to the others."""

    open_files: int
    """The hard limit of open files of the engine's processes."""
    asked: int
    held: int
    """Streams that ran at the same time."""
    waited: int
    """Streams that waited for a place."""
    complete: int
    faults: dict[str, int]


class BrokerCost(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that the broker's decision of one run takes with so many workers."""

    workers: int
    seconds: float


class ScaleResults(msgspec.Struct, kw_only=True):
    """All results. Each part that is measured again replaces its own."""

    commit: str = ""
    date: str = ""
    machine: Machine | None = None
    streams: list[HeldStreams] = []
    full: list[FullEngine] = []
    storms: list[ClientStorm] = []
    growth: list[HeldStreams] = []
    calls: list[CallCosts] = []
    broker: list[BrokerCost] = []
