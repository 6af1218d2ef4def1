"""Waits until something is true, within a bound that is longer on a busy machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1


def busyness() -> float:
    """Return how many tasks want to run for each processor, at least 1. Tests multiply their bounds by it.

    The load average is late by a minute: what runs at this moment counts too.
    """
    fields = Path("/proc/loadavg").read_text().split()
    tasks = max(float(fields[0]), float(fields[3].split("/")[0]) - 1.0)
    return max(tasks / len(os.sched_getaffinity(0)), 1.0)


def cpu_slack() -> float:
    """Return by how much CPU time may vary: the same work takes up to twice as much while all processors are busy."""
    return min(busyness(), 2.0)


def wait_until(
    is_so: Callable[[], T | None], timeout: float = 30.0, what: str = "it", instead: Callable[[], object] = lambda: ""
) -> T:
    """Call ``is_so`` until it returns something true, and return that. Waits ``timeout`` seconds, longer on a busy machine.

    The AssertionError says ``what`` was not true, and what ``instead`` returns at the end.
    """
    began = time.monotonic()
    pause = _FIRST_PAUSE
    while not (found := is_so()):
        waited = time.monotonic() - began
        if waited > timeout and waited > timeout * busyness():  # as busy as it has become meanwhile
            raise AssertionError(f"{what}: not within {timeout:g} s {instead()}".rstrip())
        threading.Event().wait(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)
    return found
