"""Promises of where a sink goes on: after a restart, without room for a note, and while files come and go."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from headrace.spans.span import Rank
from tests.e2e.fake_sinks import FakeSink, Say
from tests.e2e.sink_runs import Start, ids, only, runs, to_otlp
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import span
from tests.waiting import wait_until


def test_a_restart_goes_on_where_the_last_one_came_to(slot: SlotWriter, start: Start) -> None:
    with FakeSink() as fake:
        marks = slot.write(runs(10))
        first = start(otlp=to_otlp(fake))
        wait_until(lambda: first.is_caught_up(marks))
        first.close(5.0)
        marks = slot.write(runs(10, first=11))
        second = start(otlp=to_otlp(fake))
        wait_until(lambda: second.is_caught_up(marks))

        assert fake.taken() == ids(runs(20))


def test_a_place_that_cannot_be_written_costs_a_repetition_and_no_span(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(10))
    slot.execute("CREATE TRIGGER full BEFORE INSERT ON cursors BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with FakeSink() as fake:
        first = start(otlp=to_otlp(fake, batch_size=5))
        wait_until(lambda: first.is_caught_up(marks))
        assert fake.taken() == ids(runs(10))
        first.close(5.0)
        second = start(otlp=to_otlp(fake))
        wait_until(lambda: second.is_caught_up(marks))
        assert fake.taken() == ids(runs(10)) * 2

        slot.execute("DROP TRIGGER full")
        second.wake()
        wait_until(lambda: slot.execute("SELECT seq FROM cursors") == [(10,)])


def test_a_writer_that_holds_the_file_does_not_stop_a_sink(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(10))
    with FakeSink() as fake:
        with slot.locked():
            sinks = start(otlp=to_otlp(fake))
            wait_until(lambda: fake.taken() == ids(runs(10)))
        wait_until(lambda: sinks.is_caught_up(marks))


def test_files_are_read_the_oldest_first(slot: SlotWriter, start: Start) -> None:
    marks: dict[Path, int] = {}
    marks |= slot.write(runs(2, first=7), "2026-11-23", 10)
    marks |= slot.write(runs(2, first=5), "2026-11-23", 2)
    marks |= slot.write(runs(2, first=3), "2026-11-23")
    marks |= slot.write(runs(2, first=1), "2026-11-22")
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == ids(runs(8))


def test_a_file_may_be_removed_under_a_sink(slot: SlotWriter, start: Start) -> None:
    old = slot.write(runs(5), "2026-10-01")
    with FakeSink([Say(503, delay=2.0)]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: fake.received)
        slot.remove("2026-10-01")
        new = slot.write(runs(5, first=6))
        sinks.wake()
        wait_until(lambda: sinks.is_caught_up(new | old))

        assert fake.taken() == ids(runs(5, first=6))
        assert not list(slot.slot.glob("spans-2026-10-01*"))


def test_a_span_that_was_replaced_is_sent_again_under_its_id(slot: SlotWriter, start: Start) -> None:
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        for model in ("before", "after"):
            marks = slot.write([span(1, model=model), span(2)] if model == "before" else [span(1, model=model)])
            sinks.wake()
            wait_until(partial(sinks.is_caught_up, marks))

        assert fake.taken() == [span(1).span_id, span(2).span_id, span(1).span_id]


def test_a_mark_whose_span_lies_elsewhere_since_is_passed(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(3), "2026-11-22")
    slot.execute(f"DELETE FROM spans WHERE span_id = '{span(3).span_id}'", "2026-11-22")
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == ids(runs(2))


def test_a_file_that_was_moved_aside_as_damaged_is_followed_by_its_successor(slot: SlotWriter, start: Start) -> None:
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        marks = slot.write(runs(3))
        sinks.wake()
        wait_until(lambda: sinks.is_caught_up(marks))  # it has noted so too, and not in the file that comes next
        assert fake.taken() == ids(runs(3))
        slot.remove("2026-11-23")
        slot.write(runs(3, first=4))
        sinks.wake()

        wait_until(lambda: fake.taken() == ids(runs(6)))


@pytest.mark.slow
def test_of_a_lost_run_the_best_record_is_sent_and_not_the_first(slot: SlotWriter, start: Start) -> None:
    stub = span(1, rank=Rank.STUB, status="error", error_type="lost")
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        slot.write([stub, span(2, rank=Rank.STUB, status="error", error_type="lost")])
        sinks.wake()
        wait_until(lambda: only(sinks).pending == 2)
        marks = slot.write([span(1, rank=Rank.CLIENT, status="error", error_type="WorkerLostError"), span(3)])
        sinks.wake()
        assert not sinks.is_caught_up(marks)
        wait_until(lambda: sinks.is_caught_up(marks))

        assert sorted(fake.taken()) == ids(runs(3))
