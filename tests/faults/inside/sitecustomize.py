"""Each Python process of an engine that takes orders imports this.

At SIGUSR1 the process does to itself what its order file says.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path


def _spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        used = time.thread_time()
        while time.thread_time() < used + 0.01:
            pass
        time.sleep(0.01)


def _obey(*_signal: object) -> None:
    order, _, figure = (Path(os.environ["HEADRACE_HISTORY"]) / f"order-{os.getpid()}").read_text().partition(" ")
    match order:
        case "hold":  # the interpreter's lock as well: a C extension that does not let go
            ctypes.PyDLL(None).usleep(int(float(figure) * 1_000_000))
        case "stall":  # the loop only
            time.sleep(float(figure))
        case "spin":  # the loop as well, and half of a processor
            _spin(float(figure))
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "clock":  # the wall clock of this process jumps, by so many seconds
            wall, jump = time.time, float(figure)
            time.time = lambda: wall() + jump
        case "memory":  # until somebody ends it
            kept = []
            while True:
                kept.append(bytearray(b"x") * (1024 * 1024))


# The client's processes are not asked to hurt themselves, and may use the signal as they like.
if "HEADRACE_HISTORY" in os.environ:
    signal.signal(signal.SIGUSR1, _obey)
