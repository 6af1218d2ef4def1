"""What a client's outbox promises.

In order, in bounded batches, again after a lost connection, and the oldest dropped and counted.
"""

from __future__ import annotations

from headrace.spans.outbox import FULL, MAX_BATCH_BYTES, MAX_BATCH_SPANS, SpanOutbox
from headrace.wire.messages import SpanBatch


def span(number: int, size: int = 10) -> bytes:
    return number.to_bytes(4, "big").ljust(size, b".")


def outbox_of(count: int, max_spans: int = 1000, max_bytes: int = 64 * 1024 * 1024) -> SpanOutbox:
    outbox = SpanOutbox(max_spans, max_bytes)
    for number in range(count):
        outbox.add(span(number))
    return outbox


def numbers(outbox: SpanOutbox) -> list[list[int]]:
    return [numbers_of(batch) for batch in outbox.batches()]


def numbers_of(batch: SpanBatch) -> list[int]:
    return [int.from_bytes(data[:4], "big") for data in batch.spans]


def test_batches_are_numbered_from_one_and_have_a_bounded_number_of_spans() -> None:
    outbox = outbox_of(MAX_BATCH_SPANS + 2)

    batches = list(outbox.batches())

    assert [(batch.sequence, len(batch.spans)) for batch in batches] == [(1, MAX_BATCH_SPANS), (2, 2)]
    assert list(outbox.batches()) == []
    assert len(outbox) == MAX_BATCH_SPANS + 2


def test_batches_have_a_bounded_number_of_bytes_and_what_is_larger_goes_alone() -> None:
    outbox = SpanOutbox(1000, 64 * MAX_BATCH_BYTES)
    for number, size in enumerate((MAX_BATCH_BYTES // 2, MAX_BATCH_BYTES // 2, 4, 2 * MAX_BATCH_BYTES, 4)):
        outbox.add(span(number, size))

    assert numbers(outbox) == [[0, 1], [2], [3], [4]]


def test_what_was_acknowledged_is_forgotten_and_the_rest_is_sent_again_in_its_order() -> None:
    outbox = SpanOutbox(1000, 10_000)
    for number in range(3):
        outbox.add(span(number))
        list(outbox.batches())
    outbox.add(span(3))

    outbox.acknowledged(1)
    assert len(outbox) == 3
    outbox.disconnected()

    assert numbers(outbox) == [[1, 2, 3]]
    outbox.acknowledged(3)
    assert len(outbox) == 3, "an acknowledgement of what the last connection was sent"
    outbox.acknowledged(4)
    assert len(outbox) == 0


def test_the_oldest_are_dropped_and_each_batch_says_how_many() -> None:
    outbox = outbox_of(5, max_spans=3)

    [batch] = outbox.batches()

    assert (numbers_of(batch), batch.dropped) == ([2, 3, 4], {FULL: 2})
    outbox.add(span(5))
    [batch] = outbox.batches()
    assert (numbers_of(batch), batch.dropped) == ([5], {FULL: 3})


def test_as_many_as_there_is_room_for_are_kept() -> None:
    assert len(outbox_of(3, max_spans=3)) == 3
    assert len(outbox_of(3, max_bytes=30)) == 3
    assert len(outbox_of(3, max_bytes=29)) == 2


def test_bytes_that_were_acknowledged_or_dropped_make_room() -> None:
    outbox = outbox_of(3, max_bytes=30)
    list(outbox.batches())
    outbox.acknowledged(1)
    for number in range(3, 6):
        outbox.add(span(number))
    assert len(outbox) == 3
    outbox.add(span(6))

    assert numbers(outbox) == [[4, 5, 6]]


def test_one_that_is_larger_than_all_the_room_is_kept_alone() -> None:
    outbox = outbox_of(3, max_bytes=30)
    outbox.add(span(3, 1000))

    assert len(outbox) == 1
    assert numbers(outbox) == [[3]]


def test_the_oldest_is_dropped_though_it_was_sent_and_is_not_sent_again() -> None:
    outbox = outbox_of(2, max_spans=3)
    list(outbox.batches())
    outbox.add(span(2))
    outbox.add(span(3))
    outbox.add(span(4))

    outbox.disconnected()

    assert len(outbox) == 3
    assert numbers(outbox) == [[2, 3, 4]]


def test_a_batch_of_which_all_was_dropped_is_acknowledged_without_effect() -> None:
    outbox = outbox_of(1, max_spans=1)
    list(outbox.batches())
    outbox.add(span(1))
    list(outbox.batches())

    outbox.acknowledged(1)
    assert len(outbox) == 1
    outbox.acknowledged(2)
    assert len(outbox) == 0
