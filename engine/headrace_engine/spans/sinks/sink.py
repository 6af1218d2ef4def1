"""The interface of a sink: what its thread may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.spans.span_database import StoredSpan
from headrace_engine.spans.sinks.answer_policy import Verdict


class SinkUnusableError(Exception):
    """A sink cannot work with its settings, or without a package. The text says what to do."""


class Sink(Protocol):
    """Sends spans to one place. Used by one thread."""

    batch_size: int
    """The largest number of spans in one call of :meth:`send`."""

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:
        """Send spans, and return the verdict. ``tries``: how often these spans were sent, this time included. Expected failures are verdicts."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...
