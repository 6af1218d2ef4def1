"""The monotonic clock of Headrace. Tests of a program cannot stop it.

Programs replace ``time.monotonic`` in their tests; freezegun does so in each module that has imported it. But runs go on while the
program's time stands still, so their deadlines must go on too.
"""

from __future__ import annotations

import time
from functools import partial

monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
"""Return the seconds since a fixed moment. On Linux ``time.monotonic()`` returns the same."""
