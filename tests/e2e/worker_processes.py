"""What the tests of restarts share: the workers of an engine, and signals to it."""

from __future__ import annotations

import os
import signal

from tests.conftest import engine_process, processes
from tests.waiting import wait_until

MODEL = "gpt-4o"


def worker_pids(address: str) -> set[int]:
    directory = address.removeprefix("ipc://")
    return {pid for pid, _, line in processes() if "-m headrace_workers" in line and directory in line}


def tell_engine(address: str, number: signal.Signals) -> None:
    os.kill(engine_process(address, "headrace_engine --directory"), number)


def restart(address: str) -> None:
    """Replace the workers, and wait until those before have gone."""
    before = worker_pids(address)
    tell_engine(address, signal.SIGHUP)
    wait_until(lambda: not before & worker_pids(address), 40.0)
