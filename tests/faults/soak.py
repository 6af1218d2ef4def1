"""``python -m tests.faults.soak [SECONDS]``.

An engine under mixed load and random faults, and whether anything of it grows.

Every run is checked by the histories; the watch holds memory, descriptors and threads of each process against their bounds. One
worker and one client are never hurt, so that their series are long.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec

from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, Load, faulty_engine
from tests.faults.process_watch import HEAD, GrowthWatch, Series, table
from tests.waiting import wait_until

GUESTS = 3
RARELY = 0.3
KINDS = ("done", "aborted", "failed", "WorkerLostError", "PoisonRunError")
LONG_LOAD = {
    "streams": 25,
    "chunks": (2, 200),
    "pace": 0.04,
    "abort_share": 0.15,
    "pause_share": 0.05,
    "other_share": 0.2,
}
GUEST_LOAD = {"streams": 5, "chunks": (20, 200), "pace": 0.02, "abort_share": 0.1, "other_share": 0.1}


class SoakReport(msgspec.Struct, frozen=True):
    """What a soak showed."""

    series: list[Series]
    faults: dict[str, int]
    outcomes: dict[str, int]
    seed: int

    def violations(self) -> list[str]:
        """Return the broken promises, one text each."""
        grown = [fault for series in self.series for fault in series.faults()]
        ends = [f"{count} runs ended in {kind}" for kind, count in self.outcomes.items() if kind not in KINDS]
        return grown + ends

    def text(self) -> str:
        """Return all of it, for people."""
        return "\n".join(
            [
                table([HEAD, *[series.line() for series in self.series]]),
                "",
                f"runs: {_counts(self.outcomes)}",
                f"faults: {_counts(self.faults)}; seed {self.seed}",
            ]
        )


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items(), key=lambda item: -item[1]))


class Soak:
    """The load and the faults of one engine."""

    def __init__(self, engine: FaultyEngine) -> None:
        self.faults: Counter[str] = Counter()
        self._engine = engine
        self._random = engine.random
        self._long = engine.load(**LONG_LOAD)
        self._guests: list[Load] = [engine.load(**GUEST_LOAD) for _ in range(GUESTS)]
        self._watch = GrowthWatch(engine.directory, {"client": self._long.pid})

    def run(self, seconds: float) -> list[Series]:
        """Hurt the engine for so many seconds."""
        try:
            self._long.wait_for(10)
            for _ in self._moments(time.monotonic() + seconds):
                self._exchange_guest()
                self._hurt_one()
        finally:
            series = self._watch.end()
        return series

    def _moments(self, ends_at: float) -> Iterator[None]:
        while True:
            pause = self._random.uniform(5.0, 10.0)
            if time.monotonic() + pause > ends_at:
                threading.Event().wait(max(ends_at - time.monotonic(), 0.0))
                return
            threading.Event().wait(pause)
            yield

    def _hurt_one(self) -> None:
        faults = [self._kill_worker, self._pause_worker, self._hurt_guest, self._hurt_guest]
        # Of these there is one each, and now and then their series are to be long.
        for name in ("broker", "collector"):
            if name in self._watch.pids():
                faults.append(partial(self._pause, name, self._random.uniform(0.2, 2.0)))
                if self._random.random() < RARELY:
                    faults.append(partial(self._kill, name))
        self._random.choice(faults)()

    def _exchange_guest(self) -> None:
        """End one guest in the usual way, and start another."""
        gone = self._guests.pop(0)
        if not gone.was_killed:
            gone.stop()
        self._guests.append(self._engine.load(**GUEST_LOAD))

    def _kill_worker(self) -> None:
        self._kill(self._random.choice(["w2", "w3"]))

    def _pause_worker(self) -> None:
        # The longest is taken for hung, and ended.
        self._pause(self._random.choice(["w2", "w3"]), self._random.choice([0.5, 1.0, 2.0, 8.0]))

    def _hurt_guest(self) -> None:
        guest = self._random.choice(self._guests)
        if guest.was_killed:
            return
        if self._random.random() < 0.6:
            self.faults["kill client"] += 1
            self._engine.signal(guest, signal.SIGKILL)
        else:
            self.faults["pause client"] += 1
            self._stop_for(guest.pid, self._random.uniform(0.5, 3.0))

    def _kill(self, name: str) -> None:
        if (pid := self._watch.pids().get(name)) is not None:
            self.faults[f"kill {_role(name)}"] += 1
            self._engine.signal(pid, signal.SIGKILL)

    def _pause(self, name: str, seconds: float) -> None:
        if (pid := self._watch.pids().get(name)) is not None:
            self.faults[f"pause {_role(name)}"] += 1
            self._stop_for(pid, seconds)

    def _stop_for(self, pid: int, seconds: float) -> None:
        self._engine.signal(pid, signal.SIGSTOP)
        threading.Event().wait(seconds)
        self._engine.signal(pid, signal.SIGCONT)


def _role(name: str) -> str:
    return "worker" if name.startswith("w") else name


def soak(provider: SimulatedProvider, seconds: float, seed: int | None = None) -> SoakReport:
    """Hurt an engine for so many seconds. Raises if a history shows a broken promise."""
    connections = provider.open_connections  # of other engines
    with faulty_engine(provider, workers=3, seed=seed) as engine:
        work = Soak(engine)
        series = work.run(seconds)
    # The engine has ended by now, and has let go of everything.
    wait_until(lambda: provider.open_connections <= connections, 10.0, "no connection to the provider")
    outcomes = Counter(outcome.kind for outcome in engine.outcomes())
    return SoakReport(series, dict(work.faults), dict(outcomes), engine.seed)


def main() -> int:
    """Soak, and print what was seen."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="An engine under mixed load and random faults.")
    parser.add_argument("seconds", nargs="?", type=float, default=600.0, help="how long (600)")
    parser.add_argument("--seed", type=int, help="repeats the choices of a run; else it is random, and printed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-soak-") as data, SimulatedProvider(process=True) as provider:
        os.environ["HEADRACE_DATA"] = data  # what is hurt here is nothing for the user's own spans
        report = soak(provider, arguments.seconds, arguments.seed)
    print(report.text())
    for violation in report.violations():
        print(f"FAILED {violation}")
    return 1 if report.violations() else 0


if __name__ == "__main__":
    sys.exit(main())
