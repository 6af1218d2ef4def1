"""Each span is acknowledged, waits, or is counted as dropped; in order, and within the bounds of memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace_workers.spans.unacknowledged_spans import (
    ENTRY_BYTES,
    MAX_BATCH_BYTES,
    MAX_BATCH_SPANS,
    MEMORY_FULL,
    SPOOL_ERROR,
    SPOOL_FULL,
    WINDOW,
    OutgoingBatch,
    SpoolPlace,
    UnacknowledgedSpans,
)
from tests.repetition import repeated

MIB = 1024 * 1024


def span(number: int, size: int = 16) -> bytes:
    return number.to_bytes(8, "big").ljust(size, b".")


def number_of(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")


class Spool:
    """The spans on the disk, by their places."""

    def __init__(self) -> None:
        self.spans: dict[tuple[int, int], bytes] = {}
        self.reads = 0
        self._size = 0

    def put(self, segment: int, data: bytes) -> SpoolPlace:
        place = SpoolPlace(segment, self._size, len(data))
        self._size += len(data)
        self.spans[segment, place.offset] = data
        return place

    def read(self, place: SpoolPlace) -> bytes | None:
        self.reads += 1
        return self.spans.get((place.segment, place.offset))


def no_spool(_: SpoolPlace) -> bytes | None:
    raise AssertionError("nothing is to be read back")


def numbers(batch: OutgoingBatch | None) -> list[int]:
    assert batch is not None
    return [number_of(data) for data in batch.spans]


def test_spans_leave_in_order_and_are_forgotten_when_acknowledged() -> None:
    outbox = UnacknowledgedSpans(MIB)
    for number in range(3):
        outbox.add(span(number), None)

    batch = outbox.take(no_spool)
    assert numbers(batch) == [0, 1, 2]
    assert outbox.take(no_spool) is None
    assert not outbox.is_empty

    outbox.committed(1)
    assert outbox.is_empty
    assert (outbox.acknowledged, outbox.memory) == (3, 0)


def test_a_batch_has_a_bounded_number_of_spans_and_of_bytes() -> None:
    outbox = UnacknowledgedSpans(64 * MIB)
    for number in range(MAX_BATCH_SPANS + 1):
        outbox.add(span(number), None)
    for _ in range(3):
        outbox.add(span(9, MAX_BATCH_BYTES // 2), None)
    outbox.add(span(10, 3 * MAX_BATCH_BYTES), None)

    sizes = [len(batch.spans) for _ in range(5) if (batch := outbox.take(no_spool)) is not None]
    assert sizes == [MAX_BATCH_SPANS, 2, 2, 1]


def test_at_most_a_window_of_batches_is_unacknowledged() -> None:
    outbox = UnacknowledgedSpans(MIB)
    for number in range(WINDOW + 2):
        outbox.add(span(number), None)
        batch = outbox.take(no_spool)
        assert (batch is not None) == (number < WINDOW)

    outbox.committed(1)
    assert numbers(outbox.take(no_spool)) == [WINDOW, WINDOW + 1]


def test_unacknowledged_batches_are_sent_again_to_a_new_collector() -> None:
    outbox = UnacknowledgedSpans(MIB)
    for number in range(3):
        outbox.add(span(number), None)
        outbox.take(no_spool)
    outbox.committed(1)
    outbox.reconnected()
    outbox.committed(3)
    assert outbox.acknowledged == 1, "it was not sent the others"

    outbox.add(span(3), None)
    batches = [outbox.take(no_spool) for _ in range(3)]
    assert [numbers(batch) for batch in batches] == [[1], [2], [3]]
    assert [batch.sequence for batch in batches if batch] == [2, 3, 4]


def test_spans_beyond_the_memory_are_read_back_from_the_spool() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(10 * 1000)
    for number in range(20):
        outbox.add(span(number, 1000), spool.put(1, span(number, 1000)))
    assert outbox.memory <= 10 * 1000

    assert numbers(outbox.take(spool.read)) == list(range(20))
    assert 0 < spool.reads <= 20


def test_without_a_spool_the_oldest_are_dropped_and_counted() -> None:
    outbox = UnacknowledgedSpans(10 * (1000 + ENTRY_BYTES))
    for number in range(25):
        outbox.add(span(number, 1000), None)

    assert numbers(outbox.take(no_spool)) == list(range(15, 25))
    assert outbox.dropped == {MEMORY_FULL: 15}


def test_spans_in_the_spool_leave_memory_before_spans_that_are_only_in_memory() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(5 * (1000 + ENTRY_BYTES))
    for number in range(5):
        outbox.add(span(number, 1000), spool.put(1, span(number, 1000)))
    for number in range(5, 8):
        outbox.add(span(number, 1000), None)

    assert numbers(outbox.take(spool.read)) == list(range(8))
    assert not outbox.dropped


def test_the_waiting_spans_of_a_removed_file_are_dropped() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(MIB)
    outbox.add(span(0), spool.put(1, span(0)))
    outbox.take(spool.read)
    outbox.add(span(1), spool.put(1, span(1)))
    outbox.add(span(2), spool.put(2, span(2)))
    assert (outbox.unacknowledged(1), outbox.unacknowledged(2)) == (2, 1)

    outbox.segment_dropped(1)
    assert outbox.dropped == {SPOOL_FULL: 1}
    outbox.committed(1)
    assert outbox.acknowledged == 1, "it was on its way"
    assert numbers(outbox.take(spool.read)) == [2]


def test_spans_that_the_disk_does_not_return_are_counted() -> None:
    outbox = UnacknowledgedSpans(ENTRY_BYTES)
    outbox.add(span(0), SpoolPlace(1, 0, 16))
    batch = outbox.take(lambda _: None)

    assert numbers(batch) == []
    assert outbox.dropped == {SPOOL_ERROR: 1}
    outbox.committed(1)
    assert outbox.is_empty
    assert outbox.acknowledged == 0


def test_counts_are_sent_even_without_a_span() -> None:
    outbox = UnacknowledgedSpans(MIB)
    batch = outbox.empty_batch()
    assert batch == OutgoingBatch(1, [])
    outbox.add(span(0), None)
    assert outbox.empty_batch() is None


def test_a_collector_that_cannot_store_gets_the_counts_with_the_number_of_its_last_batch() -> None:
    outbox = UnacknowledgedSpans(MIB)
    for number in range(WINDOW + 1):
        outbox.add(span(number, MAX_BATCH_BYTES // 4), None)
        outbox.take(no_spool)
    assert outbox.empty_batch() == OutgoingBatch(WINDOW, [])
    assert (outbox.sequence, outbox.in_flight, outbox.waiting) == (WINDOW, WINDOW, 1)

    outbox.reconnected()
    assert outbox.empty_batch() is None
    while outbox.take(no_spool) is not None:
        pass
    outbox.committed(WINDOW)
    assert numbers(outbox.take(no_spool)) == [WINDOW]


def test_it_knows_when_all_spans_up_to_one_are_sent() -> None:
    outbox = UnacknowledgedSpans(MIB)
    assert outbox.has_sent_up_to(outbox.added)
    outbox.add(span(0), None)
    mark = outbox.added
    assert not outbox.has_sent_up_to(mark)
    outbox.take(no_spool)
    outbox.add(span(1), None)
    assert outbox.has_sent_up_to(mark)
    outbox.reconnected()
    assert not outbox.has_sent_up_to(mark), "a new collector has not been sent it"


# Removed files of the spool.


def test_sent_spans_of_a_removed_file_are_sent_again_from_memory_or_counted() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(1000 + 2 * ENTRY_BYTES)
    for number in range(2):  # the second span is only in the spool: memory has room for one
        outbox.add(span(number, 1000), spool.put(1, span(number, 1000)))
    assert numbers(outbox.take(spool.read)) == [0, 1]

    outbox.segment_dropped(1)
    assert not outbox.dropped, "both are on their way"
    assert (outbox.in_flight, outbox.waiting, outbox.unacknowledged(1)) == (2, 0, 0)

    outbox.reconnected()
    assert numbers(outbox.take(no_spool)) == [0]
    assert outbox.dropped == {SPOOL_FULL: 1}
    assert (outbox.in_flight, outbox.waiting, outbox.memory) == (1, 0, 1000 + ENTRY_BYTES)
    outbox.committed(1)
    assert (outbox.acknowledged, outbox.memory, outbox.is_empty) == (1, 0, True)


def test_only_the_spans_of_a_removed_file_are_lost() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(5 * ENTRY_BYTES)  # all spans are only in the spool
    for number, segment in enumerate((1, 2)):
        outbox.add(span(number, 1000), spool.put(segment, span(number, 1000)))
    outbox.take(spool.read)
    for number, segment in enumerate((1, 2, 1), start=2):
        outbox.add(span(number, 1000), spool.put(segment, span(number, 1000)))

    outbox.segment_dropped(1)
    outbox.reconnected()

    assert numbers(outbox.take(spool.read)) == [1]
    assert numbers(outbox.take(spool.read)) == [3]
    assert outbox.dropped == {SPOOL_FULL: 3}
    assert (outbox.unacknowledged(1), outbox.unacknowledged(2)) == (0, 2)
    outbox.committed(2)
    assert (outbox.unacknowledged(2), outbox.memory) == (0, 0)


def test_a_span_that_is_dropped_twice_is_counted_once() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(MIB)
    for number in range(2):
        outbox.add(span(number), spool.put(1, span(number)))
    outbox.segment_dropped(1)
    outbox.segment_dropped(1)

    assert outbox.dropped == {SPOOL_FULL: 2}
    assert (outbox.waiting, outbox.memory, outbox.unacknowledged(1), outbox.is_empty) == (0, 0, 0, True)


def test_dropped_spans_take_no_memory_and_the_others_keep_their_order() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(64 * MIB)
    tracemalloc.start()
    try:
        outbox.add(span(0), spool.put(1, span(0)))
        for number in range(1, 6001):
            outbox.add(span(number), spool.put(2, span(number)))
        outbox.add(span(6001), spool.put(3, span(6001)))
        before, _ = tracemalloc.get_traced_memory()

        outbox.segment_dropped(2)

        freed = before - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (outbox.waiting, outbox.dropped) == (2, {SPOOL_FULL: 6000})
    assert freed > 6000 * 100, "a span in memory takes more than 100 bytes beside its text"
    assert not outbox.has_sent_up_to(1)
    assert numbers(outbox.take(no_spool)) == [0, 6001]
    assert (outbox.waiting, outbox.in_flight) == (0, 2)
    outbox.committed(1)
    assert (outbox.acknowledged, outbox.memory, outbox.is_empty) == (2, 0, True)


def test_a_few_dropped_spans_among_others_are_skipped() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(MIB)
    for number, segment in enumerate((1, 2, 2, 1, 2, 1)):
        outbox.add(span(number), spool.put(segment, span(number)))

    outbox.segment_dropped(2)

    assert (outbox.waiting, outbox.dropped) == (3, {SPOOL_FULL: 3})
    assert numbers(outbox.take(no_spool)) == [0, 3, 5]
    assert (outbox.waiting, outbox.has_sent_up_to(6)) == (0, True)


def test_dropped_spans_at_the_front_do_not_count_as_unsent() -> None:
    spool, outbox = Spool(), UnacknowledgedSpans(MIB)
    outbox.add(span(0), spool.put(1, span(0)))
    outbox.add(span(1), spool.put(2, span(1)))
    outbox.segment_dropped(1)

    assert outbox.has_sent_up_to(1)
    assert not outbox.has_sent_up_to(2)


def test_a_span_larger_than_the_memory_drops_no_other() -> None:
    outbox = UnacknowledgedSpans(1000)
    outbox.add(span(0), None)
    outbox.add(span(1, 2000), None)

    assert outbox.dropped == {MEMORY_FULL: 1}
    assert numbers(outbox.take(no_spool)) == [0]


def test_a_span_that_just_fits_is_kept() -> None:
    outbox = UnacknowledgedSpans(2 * (100 + ENTRY_BYTES))
    for number in range(2):
        outbox.add(span(number, 100), None)

    assert (outbox.memory, outbox.dropped, outbox.waiting) == (2 * (100 + ENTRY_BYTES), {}, 2)


def test_room_is_made_by_dropping_waiting_spans_and_not_spans_in_flight() -> None:
    outbox = UnacknowledgedSpans(3 * (100 + ENTRY_BYTES))
    outbox.add(span(0, 100), None)
    outbox.take(no_spool)
    for number in range(1, 5):
        outbox.add(span(number, 100), None)

    assert outbox.dropped == {MEMORY_FULL: 2}
    assert numbers(outbox.take(no_spool)) == [3, 4]
    outbox.reconnected()
    assert numbers(outbox.take(no_spool)) == [0]


class Outboxes(RuleBasedStateMachine):
    """Events in any order, with a collector that keeps what it acknowledges, and a disk that fails sometimes."""

    def __init__(self) -> None:
        super().__init__()
        self.spool = Spool()
        self.segment = 1
        self.added = 0
        self.on_their_way: list[OutgoingBatch] = []  # to the current collector
        self.taken: list[int] = []  # taken by collectors, in the order of arrival
        self.acknowledged: set[int] = set()

    @initialize(memory=st.sampled_from([0, 3000, 20_000]))
    def begin(self, memory: int) -> None:
        self.limit = memory
        self.outbox = UnacknowledgedSpans(memory)

    @rule(sizes=st.lists(st.sampled_from([16, 100, 2000]), min_size=1, max_size=30), spooled=st.booleans())
    def runs_end(self, sizes: list[int], spooled: bool) -> None:
        for size in sizes:
            data = span(self.added, size)
            self.added += 1
            self.outbox.add(data, self.spool.put(self.segment, data) if spooled else None)

    @rule(count=st.integers(1, 3))
    def sends(self, count: int) -> None:
        for _ in range(count):
            batch = self.outbox.take(self.spool.read)
            if batch is not None:
                assert len(batch.spans) <= MAX_BATCH_SPANS
                assert len(batch.spans) == 1 or sum(map(len, batch.spans)) <= MAX_BATCH_BYTES
                if self.on_their_way:
                    assert batch.sequence == self.on_their_way[-1].sequence + 1
                self.on_their_way.append(batch)

    @rule(count=st.integers(1, 10))
    def collector_commits(self, count: int) -> None:
        done, self.on_their_way = self.on_their_way[:count], self.on_their_way[count:]
        for batch in done:
            self.acknowledged.update(map(number_of, batch.spans))
        if done:
            self.outbox.committed(done[-1].sequence)

    @rule()
    def an_acknowledgement_comes_twice_or_makes_no_sense(self) -> None:
        if not self.on_their_way:
            self.outbox.committed(10**9)

    @rule()
    def collector_is_replaced(self) -> None:
        self.on_their_way.clear()
        self.outbox.reconnected()

    @rule()
    def spool_goes_on_in_another_file(self) -> None:
        self.segment += 1

    @rule()
    def oldest_file_is_given_up(self) -> None:
        files = sorted({segment for segment, _ in self.spool.spans})
        if files and files[0] != self.segment:
            self.outbox.segment_dropped(files[0])
            assert self.outbox.unacknowledged(files[0]) == 0
            self.spool.spans = {at: data for at, data in self.spool.spans.items() if at[0] != files[0]}

    @rule(drawn=st.data())
    def disk_loses_a_span(self, drawn: st.DataObject) -> None:
        if self.spool.spans:
            del self.spool.spans[drawn.draw(st.sampled_from(sorted(self.spool.spans)))]

    @invariant()
    def every_span_is_somewhere(self) -> None:
        outbox = self.outbox
        dropped = sum(outbox.dropped.values())
        assert self.added == outbox.acknowledged + outbox.waiting + outbox.in_flight + dropped
        assert outbox.acknowledged == len(self.acknowledged)
        assert min(outbox.waiting, outbox.in_flight) >= 0

    @invariant()
    def memory_is_bounded(self) -> None:
        assert 0 <= self.outbox.memory <= self.limit

    @invariant()
    def window_is_bounded_and_in_order(self) -> None:
        assert len(self.on_their_way) <= WINDOW
        sent = [number_of(data) for batch in self.on_their_way for data in batch.spans]
        assert sent == sorted(sent)
        assert not self.acknowledged.intersection(sent), "what was acknowledged is not sent again"

    def teardown(self) -> None:
        if not hasattr(self, "outbox"):
            return
        while not self.outbox.is_empty:
            self.sends(WINDOW)
            self.collector_commits(WINDOW)
        assert self.outbox.memory == 0
        assert self.added == len(self.acknowledged) + sum(self.outbox.dropped.values())
        assert all(self.outbox.unacknowledged(segment) == 0 for segment in range(self.segment + 1))


TestAnyOrder: Callable[..., object] = Outboxes.TestCase
Outboxes.TestCase.settings = settings(max_examples=repeated(30, 60), stateful_step_count=40, deadline=None)
