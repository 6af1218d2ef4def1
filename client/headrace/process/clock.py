"""The clock by which this process waits. Nobody sets it, and nobody stops it.

Programs replace ``time.monotonic`` for their tests (freezegun does, in each module that has it). Runs go on beside the program,
and so do their deadlines.
"""

from __future__ import annotations

import time
from functools import partial

monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
"""Return the seconds since some moment. On Linux ``time.monotonic()`` says the same."""
