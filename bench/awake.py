"""Keeps the processors of this machine awake while something is measured, so that what is measured is the program.

A processor that sleeps is slow for what wakes it: its caches are cold, its clock may be low, and a virtual machine gives it back to
its host. The kernel charges the time until it runs again to whoever was woken: a wake-up that costs 0.02 ms of CPU while the
processors are awake costs 1 to 11 ms on the machine of docs/performance.md while they sleep. Linux keeps them awake for whoever
holds ``/dev/cpu_dma_latency``, as the profile ``latency-performance`` of tuned does: an idle processor then polls.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

_DEVICE = "/dev/cpu_dma_latency"


@contextlib.contextmanager
def awake_processors() -> Iterator[None]:
    """Keep the processors awake until the end of the block. Raises OSError if this user may not: usually only root may."""
    device = os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(device, struct.pack("i", 0))  # microseconds that a processor may take to wake up
        yield
    finally:
        os.close(device)
