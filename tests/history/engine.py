"""Checks histories of the engine's processes.

Sequence numbers, credit, one terminal message, leases within their limits.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from headrace.process.history import HistoryEvent
from tests.history.facts import Facts
from tests.history.model import ProcessHistory, Violation

_TURN = 0.5
"""Longer than a turn of a broker's loop takes, in seconds."""
_TERMINALS = ("sent finished", "sent failed", "sent aborted")


class _SentSpans:
    """What a worker has sent of one run, and may."""

    def __init__(self) -> None:
        self.sequence = 0
        self.characters = 0
        self.sequence_limit = 0
        self.character_limit = 0
        self.has_ended = False


def worker_violations(history: ProcessHistory, facts: Facts) -> Iterator[Violation]:
    """Check one worker process."""
    sent: dict[tuple[str, int], _SentSpans] = defaultdict(_SentSpans)
    running: set[tuple[str, int]] = set()
    most = facts.limits.max_runs_per_worker + facts.limits.overshoot
    for event in history.events:
        run = (event.span_id, event.attempt)
        match event.event:
            case "received run" | "received credit":
                known = sent[run]
                known.sequence_limit = max(known.sequence_limit, event.sequence_limit)
                known.character_limit = max(known.character_limit, event.character_limit)
            case "start":
                running.add(run)
                if len(running) > most:
                    yield Violation("too many runs on a worker", event.span_id, f"{len(running)} runs")
            case "let go":
                running.discard(run)
            case "sent chunk":
                yield from _chunk_sent(event, sent[run])
            case name if name in _TERMINALS:
                yield from _terminal_sent(event, sent[run])
    if not facts.was_killed(history):
        for span_id, _ in running:
            yield Violation("never let go", span_id)


def _chunk_sent(chunk: HistoryEvent, known: _SentSpans) -> Iterator[Violation]:
    if known.has_ended:
        yield Violation("sent after the terminal", chunk.span_id, chunk.event)
    if chunk.sequence != known.sequence:
        yield Violation("sent out of sequence", chunk.span_id, f"{chunk.sequence} where {known.sequence} was due")
    known.sequence = chunk.sequence + chunk.count
    known.characters += chunk.characters
    if known.sequence > known.sequence_limit or known.characters > known.character_limit:
        detail = f"{known.sequence} of {known.sequence_limit}, {known.characters} of {known.character_limit}"
        yield Violation("sent beyond its credit", chunk.span_id, detail)


def _terminal_sent(terminal: HistoryEvent, known: _SentSpans) -> Iterator[Violation]:
    if known.has_ended:
        yield Violation("several terminals", terminal.span_id, terminal.event)
    if terminal.sequence != known.sequence:
        yield Violation("terminal miscounts", terminal.span_id, f"says {terminal.sequence}, sent {known.sequence}")
    known.has_ended = True


class _Leases:
    """The leases of one broker, as its own words have them."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._held: dict[str, HistoryEvent] = {}
        self._by_worker: dict[int, set[str]] = defaultdict(set)
        self._gone: dict[int, float] = {}
        self._released: set[tuple[str, int, str]] = set()

    def granted(self, grant: HistoryEvent) -> Iterator[Violation]:
        # A grant is written down when it leaves: what ended it may have been heard in the same turn of the loop.
        if (grant.span_id, grant.attempt, grant.peer) in self._released:
            return
        if grant.epoch in self._gone:
            if grant.at > self._gone[grant.epoch] + _TURN:
                yield Violation("granted on a worker that is gone", grant.span_id, f"{grant.epoch:#x}")
            return
        if grant.span_id in self._held:
            yield Violation(
                "granted twice", grant.span_id, f"attempts {self._held[grant.span_id].attempt}, {grant.attempt}"
            )
        self.add(grant)
        runs = len(self._by_worker[grant.epoch])
        if runs > self._facts.limits.max_runs_per_worker:
            yield Violation("too many leases on a worker", grant.span_id, f"{runs} leases")

    def add(self, lease: HistoryEvent) -> None:
        self._drop(lease.span_id)
        self._held[lease.span_id] = lease
        self._by_worker[lease.epoch].add(lease.span_id)

    def released(self, release: HistoryEvent) -> None:
        self._released.add((release.span_id, release.attempt, release.peer))
        held = self._held.get(release.span_id)
        if held is not None and (held.peer, held.attempt) == (release.peer, release.attempt):
            self._drop(release.span_id)

    def left(self, left: HistoryEvent) -> None:
        if left.kind == "worker":
            self._gone[left.epoch] = left.at
        for span_id, lease in list(self._held.items()):
            if lease.epoch == left.epoch if left.kind == "worker" else lease.peer == left.peer:
                self._drop(span_id)

    def remaining(self) -> list[str]:
        return list(self._held)

    def _drop(self, span_id: str) -> None:
        if (lease := self._held.pop(span_id, None)) is not None:
            self._by_worker[lease.epoch].discard(span_id)


def broker_violations(history: ProcessHistory, facts: Facts) -> Iterator[Violation]:
    """Check the leases that one broker gave."""
    leases = _Leases(facts)
    for event in history.events:
        match event.event:
            case "sent grant":
                yield from leases.granted(event)
            case "received hold":
                leases.add(event)
            case "received release":
                leases.released(event)
            case "left":
                leases.left(event)
    if not facts.was_killed(history) and not facts.was_engine_ended:
        for span_id in leases.remaining():
            yield Violation("lease never returned", span_id)


def overlap_violations(facts: Facts) -> Iterator[Violation]:
    """Check that no run was ever on two workers that both served and could know of it."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for history in facts.histories:
        if history.role != "worker" or facts.was_stopped(history.pid):
            continue
        started: dict[tuple[str, int], float] = {}
        for event in history.events:
            run = (event.span_id, event.attempt)
            if event.event == "start":
                started[run] = event.at
            elif event.event == "let go" and run in started:
                spans[event.span_id].append((started.pop(run), event.at))
        for (span_id, _), at in started.items():
            spans[span_id].append((at, facts.worker_ended_at(history)))
    for span_id, times in spans.items():
        times.sort()
        for (_, first_end), (second_start, _) in pairwise(times):
            if second_start < first_end and not facts.was_cut(second_start, first_end):
                yield Violation("on two workers at once", span_id, f"for {first_end - second_start:.3f} s")
