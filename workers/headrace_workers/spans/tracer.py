"""The tracer of a worker: has each run's span written before anybody can see that the run began, or ended, and sent to the collector.

A run never waits for the collector nor for a disk that fails, and none ends by what goes wrong here: a span that cannot be made or
kept is counted. What is written is written once for all runs of one turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import SPOOL
from headrace.spans.encoded_span import TOO_LARGE, asked_content, encode_bounded
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
from headrace_workers.spans.record import (
    EndedRun,
    Moment,
    begun_span,
    ended_span,
    is_heavy,
    received_content,
    refused_span,
)
from headrace_workers.spans.spool_writer import SpoolWriter
from headrace_workers.spans.unacknowledged import Batch, SpanOutbox
from headrace_workers.spans.worker_collector_link import WorkerCollectorLink

logger = logging.getLogger(__name__)

SEND_DELAY = 0.05
"""Seconds that a span waits for others to be sent with it."""
SEND_AT = 24
"""Spans that do not wait for others any more."""
CLOSE_TIMEOUT = 1.0
"""Seconds that a worker which ends waits for the collector; what it does not take by then it finds in the spool."""
_MAX_FLUSHES = 64
"""Questions of the collector that are kept apart until they are answered; the answer to a later one is one to all before it."""
FAILED = "failed"
"""The reason under which spans are counted that could not be made."""


class TracerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker's spans go: ``slot`` is the engine's part of the data directory, ``endpoint`` the collector's."""

    slot: Path
    endpoint: str
    worker: str
    epoch: int


class OpenSpan:
    """The span of a run that has not ended. ``keeps_content``: whether it will have what was asked and answered."""

    __slots__ = ("arrived", "keeps_content", "number", "stub")

    def __init__(self, number: int, stub: Span, arrived: Moment, *, keeps_content: bool) -> None:
        self.number = number
        self.stub = stub
        self.arrived = arrived
        self.keeps_content = keeps_content


class Startable(Protocol):
    """A run that waits for its stub."""

    def start_now(self) -> None:
        """The stub is written, or cannot be: send the request."""


class Tracer:
    """The spans of one worker."""

    def __init__(
        self,
        settings: TracerSettings,
        config: SpansConfig,
        context: Any,
        hello: Callable[[], Hello],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._worker = settings.worker
        self._redactor = Redactor(config)
        self._outbox = SpanOutbox(config.memory_bytes)
        self._spool = SpoolWriter(settings.slot / SPOOL, settings.worker, settings.epoch, config.spool_bytes)
        self._link = WorkerCollectorLink(context, settings.endpoint, hello, settings.epoch, loop, self)
        self._count = 0
        self._starting: list[Startable] = []
        self._is_commit_due = False
        self._send_timer: asyncio.TimerHandle | None = None
        # What is asked to be sent: by which token, and how many spans there were.
        self._flushes: list[tuple[int, int]] = []
        self._told: tuple[dict[str, int], int] = ({}, 0)
        self._emptied: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the collector has acknowledged all spans of this worker."""
        return self._outbox.is_empty and not self._spool.has_uncommitted

    def open(self) -> None:
        """Look for the collector."""
        self._link.open()

    # What the runs say.

    def begin(self, run: Run, request: RunRequest, wire_format: WireFormat | None = None) -> OpenSpan | None:
        """A run has come; None when it is not to be traced."""
        if not request.send_trace:
            self._outbox.untraced += 1
            return None
        self._count += 1
        arrived = Moment(time.time(), time.monotonic())
        try:
            stub = begun_span(run, request, self._worker, arrived, wire_format)
            self._spool.begin(self._count, encode_span(stub))
        except Exception:
            logger.exception("span cannot be begun", extra={"span_id": run.span_id})
            self._outbox.dropped[FAILED] += 1
            return None
        self.commit_soon()
        return OpenSpan(self._count, stub, arrived, keeps_content=self._redactor.keeps_content)

    def start(self, run: Startable) -> None:
        """Start a run once its stub is written, in this turn of the loop."""
        self._starting.append(run)
        self.commit_soon()

    def end(self, span: OpenSpan, facts: Callable[[], EndedRun]) -> None:
        """A run has ended: ``facts`` tells what is known of it. Call :meth:`commit` before its terminal message leaves."""
        try:
            run = facts()
            self._keep(span, ended_span(span.stub, run, span.arrived, time.monotonic()), received_content(run))
        except Exception:
            logger.exception("span cannot be ended", extra={"span_id": span.stub.span_id})
            self._keep_stub(span)

    def refuse(self, run: Run, failed: Failed) -> None:
        """A run is not started at all, which follows as in :meth:`end`. One that another worker may have is not this one's."""
        if failed.kind in ("duplicate_span_id", "worker_stopping"):
            return
        try:
            request = decode_request(run.request)
        except RemoteProtocolError:
            return  # whose run it was, and what it was to be, nobody can tell
        if (span := self.begin(run, request)) is None:
            return
        try:
            self._keep(span, refused_span(span.stub, failed, span.arrived, time.monotonic()), asked_content(request))
        except Exception:
            logger.exception("span of refused run cannot be ended", extra={"span_id": run.span_id})
            self._keep_stub(span)

    def commit(self) -> None:
        """Write what has come since the last time."""
        if not self._spool.has_uncommitted:
            return
        try:
            self._commit()
        except Exception:
            logger.exception("spans cannot be kept by worker")

    def commit_soon(self) -> None:
        """Have that done at the end of the turn."""
        if not self._is_commit_due:
            self._is_commit_due = True
            self._loop.call_soon(self._end_of_turn)

    def beat(self) -> None:
        """Tell of counts that no batch has told of."""
        if self._counts() != self._told and self._link.is_open and (batch := self._outbox.empty_batch()) is not None:
            self._send_batch(batch)

    async def close(self) -> None:
        """Send what there is and wait a moment for the collector to have it."""
        self.commit()
        self._send()
        if not self._outbox.is_empty:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=CLOSE_TIMEOUT)
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._spool.release(self._outbox.unacknowledged)
        self._spool.close()
        self._link.close()

    # What the collector says.

    def link_opened(self) -> None:
        """Whichever collector it is: it has what it acknowledged, and nothing else."""
        self._flushes.clear()
        self._outbox.reconnected()
        self._send()

    def acknowledged(self, ack: SpanAck) -> None:
        """Batches are committed."""
        self._outbox.committed(ack.sequence)
        self._spool.release(self._outbox.unacknowledged)
        self._send()
        if self._emptied is not None and self._outbox.is_empty and not self._emptied.done():
            self._emptied.set_result(None)

    def flush_asked(self, request: FlushRequest) -> None:
        """Somebody waits for everything to be sent."""
        self.commit()
        if len(self._flushes) >= _MAX_FLUSHES:
            self._flushes.pop()  # who has sent all that is asked for later has sent what was asked for before
        self._flushes.append((request.token, self._outbox.added))
        self._send()

    # How it is done.

    def _keep(self, span: OpenSpan, ended: Span, content: SpanContent) -> None:
        if is_heavy(content):  # to find out how long it is would take too long
            finished = msgspec.structs.replace(ended, content=b"", content_note=TOO_LARGE)
        else:
            finished = self._redactor.finish(ended, content)
        self._spool.end(span.number, encode_bounded(finished))

    def _keep_stub(self, span: OpenSpan) -> None:
        """Say of a run at least that there was one."""
        self._spool.end(span.number, encode_span(span.stub))

    def _commit(self) -> None:
        for written in self._spool.commit(time.monotonic()):
            self._outbox.add(written.span, written.place)
        while (number := self._spool.over_limit()) is not None:
            self._outbox.segment_dropped(number)
            self._spool.remove(number)
        if self._outbox.waiting >= SEND_AT:
            self._send()
        elif self._send_timer is None and self._outbox.waiting:
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
        while self._link.is_open and (batch := self._outbox.take(self._spool.read)) is not None:
            self._send_batch(batch)
        token: int | None = None
        while self._link.is_open and self._flushes and self._outbox.has_sent_up_to(self._flushes[0][1]):
            token, _ = self._flushes.pop(0)
        if token is not None:
            self._link.send([Flushed(token, self._outbox.sequence)])

    def _send_batch(self, batch: Batch) -> None:
        self._told = self._counts()
        dropped, untraced = self._told
        self._link.send([SpanBatch(batch.sequence, batch.spans, dropped, untraced)])

    def _counts(self) -> tuple[dict[str, int], int]:
        return dict(self._outbox.dropped), self._outbox.untraced
