"""Checks the promises to callers: each run has one end and the provider's own text, and its connection is closed.

Pure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from headrace.process.history import HistoryEvent
from tests.history.facts import Facts
from tests.history.model import ProcessHistory, ProviderCall, Violation


def client_violations(history: ProcessHistory, facts: Facts) -> Iterator[Violation]:
    """Check the runs of one client process."""
    events_of: dict[str, list[HistoryEvent]] = defaultdict(list)
    for event in history.events:
        if event.span_id:
            events_of[event.span_id].append(event)
    for span_id, events in events_of.items():
        run = _Run(span_id, events)
        yield from run.ends(is_alive=facts.killed_at(history.pid) == math.inf)
        yield from run.sequence()
        yield from run.text()
        calls = facts.calls.get(span_id, [])
        yield from _provided(run, calls)
        yield from _closed(run, calls, facts, facts.killed_at(history.pid))


class _Run:
    """One run as its client saw it."""

    def __init__(self, span_id: str, events: list[HistoryEvent]) -> None:
        self.span_id = span_id
        self.submits = [event for event in events if event.event == "submit"]
        self.ended = [event for event in events if event.event == "end"]
        self.aborts = [event for event in events if event.event == "sent abort"]
        end = events.index(self.ended[0]) if self.ended else len(events)
        self.lease: HistoryEvent | None = None
        self.first_chunk_at = math.inf
        self.delivered: list[HistoryEvent] = []
        for event in events[:end]:
            self._arrived(event)
        self.received_text = "".join(chunk.text for chunk in self.delivered)

    def _arrived(self, event: HistoryEvent) -> None:
        if event.event == "sent run":
            self.lease = event
            self.delivered = []
        # Late frames of other attempts and processes may arrive; they must have no part in what the caller gets.
        elif event.event == "received chunk" and self.lease is not None and _same(event, self.lease):
            self.delivered.append(event)
            self.first_chunk_at = min(self.first_chunk_at, event.at)

    def ends(self, *, is_alive: bool) -> Iterator[Violation]:
        if len(self.ended) > len(self.submits):
            kinds = ", ".join(event.kind for event in self.ended)
            yield Violation("several ends", self.span_id, kinds)
        elif is_alive and len(self.ended) < len(self.submits):
            yield Violation("no end", self.span_id)

    def sequence(self) -> Iterator[Violation]:
        due = 0
        for chunk in self.delivered:
            if chunk.sequence != due:
                yield Violation("gap", self.span_id, f"{chunk.sequence} arrived where {due} was due")
                return
            due += chunk.count

    def text(self) -> Iterator[Violation]:
        if not self.ended:
            return
        given, received = self.ended[0].text, self.received_text
        # After an abort, what arrives is not taken any more.
        if not (received.startswith(given) if self.aborts else received == given):
            yield Violation("text changed", self.span_id, f"arrived {received[-80:]!r}, given {given[-80:]!r}")


def _same(chunk: HistoryEvent, lease: HistoryEvent) -> bool:
    return (chunk.attempt, chunk.epoch) == (lease.attempt, lease.epoch)


def _provided(run: _Run, calls: list[ProviderCall]) -> Iterator[Violation]:
    """Check a run's text and attempts against what the provider was asked and sent."""
    sent = calls[-1].sent_text if calls else ""
    given = run.ended[0].text if run.ended else run.received_text
    if not sent.startswith(given):
        yield Violation("text not the provider's", run.span_id, f"sent {sent[-80:]!r}, given {given[-80:]!r}")
    elif (
        run.ended and run.ended[0].kind == "Finished" and run.delivered and (sent != given or not calls[-1].is_complete)
    ):
        yield Violation("finished too early", run.span_id, f"sent {len(sent)} characters, given {len(given)}")
    if any(call.arrived_at > run.first_chunk_at for call in calls):
        yield Violation("called again after delivery", run.span_id, f"{len(calls)} calls")


def _closed(run: _Run, calls: list[ProviderCall], facts: Facts, killed_at: float) -> Iterator[Violation]:
    """Check that a worker stops reading an answer that its caller does not want any more."""
    if not calls or (run.lease is not None and facts.was_worker_stopped(run.lease.epoch)):
        return
    ended_at = calls[-1].ended_at or math.inf
    bound = facts.limits.close_within
    closing = [abort.at for abort in run.aborts if abort.kind == "close"]
    if closing and ended_at > max(closing[0], calls[-1].arrived_at) + bound:
        yield Violation("not closed after its abort", run.span_id, f"{ended_at - closing[0]:.3f} s")
    if not run.ended and ended_at > max(killed_at, calls[-1].arrived_at) + bound:
        yield Violation("not closed after its client's death", run.span_id, f"{ended_at - killed_at:.3f} s")


def caller_violations(history: ProcessHistory, facts: Facts) -> Iterator[Violation]:
    """Check what one program's own code saw: one outcome for each run, and nothing after it."""
    begun: dict[str, int] = defaultdict(int)
    read: dict[str, str] = {}
    saw: set[str] = set()
    ended = {
        e.span_id: e for other in facts.histories if other.role == "client" for e in other.events if e.event == "end"
    }
    for event in history.events:
        span_id = event.span_id
        if span_id in saw:
            yield Violation("something after the outcome", span_id, event.event)
        match event.event:
            case "begin":
                begun[span_id] += 1
            case "read":
                read[span_id] = event.text
            case "saw":
                saw.add(span_id)
                yield from _seen(event, read.get(span_id, ""), ended.get(span_id))
    if facts.killed_at(history.pid) == math.inf:
        for span_id in begun.keys() - saw:
            yield Violation("no outcome", span_id)


def _seen(saw: HistoryEvent, read: str, end: HistoryEvent | None) -> Iterator[Violation]:
    if not (saw.text == read if saw.kind == "done" else saw.text.startswith(read)):
        yield Violation("read something else", saw.span_id, f"read {read[-80:]!r}, told {saw.text[-80:]!r}")
    # An error may tell of text that its worker had and could not send any more.
    if end is not None and not (saw.text == end.text if saw.kind == "done" else saw.text.startswith(end.text)):
        yield Violation("told something else", saw.span_id, f"held {end.text[-80:]!r}, told {saw.text[-80:]!r}")


def call_violations(facts: Facts) -> Iterator[Violation]:
    """Check the provider's log by itself."""
    for span_id, calls in facts.calls.items():
        if len(calls) > facts.limits.max_calls:
            yield Violation("too many calls", span_id, f"{len(calls)} calls")
        if any(call.ended_at is None for call in calls):
            yield Violation("open at the end", span_id)
