"""Passes spans through redaction, the store and the sinks, recovers spools, and counts spans for the engine's status.

It does not know who sent a span.
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
"""Values in the spans of one commit. Each decoded value takes up to 64 bytes."""
UNREADABLE = "unreadable"
"""Reason: the bytes are not a span."""
UNSTORABLE = "unstorable"
"""Reason: the span has a value that no database can hold."""
TORN = "torn"
"""Reason: the last record of a spool file is not whole."""


class SpanPipeline:
    """Takes the spans of one slot. Raises ConfigurationError if the redaction hook cannot be loaded."""

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
            # The packages that sinks need are imported only if there are sinks.
            from headrace_engine.spans.recovery.adoption import Adoption
            from headrace_engine.spans.sinks.runner import Sinks

            self._sinks = Sinks(slot, settings.sinks)
            self._adoption = Adoption(slot, settings.sinks)

    @property
    def error(self) -> str:
        """The current problem; else the damaged files; else the export that is not possible; else an empty string."""
        damaged = [path.name for path in self._store.damaged]
        return self._trouble or (f"damaged and moved aside: {', '.join(damaged)}" if damaged else self._unexported)

    def start(self) -> None:
        """Look for database files, and start the sinks."""
        self._try(self._store.marks)
        if self._sinks is not None:
            self._sinks.start()

    def keep(self, spans: Sequence[tuple[bytes, PeerRole]]) -> bool:
        """Commit encoded spans, each with the role of its sender. Return whether they are stored. If not, call again later."""
        whole: list[Span] = []
        unreadable = 0
        is_large = sum(len(encoded) for encoded, _ in spans) > MAX_COMMIT_BYTES
        room = _MAX_VALUES
        for encoded, role in spans:
            if is_large:  # a single batch of one sender: bound its values too
                room -= count_values(encoded, room) if room > 0 else 1
                if room < 0:
                    unreadable += 1
                    continue
            try:
                span = decode_span(encoded)
            except RemoteProtocolError:
                unreadable += 1
            else:
                whole.append(span if role == "worker" else self._redactor.redact_again(with_allowed_rank(role, span)))
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
        """Store the spans that ended writers left, one batch in each step. Spans that cannot be stored now are tried again later.

        ``others``: also from slots without an engine. ``retires``: also remove old files.
        """
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
        """Return whether a worker with another epoch is writing a spool in this slot."""
        return not writer_epochs(self._slot) <= set(epochs)

    def has_leavings(self) -> bool:
        """Return whether an ended worker has left spans that are not stored yet."""
        return has_leavings(self._slot)

    def check(self) -> None:
        """Notice database files that were removed."""
        self._try(self._store.check)

    def marks(self) -> Mapping[Path, int] | None:
        """Return file → its last row, or None if that cannot be read now. Wakes the sinks."""
        try:
            marks = self._store.marks()
        except StoreError as error:
            self._failed(error)
            return None
        if self._sinks is not None:
            self._sinks.wake()
        return marks

    def is_delivered(self, marks: Mapping[Path, int]) -> bool:
        """Return whether every sink is done with the rows up to ``marks``."""
        return self._sinks is None or self._sinks.is_caught_up(marks)

    def counts(self, waiting: int) -> tuple[int, int, int]:
        """Return how many spans are delivered, pending and lost. ``waiting``: spans that are not stored yet."""
        statuses = self._statuses()
        working = [status for status in statuses if status.state != UNUSABLE]
        # A sink that cannot work will not take a span: count all its spans as failed.
        failed = self.stored if len(working) < len(statuses) else max((status.failed for status in working), default=0)
        pending = max((status.pending for status in working), default=0)
        return max(self.stored - pending - failed, 0), waiting + pending, failed + sum(self.totals.dropped().values())

    def status(self, waiting: int) -> SpanStatus:
        """Return the state of the spans, for the status of the engine."""
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
        """Let the sinks send for at most ``sinks_timeout`` seconds, and close the files."""
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
