"""Facts from all histories together: which process was killed or stopped when, and which epoch it had. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from headrace.process.history import HistoryEvent
from tests.history.model import ProcessHistory, ProviderCall

STOPS = ("SIGSTOP", "stall")
"""Faults after which a process is late with everything."""
CUT = "cut"
"""The fault of a connection that ends though the processes at its ends do not: one of them knows first."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed. Durations in seconds."""

    close_within: float = 2.0
    """From an abort, or a client's death, to the closed connection at the provider. Generous: figures are measured elsewhere."""
    max_runs_per_worker: int = 16_384
    overshoot: int = 0
    """Runs beyond that after a broker's crash."""
    max_calls: int = 4
    """Requests to the provider for one run: the first, two retries, and one after the death of a worker."""


class Facts:
    """The histories, by what is asked of them."""

    def __init__(self, histories: Sequence[ProcessHistory], calls: Iterable[ProviderCall], limits: Limits) -> None:
        self.histories = histories
        self.limits = limits
        self.calls: dict[str, list[ProviderCall]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.arrived_at):
            self.calls[call.span_id].append(call)
        self._workers = {history.epoch: history.pid for history in histories if history.role == "worker"}
        self._faults: dict[int, list[HistoryEvent]] = defaultdict(list)
        for event in self._all("harness", "fault"):
            self._faults[event.pid].append(event)
        self._cuts = [fault.at for fault in self._faults[0] if fault.kind == CUT]
        ended = self._all("supervisor", "ended")
        self._killed = {event.epoch for event in ended if event.reason.startswith("signal")}
        supervisors = [history.pid for history in histories if history.role == "supervisor"]
        self._engine_killed_at = min((self.killed_at(pid) for pid in supervisors), default=math.inf)
        self.was_engine_ended = any(self._faults[pid] for pid in supervisors)

    def _all(self, role: str, name: str) -> list[HistoryEvent]:
        return [e for history in self.histories if history.role == role for e in history.events if e.event == name]

    def killed_at(self, pid: int) -> float:
        """Return when a process was killed, or infinity."""
        return min((fault.at for fault in self._faults[pid] if fault.kind == "SIGKILL"), default=math.inf)

    def worker_ended_at(self, history: ProcessHistory) -> float:
        """Return when a worker did its last: what died does not write down when."""
        return history.events[-1].at if self.was_killed(history) else math.inf

    def was_killed(self, history: ProcessHistory) -> bool:
        """Return whether a process of the engine did not come to its own end: what it left undone is not its fault."""
        return history.epoch in self._killed or min(self.killed_at(history.pid), self._engine_killed_at) < math.inf

    def was_stopped(self, pid: int) -> bool:
        """Return whether a process was ever stopped or made to stall."""
        return any(fault.kind in STOPS for fault in self._faults[pid])

    def was_cut(self, before: float, until: float) -> bool:
        """Return whether connections were cut before the one moment, and so shortly before the other that it explains it."""
        return any(until - self.limits.close_within <= cut <= before for cut in self._cuts)

    def was_worker_stopped(self, epoch: int) -> bool:
        """The same of the worker with this epoch."""
        return self.was_stopped(self._workers.get(epoch, 0))
