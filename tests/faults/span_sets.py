"""Compares the stored spans of a data directory with the runs that were admitted, according to the histories of all processes.

A run is admitted when a worker takes it. Its provider saw it then, or its caller heard how it ended; both are written down by those
who know nothing of spans. Of a run that has a lease, and of which nobody can say more, there may be a span too; of others, none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from headrace.process.history import HistoryEvent
from headrace.spans.data_directory import database_files, slots
from headrace.spans.span import Rank, SpanContent, decode_content
from headrace.spans.span_database import StoredSpan, from_row, open_for_reading
from headrace.wire.engine_status import SpanStatus
from tests.faults.harness import FaultyEngine
from tests.history.model import ProcessHistory, read_histories
from tests.waiting import wait_until

Rows = Mapping[str, StoredSpan]


class Admitted(msgspec.Struct, frozen=True):
    """The runs that must have a span, the runs that may have one, and what is known of them."""

    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    told: Mapping[str, HistoryEvent] = {}
    """What callers saw of a run's end. Some of these callers were killed later."""
    sure: frozenset[str] = frozenset()
    """The runs of callers that were not killed: nothing that these callers knew was lost."""
    sent: Mapping[str, list[str]] = {}
    """What the provider sent, by attempt."""

    def and_those(self, other: Admitted) -> Admitted:
        """Return the runs of two engines that had one directory, one after the other."""
        return Admitted(
            self.must | other.must,
            self.may | other.may,
            {**self.told, **other.told},
            self.sure | other.sure,
            {**self.sent, **other.sent},
        )


def admitted(engine: FaultyEngine) -> Admitted:
    """Return the runs of an engine that has settled, or is dead."""
    histories = read_histories(engine.history)
    killed = {event.pid for event in _events(histories, "harness", "fault") if event.kind == "SIGKILL"}
    alive = [history for history in histories if history.pid not in killed]
    calls = sorted(engine.calls(), key=lambda call: call.arrived_at)
    sent: dict[str, list[str]] = {}
    for call in calls:
        sent.setdefault(call.span_id, []).append(call.sent_text)
    ran = {event.span_id for event in _events(alive, "client", "sent run")}
    ended = {event.span_id for event in _events(alive, "client", "end")}
    must = sent.keys() | (ran & ended)
    granted = {event.span_id for event in _events(histories, "broker", "sent grant")}
    return Admitted(
        frozenset(must),
        frozenset(must | granted),
        {event.span_id: event for event in _events(histories, "caller", "saw")},
        frozenset(event.span_id for event in _events(alive, "caller", "saw")),
        sent,
    )


def _events(histories: Iterable[ProcessHistory], role: str, name: str) -> Iterator[HistoryEvent]:
    for history in histories:
        if history.role == role:
            yield from (event for event in history.events if event.event == name)


def ids(data: Path) -> list[str]:
    """Return the ids of all rows in all files of all slots."""
    found: list[str] = []
    for path in _databases(data):
        with closing(open_for_reading(path)) as connection:
            found += [row[0] for row in connection.execute("SELECT span_id FROM spans")]
    return found


def whole_ids(data: Path) -> set[str]:
    """Return the ids of all rows; there is one for each run over all files and slots, and all files are whole."""
    for path in _databases(data):
        with closing(open_for_reading(path)) as connection:
            assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"], path
    found = ids(data)
    assert len(set(found)) == len(found), f"{len(found) - len(set(found))} runs have several rows"
    return set(found)


def stored(data: Path) -> Rows:
    """Return all rows, checked as in :func:`whole_ids`, in the order of their writing."""
    whole_ids(data)
    rows: dict[str, StoredSpan] = {}
    for path in _databases(data):
        with closing(open_for_reading(path)) as connection:
            for row in map(from_row, connection.execute("SELECT * FROM spans ORDER BY seq")):
                rows[row.span.span_id] = row
    return rows


def _databases(data: Path) -> list[Path]:
    return [path for slot in slots(data) for path in database_files(slot)]


def wait_for_all(data: Path, wanted: Iterable[str], timeout: float = 30.0) -> None:
    """Wait until each of the runs has a row."""
    left = set(wanted)

    def are_there() -> bool:
        left.difference_update(ids(data))
        return not left

    try:
        wait_until(are_there, timeout, "all spans")
    except AssertionError as error:
        error.add_note(f"{len(left)} are not there: {sorted(left)[:5]}")
        raise


def check_set(rows: Rows, runs: Admitted) -> None:
    """Check that there is a span of each run that was admitted, and of nothing else."""
    missing, others = runs.must - rows.keys(), rows.keys() - runs.may
    assert not missing, f"{len(missing)} of {len(runs.must)} have no span: {sorted(missing)[:5]}"
    assert not others, f"{len(others)} spans are of no run: {sorted(others)[:5]}"


def check_texts(rows: Rows, runs: Admitted) -> None:
    """Check that what a caller saw begins the span's text, which begins what the provider sent; and how it ended."""
    for span_id, row in rows.items():
        text, sent = content(row).text, runs.sent.get(span_id, [])
        assert any(one.startswith(text) for one in sent) or not text, (span_id, text[-80:], sent)
        told = runs.told.get(span_id)
        if told is not None and told.kind == "done":
            assert (row.span.status, row.span.rank, text) == ("ok", Rank.WORKER, told.text), (row.span, told)
        elif told is not None and span_id in runs.sure:
            assert _is_said(row, told), (row.span, told)
            assert text.startswith(told.text), (row.span, told)


def _is_said(row: StoredSpan, told: HistoryEvent) -> bool:
    """Return whether a span says what its caller was told; a worker may have come to the end before an abort, or its own death."""
    if row.span.status == "ok":
        return row.span.rank == Rank.WORKER
    return row.span.status == "aborted" if told.kind == "aborted" else row.span.error_type == told.kind


def content(row: StoredSpan) -> SpanContent:
    """Return what was asked and answered."""
    return decode_content(row.span.content)


def kinds(rows: Rows) -> dict[str, int]:
    """Return how many spans there are of each end and rank, for a report."""
    counts: dict[str, int] = {}
    for row in rows.values():
        name = f"{row.span.error_type or row.span.status} by {row.span.rank.name.lower()}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def span_status(engine: FaultyEngine) -> SpanStatus:
    """Return what the engine says of its spans."""
    status = engine.status().spans
    assert status is not None
    return status
