"""Whatever keeps spans from being stored, streams go on as they were.

What cannot be kept is counted, the oldest first.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.process_figures import resident_bytes
from tests.faults.span_flow import (
    MIB,
    Flow,
    is_accounted_for,
    process,
    shown_status,
    span_engine,
    span_status,
    spool_bytes,
)
from tests.faults.span_sets import content, ids, stored, wait_for_all
from tests.repetition import is_long
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STOPS = [30.0] if is_long() else [3.0, 3.0]
"""Seconds for which the collector stands still, one after the other. `scripts/test --long` asks for the longer form."""
NOT_SLOWER = 0.6
"""The least part of the runs in a second that there are still to be: what a busy machine varies by is far more than any cost."""
MEMORY = 1 * MIB
MEMORY_SLACK = 24 * MIB
"""What a worker's memory may grow by beside it: frames that are on their way, and what its allocator keeps."""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_collector_that_stands_still_slows_no_stream_and_costs_no_span(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    settings = f"memory_bytes = {MEMORY}\nspool_bytes = {4096 * MIB}\n"
    usual, hindered, growth, spilled = [], [], 0, 0
    with span_engine(provider, data, settings) as address, Flow(address, streams=6) as flow:
        collector, worker = process(address, "collector"), process(address, "w1")
        flow.wait_for(50)
        for seconds in STOPS:
            usual.append(flow.go_on(1.5))
            before = resident_bytes(worker)
            with stopped(collector):
                began, count = time.monotonic(), len(flow.ended)
                while time.monotonic() < began + seconds:
                    flow.go_on(0.2)
                    growth = max(growth, resident_bytes(worker) - before)
                hindered.append((len(flow.ended) - count) / (time.monotonic() - began))
                wait_until(lambda: spool_bytes(data) > 4 * MEMORY, 30.0, "spilled spans")
                spilled = max(spilled, spool_bytes(data))
            # It catches up first, which takes what streams could have.
            wait_for_all(data, flow.ids(), 120.0)
        flow.stop()
        wait_for_all(data, flow.ids())
        status = span_status(address)

    ratio = statistics.mean(hindered) / statistics.mean(usual)
    print(
        f"collector stopped for {STOPS} s: {statistics.mean(usual):.0f} runs/s before, {statistics.mean(hindered):.0f} meanwhile "
        f"({ratio:.2f}); {spilled / MIB:.0f} MiB spilled, worker's memory +{growth / MIB:.1f} MiB; {len(flow.ended)} runs"
    )
    assert not flow.failures
    assert status is not None
    assert status.dropped == {}
    rows = stored(data)
    assert rows.keys() == set(flow.ids())
    assert {(row.span.status, len(content(row).text)) for row in rows.values()} == {("ok", flow.run_bytes)}
    assert ratio > NOT_SLOWER / busyness()
    assert growth < MEMORY + MEMORY_SLACK


@pytest.mark.parametrize(("spool", "reason"), [(4 * MIB, "spool_full"), (0, "memory_full")])
def test_what_has_no_room_is_dropped_the_oldest_first_and_counted(
    provider: SimulatedProvider, tmp_path: Path, spool: int, reason: str
) -> None:
    data = tmp_path / "data"
    # So much that the store keeps up with while it is well.
    settings = f"memory_bytes = {8 * MIB}\nspool_bytes = {spool}\n"
    with span_engine(provider, data, settings) as address, Flow(address) as flow:
        flow.wait_for(50)
        with stopped(process(address, "collector")):
            flow.wait_for(300)
            assert spool_bytes(data) <= spool + 2 * MIB
        flow.wait_for(50)
        flow.stop()
        wait_until(lambda: is_accounted_for(address, data, len(flow.ended)), 30.0, "the account of all spans")
        status, shown = span_status(address), shown_status(address)

    assert status is not None
    found = set(ids(data))
    is_stored = [span_id in found for span_id in flow.ids()]
    dropped = is_stored.count(False)
    print(f"{reason}: {dropped} of {len(is_stored)} dropped")
    assert not flow.failures
    assert status.dropped == {reason: dropped}
    assert f"dropped: {dropped} {reason}" in shown
    # The order in which runs end, and in which this program learns of it, differ a little.
    gap = is_stored[is_stored.index(False) : len(is_stored) - is_stored[::-1].index(False)]
    assert dropped > 50
    assert gap.count(True) <= 2 * flow.streams
    assert len(gap) < len(is_stored) - 50 - gap.count(True)
    assert stored(data).keys() <= set(flow.ids())
