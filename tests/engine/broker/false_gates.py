"""Gates for tests of the admission: open or closed as the test says, and a record of what the admission told them."""
# ruff: noqa: ARG002 - the arguments are those of Gate and Gates

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from headrace.settings.settings import Settings
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Release, ResponseReport
from headrace_engine.limits.gate import Gate, GateWait, KeyRefused, Priority, Refusal, Ticket


class FalseGate:
    """A gate with ``room`` for so many runs at once, closed until ``closed.until`` if ``closed`` is set."""

    def __init__(self, key: str, room: int = 1_000_000) -> None:
        self.key: Hashable = key
        self.room = room
        self.closed: GateWait | None = None
        self.closed_to: dict[str, GateWait] = {}
        """Runs that must wait, whatever else."""
        self.interval = 0.0
        """Seconds from one grant to the next."""
        self.reserved = 0
        """Room that batch runs may not use."""
        self.run_key = ""
        self.running: dict[int, tuple[Acquire, Ticket]] = {}
        self.left: list[tuple[str, str | None]] = []
        self.reports: list[ResponseReport] = []
        self.late_refusals: dict[str, Refusal] = {}
        self._next = float("-inf")
        self.fixed_version: int | None = None
        """``None``: another one each time, so that the gate is asked each time."""
        self.asked = 0
        """How often a run was tried at this gate."""
        self._version = 0

    @property
    def version(self) -> int:
        self._version += 1
        return self._version if self.fixed_version is None else self.fixed_version

    def wait(self, priority: Priority, question: Acquire, now: float) -> GateWait | None:
        self.asked += 1
        if question.span_id in self.closed_to:
            return self.closed_to[question.span_id]
        if self.closed is not None and (self.closed.until is None or now < self.closed.until):
            return self.closed
        if now < self._next:
            return GateWait("limit", self._next)
        room = self.room - (self.reserved if priority == "batch" else 0)
        return None if len(self.running) < room else GateWait("limit", None)

    def enter(self, question: Acquire, now: float, epoch: int = 0) -> Ticket:
        assert self.wait("interactive", question, now) is None
        self._next = now + self.interval if self.interval else self._next
        return self._count(question)

    def _count(self, question: Acquire) -> Ticket:
        ticket = Ticket(self, self.run_key, reports=bool(self.run_key))
        self.running[id(ticket)] = (question, ticket)
        return ticket

    def late_refusal(self, question: Acquire, now: float) -> Refusal | None:
        return self.late_refusals.get(question.span_id)

    def answered(self, ticket: Ticket, report: ResponseReport, now: float) -> None:
        self.reports.append(report)

    def leave(self, ticket: Ticket, release: Release | None, now: float) -> None:
        question, _ = self.running.pop(id(ticket))  # raises if the ticket was given back before
        self.left.append((question.span_id, release.outcome if release is not None else None))

    def expected_wait(self, question: Acquire, ahead: int, now: float) -> float:
        blocked = self.closed.until - now if self.closed is not None and self.closed.until is not None else 0.0
        return max(blocked, 0.0) + ahead * self.interval


class FalseGates:
    """A gate for each model that the test names; other models are not limited."""

    def __init__(self, *gates: FalseGate) -> None:
        self.generation = 0
        self.is_changed = False
        self.gates = {str(gate.key): gate for gate in gates}
        self.refusals: dict[str, Refusal] = {}
        self.kept: bytes | None = None
        self.restored: list[bytes] = []
        self.keys: dict[int, Mapping[str, Sequence[str]]] = {}
        self.happened: list[KeyRefused] = []
        self.asked: Counter[str] = Counter()

    def gate_of(self, question: Acquire) -> Gate | None:
        return self.gates.get(question.model)

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        self.asked[question.span_id] += 1
        return self.refusals.get(question.span_id)

    def learns_from(self, question: Acquire, sign: Release | ResponseReport, now: float) -> bool:
        status = sign.status if isinstance(sign, ResponseReport) else sign.status_code
        if status != 429:
            return False
        self.generation += 1
        self.gates[question.model] = FalseGate(question.model)
        return True

    def adopt(self, question: Acquire, key: str, now: float, went_at: float | None = None) -> Ticket | None:
        gate = self.gates.get(question.model)
        return gate._count(question) if gate is not None else None

    def keys_told(self, epoch: int, keys: Mapping[str, Sequence[str]], now: float) -> None:
        self.keys[epoch] = keys

    def worker_left(self, epoch: int) -> None:
        self.keys.pop(epoch, None)

    def configure(self, settings: Settings, now: float) -> None:
        self.generation += 1

    def reloaded(self) -> None:
        self.generation += 1

    def facts(self) -> list[KeyRefused]:
        happened, self.happened = self.happened, []
        return happened

    def pools(self, waiting: Mapping[Hashable, int], now: float) -> list[PoolStatus]:
        return [
            PoolStatus("openai", key, running=len(gate.running), waiting=waiting.get(key, 0))
            for key, gate in self.gates.items()
        ]

    def state(self, now: float) -> bytes | None:
        self.is_changed = False
        kept, self.kept = self.kept, None
        return kept

    def restore(self, state: bytes, now: float) -> None:
        self.restored.append(state)
