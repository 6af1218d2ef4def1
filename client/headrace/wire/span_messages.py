"""The messages about spans, between the collector and the processes that send it spans."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.wire.bounds import Count, Counts
from headrace.wire.connection_messages import WireMessage

_MAX_BATCH = 1024
"""Most spans of a batch. Senders put 256 into one."""


class SpanBatch(WireMessage, frozen=True, tag=50):
    """Encoded spans, acknowledged when they are committed. Counts are totals since the sender's start.

    A client that ends while there is no collector sends its batches to the broker instead. The broker acknowledges
    none.
    """

    sequence: Count
    spans: Annotated[list[bytes], Meta(max_length=_MAX_BATCH)]
    dropped: Counts = {}  # noqa: RUF012 - msgspec makes a new dict for each message
    untraced: Count = 0


class SpanAck(WireMessage, frozen=True, tag=51):
    """All batches of this sender up to ``sequence`` are committed."""

    sequence: Count


class Flush(WireMessage, frozen=True, tag=52):
    """From a client: store and deliver the spans of all runs that have ended, and answer within ``timeout`` seconds."""

    token: Count
    timeout: float


class FlushRequest(WireMessage, frozen=True, tag=53):
    """To a worker: send all spans that you have, then answer with Flushed."""

    token: Count


class Flushed(WireMessage, frozen=True, tag=54):
    """From a worker: the spans of all runs that had ended when FlushRequest came are in batches up to ``sequence``."""

    token: Count
    sequence: Count


class FlushResult(WireMessage, frozen=True, tag=55):
    """Answer to Flush. It counts spans since the collector's start.

    ``delivered``: stored, and sent to every sink. ``pending``: not yet. ``failed``: never.
    """

    token: Count
    delivered: int
    pending: int
    failed: int
