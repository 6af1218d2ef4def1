"""The messages between client, broker, workers and supervisor: closed unions of frozen Structs, one per direction.

Rules of change (docs/protocol.md): new fields go to the end and have defaults, fields are never reordered or retyped, a new
message is sent only to a peer whose hello names the capability. Field order is the encoding.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.types import FinishReason, Message, RunEvent, Usage
from headrace.wire.bounds import (
    Capacity,
    Count,
    Counts,
    Epochs,
    Id,
    Name,
    Reason,
    Seconds,
    Secret,
    Small,
    Words,
)
from headrace.wire.status import ProcessStatus, SpanStatus, WorkerStatus

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 2
CAPABILITIES = ["joined", "vacated", "query", "spans", "leases", "poison", "restart"]
"""Optional message kinds that this version understands beyond those of minor version 0."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Upper bound of one frame; the socket drops a peer that sends more."""
BROKER_FRAME_BYTES = 4 * 1024 * 1024
"""The same of a frame to the broker, which is told nothing that is long but spans that a client leaves at its end."""
MAX_REQUEST_BYTES = 48 * 1024 * 1024
"""Upper bound of one encoded run request; checked by the client before it sends."""

MAX_FRAME_MESSAGES = 10_000
"""Messages of a frame to the broker or a worker; who has more sends more frames."""

_MAX_LEASES = 200_000
_MAX_PROCESSES = 10_000
_MAX_BATCH = 1024
"""Spans of a batch: senders put 256 into one."""

WINDOW_EVENTS = 64
"""Events of one stream that may be on their way to a client that has not taken them."""
WINDOW_CHARACTERS = 64 * 1024
"""Characters of the same: at most 256 KiB as UTF-8."""

PeerRole = Literal["client", "worker", "supervisor", "broker", "collector"]
AbortMode = Literal["close", "drain"]
FailureKind = Literal[
    "invalid_request",
    "authentication",
    "rate_limit",
    "provider_unavailable",
    "provider_protocol",
    "timeout",
    "worker_stopping",
    "worker_failed",
    "duplicate_span_id",
]
BAD_SETTINGS = "headrace_configuration"
"""The code of a failure (``invalid_request``) for which the settings are to blame, and not what the caller asked for."""
NOT_BEGUN = "not_begun"
"""The code of a failure (``worker_stopping``) of a run that the worker refused: it had not begun."""
RefusalKind = Literal["duplicate_span_id", "queue_full", "no_workers", "stopping", "poison"]


class _WireMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages. Immutable: a message may wait in two places."""


# Any peer, first on each connection.


class Hello(_WireMessage, frozen=True, tag=1):
    """Who speaks. A worker also says where clients reach it, and how many runs it can have (see :class:`Heartbeat`)."""

    role: PeerRole
    minor: Small
    pid: Small
    capabilities: Words = []
    name: Name = ""
    endpoint: Name = ""
    capacity: Capacity = -1


class Welcome(_WireMessage, frozen=True, tag=2):
    """Answer to a hello. The epoch of the answering process is the frame's."""

    minor: Small
    pid: Small
    capabilities: Words = []
    version: Name = ""
    total_timeout: float | None = None
    """Of a broker: the total timeout of runs that ask for none, in seconds; ``None`` where it does not say."""


class Goodbye(_WireMessage, frozen=True, tag=3):
    """The sender ends the connection and says why; nothing follows."""

    reason: Reason


# Client and broker.


class Acquire(_WireMessage, frozen=True, tag=10):
    """Ask for a lease: permission to run on one worker. ``avoid`` names epochs of workers that were lost with this run."""

    span_id: Id
    attempt: Small
    provider: Name
    model: Name
    priority: Literal["interactive", "batch"] = "interactive"
    avoid: Epochs = []
    is_traced: bool = True


class Grant(_WireMessage, frozen=True, tag=11):
    """A lease: which worker, where, and who must answer there: the epoch, and the process as the kernel numbers it.

    ``pid`` is 0 where the broker does not say.
    """

    span_id: Id
    attempt: Small
    worker: Name
    endpoint: Name
    epoch: Count
    pid: Small = 0


class Refuse(_WireMessage, frozen=True, tag=12):
    """No lease. ``retry_after`` in seconds, where waiting can help."""

    span_id: Id
    attempt: Small
    kind: RefusalKind
    reason: Reason
    retry_after: Seconds | None = None


class Release(_WireMessage, frozen=True, tag=13):
    """The run ended (or will not start): the lease, or the wait for it, is given back."""

    span_id: Id
    attempt: Small


class Hold(_WireMessage, frozen=True, tag=16):
    """To a new broker: the run has a lease on the worker with this epoch already, from the broker before."""

    span_id: Id
    attempt: Small
    epoch: Count


class StatusRequest(_WireMessage, frozen=True, tag=14):
    """Ask how the engine is."""


class Status(_WireMessage, frozen=True, tag=15):
    """How the engine is; ``uptime`` in seconds, counters since the broker's start."""

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


class Restart(_WireMessage, frozen=True, tag=17):
    """Have the engine replace its workers, one after another: from a client to the broker, and from there to the supervisor.

    ``token`` is the broker's, and comes back in the answer.
    """

    token: Count = 0


class RestartAnswer(_WireMessage, frozen=True, tag=18):
    """Answer to a restart, the same way back: ``problem`` says why there is none; nothing where the workers are being replaced."""

    token: Count = 0
    problem: Reason = ""


class Revoke(_WireMessage, frozen=True, tag=19):
    """To a client: its lease has ended, since the worker does not have the run. A client whose run is there tells of it (Hold)."""

    span_id: Id
    attempt: Small


# Worker, supervisor or collector, and broker.


class Heartbeat(_WireMessage, frozen=True, tag=20):
    """Sent each second by the loop that serves: a stuck loop falls silent.

    ``capacity`` is how many runs the worker can have at once, -1 for as many as the settings say. One that is leaving takes no new
    ones, whatever its capacity, and ends with the last that it has.
    """

    capacity: Capacity = -1
    is_leaving: bool = False


class Silent(_WireMessage, frozen=True, tag=22):
    """To the supervisor: a worker has sent no heartbeat for ``silence`` seconds, and is to be taken as hung."""

    worker: Name
    epoch: Count
    silence: Seconds


class Joined(_WireMessage, frozen=True, tag=24):
    """To the supervisor: a worker serves."""

    worker: Name
    epoch: Count


class Vacated(_WireMessage, frozen=True, tag=25):
    """To a worker that is leaving: nobody holds a lease on it any more."""


class LeaseQuery(_WireMessage, frozen=True, tag=26):
    """To a worker: which of these leases does it have a run of? Span id, attempt and the client's process, 0 for any, of each."""

    leases: Annotated[list[tuple[Id, Small, Small]], Meta(max_length=_MAX_LEASES)]


class LeaseState(_WireMessage, frozen=True, tag=27):
    """Answer to a question about leases: whether the worker has the run, of each of them."""

    leases: Annotated[list[tuple[Id, Small, bool]], Meta(max_length=_MAX_LEASES)]


class ProcessReport(_WireMessage, frozen=True, tag=21):
    """The supervisor's view of its processes, sent at each change: to the broker, and to the collector, which know by it who is who."""

    processes: Annotated[list[ProcessStatus], Meta(max_length=_MAX_PROCESSES)]


# Client to worker.


class Run(_WireMessage, frozen=True, tag=30):
    """Start a run. ``request`` is an encoded RunRequest, decoded by the worker alone, so that a bad one ends one run."""

    span_id: Id
    attempt: Small
    epoch: Count
    request: Annotated[bytes, Meta(max_length=MAX_REQUEST_BYTES)]
    sequence_limit: int
    character_limit: int
    api_key: Secret | None = None
    """``None``: the worker's environment has it. ``""``: the caller's environment has none, and the worker's own is not asked."""
    queued: float = 0.0
    """Seconds that the run has waited for its lease."""
    base_url: Secret | None = None
    """The provider's address in the caller's environment; ``None``: the worker's settings have it."""

    def __repr__(self) -> str:
        return f"Run(span_id={self.span_id!r}, attempt={self.attempt}, request={len(self.request)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no key, no prompt."""
        return [("span_id", self.span_id)]


class Credit(_WireMessage, frozen=True, tag=31):
    """How far the worker may send: totals since the run's start, so that a repeated or late credit does no harm."""

    span_id: Id
    attempt: Small
    sequence_limit: int
    character_limit: int


class Abort(_WireMessage, frozen=True, tag=32):
    """Stop a run: close the provider's response, or read it to its end for exact usage."""

    span_id: Id
    attempt: Small
    mode: AbortMode = "close"


class Query(_WireMessage, frozen=True, tag=33):
    """Ask whether the worker has a run of which nothing has been heard for long."""

    span_id: Id
    attempt: Small


# Worker to client.


class Chunk(_WireMessage, frozen=True, tag=40):
    """Events of a run. ``sequence`` is the number of the first; the next chunk's is this plus ``len(events)``."""

    span_id: Id
    attempt: Small
    sequence: int
    events: list[RunEvent]


class ToolCallText(_WireMessage, frozen=True):
    """A tool call as the provider sent it; ``arguments`` is JSON text, not yet parsed."""

    id: str
    name: str
    arguments: str


class Finished(_WireMessage, frozen=True, tag=41):
    """Terminal: the run is complete. The whole truth again, so that the receiver can check what it assembled.

    ``sequence`` and ``text_length`` are totals over the run's chunks. ``message`` is there when the chunks cannot say it
    all: in a run without streaming, and where parts carry a provider's opaque data.
    """

    span_id: Id
    attempt: Small
    sequence: int
    text_length: int
    finish_reason: FinishReason | None
    provider_finish_reason: str | None
    usage: Usage
    tool_calls: list[ToolCallText]
    model: str
    message: Message | None = None
    refusal: str | None = None
    vectors: list[list[float]] | None = None


class Failed(_WireMessage, frozen=True, tag=42):
    """Terminal: the run failed after ``sequence`` events. Which facts are set depends on ``kind``.

    ``argument`` is the place in the caller's arguments that is to blame, as in ``messages[3].content[0].detail``.
    """

    span_id: Id
    attempt: Small
    sequence: int
    kind: FailureKind
    reason: Reason
    usage: Usage = Usage()
    status_code: int | None = None
    request_id: str | None = None
    code: str | None = None
    retry_after: float | None = None
    clock: str = ""
    limit: float = 0.0
    partial_text: str = ""
    argument: str | None = None


class Aborted(_WireMessage, frozen=True, tag=43):
    """Terminal: the run was aborted; ``usage`` is the best that is known."""

    span_id: Id
    attempt: Small
    sequence: int
    usage: Usage


class RunState(_WireMessage, frozen=True, tag=44):
    """Answer to a query: whether the worker has the run. One that it does not have will never be heard of again."""

    span_id: Id
    attempt: Small
    is_running: bool


# Spans: worker, broker or client, and collector.


class SpanBatch(_WireMessage, frozen=True, tag=50):
    """Encoded spans, to be acknowledged once they are committed. The counts are totals since the sender's start.

    A client that ends while there is no collector leaves them with the broker instead, which acknowledges nothing.
    """

    sequence: Count
    spans: Annotated[list[bytes], Meta(max_length=_MAX_BATCH)]
    dropped: Counts = {}
    untraced: Count = 0


class SpanAck(_WireMessage, frozen=True, tag=51):
    """All batches of this sender up to ``sequence`` are committed."""

    sequence: Count


class Flush(_WireMessage, frozen=True, tag=52):
    """From a client: commit and deliver what has ended so far, and answer within ``timeout`` seconds."""

    token: Count
    timeout: float


class FlushRequest(_WireMessage, frozen=True, tag=53):
    """To a worker: send all spans that there are, then say so."""

    token: Count


class Flushed(_WireMessage, frozen=True, tag=54):
    """From a worker: all spans of runs that had ended when it was asked are in batches up to ``sequence``."""

    token: Count
    sequence: Count


class FlushResult(_WireMessage, frozen=True, tag=55):
    """To a client: spans since the collector's start that are stored and with every sink, that are not yet, that never will be."""

    token: Count
    delivered: int
    pending: int
    failed: int


class CollectorReport(_WireMessage, frozen=True, tag=23):
    """To the broker, each second and at each change of state: the collector's view."""

    spans: SpanStatus


Terminal = Finished | Failed | Aborted

ToBroker = (
    Hello
    | Acquire
    | Hold
    | Release
    | StatusRequest
    | Heartbeat
    | LeaseState
    | ProcessReport
    | CollectorReport
    | SpanBatch
    | Goodbye
    | Restart
    | RestartAnswer
)
FromBroker = (
    Welcome
    | Heartbeat
    | Grant
    | Refuse
    | Status
    | Silent
    | Joined
    | Vacated
    | Revoke
    | LeaseQuery
    | Goodbye
    | Restart
    | RestartAnswer
)
ToWorker = Hello | Run | Credit | Abort | Query | Goodbye
FromWorker = Welcome | Chunk | Finished | Failed | Aborted | RunState | Goodbye
ToCollector = Hello | SpanBatch | Flush | Flushed | ProcessReport | Goodbye
FromCollector = Welcome | SpanAck | FlushRequest | FlushResult | Goodbye
