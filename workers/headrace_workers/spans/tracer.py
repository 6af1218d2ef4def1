"""The tracer of a worker: writes each run's span to the spool, and sends it to the collector.

A stub is written before the run's request is sent, and a span before the client hears that the run has ended. No run
waits for the collector, or for a disk that fails. No error in here ends a run: a span that cannot be made or kept is
counted. The spans and stubs of one turn of the loop are written together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import SPOOL
from headrace.spans.encoded_span import TOO_LARGE, encode_bounded, request_content
from headrace.spans.redaction import Redactor
from headrace.spans.span import Span, SpanContent, encode_span
from headrace.wire.codec import decode_request
from headrace.wire.messages import (
    Failed,
    Flushed,
    FlushRequest,
    Hello,
    Run,
    SpanAck,
    SpanBatch,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.wire_format import WireFormat
from headrace_workers.spans.run_span import (
    EndedRun,
    Moment,
    begun_span,
    ended_span,
    is_heavy,
    received_content,
    refused_span,
)
from headrace_workers.spans.spool_writer import SpoolWriter
from headrace_workers.spans.unacknowledged_spans import OutgoingBatch, UnacknowledgedSpans
from headrace_workers.spans.worker_collector_link import WorkerCollectorLink

logger = logging.getLogger(__name__)

SEND_DELAY = 0.05
"""Seconds that a span may wait for others, to be sent in one batch."""
SEND_AT = 96
"""Spans that are sent at once, without waiting for others."""
CLOSE_TIMEOUT = 1.0
"""Seconds that an ending worker waits for the collector.

Spans left then stay in the spool, where the collector finds them.
"""
_MAX_FLUSHES = 64
"""Flush requests that are answered one by one. If more come, the newest is answered in place of the one before it."""
FAILED = "failed"
"""The reason for dropped spans that could not be built."""


class TracerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker's spans go.

    ``slot``: the engine's part of the data directory. ``endpoint``: the collector's socket.
    """

    slot: Path
    endpoint: str
    worker: str
    epoch: int


class OpenSpan:
    """The span of a run that has not ended.

    ``keeps_content``: whether the span will hold the request and the answer.
    """

    __slots__ = ("arrived", "keeps_content", "number", "stub")

    def __init__(self, number: int, stub: Span, arrived: Moment, *, keeps_content: bool) -> None:
        self.number = number
        self.stub = stub
        self.arrived = arrived
        self.keeps_content = keeps_content


class Startable(Protocol):
    """A run that waits until its stub is written."""

    def start_now(self) -> None:
        """Send the request. The stub is written, or could not be written."""


class Tracer:
    """The spans of one worker."""

    def __init__(
        self,
        settings: TracerSettings,
        config: SpansConfig,
        hello: Callable[[], Hello],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._worker = settings.worker
        self._redactor = Redactor(config)
        self._spans = UnacknowledgedSpans(config.memory_bytes)
        self._spool = SpoolWriter(
            settings.slot / SPOOL, settings.worker, settings.epoch, config.spool_bytes, encode_span
        )
        self._link = WorkerCollectorLink(settings.endpoint, hello, settings.epoch, loop, self)
        self._count = 0
        self._starting: list[Startable] = []
        self._is_commit_due = False
        self._send_timer: asyncio.TimerHandle | None = None
        # Flush requests: the token, and the number of spans that must be sent before the answer.
        self._flushes: list[tuple[int, int]] = []
        self._reported_counts: tuple[dict[str, int], int] = ({}, 0)
        self._emptied: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether this worker has no span that the collector has not acknowledged."""
        return self._spans.is_empty and not self._spool.has_uncommitted

    def open(self) -> None:
        """Open the link to the collector."""
        self._link.open()

    # Calls by the runs.

    def begin(self, run: Run, request: RunRequest, wire_format: WireFormat | None = None) -> OpenSpan | None:
        """A run has come. Return its open span, or None if it has no span."""
        if not request.send_trace:
            self._spans.untraced += 1
            return None
        self._count += 1
        arrived = Moment(time.time(), time.monotonic())
        try:
            stub = begun_span(run, request, self._worker, arrived, wire_format)
            self._spool.begin(self._count, stub)
        except Exception:
            logger.exception("span cannot be begun", extra={"span_id": run.span_id})
            self._spans.dropped[FAILED] += 1
            return None
        if not self._is_commit_due:
            self.commit_soon()
        return OpenSpan(self._count, stub, arrived, keeps_content=self._redactor.keeps_content)

    def start(self, run: Startable) -> None:
        """Call the run's ``start_now`` once its stub is written, at the end of this turn of the loop."""
        self._starting.append(run)
        if not self._is_commit_due:
            self.commit_soon()

    def end(self, span: OpenSpan, facts: Callable[[], EndedRun]) -> None:
        """A run has ended. ``facts`` returns its facts. Call :meth:`commit` before its terminal message leaves."""
        try:
            run = facts()
            content, note = self._encoded(received_content(run))
            ended = ended_span(span.stub, run, span.arrived, time.monotonic(), content, note)
            self._spool.end(span.number, encode_bounded(ended))
        except Exception:
            logger.exception("span cannot be ended", extra={"span_id": span.stub.span_id})
            self._keep_stub(span)

    def refuse(self, run: Run, failed: Failed) -> None:
        """A run was refused.

        Call :meth:`commit` as after :meth:`end`. No span is made if another worker may take the run.
        """
        if failed.kind in ("duplicate_span_id", "worker_stopping"):
            return
        try:
            request = decode_request(run.request)
        except RemoteProtocolError:
            return  # the request cannot be read, so a span would be empty
        if (span := self.begin(run, request)) is None:
            return
        try:
            content, note = self._encoded(request_content(request))
            refused = refused_span(span.stub, failed, span.arrived, time.monotonic(), content, note)
            self._spool.end(span.number, encode_bounded(refused))
        except Exception:
            logger.exception("span of refused run cannot be ended", extra={"span_id": run.span_id})
            self._keep_stub(span)

    def commit(self) -> None:
        """Write the stubs and spans since the last commit."""
        if not self._spool.has_uncommitted:
            return
        try:
            self._commit()
        except Exception:
            logger.exception("spans cannot be kept by worker")

    def commit_soon(self) -> None:
        """Commit at the end of this turn of the loop."""
        if not self._is_commit_due:
            self._is_commit_due = True
            self._loop.call_soon(self._end_of_turn)

    def beat(self) -> None:
        """Send the counts of dropped and untraced spans, if they have changed since the last batch."""
        if (
            self._counts() != self._reported_counts
            and self._link.is_open
            and (batch := self._spans.empty_batch()) is not None
        ):
            self._send_batch(batch)

    async def close(self) -> None:
        """Send all spans, wait up to CLOSE_TIMEOUT for the collector to store them, and close."""
        self.commit()
        self._send()
        if not self._spans.is_empty:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=CLOSE_TIMEOUT)
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._spool.release(self._spans.unacknowledged)
        self._spool.close()
        self._link.close()

    # Calls by the link to the collector.

    def link_opened(self) -> None:
        """The link is open. The collector may be a new one: send all unacknowledged batches again."""
        self._flushes.clear()
        self._spans.reconnected()
        self._send()

    def acknowledged(self, ack: SpanAck) -> None:
        """The collector has stored batches."""
        self._spans.committed(ack.sequence)
        self._spool.release(self._spans.unacknowledged)
        self._send()
        if self._emptied is not None and self._spans.is_empty and not self._emptied.done():
            self._emptied.set_result(None)

    def flush_asked(self, request: FlushRequest) -> None:
        """The collector asks for all spans, because a client waits for them."""
        self.commit()
        if len(self._flushes) >= _MAX_FLUSHES:
            self._flushes.pop()  # the answer to the new request also covers this one
        self._flushes.append((request.token, self._spans.added))
        self._send()

    def _encoded(self, content: SpanContent) -> tuple[bytes, str]:
        """Return the content as a span keeps it, and why there is none, if there is none."""
        if is_heavy(content):  # encoding it, to measure it, would take too long
            return b"", TOO_LARGE
        return self._redactor.encoded(content)

    def _keep_stub(self, span: OpenSpan) -> None:
        """Keep the stub as the run's span: it says at least that the run began."""
        self._spool.end(span.number, encode_span(span.stub))

    def _commit(self) -> None:
        for written in self._spool.commit(time.monotonic()):
            self._spans.add(written.span, written.place)
        while (number := self._spool.over_limit()) is not None:
            self._spans.segment_dropped(number)
            self._spool.remove(number)
        if self._spans.waiting >= SEND_AT:
            self._send()
        elif self._send_timer is None and self._spans.waiting:
            self._send_timer = self._loop.call_later(SEND_DELAY, self._send)

    def _end_of_turn(self) -> None:
        self._is_commit_due = False
        self.commit()
        starting, self._starting = self._starting, []
        for run in starting:
            run.start_now()

    def _send(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        while self._link.is_open and (batch := self._spans.take(self._spool.read)) is not None:
            self._send_batch(batch)
        token: int | None = None
        while self._link.is_open and self._flushes and self._spans.has_sent_up_to(self._flushes[0][1]):
            token, _ = self._flushes.pop(0)
        if token is not None:
            self._link.send([Flushed(token, self._spans.sequence)])

    def _send_batch(self, batch: OutgoingBatch) -> None:
        self._reported_counts = self._counts()
        dropped, untraced = self._reported_counts
        self._link.send([SpanBatch(batch.sequence, batch.spans, dropped, untraced)])

    def _counts(self) -> tuple[dict[str, int], int]:
        return dict(self._spans.dropped), self._spans.untraced
