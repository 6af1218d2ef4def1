"""``headrace spans tail``: shows new spans until Ctrl-C, or until nobody reads the output."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TextIO

from headrace.spans.reading.new_spans import NewSpans
from headrace.spans.span_database import StoredSpan

_LOOK_INTERVAL = 0.25
"""Seconds between two looks for new spans."""


def follow(new_spans: NewSpans, show: Callable[[StoredSpan], None], out: TextIO) -> None:
    """Show new spans until Ctrl-C.

    Raises BrokenPipeError when the reader of ``out`` has gone, even if no span comes.
    """
    hang_up = select.poll()
    hang_up.register(out.fileno(), 0)
    while True:
        for stored in new_spans.look():
            show(stored)
        out.flush()
        # poll() reports a reader that has gone. For a file that cannot be polled it returns at once, so sleep as well.
        before = time.monotonic()
        if any(happened & select.POLLERR for _, happened in hang_up.poll(_LOOK_INTERVAL * 1000)):
            raise BrokenPipeError
        time.sleep(max(_LOOK_INTERVAL - (time.monotonic() - before), 0))
