"""Which role may send which message to which receiver. A peer that sends another message is refused. Pure.

A peer's role is not what the peer says: ``transport/peer_check.py`` checks it with the kernel and the supervisor.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.wire.messages import (
    Abort,
    Acquire,
    AcquireMany,
    CollectorReport,
    Credit,
    Flush,
    Flushed,
    Goodbye,
    Heartbeat,
    Hello,
    Hold,
    KeyReport,
    LeaseState,
    LimitReport,
    PeerRole,
    ProcessReport,
    Query,
    Release,
    ReleaseMany,
    Restart,
    RestartAnswer,
    Run,
    SpanBatch,
    StatusRequest,
)

Table = Mapping[PeerRole, frozenset[type[msgspec.Struct]]]

_ANY: frozenset[type[msgspec.Struct]] = frozenset({Hello, Goodbye})

TO_BROKER: Table = {
    "client": _ANY | {Acquire, AcquireMany, Hold, Release, ReleaseMany, StatusRequest, SpanBatch, Restart},
    "worker": _ANY | {Heartbeat, LeaseState, LimitReport, KeyReport},
    "supervisor": _ANY | {Heartbeat, ProcessReport, RestartAnswer},
    "collector": _ANY | {CollectorReport},
}
TO_WORKER: Table = {"client": _ANY | {Run, Credit, Abort, Query}}
TO_COLLECTOR: Table = {
    "client": _ANY | {SpanBatch, Flush},
    "broker": _ANY | {SpanBatch},
    "worker": _ANY | {SpanBatch, Flushed},
    "supervisor": _ANY | {ProcessReport},
}


def breach(table: Table, role: PeerRole, message: msgspec.Struct) -> str | None:
    """Return why a peer of this role must not send ``message``, or None if it may."""
    allowed = table.get(role)
    if allowed is None:
        return f"a {role} does not connect to this process"
    if type(message) in allowed:
        return None
    return f"a {role} may not send {type(message).__name__} to this process"
