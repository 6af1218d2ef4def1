"""What a sink is to the thread that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.spans.data_directory import StoredSpan
from headrace_engine.spans.sinks.answer_policy import Verdict


class SinkUnusableError(Exception):
    """A sink cannot work as it is configured, or installed; the text says what to do."""


class Sink(Protocol):
    """A place that spans are sent to. Used by one thread."""

    batch_size: int
    """How many spans it takes at once, at most."""

    def send(self, spans: Sequence[StoredSpan], tries: int) -> Verdict:
        """Send spans, for the ``tries``-th time, and return what became of them. Raises nothing that can be foreseen."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...
