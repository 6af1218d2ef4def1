"""A hostile program of the same user at full speed.

Others' runs end well, no process dies, and the memory of each is bounded.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, processes, simulate
from tests.e2e.engines import running_engine
from tests.faults.process_figures import MIB, resident_bytes
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = repeated(3.0, 60.0)
BOUNDS = {"broker": 300, "collector": 400, "w1": 600, "w2": 600, "supervisor": 100}
"""MiB that a process may have more at its highest than before."""


class Bystander(threading.Thread):
    """Runs streams one after another, and checks each."""

    def __init__(self, client: Client, is_over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._client, self._is_over = client, is_over
        self.ended_well = 0
        self.slowest = 0.0
        self.errors: list[BaseException] = []

    def run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                stream = self._client.run_local(
                    model="gpt-4o", messages=HELLO, stream=True, custom_options=simulate(repeat=30, pace=0.01)
                )
                assert "".join(stream) == "".join(f"{number} " for number in range(30))
                self.ended_well += 1
            except BaseException as error:  # noqa: BLE001 - told of by the test
                self.errors.append(error)
            self.slowest = max(self.slowest, time.monotonic() - began)


def engine_pids(directory: str) -> dict[str, int]:
    """Return the processes of an engine, by name."""
    found: dict[str, int] = {}
    for pid, _, line in processes():
        if f"--directory {directory}" not in line:
            continue
        words = line.split()
        if "headrace_workers" in line:
            found[words[words.index("--name") + 1]] = pid
        else:
            found[next((name for name in ("broker", "collector") if name in words), "supervisor")] = pid
    return found


def test_a_hostile_program_of_the_same_user_harms_nobody(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "2") as address, Client(address, connect_timeout=60.0) as client:
        directory = address.removeprefix("ipc://")
        assert client.run_local(model="gpt-4o", messages=HELLO).text
        pids = wait_until(lambda: found if len(found := engine_pids(directory)) == 5 else None, 10.0, "all processes")
        before = {name: resident_bytes(pid) for name, pid in pids.items()}
        peak = dict(before)
        is_over = threading.Event()
        bystanders = [Bystander(client, is_over) for _ in range(8)]
        for bystander in bystanders:
            bystander.start()
        command = [sys.executable, "-m", "tests.faults.hostile_program", directory, str(SECONDS), "7"]
        hostile = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        try:
            while hostile.poll() is None:
                for name, pid in engine_pids(directory).items():
                    with contextlib.suppress(OSError):
                        peak[name] = max(peak[name], resident_bytes(pid))
                is_over.wait(0.02)
        finally:
            is_over.set()
            hostile.kill()
        counts = json.loads(hostile.communicate()[0].splitlines()[-1])
        for bystander in bystanders:
            bystander.join(60 * busyness())
        # Who may connect may have the workers replaced, as `headrace restart` does: one after another, with their runs at their end.
        wait_until(lambda: set(engine_pids(directory)) == set(pids), 30.0, "all processes again")
        now = engine_pids(directory)
        after = {name: resident_bytes(pid) for name, pid in now.items()}

        print(f"\n{SECONDS:g} s: {sum(counts.values())} in all: {counts}")
        for name in pids:
            figures = [f"{size[name] / MIB:.0f}" for size in (before, peak, after)]
            print(f"| {name} | {' | '.join(figures)} |")
        ended = sum(bystander.ended_well for bystander in bystanders)
        slowest = max(bystander.slowest for bystander in bystanders)
        print(f"bystanders: {ended} runs ended well, the slowest in {slowest:.1f} s")
        assert [error for bystander in bystanders for error in bystander.errors] == []
        assert ended >= len(bystanders)
        lasting = ("broker", "collector", "supervisor")
        assert [now[name] for name in lasting] == [pids[name] for name in lasting], "no process died of it"
        assert {name for name in pids if peak[name] - before[name] > BOUNDS[name] * MIB} == set()
        assert client.run_local(model="gpt-4o", messages=HELLO).text
