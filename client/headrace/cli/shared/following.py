"""Waits between two looks of a command that shows what is new, until Ctrl-C or until nobody reads the output."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import TextIO

_LOOK_INTERVAL = 0.25
"""Seconds between two looks."""


def looks(out: TextIO) -> Iterator[None]:
    """Yield when it is time to look. Then write out what was printed, and wait.

    Raises BrokenPipeError when the reader of ``out`` has gone, even if nothing is printed.
    """
    hang_up = select.poll()
    hang_up.register(out.fileno(), 0)
    while True:
        yield
        out.flush()
        # poll() reports a reader that has gone. For a file that cannot be polled it returns at once, so sleep as well.
        before = time.monotonic()
        if any(happened & select.POLLERR for _, happened in hang_up.poll(_LOOK_INTERVAL * 1000)):
            raise BrokenPipeError
        time.sleep(max(_LOOK_INTERVAL - (time.monotonic() - before), 0))
