"""An engine with the span settings of a test, and a steady flow of runs with much text from this process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec
import pytest

from headrace import Client, HeadraceError
from headrace.cli.status_command import engine_status
from headrace.testing import SimulatedProvider
from headrace.wire.engine_status import SpanStatus
from tests.conftest import engine_process, simulate
from tests.e2e.engines import running_engine
from tests.faults.commands import headrace_here
from tests.faults.span_sets import ids
from tests.waiting import wait_until

MIB = 1024 * 1024
_PACE = 0.01
"""Seconds between chunks: runs are to take time, and the store is to keep up with their spans."""


class RunEnd(msgspec.Struct, frozen=True):
    """A run that came to its end. ``at`` is monotonic."""

    span_id: str
    at: float


class Flow:
    """Runs, so many at a time, each followed by another. ``failures`` says what went wrong with any of them."""

    def __init__(self, address: str, streams: int = 12, chunks: int = 8, characters: int = 8000) -> None:
        self.streams = streams
        self.run_bytes = chunks * characters
        self.ended: list[RunEnd] = []
        self.failures: list[str] = []
        self._address = address
        self._chunks = ["x" * characters] * chunks
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="flow")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin no more runs, and wait for the end of the open runs. May be called twice."""
        self._is_over = True
        self._thread.join()

    def go_on(self, seconds: float) -> float:
        """Wait; return how many runs a second ended meanwhile."""
        began, before = time.monotonic(), len(self.ended)
        threading.Event().wait(seconds)
        return (len(self.ended) - before) / (time.monotonic() - began)

    def wait_for(self, count: int) -> None:
        """Wait until so many further runs have ended."""
        goal = len(self.ended) + count
        wait_until(lambda: len(self.ended) >= goal or self.failures, 60.0, f"{count} further runs")
        assert not self.failures, self.failures[:3]

    def ids(self) -> list[str]:
        """Return the ids of the runs that have ended, in the order of their ends."""
        return [ended.span_id for ended in self.ended]

    async def _all(self) -> None:
        with Client(self._address, connect_timeout=30.0) as client:
            await asyncio.gather(*(self._one_by_one(client) for _ in range(self.streams)))

    async def _one_by_one(self, client: Client) -> None:
        while not self._is_over:
            try:
                stream = await client.arun_local(
                    model="gpt-4o",
                    messages=[{"role": "user", "content": "Hello"}],
                    stream=True,
                    custom_options=simulate(chunks=self._chunks, pace=_PACE),
                )
                text = "".join([chunk async for chunk in stream])
            except HeadraceError as error:
                self.failures.append(repr(error))
                return
            if len(text) != self.run_bytes:
                self.failures.append(f"{stream.span_id} came to {len(text)} characters")
            self.ended.append(RunEnd(stream.span_id, time.monotonic()))


@contextmanager
def span_engine(provider: SimulatedProvider, data: Path, spans: str = "") -> Iterator[str]:
    """Run an engine of one worker with these settings for spans; yield its address."""
    config = data.parent / "headrace.toml"
    config.write_text(f"[spans]\n{spans}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(config))
        patch.setenv("HEADRACE_DATA", str(data))
        with running_engine(provider, "--workers", "1") as address:
            wait_until(lambda: span_status(address) is not None, 30.0, "an engine with a collector")
            yield address


def span_status(address: str) -> SpanStatus | None:
    """Return what an engine says of its spans; None for nothing yet."""
    with contextlib.suppress(HeadraceError):
        return engine_status(address, 10.0).spans
    return None


def wait_for_state(address: str, state: str) -> SpanStatus:
    """Wait until the store is in a state; return what is said of it."""
    found: list[SpanStatus] = []

    def is_so() -> bool:
        status = span_status(address)
        if status is not None and status.state == state:
            found.append(status)
        return bool(found)

    wait_until(is_so, 30.0, f"the state {state!r}")
    return found[-1]


def shown_status(address: str) -> str:
    """Return what ``headrace status`` prints."""
    return headrace_here("status", "--engine", address, "--timeout", "10").stdout


def process(address: str, name: str) -> int:
    """Return an engine's process: ``collector`` or ``w1``; waits for one that is being replaced."""
    marker = "headrace_engine collector" if name == "collector" else f"--name {name} "
    found: list[int] = []

    def look() -> bool:
        with contextlib.suppress(StopIteration):
            found.append(engine_process(address, marker))
        return bool(found)

    wait_until(look, 20.0, f"a process {name}")
    return found[-1]


def spool_bytes(data: Path) -> int:
    """Return how much the spools take."""
    total = 0
    for path in data.glob("*/spool/*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def is_accounted_for(address: str, data: Path, count: int) -> bool:
    """Return whether each of so many runs has a row, or is counted as dropped."""
    status = span_status(address)
    return status is not None and len(ids(data)) + sum(status.dropped.values()) == count
