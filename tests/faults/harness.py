"""Runs an engine under load, hurts it at random moments, and checks every promise at the end.

::

    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=20)                  # a program of its own, see load.LoadPlan for its arguments
        load.wait_for(10)                               # until so many of its streams have had a chunk
        for _ in engine.moments(20, 0.1, 0.5):          # 20 random moments, 0.1 to 0.5 s apart
            engine.signal("w1", signal.SIGKILL)         # by name (supervisor, broker, collector, w1…), by Load, or by process id
        load.stop()                                     # or leave it to the end
    # here: every run has ended, no lease and no provider connection is left, and all histories have been checked

The end of the ``with`` settles and checks; it raises with the seed and the folder of the histories, which is kept. Further:
``engine.random`` is seeded (``HEADRACE_FAULT_SEED`` repeats a run), ``engine.outcomes()`` what all loads' callers saw so far,
``engine.client()`` a client in this process (closed at the end), ``engine.stream(client, …)`` a run of it that the checker can match,
``engine.order("w1", "hold 10")`` a fault from inside the process (see ``inside/sitecustomize.py``; needs ``has_orders=True``).
``config`` is the text of a ``headrace.toml``, ``limits`` what the checker allows, ``wrapper`` a program that starts the engine,
``data`` where spans go, if they are to be looked at afterwards. One engine of this kind at a time per test process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from headrace import Client, LocalStream
from headrace.cli.status_command import engine_status
from headrace.errors import HeadraceError
from headrace.process.history import VARIABLE, History, HistoryEvent
from headrace.testing import SimulatedProvider
from headrace.wire.messages import Status
from headrace_engine.supervisor.restart_policy import SHORT_LIFE
from tests.conftest import ROOT, engine_process, processes
from tests.e2e.engines import running_engine
from tests.faults.load import MODEL, LoadPlan
from tests.history.checker import check
from tests.history.facts import Limits
from tests.history.model import ProviderCall, decode_event, provider_calls, read_histories
from tests.waiting import busyness, wait_until

_INSIDE = ROOT / "tests" / "faults" / "inside"
_MARKERS = {
    "supervisor": "headrace_engine --directory",
    "broker": "headrace_engine broker",
    "collector": "headrace_engine collector",
}


class SeenOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a load's own code saw of one run. ``kind`` is done, aborted, or the name of an error's class."""

    span_id: str
    kind: str
    reason: str
    text: str
    attempts: int
    began_at: float
    first_at: float | None
    ended_at: float


class NotesOfProcess:
    """The history of a process that still writes: each reading goes on where the last one ended."""

    def __init__(self, path: Path) -> None:
        self.by_name: dict[str, list[HistoryEvent]] = defaultdict(list)
        self._path = path
        self._position = 0

    def read_on(self) -> None:
        """Read the new lines. Do nothing while the file does not exist."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._position)
            whole, end, _ = file.read().rpartition(b"\n")
            self._position += len(whole) + len(end)
            for line in whole.splitlines():
                event = decode_event(line)
                self.by_name[event.event].append(event)


class Load:
    """A program with streams on the engine."""

    def __init__(self, plan: LoadPlan, history: Path) -> None:
        command = [sys.executable, "-m", "tests.faults.load", msgspec.json.encode(plan).decode()]
        self.plan = plan
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
        self._notes = NotesOfProcess(history / f"caller-{self.pid}-0.jsonl")
        self.was_killed = False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def events(self, name: str) -> list[HistoryEvent]:
        """Return its notes of one name so far: begin, first, read, saw."""
        self._notes.read_on()
        return list(self._notes.by_name[name])

    def outcomes(self) -> list[SeenOutcome]:
        """Return what it has seen the end of."""
        ends = self.events("saw")  # read first: it writes on, and each end has its beginning before it
        began = {event.span_id: event.at for event in self.events("begin")}
        first = {event.span_id: event.at for event in self.events("first")}
        return [
            SeenOutcome(
                span_id=saw.span_id,
                kind=saw.kind,
                reason=saw.reason,
                text=saw.text,
                attempts=saw.attempt,
                began_at=began[saw.span_id],
                first_at=first.get(saw.span_id),
                ended_at=saw.at,
            )
            for saw in ends
        ]

    def wait_for(self, count: int, name: str = "first", timeout: float = 20.0) -> None:
        """Wait until it has made so many notes of one name."""
        wait_until(lambda: len(self.events(name)) >= count, timeout, f"{count} notes {name!r} of a load")

    def stop(self) -> None:
        """Have it begin no more runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def join(self, timeout: float) -> None:
        """Wait for its end, after :meth:`stop`."""
        self.stop()
        code = self._process.wait(timeout * busyness())
        assert self.was_killed or code == 0, f"the load ended with status {code}"

    def end(self) -> None:
        """End the load at once. What it saw is kept after the histories are removed."""
        self.stop()
        self._process.kill()
        self._process.wait()
        self._notes.read_on()


class FaultyEngine:
    """An engine, its loads, and its faults."""

    def __init__(self, provider: SimulatedProvider, address: str, history: Path, seed: int, limits: Limits) -> None:
        self.provider = provider
        self.address = address
        self.directory = Path(address.removeprefix("ipc://"))
        self.history = history
        self.seed = seed
        self.random = Random(seed)
        self.limits = limits
        self.is_gone = False
        """Set by a test that ended the engine for good: it is not asked for leases then."""
        self.loads: list[Load] = []
        self._clients: list[Client] = []
        self._workers: dict[Path, NotesOfProcess] = {}
        self._notes = History(history / f"harness-{os.getpid()}-{seed}.jsonl")

    # Load.

    def load(self, **plan: Any) -> Load:
        """Start a program with streams."""
        seed = self.random.getrandbits(32)
        load = Load(LoadPlan(**{"address": self.address, "seed": seed, **plan}), self.history)
        self.loads.append(load)
        return load

    def client(self, connect_timeout: float = 30.0) -> Client:
        """Return a client in this process."""
        client = Client(self.address, connect_timeout=connect_timeout)
        self._clients.append(client)
        return client

    def stream(self, client: Client, **script: Any) -> LocalStream:
        """Start a run. The checker finds its provider calls by the span id in the prompt."""
        return self.ask(client, "", script)

    def ask(self, client: Client, prompt: str, script: dict[str, Any]) -> LocalStream:
        """The same with a prompt, which follows the run's id."""
        span_id = f"sp_{self.random.getrandbits(64):016x}"
        return client.run_local(
            model=MODEL,
            messages=[{"role": "user", "content": f"{span_id} {prompt}"}],
            stream=True,
            span_id=span_id,
            custom_options={"simulate": script},
        )

    def outcomes(self, *kinds: str) -> list[SeenOutcome]:
        """Return what all loads have seen the end of; of these kinds, if some are named."""
        outcomes = [outcome for load in self.loads for outcome in load.outcomes()]
        return [outcome for outcome in outcomes if not kinds or outcome.kind in kinds]

    # Faults.

    def moments(self, count: int, least: float, most: float) -> Iterator[int]:
        """Yield at random moments, so far apart, in seconds."""
        for number in range(count):
            threading.Event().wait(self.random.uniform(least, most))
            yield number

    def pid(self, name: str) -> int:
        """Return the process that has this name now; waits for one that is being replaced."""
        found: list[int] = []

        def look() -> bool:
            with contextlib.suppress(StopIteration):
                found.append(engine_process(str(self.directory), _MARKERS.get(name, f"--name {name} ")))
            return bool(found)

        wait_until(look, 20.0, f"a process {name}")
        return found[-1]

    def signal(self, target: str | int | Load, number: signal.Signals) -> float:
        """Send a signal, and note the fault; return when. A process that is gone already is none."""
        pid = self._pid_of(target)
        self._notes.note("fault", kind=number.name, pid=pid)
        sent_at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if isinstance(target, Load) and number == signal.SIGKILL:
            target.was_killed = True
        return sent_at

    def cut(self) -> None:
        """Note the fault that connections are cut."""
        self._notes.note("fault", kind="cut")

    def order(self, target: str | int, order: str) -> float:
        """Have a process hurt itself: ``hold 10`` or ``stall 10`` (seconds), ``abort``, ``segfault``, ``memory``; return when."""
        pid = self._pid_of(target)
        (self.history / f"order-{pid}").write_text(order)
        self._notes.note("fault", kind="stall" if order.startswith(("hold", "stall")) else order, pid=pid)
        sent_at = time.monotonic()
        os.kill(pid, signal.SIGUSR1)
        return sent_at

    def _pid_of(self, target: str | int | Load) -> int:
        if isinstance(target, Load):
            return target.pid
        return target if isinstance(target, int) else self.pid(target)

    # Looking.

    def status(self, timeout: float = 60.0) -> Status:
        """Ask the engine how it is; wait for a broker that is being replaced."""
        return engine_status(self.address, timeout)

    def wait_ready(self, workers: int, timeout: float = 60.0) -> None:
        """Wait until so many workers take runs."""

        def is_ready() -> bool:
            with contextlib.suppress(HeadraceError):
                return sum(worker.state == "ok" for worker in self.status(5.0).workers) >= workers
            return False

        wait_until(is_ready, timeout, f"{workers} workers")

    def worker_of(self, span_id: str, timeout: float = 10.0) -> int:
        """Return the process of the worker that has last started a run; waits for one."""
        wait_until(lambda: span_id in self.workers_of_runs(), timeout, f"a worker for {span_id}")
        return self.workers_of_runs()[span_id]

    def some_worker(self, spared: int = 1) -> int:
        """Return the process of a worker that serves, once there are so many others: they die faster than they start otherwise."""
        self.wait_ready(spared + 1)
        return self.random.choice([worker.pid for worker in self.status().workers if worker.state == "ok"])

    def workers_of_runs(self) -> dict[str, int]:
        """Return the process of the worker that has last started each run, by span id."""
        starts: list[tuple[float, str, int]] = []
        for path in self.history.glob("worker-*.jsonl"):
            notes = self._workers.setdefault(path, NotesOfProcess(path))
            notes.read_on()
            pid = int(path.name.split("-")[1])
            starts += [(event.at, event.span_id, pid) for event in notes.by_name["start"]]
        return {span_id: pid for _, span_id, pid in sorted(starts)}

    def calls(self) -> list[ProviderCall]:
        """Return what the provider was asked for this engine's runs."""
        return list(provider_calls(self.provider.requests()))

    # The end.

    def settle(self, timeout: float = 30.0) -> None:
        """Let all runs end; then no lease, no waiting run and no provider connection may be left."""
        for load in self.loads:
            load.stop()
        for load in self.loads:
            load.join(timeout)
        for client in self._clients:
            client.close()
        if not self.is_gone:
            wait_until(lambda: _is_idle(self.status()), 10.0, "the engine without leases")
        wait_until(lambda: all(call.ended_at is not None for call in self.calls()), 10.0, "no open provider call")

    def check(self) -> None:
        """Check all histories; to be called when all processes have ended."""

        def left() -> list[str]:
            return [line for _, _, line in processes() if str(self.directory) in line]

        wait_until(lambda: not left(), 10.0, "the end of the engine's processes", left)
        violations = check(read_histories(self.history), self.calls(), self.limits)
        assert not violations, "\n".join(map(str, violations[:20]))

    def end(self) -> None:
        """End what is left of the loads and clients."""
        for load in self.loads:
            load.end()
        for client in self._clients:
            client.close()


@contextmanager
def faulty_engine(
    provider: SimulatedProvider,
    *,
    workers: int = 2,
    config: str = "",
    options: Sequence[str] = (),
    limits: Limits | None = None,
    has_orders: bool = False,
    is_young: bool = False,
    wrapper: Sequence[str] = (),
    data: Path | None = None,
    seed: int | None = None,
) -> Iterator[FaultyEngine]:
    """Run an engine; check everything at the end. Failures name the seed and keep the histories.

    A young one is there at once, and takes three early deaths of a process to mean that it cannot start.
    """
    named = os.environ.get("HEADRACE_FAULT_SEED")
    seed = seed if seed is not None else int(named) if named else Random().getrandbits(32)
    history = Path(tempfile.mkdtemp(prefix="hr-history-"))
    (history / "headrace.toml").write_text(config)
    provider.clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, str(history))
            patch.setenv("HEADRACE_CONFIG", str(history / "headrace.toml"))
            patch.setenv("HEADRACE_DATA", str(data or history / "spans"))
            if has_orders:
                patch.setenv("PYTHONPATH", str(_INSIDE), prepend=os.pathsep)
            with running_engine(provider, "--workers", str(workers), *options, wrapper=wrapper) as address:
                engine = FaultyEngine(provider, address, history, seed, limits or Limits())
                try:
                    engine.wait_ready(workers)
                    if not is_young:
                        threading.Event().wait(SHORT_LIFE)
                    yield engine
                    engine.settle()
                finally:
                    engine.end()
            engine.check()
    except BaseException as error:
        if data_of_all := os.environ.get("HEADRACE_DATA"):
            # Among pytest's own folders of this run, which it keeps after a failure: the temporary folder goes with the run.
            history = Path(shutil.move(history, Path(data_of_all).parent))
        error.add_note(f"HEADRACE_FAULT_SEED={seed}; histories in {history}")
        raise
    shutil.rmtree(history)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of ``values`` lies: the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _is_idle(status: Status) -> bool:
    return status.leases == 0 and status.waiting == 0
