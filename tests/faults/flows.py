"""Runs flows in several programs on one engine, and looks at when their requests came to the provider.

::

    with limited_engine(config) as engine, engine.programs(8) as programs:
        programs.begin(Flow(name="first", provider="limited", key="sk-first", streams=50))
        engine.wait_for(500, "sk-first")               # until so many of its requests have come
        seen = programs.stop()                          # what the programs saw, by the name of the flow
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from headrace import Client
from headrace.cli.status_command import engine_status
from headrace.testing import Arrival, SimulatedProvider, key_hash
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Status
from tests.conftest import ROOT, PatientProvider, engine_process
from tests.e2e.engines import running_engine
from tests.faults.limited_load import Flow, SeenRun
from tests.waiting import wait_until

_decode_seen = msgspec.json.Decoder(list[SeenRun]).decode
_PROVIDER = '[providers.{}]\napi = "openai-chat"\nbase_url = "{}"\napi_key_env = "OPENAI_API_KEY"\n'


class FlowPrograms:
    """Programs that all run the same flows."""

    def __init__(self, address: str, count: int) -> None:
        command = [sys.executable, "-m", "tests.faults.limited_load", address]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)
        ]

    def begin(self, *flows: Flow, only: int | None = None) -> None:
        """Begin flows in each program, or in one of them."""
        for process in self._chosen(only):
            self._order(process, flows)

    def stop(self) -> dict[str, list[SeenRun]]:
        """End all flows now; return what was seen of the runs that have ended, by the flow's name."""
        return self._ended("stop")

    def finish(self) -> dict[str, list[SeenRun]]:
        """Let all runs end that have begun, and all of flows that have a number; return what was seen, by the flow's name."""
        return self._ended("finish")

    def close(self) -> None:
        """End the programs."""
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            finally:
                process.kill()
                process.stdout.close()  # type: ignore[union-attr]

    def _ended(self, word: str) -> dict[str, list[SeenRun]]:
        for process in self._processes:
            self._order(process, word)
        seen: dict[str, list[SeenRun]] = defaultdict(list)
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "a program has ended; its standard error says why"
            for run in _decode_seen(line):
                seen[run.flow].append(run)
        return seen

    def _chosen(self, only: int | None) -> Sequence[subprocess.Popen[bytes]]:
        return self._processes if only is None else [self._processes[only]]

    def _order(self, process: subprocess.Popen[bytes], order: object) -> None:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()


class LimitedEngine:
    """An engine and its provider."""

    def __init__(self, provider: SimulatedProvider, address: str, config: Path) -> None:
        self.provider = provider
        self.address = address
        self.config = config

    @contextmanager
    def programs(self, count: int) -> Iterator[FlowPrograms]:
        """Start programs, and end them after the block."""
        programs = FlowPrograms(self.address, count)
        try:
            yield programs
        finally:
            programs.close()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client in this process."""
        with Client(self.address, connect_timeout=30.0) as client:
            yield client

    def arrivals(self, key: str) -> list[Arrival]:
        """Return the requests with this key."""
        wanted = key_hash(key)
        return [arrival for arrival in self.provider.arrivals() if arrival.key == wanted]

    def wait_for(self, count: int, key: str, timeout: float = 30.0) -> list[Arrival]:
        """Wait until so many requests with this key have come; return them."""
        return wait_until(
            lambda: found if len(found := self.arrivals(key)) >= count else None,
            timeout,
            f"{count} requests with {key}",
            lambda: len(self.arrivals(key)),
        )

    def wait_until_monotonic(self, at: float) -> None:
        """Wait until this moment of ``time.monotonic()`` has passed at the provider, so that what comes until then is known."""
        wait_until(lambda: time.monotonic() >= at, at - time.monotonic() + 30.0, "a moment")

    def status(self) -> Status:
        """Ask the engine how it is."""
        return engine_status(self.address, 30.0)

    def pools(self, provider: str) -> list[PoolStatus]:
        """Return the engine's pools of a provider."""
        return [pool for pool in self.status().pools if pool.provider == provider]

    def pid(self, marker: str) -> int:
        """Return a process of the engine, such as its broker."""
        return engine_process(self.address, f"headrace_engine {marker}")


@contextmanager
def limited_engine(config: str = "", *, names: Sequence[str] = (), workers: int = 2) -> Iterator[LimitedEngine]:
    """Run a provider and an engine. ``names``: providers of the engine that are all this one provider."""
    folder = Path(tempfile.mkdtemp(prefix="hr-limits-"))
    try:
        with PatientProvider(process=True) as provider, pytest.MonkeyPatch.context() as patch:
            settings = folder / "headrace.toml"
            settings.write_text("".join(_PROVIDER.format(name, provider.base_url) for name in names) + config)
            for name, value in provider.environment.items():
                patch.setenv(name, value)
            patch.setenv("HEADRACE_CONFIG", str(settings))
            patch.setenv("HEADRACE_DATA", str(folder / "spans"))
            with running_engine(provider, "--workers", str(workers)) as address:
                yield LimitedEngine(provider, address, settings)
    finally:
        shutil.rmtree(folder)


def times_of(arrivals: Sequence[Arrival]) -> list[float]:
    """Return when requests came, in order."""
    return sorted(arrival.at for arrival in arrivals)


def most_within(times: Sequence[float], window: float) -> int:
    """Return how many of these moments, which are in order, lie in the fullest window of this length."""
    return max((bisect_left(times, start + window) - place for place, start in enumerate(times)), default=0)


def refused_share(arrivals: Sequence[Arrival]) -> float:
    """Return the share of requests that got a 429."""
    return sum(arrival.status == 429 for arrival in arrivals) / len(arrivals)


def kinds_of(seen: Sequence[SeenRun]) -> set[str]:
    """Return how runs ended."""
    return {run.kind for run in seen}
