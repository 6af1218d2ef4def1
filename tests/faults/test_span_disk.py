"""A disk that is full, or that takes nothing any more.

Streams go on, the status says so, what is lost is counted, and it mends by itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.faults.span_flow import (
    MIB,
    Flow,
    is_accounted_for,
    process,
    shown_status,
    span_engine,
    span_status,
    wait_for_state,
)
from tests.faults.span_sets import stored, wait_for_all
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NOT_SLOWER = 0.6
"""The least part of the runs in a second that there are still to be: what a busy machine varies by is far more than any cost."""
LONGEST_PAUSE = 5.0
"""Seconds in which no run at all may have ended: six streams take a tenth of a second each."""
STREAMS = 6
ENOUGH = 50
"""Spans that must be lost before a disk is mended."""


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Have something mounted there; skip the test where that is not allowed."""
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("takes root and mount")
    path.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # Whoever still has a file open there keeps it; the path is free at once.
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a directory read-only, for whoever opens a file from now on: those that are open stay as they are."""
    with mounted(path, "--bind", str(path)):
        remount(path, "bind,ro")
        yield
        remount(path, "bind,rw")


def dropped(address: str) -> int:
    status = span_status(address)
    return sum(status.dropped.values()) if status is not None else 0


def check_pace(flow: Flow, hindered: float, usual: float, what: str) -> None:
    """Check that no stream waited for a disk."""
    pause = max(later.at - earlier.at for earlier, later in pairwise(flow.ended))
    print(
        f"{what}: {hindered:.0f} runs/s ({hindered / usual:.2f} of the usual), longest pause {pause:.2f} s; {len(flow.ended)} runs"
    )
    assert not flow.failures
    assert hindered > NOT_SLOWER * usual / busyness()
    assert pause < LONGEST_PAUSE * busyness()


def check_account(address: str, data: Path, flow: Flow, later: int) -> None:
    """Check that each run is stored or counted, and that those from number ``later`` on are stored."""
    wait_until(lambda: is_accounted_for(address, data, len(flow.ended)), 30.0, "the account of all spans")
    status, rows, ids = span_status(address), stored(data), flow.ids()
    assert status is not None
    assert status.state == "ok"
    assert status.dropped == {"memory_full": len(ids) - len(rows)}
    assert rows.keys() <= set(ids)
    assert set(ids[later:]) <= rows.keys()
    print(f"  {len(rows)} stored, {len(ids) - len(rows)} dropped and counted")


def test_a_full_disk_holds_no_stream_up_and_what_it_costs_is_counted(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    settings = f"memory_bytes = {MIB // 2}\nspool_bytes = {64 * MIB}\n"
    with (
        mounted(data, "-t", "tmpfs", "-o", "size=3m,mode=700", "headrace-test"),
        span_engine(provider, data, settings) as address,
        Flow(address, streams=STREAMS, characters=4000) as flow,
    ):
        wait_for_state(address, "disk full")
        wait_until(lambda: dropped(address) > ENOUGH, 30.0, "lost spans")
        hindered = flow.go_on(1.5)
        shown = shown_status(address)
        remount(data, "size=128m")
        wait_for_state(address, "ok")
        later = len(flow.ended)
        usual = flow.go_on(1.5)
        flow.stop()
        check_pace(flow, hindered, usual, "disk full")
        check_account(address, data, flow, later)
        mended, lost = shown_status(address), dropped(address)

    assert "disk full: " in shown
    assert " memory_full" in shown
    assert "disk full" not in mended
    assert f"dropped: {lost} memory_full" in mended


def test_a_disk_that_becomes_read_only_holds_no_stream_up_and_what_it_costs_is_counted(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    # The spool wants a new file each half a mebibyte.
    settings = f"memory_bytes = {MIB // 2}\nspool_bytes = {2 * MIB}\n"
    with (
        span_engine(provider, data, settings) as address,
        Flow(address, streams=STREAMS, characters=1000) as flow,
    ):
        flow.wait_for(20)
        wait_for_all(data, flow.ids()[:20])
        with read_only(data):
            since = len(flow.ended)
            flow.wait_for(100)
            # The database is open, so that nothing is lost yet, though the spool takes nothing more.
            wait_for_all(data, flow.ids()[since : since + 100])
            assert dropped(address) == 0
            os.kill(process(address, "collector"), signal.SIGKILL)
            wait_for_state(address, "failing")
            wait_until(lambda: dropped(address) > ENOUGH, 30.0, "lost spans")
            hindered = flow.go_on(1.5)
            shown = shown_status(address)
        wait_for_state(address, "ok")
        later = len(flow.ended)
        usual = flow.go_on(1.5)
        flow.stop()
        check_pace(flow, hindered, usual, "read-only")
        check_account(address, data, flow, later)

    assert "failing: attempt to write a readonly database" in shown
    assert " memory_full" in shown


def test_an_engine_that_starts_on_a_read_only_disk_runs_without_spans_and_says_so(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("HEADRACE_DATA", str(data))
    data.mkdir(mode=0o700)
    with read_only(data), running_engine(provider, "--workers", "1") as address, Client(address) as client:
        assert client.run_local(model="gpt-4o", messages=HELLO).text
        shown = shown_status(address)

    assert "dropped: 1 not_kept" in shown
    assert f"{data} cannot be used: Read-only file system" in shown
    with running_engine(provider, "--workers", "1") as address, Client(address) as client:
        wait_for_all(data, [client.run_local(model="gpt-4o", messages=HELLO).span_id])
