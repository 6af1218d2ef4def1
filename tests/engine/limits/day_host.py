"""One host of a simulated day: callers, a small admission with the real gates, and the ways to the providers."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import count
from random import Random

import msgspec

from headrace.settings.settings import Settings
from headrace.wire.messages import Acquire, Release, ResponseReport, TokenCounts
from headrace_engine.limits.gate import Gate, Priority, Ticket
from headrace_engine.limits.gates import PoolGates
from tests.engine.limits.day_providers import Answer, Provider

MAX_RETRIES = 2


@dataclass
class Run:
    provider: Provider
    question: Acquire
    began: float
    asked: float = 0.0
    ticket: Ticket | None = None
    key: str = ""


@dataclass
class Host:
    """``blocked``: by provider and key, until when the provider asked for silence, as far as the host was told."""

    settings: Settings
    random: Random
    keys: dict[str, list[str]]
    now: float = 0.0
    blocked: dict[tuple[str, str], float] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest_wait: dict[str, float] = field(default_factory=dict)
    firsts: dict[str, list[float]] = field(default_factory=dict)
    retries: dict[str, list[float]] = field(default_factory=dict)
    facts: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gates = self._new_gates()
        self.running: dict[str, Run] = {}
        self._waiting: dict[Hashable, deque[Run]] = {}
        self._generation = self.gates.generation
        self._wakes: dict[Hashable, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def _new_gates(self) -> PoolGates:
        gates = PoolGates(self.settings, self.random.uniform)
        gates.keys_told(1, self.keys, self.now)
        return gates

    @property
    def waiting(self) -> int:
        return sum(len(runs) for runs in self._waiting.values())

    # Time.

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), action))

    def go_on(self) -> None:
        """Let everything happen that is to happen."""
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
            self._assign()

    # Callers.

    def submit(self, provider: Provider, priority: Priority) -> None:
        question = Acquire(
            f"r{next(self._number)}",
            1,
            provider.name,
            provider.model,
            priority,
            input_tokens=self.random.randint(10, 900),
        )
        self._ask(Run(provider, question, self.now))

    def _ask(self, run: Run) -> None:
        run.asked = self.now
        refusal = self.gates.refusal(run.question, self.now)
        if refusal is not None:
            self._end(run, refusal[0])
            return
        if run.question.is_provider_retry:
            self.retries.setdefault(run.provider.name, []).append(self.now)
        self._queue(run)

    def _queue(self, run: Run) -> None:
        gate = self.gates.gate_of(run.question)
        runs = self._waiting.setdefault(gate.key if gate is not None else None, deque())
        # Interactive runs go first.
        if run.question.priority == "interactive":
            place = next((index for index, other in enumerate(runs) if other.question.priority == "batch"), len(runs))
            runs.insert(place, run)
        else:
            runs.append(run)

    def _end(self, run: Run, outcome: str) -> None:
        self.outcomes[run.provider.name, outcome] += 1

    # The broker.

    def restart_broker(self) -> None:
        """A new broker takes over. Clients tell of their leases, and ask again for those that wait."""
        state = self.gates.state(self.now)
        self.gates = self._new_gates()
        if state is not None:
            self.gates.restore(state, self.now)
        for run in self.running.values():
            run.ticket = self.gates.adopt(run.question, run.key, self.now)
        self._generation = -1

    def _assign(self) -> None:
        if self._generation != self.gates.generation:
            self._generation = self.gates.generation
            waiting = [run for runs in self._waiting.values() for run in runs]
            self._waiting.clear()
            self._wakes.clear()
            for run in waiting:
                self._queue(run)
        for name, runs in self._waiting.items():
            while runs and self._serve(name, runs):
                pass

    def _serve(self, name: Hashable, runs: deque[Run]) -> bool:
        """Let the first run of a gate go, if it may. Else come back when it may."""
        run = runs[0]
        gate: Gate | None = self.gates.gate_of(run.question)
        wait = None if gate is None else gate.wait(run.question.priority, run.question, self.now)
        if wait is None:
            self._grant(runs.popleft(), gate)
            return True
        if wait.until is not None:
            assert wait.until > self.now
            if not self.now < self._wakes.get(name, 0.0) <= wait.until:
                self._wakes[name] = wait.until
                self.at(wait.until + self.random.uniform(0, 0.002), lambda: None)
        return False

    def _grant(self, run: Run, gate: Gate | None) -> None:
        run.ticket = None if gate is None else gate.enter(run.question, self.now)
        run.key = self._key_of(run)
        silent_until = self.blocked.get((run.provider.name, run.key), 0.0)
        assert self.now >= silent_until, "a run was sent while the pool was blocked"
        name = run.provider.name
        if not run.question.is_provider_retry:
            self.firsts.setdefault(name, []).append(self.now)
        self.longest_wait[name] = max(self.longest_wait.get(name, 0.0), self.now - run.asked)
        self.running[run.question.span_id] = run
        self.at(self.now + self.random.uniform(0.005, 0.4), lambda: self._arrive(run))

    def _key_of(self, run: Run) -> str:
        if run.ticket is not None and run.ticket.key:
            return run.ticket.key
        keys = self.keys.get(run.provider.name, [])
        return keys[0] if keys else ""

    # The provider.

    def _arrive(self, run: Run) -> None:
        answer = run.provider.receive(run.key, self.now, self.random)
        head, rest = answer.seconds
        self.at(self.now + head, lambda: self._answered(run, answer))
        self.at(self.now + head + rest + 0.001, lambda: self._left(run, answer))

    def _answered(self, run: Run, answer: Answer) -> None:
        reports = run.ticket is not None and run.ticket.reports
        if not answer.limits and not reports:
            return
        report = ResponseReport(run.question.span_id, run.question.attempt, answer.status, answer.limits)
        if run.ticket is None and self.gates.learns_from(run.question, report, self.now):
            self._adopt_all()
        if run.ticket is not None:
            run.ticket.gate.answered(run.ticket, report, self.now)

    def _left(self, run: Run, answer: Answer) -> None:
        release = self._release(run, answer)
        if run.ticket is None and self.gates.learns_from(run.question, release, self.now):
            self._adopt_all()
        del self.running[run.question.span_id]
        if run.ticket is not None:
            run.ticket.gate.leave(run.ticket, release, self.now)
        self.facts += [(self.now, fact.key) for fact in self.gates.facts()]
        if answer.status == 200:
            run.provider.running -= 1
            self._end(run, "finished")
            return
        if release.retry_after is not None:
            silent = self.now + min(release.retry_after, 120.0)
            name = (run.provider.name, run.key)
            self.blocked[name] = max(silent, self.blocked.get(name, 0.0))
        if answer.status == 401 or run.question.attempt > MAX_RETRIES:
            self._end(run, str(answer.status))
            return
        delay = answer.retry_after or self.random.uniform(0, 0.5 * 2**run.question.attempt)
        run.question = msgspec.structs.replace(run.question, attempt=run.question.attempt + 1, is_provider_retry=True)
        self.at(self.now + delay, lambda: self._ask(run))

    def _adopt_all(self) -> None:
        for run in self.running.values():
            if run.ticket is None:
                run.ticket = self.gates.adopt(run.question, run.key, self.now)

    def _release(self, run: Run, answer: Answer) -> Release:
        outcome = {200: "finished", 401: "authentication", 429: "rate_limit"}.get(answer.status, "provider_unavailable")
        tokens = TokenCounts(run.question.input_tokens, self.random.randint(10, 400), source="provider")
        if self.random.random() < 0.01:
            # Its client was killed: it says nothing.
            return Release(run.question.span_id, run.question.attempt, "client_failed")
        return Release(
            run.question.span_id,
            run.question.attempt,
            outcome,
            tokens if answer.status == 200 else None,
            None if answer.status == 200 else answer.status,
            answer.retry_after,
        )
