"""What batching promises: each span is committed once, in order, soon, and acknowledged only afterwards."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.spans.outbox import FULL, SpanOutbox
from headrace_engine.spans.drop_counts import DropCounts
from headrace_engine.spans.flushing import MAX_OPEN, Flushes, bounded_timeout
from headrace_engine.spans.storage.batching import (
    FIRST_PAUSE,
    FULL_BYTES,
    MAX_BYTES,
    MAX_DELAY,
    MAX_PAUSE,
    MAX_SPANS,
    Batching,
)
from tests.repetition import repeated


def sequences(batching: Batching[str], now: float) -> list[int]:
    return [batch.sequence for batch in batching.take(now)]


def test_a_span_waits_for_others_but_not_for_long() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [b"a"], 10.0)
    batching.arrived("w2", 7, [b"b"], 10.05)

    assert batching.next_at == 10.0 + MAX_DELAY
    assert sequences(batching, 10.0 + MAX_DELAY - 0.01) == []
    assert sequences(batching, 10.0 + MAX_DELAY) == [1, 7]
    assert batching.committed() == {"w1": 1, "w2": 7}
    assert batching.span_count == 0
    assert batching.take(100.0) == []


def test_enough_spans_are_committed_at_once_and_a_commit_has_a_bound() -> None:
    batching: Batching[str] = Batching()
    for sequence in range(1, 5):
        batching.arrived("w1", sequence, [b"x"] * (MAX_SPANS // 2), 10.0)

    assert sequences(batching, 10.0) == [1, 2]
    assert batching.committed() == {"w1": 2}
    assert sequences(batching, 10.0) == [3, 4]


def test_large_spans_do_not_wait_for_the_timer() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [b"x" * (MAX_BYTES // 2)], 10.0)
    assert sequences(batching, 10.0) == []

    batching.arrived("w1", 2, [b"x" * (MAX_BYTES // 2)], 10.0)
    assert sequences(batching, 10.0) == [1, 2]


def test_a_batch_larger_than_a_commit_is_committed_whole() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [b"x"] * (MAX_SPANS * 3), 10.0)
    batching.arrived("w1", 2, [b"x"], 10.0)

    assert sequences(batching, 10.0) == [1]


def test_a_commit_has_at_most_two_mebibytes_or_one_batch() -> None:
    batching: Batching[str] = Batching()
    for number, size in enumerate([3_000_000, 1_000_000, 1_000_000, 500_000, 100]):
        batching.arrived("w", number, [bytes(size)], 0.0)

    sizes = []
    while taken := batching.take(1.0):
        sizes.append(sum(batch.size for batch in taken))
        batching.committed()
    assert sizes == [3_000_000, 2_000_000, 500_100]


def test_hurry_commits_at_once() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [b"a"], 10.0)
    batching.hurry()
    assert sequences(batching, 10.0) == [1]
    batching.committed()

    batching.arrived("w1", 2, [b"a"], 10.0)
    assert sequences(batching, 10.0) == []


def test_a_failed_commit_is_not_acknowledged_and_is_tried_again_with_growing_pauses() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [b"a"], 0.0)
    now, pauses = 1.0, []
    for _ in range(10):
        assert sequences(batching, now) == [1]
        pause = batching.failed(now)
        assert sequences(batching, now + pause * 0.9) == []
        now += pause
        pauses.append(pause)

    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, MAX_PAUSE)
    assert sequences(batching, now) == [1]
    assert batching.committed() == {"w1": 1}
    batching.arrived("w1", 2, [b"a"], now)
    assert batching.next_at == now + MAX_DELAY


def test_reading_stops_while_too_many_bytes_wait() -> None:
    batching: Batching[str] = Batching()
    batching.arrived("w1", 1, [bytes(FULL_BYTES // 2)], 0.0)
    assert not batching.is_full
    batching.arrived("w1", 2, [bytes(FULL_BYTES // 2)], 0.0)
    assert batching.is_full

    batching.take(MAX_DELAY)
    assert batching.is_full
    batching.committed()
    assert not batching.is_full


class Arrivals(RuleBasedStateMachine):
    """Batches come and commits succeed or fail, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.batching: Batching[str] = Batching()
        self.now = 0.0
        self.sent: list[tuple[str, int]] = []
        self.done: list[tuple[str, int]] = []
        self.acknowledged: dict[str, int] = {}

    @rule(sender=st.sampled_from(["w1", "w2"]), count=st.integers(0, 300))
    def comes(self, sender: str, count: int) -> None:
        sequence = sum(known == sender for known, _ in self.sent) + 1
        self.sent.append((sender, sequence))
        self.batching.arrived(sender, sequence, [b"x"] * count, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.1, 6.0]), works=st.booleans())
    def commits(self, seconds: float, works: bool) -> None:
        self.now += seconds
        taken = self.batching.take(self.now)
        if not taken:
            return
        if works:
            self.done += [(batch.sender, batch.sequence) for batch in taken]
            self.acknowledged |= self.batching.committed()
        else:
            self.batching.failed(self.now)

    @rule()
    def is_asked_to_hurry(self) -> None:
        self.batching.hurry()

    @invariant()
    def all_is_committed_in_order_and_then_acknowledged(self) -> None:
        assert self.done == self.sent[: len(self.done)]
        assert self.batching.committed_total == len(self.done)
        assert self.batching.arrived_total == len(self.sent)
        for sender in ("w1", "w2"):
            assert self.acknowledged.get(sender, 0) == sum(known == sender for known, _ in self.done)

    @invariant()
    def what_waits_is_due_sometime(self) -> None:
        assert (self.batching.next_at is None) == (len(self.done) == len(self.sent))

    def teardown(self) -> None:
        for _ in range(len(self.sent) + 1):
            self.commits(6.0, works=True)
        assert self.done == self.sent


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(max_examples=repeated(30, 100), deadline=None)


# Flushes.


def test_a_flush_ends_when_its_workers_have_sent_and_all_is_committed() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("c", 7, 5, 10.0)
    assert flushes.is_one_new
    number = flushes.begin(["w1", "w2"], 3)
    assert not flushes.is_one_new
    flushes.flushed("w1", number, 4)
    assert flushes.committed(9) == []
    flushes.flushed("w2", number, 6)

    assert flushes.committed(5) == []
    (flush,) = flushes.committed(6)
    assert (flush.client, flush.token) == ("c", 5)
    flushes.answered([flush])
    assert not flushes


def test_a_flush_without_workers_waits_for_earlier_spans() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("c", 7, 5, 10.0)
    assert flushes.committed(9) == []
    flushes.begin([], 3)

    assert flushes.committed(2) == []
    assert len(flushes.committed(3)) == 1


def test_a_flush_does_not_wait_for_an_ended_worker_and_a_client_that_left_gets_no_answer() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("c", 7, 5, 10.0)
    flushes.begin(["w1"], 0)
    flushes.left("w1")
    assert len(flushes.committed(0)) == 1

    flushes.left("c")
    assert not flushes


def test_a_flush_ends_when_its_time_is_up() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("c", 7, 5, 10.0)
    flushes.begin(["w1"], 0)

    assert flushes.expired(9.9) == []
    assert [flush.token for flush in flushes.expired(10.0)] == [5]


def test_the_flushes_of_one_turn_ask_each_worker_once_and_a_later_answer_counts_for_earlier_flushes() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("c", 7, 1, 10.0)
    flushes.asked("d", 8, 1, 10.0)
    first = flushes.begin(["w1"], 0)
    flushes.asked("c", 7, 2, 10.0)
    second = flushes.begin(["w1"], 0)
    assert (first, second) == (1, 2)

    flushes.flushed("w1", first, 0)
    assert [(flush.client, flush.token) for flush in flushes.committed(0)] == [("c", 1), ("d", 1)]
    flushes.flushed("w1", second, 0)
    assert len(flushes.committed(0)) == 3


def test_a_process_has_a_bounded_number_of_flushes_on_all_its_connections() -> None:
    flushes: Flushes[str] = Flushes()
    flushes.asked("other", 8, 1, 10.0)
    for number in range(10_000):
        flushes.asked(f"c{number % 50}", 7, number, 10.0)
    flushes.begin(["w1"], 0)

    early = flushes.expired(0.0)
    assert [flush.token for flush in early] == list(range(10_000 - MAX_OPEN)), "the oldest are answered as they are"
    flushes.answered(early)
    flushes.flushed("w1", 1, 0)
    left = flushes.committed(0)
    assert [flush.token for flush in left] == [1, *range(10_000 - MAX_OPEN, 10_000)], "another's is not touched"
    flushes.answered(left)
    assert not flushes


def test_a_client_that_left_gets_no_early_answer() -> None:
    flushes: Flushes[str] = Flushes()
    for number in range(MAX_OPEN + 5):
        flushes.asked("c", 7, number, 10.0)
    flushes.left("c")

    assert (flushes.expired(0.0), bool(flushes)) == ([], False)


# Counts.


def test_the_totals_of_a_sender_count_once_however_often_it_reports_them() -> None:
    totals = DropCounts()
    for count in (1, 4):
        totals.said(("worker", 7, 1), {"spool_full": count}, count)
    totals.said(("worker", 7, 2), {"spool_full": 2, "memory_full": 1}, 0)
    totals.lost("torn", 1)
    totals.lost("unreadable", 0)

    assert totals.dropped() == {"memory_full": 1, "spool_full": 6, "torn": 1}
    assert totals.untraced == 4


# The outbox of a client or the broker.


def test_an_outbox_keeps_what_is_not_acknowledged_and_sends_it_again_after_a_disconnect() -> None:
    outbox = SpanOutbox(max_spans=100, max_bytes=10_000)
    for number in range(3):
        outbox.add(b"%d" % number)
    (first,) = outbox.batches()
    outbox.add(b"3")
    (second,) = outbox.batches()
    assert [first.spans, second.spans] == [[b"0", b"1", b"2"], [b"3"]]
    assert list(outbox.batches()) == []

    outbox.acknowledged(first.sequence)
    outbox.add(b"4")
    outbox.disconnected()

    (third,) = outbox.batches()
    assert (third.spans, third.sequence > second.sequence) == ([b"3", b"4"], True)
    outbox.acknowledged(third.sequence)
    assert len(outbox) == 0


@pytest.mark.parametrize("is_sent", [False, True])
def test_an_outbox_has_a_bound_and_counts_what_it_drops(is_sent: bool) -> None:
    outbox = SpanOutbox(max_spans=3, max_bytes=100)
    for number in range(5):
        outbox.add(b"%d" % number)
        if is_sent:
            list(outbox.batches())
    assert len(outbox) == 3
    outbox.add(bytes(80))
    outbox.add(bytes(90))
    outbox.disconnected()

    (batch,) = outbox.batches()
    assert (batch.spans, batch.dropped) == ([bytes(90)], {FULL: 6})


def test_a_batch_of_an_outbox_is_small_unless_its_only_span_is_not() -> None:
    outbox = SpanOutbox(max_spans=1000, max_bytes=10_000_000)
    for size in (700_000, 700_000, 3_000_000, *[10] * 300):
        outbox.add(bytes(size))

    assert [len(batch.spans) for batch in outbox.batches()] == [1, 1, 1, 256, 44]


@pytest.mark.parametrize(
    ("asked", "given"), [(0.5, 0.5), (-1.0, 0.0), (float("nan"), 3600.0), (float("inf"), 3600.0), (1e300, 3600.0)]
)
def test_no_flush_is_open_for_ever(asked: float, given: float) -> None:
    assert bounded_timeout(asked) == given
