"""Waiting for things in tests: until they are so, within a bound that a busy machine widens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1


def busyness() -> float:
    """Return how much more this machine has to do than it has processors for, at least 1: what bounds of a fraction of a second need."""
    return max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0)


def wait_until(
    is_so: Callable[[], T | None], timeout: float = 30.0, what: str = "it", instead: Callable[[], object] = lambda: ""
) -> T:
    """Look ever more rarely until something is so, and return what ``is_so`` did; for ``timeout`` seconds, longer on a busy machine.

    The error says what ``instead`` returns.
    """
    deadline = time.monotonic() + timeout * busyness()
    pause = _FIRST_PAUSE
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s {instead()}".rstrip())
        threading.Event().wait(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)
    return found
