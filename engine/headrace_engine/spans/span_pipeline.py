"""What becomes of spans in the collector: redaction, the store, the recovery of spools, the sinks; and the account of it all.

Knows nothing of who sends them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import RemoteProtocolError
from headrace.pricing.prices import PriceTable, run_cost
from headrace.settings.otel_environment import UnsupportedExport, read_otel_environment
from headrace.settings.settings import OTLP, Settings
from headrace.spans.redaction import Redactor
from headrace.spans.span import Span, decode_span, with_allowed_rank
from headrace.wire.engine_status import UNUSABLE, SinkStatus, SpanStatus
from headrace.wire.messages import PeerRole
from headrace.wire.value_count import count_values
from headrace_engine.spans.drop_counts import DropCounts
from headrace_engine.spans.recovery.spool_recovery import (
    RecoveryCounts,
    has_leavings,
    recover,
    recover_others,
    writer_epochs,
)
from headrace_engine.spans.storage.batching import MAX_COMMIT_BYTES
from headrace_engine.spans.storage.store import Store, StoreError

if TYPE_CHECKING:
    from headrace_engine.spans.recovery.adoption import Adoption
    from headrace_engine.spans.sinks.runner import Sinks

logger = logging.getLogger(__name__)

_MAX_VALUES = 500_000
"""Of the spans of one commit: decoded, each takes up to 64 bytes."""
UNREADABLE = "unreadable"
"""Bytes that are no span."""
UNSTORABLE = "unstorable"
"""Spans with a value that no database holds."""
TORN = "torn"
"""Spool files whose last record is not whole."""


class SpanPipeline:
    """The spans of one slot. Raises ConfigurationError where the redaction hook cannot be loaded."""

    def __init__(self, slot: Path, settings: Settings) -> None:
        self.totals = DropCounts()
        self.stored = 0
        self.recovered = 0
        self.state = "ok"
        self._slot = slot
        self._settings = settings
        self._prices = PriceTable(settings.prices)
        self._redactor = Redactor(settings.spans)
        self._store = Store(slot, settings.spans, self._cost)
        self._trouble = ""
        wanted = None if OTLP in settings.sinks else read_otel_environment(os.environ)
        self._unexported = f"spans are not exported: {wanted.reason}" if isinstance(wanted, UnsupportedExport) else ""
        self._sinks: Sinks | None = None
        self._adoption: Adoption | None = None
        if settings.sinks:
            # What sinks send with is imported where there are some.
            from headrace_engine.spans.recovery.adoption import Adoption
            from headrace_engine.spans.sinks.runner import Sinks

            self._sinks = Sinks(slot, settings.sinks)
            self._adoption = Adoption(slot, settings.sinks)

    @property
    def error(self) -> str:
        """What is the matter, else what was: a file that was damaged; else an export that cannot be."""
        damaged = [path.name for path in self._store.damaged]
        return self._trouble or (f"damaged and moved aside: {', '.join(damaged)}" if damaged else self._unexported)

    def start(self) -> None:
        """Look at the files that there are, and begin to send on."""
        self._try(self._store.marks)
        if self._sinks is not None:
            self._sinks.start()

    def keep(self, spans: Sequence[tuple[bytes, PeerRole]]) -> bool:
        """Commit encoded spans, each with who says it; return whether they are stored. If not, give them again."""
        whole: list[Span] = []
        unreadable = 0
        is_large = sum(len(encoded) for encoded, _ in spans) > MAX_COMMIT_BYTES
        room = _MAX_VALUES
        for encoded, role in spans:
            if is_large:  # which is one sender's batch: what it has of values is bounded, as its bytes are
                room -= count_values(encoded, room) if room > 0 else 1
                if room < 0:
                    unreadable += 1
                    continue
            try:
                span = decode_span(encoded)
            except RemoteProtocolError:
                unreadable += 1
            else:
                whole.append(span if role == "worker" else self._redactor.refinish(with_allowed_rank(role, span)))
        try:
            written = self._store.write(whole, time.time())
        except StoreError as error:
            self._failed(error)
            return False
        self._worked()
        self.stored += written.new
        self.totals.lost(UNREADABLE, unreadable)
        self.totals.lost(UNSTORABLE, written.unstorable)
        return True

    def recover(self, *, others: bool = False, retires: bool = False) -> Iterator[None]:
        """Store what dead writers left, a batch for each step; what cannot be stored now stays for the next time."""
        try:
            for step in recover(self._slot, self._store, time.time):
                self._count(step)
                yield
            if retires:
                self._store.retire(time.time(), self._settings.sinks)
            if others:
                sinks: Collection[str] | None = self._settings.sinks if retires else None
                for step in recover_others(self._slot, self._settings.spans, self._cost, time.time, sinks):
                    self._count(step)
                    yield
                if self._adoption is not None:
                    self._adoption.look()
        except StoreError as error:
            self._failed(error)

    def has_writers_beside(self, epochs: Collection[int]) -> bool:
        """Return whether a worker that is none of these processes is writing a spool."""
        return not writer_epochs(self._slot) <= set(epochs)

    def has_leavings(self) -> bool:
        """Return whether a worker that is gone has left spans that are not in the store yet."""
        return has_leavings(self._slot)

    def check(self) -> None:
        """Notice what happened to the files."""
        self._try(self._store.check)

    def marks(self) -> Mapping[Path, int] | None:
        """Return the number of the last row of each file, or None while that cannot be read; the sinks are woken."""
        try:
            marks = self._store.marks()
        except StoreError as error:
            self._failed(error)
            return None
        if self._sinks is not None:
            self._sinks.wake()
        return marks

    def is_delivered(self, marks: Mapping[Path, int]) -> bool:
        """Return whether every sink has what is stored up to ``marks``."""
        return self._sinks is None or self._sinks.is_caught_up(marks)

    def counts(self, waiting: int) -> tuple[int, int, int]:
        """Return how many spans are delivered, pending and lost, for ``waiting`` that are not stored yet."""
        statuses = self._statuses()
        working = [status for status in statuses if status.state != UNUSABLE]
        # A sink that cannot work at all takes nothing, however long somebody waits.
        failed = self.stored if len(working) < len(statuses) else max((status.failed for status in working), default=0)
        pending = max((status.pending for status in working), default=0)
        return max(self.stored - pending - failed, 0), waiting + pending, failed + sum(self.totals.dropped().values())

    def status(self, waiting: int) -> SpanStatus:
        """Return how it is."""
        return SpanStatus(
            directory=str(self._slot),
            state=self.state,
            stored=self.stored,
            recovered=self.recovered,
            waiting=waiting,
            untraced=self.totals.untraced,
            dropped=self.totals.dropped(),
            error=self.error,
            sinks=self._statuses(),
        )

    def close(self, sinks_timeout: float) -> None:
        """Give the sinks so many seconds, and close the files."""
        if self._adoption is not None:
            self._adoption.close(0.0)
        if self._sinks is not None:
            self._sinks.wake()
            self._sinks.close(sinks_timeout)
        self._store.close()

    def _statuses(self) -> list[SinkStatus]:
        return self._sinks.statuses() if self._sinks is not None else []

    def _count(self, step: RecoveryCounts) -> None:
        self._worked()
        self.recovered += step.spans
        self.stored += step.new
        self.totals.lost(TORN, step.torn)
        self.totals.lost(UNREADABLE, step.unreadable)
        self.totals.lost(UNSTORABLE, step.unstorable)

    def _worked(self) -> None:
        if self.state != "ok":
            logger.warning("spans can be stored again")
        self.state, self._trouble = "ok", ""
        if self._sinks is not None:
            self._sinks.wake()

    def _failed(self, error: StoreError) -> None:
        if self.state == "ok":
            logger.error("spans cannot be stored", extra={"reason": str(error)})
        self.state = "disk full" if error.is_full else "failing"
        self._trouble = str(error)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except StoreError as error:
            self._failed(error)

    def _cost(self, span: Span) -> float | None:
        return run_cost(self._prices, span.provider, span.model, span.response_model, span.usage)
