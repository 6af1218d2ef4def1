"""Bounds the size of the log file of an embedded engine, and marks the file as used while the engine lives.

All processes of the engine append to one open file. So the file is not replaced: its older half is cut off in place.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TextIO

MAX_BYTES = 8 * 1024 * 1024
"""Bytes that a log may have. A longer log loses its older lines."""
KEPT_BYTES = 2 * 1024 * 1024
"""Bytes of the newest lines that are left then."""
_LOOK_EVERY = 5.0
_TOUCH_EVERY = 60.0


class LogBounds:
    """The log file of this engine. ``stream`` writes to it; nothing is done if it is no regular file."""

    def __init__(self, stream: TextIO | None, largest: int = MAX_BYTES, kept: int = KEPT_BYTES) -> None:
        self._descriptor = _regular_file(stream)
        self._largest = largest
        self._kept = kept
        self._looked_at = self._touched_at = float("-inf")

    def look(self, now: float) -> None:
        """Every few seconds: cut the file if it is too long. Each minute: set its time, which says that the engine lives."""
        if self._descriptor is None or now < self._looked_at + _LOOK_EVERY:
            return
        self._looked_at = now
        with contextlib.suppress(OSError):  # the disk is full, for example; it is tried again
            if os.fstat(self._descriptor).st_size > self._largest:
                self._cut(self._descriptor)
            if now >= self._touched_at + _TOUCH_EVERY:
                self._touched_at = now
                os.utime(self._descriptor)

    def _cut(self, descriptor: int) -> None:
        """Leave the newest whole lines. A line that another process writes in this instant may be lost."""
        # Standard error was opened for writing only.
        reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            start = max(os.fstat(reader).st_size - self._kept, 0)
            newest = os.pread(reader, 2 * self._kept, start)
        finally:
            os.close(reader)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, newest.partition(b"\n")[2])


def _regular_file(stream: TextIO | None) -> int | None:
    try:
        descriptor = stream.fileno() if stream is not None else -1
        return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None
