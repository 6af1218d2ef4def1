"""``headrace spans tail``: shows new spans until Ctrl-C, or until nobody reads the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from headrace.cli.shared.following import looks
from headrace.spans.reading.new_spans import NewSpans
from headrace.spans.span_database import StoredSpan


def follow(new_spans: NewSpans, show: Callable[[StoredSpan], None], out: TextIO) -> None:
    """Show new spans until Ctrl-C.

    Raises BrokenPipeError when the reader of ``out`` has gone, even if no span comes.
    """
    for _ in looks(out):
        for stored in new_spans.look():
            show(stored)
