"""The messages about an engine and its processes: status, restart, heartbeats and process reports."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.wire.bounds import Capacity, Count, Name, Reason, Seconds
from headrace.wire.connection_messages import WireMessage
from headrace.wire.engine_status import PoolStatus, ProcessStatus, SpanStatus, SpendingStatus, WorkerStatus

_MAX_PROCESSES = 10_000


class StatusRequest(WireMessage, frozen=True, tag=14):
    """Ask the broker for the engine's status."""


class Status(WireMessage, frozen=True, tag=15):
    """The engine's status. ``uptime`` is in seconds; totals count since the broker's start."""

    pid: int
    version: str
    uptime: float
    clients: int
    leases: int
    waiting: int
    granted_total: int
    refused_total: int
    workers: list[WorkerStatus]
    processes: list[ProcessStatus]
    spans: SpanStatus | None = None
    pools: list[PoolStatus] = []  # noqa: RUF012
    spending: list[SpendingStatus] = []  # noqa: RUF012
    waiting_for: dict[str, int] = {}  # noqa: RUF012
    """How many runs wait for what: a word of ``WaitWord`` → a number."""
    budget: str = ""
    """The budget that several engines share: empty for none, ``ok``, or why its store cannot be reached."""


class Restart(WireMessage, frozen=True, tag=17):
    """Replace the workers, one after another. A client sends it to the broker, the broker to the supervisor.

    ``token`` is the broker's number for its question; the answer has the same token. ``reload``: check the settings
    first, and read the limits again too. It is sent only to a peer with the capability ``limits``.
    """

    token: Count = 0
    reload: bool = False


class RestartAnswer(WireMessage, frozen=True, tag=18):
    """Answer to Restart, from the supervisor to the broker and on to the client.

    An empty ``problem``: the workers are being replaced. Else it says why they are not. ``reload``: the settings were
    checked, and ``problem`` is theirs; without a problem the broker must read its limits again. The supervisor also says
    so without a question, with token 0.
    """

    token: Count = 0
    problem: Reason = ""
    reload: bool = False


class Heartbeat(WireMessage, frozen=True, tag=20):
    """Sent each second by the loop that serves. A loop that is stuck sends none.

    ``capacity`` is how many runs the worker can have at once; -1: as many as the settings allow. A worker with
    ``is_leaving`` takes no new runs, and ends when its last run has ended.
    """

    capacity: Capacity = -1
    is_leaving: bool = False


class Silent(WireMessage, frozen=True, tag=22):
    """To the supervisor: this worker has sent no heartbeat for ``silence`` seconds, and counts as hung."""

    worker: Name
    epoch: Count
    silence: Seconds


class Joined(WireMessage, frozen=True, tag=24):
    """To the supervisor: this worker serves."""

    worker: Name
    epoch: Count


class Vacated(WireMessage, frozen=True, tag=25):
    """To a worker that is leaving: no client holds a lease on it any more."""


class ProcessReport(WireMessage, frozen=True, tag=21):
    """From the supervisor, at each change: the processes of the engine.

    The broker and the collector use it to decide who is a process of this engine.
    """

    processes: Annotated[list[ProcessStatus], Meta(max_length=_MAX_PROCESSES)]


class CollectorReport(WireMessage, frozen=True, tag=23):
    """From the collector to the broker, each second and at each change: what became of the spans."""

    spans: SpanStatus
