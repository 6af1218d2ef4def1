"""Imported by each Python process of an engine that is measured.

Notes the longest turn of its asyncio loop, in CPU time.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

INTERVAL = 0.001


def _watch(loop: asyncio.AbstractEventLoop, figures: mmap.mmap) -> None:
    """Between two calls is one long turn at most: a timer that is due is called in the next turn."""
    last = time.thread_time()

    def look() -> None:
        nonlocal last
        now = time.thread_time()
        longest = struct.unpack("d", figures[:8])[0]
        if now - last > longest:
            figures[:8] = struct.pack("d", now - last)
        last = now
        loop.call_later(INTERVAL, look)

    loop.call_soon(look)


def _install(folder: str) -> None:
    run = asyncio.Runner.run

    def probed(runner: asyncio.Runner, coro: Any, **options: Any) -> Any:
        path = Path(folder) / f"turns-{os.getpid()}"
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            _watch(runner.get_loop(), mmap.mmap(file.fileno(), 8))
        return run(runner, coro, **options)

    asyncio.Runner.run = probed  # type: ignore[method-assign, assignment]


if folder := os.environ.get("HEADRACE_PROBE"):
    _install(folder)
