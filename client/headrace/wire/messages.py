"""All messages between the processes of Headrace, and for each direction the union of the messages that may come.

The messages themselves are in ``connection_messages``, ``lease_messages``, ``group_messages``, ``engine_messages``,
``run_messages`` and ``span_messages``. Import them from here.

Rules of change (docs/protocol.md): the order of fields is the encoding. A new field goes to the end and has a default.
No field is moved, and none changes its type. A new message is sent only to a peer whose Hello names the capability.
"""

from __future__ import annotations

from headrace.wire.connection_messages import (
    BROKER_FRAME_BYTES,
    CAPABILITIES,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Goodbye,
    Hello,
    PeerRole,
    Welcome,
    WireMessage,
)
from headrace.wire.engine_messages import (
    CollectorReport,
    Heartbeat,
    Joined,
    ProcessReport,
    Restart,
    RestartAnswer,
    Silent,
    Status,
    StatusRequest,
    Vacated,
)
from headrace.wire.group_messages import MAX_GROUP, AcquireMany, GrantMany, ReleaseMany
from headrace.wire.lease_messages import (
    Acquire,
    Grant,
    Hold,
    KeyReport,
    LeaseQuery,
    LeaseState,
    LimitKind,
    LimitReport,
    RefusalKind,
    Refuse,
    Release,
    ResponseReport,
    Revoke,
    SaidLimit,
    TokenCounts,
    WaitWord,
)
from headrace.wire.run_messages import (
    BAD_SETTINGS,
    MAX_REQUEST_BYTES,
    NOT_BEGUN,
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Abort,
    Aborted,
    AbortMode,
    Chunk,
    Credit,
    Failed,
    FailureKind,
    Finished,
    Query,
    Run,
    RunState,
    Terminal,
    ToolCallText,
)
from headrace.wire.span_messages import Flush, Flushed, FlushRequest, FlushResult, SpanAck, SpanBatch

__all__ = [
    "BAD_SETTINGS",
    "BROKER_FRAME_BYTES",
    "CAPABILITIES",
    "MAX_FRAME_BYTES",
    "MAX_FRAME_MESSAGES",
    "MAX_GROUP",
    "MAX_REQUEST_BYTES",
    "NOT_BEGUN",
    "PROTOCOL_MAJOR",
    "PROTOCOL_MINOR",
    "WINDOW_CHARACTERS",
    "WINDOW_EVENTS",
    "Abort",
    "AbortMode",
    "Aborted",
    "Acquire",
    "AcquireMany",
    "Chunk",
    "CollectorReport",
    "Credit",
    "Failed",
    "FailureKind",
    "Finished",
    "Flush",
    "FlushRequest",
    "FlushResult",
    "Flushed",
    "FromBroker",
    "FromCollector",
    "FromWorker",
    "Goodbye",
    "Grant",
    "GrantMany",
    "Heartbeat",
    "Hello",
    "Hold",
    "Joined",
    "KeyReport",
    "LeaseQuery",
    "LeaseState",
    "LimitKind",
    "LimitReport",
    "PeerRole",
    "ProcessReport",
    "Query",
    "RefusalKind",
    "Refuse",
    "Release",
    "ReleaseMany",
    "ResponseReport",
    "Restart",
    "RestartAnswer",
    "Revoke",
    "Run",
    "RunState",
    "SaidLimit",
    "Silent",
    "SpanAck",
    "SpanBatch",
    "Status",
    "StatusRequest",
    "Terminal",
    "ToBroker",
    "ToCollector",
    "ToWorker",
    "TokenCounts",
    "ToolCallText",
    "Vacated",
    "WaitWord",
    "Welcome",
    "WireMessage",
]

ToBroker = (
    Hello
    | Acquire
    | Hold
    | Release
    | StatusRequest
    | Heartbeat
    | LeaseState
    | LimitReport
    | KeyReport
    | ProcessReport
    | CollectorReport
    | SpanBatch
    | Goodbye
    | Restart
    | RestartAnswer
    | AcquireMany
    | ReleaseMany
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
    | GrantMany
)
ToWorker = Hello | Run | Credit | Abort | Query | Goodbye
FromWorker = Welcome | Chunk | Finished | Failed | Aborted | RunState | Goodbye
ToCollector = Hello | SpanBatch | Flush | Flushed | ProcessReport | Goodbye
FromCollector = Welcome | SpanAck | FlushRequest | FlushResult | Goodbye
