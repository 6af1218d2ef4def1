"""What the store promises: one row for each run with its best record, in whatever order and however often records arrive."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import database_files
from headrace.spans.span import Rank, Span, SpanAttempt, SpanStatus
from headrace.spans.span_database import StoredSpan, from_row, open_for_reading
from headrace.types import Usage
from headrace_engine.spans.storage.ranking import MAX_ATTEMPTS
from headrace_engine.spans.storage.store import Store, StoreError, WriteCounts
from tests.repetition import repeated

DAY = 86400.0
NOON = 1_795_435_200.0  # 2026-11-23, 12:00 UTC


def no_cost(span: Span) -> float | None:
    return None


def span(name: str, rank: Rank = Rank.WORKER, started_at: float = NOON, **fields: object) -> Span:
    values: dict[str, object] = {
        "provider": "openai",
        "model": "gpt-4o",
        "trace_id": "tr_1",
        "ended_at": started_at + 1,
    }
    return Span(span_id=name, rank=rank, started_at=started_at, **{**values, **fields})  # type: ignore[arg-type]


def rows(slot: Path) -> list[StoredSpan]:
    found: list[StoredSpan] = []
    for path in database_files(slot):
        with closing(open_for_reading(path)) as connection:
            found += [from_row(row) for row in connection.execute("SELECT * FROM spans ORDER BY seq")]
    return found


def kept(slot: Path) -> dict[str, Span]:
    """Return what is stored by id; each once."""
    found = rows(slot)
    result = {row.span.span_id: row.span for row in found}
    assert len(result) == len(found)
    return result


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    return tmp_path / "0"


@pytest.fixture
def store(slot: Path) -> Iterator[Store]:
    opened = Store(slot, SpansConfig(), no_cost)
    yield opened
    opened.close()


# The rank rule.


def test_a_span_is_stored_with_all_that_it_says_and_its_cost(slot: Path) -> None:
    whole = span(
        "sp_1",
        usage=Usage(3, 4, 7, 1, 0, 2, "provider"),
        tags=["a", "b"],
        parameters={"temperature": 0.5},
        attempts=[SpanAttempt(1, "w1", NOON, NOON + 1, status_code=200, outcome="ok")],
        content='{"text":"é"}'.encode(),
        first_chunk_seconds=0.2,
        streamed=True,
        status="ok",
        finish_reason="stop",
    )
    with closing(Store(slot, SpansConfig(), lambda span: span.usage.output_tokens / 8)) as store:
        assert store.write([whole], NOON) == WriteCounts(new=1)

    assert rows(slot) == [StoredSpan(1, whole, 0.5)]


def test_a_higher_rank_replaces_a_lower_one_and_gets_a_new_number(slot: Path, store: Store) -> None:
    store.write([span("a", Rank.STUB), span("b", Rank.STUB)], NOON)
    store.write([span("a", Rank.CLIENT, error="lost")], NOON)
    store.write([span("a", Rank.STUB)], NOON)

    assert [(row.span.span_id, row.span.rank) for row in rows(slot)] == [("b", Rank.STUB), ("a", Rank.CLIENT)]
    assert store.marks() == {slot / "spans-2026-11-23.db": rows(slot)[-1].seq}
    assert rows(slot)[0].seq == 2 < rows(slot)[1].seq


def test_of_two_records_with_equal_rank_the_newer_is_kept(slot: Path, store: Store) -> None:
    store.write([span("a", started_at=NOON, model="first")], NOON)
    store.write([span("a", started_at=NOON + 5, model="second")], NOON)
    store.write([span("a", started_at=NOON, model="first")], NOON)

    assert kept(slot)["a"].model == "second"


def test_the_brokers_record_never_replaces_the_workers(slot: Path, store: Store) -> None:
    store.write([span("a", Rank.STUB, tags=["known"])], NOON)
    store.write([span("a", Rank.STUB, started_at=NOON + 0.01, trace_id="")], NOON)

    assert kept(slot)["a"].tags == ["known"]


def test_attempts_of_all_are_kept_and_the_one_that_ended_counts(slot: Path, store: Store) -> None:
    store.write([span("a", Rank.STUB, attempts=[SpanAttempt(1, "w1", NOON)])], NOON)
    store.write([span("a", Rank.WORKER, attempts=[SpanAttempt(2, "w2", NOON + 2, NOON + 3, outcome="ok")])], NOON)
    store.write([span("a", Rank.CLIENT, attempts=[SpanAttempt(1, "w1", NOON, NOON + 1, reason="died")])], NOON)

    row = kept(slot)["a"]
    assert row.rank == Rank.WORKER
    assert [(attempt.number, attempt.reason, attempt.outcome) for attempt in row.attempts] == [
        (1, "died", "lost"),
        (2, "", "ok"),
    ]


def test_a_clients_record_of_a_lost_run_keeps_the_wire_format_that_its_worker_wrote(slot: Path, store: Store) -> None:
    begun = SpanAttempt(1, "w1", NOON, wire_format="google", telemetry_provider="gcp.gemini")
    store.write([span("a", Rank.STUB, attempts=[begun])], NOON)
    store.write([span("a", Rank.CLIENT, attempts=[SpanAttempt(1, "w1", NOON, NOON + 1, reason="died")])], NOON)

    (attempt,) = kept(slot)["a"].attempts
    assert (attempt.reason, attempt.wire_format, attempt.telemetry_provider) == ("died", "google", "gcp.gemini")


def test_a_client_rewrites_no_record_of_a_worker_and_adds_no_attempt_to_it(slot: Path, store: Store) -> None:
    whole = span("a", attempts=[SpanAttempt(1, "w1", NOON, NOON + 1, outcome="ok")])
    store.write([whole], NOON)
    for number in (1, 2, 99):
        forged = [SpanAttempt(number, "w9", NOON + 5, NOON + 6, reason="forged", maybe_billed=True)]
        store.write([span("a", Rank.CLIENT, started_at=NOON + 1e9, trace_id="tr_9", attempts=forged)], NOON)

    assert kept(slot) == {"a": whole}


def test_of_two_clients_records_the_first_is_kept(slot: Path, store: Store) -> None:
    store.write([span("a", Rank.CLIENT, error="lost")], NOON)
    store.write([span("a", Rank.CLIENT, started_at=NOON + 5, error="forged")], NOON)

    assert kept(slot)["a"].error == "lost"


def test_an_attempt_at_another_provider_keeps_its_name(slot: Path, store: Store) -> None:
    """A fallback: whichever record comes first, the row says which attempt asked whom."""
    failed = span("a", attempts=[SpanAttempt(1, "w1", NOON, NOON + 1, outcome="RateLimitError")], status="error")
    answered = span("a", attempts=[SpanAttempt(2, "w2", NOON + 2, NOON + 3, outcome="ok")], status="ok")
    answered = msgspec.structs.replace(answered, provider="anthropic", model="claude-4")
    for records in ([failed, answered], [answered, failed]):
        name = f"sp_{records[0].status}"
        store.write([msgspec.structs.replace(one, span_id=name) for one in records], NOON)
        row = kept(slot)[name]
        assert (row.provider, row.status) == ("anthropic", "ok")
        assert [(one.number, one.provider, one.model) for one in row.attempts] == [(1, "openai", "gpt-4o"), (2, "", "")]


def attempted(number: int, status: SpanStatus, first_chunk: float, rank: Rank = Rank.WORKER, *, is_hedge: bool) -> Span:
    """Return one attempt's record of a run that was asked for at noon. Attempt 2 begins a second later."""
    attempt = SpanAttempt(number, f"w{number}", NOON + number - 1, NOON + 5, outcome=status, is_hedge=is_hedge)
    return span("a", rank, status=status, streamed=True, first_chunk_seconds=first_chunk, attempts=[attempt])


@pytest.mark.parametrize("is_beaten_first", [True, False])
@pytest.mark.parametrize("winner", [1, 2])
@pytest.mark.parametrize("loser_is", ["beaten", "failed", "answered later"])
def test_the_attempt_that_was_beaten_never_replaces_the_one_that_answered(
    slot: Path, store: Store, winner: int, loser_is: str, is_beaten_first: bool
) -> None:
    """Whichever record comes first, and whether the hedge or the attempt before it was faster."""
    best = attempted(winner, "ok", 2.0, is_hedge=winner == 2)
    status, rank = {"beaten": ("error", Rank.STUB), "failed": ("error", Rank.WORKER)}.get(loser_is, ("ok", Rank.WORKER))
    loser = attempted(3 - winner, status, 2.5, rank, is_hedge=winner == 1)  # type: ignore[arg-type]
    for record in [loser, best] if is_beaten_first else [best, loser]:
        store.write([record], NOON)

    row = kept(slot)["a"]
    assert (row.status, row.first_chunk_seconds) == ("ok", 2.0)
    assert [(one.number, one.is_hedge) for one in row.attempts] == [(1, False), (2, True)]


def test_a_file_of_an_earlier_version_is_read_and_gets_the_new_column_when_it_is_written(slot: Path) -> None:
    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        store.write([span("a")], NOON)
    (path,) = database_files(slot)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE spans DROP COLUMN queue_reason")
    assert kept(slot) == {"a": span("a")}

    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        store.write([span("b", queue_reason="limit"), span("a", started_at=NOON + 1, queue_reason="blocked")], NOON)
    assert {name: one.queue_reason for name, one in kept(slot).items()} == {"a": "blocked", "b": "limit"}


def test_a_span_that_is_stored_already_changes_nothing(slot: Path, store: Store) -> None:
    spans = [span(f"sp_{number}", attempts=[SpanAttempt(1, "w1", NOON, NOON + 1)]) for number in range(600)]
    assert store.write(spans, NOON) == WriteCounts(new=600)
    before = rows(slot)

    assert store.write(spans[100:], NOON + DAY) == WriteCounts()
    assert rows(slot) == before


def test_clients_that_report_very_many_attempts_do_not_make_a_row_grow_without_end(slot: Path, store: Store) -> None:
    for start in range(0, 5000, 500):
        attempts = [SpanAttempt(number, reason="x") for number in range(start, start + 500)]
        store.write([span("sp_1", rank=Rank.CLIENT, attempts=attempts)] * 3, 0.0)
    assert [attempt.number for attempt in kept(slot)["sp_1"].attempts] == list(range(MAX_ATTEMPTS))


def test_a_run_with_two_records_in_one_batch_has_one_row(slot: Path, store: Store) -> None:
    assert store.write([span("a", Rank.STUB), span("a"), span("a", Rank.STUB)], NOON) == WriteCounts(new=1)

    assert kept(slot)["a"].rank == Rank.WORKER


# Files.


def test_each_utc_day_has_a_file_and_a_late_record_goes_to_the_first_file(slot: Path, store: Store) -> None:
    store.write([span("a", Rank.STUB), span("b")], NOON)
    store.write([span("a"), span("b"), span("c", started_at=NOON + DAY)], NOON + DAY)

    assert [path.name for path in database_files(slot)] == ["spans-2026-11-23.db", "spans-2026-11-24.db"]
    assert [(path.name, seq > 2) for path, seq in store.marks().items()] == [
        ("spans-2026-11-23.db", True),
        ("spans-2026-11-24.db", False),
    ]
    assert {name: row.rank for name, row in kept(slot).items()} == {"a": 2, "b": 2, "c": 2}


def test_a_late_record_finds_its_row_after_a_restart(slot: Path) -> None:
    for number in range(8):
        with closing(Store(slot, SpansConfig(), no_cost)) as store:
            store.write([span(f"sp_{number}", Rank.STUB, NOON + number * DAY)], NOON + number * DAY)
    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        store.write([span(f"sp_{number}", started_at=NOON + number * DAY) for number in range(8)], NOON + 9 * DAY)

    assert [row.rank for row in kept(slot).values()] == [Rank.WORKER] * 8
    assert len(database_files(slot)) == 9


def test_a_file_that_is_full_is_followed_by_another(slot: Path) -> None:
    config = SpansConfig(max_file_bytes=200_000)
    for start in (0, 50):
        with closing(Store(slot, config, no_cost)) as store:
            for number in range(start, start + 50):
                store.write([span(f"sp_{number}", content=b"x" * 10_000)], NOON)

    names = [path.name for path in database_files(slot)]
    assert names[:2] == ["spans-2026-11-23.db", "spans-2026-11-23.1.db"]
    assert len(names) in range(5, 9)
    assert len(kept(slot)) == 100


def test_files_are_for_their_owner_only(slot: Path, store: Store) -> None:
    previous = os.umask(0)
    try:
        store.write([span("a")], NOON)
    finally:
        os.umask(previous)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in slot.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "spans-2026-11-23.db-wal" in modes


def test_old_files_are_removed_unless_a_sink_needs_them(slot: Path) -> None:
    with closing(Store(slot, SpansConfig(retention_days=10), no_cost)) as store:
        for day in range(4):
            store.write([span(f"sp_{day}", started_at=NOON + day * DAY)], NOON + day * DAY)
        with closing(sqlite3.connect(slot / "spans-2026-11-23.db")) as taken, taken:
            taken.execute("INSERT INTO cursors VALUES ('ours', 1)")

        def left(days: float, *sinks: str) -> list[str]:
            store.retire(NOON + days * DAY, sinks)
            return [path.name.removeprefix("spans-2026-11-") for path in database_files(slot)]

        assert left(10.4, "ours") == ["23.db", "24.db", "25.db", "26.db"]
        assert left(11.6, "ours") == ["24.db", "25.db", "26.db"]
        assert left(20.4, "ours") == ["24.db", "25.db", "26.db"]
        assert left(21.6, "ours") == ["25.db", "26.db"]
        assert left(21.6) == ["26.db"]  # the current one stays
        assert sorted(path.name for path in slot.iterdir() if "26" not in path.name) == []


def test_a_file_removed_by_hand_is_noticed(slot: Path, store: Store) -> None:
    store.write([span("a")], NOON)
    for path in slot.iterdir():
        path.unlink()
    slot.rmdir()

    store.check()
    store.write([span("b")], NOON)

    assert list(kept(slot)) == ["b"]


# Damage.


@pytest.mark.parametrize("day", [0, 1], ids=["the current file", "an older file"])
def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(slot: Path, day: int) -> None:
    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        store.write([span("a")], NOON)
    path = slot / "spans-2026-11-23.db"
    path.write_bytes(b"not a database at all, but long enough to be taken for one" * 100)

    with closing(Store(slot, SpansConfig(), no_cost)) as store:
        assert store.write([span("a"), span("b", started_at=NOON + day * DAY)], NOON + day * DAY) == WriteCounts(new=2)
        assert [found.name for found in store.damaged] == ["spans-2026-11-23.db.corrupt"]

    assert (slot / "spans-2026-11-23.db.corrupt").stat().st_size == 5800
    assert set(kept(slot)) == {"a", "b"}


def test_damage_found_during_a_write_loses_no_new_span(slot: Path, store: Store) -> None:
    store.write([span(f"sp_{number}", content=b"x" * 3000) for number in range(200)], NOON)
    store.close()
    path = slot / "spans-2026-11-23.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)

    assert store.write([span("a"), span("sp_3")], NOON).new == 2
    assert set(kept(slot)) == {"a", "sp_3"}


def test_a_second_damaged_file_of_one_day_does_not_replace_the_first(slot: Path) -> None:
    for _ in range(2):
        slot.mkdir(exist_ok=True)
        (slot / "spans-2026-11-23.db").write_bytes(b"damaged" * 1000)
        with closing(Store(slot, SpansConfig(), no_cost)) as store:
            store.write([span("a")], NOON)

    names = {path.name for path in slot.glob("*.corrupt*")}
    assert names == {"spans-2026-11-23.db.corrupt", "spans-2026-11-23.db.corrupt.1"}


def test_a_file_of_a_later_version_is_left_alone(slot: Path, store: Store) -> None:
    store.write([span("a")], NOON)
    store.close()
    with closing(sqlite3.connect(slot / "spans-2026-11-23.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("ALTER TABLE spans RENAME TO others")

    with closing(Store(slot, SpansConfig(), no_cost)) as later:
        later.write([span("b")], NOON)
        later.retire(NOON + 40 * DAY, [])

    assert sorted(path.name for path in database_files(slot)) == ["spans-2026-11-23.1.db", "spans-2026-11-23.db"]


def test_a_span_with_impossible_values_is_stored_as_far_as_possible_and_affects_no_other(
    slot: Path, store: Store
) -> None:
    bad = [
        span("too many", usage=Usage(input_tokens=2**64 - 1)),
        span("no number", ended_at=float("nan")),
        span("no json", parameters={"x": msgspec.msgpack.Ext(1, b"")}),
    ]

    assert store.write([span("a"), *bad, span("b")], NOON) == WriteCounts(new=5)
    assert set(kept(slot)) == {"a", "b", "too many", "no number", "no json"}
    assert kept(slot)["too many"].usage.input_tokens == 2**63 - 1
    assert (kept(slot)["no number"].ended_at, kept(slot)["no json"].parameters) == (0.0, {"x": "Ext"})


def test_a_store_that_cannot_be_written_says_so_and_recovers(slot: Path, store: Store) -> None:
    slot.parent.mkdir(exist_ok=True)
    slot.write_text("a file where the directory is to be")
    with pytest.raises(StoreError) as error:
        store.write([span("a")], NOON)
    assert not error.value.is_full

    slot.unlink()
    assert store.write([span("a")], NOON) == WriteCounts(new=1)


def test_a_full_disk_is_told_from_other_errors(slot: Path, store: Store) -> None:
    store.write([span("a")], NOON)
    path = slot / "spans-2026-11-23.db"
    store._files._open[path]._connection.execute("PRAGMA max_page_count = 12")  # stands for a disk that is full

    with pytest.raises(StoreError) as error:
        store.write([span(f"sp_{number}", content=b"x" * 5000) for number in range(50)], NOON)

    assert error.value.is_full
    assert set(kept(slot)) == {"a"}
    assert store.write([span("b", content=b"x" * 50_000)], NOON) == WriteCounts(new=1)


# The rule, for any order of events.


class Runs(RuleBasedStateMachine):
    """Spans of some runs come in any order, any number of times, through days and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.slot = Path(self.directory.name) / "0"
        self.store = self.opened()
        self.now = NOON
        self.asked: list[float] = []
        self.model: dict[str, Span] = {}
        self.numbers: dict[str, tuple[str, int]] = {}

    def opened(self) -> Store:
        return Store(self.slot, SpansConfig(max_file_bytes=150_000), no_cost)

    @rule(hours=st.sampled_from([0.001, 1, 13, 50]))
    def time_passes(self, hours: float) -> None:
        self.now += hours * 3600

    @rule()
    def a_run_is_asked_for(self) -> None:
        self.asked.append(self.now)

    @rule(
        data=st.data(),
        whose=st.lists(st.tuples(st.sampled_from(Rank), st.integers(1, 3), st.booleans(), st.booleans()), min_size=1),
    )
    def spans_come(self, data: st.DataObject, whose: list[tuple[Rank, int, bool, bool]]) -> None:
        if not self.asked:
            return
        spans = []
        for rank, attempt, has_ended, knows_trace in whose:
            number = data.draw(st.integers(0, len(self.asked) - 1))
            began = self.asked[number] + attempt
            spans.append(
                span(
                    f"sp_{number}",
                    rank,
                    self.asked[number],
                    trace_id="tr_1" if knows_trace else "",
                    model=f"{rank}{attempt}",
                    content=b"x" * 20_000,
                    attempts=[SpanAttempt(attempt, "w", began, began + 1 if has_ended else None, outcome=rank.name)],
                )
            )
        self.store.write(spans, self.now)
        for one in spans:
            self.model[one.span_id] = told(self.model.get(one.span_id), one)

    @rule()
    def the_collector_is_another(self) -> None:
        self.store.close()
        self.store = self.opened()

    @invariant()
    def one_row_for_each_run_says_what_it_should(self) -> None:
        if self.slot.exists():
            assert kept(self.slot) == self.model

    @invariant()
    def a_row_has_a_new_number_once_it_says_something_else(self) -> None:
        for path in database_files(self.slot):
            with closing(open_for_reading(path)) as connection:
                for row in connection.execute("SELECT * FROM spans"):
                    said, number = self.numbers.get(row["span_id"], ("", 0))
                    now_says = repr(from_row(row).span)
                    assert row["seq"] == number if said == now_says else row["seq"] > number
                    self.numbers[row["span_id"]] = (now_says, row["seq"])

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


def told(known: Span | None, new: Span) -> Span:
    """Return what is to be known of a run once ``new`` has come: the rule, said plainly."""
    if known is None:
        return new

    def order(one: Span) -> tuple[int, bool, float]:
        return one.rank, one.trace_id != "", max(attempt.started_at for attempt in one.attempts)

    is_better = order(new) > order(known) and {new.rank, known.rank} != {Rank.CLIENT}
    best, other = (new, known) if is_better else (known, new)
    attempts = {}
    last = max(attempt.number for attempt in best.attempts)
    for number in (1, 2, 3):
        tries = [
            seen_from(best, one, attempt)
            for one in (best, other)
            for attempt in one.attempts
            if attempt.number == number
        ]
        if number > last and (best.rank, other.rank) == (Rank.WORKER, Rank.CLIENT):
            tries = []  # a client knows of no attempt after the worker's
        if tries:
            attempts[number] = next((attempt for attempt in tries if attempt.ended_at is not None), tries[0])
    return msgspec.structs.replace(best, attempts=list(attempts.values()))


def seen_from(best: Span, one: Span, attempt: SpanAttempt) -> SpanAttempt:
    """Return an attempt of ``one`` with the model that it asked, if ``best`` names another."""
    model = attempt.model or one.model
    asked = ("", "") if model == best.model else ("openai", model)
    return msgspec.structs.replace(attempt, provider=asked[0], model=asked[1])


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=repeated(30, 100), stateful_step_count=30, deadline=None)
