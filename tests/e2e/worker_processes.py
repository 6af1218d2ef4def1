"""What the tests of restarts share: the workers of an engine, signals to it, and streams on it."""

from __future__ import annotations

import os
import signal

from headrace import Client, LocalStream
from tests.conftest import HELLO, engine_process, processes, simulate
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


def started(client: Client, repeat: int, pace: float = 0.01) -> LocalStream:
    script = simulate(repeat=repeat, pace=pace)
    return client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=script)
