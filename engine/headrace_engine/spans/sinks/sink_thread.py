"""The thread of one sink: reads unsent spans, sends them, and follows the verdict. No other thread waits for it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.settings.settings import SinkConfig
from headrace.wire.engine_status import UNUSABLE, SinkStatus
from headrace_engine.spans.sinks.answer_policy import (
    Blocked,
    Delivered,
    Retry,
    SpanSetAside,
    SplitBatch,
    Undeliverable,
    Verdict,
)
from headrace_engine.spans.sinks.circuit import BatchLimit, Circuit
from headrace_engine.spans.sinks.content_policy import without_content
from headrace_engine.spans.sinks.sink import Sink, SinkUnusableError
from headrace_engine.spans.sinks.sink_choice import build
from headrace_engine.spans.sinks.unsent_spans import UnsentBatch, UnsentSpans

logger = logging.getLogger(__name__)

_COUNT_INTERVAL = 0.5
"""Seconds between two counts of waiting spans. A count reads some thousand rows."""
_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused spans."""
_MAX_FAILURES = 5
"""How often a single span may raise an exception in our code. Then it is set aside."""
_IDLE = 60.0
"""Seconds after which an idle sink looks for spans, even if nothing woke it."""


class SinkThread:
    """One sink and its thread. The public methods may be called from any thread."""

    def __init__(self, name: str, config: SinkConfig, slot: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._config = config
        self._environ = environ
        self._unsent = UnsentSpans(slot, name)
        self._circuit = Circuit()
        self._limit = BatchLimit(config.batch_size)
        self._tries = 0
        self._counted_at = 0.0
        self._delivered = self._pending = self._failed = 0
        self._error = ""
        self._refusal = ""
        self._is_unusable = False
        self._is_failing = False
        self._unlogged = 0
        self._logs_at = 0.0
        self._is_done = False
        self._deadline: float | None = None
        # Replaced as a whole, so that they can be read without a lock.
        self.status = SinkStatus(name, "ok")
        self.places: Mapping[Path, int] = {}
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look for new spans: some were stored."""
        self._news.set()

    def is_caught_up(self, marks: Mapping[Path, int]) -> bool:
        """Return whether the sink is done with the rows up to ``marks`` (file → row number). True for a sink that cannot work."""
        places = self.places
        return self.status.state == UNUSABLE or all(
            places[path] >= mark if path in places else not path.exists() for path, mark in marks.items()
        )

    def end(self, deadline: float) -> None:
        """Send the spans that wait, until ``deadline`` (monotonic seconds). Nothing is tried twice."""
        self._deadline = deadline
        self._news.set()

    def join(self) -> None:
        """Wait until the thread ends, or until the deadline. A thread that is stuck in a request ends with the process."""
        if self._thread.is_alive():
            self._thread.join(max((self._deadline or 0.0) - time.monotonic(), 0.0))

    def _run(self) -> None:
        sink = self._build()
        try:
            while not self._is_over():
                try:
                    self._turn(sink)
                except Exception as error:
                    logger.exception("sink failed", extra={"sink": self.name})
                    self._not_taken(Retry(type(error).__name__))
        finally:
            self._publish()
            self._unsent.close()
            if sink is not None:
                sink.close()

    def _build(self) -> Sink | None:
        try:
            sink = build(self._config, self._environ)
        except SinkUnusableError as error:
            self._error, self._is_unusable = str(error), True
            logger.warning("sink cannot be used", extra={"sink": self.name, "reason": str(error)})
        except Exception as error:
            self._error, self._is_unusable = f"{type(error).__name__}, see the log", True
            logger.exception("sink cannot be built", extra={"sink": self.name})
        else:
            self._limit = BatchLimit(sink.batch_size)
            return sink
        return None

    def _turn(self, sink: Sink | None) -> None:
        self._news.clear()
        now = time.monotonic()
        if sink is None or now < self._circuit.due:
            until_count = self._count(now)
            until_due = _IDLE if sink is None else self._circuit.due - now
            self._wait(min(until_due, until_count or until_due))
            return
        batch = self._unsent.next(self._next_size(), now, is_last=self._deadline is not None)
        if damaged := self._unsent.take_damaged():
            self._refused(len(damaged), damaged[-1].reason)
        if batch is None:
            self._rest()
            return
        self._follow(batch, self._send(sink, batch))
        self._count(time.monotonic())

    def _send(self, sink: Sink, batch: UnsentBatch) -> Verdict:
        self._tries += 1
        try:
            spans = batch.spans if self._config.content else [without_content(stored) for stored in batch.spans]
            return sink.send(spans, self._tries)
        except MemoryError:
            raise
        except Exception as error:
            # An error in our code about one span must not hold up the others: find the span, and set it aside.
            logger.exception("sink failed to send", extra={"sink": self.name, "spans": len(batch.spans)})
            reason = f"cannot be sent: {type(error).__name__}"
            if len(batch.spans) > 1:
                return SplitBatch(reason)
            return Undeliverable(reason) if self._tries >= _MAX_FAILURES else Retry(reason)

    def _next_size(self) -> int:
        """Return how many spans to send. A probe is one span."""
        return 1 if self._circuit.state == "open" else self._limit.limit

    def _follow(self, batch: UnsentBatch, verdict: Verdict) -> None:
        match verdict:
            case Delivered():
                self._answered(batch, verdict)
            case Undeliverable():
                every = tuple(SpanSetAside(index, verdict.reason) for index in range(len(batch.spans)))
                self._answered(batch, Delivered(len(every), len(every), reason=verdict.reason, aside=every))
            case SplitBatch():
                self._tries = 0
                self._limit.was_too_much(len(batch.spans))
            case Retry() | Blocked():
                self._not_taken(verdict)

    def _answered(self, batch: UnsentBatch, outcome: Delivered) -> None:
        if self._is_failing:
            logger.warning("sink works again", extra={"sink": self.name})
        self._is_failing = False
        self._circuit.answered()
        if not outcome.rejected:
            self._limit.was_taken()  # after a refused span the next may be refused too
        self._tries = 0
        self._error = ""
        self._unsent.taken(batch, outcome.taken, outcome.aside)
        self._delivered += outcome.taken - outcome.rejected - outcome.skipped
        self._refused(outcome.rejected, outcome.reason)
        self._pending = max(self._pending - outcome.taken, 0)

    def _refused(self, count: int, reason: str) -> None:
        """Count spans that the sink will never take. Log it, at most once a minute; the status always has it."""
        self._refusal = reason or self._refusal
        self._failed += count
        self._unlogged += count
        now = time.monotonic()
        if self._unlogged and now >= self._logs_at:
            logger.warning(
                "sink refused spans", extra={"sink": self.name, "spans": self._unlogged, "reason": self._refusal}
            )
            self._unlogged, self._logs_at = 0, now + _LOG_INTERVAL

    def _not_taken(self, verdict: Retry | Blocked) -> None:
        """Wait, and try again. Log it once, when the circuit opens; the status always has it."""
        now, dice = time.monotonic(), random.random()  # noqa: S311
        if isinstance(verdict, Retry):
            self._circuit.failed(verdict.after, now, dice)
        else:
            self._circuit.held(now, dice)
        self._error = verdict.reason
        if self._circuit.state == "open" and not self._is_failing:
            self._is_failing = True
            logger.warning("sink does not take spans", extra={"sink": self.name, "reason": verdict.reason})

    def _rest(self) -> None:
        """No span can be sent now: wait."""
        self._pending = self._unsent.count()
        self._publish()
        if self._deadline is not None:
            self._is_done = True
            return
        due = self._unsent.due()
        self._wait(_IDLE if due is None else due - time.monotonic())

    def _wait(self, seconds: float) -> None:
        self._news.wait(max(seconds, 0.0))

    def _is_over(self) -> bool:
        if self._deadline is None:
            return False
        is_working = self._circuit.state == "ok" and not self._is_unusable
        return self._is_done or not is_working or time.monotonic() >= self._deadline

    def _count(self, now: float) -> float:
        """Count waiting spans, but not more often than every 0.5 s. Return the seconds until the next count; 0 if it was done now."""
        until_count = max(self._counted_at + _COUNT_INTERVAL - now, 0.0)
        if not until_count:
            self._counted_at = now
            self._pending = self._unsent.count()
        self._publish()
        return until_count

    def _publish(self) -> None:
        state = UNUSABLE if self._is_unusable else self._circuit.state
        self.places = self._unsent.places()
        error = self._error or self._refusal
        aside = self._unsent.aside()
        self.status = SinkStatus(self.name, state, self._delivered, self._pending, self._failed, error, aside)
